-- An inbox as it was written when history was told in words and progress was a list of options. Never changed.
BEGIN TRANSACTION;
CREATE TABLE _sqlx_migrations (
    version BIGINT PRIMARY KEY,
    description TEXT NOT NULL,
    installed_on TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP,
    success BOOLEAN NOT NULL,
    checksum BLOB NOT NULL,
    execution_time BIGINT NOT NULL
);
INSERT INTO "_sqlx_migrations" VALUES(1,'inbox','2026-11-29 09:22:02',1,X'0EB2DA5C10CF80DD90D00B4B4D6007320FCFF10880ADAE89F5676223E6CF71A043DAEACA8F92A0F30E20B2D272253BC3',1545210);
INSERT INTO "_sqlx_migrations" VALUES(2,'backfill','2026-11-29 09:22:02',1,X'CA64D0FBBB050CA3DFE124DD8C9377EFE7AF328BFAFA5811113B33559F170964B802BEEF99BD5270D5BB2D75EA8D2518',1037301);
INSERT INTO "_sqlx_migrations" VALUES(3,'gone','2026-11-29 09:22:02',1,X'B0602B65684A40E1BD4D30C05B825A3D5FEC80B64282B8031D6243F515D09C1C124647D5914D6110C66278ED9397F9CC',327420);
INSERT INTO "_sqlx_migrations" VALUES(4,'contact index','2026-11-29 09:22:02',1,X'8094CA3C3B8AAE8C95C8137638402E086382634378337106F1DB1CC82D7F123FFF05380336817574C00F59EE346573D3',384927);
CREATE TABLE contact_index (
    hash    BLOB    NOT NULL CHECK (length(hash) = 16),
    contact INTEGER NOT NULL,
    PRIMARY KEY (hash, contact)
) STRICT, WITHOUT ROWID;
CREATE TABLE counter (
    name TEXT    PRIMARY KEY NOT NULL,
    n    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO "counter" VALUES('backfill',0);
INSERT INTO "counter" VALUES('claim',1);
INSERT INTO "counter" VALUES('probe',0);
INSERT INTO "counter" VALUES('work',0);
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
    events         INTEGER NOT NULL DEFAULT 0, backfill INTEGER,
    CHECK ((state = 'claimed') = (claim IS NOT NULL)),
    CHECK ((state = 'done') = (outcome IS NOT NULL))
) STRICT;
INSERT INTO "entry" VALUES(1,'00000000-0000-0000-0000-000000000001','live','waiting',1795341600000,NULL,0,'msg_1',NULL,'нет контакта','{"person":"01010101010101010101010101010101","phone":"02020202020202020202020202020202","absent_since":"2026-11-22T10:00:00Z","missed_since":"2026-11-22T10:00:00Z","daily_searches":{"in_vain":3,"next_from":"2026-11-22T10:00:00Z"},"choice":null,"placed":null,"noted":false,"intent":null,"alone":true,"unreadable":2}','01010101010101010101010101010101','02020202020202020202020202020202',NULL,0,1795341600000,1795341600000,1795341600000,0,2,NULL);
INSERT INTO "entry" VALUES(2,'00000000-0000-0000-0000-000000000002','live','waiting',1795341600000,NULL,0,'msg_2',NULL,'нет контакта','{"person":null,"phone":null,"absent_since":null,"missed_since":null,"daily_searches":{"in_vain":0,"next_from":null},"choice":{"fingerprint":"09090909090909090909090909090909","contact":5,"deal":1,"why":"open"},"placed":null,"noted":false,"intent":null,"alone":false,"unreadable":0}',NULL,NULL,5,1,1795341600000,1795341600000,1795341600000,0,2,NULL);
INSERT INTO "entry" VALUES(3,'00000000-0000-0000-0000-000000000003','live','waiting',1795341600000,NULL,0,'msg_3',NULL,'нет контакта','{"person":"01010101010101010101010101010101","phone":null,"absent_since":null,"missed_since":null,"daily_searches":{"in_vain":0,"next_from":null},"choice":{"fingerprint":"09090909090909090909090909090909","contact":5,"deal":null,"why":"no usable deal"},"placed":null,"noted":false,"intent":{"write":"create","decisive_from":"2026-11-22T10:00:00Z","name":"03030303030303030303030303030303","after_deal":7,"after_contact":null},"alone":false,"unreadable":0}','01010101010101010101010101010101',NULL,5,1,1795341600000,1795341600000,1795341600000,0,2,NULL);
INSERT INTO "entry" VALUES(4,'00000000-0000-0000-0000-000000000004','live','waiting',1795341600000,NULL,0,'msg_4',NULL,'нет контакта','{"person":"01010101010101010101010101010101","phone":null,"absent_since":null,"missed_since":null,"daily_searches":{"in_vain":0,"next_from":null},"choice":{"fingerprint":"09090909090909090909090909090909","contact":null,"deal":null,"why":"no contact"},"placed":null,"noted":false,"intent":{"write":"create","decisive_from":"2026-11-22T10:00:00Z","name":"03030303030303030303030303030303","after_deal":0,"after_contact":8},"alone":false,"unreadable":0}','01010101010101010101010101010101',NULL,NULL,1,1795341600000,1795341600000,1795341600000,0,2,NULL);
INSERT INTO "entry" VALUES(5,'00000000-0000-0000-0000-000000000005','live','waiting',1795341600000,NULL,0,'msg_5',NULL,'нет контакта','{"person":null,"phone":null,"absent_since":null,"missed_since":null,"daily_searches":{"in_vain":0,"next_from":null},"choice":{"fingerprint":"09090909090909090909090909090909","contact":5,"deal":1,"why":"open"},"placed":"moved","noted":false,"intent":null,"alone":false,"unreadable":0}',NULL,NULL,5,1,1795341600000,1795341600000,1795341600000,0,2,NULL);
INSERT INTO "entry" VALUES(6,'00000000-0000-0000-0000-000000000006','live','waiting',1795341600000,NULL,0,'msg_6',NULL,'нет контакта','{"person":null,"phone":null,"absent_since":null,"missed_since":null,"daily_searches":{"in_vain":0,"next_from":null},"choice":{"fingerprint":"09090909090909090909090909090909","contact":5,"deal":1,"why":"open"},"placed":"created","noted":false,"intent":{"write":"note","decisive_from":"2026-11-22T10:00:00Z"},"alone":false,"unreadable":0}',NULL,NULL,5,1,1795341600000,1795341600000,1795341600000,0,2,NULL);
INSERT INTO "entry" VALUES(7,'00000000-0000-0000-0000-000000000007','live','waiting',1795341600000,NULL,0,'msg_7',NULL,'нет контакта','{"person":null,"phone":null,"absent_since":null,"missed_since":null,"daily_searches":{"in_vain":0,"next_from":null},"choice":{"fingerprint":"09090909090909090909090909090909","contact":5,"deal":1,"why":"open"},"placed":"left","noted":true,"intent":null,"alone":false,"unreadable":0}',NULL,NULL,5,0,1795341600000,1795341600000,1795341600000,0,2,NULL);
CREATE TABLE hash_key (
    id  INTEGER PRIMARY KEY CHECK (id = 1),
    key BLOB NOT NULL CHECK (length(key) = 32)
) STRICT;
INSERT INTO "hash_key" VALUES(1,X'5F159E2386240FB04AB337FABCD9B9F21A99D165BA897106A3799BCD7F4083EF');
CREATE TABLE history (
    entry INTEGER NOT NULL REFERENCES entry (seq) ON DELETE CASCADE,
    nr    INTEGER NOT NULL,
    at    INTEGER NOT NULL,
    text  TEXT    NOT NULL,
    PRIMARY KEY (entry, nr)
) STRICT, WITHOUT ROWID;
INSERT INTO "history" VALUES(1,1,1795341600000,'delivery msg_1');
INSERT INTO "history" VALUES(1,2,1795341600000,'deal 1 chosen: open; moved; noted; again: нет соединения с amoCRM');
INSERT INTO "history" VALUES(2,1,1795341600000,'delivery msg_2');
INSERT INTO "history" VALUES(2,2,1795341600000,'deal 1 chosen: open; moved; noted; again: нет соединения с amoCRM');
INSERT INTO "history" VALUES(3,1,1795341600000,'delivery msg_3');
INSERT INTO "history" VALUES(3,2,1795341600000,'deal 1 chosen: open; moved; noted; again: нет соединения с amoCRM');
INSERT INTO "history" VALUES(4,1,1795341600000,'delivery msg_4');
INSERT INTO "history" VALUES(4,2,1795341600000,'deal 1 chosen: open; moved; noted; again: нет соединения с amoCRM');
INSERT INTO "history" VALUES(5,1,1795341600000,'delivery msg_5');
INSERT INTO "history" VALUES(5,2,1795341600000,'deal 1 chosen: open; moved; noted; again: нет соединения с amoCRM');
INSERT INTO "history" VALUES(6,1,1795341600000,'delivery msg_6');
INSERT INTO "history" VALUES(6,2,1795341600000,'deal 1 chosen: open; moved; noted; again: нет соединения с amoCRM');
INSERT INTO "history" VALUES(7,1,1795341600000,'delivery msg_7');
INSERT INTO "history" VALUES(7,2,1795341600000,'deal 1 chosen: open; moved; noted; again: нет соединения с amoCRM');
CREATE TABLE person (
    hash    TEXT    PRIMARY KEY NOT NULL,
    contact INTEGER NOT NULL,
    deal    INTEGER NOT NULL,
    used_at INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE TABLE state (
    key  TEXT PRIMARY KEY NOT NULL,
    json TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX entry_due ON entry (lane, due_at, seq) WHERE state IN ('pending', 'waiting');
CREATE INDEX entry_waiting ON entry (person, phone) WHERE state = 'waiting';
CREATE INDEX entry_crm_open ON entry (person, contact) WHERE crm_open = 1 AND state <> 'done';
CREATE INDEX entry_by_state ON entry (state, updated_at, pending_since);
CREATE INDEX entry_backfill ON entry (backfill, state, outcome, due_at) WHERE backfill IS NOT NULL;
CREATE INDEX entry_gone ON entry (updated_at) WHERE outcome = 'gone';
CREATE INDEX contact_index_contact ON contact_index (contact);
COMMIT;
