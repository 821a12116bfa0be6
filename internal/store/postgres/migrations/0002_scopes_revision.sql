-- works-from: 1
-- One row. It moves whenever scopes, their host names or their access policies change, so that every node knows when its copy of them is old.
CREATE TABLE scopes_revision (
    one      bigint NOT NULL PRIMARY KEY,
    revision bigint NOT NULL
);
INSERT INTO scopes_revision (one, revision) VALUES (1, 1);
