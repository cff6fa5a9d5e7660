//! What is tortured: four servers on one Postgres, their tenants and people, and the proxies in between.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rand::Rng as _;
use serde_json::{Value, json};
use sqlx::Connection as _;
use tempfile::TempDir;

use crate::client::{Client, Door, Network, Person};
use crate::cluster::Cluster;
use crate::database_proxy::DatabaseProxy;
use crate::history::History;
use crate::http::request;
use crate::plan::{Part, stream};
use crate::proxy::Proxy;
use crate::server::{Program, Server};

/// Behind these doors, servers talk to Postgres directly.
pub(crate) const DIRECT: [usize; 3] = [0, 1, 2];
/// Behind this one, the server talks to Postgres through a proxy that cuts.
pub(crate) const CUT: usize = 3;

/// Tenants whose window is long enough for every honest retry.
const WIDE: [&str; 2] = ["wide-a", "wide-b"];
/// A tenant whose window is over in a second.
const NARROW: &str = "narrow";
const WIDE_WINDOW: Duration = Duration::from_secs(60);
const NARROW_WINDOW: Duration = Duration::from_secs(1);
/// Of each tenant. Most of them have many families.
const PEOPLE: u32 = 4;

/// Everything that runs. Ends when dropped: first the servers, then Postgres.
pub(crate) struct World {
    pub(crate) network: Arc<Network>,
    pub(crate) servers: Vec<Server>,
    pub(crate) database_proxy: DatabaseProxy,
    pub(crate) program: Program,
    pub(crate) cluster: Cluster,
    seed: u64,
    _folder: TempDir,
}

impl World {
    /// Makes it. What Postgres and the servers log is kept in the folder `log`.
    ///
    /// # Errors
    /// Something does not start.
    pub(crate) async fn start(claviger: &Path, log: &Path, seed: u64, history: Arc<History>) -> anyhow::Result<Self> {
        std::fs::create_dir_all(log)?;
        let cluster = Cluster::start(&log.join(format!("{seed}-postgres.log"))).await?;
        make_database(&cluster).await?;
        let folder = tempfile::Builder::new().prefix("torture-").tempdir()?;
        let database_proxy = DatabaseProxy::start(folder.path(), cluster.folder())?;
        let mut key = [0; 32];
        stream(seed, "master key", 0).fill_bytes(&mut key);
        let program = |database: &Path| Program {
            path: claviger.to_owned(),
            environment: environment(database, &key),
            folder: folder.path().to_owned(),
        };
        let (direct, cut) = (program(cluster.folder()), program(folder.path()));
        direct.run(&["migrate"], "")?;

        let mut servers = Vec::new();
        for name in ["server-1", "server-2", "server-3", "server-cut"] {
            let program = if name == "server-cut" { &cut } else { &direct };
            servers.push(Server::start(name, program, &log.join(format!("{seed}-{name}.log")))?);
        }
        let mut doors = Vec::new();
        for server in &mut servers {
            server.wait_until_ready().await?;
            doors.push(Door::new(Proxy::start(server.address).await?));
        }
        let first = servers.first().context("there is no server")?;
        make_tenants(&direct, first).await?;
        let network = Arc::new(Network { doors, history });
        Ok(Self { network, servers, database_proxy, program: direct, cluster, seed, _folder: folder })
    }

    /// A client of a tenant with a long window, that goes through these doors.
    pub(crate) fn client(&self, part: Part, number: u32, doors: &[usize]) -> Client {
        let tenant = if number.is_multiple_of(2) { WIDE[0] } else { WIDE[1] };
        self.client_of(tenant, WIDE_WINDOW, part, number, doors)
    }

    /// A client of the tenant with a short window.
    pub(crate) fn narrow_client(&self, part: Part, number: u32, doors: &[usize]) -> Client {
        self.client_of(NARROW, NARROW_WINDOW, part, number, doors)
    }

    fn client_of(&self, tenant: &'static str, window: Duration, part: Part, number: u32, doors: &[usize]) -> Client {
        let username = username((number / 2) % PEOPLE);
        let password = password(&username);
        Client {
            network: self.network.clone(),
            part,
            number,
            person: Person { tenant, username, password, window },
            doors: doors.to_vec(),
            random: stream(self.seed, &format!("client of {part}"), number),
            family: 0,
            token: String::new(),
        }
    }
}

fn username(number: u32) -> String {
    format!("person-{number}")
}

fn password(username: &str) -> String {
    format!("tortured since morning, {username} of the rig")
}

/// Roles and database as the manual has them: one login owns the tables, another serves.
pub(crate) async fn make_database(cluster: &Cluster) -> anyhow::Result<()> {
    let mut superuser = cluster.superuser("postgres").await?;
    sqlx::raw_sql(
        "CREATE ROLE claviger_app NOLOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
         CREATE ROLE claviger_owner LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
         CREATE ROLE claviger_login LOGIN NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE IN ROLE claviger_app",
    )
    .execute(&mut superuser)
    .await?;
    sqlx::raw_sql("CREATE DATABASE claviger OWNER claviger_owner").execute(&mut superuser).await?;
    superuser.close().await?;
    // Before Postgres 15, `public` belongs to nobody who could be told.
    let mut superuser = cluster.superuser("claviger").await?;
    sqlx::raw_sql("ALTER SCHEMA public OWNER TO claviger_owner").execute(&mut superuser).await?;
    superuser.close().await?;
    Ok(())
}

/// Settings of every server and command, whose Postgres listens in that folder.
pub(crate) fn environment(database: &Path, key: &[u8; 32]) -> Vec<(String, String)> {
    // In a URL the socket's folder stands where the host would, so its slashes are written %2F.
    let host = database.display().to_string().replace('/', "%2F");
    let url = |login: &str| format!("postgres://{login}@{host}/claviger");
    let settings = [
        ("PATH", std::env::var("PATH").unwrap_or_default()),
        ("DATABASE_URL", url("claviger_login")),
        ("CLAVIGER_MIGRATION_URL", url("claviger_owner")),
        ("CLAVIGER_MASTER_KEY", STANDARD.encode(key)),
        ("CLAVIGER_PUBLIC_URL", "http://torture.test".to_owned()),
        ("CLAVIGER_PRODUCTION", "false".to_owned()),
        // Passwords are not what is tortured.
        ("CLAVIGER_PASSWORD__MEMORY_KIB", "64".to_owned()),
        ("CLAVIGER_PASSWORD__ITERATIONS", "1".to_owned()),
        ("CLAVIGER_LOG", "warn".to_owned()),
        ("CLAVIGER_LOG_FORMAT", "json".to_owned()),
    ];
    settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

async fn make_tenants(program: &Program, server: &Server) -> anyhow::Result<()> {
    program.run(&["tenant", "create", "default"], "")?;
    let made = ["create-key", "--tenant", "default", "--email", "rig@example.com", "--admin", "--output", "json"];
    let made: Value = serde_json::from_str(&program.run(&made, "")?)?;
    let word = |name: &str| made.get(name).and_then(Value::as_str).with_context(|| format!("create-key printed no {name}"));
    let basic = format!("Basic {}", STANDARD.encode(format!("{}:{}", word("api_key")?, word("api_secret")?)));

    let tenants = WIDE.map(|slug| (slug, WIDE_WINDOW)).into_iter().chain([(NARROW, NARROW_WINDOW)]);
    for (slug, window) in tenants {
        let refresh = json!({ "window": window.as_secs(), "idle": 604_800, "absolute": 2_592_000 });
        // Many logins of few people, at the same time and broken off: none of them guesses passwords.
        let throttle = json!({ "failures": 1_000_000, "account": 1_000_000, "address": 1_000_000, "tenant": 1_000_000 });
        let body = json!({ "slug": slug, "settings": { "refresh": refresh, "login_throttle": throttle } });
        let reply = server.ask(&request("POST", "/v1/tenants", Some(&basic), Some(&body))).await?;
        if reply.status != 201 {
            bail!("POST /v1/tenants was answered {}: {}", reply.status, String::from_utf8_lossy(&reply.body));
        }
        for username in (0..PEOPLE).map(username) {
            let add = ["user", "add", "--tenant", slug, "--username", &username, "--password-stdin"];
            program.run(&add, &password(&username))?;
        }
    }
    Ok(())
}
