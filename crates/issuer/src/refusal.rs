//! The two kinds of failure: a refusal may be told, a fault may not.

use claviger_store::StoreError;

use crate::oidc::Declined;

/// A "no" that the caller may hear, and act on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Absent, or somebody else's: the two are one answer.
    #[error("there is no such thing here")]
    NotFound,
    /// The pair of key and secret is not a valid one. Why is for the audit trail alone.
    #[error("the key and secret are not valid")]
    InvalidPair,
    /// Plain http, where the tenant wants https.
    #[error("this is answered over https only")]
    HttpsRequired,
    /// Too many failures.
    #[error("too many failed attempts; try again in {retry_after} seconds")]
    Throttled {
        /// Seconds until the next attempt is looked at.
        retry_after: u64,
    },
    /// The key may not be used from there, or in that way.
    #[error("the key may not be used so: {0}")]
    KeyLimit(&'static str),
    /// The key's rate limit or quota is used up.
    #[error("the key's {} is used up; try again in {retry_after} seconds", if *.reason == "rate_limited" { "rate limit" } else { "quota" })]
    UsedUp {
        /// `rate_limited` or `quota_exhausted`.
        reason: &'static str,
        /// Seconds until there is more.
        retry_after: u64,
    },
    /// More was asked for than was granted (RFC 6749 §5.2).
    #[error("the key does not hold the scope `{0}`")]
    InvalidScope(String),
    /// A token was asked for somebody whom the tenant does not list (RFC 8707 §2).
    #[error("the resource is neither the issuer nor one of the tenant's `resources`")]
    InvalidTarget,
    /// Username and password are not those of somebody who may log in. Why is for the audit trail alone.
    #[error("the username or password is wrong")]
    WrongLogin,
    /// A refresh token that may not be used (RFC 6749 §5.2 `invalid_grant`).
    #[error("the refresh token cannot be used")]
    InvalidGrant {
        /// What may be told of why.
        why: Option<GrantRefused>,
    },
    /// A key, where only a person has what is asked about.
    #[error("this is about a person who logged in, and the caller is a key")]
    NotAPerson,
    /// Whoever acts for another does not do this in their name.
    #[error("this is not done in another's name")]
    ActingForAnother,
    /// What was to be exchanged for another token is no ground for one (RFC 8693 §2.2.2).
    #[error("this cannot be exchanged: {0}")]
    NotExchangeable(&'static str),
    /// The browser's session is over, or was never there.
    #[error("nobody is signed in")]
    NoSession,
    /// Somebody does not get in through a connection.
    #[error("the login through the connection is refused: {}", .0.reason())]
    Upstream(Declined),
    /// No credentials, where some are needed.
    #[error("credentials are needed")]
    Unauthenticated,
    /// Credentials that do not hold (RFC 6750 §3.1 `invalid_token`).
    #[error("the access token is not valid: {0}")]
    InvalidToken(&'static str),
    /// Good credentials that hold too little (RFC 6750 §3.1 `insufficient_scope`).
    #[error("this needs the scope `{0}`, which the caller does not hold")]
    InsufficientScope(String),
    /// It would break a rule that must stay unique or unchanged.
    #[error("{0}")]
    Conflict(String),
    /// A field of the request is wrong.
    #[error("`{field}` {problem}")]
    Invalid {
        /// The field's name, as the caller wrote it.
        field: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

/// What may be told of why a refresh token cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GrantRefused {
    /// Its family was ended because one of its tokens was used a second time.
    Reused,
    /// Another request used it at the same time, and its successor was used already: the newest one is good.
    Superseded,
}

impl Refusal {
    /// A field that is wrong.
    pub fn invalid(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Invalid { field, problem: problem.into() }
    }
}

/// We broke, or something that we stand on did. Logged with its chain; the caller hears a request id.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The database did not do its work: the outcome is unknown.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// More work is waiting than will be done in time.
    #[error("{0} has more work waiting than it can do in time")]
    Overloaded(&'static str),
    /// Something was handed over to be written, and nobody can say whether it was.
    #[error("it is not known whether {0} was written")]
    Unknown(&'static str),
    /// A provider or directory that a tenant named is away, or answers nothing that is of use: why is for the log alone.
    #[error("what was asked of another gave nothing of use: {0}")]
    Upstream(String),
    /// Something that cannot happen did.
    #[error("{0}")]
    Internal(String),
}

/// Why a flow did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Tell the caller.
    #[error(transparent)]
    Refusal(#[from] Refusal),
    /// Log it, and tell the caller that the outcome is unknown.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Fault(Fault::Store(error))
    }
}
