-- Creates of deals that were given up as never carried out, and when each is looked for a last time.
CREATE TABLE given_up (
    entry    INTEGER NOT NULL REFERENCES entry (seq) ON DELETE CASCADE,
    -- Keyed hash of the deal's name.
    name     TEXT    NOT NULL,
    -- JSON: the contact of the deal.
    made_for TEXT    NOT NULL,
    -- NULL: the look has found deals.
    look_at  INTEGER,
    found_at INTEGER,
    -- The row's own deal, and the others as JSON.
    deal     INTEGER,
    late     TEXT,
    CHECK ((look_at IS NULL) = (found_at IS NOT NULL)),
    PRIMARY KEY (entry, name)
) STRICT, WITHOUT ROWID;

CREATE INDEX given_up_due ON given_up (look_at) WHERE look_at IS NOT NULL;
CREATE INDEX given_up_found ON given_up (found_at) WHERE found_at IS NOT NULL;
