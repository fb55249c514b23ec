-- Work that was not applied. Lists go from the newest task down, from a cursor: (task, lease_epoch, sha256) < the last one shown.

-- name: salvage_page
SELECT
  s.task, s.lease_epoch, s.sha256, s.at, s.reason, s.state, s.outcome, s.agent, s.branch, s.base_sha, s.head_sha, s.salvage_ref,
  s.decided_by, s.decided_at, s.note, s.applied_epoch, task.title, task.state AS task_state
FROM salvage AS s
LEFT JOIN task ON task.n = s.task
WHERE (s.task, s.lease_epoch, s.sha256) < (:task, :lease_epoch, :sha256)
ORDER BY s.task DESC, s.lease_epoch DESC, s.sha256 DESC
LIMIT :limit;

-- name: salvage_page_of_task
SELECT
  s.task, s.lease_epoch, s.sha256, s.at, s.reason, s.state, s.outcome, s.agent, s.branch, s.base_sha, s.head_sha, s.salvage_ref,
  s.decided_by, s.decided_at, s.note, s.applied_epoch, task.title, task.state AS task_state
FROM salvage AS s
LEFT JOIN task ON task.n = s.task
WHERE s.task = :of AND (s.task, s.lease_epoch, s.sha256) < (:task, :lease_epoch, :sha256)
ORDER BY s.task DESC, s.lease_epoch DESC, s.sha256 DESC
LIMIT :limit;

-- name: salvage_page_open
-- What nobody has decided about; of a task that is done anyway nobody has to.
SELECT
  s.task, s.lease_epoch, s.sha256, s.at, s.reason, s.state, s.outcome, s.agent, s.branch, s.base_sha, s.head_sha, s.salvage_ref,
  s.decided_by, s.decided_at, s.note, s.applied_epoch, task.title, task.state AS task_state
FROM salvage AS s
LEFT JOIN task ON task.n = s.task
WHERE s.state = 'open' AND COALESCE(task.state, '') <> 'done'
  AND (s.task, s.lease_epoch, s.sha256) < (:task, :lease_epoch, :sha256)
ORDER BY s.task DESC, s.lease_epoch DESC, s.sha256 DESC
LIMIT :limit;

-- name: salvage_open_of_task
SELECT
  s.task, s.lease_epoch, s.sha256, s.at, s.reason, s.state, s.outcome, s.agent, s.branch, s.base_sha, s.head_sha, s.salvage_ref,
  s.decided_by, s.decided_at, s.note, s.applied_epoch, task.title, task.state AS task_state
FROM salvage AS s
LEFT JOIN task ON task.n = s.task
WHERE s.state = 'open' AND s.task = :of AND (s.task, s.lease_epoch, s.sha256) < (:task, :lease_epoch, :sha256)
ORDER BY s.task DESC, s.lease_epoch DESC, s.sha256 DESC
LIMIT :limit;

-- name: salvage_open_count
-- Counted up to a bound: more than that is only ever shown as more.
SELECT COUNT(*) AS open
FROM (
  SELECT 1
  FROM salvage
  LEFT JOIN task ON task.n = salvage.task
  WHERE salvage.state = 'open' AND COALESCE(task.state, '') <> 'done'
  LIMIT 1000
);

-- name: salvage_fact
SELECT * FROM salvage WHERE task = :task AND lease_epoch = :lease_epoch ORDER BY at DESC, sha256 LIMIT 16;

-- name: salvage_of_lease
-- The newest open record of a lease, else the newest, with its task and where that works.
SELECT
  s.*, task.title, task.state AS task_state, task.repo, task.access, task.needs_change, repository.url, repository.forge,
  COALESCE(task.base, repository.base) AS base
FROM salvage AS s
LEFT JOIN task ON task.n = s.task
LEFT JOIN repository ON repository.name = task.repo
WHERE s.task = :task AND s.lease_epoch = :lease_epoch
ORDER BY s.state <> 'open', s.at DESC, s.sha256
LIMIT 1;

-- name: salvage_applying
SELECT * FROM salvage WHERE state = 'applying';

-- name: salvage_offered
-- What the claim of a lease is told of: open records of earlier leases, newest first.
SELECT lease_epoch, at, reason, outcome, agent, branch, head_sha, salvage_ref, body
FROM salvage
WHERE task = :task AND lease_epoch < :lease_epoch AND state = 'open'
ORDER BY lease_epoch DESC, sha256 DESC
LIMIT :limit;

-- name: salvage_told
-- The attempts that began after something was kept: each was told of it.
SELECT lease_epoch
FROM attempt
WHERE task = :task AND lease_epoch > :lease_epoch AND accepted_at >= :at AND (:until IS NULL OR accepted_at < :until)
ORDER BY lease_epoch DESC
LIMIT 16;

-- name: salvage_feedback
SELECT text FROM feedback WHERE task = :task AND lease_epoch = :lease_epoch;
