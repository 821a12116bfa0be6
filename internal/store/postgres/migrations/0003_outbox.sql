-- works-from: 1
-- Work that a transition has ordered and that is done after it. Times are of the server's clock, no node's.
CREATE TABLE outbox (
    scope    text   COLLATE "C" NOT NULL,
    kind     text   COLLATE "C" NOT NULL,
    object   text   COLLATE "C" NOT NULL,
    created  bigint NOT NULL,
    due      bigint NOT NULL, -- of a claimed row: when its lease ends
    claim    text   COLLATE "C" NOT NULL, -- empty: nobody has it
    attempts bigint NOT NULL, -- claims so far
    failure  text   NOT NULL, -- of the last attempt that was given up
    PRIMARY KEY (scope, kind, object)
);
CREATE INDEX outbox_due ON outbox (kind, due) WHERE attempts >= 0; -- always so: see the base schema on second indexes

-- The one process that has the sessions of the embedded hub; id is empty while nobody has. What is only for the owner to write holds this row
-- shared until its commit. The beats lie beside it: they move all the time and must not wait for that.
CREATE TABLE hub_owner (
    one   bigint NOT NULL PRIMARY KEY CHECK (one = 1),
    id    text   COLLATE "C" NOT NULL,
    host  text   NOT NULL,
    since bigint NOT NULL
);
INSERT INTO hub_owner (one, id, host, since) VALUES (1, '', '', 0);

CREATE TABLE hub_beats (
    one   bigint NOT NULL PRIMARY KEY CHECK (one = 1),
    owner text   COLLATE "C" NOT NULL, -- as hub_owner.id
    beat  bigint NOT NULL
);
INSERT INTO hub_beats (one, owner, beat) VALUES (1, '', 0);

-- Sessions made with what the identity held before may still be up.
ALTER TABLE identities ADD COLUMN cutting boolean NOT NULL DEFAULT false;
