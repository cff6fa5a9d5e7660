-- Signing keys. The private half is sealed under the installation's master key and bound to its row.

CREATE TABLE signing_keys (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    -- RFC 7638 thumbprint.
    kid text NOT NULL,
    algorithm text NOT NULL CHECK (algorithm = 'EdDSA'),
    public_key bytea NOT NULL CHECK (octet_length(public_key) = 32),
    sealed_private bytea NOT NULL,
    state text NOT NULL CHECK (state IN ('next', 'active', 'retired')),
    created_at timestamptz NOT NULL,
    activated_at timestamptz,
    retired_at timestamptz,
    PRIMARY KEY (tenant_id, kid),
    CHECK ((state = 'next') = (activated_at IS NULL)),
    CHECK ((state = 'retired') = (retired_at IS NOT NULL))
);
CREATE UNIQUE INDEX signing_keys_one_active ON signing_keys (tenant_id) WHERE state = 'active';

SELECT raise_tenant_wall('signing_keys');
GRANT SELECT, INSERT, UPDATE ON signing_keys TO claviger_app;
CREATE TRIGGER note_change AFTER INSERT OR UPDATE ON signing_keys
    FOR EACH ROW EXECUTE FUNCTION note_change('kid', 'tenant_id');

-- Secrets of the installation itself (peppers, the audit key), sealed under the master key. Opening them at start
-- proves that the master key is the right one.
CREATE TABLE sealed_secrets (
    purpose text NOT NULL,
    version smallint NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (purpose, version)
);
ALTER TABLE sealed_secrets ENABLE ROW LEVEL SECURITY;
ALTER TABLE sealed_secrets FORCE ROW LEVEL SECURITY;
-- Belongs to no tenant: read and added by the server, never changed by it.
CREATE POLICY read_by_all ON sealed_secrets FOR SELECT USING (true);
CREATE POLICY add ON sealed_secrets FOR INSERT WITH CHECK (true);
GRANT SELECT, INSERT ON sealed_secrets TO claviger_app;
