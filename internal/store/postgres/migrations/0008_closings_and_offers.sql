-- works-from: 1
-- The last time that the device of an id closed its own registration, for as long as its request may be repeated.
CREATE TABLE closures (
    scope        text   COLLATE "C" NOT NULL,
    folded       text   COLLATE "C" NOT NULL,
    generation   bigint NOT NULL, -- that it reached
    token_digest bytea  NOT NULL,
    tracking_id  text   NOT NULL,
    at           bigint NOT NULL,
    PRIMARY KEY (scope, folded)
);
CREATE INDEX closures_by_age ON closures (at) WHERE generation > 0; -- always so: see the base schema on second indexes

-- Orders of the outbox that an id awaits: until they are carried out a hub key of before may be alive. They are of its own scope, or of the one that it came from.
CREATE TABLE awaited (
    scope  text   COLLATE "C" NOT NULL,
    folded text   COLLATE "C" NOT NULL,
    origin text   COLLATE "C" NOT NULL, -- outbox.scope
    object text   COLLATE "C" NOT NULL, -- outbox.object
    at     bigint NOT NULL,
    PRIMARY KEY (scope, folded, origin, object)
);
CREATE INDEX awaited_by_age ON awaited (at) WHERE object <> '';

-- Offers of a scope to transfer a device to another.
CREATE TABLE offers (
    scope     text   COLLATE "C" NOT NULL,
    folded    text   COLLATE "C" NOT NULL,
    id        text   NOT NULL,
    target    text   COLLATE "C" NOT NULL,
    code      bytea  NOT NULL, -- SHA-256
    ek_key_id bytea  NOT NULL,
    keys      bytea  NOT NULL,
    enrolled  bigint NOT NULL,
    policy    text   NOT NULL,
    created   bigint NOT NULL,
    expires   bigint NOT NULL,
    PRIMARY KEY (scope, folded)
);
CREATE UNIQUE INDEX offers_by_code ON offers (target, code);
CREATE INDEX offers_by_end ON offers (expires) WHERE expires > 0;
