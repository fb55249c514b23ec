-- Foundation. Common subset of SQLite and PostgreSQL where it costs nothing: integer microseconds UTC, TEXT JSON, TEXT ids.
-- Tables written with every task compare words one by one: for each IN list of three or more, SQLite makes a temporary table
-- anew for every row it writes (a test looks for one).
CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT;

CREATE TABLE project (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  description TEXT NOT NULL DEFAULT '',
  default_repo TEXT,
  dispatch TEXT NOT NULL DEFAULT 'auto' CHECK (dispatch IN ('auto', 'manual')),
  paused INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
  version INTEGER NOT NULL DEFAULT 1,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;

-- policy and checks are JSON documents validated by hub.core.risk.Policy before they are written
CREATE TABLE repository (
  name TEXT PRIMARY KEY,
  url TEXT NOT NULL,
  forge TEXT NOT NULL CHECK (forge IN ('local')),
  base TEXT NOT NULL,
  policy TEXT NOT NULL DEFAULT '{}',
  checks TEXT NOT NULL DEFAULT '[]',
  paused INTEGER NOT NULL DEFAULT 0 CHECK (paused IN (0, 1)),
  version INTEGER NOT NULL DEFAULT 1,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL
) STRICT;

CREATE TABLE project_repository (
  project TEXT NOT NULL REFERENCES project (id) DEFERRABLE INITIALLY DEFERRED,
  repo TEXT NOT NULL REFERENCES repository (name) DEFERRABLE INITIALLY DEFERRED,
  PRIMARY KEY (project, repo)
) STRICT;

CREATE TABLE requirement (
  id INTEGER PRIMARY KEY,
  project TEXT NOT NULL,
  repo TEXT,
  capabilities TEXT NOT NULL
) STRICT;

CREATE TABLE task (
  n INTEGER PRIMARY KEY,
  project TEXT NOT NULL,
  repo TEXT,
  base TEXT,
  title TEXT NOT NULL,
  type TEXT NOT NULL,
  lane TEXT NOT NULL CHECK (lane = 'normal' OR lane = 'high' OR lane = 'urgent' OR lane = 'low'),
  access TEXT NOT NULL CHECK (access IN ('read_only', 'write')),
  needs_change INTEGER NOT NULL CHECK (needs_change IN (0, 1)),
  requirement_id INTEGER NOT NULL REFERENCES requirement (id) DEFERRABLE INITIALLY DEFERRED,
  max_tries INTEGER NOT NULL,
  deadline INTEGER,
  queue_ttl_us INTEGER,
  parent INTEGER,
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  idem_scope TEXT,
  idem_key TEXT,
  idem_hash TEXT,
  unique_key TEXT,
  spec TEXT NOT NULL,
  generation INTEGER NOT NULL,
  state TEXT NOT NULL CHECK (
    state = 'queued' OR state = 'assigned' OR state = 'working' OR state = 'done' OR state = 'waiting' OR state = 'scheduled'
    OR state = 'blocked' OR state = 'in_review' OR state = 'dead' OR state = 'cancelled'
  ),
  seq INTEGER NOT NULL,
  queued_at INTEGER,
  not_before INTEGER,
  tries INTEGER NOT NULL,
  lost INTEGER NOT NULL,
  rework INTEGER NOT NULL,
  claims INTEGER NOT NULL,
  lease_epoch INTEGER NOT NULL,
  holder_agent TEXT,
  holder_session_epoch INTEGER,
  assign_to TEXT,
  agent_hint TEXT,
  avoid_agent TEXT,
  conversation_id TEXT,
  held INTEGER NOT NULL CHECK (held IN (0, 1)),
  parked INTEGER NOT NULL CHECK (parked IN (0, 1)),
  stopping TEXT CHECK (stopping IS NULL OR stopping = 'cancelled' OR stopping = 'done' OR stopping = 'queued' OR stopping = 'dead'),
  merging INTEGER NOT NULL CHECK (merging IN (0, 1)),
  cause TEXT,
  updated_at INTEGER NOT NULL,
  finished_at INTEGER,
  -- who holds what follows from the state: impossible combinations cannot be stored
  CHECK ((holder_agent IS NULL) = (holder_session_epoch IS NULL)),
  CHECK (state NOT IN ('assigned', 'working') OR holder_agent IS NOT NULL),
  CHECK (holder_agent IS NULL OR state = 'assigned' OR state = 'working' OR state = 'blocked'),
  CHECK (state <> 'blocked' OR (holder_agent IS NULL) = parked),
  CHECK (parked = 0 OR state = 'blocked'),
  CHECK (merging = 0 OR state = 'in_review'),
  CHECK (held = 0 OR state = 'waiting'),
  CHECK ((state = 'done' OR state = 'dead' OR state = 'cancelled') = (finished_at IS NOT NULL))
) STRICT;
CREATE INDEX task_live ON task (n) WHERE finished_at IS NULL;
CREATE INDEX task_by_state ON task (state, n);
CREATE INDEX task_by_project ON task (project, n);
CREATE INDEX task_by_repo ON task (repo, n) WHERE repo IS NOT NULL;
CREATE INDEX task_finished ON task (finished_at) WHERE finished_at IS NOT NULL;
CREATE UNIQUE INDEX task_idempotent ON task (idem_scope, idem_key) WHERE idem_key IS NOT NULL;
CREATE UNIQUE INDEX task_unique ON task (unique_key) WHERE unique_key IS NOT NULL AND finished_at IS NULL;

CREATE TABLE task_dep (
  task INTEGER NOT NULL REFERENCES task (n) DEFERRABLE INITIALLY DEFERRED,
  needs INTEGER NOT NULL REFERENCES task (n) DEFERRABLE INITIALLY DEFERRED,
  policy TEXT NOT NULL CHECK (policy = 'skip' OR policy = 'run' OR policy = 'fail'),
  satisfied INTEGER NOT NULL CHECK (satisfied IN (0, 1)),
  PRIMARY KEY (task, needs)
) STRICT, WITHOUT ROWID;
CREATE INDEX task_dep_needs ON task_dep (needs);

CREATE TABLE attempt (
  task INTEGER NOT NULL REFERENCES task (n) DEFERRABLE INITIALLY DEFERRED,
  lease_epoch INTEGER NOT NULL,
  agent TEXT NOT NULL,
  install_id TEXT,
  session_epoch INTEGER NOT NULL,
  assigned_at INTEGER NOT NULL,
  accepted_at INTEGER,
  ended_at INTEGER,
  outcome TEXT,
  cause TEXT,
  sha256 TEXT,
  verdict TEXT,
  error TEXT,
  usage TEXT,
  PRIMARY KEY (task, lease_epoch)
) STRICT, WITHOUT ROWID;
CREATE INDEX attempt_by_agent ON attempt (agent, assigned_at);

CREATE TABLE result (
  task INTEGER NOT NULL,
  lease_epoch INTEGER NOT NULL,
  output TEXT NOT NULL,
  output_ref TEXT,
  branch TEXT,
  base_sha TEXT,
  head_sha TEXT,
  commits TEXT NOT NULL,
  verification TEXT,
  PRIMARY KEY (task, lease_epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE salvage (
  task INTEGER NOT NULL,
  lease_epoch INTEGER NOT NULL,
  sha256 TEXT NOT NULL,
  at INTEGER NOT NULL,
  reason TEXT NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (task, lease_epoch, sha256)
) STRICT, WITHOUT ROWID;

CREATE TABLE feedback (
  task INTEGER NOT NULL,
  lease_epoch INTEGER NOT NULL,
  at INTEGER NOT NULL,
  source TEXT NOT NULL,
  text TEXT NOT NULL,
  branch TEXT,
  head_sha TEXT,
  PRIMARY KEY (task, lease_epoch)
) STRICT, WITHOUT ROWID;

CREATE TABLE question (
  task INTEGER NOT NULL,
  lease_epoch INTEGER NOT NULL,
  qid TEXT NOT NULL,
  text TEXT NOT NULL,
  options TEXT NOT NULL,
  asked_at INTEGER NOT NULL,
  answered_at INTEGER,
  answered_by TEXT,
  answer TEXT,
  PRIMARY KEY (task, lease_epoch, qid)
) STRICT, WITHOUT ROWID;

CREATE TABLE control (
  cid INTEGER PRIMARY KEY,
  task INTEGER NOT NULL,
  lease_epoch INTEGER NOT NULL,
  agent TEXT NOT NULL,
  kind TEXT NOT NULL,
  qid TEXT,
  mode TEXT,
  text TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  noted_at INTEGER
) STRICT;
CREATE INDEX control_open ON control (agent, cid) WHERE noted_at IS NULL;

-- its state is that of its newest transition
CREATE TABLE agent (
  id TEXT PRIMARY KEY,
  name TEXT NOT NULL,
  capabilities TEXT NOT NULL,
  projects TEXT NOT NULL,
  runtimes TEXT NOT NULL,
  host TEXT NOT NULL,
  paused INTEGER NOT NULL CHECK (paused IN (0, 1)),
  quiet INTEGER NOT NULL CHECK (quiet IN (0, 1)),
  streak INTEGER NOT NULL,
  quarantine_level INTEGER NOT NULL,
  quarantined_until INTEGER,
  note TEXT NOT NULL,
  first_seen_at INTEGER NOT NULL,
  last_seen_at INTEGER NOT NULL
) STRICT;

CREATE TABLE agent_session (
  agent TEXT PRIMARY KEY REFERENCES agent (id) DEFERRABLE INITIALLY DEFERRED,
  epoch INTEGER NOT NULL,
  install_id TEXT NOT NULL,
  boot_id TEXT NOT NULL,
  hub_epoch INTEGER NOT NULL,
  connected_at INTEGER NOT NULL
) STRICT;

CREATE TABLE agent_transition (
  id INTEGER PRIMARY KEY,
  agent TEXT NOT NULL,
  at INTEGER NOT NULL,
  from_state TEXT NOT NULL,
  to_state TEXT NOT NULL,
  reason TEXT NOT NULL
) STRICT;
CREATE INDEX agent_transition_by_agent ON agent_transition (agent, id);

-- A proposed merge. intent is the JSON from which the very same merge commit can be rebuilt after a crash.
CREATE TABLE change (
  id INTEGER PRIMARY KEY,
  task INTEGER NOT NULL REFERENCES task (n) DEFERRABLE INITIALLY DEFERRED,
  lease_epoch INTEGER NOT NULL,
  repo TEXT NOT NULL,
  state TEXT NOT NULL CHECK (state IN ('open', 'checking', 'waiting', 'merging', 'merged', 'rework', 'closed')),
  title TEXT NOT NULL,
  body TEXT NOT NULL,
  labels TEXT NOT NULL,
  base TEXT NOT NULL,
  branch TEXT NOT NULL,
  base_sha TEXT NOT NULL,
  head_sha TEXT NOT NULL,
  commits TEXT NOT NULL,
  stat TEXT NOT NULL,
  tier INTEGER CHECK (tier IN (1, 2, 3)),
  reasons TEXT NOT NULL,
  cause TEXT,
  check_task INTEGER,
  candidate_sha TEXT,
  candidate_base TEXT,
  intent TEXT,
  merged_sha TEXT,
  created_at INTEGER NOT NULL,
  updated_at INTEGER NOT NULL,
  UNIQUE (task, lease_epoch)
) STRICT;
CREATE INDEX change_open ON change (repo, id) WHERE state NOT IN ('merged', 'rework', 'closed');
CREATE INDEX change_by_state ON change (state, id);

CREATE TABLE review (
  change INTEGER NOT NULL REFERENCES change (id) DEFERRABLE INITIALLY DEFERRED,
  reviewer TEXT NOT NULL,
  head_sha TEXT NOT NULL,
  verdict TEXT NOT NULL CHECK (verdict IN ('approved', 'rejected')),
  person INTEGER NOT NULL CHECK (person IN (0, 1)),
  comment TEXT NOT NULL,
  at INTEGER NOT NULL,
  PRIMARY KEY (change, reviewer, head_sha)
) STRICT, WITHOUT ROWID;

-- Audit, feed and time travel. seq is assigned by the one writer inside the commit, so it is gap-free in commit order.
CREATE TABLE event (
  seq INTEGER PRIMARY KEY,
  at INTEGER NOT NULL,
  kind TEXT NOT NULL,
  actor TEXT NOT NULL,
  task INTEGER,
  agent TEXT,
  lease_epoch INTEGER,
  from_state TEXT,
  to_state TEXT,
  cause TEXT,
  data TEXT
) STRICT;
CREATE INDEX event_by_task ON event (task, seq) WHERE task IS NOT NULL;

CREATE TABLE blob (
  sha256 TEXT PRIMARY KEY,
  size INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  body BLOB NOT NULL
) STRICT;
