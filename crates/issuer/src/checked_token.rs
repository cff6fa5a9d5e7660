//! Tokens whose signature held a moment ago. A signature that holds under a key holds under it for ever, so it is checked
//! once; all that can change about a token is asked each time, by whoever finds it here.

use std::sync::{Arc, Weak};

use claviger_verifier::AccessToken;
use moka::sync::Cache;
use sha2::{Digest as _, Sha256};

use crate::caller::For;
use crate::directory::TenantEntry;

/// Tokens that are remembered, of about a kilobyte each.
const CAPACITY: u64 = 20_000;

/// A token by its hash: what is remembered cannot be presented. With it goes whom it was asked about for: under an audience's
/// own key a signature holds for some questions only, and what held for one is not taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct TokenHash([u8; 32], For);

impl TokenHash {
    pub(crate) fn of(token: &str, whose: For) -> Self {
        Self(Sha256::digest(token).into(), whose)
    }
}

/// What a token says, and the tenant under whose keys its signature held.
#[derive(Clone)]
pub(crate) struct CheckedToken {
    token: Arc<AccessToken>,
    /// Weak, so that keys that are retired do not stay in memory.
    under: Weak<TenantEntry>,
}

impl CheckedToken {
    pub(crate) fn issuer(&self) -> &str {
        &self.token.issuer
    }

    /// What the token says, if its signature held under this very entry: when a tenant or a key of it changes, its entry is
    /// another one. Whether the token is good now is not judged.
    pub(crate) fn under(&self, entry: &Arc<TenantEntry>) -> Option<&Arc<AccessToken>> {
        // While there is a weak one, no other entry can be at its place.
        std::ptr::eq(self.under.as_ptr(), Arc::as_ptr(entry)).then_some(&self.token)
    }
}

/// The memory.
pub(crate) struct CheckedTokens(Cache<TokenHash, CheckedToken>);

impl CheckedTokens {
    pub(crate) fn new() -> Self {
        Self(Cache::builder().max_capacity(CAPACITY).build())
    }

    pub(crate) fn get(&self, hash: &TokenHash) -> Option<CheckedToken> {
        self.0.get(hash)
    }

    /// Remembers a token whose signature holds under that entry.
    pub(crate) fn keep(&self, hash: TokenHash, token: AccessToken, entry: &Arc<TenantEntry>) -> Arc<AccessToken> {
        let token = Arc::new(token);
        self.0.insert(hash, CheckedToken { token: token.clone(), under: Arc::downgrade(entry) });
        token
    }
}
