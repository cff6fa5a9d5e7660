//! The Postgres of a trial run: started when it is needed, stopped when nobody needs it any more.
//!
//! Without `DATABASE_URL` a server, or a command of the CLI, [opens](PrivatePostgres::open) the cluster in
//! `<data-dir>/postgres`. Whoever comes first starts it, whoever comes later joins, and the last to leave stops it.
//! It listens on a Unix socket only, which nobody but its account can reach.
//!
//! Who uses the cluster is known to the kernel, not to a file that can be wrong: each user holds a shared lock on
//! `users.lock` for as long as it lives. A watcher, started along with the server, waits for an exclusive lock on the
//! same file. It gets it when the last user is gone, also after `kill -9`, and stops the server.
//!
//! ```text
//!                 open: start.lock, then a share of users.lock
//!                                  │
//!           ┌─ answers ────────────┴──────────── does not answer ─┐
//!           ▼                                                     ▼
//!    watched.lock taken? ── no: give it a watcher        watched.lock taken? ── yes: it starts or ends: wait
//!           │ yes                                                 │ no
//!           ▼                                                     ▼
//!         joined                           end leftovers, initdb if there are no data, start with a watcher
//! ```

use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

mod account;
mod binaries;
mod error;
mod folder;
mod postmaster;

pub use error::PostgresError;

use binaries::Binaries;
use folder::Folder;
use postmaster::PidFile;

/// The name of the socket contains a port. Each cluster has a directory of its own, so the usual one is free.
const PORT: u16 = 5432;

const SUPERUSER: &str = "postgres";

/// How long opening may take, `initdb` included.
const START_LIMIT: Duration = Duration::from_secs(30);

/// How long a server that runs may take to replay its log after a crash. Ending it earlier would not help: the
/// next start would have to do the same work again.
const RECOVERY_LIMIT: Duration = Duration::from_secs(300);

/// How long leaving may wait for others that start or stop the cluster.
const LEAVE_LIMIT: Duration = Duration::from_secs(10);

/// What the server is told on its command line.
const SETTINGS: [&str; 18] = [
    "listen_addresses=",
    "unix_socket_permissions=0700",
    "fsync=on",
    "synchronous_commit=on",
    "full_page_writes=on",
    "max_connections=60",
    "shared_buffers=64MB",
    "jit=off",
    "autovacuum=on",
    "max_wal_size=1GB",
    "wal_compression=on",
    "checkpoint_completion_target=0.9",
    // What the server itself has to say, into the log file. A failed statement is told to the one who sent it;
    // its text and values may be personal and stay out of the log.
    "logging_collector=off",
    "log_destination=stderr",
    "log_line_prefix=%m [%p] ",
    "log_min_messages=log",
    "log_min_error_statement=panic",
    "log_checkpoints=off",
];

const SUPERVISE: &str = concat!(include_str!("private_postgres/watch.sh"), include_str!("private_postgres/supervise.sh"));
const ADOPT: &str = concat!(include_str!("private_postgres/watch.sh"), include_str!("private_postgres/adopt.sh"));
const STOP: &str = include_str!("private_postgres/stop.sh");

/// How the scripts end when no program can wait for a lock.
const NO_LOCK_PROGRAM: i32 = 69;

/// A share in the private cluster of a data directory. The cluster runs for as long as anybody holds one.
///
/// Everything here blocks: call it where that is allowed (`spawn_blocking`).
#[derive(Debug)]
pub struct PrivatePostgres {
    folder: Folder,
    socket_dir: PathBuf,
    /// The shared lock; `None` once it was given back.
    users: Option<File>,
}

impl PrivatePostgres {
    /// Joins the cluster in `<data_dir>/postgres`, making and starting it if needed, and returns when it accepts
    /// connections. `binaries` is the directory of `postgres` and `initdb`; without it they are looked up.
    ///
    /// # Errors
    /// Every [`PostgresError`] says what is wrong and what to do. After 30 seconds opening is given up, except while
    /// the server recovers from a crash, which may take 5 minutes.
    pub fn open(data_dir: &Path, binaries: Option<&Path>) -> Result<Self, PostgresError> {
        let deadline = Instant::now() + START_LIMIT;
        let folder = Folder::prepare(data_dir)?;
        let start = folder.lock_file("start.lock")?;
        if !lock(&start, Hold::Alone, deadline).map_err(PostgresError::file("lock", &folder.path))? {
            return Err(PostgresError::Busy { what: "starting", folder: folder.path });
        }
        let users = folder.lock_file("users.lock")?;
        if !lock(&users, Hold::Shared, deadline).map_err(PostgresError::file("lock", &folder.path))? {
            return Err(PostgresError::Busy { what: "stopping", folder: folder.path });
        }
        match ensure_running(&folder, binaries, &start, deadline) {
            Ok(socket_dir) => Ok(Self { folder, socket_dir, users: Some(users) }),
            Err(error) => {
                leave(&folder, &users);
                Err(error)
            }
        }
    }

    /// The directory of the Unix socket; to be given to a client as its host.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// The port in the socket's name.
    #[must_use]
    pub fn port(&self) -> u16 {
        PORT
    }

    /// The name of the database superuser, who needs no password on this socket.
    #[must_use]
    pub fn superuser(&self) -> &str {
        SUPERUSER
    }

    /// Gives the share back. The last one to do so stops the cluster and waits until it is down; everybody else
    /// returns at once. Dropping does the same.
    pub fn close(mut self) {
        self.give_back();
    }

    fn give_back(&mut self) {
        let Some(users) = self.users.take() else {
            return;
        };
        // Nobody can join between finding out that we are the last and stopping.
        let Ok(start) = self.folder.lock_file("start.lock") else {
            return;
        };
        if let Ok(true) = lock(&start, Hold::Alone, Instant::now() + LEAVE_LIMIT) {
            leave(&self.folder, &users);
        }
    }
}

impl Drop for PrivatePostgres {
    fn drop(&mut self) {
        self.give_back();
    }
}

/// Returns the socket directory of the cluster once it accepts connections. The caller holds `start`.
fn ensure_running(folder: &Folder, named: Option<&Path>, start: &File, deadline: Instant) -> Result<PathBuf, PostgresError> {
    let watched = folder.lock_file("watched.lock")?;
    loop {
        let unwatched = try_lock(&watched, Hold::Alone).map_err(PostgresError::file("lock", &folder.path))?;
        match (postmaster::listening(folder), unwatched) {
            (Some(socket_dir), false) => return Ok(socket_dir),
            (Some(socket_dir), true) => {
                adopt(folder, watched)?;
                return Ok(socket_dir);
            }
            (None, true) => break,
            (None, false) if Instant::now() > deadline => {
                return Err(PostgresError::Busy { what: "starting or stopping", folder: folder.path.clone() });
            }
            (None, false) => pause(),
        }
    }

    postmaster::clear_leftovers(folder)?;
    let data = folder.data();
    let binaries = if data.exists() {
        Binaries::find(&folder.account, named, Some(&data))?
    } else {
        let binaries = Binaries::find(&folder.account, named, None)?;
        create_cluster(folder, &binaries, start, deadline)?;
        binaries
    };
    start_server(folder, &binaries, watched, deadline)
}

/// Makes the data. They get their name only when they are complete, so a crash in between leaves nothing half made.
fn create_cluster(folder: &Folder, binaries: &Binaries, start: &File, deadline: Instant) -> Result<(), PostgresError> {
    let unfinished = folder.unfinished();
    match fs::remove_dir_all(&unfinished) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(PostgresError::file("remove", unfinished)(error));
        }
        _ => {}
    }
    folder.subdirectory(&unfinished)?;

    let initdb = binaries.initdb();
    let mut command = folder.account.command(&initdb);
    command
        .arg("-D")
        .arg(&unfinished)
        .arg(format!("--username={SUPERUSER}"))
        .args(["--auth=trust", "--encoding=UTF8", "--locale=C"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // It inherits our hold on start.lock: if we are killed, nobody tidies up beneath it while it is still at work.
    command.stdin(start.try_clone().map_err(PostgresError::file("keep open", folder.path.join("start.lock")))?);
    let output = run(command, &initdb, deadline)?;
    if !output.as_ref().is_some_and(|output| output.status.success()) {
        let said = match output {
            Some(output) => last_lines(&[output.stdout, output.stderr].concat()),
            None => format!("(nothing: it was not done after {} seconds)", START_LIMIT.as_secs()),
        };
        let _ = fs::remove_dir_all(&unfinished);
        return Err(PostgresError::Init { data: folder.data(), output: said });
    }
    let data = folder.data();
    fs::rename(&unfinished, &data).map_err(PostgresError::file("rename to its final name", unfinished))?;
    // The new name has to survive a power failure as well.
    File::open(&folder.path)
        .and_then(|directory| directory.sync_all())
        .map_err(PostgresError::file("write out", &folder.path))?;
    tracing::info!("created a private Postgres in {}", data.display());
    Ok(())
}

/// Starts the server with its supervisor, which takes `watched` over, and waits until it accepts connections.
fn start_server(folder: &Folder, binaries: &Binaries, watched: File, deadline: Instant) -> Result<PathBuf, PostgresError> {
    let socket_dir = folder.new_socket_dir()?;
    let log = folder.log();
    if let Some(directory) = log.parent() {
        folder.subdirectory(directory)?;
    }
    let said_before = fs::metadata(&log).map_or(0, |found| found.len());

    let mut sockets = std::ffi::OsString::from("unix_socket_directories=");
    // A list in Postgres' eyes: quoted, so that commas and blanks in the path are no separators.
    sockets.push(quoted(&socket_dir));
    let mut command = script(folder, SUPERVISE, &socket_dir, watched);
    command.arg(binaries.postgres()).arg("-D").arg(folder.data());
    command.args(SETTINGS.iter().flat_map(|setting| ["-c", setting])).arg("-c").arg(sockets);
    let ended = spawn(command)?;

    let began = Instant::now();
    loop {
        if let Some(socket_dir) = postmaster::listening(folder) {
            tracing::info!("the private Postgres in {} is up", folder.path.display());
            return Ok(socket_dir);
        }
        let reason = if let Ok(status) = ended.try_recv() {
            if status.code() == Some(NO_LOCK_PROGRAM) {
                return Err(PostgresError::NoLockProgram);
            }
            format!("it ended with {status}")
        } else if Instant::now() > deadline && PidFile::read(folder).is_none() {
            format!("it was not up after {} seconds", START_LIMIT.as_secs())
        } else if began.elapsed() > RECOVERY_LIMIT {
            format!("it was still recovering after {} seconds", RECOVERY_LIMIT.as_secs())
        } else {
            pause();
            continue;
        };
        let tail = log_tail(&log, said_before);
        return Err(PostgresError::Start { reason, log, tail });
    }
}

/// Gives a server that has lost its watcher a new one, which takes `watched` over.
fn adopt(folder: &Folder, watched: File) -> Result<(), PostgresError> {
    // A server that answers and is none of our processes runs in another container: its watcher is there too.
    let Some(server) = postmaster::running(folder)? else {
        return Ok(());
    };
    tracing::info!(postgres.pid = server.pid.as_raw(), "joining a private Postgres that an earlier run left behind");
    let mut command = script(folder, ADOPT, &server.socket_dir, watched);
    command.arg(server.pid.to_string());
    let ended = spawn(command)?;
    match ended.recv_timeout(Duration::from_millis(50)) {
        Ok(status) if status.code() == Some(NO_LOCK_PROGRAM) => Err(PostgresError::NoLockProgram),
        _ => Ok(()),
    }
}

/// One of the scripts with the arguments that both share.
fn script(folder: &Folder, text: &str, socket_dir: &Path, watched: File) -> Command {
    let mut command = folder.account.command("/bin/sh");
    command.args(["-c", text, "claviger-postgres"]);
    command.arg(folder.users_lock()).arg(PidFile::path(folder)).arg(folder.log()).arg(socket_dir).arg(STOP);
    command.stdin(watched);
    command
}

/// Gives up the share that `users` holds; if it was the last one, stops the server. The caller holds `start.lock`,
/// so nobody new comes in.
fn leave(folder: &Folder, users: &File) {
    let alone = becomes_alone(users, Instant::now() + LEAVE_LIMIT);
    if let Ok(true) = alone
        && let Err(error) = postmaster::stop(folder)
    {
        tracing::warn!("the private Postgres was not stopped: {error}");
    }
    // Closing the file would not be enough: a process that another thread is just starting has a copy of it until it
    // runs its program, and would pass for a user.
    let _ = users.unlock();
    match alone {
        // The supervisor and the watcher follow in a moment. Wait for them, so that nothing of ours outlives us.
        Ok(true) => {
            if let Ok(watched) = folder.lock_file("watched.lock") {
                let deadline = Instant::now() + Duration::from_secs(1);
                let _ = lock(&watched, Hold::Alone, deadline);
            }
        }
        // Others stay, and so does the server.
        Ok(false) => {}
        Err(error) => tracing::warn!("the private Postgres is left to its watcher: {error}"),
    }
}

/// Turns a share into the whole. False when there are other shares.
fn becomes_alone(users: &File, deadline: Instant) -> std::io::Result<bool> {
    while !try_lock(users, Hold::Alone)? {
        // While one lock is changed into the other, none is held, and the watcher may take its chance. It is the one
        // in the way if not even a share is to be had; it stops the server then, and is done in a moment.
        if try_lock(users, Hold::Shared)? || Instant::now() > deadline {
            return Ok(false);
        }
        pause();
    }
    Ok(true)
}

#[derive(Clone, Copy)]
enum Hold {
    Shared,
    Alone,
}

/// True if the lock is held now, false if somebody else's is in the way.
fn try_lock(file: &File, hold: Hold) -> std::io::Result<bool> {
    let outcome = match hold {
        Hold::Shared => file.try_lock_shared(),
        Hold::Alone => file.try_lock(),
    };
    match outcome {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Like [`try_lock`], until `deadline`.
fn lock(file: &File, hold: Hold, deadline: Instant) -> std::io::Result<bool> {
    while !try_lock(file, hold)? {
        if Instant::now() > deadline {
            return Ok(false);
        }
        pause();
    }
    Ok(true)
}

/// Starts a command that goes on by itself; how it ended can be received. A thread waits for it, so that it never
/// stays behind as a zombie.
fn spawn(mut command: Command) -> Result<Receiver<ExitStatus>, PostgresError> {
    let program = PathBuf::from(command.get_program());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(source) => return Err(PostgresError::Program { program, source }),
    };
    // The command holds files that only the child shall hold from now on.
    drop(command);
    let (send, ended) = mpsc::channel();
    in_background(program, move || {
        if let Ok(status) = child.wait() {
            // Usually nobody listens any more.
            let _ = send.send(status);
        }
    })?;
    Ok(ended)
}

/// Runs a command to its end; `None` if it had to be killed at the deadline.
fn run(mut command: Command, program: &Path, deadline: Instant) -> Result<Option<Output>, PostgresError> {
    let failed = |source| PostgresError::Program { program: program.to_path_buf(), source };
    let child: Child = command.spawn().map_err(failed)?;
    drop(command);
    let group = i32::try_from(child.id()).map(Pid::from_raw);
    let (send, ended) = mpsc::channel();
    in_background(program.to_path_buf(), move || {
        let _ = send.send(child.wait_with_output());
    })?;
    match ended.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
        Ok(output) => Ok(Some(output.map_err(failed)?)),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            if let Ok(group) = group {
                let _ = killpg(group, Signal::SIGKILL);
            }
            Ok(None)
        }
    }
}

fn in_background(program: PathBuf, work: impl FnOnce() + Send + 'static) -> Result<(), PostgresError> {
    match thread::Builder::new().name("private-postgres".into()).spawn(work) {
        Ok(_) => Ok(()),
        Err(source) => Err(PostgresError::Program { program, source }),
    }
}

/// Waits a moment before looking again.
#[expect(clippy::disallowed_methods, reason = "this module blocks by design and is called where that is allowed")]
fn pause() {
    thread::sleep(Duration::from_millis(10));
}

/// A path as one element of a Postgres list.
fn quoted(path: &Path) -> std::ffi::OsString {
    use std::os::unix::ffi::{OsStrExt, OsStringExt};
    let mut bytes = vec![b'"'];
    for byte in path.as_os_str().as_bytes() {
        if *byte == b'"' {
            bytes.push(b'"');
        }
        bytes.push(*byte);
    }
    bytes.push(b'"');
    std::ffi::OsString::from_vec(bytes)
}

/// The last lines that the log has gained since it was `before` bytes long.
fn log_tail(log: &Path, before: u64) -> String {
    const ENOUGH: u64 = 4096;
    let read = || -> std::io::Result<Vec<u8>> {
        // The log belongs to the account; root must not be led elsewhere by a link, nor wait for a pipe's writer.
        let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
        let mut file = fs::OpenOptions::new().read(true).custom_flags(flags.bits()).open(log)?;
        let length = file.metadata()?.len();
        // A log that has become shorter was begun anew.
        let from = if before > length { 0 } else { before };
        file.seek(SeekFrom::Start(from.max(length.saturating_sub(ENOUGH))))?;
        let mut content = Vec::new();
        file.take(ENOUGH).read_to_end(&mut content)?;
        Ok(content)
    };
    read().map_or_else(|error| format!("(the log could not be read: {error})"), |content| last_lines(&content))
}

/// The last 15 lines.
fn last_lines(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
}
