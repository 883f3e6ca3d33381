-- Format 1. Times are microseconds since 1970 (UTC); lists are JSON text; hashes are 32 bytes.
-- The same tables, column by column, are in 001.sqlite.sql. COLLATE "C" makes PostgreSQL compare text byte by byte,
-- as SQLite does; prefix ranges and the order of listings depend on it.

CREATE TABLE meta (                -- facts about this catalog; `format` is the version of the schema
    key           TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    value         TEXT COLLATE "C" NOT NULL
);

CREATE TABLE accounts (            -- users, devices and groups made by command or over the API
    name          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    kind          TEXT COLLATE "C" NOT NULL,   -- user | device | group
    password_hash TEXT COLLATE "C" NOT NULL,   -- PHC string; empty: cannot sign in
    groups        TEXT COLLATE "C" NOT NULL,   -- JSON list of group names
    root          TEXT COLLATE "C" NOT NULL,
    networks      TEXT COLLATE "C" NOT NULL,   -- JSON list; empty: from anywhere
    protocols     TEXT COLLATE "C" NOT NULL,   -- JSON list; empty: by any door
    folder        TEXT COLLATE "C" NOT NULL,
    disabled      BOOLEAN NOT NULL
);

CREATE TABLE spaces (              -- spaces made by command or over the API
    path          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    source        TEXT COLLATE "C" NOT NULL,
    max_bytes     BIGINT,
    max_files     BIGINT,
    overwrite     TEXT COLLATE "C" NOT NULL,   -- replace | keep-both | refuse
    address       TEXT COLLATE "C" NOT NULL,
    durable       BOOLEAN NOT NULL
);

CREATE TABLE grants (              -- who may do what in a space of the table above
    space         TEXT COLLATE "C" NOT NULL,
    place         BIGINT NOT NULL,
    grantee       TEXT COLLATE "C" NOT NULL,   -- user:NAME | group:NAME | device:NAME | users | everyone
    allow         TEXT COLLATE "C" NOT NULL,   -- view | drop | edit | own, or verbs
    PRIMARY KEY (space, place)
);

CREATE TABLE files (               -- what was counted for each file; the file itself is on the volume
    space         TEXT COLLATE "C" NOT NULL,
    path          TEXT COLLATE "C" NOT NULL,   -- inside the space, no leading slash
    size          BIGINT NOT NULL,
    modified      BIGINT NOT NULL,
    version       BIGINT NOT NULL,
    owner         TEXT COLLATE "C" NOT NULL,
    sha256        BYTEA,
    PRIMARY KEY (space, path)
);

CREATE TABLE usage (               -- sum and number of the files of each space, exact at every commit
    space         TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    bytes         BIGINT NOT NULL,
    files         BIGINT NOT NULL
);

CREATE TABLE intents (             -- publishes decided and not yet known to be on the disk
    node          TEXT COLLATE "C" NOT NULL,
    id            BIGINT NOT NULL,
    space         TEXT COLLATE "C" NOT NULL,
    change        TEXT COLLATE "C" NOT NULL,   -- JSON
    body          BYTEA,
    PRIMARY KEY (node, id)
);

CREATE TABLE history (             -- one hash chain per node
    node          TEXT COLLATE "C" NOT NULL,
    seq           BIGINT NOT NULL,
    at            BIGINT NOT NULL,
    door          TEXT COLLATE "C" NOT NULL,
    account       TEXT COLLATE "C" NOT NULL,
    address       TEXT COLLATE "C" NOT NULL,
    verb          TEXT COLLATE "C" NOT NULL,
    path          TEXT COLLATE "C" NOT NULL,
    bytes         BIGINT NOT NULL,
    result        TEXT COLLATE "C" NOT NULL,
    detail        TEXT COLLATE "C" NOT NULL,
    prev          BYTEA NOT NULL,
    hash          BYTEA NOT NULL,
    PRIMARY KEY (node, seq)
);
CREATE INDEX history_at ON history (at);

CREATE TABLE sessions (            -- signed-in browsers and API clients; `token` is the hash of the cookie
    token         BYTEA NOT NULL PRIMARY KEY,
    account       TEXT COLLATE "C" NOT NULL,
    created       BIGINT NOT NULL,
    expires       BIGINT NOT NULL,
    address       TEXT COLLATE "C" NOT NULL
);
CREATE INDEX sessions_account ON sessions (account);
CREATE INDEX sessions_expires ON sessions (expires);

CREATE TABLE locks (               -- one holder a path
    path          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    token         TEXT COLLATE "C" NOT NULL UNIQUE,
    deep          BOOLEAN NOT NULL,
    account       TEXT COLLATE "C" NOT NULL,
    owner         TEXT COLLATE "C" NOT NULL,
    expires       BIGINT NOT NULL
);

CREATE TABLE nodes (               -- how often each daemon committed: how the others notice that something changed
    node          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    commits       BIGINT NOT NULL
);
