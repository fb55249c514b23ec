-- Salvaged work as something people decide about. What its result said of it is in the body already; a body that is no JSON
-- document was malformed, and one that failed could not have been read.
ALTER TABLE salvage ADD COLUMN state TEXT NOT NULL DEFAULT 'open' CHECK (
  state = 'open' OR state = 'applying' OR state = 'applied' OR state = 'dropped'
);
ALTER TABLE salvage ADD COLUMN outcome TEXT NOT NULL DEFAULT 'failed';
ALTER TABLE salvage ADD COLUMN agent TEXT;
ALTER TABLE salvage ADD COLUMN branch TEXT;
ALTER TABLE salvage ADD COLUMN base_sha TEXT;
ALTER TABLE salvage ADD COLUMN head_sha TEXT;
ALTER TABLE salvage ADD COLUMN salvage_ref TEXT;
ALTER TABLE salvage ADD COLUMN decided_by TEXT;
ALTER TABLE salvage ADD COLUMN decided_at INTEGER;
ALTER TABLE salvage ADD COLUMN note TEXT;
ALTER TABLE salvage ADD COLUMN applied_epoch INTEGER;

UPDATE salvage
SET agent = (SELECT agent FROM attempt WHERE attempt.task = salvage.task AND attempt.lease_epoch = salvage.lease_epoch);

UPDATE salvage
SET
  outcome = json_extract(body, '$.outcome'), salvage_ref = json_extract(body, '$.salvage_ref')
WHERE json_valid(body) AND reason <> 'its body was malformed'
  AND json_extract(body, '$.outcome') IN ('succeeded', 'failed', 'rate_limited', 'interrupted', 'lost', 'cancelled');

UPDATE salvage
SET
  branch = json_extract(body, '$.branch'), base_sha = json_extract(body, '$.base_sha'),
  head_sha = json_extract(body, '$.head_sha')
WHERE json_valid(body) AND reason <> 'its body was malformed' AND json_array_length(body, '$.commits') > 0
  AND length(json_extract(body, '$.head_sha')) = 40 AND json_extract(body, '$.head_sha') NOT GLOB '*[^0-9a-f]*'
  AND length(json_extract(body, '$.base_sha')) = 40 AND json_extract(body, '$.base_sha') NOT GLOB '*[^0-9a-f]*';

CREATE INDEX salvage_undecided ON salvage (task, lease_epoch, sha256) WHERE state = 'open';
CREATE INDEX salvage_applying ON salvage (task) WHERE state = 'applying';

-- The lease that made the work, where a person adopted it under another fence.
ALTER TABLE result ADD COLUMN origin_epoch INTEGER;
ALTER TABLE change ADD COLUMN origin_epoch INTEGER;

-- An agent that is no part of this hub any more; what it did stays on record.
ALTER TABLE agent ADD COLUMN removed_at INTEGER;
