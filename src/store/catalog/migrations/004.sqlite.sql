-- Format 4: locks that several share, and properties that WebDAV clients keep beside a file.
-- The same tables, column by column, are in 004.postgres.sql.

ALTER TABLE locks RENAME TO locks_2;
CREATE TABLE locks (               -- a lock on a path; several on one path only when all of them are shared
    token         TEXT NOT NULL PRIMARY KEY,
    path          TEXT NOT NULL,
    deep          INTEGER NOT NULL,  -- all below it too
    shared        INTEGER NOT NULL,
    account       TEXT NOT NULL,
    owner         TEXT NOT NULL,   -- XML: what the client said of itself
    expires       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO locks SELECT token, path, deep, 0, account, '', expires FROM locks_2;
DROP TABLE locks_2;
CREATE INDEX locks_path ON locks (path);
-- Whoever takes a lock touches this row first, so that of two daemons one goes after the other.
INSERT INTO meta (key, value) VALUES ('locks', '');

CREATE TABLE properties (          -- what clients keep beside a file or folder (RFC 4918: dead properties)
    space         TEXT NOT NULL,
    path          TEXT NOT NULL,   -- inside the space, no leading slash; empty: its root
    folder        TEXT NOT NULL,   -- the folder it is in; `/` for the root
    name          TEXT NOT NULL,   -- {namespace}name
    value         TEXT NOT NULL,   -- the whole element, XML
    PRIMARY KEY (space, path, name)
) STRICT, WITHOUT ROWID;
CREATE INDEX properties_folder ON properties (space, folder, path);
