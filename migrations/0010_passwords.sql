-- People's passwords, as hashes. Beside the users: what is kept in memory of a user never holds one.

CREATE TABLE passwords (
    tenant_id uuid NOT NULL,
    user_id uuid NOT NULL,
    -- A PHC string, or the form in which another system kept it.
    hash text NOT NULL,
    -- Another with each change; the same while the same password is only hashed anew.
    version bigint NOT NULL DEFAULT 1,
    set_at timestamptz NOT NULL,
    -- By whom, as the audit trail writes an actor.
    set_by text NOT NULL,
    PRIMARY KEY (tenant_id, user_id),
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id)
);
SELECT raise_tenant_wall('passwords');
GRANT SELECT, INSERT, UPDATE, DELETE ON passwords TO claviger_app;
