//! One-time tickets for WebSockets: what a browser puts into an address, where its token would be logged.

use chrono::TimeDelta;
use claviger_store::api_key::SecretMac;
use claviger_store::ticket::{Holder, Ticket};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;

use crate::audit::append;
use crate::caller::{Caller, Login, Principal};
use crate::directory::TenantEntry;
use crate::secret::new_ticket;
use crate::{Failure, Fault, Issuer, Refusal};

/// Purpose of the digests of tickets.
const KEPT: &str = "websocket ticket";
/// Seconds that a ticket may live.
const LIFE: std::ops::RangeInclusive<u32> = 5..=60;
/// Longest origin, in bytes.
const LONGEST_ORIGIN: usize = 255;

/// An origin as browsers send it (RFC 6454 §7): `https://host` or `https://host:port`, nothing behind it.
fn is_origin(text: &str) -> bool {
    text.len() <= LONGEST_ORIGIN
        && url::Url::parse(text)
            .is_ok_and(|url| matches!(url.scheme(), "https" | "http") && url.origin().ascii_serialization() == text)
}

impl Issuer {
    /// Makes a ticket for a caller: single use, for `lifetime` seconds, for that origin alone if one is named. It holds what
    /// the caller holds, as far as that is still held when it is used.
    pub async fn make_ticket(&self, caller: &Caller, origin: Option<String>, lifetime: u32) -> Result<SecretString, Failure> {
        if !LIFE.contains(&lifetime) {
            return Err(Refusal::invalid("expires_in", "is 5 to 60 seconds").into());
        }
        if origin.as_deref().is_some_and(|origin| !is_origin(origin)) {
            return Err(Refusal::invalid("origin", "is what a browser sends as Origin, such as https://app.example.com").into());
        }
        if caller.acting.is_some() {
            return Err(Refusal::ActingForAnother.into());
        }
        let now = self.clock.now();
        let holder = match &caller.principal {
            Principal::Key(key) => Holder::Key(key.entry.key.id.clone()),
            Principal::Person(person) => {
                let family = match person.login {
                    Some(Login::Family(family)) => Some(family),
                    Some(Login::Session(_)) | None => None,
                };
                Holder::User(person.user()?.id, family)
            }
        };
        let ticket = Ticket { holder, scope: caller.scopes.to_vec(), origin };
        let secret = new_ticket(&self.settings.brand, &self.random);
        let tenant = caller.tenant().tenant.id;
        let parts: [&[u8]; 2] = [tenant.0.as_bytes(), secret.expose_secret().as_bytes()];
        let (_, mac) = self.peppers.digest(KEPT, &parts).ok_or_else(|| Fault::Internal("there is no pepper".into()))?;
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        scoped.create_ticket(SecretMac(mac), &ticket, now, now + TimeDelta::seconds(i64::from(lifetime))).await?;
        let deed = caller.actor().did("ws_ticket.create", "", json!({ "expires_in": lifetime, "origin": ticket.origin }), now);
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        tx.commit().await?;
        Ok(secret)
    }

    /// Uses a ticket up. `None` when there is none, it was used, or it is over.
    pub(crate) async fn consume_ticket(&self, tenant: &TenantEntry, ticket: &str) -> Result<Option<Ticket>, Failure> {
        let tenant = tenant.tenant.id;
        let parts: [&[u8]; 2] = [tenant.0.as_bytes(), ticket.as_bytes()];
        let macs: Vec<[u8; 32]> = self.peppers.digests(KEPT, &parts).map(|(_, mac)| mac).collect();
        let mut tx = self.store.begin_in(tenant).await?;
        let consumed = tx.tenant(tenant).await?.consume_ticket(&macs, self.clock.now()).await?;
        tx.commit().await?;
        Ok(consumed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins() {
        for good in ["https://app.example.com", "http://localhost:3000", "https://app.example.com:8443"] {
            assert!(is_origin(good), "{good}");
        }
        for bad in
            ["", "null", "app.example.com", "https://app.example.com/", "https://a@b.c", "https://APP.example", "ftp://a.b"]
        {
            assert!(!is_origin(bad), "{bad}");
        }
    }
}
