//! What can go wrong with the private Postgres, told to the operator together with the way out.

use std::path::PathBuf;

/// Why the private Postgres could not be found, made or started.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No directory with usable server programs was found.
    #[error(
        "no Postgres server programs were found: `postgres` and `initdb` of version 14 to 18 are needed{rejected}. \
         Install them (Debian, Ubuntu: `apt-get install postgresql`; Fedora: `dnf install postgresql-server`; \
         Alpine: `apk add postgresql`; macOS: `brew install postgresql@17`), or name their directory in \
         CLAVIGER_POSTGRES_BIN, or set DATABASE_URL to a Postgres that already runs"
    )]
    NoBinaries {
        /// What was looked at and why it does not serve; empty, or ` (…)`.
        rejected: String,
    },
    /// The directory that was named explicitly has no usable server programs.
    #[error(
        "the directory {} that was named for the Postgres programs cannot be used: {reason}. Name a directory that \
         holds `postgres` and `initdb` of version 14 to 18, or name none to have one looked up", directory.display()
    )]
    UnusableBinaries {
        /// The directory that was named.
        directory: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The data were written by a major version that is not installed.
    #[error(
        "the database in {} was made by Postgres {cluster}, but only version {found} is installed. Install \
         Postgres {cluster} again (Debian, Ubuntu: `apt-get install postgresql-{cluster}`) and name its bin directory \
         in CLAVIGER_POSTGRES_BIN; or upgrade the data: dump them with version {cluster} (`pg_dumpall`), move the \
         directory away, start once, and load the dump", data.display()
    )]
    WrongMajor {
        /// The directory of the data.
        data: PathBuf,
        /// The version that wrote the data.
        cluster: String,
        /// The versions that are installed.
        found: String,
    },
    /// Running as root, and there is no account to run Postgres as.
    #[error(
        "Postgres refuses to run as root, and {reason}. Create an account for it (`useradd --system postgres`), or \
         name an existing unprivileged one in CLAVIGER_POSTGRES_USER"
    )]
    NoAccount {
        /// Which account was looked for.
        reason: String,
    },
    /// The data belong to somebody else.
    #[error(
        "{} belongs to the user {owner}: run the command as that user or as root, or choose another data directory",
        path.display()
    )]
    ForeignOwner {
        /// What may not be opened.
        path: PathBuf,
        /// The owner's name, or number.
        owner: String,
    },
    /// The account that runs Postgres may not pass a directory on the way to the data.
    #[error(
        "the account {account}, which runs Postgres, may not enter {}: allow it (`chmod o+x {}`) or choose another \
         data directory", directory.display(), directory.display()
    )]
    Unreachable {
        /// The account's name.
        account: String,
        /// The first directory that it may not enter.
        directory: PathBuf,
    },
    /// The data were placed elsewhere and are gone from there.
    #[error(
        "{} leads to {}, where the database was kept and is no longer: bring that directory back, or remove the link \
         to begin with an empty database", link.display(), target.display()
    )]
    Dangling {
        /// The symbolic link in the data directory.
        link: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Another process starts or stops the same cluster and did not finish in time.
    #[error(
        "another process was still {what} the private Postgres in {} after 30 seconds: wait for it and try again; \
         its log is {}", folder.display(), folder.join("log/postgres.log").display()
    )]
    Busy {
        /// What the other one is doing.
        what: &'static str,
        /// The folder of the cluster.
        folder: PathBuf,
    },
    /// `initdb` failed.
    #[error("the private Postgres could not be created in {}; initdb said:\n{output}", data.display())]
    Init {
        /// Where the cluster was to be.
        data: PathBuf,
        /// The last lines of what `initdb` said.
        output: String,
    },
    /// The server ended, or did not accept connections in time.
    #[error("the private Postgres did not start: {reason}. The last lines of its log {}:\n{tail}", log.display())]
    Start {
        /// What happened.
        reason: String,
        /// The log file.
        log: PathBuf,
        /// Its last lines since this start.
        tail: String,
    },
    /// A server that an earlier run left behind does not end.
    #[error(
        "the process {pid} of an earlier run still uses {} and does not end: end it, then try again", data.display()
    )]
    Stuck {
        /// The process.
        pid: i32,
        /// The directory that it uses.
        data: PathBuf,
    },
    /// Neither `flock` nor `perl` is there, and one of them must watch over the server.
    #[error(
        "the private Postgres needs the program `flock` (package util-linux) or `perl`, so that it is stopped when \
         claviger ends: install one of them, or set DATABASE_URL to a Postgres that already runs"
    )]
    NoLockProgram,
    /// A program could not be run.
    #[error("the program {} could not be run: {source}", program.display())]
    Program {
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A file or directory of the cluster could not be used.
    #[error("could not {what} {}: {source}; check the permissions and the free space there", path.display())]
    File {
        /// What was tried, as a verb.
        what: &'static str,
        /// With which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: std::io::Error,
    },
}

impl PostgresError {
    /// For `map_err`: says what was tried with which path.
    pub(super) fn file(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
