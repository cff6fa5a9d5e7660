-- What a login begins: a token family (a chain of refresh tokens) or a browser session.
--
-- The ids are version 7 UUIDs whose time is the end of the row's life, so that one key leads to the row, to its partition
-- and to all that belongs to it; a quarter that is over is dropped whole. None of the three tables refers to another by a
-- foreign key: their partitions could not be dropped.

CREATE TABLE token_families (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    -- Whose tokens these are: a person who logged in, or a key that was exchanged.
    user_id uuid,
    key_id text,
    -- The client that logged the person in and must prove itself at each refresh, as `application:…` or `key:…`; NULL where
    -- anybody who holds the token may.
    client text CHECK (client ~ '^(application|key):'),
    -- What was granted; later tokens never hold more.
    scope text[] NOT NULL,
    user_agent text,
    created_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    -- Ends earlier when it was not refreshed for so long.
    idle_seconds integer NOT NULL CHECK (idle_seconds > 0),
    -- The number of the token that may be used next; all with a lower number were used.
    generation integer NOT NULL DEFAULT 0 CHECK (generation >= 0),
    -- When the token of that number was made.
    rotated_at timestamptz NOT NULL,
    -- The answer that carried it, sealed under a key that only the holder of the token before it can derive.
    sealed_answer bytea,
    revoked_at timestamptz,
    revoked_by text,
    revoked_why text CHECK (revoked_why IN ('reuse', 'logout', 'revoked', 'password', 'disabled', 'deleted', 'key', 'surplus')),
    PRIMARY KEY (tenant_id, id),
    CHECK (num_nonnulls(user_id, key_id) = 1),
    CHECK (num_nonnulls(revoked_at, revoked_by, revoked_why) IN (0, 3)),
    CHECK ((generation = 0) = (sealed_answer IS NULL))
) PARTITION BY RANGE (id);
CREATE INDEX token_families_by_user ON token_families (tenant_id, user_id) WHERE user_id IS NOT NULL AND revoked_at IS NULL;
CREATE INDEX token_families_by_key ON token_families (tenant_id, key_id) WHERE key_id IS NOT NULL AND revoked_at IS NULL;
SELECT raise_tenant_wall('token_families');
GRANT SELECT, INSERT, UPDATE ON token_families TO claviger_app;
-- Rotation is no news: what others keep in memory of a family is whether it lives.
CREATE TRIGGER note_change AFTER UPDATE ON token_families
    FOR EACH ROW WHEN ((OLD.revoked_at, OLD.ends_at) IS DISTINCT FROM (NEW.revoked_at, NEW.ends_at))
    EXECUTE FUNCTION note_change('id', 'tenant_id');

-- Every refresh token that was made. One successor a token, whatever else goes wrong: hence the key.
CREATE TABLE refresh_tokens (
    tenant_id uuid NOT NULL,
    family_id uuid NOT NULL,
    generation integer NOT NULL CHECK (generation >= 0),
    mac bytea NOT NULL CHECK (octet_length(mac) = 32),
    pepper_version smallint NOT NULL,
    PRIMARY KEY (tenant_id, family_id, generation)
) PARTITION BY RANGE (family_id);
SELECT raise_tenant_wall('refresh_tokens');
GRANT SELECT, INSERT, UPDATE (mac, pepper_version) ON refresh_tokens TO claviger_app;

CREATE TABLE sessions (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    user_id uuid NOT NULL,
    mac bytea NOT NULL CHECK (octet_length(mac) = 32),
    pepper_version smallint NOT NULL,
    user_agent text,
    created_at timestamptz NOT NULL,
    -- Within a minute of its last use.
    seen_at timestamptz NOT NULL,
    ends_at timestamptz NOT NULL,
    idle_seconds integer NOT NULL CHECK (idle_seconds > 0),
    revoked_at timestamptz,
    revoked_by text,
    revoked_why text CHECK (revoked_why IN ('logout', 'revoked', 'login', 'password', 'disabled', 'deleted')),
    PRIMARY KEY (tenant_id, id),
    CHECK (num_nonnulls(revoked_at, revoked_by, revoked_why) IN (0, 3))
) PARTITION BY RANGE (id);
CREATE INDEX sessions_by_user ON sessions (tenant_id, user_id) WHERE revoked_at IS NULL;
SELECT raise_tenant_wall('sessions');
GRANT SELECT, INSERT, UPDATE ON sessions TO claviger_app;
CREATE TRIGGER note_change AFTER UPDATE ON sessions
    FOR EACH ROW WHEN (OLD.revoked_at IS DISTINCT FROM NEW.revoked_at) EXECUTE FUNCTION note_change('id', 'tenant_id');

-- The least version 7 UUID of a time.
CREATE FUNCTION first_uuid_of(at timestamptz) RETURNS uuid
LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid
$$;

-- Makes every quarter's partitions up to `until`. Called by the server, which owns no table: hence SECURITY DEFINER.
CREATE FUNCTION ensure_login_partitions(now_time timestamptz, until_time timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    quarter timestamptz := date_trunc('quarter', now_time AT TIME ZONE 'UTC') AT TIME ZONE 'UTC';
    next_quarter timestamptz;
    parent text;
    part text;
    made integer := 0;
BEGIN
    IF until_time > now_time + interval '2 years' THEN
        RAISE EXCEPTION 'login partitions are made for two years ahead at most';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('claviger.login_partitions'));
    WHILE quarter <= until_time LOOP
        next_quarter := (quarter AT TIME ZONE 'UTC' + interval '3 months') AT TIME ZONE 'UTC';
        FOREACH parent IN ARRAY ARRAY['token_families', 'refresh_tokens', 'sessions'] LOOP
            part := parent || '_' || to_char(quarter AT TIME ZONE 'UTC', 'YYYYMMDD');
            IF to_regclass('public.' || part) IS NULL THEN
                -- Rows are updated in place: room for that, without a new index entry.
                EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING DEFAULTS INCLUDING CONSTRAINTS) WITH (fillfactor = 60)',
                               part, parent);
                PERFORM raise_tenant_wall(part::regclass);
                EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                               parent, part, first_uuid_of(quarter), first_uuid_of(next_quarter));
                made := made + 1;
            END IF;
        END LOOP;
        quarter := next_quarter;
    END LOOP;
    RETURN made;
END $$;

-- Drops every partition whose rows have all ended before `now` less one day of grace.
CREATE FUNCTION drop_login_partitions(now_time timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    part text;
    dropped integer := 0;
BEGIN
    SET LOCAL lock_timeout = '2s';
    PERFORM pg_advisory_xact_lock(hashtext('claviger.login_partitions'));
    FOR part IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent IN ('public.token_families'::regclass, 'public.refresh_tokens'::regclass, 'public.sessions'::regclass)
           AND c.relname ~ '_\d{8}$'
    LOOP
        IF to_date(right(part, 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC' + interval '3 months 1 day'
           < least(now_time, clock_timestamp()) THEN
            EXECUTE format('DROP TABLE %I', part);
            dropped := dropped + 1;
        END IF;
    END LOOP;
    RETURN dropped;
END $$;
GRANT EXECUTE ON FUNCTION ensure_login_partitions(timestamptz, timestamptz) TO claviger_app;
GRANT EXECUTE ON FUNCTION drop_login_partitions(timestamptz) TO claviger_app;
