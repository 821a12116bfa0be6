-- Times are microseconds since 1970 in UTC. Blobs are never NULL: absent is empty.
-- The folded columns hold dps.FoldID of the id beside them. Rowid tables throughout: with long random keys
-- a WITHOUT ROWID table costs several times the CPU.

CREATE TABLE scopes (
    seq         INTEGER PRIMARY KEY,
    id          TEXT    NOT NULL,
    folded      TEXT    NOT NULL UNIQUE,
    sealed_root BLOB    NOT NULL,
    created     INTEGER NOT NULL,
    home        INTEGER NOT NULL,
    certificate            BLOB NOT NULL, -- PEM
    sealed_certificate_key BLOB NOT NULL
) STRICT;

-- Scopes that were deleted: their ids are never given out again, and their rows are removed bit by bit until done.
CREATE TABLE deleted_scopes (
    seq    INTEGER PRIMARY KEY,
    scope  TEXT    NOT NULL,
    folded TEXT    NOT NULL UNIQUE,
    at     INTEGER NOT NULL,
    done   INTEGER NOT NULL
) STRICT;
CREATE INDEX deleted_scopes_left ON deleted_scopes (done) WHERE done = 0;

CREATE TABLE scope_hosts (
    seq   INTEGER PRIMARY KEY, -- in the order of Scope.Hosts
    scope TEXT    NOT NULL,
    host  TEXT    NOT NULL UNIQUE
) STRICT;
CREATE INDEX scope_hosts_by_scope ON scope_hosts (scope);

CREATE TABLE access_policies (
    seq              INTEGER PRIMARY KEY,
    scope            TEXT    NOT NULL,
    name             TEXT    NOT NULL,
    rights           INTEGER NOT NULL,
    sealed_primary   BLOB    NOT NULL,
    sealed_secondary BLOB    NOT NULL,
    UNIQUE (scope, name)
) STRICT;

-- The last revision given out in a scope. Kept apart from the rows that carry revisions, so that deleting a row and
-- creating it again never repeats one.
CREATE TABLE revisions (
    scope TEXT    NOT NULL UNIQUE,
    last  INTEGER NOT NULL
) STRICT;

CREATE TABLE enrollments (
    seq        INTEGER PRIMARY KEY,
    scope      TEXT    NOT NULL,
    folded     TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    revision   INTEGER NOT NULL,
    mechanism  TEXT    NOT NULL,
    ek         BLOB    NOT NULL,
    ek_key_id  BLOB    NOT NULL,
    pinned_srk BLOB    NOT NULL,
    sealed_primary   BLOB NOT NULL,
    sealed_secondary BLOB NOT NULL,
    certificates     BLOB NOT NULL, -- SHA-256 each, one after the other
    device_id  TEXT    NOT NULL,
    disabled   INTEGER NOT NULL,
    document   BLOB    NOT NULL,
    created    INTEGER NOT NULL,
    updated    INTEGER NOT NULL,
    UNIQUE (scope, folded)
) STRICT;

-- What counting needs.
CREATE INDEX enrollments_by_kind ON enrollments (scope, mechanism, disabled);

CREATE TABLE enrollment_groups (
    seq        INTEGER PRIMARY KEY,
    scope      TEXT    NOT NULL,
    folded     TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    revision   INTEGER NOT NULL,
    mechanism  TEXT    NOT NULL,
    sealed_primary   BLOB NOT NULL,
    sealed_secondary BLOB NOT NULL,
    certificates     BLOB NOT NULL,
    disabled   INTEGER NOT NULL,
    document   BLOB    NOT NULL,
    created    INTEGER NOT NULL,
    updated    INTEGER NOT NULL,
    UNIQUE (scope, folded)
) STRICT;

CREATE TABLE ca_certificates (
    seq      INTEGER PRIMARY KEY,
    scope    TEXT    NOT NULL,
    folded   TEXT    NOT NULL,
    name     TEXT    NOT NULL,
    revision INTEGER NOT NULL,
    der      BLOB    NOT NULL,
    verified INTEGER NOT NULL,
    created  INTEGER NOT NULL,
    updated  INTEGER NOT NULL,
    UNIQUE (scope, folded)
) STRICT;

-- The revision of the last change of a scope's groups or CA certificates.
CREATE TABLE group_revisions (
    scope    TEXT    NOT NULL UNIQUE,
    revision INTEGER NOT NULL
) STRICT;

-- A certificate belongs to one entry of a scope.
CREATE TABLE entry_certificates (
    seq    INTEGER PRIMARY KEY,
    scope  TEXT    NOT NULL,
    sha256 BLOB    NOT NULL,
    kind   TEXT    NOT NULL, -- enrollment or group
    folded TEXT    NOT NULL, -- of the entry
    UNIQUE (scope, sha256)
) STRICT;
CREATE INDEX entry_certificates_by_entry ON entry_certificates (scope, kind, folded);

CREATE TABLE registrations (
    seq                INTEGER PRIMARY KEY,
    scope              TEXT    NOT NULL,
    folded             TEXT    NOT NULL,
    id                 TEXT    NOT NULL,
    revision           INTEGER NOT NULL,
    status             TEXT    NOT NULL,
    substatus          TEXT    NOT NULL,
    hub                TEXT    NOT NULL,
    device_id          TEXT    NOT NULL,
    mechanism          TEXT    NOT NULL,
    group_id           TEXT    NOT NULL, -- empty: its own enrollment let it in
    group_folded       TEXT    NOT NULL,
    ek_key_id          BLOB    NOT NULL,
    srk                BLOB    NOT NULL,
    sealed_hub_key     BLOB    NOT NULL,
    hub_key_generation INTEGER NOT NULL,
    operation_id       TEXT    NOT NULL,
    error_code         INTEGER NOT NULL,
    error_message      TEXT    NOT NULL,
    created            INTEGER NOT NULL,
    updated            INTEGER NOT NULL,
    UNIQUE (scope, folded)
) STRICT;
-- One device id at a hub belongs to one registration.
CREATE UNIQUE INDEX registrations_by_device ON registrations (scope, hub, device_id);
CREATE INDEX registrations_by_group ON registrations (scope, group_folded, folded) WHERE group_folded <> '';
CREATE INDEX registrations_by_status ON registrations (scope, status);

CREATE TABLE operations (
    seq             INTEGER PRIMARY KEY,
    scope           TEXT    NOT NULL,
    id              TEXT    NOT NULL,
    folded          TEXT    NOT NULL, -- of registration_id
    registration_id TEXT    NOT NULL,
    status          TEXT    NOT NULL,
    substatus       TEXT    NOT NULL,
    generation      INTEGER NOT NULL,
    revision        INTEGER NOT NULL, -- of the registration, when this operation was written
    mechanism       TEXT    NOT NULL,
    group_id        TEXT    NOT NULL,
    token_digest    BLOB    NOT NULL,
    sealed_key      BLOB    NOT NULL,
    ek              BLOB    NOT NULL,
    srk             BLOB    NOT NULL,
    sealed_hub_key  BLOB    NOT NULL,
    hub             TEXT    NOT NULL,
    device_id       TEXT    NOT NULL,
    error_code      INTEGER NOT NULL,
    error_message   TEXT    NOT NULL,
    tracking_id     TEXT    NOT NULL,
    created         INTEGER NOT NULL,
    updated         INTEGER NOT NULL,
    UNIQUE (scope, id)
) STRICT;
CREATE INDEX operations_by_registration ON operations (scope, folded);
CREATE INDEX operations_by_age ON operations (created);
CREATE INDEX operations_unfinished ON operations (created) WHERE status = 'assigning';

CREATE TABLE generations (
    seq        INTEGER PRIMARY KEY,
    scope      TEXT    NOT NULL,
    folded     TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    -- NULL while the id has an enrollment or a registration; else when the generation last moved or the id
    -- was deleted. Pruning walks this index and never the generations in use.
    idle_since INTEGER,
    UNIQUE (scope, folded)
) STRICT;
CREATE INDEX generations_by_idle ON generations (idle_since) WHERE idle_since IS NOT NULL;

CREATE TABLE audit (
    seq         INTEGER PRIMARY KEY,
    scope       TEXT    NOT NULL,
    at          INTEGER NOT NULL,
    actor       TEXT    NOT NULL,
    address     TEXT    NOT NULL,
    action      TEXT    NOT NULL,
    object      TEXT    NOT NULL,
    outcome     TEXT    NOT NULL,
    reason      INTEGER NOT NULL,
    tracking_id TEXT    NOT NULL,
    detail      TEXT    NOT NULL
) STRICT;
CREATE INDEX audit_by_tracking_id ON audit (scope, tracking_id);
CREATE INDEX audit_by_scope ON audit (scope, seq);

-- Rows before this are past the retention that the operator has set. It never moves back.
CREATE TABLE audit_retention (
    scope  TEXT    NOT NULL UNIQUE,
    before INTEGER NOT NULL
) STRICT;

-- The audit is append-only, for our own code too.
CREATE TRIGGER audit_keeps_rows BEFORE DELETE ON audit
WHEN OLD.at >= coalesce((SELECT before FROM audit_retention WHERE scope = OLD.scope), OLD.at)
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;
CREATE TRIGGER audit_keeps_content BEFORE UPDATE ON audit
BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END;

CREATE TABLE identities (
    seq        INTEGER PRIMARY KEY,
    scope      TEXT    NOT NULL,
    hub        TEXT    NOT NULL,
    device_id  TEXT    NOT NULL,
    sealed_key BLOB    NOT NULL,
    generation INTEGER NOT NULL,
    updated    INTEGER NOT NULL,
    UNIQUE (scope, hub, device_id)
) STRICT;
