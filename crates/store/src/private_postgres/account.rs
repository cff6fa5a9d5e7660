//! Who runs Postgres: this user, or an unprivileged account when this user is root.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::{Gid, Uid, User, getegid, geteuid};

use super::PostgresError;

/// The account under which every program of the cluster runs.
#[derive(Debug, Clone)]
pub(super) struct Account {
    pub(super) uid: Uid,
    gid: Gid,
    pub(super) name: String,
    /// True when this process is root and has to become the account.
    pub(super) dropped: bool,
}

impl Account {
    /// An ordinary user runs Postgres as itself. For root it is, in this order, the owner of the data that `folder`
    /// already holds, the account named in `CLAVIGER_POSTGRES_USER`, `postgres`, and `nobody`.
    pub(super) fn choose(folder: &Path) -> Result<Self, PostgresError> {
        let uid = geteuid();
        if !uid.is_root() {
            let name = user_name(uid);
            return Ok(Self { uid, gid: getegid(), name, dropped: false });
        }
        let owner = [folder.join("data"), folder.to_path_buf()]
            .iter()
            .filter_map(|path| fs::metadata(path).ok())
            .find(|found| found.uid() != 0);
        if let Some(owner) = owner {
            let uid = Uid::from_raw(owner.uid());
            let name = user_name(uid);
            return Ok(Self { uid, gid: Gid::from_raw(owner.gid()), name, dropped: true });
        }
        if let Some(name) = std::env::var("CLAVIGER_POSTGRES_USER").ok().filter(|name| !name.is_empty()) {
            return Self::unprivileged(&name).ok_or_else(|| PostgresError::NoAccount {
                reason: format!("CLAVIGER_POSTGRES_USER names {name}, which is not an unprivileged account here"),
            });
        }
        ["postgres", "nobody"]
            .into_iter()
            .find_map(Self::unprivileged)
            .ok_or_else(|| PostgresError::NoAccount { reason: "neither an account `postgres` nor `nobody` exists".into() })
    }

    fn unprivileged(name: &str) -> Option<Self> {
        let user = User::from_name(name).ok().flatten().filter(|user| !user.uid.is_root())?;
        Some(Self { uid: user.uid, gid: user.gid, name: user.name, dropped: true })
    }

    /// A command that runs as the account, in a process group of its own, so that a terminal's ^C does not reach it,
    /// without our environment (it may hold secrets, and `PG*` variables would change what the programs do), and
    /// without our terminal.
    pub(super) fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env_clear();
        let path = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
        command.env("PATH", path).env("LC_ALL", "C");
        for name in ["LANG", "TZ"] {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        // The account may be unable to enter our own directory; every directory is open to it by absolute path.
        command.current_dir("/").process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        if self.dropped {
            // Setting the user also drops root's supplementary groups.
            command.uid(self.uid.as_raw()).gid(self.gid.as_raw());
        }
        command
    }

    /// Runs a shell script as the account and returns what it printed.
    pub(super) fn ask_shell<A: AsRef<std::ffi::OsStr>>(
        &self,
        script: &str,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Vec<u8>, PostgresError> {
        let output = self
            .command("/bin/sh")
            .args(["-c", script, "sh"])
            .args(arguments)
            .stdout(Stdio::piped())
            .output()
            .map_err(|source| PostgresError::Program { program: "/bin/sh".into(), source })?;
        Ok(output.stdout)
    }

    /// The first directory from the root down to `path` that the account may not enter.
    pub(super) fn barrier(&self, path: &Path) -> Result<Option<PathBuf>, PostgresError> {
        if !self.dropped {
            return Ok(None);
        }
        // Asked of the kernel rather than computed from mode bits: access lists and mount options count too.
        let script = r#"for d in "$@"; do [ -x "$d" ] || { printf %s "$d"; exit; }; done"#;
        let ancestors: Vec<_> = path.ancestors().collect();
        let found = self.ask_shell(script, ancestors.into_iter().rev())?;
        Ok((!found.is_empty()).then(|| PathBuf::from(String::from_utf8_lossy(&found).into_owned())))
    }

    /// Makes the account the owner of `path`, which this process has just made.
    pub(super) fn own(&self, path: &Path) -> io::Result<()> {
        if self.dropped {
            lchown(path, Some(self.uid.as_raw()), Some(self.gid.as_raw()))?;
        }
        Ok(())
    }

    /// Makes the account the owner of an open file.
    pub(super) fn own_file(&self, file: &fs::File) -> io::Result<()> {
        if self.dropped && file.metadata()?.uid() != self.uid.as_raw() {
            std::os::unix::fs::fchown(file, Some(self.uid.as_raw()), Some(self.gid.as_raw()))?;
        }
        Ok(())
    }
}

/// The user's name, or its number when it has none (usual in containers).
pub(super) fn user_name(uid: Uid) -> String {
    User::from_uid(uid).ok().flatten().map_or_else(|| uid.to_string(), |user| user.name)
}
