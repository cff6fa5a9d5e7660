//! What the figures were measured on: without it they mean little.

use std::{fs, thread};

use serde::Serialize;

/// A short description of this machine.
#[derive(Debug, Serialize)]
pub(crate) struct Machine {
    /// The processor's own name, "unknown" where the kernel does not tell.
    pub(crate) cpu: String,
    /// Cores this process may use.
    pub(crate) cores: usize,
    /// The kernel's release.
    pub(crate) kernel: String,
}

impl Machine {
    /// Looks around. What cannot be read is "unknown": no reason to lose the figures.
    pub(crate) fn describe() -> Machine {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let or_unknown = |name: Option<String>| name.unwrap_or_else(|| "unknown".to_owned());
        let kernel = read("/proc/sys/kernel/osrelease").trim().to_owned();
        Machine {
            cpu: or_unknown(cpu_model(&read("/proc/cpuinfo"))),
            cores: thread::available_parallelism().map_or(1, usize::from),
            kernel: or_unknown(Some(kernel).filter(|kernel| !kernel.is_empty())),
        }
    }
}

/// The first "model name" of a `/proc/cpuinfo`.
pub(crate) fn cpu_model(cpuinfo: &str) -> Option<String> {
    cpuinfo
        .lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == "model name")
        .map(|(_, model)| model.trim().to_owned())
}
