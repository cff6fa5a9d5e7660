-- Who fetched the JWK set, so that a rotation can tell who does not know the next key yet.
--
-- Counted in memory and written now and then, by the caller's network and user agent. At most a thousand for each tenant;
-- one that has not come back for a month is forgotten.

CREATE TABLE jwks_fetches (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    -- The first 24 bits of an IPv4 address, the first 48 of an IPv6 one; empty where none is known.
    network text NOT NULL,
    user_agent text NOT NULL,
    fetches bigint NOT NULL,
    first_at timestamptz NOT NULL,
    last_at timestamptz NOT NULL,
    -- The newest key of the set that was fetched last, and when that key was made.
    newest_kid text NOT NULL,
    newest_key_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, network, user_agent)
);
SELECT raise_tenant_wall('jwks_fetches');
GRANT SELECT, INSERT, UPDATE, DELETE ON jwks_fetches TO claviger_app;
