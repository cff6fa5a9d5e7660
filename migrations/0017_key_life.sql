-- Where, how and how often a key may be used, and how it was.

-- `allowed_ips`, `transports`, `rate_limit`, `quota`: what is absent sets no limit.
ALTER TABLE api_keys ADD COLUMN limits jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(limits) = 'object');
-- When it was enabled again: a key that was dormant has its time anew.
ALTER TABLE api_keys ADD COLUMN enabled_at timestamptz;
-- The fewest days ahead of its end of which somebody was told.
ALTER TABLE api_keys ADD COLUMN reminded smallint;

-- Of the last use: the network that it came from, not the address, and how the client called itself.
ALTER TABLE api_key_usage ADD COLUMN network text;
ALTER TABLE api_key_usage ADD COLUMN agent text;

-- What of a key's rate limit and quota is used up in the window that is now. Servers take it in slices.
CREATE TABLE key_budgets (
    tenant_id uuid NOT NULL,
    key_id text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('rate', 'quota')),
    window_start timestamptz NOT NULL,
    used bigint NOT NULL CHECK (used >= 0),
    PRIMARY KEY (tenant_id, key_id, kind),
    FOREIGN KEY (tenant_id, key_id) REFERENCES api_keys (tenant_id, id)
) WITH (fillfactor = 60);
SELECT raise_tenant_wall('key_budgets');
GRANT SELECT, INSERT, UPDATE ON key_budgets TO claviger_app;
