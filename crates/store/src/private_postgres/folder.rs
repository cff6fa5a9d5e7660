//! Where the cluster is kept.
//!
//! ```text
//! <data-dir>/postgres/        belongs to whoever runs claviger
//!     data/                   the cluster (data.init while it is being made)
//!     run/                    the Unix socket
//!     log/                    what the server says
//!     users.lock              shared by every process that uses the cluster
//!     start.lock              exclusive while one of them starts or stops it
//!     watched.lock            exclusive while a watcher waits for the last user to go
//! ```
//!
//! When root runs claviger, `data`, `run`, `log` and the locks belong to the account that runs Postgres, but the
//! folder itself does not: the account can then not lead root astray with links of its own making.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::unistd::{Uid, mkdtemp};

use super::account::{Account, user_name};
use super::{PORT, PostgresError};

/// Where root keeps clusters whose account cannot reach the data directory.
const REACHABLE: &str = "/var/lib/claviger";

/// A Unix socket's address holds 108 bytes, the closing zero included.
const LONGEST_SOCKET_PATH: usize = 107;

/// The start of the name of a socket directory outside the folder.
const SHORT_SOCKET_DIR: &str = "/tmp/claviger-";

/// The folder of one cluster, all symbolic links resolved.
#[derive(Debug)]
pub(super) struct Folder {
    pub(super) path: PathBuf,
    pub(super) account: Account,
}

impl Folder {
    /// Finds or makes `<data_dir>/postgres`.
    pub(super) fn prepare(data_dir: &Path) -> Result<Self, PostgresError> {
        let root = nix::unistd::geteuid().is_root();
        DirBuilder::new()
            .recursive(true)
            .mode(if root { 0o711 } else { 0o700 })
            .create(data_dir)
            .map_err(PostgresError::file("create", data_dir))?;
        let data_dir = fs::canonicalize(data_dir).map_err(PostgresError::file("find", data_dir))?;
        let entry = data_dir.join("postgres");
        let account = Account::choose(&entry)?;
        if fs::symlink_metadata(&entry).is_err() {
            match account.barrier(&data_dir)? {
                None => make_directory(&entry, if root { 0o711 } else { 0o700 })?,
                Some(barrier) => place_elsewhere(&data_dir, &entry, &barrier, &account)?,
            }
        }
        let path = match fs::canonicalize(&entry) {
            Ok(path) => path,
            Err(error) => {
                let target = fs::read_link(&entry).map_err(|_| PostgresError::file("find", &entry)(error))?;
                return Err(PostgresError::Dangling { link: entry, target });
            }
        };
        if let Some(directory) = account.barrier(&path)? {
            return Err(PostgresError::Unreachable { account: account.name, directory });
        }
        Ok(Self { path, account })
    }

    pub(super) fn data(&self) -> PathBuf {
        self.path.join("data")
    }

    /// Where a cluster is made; it becomes `data` when it is complete.
    pub(super) fn unfinished(&self) -> PathBuf {
        self.path.join("data.init")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.path.join("log").join("postgres.log")
    }

    pub(super) fn users_lock(&self) -> PathBuf {
        self.path.join("users.lock")
    }

    /// Opens the file of a lock, making it if needed. The file is closed in programs that we start.
    pub(super) fn lock_file(&self, name: &str) -> Result<File, PostgresError> {
        let path = self.path.join(name);
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlag::O_NOFOLLOW.bits())
            .open(&path);
        let file = match opened {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::PermissionDenied => {
                return Err(self.permission_denied(path, error));
            }
            Err(error) => return Err(PostgresError::file("open", path)(error)),
        };
        self.account.own_file(&file).map_err(PostgresError::file("change the owner of", path))?;
        Ok(file)
    }

    fn permission_denied(&self, path: PathBuf, error: std::io::Error) -> PostgresError {
        let owner = fs::metadata(&path).or_else(|_| fs::metadata(&self.path)).map(|found| found.uid());
        match owner {
            Ok(owner) if owner != self.account.uid.as_raw() => {
                PostgresError::ForeignOwner { path, owner: user_name(Uid::from_raw(owner)) }
            }
            _ => PostgresError::file("open", path)(error),
        }
    }

    /// Makes sure that a directory of the account is in the folder.
    pub(super) fn subdirectory(&self, path: &Path) -> Result<(), PostgresError> {
        make_directory(path, 0o700)?;
        // Also when it was there: an earlier run may have ended between the two steps.
        self.account.own(path).map_err(PostgresError::file("change the owner of", path))
    }

    /// The directory for the socket of a server that is about to start.
    pub(super) fn new_socket_dir(&self) -> Result<PathBuf, PostgresError> {
        let usual = self.path.join("run");
        if socket(&usual).as_os_str().len() <= LONGEST_SOCKET_PATH {
            self.subdirectory(&usual)?;
            return Ok(usual);
        }
        // The server's own pid file records the place for those who come later.
        let template = format!("{SHORT_SOCKET_DIR}XXXXXX");
        let made =
            mkdtemp(template.as_str()).map_err(|errno| PostgresError::file("create a directory like", template)(errno.into()))?;
        self.account.own(&made).map_err(PostgresError::file("change the owner of", &made))?;
        Ok(made)
    }

    /// True when nobody but the account (and root) can have put a socket into `directory`.
    pub(super) fn trusts_socket_dir(&self, directory: &Path) -> bool {
        fs::symlink_metadata(directory)
            .is_ok_and(|found| found.is_dir() && found.uid() == self.account.uid.as_raw() && found.mode() & 0o077 == 0)
    }

    /// Removes what a server that is no more has left in its socket directory, and the directory if it was not
    /// the folder's own.
    pub(super) fn sweep_socket_dir(&self, directory: &Path) {
        if !self.trusts_socket_dir(directory) {
            return;
        }
        let socket = socket(directory);
        let mut lock = socket.clone().into_os_string();
        lock.push(".lock");
        // Usually the server has removed them itself.
        let _ = fs::remove_file(&socket);
        let _ = fs::remove_file(lock);
        if directory.as_os_str().as_bytes().starts_with(SHORT_SOCKET_DIR.as_bytes()) {
            let _ = fs::remove_dir(directory);
        }
    }
}

/// The socket within its directory.
pub(super) fn socket(directory: &Path) -> PathBuf {
    directory.join(format!(".s.PGSQL.{PORT}"))
}

/// Makes one directory with exactly this mode. One that another process has just made serves as well.
fn make_directory(path: &Path, mode: u32) -> Result<(), PostgresError> {
    match DirBuilder::new().mode(mode).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(mode)).map_err(PostgresError::file("set the mode of", path)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(PostgresError::file("create", path)(error)),
    }
}

/// Makes the folder where the account can reach it and leaves a link in the data directory.
///
/// The name is new each time, so that a data directory which was deleted and made anew does not find old data.
fn place_elsewhere(data_dir: &Path, link: &Path, barrier: &Path, account: &Account) -> Result<(), PostgresError> {
    DirBuilder::new().recursive(true).mode(0o711).create(REACHABLE).map_err(PostgresError::file("create", REACHABLE))?;
    let template = Path::new(REACHABLE).join(format!("{}-XXXXXX", sanitized(data_dir)));
    let made = mkdtemp(&template).map_err(|errno| PostgresError::file("create", &template)(errno.into()))?;
    fs::set_permissions(&made, Permissions::from_mode(0o711)).map_err(PostgresError::file("set the mode of", &made))?;
    match symlink(&made, link) {
        Ok(()) => {
            tracing::info!(
                postgres.account = %account.name,
                "the account {} may not enter {}, so the private Postgres is kept in {}, and {} leads there",
                account.name, barrier.display(), made.display(), link.display(),
            );
            Ok(())
        }
        Err(error) => {
            let _ = fs::remove_dir(&made);
            // Another process was faster: its folder serves both.
            if error.kind() == ErrorKind::AlreadyExists {
                return Ok(());
            }
            Err(PostgresError::file("create the link", link)(error))
        }
    }
}

/// The data directory's path as part of a file name that tells an operator where it belongs.
fn sanitized(path: &Path) -> String {
    let text = path.to_string_lossy();
    let plain: String = text.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    plain.trim_matches('-').chars().take(80).collect()
}
