-- Every token that ever left, by the week in which it ends. A week that is over is dropped whole.

CREATE TABLE issued_tokens (
    tenant_id uuid NOT NULL,
    jti uuid NOT NULL,
    -- Whole seconds, exactly the token's `exp`.
    expires_at timestamptz NOT NULL,
    issued_at timestamptz NOT NULL,
    -- The key or the token family (or both) that it was issued for; neither for one that an operator issued.
    key_id text,
    family_id uuid,
    subject text NOT NULL,
    scope text NOT NULL,
    -- Called back alone (RFC 7009).
    revoked_at timestamptz,
    revoked_by text,
    CHECK ((revoked_at IS NULL) = (revoked_by IS NULL)),
    PRIMARY KEY (tenant_id, jti, expires_at)
) PARTITION BY RANGE (expires_at);
SELECT raise_tenant_wall('issued_tokens');
-- Partitions carry no grant: they can be reached through this table only.
GRANT SELECT, INSERT, UPDATE (revoked_at, revoked_by) ON issued_tokens TO claviger_app;
CREATE TRIGGER note_change AFTER UPDATE ON issued_tokens
    FOR EACH ROW EXECUTE FUNCTION note_change('jti', 'tenant_id');

-- One partition for [from, until). Built aside and attached, which does not block those who insert.
CREATE FUNCTION add_token_partition(partition_name text, from_time timestamptz, until_time timestamptz) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('CREATE TABLE %I (LIKE issued_tokens INCLUDING DEFAULTS INCLUDING CONSTRAINTS)', partition_name);
    PERFORM raise_tenant_wall(partition_name::regclass);
    EXECUTE format('ALTER TABLE issued_tokens ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                   partition_name, from_time, until_time);
END $$;

-- Tokens without an end, kept as ending on the last day that calendars know. Never dropped.
SELECT add_token_partition('issued_tokens_unending', '9999-01-01 00:00:00Z', 'infinity');

-- Makes every week's partition up to `until`. Called by the server, which owns no table: hence SECURITY DEFINER.
CREATE FUNCTION ensure_token_partitions(now_time timestamptz, until_time timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    week timestamptz := date_trunc('week', now_time AT TIME ZONE 'UTC') AT TIME ZONE 'UTC';
    made integer := 0;
BEGIN
    IF until_time > now_time + interval '1 year' THEN
        RAISE EXCEPTION 'token partitions are made for one year ahead at most';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('claviger.token_partitions'));
    WHILE week <= until_time LOOP
        IF to_regclass('public.issued_tokens_' || to_char(week AT TIME ZONE 'UTC', 'YYYYMMDD')) IS NULL THEN
            PERFORM add_token_partition('issued_tokens_' || to_char(week AT TIME ZONE 'UTC', 'YYYYMMDD'),
                                        week, week + interval '7 days');
            made := made + 1;
        END IF;
        week := week + interval '7 days';
    END LOOP;
    RETURN made;
END $$;

-- Drops every partition whose tokens have all ended before `now` less one day of grace for clocks and late questions.
CREATE FUNCTION drop_token_partitions(now_time timestamptz) RETURNS integer
LANGUAGE plpgsql SECURITY DEFINER SET search_path = public, pg_temp SET timezone = 'UTC' AS $$
DECLARE
    partition_name text;
    dropped integer := 0;
BEGIN
    SET LOCAL lock_timeout = '2s';
    PERFORM pg_advisory_xact_lock(hashtext('claviger.token_partitions'));
    FOR partition_name IN
        SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
         WHERE i.inhparent = 'public.issued_tokens'::regclass AND c.relname ~ '^issued_tokens_\d{8}$'
    LOOP
        IF to_date(right(partition_name, 8), 'YYYYMMDD')::timestamp AT TIME ZONE 'UTC' + interval '8 days' < least(now_time, clock_timestamp()) THEN
            EXECUTE format('DROP TABLE %I', partition_name);
            dropped := dropped + 1;
        END IF;
    END LOOP;
    RETURN dropped;
END $$;
GRANT EXECUTE ON FUNCTION ensure_token_partitions(timestamptz, timestamptz) TO claviger_app;
GRANT EXECUTE ON FUNCTION drop_token_partitions(timestamptz) TO claviger_app;
