//! Typed ids, so that a user's id cannot be passed for an application's.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, sqlx::Type)]
        #[serde(transparent)]
        #[sqlx(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse().map(Self)
            }
        }
    };
}

uuid_id!(
    /// A tenant.
    TenantId
);
uuid_id!(
    /// A person: the `sub` of that person's tokens.
    UserId
);
uuid_id!(
    /// An application: the `client_id`, and the `sub` of tokens that no person stands behind.
    ApplicationId
);
uuid_id!(
    /// An audience: a downstream service with its own shape of token.
    AudienceId
);
uuid_id!(
    /// A token: its `jti`.
    TokenId
);
uuid_id!(
    /// A status list.
    StatusListId
);

uuid_id!(
    /// A token family: a login's chain of refresh tokens, and the `sid` of its access tokens.
    FamilyId
);
uuid_id!(
    /// A browser session.
    SessionId
);

uuid_id!(
    /// A connection to another's provider or directory.
    ConnectionId
);

uuid_id!(
    /// A request for a developer key.
    KeyRequestId
);

/// The public half of an API key. Unique over all tenants, so it names its tenant.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, sqlx::Type)]
#[serde(transparent)]
#[sqlx(transparent)]
pub struct KeyId(String);

impl KeyId {
    /// Longest id that is accepted, in characters.
    pub const MAX_LENGTH: usize = 128;

    /// Accepts 1 to 128 of `A-Z a-z 0-9 . _ ~ -`: our own form and those of imported keys.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (1..=Self::MAX_LENGTH).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'~' | b'-'));
        fits.then(|| Self(text.to_owned()))
    }

    /// The id as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Who owns an API key: never both, never neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(tag = "kind", content = "id", rename_all = "lowercase")]
pub enum Owner {
    /// An application of the tenant.
    Application(ApplicationId),
    /// A person.
    User(UserId),
}

impl fmt::Display for Owner {
    /// As the audit trail writes it: `application:…` or `user:…`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Application(id) => write!(f, "application:{id}"),
            Self::User(id) => write!(f, "user:{id}"),
        }
    }
}
