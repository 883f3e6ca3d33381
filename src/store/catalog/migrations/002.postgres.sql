-- Format 2: mail. Times are microseconds since 1970 (UTC); lists are JSON text.
-- The same tables, column by column, are in 002.sqlite.sql.

CREATE TABLE mail_folders (        -- folders of mailboxes: what IMAP calls a mailbox
    space         TEXT COLLATE "C" NOT NULL,   -- /mail/NAME
    folder        TEXT COLLATE "C" NOT NULL,   -- Maildir++ name such as .Sent; empty: the inbox
    validity      BIGINT NOT NULL,  -- UIDVALIDITY
    next          BIGINT NOT NULL,  -- UIDNEXT
    modseq        BIGINT NOT NULL,  -- HIGHESTMODSEQ
    PRIMARY KEY (space, folder)
);

CREATE TABLE messages (            -- the number each message in a folder was given when it was first seen there
    space         TEXT COLLATE "C" NOT NULL,
    folder        TEXT COLLATE "C" NOT NULL,
    uid           BIGINT NOT NULL,
    name          TEXT COLLATE "C" NOT NULL,   -- name of its file without flags: what stays when flags change
    flags         TEXT COLLATE "C" NOT NULL,   -- Maildir flags, in order
    size          BIGINT NOT NULL,
    arrived       BIGINT NOT NULL,
    modseq        BIGINT NOT NULL,
    gone          BIGINT NOT NULL,  -- when it was found gone: a tombstone; 0: it is there
    PRIMARY KEY (space, folder, uid)
);
CREATE INDEX messages_gone ON messages (gone) WHERE gone > 0;

CREATE TABLE deliveries (          -- what became of each message, by recipient and target
    message       TEXT COLLATE "C" NOT NULL,   -- our id of it (UUIDv7): shown in the reply and in its trace lines
    place         BIGINT NOT NULL,
    at            BIGINT NOT NULL,
    sender        TEXT COLLATE "C" NOT NULL,   -- envelope sender; empty: <>
    recipient     TEXT COLLATE "C" NOT NULL,   -- as the sender wrote it
    target        TEXT COLLATE "C" NOT NULL,   -- folder of the tree it goes to; empty: nowhere
    bytes         BIGINT NOT NULL,
    state         TEXT COLLATE "C" NOT NULL,   -- stored | fetched | redelivered | refused
    changed       BIGINT NOT NULL,  -- when it came into this state
    detail        TEXT COLLATE "C" NOT NULL,   -- why it was refused
    mark          BYTEA,            -- recognises the same message sent again
    PRIMARY KEY (message, place)
);
CREATE INDEX deliveries_mark ON deliveries (mark) WHERE mark IS NOT NULL;

CREATE TABLE aliases (             -- addresses made by command, beside the declared ones
    address       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    targets       TEXT COLLATE "C" NOT NULL,   -- JSON list of addresses, accounts and group:NAME
    post          TEXT COLLATE "C" NOT NULL    -- anyone | users | members
);
