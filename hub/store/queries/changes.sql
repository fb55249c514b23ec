-- Changes and their reviews. The gatekeeper's own reads touch only live changes and tasks in review, whatever history holds.

-- name: change_by_id
SELECT * FROM change WHERE id = :id;

-- name: change_of_attempt
SELECT id FROM change WHERE task = :task AND lease_epoch = :lease_epoch;

-- name: change_last_id
SELECT COALESCE(MAX(id), 0) AS id
FROM (SELECT MAX(id) AS id FROM change UNION ALL SELECT value AS id FROM base WHERE counter = 'change') AS used;

-- name: change_insert
INSERT INTO change (
  id, task, lease_epoch, origin_epoch, repo, state, title, body, labels, base, branch, base_sha, head_sha, commits, stat, reasons,
  created_at, updated_at
)
VALUES (
  :id, :task, :lease_epoch, :origin_epoch, :repo, 'open', :title, '', :labels, :base, :branch, :base_sha, :head_sha, :commits, '{}', '[]',
  :now, :now
);

-- name: change_save
UPDATE change
SET
  state = :state, body = :body, labels = :labels, commits = :commits, stat = :stat, tier = :tier, reasons = :reasons,
  cause = :cause, check_task = :check_task, candidate_sha = :candidate_sha, candidate_base = :candidate_base,
  intent = :intent, merged_sha = :merged_sha, updated_at = :now
WHERE id = :id;

-- name: change_page
SELECT * FROM change WHERE id < :before ORDER BY id DESC LIMIT :limit;

-- name: change_page_by_state
SELECT * FROM change WHERE state = :state AND id < :before ORDER BY id DESC LIMIT :limit;

-- name: change_reviews
SELECT reviewer, head_sha, verdict, person, comment, at
FROM review
WHERE change = :change
ORDER BY at, reviewer
LIMIT 200;

-- name: review_save
INSERT INTO review (change, reviewer, head_sha, verdict, person, comment, at)
VALUES (:change, :reviewer, :head_sha, :verdict, :person, :comment, :now)
ON CONFLICT (change, reviewer, head_sha) DO UPDATE
SET verdict = excluded.verdict, person = excluded.person, comment = excluded.comment, at = excluded.at;

-- name: change_unopened
-- Tasks in review whose result has no change yet.
SELECT task.n AS id, task.lease_epoch, COALESCE(task.repo, '') AS repo
FROM task
WHERE task.state = 'in_review' AND task.n > :after
  AND NOT EXISTS (SELECT 1 FROM change WHERE change.task = task.n AND change.lease_epoch = task.lease_epoch)
ORDER BY task.n
LIMIT :limit;

-- name: change_undelivered
-- Changes that ended while their task has not heard of it: the command is outstanding.
SELECT change.id, change.repo
FROM task
JOIN change ON change.task = task.n AND change.lease_epoch = task.lease_epoch
WHERE task.state = 'in_review' AND change.state IN ('merged', 'rework', 'closed') AND change.id > :after
ORDER BY change.id
LIMIT :limit;

-- name: change_live
-- Changes of one live state with all that could make one of them due again.
SELECT
  change.id, change.repo, change.base, change.state, change.updated_at, task.state AS task_state, task.lease_epoch AS task_epoch,
  CASE WHEN check_task.finished_at IS NOT NULL THEN check_task.state END AS check_state, repository.version AS repo_version,
  (SELECT MAX(review.at) FROM review WHERE review.change = change.id) AS reviewed_at
FROM change
JOIN task ON task.n = change.task
JOIN repository ON repository.name = change.repo
LEFT JOIN task AS check_task ON check_task.n = change.check_task
WHERE change.state = :state AND change.id > :after
ORDER BY change.id
LIMIT :limit;

-- name: change_task
-- The task, its result at this fence and its repository: what a change is opened from and judged by.
SELECT
  task.n, task.project, task.title, task.type, task.lane, task.created_by, task.spec, task.state, task.lease_epoch,
  task.merging, task.rework, task.repo, task.access,
  repository.url, repository.forge, repository.policy, repository.checks, repository.paused, COALESCE(task.base, repository.base) AS base,
  result.branch, result.base_sha, result.head_sha, result.commits, result.verification, result.origin_epoch,
  attempt.agent
FROM task
LEFT JOIN repository ON repository.name = task.repo
LEFT JOIN result ON result.task = task.n AND result.lease_epoch = :lease_epoch
LEFT JOIN attempt ON attempt.task = task.n AND attempt.lease_epoch = COALESCE(result.origin_epoch, :lease_epoch)
WHERE task.n = :task;

-- name: change_authors
-- Every agent whose work the change may contain: a rework starts from the work before it.
SELECT DISTINCT agent
FROM attempt
WHERE task = :task AND lease_epoch <= :lease_epoch AND accepted_at IS NOT NULL
LIMIT 64;

-- name: change_neighbours
-- Other live changes of the repository, for ripple.
SELECT id, stat
FROM change
WHERE repo = :repo AND id <> :id AND state IN ('open', 'checking', 'waiting', 'merging')
ORDER BY id
LIMIT 500;

-- name: change_running_tasks
-- Tasks being worked on in the repository, for ripple.
SELECT n, spec
FROM task
WHERE repo = :repo AND n <> :task AND type <> 'check' AND state IN ('assigned', 'working', 'blocked')
ORDER BY n
LIMIT 500;

-- name: change_slot
-- The change that holds the repository's merge slot.
SELECT id
FROM change
WHERE repo = :repo AND id <> :id AND state IN ('checking', 'merging')
ORDER BY id
LIMIT 1;

-- name: change_check
-- How the check of a candidate ended.
SELECT task.state, task.cause, result.output, result.verification, attempt.error
FROM task
LEFT JOIN attempt ON attempt.task = task.n
  AND attempt.lease_epoch = (SELECT MAX(newest.lease_epoch) FROM attempt AS newest WHERE newest.task = task.n)
LEFT JOIN result ON result.task = task.n AND result.lease_epoch = attempt.lease_epoch
WHERE task.n = :task;
