-- No room is promised to uploads before they are recorded any more.
ALTER TABLE usage DROP COLUMN ahead_bytes;
ALTER TABLE usage DROP COLUMN ahead_files;
