-- What is known of each peer, for all servers of this state directory. The sender writes the first four, whoever
-- compares the peer with the outbox the last two.
CREATE TABLE peers (
    peer TEXT PRIMARY KEY,
    down_since_ms INTEGER,
    error TEXT,
    in_flight_limit INTEGER NOT NULL DEFAULT 0,
    slowest_ms INTEGER NOT NULL DEFAULT 0,
    reconciled TEXT,
    reconcile_error TEXT
) STRICT, WITHOUT ROWID;
