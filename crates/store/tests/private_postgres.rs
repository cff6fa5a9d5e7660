//! The private Postgres against the real server programs: it starts, is shared, ends, and comes back after every way
//! of dying.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::disallowed_methods,
    reason = "a test fails by panicking, and waits for other processes by sleeping"
)]

use std::fs::{self, Permissions};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use claviger_store::private_postgres::{PostgresError, PrivatePostgres};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use tempfile::TempDir;

const HOLD: &str = "CLAVIGER_TEST_HOLD";

/// A data directory that the account which runs Postgres can reach.
fn data_dir() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), Permissions::from_mode(0o755)).unwrap();
    directory
}

fn open(data_dir: &Path) -> PrivatePostgres {
    PrivatePostgres::open(data_dir, None).unwrap()
}

/// What one statement answers.
fn sql(cluster: &PrivatePostgres, statement: &str) -> String {
    let output = Command::new("psql")
        .arg("-h")
        .arg(cluster.socket_dir())
        .args(["-p", &cluster.port().to_string(), "-U", cluster.superuser()])
        .args(["-XAtq", "-v", "ON_ERROR_STOP=1", "-c", statement, "postgres"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn pid_file(data_dir: &Path) -> PathBuf {
    data_dir.join("postgres/data/postmaster.pid")
}

fn postmaster(data_dir: &Path) -> Pid {
    let content = fs::read_to_string(pid_file(data_dir)).unwrap();
    Pid::from_raw(content.lines().next().unwrap().parse().unwrap())
}

/// The state letter and the parent, from `/proc`.
fn process(pid: Pid) -> Option<(String, Pid)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    let mut fields = rest.split(' ');
    let state = fields.next()?.to_owned();
    Some((state, Pid::from_raw(fields.next()?.parse().ok()?)))
}

fn is_gone(pid: Pid) -> bool {
    process(pid).is_none_or(|(state, _)| state == "Z")
}

fn wait_until(what: &str, limit: Duration, mut done: impl FnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !done() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(20));
    }
    began.elapsed()
}

/// The processes whose command line contains `text`.
fn processes_with(text: &str) -> Vec<Pid> {
    fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(text)))
        .map(Pid::from_raw)
        .filter(|pid| *pid != Pid::this())
        .collect()
}

/// The supervisor and the watcher of a cluster.
fn supervisors(data_dir: &Path) -> Vec<Pid> {
    let server = postmaster(data_dir);
    processes_with(data_dir.join("postgres").canonicalize().unwrap().join("users.lock").to_str().unwrap())
        .into_iter()
        .filter(|pid| *pid != server)
        .collect()
}

fn kill_hard(pid: Pid) {
    let _ = kill(pid, Signal::SIGKILL);
}

/// Another process that holds a share; killed when the test ends.
struct Holder(Child);

impl Holder {
    fn start(data_dir: &Path) -> Self {
        let mut holder = Self::launch(data_dir);
        let mut said = BufReader::new(holder.0.stdout.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains("holding")), "the holder did not open the cluster");
        holder
    }

    /// Does not wait until the cluster is open.
    fn launch(data_dir: &Path) -> Self {
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "holder", "--nocapture"])
            .env(HOLD, data_dir)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test of its own: what [`Holder`] runs.
#[test]
fn holder() {
    let Some(data_dir) = std::env::var_os(HOLD) else {
        return;
    };
    let _cluster = open(Path::new(&data_dir));
    println!("\nholding");
    thread::sleep(Duration::from_secs(60));
}

#[test]
fn starts_keeps_the_data_over_a_restart_and_stops() {
    let dir = data_dir();
    let began = Instant::now();
    let cluster = open(dir.path());
    println!("fresh start: {:?}", began.elapsed());
    let server = postmaster(dir.path());
    sql(&cluster, "CREATE TABLE kept (word text); INSERT INTO kept VALUES ('clavis')");
    assert_eq!(sql(&cluster, "SHOW listen_addresses"), "");
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        assert_eq!(sql(&cluster, &format!("SHOW {setting}")), "on", "{setting}");
    }
    assert_eq!(sql(&cluster, "SHOW server_encoding"), "UTF8");
    let run = fs::metadata(cluster.socket_dir()).unwrap();
    assert_eq!(run.mode() & 0o777, 0o700);
    assert!(run.uid() != 0);
    let watching = supervisors(dir.path());
    assert!(!watching.is_empty());
    let began = Instant::now();
    cluster.close();
    println!("stop: {:?}", began.elapsed());
    assert!(is_gone(server));
    assert!(!pid_file(dir.path()).exists());
    wait_until("supervisor and watcher end", Duration::from_secs(2), || watching.iter().all(|pid| is_gone(*pid)));

    let began = Instant::now();
    let cluster = open(dir.path());
    println!("start of an existing cluster: {:?}", began.elapsed());
    assert_eq!(sql(&cluster, "SELECT word FROM kept"), "clavis");
    drop(cluster);
    assert!(!pid_file(dir.path()).exists(), "dropping stops it, too");
}

#[test]
fn the_second_joins_and_its_leaving_stops_nothing() {
    let dir = data_dir();
    let mut server = Holder::start(dir.path());
    let running = postmaster(dir.path());
    let began = Instant::now();
    let command = open(dir.path());
    println!("join: {:?}", began.elapsed());
    assert_eq!(postmaster(dir.path()), running);
    assert_eq!(sql(&command, "SELECT 1"), "1");
    let began = Instant::now();
    command.close();
    println!("leave: {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(1));
    assert!(!is_gone(running));

    let command = open(dir.path());
    server.kill();
    thread::sleep(Duration::from_millis(500));
    assert_eq!(sql(&command, "SELECT 1"), "1", "the command outlives the server and keeps the cluster");
    command.close();
    assert!(is_gone(running));
}

#[test]
fn many_at_once_start_one_server() {
    let dir = data_dir();
    let others = [Holder::launch(dir.path()), Holder::launch(dir.path())];
    let clusters: Vec<_> = thread::scope(|scope| {
        let threads: Vec<_> = (0..3).map(|_| scope.spawn(|| open(dir.path()))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let started: std::collections::BTreeSet<_> =
        clusters.iter().map(|cluster| sql(cluster, "SELECT pg_postmaster_start_time()")).collect();
    assert_eq!(started.len(), 1);
    let server = postmaster(dir.path());
    drop(others);
    thread::scope(|scope| {
        for cluster in clusters {
            scope.spawn(move || cluster.close());
        }
    });
    wait_until("the server ends", Duration::from_secs(5), || is_gone(server));
}

#[test]
fn opening_and_closing_in_turns_never_meets_a_dead_server() {
    let dir = data_dir();
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..6 {
                    let cluster = open(dir.path());
                    assert_eq!(sql(&cluster, "SELECT 1"), "1");
                    cluster.close();
                }
            });
        }
    });
    assert!(!pid_file(dir.path()).exists());
}

#[test]
fn a_killed_holder_takes_the_server_along() {
    let dir = data_dir();
    let mut holder = Holder::start(dir.path());
    let server = postmaster(dir.path());
    holder.kill();
    let took = wait_until("the server ends", Duration::from_secs(5), || is_gone(server));
    println!("ended after kill -9 of the holder: {took:?}");
    let log = fs::read_to_string(dir.path().join("postgres/log/postgres.log")).unwrap();
    assert!(log.contains("database system is shut down"), "a clean shutdown: {log}");
    let cluster = open(dir.path());
    assert_eq!(sql(&cluster, "SELECT 1"), "1");
}

#[test]
fn opening_right_after_a_kill_works() {
    let dir = data_dir();
    for pause in [0, 5, 20, 60, 150] {
        let mut holder = Holder::start(dir.path());
        holder.kill();
        thread::sleep(Duration::from_millis(pause));
        let cluster = open(dir.path());
        assert_eq!(sql(&cluster, "SELECT 1"), "1");
        cluster.close();
    }
}

#[test]
fn an_orphaned_server_is_adopted() {
    let dir = data_dir();
    let mut holder = Holder::start(dir.path());
    let server = postmaster(dir.path());
    for pid in supervisors(dir.path()) {
        kill_hard(pid);
    }
    holder.kill();
    thread::sleep(Duration::from_millis(500));
    assert!(!is_gone(server), "nobody was left to stop it");

    let mut next = Holder::start(dir.path());
    assert_eq!(postmaster(dir.path()), server);
    assert!(!supervisors(dir.path()).is_empty(), "it is watched over again");
    next.kill();
    wait_until("the server ends", Duration::from_secs(5), || is_gone(server));
    open(dir.path()).close();
}

#[test]
fn a_server_that_lost_its_watcher_is_stopped_by_the_last_user() {
    let dir = data_dir();
    let cluster = open(dir.path());
    let server = postmaster(dir.path());
    for pid in supervisors(dir.path()) {
        kill_hard(pid);
    }
    cluster.close();
    assert!(is_gone(server));
}

#[test]
fn an_orphaned_server_that_does_not_answer_is_replaced() {
    let dir = data_dir();
    let mut holder = Holder::start(dir.path());
    let server = postmaster(dir.path());
    for pid in supervisors(dir.path()) {
        kill_hard(pid);
    }
    holder.kill();
    // Its socket is gone, so nobody can reach it any more.
    fs::remove_file(dir.path().join("postgres/run/.s.PGSQL.5432")).unwrap();
    let cluster = open(dir.path());
    assert!(is_gone(server));
    assert_eq!(sql(&cluster, "SELECT 1"), "1");
}

#[test]
fn everything_killed_at_once_is_recovered_from() {
    let dir = data_dir();
    let mut holder = Holder::start(dir.path());
    let cluster = open(dir.path());
    sql(&cluster, "CREATE TABLE kept AS SELECT generate_series(1, 1000) AS number");
    let server = postmaster(dir.path());
    for pid in supervisors(dir.path()) {
        kill_hard(pid);
    }
    kill_hard(server);
    holder.kill();
    drop(cluster);
    let cluster = open(dir.path());
    assert_ne!(postmaster(dir.path()), server);
    assert_eq!(sql(&cluster, "SELECT count(*) FROM kept"), "1000");
}

#[test]
fn a_crashed_server_is_replaced_while_users_remain() {
    let dir = data_dir();
    let first = open(dir.path());
    let server = postmaster(dir.path());
    kill_hard(server);
    let second = open(dir.path());
    assert_ne!(postmaster(dir.path()), server);
    assert_eq!(sql(&second, "SELECT 1"), "1");
    second.close();
    assert_eq!(sql(&first, "SELECT 1"), "1", "the first still holds a share in the new server");
    let server = postmaster(dir.path());
    first.close();
    assert!(is_gone(server));
}

#[test]
fn a_pid_file_that_names_a_foreign_process_is_removed() {
    let dir = data_dir();
    open(dir.path()).close();
    let mut foreign = Command::new("sleep").arg("60").spawn().unwrap();
    let data = dir.path().join("postgres/data").canonicalize().unwrap();
    let run = dir.path().join("postgres/run").canonicalize().unwrap();
    let pid = foreign.id();
    let content = format!("{pid}\n{}\n1700000000\n5432\n{}\n\n  1234567   7\nready   \n", data.display(), run.display());
    fs::write(pid_file(dir.path()), content).unwrap();
    fs::write(run.join(".s.PGSQL.5432.lock"), format!("{pid}\n")).unwrap();
    fs::write(run.join(".s.PGSQL.5432"), "").unwrap();
    let cluster = open(dir.path());
    assert_eq!(sql(&cluster, "SELECT 1"), "1");
    assert!(foreign.try_wait().unwrap().is_none(), "the foreign process was left alone");
    foreign.kill().unwrap();
    foreign.wait().unwrap();
}

#[test]
fn an_unfinished_initdb_is_begun_anew() {
    let dir = data_dir();
    let mut holder = Holder::launch(dir.path());
    wait_until("initdb is at work", Duration::from_secs(10), || dir.path().join("postgres/data.init/base").exists());
    holder.kill();
    assert!(!dir.path().join("postgres/data").exists());
    let cluster = open(dir.path());
    assert_eq!(sql(&cluster, "SELECT 1"), "1");
    cluster.close();
    assert!(!dir.path().join("postgres/data.init").exists());

    // A machine that went down leaves the directory and no process.
    let dir = data_dir();
    fs::create_dir_all(dir.path().join("postgres/data.init/base")).unwrap();
    if geteuid().is_root() {
        fs::set_permissions(dir.path().join("postgres"), Permissions::from_mode(0o711)).unwrap();
    }
    fs::write(dir.path().join("postgres/data.init/PG_VERSION"), "15\n").unwrap();
    open(dir.path()).close();
}

#[test]
fn root_keeps_the_cluster_where_the_account_can_reach_it() {
    if !geteuid().is_root() {
        return;
    }
    let private = tempfile::tempdir().unwrap();
    fs::set_permissions(private.path(), Permissions::from_mode(0o700)).unwrap();
    let data_dir = private.path().join("claviger");
    let cluster = open(&data_dir);
    let target = fs::read_link(data_dir.join("postgres")).unwrap();
    assert!(target.starts_with("/var/lib/claviger"), "{}", target.display());
    sql(&cluster, "CREATE TABLE kept ()");
    cluster.close();
    let cluster = open(&data_dir);
    sql(&cluster, "SELECT FROM kept");
    cluster.close();
    fs::remove_dir_all(&target).unwrap();
    let refused = PrivatePostgres::open(&data_dir, None).unwrap_err();
    assert!(matches!(refused, PostgresError::Dangling { .. }), "{refused}");
}

#[test]
fn a_path_too_long_for_a_socket_gets_a_short_one() {
    let dir = data_dir();
    let long = dir.path().join("d".repeat(120));
    let cluster = open(&long);
    let socket_dir = cluster.socket_dir().to_path_buf();
    assert!(socket_dir.starts_with("/tmp"), "{}", socket_dir.display());
    assert_eq!(fs::metadata(&socket_dir).unwrap().mode() & 0o777, 0o700);
    let second = open(&long);
    assert_eq!(second.socket_dir(), socket_dir);
    assert_eq!(sql(&second, "SELECT 1"), "1");
    second.close();
    cluster.close();
    assert!(!socket_dir.exists());

    let mut holder = Holder::start(&long);
    holder.kill();
    wait_until("the server ends", Duration::from_secs(5), || !pid_file(&long).exists());
    let cluster = open(&long);
    assert_ne!(cluster.socket_dir(), socket_dir);
}

#[test]
fn strange_characters_in_the_path_are_no_obstacle() {
    let dir = data_dir();
    let strange = dir.path().join("a b \"c\" $(d) 'e' ü");
    let cluster = open(&strange);
    assert_eq!(sql(&cluster, "SELECT 1"), "1");
    let server = postmaster(&strange);
    cluster.close();
    assert!(is_gone(server));
}

#[test]
fn errors_say_the_way_out() {
    let dir = data_dir();
    let empty = tempfile::tempdir().unwrap();
    let refused = PrivatePostgres::open(dir.path(), Some(empty.path())).unwrap_err();
    assert!(matches!(refused, PostgresError::UnusableBinaries { .. }), "{refused}");

    // The version of the data decides which programs are needed.
    open(dir.path()).close();
    let version = dir.path().join("postgres/data/PG_VERSION");
    let right = fs::read_to_string(&version).unwrap();
    fs::write(&version, "12\n").unwrap();
    let refused = PrivatePostgres::open(dir.path(), None).unwrap_err();
    assert!(matches!(refused, PostgresError::WrongMajor { .. }), "{refused}");
    assert!(refused.to_string().contains("apt-get install postgresql-12"), "{refused}");
    fs::write(&version, right).unwrap();

    // A server that refuses its configuration is quoted.
    let configuration = dir.path().join("postgres/data/postgresql.conf");
    let right = fs::read_to_string(&configuration).unwrap();
    fs::write(&configuration, format!("{right}\nno_such_setting = 1\n")).unwrap();
    let refused = PrivatePostgres::open(dir.path(), None).unwrap_err();
    assert!(matches!(refused, PostgresError::Start { .. }), "{refused}");
    assert!(refused.to_string().contains("no_such_setting"), "{refused}");
    fs::write(&configuration, right).unwrap();
    open(dir.path()).close();
}
