-- 'found_…': rows that the inbox did not know, by how they were first found. 'contact_index': rows of that table, which is too
-- long to be counted at each look. 'last_event': when the newest event was stored; absent until one was.
INSERT INTO counter (name, n) VALUES ('found_event', 0), ('found_short_sweep', 0), ('found_sweep', 0), ('found_backfill', 0);

INSERT INTO counter (name, n) SELECT 'contact_index', count(*) FROM contact_index;

INSERT INTO counter (name, n) SELECT 'last_event', max(stored_at) FROM entry WHERE delivery IS NOT NULL HAVING count(*) > 0;
