//! Tokens that an operator issues by hand, for whoever cannot log in: scripts, monitors, other systems.

use claviger_store::audit::TokenRow;
use claviger_store::id::{TokenId, UserId};
use serde_json::json;

use crate::audience::LONGEST_AUDIENCE;
use crate::audit::{Actor, append, append_with};
use crate::directory::TenantEntry;
use crate::mint::{Grant, mint};
use crate::rights;
use crate::settings::check_lifetime;
use crate::standing::{OwnerNow, standing};
use crate::{Failure, Issuer, Refusal};

/// `client_id` of tokens that an operator issued (RFC 9068 §2.2 wants one).
pub(crate) const OPERATOR_CLIENT: &str = "operator";

impl Issuer {
    /// Issues an access token for a person, with the scopes that were `asked` for, or all that the person holds. An audience
    /// that is registered gets its own shape. `lifetime` is in seconds; `None` makes a token without an end, which lives until
    /// it is called back or the person may not act: services that verify offline do not hear of that.
    pub async fn issue_token(
        &self,
        tenant: &TenantEntry,
        actor: &Actor,
        user: UserId,
        audience: Option<&str>,
        asked: Option<&str>,
        lifetime: Option<i32>,
    ) -> Result<String, Failure> {
        let now = self.clock.now();
        check_lifetime(lifetime)?;
        let registered = audience.and_then(|name| tenant.audience(name));
        if let Some(registered) = registered
            && lifetime.is_none()
            && !registered.profile.allow_non_expiring
        {
            let problem = "a token for this audience must end: give it a lifetime, or the audience `allow_non_expiring`";
            return Err(Refusal::invalid("audience", problem).into());
        }
        let audience = registered.map_or_else(|| audience.unwrap_or(&tenant.issuer), |registered| &registered.row.uri);
        if audience.is_empty() || audience.len() > LONGEST_AUDIENCE || audience.chars().any(char::is_control) {
            return Err(Refusal::invalid("audience", "is 1 to 255 characters").into());
        }
        let id = tenant.tenant.id;
        let owner = self.directory.person(id, user).await?.ok_or(Refusal::NotFound)?;
        let OwnerNow::User(person) = &*owner else { return Err(Refusal::NotFound.into()) };
        if let Err(fallen) = standing(tenant, &owner, None, None, now) {
            return Err(Refusal::Conflict(format!("{} may not act now ({})", person.username, fallen.reason())).into());
        }
        let scope = rights::of_person(tenant, person);
        let scope = scope.narrow(asked)?;
        let subject = user.to_string();
        let grant = Grant {
            issuer: &tenant.issuer,
            audience,
            tenant: id,
            subject: &subject,
            client_id: OPERATOR_CLIENT,
            key: None,
            family: None,
            username: Some(&person.username),
            roles: Some(&person.roles),
            person: Some(person),
            actor: None,
            scope: &scope,
            allowed_ips: &[],
            narrowed: false,
            lifetime,
            not_after: None,
        };
        let minted = match registered {
            Some(registered) => self.mint_for_audience(tenant, registered, &grant, now).await?,
            None => mint(tenant.signer(&self.clock)?, &grant, now, &self.random)?,
        };
        let detail = json!({ "audience": audience, "expires_in": minted.expires_in() });
        let mut deed = actor.did("token.issue", format!("token:{}", minted.id), detail, now);
        deed.subject = format!("user:{user}");
        let row = TokenRow {
            id: minted.id,
            key: None,
            family: None,
            subject,
            scope: scope.to_string(),
            issued_at: minted.issued_at,
            expires_at: minted.expires_at,
        };
        let mut tx = self.store.begin_in(id).await?;
        let mut scoped = tx.tenant(id).await?;
        append_with(&mut scoped, id, &self.chain_key, &self.random, [deed], &[row]).await?;
        tx.commit().await?;
        Ok(minted.jwt)
    }

    /// Calls back a token that nobody has at hand, by the id that the audit trail shows (`token:…`).
    pub async fn revoke_token_by_id(&self, tenant: &TenantEntry, actor: &Actor, id: TokenId) -> Result<(), Failure> {
        let now = self.clock.now();
        let tenant = tenant.tenant.id;
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        let end = scoped.issued_token_end(id).await?.ok_or(Refusal::NotFound)?;
        if !scoped.revoke_token(id, end, now, &actor.name).await? {
            return Err(Refusal::Conflict("the token was called back already".into()).into());
        }
        let deed = actor.did("token.revoke", format!("token:{id}"), json!({ "kind": "access_token" }), now);
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        self.commit_logins(tx, tenant, Some(id), &[]).await
    }
}
