//! `claviger serve`.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use claviger_issuer::Issuer;
use claviger_issuer::acting::ActingRule;
use claviger_issuer::application::NewApplication;
use claviger_issuer::audit::Actor;
use claviger_issuer::key::{KeyOrder, MadeKey};
use claviger_issuer::limits::KeyLimits;
use claviger_issuer::scope::MANAGEMENT;
use claviger_issuer::settings::TenantSettings;
use claviger_issuer::tenant::NewTenant;
use claviger_store::id::Owner;
use secrecy::ExposeSecret as _;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::installation::Installation;
use super::output;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::server;

/// Between writes of when keys were last used.
const USES_EVERY: Duration = Duration::from_secs(2);
/// Between rounds of upkeep.
const UPKEEP_EVERY: Duration = Duration::from_secs(3600);
/// Between writing down who fetched keys, and looking for new peppers.
const FLUSH_EVERY: Duration = Duration::from_secs(60);

pub(super) async fn run(config: Config) -> anyhow::Result<()> {
    // Bound first: whoever has the port keeps it, and nothing was started in vain.
    let listener = TcpListener::bind(config.listen).with_context(|| {
        format!("cannot listen on {}: is another server running there? Choose another with --listen", config.listen)
    })?;
    let listening = listener.local_addr()?;
    // Before anything that is measured.
    let metrics = config.metrics_listen.map(crate::metrics::collect).transpose()?;
    let installation = Installation::open_to_serve(&config, listening).await?;
    let outcome = serve(&config, listener, &installation, metrics).await;
    installation.close().await;
    outcome
}

async fn serve(
    config: &Config,
    listener: TcpListener,
    installation: &Installation,
    metrics: Option<Metrics>,
) -> anyhow::Result<()> {
    let issuer = &installation.issuer;
    issuer.readiness().await?;
    issuer.make_room().await?;
    if config.is_production()
        && let Some(slug) = issuer.tenant_with_sample_key().await?
    {
        bail!(
            "the tenant {slug} publishes a signing key whose pair was published as an example, so that everybody can sign \
             for it: `claviger signing-key rotate --tenant {slug} --emergency` withdraws it"
        );
    }
    if installation.is_private() && !config.is_production() {
        first_start(issuer).await?;
    }
    if installation.is_private() {
        config.keep_url(listener.local_addr()?).context("cannot write into the data directory")?;
    }
    let news = issuer.follow_changes(true);
    let uses = tokio::spawn(write_uses(issuer.clone()));
    let upkeep = tokio::spawn(keep_up(issuer.clone()));
    tokio::spawn(crate::mail::deliver(issuer.clone(), crate::mail::Postman::of(config)?));
    if let Some(metrics) = metrics {
        // Ends with the runtime.
        tokio::spawn(metrics.serve(issuer.clone())?);
    }
    let listening = listener.local_addr()?;
    let running = server::start(issuer.clone(), &server::Settings::from(config), listener)?;
    let stopper = running.stopper();
    let wait = Duration::from_secs(config.drain_wait());
    let mut signals = Signals::new()?;
    // Ends only with a second signal: what follows the first is the end of the server.
    let stop = async {
        signals.next().await;
        tracing::info!("stopping: no new requests, those in hand are ended; a second signal ends them at once");
        let stopped = async {
            stopper.stop(wait).await;
            std::future::pending().await
        };
        tokio::select! {
            () = stopped => {}
            () = signals.next() => {}
        }
    };
    tracing::info!(listen = %listening, public_url = %issuer.settings().public_url, "serving");
    tokio::select! {
        ended = running.server => ended?,
        () = installation.keep_database(config), if installation.is_private() => {}
        () = stop => bail!("ended at once by a second signal: requests in hand were cut off"),
    }
    news.abort();
    upkeep.abort();
    uses.abort();
    if let Err(error) = issuer.write_uses().await {
        tracing::warn!(error = %error, "when keys were last used could not be written");
    }
    tracing::info!("stopped");
    Ok(())
}

/// What service managers and terminals send to end us.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn keep_up(issuer: Arc<Issuer>) {
    loop {
        issuer.upkeep().await;
        for _ in 0..UPKEEP_EVERY.as_secs() / FLUSH_EVERY.as_secs() {
            tokio::time::sleep(FLUSH_EVERY).await;
            if let Err(error) = issuer.reload_peppers().await {
                tracing::warn!(error = %error, "new peppers could not be looked for");
            }
            if let Err(error) = issuer.flush_jwks_fetches().await {
                tracing::warn!(error = %error, "who fetched keys could not be written down");
            }
        }
    }
}

/// Writes when keys were last used, now and then.
async fn write_uses(issuer: Arc<Issuer>) {
    loop {
        tokio::time::sleep(USES_EVERY).await;
        if let Err(error) = issuer.write_uses().await {
            tracing::warn!(error = %error, "when keys were last used could not be written");
        }
    }
}

/// Makes the default tenant and its admin key, once, and says how to use it.
async fn first_start(issuer: &Issuer) -> anyhow::Result<()> {
    let slug = issuer.settings().default_tenant.clone();
    if issuer.tenant(&slug).await?.is_some() {
        return Ok(());
    }
    let actor = Actor::operator();
    let tenant = issuer
        .create_tenant(&actor, NewTenant { slug: slug.clone(), name: None, settings: TenantSettings::default(), preset: None })
        .await?;
    let new = NewApplication { name: "admin".into(), ..NewApplication::default() };
    let application = issuer.create_application(tenant.id, &actor, new).await?;
    let order = KeyOrder {
        owner: Owner::Application(application.id),
        name: "admin".into(),
        scopes: MANAGEMENT.map(str::to_owned).to_vec(),
        roles: Vec::new(),
        acting: ActingRule::default(),
        token_lifetime: None,
        refresh: false,
        expires_at: None,
        limits: KeyLimits::default(),
        import: None,
    };
    let MadeKey { key, secret } = issuer.create_key(tenant.id, &actor, order).await?;
    let url = issuer.settings().public_url.as_str().trim_end_matches('/').to_owned();
    output::line(&format!(
        "\nFirst start: the tenant `{slug}` and an admin key were made. The secret is shown this once.\n\n  \
         api_key     {key}\n  api_secret  {secret}\n\nTry it:\n\n  \
         curl -i -X POST {url}/v1/authentications -H 'Authorization: {key}:{secret}'\n\n\
         API documentation: {url}/docs\n",
        key = key.id,
        secret = secret.expose_secret(),
    ))
}
