-- Of the choice that progress holds; progress that cannot be read has none. Derived when it is read, so that an earlier version,
-- which does not know the column, keeps it right as well.
ALTER TABLE entry ADD COLUMN chosen_deal INTEGER
    GENERATED ALWAYS AS (CASE WHEN json_valid(progress) THEN progress ->> '$.choice.deal' END) VIRTUAL;

-- A person looks for a student by the number of a deal or a contact.
CREATE INDEX entry_chosen_deal ON entry (chosen_deal) WHERE chosen_deal IS NOT NULL;
CREATE INDEX entry_contact ON entry (contact) WHERE contact IS NOT NULL;

-- The last 31 days, hour by hour, in hours since 1970: how many rows were synced, and how many waited and were parked when that
-- was last looked at. NULL: it was not looked at in that hour.
CREATE TABLE hourly (
    hour    INTEGER PRIMARY KEY,
    synced  INTEGER NOT NULL DEFAULT 0,
    waiting INTEGER,
    parked  INTEGER
) STRICT;

INSERT INTO hourly (hour, synced)
SELECT updated_at / 3600000, count(*) FROM entry WHERE state = 'done' AND outcome = 'synced' GROUP BY 1;
