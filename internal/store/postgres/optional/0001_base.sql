-- What PostgreSQL adds to the base schema. No promise of the store rests on it: without this file the tables are whole, their
-- memory of owners costs flushes, and the audit is kept by our code alone. It runs while the tables are empty.

-- A flood of first contacts costs no flush; a crash loses the memory and costs a client without a tpm object a challenge.
ALTER TABLE owners SET UNLOGGED;
ALTER SEQUENCE owner_places SET UNLOGGED;

-- Tables that grow with the number of devices, by hash of their key.
DO $$
DECLARE
    part record;
BEGIN
    FOR part IN SELECT * FROM (VALUES
        ('generations', 'scope, folded'), ('enrollments', 'scope, folded'), ('registrations', 'scope, folded'),
        ('device_ids', 'scope, hub, device_id')) AS parts (name, key)
    LOOP
        EXECUTE format('ALTER TABLE %I RENAME TO %I', part.name, part.name || '_plain');
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL) PARTITION BY HASH (%s)', part.name, part.name || '_plain', part.key);
        EXECUTE format('DROP TABLE %I', part.name || '_plain');
        FOR i IN 0..15 LOOP
            EXECUTE format('CREATE TABLE %I PARTITION OF %I FOR VALUES WITH (MODULUS 16, REMAINDER %s)',
                part.name || '_' || lpad(i::text, 2, '0'), part.name, i);
        END LOOP;
    END LOOP;
END $$;

-- The audit is append-only, for our own code too: a row gets its place once, and leaves when it is past the retention.
CREATE FUNCTION audit_keeps() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'UPDATE' THEN
        IF OLD.place IS NULL THEN
            OLD.place := NEW.place;
            IF OLD = NEW THEN
                RETURN NEW;
            END IF;
        END IF;
    ELSIF TG_OP = 'DELETE' THEN
        IF OLD.at < (SELECT before FROM audit_retention WHERE scope = OLD.scope) THEN
            RETURN OLD;
        END IF;
    END IF;
    RAISE EXCEPTION 'the audit is append-only';
END $$;
CREATE TRIGGER audit_keeps_rows BEFORE UPDATE OR DELETE ON audit FOR EACH ROW EXECUTE FUNCTION audit_keeps();
CREATE TRIGGER audit_keeps_all BEFORE TRUNCATE ON audit FOR EACH STATEMENT EXECUTE FUNCTION audit_keeps();
