-- People. An id is the token's `sub`: random and never reused, so a deleted user keeps its row.

CREATE TABLE users (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    username text NOT NULL,
    -- Case-mapped (RFC 8265 §3.3) by the server: what a database's lower() does depends on its locale.
    username_folded text NOT NULL,
    -- What the name looks like (UTS 39 §4): nobody may look like somebody else.
    username_skeleton text NOT NULL,
    -- In lower case, likewise.
    email text,
    -- Plain names.
    roles text[] NOT NULL DEFAULT '{}',
    created_at timestamptz NOT NULL,
    disabled_at timestamptz,
    disabled_by text,
    deleted_at timestamptz,
    deleted_by text,
    PRIMARY KEY (tenant_id, id),
    CHECK ((disabled_at IS NULL) = (disabled_by IS NULL)),
    CHECK ((deleted_at IS NULL) = (deleted_by IS NULL))
);
CREATE UNIQUE INDEX users_username ON users (tenant_id, username_folded);
CREATE UNIQUE INDEX users_look ON users (tenant_id, username_skeleton);
CREATE UNIQUE INDEX users_email ON users (tenant_id, email) WHERE deleted_at IS NULL;

SELECT raise_tenant_wall('users');
GRANT SELECT, INSERT, UPDATE ON users TO claviger_app;
CREATE TRIGGER note_change AFTER INSERT OR UPDATE ON users
    FOR EACH ROW EXECUTE FUNCTION note_change('id', 'tenant_id');
