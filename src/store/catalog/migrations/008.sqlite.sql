-- Format 8: sessions are bound to the generation of their account; what removed accounts and spaces left behind.

-- What the account was when it signed in (32 bytes); a session of another generation is over.
ALTER TABLE sessions ADD COLUMN generation BLOB NOT NULL DEFAULT x'';

CREATE TABLE generations (         -- counts what ends every session of an account; the row outlives the account
    account       TEXT NOT NULL PRIMARY KEY,
    generation    INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE left_behind (         -- spaces of accounts and spaces that were removed: for administrators only
    path          TEXT NOT NULL PRIMARY KEY,
    source        TEXT NOT NULL,
    since         INTEGER NOT NULL,
    heir          TEXT NOT NULL    -- user:NAME it was handed over to; empty: nobody yet
) STRICT, WITHOUT ROWID;
