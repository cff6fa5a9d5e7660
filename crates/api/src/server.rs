//! The HTTP server.

use std::collections::BTreeMap;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use actix_web::dev::{Server, ServerHandle};
use actix_web::middleware::from_fn;
use actix_web::web::Data;
use actix_web::{App, HttpServer, web};
use claviger_issuer::Issuer;
use ipnet::IpNet;
use utoipa_actix_web::AppExt as _;

use crate::border::{Border, cross};
use crate::config::{Config, ProxyHeader};
use crate::dialects::dialect_routes;
use crate::docs::{Document, console_config};
use crate::openapi;
use crate::routes::{Methods, extractor_errors, nowhere, root_routes, tenant_only_routes, tenant_routes};

/// How requests in hand may take to end after listening stopped, in seconds.
const DRAIN: u64 = 10;

/// From refusing connections until those that came before have brought their requests.
const SETTLE: Duration = Duration::from_millis(200);

/// What the server needs besides the issuer.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Proxies whose forwarding headers are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The header that is read from them.
    pub proxy_header: ProxyHeader,
    /// Refuse plain http.
    pub require_https: bool,
    /// Tenants by the host that stands for them.
    pub hosts: BTreeMap<String, String>,
    /// Threads; 0 is one for each core.
    pub workers: usize,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        Self {
            trusted_proxies: config.trusted_proxies.clone(),
            proxy_header: config.proxy_header,
            require_https: config.requires_https(),
            hosts: config.hosts(),
            workers: config.workers,
        }
    }
}

/// A server that runs once it is awaited.
pub struct Running {
    /// To be awaited.
    pub server: Server,
    door: Arc<TcpListener>,
    border: Data<Border>,
    issuer: Data<Issuer>,
}

impl Running {
    /// What stops it.
    #[must_use]
    pub fn stopper(&self) -> Stopper {
        let (door, border, issuer) = (self.door.clone(), self.border.clone(), self.issuer.clone());
        Stopper { handle: self.server.handle(), door, border, issuer }
    }
}

/// Stops a server.
pub struct Stopper {
    handle: ServerHandle,
    door: Arc<TcpListener>,
    border: Data<Border>,
    issuer: Data<Issuer>,
}

impl Stopper {
    /// Turns readiness off, waits, then lets the requests in hand end. Connections are closed with the answers that are given
    /// meanwhile, so that in the end none is left on which a request could arrive too late.
    pub async fn stop(&self, wait: Duration) {
        self.border.accepting.store(false, Ordering::SeqCst);
        tokio::time::sleep(wait).await;
        // The server would drop connections whose request it has not read yet. So it is stopped only when they have brought it.
        self.handle.pause().await;
        refuse_connections(&self.door);
        tokio::time::sleep(SETTLE).await;
        self.issuer.close_revocation_feeds();
        self.handle.stop(true).await;
    }

    /// Handlers that panicked since the start.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.border.panics.load(Ordering::Relaxed)
    }
}

/// From now on the port is closed, whoever else holds the listener: a balancer that connects goes elsewhere at once.
fn refuse_connections(door: &TcpListener) {
    // `shutdown(2)`, which only streams offer here. Where it does not do that, the port is closed when the server stops.
    let _ = door.try_clone().map(|door| TcpStream::from(OwnedFd::from(door)).shutdown(Shutdown::Both));
}

/// Serves on a bound listener.
pub fn start(issuer: Arc<Issuer>, settings: &Settings, listener: TcpListener) -> std::io::Result<Running> {
    let document = openapi::document();
    let issuer = Data::from(issuer);
    let methods = Data::new(Methods::of(&document));
    let document = Data::new(Document(document.to_string()));
    let console = Data::new(console_config());
    let border = Data::new(Border {
        trusted_proxies: settings.trusted_proxies.clone(),
        proxy_header: settings.proxy_header,
        require_https: settings.require_https,
        hosts: settings.hosts.clone(),
        accepting: AtomicBool::new(true),
        panics: AtomicU64::new(0),
    });
    let (shared, ours) = (border.clone(), issuer.clone());
    let mut server = HttpServer::new(move || {
        App::new()
            .app_data(issuer.clone())
            .app_data(shared.clone())
            .app_data(methods.clone())
            .app_data(document.clone())
            .app_data(console.clone())
            .configure(extractor_errors)
            .wrap(from_fn(cross))
            .into_utoipa_app()
            // Routes are tried in order: the busiest first.
            .configure(tenant_routes)
            .configure(root_routes)
            .service(
                utoipa_actix_web::scope("/t/{tenant}")
                    .configure(tenant_routes)
                    .configure(tenant_only_routes)
                    .configure(dialect_routes),
            )
            .into_app()
            .default_service(web::route().service(actix_web::dev::fn_service(nowhere)))
    })
    .disable_signals()
    .shutdown_timeout(DRAIN)
    .client_request_timeout(Duration::from_secs(5))
    .keep_alive(Duration::from_secs(75));
    if settings.workers > 0 {
        server = server.workers(settings.workers);
    }
    let door = Arc::new(listener.try_clone()?);
    Ok(Running { server: server.listen(listener)?.run(), door, border, issuer: ours })
}
