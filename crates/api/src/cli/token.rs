//! `claviger token`: tokens that an operator issues by hand.

use anyhow::{Context as _, bail};
use clap::Subcommand;
use claviger_issuer::audit::Actor;
use claviger_issuer::{Issuer, TenantEntry};
use claviger_store::id::{TokenId, UserId};

use super::installation::{not_found, with};
use super::output::{Format, complain};
use super::user;
use crate::config::Config;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Issue an access token for a person; the token alone is printed on standard output
    Issue {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        /// The person: login name or id
        #[arg(long, value_name = "USERNAME")]
        user: String,
        /// Whom the token is for: a registered audience, by name or `aud`, gives the token its shape; any other text becomes
        /// `aud` [default: the tenant's own issuer]
        #[arg(long)]
        audience: Option<String>,
        /// Scopes, space-separated, of those that the person holds [default: all of them]
        #[arg(long)]
        scope: Option<String>,
        /// How long it lives: `24h`, `90d`, `15m`, `3600s`, or `none` for a token without an end [default: what the audience
        /// says, else 24h]
        #[arg(long, value_name = "HOW LONG")]
        expires: Option<String>,
    },
    /// Call back a token that is not at hand, by its id (`jti`), which the audit trail shows
    Revoke {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        /// The token's `jti`
        #[arg(long, value_name = "JTI")]
        id: TokenId,
    },
}

/// Seconds that a token lives if nobody says otherwise.
const USUAL_LIFETIME: i32 = 86_400;

pub(super) async fn run(command: Command, config: &Config, output: Format) -> anyhow::Result<()> {
    let (tenant, user, audience, scope, expires) = match command {
        Command::Issue { tenant, user, audience, scope, expires } => (tenant, user, audience, scope, expires),
        Command::Revoke { tenant, id } => return revoke(&tenant, id, config, output).await,
    };
    let asked = expires.as_deref().map(lifetime).transpose()?;
    with(config, async |installation| {
        let issuer = &installation.issuer;
        let tenant = installation.tenant(&tenant).await?;
        // No server need ever have run here.
        issuer.make_room().await?;
        let usual = audience.as_deref().and_then(|name| tenant.audience_lifetime(name)).unwrap_or(USUAL_LIFETIME);
        let lifetime = asked.unwrap_or(Some(usual));
        let person = user::find(issuer, tenant.tenant.id, &user).await?;
        let (audience, scope) = (audience.as_deref(), scope.as_deref());
        print(issuer, &tenant, person.id, audience, scope, lifetime, output).await
    })
    .await
}

/// Issues a token and prints it.
pub(super) async fn print(
    issuer: &Issuer,
    tenant: &TenantEntry,
    person: UserId,
    audience: Option<&str>,
    scope: Option<&str>,
    lifetime: Option<i32>,
    output: Format,
) -> anyhow::Result<()> {
    let token = issuer.issue_token(tenant, &Actor::operator(), person, audience, scope, lifetime).await?;
    if lifetime.is_none() {
        complain(
            "note: this token has no end. Call it back at POST /v1/token/revoke or disable the person; services that verify \
             offline hear of neither.",
        );
    }
    output.print(&serde_json::json!({ "access_token": token, "expires_in": lifetime }), |_| token.clone())
}

async fn revoke(tenant: &str, id: TokenId, config: &Config, output: Format) -> anyhow::Result<()> {
    with(config, async |installation| {
        let tenant = installation.tenant(tenant).await?;
        let revoked = installation.issuer.revoke_token_by_id(&tenant, &Actor::operator(), id).await;
        revoked.map_err(not_found("such token in this tenant"))?;
        output.print(&serde_json::json!({ "revoked": id }), |_| format!("{id}  revoked"))
    })
    .await
}

/// Seconds; `None` for no end.
fn lifetime(text: &str) -> anyhow::Result<Option<i32>> {
    if text == "none" {
        return Ok(None);
    }
    let problem = || format!("`{text}` is neither `none` nor a time such as 24h, 90d, 15m or 3600s");
    let (number, unit) = text.split_at_checked(text.len().saturating_sub(1)).with_context(problem)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => bail!(problem()),
    };
    let number: i32 = number.parse().ok().filter(|number| *number > 0).with_context(problem)?;
    Ok(Some(number.checked_mul(seconds).with_context(problem)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes() {
        assert_eq!(lifetime("none").unwrap(), None);
        assert_eq!(lifetime("24h").unwrap(), Some(86_400));
        assert_eq!(lifetime("90d").unwrap(), Some(7_776_000));
        for bad in ["", "h", "24", "-1h", "0h", "1w", "1 h", "99999999d", "24\u{f6}"] {
            assert!(lifetime(bad).is_err(), "{bad}");
        }
    }
}
