-- The store looked at as a whole, and what is pruned from it. Each walk goes on from a cursor, a bounded number of rows at a time.

-- name: blob_total
SELECT coalesce(sum(size), 0) AS bytes FROM blob INDEXED BY blob_by_age WHERE created_at >= 0;

-- name: store_samples
SELECT day, file_bytes, free_bytes
FROM store_sample
WHERE day >= :since
ORDER BY day;

-- name: store_sample_insert
INSERT INTO store_sample (day, file_bytes, free_bytes)
VALUES (:day, :file_bytes, :free_bytes)
ON CONFLICT (day) DO NOTHING;

-- name: store_sample_prune
DELETE FROM store_sample WHERE day < :before;

-- name: prune_backlog
SELECT count(*) AS tasks FROM (SELECT 1 FROM task WHERE finished_at < :before LIMIT :limit);

-- name: prune_tasks
-- Ended tasks in the order in which they ended, each with whether something still needs it: another task, a change that is not over,
-- work that may still be adopted. The newest task and the newest change keep their numbers from being given out again.
SELECT task.n, task.finished_at,
  task.n = (SELECT max(n) FROM task)
  OR EXISTS (SELECT 1 FROM task_dep WHERE task_dep.needs = task.n)
  OR EXISTS (
    SELECT 1 FROM change
    WHERE change.task = task.n
      AND (change.state NOT IN ('merged', 'rework', 'closed') OR change.id = (SELECT max(id) FROM change))
  )
  OR EXISTS (
    SELECT 1 FROM change WHERE change.check_task = task.n AND change.state NOT IN ('merged', 'rework', 'closed')
  )
  OR EXISTS (
    SELECT 1 FROM salvage
    WHERE salvage.task = task.n
      AND (salvage.state = 'applying' OR (salvage.state = 'open' AND salvage.at >= :salvage_before))
  ) AS needed
FROM task
WHERE task.finished_at >= :after_at AND task.finished_at < :before AND (task.finished_at > :after_at OR task.n > :after)
ORDER BY task.finished_at, task.n
LIMIT :limit;

-- name: prune_reviews
DELETE FROM review WHERE change IN (SELECT id FROM change WHERE task = :n);

-- name: prune_changes
DELETE FROM change WHERE task = :n;

-- name: prune_deps
DELETE FROM task_dep WHERE task = :n;

-- name: prune_attempts
DELETE FROM attempt WHERE task = :n;

-- name: prune_results
DELETE FROM result WHERE task = :n;

-- name: prune_salvage
DELETE FROM salvage WHERE task = :n;

-- name: prune_feedback
DELETE FROM feedback WHERE task = :n;

-- name: prune_questions
DELETE FROM question WHERE task = :n;

-- name: prune_task
DELETE FROM task WHERE n = :n;

-- name: prune_lone_salvage
-- Salvage of tasks that are not there: there is nothing that it could be applied to but a new task.
DELETE FROM salvage
WHERE (task, lease_epoch, sha256) IN (
  SELECT s.task, s.lease_epoch, s.sha256
  FROM salvage AS s
  WHERE s.task > :after AND s.at < :before AND s.state <> 'applying' AND NOT EXISTS (SELECT 1 FROM task WHERE task.n = s.task)
  ORDER BY s.task
  LIMIT :limit
);

-- name: prune_controls
-- The newest keeps its number from being given out again.
DELETE FROM control
WHERE cid IN (
  SELECT cid FROM control
  WHERE cid > :after AND created_at < :before AND noted_at IS NOT NULL AND cid < (SELECT max(cid) FROM control)
  ORDER BY cid
  LIMIT :limit
);

-- name: prune_transitions
-- The newest of an agent is its state.
DELETE FROM agent_transition
WHERE id IN (
  SELECT old.id
  FROM agent_transition AS old
  WHERE old.id > :after AND old.at < :before
    AND old.id < (SELECT max(newest.id) FROM agent_transition AS newest WHERE newest.agent = old.agent)
  ORDER BY old.id
  LIMIT :limit
);

-- name: prune_blobs
-- Blobs by age, each with whether a result names it; what salvage names is known from salvage_blobs.
SELECT sha256, size, created_at,
  EXISTS (SELECT 1 FROM result WHERE result.output_ref = blob.sha256) AS needed
FROM blob
WHERE created_at >= :after_at AND created_at < :before AND (created_at > :after_at OR sha256 > :after)
ORDER BY created_at, sha256
LIMIT :limit;

-- name: salvage_blobs
-- The blobs that salvage names. A body that was malformed is kept as it came, so it may be no JSON.
SELECT task, lease_epoch, sha256, CASE WHEN json_valid(body) THEN json_extract(body, '$.output_ref') END AS output_ref
FROM salvage
WHERE (task, lease_epoch, sha256) > (:task, :lease_epoch, :sha256)
ORDER BY task, lease_epoch, sha256
LIMIT :limit;

-- name: prune_blob
DELETE FROM blob
WHERE sha256 = :sha256 AND created_at < :before AND NOT EXISTS (SELECT 1 FROM result WHERE result.output_ref = :sha256);

-- name: blob_touch
-- Stored again: whoever did needs it from now on, as if it were new.
UPDATE blob SET created_at = :now WHERE sha256 = :sha256;

-- name: audit_page
-- Events in their order, each with whether its task is still there: then it stays with it. The newest keeps its number.
SELECT seq, at, kind, actor, task, agent, lease_epoch, from_state, to_state, cause, data,
  EXISTS (SELECT 1 FROM task WHERE task.n = event.task) OR seq = (SELECT max(seq) FROM event) AS needed
FROM event
WHERE seq > :after
ORDER BY seq
LIMIT :limit;

-- name: audit_delete
DELETE FROM event WHERE seq IN (SELECT value FROM json_each(:seqs));
