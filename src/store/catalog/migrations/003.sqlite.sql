-- Format 3: uploads in pieces and receipts. Times are microseconds since 1970 (UTC); hashes are 32 bytes.
-- The same tables, column by column, are in 003.postgres.sql.

CREATE TABLE uploads (             -- uploads that can be gone on with; their bytes are in the stage named by `id`
    id            TEXT NOT NULL PRIMARY KEY,
    node          TEXT NOT NULL,   -- the daemon that has the stage
    account       TEXT NOT NULL,   -- whose; empty: of someone not signed in, who knows `id`
    kind          TEXT NOT NULL,   -- whole | part | broken
    space         TEXT NOT NULL,   -- whose volume has the stage
    path          TEXT NOT NULL,   -- where it goes, in the tree
    length        INTEGER,         -- bytes it will have; null: not said yet
    received      INTEGER NOT NULL,  -- bytes that would survive a power cut
    expires       INTEGER NOT NULL,
    about         TEXT NOT NULL    -- JSON: what its client said of it
) STRICT, WITHOUT ROWID;
CREATE INDEX uploads_node ON uploads (node);

CREATE TABLE receipts (            -- what became of requests that may be repeated
    account       TEXT NOT NULL,
    key           TEXT NOT NULL,   -- the request's Idempotency-Key, or the id of an upload
    place         INTEGER NOT NULL,  -- which file of the request
    request       TEXT NOT NULL,   -- method and path that were asked for
    id            TEXT NOT NULL,   -- as the history's detail has it
    path          TEXT NOT NULL,   -- where it went, in the tree
    bytes         INTEGER NOT NULL,
    modified      INTEGER NOT NULL,
    sha256        BLOB,
    created       INTEGER NOT NULL,
    expires       INTEGER NOT NULL,
    PRIMARY KEY (account, key, place)
) STRICT, WITHOUT ROWID;
CREATE INDEX receipts_expires ON receipts (expires);
