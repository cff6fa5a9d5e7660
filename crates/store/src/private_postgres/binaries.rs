//! Where the server programs are.
//!
//! Order: the directory that was named, `CLAVIGER_POSTGRES_BIN`, `pg_config --bindir`, `PATH`, then the places where
//! distributions install Postgres, newest version first. A cluster that already exists needs its own major version,
//! so a later candidate of that version is preferred to an earlier one of another.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use super::PostgresError;
use super::account::Account;

/// The major versions that are supported.
const SUPPORTED: std::ops::RangeInclusive<u32> = 14..=18;

/// Where distributions put the programs: parent, start of the versioned directory's name, directory below it.
const INSTALLED: [(&str, &str, &str); 7] = [
    ("/usr/lib/postgresql", "", "bin"),
    ("/usr", "pgsql-", "bin"),
    ("/usr/local", "pgsql", "bin"),
    ("/opt/homebrew/opt", "postgresql@", "bin"),
    ("/usr/local/opt", "postgresql@", "bin"),
    ("/usr/libexec", "postgresql", ""),
    ("/usr/libexec", "postgresql", "bin"),
];

/// A directory with `postgres` and `initdb` of a supported version.
#[derive(Debug)]
pub(super) struct Binaries {
    directory: PathBuf,
    major: u32,
}

impl Binaries {
    pub(super) fn postgres(&self) -> PathBuf {
        self.directory.join("postgres")
    }

    pub(super) fn initdb(&self) -> PathBuf {
        self.directory.join("initdb")
    }

    /// Looks the programs up. `data` is where the cluster is, if it was made already.
    pub(super) fn find(account: &Account, named: Option<&Path>, data: Option<&Path>) -> Result<Self, PostgresError> {
        let wanted = match data {
            Some(data) => Some((data, cluster_version(data)?)),
            None => None,
        };
        let setting = std::env::var_os("CLAVIGER_POSTGRES_BIN").filter(|value| !value.is_empty()).map(PathBuf::from);
        let named = named.map(Path::to_path_buf).or(setting);
        let candidates = match &named {
            Some(directory) => vec![directory.clone()],
            None => candidates(account),
        };

        let mut seen = BTreeSet::new();
        let mut other_versions = BTreeSet::new();
        let mut rejected = Vec::new();
        for candidate in candidates {
            let found = match Self::examine(account, &candidate) {
                Ok(found) => found,
                Err(reason) => {
                    rejected.push((candidate, reason));
                    continue;
                }
            };
            if !seen.insert(found.directory.clone()) {
                continue;
            }
            match &wanted {
                Some((_, version)) if *version != found.major.to_string() => {
                    other_versions.insert(found.major);
                }
                _ => return Ok(found),
            }
        }

        if let (Some((data, cluster)), false) = (wanted, other_versions.is_empty()) {
            let found: Vec<_> = other_versions.iter().map(u32::to_string).collect();
            return Err(PostgresError::WrongMajor { data: data.into(), cluster, found: found.join(", ") });
        }
        match (named, rejected.pop()) {
            (Some(directory), Some((_, reason))) => Err(PostgresError::UnusableBinaries { directory, reason }),
            (_, last) => {
                rejected.extend(last);
                Err(PostgresError::NoBinaries { rejected: describe(&rejected) })
            }
        }
    }

    /// The programs in `directory`, or why they do not serve.
    fn examine(account: &Account, directory: &Path) -> Result<Self, String> {
        // Symbolic links are followed, because the programs find each other and their files from their real place.
        let postgres = fs::canonicalize(directory.join("postgres")).map_err(|_| "it has no `postgres`".to_owned())?;
        let directory = postgres.parent().ok_or("it has no `postgres`")?.to_path_buf();
        if !directory.join("initdb").exists() {
            return Err("it has no `initdb`".into());
        }
        // Asked as the account that will run it, which may be unable to reach a directory that root can.
        let output = account
            .command(&postgres)
            .arg("--version")
            .stdout(Stdio::piped())
            .output()
            .map_err(|error| format!("`postgres` cannot be run by the account {}: {error}", account.name))?;
        let said = String::from_utf8_lossy(&output.stdout);
        match major(&said) {
            Some(major) if SUPPORTED.contains(&major) => Ok(Self { directory, major }),
            Some(major) => Err(format!("it is version {major}")),
            None => Err("`postgres --version` does not name a version".into()),
        }
    }
}

/// The major version in the output of `postgres --version`.
fn major(said: &str) -> Option<u32> {
    let version = said.strip_prefix("postgres (PostgreSQL) ")?;
    let end = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version.get(..end)?.parse().ok()
}

/// The major version that made the cluster.
fn cluster_version(data: &Path) -> Result<String, PostgresError> {
    let file = data.join("PG_VERSION");
    let version = fs::read_to_string(&file).map_err(PostgresError::file("read", &file))?;
    Ok(version.trim().to_owned())
}

/// Every directory worth a look, in order of preference.
fn candidates(account: &Account) -> Vec<PathBuf> {
    let mut found = Vec::new();
    // pg_config comes with the client library too, so its directory may hold no server.
    let pg_config = account.command("pg_config").arg("--bindir").stdout(Stdio::piped()).output();
    if let Ok(output) = pg_config {
        found.push(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()));
    }
    if let Some(path) = std::env::var_os("PATH") {
        found.extend(std::env::split_paths(&path).filter(|directory| directory.join("postgres").exists()));
    }
    for (parent, prefix, below) in INSTALLED {
        found.extend(installed(Path::new(parent), prefix, below));
    }
    // A relative directory would mean something else to a program that runs elsewhere.
    found.retain(|directory| directory.is_absolute());
    found
}

/// The directories `parent/prefix<version>/below`, newest version first; a missing version counts as the oldest.
fn installed(parent: &Path, prefix: &str, below: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(parent) else {
        return Vec::new();
    };
    let mut found: Vec<(u32, PathBuf)> = entries
        .flatten()
        .filter_map(|entry| {
            let name = entry.file_name();
            let version = name.to_str()?.strip_prefix(prefix)?;
            let version = if version.is_empty() { 0 } else { version.parse().ok()? };
            let directory = entry.path().join(below);
            directory.join("postgres").exists().then_some((version, directory))
        })
        .collect();
    found.sort_unstable_by(|a, b| b.cmp(a));
    found.into_iter().map(|(_, directory)| directory).collect()
}

fn describe(rejected: &[(PathBuf, String)]) -> String {
    if rejected.is_empty() {
        return String::new();
    }
    let lines: Vec<_> = rejected.iter().map(|(at, reason)| format!("{}: {reason}", at.display())).collect();
    format!(" ({})", lines.join("; "))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    #[test]
    fn the_major_version_is_read_from_what_postgres_says() {
        assert_eq!(major("postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)\n"), Some(15));
        assert_eq!(major("postgres (PostgreSQL) 18beta2\n"), Some(18));
        assert_eq!(major("postgres (PostgreSQL) 9.6.24\n"), Some(9));
        assert_eq!(major("postgres (PostgreSQL) 17"), Some(17));
        assert_eq!(major("bash: postgres: not found"), None);
        assert_eq!(major(""), None);
    }

    #[test]
    fn the_newest_installed_version_comes_first() {
        let parent = tempfile::tempdir().unwrap();
        for version in ["9", "14", "17", "main"] {
            let bin = parent.path().join(version).join("bin");
            fs::create_dir_all(&bin).unwrap();
            fs::write(bin.join("postgres"), "").unwrap();
        }
        fs::create_dir_all(parent.path().join("18/bin")).unwrap();
        let found = installed(parent.path(), "", "bin");
        let expected: Vec<_> = ["17", "14", "9"].iter().map(|v| parent.path().join(v).join("bin")).collect();
        assert_eq!(found, expected, "18 has no server, main is no version");
    }
}
