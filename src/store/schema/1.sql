-- Workflows. `wf` is the key inside this file, `id` the one that people see. The counts and the status follow from the
-- items and are kept here so that a summary never reads 10,000 rows. `settings` is JSON.
CREATE TABLE workflows (
    wf INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    owner TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    single INTEGER NOT NULL,
    settings TEXT NOT NULL,
    idempotency_key TEXT UNIQUE,
    arguments_hash TEXT NOT NULL,
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
    interrupted INTEGER NOT NULL
) STRICT;
CREATE INDEX workflows_unfinished ON workflows (owner) WHERE queued + running > 0;

-- What workers get, each text once per workflow.
CREATE TABLE works (
    work INTEGER PRIMARY KEY,
    wf INTEGER NOT NULL REFERENCES workflows ON DELETE CASCADE,
    json TEXT NOT NULL
) STRICT;
CREATE INDEX works_wf ON works (wf);

-- The latest record of every item. The columns before `record` repeat what queries need of it.
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

-- What other servers ask a workflow's owner to do. `taken`: the owner has begun to; `reply` is empty until it has.
CREATE TABLE requests (
    request INTEGER PRIMARY KEY,
    wf INTEGER NOT NULL REFERENCES workflows ON DELETE CASCADE,
    json TEXT NOT NULL,
    taken INTEGER NOT NULL DEFAULT 0,
    reply TEXT
) STRICT;
CREATE INDEX requests_wf ON requests (wf);

-- What callers could not be told; delivered once.
CREATE TABLE notices (
    notice INTEGER PRIMARY KEY,
    at_ms INTEGER NOT NULL,
    workflow TEXT,
    text TEXT NOT NULL
) STRICT;

-- Days since the Unix epoch on which a server looked for what retention removes.
CREATE TABLE days (day INTEGER PRIMARY KEY) STRICT;

-- Memories. `m` is the key inside this file and in the index, `id` the one that people and peers see. The long text
-- stands last, so that reading what precedes it never touches the pages it spills over to.
CREATE TABLE memories (
    m INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    identity BLOB NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    pool TEXT NOT NULL,
    created_at_ms INTEGER NOT NULL,
    aggregated INTEGER NOT NULL,
    text_digest INTEGER NOT NULL,
    workflow TEXT,
    item INTEGER,
    attempt INTEGER,
    worker TEXT,
    commit_id TEXT,
    source TEXT NOT NULL,
    repo TEXT,
    tags TEXT NOT NULL,
    text TEXT NOT NULL
) STRICT;
CREATE INDEX memories_created ON memories (created_at_ms);
CREATE INDEX memories_pool ON memories (pool, created_at_ms);
CREATE INDEX memories_unaggregated ON memories (pool, m) WHERE aggregated = 0;
-- Filters that leave few memories are answered from these. Most memories are outcomes, which need no index.
CREATE INDEX memories_repo ON memories (repo) WHERE repo IS NOT NULL;
CREATE INDEX memories_kept ON memories (kind) WHERE kind <> 'outcome';

CREATE TABLE memory_tags (
    tag TEXT NOT NULL,
    m INTEGER NOT NULL REFERENCES memories ON DELETE CASCADE,
    PRIMARY KEY (tag, m)
) STRICT, WITHOUT ROWID;
CREATE INDEX memory_tags_m ON memory_tags (m);

-- Words are inserted at the end of each transaction, not by a trigger: at a trigger FTS5 writes a segment for each memory.
CREATE VIRTUAL TABLE memories_fts USING fts5(
    text, tags, repo,
    content = 'memories', content_rowid = 'm',
    tokenize = 'unicode61 remove_diacritics 2'
);
-- Deleted words are removed from the index at once, not at its next merge.
INSERT INTO memories_fts (memories_fts, rank) VALUES ('secure-delete', 1);
-- Of 1,000 memories stored in one call all words are gathered before they are written, in 4 MiB.
INSERT INTO memories_fts (memories_fts, rank) VALUES ('hashsize', 4194304);

CREATE TRIGGER memories_unindexed AFTER DELETE ON memories BEGIN
    INSERT INTO memories_fts (memories_fts, rowid, text, tags, repo)
    VALUES ('delete', old.m, old.text, old.tags, old.repo);
END;

-- Memories that were removed here and that a peer may still have. `identity` is that of what a peer listed, whose listing
-- must not bring it back; `forgotten`: by a person, so that no search shows the peer's copy, else by retention.
CREATE TABLE tombstones (
    id TEXT PRIMARY KEY,
    identity BLOB,
    forgotten INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstones_identity ON tombstones (identity) WHERE identity IS NOT NULL;

-- What is to be sent to a peer, and what was. `due_at_ms`: not before; `ask_first`: the peer may have it already.
CREATE TABLE outbox (
    entry INTEGER PRIMARY KEY,
    peer TEXT NOT NULL,
    m INTEGER NOT NULL REFERENCES memories ON DELETE CASCADE,
    state TEXT NOT NULL CHECK (state IN ('pending', 'sending', 'resting', 'acked', 'dead')),
    due_at_ms INTEGER NOT NULL,
    changed_at_ms INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    ask_first INTEGER NOT NULL,
    error TEXT,
    UNIQUE (m, peer)
) STRICT;
CREATE INDEX outbox_open ON outbox (peer, state, due_at_ms) WHERE state <> 'acked';

-- What is known of each peer, for all servers of this state directory. The sender writes the first four columns, the
-- server that compares the peer with the outbox the last two.
CREATE TABLE peers (
    peer TEXT PRIMARY KEY,
    down_since_ms INTEGER,
    error TEXT,
    in_flight_limit INTEGER NOT NULL DEFAULT 0,
    slowest_ms INTEGER NOT NULL DEFAULT 0,
    reconciled TEXT,
    reconcile_error TEXT
) STRICT, WITHOUT ROWID;
