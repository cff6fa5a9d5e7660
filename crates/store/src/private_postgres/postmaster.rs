//! The server process: how to recognise it, and how to end it.

use std::ffi::OsStr;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::folder::{Folder, socket};
use super::{PostgresError, pause};

/// What the server has written into `postmaster.pid`.
pub(super) struct PidFile {
    pub(super) pid: Pid,
    pub(super) socket_dir: PathBuf,
    ready: bool,
}

impl PidFile {
    pub(super) fn path(folder: &Folder) -> PathBuf {
        folder.data().join("postmaster.pid")
    }

    /// `None` when there is no such file, or one that a server has only begun to write.
    pub(super) fn read(folder: &Folder) -> Option<Self> {
        let content = fs::read(Self::path(folder)).ok()?;
        let lines: Vec<&[u8]> = content.split(|byte| *byte == b'\n').collect();
        let text = |line: usize| lines.get(line).and_then(|found| std::str::from_utf8(found).ok()).map(str::trim);
        let number: i32 = text(0)?.parse().ok()?;
        // Postgres negates the number for a server in single-user mode.
        let pid = Pid::from_raw(number.checked_abs().filter(|pid| *pid > 1)?);
        let socket_dir = lines.get(4).map(|line| PathBuf::from(OsStr::from_bytes(line))).unwrap_or_default();
        Some(Self { pid, socket_dir, ready: text(7) == Some("ready") })
    }
}

/// The socket directory of the running server, if it accepts connections.
pub(super) fn listening(folder: &Folder) -> Option<PathBuf> {
    let found = PidFile::read(folder)?;
    let reachable = found.ready
        && folder.trusts_socket_dir(&found.socket_dir)
        && answers(&socket(&found.socket_dir)).is_ok_and(|answers| answers);
    reachable.then_some(found.socket_dir)
}

/// Asks the server whether it speaks TLS. It does not on a Unix socket, but it answers, before any login; that it
/// can be connected to would not mean much, because the kernel connects on behalf of a server that hangs or dies.
fn answers(socket: &Path) -> std::io::Result<bool> {
    // SSLRequest of the frontend/backend protocol: the length of the message and the code 1234.5679.
    const QUESTION: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];
    let mut connection = UnixStream::connect(socket)?;
    connection.set_read_timeout(Some(Duration::from_secs(2)))?;
    connection.set_write_timeout(Some(Duration::from_secs(2)))?;
    connection.write_all(&QUESTION)?;
    let mut answer = [0];
    connection.read_exact(&mut answer)?;
    Ok(matches!(answer, [b'N' | b'S']))
}

/// The processes of Postgres that work in the data directory, zombies excluded.
///
/// Asked as the account: root without `CAP_SYS_PTRACE`, as in most containers, may not ask about others' processes.
const WORKING_IN: &str = r#"
if [ -d /proc/self ]; then
  for process in /proc/[0-9]*; do
    [ "$process/cwd" -ef "$1" ] || continue
    { read -r name <"$process/comm"; } 2>/dev/null || continue
    case $name in postgres|postmaster) echo "${process#/proc/}" ;; esac
  done
elif [ -n "$2" ]; then
  case "$(ps -o args= -p "$2" 2>/dev/null)" in *"$1"*) echo "$2" ;; esac
fi
"#;

fn working_in(folder: &Folder) -> Result<Vec<Pid>, PostgresError> {
    let data = folder.data();
    let named = PidFile::read(folder).map(|found| found.pid.to_string()).unwrap_or_default();
    let printed = folder.account.ask_shell(WORKING_IN, [data.as_os_str(), OsStr::new(&named)])?;
    let printed = String::from_utf8_lossy(&printed);
    Ok(printed.lines().filter_map(|line| line.parse().ok()).map(Pid::from_raw).collect())
}

/// The running server of this very data directory. A pid file alone proves nothing: its number may have gone to
/// another process.
pub(super) fn running(folder: &Folder) -> Result<Option<PidFile>, PostgresError> {
    let Some(found) = PidFile::read(folder) else {
        return Ok(None);
    };
    Ok(working_in(folder)?.contains(&found.pid).then_some(found))
}

/// Stops the server, if it runs.
pub(super) fn stop(folder: &Folder) -> Result<(), PostgresError> {
    let Some(server) = running(folder)? else {
        return Ok(());
    };
    // SIGINT ends the sessions and writes everything out; SIGQUIT leaves the writing to the next start.
    let steps = [(Signal::SIGINT, 10), (Signal::SIGQUIT, 5), (Signal::SIGKILL, 5)];
    end(folder, server.pid, &steps)?;
    folder.sweep_socket_dir(&server.socket_dir);
    Ok(())
}

/// Ends everything that an earlier run has left, and removes its pid file and socket.
///
/// To be called only when nobody watches over the server any more and it does not answer.
pub(super) fn clear_leftovers(folder: &Folder) -> Result<(), PostgresError> {
    stop(folder)?;
    // Sessions of a server that was killed end by themselves as soon as they notice; a new server cannot start before.
    for pid in working_in(folder)? {
        let gone = wait_gone(pid, Duration::from_secs(3));
        if !gone {
            end(folder, pid, &[(Signal::SIGQUIT, 2), (Signal::SIGKILL, 5)])?;
        }
    }
    let record = PidFile::path(folder);
    if let Some(stale) = PidFile::read(folder) {
        tracing::info!(postgres.pid = stale.pid.as_raw(), "removing what a private Postgres that is gone left behind");
        folder.sweep_socket_dir(&stale.socket_dir);
    }
    match fs::remove_file(&record) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(PostgresError::file("remove", record)(error));
        }
        _ => {}
    }
    folder.sweep_socket_dir(&folder.path.join("run"));
    Ok(())
}

/// Sends one signal after the other, each with the seconds to wait for its effect.
fn end(folder: &Folder, pid: Pid, steps: &[(Signal, u64)]) -> Result<(), PostgresError> {
    for (signal, seconds) in steps {
        match kill(pid, *signal) {
            Ok(()) => {}
            Err(Errno::ESRCH) => return Ok(()),
            Err(_) => break,
        }
        if wait_gone(pid, Duration::from_secs(*seconds)) {
            return Ok(());
        }
    }
    Err(PostgresError::Stuck { pid: pid.as_raw(), data: folder.data() })
}

/// Waits until the process is gone; false when it is still there after `limit`.
fn wait_gone(pid: Pid, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while !gone(pid) {
        if Instant::now() > deadline {
            return false;
        }
        pause();
    }
    true
}

/// A zombie is gone: it only waits for a parent that is in no hurry, such as the first process of a container.
fn gone(pid: Pid) -> bool {
    if kill(pid, None) == Err(Errno::ESRCH) {
        return true;
    }
    fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat"))
        .is_ok_and(|stat| stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with(['Z', 'X'])))
}
