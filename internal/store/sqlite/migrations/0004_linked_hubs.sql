-- works-from: 1
-- The hubs that scopes give devices to, but for what is as it always is of the embedded one.
CREATE TABLE linked_hubs (
    seq           INTEGER PRIMARY KEY,
    scope         TEXT    NOT NULL,
    name          TEXT    NOT NULL UNIQUE, -- folded
    kind          TEXT    NOT NULL,
    weight        INTEGER NOT NULL,
    allocate      INTEGER NOT NULL,
    draining      INTEGER NOT NULL,
    region        TEXT    NOT NULL,
    settings      BLOB    NOT NULL, -- JSON of the kind's own
    sealed_secret BLOB    NOT NULL,
    revision      INTEGER NOT NULL,
    created       INTEGER NOT NULL,
    updated       INTEGER NOT NULL
) STRICT;
CREATE INDEX linked_hubs_by_scope ON linked_hubs (scope, name);

-- How a scope chooses among them where the enrollment says nothing else.
CREATE TABLE scope_allocations (
    seq                INTEGER PRIMARY KEY,
    scope              TEXT    NOT NULL UNIQUE,
    default_policy     TEXT    NOT NULL,
    regions            BLOB    NOT NULL, -- JSON
    sealed_webhook_key BLOB    NOT NULL,
    revision           INTEGER NOT NULL,
    updated            INTEGER NOT NULL
) STRICT;
