-- works-from: 1
-- What a device is at the embedded hub besides its credential. Earlier releases keep none of it: their writes leave these columns as they are.
ALTER TABLE identities ADD COLUMN version bigint NOT NULL DEFAULT 1;
ALTER TABLE identities ADD COLUMN created bigint NOT NULL DEFAULT -62135596800000000; -- the zero time: not known
ALTER TABLE identities ADD COLUMN disabled boolean NOT NULL DEFAULT false;
ALTER TABLE identities ADD COLUMN status_reason text NOT NULL DEFAULT '';
ALTER TABLE identities ADD COLUMN status_updated bigint NOT NULL DEFAULT -62135596800000000;
ALTER TABLE identities ADD COLUMN iot_edge boolean NOT NULL DEFAULT false;

-- The generations of identities that were deleted: whoever comes with an older one creates none. Kept for a while.
CREATE TABLE identity_generations (
    scope      text   COLLATE "C" NOT NULL,
    hub        text   COLLATE "C" NOT NULL,
    device_id  text   COLLATE "C" NOT NULL,
    generation bigint NOT NULL,
    version    bigint NOT NULL, -- the last of the identity; 0 if there was none
    at         bigint NOT NULL, -- when it was deleted
    PRIMARY KEY (scope, hub, device_id)
);
CREATE INDEX identity_generations_by_age ON identity_generations (at) WHERE generation > 0; -- always so: see the base schema on second indexes

CREATE TABLE twins (
    scope             text   COLLATE "C" NOT NULL,
    hub               text   COLLATE "C" NOT NULL,
    device_id         text   COLLATE "C" NOT NULL,
    tags              bytea  NOT NULL,
    desired           bytea  NOT NULL,
    reported          bytea  NOT NULL,
    desired_metadata  bytea  NOT NULL,
    reported_metadata bytea  NOT NULL,
    desired_version   bigint NOT NULL,
    reported_version  bigint NOT NULL,
    version           bigint NOT NULL,
    updated           bigint NOT NULL,
    PRIMARY KEY (scope, hub, device_id)
);

-- The number of the last message that was given to a device, and the lock that whoever gives it one takes first. It goes with the identity.
CREATE TABLE hub_queues (
    scope     text   COLLATE "C" NOT NULL,
    hub       text   COLLATE "C" NOT NULL,
    device_id text   COLLATE "C" NOT NULL,
    last      bigint NOT NULL,
    PRIMARY KEY (scope, hub, device_id)
);

-- Messages from the cloud that wait for their device.
CREATE TABLE hub_messages (
    scope          text   COLLATE "C" NOT NULL,
    hub            text   COLLATE "C" NOT NULL,
    device_id      text   COLLATE "C" NOT NULL,
    n              bigint NOT NULL,
    id             text   NOT NULL,
    correlation_id text   NOT NULL,
    user_id        text   NOT NULL,
    ack            text   NOT NULL,
    properties     bytea  NOT NULL,
    enqueued       bigint NOT NULL,
    expires        bigint NOT NULL,
    deliveries     bigint NOT NULL,
    body           bytea  NOT NULL,
    PRIMARY KEY (scope, hub, device_id, n)
);
CREATE INDEX hub_messages_by_expiry ON hub_messages (expires) WHERE n > 0; -- as above
