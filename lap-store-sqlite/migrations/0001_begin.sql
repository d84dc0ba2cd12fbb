-- The names of states and kinds are those of lap-core's `as_str`. Times are milliseconds since the Unix epoch.
-- Ids are UUID text, whose order is the order of creation for version 7.

CREATE TABLE lap_instance (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    id TEXT NOT NULL,
    signing_seed TEXT NOT NULL
) STRICT;

-- The one sequence from which every take draws its fence.
CREATE TABLE lap_fence (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    last INTEGER NOT NULL
) STRICT;
INSERT INTO lap_fence (one, last) VALUES (1, 0);

CREATE TABLE lap_agents (
    id TEXT PRIMARY KEY,
    version INTEGER NOT NULL,
    spec TEXT NOT NULL,
    -- Copies out of the spec, for search and order.
    name TEXT,
    harness TEXT NOT NULL,
    blueprint_hash TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    deleted_at INTEGER
) STRICT;

CREATE TABLE lap_sessions (
    id TEXT PRIMARY KEY,
    agent TEXT NOT NULL REFERENCES lap_agents (id),
    agent_version INTEGER NOT NULL,
    state TEXT NOT NULL,
    state_since INTEGER NOT NULL,
    phase TEXT,
    phase_detail TEXT,
    attempt INTEGER NOT NULL,
    sandbox TEXT,
    conversation TEXT,
    title TEXT,
    preview TEXT,
    failure TEXT,
    ended_by TEXT,
    created_at INTEGER NOT NULL,
    created_by TEXT NOT NULL,
    last_seen_at INTEGER NOT NULL
) STRICT;
CREATE INDEX lap_sessions_agent ON lap_sessions (agent, id);
CREATE INDEX lap_sessions_active ON lap_sessions (agent) WHERE state IN ('creating', 'ready');

-- Apart from the session, so that its frequent small updates do not rewrite this large text.
CREATE TABLE lap_openings (
    session TEXT PRIMARY KEY REFERENCES lap_sessions (id),
    sealed TEXT NOT NULL
) STRICT;

CREATE TABLE lap_sandboxes (
    id TEXT PRIMARY KEY,
    blueprint_hash TEXT NOT NULL,
    platform_hash TEXT NOT NULL,
    state TEXT NOT NULL,
    state_since INTEGER NOT NULL,
    -- Deferred: `open` claims first and inserts the session after.
    session TEXT REFERENCES lap_sessions (id) DEFERRABLE INITIALLY DEFERRED,
    -- 'cluster', or the id of the host.
    place TEXT NOT NULL,
    address TEXT,
    reason TEXT,
    created_at INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX lap_sandboxes_live ON lap_sandboxes (session)
    WHERE state IN ('provisioning', 'warm', 'claimed');
CREATE INDEX lap_sandboxes_warm ON lap_sandboxes (blueprint_hash, platform_hash, state_since, id)
    WHERE state = 'warm';
CREATE INDEX lap_sandboxes_place ON lap_sandboxes (place) WHERE state <> 'gone';
CREATE INDEX lap_sandboxes_count ON lap_sandboxes (blueprint_hash, platform_hash, state) WHERE state <> 'gone';

CREATE TABLE lap_turns (
    id TEXT PRIMARY KEY,
    session TEXT NOT NULL REFERENCES lap_sessions (id),
    number INTEGER NOT NULL,
    state TEXT NOT NULL,
    parts TEXT NOT NULL,
    model TEXT,
    abort_requested INTEGER NOT NULL DEFAULT 0,
    failure TEXT,
    reply TEXT,
    input_tokens INTEGER NOT NULL DEFAULT 0,
    output_tokens INTEGER NOT NULL DEFAULT 0,
    cost REAL NOT NULL DEFAULT 0,
    created_by TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    started_at INTEGER,
    finished_at INTEGER
) STRICT;
CREATE UNIQUE INDEX lap_turns_number ON lap_turns (session, number);
CREATE UNIQUE INDEX lap_turns_open ON lap_turns (session) WHERE state IN ('sending', 'running');
CREATE INDEX lap_turns_queued ON lap_turns (session, number) WHERE state = 'queued';

-- Narrow, because every append updates it.
CREATE TABLE lap_event_heads (
    session TEXT PRIMARY KEY REFERENCES lap_sessions (id),
    first_kept INTEGER NOT NULL,
    last INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE lap_events (
    session TEXT NOT NULL REFERENCES lap_event_heads (session),
    id INTEGER NOT NULL,
    kind TEXT NOT NULL,
    turn TEXT,
    body TEXT NOT NULL,
    origin INTEGER,
    at INTEGER NOT NULL,
    PRIMARY KEY (session, id)
) STRICT, WITHOUT ROWID;

CREATE TABLE lap_cursors (
    session TEXT NOT NULL REFERENCES lap_sessions (id),
    source TEXT NOT NULL,
    cursor INTEGER NOT NULL,
    PRIMARY KEY (session, source)
) STRICT, WITHOUT ROWID;

CREATE TABLE lap_work (
    kind TEXT NOT NULL,
    key TEXT NOT NULL,
    -- NULL: anybody; 'cluster'; or the id of a host.
    place TEXT,
    -- While the item is held: the earliest due that was asked for meanwhile, else never.
    due INTEGER NOT NULL,
    owner TEXT,
    fence INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX lap_work_due ON lap_work (due) WHERE owner IS NULL;
CREATE INDEX lap_work_owner ON lap_work (owner) WHERE owner IS NOT NULL;

CREATE TABLE lap_workers (
    id TEXT PRIMARY KEY,
    place TEXT NOT NULL,
    platform_hash TEXT NOT NULL,
    beat INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE lap_idempotency (
    principal TEXT NOT NULL,
    operation TEXT NOT NULL,
    parent TEXT NOT NULL,
    key TEXT NOT NULL,
    body_hash TEXT NOT NULL,
    result TEXT NOT NULL,
    expires_at INTEGER NOT NULL,
    PRIMARY KEY (principal, operation, parent, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX lap_idempotency_expires ON lap_idempotency (expires_at);

CREATE TABLE lap_records (
    id TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    owner TEXT NOT NULL,
    unique_key TEXT,
    version INTEGER NOT NULL,
    body TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL
) STRICT;
CREATE INDEX lap_records_kind ON lap_records (kind, id);
CREATE INDEX lap_records_owner ON lap_records (kind, owner, id);
CREATE UNIQUE INDEX lap_records_key ON lap_records (kind, owner, unique_key) WHERE unique_key IS NOT NULL;
