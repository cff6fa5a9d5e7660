//! How keeping and finding can fail.

use crate::private_postgres::PostgresError;

/// A failure of the database, or of what it holds. None of these may ever count as a "no": the answer is unknown.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database did not answer, or answered with an error.
    #[error("the database did not do its work: {0}")]
    Database(#[from] sqlx::Error),
    /// The database's host did not answer in time.
    #[error("the database did not answer in time")]
    TooSlow,
    /// The schema could not be brought to this program's version.
    #[error("the schema could not be migrated (a trial run of an older build is helped by removing its data directory): {0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The private cluster of a trial run could not be used.
    #[error(transparent)]
    PrivatePostgres(#[from] PostgresError),
    /// A row that no version of this program writes.
    #[error("the table {table} holds an impossible row: {what}")]
    ImpossibleRow {
        /// The table.
        table: &'static str,
        /// What is wrong with it, without its content.
        what: String,
    },
    /// The database role could step over the tenant wall.
    #[error(
        "the database login can bypass row-level security ({why}); give DATABASE_URL a login that is a member of \
         claviger_app and nothing more, and keep the owner's login in CLAVIGER_MIGRATION_URL"
    )]
    RoleTooStrong {
        /// Which property of the role.
        why: &'static str,
    },
    /// The schema is older than this program can serve.
    #[error("the database schema is at version {found}, this program serves version {wanted}: run `claviger migrate`")]
    SchemaVersion {
        /// What the database says.
        found: i64,
        /// What this program was built with.
        wanted: i64,
    },
    /// The schema is so much newer that it has lost what this program reads.
    #[error(
        "the database schema (version {found}) is for programs that know migration {needed}, and this one ends with {ours}: \
         start a newer claviger"
    )]
    SchemaContracted {
        /// What the database says.
        found: i64,
        /// The migration that a program must know.
        needed: i64,
        /// The newest that this program knows.
        ours: i64,
    },
}

impl StoreError {
    /// The name of the unique constraint that refused a write, if that is what happened.
    #[must_use]
    pub fn unique_violation(&self) -> Option<&str> {
        match self {
            Self::Database(sqlx::Error::Database(error)) if error.is_unique_violation() => error.constraint(),
            _ => None,
        }
    }
}
