-- works-from: 1
-- What a device is at the embedded hub besides its credential. Earlier releases keep none of it: their writes leave these columns as they are.
ALTER TABLE identities ADD COLUMN version INTEGER NOT NULL DEFAULT 1;
ALTER TABLE identities ADD COLUMN created INTEGER NOT NULL DEFAULT -62135596800000000; -- the zero time: not known
ALTER TABLE identities ADD COLUMN disabled INTEGER NOT NULL DEFAULT 0;
ALTER TABLE identities ADD COLUMN status_reason TEXT NOT NULL DEFAULT '';
ALTER TABLE identities ADD COLUMN status_updated INTEGER NOT NULL DEFAULT -62135596800000000;
ALTER TABLE identities ADD COLUMN iot_edge INTEGER NOT NULL DEFAULT 0;

-- The generations of identities that were deleted: whoever comes with an older one creates none. Kept for a while.
CREATE TABLE identity_generations (
    seq        INTEGER PRIMARY KEY,
    scope      TEXT    NOT NULL,
    hub        TEXT    NOT NULL,
    device_id  TEXT    NOT NULL,
    generation INTEGER NOT NULL,
    version    INTEGER NOT NULL, -- the last of the identity; 0 if there was none
    at         INTEGER NOT NULL, -- when it was deleted
    UNIQUE (scope, hub, device_id)
) STRICT;
CREATE INDEX identity_generations_by_age ON identity_generations (at);

CREATE TABLE twins (
    seq               INTEGER PRIMARY KEY,
    scope             TEXT    NOT NULL,
    hub               TEXT    NOT NULL,
    device_id         TEXT    NOT NULL,
    tags              BLOB    NOT NULL,
    desired           BLOB    NOT NULL,
    reported          BLOB    NOT NULL,
    desired_metadata  BLOB    NOT NULL,
    reported_metadata BLOB    NOT NULL,
    desired_version   INTEGER NOT NULL,
    reported_version  INTEGER NOT NULL,
    version           INTEGER NOT NULL,
    updated           INTEGER NOT NULL,
    UNIQUE (scope, hub, device_id)
) STRICT;

-- The number of the last message that was given to a device. It goes with the identity.
CREATE TABLE hub_queues (
    seq       INTEGER PRIMARY KEY,
    scope     TEXT    NOT NULL,
    hub       TEXT    NOT NULL,
    device_id TEXT    NOT NULL,
    last      INTEGER NOT NULL,
    UNIQUE (scope, hub, device_id)
) STRICT;

-- Messages from the cloud that wait for their device.
CREATE TABLE hub_messages (
    seq            INTEGER PRIMARY KEY,
    scope          TEXT    NOT NULL,
    hub            TEXT    NOT NULL,
    device_id      TEXT    NOT NULL,
    n              INTEGER NOT NULL,
    id             TEXT    NOT NULL,
    correlation_id TEXT    NOT NULL,
    user_id        TEXT    NOT NULL,
    ack            TEXT    NOT NULL,
    properties     BLOB    NOT NULL,
    enqueued       INTEGER NOT NULL,
    expires        INTEGER NOT NULL,
    deliveries     INTEGER NOT NULL,
    body           BLOB    NOT NULL,
    UNIQUE (scope, hub, device_id, n)
) STRICT;
CREATE INDEX hub_messages_by_expiry ON hub_messages (expires);
