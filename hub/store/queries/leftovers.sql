-- What a branch or a clone was for, told only by rows that name it.

-- name: leftover_assignment
SELECT change.repo, change.head_sha, change.candidate_sha, change.state, task.state AS task_state
FROM change
JOIN task ON task.n = change.task
WHERE change.task = :task AND COALESCE(change.origin_epoch, change.lease_epoch) = :lease_epoch
ORDER BY change.id DESC
LIMIT 1;

-- name: leftover_candidate
SELECT change.repo, change.head_sha, change.candidate_sha, change.state, task.state AS task_state
FROM change
JOIN task ON task.n = change.task
WHERE change.id = :change;

-- name: leftover_wanted
-- A task that is not over, or a change that is still open, names this repository.
SELECT
  EXISTS (SELECT 1 FROM task WHERE repo = :repo AND finished_at IS NULL)
  OR EXISTS (SELECT 1 FROM change WHERE repo = :repo AND state NOT IN ('merged', 'rework', 'closed')) AS wanted;
