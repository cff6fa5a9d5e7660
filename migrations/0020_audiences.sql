-- Audiences: downstream services with their own shape of token, and, where they ask for it, their own signing key.
--
-- Register none before every server runs a program that knows them: one of before takes an audience's key for the tenant's.

CREATE TABLE audiences (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    -- How it is asked for.
    name text NOT NULL,
    -- The `aud` of its tokens.
    uri text NOT NULL,
    -- The shape of its tokens, as the issuer wrote it.
    profile jsonb NOT NULL,
    created_at timestamptz NOT NULL,
    deleted_at timestamptz,
    deleted_by text,
    PRIMARY KEY (tenant_id, id),
    CHECK ((deleted_at IS NULL) = (deleted_by IS NULL))
);
CREATE UNIQUE INDEX audiences_name ON audiences (tenant_id, name) WHERE deleted_at IS NULL;
CREATE UNIQUE INDEX audiences_uri ON audiences (tenant_id, uri) WHERE deleted_at IS NULL;

SELECT raise_tenant_wall('audiences');
GRANT SELECT, INSERT, UPDATE ON audiences TO claviger_app;
CREATE TRIGGER note_change AFTER INSERT OR UPDATE ON audiences
    FOR EACH ROW EXECUTE FUNCTION note_change('id', 'tenant_id');

ALTER TABLE signing_keys
    -- Whose tokens alone it signs; absent for the tenant's own keys.
    ADD COLUMN audience_id uuid,
    -- No row has one yet, and the wall would keep an owner that is no superuser from looking: hence NOT VALID.
    ADD CONSTRAINT signing_keys_audience
        FOREIGN KEY (tenant_id, audience_id) REFERENCES audiences (tenant_id, id) NOT VALID;
DROP INDEX signing_keys_one_active;
DROP INDEX signing_keys_one_next;
-- One of each for the tenant and for each audience. The nil UUID is nobody's.
CREATE UNIQUE INDEX signing_keys_one_active
    ON signing_keys (tenant_id, coalesce(audience_id, '00000000-0000-0000-0000-000000000000')) WHERE state = 'active';
CREATE UNIQUE INDEX signing_keys_one_next
    ON signing_keys (tenant_id, coalesce(audience_id, '00000000-0000-0000-0000-000000000000')) WHERE state = 'next';
