-- works-from: 1
-- The hubs that scopes give devices to, but for what is as it always is of the embedded one.
CREATE TABLE linked_hubs (
    scope         text    COLLATE "C" NOT NULL,
    name          text    COLLATE "C" NOT NULL UNIQUE, -- folded
    kind          text    COLLATE "C" NOT NULL,
    weight        bigint  NOT NULL,
    allocate      boolean NOT NULL,
    draining      boolean NOT NULL,
    region        text    NOT NULL,
    settings      bytea   NOT NULL, -- JSON of the kind's own
    sealed_secret bytea   NOT NULL,
    revision      bigint  NOT NULL,
    created       bigint  NOT NULL,
    updated       bigint  NOT NULL,
    PRIMARY KEY (scope, name)
);

-- How a scope chooses among them where the enrollment says nothing else.
CREATE TABLE scope_allocations (
    scope              text   COLLATE "C" NOT NULL PRIMARY KEY,
    default_policy     text   COLLATE "C" NOT NULL,
    regions            bytea  NOT NULL, -- JSON
    sealed_webhook_key bytea  NOT NULL,
    revision           bigint NOT NULL,
    updated            bigint NOT NULL
);
