-- Entries of removed rows are purged sooner than others.
CREATE INDEX entry_gone ON entry (updated_at) WHERE outcome = 'gone';
