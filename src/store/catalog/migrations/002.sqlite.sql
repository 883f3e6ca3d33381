-- Format 2: mail. Times are microseconds since 1970 (UTC); lists are JSON text.
-- The same tables, column by column, are in 002.postgres.sql.

CREATE TABLE mail_folders (        -- folders of mailboxes: what IMAP calls a mailbox
    space         TEXT NOT NULL,   -- /mail/NAME
    folder        TEXT NOT NULL,   -- Maildir++ name such as .Sent; empty: the inbox
    validity      INTEGER NOT NULL,  -- UIDVALIDITY
    next          INTEGER NOT NULL,  -- UIDNEXT
    modseq        INTEGER NOT NULL,  -- HIGHESTMODSEQ
    PRIMARY KEY (space, folder)
) STRICT, WITHOUT ROWID;

CREATE TABLE messages (            -- the number each message in a folder was given when it was first seen there
    space         TEXT NOT NULL,
    folder        TEXT NOT NULL,
    uid           INTEGER NOT NULL,
    name          TEXT NOT NULL,   -- name of its file without flags: what stays when flags change
    flags         TEXT NOT NULL,   -- Maildir flags, in order
    size          INTEGER NOT NULL,
    arrived       INTEGER NOT NULL,
    modseq        INTEGER NOT NULL,
    gone          INTEGER NOT NULL,  -- when it was found gone: a tombstone; 0: it is there
    PRIMARY KEY (space, folder, uid)
) STRICT, WITHOUT ROWID;
CREATE INDEX messages_gone ON messages (gone) WHERE gone > 0;

CREATE TABLE deliveries (          -- what became of each message, by recipient and target
    message       TEXT NOT NULL,   -- our id of it (UUIDv7): shown in the reply and in its trace lines
    place         INTEGER NOT NULL,
    at            INTEGER NOT NULL,
    sender        TEXT NOT NULL,   -- envelope sender; empty: <>
    recipient     TEXT NOT NULL,   -- as the sender wrote it
    target        TEXT NOT NULL,   -- folder of the tree it goes to; empty: nowhere
    bytes         INTEGER NOT NULL,
    state         TEXT NOT NULL,   -- stored | fetched | redelivered | refused
    changed       INTEGER NOT NULL,  -- when it came into this state
    detail        TEXT NOT NULL,   -- why it was refused
    mark          BLOB,            -- recognises the same message sent again
    PRIMARY KEY (message, place)
) STRICT, WITHOUT ROWID;

CREATE TABLE aliases (             -- addresses made by command, beside the declared ones
    address       TEXT NOT NULL PRIMARY KEY,
    targets       TEXT NOT NULL,   -- JSON list of addresses, accounts and group:NAME
    post          TEXT NOT NULL    -- anyone | users | members
) STRICT, WITHOUT ROWID;
