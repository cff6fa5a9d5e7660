//! Is this token good right now? (RFC 7662)

use chrono::DateTime;
use claviger_store::id::TokenId;
use claviger_verifier::AccessToken;

use crate::caller::Caller;
use crate::{Failure, Issuer, Refusal};

/// Lets a caller ask about any token of the tenant; without it, about those of its own key.
const ANY_TOKEN: &str = "tokens:introspect";

impl Issuer {
    /// `None` for whatever is not an active token that this caller may ask about: it never learns which.
    pub async fn introspect(&self, caller: &Caller, token: &str) -> Result<Option<AccessToken>, Failure> {
        let now = self.clock.now();
        let (key, mut token) = match self.verify_token(Some(&caller.key.tenant), token, now).await {
            Ok(verified) => verified,
            Err(Failure::Refusal(Refusal::InvalidToken(_))) => return Ok(None),
            Err(failure) => return Err(failure),
        };
        let asked = &key.entry.key.id;
        if !caller.scopes.contains(ANY_TOKEN) && caller.key.entry.key.id != *asked {
            return Ok(None);
        }
        // Our signature alone does not do: the record must know it.
        let (Ok(id), Some(expires_at)) = (token.token_id.parse(), DateTime::from_timestamp(token.expires_at, 0)) else {
            return Ok(None);
        };
        let mut tx = self.store.begin_in(key.entry.tenant).await?;
        let recorded = tx.tenant(key.entry.tenant).await?.issued_token_key(TokenId(id), expires_at).await?;
        // What the token was granted, as far as the key still holds it.
        token.scope.retain(|scope| key.scopes().contains(scope));
        Ok((recorded.as_ref() == Some(asked)).then_some(token))
    }
}
