//! Scopes: `resource:action`, and sets of them.

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;

use crate::Refusal;

/// The scopes of our own management routes. Whoever hands one out must hold it.
pub const MANAGEMENT: [&str; 23] = [
    "applications:read",
    "applications:write",
    "audiences:read",
    "audiences:write",
    "audit:read",
    "connections:read",
    "connections:write",
    "keys:read",
    "keys:write",
    "revocations:read",
    "roles:read",
    "roles:write",
    "signing-keys:read",
    "signing-keys:write",
    "tenants:read",
    "tenants:write",
    "tokens:exchange",
    "tokens:introspect",
    "tokens:upstream",
    "users:impersonate",
    "users:read",
    "users:write",
    VERIFY,
];

/// Lets a resource server ask about credentials that it was presented with. The one scope that is a single word.
pub const VERIFY: &str = "verify";

/// Most scopes that one key may hold.
pub const MOST_SCOPES: usize = 100;

/// A set of scopes, in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ScopeSet(BTreeSet<String>);

/// `resource:action`: at most 48 letters, digits, `_`, `.` and `-` on both sides, case kept; or [`VERIFY`]. No wildcard.
#[must_use]
pub fn is_scope(text: &str) -> bool {
    text == VERIFY || text.split_once(':').is_some_and(|(resource, action)| is_side(resource) && is_side(action))
}

/// Shorter than any secret of ours: a pair that was put into the wrong field is no scope.
pub(crate) fn is_side(side: &str) -> bool {
    (1..=48).contains(&side.len()) && side.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

impl FromIterator<String> for ScopeSet {
    fn from_iter<I: IntoIterator<Item = String>>(scopes: I) -> Self {
        Self(scopes.into_iter().collect())
    }
}

impl ScopeSet {
    /// The scopes that a key is to hold.
    pub fn granted<S: AsRef<str>>(scopes: &[S]) -> Result<Self, Refusal> {
        if scopes.len() > MOST_SCOPES {
            return Err(Refusal::invalid("scopes", format!("a key holds at most {MOST_SCOPES} scopes")));
        }
        scopes
            .iter()
            .map(|scope| match scope.as_ref() {
                scope if is_scope(scope) => Ok(scope.to_owned()),
                _ => Err(Refusal::invalid(
                    "scopes",
                    "a scope is `resource:action`, each of at most 48 letters, digits, `_`, `.` and `-`; there is no wildcard",
                )),
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// What was kept. Already checked when it was granted.
    #[must_use]
    pub fn kept(scopes: &[String]) -> Self {
        Self(scopes.iter().cloned().collect())
    }

    /// The rule of every narrowing: what is asked must be held, and what is not asked for is all that is held.
    /// `requested` is space-separated (RFC 6749 §3.3).
    pub fn narrow(&self, requested: Option<&str>) -> Result<Cow<'_, Self>, Refusal> {
        let Some(requested) = requested else { return Ok(Cow::Borrowed(self)) };
        requested
            .split(' ')
            .filter(|scope| !scope.is_empty())
            .map(|scope| match self.contains(scope) {
                true => Ok(scope.to_owned()),
                false => Err(Refusal::InvalidScope(scope.chars().filter(|c| c.is_ascii_graphic()).take(129).collect())),
            })
            .collect::<Result<_, _>>()
            .map(|scopes| Cow::Owned(Self(scopes)))
    }

    /// What both hold.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(self.0.intersection(&other.0).cloned().collect())
    }

    /// True when it holds the scope.
    #[must_use]
    pub fn contains(&self, scope: &str) -> bool {
        self.0.contains(scope)
    }

    /// True when it holds none: then nothing is allowed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(String::as_str)
    }

    /// As a list, for the store.
    #[must_use]
    pub fn to_vec(&self) -> Vec<String> {
        self.0.iter().cloned().collect()
    }
}

impl fmt::Display for ScopeSet {
    /// Space-separated, as a token carries it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, scope) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(scopes: &[&str]) -> ScopeSet {
        ScopeSet::granted(scopes).unwrap()
    }

    #[test]
    fn asking_for_nothing_gives_all_that_is_held() {
        assert_eq!(set(&["a:b", "c:d"]).narrow(None).unwrap().to_string(), "a:b c:d");
    }

    #[test]
    fn an_empty_request_gives_nothing() {
        assert!(set(&["a:b"]).narrow(Some("")).unwrap().is_empty());
        assert!(set(&["a:b"]).narrow(Some("   ")).unwrap().is_empty());
    }

    #[test]
    fn p27_scope_games_are_refused() {
        let held = set(&["events:read"]);
        for asked in
            ["events:write", "*", "events:*", "*:read", "EVENTS:READ", "events:read events:write", "events", "\tevents:read"]
        {
            assert!(matches!(held.narrow(Some(asked)), Err(Refusal::InvalidScope(_))), "{asked}");
        }
        assert_eq!(*held.narrow(Some("events:read events:read")).unwrap(), held);
        assert!(set(&[]).narrow(Some("events:read")).is_err());
        for scope in ["*", "a:*", "a", "a:", ":a", "a:b:c", "a b:c", "ä:b", ""] {
            assert!(ScopeSet::granted(&[scope]).is_err(), "{scope}");
        }
    }
}
