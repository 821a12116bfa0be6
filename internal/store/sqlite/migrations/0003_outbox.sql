-- works-from: 1
-- Work that a transition has ordered and that is done after it. Times are of the clock of the process that has the database open.
CREATE TABLE outbox (
    seq      INTEGER PRIMARY KEY,
    scope    TEXT    NOT NULL,
    kind     TEXT    NOT NULL,
    object   TEXT    NOT NULL,
    created  INTEGER NOT NULL,
    due      INTEGER NOT NULL, -- of a claimed row: when its lease ends
    claim    TEXT    NOT NULL, -- empty: nobody has it
    attempts INTEGER NOT NULL, -- claims so far
    failure  TEXT    NOT NULL, -- of the last attempt that was given up
    UNIQUE (scope, kind, object)
) STRICT;
CREATE INDEX outbox_due ON outbox (kind, due);

-- The one process that has the sessions of the embedded hub; id is empty while nobody has.
CREATE TABLE hub_owner (
    one   INTEGER PRIMARY KEY CHECK (one = 1),
    id    TEXT    NOT NULL,
    host  TEXT    NOT NULL,
    since INTEGER NOT NULL,
    beat  INTEGER NOT NULL
) STRICT;
INSERT INTO hub_owner (one, id, host, since, beat) VALUES (1, '', '', 0, 0);

-- Sessions made with what the identity held before may still be up.
ALTER TABLE identities ADD COLUMN cutting INTEGER NOT NULL DEFAULT 0;
