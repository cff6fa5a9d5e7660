//! The binary under load, and the people, keys and tokens that the load is made with.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use claviger_issuer::bench::BareHash;
use serde_json::{Value, json};

use crate::driver::{self, Plan, Requests, Target};
use crate::report::{self, Cost, Measured, Row, Usage};

/// What a client that was refused for overload is told to wait.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(2);
/// People that can log in: more than there are connections, so that hardly anybody has two attempts under way.
const PEOPLE: usize = 64;
const PASSWORD: &str = "correct horse battery staple";
const LOGIN: &str = "/t/bench/v1/login";

/// The binary itself, with its private Postgres.
pub(crate) struct Server {
    child: Child,
    data_dir: PathBuf,
    pub(crate) address: SocketAddr,
}

impl Server {
    pub(crate) fn start(data_dir: &Path) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        // Each refused attempt is a line, and a storm has thousands.
        let log = File::create(data_dir.join("bench.log")).unwrap();
        let mut command = claviger(data_dir);
        command.args(["serve", "--listen", &address.to_string()]).stdout(Stdio::null()).stderr(log);
        let server = Self { child: command.spawn().unwrap(), data_dir: data_dir.to_owned(), address };
        let deadline = Instant::now() + Duration::from_secs(60);
        while !server.is_ready() {
            let log = || std::fs::read_to_string(data_dir.join("bench.log")).unwrap_or_default();
            assert!(Instant::now() < deadline, "the server is not ready after a minute: {}", log());
            pause(Duration::from_millis(10));
        }
        server
    }

    /// Stopped and started again on the data it has, to time that.
    pub(crate) fn restarted(mut self, notes: &mut Vec<String>) -> Self {
        self.stop();
        let again = Instant::now();
        let server = Self::start(&self.data_dir);
        notes.push(format!("{:.2} s on an existing cluster", again.elapsed().as_secs_f64()));
        server
    }

    fn is_ready(&self) -> bool {
        TcpStream::connect(self.address).is_ok()
            && self.send("GET", "/readyz", &[], None).is_some_and(|(status, _)| status == 200)
    }

    fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<&str>) -> Option<(u16, String)> {
        let mut stream = TcpStream::connect(self.address).ok()?;
        let headers: Vec<_> = headers.iter().copied().chain([("Connection", "close")]).collect();
        stream.write_all(&driver::request(method, path, "bench", &headers, body)).ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).ok()?;
        let status = text.split(' ').nth(1)?.parse().ok()?;
        Some((status, text.split_once("\r\n\r\n")?.1.to_owned()))
    }

    /// A command beside the running server; what it printed.
    fn run(&self, args: &[&str]) -> Vec<u8> {
        let output = claviger(&self.data_dir).args(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// The tenant `bench` with a key and with people who have passwords. Returns the key, as `key:secret`.
    pub(crate) fn furnish(&self) -> String {
        self.run(&["tenant", "create", "bench"]);
        self.run(&["app", "create", "--tenant", "bench", "--name", "demo"]);
        let hash = BareHash::new().unwrap().kept(PASSWORD.as_bytes()).unwrap();
        let mut people = tempfile::NamedTempFile::new().unwrap();
        for number in 0..PEOPLE {
            writeln!(people, "{}", json!({ "username": name(number), "password_hash": hash })).unwrap();
        }
        self.run(&["user", "import", "--tenant", "bench", people.path().to_str().unwrap()]);
        self.new_key("events:read")
    }

    /// A key with that scope, as `key:secret`.
    pub(crate) fn new_key(&self, scope: &str) -> String {
        let create = ["key", "create", "--tenant", "bench", "--app", "demo", "--scope", scope, "--output", "json"];
        let made: Value = serde_json::from_slice(&self.run(&create)).unwrap();
        format!("{}:{}", made["api_key"].as_str().unwrap(), made["api_secret"].as_str().unwrap())
    }

    /// Lets logins of the tenant fail as often as may be set.
    pub(crate) fn allow_failures(&self) {
        let most = 1_000_000;
        let rule = json!({ "login_throttle": { "failures": most, "account": most, "address": most, "tenant": most } });
        self.run(&["tenant", "set", "bench", "--settings", &rule.to_string()]);
    }

    pub(crate) fn token(&self, key: &str) -> String {
        let (status, body) = self.send("POST", "/v1/authentications", &[("Authorization", key)], None).unwrap();
        assert_eq!(status, 201, "{body}");
        let body: Value = serde_json::from_str(&body).unwrap();
        body["jwt"].as_str().unwrap().to_owned()
    }

    /// The cheapest question that there is.
    pub(crate) fn constant(&self) -> Target {
        let request = driver::request("GET", "/healthz", "bench", &[], None);
        Target { address: self.address, requests: Requests::InTurn(vec![request]), expect_status: 200 }
    }

    /// Exchanges of this key.
    pub(crate) fn exchanges(&self, key: &str) -> Target {
        let request = driver::request("POST", "/v1/authentications", "bench", &[("Authorization", key)], None);
        Target { address: self.address, requests: Requests::InTurn(vec![request]), expect_status: 201 }
    }

    /// Logins of all people; with a wrong password after each, if so.
    pub(crate) fn logins(&self, half_wrong: bool) -> Target {
        let passwords = if half_wrong { vec![PASSWORD, "correct horse battery stable"] } else { vec![PASSWORD] };
        let all = (0..PEOPLE).flat_map(|number| passwords.iter().map(move |password| login_body(number, password)));
        let requests = all.map(|body| post(LOGIN, &body)).collect();
        Target { address: self.address, requests: Requests::InTurn(requests), expect_status: 200 }
    }

    /// Refreshes, for each connection those of a login of its own, which is made now.
    pub(crate) fn refreshes(&self, connections: usize) -> Target {
        let headers = [("Content-Type", "application/json")];
        let first = (0..connections).map(|number| {
            let body = login_body(number % PEOPLE, PASSWORD);
            let (status, body) = self.send("POST", LOGIN, &headers, Some(&body)).unwrap();
            assert_eq!(status, 200, "{body}");
            next_refresh(body.as_bytes()).unwrap()
        });
        let requests = Requests::Chained { first: first.collect(), next: next_refresh };
        Target { address: self.address, requests, expect_status: 200 }
    }

    /// A run of the load driver as a row, with what it cost the server and its Postgres.
    pub(crate) fn row(&self, operation: &str, target: &Target, plan: &Plan) -> Row {
        let usage = || Usage::of(&report::family(self.pid()).unwrap()).unwrap();
        let before = usage();
        let outcome = driver::run_blocking(target, plan).unwrap();
        let cost = (target.address == self.address).then(|| Cost::between(&before, &usage(), outcome.answers));
        Row {
            operation: operation.into(),
            concurrency: plan.concurrency,
            measured: Measured::Load(outcome),
            cost,
            ratios: Vec::new(),
            note: String::new(),
        }
    }

    /// Resident memory of the server alone, in bytes.
    pub(crate) fn rss(&self) -> u64 {
        Usage::of(&[self.pid()]).unwrap().rss_bytes
    }

    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.pid()).unwrap());
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = self.child.wait();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}

fn claviger(data_dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_claviger"));
    command.env_remove("DATABASE_URL").env("CLAVIGER_LOG", "warn").arg("--data-dir").arg(data_dir);
    command
}

fn name(number: usize) -> String {
    format!("person{number}")
}

fn login_body(number: usize, password: &str) -> String {
    json!({ "username": name(number), "password": password }).to_string()
}

fn post(path: &str, body: &str) -> Vec<u8> {
    driver::request("POST", path, "bench", &[("Content-Type", "application/json")], Some(body))
}

/// The use of the refresh token that an answer carries. Cut out rather than parsed: the driver has no time to lose.
fn next_refresh(body: &[u8]) -> Option<Vec<u8>> {
    let (_, rest) = std::str::from_utf8(body).ok()?.split_once(r#""refresh_token":""#)?;
    let (token, _) = rest.split_once('"')?;
    Some(post("/t/bench/v1/token/refresh", &format!(r#"{{"refresh_token":"{token}"}}"#)))
}

#[expect(clippy::disallowed_methods, reason = "this process waits for another and serves nobody meanwhile")]
pub(crate) fn pause(time: Duration) {
    std::thread::sleep(time);
}
