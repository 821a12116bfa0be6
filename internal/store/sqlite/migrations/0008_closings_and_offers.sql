-- works-from: 1
-- The last time that the device of an id closed its own registration, for as long as its request may be repeated.
CREATE TABLE closures (
    seq          INTEGER PRIMARY KEY,
    scope        TEXT    NOT NULL,
    folded       TEXT    NOT NULL,
    generation   INTEGER NOT NULL, -- that it reached
    token_digest BLOB    NOT NULL,
    tracking_id  TEXT    NOT NULL,
    at           INTEGER NOT NULL,
    UNIQUE (scope, folded)
) STRICT;
CREATE INDEX closures_by_age ON closures (at);

-- Orders of the outbox that an id awaits: until they are carried out a hub key of before may be alive. They are of its own scope, or of the one that it came from.
CREATE TABLE awaited (
    seq    INTEGER PRIMARY KEY,
    scope  TEXT    NOT NULL,
    folded TEXT    NOT NULL,
    origin TEXT    NOT NULL, -- outbox.scope
    object TEXT    NOT NULL, -- outbox.object
    at     INTEGER NOT NULL,
    UNIQUE (scope, folded, origin, object)
) STRICT;
CREATE INDEX awaited_by_age ON awaited (at);

-- Offers of a scope to transfer a device to another.
CREATE TABLE offers (
    seq       INTEGER PRIMARY KEY,
    scope     TEXT    NOT NULL,
    folded    TEXT    NOT NULL,
    id        TEXT    NOT NULL,
    target    TEXT    NOT NULL,
    code      BLOB    NOT NULL, -- SHA-256
    ek_key_id BLOB    NOT NULL,
    keys      BLOB    NOT NULL,
    enrolled  INTEGER NOT NULL,
    policy    TEXT    NOT NULL,
    created   INTEGER NOT NULL,
    expires   INTEGER NOT NULL,
    UNIQUE (scope, folded),
    UNIQUE (target, code)
) STRICT;
CREATE INDEX offers_by_end ON offers (expires);
