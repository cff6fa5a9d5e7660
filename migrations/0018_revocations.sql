-- What was revoked, for services that verify tokens offline: a list for each tenant, in the order of the commits and
-- without gaps. An entry stays until the longest token that it stops has ended.
--
-- Written by one trigger on the rows that say whether a token counts, so that no way of revoking is forgotten. It runs at
-- the commit: numbers are given in the order in which they become visible, and the head is the last lock that any
-- transaction takes. Replicas need no other news of it than that of the row.

CREATE TABLE revocation_heads (
    tenant_id uuid PRIMARY KEY REFERENCES tenants (id),
    -- The number of the newest entry.
    seq bigint NOT NULL CHECK (seq > 0)
) WITH (fillfactor = 50);
SELECT raise_tenant_wall('revocation_heads');
GRANT SELECT, INSERT, UPDATE ON revocation_heads TO claviger_app;

CREATE TABLE revocations (
    tenant_id uuid NOT NULL,
    -- Which claim names what is stopped: a login, a key, a subject, a client, one token, the tenant.
    kind text NOT NULL CHECK (kind IN ('sid', 'key_id', 'sub', 'client_id', 'jti', 'tid')),
    id text NOT NULL,
    -- An entry that is written anew moves to the end.
    seq bigint NOT NULL CHECK (seq > 0),
    -- Tokens issued until then; NULL is all of them. Set when what was switched off was switched on again.
    before timestamptz,
    -- Of no use after that; the last second of the year 9999 where a token without an end is stopped.
    until timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, kind, id)
);
CREATE UNIQUE INDEX revocations_in_order ON revocations (tenant_id, seq);
CREATE INDEX revocations_by_end ON revocations (tenant_id, until);
SELECT raise_tenant_wall('revocations');
GRANT SELECT, INSERT, UPDATE, DELETE ON revocations TO claviger_app;

-- When the tokens of a login end.
CREATE INDEX issued_tokens_by_family ON issued_tokens (tenant_id, family_id) WHERE family_id IS NOT NULL;

-- Arguments: the kind, the column that names the row, the column that names the tenant.
CREATE FUNCTION note_revocation() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    what text := TG_ARGV[0];
    row_now jsonb := to_jsonb(NEW);
    row_before jsonb := to_jsonb(OLD);
    named text := row_now ->> TG_ARGV[1];
    tenant uuid := (row_now ->> TG_ARGV[2])::uuid;
    now_time timestamptz := clock_timestamp();
    -- The longest life of a token: 100 days.
    ends timestamptz := now_time + interval '8640000 seconds';
    never constant timestamptz := '9999-12-31 23:59:59Z';
    is_off boolean := coalesce(row_now ->> 'disabled_at', row_now ->> 'deleted_at', row_now ->> 'revoked_at') IS NOT NULL
        OR what = 'key_id' AND coalesce((row_now ->> 'expires_at')::timestamptz <= now_time, false);
    was_off boolean := coalesce(row_before ->> 'disabled_at', row_before ->> 'deleted_at', row_before ->> 'revoked_at') IS NOT NULL
        OR what = 'key_id' AND coalesce((row_before ->> 'expires_at')::timestamptz <= now_time, false);
    number bigint;
BEGIN
    IF NOT is_off AND NOT was_off THEN
        RETURN NULL;
    END IF;
    -- At the commit of a transaction of several tenants, the wall stands wherever it stood last.
    PERFORM set_config('app.tenant', tenant::text, true);
    IF what = 'jti' THEN
        ends := (row_now ->> 'expires_at')::timestamptz;
    ELSIF what = 'sid' THEN
        -- Nothing joins them any more: whoever issues one holds the family's lock, as we do.
        SELECT max(t.expires_at) INTO ends FROM issued_tokens t
         WHERE t.tenant_id = tenant AND t.family_id = named::uuid AND t.expires_at > now_time - interval '1 minute';
        IF ends IS NULL THEN
            RETURN NULL;
        END IF;
    ELSIF EXISTS (SELECT FROM issued_tokens t
                   WHERE t.tenant_id = tenant AND t.expires_at = never
                     AND (what = 'tid' OR t.subject = named OR t.key_id = named)) THEN
        ends := never;
    END IF;
    -- Verifiers allow for clocks that differ.
    IF ends < never THEN
        ends := ends + interval '1 minute';
    END IF;
    INSERT INTO revocation_heads AS h (tenant_id, seq) VALUES (tenant, 1)
        ON CONFLICT (tenant_id) DO UPDATE SET seq = h.seq + 1
        RETURNING h.seq INTO number;
    INSERT INTO revocations AS r (tenant_id, kind, id, seq, before, until)
    VALUES (tenant, what, named, number, CASE WHEN is_off THEN NULL ELSE now_time END, ends)
        ON CONFLICT (tenant_id, kind, id) DO UPDATE
           SET seq = excluded.seq, before = excluded.before, until = greatest(r.until, excluded.until);
    RETURN NULL;
END $$;
GRANT EXECUTE ON FUNCTION note_revocation() TO claviger_app;

CREATE CONSTRAINT TRIGGER note_revocation AFTER UPDATE ON tenants DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN ((OLD.disabled_at, OLD.deleted_at) IS DISTINCT FROM (NEW.disabled_at, NEW.deleted_at))
    EXECUTE FUNCTION note_revocation('tid', 'id', 'id');
CREATE CONSTRAINT TRIGGER note_revocation AFTER UPDATE ON users DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN ((OLD.disabled_at, OLD.deleted_at) IS DISTINCT FROM (NEW.disabled_at, NEW.deleted_at))
    EXECUTE FUNCTION note_revocation('sub', 'id', 'tenant_id');
CREATE CONSTRAINT TRIGGER note_revocation AFTER UPDATE ON applications DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN ((OLD.disabled_at, OLD.deleted_at) IS DISTINCT FROM (NEW.disabled_at, NEW.deleted_at))
    EXECUTE FUNCTION note_revocation('client_id', 'id', 'tenant_id');
CREATE CONSTRAINT TRIGGER note_revocation AFTER UPDATE ON api_keys DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN ((OLD.disabled_at, OLD.revoked_at, OLD.expires_at)
                       IS DISTINCT FROM (NEW.disabled_at, NEW.revoked_at, NEW.expires_at))
    EXECUTE FUNCTION note_revocation('key_id', 'id', 'tenant_id');
CREATE CONSTRAINT TRIGGER note_revocation AFTER UPDATE ON token_families DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL)
    EXECUTE FUNCTION note_revocation('sid', 'id', 'tenant_id');
CREATE CONSTRAINT TRIGGER note_revocation AFTER UPDATE ON issued_tokens DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (OLD.revoked_at IS NULL AND NEW.revoked_at IS NOT NULL)
    EXECUTE FUNCTION note_revocation('jti', 'jti', 'tenant_id');
