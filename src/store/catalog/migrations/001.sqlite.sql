-- Format 1. Times are microseconds since 1970 (UTC); lists are JSON text; hashes are 32 bytes.
-- The same tables, column by column, are in 001.postgres.sql.

CREATE TABLE meta (                -- facts about this catalog; `format` is the version of the schema
    key           TEXT NOT NULL PRIMARY KEY,
    value         TEXT NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE accounts (            -- users, devices and groups made by command or over the API
    name          TEXT NOT NULL PRIMARY KEY,
    kind          TEXT NOT NULL,   -- user | device | group
    password_hash TEXT NOT NULL,   -- PHC string; empty: cannot sign in
    groups        TEXT NOT NULL,   -- JSON list of group names
    root          TEXT NOT NULL,
    networks      TEXT NOT NULL,   -- JSON list; empty: from anywhere
    protocols     TEXT NOT NULL,   -- JSON list; empty: by any door
    folder        TEXT NOT NULL,
    disabled      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE spaces (              -- spaces made by command or over the API
    path          TEXT NOT NULL PRIMARY KEY,
    source        TEXT NOT NULL,
    max_bytes     INTEGER,
    max_files     INTEGER,
    overwrite     TEXT NOT NULL,   -- replace | keep-both | refuse
    address       TEXT NOT NULL,
    durable       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE grants (              -- who may do what in a space of the table above
    space         TEXT NOT NULL,
    place         INTEGER NOT NULL,
    grantee       TEXT NOT NULL,   -- user:NAME | group:NAME | device:NAME | users | everyone
    allow         TEXT NOT NULL,   -- view | drop | edit | own, or verbs
    PRIMARY KEY (space, place)
) STRICT, WITHOUT ROWID;

CREATE TABLE files (               -- what was counted for each file; the file itself is on the volume
    space         TEXT NOT NULL,
    path          TEXT NOT NULL,   -- inside the space, no leading slash
    size          INTEGER NOT NULL,
    modified      INTEGER NOT NULL,
    version       INTEGER NOT NULL,
    owner         TEXT NOT NULL,
    sha256        BLOB,
    PRIMARY KEY (space, path)
) STRICT, WITHOUT ROWID;

CREATE TABLE usage (               -- sum and number of the files of each space, exact at every commit
    space         TEXT NOT NULL PRIMARY KEY,
    bytes         INTEGER NOT NULL,
    files         INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE intents (             -- publishes decided and not yet known to be on the disk
    node          TEXT NOT NULL,
    id            INTEGER NOT NULL,
    space         TEXT NOT NULL,
    change        TEXT NOT NULL,   -- JSON
    body          BLOB,
    PRIMARY KEY (node, id)
) STRICT;

CREATE TABLE history (             -- one hash chain per node
    node          TEXT NOT NULL,
    seq           INTEGER NOT NULL,
    at            INTEGER NOT NULL,
    door          TEXT NOT NULL,
    account       TEXT NOT NULL,
    address       TEXT NOT NULL,
    verb          TEXT NOT NULL,
    path          TEXT NOT NULL,
    bytes         INTEGER NOT NULL,
    result        TEXT NOT NULL,
    detail        TEXT NOT NULL,
    prev          BLOB NOT NULL,
    hash          BLOB NOT NULL,
    PRIMARY KEY (node, seq)
) STRICT, WITHOUT ROWID;
CREATE INDEX history_at ON history (at);

CREATE TABLE sessions (            -- signed-in browsers and API clients; `token` is the hash of the cookie
    token         BLOB NOT NULL PRIMARY KEY,
    account       TEXT NOT NULL,
    created       INTEGER NOT NULL,
    expires       INTEGER NOT NULL,
    address       TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX sessions_account ON sessions (account);
CREATE INDEX sessions_expires ON sessions (expires);

CREATE TABLE locks (               -- one holder a path
    path          TEXT NOT NULL PRIMARY KEY,
    token         TEXT NOT NULL UNIQUE,
    deep          INTEGER NOT NULL,
    account       TEXT NOT NULL,
    owner         TEXT NOT NULL,
    expires       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
