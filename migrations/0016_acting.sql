-- Acting for others, and tickets for WebSockets.

-- Whom a key may say that it acts for: `*` anybody, `name` one, `name*` all that begin so. NULL is nobody.
ALTER TABLE api_keys ADD COLUMN act_as text[];
-- Whom it acts for when nobody is named; NULL is its owner.
ALTER TABLE api_keys ADD COLUMN act_as_default text;
-- Who may act for the key's owner with it, by login name. A key with this is good for nothing else.
ALTER TABLE api_keys ADD COLUMN agents text[];
ALTER TABLE api_keys ADD CHECK (agents IS NULL OR (user_id IS NOT NULL AND act_as IS NULL AND NOT refresh));
ALTER TABLE api_keys ADD CHECK (act_as_default IS NULL OR act_as IS NOT NULL);

-- One-time tickets: what a browser puts into a WebSocket's address instead of its token.
CREATE TABLE ws_tickets (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    mac bytea NOT NULL CHECK (octet_length(mac) = 32),
    -- Whose: a key's, or a person's, with the login that it stands on.
    key_id text,
    user_id uuid,
    family_id uuid,
    scope text[] NOT NULL,
    -- The origin that may use it (RFC 6454); NULL for clients that have none.
    origin text,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, mac),
    CHECK (num_nonnulls(key_id, user_id) = 1)
);
CREATE INDEX ws_tickets_by_end ON ws_tickets (tenant_id, expires_at);
SELECT raise_tenant_wall('ws_tickets');
GRANT SELECT, INSERT, DELETE ON ws_tickets TO claviger_app;
