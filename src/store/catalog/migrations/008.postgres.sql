-- Format 8: sessions are bound to the generation of their account; what removed accounts and spaces left behind.

-- What the account was when it signed in (32 bytes); a session of another generation is over.
ALTER TABLE sessions ADD COLUMN generation BYTEA NOT NULL DEFAULT '';

CREATE TABLE generations (         -- counts what ends every session of an account; the row outlives the account
    account       TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    generation    BIGINT NOT NULL
);

CREATE TABLE left_behind (         -- spaces of accounts and spaces that were removed: for administrators only
    path          TEXT COLLATE "C" NOT NULL PRIMARY KEY,
    source        TEXT COLLATE "C" NOT NULL,
    since         BIGINT NOT NULL,
    heir          TEXT COLLATE "C" NOT NULL    -- user:NAME it was handed over to; empty: nobody yet
);
