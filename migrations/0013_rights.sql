-- What may be done in a tenant, and who may do it.
--
-- A scope is `resource:action`. A role is a named set of scopes, and of patterns of them (`memory:*`). People hold roles and
-- scopes; so may applications and keys. What a key may do is decided anew at each use: what it was given, as far as its
-- owner holds it now and the tenant allows it.

-- The catalogue. Names that are given to somebody enter it by themselves, unless the tenant keeps it closed.
CREATE TABLE scopes (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    name text NOT NULL CHECK (length(name) <= 97),
    description text NOT NULL DEFAULT '',
    created_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, name)
);
SELECT raise_tenant_wall('scopes');
GRANT SELECT, INSERT, UPDATE (description), DELETE ON scopes TO claviger_app;
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON scopes
    FOR EACH ROW EXECUTE FUNCTION note_change('name', 'tenant_id');

CREATE TABLE roles (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    name text NOT NULL CHECK (length(name) <= 64),
    description text NOT NULL DEFAULT '',
    -- Scopes, and patterns of them. Empty is nothing.
    scopes text[] NOT NULL,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    PRIMARY KEY (tenant_id, name)
);
SELECT raise_tenant_wall('roles');
GRANT SELECT, INSERT, UPDATE (description, scopes, updated_at), DELETE ON roles TO claviger_app;
CREATE TRIGGER note_change AFTER INSERT OR UPDATE OR DELETE ON roles
    FOR EACH ROW EXECUTE FUNCTION note_change('name', 'tenant_id');

-- Beside the roles' scopes.
ALTER TABLE users ADD COLUMN scopes text[] NOT NULL DEFAULT '{}';

-- What its keys may hold at most. Without either, an application sets its keys no limit of its own.
ALTER TABLE applications ADD COLUMN scopes text[];
ALTER TABLE applications ADD COLUMN roles text[] NOT NULL DEFAULT '{}';

-- Beside its scopes.
ALTER TABLE api_keys ADD COLUMN roles text[] NOT NULL DEFAULT '{}';

-- Until now people held no scopes, and their keys held what they were given: that becomes the people's own, so that no key
-- loses what it had. And whoever managed people and keys manages roles too. The owner of the tables steps behind the wall
-- for this, and for this alone.
ALTER TABLE users NO FORCE ROW LEVEL SECURITY;
ALTER TABLE api_keys NO FORCE ROW LEVEL SECURITY;
ALTER TABLE users DISABLE TRIGGER note_change;
ALTER TABLE api_keys DISABLE TRIGGER note_change;
UPDATE api_keys SET scopes = scopes || ARRAY['roles:read', 'roles:write', 'tokens:exchange', 'users:impersonate', 'verify']
 WHERE revoked_at IS NULL AND scopes @> ARRAY['keys:write', 'users:write', 'applications:write', 'audit:read'];
UPDATE users u SET scopes = held.scopes
  FROM (SELECT k.tenant_id, k.user_id, array_agg(DISTINCT scope ORDER BY scope) AS scopes
          FROM api_keys k, unnest(k.scopes) AS scope
         WHERE k.user_id IS NOT NULL AND k.revoked_at IS NULL
         GROUP BY k.tenant_id, k.user_id) held
 WHERE (u.tenant_id, u.id) = (held.tenant_id, held.user_id);
ALTER TABLE api_keys ENABLE TRIGGER note_change;
ALTER TABLE users ENABLE TRIGGER note_change;
ALTER TABLE api_keys FORCE ROW LEVEL SECURITY;
ALTER TABLE users FORCE ROW LEVEL SECURITY;
