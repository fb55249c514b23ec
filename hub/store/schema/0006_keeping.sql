-- Keeping a store for years: its size by day, and what pruning has to find.
CREATE TABLE store_sample (
  day INTEGER PRIMARY KEY,
  file_bytes INTEGER NOT NULL,
  free_bytes INTEGER NOT NULL
) STRICT;

CREATE INDEX blob_by_age ON blob (created_at, sha256, size);
CREATE INDEX result_blob ON result (output_ref) WHERE output_ref IS NOT NULL;
CREATE INDEX change_check ON change (check_task) WHERE check_task IS NOT NULL;
