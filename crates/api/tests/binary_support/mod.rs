//! The program as its users have it: a binary, a data directory, a shell line, a signal.

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

use std::fs::{self, Permissions};
use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, PgConnection};
use tempfile::TempDir;

/// How long anything may take before the test is called hung: far more than a slow machine needs.
const PATIENCE: Duration = Duration::from_secs(90);

/// The program.
pub const CLAVIGER: &str = env!("CARGO_BIN_EXE_claviger");

/// A data directory of its own. When dropped, its Postgres has ended and nothing is left of it.
pub struct Home {
    directory: TempDir,
}

impl Home {
    pub fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("test-claviger-").tempdir_in(std::env::temp_dir()).unwrap();
        // The account that runs Postgres for root must be able to pass.
        fs::set_permissions(directory.path(), Permissions::from_mode(0o711)).unwrap();
        Self { directory }
    }

    /// What `--data-dir` is given. It does not exist before the first command.
    pub fn data_dir(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    /// A place for other files.
    pub fn file(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn master_key(&self) -> PathBuf {
        self.data_dir().join("master.key")
    }

    /// The program with this data directory.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = claviger();
        command.arg("--data-dir").arg(self.data_dir()).args(arguments).current_dir(self.directory.path());
        command
    }

    /// Runs a command to its end.
    pub fn run(&self, arguments: &[&str]) -> Said {
        run(self.command(arguments), "")
    }

    /// The same in an environment that says something.
    pub fn run_with(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Said {
        let mut command = self.command(arguments);
        command.envs(environment.iter().copied());
        run(command, "")
    }

    /// Runs a command that must succeed, and returns what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert_eq!(said.code, Some(0), "{arguments:?}: {said:?}");
        assert_eq!(said.err, "", "{arguments:?}");
        said.out
    }

    /// Runs a command that must succeed and print one JSON document, and nothing else anywhere.
    pub fn json(&self, arguments: &[&str]) -> Value {
        let said = self.run(&[arguments, &["--output", "json"]].concat());
        assert_eq!(said.code, Some(0), "{arguments:?}: {said:?}");
        assert_eq!(said.err, "", "{arguments:?}");
        one_document(&said.out)
    }

    /// Runs a command that must fail: it says why on standard error, and nothing on standard output.
    pub fn fails(&self, arguments: &[&str]) -> String {
        let said = self.run(arguments);
        assert!(said.code.is_some_and(|code| code != 0), "{arguments:?}: {said:?}");
        assert_eq!(said.out, "", "{arguments:?}");
        assert!(!said.err.trim().is_empty(), "{arguments:?} failed without a word");
        said.err
    }

    /// A line as the documentation has it: `claviger --data-dir D …`.
    pub fn line(&self, line: &str) -> Command {
        let mut words = line.split_whitespace();
        assert_eq!(words.next(), Some("claviger"));
        let mut command = claviger();
        for word in words {
            match word {
                "D" => command.arg(self.data_dir()),
                word => command.arg(word),
            };
        }
        command
    }

    /// Serves on a port of its own.
    pub async fn serve(&self) -> Serving {
        self.serve_on(free_port()).await
    }

    pub async fn serve_on(&self, port: u16) -> Serving {
        let listen = format!("127.0.0.1:{port}");
        Serving::start(self.command(&["serve", "--listen", &listen]), port).await
    }

    /// Serves, and serves metrics on the port that comes with it; the admin key is printed already.
    pub async fn serve_measured(&self) -> (Serving, u16) {
        let (port, metrics) = (free_port(), free_port());
        let mut command = self.command(&["serve", "--listen", &format!("127.0.0.1:{port}")]);
        command.env("CLAVIGER_METRICS_LISTEN", format!("127.0.0.1:{metrics}"));
        let serving = Serving::start(command, port).await;
        wait_until("the admin key is printed", async || serving.out().contains("/docs")).await;
        (serving, metrics)
    }

    fn postmaster_file(&self) -> PathBuf {
        self.data_dir().join("postgres/data/postmaster.pid")
    }

    /// A line of what Postgres has written about itself; `None` while it is down.
    fn of_postmaster(&self, line: usize) -> Option<String> {
        Some(fs::read_to_string(self.postmaster_file()).ok()?.lines().nth(line)?.trim().to_owned())
    }

    /// The private Postgres, if it runs.
    pub fn postmaster(&self) -> Option<Pid> {
        let pid = Pid::from_raw(self.of_postmaster(0)?.parse().ok()?);
        (!is_gone(pid)).then_some(pid)
    }

    /// The processes that watch over the private Postgres.
    pub fn watchers(&self) -> Vec<Pid> {
        let lock = self.data_dir().join("postgres").canonicalize().unwrap().join("users.lock");
        let (lock, postmaster) = (lock.to_str().unwrap().to_owned(), self.postmaster());
        let all = fs::read_dir("/proc").unwrap().flatten();
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .filter(|pid| {
                fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| String::from_utf8_lossy(&line).contains(&lock))
            })
            .map(Pid::from_raw)
            .filter(|pid| *pid != Pid::this() && Some(*pid) != postmaster)
            .collect()
    }

    /// Waits until the private Postgres is down.
    pub async fn postgres_is_down(&self) -> Duration {
        wait_until("the private Postgres is down", async || self.postmaster().is_none()).await
    }

    /// The private Postgres as its superuser, to look behind the walls. It must be running.
    pub async fn superuser(&self) -> PgConnection {
        let socket = self.of_postmaster(4).expect("the private Postgres does not run");
        PgConnectOptions::new_without_pgpass().socket(socket).username("postgres").database("claviger").connect().await.unwrap()
    }

    /// What Postgres wrote into its log.
    pub fn postgres_log(&self) -> String {
        fs::read_to_string(self.data_dir().join("postgres/log/postgres.log")).unwrap_or_default()
    }
}

impl Drop for Home {
    #[expect(clippy::disallowed_methods, reason = "a drop can only wait by blocking, and no server runs on this thread")]
    fn drop(&mut self) {
        // It ends by itself when its last user has gone. A test that failed in between does not wait for ever.
        let began = Instant::now();
        while let Some(postmaster) = self.postmaster() {
            if began.elapsed() > Duration::from_secs(20) {
                let _ = kill(postmaster, Signal::SIGKILL);
            }
            thread::sleep(Duration::from_millis(20));
        }
        // Where Postgres' account cannot reach the temporary directory, the cluster is kept elsewhere.
        let cluster = self.data_dir().join("postgres");
        if let Ok(elsewhere) = fs::read_link(&cluster)
            && elsewhere.starts_with("/var/lib/claviger/")
        {
            let _ = fs::remove_dir_all(elsewhere);
        }
    }
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

/// The program in an environment that says nothing to it.
pub fn claviger() -> Command {
    let mut command = Command::new(CLAVIGER);
    without_settings(&mut command);
    command
}

/// Takes from a command's environment what would configure the program.
pub fn without_settings(command: &mut Command) {
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text == "DATABASE_URL" || text.starts_with("CLAVIGER_") {
            command.env_remove(&name);
        }
    }
}

/// Runs a command to its end, with this on its standard input.
pub fn run(mut command: Command, input: &str) -> Said {
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let pid = pid_of(&child);
    // A command that does not read its input may be gone already.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let (send, ended) = mpsc::channel();
    thread::spawn(move || send.send(child.wait_with_output()));
    let Ok(output) = ended.recv_timeout(PATIENCE) else {
        let _ = kill(pid, Signal::SIGKILL);
        panic!("{command:?} did not end within {PATIENCE:?}");
    };
    let output = output.unwrap();
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// One JSON document and a line's end: nothing before, between or after.
pub fn one_document(out: &str) -> Value {
    assert!(out.ends_with('\n'), "no line's end: {out}");
    serde_json::from_str(out).unwrap_or_else(|error| panic!("not one JSON document ({error}): {out}"))
}

/// A server that runs. Killed when dropped.
pub struct Serving {
    child: Child,
    pub port: u16,
    pub http: reqwest::Client,
    out: Arc<Mutex<Vec<u8>>>,
    err: Arc<Mutex<Vec<u8>>>,
    readers: Vec<thread::JoinHandle<()>>,
    /// From the start of the process until it said that it is ready.
    pub ready_after: Duration,
}

impl Serving {
    /// Starts it and waits until it is ready.
    pub async fn start(mut command: Command, port: u16) -> Self {
        let began = Instant::now();
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, reading_out) = collect(child.stdout.take().unwrap());
        let (err, reading_err) = collect(child.stderr.take().unwrap());
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(30))
            .build()
            .unwrap();
        let readers = vec![reading_out, reading_err];
        let mut serving = Self { child, port, http, out, err, readers, ready_after: Duration::ZERO };
        loop {
            if let Ok(answer) = serving.http.get(serving.url("/readyz")).send().await
                && answer.status() == 200
            {
                break;
            }
            if let Some(status) = serving.child.try_wait().unwrap() {
                panic!("the server ended with {status}: {}", serving.err());
            }
            assert!(began.elapsed() < PATIENCE, "not ready within {PATIENCE:?}: {}", serving.err());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        serving.ready_after = began.elapsed();
        serving
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    pub fn pid(&self) -> Pid {
        pid_of(&self.child)
    }

    /// What it wrote to standard output so far.
    pub fn out(&self) -> String {
        String::from_utf8(self.out.lock().unwrap().clone()).unwrap()
    }

    /// What it wrote to standard error so far.
    pub fn err(&self) -> String {
        String::from_utf8(self.err.lock().unwrap().clone()).unwrap()
    }

    /// The admin key that the first start printed.
    pub fn admin(&self) -> Pair {
        let out = self.out();
        let after = |name: &str| {
            let line = out.lines().find_map(|line| line.trim().strip_prefix(name));
            line.unwrap_or_else(|| panic!("no {name}: {out}")).trim().to_owned()
        };
        Pair { key: after("api_key "), secret: after("api_secret ") }
    }

    /// `POST /v1/authentications` as this pair.
    pub async fn exchange(&self, pair: &Pair) -> reqwest::Response {
        let request = self.http.post(self.url("/v1/authentications")).header("Authorization", pair.text());
        request.send().await.unwrap()
    }

    /// A token for this pair.
    pub async fn token(&self, pair: &Pair) -> String {
        let answer = self.exchange(pair).await;
        assert_eq!(answer.status(), 201);
        answer.json::<Value>().await.unwrap()["jwt"].as_str().unwrap().to_owned()
    }

    /// SIGTERM, as a service manager would, and the end.
    pub async fn stop(self) -> Ended {
        kill(self.pid(), Signal::SIGTERM).unwrap();
        self.end().await
    }

    /// The end, which a signal told it to come to.
    pub async fn end(mut self) -> Ended {
        let began = Instant::now();
        while self.child.try_wait().unwrap().is_none() {
            assert!(began.elapsed() < PATIENCE, "SIGTERM did not end it: {}", self.err());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.ended()
    }

    /// SIGKILL: it cannot say goodbye.
    pub fn kill(mut self) -> Ended {
        self.child.kill().unwrap();
        let ended = self.ended();
        assert_eq!(ended.status.signal(), Some(9));
        ended
    }

    fn ended(&mut self) -> Ended {
        let status = self.child.wait().unwrap();
        for reader in self.readers.drain(..) {
            reader.join().unwrap();
        }
        Ended { status, out: self.out(), err: self.err() }
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that ran.
#[derive(Debug)]
pub struct Ended {
    pub status: ExitStatus,
    pub out: String,
    pub err: String,
}

/// A key and its secret.
#[derive(Debug, Clone)]
pub struct Pair {
    pub key: String,
    pub secret: String,
}

impl Pair {
    /// From what `--output json` prints of a new key.
    pub fn of(made: &Value) -> Self {
        Self { key: made["api_key"].as_str().unwrap().to_owned(), secret: made["api_secret"].as_str().unwrap().to_owned() }
    }

    /// `key:secret`.
    pub fn text(&self) -> String {
        format!("{}:{}", self.key, self.secret)
    }

    pub fn basic(&self) -> String {
        use base64::Engine as _;
        format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(self.text()))
    }
}

fn collect(mut from: impl Read + Send + 'static) -> (Arc<Mutex<Vec<u8>>>, thread::JoinHandle<()>) {
    let collected = Arc::new(Mutex::new(Vec::new()));
    let into = collected.clone();
    let reader = thread::spawn(move || {
        let mut buffer = [0; 8192];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            into.lock().unwrap().extend_from_slice(&buffer[..count]);
        }
    });
    (collected, reader)
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).unwrap())
}

/// A zombie is gone: in a container, the first process may be in no hurry to notice.
pub fn is_gone(pid: Pid) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    stat.rsplit_once(") ").is_none_or(|(_, state)| state.starts_with(['Z', 'X']))
}

/// A port that nobody listens on, below those that the kernel hands out to clients: a server that was killed finds it
/// free again.
pub fn free_port() -> u16 {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let start = std::process::id() % 10_000;
    for _ in 0..10_000 {
        let port = u16::try_from(20_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 10_000).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("every port from 20000 to 29999 is taken");
}

/// Waits until it is so; says how long that took.
pub async fn wait_until(what: &str, mut so: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !so().await {
        assert!(began.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    began.elapsed()
}

/// The permission bits of a file.
pub fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}
