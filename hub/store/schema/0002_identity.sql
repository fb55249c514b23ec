-- Who may come in. A token's secret is never stored: digest is the keyed BLAKE2b of its SHA-256. An enrolment code is a token
-- with the scope enrol; the first registration it serves binds it to an installation and to the token that was given out.
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
CREATE INDEX token_ends ON token (ends_at) WHERE ends_at IS NOT NULL;
CREATE INDEX token_by_install ON token (install_id) WHERE install_id IS NOT NULL;
CREATE INDEX token_used ON token (used_by) WHERE used_by IS NOT NULL;

-- Whose name an agent's is, as far as names were given out by enrolment.
CREATE TABLE token_agent (
  agent TEXT NOT NULL,
  token TEXT NOT NULL REFERENCES token (id) ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED,
  PRIMARY KEY (agent, token)
) STRICT, WITHOUT ROWID;
CREATE INDEX token_agent_of ON token_agent (token);
