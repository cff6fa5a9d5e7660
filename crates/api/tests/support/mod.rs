//! What the tests stand on: a real database for each, the real app on a real port, and callers that are objects.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support: every test file uses its own part of it, and a failure here is a failed test"
)]

pub mod operations;
pub mod wire;

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Utc};
use claviger::config::ProxyHeader;
use claviger::server::{self, Stopper};
use claviger_issuer::application::NewApplication;
use claviger_issuer::audit::Actor;
use claviger_issuer::clock::Clock;
use claviger_issuer::key::KeyOrder;
use claviger_issuer::outbound::OutboundSettings;
use claviger_issuer::password::Cost;
use claviger_issuer::random::Random;
use claviger_issuer::scope::MANAGEMENT;
use claviger_issuer::settings::{Settings, TenantSettings, Throttle};
use claviger_issuer::tenant::{NewTenant, TenantChange};
use claviger_issuer::user::{NewPassword, NewUser};
use claviger_issuer::vault::{MasterKey, Vault};
use claviger_issuer::{Issuer, Open};
use claviger_store::id::{ApplicationId, KeyId, Owner, TenantId, UserId};
use claviger_store::{DatabaseUrls, Store};
use reqwest::{Method, Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection};

/// A migrated database of its own, within the server that `make test` starts. Gone when dropped.
pub struct Database {
    name: String,
    server: PgConnectOptions,
}

impl Database {
    pub async fn create() -> Self {
        let url = std::env::var("DATABASE_URL").expect("run the tests with `make test`, which starts a database for them");
        let server: PgConnectOptions = url.parse().unwrap();
        let name = format!("test_{}", hex(&Random::from_system().bytes::<8>()));
        let database = Self { name, server };
        let mut connection = database.server.connect().await.unwrap();
        let create = AssertSqlSafe(format!("CREATE DATABASE {}", database.name));
        sqlx::raw_sql(create).execute(&mut connection).await.unwrap();
        connection.close().await.unwrap();
        Store::migrate(&database.urls()).await.unwrap();
        database
    }

    pub fn urls(&self) -> DatabaseUrls {
        DatabaseUrls::parse(&self.url(), None).unwrap()
    }

    /// As `DATABASE_URL` would say it.
    pub fn url(&self) -> String {
        let mut url = url::Url::parse(&std::env::var("DATABASE_URL").unwrap()).unwrap();
        url.set_path(&self.name);
        url.to_string()
    }

    /// As a superuser, to look behind the walls.
    pub async fn superuser(&self) -> PgConnection {
        self.server.clone().database(&self.name).connect().await.unwrap()
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        let (server, name) = (self.server.clone(), self.name.clone());
        // A thread, because a runtime cannot be entered from within another.
        let dropped = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                if let Ok(mut connection) = server.connect().await {
                    let drop = AssertSqlSafe(format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)"));
                    let _ = sqlx::raw_sql(drop).execute(&mut connection).await;
                }
            });
        });
        let _ = dropped.join();
    }
}

/// How a test server differs from the usual.
pub struct Options {
    pub require_https: bool,
    pub trusted_proxies: Vec<&'static str>,
    pub throttle: Throttle,
    pub token_lifetime: i32,
    /// `None` stands still at the real time of the start and is moved by `server.clock.advance(..)`.
    pub clock: Option<Clock>,
    /// `false` shows what the sweep alone does.
    pub notifications: bool,
    /// Whether mail reaches people.
    pub confirm_addresses: bool,
    /// Where the world reaches it, the same for every replica; `http://id.test` if not said.
    pub public_url: Option<String>,
    /// `false` asks the database for everything, as a server does that has lost touch with the news.
    pub memory: bool,
    /// What may be asked of others.
    pub outbound: OutboundSettings,
    /// Hosts that stand for a tenant.
    pub hosts: Vec<(&'static str, &'static str)>,
}

/// Failures that nobody reaches.
pub const UNTHROTTLED: Throttle = Throttle { failures: 1000, window: 900 };

impl Default for Options {
    fn default() -> Self {
        Self {
            require_https: false,
            trusted_proxies: Vec::new(),
            throttle: Throttle::default(),
            token_lifetime: 86_400,
            clock: None,
            notifications: true,
            confirm_addresses: false,
            public_url: None,
            memory: true,
            outbound: OutboundSettings::default(),
            hosts: Vec::new(),
        }
    }
}

/// The app, over real HTTP, on a database of its own.
pub struct Server {
    pub address: SocketAddr,
    pub issuer: Arc<Issuer>,
    pub clock: Clock,
    pub http: reqwest::Client,
    pub stopper: Stopper,
    pub master_key: MasterKey,
    /// Last, so that the database goes after everything that uses it.
    pub database: Arc<Database>,
}

impl Server {
    pub async fn start() -> Self {
        Self::start_with(Options::default()).await
    }

    pub async fn start_with(options: Options) -> Self {
        let database = Arc::new(Database::create().await);
        let master_key = MasterKey::generate(&Random::from_system());
        Self::join(database, master_key, options).await
    }

    /// One more server on the same database, as a replica is.
    pub async fn replica(&self, options: Options) -> Self {
        Self::join(self.database.clone(), self.master_key.clone(), options).await
    }

    async fn join(database: Arc<Database>, master_key: MasterKey, options: Options) -> Self {
        let Options {
            require_https,
            trusted_proxies,
            throttle,
            token_lifetime,
            clock,
            notifications,
            confirm_addresses,
            public_url,
            memory,
            outbound,
            hosts,
        } = options;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let store = Store::connect(&database.urls(), 8).await.unwrap();
        let clock = clock.unwrap_or_else(|| Clock::manual(Clock::System.now()));
        let settings = Settings {
            // The same for every replica, whatever port it is on.
            public_url: public_url.as_deref().unwrap_or("http://id.test").parse().unwrap(),
            brand: "c".into(),
            default_tenant: "default".into(),
            token_lifetime,
            throttle,
            // A real hash would be most of what tests do.
            confirm_addresses,
            password_cost: Cost { memory_kib: 64, iterations: 1 },
            password_threads: 1,
            outbound,
        };
        let open = Open { store, master_key: master_key.clone(), settings, clock: clock.clone(), random: Random::from_system() };
        let issuer = Arc::new(Issuer::open(open).await.unwrap());
        issuer.make_room().await.unwrap();
        if memory {
            issuer.follow_changes(notifications);
        }
        let settings = server::Settings {
            trusted_proxies: trusted_proxies.iter().map(|network| network.parse().unwrap()).collect(),
            proxy_header: ProxyHeader::XForwardedFor,
            require_https,
            hosts: hosts.into_iter().map(|(host, slug)| (host.to_owned(), slug.to_owned())).collect(),
            workers: 1,
        };
        let running = server::start(issuer.clone(), &settings, listener).unwrap();
        let stopper = running.stopper();
        actix_web::rt::spawn(running.server);
        let http = reqwest::Client::builder().no_proxy().redirect(reqwest::redirect::Policy::none()).build().unwrap();
        Self { address, issuer, clock, http, stopper, master_key, database }
    }

    /// `http://127.0.0.1:PORT` and the path.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// Nobody in particular.
    pub fn anonymous(&self) -> Client<'_> {
        Client { server: self, authorization: None }
    }

    /// Whoever this header names: `server.with("Bearer …")`.
    pub fn with(&self, authorization: &str) -> Client<'_> {
        Client { server: self, authorization: Some(authorization.to_owned()) }
    }

    /// Makes a tenant, as the operator would.
    pub async fn tenant(&self, slug: &str) -> Tenant<'_> {
        self.tenant_with(slug, TenantSettings::default()).await
    }

    /// The tenant that the root paths serve and whose admins manage the others.
    pub async fn default_tenant(&self) -> Tenant<'_> {
        self.tenant("default").await
    }

    /// Returns when this server has heard of every change made so far. Needs a default tenant, which it renames.
    ///
    /// News arrives in the order of the changes: once that of our own has arrived, so has that of all before it.
    pub async fn settle(&self) {
        let slug = &self.issuer.settings().default_tenant;
        // Into memory, from where only the news can remove it.
        self.issuer.tenant(slug).await.unwrap().expect("make the default tenant first");
        let name = format!("settled {}", hex(&self.issuer.random().bytes::<8>()));
        let change = TenantChange { name: Some(name.clone()), ..TenantChange::default() };
        self.issuer.change_tenant(&Actor::operator(), slug, change).await.unwrap();
        for _ in 0..500 {
            if self.issuer.tenant(slug).await.unwrap().unwrap().tenant.name == name {
                // A sweep may have told ours a moment before the notification of another.
                tokio::time::sleep(Duration::from_millis(20)).await;
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("news of a change did not arrive within 5 seconds");
    }

    pub async fn tenant_with(&self, slug: &str, settings: TenantSettings) -> Tenant<'_> {
        let new = NewTenant { slug: slug.into(), name: None, settings, preset: None };
        let id = self.issuer.create_tenant(&Actor::operator(), new).await.unwrap().id;
        Tenant { server: self, slug: slug.into(), id }
    }
}

/// A tenant of a test server.
pub struct Tenant<'a> {
    pub server: &'a Server,
    pub slug: String,
    pub id: TenantId,
}

impl Tenant<'_> {
    /// An application of this name.
    pub async fn application(&self, name: &str) -> ApplicationId {
        let new = NewApplication { name: name.into(), ..NewApplication::default() };
        self.server.issuer.create_application(self.id, &Actor::operator(), new).await.unwrap().id
    }

    /// Makes an application with a key of these scopes.
    pub async fn app_key(&self, name: &str, scopes: &[&str]) -> Key {
        let application = self.application(name).await;
        self.key_of(Owner::Application(application), scopes).await
    }

    /// Makes a user with a key of these scopes.
    pub async fn user_key(&self, username: &str, scopes: &[&str]) -> Key {
        let user = self.user(username, None).await;
        self.key_of(Owner::User(user), scopes).await
    }

    /// Makes a user, with a password if one is given.
    pub async fn user(&self, username: &str, password: Option<&str>) -> UserId {
        let password = password.map(|text| NewPassword::Text(SecretString::from(text)));
        let new = NewUser { username: username.into(), password, ..NewUser::default() };
        let entry = self.server.issuer.tenant(&self.slug).await.unwrap().unwrap();
        self.server.issuer.create_user(&entry, &Actor::operator(), new).await.unwrap().id
    }

    /// Logs in over HTTP and returns the answer's body.
    pub async fn log_in(&self, username: &str, password: &str) -> Value {
        let body = serde_json::json!({ "username": username, "password": password });
        let answer = self.server.anonymous().post(&self.path("/v1/login"), body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json()
    }

    /// Makes a key with every management scope.
    pub async fn admin(&self) -> Key {
        self.app_key("admin", &MANAGEMENT).await
    }

    pub async fn key_of(&self, owner: Owner, scopes: &[&str]) -> Key {
        let order = KeyOrder {
            owner,
            name: "test".into(),
            scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
            roles: Vec::new(),
            acting: Default::default(),
            token_lifetime: None,
            refresh: false,
            expires_at: None,
            limits: claviger_issuer::limits::KeyLimits::default(),
            import: None,
        };
        let made = self.server.issuer.create_key(self.id, &Actor::operator(), order).await.unwrap();
        Key { id: made.key.id.to_string(), secret: made.secret.expose_secret().to_owned(), owner }
    }

    /// Signs these claims with the tenant's own key, as nobody but the tenant could.
    pub async fn sign(&self, header: &Value, claims: &Value) -> String {
        self.sign_bytes(header.to_string().as_bytes(), claims.to_string().as_bytes()).await
    }

    /// As [`Tenant::sign`], for what is not quite JSON.
    pub async fn sign_bytes(&self, header: &[u8], claims: &[u8]) -> String {
        use base64::Engine as _;
        use base64::engine::general_purpose::URL_SAFE_NO_PAD;
        use ed25519_dalek::Signer as _;
        let mut database = self.server.database.superuser().await;
        let (kid, sealed): (String, Vec<u8>) =
            sqlx::query_as("SELECT kid, sealed_private FROM signing_keys WHERE tenant_id = $1 AND state = 'active'")
                .bind(self.id)
                .fetch_one(&mut database)
                .await
                .unwrap();
        let vault = Vault::new(&self.server.master_key, "signing_keys").unwrap();
        let seed = vault.open(&format!("signing_keys:sealed_private:{}:{kid}", self.id), &sealed).unwrap();
        let key = ed25519_dalek::SigningKey::from_bytes(seed.as_slice().try_into().unwrap());
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes()))
    }

    /// `/t/{slug}` and the path.
    pub fn path(&self, path: &str) -> String {
        format!("/t/{}{path}", self.slug)
    }

    /// The newest entries of the audit trail with this action, newest first.
    pub async fn audit(&self, action: &str) -> Vec<claviger_store::audit::Entry> {
        self.server.issuer.list_audit(self.id, Some(action), None, 200).await.unwrap()
    }
}

/// A key and its secret.
#[derive(Clone)]
pub struct Key {
    pub id: String,
    pub secret: String,
    pub owner: Owner,
}

impl Key {
    pub fn key_id(&self) -> KeyId {
        KeyId::parse(&self.id).unwrap()
    }

    /// `key:secret`, as `/v1/authentications` takes it without a scheme.
    pub fn pair(&self) -> String {
        format!("{}:{}", self.id, self.secret)
    }

    /// `Basic …`.
    pub fn basic(&self) -> String {
        basic(&self.pair())
    }

    /// The owner's id: the `sub` of its tokens.
    pub fn subject(&self) -> String {
        match self.owner {
            Owner::Application(id) => id.to_string(),
            Owner::User(id) => id.to_string(),
        }
    }
}

pub fn basic(pair: &str) -> String {
    use base64::Engine as _;
    format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair))
}

/// A caller: `server.with(&key.basic()).get("/v1/me").await`.
pub struct Client<'a> {
    server: &'a Server,
    authorization: Option<String>,
}

impl Client<'_> {
    pub fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let request = self.server.http.request(method, self.server.url(path));
        match &self.authorization {
            Some(value) => request.header("Authorization", value),
            None => request,
        }
    }

    pub async fn get(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::GET, path).send().await.unwrap()).await
    }

    pub async fn delete(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::DELETE, path).send().await.unwrap()).await
    }

    /// Without a body.
    pub async fn post_empty(&self, path: &str) -> Answer {
        Answer::of(self.request(Method::POST, path).send().await.unwrap()).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::POST, path).json(&body).send().await.unwrap()).await
    }

    pub async fn patch(&self, path: &str, body: Value) -> Answer {
        Answer::of(self.request(Method::PATCH, path).json(&body).send().await.unwrap()).await
    }

    /// As RFC 7662 asks: a form.
    pub async fn introspect(&self, path: &str, token: &str) -> Answer {
        Answer::of(self.request(Method::POST, path).form(&[("token", token)]).send().await.unwrap()).await
    }

    /// Exchanges at the root and returns the token.
    pub async fn token(&self) -> String {
        let answer = self.post_empty("/v1/authentications").await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.json()["jwt"].as_str().unwrap().to_owned()
    }
}

/// An answer, read whole.
pub struct Answer {
    pub status: StatusCode,
    pub headers: reqwest::header::HeaderMap,
    pub text: String,
}

impl Answer {
    pub async fn of(response: Response) -> Self {
        let (status, headers) = (response.status(), response.headers().clone());
        Self { status, headers, text: response.text().await.unwrap() }
    }

    pub fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("not JSON: {}", self.text))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// The `error` of a problem document, whose media type is checked too.
    pub fn error(&self) -> String {
        assert_eq!(self.header("content-type"), "application/problem+json");
        assert_eq!(self.json()["status"], self.status.as_u16());
        self.json()["error"].as_str().unwrap().to_owned()
    }
}

/// The claims of a token, unchecked.
pub fn claims(jwt: &str) -> Value {
    use base64::Engine as _;
    let part = jwt.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

/// The header of a token, unchecked.
pub fn jose_header(jwt: &str) -> Value {
    use base64::Engine as _;
    let part = jwt.split('.').next().unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

pub fn at(seconds: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(seconds, 0).unwrap()
}

/// The `detail` of an audit entry.
pub fn detail(entry: &claviger_store::audit::Entry) -> Value {
    serde_json::from_str(&entry.detail).unwrap()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
