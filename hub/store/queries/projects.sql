-- Projects: few, edited by people; every edit names the version it read.

-- name: project_all
SELECT id, name, description, default_repo, dispatch, paused, version, created_at, updated_at
FROM project
ORDER BY id;

-- name: project_by_id
SELECT id, name, description, default_repo, dispatch, paused, version, created_at, updated_at
FROM project
WHERE id = :id;

-- name: project_insert
INSERT INTO project (id, name, description, default_repo, dispatch, paused, version, created_at, updated_at)
VALUES (:id, :name, :description, :default_repo, :dispatch, 0, 1, :now, :now);

-- name: project_update
UPDATE project
SET name = :name, description = :description, default_repo = :default_repo, dispatch = :dispatch, paused = :paused,
  version = version + 1, updated_at = :now
WHERE id = :id AND version = :version;

-- name: project_repository_all
SELECT project, repo
FROM project_repository
ORDER BY project, repo;

-- name: project_repository_of
SELECT repo
FROM project_repository
WHERE project = :project
ORDER BY repo;

-- name: project_repository_insert
INSERT INTO project_repository (project, repo)
VALUES (:project, :repo);

-- name: project_repository_clear
DELETE FROM project_repository
WHERE project = :project;
