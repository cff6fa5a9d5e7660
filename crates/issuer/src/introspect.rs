//! Is this token good right now? (RFC 7662)

use std::sync::Arc;

use claviger_verifier::AccessToken;

use crate::caller::{Caller, For, Principal, VerifiedToken};
use crate::{Failure, Issuer, Refusal};

/// Lets a caller ask about any token of the tenant; without it, about its own.
const ANY_TOKEN: &str = "tokens:introspect";

impl Issuer {
    /// `None` for whatever is not an active access token that this caller may ask about: it never learns which.
    pub async fn introspect(&self, caller: &Caller, token: &str) -> Result<Option<AccessToken>, Failure> {
        let now = self.clock.now();
        let verified = match self.verify_token(Some(caller.tenant()), token, For::Anybody, now).await {
            Ok(verified) => verified,
            Err(Failure::Refusal(Refusal::InvalidToken(_))) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let VerifiedToken { principal, scopes, token, .. } = verified;
        if !caller.scopes.contains(ANY_TOKEN) && !is_own(caller, &principal) {
            return Ok(None);
        }
        // As it is now, not as it was when the token was made.
        let mut token = Arc::unwrap_or_clone(token);
        token.scope = scopes.to_vec();
        if let Principal::Person(person) = &principal {
            let roles = &person.user()?.roles;
            token.roles.retain(|role| roles.contains(role));
        }
        Ok(Some(token))
    }
}

/// A key's own tokens, and a person's own.
pub(crate) fn is_own(caller: &Caller, principal: &Principal) -> bool {
    match (&caller.principal, principal) {
        (Principal::Key(caller), Principal::Key(key)) => caller.entry.key.id == key.entry.key.id,
        (Principal::Person(_), Principal::Person(_)) => caller.principal.subject() == principal.subject(),
        _ => false,
    }
}
