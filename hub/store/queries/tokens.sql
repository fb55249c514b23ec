-- Tokens by id; what has ended is kept for a while, so that "who was that" has an answer.

-- name: token_all
SELECT id, digest, name, person, scopes, install_id, created_by, created_at, ends_at, revoked_by, used_by
FROM token
ORDER BY created_at, id;

-- name: token_by_id
SELECT id, digest, name, person, scopes, install_id, created_by, created_at, ends_at, revoked_by, used_by
FROM token
WHERE id = :id;

-- name: token_insert
INSERT INTO token (id, digest, name, person, scopes, install_id, created_by, created_at, ends_at)
VALUES (:id, :digest, :name, :person, :scopes, :install_id, :created_by, :now, :ends_at);

-- name: token_revoke
UPDATE token
SET ends_at = :now, revoked_by = :by
WHERE id = :id AND revoked_by IS NULL AND (ends_at IS NULL OR ends_at > :now);

-- name: token_use
UPDATE token
SET used_by = :used_by
WHERE id = :id AND used_by IS NULL;

-- name: token_rescope
UPDATE token
SET scopes = :scopes
WHERE id = :id;

-- name: token_count
SELECT count(*) AS number
FROM token
WHERE revoked_by IS NULL AND (ends_at IS NULL OR ends_at > :now);

-- name: token_prune
DELETE FROM token
WHERE ends_at < :before OR id IN (SELECT id FROM token WHERE ends_at <= :now ORDER BY ends_at DESC LIMIT 1000000 OFFSET :kept);

-- name: token_agent_insert
INSERT INTO token_agent (agent, token)
VALUES (:agent, :token)
ON CONFLICT (agent, token) DO NOTHING;

-- name: token_agent_taken
SELECT t.name
FROM token_agent AS a
JOIN token AS t ON t.id = a.token
WHERE a.agent = :agent AND NOT (t.install_id = :install_id AND t.digest = :digest)
  AND t.revoked_by IS NULL AND (t.ends_at IS NULL OR t.ends_at > :now)
LIMIT 1;

-- name: token_of_machine
SELECT id
FROM token
WHERE install_id = :install_id AND digest = :digest AND revoked_by IS NULL AND (ends_at IS NULL OR ends_at > :now)
LIMIT 1;
