//! `claviger key-request`.

use clap::{Subcommand, ValueEnum};
use claviger_issuer::audit::Actor;
use claviger_issuer::key_request::{Decide, Deliver};
use claviger_store::id::KeyRequestId;
use claviger_store::key_request::RequestStatus;

use super::app;
use super::installation::{not_found, with};
use super::key::made_text;
use super::output::Format;
use crate::config::Config;
use crate::v1::key_requests::{ApprovedOut, KeyRequestView};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List requests for keys
    List {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        /// Only those that nobody has decided
        #[arg(long)]
        pending: bool,
    },
    /// Approve a request: prints the pair once, or the link that shows it to the developer alone
    Approve {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        /// The request's id
        id: KeyRequestId,
        /// A scope, as resource:action; may be given again
        #[arg(long = "scope", value_name = "SCOPE")]
        scopes: Vec<String>,
        /// Days that the key lives [default: the tenant's rule]
        #[arg(long, value_name = "DAYS")]
        expires_in_days: Option<i64>,
        /// The application that the key is to belong to: name or id [default: the person of that address]
        #[arg(long, value_name = "NAME")]
        app: Option<String>,
        /// How the key reaches the developer
        #[arg(long, value_enum, default_value_t = How::Answer)]
        deliver: How,
    },
    /// Deny a request
    Deny {
        /// The tenant's slug
        #[arg(long)]
        tenant: String,
        /// The request's id
        id: KeyRequestId,
        /// Why
        #[arg(long)]
        reason: Option<String>,
    },
}

/// How a key reaches its developer.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum How {
    /// Printed here, once
    Answer,
    /// By a link that is mailed, and printed here
    ClaimLink,
}

pub(super) async fn run(command: Command, config: &Config, output: Format) -> anyhow::Result<()> {
    with(config, async |installation| {
        let issuer = &installation.issuer;
        let actor = Actor::operator();
        let missing = not_found("such request in this tenant");
        match command {
            Command::List { tenant, pending } => {
                let tenant = installation.tenant(&tenant).await?.tenant.id;
                let status = pending.then_some(RequestStatus::Pending);
                let mut all = Vec::new();
                let mut after = None;
                loop {
                    let page = issuer.list_key_requests(tenant, status, after, 200).await?;
                    let Some(last) = page.last() else { return output.print_list(&all, text) };
                    after = Some(last.id);
                    all.extend(page.into_iter().map(KeyRequestView::from));
                }
            }
            Command::Approve { tenant, id, scopes, expires_in_days, app: name, deliver } => {
                let tenant = installation.tenant(&tenant).await?;
                let application = match name {
                    Some(name) => Some(app::find(issuer, tenant.tenant.id, &name).await?.id),
                    None => None,
                };
                let deliver = match deliver {
                    How::Answer => Deliver::Answer,
                    How::ClaimLink => Deliver::ClaimLink,
                };
                let decide = Decide { scopes, expires_in_days, application, deliver };
                let approved = issuer.approve_key_request(&tenant, &actor, id, decide).await.map_err(missing)?;
                output.print(&ApprovedOut::from(approved), |approved| match approved {
                    ApprovedOut::Made(made) => made_text(made),
                    ApprovedOut::Link(link) => {
                        format!("{}\n\ngood once, until {}", link.claim_link, link.expires_at.to_rfc3339())
                    }
                })
            }
            Command::Deny { tenant, id, reason } => {
                let tenant = installation.tenant(&tenant).await?.tenant.id;
                let denied = issuer.deny_key_request(tenant, &actor, id, reason.as_deref()).await.map_err(missing)?;
                output.print(&KeyRequestView::from(denied), text)
            }
        }
    })
    .await
}

fn text(request: &KeyRequestView) -> String {
    let confirmed = if request.confirmed { "confirmed" } else { "not confirmed" };
    format!("{}  {}  {}  {}  {confirmed}", request.id, request.status, request.email, request.app_name)
}
