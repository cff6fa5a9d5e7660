-- The application role and the tenant wall.
--
-- The server works as `claviger_app`. That role owns no table and cannot bypass row-level security, so a query
-- that forgets its tenant filter still sees one tenant only: the one the transaction named in `app.tenant`.

DO $$
BEGIN
    -- Roles belong to the whole cluster: it may be there already, made by an operator whose owner may not make roles.
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'claviger_app') THEN
        CREATE ROLE claviger_app NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
    END IF;
EXCEPTION
    -- … or be made at this moment by another database's migration.
    WHEN duplicate_object OR unique_violation THEN NULL;
END $$;

DO $$
BEGIN
    IF NOT pg_has_role(current_user, 'claviger_app', 'MEMBER') THEN
        EXECUTE format('GRANT claviger_app TO %I', current_user);
    END IF;
EXCEPTION
    -- An operator who made the role by hand need not give its owner the right to grant it.
    WHEN insufficient_privilege THEN NULL;
END $$;

-- Readiness compares the schema's version with the program's.
DO $$
BEGIN
    IF to_regclass('_sqlx_migrations') IS NOT NULL THEN
        GRANT SELECT ON _sqlx_migrations TO claviger_app;
    END IF;
END $$;

-- Before Postgres 15 everybody may create there. Whoever may not revoke it is warned by Postgres, not stopped.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO claviger_app;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- Raises the wall around one table. `app.tenant` has no default on purpose: a transaction that never named its
-- tenant gets an error, not an empty answer. The sub-select is evaluated once per statement.
CREATE FUNCTION raise_tenant_wall(walled regclass) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', walled);
    EXECUTE format('ALTER TABLE %s FORCE ROW LEVEL SECURITY', walled);
    EXECUTE format(
        'CREATE POLICY tenant_wall ON %s
             USING (tenant_id = (SELECT current_setting(''app.tenant'')::uuid))
             WITH CHECK (tenant_id = (SELECT current_setting(''app.tenant'')::uuid))',
        walled
    );
END $$;
