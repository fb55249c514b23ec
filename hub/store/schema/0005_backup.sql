-- Below these numbers everything may have been used by the hub whose store was lost: a restore sets them far ahead.
CREATE TABLE base (
  counter TEXT PRIMARY KEY CHECK (counter IN ('n', 'lease_epoch', 'session_epoch', 'change', 'cid')),
  value INTEGER NOT NULL
) STRICT;
