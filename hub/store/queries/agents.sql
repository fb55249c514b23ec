-- Reads of agents for the doors; what is live (state, task) comes from the scheduler.

-- name: agent_page
SELECT agent.*, agent_session.connected_at
FROM agent
LEFT JOIN agent_session ON agent_session.agent = agent.id
WHERE agent.id > :after AND agent.removed_at IS NULL
ORDER BY agent.id
LIMIT :limit;

-- name: agent_by_id
SELECT agent.*, agent_session.connected_at
FROM agent
LEFT JOIN agent_session ON agent_session.agent = agent.id
WHERE agent.id = :id;

-- name: agent_transitions
SELECT at, from_state, to_state, reason
FROM agent_transition
WHERE agent = :id
ORDER BY id DESC
LIMIT :limit;

-- name: agent_attempts
SELECT attempt.task AS n, attempt.lease_epoch, attempt.assigned_at, attempt.accepted_at, attempt.ended_at, attempt.outcome,
  attempt.verdict, task.title, task.state
FROM attempt
JOIN task ON task.n = attempt.task
WHERE attempt.agent = :id
ORDER BY attempt.assigned_at DESC
LIMIT :limit;
