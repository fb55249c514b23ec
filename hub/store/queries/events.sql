-- Reads of the audit, which is also the feed.

-- name: event_page_after
SELECT seq, at, kind, actor, task, agent, lease_epoch, from_state, to_state, cause, data
FROM event
WHERE seq > :after
ORDER BY seq
LIMIT :limit;

-- name: event_page_of_task
SELECT seq, at, kind, actor, task, agent, lease_epoch, from_state, to_state, cause, data
FROM event
WHERE task = :task AND seq < :before
ORDER BY seq DESC
LIMIT :limit;
