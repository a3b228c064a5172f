-- The number of the last backfill by which a person asked for the row; whoever asks for an old row wants it synced, however
-- else we hear of it.
ALTER TABLE entry ADD COLUMN backfill INTEGER;

-- What has become of a backfill's rows is answered from the index alone.
CREATE INDEX entry_backfill ON entry (backfill, state, outcome, due_at) WHERE backfill IS NOT NULL;

-- 'backfill': the number of the last one.
INSERT INTO counter (name, n) VALUES ('backfill', 0);
