-- Fixed work for SQLite: rows in, indexed, read in several orders, changed, gone.
.bail on
CREATE TABLE item (id INTEGER PRIMARY KEY, kind INTEGER, name TEXT);
BEGIN;
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 40000)
INSERT INTO item SELECT i, i * 7919 % 101, printf('name %d', i * 104729 % 99991) FROM n;
CREATE INDEX by_kind ON item (kind);
COMMIT;
SELECT count(*), sum(length(name)) FROM item;
SELECT kind, count(*), max(name) FROM item GROUP BY kind ORDER BY 2 DESC, 1 LIMIT 5;
SELECT name FROM item ORDER BY name DESC LIMIT 5;
SELECT count(*) FROM item a JOIN item b ON a.kind = b.kind AND b.id < 500;
UPDATE item SET name = upper(name) WHERE kind % 3 = 0;
DELETE FROM item WHERE name LIKE '%7%';
SELECT count(*) FROM item;
