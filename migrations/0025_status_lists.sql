-- Status lists (IETF OAuth Token Status List): for services that ask for it, one bit for each of their tokens that says
-- whether it counts no more. And keys that end by themselves while tokens without an end stand on them: no row changes
-- then, so somebody has to write that down.

CREATE TABLE status_lists (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    audience_id uuid NOT NULL,
    -- Its places in the order in which they are given, two bytes each: shuffled, so that a place says nothing about when its
    -- token was issued.
    places bytea NOT NULL CHECK (octet_length(places) BETWEEN 2 AND 131072 AND octet_length(places) % 2 = 0),
    -- How many of them are given.
    given integer NOT NULL DEFAULT 0 CHECK (given >= 0 AND given * 2 <= octet_length(places)),
    -- False when it is full.
    open boolean NOT NULL DEFAULT true,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, audience_id) REFERENCES audiences (tenant_id, id)
) WITH (fillfactor = 50);
-- Two bytes are read without the rest.
ALTER TABLE status_lists ALTER COLUMN places SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX status_lists_one_open ON status_lists (tenant_id, audience_id) WHERE open;
SELECT raise_tenant_wall('status_lists');
GRANT SELECT, INSERT, DELETE, UPDATE (given, open) ON status_lists TO claviger_app;

-- What may be revoked of a token that has a place: the claims that `revocations` names. Gone with its list, when all
-- tokens of it have ended.
CREATE TABLE listed_tokens (
    tenant_id uuid NOT NULL,
    list_id uuid NOT NULL,
    place integer NOT NULL CHECK (place >= 0),
    jti uuid NOT NULL,
    key_id text,
    family_id uuid,
    subject text NOT NULL,
    client_id text NOT NULL,
    issued_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, list_id, place),
    FOREIGN KEY (tenant_id, list_id) REFERENCES status_lists (tenant_id, id) ON DELETE CASCADE
);
SELECT raise_tenant_wall('listed_tokens');
GRANT SELECT, INSERT ON listed_tokens TO claviger_app;

-- When it was written down that the key ended; an earlier end than `expires_at` was another one.
ALTER TABLE api_keys ADD COLUMN end_noted_at timestamptz;
CREATE INDEX api_keys_ended_unnoted ON api_keys (tenant_id, expires_at)
    WHERE expires_at IS NOT NULL AND (end_noted_at IS NULL OR end_noted_at < expires_at);

-- As before, and for a key that ended by itself: an entry only where tokens without an end stand on it, since all others
-- ended with it.
CREATE OR REPLACE FUNCTION note_revocation() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    what text := TG_ARGV[0];
    by_itself boolean := TG_NARGS > 3;
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
    IF by_itself THEN
        -- Whoever noted it looked at the clock.
        is_off := true;
    ELSIF NOT is_off AND NOT was_off THEN
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
    ELSIF by_itself THEN
        RETURN NULL;
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

CREATE CONSTRAINT TRIGGER note_end AFTER UPDATE ON api_keys DEFERRABLE INITIALLY DEFERRED
    FOR EACH ROW WHEN (NEW.end_noted_at IS NOT NULL AND OLD.end_noted_at IS DISTINCT FROM NEW.end_noted_at)
    EXECUTE FUNCTION note_revocation('key_id', 'id', 'tenant_id', 'by itself');
