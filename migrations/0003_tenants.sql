-- Tenants. Read by every replica to route a request, written only under the tenant's own wall.

CREATE TABLE tenants (
    id uuid PRIMARY KEY,
    slug text NOT NULL UNIQUE CHECK (slug ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    name text NOT NULL,
    settings jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(settings) = 'object'),
    created_at timestamptz NOT NULL,
    disabled_at timestamptz,
    disabled_by text,
    deleted_at timestamptz,
    deleted_by text,
    -- What was begun until then is over: sessions and token families of a tenant that was disabled do not come back
    -- with it.
    logins_ended_at timestamptz,
    CHECK ((disabled_at IS NULL) = (disabled_by IS NULL)),
    CHECK ((deleted_at IS NULL) = (deleted_by IS NULL))
);

ALTER TABLE tenants ENABLE ROW LEVEL SECURITY;
ALTER TABLE tenants FORCE ROW LEVEL SECURITY;
CREATE POLICY read_by_all ON tenants FOR SELECT USING (true);
CREATE POLICY insert_own ON tenants FOR INSERT WITH CHECK (id = (SELECT current_setting('app.tenant')::uuid));
CREATE POLICY update_own ON tenants FOR UPDATE
    USING (id = (SELECT current_setting('app.tenant')::uuid))
    WITH CHECK (id = (SELECT current_setting('app.tenant')::uuid));
GRANT SELECT, INSERT, UPDATE ON tenants TO claviger_app;

CREATE TRIGGER note_change AFTER INSERT OR UPDATE ON tenants
    FOR EACH ROW EXECUTE FUNCTION note_change('id', 'id');
