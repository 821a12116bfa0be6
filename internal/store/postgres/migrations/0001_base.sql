-- Plain SQL that any service speaking PostgreSQL's protocol should take; what only PostgreSQL has lies in ../optional.
-- Times are microseconds since 1970 in UTC. Values are never NULL unless it says so: absent is empty. Text compares by its
-- bytes wherever its order shows (collation C). The folded columns hold dps.FoldID of the id beside them.
--
-- Second indexes that a device's statement could use are partial by a condition ("revision > 0") that always holds and that only
-- the statements meant for them say: of a table that it knows nothing of yet, a planner would take them for as good as the primary key.

-- Revisions of all scopes. One is taken under the lock of what it is for, so that whoever has seen one gets a greater.
CREATE SEQUENCE revisions;
CREATE SEQUENCE policy_places;
CREATE SEQUENCE audit_rows;
CREATE SEQUENCE audit_places;
CREATE SEQUENCE owner_places;

CREATE TABLE scopes (
    id          text    COLLATE "C" NOT NULL PRIMARY KEY,
    folded      text    COLLATE "C" NOT NULL UNIQUE,
    sealed_root bytea   NOT NULL,
    created     bigint  NOT NULL,
    home        boolean NOT NULL,
    certificate            bytea NOT NULL, -- PEM
    sealed_certificate_key bytea NOT NULL
);

-- Scopes that were deleted: their ids are never given out again, and their rows are removed bit by bit until done.
CREATE TABLE deleted_scopes (
    folded text    COLLATE "C" NOT NULL PRIMARY KEY,
    scope  text    COLLATE "C" NOT NULL,
    at     bigint  NOT NULL,
    done   boolean NOT NULL
);
CREATE INDEX deleted_scopes_left ON deleted_scopes (at) WHERE NOT done;

CREATE TABLE scope_hosts (
    host  text COLLATE "C" NOT NULL PRIMARY KEY,
    scope text COLLATE "C" NOT NULL,
    place bigint NOT NULL -- in Scope.Hosts
);
CREATE INDEX scope_hosts_by_scope ON scope_hosts (scope);

CREATE TABLE access_policies (
    scope            text   COLLATE "C" NOT NULL,
    name             text   COLLATE "C" NOT NULL,
    place            bigint NOT NULL DEFAULT nextval('policy_places'),
    rights           bigint NOT NULL,
    sealed_primary   bytea  NOT NULL,
    sealed_secondary bytea  NOT NULL,
    PRIMARY KEY (scope, name)
);

-- One row for each id that has an enrollment or was ever redeemed: the count of redemptions, and the lock that every
-- transition of the id takes first. A row of generation 0 is there for its lock and goes with the enrollment.
CREATE TABLE generations (
    scope      text   COLLATE "C" NOT NULL,
    folded     text   COLLATE "C" NOT NULL,
    generation bigint NOT NULL,
    -- NULL while the id has an enrollment or a registration; else when the generation last moved or the id was deleted.
    idle_since bigint,
    PRIMARY KEY (scope, folded)
);
CREATE INDEX generations_by_idle ON generations (idle_since) WHERE idle_since IS NOT NULL;

CREATE TABLE enrollments (
    scope      text    COLLATE "C" NOT NULL,
    folded     text    COLLATE "C" NOT NULL,
    id         text    NOT NULL,
    revision   bigint  NOT NULL,
    mechanism  text    NOT NULL,
    ek         bytea   NOT NULL,
    ek_key_id  bytea   NOT NULL,
    pinned_srk bytea   NOT NULL,
    sealed_primary   bytea NOT NULL,
    sealed_secondary bytea NOT NULL,
    certificates     bytea NOT NULL, -- SHA-256 each, one after the other
    device_id  text    NOT NULL,
    disabled   boolean NOT NULL,
    document   bytea   NOT NULL,
    created    bigint  NOT NULL,
    updated    bigint  NOT NULL,
    PRIMARY KEY (scope, folded)
);
-- What counting needs.
CREATE INDEX enrollments_by_kind ON enrollments (scope, mechanism, disabled) WHERE revision > 0;

CREATE TABLE enrollment_groups (
    scope      text    COLLATE "C" NOT NULL,
    folded     text    COLLATE "C" NOT NULL,
    id         text    NOT NULL,
    revision   bigint  NOT NULL,
    mechanism  text    NOT NULL,
    sealed_primary   bytea NOT NULL,
    sealed_secondary bytea NOT NULL,
    certificates     bytea NOT NULL,
    disabled   boolean NOT NULL,
    document   bytea   NOT NULL,
    created    bigint  NOT NULL,
    updated    bigint  NOT NULL,
    PRIMARY KEY (scope, folded)
);

CREATE TABLE ca_certificates (
    scope    text    COLLATE "C" NOT NULL,
    folded   text    COLLATE "C" NOT NULL,
    name     text    NOT NULL,
    revision bigint  NOT NULL,
    der      bytea   NOT NULL,
    verified boolean NOT NULL,
    created  bigint  NOT NULL,
    updated  bigint  NOT NULL,
    PRIMARY KEY (scope, folded)
);

-- The revision of the last change of a scope's groups or CA certificates, and the lock that such a change takes first.
CREATE TABLE group_revisions (
    scope    text   COLLATE "C" NOT NULL PRIMARY KEY,
    revision bigint NOT NULL
);

-- A certificate belongs to one entry of a scope.
CREATE TABLE entry_certificates (
    scope  text  COLLATE "C" NOT NULL,
    sha256 bytea NOT NULL,
    kind   text  COLLATE "C" NOT NULL, -- enrollment or group
    folded text  COLLATE "C" NOT NULL, -- of the entry
    PRIMARY KEY (scope, sha256)
);
CREATE INDEX entry_certificates_by_entry ON entry_certificates (scope, kind, folded);

CREATE TABLE registrations (
    scope              text   COLLATE "C" NOT NULL,
    folded             text   COLLATE "C" NOT NULL,
    id                 text   NOT NULL,
    revision           bigint NOT NULL,
    status             text   NOT NULL,
    substatus          text   NOT NULL,
    hub                text   COLLATE "C" NOT NULL,
    device_id          text   COLLATE "C" NOT NULL,
    mechanism          text   NOT NULL,
    group_id           text   NOT NULL, -- empty: its own enrollment let it in
    group_folded       text   COLLATE "C" NOT NULL,
    ek_key_id          bytea  NOT NULL,
    srk                bytea  NOT NULL,
    sealed_hub_key     bytea  NOT NULL,
    hub_key_generation bigint NOT NULL,
    operation_id       text   COLLATE "C" NOT NULL,
    error_code         bigint NOT NULL,
    error_message      text   NOT NULL,
    created            bigint NOT NULL,
    updated            bigint NOT NULL,
    PRIMARY KEY (scope, folded)
);
CREATE INDEX registrations_by_group ON registrations (scope, group_folded, folded) WHERE group_folded <> '';
CREATE INDEX registrations_by_status ON registrations (scope, status) WHERE revision > 0;

-- One device id at a hub belongs to one registration. A table of its own, because a unique index on a partitioned
-- table must have the columns that the table is partitioned by.
CREATE TABLE device_ids (
    scope     text COLLATE "C" NOT NULL,
    hub       text COLLATE "C" NOT NULL,
    device_id text COLLATE "C" NOT NULL,
    folded    text COLLATE "C" NOT NULL, -- of the registration
    PRIMARY KEY (scope, hub, device_id)
);

CREATE TABLE operations (
    scope           text   COLLATE "C" NOT NULL,
    id              text   COLLATE "C" NOT NULL,
    folded          text   COLLATE "C" NOT NULL, -- of registration_id
    registration_id text   NOT NULL,
    status          text   NOT NULL,
    substatus       text   NOT NULL,
    generation      bigint NOT NULL,
    revision        bigint NOT NULL, -- of the registration, when this operation was written
    mechanism       text   NOT NULL,
    group_id        text   NOT NULL,
    token_digest    bytea  NOT NULL,
    sealed_key      bytea  NOT NULL,
    ek              bytea  NOT NULL,
    srk             bytea  NOT NULL,
    sealed_hub_key  bytea  NOT NULL,
    hub             text   NOT NULL,
    device_id       text   NOT NULL,
    error_code      bigint NOT NULL,
    error_message   text   NOT NULL,
    tracking_id     text   NOT NULL,
    created         bigint NOT NULL,
    updated         bigint NOT NULL,
    PRIMARY KEY (scope, id)
);
CREATE INDEX operations_by_registration ON operations (scope, folded) WHERE revision > 0;
CREATE INDEX operations_by_age ON operations (created);
CREATE INDEX operations_unfinished ON operations (created) WHERE status = 'assigning';

-- Rows are numbered when they are written and get their place in the log when it is first read (see auditpage.go).
CREATE TABLE audit (
    scope       text   COLLATE "C" NOT NULL,
    n           bigint NOT NULL DEFAULT nextval('audit_rows'),
    place       bigint, -- NULL until it has one
    at          bigint NOT NULL,
    actor       text   NOT NULL,
    address     text   NOT NULL,
    action      text   NOT NULL,
    object      text   NOT NULL,
    outcome     text   NOT NULL,
    reason      bigint NOT NULL,
    tracking_id text   COLLATE "C" NOT NULL,
    detail      text   NOT NULL,
    PRIMARY KEY (scope, n)
);
CREATE INDEX audit_by_tracking_id ON audit (scope, tracking_id, n);
CREATE UNIQUE INDEX audit_by_place ON audit (scope, place) WHERE place IS NOT NULL;
CREATE INDEX audit_without_place ON audit (scope, n) WHERE place IS NULL;

-- The lock of those who give places to a scope's rows.
CREATE TABLE audit_heads (
    scope text COLLATE "C" NOT NULL PRIMARY KEY
);

-- Rows before this are past the retention that the operator has set. It never moves back.
CREATE TABLE audit_retention (
    scope  text   COLLATE "C" NOT NULL PRIMARY KEY,
    before bigint NOT NULL
);

CREATE TABLE identities (
    scope      text   COLLATE "C" NOT NULL,
    hub        text   COLLATE "C" NOT NULL,
    device_id  text   COLLATE "C" NOT NULL,
    sealed_key bytea  NOT NULL,
    generation bigint NOT NULL,
    updated    bigint NOT NULL,
    PRIMARY KEY (scope, hub, device_id)
);

CREATE TABLE owners (
    scope  text   COLLATE "C" NOT NULL,
    folded text   COLLATE "C" NOT NULL,
    digest bytea  NOT NULL, -- SHA-256 of srk
    srk    bytea  NOT NULL,
    at     bigint NOT NULL,
    place  bigint NOT NULL DEFAULT nextval('owner_places'), -- tells the newer of two with the same time
    PRIMARY KEY (scope, folded, digest)
);
CREATE INDEX owners_by_age ON owners (at) WHERE place > 0; -- see above; always so too
