//! Several servers on one database: what is switched off at one is off at the others, and a server that cannot ask
//! the database says so, and never a wrong yes (SEEDS scenarios 19 and 20 across servers; SECURITY T24, T25).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a failure here is a failed test, and measured delays are shown with --nocapture"
)]

#[path = "support/people.rs"]
mod people;
mod support;

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use claviger::config::ProxyHeader;
use claviger::server;
use claviger_issuer::clock::Clock;
use claviger_issuer::random::Random;
use claviger_issuer::scope::MANAGEMENT;
use claviger_issuer::settings::Throttle;
use claviger_issuer::{Issuer, Open};
use claviger_store::{DatabaseUrls, Store};
use futures_util::future::join_all;
use people::Browser;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection};
use support::{Answer, Key, Options, Server, Tenant, claims, hex};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::watch;

/// Real time, because replicas have no clock in common, and a throttle that does not stop who keeps asking.
fn options(notifications: bool) -> Options {
    let throttle = Throttle { failures: 1_000, window: 900 };
    Options { notifications, throttle, clock: Some(Clock::System), ..Options::default() }
}

/// What dies when a switch is thrown.
#[derive(Clone, Copy, PartialEq)]
enum Bite {
    /// The pair and the tokens it was exchanged for.
    All,
    /// What the pair and the tokens may do.
    Scope,
    /// The secret.
    Secret,
}

/// A switch of the kill matrix, and the key behind it.
struct Switch {
    name: &'static str,
    key: Key,
    /// Who may throw it.
    admin: String,
    throw: (Method, String, Value),
    bite: Bite,
    /// From before it is thrown.
    token: String,
}

const SCOPES: [&str; 2] = ["events:read", "events:write"];

/// One of each kind, each with a key of its own. Both servers know all of them by heart.
async fn switches(a: &Server, b: &Server) -> Vec<Switch> {
    let platform = a.tenant("default").await.admin().await.basic();
    let acme = a.tenant("acme").await;
    let admin = acme.admin().await.basic();
    let (closed, ended) = (a.tenant("closed").await, a.tenant("ended").await);
    let off = json!({ "disabled": true });
    let mut all = Vec::new();
    let mut add = |name, key: Key, admin: &str, method: Method, path: String, body: &Value, bite| {
        let throw = (method, path, body.clone());
        all.push(Switch { name, key, admin: admin.to_owned(), throw, bite, token: String::new() });
    };
    let key = acme.app_key("revoked", &SCOPES).await;
    let path = format!("/v1/keys/{}", key.id);
    add("revoke key", key, &admin, Method::DELETE, path, &Value::Null, Bite::All);
    let key = acme.app_key("disabled", &SCOPES).await;
    let path = format!("/v1/keys/{}", key.id);
    add("disable key", key, &admin, Method::PATCH, path, &off, Bite::All);
    let key = acme.app_key("off", &SCOPES).await;
    let path = format!("/v1/applications/{}", key.subject());
    add("disable application", key, &admin, Method::PATCH, path, &off, Bite::All);
    let key = acme.app_key("gone", &SCOPES).await;
    let path = format!("/v1/applications/{}", key.subject());
    add("delete application", key, &admin, Method::DELETE, path, &Value::Null, Bite::All);
    let key = acme.user_key("off", &SCOPES).await;
    let path = format!("/v1/users/{}", key.subject());
    add("disable user", key, &admin, Method::PATCH, path, &off, Bite::All);
    let key = acme.user_key("gone", &SCOPES).await;
    let path = format!("/v1/users/{}", key.subject());
    add("delete user", key, &admin, Method::DELETE, path, &Value::Null, Bite::All);
    let key = closed.app_key("app", &SCOPES).await;
    add("disable tenant", key, &platform, Method::PATCH, "/v1/tenants/closed".into(), &off, Bite::All);
    let key = ended.app_key("app", &SCOPES).await;
    add("delete tenant", key, &platform, Method::DELETE, "/v1/tenants/ended".into(), &Value::Null, Bite::All);
    let key = acme.app_key("shrunk", &SCOPES).await;
    let path = format!("/v1/keys/{}", key.id);
    add("shrink scopes", key, &admin, Method::PATCH, path, &json!({ "scopes": ["events:read"] }), Bite::Scope);
    let key = acme.app_key("rotated", &SCOPES).await;
    let path = format!("/v1/keys/{}/rotate", key.id);
    add("rotate secret", key, &admin, Method::POST, path, &json!({ "grace_seconds": 0 }), Bite::Secret);
    for switch in &mut all {
        for server in [a, b, a, b] {
            switch.token = server.with(&switch.key.pair()).token().await;
            assert_eq!(me(server, &switch.token).await.status, StatusCode::OK);
        }
    }
    all
}

async fn exchange(server: &Server, key: &Key) -> Answer {
    server.with(&key.pair()).post_empty("/v1/authentications").await
}

async fn me(server: &Server, token: &str) -> Answer {
    server.with(&format!("Bearer {token}")).get("/v1/me").await
}

/// Whether the switch has bitten at this server. Half-way, some of it may have.
async fn bitten(server: &Server, switch: &Switch) -> bool {
    let pair = exchange(server, &switch.key).await;
    let token = me(server, &switch.token).await;
    let name = switch.name;
    assert!(matches!(pair.status.as_u16(), 201 | 404), "{name}: {}", pair.text);
    assert!(matches!(token.status.as_u16(), 200 | 401), "{name}: {}", token.text);
    match switch.bite {
        Bite::All => pair.status == StatusCode::NOT_FOUND && token.status == StatusCode::UNAUTHORIZED,
        Bite::Secret => {
            assert_eq!(token.status, StatusCode::OK, "{name}: its tokens live on");
            pair.status == StatusCode::NOT_FOUND
        }
        Bite::Scope => {
            let granted = claims(pair.json()["jwt"].as_str().unwrap())["scope"].clone();
            granted == "events:read" && token.json()["scope"] == "events:read"
        }
    }
}

async fn throw(server: &Server, switch: &Switch) -> Instant {
    let (method, path, body) = &switch.throw;
    let mut request = server.with(&switch.admin).request(method.clone(), path);
    if !body.is_null() {
        request = request.json(body);
    }
    let answer = Answer::of(request.send().await.unwrap()).await;
    assert!(answer.status.is_success(), "{}: {} {}", switch.name, answer.status, answer.text);
    Instant::now()
}

/// How long it took until a switch bit, for good.
async fn delay(server: &Server, switch: &Switch, thrown: Instant) -> Duration {
    let delay = loop {
        let asked = thrown.elapsed();
        if bitten(server, switch).await {
            break asked;
        }
        assert!(asked < Duration::from_secs(30), "{} does not bite", switch.name);
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    for _ in 0..3 {
        assert!(bitten(server, switch).await, "{} bit and then did not", switch.name);
    }
    delay
}

fn worst(title: &str, delays: &[(&str, Duration)]) -> Duration {
    let (name, worst) = delays.iter().max_by_key(|(_, delay)| *delay).unwrap();
    println!(
        "{title}: worst {} ms ({name}); all in ms: {:?}",
        worst.as_millis(),
        delays.iter().map(|(_, d)| d.as_millis()).collect::<Vec<_>>()
    );
    *worst
}

#[actix_web::test]
async fn t24_every_switch_bites_on_every_replica_within_a_second_of_its_notification() {
    let a = Server::start_with(options(true)).await;
    let b = a.replica(options(true)).await;
    let (mut there, mut here) = (Vec::new(), Vec::new());
    for switch in &switches(&a, &b).await {
        let thrown = throw(&a, switch).await;
        let (at_b, at_a) = tokio::join!(delay(&b, switch, thrown), delay(&a, switch, thrown));
        there.push((switch.name, at_b));
        here.push((switch.name, at_a));
    }
    // The promise is one second; the rest is for a busy machine.
    assert!(worst("notified, the other server", &there) <= Duration::from_secs(3));
    assert!(worst("notified, the same server", &here) <= Duration::from_secs(3));
    // Thrown one after the other, switches that only a sweep tells would take two seconds each.
    there.sort_by_key(|(_, delay)| *delay);
    assert!(there[there.len() / 2].1 <= Duration::from_secs(1), "notifications do not arrive: {there:?}");
}

#[actix_web::test]
async fn t24_every_switch_bites_on_every_replica_within_five_seconds_when_notifications_are_lost() {
    let a = Server::start_with(options(false)).await;
    let b = a.replica(options(false)).await;
    let switches = switches(&a, &b).await;
    let mut thrown = Vec::new();
    for switch in &switches {
        thrown.push((switch, throw(&a, switch).await));
    }
    let at =
        |server| thrown.iter().map(move |(switch, thrown)| async move { (switch.name, delay(server, switch, *thrown).await) });
    let (there, here) = tokio::join!(join_all(at(&b)), join_all(at(&a)));
    // The promise is five seconds; the rest is for a busy machine.
    assert!(worst("not notified, the other server", &there) <= Duration::from_secs(8));
    assert!(worst("not notified, the same server", &here) <= Duration::from_secs(8));
}

#[actix_web::test]
async fn a_key_made_at_one_server_works_at_the_other_at_once_even_if_it_was_unknown_there_before() {
    // No notification helps: that there is no such key is never remembered.
    let a = Server::start_with(options(false)).await;
    let b = a.replica(options(false)).await;
    let acme = a.tenant("acme").await;
    let admin = acme.admin().await.basic();
    let application = acme.application("app").await;
    let owner = claviger_store::id::Owner::Application(application);
    for round in 0..3 {
        let key = acme.key_of(owner, &SCOPES).await;
        assert_eq!(exchange(&b, &key).await.status, StatusCode::CREATED, "{round}");
        let imported = Key { id: format!("legacy.{round}"), secret: "a-secret-from-elsewhere-0123456789".into(), owner };
        for server in [&a, &b] {
            assert_eq!(exchange(server, &imported).await.status, StatusCode::NOT_FOUND);
        }
        let order = json!({ "application_id": application.0, "name": "legacy", "scopes": ["events:read"], "import": {
                "api_key": imported.id, "api_secret": imported.secret
            } });
        let made = a.with(&admin).post("/v1/keys", order).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        for server in [&b, &a] {
            assert_eq!(exchange(server, &imported).await.status, StatusCode::CREATED, "{round}");
        }
    }
    // A tenant too.
    let slug = "/t/brand-new/.well-known/jwks.json";
    assert_eq!(b.anonymous().get(slug).await.status, StatusCode::NOT_FOUND);
    let fresh = a.tenant("brand-new").await;
    assert_eq!(b.anonymous().get(slug).await.status, StatusCode::OK);
    assert_eq!(exchange(&b, &fresh.app_key("app", &SCOPES).await).await.status, StatusCode::CREATED);
}

async fn run(connection: &mut PgConnection, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await.unwrap();
}

async fn count(connection: &mut PgConnection, question: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(question.to_owned())).fetch_one(connection).await.unwrap()
}

/// Ends the chosen connections of others to this database, and waits until they are gone.
async fn end_connections(superuser: &mut PgConnection, of: &str) {
    let chosen = format!("FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid() AND {of}");
    while count(superuser, &format!("SELECT count(pg_terminate_backend(pid)) {chosen}")).await > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn database_name(server: &Server) -> String {
    server.database.url().rsplit('/').next().unwrap().to_owned()
}

/// Unknown is not yes, and it is not no either.
fn assert_unknown(what: &str, answer: &Answer) {
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{what}: {}", answer.text);
    assert_eq!(answer.error(), "temporarily_unavailable", "{what}");
    assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds > 0), "{what}: when to try again");
    assert!(!answer.text.contains("jwt") && !answer.text.contains("active"), "{what}: {}", answer.text);
}

/// Asks until it is answered so, in half a minute at most.
async fn until(
    what: &str,
    server: &Server,
    authorization: Option<&str>,
    request: (Method, &str),
    status: StatusCode,
) -> Duration {
    let began = Instant::now();
    loop {
        let client = authorization.map_or_else(|| server.anonymous(), |authorization| server.with(authorization));
        let answer = Answer::of(client.request(request.0.clone(), request.1).send().await.unwrap()).await;
        if answer.status == status {
            return began.elapsed();
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{what}: still {} {}", answer.status, answer.text);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Every token in the record has its entry in the trail and the other way round, and the chain holds.
async fn assert_record_is_whole(server: &Server, tenant: &Tenant<'_>, superuser: &mut PgConnection) {
    assert!(server.issuer.verify_audit(tenant.id, None).await.unwrap().is_ok());
    let odd = format!(
        "SELECT count(*) FROM (SELECT jti FROM issued_tokens WHERE tenant_id = '{0}') t
           FULL JOIN (SELECT target FROM audit_entries WHERE tenant_id = '{0}' AND action = 'key.exchange' AND outcome = 'ok') e
             ON e.target = 'token:' || t.jti
          WHERE t.jti IS NULL OR e.target IS NULL",
        tenant.id
    );
    assert_eq!(count(superuser, &odd).await, 0);
}

#[actix_web::test]
async fn t25_without_its_database_a_server_says_that_it_does_not_know_and_comes_back_by_itself() {
    let server = Server::start_with(options(true)).await;
    let tenant = server.tenant("acme").await;
    let _cold = server.tenant("cold").await;
    let (kept, revoked) = (tenant.app_key("kept", &["tokens:introspect"]).await, tenant.app_key("revoked", &SCOPES).await);
    let admin = tenant.admin().await;
    let jwks = tenant.path("/.well-known/jwks.json");
    let (mut kept_token, mut revoked_token) = (String::new(), String::new());
    for _ in 0..2 {
        kept_token = server.with(&kept.pair()).token().await;
        revoked_token = server.with(&revoked.pair()).token().await;
        assert_eq!(server.with(&admin.basic()).get("/v1/keys").await.status, StatusCode::OK);
        assert_eq!(server.anonymous().get(&jwks).await.status, StatusCode::OK);
    }
    assert_eq!(server.anonymous().get("/readyz").await.status, StatusCode::OK);

    let name = database_name(&server);
    let mut superuser = server.database.superuser().await;
    let elsewhere: PgConnectOptions = std::env::var("DATABASE_URL").unwrap().parse().unwrap();
    let mut elsewhere = elsewhere.connect().await.unwrap();
    run(&mut elsewhere, &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS false")).await;
    end_connections(&mut superuser, "true").await;
    let cut = Instant::now();
    // Unheard by the server.
    let revoke = format!("UPDATE api_keys SET revoked_at = now(), revoked_by = 'operator:test' WHERE id = '{}'", revoked.id);
    run(&mut superuser, &revoke).await;
    let recorded = count(&mut superuser, "SELECT count(*) FROM issued_tokens").await;

    let unknown = Key { id: "legacy.nobody".into(), secret: "a-secret-from-elsewhere".into(), owner: kept.owner };
    let mut slowest = Duration::ZERO;
    while cut.elapsed() < Duration::from_secs(8) {
        let sent = cut.elapsed();
        assert_unknown("exchange", &exchange(&server, &kept).await);
        slowest = slowest.max(cut.elapsed() - sent);
        assert_unknown("exchange of a key revoked meanwhile", &exchange(&server, &revoked).await);
        assert_unknown("exchange of an unknown key", &exchange(&server, &unknown).await);
        assert_unknown("introspection", &server.with(&kept.basic()).introspect("/v1/introspect", &kept_token).await);
        let order = json!({ "name": "new" });
        assert_unknown("a deed", &server.with(&admin.basic()).post("/v1/applications", order).await);
        let sent = cut.elapsed();
        let answer = me(&server, &revoked_token).await;
        match sent < Duration::from_secs(5) {
            // For a moment memory is trusted. It cannot know what was revoked meanwhile.
            true if answer.status == StatusCode::OK => {}
            _ => assert_unknown("a token revoked meanwhile", &answer),
        }
        assert_eq!(server.anonymous().get("/healthz").await.status, StatusCode::OK);
        let ready = server.anonymous().get("/readyz").await;
        assert_eq!((ready.status, ready.error().as_str()), (StatusCode::SERVICE_UNAVAILABLE, "not_ready"));
        let cold = server.anonymous().get("/t/cold/.well-known/jwks.json").await;
        assert_unknown("the keys of a tenant that is not in memory", &cold);
        let warm = server.anonymous().get(&jwks).await;
        if warm.status != StatusCode::OK {
            assert_unknown("the keys of a tenant that was in memory", &warm);
        }
    }
    println!("without a database, the slowest answer to an exchange took {} ms", slowest.as_millis());
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    assert_eq!(count(&mut superuser, "SELECT count(*) FROM issued_tokens").await, recorded);

    run(&mut elsewhere, &format!("ALTER DATABASE {name} ALLOW_CONNECTIONS true")).await;
    let back = until("ready", &server, None, (Method::GET, "/readyz"), StatusCode::OK).await;
    let exchanges = (Method::POST, "/v1/authentications");
    let works = until("exchange", &server, Some(&kept.pair()), exchanges.clone(), StatusCode::CREATED).await;
    println!("after the database came back: ready in {} ms, exchanges {} ms later", back.as_millis(), works.as_millis());
    for _ in 0..5 {
        assert_eq!(exchange(&server, &revoked).await.status, StatusCode::NOT_FOUND);
        assert_eq!(me(&server, &revoked_token).await.status, StatusCode::UNAUTHORIZED);
        assert_eq!(me(&server, &kept_token).await.status, StatusCode::OK);
    }
    assert_record_is_whole(&server, &tenant, &mut superuser).await;

    // It listens again, and hears.
    let listening = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND query ILIKE 'LISTEN%'";
    let began = Instant::now();
    while count(&mut superuser, listening).await == 0 {
        assert!(began.elapsed() < Duration::from_secs(20), "nobody listens any more");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let disable = format!("UPDATE api_keys SET disabled_at = now(), disabled_by = 'operator:test' WHERE id = '{}'", kept.id);
    run(&mut superuser, &disable).await;
    let heard = until("disabled", &server, Some(&kept.pair()), exchanges, StatusCode::NOT_FOUND).await;
    println!("a switch thrown afterwards bit in {} ms", heard.as_millis());
    assert!(heard < Duration::from_secs(8), "{heard:?}");
}

#[actix_web::test]
async fn a_record_that_waits_for_another_is_a_503_in_bounded_time_and_no_token_leaves_without_it() {
    let server = Server::start_with(options(true)).await;
    let tenant = server.tenant("acme").await;
    let key = tenant.app_key("app", &SCOPES).await;
    server.with(&key.pair()).token().await;
    let mut superuser = server.database.superuser().await;
    run(&mut superuser, "BEGIN; LOCK TABLE audit_heads IN ACCESS EXCLUSIVE MODE").await;
    let began = Instant::now();
    let answers = join_all((0..4).map(|_| exchange(&server, &key))).await;
    let took = began.elapsed();
    for answer in &answers {
        assert_unknown("exchange", answer);
    }
    println!("exchanges whose record was blocked were answered in {} ms", took.as_millis());
    assert!(took < Duration::from_secs(15), "{took:?}");
    run(&mut superuser, "COMMIT").await;
    until("exchange", &server, Some(&key.pair()), (Method::POST, "/v1/authentications"), StatusCode::CREATED).await;
    assert_record_is_whole(&server, &tenant, &mut superuser).await;
}

/// A replica with a login of its own, which can be cut off alone, perhaps over a cable.
async fn replica_as(server: &Server, login: &str, cable: Option<&Cable>) -> Server {
    let mut application = url::Url::parse(&server.database.url()).unwrap();
    if let Some(cable) = cable {
        application = format!("postgres://127.0.0.1:{}/{}", cable.port, database_name(server)).parse().unwrap();
    }
    application.set_username(login).unwrap();
    application.set_password(Some("test")).unwrap();
    let urls = DatabaseUrls::parse(application.as_str(), Some(&server.database.url())).unwrap();
    let open = Open {
        store: Store::connect(&urls, 8).await.unwrap(),
        master_key: server.master_key.clone(),
        settings: server.issuer.settings().clone(),
        clock: Clock::System,
        random: Random::from_system(),
    };
    let issuer = std::sync::Arc::new(Issuer::open(open).await.unwrap());
    issuer.follow_changes(true);
    let settings = server::Settings {
        trusted_proxies: Vec::new(),
        proxy_header: ProxyHeader::XForwardedFor,
        require_https: false,
        hosts: Default::default(),
        workers: 1,
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let running = server::start(issuer.clone(), &settings, listener).unwrap();
    let stopper = running.stopper();
    actix_web::rt::spawn(running.server);
    Server {
        address,
        issuer,
        clock: Clock::System,
        http: server.http.clone(),
        stopper,
        master_key: server.master_key.clone(),
        database: server.database.clone(),
    }
}

/// A way to the database on which packets can vanish: connections stay, and nothing comes through.
struct Cable {
    port: u16,
    intact: watch::Sender<bool>,
    plugged: tokio::task::JoinHandle<()>,
}

impl Cable {
    async fn plug_in() -> Self {
        let database: PgConnectOptions = std::env::var("DATABASE_URL").unwrap().parse().unwrap();
        let (host, port) = (database.get_host().to_owned(), database.get_port());
        let socket = database.get_socket().cloned().or_else(|| host.starts_with('/').then(|| PathBuf::from(&host)));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ours = listener.local_addr().unwrap().port();
        let (intact, watching) = watch::channel(true);
        let plugged = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (socket, host, watching) = (socket.clone(), host.clone(), watching.clone());
                tokio::spawn(async move {
                    match socket {
                        Some(folder) => {
                            let path = folder.join(format!(".s.PGSQL.{port}"));
                            carry(client, tokio::net::UnixStream::connect(path).await.unwrap(), watching).await;
                        }
                        None => carry(client, tokio::net::TcpStream::connect((host, port)).await.unwrap(), watching).await,
                    }
                });
            }
        });
        Self { port: ours, intact, plugged }
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.plugged.abort();
    }
}

async fn carry(client: impl AsyncRead + AsyncWrite, database: impl AsyncRead + AsyncWrite, intact: watch::Receiver<bool>) {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_database, to_database) = tokio::io::split(database);
    tokio::select! {
        () = pass(from_client, to_database, intact.clone()) => {}
        () = pass(from_database, to_client, intact) => {}
    }
}

async fn pass(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin, mut intact: watch::Receiver<bool>) {
    let mut bytes = vec![0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if intact.wait_for(|intact| *intact).await.is_err() || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// A replica beside another, cut off from the database for ten seconds: by connections that end and none that begin, or on a
/// cable where packets vanish.
async fn cut_off(cable: Option<Cable>) {
    let a = Server::start_with(options(true)).await;
    let tenant = a.tenant("acme").await;
    let (kept, revoked) = (tenant.app_key("kept", &MANAGEMENT).await, tenant.app_key("revoked", &SCOPES).await);
    let login = format!("test_login_{}", hex(&Random::from_system().bytes::<8>()));
    let mut superuser = a.database.superuser().await;
    run(&mut superuser, &format!("CREATE ROLE {login} LOGIN PASSWORD 'test' IN ROLE claviger_app")).await;
    let b = replica_as(&a, &login, cable.as_ref()).await;
    let mut token = String::new();
    for server in [&a, &b, &a, &b] {
        server.with(&kept.pair()).token().await;
        token = server.with(&revoked.pair()).token().await;
        assert_eq!(me(server, &token).await.status, StatusCode::OK);
    }

    match &cable {
        Some(cable) => cable.intact.send(false).unwrap(),
        None => {
            run(&mut superuser, &format!("ALTER ROLE {login} NOLOGIN")).await;
            end_connections(&mut superuser, &format!("usename = '{login}'")).await;
        }
    }
    let cut = Instant::now();
    let done = a.with(&kept.basic()).delete(&format!("/v1/keys/{}", revoked.id)).await;
    assert_eq!(done.status, StatusCode::NO_CONTENT, "{}", done.text);
    let (mut still, mut slowest, mut asked_late) = (Duration::ZERO, Duration::ZERO, 0);
    while cut.elapsed() < Duration::from_secs(10) {
        let sent = cut.elapsed();
        let answer = me(&b, &token).await;
        match answer.status {
            StatusCode::OK => {
                assert!(sent < Duration::from_secs(5), "a revoked token was accepted {sent:?} after the cut");
                still = sent;
            }
            _ => assert_unknown("a revoked token", &answer),
        }
        asked_late += u32::from(sent > Duration::from_secs(5));
        let sent = cut.elapsed();
        let order = json!({ "name": "new" });
        let deed = async { b.with(&kept.basic()).post("/v1/applications", order).await };
        let (kept_one, revoked_one, done) = tokio::join!(exchange(&b, &kept), exchange(&b, &revoked), deed);
        slowest = slowest.max(cut.elapsed() - sent);
        assert_unknown("exchange", &kept_one);
        assert_unknown("exchange of a key revoked meanwhile", &revoked_one);
        assert_unknown("a deed", &done);
        assert_eq!(b.anonymous().get("/healthz").await.status, StatusCode::OK);
        // The other one is not bothered.
        assert_eq!(me(&a, &a.with(&kept.pair()).token().await).await.status, StatusCode::OK);
    }
    assert!(asked_late > 0);
    println!("cut off: slowest 503 after {slowest:?}, a revoked token was last accepted {} ms after the cut", still.as_millis());
    // Three seconds are what the record is waited for; the rest is for a busy machine.
    assert!(slowest < Duration::from_secs(6), "{slowest:?}");

    match &cable {
        Some(cable) => cable.intact.send(true).unwrap(),
        None => run(&mut superuser, &format!("ALTER ROLE {login} LOGIN")).await,
    }
    let mended = Instant::now();
    loop {
        let answer = me(&b, &token).await;
        match answer.status {
            StatusCode::UNAUTHORIZED => break,
            _ => assert_unknown("a revoked token after the cut is mended", &answer),
        }
        assert!(mended.elapsed() < Duration::from_secs(30), "it does not come back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    until("exchange", &b, Some(&kept.pair()), (Method::POST, "/v1/authentications"), StatusCode::CREATED).await;
    until("ready", &b, None, (Method::GET, "/readyz"), StatusCode::OK).await;
    println!("mended, the replica works after {} ms", mended.elapsed().as_millis());
    assert_eq!(exchange(&b, &revoked).await.status, StatusCode::NOT_FOUND);
    assert_record_is_whole(&a, &tenant, &mut superuser).await;
    b.stopper.stop(Duration::ZERO).await;
    run(&mut superuser, &format!("ALTER ROLE {login} NOLOGIN")).await;
    end_connections(&mut superuser, &format!("usename = '{login}'")).await;
    run(&mut superuser, &format!("DROP ROLE {login}")).await;
}

#[actix_web::test]
async fn t25_a_replica_that_is_cut_off_accepts_nothing_that_was_revoked_once_five_seconds_have_passed() {
    cut_off(None).await;
}

#[actix_web::test]
async fn t25_a_replica_whose_packets_vanish_answers_503_in_time_and_comes_back_by_itself() {
    cut_off(Some(Cable::plug_in().await)).await;
}

#[actix_web::test]
async fn a_login_at_one_server_is_refreshed_at_another_and_ended_at_a_third() {
    const PASSWORD: &str = "a long enough passphrase";
    let a = Server::start_with(options(true)).await;
    let (b, c) = (a.replica(options(true)).await, a.replica(options(true)).await);
    let tenant = a.tenant("acme").await;
    tenant.user("alice", Some(PASSWORD)).await;
    let first = tenant.log_in("alice", PASSWORD).await;
    let refresh = async |server: &Server, tokens: &Value| {
        server.anonymous().post("/v1/token/refresh", json!({ "refresh_token": tokens["refresh_token"] })).await
    };
    let second = refresh(&b, &first).await;
    assert_eq!(second.status, StatusCode::OK, "{}", second.text);
    // A lost answer is given again by whichever server is asked.
    let again = refresh(&c, &first).await;
    assert_eq!((again.status, again.json()), (StatusCode::OK, second.json()));
    let second = second.json();
    let third = refresh(&c, &second).await;
    assert_eq!(third.status, StatusCode::OK, "{}", third.text);
    let third = third.json();
    let access = third["access_token"].as_str().unwrap();
    for server in [&a, &b, &c] {
        assert_eq!(me(server, access).await.status, StatusCode::OK);
    }
    let ended = c.with(&format!("Bearer {access}")).post_empty(&tenant.path("/v1/logout")).await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT, "{}", ended.text);
    let thrown = Instant::now();
    // What is decided under the family's lock is so everywhere at once.
    for server in [&a, &b, &c] {
        let refused = refresh(server, &third).await;
        assert_eq!((refused.status, refused.error().as_str()), (StatusCode::UNAUTHORIZED, "invalid_grant"));
    }
    for server in [&a, &b, &c] {
        while me(server, access).await.status != StatusCode::UNAUTHORIZED {
            assert!(thrown.elapsed() < Duration::from_secs(8), "a login that was ended elsewhere is still good");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    // A browser is signed in at all of them, wherever it signed in and out.
    let browser = Browser::signed_in(&tenant, "alice", PASSWORD).await;
    for server in [&b, &c, &a] {
        assert_eq!(browser.sent_to(server).me().await.status, StatusCode::OK);
    }
    let mut leaving = browser.sent_to(&b);
    let csrf = leaving.sent_to(&c).token_of("/account").await;
    let left = leaving.submit("/logout", &[("csrf", &csrf)]).await;
    assert!(left.status == StatusCode::OK && leaving.cookie("session").is_none(), "{}", left.text);
    for server in [&a, &b, &c] {
        assert_eq!(browser.sent_to(server).me().await.status, StatusCode::UNAUTHORIZED, "the cookie of an ended session");
    }
}
