-- What is sealed under one master key may be sealed again under another. Nothing but the sealed form changes, and only in a
-- transaction that says so: a query gone astray reaches nothing.

CREATE POLICY seal_again ON sealed_secrets FOR UPDATE
    USING (current_setting('app.seal_again', true) = 'on') WITH CHECK (true);
GRANT UPDATE (sealed) ON sealed_secrets TO claviger_app;
GRANT UPDATE (sealed) ON mail_outbox TO claviger_app;
