-- `lap.` stands for the store's schema. The names of states and kinds are those of lap-core's `as_str`. Times are
-- milliseconds since the Unix epoch. Documents are text, so that they come back exactly as they were given (jsonb knows no
-- NUL character).
--
-- There are no foreign keys: every write goes through this crate, each transition of a session happens under the lock
-- of its row, and rows of agents and sessions are never removed, so a key would cost a lock per insert and find nothing.
--
-- Tables whose rows change often leave room for changes on the page, and are vacuumed after few changes.

-- The one clock. Statements ask this function, so a test can move the time of its own schema. It is inlined.
CREATE FUNCTION lap.now_ms() RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT (extract(epoch FROM now()) * 1000)::bigint $$;

CREATE TABLE lap.instance (
    one smallint PRIMARY KEY CHECK (one = 1),
    id uuid NOT NULL,
    signing_seed text NOT NULL
);

-- The one sequence from which every take draws its fence.
CREATE SEQUENCE lap.fence;

CREATE TABLE lap.agents (
    id uuid PRIMARY KEY,
    version bigint NOT NULL,
    spec text NOT NULL,
    -- Copies out of the spec, for search and order.
    name text COLLATE "C",
    harness text COLLATE "C" NOT NULL,
    blueprint_hash text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    created_by text NOT NULL,
    deleted_at bigint
);

CREATE TABLE lap.sessions (
    id uuid PRIMARY KEY,
    agent uuid NOT NULL,
    agent_version bigint NOT NULL,
    state text NOT NULL,
    state_since bigint NOT NULL,
    phase text,
    phase_detail text,
    attempt integer NOT NULL,
    sandbox uuid,
    conversation text,
    title text,
    preview text,
    failure text,
    ended_by text,
    created_at bigint NOT NULL,
    created_by text NOT NULL,
    last_seen_at bigint NOT NULL
) WITH (fillfactor = 80);
CREATE INDEX sessions_agent ON lap.sessions (agent, id);
CREATE INDEX sessions_active ON lap.sessions (agent, id) WHERE state IN ('creating', 'ready');

-- Apart from the session, so that its frequent small updates do not rewrite this large text.
CREATE TABLE lap.openings (
    session uuid PRIMARY KEY,
    sealed text NOT NULL
);

CREATE TABLE lap.sandboxes (
    id uuid PRIMARY KEY,
    blueprint_hash text COLLATE "C" NOT NULL,
    platform_hash text COLLATE "C" NOT NULL,
    state text NOT NULL,
    state_since bigint NOT NULL,
    session uuid,
    -- 'cluster', or the id of the host.
    place text COLLATE "C" NOT NULL,
    address text,
    reason text,
    created_at bigint NOT NULL
) WITH (
    fillfactor = 70,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 200,
    autovacuum_vacuum_cost_delay = 0
);
CREATE UNIQUE INDEX sandboxes_live ON lap.sandboxes (session)
    WHERE state IN ('provisioning', 'warm', 'claimed') AND session IS NOT NULL;
CREATE INDEX sandboxes_warm ON lap.sandboxes (blueprint_hash, platform_hash, state_since, id) WHERE state = 'warm';
CREATE INDEX sandboxes_present ON lap.sandboxes (place, id) WHERE state <> 'gone';

CREATE TABLE lap.turns (
    id uuid PRIMARY KEY,
    session uuid NOT NULL,
    number bigint NOT NULL,
    state text NOT NULL,
    parts text NOT NULL,
    model text,
    abort_requested boolean NOT NULL DEFAULT false,
    failure text,
    reply text,
    input_tokens bigint NOT NULL DEFAULT 0,
    output_tokens bigint NOT NULL DEFAULT 0,
    cost double precision NOT NULL DEFAULT 0,
    created_by text NOT NULL,
    created_at bigint NOT NULL,
    started_at bigint,
    finished_at bigint
) WITH (fillfactor = 80);
CREATE UNIQUE INDEX turns_number ON lap.turns (session, number);
CREATE UNIQUE INDEX turns_open ON lap.turns (session) WHERE state IN ('sending', 'running');
CREATE INDEX turns_unfinished ON lap.turns (session, number) WHERE state IN ('queued', 'sending', 'running');

-- Narrow, because every append updates it.
CREATE TABLE lap.heads (
    session uuid PRIMARY KEY,
    first_kept bigint NOT NULL,
    last bigint NOT NULL
) WITH (
    fillfactor = 50,
    autovacuum_vacuum_scale_factor = 0.05,
    autovacuum_vacuum_threshold = 500,
    autovacuum_vacuum_cost_delay = 0
);

CREATE TABLE lap.events (
    session uuid NOT NULL,
    id bigint NOT NULL,
    kind text NOT NULL,
    turn uuid,
    body text NOT NULL,
    origin bigint,
    at bigint NOT NULL,
    PRIMARY KEY (session, id)
);

CREATE TABLE lap.cursors (
    session uuid NOT NULL,
    source uuid NOT NULL,
    cursor bigint NOT NULL,
    PRIMARY KEY (session, source)
) WITH (fillfactor = 50);

CREATE TABLE lap.work (
    kind text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    -- NULL: anybody; 'cluster'; or the id of a host.
    place text COLLATE "C",
    -- While the item is held: the earliest due that was asked for meanwhile, else never.
    due bigint NOT NULL,
    owner uuid,
    fence bigint NOT NULL DEFAULT 0,
    generation bigint NOT NULL,
    attempts integer NOT NULL DEFAULT 0,
    PRIMARY KEY (kind, key)
) WITH (
    fillfactor = 60,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_threshold = 200,
    autovacuum_vacuum_cost_delay = 0
);
CREATE INDEX work_due ON lap.work (due) WHERE owner IS NULL;
CREATE INDEX work_owner ON lap.work (owner) WHERE owner IS NOT NULL;

CREATE TABLE lap.workers (
    id uuid PRIMARY KEY,
    place text NOT NULL,
    platform_hash text NOT NULL,
    beat bigint NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_threshold = 100, autovacuum_vacuum_scale_factor = 0);

CREATE TABLE lap.idempotency (
    principal text COLLATE "C" NOT NULL,
    operation text COLLATE "C" NOT NULL,
    parent text COLLATE "C" NOT NULL,
    key text COLLATE "C" NOT NULL,
    body_hash text COLLATE "C" NOT NULL,
    result uuid NOT NULL,
    expires_at bigint NOT NULL,
    PRIMARY KEY (principal, operation, parent, key)
);
CREATE INDEX idempotency_expires ON lap.idempotency (expires_at);

CREATE TABLE lap.records (
    id uuid PRIMARY KEY,
    kind text COLLATE "C" NOT NULL,
    owner text COLLATE "C" NOT NULL,
    unique_key text COLLATE "C",
    version bigint NOT NULL,
    body text NOT NULL,
    created_at bigint NOT NULL,
    updated_at bigint NOT NULL
);
CREATE INDEX records_kind ON lap.records (kind, id);
CREATE INDEX records_owner ON lap.records (kind, owner, id);
CREATE UNIQUE INDEX records_key ON lap.records (kind, owner, unique_key) WHERE unique_key IS NOT NULL;
