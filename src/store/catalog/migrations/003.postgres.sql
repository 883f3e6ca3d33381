-- Format 3: uploads in pieces and receipts. Times are microseconds since 1970 (UTC); hashes are 32 bytes.
-- The same tables, column by column, are in 003.sqlite.sql.

CREATE TABLE uploads (             -- uploads that can be gone on with; their bytes are in the stage named by `id`
    id            TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    node          TEXT COLLATE "C" NOT NULL,   -- the daemon that has the stage
    account       TEXT COLLATE "C" NOT NULL,   -- whose; empty: of someone not signed in, who knows `id`
    kind          TEXT COLLATE "C" NOT NULL,   -- whole | part | broken
    space         TEXT COLLATE "C" NOT NULL,   -- whose volume has the stage
    path          TEXT COLLATE "C" NOT NULL,   -- where it goes, in the tree
    length        BIGINT,          -- bytes it will have; null: not said yet
    received      BIGINT NOT NULL, -- bytes that would survive a power cut
    expires       BIGINT NOT NULL,
    about         TEXT COLLATE "C" NOT NULL    -- JSON: what its client said of it
);
CREATE INDEX uploads_node ON uploads (node);

CREATE TABLE receipts (            -- what became of requests that may be repeated
    account       TEXT COLLATE "C" NOT NULL,
    key           TEXT COLLATE "C" NOT NULL,   -- the request's Idempotency-Key, or the id of an upload
    place         BIGINT NOT NULL, -- which file of the request
    request       TEXT COLLATE "C" NOT NULL,   -- method and path that were asked for
    id            TEXT COLLATE "C" NOT NULL,   -- as the history's detail has it
    path          TEXT COLLATE "C" NOT NULL,   -- where it went, in the tree
    bytes         BIGINT NOT NULL,
    modified      BIGINT NOT NULL,
    sha256        BYTEA,
    created       BOOLEAN NOT NULL,
    expires       BIGINT NOT NULL,
    PRIMARY KEY (account, key, place)
);
CREATE INDEX receipts_expires ON receipts (expires);
