-- Failed logins, counted over all replicas and restarts. An attempt is counted before it is looked at, and given back when
-- it succeeds.

CREATE TABLE attempts (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    -- A keyed digest of what is counted: an account, an address, both together, a known device, the tenant. A name that was
    -- typed may be a password in the wrong field, so none is kept.
    bucket bytea NOT NULL CHECK (octet_length(bucket) = 32),
    used integer NOT NULL CHECK (used >= 0),
    forgotten_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, bucket)
) WITH (fillfactor = 60);
SELECT raise_tenant_wall('attempts');
GRANT SELECT, INSERT, UPDATE, DELETE ON attempts TO claviger_app;
