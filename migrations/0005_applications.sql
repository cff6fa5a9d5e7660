-- Applications: what owns API keys, and an OAuth client.

CREATE TABLE applications (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    name text NOT NULL,
    -- Seconds; NULL takes the tenant's.
    token_lifetime integer CHECK (token_lifetime BETWEEN 5 AND 8640000),
    created_at timestamptz NOT NULL,
    disabled_at timestamptz,
    disabled_by text,
    deleted_at timestamptz,
    deleted_by text,
    PRIMARY KEY (tenant_id, id),
    CHECK ((disabled_at IS NULL) = (disabled_by IS NULL)),
    CHECK ((deleted_at IS NULL) = (deleted_by IS NULL))
);
CREATE UNIQUE INDEX applications_name ON applications (tenant_id, name) WHERE deleted_at IS NULL;

SELECT raise_tenant_wall('applications');
GRANT SELECT, INSERT, UPDATE ON applications TO claviger_app;
CREATE TRIGGER note_change AFTER INSERT OR UPDATE ON applications
    FOR EACH ROW EXECUTE FUNCTION note_change('id', 'tenant_id');
