-- App tokens: opaque, for a login of Howler's dialect. Each leads to the token family of its login, whose refresh token nobody
-- was given; with that family it ends. No foreign key: the family's partition could not be dropped.

CREATE TABLE app_tokens (
    tenant_id uuid NOT NULL,
    -- A keyed digest.
    mac bytea NOT NULL CHECK (octet_length(mac) = 32),
    family_id uuid NOT NULL,
    -- Whose login it is; that of a key is its owner's.
    user_id uuid NOT NULL,
    ends_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, mac)
);
CREATE INDEX app_tokens_by_user ON app_tokens (tenant_id, user_id);
CREATE INDEX app_tokens_by_end ON app_tokens (tenant_id, ends_at);
SELECT raise_tenant_wall('app_tokens');
GRANT SELECT, INSERT, DELETE ON app_tokens TO claviger_app;
