//! A provider's own access token, for a service that calls the provider's world for somebody: on-behalf-of.
//!
//! No such token is kept. A service shows the token of ours that it was sent, and the provider is asked for a new one with the
//! refresh token that the login left us. So whoever asks learns too when the provider no longer lets that person in.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use secrecy::SecretString;
use serde_json::{Value, json};

use crate::audit::{Draft, Outcome};
use crate::caller::{For, VerifiedToken};
use crate::denial::Why;
use crate::directory::TenantEntry;
use crate::exchange::VerifiedKey;
use crate::record::Entry;
use crate::settings::RequestInfo;
use crate::{Failure, Issuer, Refusal};

pub use crate::oidc::UpstreamToken;

/// Lets a client have what providers give to people who came through them.
pub(crate) const TOKENS_UPSTREAM: &str = "tokens:upstream";
/// As the audit trail has it.
pub(crate) const ACTION: &str = "token.upstream";

/// What is asked for.
pub struct UpstreamExchange<'a> {
    /// The tenant.
    pub tenant: &'a Arc<TenantEntry>,
    /// The client that proved itself.
    pub client: &'a VerifiedKey,
    /// An access token of ours, of a login through a provider.
    pub subject: SecretString,
    /// Why.
    pub reason: Option<&'a str>,
    /// The request.
    pub request: RequestInfo,
}

impl Issuer {
    /// The provider's access token of whoever the subject's token is of. It is in the audit trail before it is returned.
    ///
    /// # Errors
    /// [`Refusal::InsufficientScope`] without `tokens:upstream`; [`Refusal::NotExchangeable`] if the token is not good, did not
    /// come through a provider, or its connection hands out none; [`Refusal::InvalidGrant`] if the provider says no: then the
    /// login has ended.
    pub async fn upstream_token(&self, asked: UpstreamExchange<'_>) -> Result<UpstreamToken, Failure> {
        let now = self.clock.now();
        let UpstreamExchange { tenant, client, subject, reason, request } = asked;
        crate::token_exchange::check_reason(reason)?;
        let found = self.upstream_login(tenant, client, &subject, now).await;
        let (token, connection) = match found {
            Ok(found) => found,
            Err(Failure::Refusal(refusal)) => {
                let (rule, missing) = match &refusal {
                    Refusal::InsufficientScope(scope) => ("insufficient_scope", Some(json!({ "scopes": [scope] }))),
                    _ => ("not_exchangeable", None),
                };
                let detail = Why { reason: rule, missing }.detail();
                let draft = draft(client, Outcome::Refused, String::new(), String::new(), &request, detail, now);
                self.write_refusal(tenant.tenant.id, draft).await?;
                return Err(refusal.into());
            }
            Err(failure) => return Err(failure),
        };
        let family = token.family.ok_or(NO_PROVIDER)?;
        let access = self.ask_for_upstream_token(tenant, &connection, family, &request).await?;
        let (subject, detail) = (format!("user:{}", token.principal.subject()), json!({ "why": reason, "scope": access.scope }));
        let draft = draft(client, Outcome::Ok, subject, connection.audit_name(), &request, detail, now);
        self.recorder.record(tenant.tenant.id, Entry { draft, token: None }).await?;
        Ok(access)
    }

    /// The token, and the connection that its login came through.
    async fn upstream_login(
        &self,
        tenant: &Arc<TenantEntry>,
        client: &VerifiedKey,
        subject: &SecretString,
        now: DateTime<Utc>,
    ) -> Result<(VerifiedToken, crate::connection::ConnectionEntry), Failure> {
        if !client.scopes().contains(TOKENS_UPSTREAM) {
            return Err(Refusal::InsufficientScope(TOKENS_UPSTREAM.into()).into());
        }
        let token = self.exchanged(tenant, subject, For::AnybodyByUs, now).await?;
        if token.acting.is_some() {
            return Err(Refusal::NotExchangeable("it lets somebody act for another").into());
        }
        let id = tenant.tenant.id;
        let family = token.family.ok_or(NO_PROVIDER)?;
        let family = self.directory.family(id, family).await?.ok_or(NO_PROVIDER)?;
        let connection = self.find_connection(id, family.connection.ok_or(NO_PROVIDER)?).await?;
        if !connection.settings.hand_out_tokens {
            return Err(
                Refusal::NotExchangeable("its connection hands out no tokens: its setting `hand_out_tokens` is off").into()
            );
        }
        Ok((token, connection))
    }
}

const NO_PROVIDER: Refusal = Refusal::NotExchangeable("its login did not come through a provider");

fn draft(
    client: &VerifiedKey,
    outcome: Outcome,
    subject: String,
    target: String,
    request: &RequestInfo,
    detail: Value,
    now: DateTime<Utc>,
) -> Draft {
    let actor = format!("key:{}", client.entry.key.id);
    let (request_id, address) = (request.id.clone(), request.address);
    Draft { at: now, action: ACTION, outcome, actor, subject, target, request_id, address, detail }
}
