-- The contact index: which contact of the account has which e-mail; for a contact without an e-mail, which phone. Derived: it
-- can be read again from amoCRM at any time. `hash` is the 16 bytes of a keyed hash.
CREATE TABLE contact_index (
    hash    BLOB    NOT NULL CHECK (length(hash) = 16),
    contact INTEGER NOT NULL,
    PRIMARY KEY (hash, contact)
) STRICT, WITHOUT ROWID;

-- A contact that has changed replaces all that is known of it.
CREATE INDEX contact_index_contact ON contact_index (contact);
