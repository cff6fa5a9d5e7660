//! The connection to Postgres: two logins, one pool, migrations, readiness.

use std::path::Path;
use std::time::Duration;

use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};

use crate::StoreError;
use crate::private_postgres::PrivatePostgres;

static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// The role that requests run as. It owns nothing.
const APPLICATION_ROLE: &str = "claviger_app";
const OWNER_ROLE: &str = "claviger_owner";

/// How long a busy connection keeps its plans.
const PLANS_LIVE: Duration = Duration::from_secs(20);

/// How to reach the database, as the application and as the owner of the schema.
#[derive(Clone)]
pub struct DatabaseUrls {
    application: PgConnectOptions,
    owner: PgConnectOptions,
    two_logins: bool,
}

impl DatabaseUrls {
    /// `application` is `DATABASE_URL`. Without a `migration` URL the same login migrates, and the server gives up
    /// its rights by taking the role `claviger_app` on every connection.
    pub fn parse(application: &str, migration: Option<&str>) -> Result<Self, StoreError> {
        let application: PgConnectOptions = application.parse()?;
        let owner = match migration {
            Some(url) => url.parse()?,
            None => application.clone(),
        };
        Ok(Self { application, owner, two_logins: migration.is_some() })
    }
}

/// The state of the connections.
#[derive(Debug, Clone, Copy)]
pub struct Connections {
    /// Open and at nobody's service.
    pub idle: u32,
    /// At somebody's service.
    pub in_use: u32,
    /// That may be open.
    pub most: u32,
}

/// The database.
#[derive(Clone)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// Brings the schema to this program's version. Safe to run from several replicas at once.
    pub async fn migrate(urls: &DatabaseUrls) -> Result<(), StoreError> {
        let mut owner = urls.owner.clone().log_statements(tracing::log::LevelFilter::Trace).connect().await?;
        sqlx::raw_sql("SET lock_timeout = '5s'").execute(&mut owner).await?;
        let outcome = MIGRATOR.run(&mut owner).await;
        owner.close().await?;
        Ok(outcome?)
    }

    /// As [`Store::migrate`], unless the application's login finds the schema at this program's version: so a replica
    /// needs the owner's login only when there is something to migrate.
    pub async fn migrate_if_behind(urls: &DatabaseUrls) -> Result<(), StoreError> {
        if let Ok(store) = Self::connect(urls, 1).await {
            let current = store.check().await;
            store.close().await;
            match current {
                Ok(()) => return Ok(()),
                Err(error @ StoreError::SchemaContracted { .. }) => return Err(error),
                Err(_) => {}
            }
        }
        Self::migrate(urls).await
    }

    /// Connects as the application, with at most `connections` connections, and makes sure that the login cannot
    /// step over the tenant wall.
    pub async fn connect(urls: &DatabaseUrls, connections: u32) -> Result<Self, StoreError> {
        let options = urls
            .application
            .clone()
            .options([("role", APPLICATION_ROLE)])
            .application_name("claviger")
            .log_statements(tracing::log::LevelFilter::Trace)
            .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(1));
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .min_connections(1)
            // Longer than any request waits (see `begin_aside`).
            .acquire_timeout(Duration::from_secs(5))
            .idle_timeout(Duration::from_secs(300))
            .max_lifetime(Duration::from_secs(1800))
            .test_before_acquire(false)
            .after_connect(|connection, _| {
                Box::pin(async move {
                    sqlx::raw_sql(
                        "SET statement_timeout = '2500ms'; SET lock_timeout = '2s'; \
                         SET idle_in_transaction_session_timeout = '10s'; \
                         SELECT set_config('synchronous_commit', 'on', false) \
                          WHERE current_setting('synchronous_commit') = 'off'",
                    )
                    .execute(connection)
                    .await?;
                    Ok(())
                })
            })
            .connect_with(options)
            .await?;
        let store = Self { pool };
        store.refuse_strong_role(urls.two_logins).await?;
        Ok(store)
    }

    /// How many connections there are for requests. Those of work aside are not counted.
    #[must_use]
    pub fn connections(&self) -> Connections {
        let (open, idle) = (self.pool.size(), u32::try_from(self.pool.num_idle()).unwrap_or(u32::MAX));
        Connections { idle, in_use: open.saturating_sub(idle), most: self.pool.options().get_max_connections() }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// The same database over a few connections of its own, opened when they are first needed: for work that must not
    /// wait behind requests.
    #[must_use]
    pub fn aside<const N: usize>(&self, connections: u32, settings: [(&str, &str); N]) -> Self {
        let pool = self.pool.options().clone().min_connections(0).max_connections(connections);
        let connection = (*self.pool.connect_options()).clone().options(settings);
        Self { pool: pool.connect_lazy_with(connection) }
    }

    /// As [`Store::aside`], for busy statements on tables that grow: each is planned once a connection, and a connection
    /// lives for seconds. A plan that was made while a partition was empty reads all of it, however long it has become.
    #[must_use]
    pub fn aside_replanned(&self, connections: u32) -> Self {
        let pool = self.pool.options().clone().min_connections(0).max_connections(connections).max_lifetime(PLANS_LIVE);
        let connection = (*self.pool.connect_options()).clone().options([("plan_cache_mode", "force_generic_plan")]);
        Self { pool: pool.connect_lazy_with(connection) }
    }

    /// Closes every connection.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// The role must neither own tables nor bypass row-level security. With two logins, the one behind the role must
    /// not either, nor any role that it can become, because a connection can always return to its login.
    async fn refuse_strong_role(&self, two_logins: bool) -> Result<(), StoreError> {
        let found = sqlx::query!(
            r#"SELECT bool_or(rolsuper) AS "superuser!",
                      bool_or(rolbypassrls) AS "bypass!",
                      bool_or(EXISTS (SELECT FROM pg_class c
                                       WHERE c.relname = 'tenants' AND c.relowner = r.oid)) AS "owner!"
                 FROM pg_roles r
                WHERE rolname = current_user OR ($1 AND pg_has_role(session_user, r.oid, 'MEMBER'))"#,
            two_logins
        )
        .fetch_one(&self.pool)
        .await?;
        match (found.superuser, found.bypass, found.owner) {
            (true, _, _) => Err(StoreError::RoleTooStrong { why: "it is a superuser" }),
            (_, true, _) => Err(StoreError::RoleTooStrong { why: "it has BYPASSRLS" }),
            (_, _, true) => Err(StoreError::RoleTooStrong { why: "it owns the tables" }),
            (false, false, false) => Ok(()),
        }
    }

    /// Answers when the database does, and its schema is one that this program can serve.
    pub async fn check(&self) -> Result<(), StoreError> {
        // Not checked at compile time: the table is the migrator's own, and not among our migrations.
        let applied = sqlx::query_as("SELECT version, description FROM _sqlx_migrations WHERE success ORDER BY version")
            .fetch_all(&self.pool)
            .await;
        let applied: Vec<(i64, String)> = match applied {
            // There is no such table: nobody ever migrated this database.
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("42P01") => Vec::new(),
            applied => applied?,
        };
        suits(MIGRATOR.iter().map(|migration| migration.version).max().unwrap_or(0), &applied)
    }

    /// The database's clock, to be compared with our own.
    pub async fn database_time(&self) -> Result<chrono::DateTime<chrono::Utc>, StoreError> {
        Ok(sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(&self.pool).await?)
    }
}

/// Whether a program whose newest migration is `ours` can serve a schema to which these were applied. A newer schema is
/// fine, until it removes what this program still reads: see migrations/README.md.
fn suits(ours: i64, applied: &[(i64, String)]) -> Result<(), StoreError> {
    let found = applied.iter().map(|(version, _)| *version).max().unwrap_or(0);
    if found < ours {
        return Err(StoreError::SchemaVersion { found, wanted: ours });
    }
    let unknown = applied.iter().filter(|(version, _)| *version > ours);
    let needed = unknown.filter_map(|(version, name)| contracts_since(*version, name)).max();
    match needed.filter(|needed| *needed > ours) {
        Some(needed) => Err(StoreError::SchemaContracted { found, needed, ours }),
        None => Ok(()),
    }
}

/// The migration that programs must know to live with this one: `passwords contract since 0028` needs 28. `None` for one
/// that only adds.
fn contracts_since(version: i64, name: &str) -> Option<i64> {
    let mut words = name.split(' ').skip_while(|word| *word != "contract");
    words.next()?;
    let since = words.next().filter(|word| *word == "since").and_then(|_| words.next()?.parse().ok());
    // One that does not say it suits nobody who does not know it.
    Some(since.unwrap_or(version))
}

/// Makes the owner, the application's login and the database within a private cluster, unless they exist.
pub async fn prepare_private_cluster(cluster: &PrivatePostgres) -> Result<DatabaseUrls, StoreError> {
    let superuser = private_login(cluster.socket_dir(), cluster.port(), cluster.superuser(), "postgres");
    let mut connection = superuser.connect().await?;
    for role in [OWNER_ROLE, APPLICATION_ROLE] {
        let known = sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1) AS "known!""#, role)
            .fetch_one(&mut connection)
            .await?;
        if !known {
            create(&mut connection, format!("CREATE ROLE {role} LOGIN NOSUPERUSER NOBYPASSRLS")).await?;
        }
    }
    let known = sqlx::query_scalar!(r#"SELECT EXISTS (SELECT FROM pg_database WHERE datname = 'claviger') AS "known!""#)
        .fetch_one(&mut connection)
        .await?;
    if !known {
        create(&mut connection, format!("CREATE DATABASE claviger OWNER {OWNER_ROLE}")).await?;
    }
    connection.close().await?;
    if !known {
        // Before Postgres 15 everybody may create in `public`; nobody but the owner shall.
        let database = private_login(cluster.socket_dir(), cluster.port(), cluster.superuser(), "claviger");
        let mut connection = database.connect().await?;
        let statement = format!("ALTER SCHEMA public OWNER TO {OWNER_ROLE}; REVOKE CREATE ON SCHEMA public FROM PUBLIC");
        sqlx::raw_sql(AssertSqlSafe(statement)).execute(&mut connection).await?;
        connection.close().await?;
    }
    let login = |role| private_login(cluster.socket_dir(), cluster.port(), role, "claviger");
    Ok(DatabaseUrls { application: login(APPLICATION_ROLE), owner: login(OWNER_ROLE), two_logins: true })
}

/// Runs a `CREATE` whose names are constants of this file. Two commands that start at once may both create: the
/// second finds it done.
async fn create(connection: &mut PgConnection, statement: String) -> Result<(), StoreError> {
    match sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(error)) if matches!(error.code().as_deref(), Some("42710" | "42P04" | "23505")) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

fn private_login(socket_dir: &Path, port: u16, role: &str, database: &str) -> PgConnectOptions {
    PgConnectOptions::new_without_pgpass()
        .socket(socket_dir)
        .port(port)
        .username(role)
        .database(database)
        .log_statements(tracing::log::LevelFilter::Trace)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(names: &[(i64, &str)]) -> Vec<(i64, String)> {
        names.iter().map(|(version, name)| (*version, (*name).to_owned())).collect()
    }

    #[test]
    fn a_newer_schema_is_served_until_it_removes_what_we_read() {
        let ours = 26;
        assert!(matches!(suits(ours, &[]), Err(StoreError::SchemaVersion { found: 0, wanted: 26 })));
        assert!(matches!(suits(ours, &applied(&[(25, "a")])), Err(StoreError::SchemaVersion { found: 25, .. })));
        assert!(suits(ours, &applied(&[(26, "a")])).is_ok());
        assert!(suits(ours, &applied(&[(26, "a"), (27, "b"), (28, "contracts of work")])).is_ok());
        // Removed is what a program that knows 26 no longer reads.
        assert!(suits(ours, &applied(&[(26, "a"), (31, "passwords contract since 0026")])).is_ok());
        let contracted = suits(ours, &applied(&[(26, "a"), (31, "passwords contract since 0028"), (32, "b")]));
        assert!(matches!(contracted, Err(StoreError::SchemaContracted { found: 32, needed: 28, ours: 26 })));
        // One that does not say since when.
        assert!(suits(ours, &applied(&[(26, "a"), (31, "passwords contract")])).is_err());
        // One that we know ourselves.
        assert!(suits(ours, &applied(&[(26, "passwords contract since 0026")])).is_ok());
    }

    #[test]
    fn a_migration_that_removes_says_in_its_name_who_can_live_with_it() {
        for migration in MIGRATOR.iter() {
            let removes = migration.sql.as_str().lines().any(|line| {
                line.starts_with("DROP TABLE") || ["DROP COLUMN", "RENAME "].iter().any(|words| line.contains(words))
            });
            let said = contracts_since(migration.version, &migration.description);
            let since = migration.description.rsplit(' ').next().and_then(|word| word.parse::<i64>().ok());
            assert!(!removes || said.is_some() && said == since, "{}: see migrations/README.md", migration.description);
        }
    }
}
