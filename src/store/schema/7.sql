-- The index without entries for the beginnings of words: they took as long to write as all the words, and a search reads
-- the words that begin alike instead. What is stored is indexed anew, which takes some seconds for 100,000 memories.
DROP TABLE memories_fts;
CREATE VIRTUAL TABLE memories_fts USING fts5(
    text, tags, repo,
    content = 'memories', content_rowid = 'm',
    tokenize = 'unicode61 remove_diacritics 2'
);
INSERT INTO memories_fts (memories_fts, rank) VALUES ('secure-delete', 1);
-- Of 1,000 memories stored in one call all words are gathered before they are written, in 4 MiB.
INSERT INTO memories_fts (memories_fts, rank) VALUES ('hashsize', 4194304);
INSERT INTO memories_fts (memories_fts) VALUES ('rebuild');

-- Whoever inserts a memory inserts its words: at a trigger FTS5 writes a segment of its own for each memory.
DROP TRIGGER memories_indexed;
-- So a server of an older release that still runs must not insert any more; now it fails to.
ALTER TABLE memories RENAME COLUMN text_hash TO text_digest;
