-- The audit trail: one hash chain a tenant. The application may add entries and move the head, nothing else.

CREATE TABLE audit_entries (
    -- No foreign key: entries are written beside the tenant's head, which has one, and a check for each of them would
    -- cost as much as the entry itself.
    tenant_id uuid NOT NULL,
    -- 1, 2, 3, … without gaps.
    seq bigint NOT NULL CHECK (seq > 0),
    at timestamptz NOT NULL,
    action text NOT NULL,
    outcome text NOT NULL CHECK (outcome IN ('ok', 'refused')),
    -- `kind:id` each; empty where there is none.
    actor text NOT NULL,
    subject text NOT NULL,
    target text NOT NULL,
    request_id text NOT NULL,
    -- JSON text, exactly as it was hashed.
    detail text NOT NULL,
    -- Personal fields stand beside the chain: it covers their salted digest, so they can be erased (set to NULL).
    personal text,
    personal_salt bytea NOT NULL,
    personal_digest bytea NOT NULL,
    -- SHA-256 over the previous entry's hash and every field above but `personal` and its salt.
    hash bytea NOT NULL CHECK (octet_length(hash) = 32),
    PRIMARY KEY (tenant_id, seq)
);
-- Exchanges and refreshes are nearly all of the trail; everything else stays findable without an index entry for each
-- of them.
CREATE INDEX audit_entries_by_action ON audit_entries (tenant_id, action, seq)
    WHERE action <> 'key.exchange' AND action <> 'token.refresh';
SELECT raise_tenant_wall('audit_entries');
GRANT SELECT, INSERT ON audit_entries TO claviger_app;

CREATE TABLE audit_heads (
    tenant_id uuid PRIMARY KEY REFERENCES tenants (id),
    seq bigint NOT NULL,
    hash bytea NOT NULL,
    -- HMAC under the installation's audit key over tenant, seq and hash.
    mac bytea NOT NULL
) WITH (fillfactor = 50);
SELECT raise_tenant_wall('audit_heads');
GRANT SELECT, INSERT, UPDATE ON audit_heads TO claviger_app;
