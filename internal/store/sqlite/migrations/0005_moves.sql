-- works-from: 1
-- What advancing an operation needs besides: JSON. Empty once it has ended.
ALTER TABLE operations ADD COLUMN plan BLOB NOT NULL DEFAULT x'';

-- Hubs, one blank between them, where an identity of the device may be besides its own, and what was read of it there: JSON.
ALTER TABLE registrations ADD COLUMN leaving TEXT NOT NULL DEFAULT '';
ALTER TABLE registrations ADD COLUMN saved BLOB NOT NULL DEFAULT x'';
ALTER TABLE registrations ADD COLUMN payload BLOB NOT NULL DEFAULT x'';
