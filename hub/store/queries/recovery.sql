-- name: live_tasks
-- the columns of hub.core.rows.LiveTask, in their order
SELECT n, type, lane, access, needs_change, requirement_id, max_tries, created_at, deadline, queue_ttl_us, idem_scope,
  idem_key, idem_hash, unique_key, generation, state, seq, queued_at, not_before, tries, lost, rework, claims,
  lease_epoch, holder_agent, holder_session_epoch, assign_to, agent_hint, avoid_agent, suspects, conversation_id, held,
  parked, stopping, merging, cause, updated_at, finished_at
FROM task WHERE finished_at IS NULL ORDER BY n;

-- name: live_deps
-- CROSS JOIN fixes the order of the loops: the live tasks are few, the edges of all time are many
SELECT d.task, d.needs, d.policy, d.satisfied FROM task AS t CROSS JOIN task_dep AS d
WHERE d.task = t.n AND t.finished_at IS NULL ORDER BY t.n, d.needs;

-- name: open_attempts
SELECT a.* FROM task AS t JOIN attempt AS a ON a.task = t.n AND a.lease_epoch = t.lease_epoch
WHERE t.finished_at IS NULL AND a.ended_at IS NULL;

-- name: open_questions
SELECT q.* FROM task AS t CROSS JOIN question AS q
WHERE q.task = t.n AND t.finished_at IS NULL
  AND (q.answered_at IS NULL OR (q.lease_epoch = t.lease_epoch AND t.holder_agent IS NOT NULL));

-- name: open_controls
SELECT c.* FROM control AS c WHERE c.noted_at IS NULL ORDER BY c.agent, c.cid;

-- name: requirements
SELECT id, project, repo, capabilities FROM requirement ORDER BY id DESC LIMIT 4096;

-- name: live_requirements
SELECT DISTINCT r.id, r.project, r.repo, r.capabilities FROM task AS t JOIN requirement AS r ON r.id = t.requirement_id
WHERE t.finished_at IS NULL;

-- name: agents_with_sessions
SELECT a.*, s.epoch, s.install_id, s.boot_id, coalesce(t.to_state, 'offline') AS state, coalesce(t.at, 0) AS moved_at
FROM agent AS a
LEFT JOIN agent_session AS s ON s.agent = a.id
LEFT JOIN agent_transition AS t ON t.id = (SELECT max(id) FROM agent_transition WHERE agent = a.id)
ORDER BY a.id;

-- name: project_switches
SELECT id, paused, dispatch FROM project;

-- name: repository_switches
SELECT name, paused FROM repository;

-- name: highest_numbers
SELECT
  (SELECT coalesce(max(n), 0) FROM task) AS n,
  (SELECT coalesce(max(id), 0) FROM requirement) AS requirement,
  (SELECT coalesce(max(cid), 0) FROM control) AS cid;

-- name: bases
SELECT counter, value FROM base;
