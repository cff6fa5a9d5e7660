-- What replicas must forget from memory.
--
-- Every change of a row that the hot path keeps in memory is noted here by a trigger, in the transaction of the
-- change, and announced on the channel `claviger_change`. Replicas listen; and because a notification can be lost,
-- they also sweep this table. `xid` makes the sweep exact: a sweep that saw the snapshot's oldest running
-- transaction X asks next time for all rows with xid >= X, so a late commit is never skipped.

CREATE TABLE changes (
    tenant_id uuid NOT NULL,
    id bigint GENERATED ALWAYS AS IDENTITY,
    xid xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at timestamptz NOT NULL DEFAULT clock_timestamp(),
    kind text NOT NULL,
    subject text NOT NULL,
    PRIMARY KEY (tenant_id, id)
);
CREATE INDEX changes_by_transaction ON changes (xid);
CREATE INDEX changes_by_age ON changes (at);

ALTER TABLE changes ENABLE ROW LEVEL SECURITY;
ALTER TABLE changes FORCE ROW LEVEL SECURITY;
-- Ids only, no content: every replica reads the changes of all tenants.
CREATE POLICY read_by_all ON changes FOR SELECT USING (true);
CREATE POLICY written_by_tenant ON changes FOR INSERT
    WITH CHECK (tenant_id = (SELECT current_setting('app.tenant')::uuid));
-- Nobody needs an old note: a replica that slept longer starts from empty memory.
CREATE POLICY prune_old ON changes FOR DELETE USING (at < clock_timestamp() - interval '1 hour');
GRANT SELECT, INSERT, DELETE ON changes TO claviger_app;

-- Arguments: the column that names the row, the column that names the tenant.
CREATE FUNCTION note_change() RETURNS trigger
LANGUAGE plpgsql AS $$
DECLARE
    -- The table that the row belongs to, not the partition that it lies in.
    kind text := coalesce((SELECT relname FROM pg_class WHERE oid = pg_partition_root(TG_RELID)), TG_TABLE_NAME);
    row_now jsonb := CASE WHEN TG_OP = 'DELETE' THEN to_jsonb(OLD) ELSE to_jsonb(NEW) END;
    subject text := row_now ->> TG_ARGV[0];
    tenant text := row_now ->> TG_ARGV[1];
BEGIN
    INSERT INTO changes (tenant_id, kind, subject) VALUES (tenant::uuid, kind, subject);
    PERFORM pg_notify('claviger_change', kind || ' ' || tenant || ' ' || subject);
    RETURN NULL;
END $$;
GRANT EXECUTE ON FUNCTION note_change() TO claviger_app;
