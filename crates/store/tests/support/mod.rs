//! What the tests of the walls stand on: a database and logins of their own, and two tenants with one of everything.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "test support: every test file uses its own part of it, makes its own ids, and fails by panicking"
)]

use chrono::{DateTime, TimeDelta, Utc};
use claviger_store::api_key::{KeptSecret, KeyUse, NewKey, SecretMac};
use claviger_store::app_token::NewAppToken;
use claviger_store::audience::Audience;
use claviger_store::audit::{Batch, Entry, Head, TokenRow};
use claviger_store::connection::{Connection, ConnectionLogin, Purpose, State};
use claviger_store::id::{
    ApplicationId, AudienceId, ConnectionId, FamilyId, KeyId, KeyRequestId, Owner, SessionId, StatusListId, TenantId, TokenId,
    UserId,
};
use claviger_store::jwks_fetch::JwksFetch;
use claviger_store::key_request::LinkKind;
use claviger_store::password::PasswordHash;
use claviger_store::session::NewSession;
use claviger_store::signing_key::{Algorithm, NewSigningKey};
use claviger_store::status_list::Listed;
use claviger_store::ticket::{Holder, Ticket};
use claviger_store::token_family::{NewFamily, Principal, Successor};
use claviger_store::user::NewUser;
use claviger_store::{DatabaseUrls, Store, StoreError};
use sqlx::postgres::{PgConnectOptions, PgRow};
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, Row as _};
use url::Url;
use uuid::Uuid;

/// The role that requests run as.
pub const APP: &str = "claviger_app";

/// A database of its own, with the logins that a test makes. Gone when dropped.
pub struct Database {
    pub name: String,
    server: PgConnectOptions,
    logins: Vec<String>,
}

impl Database {
    /// Without a schema.
    pub async fn empty() -> Self {
        let url = std::env::var("DATABASE_URL").expect("run the tests with `make test`, which starts a database for them");
        let server: PgConnectOptions = url.parse().unwrap();
        let database = Self { name: format!("test_{}", Uuid::new_v4().simple()), server, logins: Vec::new() };
        database.of_the_server(&format!("CREATE DATABASE {}", database.name)).await;
        database
    }

    /// With the schema.
    pub async fn create() -> Self {
        let database = Self::empty().await;
        Store::migrate(&database.urls()).await.unwrap();
        database
    }

    /// Makes a login with these attributes, such as `SUPERUSER` or `IN ROLE claviger_app`.
    pub async fn login(&mut self, attributes: &str) -> String {
        let name = format!("test_login_{}", Uuid::new_v4().simple());
        self.of_the_server(&format!("CREATE ROLE {name} LOGIN PASSWORD 'test' {attributes}")).await;
        self.logins.push(name.clone());
        name
    }

    /// Makes a login that owns the database and may do nothing beyond it.
    pub async fn owner(&mut self) -> String {
        let owner = self.login("NOSUPERUSER NOCREATEROLE NOCREATEDB NOBYPASSRLS").await;
        self.of_the_server(&format!("ALTER DATABASE {} OWNER TO {owner}", self.name)).await;
        let mut connection = self.superuser().await;
        run(&mut connection, &format!("ALTER SCHEMA public OWNER TO {owner}")).await;
        connection.close().await.unwrap();
        owner
    }

    /// A statement for the whole cluster.
    pub async fn of_the_server(&self, statement: &str) {
        let mut connection = self.server.connect().await.unwrap();
        run(&mut connection, statement).await;
        connection.close().await.unwrap();
    }

    /// One login for everything, which is a superuser.
    pub fn urls(&self) -> DatabaseUrls {
        DatabaseUrls::parse(&self.url(), None).unwrap()
    }

    /// As `DATABASE_URL` would say it.
    pub fn url(&self) -> String {
        let mut url = Url::parse(&std::env::var("DATABASE_URL").unwrap()).unwrap();
        url.set_path(&self.name);
        url.to_string()
    }

    /// The same with another login.
    pub fn url_as(&self, login: &str) -> String {
        let mut url = Url::parse(&self.url()).unwrap();
        url.set_username(login).unwrap();
        url.set_password(Some("test")).unwrap();
        url.to_string()
    }

    pub async fn store(&self) -> Store {
        Store::connect(&self.urls(), 5).await.unwrap()
    }

    /// As a superuser, to look behind the walls.
    pub async fn superuser(&self) -> PgConnection {
        self.server.clone().database(&self.name).connect().await.unwrap()
    }

    /// As requests run.
    pub async fn app(&self) -> PgConnection {
        self.server.clone().database(&self.name).options([("role", APP)]).connect().await.unwrap()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name, logins) = (self.server.clone(), self.name.clone(), self.logins.clone());
        // A thread, because a runtime cannot be entered from within another.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let Ok(mut connection) = server.connect().await else { return };
                let mut statements = vec![format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")];
                statements.extend(logins.iter().map(|login| format!("DROP ROLE IF EXISTS {login}")));
                for statement in statements {
                    let _ = sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await;
                }
            });
        });
        let _ = dropped.join();
    }
}

/// A statement that must work. Returns how many rows it touched.
pub async fn run(connection: &mut PgConnection, statement: &str) -> u64 {
    match sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await {
        Ok(done) => done.rows_affected(),
        Err(error) => panic!("{statement}: {error}"),
    }
}

/// The rows of a question that must work.
pub async fn rows(connection: &mut PgConnection, question: &str) -> Vec<PgRow> {
    match sqlx::query(AssertSqlSafe(question.to_owned())).fetch_all(connection).await {
        Ok(rows) => rows,
        Err(error) => panic!("{question}: {error}"),
    }
}

/// Every row as text, its columns separated by ` | `. Ask for text columns only.
pub async fn lines(connection: &mut PgConnection, question: &str) -> Vec<String> {
    let text = |row: &PgRow| (0..row.len()).map(|at| row.get::<String, _>(at)).collect::<Vec<_>>().join(" | ");
    rows(connection, question).await.iter().map(text).collect()
}

/// A single number.
pub async fn number(connection: &mut PgConnection, question: &str) -> i64 {
    rows(connection, question).await[0].get(0)
}

/// Carries out `work`, which must wait for a lock, and `release`, which gives the lock back, as soon as it waits.
pub async fn waits<T>(superuser: &mut PgConnection, work: impl Future<Output = T>, release: impl Future<Output = ()>) -> T {
    let mut work = std::pin::pin!(work);
    let waiting = async {
        let waiters = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while number(superuser, waiters).await == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
    };
    tokio::select! {
        biased;
        _ = &mut work => panic!("it did not wait"),
        () = waiting => {}
    }
    release.await;
    work.await
}

/// The SQLSTATE with which the database refused.
pub fn refusal_of(error: StoreError) -> String {
    match error {
        StoreError::Database(error) => sqlstate(&error),
        other => panic!("not a refusal of the database: {other}"),
    }
}

/// The SQLSTATE of an error of the database.
pub fn sqlstate(error: &sqlx::Error) -> String {
    error.as_database_error().and_then(|error| error.code()).map_or_else(|| error.to_string(), Into::into)
}

/// The real time, in whole seconds.
pub fn now() -> DateTime<Utc> {
    DateTime::from_timestamp(Utc::now().timestamp(), 0).unwrap()
}

pub fn uuid() -> Uuid {
    Uuid::new_v4()
}

/// A version 7 id of that time: in logins, of the end.
pub fn uuid_of(time: DateTime<Utc>) -> Uuid {
    let random = *Uuid::new_v4().as_bytes();
    let millis = u64::try_from(time.timestamp_millis()).unwrap();
    uuid::Builder::from_unix_timestamp_millis(millis, random[6..].try_into().unwrap()).into_uuid()
}

/// A tenant with one of everything.
pub struct Furnished {
    pub tenant: TenantId,
    pub slug: String,
    pub user: UserId,
    pub username: String,
    pub email: String,
    pub application: ApplicationId,
    pub application_name: String,
    /// Owned by the application.
    pub key: KeyId,
    /// Owned by the user.
    pub user_key: KeyId,
    pub kid: String,
    pub audience: AudienceId,
    /// The application's, of whose secret a hash is kept.
    pub hashed_key: KeyId,
    pub status_list: StatusListId,
    pub token: TokenRow,
    /// The user's.
    pub family: FamilyId,
    /// The user's.
    pub session: SessionId,
}

/// An audience of some name.
pub fn audience() -> Audience {
    let (id, name) = (AudienceId(uuid()), uuid().to_string());
    Audience { id, uri: format!("urn:{name}"), name, profile: serde_json::json!({}), created_at: now() }
}

/// Somebody who fetched the JWK set, now.
pub fn fetch(newest_kid: &str) -> JwksFetch {
    let (network, user_agent, now) = ("192.0.2.0/24".to_owned(), "test/1".to_owned(), now());
    let newest_kid = newest_kid.to_owned();
    JwksFetch { network, user_agent, fetches: 1, first_at: now, last_at: now, newest_kid, newest_key_at: now }
}

/// A signing key that is active at once.
pub fn signing_key(kid: &str) -> NewSigningKey<'_> {
    NewSigningKey {
        kid,
        algorithm: Algorithm::EdDsa,
        public_key: &[2; 32],
        sealed_private: b"sealed",
        at_once: true,
        audience: None,
    }
}

/// What is counted in every furnished tenant, once.
pub const BUCKET: [u8; 32] = [10; 32];

/// What is kept of an app token, the same in every furnished tenant.
pub const APP_TOKEN: [u8; 32] = [14; 32];

/// A hash that nobody computes.
pub fn hash(of: &str) -> PasswordHash {
    PasswordHash::new(format!("$none${of}"))
}

/// Makes a tenant with one of everything. Partitions for tokens that end within the hour must be there; those of logins
/// are made.
pub async fn furnish(store: &Store, slug: &str) -> Furnished {
    let now = now();
    let tenant = TenantId(uuid());
    let (user, application) = (UserId(uuid()), ApplicationId(uuid()));
    let (key, user_key) = (key_id(), key_id());
    let kid = uuid().to_string();
    let (username, email) = (format!("{slug}-person"), format!("{slug}@example.com"));
    let application_name = format!("{slug} app");
    store.ensure_login_partitions(now).await.unwrap();
    let mut tx = store.begin_in(tenant).await.unwrap();
    let mut scoped = tx.tenant(tenant).await.unwrap();
    scoped.create_tenant(slug, slug, &serde_json::json!({}), now).await.unwrap();
    scoped.create_user(&NewUser { email: Some(&email), ..new_user(user, &username) }, now).await.unwrap();
    scoped.set_password(user, &hash(slug), now, "operator:test").await.unwrap();
    scoped.create_application(application, &application_name, None, now).await.unwrap();
    for (id, owner) in [(&key, Owner::Application(application)), (&user_key, Owner::User(user))] {
        scoped
            .create_key(&new_key(id, owner, &["events:read".to_owned()]), &KeptSecret::Mac(SecretMac([1; 32]), 1), now)
            .await
            .unwrap();
    }
    scoped.create_signing_key(signing_key(&kid), now).await.unwrap();
    let audience = audience();
    scoped.create_audience(&audience).await.unwrap();
    scoped.add_jwks_fetch(&fetch(&kid)).await.unwrap();
    let hashed_key = key_id();
    let new = new_key(&hashed_key, Owner::Application(application), &[]);
    scoped.create_key(&new, &KeptSecret::Hash(hash(slug)), now).await.unwrap();
    scoped.create_role("reader", "", &["events:*".to_owned()], now).await.unwrap();
    scoped.enter_scopes(&["events:read".to_owned()], now).await.unwrap();
    scoped.start_audit_chain(&head(0)).await.unwrap();
    let token = token(&key, now + TimeDelta::minutes(10));
    let (before, head, entries) = (head(0), head(1), [entry(1, now)]);
    scoped.write_key_uses(&[(key.clone(), KeyUse { at: now, network: None, agent: None })]).await.unwrap();
    let tokens = std::slice::from_ref(&token);
    let batch = Batch { expected: &before, head: &head, entries: &entries, tokens };
    assert!(scoped.record(&batch).await.unwrap());
    let status_list = StatusListId(uuid());
    scoped.open_status_list(audience.id, status_list, &[0, 1, 0, 0], now).await.unwrap();
    let listed = Listed {
        id: token.id,
        key: Some(&key),
        family: None,
        subject: &token.subject,
        client_id: &token.subject,
        issued_at: now,
        expires_at: token.expires_at,
    };
    assert_eq!(scoped.take_place(audience.id, &listed).await.unwrap().map(|place| place.index), Some(1));
    let (family, session) = (new_family(Principal::User(user)), new_session(user));
    scoped.open_family(&family).await.unwrap();
    scoped.open_session(&session).await.unwrap();
    let ends_at = now + TimeDelta::hours(1);
    scoped.create_app_token(&NewAppToken { mac: SecretMac(APP_TOKEN), family: family.id, user, ends_at }).await.unwrap();
    scoped.count_attempt(&[(BUCKET, 3600)], now).await.unwrap();
    let request = KeyRequestId(uuid());
    scoped.open_key_request(request, "app", &email, "", now).await.unwrap();
    scoped.create_link(SecretMac([7; 32]), LinkKind::Claim, request, now + TimeDelta::days(1)).await.unwrap();
    scoped.queue_mail(uuid(), b"sealed", now).await.unwrap();
    let ticket = Ticket { holder: Holder::Key(key.clone()), scope: Vec::new(), origin: None };
    scoped.take_budget(&key, "rate", now, 1, 10).await.unwrap();
    scoped.create_ticket(SecretMac([6; 32]), &ticket, now, now + TimeDelta::minutes(1)).await.unwrap();
    let connection = new_connection();
    scoped.create_connection(&connection).await.unwrap();
    scoped.create_connection_link(connection.id, "subject", user, now).await.unwrap();
    let (id, mac) = (connection.id, [13; 32]);
    let state = State {
        mac,
        connection: id,
        browser: mac,
        sealed: Vec::new(),
        redirect_uri: String::new(),
        return_to: None,
        purpose: Purpose::Session,
    };
    scoped.create_connection_state(&state, now, now + TimeDelta::minutes(10)).await.unwrap();
    let login = ConnectionLogin { id: session.id.0, connection: id, user, sealed_refresh: None, checked_at: now };
    scoped.create_connection_login(&login).await.unwrap();
    // Off and on again: an entry among the revocations.
    for by in [Some("operator:test"), None] {
        assert!(scoped.set_key_disabled(&user_key, by, now).await.unwrap());
    }
    tx.commit().await.unwrap();
    let (slug, audience, family, session) = (slug.to_owned(), audience.id, family.id, session.id);
    Furnished {
        tenant,
        slug,
        user,
        username,
        email,
        application,
        application_name,
        key,
        user_key,
        kid,
        audience,
        hashed_key,
        status_list,
        token,
        family,
        session,
    }
}

/// A user whose name is already folded and looks like nobody else's.
pub fn new_user(id: UserId, username: &str) -> NewUser<'_> {
    NewUser { id, username, folded: username, skeleton: username, email: None, roles: &[], scopes: &[], attributes: None }
}

/// A connection to nowhere.
pub fn new_connection() -> Connection {
    Connection {
        id: ConnectionId(uuid()),
        name: "corp".into(),
        title: "Corp".into(),
        kind: "oidc".into(),
        settings: serde_json::json!({}),
        sealed_secret: None,
        created_at: now(),
        updated_at: now(),
        disabled_at: None,
    }
}

/// A family that lives for a day.
pub fn new_family(principal: Principal) -> NewFamily {
    family_until(principal, now() + TimeDelta::days(1))
}

pub fn family_until(principal: Principal, ends_at: DateTime<Utc>) -> NewFamily {
    NewFamily {
        id: FamilyId(uuid_of(ends_at)),
        principal,
        client: None,
        scope: vec!["events:read".to_owned()],
        user_agent: None,
        ends_at,
        idle_seconds: 3600,
        mac: SecretMac([0; 32]),
        pepper_version: 1,
    }
}

/// A token of that number, told from others by its number.
pub fn successor(family: FamilyId, generation: i32) -> Successor {
    let byte = u8::try_from(generation).unwrap();
    let (mac, sealed_answer) = (SecretMac([byte; 32]), format!("answer {generation}").into_bytes());
    Successor { family, generation, mac, pepper_version: 1, sealed_answer }
}

/// A session that lives for a day.
pub fn new_session(user: UserId) -> NewSession {
    let ends_at = now() + TimeDelta::days(1);
    NewSession {
        id: SessionId(uuid_of(ends_at)),
        user,
        mac: SecretMac([11; 32]),
        pepper_version: 1,
        user_agent: None,
        ends_at,
        idle_seconds: 3600,
    }
}

pub fn key_id() -> KeyId {
    KeyId::parse(&format!("ck_{}", uuid().simple())).unwrap()
}

pub fn new_key<'a>(id: &'a KeyId, owner: Owner, scopes: &'a [String]) -> NewKey<'a> {
    NewKey {
        id,
        name: "test",
        owner,
        scopes,
        roles: &[],
        token_lifetime: None,
        refresh: false,
        expires_at: None,
        created_by: "operator:test",
    }
}

pub fn head(seq: i64) -> Head {
    Head { seq, hash: vec![3; 32], mac: vec![4; 32] }
}

pub fn token(key: &KeyId, expires_at: DateTime<Utc>) -> TokenRow {
    let issued_at = expires_at - TimeDelta::minutes(10);
    let (id, subject, scope) = (TokenId(uuid()), "somebody".to_owned(), "events:read".to_owned());
    TokenRow { id, key: Some(key.clone()), family: None, subject, scope, issued_at, expires_at }
}

pub fn entry(seq: i64, at: DateTime<Utc>) -> Entry {
    Entry {
        seq,
        at,
        action: "key.exchange".into(),
        outcome: "ok".into(),
        actor: "key:test".into(),
        subject: String::new(),
        target: String::new(),
        request_id: String::new(),
        detail: "{}".into(),
        personal: Some("{}".into()),
        personal_salt: vec![5; 16],
        personal_digest: vec![6; 32],
        hash: vec![3; 32],
    }
}
