-- Developers ask for keys; admins decide; a one-time link shows the secret to the developer alone.

CREATE TABLE key_requests (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    app_name text NOT NULL,
    -- In lower case. Personal: forgotten with the request.
    email text NOT NULL,
    reason text NOT NULL,
    status text NOT NULL CHECK (status IN ('pending', 'approved', 'denied', 'claimed')),
    created_at timestamptz NOT NULL,
    -- When whoever reads that mailbox said that the request is theirs.
    confirmed_at timestamptz,
    decided_at timestamptz,
    decided_by text,
    decision_reason text,
    -- What was approved.
    application_id uuid,
    scopes text[],
    key_expires_at timestamptz,
    key_id text,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, application_id) REFERENCES applications (tenant_id, id),
    CHECK ((decided_at IS NULL) = (decided_by IS NULL)),
    CHECK ((status = 'pending') = (decided_at IS NULL)),
    CHECK ((status IN ('approved', 'claimed')) = (scopes IS NOT NULL))
);
-- Asked again, it is the same request, as long as nobody has decided.
CREATE UNIQUE INDEX key_requests_open ON key_requests (tenant_id, email, lower(app_name)) WHERE status = 'pending';
CREATE INDEX key_requests_by_status ON key_requests (tenant_id, status, id);
SELECT raise_tenant_wall('key_requests');
GRANT SELECT, INSERT, UPDATE, DELETE ON key_requests TO claviger_app;

-- One-time links of these requests.
CREATE TABLE key_request_links (
    tenant_id uuid NOT NULL,
    mac bytea NOT NULL CHECK (octet_length(mac) = 32),
    kind text NOT NULL CHECK (kind IN ('confirm', 'claim')),
    request_id uuid NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, mac),
    FOREIGN KEY (tenant_id, request_id) REFERENCES key_requests (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX key_request_links_by_request ON key_request_links (tenant_id, request_id);
SELECT raise_tenant_wall('key_request_links');
GRANT SELECT, INSERT, DELETE ON key_request_links TO claviger_app;

-- Mail that was decided on and not sent yet. Written in the transaction of the deed, sealed because it holds one-time links,
-- gone once it was handed over.
CREATE TABLE mail_outbox (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    sealed bytea NOT NULL,
    created_at timestamptz NOT NULL,
    tries integer NOT NULL DEFAULT 0,
    next_try_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
SELECT raise_tenant_wall('mail_outbox');
GRANT SELECT, INSERT, UPDATE (tries, next_try_at), DELETE ON mail_outbox TO claviger_app;
