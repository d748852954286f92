-- Memories that were removed here and that a peer may still have. `identity` is that of what a peer told, whose listing
-- must not bring it back; `forgotten`: by a person, so that no search shows the peer's copy, else by retention.
CREATE TABLE tombstones (
    id TEXT PRIMARY KEY,
    identity BLOB,
    forgotten INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX tombstones_identity ON tombstones (identity) WHERE identity IS NOT NULL;
