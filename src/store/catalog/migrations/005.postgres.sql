-- Format 5: SQLite's redo log (005.sqlite.sql). PostgreSQL has its own and keeps nothing more.

SELECT 5;
