BEGIN TRANSACTION;
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
INSERT INTO "agent" VALUES('agent-3','agent-3','[]','[]','[{"name":"mock","version":"","caps":["questions"]}]','{"hostname":"machine","os":"Linux","cpus":2,"memory_bytes":25276063744}',0,0,0,0,NULL,'',1795650062998276,1795650062998276);
INSERT INTO "agent" VALUES('agent-1','agent-1','[]','[]','[{"name":"mock","version":"","caps":["questions"]}]','{"hostname":"machine","os":"Linux","cpus":2,"memory_bytes":25276063744}',0,0,0,0,NULL,'',1795650063005921,1795650063005921);
INSERT INTO "agent" VALUES('agent-2','agent-2','[]','[]','[{"name":"mock","version":"","caps":["questions"]}]','{"hostname":"machine","os":"Linux","cpus":2,"memory_bytes":25276063744}',0,0,0,0,NULL,'',1795650063056657,1795650063056657);
CREATE TABLE agent_session (
  agent TEXT PRIMARY KEY REFERENCES agent (id) DEFERRABLE INITIALLY DEFERRED,
  epoch INTEGER NOT NULL,
  install_id TEXT NOT NULL,
  boot_id TEXT NOT NULL,
  hub_epoch INTEGER NOT NULL,
  connected_at INTEGER NOT NULL
) STRICT;
INSERT INTO "agent_session" VALUES('agent-3',1,'d4f877c1aa9c4ce6a76d9731f3f06514','ab78c581275f48c486bcd24a050caef2',1,1795650062998276);
INSERT INTO "agent_session" VALUES('agent-1',1,'e5e70b6f8f9e48feb36d3a04dc4bb580','20a734080f674129806fcd21f899e62d',1,1795650063005921);
INSERT INTO "agent_session" VALUES('agent-2',1,'55c25bcd75664f6db3866f3e07a3cfe6','dc8625ecd3e9481499a386d1cc2941a6',1,1795650063056657);
CREATE TABLE agent_transition (
  id INTEGER PRIMARY KEY,
  agent TEXT NOT NULL,
  at INTEGER NOT NULL,
  from_state TEXT NOT NULL,
  to_state TEXT NOT NULL,
  reason TEXT NOT NULL
) STRICT;
INSERT INTO "agent_transition" VALUES(1,'agent-3',1795650062998276,'offline','idle','connected');
INSERT INTO "agent_transition" VALUES(2,'agent-1',1795650063005921,'offline','idle','connected');
INSERT INTO "agent_transition" VALUES(3,'agent-2',1795650063056657,'offline','idle','connected');
INSERT INTO "agent_transition" VALUES(4,'agent-1',1795650063135586,'idle','assigned','assigned t-1');
INSERT INTO "agent_transition" VALUES(5,'agent-1',1795650063149788,'assigned','working','accepted t-1');
INSERT INTO "agent_transition" VALUES(6,'agent-1',1795650063774594,'working','idle','succeeded');
INSERT INTO "agent_transition" VALUES(7,'agent-1',1795650063919869,'idle','assigned','assigned t-2');
INSERT INTO "agent_transition" VALUES(8,'agent-1',1795650063935088,'assigned','working','accepted t-2');
INSERT INTO "agent_transition" VALUES(9,'agent-1',1795650064396284,'working','idle','agent_failed');
INSERT INTO "agent_transition" VALUES(10,'agent-1',1795650064542961,'idle','assigned','assigned t-6');
INSERT INTO "agent_transition" VALUES(11,'agent-1',1795650064558156,'assigned','working','accepted t-6');
INSERT INTO "agent_transition" VALUES(12,'agent-1',1795650065557208,'working','idle','succeeded');
INSERT INTO "agent_transition" VALUES(13,'agent-1',1795650065658207,'idle','assigned','assigned t-7');
INSERT INTO "agent_transition" VALUES(14,'agent-1',1795650065670360,'assigned','working','accepted t-7');
INSERT INTO "agent_transition" VALUES(15,'agent-3',1795650065893517,'idle','assigned','assigned t-9');
INSERT INTO "agent_transition" VALUES(16,'agent-3',1795650065929898,'assigned','working','accepted t-9');
INSERT INTO "agent_transition" VALUES(17,'agent-2',1795650065958880,'idle','assigned','assigned t-10');
INSERT INTO "agent_transition" VALUES(18,'agent-2',1795650065982256,'assigned','working','accepted t-10');
INSERT INTO "agent_transition" VALUES(19,'agent-3',1795650066464230,'working','blocked','question');
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
INSERT INTO "attempt" VALUES(1,1,'agent-1','e5e70b6f8f9e48feb36d3a04dc4bb580',1,1795650063135586,1795650063149788,1795650063774594,'succeeded','succeeded','32780601e2096e1963db1aed9122c61af75436ea7419009f51e32a1bc0c26f49','applied',NULL,NULL);
INSERT INTO "attempt" VALUES(2,1,'agent-1','e5e70b6f8f9e48feb36d3a04dc4bb580',1,1795650063919869,1795650063935088,1795650064396284,'failed','agent_failed','1271afcffe6f706c4f476d0213f6610f69eb78e8f47b155ca59559be6ca74d4b','applied','{"cls":"permanent","code":"agent_failed","message":"it cannot be done","retry_after_ms":null}',NULL);
INSERT INTO "attempt" VALUES(6,1,'agent-1','e5e70b6f8f9e48feb36d3a04dc4bb580',1,1795650064542961,1795650064558156,1795650065557208,'succeeded','succeeded','693fdefc7dfa031376b2e871fb690587fd145c91902c2e3c047f95ffb0bd4b3f','applied',NULL,NULL);
INSERT INTO "attempt" VALUES(7,1,'agent-1','e5e70b6f8f9e48feb36d3a04dc4bb580',1,1795650065658207,1795650065670360,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "attempt" VALUES(9,1,'agent-3','d4f877c1aa9c4ce6a76d9731f3f06514',1,1795650065893517,1795650065929898,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
INSERT INTO "attempt" VALUES(10,1,'agent-2','55c25bcd75664f6db3866f3e07a3cfe6',1,1795650065958880,1795650065982256,NULL,NULL,NULL,NULL,NULL,NULL,NULL);
CREATE TABLE blob (
  sha256 TEXT PRIMARY KEY,
  size INTEGER NOT NULL,
  created_at INTEGER NOT NULL,
  body BLOB NOT NULL
) STRICT;
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
INSERT INTO "change" VALUES(1,6,1,'site','waiting','chore: Work','Work

Why:
t-6 “Work”, asked for by admin, written by agent-1.

Commits:
- 33127265b043 feat: a

Verification:
- the agent machine reported no check

Risk tier 3:
- not verified: no check was run and the repository has none registered

AgentCom-Task: t-6
AgentCom-Lease-Epoch: 1','["agent:agent-1","lane:normal","tier:3"]','main','agentcom/t-6/1','8b3cb4637b363a7cb9e0da2977538c7cc4d4a771','33127265b043eaec421aecb73b470c25977ac7ad','[{"sha":"33127265b043eaec421aecb73b470c25977ac7ad","subject":"feat: a","files":["a.txt"]}]','{"added":1,"deleted":0,"files":[{"path":"a.txt","status":"A","added":1,"deleted":0}],"complete":true}',3,'["not verified: no check was run and the repository has none registered"]','person_needed: tier 3 needs the approval of a person',NULL,NULL,'8b3cb4637b363a7cb9e0da2977538c7cc4d4a771',NULL,NULL,1795650065572590,1795650066118822);
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
INSERT INTO "event" VALUES(1,1795650059739597,'project.created','hub',NULL,NULL,NULL,NULL,NULL,NULL,'{"project":"default","version":1}');
INSERT INTO "event" VALUES(2,1795650059751687,'token.issued','hub',NULL,NULL,NULL,NULL,NULL,NULL,'{"token":"ae727b9f","name":"admin","scopes":["admin"]}');
INSERT INTO "event" VALUES(3,1795650059765834,'token.issued','hub',NULL,NULL,NULL,NULL,NULL,NULL,'{"token":"3e1d66c5","name":"operator","scopes":["operator","submitter"]}');
INSERT INTO "event" VALUES(4,1795650059770810,'token.issued','hub',NULL,NULL,NULL,NULL,NULL,NULL,'{"token":"653857be","name":"sidecar","scopes":["agent:*"]}');
INSERT INTO "event" VALUES(5,1795650060284988,'token.issued','admin',NULL,NULL,NULL,NULL,NULL,NULL,'{"token":"082076b5","name":"demo-person","scopes":["approver"]}');
INSERT INTO "event" VALUES(6,1795650060598317,'repository.registered','admin',NULL,NULL,NULL,NULL,NULL,NULL,'{"repo":"site","version":1}');
INSERT INTO "event" VALUES(7,1795650062998276,'agent.joined','agent-3',NULL,'agent-3',NULL,NULL,NULL,NULL,'{"session_epoch":1}');
INSERT INTO "event" VALUES(8,1795650063005921,'agent.joined','agent-1',NULL,'agent-1',NULL,NULL,NULL,NULL,'{"session_epoch":1}');
INSERT INTO "event" VALUES(9,1795650063056657,'agent.joined','agent-2',NULL,'agent-2',NULL,NULL,NULL,NULL,'{"session_epoch":1}');
INSERT INTO "event" VALUES(10,1795650063135586,'task.submitted','admin',1,NULL,0,NULL,'waiting',NULL,'{"title":"Work","lane":"normal","project":"default","type":"research"}');
INSERT INTO "event" VALUES(11,1795650063135586,'task.queued','admin',1,NULL,0,'waiting','queued',NULL,NULL);
INSERT INTO "event" VALUES(12,1795650063135586,'task.assigned','admin',1,'agent-1',1,'queued','assigned','pinned',NULL);
INSERT INTO "event" VALUES(13,1795650063149788,'task.accepted','agent-1',1,'agent-1',1,'assigned','working',NULL,NULL);
INSERT INTO "event" VALUES(14,1795650063774594,'task.done','agent-1',1,'agent-1',1,'working','done','succeeded',NULL);
INSERT INTO "event" VALUES(15,1795650063919869,'task.submitted','admin',2,NULL,0,NULL,'waiting',NULL,'{"title":"Work","lane":"normal","project":"default","type":"research"}');
INSERT INTO "event" VALUES(16,1795650063919869,'task.queued','admin',2,NULL,0,'waiting','queued',NULL,NULL);
INSERT INTO "event" VALUES(17,1795650063919869,'task.assigned','admin',2,'agent-1',1,'queued','assigned','pinned',NULL);
INSERT INTO "event" VALUES(18,1795650063935088,'task.accepted','agent-1',2,'agent-1',1,'assigned','working',NULL,NULL);
INSERT INTO "event" VALUES(19,1795650064396284,'task.dead','agent-1',2,'agent-1',1,'working','dead','agent_failed',NULL);
INSERT INTO "event" VALUES(20,1795650064469157,'task.submitted','admin',3,NULL,0,NULL,'waiting',NULL,'{"title":"Work","lane":"normal","project":"default","type":"research"}');
INSERT INTO "event" VALUES(21,1795650064469157,'task.scheduled','admin',3,NULL,0,'waiting','scheduled','not_before',NULL);
INSERT INTO "event" VALUES(22,1795650064478021,'task.submitted','admin',4,NULL,0,NULL,'waiting',NULL,'{"title":"Work","lane":"normal","project":"default","type":"research"}');
INSERT INTO "event" VALUES(23,1795650064513513,'task.submitted','admin',5,NULL,0,NULL,'waiting',NULL,'{"title":"Work","lane":"normal","project":"default","type":"research"}');
INSERT INTO "event" VALUES(24,1795650064542961,'task.submitted','admin',6,NULL,0,NULL,'waiting',NULL,'{"title":"Work","lane":"normal","project":"default","type":"task"}');
INSERT INTO "event" VALUES(25,1795650064542961,'task.queued','admin',6,NULL,0,'waiting','queued',NULL,NULL);
INSERT INTO "event" VALUES(26,1795650064542961,'task.assigned','admin',6,'agent-1',1,'queued','assigned','pinned',NULL);
INSERT INTO "event" VALUES(27,1795650064558156,'task.accepted','agent-1',6,'agent-1',1,'assigned','working',NULL,NULL);
INSERT INTO "event" VALUES(28,1795650065557208,'task.in_review','agent-1',6,'agent-1',1,'working','in_review','succeeded',NULL);
INSERT INTO "event" VALUES(29,1795650065572590,'change.opened','gatekeeper',6,NULL,1,NULL,'open',NULL,'{"change":1,"repo":"site","title":"chore: Work"}');
INSERT INTO "event" VALUES(30,1795650065658207,'task.submitted','admin',7,NULL,0,NULL,'waiting',NULL,'{"title":"Work","lane":"normal","project":"default","type":"research"}');
INSERT INTO "event" VALUES(31,1795650065658207,'task.queued','admin',7,NULL,0,'waiting','queued',NULL,NULL);
INSERT INTO "event" VALUES(32,1795650065658207,'task.assigned','admin',7,'agent-1',1,'queued','assigned','pinned',NULL);
INSERT INTO "event" VALUES(33,1795650065670360,'task.accepted','agent-1',7,'agent-1',1,'assigned','working',NULL,NULL);
INSERT INTO "event" VALUES(34,1795650065821242,'task.submitted','admin',8,NULL,0,NULL,'waiting',NULL,'{"title":"Work","lane":"normal","project":"default","type":"research"}');
INSERT INTO "event" VALUES(35,1795650065821242,'task.queued','admin',8,NULL,0,'waiting','queued',NULL,NULL);
INSERT INTO "event" VALUES(36,1795650065893517,'task.submitted','admin',9,NULL,0,NULL,'waiting',NULL,'{"title":"Work","lane":"normal","project":"default","type":"research"}');
INSERT INTO "event" VALUES(37,1795650065893517,'task.queued','admin',9,NULL,0,'waiting','queued',NULL,NULL);
INSERT INTO "event" VALUES(38,1795650065893517,'task.assigned','admin',9,'agent-3',1,'queued','assigned','pinned',NULL);
INSERT INTO "event" VALUES(39,1795650065929898,'task.accepted','agent-3',9,'agent-3',1,'assigned','working',NULL,NULL);
INSERT INTO "event" VALUES(40,1795650065958880,'task.submitted','admin',10,NULL,0,NULL,'waiting',NULL,'{"title":"Work","lane":"normal","project":"default","type":"research"}');
INSERT INTO "event" VALUES(41,1795650065958880,'task.queued','admin',10,NULL,0,'waiting','queued',NULL,NULL);
INSERT INTO "event" VALUES(42,1795650065958880,'task.assigned','admin',10,'agent-2',1,'queued','assigned','pinned',NULL);
INSERT INTO "event" VALUES(43,1795650065982256,'task.accepted','agent-2',10,'agent-2',1,'assigned','working',NULL,NULL);
INSERT INTO "event" VALUES(44,1795650065983718,'task.cancelled','admin',5,NULL,0,'waiting','cancelled','cancel','{"reason":"nobody wants it"}');
INSERT INTO "event" VALUES(45,1795650066118822,'change.waiting','gatekeeper',6,NULL,1,'open','waiting','person_needed: tier 3 needs the approval of a person','{"change":1,"repo":"site","tier":3,"reasons":["not verified: no check was run and the repository has none registered"],"merged_sha":null,"check_task":null}');
INSERT INTO "event" VALUES(46,1795650066464230,'task.blocked','agent-3',9,'agent-3',1,'working','blocked','question','{"qid":"q1"}');
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
INSERT INTO "feedback" VALUES(2,1,1795650064396284,'failure','attempt 1 ended: agent_failed
it cannot be done',NULL,NULL);
CREATE TABLE meta (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) STRICT;
INSERT INTO "meta" VALUES('key_mark','cea830aa8ccd03276a65757ffb32d99631ed5011fde56feb80246767b6dd7dec');
INSERT INTO "meta" VALUES('hub_id','370d58e1cb822967');
INSERT INTO "meta" VALUES('feed_epoch','9ca77b42fa07');
INSERT INTO "meta" VALUES('hub_epoch','1');
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
INSERT INTO "project" VALUES('default','default','',NULL,'auto',0,1,1795650059739597,1795650059739597);
CREATE TABLE project_repository (
  project TEXT NOT NULL REFERENCES project (id) DEFERRABLE INITIALLY DEFERRED,
  repo TEXT NOT NULL REFERENCES repository (name) DEFERRABLE INITIALLY DEFERRED,
  PRIMARY KEY (project, repo)
) STRICT;
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
INSERT INTO "question" VALUES(9,1,'q1','which?','["a","b"]',1795650066464230,NULL,NULL,NULL);
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
INSERT INTO "repository" VALUES('site','/tmp/agentcom-0.1.0/remote.git','local','main','{}','[]',0,1,1795650060598317,1795650060598317);
CREATE TABLE requirement (
  id INTEGER PRIMARY KEY,
  project TEXT NOT NULL,
  repo TEXT,
  capabilities TEXT NOT NULL
) STRICT;
INSERT INTO "requirement" VALUES(1,'default',NULL,'[]');
INSERT INTO "requirement" VALUES(2,'default','site','[]');
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
INSERT INTO "result" VALUES(1,1,'',NULL,NULL,NULL,NULL,'[]',NULL);
INSERT INTO "result" VALUES(2,1,'',NULL,NULL,NULL,NULL,'[]',NULL);
INSERT INTO "result" VALUES(6,1,'',NULL,'agentcom/t-6/1','8b3cb4637b363a7cb9e0da2977538c7cc4d4a771','33127265b043eaec421aecb73b470c25977ac7ad','[{"sha":"33127265b043eaec421aecb73b470c25977ac7ad","subject":"feat: a","files":["a.txt"]}]',NULL);
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
CREATE TABLE salvage (
  task INTEGER NOT NULL,
  lease_epoch INTEGER NOT NULL,
  sha256 TEXT NOT NULL,
  at INTEGER NOT NULL,
  reason TEXT NOT NULL,
  body TEXT NOT NULL,
  PRIMARY KEY (task, lease_epoch, sha256)
) STRICT, WITHOUT ROWID;
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
INSERT INTO "task" VALUES(1,'default',NULL,NULL,'Work','research','normal','write',0,1,3,NULL,NULL,NULL,'admin',1795650063135586,NULL,NULL,NULL,NULL,'{"metadata":{"mock":[{"do":"no_commit"}]}}',1,'done',1,NULL,NULL,1,0,0,1,1,NULL,NULL,'agent-1',NULL,NULL,NULL,0,0,NULL,0,'succeeded',1795650063774594,1795650063774594);
INSERT INTO "task" VALUES(2,'default',NULL,NULL,'Work','research','normal','write',0,1,3,NULL,NULL,NULL,'admin',1795650063919869,NULL,NULL,NULL,NULL,'{"metadata":{"mock":[{"do":"fail","message":"it cannot be done","retryable":false}]}}',1,'dead',2,NULL,NULL,1,0,0,1,1,NULL,NULL,'agent-1',NULL,NULL,NULL,0,0,NULL,0,'agent_failed',1795650064396284,1795650064396284);
INSERT INTO "task" VALUES(3,'default',NULL,NULL,'Work','research','normal','write',0,1,3,NULL,NULL,NULL,'admin',1795650064469157,NULL,NULL,NULL,NULL,'{"metadata":{"mock":[{"do":"no_commit"}]}}',1,'scheduled',0,NULL,2106690055000000,0,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,0,0,NULL,0,'not_before',1795650064469157,NULL);
INSERT INTO "task" VALUES(4,'default',NULL,NULL,'Work','research','normal','write',0,1,3,NULL,NULL,NULL,'admin',1795650064478021,NULL,NULL,NULL,NULL,'{"metadata":{"mock":[{"do":"no_commit"}]}}',1,'waiting',0,NULL,NULL,0,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,1,0,NULL,0,'held',1795650064478021,NULL);
INSERT INTO "task" VALUES(5,'default',NULL,NULL,'Work','research','normal','write',0,1,3,NULL,NULL,NULL,'admin',1795650064513513,NULL,NULL,NULL,NULL,'{"metadata":{"mock":[{"do":"no_commit"}]}}',1,'cancelled',0,NULL,NULL,0,0,0,0,0,NULL,NULL,NULL,NULL,NULL,NULL,0,0,NULL,0,'cancel',1795650065983718,1795650065983718);
INSERT INTO "task" VALUES(6,'default','site',NULL,'Work','task','normal','write',1,2,3,NULL,NULL,NULL,'admin',1795650064542961,NULL,NULL,NULL,NULL,'{"metadata":{"mock":[{"do":"change","path":"a.txt","text":"a\n","message":"feat: a"}]}}',1,'in_review',3,NULL,NULL,1,0,0,1,1,NULL,NULL,'agent-1','agent-1',NULL,NULL,0,0,NULL,0,'succeeded',1795650065557208,NULL);
INSERT INTO "task" VALUES(7,'default',NULL,NULL,'Work','research','normal','write',0,1,3,NULL,NULL,NULL,'admin',1795650065658207,NULL,NULL,NULL,NULL,'{"metadata":{"mock":[{"do":"slow","s":600},{"do":"no_commit"}]}}',1,'working',4,NULL,NULL,1,0,0,1,1,'agent-1',1,'agent-1',NULL,NULL,NULL,0,0,NULL,0,NULL,1795650065670360,NULL);
INSERT INTO "task" VALUES(8,'default',NULL,NULL,'Work','research','normal','write',0,1,3,NULL,NULL,NULL,'admin',1795650065821242,NULL,NULL,NULL,NULL,'{"metadata":{"mock":[{"do":"no_commit"}]}}',1,'queued',5,1795650065821242,NULL,0,0,0,0,0,NULL,NULL,'agent-1',NULL,NULL,NULL,0,0,NULL,0,NULL,1795650065821242,NULL);
INSERT INTO "task" VALUES(9,'default',NULL,NULL,'Work','research','normal','write',0,1,3,NULL,NULL,NULL,'admin',1795650065893517,NULL,NULL,NULL,NULL,'{"metadata":{"mock":[{"do":"question","qid":"q1","text":"which?","options":["a","b"]},{"do":"no_commit"}]}}',1,'blocked',6,NULL,NULL,1,0,0,1,1,'agent-3',1,'agent-3',NULL,NULL,NULL,0,0,NULL,0,'question',1795650066464230,NULL);
INSERT INTO "task" VALUES(10,'default',NULL,NULL,'Work','research','normal','write',0,1,3,NULL,NULL,NULL,'admin',1795650065958880,NULL,NULL,NULL,NULL,'{"metadata":{"mock":[{"do":"slow","s":4},{"do":"no_commit"}]}}',1,'working',7,NULL,NULL,1,0,0,1,1,'agent-2',1,'agent-2',NULL,NULL,NULL,0,0,NULL,0,NULL,1795650065982256,NULL);
CREATE TABLE task_dep (
  task INTEGER NOT NULL REFERENCES task (n) DEFERRABLE INITIALLY DEFERRED,
  needs INTEGER NOT NULL REFERENCES task (n) DEFERRABLE INITIALLY DEFERRED,
  policy TEXT NOT NULL CHECK (policy = 'skip' OR policy = 'run' OR policy = 'fail'),
  satisfied INTEGER NOT NULL CHECK (satisfied IN (0, 1)),
  PRIMARY KEY (task, needs)
) STRICT, WITHOUT ROWID;
CREATE TABLE token (
  id TEXT PRIMARY KEY,
  digest TEXT NOT NULL,
  name TEXT NOT NULL,
  person INTEGER NOT NULL CHECK (person IN (0, 1)),
  scopes TEXT NOT NULL,
  install_id TEXT,
  created_by TEXT NOT NULL,
  created_at INTEGER NOT NULL,
  ends_at INTEGER,
  revoked_by TEXT,
  used_by TEXT REFERENCES token (id) ON DELETE SET NULL DEFERRABLE INITIALLY DEFERRED,
  CHECK (revoked_by IS NULL OR ends_at IS NOT NULL)
) STRICT;
CREATE TABLE token_agent (
  agent TEXT NOT NULL,
  token TEXT NOT NULL REFERENCES token (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  PRIMARY KEY (agent, token)
) STRICT, WITHOUT ROWID;
CREATE INDEX task_live ON task (n) WHERE finished_at IS NULL;
CREATE INDEX task_by_state ON task (state, n);
CREATE INDEX task_by_project ON task (project, n);
CREATE INDEX task_by_repo ON task (repo, n) WHERE repo IS NOT NULL;
CREATE INDEX task_finished ON task (finished_at) WHERE finished_at IS NOT NULL;
CREATE UNIQUE INDEX task_idempotent ON task (idem_scope, idem_key) WHERE idem_key IS NOT NULL;
CREATE UNIQUE INDEX task_unique ON task (unique_key) WHERE unique_key IS NOT NULL AND finished_at IS NULL;
CREATE INDEX task_dep_needs ON task_dep (needs);
CREATE INDEX attempt_by_agent ON attempt (agent, assigned_at);
CREATE INDEX control_open ON control (agent, cid) WHERE noted_at IS NULL;
CREATE INDEX agent_transition_by_agent ON agent_transition (agent, id);
CREATE INDEX change_open ON change (repo, id) WHERE state NOT IN ('merged', 'rework', 'closed');
CREATE INDEX change_by_state ON change (state, id);
CREATE INDEX event_by_task ON event (task, seq) WHERE task IS NOT NULL;
CREATE INDEX token_ends ON token (ends_at) WHERE ends_at IS NOT NULL;
CREATE INDEX token_by_install ON token (install_id) WHERE install_id IS NOT NULL;
CREATE INDEX token_used ON token (used_by) WHERE used_by IS NOT NULL;
CREATE INDEX token_agent_of ON token_agent (token);
COMMIT;
PRAGMA user_version=2;
