//! The servers under torture: the binary itself, as many processes as it takes.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::signal::{Signal, kill};
use tokio::time::sleep;

use crate::http::{self, Reply, request};
use crate::process::pid_of;

/// How long a server may take to be ready, or a command to end, before the run is given up.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is never to be read in a log: a panic; Postgres' warning that a connection was handed on with a transaction open.
const NEVER: [&str; 2] = ["panicked", "already a transaction in progress"];

/// The program, and what configures it.
#[derive(Debug, Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    /// Nothing else of our environment reaches it.
    pub(crate) environment: Vec<(String, String)>,
    /// Where it may write.
    pub(crate) folder: PathBuf,
}

impl Program {
    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.env_clear().envs(self.environment.iter().map(|(name, value)| (name, value))).current_dir(&self.folder);
        command
    }

    /// Runs one of its commands to the end, with this on its standard input, and returns what it printed.
    ///
    /// # Errors
    /// It fails, and the error says what it said; or it does not end.
    pub(crate) fn run(&self, arguments: &[&str], input: &str) -> anyhow::Result<String> {
        let mut command = self.command();
        command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("cannot run {}", self.path.display()))?;
        let pid = pid_of(&child)?;
        if let Some(mut standard_input) = child.stdin.take() {
            // A command that does not read it may be gone already.
            let _ = standard_input.write_all(input.as_bytes());
        }
        let (send, ended) = mpsc::channel();
        thread::spawn(move || send.send(child.wait_with_output()));
        let Ok(output) = ended.recv_timeout(PATIENCE) else {
            let _ = kill(pid, Signal::SIGKILL);
            bail!("claviger {} did not end within {PATIENCE:?}", arguments.join(" "));
        };
        let output = output?;
        if !output.status.success() {
            bail!("claviger {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// One server. Killed when dropped.
pub(crate) struct Server {
    pub(crate) name: String,
    pub(crate) address: SocketAddr,
    program: Program,
    child: Option<Child>,
    log: PathBuf,
}

impl Server {
    /// Starts it; what it logs is kept in `log`.
    ///
    /// # Errors
    /// It cannot be started.
    pub(crate) fn start(name: &str, program: &Program, log: &Path) -> anyhow::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()?));
        File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let mut server = Self { name: name.into(), address, program: program.clone(), child: None, log: log.into() };
        server.run()?;
        Ok(server)
    }

    /// Starts its process.
    pub(crate) fn run(&mut self) -> anyhow::Result<()> {
        let log = File::options().append(true).create(true).open(&self.log)?;
        let mut command = self.program.command();
        command.arg("--data-dir").arg(self.program.folder.join(&self.name));
        command.args(["serve", "--listen", &self.address.to_string()]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.child = Some(command.spawn().with_context(|| format!("cannot run {}", self.program.path.display()))?);
        Ok(())
    }

    /// SIGKILL: it cannot say goodbye.
    pub(crate) fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    /// Waits until it is ready to serve.
    ///
    /// # Errors
    /// It ended, or is not within a minute.
    pub(crate) async fn wait_until_ready(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            if let Ok(reply) = self.ask(&request("GET", "/readyz", None, None)).await
                && reply.status == 200
            {
                return Ok(());
            }
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().transpose()).transpose()? {
                bail!("the server {} ended with {status}; see {}", self.name, self.log.display());
            }
            if began.elapsed() > PATIENCE {
                bail!("the server {} is not ready within {PATIENCE:?}; see {}", self.name, self.log.display());
            }
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// Sends a request without any fault.
    ///
    /// # Errors
    /// There is no whole answer within 10 seconds.
    pub(crate) async fn ask(&self, request: &[u8]) -> anyhow::Result<Reply> {
        http::ask(self.address, request).await
    }

    /// The files and sockets that it holds open.
    pub(crate) fn open_files(&self) -> anyhow::Result<usize> {
        let child = self.child.as_ref().context("the server does not run")?;
        Ok(fs::read_dir(format!("/proc/{}/fd", child.id()))?.count())
    }

    /// Lines of its log that tell of something that must never happen.
    pub(crate) fn confessions(&self) -> Vec<String> {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let told = log.lines().filter(|line| NEVER.iter().any(|never| line.contains(never)));
        told.map(|line| format!("{}: {line}", self.name)).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.kill();
    }
}

/// A port that nobody listens on, below those that the kernel hands out to clients: a server that was killed finds it free
/// again.
fn free_port() -> anyhow::Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let start = u16::try_from(std::process::id() % 4_000)?;
    for _ in 0..4_000 {
        let port = 15_000 + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % 4_000;
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("every port from 15000 to 18999 is taken")
}
