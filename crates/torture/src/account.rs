//! Who runs Postgres: we, or another account when we are root, because Postgres refuses root.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::Context as _;
use nix::unistd::{Gid, Uid, User, geteuid};

/// `None` where we are nobody special and run it ourselves.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Account(Option<(Uid, Gid)>);

impl Account {
    /// For root: `postgres`, or else `nobody`.
    ///
    /// # Errors
    /// There is neither.
    pub(crate) fn choose() -> anyhow::Result<Self> {
        if !geteuid().is_root() {
            return Ok(Self(None));
        }
        let named = |name| User::from_name(name).ok().flatten();
        let user = named("postgres").or_else(|| named("nobody")).context("neither an account `postgres` nor `nobody` exists")?;
        Ok(Self(Some((user.uid, user.gid))))
    }

    /// A command of that account: without our environment, and in a process group of its own, so that a terminal's ^C
    /// leaves it to us to end it.
    pub(crate) fn command(self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/bin:/bin".into());
        command.env_clear().env("PATH", path).env("LC_ALL", "C").current_dir("/").process_group(0).stdin(Stdio::null());
        if let Self(Some((uid, gid))) = self {
            command.uid(uid.as_raw()).gid(gid.as_raw());
        }
        command
    }

    /// Gives what we have just made to that account.
    ///
    /// # Errors
    /// We may not.
    pub(crate) fn own(self, path: &Path) -> io::Result<()> {
        match self {
            Self(Some((uid, gid))) => chown(path, Some(uid.as_raw()), Some(gid.as_raw())),
            Self(None) => Ok(()),
        }
    }

    /// Whether that account can get at a folder of its own.
    pub(crate) fn reaches(self, folder: &Path) -> bool {
        self.command("test").arg("-w").arg(folder).status().is_ok_and(|status| status.success())
    }
}
