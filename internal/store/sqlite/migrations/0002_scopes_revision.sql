-- works-from: 1
-- One row. It moves whenever scopes, their host names or their access policies change, so that every node knows when its copy of them is old.
CREATE TABLE scopes_revision (
    one      INTEGER NOT NULL PRIMARY KEY,
    revision INTEGER NOT NULL
) STRICT;
INSERT INTO scopes_revision (one, revision) VALUES (1, 1);
