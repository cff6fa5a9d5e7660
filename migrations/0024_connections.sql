-- Connections: a tenant's people log in through their own OpenID Connect provider, or against their own directory (LDAP).
--
-- Somebody is known by what the other side calls them, for ever (`subject`), at that connection, and by nothing else: neither
-- an e-mail address nor a name links two accounts.

CREATE TABLE connections (
    tenant_id uuid NOT NULL REFERENCES tenants (id),
    id uuid NOT NULL,
    -- In addresses, and so at the provider. Never changes.
    name text NOT NULL CHECK (name ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    -- For people.
    title text NOT NULL,
    kind text NOT NULL CHECK (kind IN ('oidc', 'ldap')),
    settings jsonb NOT NULL CHECK (jsonb_typeof(settings) = 'object'),
    -- The client's secret, or the password of the account that searches; sealed under the master key and bound to its row.
    sealed_secret bytea,
    created_at timestamptz NOT NULL,
    updated_at timestamptz NOT NULL,
    disabled_at timestamptz,
    disabled_by text,
    PRIMARY KEY (tenant_id, id),
    UNIQUE (tenant_id, name),
    CHECK ((disabled_at IS NULL) = (disabled_by IS NULL))
);
SELECT raise_tenant_wall('connections');
GRANT SELECT, INSERT, UPDATE (title, settings, sealed_secret, updated_at, disabled_at, disabled_by), DELETE ON connections
    TO claviger_app;

-- Who is who.
CREATE TABLE connection_links (
    tenant_id uuid NOT NULL,
    connection_id uuid NOT NULL,
    -- `sub` (OpenID Connect Core §8), or the directory's unchanging id of an entry.
    subject text NOT NULL CHECK (length(subject) BETWEEN 1 AND 255),
    user_id uuid NOT NULL,
    -- What the other side said of them last: name, groups, attributes. Personal: gone with the link.
    profile jsonb NOT NULL DEFAULT '{}' CHECK (jsonb_typeof(profile) = 'object'),
    created_at timestamptz NOT NULL,
    used_at timestamptz,
    PRIMARY KEY (tenant_id, connection_id, subject),
    FOREIGN KEY (tenant_id, connection_id) REFERENCES connections (tenant_id, id) ON DELETE CASCADE,
    FOREIGN KEY (tenant_id, user_id) REFERENCES users (tenant_id, id)
);
-- A person is one person there.
CREATE UNIQUE INDEX connection_links_by_user ON connection_links (tenant_id, user_id, connection_id);
SELECT raise_tenant_wall('connection_links');
GRANT SELECT, INSERT, UPDATE (profile, used_at), DELETE ON connection_links TO claviger_app;

-- Logins that are under way at a provider. Used once.
CREATE TABLE connection_states (
    tenant_id uuid NOT NULL,
    -- A keyed digest of `state`.
    mac bytea NOT NULL CHECK (octet_length(mac) = 32),
    connection_id uuid NOT NULL,
    -- A keyed digest of the cookie of the browser that began it.
    browser bytea NOT NULL CHECK (octet_length(browser) = 32),
    -- Nonce and PKCE verifier, sealed.
    sealed bytea NOT NULL,
    -- Where the provider was told to send the browser.
    redirect_uri text NOT NULL,
    -- A path of ours to go on to.
    return_to text,
    -- What it becomes: a browser session, tokens, or a link of the person and session that began it.
    purpose text NOT NULL CHECK (purpose IN ('session', 'tokens', 'link')),
    user_id uuid,
    session_id uuid,
    created_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    consumed_at timestamptz,
    PRIMARY KEY (tenant_id, mac),
    FOREIGN KEY (tenant_id, connection_id) REFERENCES connections (tenant_id, id) ON DELETE CASCADE,
    CHECK (num_nonnulls(user_id, session_id) = CASE WHEN purpose = 'link' THEN 2 ELSE 0 END)
);
CREATE INDEX connection_states_by_end ON connection_states (tenant_id, expires_at);
SELECT raise_tenant_wall('connection_states');
GRANT SELECT, INSERT, UPDATE (consumed_at), DELETE ON connection_states TO claviger_app;

-- Sessions and token families that came from a connection, so that they end with it. The id is the session's or family's,
-- whose time is the end of its life.
CREATE TABLE connection_logins (
    tenant_id uuid NOT NULL,
    id uuid NOT NULL,
    connection_id uuid NOT NULL,
    user_id uuid NOT NULL,
    -- The provider's refresh token, sealed; NULL where it gave none.
    sealed_refresh bytea,
    -- When the provider last said that this person may.
    checked_at timestamptz NOT NULL,
    -- Until when somebody is asking the provider: a refresh token there may be good once.
    asking_until timestamptz,
    PRIMARY KEY (tenant_id, id),
    FOREIGN KEY (tenant_id, connection_id) REFERENCES connections (tenant_id, id) ON DELETE CASCADE
);
CREATE INDEX connection_logins_by_connection ON connection_logins (tenant_id, connection_id, user_id);
SELECT raise_tenant_wall('connection_logins');
GRANT SELECT, INSERT, UPDATE (sealed_refresh, checked_at, asking_until), DELETE ON connection_logins TO claviger_app;
