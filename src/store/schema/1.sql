-- Workflows. `wf` is the key inside this file, `id` the one that people see. The counts and the status follow from the
-- items and are kept here so that a summary never reads 10,000 rows.
CREATE TABLE workflows (
    wf INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    owner TEXT NOT NULL,
    idempotency_key TEXT UNIQUE,
    created_at_ms INTEGER NOT NULL,
    updated_at_ms INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    status TEXT NOT NULL,
    planned INTEGER NOT NULL,
    queued INTEGER NOT NULL,
    running INTEGER NOT NULL,
    succeeded INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    timed_out INTEGER NOT NULL,
    cancelled INTEGER NOT NULL,
    interrupted INTEGER NOT NULL,
    record TEXT NOT NULL
) STRICT;
CREATE INDEX workflows_unfinished ON workflows (owner) WHERE queued + running > 0;

-- What workers get, each text once per workflow.
CREATE TABLE works (
    work INTEGER PRIMARY KEY,
    wf INTEGER NOT NULL REFERENCES workflows ON DELETE CASCADE,
    json TEXT NOT NULL
) STRICT;
CREATE INDEX works_wf ON works (wf);

-- The latest state of every item.
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
CREATE INDEX items_repo ON items (repo, wf);
CREATE INDEX items_running ON items (wf, pool) WHERE state = 'running';

-- The attempts before the latest one.
CREATE TABLE attempts (
    wf INTEGER NOT NULL REFERENCES workflows ON DELETE CASCADE,
    item INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    record TEXT NOT NULL,
    UNIQUE (wf, item, attempt)
) STRICT;

-- What other servers ask a workflow's owner to do.
CREATE TABLE requests (
    request INTEGER PRIMARY KEY,
    wf INTEGER NOT NULL REFERENCES workflows ON DELETE CASCADE,
    json TEXT NOT NULL
) STRICT;
CREATE INDEX requests_wf ON requests (wf);

-- What callers could not be told; delivered once.
CREATE TABLE notices (
    notice INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    workflow TEXT,
    text TEXT NOT NULL
) STRICT;
