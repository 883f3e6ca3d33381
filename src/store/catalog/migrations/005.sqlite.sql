-- Format 5: the redo log beside the catalog. A program that does not know it would pass over what was acknowledged in it.

-- LOG:NUMBER, how far the log `catalog.redo` has been taken in.
INSERT INTO meta (key, value) VALUES ('redo', '0:0') ON CONFLICT (key) DO NOTHING;
