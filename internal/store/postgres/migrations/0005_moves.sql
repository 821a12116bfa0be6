-- works-from: 1
-- What advancing an operation needs besides: JSON. Empty once it has ended.
ALTER TABLE operations ADD COLUMN plan bytea NOT NULL DEFAULT ''::bytea;

-- Hubs, one blank between them, where an identity of the device may be besides its own, and what was read of it there: JSON.
ALTER TABLE registrations ADD COLUMN leaving text NOT NULL DEFAULT '';
ALTER TABLE registrations ADD COLUMN saved bytea NOT NULL DEFAULT ''::bytea;
ALTER TABLE registrations ADD COLUMN payload bytea NOT NULL DEFAULT ''::bytea;
