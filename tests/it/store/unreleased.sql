-- What a store of the last development version before the first release held of a run, for the test of its refusal.
PRAGMA journal_mode = WAL;
CREATE TABLE workflows (wf INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, record TEXT NOT NULL) STRICT;
CREATE TABLE works (work INTEGER PRIMARY KEY, wf INTEGER NOT NULL, json TEXT NOT NULL) STRICT;
CREATE TABLE items (
    wf INTEGER NOT NULL REFERENCES workflows ON DELETE CASCADE,
    item INTEGER NOT NULL,
    state TEXT NOT NULL,
    attempt INTEGER NOT NULL,
    pool TEXT,
    repo TEXT NOT NULL,
    work INTEGER NOT NULL,
    record TEXT NOT NULL,
    UNIQUE (wf, item)
) STRICT;
INSERT INTO workflows VALUES (1, '01ARZ3NDEKTSV4RRFFQ69G5FAV', '{}');
INSERT INTO items VALUES
    (1, 0, 'succeeded', 1, 'local', '/repos/a', 1, '{"item": 0, "branch": "mahavishnu/one", "commit": "c0ffee"}'),
    (1, 1, 'succeeded', 1, 'local', '/repos/b', 1, '{"item": 1, "branch": "mahavishnu/two", "applied": "merge"}'),
    (1, 2, 'failed', 1, 'local', '/repos/c', 1, '{"item": 2}');
PRAGMA user_version = 7;
