-- Filters that leave few memories are answered from these. Most memories are outcomes, of which there is no need of an
-- index. An older release does not open a file of this version; it would neither miss nor harm them.
CREATE INDEX memories_repo ON memories (repo) WHERE repo IS NOT NULL;
CREATE INDEX memories_kept ON memories (kind) WHERE kind <> 'outcome';
