//! `claviger key`, and `create-key`.

use std::io::Read as _;

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Utc};
use clap::{Args, Subcommand};
use claviger_issuer::Issuer;
use claviger_issuer::acting::ActingRule;
use claviger_issuer::audit::Actor;
use claviger_issuer::key::{BulkRevocation, HashedPair, ImportedPair, KeyChange, KeyOrder};
use claviger_issuer::limits::KeyLimits;
use claviger_issuer::scope::MANAGEMENT;
use claviger_issuer::verify::Transport;
use claviger_store::id::{KeyId, Owner, TenantId};
use secrecy::SecretString;

use super::installation::{Installation, not_found, with};
use super::output::Format;
use super::{app, user};
use crate::config::Config;
use crate::v1::keys::{KeyView, MadeKeyView};
use crate::v1::verify::TransportIn;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Make a key and print its secret, this once
    Create {
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        rights: Rights,
    },
    /// Take over a pair that was made elsewhere; reads KEY:SECRET from standard input
    Import {
        /// Read KEY:HASH instead: a hash of the secret as another system kept it (bcrypt, argon2, scrypt or PBKDF2)
        #[arg(long)]
        hashed: bool,
        #[command(flatten)]
        place: Place,
        #[command(flatten)]
        rights: Rights,
    },
    /// List keys that are not revoked
    List {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
    },
    /// Give a key a new secret; the one before works a while longer
    Rotate {
        #[command(flatten)]
        which: Which,
        /// Seconds that the secret before still works
        #[arg(long, default_value_t = 86_400, value_name = "SECONDS")]
        grace: u32,
    },
    /// Let a key be exchanged no more, until it is enabled
    Disable(Which),
    /// Let a key be exchanged again
    Enable(Which),
    /// Revoke a key for good
    Revoke(Which),
    /// Revoke every key of an application or user for good
    RevokeAll(Place),
}

/// Where a key belongs.
#[derive(Debug, Args)]
pub(super) struct Place {
    /// The tenant's slug
    #[arg(long)]
    tenant: String,
    #[command(flatten)]
    owner: OwnerArgs,
}

/// Whose it is: exactly one of the two.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct OwnerArgs {
    /// The application that owns it: name or id
    #[arg(long, value_name = "NAME")]
    app: Option<String>,
    /// The user that owns it: login name or id
    #[arg(long, value_name = "USERNAME")]
    user: Option<String>,
}

/// What a key may do, and how long.
#[derive(Debug, Args)]
pub(super) struct Rights {
    /// Its name for people [default: the owner's]
    #[arg(long)]
    name: Option<String>,
    /// A scope, as resource:action; may be given again. Without any, the key may do nothing
    #[arg(long = "scope", value_name = "SCOPE")]
    scopes: Vec<String>,
    /// A role whose scopes it has too; may be given again
    #[arg(long = "role", value_name = "ROLE")]
    roles: Vec<String>,
    /// Whom it may say that it acts for: a name, the beginning of names such as `svc-*`, or `*`; may be given again
    #[arg(long, value_name = "NAME")]
    act_as: Vec<String>,
    /// Whom it acts for when nobody is named
    #[arg(long, value_name = "NAME", requires = "act_as")]
    act_as_default: Option<String>,
    /// Who may act for its owner with it, by login name; may be given again. Such a key is good for nothing else
    #[arg(long = "agent", value_name = "USERNAME")]
    agents: Vec<String>,
    /// Every scope that managing this installation takes, besides those named
    #[arg(long)]
    admin: bool,
    /// When it ends: a time such as 2027-01-31T00:00:00Z, days from now such as 90d, or never [default: as the tenant's settings
    /// say, else 365d]
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// A network or address that it may be used from; may be given again
    #[arg(long = "allow-ip", value_name = "NETWORK")]
    allowed_ips: Vec<String>,
    /// How it may be used where a service asks: http or ws; may be given again [default: both]
    #[arg(long = "transport", value_name = "TRANSPORT", value_enum)]
    transports: Vec<TransportIn>,
    /// Seconds that its tokens live
    #[arg(long, value_name = "SECONDS")]
    token_lifetime: Option<i32>,
    /// An exchange gives a refresh token too
    #[arg(long)]
    refresh: bool,
}

/// A key for a person.
#[derive(Debug, Args)]
pub(super) struct ForPerson {
    /// The tenant's slug
    #[arg(long)]
    tenant: String,
    /// The person's e-mail address
    #[arg(long)]
    email: String,
    #[command(flatten)]
    rights: Rights,
}

/// A key.
#[derive(Debug, Args)]
pub(super) struct Which {
    /// The tenant's slug
    #[arg(long)]
    tenant: String,
    /// The key's public half
    #[arg(value_name = "KEY")]
    key: String,
}

pub(super) async fn run(command: Command, config: &Config, output: Format) -> anyhow::Result<()> {
    with(config, async |installation| {
        let issuer = &installation.issuer;
        let actor = Actor::operator();
        match command {
            Command::Create { place, rights } => {
                let (tenant, owner, name) = place.find(installation).await?;
                make(issuer, tenant, rights.order(owner, name, issuer.clock().now())?, output).await
            }
            Command::Import { hashed, place, rights } => {
                let (tenant, owner, name) = place.find(installation).await?;
                let order = rights.order(owner, name, issuer.clock().now())?;
                let mut pair = String::new();
                std::io::stdin().take(1024).read_to_string(&mut pair).context("cannot read the pair from standard input")?;
                let (key, proof) = pair.trim().split_once(':').context("standard input is not `key:secret` or `key:hash`")?;
                let (key, proof) = (key.to_owned(), SecretString::from(proof));
                let key = match hashed {
                    true => issuer.import_hashed_key(tenant, &actor, order, HashedPair { key, hash: proof }).await?,
                    false => {
                        let import = Some(ImportedPair { key, secret: proof });
                        issuer.create_key(tenant, &actor, KeyOrder { import, ..order }).await?.key
                    }
                };
                output.print(&KeyView::from(key), text)
            }
            Command::List { tenant } => {
                let tenant = installation.tenant(&tenant).await?.tenant.id;
                let mut all = Vec::new();
                let mut after: Option<KeyId> = None;
                loop {
                    let page = issuer.list_keys(tenant, None, after.as_ref(), 200).await?;
                    let Some(last) = page.last() else { return output.print_list(&all, text) };
                    after = Some(last.id.clone());
                    all.extend(page.into_iter().map(KeyView::from));
                }
            }
            Command::Rotate { which, grace } => {
                let (tenant, id) = which.find(installation).await?;
                let made = issuer.rotate_key(tenant, &actor, &id, grace).await.map_err(not_found("such key in this tenant"))?;
                output.print(&MadeKeyView::from(made), made_text)
            }
            Command::Disable(which) => disable(installation, which, true, output).await,
            Command::Enable(which) => disable(installation, which, false, output).await,
            Command::Revoke(which) => {
                let (tenant, id) = which.find(installation).await?;
                issuer
                    .revoke_key(tenant, &actor, &id)
                    .await
                    .map_err(not_found("such key in this tenant, or it is revoked already"))?;
                output.print(&serde_json::json!({ "revoked": id }), |_| format!("{id}  revoked"))
            }
            Command::RevokeAll(place) => {
                let (tenant, owner, _) = place.find(installation).await?;
                let which = BulkRevocation { owner, except: None };
                let revoked: Vec<String> =
                    issuer.revoke_keys(tenant, &actor, &which).await?.iter().map(ToString::to_string).collect();
                output.print_list(&revoked, |id| format!("{id}  revoked"))
            }
        }
    })
    .await
}

pub(super) async fn for_person(order: ForPerson, config: &Config, output: Format) -> anyhow::Result<()> {
    let ForPerson { tenant, email, rights } = order;
    with(config, async |installation| {
        let issuer = &installation.issuer;
        let entry = installation.tenant(&tenant).await?;
        let user = issuer.user_of_email(&entry, &Actor::operator(), &email).await?;
        let tenant = entry.tenant.id;
        let order = rights.order(Owner::User(user.id), user.username, issuer.clock().now())?;
        make(issuer, tenant, order, output).await
    })
    .await
}

async fn make(issuer: &Issuer, tenant: TenantId, order: KeyOrder, output: Format) -> anyhow::Result<()> {
    let made = issuer.create_key(tenant, &Actor::operator(), order).await?;
    output.print(&MadeKeyView::from(made), made_text)
}

async fn disable(installation: &Installation, which: Which, disabled: bool, output: Format) -> anyhow::Result<()> {
    let (tenant, id) = which.find(installation).await?;
    let change = KeyChange { disabled: Some(disabled), ..KeyChange::default() };
    let key = installation.issuer.change_key(tenant, &Actor::operator(), &id, change).await;
    output.print(&KeyView::from(key.map_err(not_found("such key in this tenant, or it is revoked"))?), text)
}

impl Place {
    async fn find(&self, installation: &Installation) -> anyhow::Result<(TenantId, Owner, String)> {
        let tenant = installation.tenant(&self.tenant).await?.tenant.id;
        let issuer = &installation.issuer;
        match (&self.owner.app, &self.owner.user) {
            (Some(name), _) => {
                let application = app::find(issuer, tenant, name).await?;
                Ok((tenant, Owner::Application(application.id), application.name))
            }
            (None, Some(name)) => {
                let user = user::find(issuer, tenant, name).await?;
                Ok((tenant, Owner::User(user.id), user.username))
            }
            (None, None) => anyhow::bail!("name the owner with --app or --user"),
        }
    }
}

impl Rights {
    fn order(self, owner: Owner, owner_name: String, now: DateTime<Utc>) -> anyhow::Result<KeyOrder> {
        let Self {
            name,
            mut scopes,
            roles,
            act_as,
            act_as_default,
            agents,
            admin,
            expires,
            allowed_ips,
            transports,
            token_lifetime,
            refresh,
        } = self;
        if admin {
            scopes.extend(MANAGEMENT.map(str::to_owned));
        }
        let expires_at = match expires.as_deref() {
            None => None,
            Some("never") => Some(None),
            Some(when) => Some(Some(end(when, now)?)),
        };
        let transports = transports.into_iter().map(Transport::from).collect();
        let limits = KeyLimits { allowed_ips: KeyLimits::networks(&allowed_ips)?, transports, ..KeyLimits::default() };
        let some = |list: Vec<String>| (!list.is_empty()).then_some(list);
        let acting = ActingRule { act_as: some(act_as), act_as_default, agents: some(agents) };
        let name = name.unwrap_or(owner_name);
        Ok(KeyOrder { owner, name, scopes, roles, acting, token_lifetime, refresh, expires_at, limits, import: None })
    }
}

/// A time, or days from now.
fn end(when: &str, now: DateTime<Utc>) -> anyhow::Result<DateTime<Utc>> {
    let days = when.strip_suffix('d').and_then(|days| days.parse().ok()).and_then(TimeDelta::try_days);
    match days.and_then(|days| now.checked_add_signed(days)) {
        Some(end) => Ok(end),
        None => {
            when.parse().with_context(|| format!("`{when}` is neither a time such as 2027-01-31T00:00:00Z nor days such as 90d"))
        }
    }
}

impl Which {
    async fn find(&self, installation: &Installation) -> anyhow::Result<(TenantId, KeyId)> {
        let tenant = installation.tenant(&self.tenant).await?.tenant.id;
        let id = KeyId::parse(&self.key).with_context(|| format!("`{}` is not a key id", self.key))?;
        Ok((tenant, id))
    }
}

fn text(key: &KeyView) -> String {
    format!("{}  {}  {}  [{}]", key.api_key, key.name, key.status, key.scopes.join(" "))
}

pub(super) fn made_text(made: &MadeKeyView) -> String {
    let (key, secret) = made.parts();
    let ends = key.expires_at.map_or_else(|| "never".to_owned(), |end| end.to_rfc3339());
    let roles = match key.roles.is_empty() {
        true => String::new(),
        false => format!("\nroles       {}", key.roles.join(" ")),
    };
    format!(
        "api_key     {}\napi_secret  {secret}\nscopes      {}{roles}\nexpires     {ends}\n\n\
         The secret is kept nowhere: write it down now.",
        key.api_key,
        key.scopes.join(" "),
    )
}
