//! `claviger audience`: downstream services with their own shape of token.

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use claviger_issuer::Issuer;
use claviger_issuer::audience::{AlgorithmName, AudienceChange, AudienceView, NewAudience, Profile};
use claviger_issuer::audit::Actor;
use claviger_store::id::TenantId;

use super::installation::{not_found, with};
use super::output::Format;
use super::signing_key::Form;
use crate::config::Config;
use crate::v1::audiences::AudienceOut;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Register an audience
    Create {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        /// How it is asked for
        #[arg(long)]
        name: String,
        /// The `aud` of its tokens
        #[arg(long)]
        uri: String,
        #[command(flatten)]
        shape: Shape,
    },
    /// List audiences
    List {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
    },
    /// Show an audience with its whole profile
    Show(Which),
    /// Replace the profile of an audience
    Change {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        shape: Shape,
    },
    /// End an audience for good
    Delete(Which),
    /// Print the public key that signs for it
    PublicKey {
        #[command(flatten)]
        which: Which,
        /// In which form
        #[arg(long, value_enum, default_value_t = Form::Raw)]
        format: Form,
        /// The key that will sign, instead of the one that does
        #[arg(long)]
        next: bool,
    },
    /// The service has the next key: it signs from now on
    ConfirmKey {
        #[command(flatten)]
        which: Which,
        /// The next key's `kid`
        #[arg(long)]
        kid: String,
    },
}

#[derive(Debug, Args)]
pub(super) struct Which {
    /// The tenant's slug
    #[arg(long)]
    tenant: String,
    /// Its name, `aud` or id
    #[arg(value_name = "NAME")]
    audience: String,
}

/// What its tokens look like.
#[derive(Debug, Args)]
pub(super) struct Shape {
    /// The profile as JSON, as `audience show --output json` prints it; what is absent is as usual
    #[arg(long, value_name = "JSON", default_value = "{}")]
    profile: String,
    /// `alg`; overrides the profile
    #[arg(long, value_enum, ignore_case = true)]
    algorithm: Option<Alg>,
    /// It has signing keys of its own
    #[arg(long)]
    own_key: bool,
    /// Its own key changes only with `confirm-key`
    #[arg(long)]
    static_key: bool,
    /// Its tokens have a place in a status list
    #[arg(long)]
    status_list: bool,
}

/// `alg` of the tokens.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Alg {
    /// Ed25519 under the name that most verifiers know
    #[value(name = "EdDSA")]
    EdDsa,
    /// Ed25519 under its fully specified name
    #[value(name = "Ed25519")]
    Ed25519,
    /// ECDSA on P-256
    #[value(name = "ES256")]
    Es256,
    /// RSA with 2048 bits
    #[value(name = "RS256")]
    Rs256,
}

impl Shape {
    fn profile(self) -> anyhow::Result<Profile> {
        let Self { profile, algorithm, own_key, static_key, status_list } = self;
        let mut profile: Profile = serde_json::from_str(&profile).context("--profile is not a profile as JSON")?;
        if let Some(algorithm) = algorithm {
            profile.algorithm = match algorithm {
                Alg::EdDsa => AlgorithmName::EdDsa,
                Alg::Ed25519 => AlgorithmName::Ed25519,
                Alg::Es256 => AlgorithmName::Es256,
                Alg::Rs256 => AlgorithmName::Rs256,
            };
        }
        profile.own_key |= own_key || static_key;
        profile.static_key |= static_key;
        profile.status_list |= status_list;
        Ok(profile)
    }
}

pub(super) async fn run(command: Command, config: &Config, output: Format) -> anyhow::Result<()> {
    with(config, async |installation| {
        let issuer = &installation.issuer;
        let actor = Actor::operator();
        let which = async |Which { tenant, audience }: Which| {
            let tenant = installation.tenant(&tenant).await?.tenant.id;
            anyhow::Ok((tenant, find(issuer, tenant, &audience).await?))
        };
        let show = |view: AudienceView| output.print(&AudienceOut::from(view), text);
        match command {
            Command::Create { tenant, name, uri, shape } => {
                let tenant = installation.tenant(&tenant).await?.tenant.id;
                let new = NewAudience { name, uri, profile: shape.profile()? };
                show(issuer.create_audience(tenant, &actor, new).await?)
            }
            Command::List { tenant } => {
                let all = issuer.list_audiences(installation.tenant(&tenant).await?.tenant.id).await?;
                let all: Vec<_> = all.into_iter().map(AudienceOut::from).collect();
                output.print_list(&all, text)
            }
            Command::Show(of) => {
                let found = AudienceOut::from(which(of).await?.1);
                match output {
                    Format::Json => output.print(&found, text),
                    Format::Text => super::output::pretty(&serde_json::to_value(&found)?),
                }
            }
            Command::Change { which: of, shape } => {
                let (tenant, audience) = which(of).await?;
                let change = AudienceChange { profile: Some(shape.profile()?), ..AudienceChange::default() };
                show(issuer.change_audience(tenant, &actor, audience.row.id, change).await?)
            }
            Command::Delete(of) => {
                let (tenant, audience) = which(of).await?;
                issuer.delete_audience(tenant, &actor, audience.row.id).await?;
                output.print(&serde_json::json!({ "deleted": audience.row.id }), |_| format!("{}  deleted", audience.row.name))
            }
            Command::PublicKey { which: of, format, next } => {
                let (tenant, audience) = which(of).await?;
                let key = issuer.audience_key(tenant, audience.row.id, next).await?;
                super::output::line(&format.of(&key.context("there is no such key")?))
            }
            Command::ConfirmKey { which: of, kid } => {
                let (tenant, audience) = which(of).await?;
                let keys = issuer.confirm_audience_key(tenant, &actor, audience.row.id, &kid).await?;
                super::signing_key::print(keys, output)
            }
        }
    })
    .await
}

/// An audience by name, `aud` or id.
pub(super) async fn find(issuer: &Issuer, tenant: TenantId, name: &str) -> anyhow::Result<AudienceView> {
    issuer.find_audience_by_name(tenant, name).await.map_err(not_found(&format!("audience `{name}` in this tenant")))
}

fn text(audience: &AudienceOut) -> String {
    format!("{}  {}  {}", audience.id, audience.name, audience.uri)
}
