-- The trail, found by who, whom, what and which request.
--
-- Exchanges and refreshes that went well are nearly all of it, and none of them may cost an index entry here: what is notable
-- is everything else, and only that is indexed. A time is found by the summary of each range of blocks, which costs a row
-- nothing.

CREATE FUNCTION is_routine(action text, outcome text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT outcome = 'ok' AND action IN ('key.exchange', 'token.refresh')
$$;
GRANT EXECUTE ON FUNCTION is_routine(text, text) TO claviger_app;

CREATE INDEX audit_entries_notable ON audit_entries (tenant_id, seq) WHERE NOT is_routine(action, outcome);
CREATE INDEX audit_entries_by_actor ON audit_entries (tenant_id, actor, seq) WHERE NOT is_routine(action, outcome);
CREATE INDEX audit_entries_by_subject ON audit_entries (tenant_id, subject, seq) WHERE NOT is_routine(action, outcome);
CREATE INDEX audit_entries_by_target ON audit_entries (tenant_id, target, seq) WHERE NOT is_routine(action, outcome);
CREATE INDEX audit_entries_by_request ON audit_entries (tenant_id, request_id, seq) WHERE NOT is_routine(action, outcome);
CREATE INDEX audit_entries_by_time ON audit_entries USING brin (at);
