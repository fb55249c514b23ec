-- Repositories: few, registered by an admin; every edit names the version it read.

-- name: repository_all
SELECT name, url, forge, base, policy, checks, paused, version, created_at, updated_at
FROM repository
ORDER BY name;

-- name: repository_by_name
SELECT name, url, forge, base, policy, checks, paused, version, created_at, updated_at
FROM repository
WHERE name = :name;

-- name: repository_insert
INSERT INTO repository (name, url, forge, base, policy, checks, paused, version, created_at, updated_at)
VALUES (:name, :url, :forge, :base, :policy, :checks, 0, 1, :now, :now);

-- name: repository_update
UPDATE repository
SET url = :url, base = :base, policy = :policy, checks = :checks, paused = :paused, version = version + 1, updated_at = :now
WHERE name = :name AND version = :version;
