-- Promised to uploads that are answered ahead of their records, and counted by every limit as if it were used.
ALTER TABLE usage ADD COLUMN ahead_bytes BIGINT NOT NULL DEFAULT 0;
ALTER TABLE usage ADD COLUMN ahead_files BIGINT NOT NULL DEFAULT 0;
