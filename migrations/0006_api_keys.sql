-- API keys and their secrets. Owned by an application or by a user, never by both.

CREATE TABLE api_keys (
    tenant_id uuid NOT NULL,
    id text NOT NULL,
    name text NOT NULL,
    application_id uuid,
    user_id uuid,
    scopes text[] NOT NULL,
    -- Seconds; NULL takes the application's, then the tenant's.
    token_lifetime integer CHECK (token_lifetime BETWEEN 5 AND 8640000),
    -- Whether an exchange gives a refresh token too.
    refresh boolean NOT NULL DEFAULT false,
    created_at timestamptz NOT NULL,
    created_by text NOT NULL,
    expires_at timestamptz,
    disabled_at timestamptz,
    disabled_by text,
    revoked_at timestamptz,
    revoked_by text,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, application_id) REFERENCES applications (tenant_id, id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id),
    CHECK (num_nonnulls(application_id, user_id) = 1),
    CHECK ((disabled_at IS NULL) = (disabled_by IS NULL)),
    CHECK ((revoked_at IS NULL) = (revoked_by IS NULL))
);
CREATE INDEX api_keys_by_application ON api_keys (tenant_id, application_id);
CREATE INDEX api_keys_by_user ON api_keys (tenant_id, user_id);

SELECT raise_tenant_wall('api_keys');
GRANT SELECT, INSERT, UPDATE ON api_keys TO claviger_app;
CREATE TRIGGER note_change AFTER INSERT OR UPDATE ON api_keys
    FOR EACH ROW EXECUTE FUNCTION note_change('id', 'tenant_id');

-- Which tenant a key id belongs to: key ids are unique over all tenants, so a bare `key:secret` names its tenant.
CREATE TABLE api_key_routes (
    key_id text PRIMARY KEY CHECK (key_id ~ '^[A-Za-z0-9._~-]{1,128}$'),
    tenant_id uuid NOT NULL,
    FOREIGN KEY (tenant_id, key_id) REFERENCES api_keys (tenant_id, id)
);
ALTER TABLE api_key_routes ENABLE ROW LEVEL SECURITY;
ALTER TABLE api_key_routes FORCE ROW LEVEL SECURITY;
CREATE POLICY read_by_all ON api_key_routes FOR SELECT USING (true);
CREATE POLICY written_by_tenant ON api_key_routes FOR INSERT
    WITH CHECK (tenant_id = (SELECT current_setting('app.tenant')::uuid));
GRANT SELECT, INSERT ON api_key_routes TO claviger_app;

-- At most two live secrets a key, by construction: a rotation overwrites the slot of the older one.
CREATE TABLE api_key_secrets (
    tenant_id uuid NOT NULL,
    key_id text NOT NULL,
    slot smallint NOT NULL CHECK (slot IN (0, 1)),
    -- HMAC-SHA-256 of the secret under the pepper of that version.
    mac bytea NOT NULL CHECK (octet_length(mac) = 32),
    pepper_version smallint NOT NULL,
    created_at timestamptz NOT NULL,
    expires_at timestamptz,
    PRIMARY KEY (tenant_id, key_id, slot),
    FOREIGN KEY (tenant_id, key_id) REFERENCES api_keys (tenant_id, id)
);
SELECT raise_tenant_wall('api_key_secrets');
GRANT SELECT, INSERT, UPDATE ON api_key_secrets TO claviger_app;
CREATE TRIGGER note_change AFTER INSERT OR UPDATE ON api_key_secrets
    FOR EACH ROW EXECUTE FUNCTION note_change('key_id', 'tenant_id');

-- Apart from api_keys, so that a use does not announce a change of the key.
CREATE TABLE api_key_usage (
    tenant_id uuid NOT NULL,
    key_id text NOT NULL,
    last_used_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, key_id)
);
SELECT raise_tenant_wall('api_key_usage');
GRANT SELECT, INSERT, UPDATE ON api_key_usage TO claviger_app;
