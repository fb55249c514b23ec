-- Reads of tasks for the doors. Lists go from the newest task down, from a cursor: n < :before.

-- name: task_page
-- Newest first; every page query is served by the index its name tells.
SELECT
  n, project, repo, base, title, type, lane, access, needs_change, max_tries, deadline, parent, created_by, created_at, unique_key,
  generation, state, queued_at, not_before, tries, lost, rework, claims, lease_epoch, holder_agent, assign_to, held, parked,
  stopping, merging, cause, updated_at, finished_at
FROM task
WHERE n < :before
ORDER BY n DESC
LIMIT :limit;

-- name: task_page_live
SELECT
  n, project, repo, base, title, type, lane, access, needs_change, max_tries, deadline, parent, created_by, created_at, unique_key,
  generation, state, queued_at, not_before, tries, lost, rework, claims, lease_epoch, holder_agent, assign_to, held, parked,
  stopping, merging, cause, updated_at, finished_at
FROM task
WHERE finished_at IS NULL AND n < :before
ORDER BY n DESC
LIMIT :limit;

-- name: task_page_by_state
SELECT
  n, project, repo, base, title, type, lane, access, needs_change, max_tries, deadline, parent, created_by, created_at, unique_key,
  generation, state, queued_at, not_before, tries, lost, rework, claims, lease_epoch, holder_agent, assign_to, held, parked,
  stopping, merging, cause, updated_at, finished_at
FROM task
WHERE state = :state AND n < :before
ORDER BY n DESC
LIMIT :limit;

-- name: task_page_by_project
SELECT
  n, project, repo, base, title, type, lane, access, needs_change, max_tries, deadline, parent, created_by, created_at, unique_key,
  generation, state, queued_at, not_before, tries, lost, rework, claims, lease_epoch, holder_agent, assign_to, held, parked,
  stopping, merging, cause, updated_at, finished_at
FROM task
WHERE project = :project AND n < :before
ORDER BY n DESC
LIMIT :limit;

-- name: task_page_by_repo
SELECT
  n, project, repo, base, title, type, lane, access, needs_change, max_tries, deadline, parent, created_by, created_at, unique_key,
  generation, state, queued_at, not_before, tries, lost, rework, claims, lease_epoch, holder_agent, assign_to, held, parked,
  stopping, merging, cause, updated_at, finished_at
FROM task
WHERE repo = :repo AND n < :before
ORDER BY n DESC
LIMIT :limit;

-- name: task_page_by_agent
-- Tasks an agent was given, looking at its latest 10 000 attempts.
SELECT
  n, project, repo, base, title, type, lane, access, needs_change, max_tries, deadline, parent, created_by, created_at, unique_key,
  generation, state, queued_at, not_before, tries, lost, rework, claims, lease_epoch, holder_agent, assign_to, held, parked,
  stopping, merging, cause, updated_at, finished_at
FROM task
WHERE n IN (SELECT task FROM (SELECT task FROM attempt WHERE agent = :agent ORDER BY assigned_at DESC LIMIT 10000))
  AND n < :before
ORDER BY n DESC
LIMIT :limit;

-- name: task_by_n
SELECT task.*, requirement.capabilities
FROM task
JOIN requirement ON requirement.id = task.requirement_id
WHERE task.n = :n;

-- name: task_described
-- What of a task travels to the agent that does it.
SELECT spec, title, type, access, project, repo, base, needs_change, tries, conversation_id
FROM task
WHERE n = :n;

-- name: task_needs
-- What a task waits for.
SELECT task_dep.needs AS n, task_dep.policy, task_dep.satisfied, task.state, task.title
FROM task_dep
JOIN task ON task.n = task_dep.needs
WHERE task_dep.task = :n
ORDER BY task_dep.needs
LIMIT 64;

-- name: task_needed_by
-- What waits for a task.
SELECT task_dep.task AS n, task_dep.policy, task_dep.satisfied, task.state, task.title
FROM task_dep
JOIN task ON task.n = task_dep.task
WHERE task_dep.needs = :n
ORDER BY task_dep.task
LIMIT 64;

-- name: task_attempts
SELECT lease_epoch, agent, session_epoch, assigned_at, accepted_at, ended_at, outcome, cause, verdict, error, usage
FROM attempt
WHERE task = :n
ORDER BY lease_epoch DESC
LIMIT 64;

-- name: task_result
-- The newest applied result.
SELECT lease_epoch, output, output_ref, branch, base_sha, head_sha, commits, verification
FROM result
WHERE task = :n
ORDER BY lease_epoch DESC
LIMIT 1;

-- name: task_feedback
SELECT lease_epoch, at, source, text, branch, head_sha
FROM feedback
WHERE task = :n AND lease_epoch <= :lease_epoch
ORDER BY lease_epoch DESC
LIMIT :limit;

-- name: task_rework
-- The newest feedback that says from which work to go on.
SELECT branch, head_sha
FROM feedback
WHERE task = :n AND lease_epoch <= :lease_epoch AND source = 'rework'
ORDER BY lease_epoch DESC
LIMIT 1;

-- name: task_questions
SELECT lease_epoch, qid, text, options, asked_at, answered_at, answered_by, answer
FROM question
WHERE task = :n
ORDER BY lease_epoch DESC, qid DESC
LIMIT 64;

-- name: task_changes
SELECT id, lease_epoch, state, tier, cause, head_sha, merged_sha
FROM change
WHERE task = :n
ORDER BY lease_epoch DESC
LIMIT 16;

-- name: task_endings
-- The ends and new starts of a page of tasks (:tasks is a JSON list of their numbers), newest first.
SELECT task, kind, data
FROM event
WHERE task IN (SELECT value FROM json_each(:tasks))
  AND kind IN ('task.stopping', 'task.cancelled', 'task.completed', 'task.dead', 'task.requeued')
ORDER BY seq DESC
LIMIT :limit;

-- name: task_of_unique_key
SELECT n
FROM task
WHERE unique_key = :unique_key AND finished_at IS NULL;
