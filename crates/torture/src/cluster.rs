//! A Postgres of our own, to be killed.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use tempfile::TempDir;
use tokio::time::sleep;

use crate::account::Account;
use crate::process::{kill_family, pid_of, wait_until_gone};

/// How long Postgres may take to accept connections before the run is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// The cluster, running unless it was just killed. When dropped it is stopped and its folder removed.
pub(crate) struct Cluster {
    account: Account,
    postgres: PathBuf,
    child: Option<Child>,
    log: PathBuf,
    folder: TempDir,
}

impl Cluster {
    /// Makes a cluster in a folder of its own and starts it; what it logs is kept in `log`.
    ///
    /// # Errors
    /// There are no Postgres programs, no account to run them, or they fail.
    pub(crate) async fn start(log: &Path) -> anyhow::Result<Self> {
        let account = Account::choose()?;
        let bin = programs()?;
        let folder = folder(account)?;
        let data = folder.path().join("data");
        let made = account
            .command(bin.join("initdb"))
            .args(["-U", "postgres", "--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync", "--no-instructions", "-D"])
            .arg(&data)
            .output()
            .context("cannot run initdb")?;
        if !made.status.success() {
            bail!("initdb failed: {}", String::from_utf8_lossy(&made.stderr));
        }
        // Durability is what is tortured here: fsync and synchronous_commit stay on, as they are by default.
        let settings = format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nmax_connections = 300\nlog_checkpoints = off\n",
            folder.path().display()
        );
        let file = data.join("postgresql.conf");
        let defaults = fs::read_to_string(&file)?;
        fs::write(&file, defaults + &settings)?;
        File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut cluster = Self { account, postgres: bin.join("postgres"), child: None, log: log.to_owned(), folder };
        cluster.run()?;
        cluster.wait_until_it_accepts().await?;
        Ok(cluster)
    }

    /// Where its socket is.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// SIGKILL for all of its processes.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            kill_family(pid_of(&child)?);
            child.wait()?;
        }
        Ok(())
    }

    /// Starts its processes. It accepts connections some time later.
    pub(crate) fn run(&mut self) -> anyhow::Result<()> {
        let log = File::options().append(true).open(&self.log)?;
        let mut command = self.account.command(&self.postgres);
        command.arg("-D").arg(self.folder.path().join("data")).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().context("cannot run postgres")?);
        Ok(())
    }

    /// Waits until it accepts connections.
    pub(crate) async fn wait_until_it_accepts(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            if let Ok(connection) = self.superuser("postgres").await {
                // Whether it says goodbye properly is of no interest.
                let _ = connection.close().await;
                return Ok(());
            }
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().transpose()).transpose()? {
                bail!("postgres ended with {status}; see {}", self.log.display());
            }
            if began.elapsed() > PATIENCE {
                bail!("postgres does not accept connections within {PATIENCE:?}; see {}", self.log.display());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// A connection that stands above all walls.
    pub(crate) async fn superuser(&self, database: &str) -> Result<PgConnection, sqlx::Error> {
        let options = PgConnectOptions::new_without_pgpass().socket(self.folder()).username("postgres").database(database);
        options.application_name("torture").connect().await
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let Ok(pid) = pid_of(&child) else { return };
        // "Immediate": nothing here is worth a checkpoint, but its shared memory shall not stay behind.
        let _ = kill(pid, Signal::SIGQUIT);
        if !wait_until_gone(&[pid], Duration::from_secs(10)) {
            kill_family(pid);
        }
        let _ = child.wait();
    }
}

/// The folder with Postgres' programs, found as the other scripts find it.
fn programs() -> anyhow::Result<PathBuf> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/postgres-bindir");
    let said =
        Command::new(&script).stderr(Stdio::inherit()).output().with_context(|| format!("cannot run {}", script.display()))?;
    let said = String::from_utf8(said.stdout)?;
    match said.trim() {
        "" => bail!("no Postgres server programs found; run scripts/setup"),
        found => Ok(PathBuf::from(found)),
    }
}

/// A folder that the account owns and can reach. A socket's path has room for 107 bytes only.
fn folder(account: Account) -> anyhow::Result<TempDir> {
    for parent in [std::env::temp_dir(), PathBuf::from("/tmp")] {
        let Ok(folder) = tempfile::Builder::new().prefix("torture-pg-").tempdir_in(&parent) else { continue };
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755))?;
        account.own(folder.path())?;
        if folder.path().as_os_str().len() <= 80 && account.reaches(folder.path()) {
            return Ok(folder);
        }
    }
    bail!("no temporary folder that Postgres' account can use")
}

#[cfg(test)]
mod tests {
    use sqlx::PgPool;
    use sqlx::postgres::PgPoolOptions;

    use super::*;
    use crate::database_proxy::{DatabaseProxy, Snip};
    use crate::process::children;

    async fn count(cluster: &Cluster) -> i64 {
        let mut superuser = cluster.superuser("postgres").await.unwrap();
        sqlx::query_scalar("SELECT count(*) FROM refresh_tokens").fetch_one(&mut superuser).await.unwrap()
    }

    async fn run(cluster: &Cluster, statement: &'static str) {
        let mut superuser = cluster.superuser("postgres").await.unwrap();
        sqlx::query(statement).execute(&mut superuser).await.unwrap();
    }

    #[tokio::test]
    async fn a_killed_cluster_is_gone_and_comes_back_with_what_was_committed() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut cluster = Cluster::start(log.path()).await.unwrap();
        run(&cluster, "CREATE TABLE refresh_tokens (id int)").await;
        run(&cluster, "INSERT INTO refresh_tokens VALUES (1)").await;
        let postmaster = pid_of(cluster.child.as_ref().unwrap()).unwrap();
        let others = children(postmaster);
        assert!(!others.is_empty());
        cluster.kill().unwrap();
        assert!(wait_until_gone(&others, Duration::ZERO) && wait_until_gone(&[postmaster], Duration::ZERO));
        assert!(cluster.superuser("postgres").await.is_err());
        cluster.run().unwrap();
        cluster.wait_until_it_accepts().await.unwrap();
        assert_eq!(count(&cluster).await, 1);

        let (folder, postmaster) = (cluster.folder().to_owned(), pid_of(cluster.child.as_ref().unwrap()).unwrap());
        drop(cluster);
        assert!(!folder.exists() && wait_until_gone(&[postmaster], Duration::ZERO));
    }

    /// With the client library of the server itself, whatever messages it sends.
    #[tokio::test]
    async fn a_cut_leaves_the_database_on_the_side_that_was_asked_for() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let cluster = Cluster::start(log.path()).await.unwrap();
        run(&cluster, "CREATE TABLE refresh_tokens (id int)").await;
        let folder = tempfile::tempdir().unwrap();
        let proxy = DatabaseProxy::start(folder.path(), cluster.folder()).unwrap();
        let options = PgConnectOptions::new_without_pgpass().socket(folder.path()).username("postgres").database("postgres");
        let pool: PgPool =
            PgPoolOptions::new().max_connections(2).test_before_acquire(false).connect_with(options).await.unwrap();
        let insert = "INSERT INTO refresh_tokens VALUES ($1)";
        let mut expected = 0;
        // The second round uses the statements that were prepared in the first, on a connection that was not cut.
        for round in 0..2 {
            for (snip, kept) in [(None, 1), (Some(Snip::After), 1), (Some(Snip::Before), 0)] {
                let mut tx = pool.begin().await.unwrap();
                sqlx::query(insert).bind(round).execute(&mut *tx).await.unwrap();
                if let Some(snip) = snip {
                    proxy.scissors.arm(snip);
                }
                assert_eq!(tx.commit().await.is_ok(), snip.is_none(), "{snip:?}");
                assert!(proxy.scissors.put_away());
                expected += kept;
                assert_eq!(count(&cluster).await, expected, "{snip:?}");
            }
            proxy.scissors.arm(Snip::After);
            assert!(sqlx::query(insert).bind(round).execute(&pool).await.is_err());
            assert!(proxy.scissors.put_away());
            expected += 1;
            assert_eq!(count(&cluster).await, expected);
        }
        // What only reads, or comes to nothing, is left alone.
        proxy.scissors.arm(Snip::After);
        sqlx::query("SELECT * FROM refresh_tokens").execute(&pool).await.unwrap();
        let mut tx = pool.begin().await.unwrap();
        sqlx::query(insert).bind(9).execute(&mut *tx).await.unwrap();
        tx.rollback().await.unwrap();
        assert!(!proxy.scissors.put_away());
        assert_eq!(count(&cluster).await, expected);
    }
}
