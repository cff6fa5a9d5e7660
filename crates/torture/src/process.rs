//! Processes by their ids: which belong together, whether they are gone, and their end.

use std::fs;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The id of a child.
pub(crate) fn pid_of(child: &std::process::Child) -> anyhow::Result<Pid> {
    Ok(Pid::from_raw(i32::try_from(child.id())?))
}

/// The children of a process.
pub(crate) fn children(parent: Pid) -> Vec<Pid> {
    let Ok(all) = fs::read_dir("/proc") else { return Vec::new() };
    let pids = all.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).map(Pid::from_raw);
    pids.filter(|pid| stat(*pid).is_some_and(|(_, its_parent)| its_parent == parent.as_raw())).collect()
}

/// Whether a process has ended. One that only waits to be noticed has.
pub(crate) fn is_gone(pid: Pid) -> bool {
    stat(pid).is_none_or(|(state, _)| matches!(state, 'Z' | 'X'))
}

/// State and parent, from `/proc/<pid>/stat` (proc(5)).
fn stat(pid: Pid) -> Option<(char, i32)> {
    let line = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before them stands in parentheses and may hold anything.
    let mut fields = line.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

/// SIGKILL for a process and its children, as if the power had failed for them alone. They are stopped before, so that
/// none can have another child meanwhile. Returns when all are gone, except that the first may still have to be waited for.
pub(crate) fn kill_family(parent: Pid) {
    let _ = kill(parent, Signal::SIGSTOP);
    let family: Vec<Pid> = children(parent).into_iter().chain([parent]).collect();
    for pid in &family {
        let _ = kill(*pid, Signal::SIGKILL);
    }
    wait_until_gone(&family, Duration::from_secs(10));
}

/// Waits until all are gone; false when one is not by then.
#[expect(clippy::disallowed_methods, reason = "called where nothing else is to be done meanwhile: at an end, or off the runtime")]
pub(crate) fn wait_until_gone(pids: &[Pid], patience: Duration) -> bool {
    let began = Instant::now();
    while !pids.iter().all(|pid| is_gone(*pid)) {
        if began.elapsed() > patience {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_killed_family_is_gone_with_its_children() {
        let mut shell =
            Command::new("sh").args(["-c", "sleep 600 & sleep 600 & echo; wait"]).stdout(Stdio::piped()).spawn().unwrap();
        let pid = pid_of(&shell).unwrap();
        let mut line = [0];
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut line).unwrap();
        let sleepers = children(pid);
        assert_eq!(sleepers.len(), 2);
        assert!(!is_gone(pid) && !is_gone(sleepers[0]));
        kill_family(pid);
        assert!(is_gone(sleepers[0]) && is_gone(sleepers[1]) && is_gone(pid));
        shell.wait().unwrap();
    }
}
