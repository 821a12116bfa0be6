-- works-from: 1
-- What the session of a device at the embedded hub listens to, so that it outlives the process: clients that count on that subscribe once. 0: no session.
ALTER TABLE hub_queues ADD COLUMN listens bigint NOT NULL DEFAULT 0;
