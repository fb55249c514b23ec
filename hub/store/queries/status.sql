-- Figures for the status page. What is live is counted by the scheduler in memory.

-- name: status_finished_since
-- Without the hub's own checks, as in every list. Materialized, because grouping by state would otherwise tempt the planner to walk all of task_by_state.
WITH recent AS MATERIALIZED (SELECT state FROM task WHERE finished_at >= :since AND type <> 'check')
SELECT state, count(*) AS tasks
FROM recent
GROUP BY state;

-- name: status_open_changes
SELECT state, count(*) AS changes
FROM change
WHERE state IN ('open', 'checking', 'waiting', 'merging')
GROUP BY state;
