-- What a restore does to the copy that is put in place of the store. Nobody else has it open.

-- name: restore_highest
-- Every counter as the backup knows it.
SELECT
  (SELECT coalesce(max(n), 0) FROM task) AS n,
  (SELECT coalesce(max(lease_epoch), 0) FROM (
    SELECT max(lease_epoch) AS lease_epoch FROM task
    UNION ALL SELECT max(lease_epoch) FROM attempt
    UNION ALL SELECT max(lease_epoch) FROM salvage
  ) AS used) AS lease_epoch,
  (SELECT coalesce(max(epoch), 0) FROM agent_session) AS session_epoch,
  (SELECT coalesce(max(id), 0) FROM change) AS change,
  (SELECT coalesce(max(cid), 0) FROM control) AS cid;

-- name: restore_base
INSERT INTO base (counter, value) VALUES (:counter, :value)
ON CONFLICT (counter) DO UPDATE SET value = excluded.value;

-- name: restore_sessions
UPDATE agent_session SET epoch = :base;

-- name: restore_event
INSERT INTO event (seq, at, kind, actor, data) VALUES (:seq, :now, 'hub.restored', :actor, :data);

-- name: restore_live_tokens
-- Whoever these are: what was revoked after the backup is among them.
SELECT id, name, scopes, created_at FROM token
WHERE revoked_by IS NULL AND (ends_at IS NULL OR ends_at > :now)
ORDER BY created_at, id;

-- name: restore_end_token
-- What the lost hub had ended, ends again.
UPDATE token SET ends_at = :ends_at, revoked_by = :revoked_by
WHERE id = :id AND revoked_by IS NULL;

-- name: restore_held
-- Tasks that were with an agent when the backup was made.
SELECT count(*) AS tasks FROM task WHERE state = 'assigned' OR state = 'working' OR state = 'blocked';

-- name: restored_results
-- What sidecars brought since: applied late, or salvaged, of those of tasks that this store does not know.
SELECT
  (SELECT count(*) FROM event WHERE seq > :seq AND cause = 'late') AS late,
  (SELECT count(*) FROM event WHERE seq > :seq AND cause = 'restored' AND kind = 'task.assigned') AS continued,
  (SELECT count(*) FROM salvage WHERE at >= :at) AS salvaged,
  (SELECT count(*) FROM salvage WHERE at >= :at AND NOT EXISTS (SELECT 1 FROM task WHERE task.n = salvage.task)) AS unknown;
