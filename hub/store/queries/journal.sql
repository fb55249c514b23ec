-- name: meta_get
SELECT value FROM meta WHERE key = :key;

-- name: meta_set
INSERT INTO meta (key, value) VALUES (:key, :value) ON CONFLICT (key) DO UPDATE SET value = excluded.value;

-- name: event_insert
INSERT INTO event (seq, at, kind, actor, task, agent, lease_epoch, from_state, to_state, cause, data)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: event_last_seq
SELECT coalesce(max(seq), 0) AS seq FROM event;

-- name: states_of
-- facts for a submit: the terminal states of tasks that are not in memory (:ns is a JSON list)
SELECT n, state FROM task WHERE n IN (SELECT value FROM json_each(:ns));

-- name: idempotent_of
SELECT idem_key, n, idem_hash, state FROM task WHERE idem_scope = :scope AND idem_key IN (SELECT value FROM json_each(:keys));

-- name: task_fact
SELECT task.*, requirement.capabilities FROM task JOIN requirement ON requirement.id = task.requirement_id WHERE n = :n;

-- name: deps_fact
SELECT task, needs, policy, satisfied FROM task_dep WHERE task = :n;

-- name: attempt_fact
SELECT * FROM attempt WHERE task = :task AND lease_epoch = :lease_epoch;
