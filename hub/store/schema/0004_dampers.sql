-- What speaks against an agent since it last did something soundly, as a list instead of a count, and why it is quarantined.
ALTER TABLE agent DROP COLUMN streak;
ALTER TABLE agent ADD COLUMN strikes TEXT NOT NULL DEFAULT '[]';
ALTER TABLE agent ADD COLUMN quarantined_at INTEGER;
ALTER TABLE agent ADD COLUMN quarantine_cause TEXT;

-- The agents on which a task ended so that it is doubtful whose fault it was; separated by spaces, NULL for none.
ALTER TABLE task ADD COLUMN suspects TEXT;
