-- Times are Unix milliseconds, spans of working time are microseconds, hashes are 32 hex digits.
-- No column holds a name, an e-mail address, a phone number or a password.

CREATE TABLE entry (
    seq            INTEGER PRIMARY KEY,
    row_id         TEXT    NOT NULL UNIQUE,
    lane           TEXT    NOT NULL CHECK (lane IN ('live', 'backfill')),
    state          TEXT    NOT NULL CHECK (state IN ('pending', 'claimed', 'waiting', 'parked', 'done')),
    due_at         INTEGER NOT NULL,
    claim          INTEGER,
    attempts       INTEGER NOT NULL DEFAULT 0,
    delivery       TEXT,
    outcome        TEXT,
    reason         TEXT,
    progress       TEXT    NOT NULL DEFAULT '{}',
    -- Derived from progress at each write, so that other entries can be compared with this one by a query.
    person         TEXT,
    phone          TEXT,
    contact        INTEGER,
    crm_open       INTEGER NOT NULL DEFAULT 0,
    stored_at      INTEGER NOT NULL,
    updated_at     INTEGER NOT NULL,
    -- Since when it is pending or claimed without a break: an entry that waited a month for a contact is not late.
    pending_since  INTEGER NOT NULL,
    opened_at_work INTEGER NOT NULL,
    -- Number of the newest line of its history.
    events         INTEGER NOT NULL DEFAULT 0,
    CHECK ((state = 'claimed') = (claim IS NOT NULL)),
    CHECK ((state = 'done') = (outcome IS NOT NULL))
) STRICT;

CREATE INDEX entry_due ON entry (lane, due_at, seq) WHERE state IN ('pending', 'waiting');
CREATE INDEX entry_waiting ON entry (person, phone) WHERE state = 'waiting';
CREATE INDEX entry_crm_open ON entry (person, contact) WHERE crm_open = 1 AND state <> 'done';
-- Lists, counts, claims to void and the purge; counts are answered from the index alone.
CREATE INDEX entry_by_state ON entry (state, updated_at, pending_since);

CREATE TABLE history (
    entry INTEGER NOT NULL REFERENCES entry (seq) ON DELETE CASCADE,
    nr    INTEGER NOT NULL,
    at    INTEGER NOT NULL,
    text  TEXT    NOT NULL,
    PRIMARY KEY (entry, nr)
) STRICT, WITHOUT ROWID;

CREATE TABLE person (
    hash    TEXT    PRIMARY KEY NOT NULL,
    contact INTEGER NOT NULL,
    deal    INTEGER NOT NULL,
    used_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- The engine's own state, one JSON value per key.
CREATE TABLE state (
    key  TEXT PRIMARY KEY NOT NULL,
    json TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- 'claim': the last claim token; 'work': working time in microseconds; 'probe': writes made to see whether writing works.
CREATE TABLE counter (
    name TEXT    PRIMARY KEY NOT NULL,
    n    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO counter (name, n) VALUES ('claim', 0), ('work', 0), ('probe', 0);

-- The key of all hashes: made at the first start and never changed, or nobody would be recognised again.
CREATE TABLE hash_key (
    id  INTEGER PRIMARY KEY CHECK (id = 1),
    key BLOB NOT NULL CHECK (length(key) = 32)
) STRICT;
