-- What is said of a whole store: read from a copy of it, or on a connection of its own, never on the way of a command.

-- name: store_facts
SELECT
  (SELECT value FROM meta WHERE key = 'hub_id') AS hub_id,
  (SELECT value FROM meta WHERE key = 'hub_epoch') AS hub_epoch,
  (SELECT coalesce(max(seq), 0) FROM event) AS seq,
  (SELECT coalesce(max(n), 0) FROM task) AS n;

-- name: store_tasks_by_state
SELECT state, count(*) AS tasks FROM task GROUP BY state ORDER BY state;

-- name: store_fold
-- Tasks whose last event that changed their state says another one; events of their changes tell states of another machine.
WITH newest AS (SELECT task, max(seq) AS seq FROM event WHERE to_state IS NOT NULL AND kind LIKE 'task.%' AND task IS NOT NULL
  GROUP BY task)
SELECT task.n, task.state, event.to_state
FROM newest
JOIN event ON event.seq = newest.seq
JOIN task ON task.n = newest.task
WHERE event.to_state <> task.state
ORDER BY task.n
LIMIT :limit;

-- name: hub_since
-- When this hub began: its first project was made then.
SELECT min(created_at) AS at FROM project;
