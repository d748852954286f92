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
    text_hash INTEGER NOT NULL,
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

CREATE TABLE memory_tags (
    tag TEXT NOT NULL,
    m INTEGER NOT NULL REFERENCES memories ON DELETE CASCADE,
    PRIMARY KEY (tag, m)
) STRICT, WITHOUT ROWID;
CREATE INDEX memory_tags_m ON memory_tags (m);

CREATE VIRTUAL TABLE memories_fts USING fts5(
    text, tags, repo,
    content = 'memories', content_rowid = 'm',
    tokenize = 'unicode61 remove_diacritics 2', prefix = '2 3'
);
-- Deleted words are removed from the index at once, not at its next merge.
INSERT INTO memories_fts (memories_fts, rank) VALUES ('secure-delete', 1);

CREATE TRIGGER memories_indexed AFTER INSERT ON memories BEGIN
    INSERT INTO memories_fts (rowid, text, tags, repo) VALUES (new.m, new.text, new.tags, new.repo);
END;
CREATE TRIGGER memories_unindexed AFTER DELETE ON memories BEGIN
    INSERT INTO memories_fts (memories_fts, rowid, text, tags, repo)
    VALUES ('delete', old.m, old.text, old.tags, old.repo);
END;

-- What is to reach a peer, and what did. `due_at_ms`: not before; `ask_first`: the peer may have it already.
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
