//! What processes have used so far, read from `/proc` (Linux; proc(5)).

use std::time::Duration;
use std::{fs, io};

/// `/proc` counts CPU time in these. The kernel shows programs 100 a second whatever it uses inside.
const TICKS_PER_SECOND: u64 = 100;

/// What some processes have used since they began.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// User and system time, with that of the children they have reaped: a child that ends between two
    /// looks is then not lost. Steps of 10 ms.
    pub(crate) cpu: Duration,
    /// Resident memory. Pages shared between the processes count once for each.
    pub(crate) rss_bytes: u64,
}

impl Usage {
    /// The sum over these processes. One that has just ended is left out: its CPU time is now in its
    /// parent's.
    ///
    /// # Errors
    /// None of them runs, or `/proc` cannot be read.
    pub(crate) fn of(pids: &[u32]) -> io::Result<Usage> {
        let mut sum = Usage::default();
        let mut found = false;
        for pid in pids {
            match one(*pid) {
                Ok(usage) => {
                    sum.cpu += usage.cpu;
                    sum.rss_bytes += usage.rss_bytes;
                    found = true;
                }
                Err(error) if ended(&error) => {}
                Err(error) => return Err(error),
            }
        }
        if found { Ok(sum) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

/// The process and all its living descendants. Take it anew for each look: database servers start and
/// end a process per connection.
///
/// # Errors
/// `/proc` cannot be read.
pub(crate) fn family(pid: u32) -> io::Result<Vec<u32>> {
    let mut parents = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let Some(child) = entry?.file_name().to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        match fs::read_to_string(format!("/proc/{child}/stat")) {
            Ok(line) => parents.push((child, Stat::parse(&line)?.parent)),
            Err(error) if ended(&error) => {}
            Err(error) => return Err(error),
        }
    }
    let mut family = vec![pid];
    let mut next = 0;
    while let Some(parent) = family.get(next).copied() {
        next += 1;
        let children = parents.iter().filter(|(_, of)| *of == parent);
        family.extend(children.map(|(child, _): &(u32, u32)| *child));
    }
    Ok(family)
}

fn one(pid: u32) -> io::Result<Usage> {
    let stat = Stat::parse(&fs::read_to_string(format!("/proc/{pid}/stat"))?)?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(Usage { cpu: Duration::from_millis(stat.ticks * 1000 / TICKS_PER_SECOND), rss_bytes: rss_bytes(&status) })
}

/// The fields of interest in `/proc/<pid>/stat`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The parent's process id.
    pub(crate) parent: u32,
    /// CPU time: utime, stime and those of the reaped children.
    pub(crate) ticks: u64,
}

impl Stat {
    /// # Errors
    /// The line is not of this form.
    pub(crate) fn parse(line: &str) -> io::Result<Stat> {
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "a malformed /proc stat");
        // The second field is the command's name in parentheses and may itself hold spaces and more of them.
        let (_, rest) = line.rsplit_once(')').ok_or_else(malformed)?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied().ok_or_else(malformed);
        let mut ticks = 0;
        for number in 14..=17 {
            ticks += field(number)?.parse::<u64>().map_err(|_| malformed())?;
        }
        let parent = field(4)?.parse().map_err(|_| malformed())?;
        Ok(Stat { parent, ticks })
    }
}

/// `VmRSS` of a `/proc/<pid>/status`; 0 for a process that has ended and waits to be reaped.
pub(crate) fn rss_bytes(status: &str) -> u64 {
    let kibibytes = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .and_then(|value| value.trim().strip_suffix(" kB"))
        .and_then(|value| value.trim().parse::<u64>().ok());
    kibibytes.unwrap_or_default() * 1024
}

/// A process may end between being listed and being read, or between its files' opening and reading (ESRCH).
fn ended(error: &io::Error) -> bool {
    const ESRCH: i32 = 3;
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(ESRCH)
}
