//! What we ask of others: providers that tenants' admins named, at whatever address those admins chose.
//!
//! An admin's URL must not reach what only this machine can reach (SSRF). So names are looked up here, and a connection is
//! made to an address that was judged, never to a name; nothing is followed elsewhere; time and size are bounded; and
//! whoever asked hears one constant text, while the reason is for the log. This stands among the rules because their flows
//! need the answer before they can decide; no type of HTTP leaves this file.

mod address;

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

pub(crate) use address::is_public;
pub use address::{Allowed, NoTarget};
use claviger_store::id::TenantId;
use moka::sync::Cache;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Method, RequestBuilder, header};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use tokio::sync::{OnceCell, OwnedSemaphorePermit, Semaphore};
use url::{Host, Url};

use crate::{Failure, Fault, Refusal};

/// From the look-up of the name to the last byte.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer, in bytes.
const LONGEST_ANSWER: usize = 64 * 1024;
/// Longest URL, in bytes.
const LONGEST_URL: usize = 2048;
/// Published documents that are remembered, of all tenants.
const REMEMBERED: u64 = 1_000;
/// How long.
const REMEMBERED_FOR: Duration = Duration::from_secs(300);
/// A key that is not in a remembered set makes us ask again, but no more often than this.
const ASKED_AGAIN_AFTER: Duration = Duration::from_secs(30);
/// Requests of one tenant that are under way at the same time.
const AT_ONCE: usize = 16;
/// Requests of one tenant in a minute.
const IN_A_MINUTE: u32 = 600;

/// What the operator allows.
#[derive(Debug, Clone, Default)]
pub struct OutboundSettings {
    /// Targets that are not public. Those on this machine may be asked over plain http too.
    pub allow: Vec<Allowed>,
    /// All requests go through this proxy, which then looks names up by itself.
    pub proxy: Option<Url>,
    /// Where names are looked up.
    pub names: Names,
}

/// Where names are looked up.
#[derive(Debug, Clone, Default)]
pub enum Names {
    /// As the machine does.
    #[default]
    System,
    /// In this table, for tests; each look-up of a name takes the next of its answers, the last one again and again.
    Told(Arc<Mutex<HashMap<String, Vec<Vec<IpAddr>>>>>),
}

impl Names {
    async fn look_up(&self, name: &str) -> Result<Vec<IpAddr>, String> {
        match self {
            Self::System => {
                let found = tokio::net::lookup_host((name, 0)).await.map_err(|error| format!("{name}: {error}"))?;
                Ok(found.map(|address| address.ip()).collect())
            }
            Self::Told(table) => {
                let mut table = table.lock().unwrap_or_else(PoisonError::into_inner);
                let answers = table.get_mut(name).ok_or_else(|| format!("{name}: no such name"))?;
                match answers.len() {
                    0 => Err(format!("{name}: no such name")),
                    1 => Ok(answers.first().cloned().unwrap_or_default()),
                    _ => Ok(answers.remove(0)),
                }
            }
        }
    }
}

/// Judges addresses.
#[derive(Debug)]
pub(crate) struct Guard {
    allow: Vec<Allowed>,
    proxy: Option<Url>,
    names: Names,
}

impl Guard {
    fn admits(&self, address: IpAddr, port: Option<u16>) -> bool {
        is_public(address) || self.allow.iter().any(|allowed| allowed.covers(address, port))
    }

    pub(crate) fn is_own_loopback(&self, address: IpAddr, port: u16) -> bool {
        address.is_loopback() && self.allow.iter().any(|allowed| allowed.covers(address, Some(port)))
    }

    /// Addresses of a host that may be connected to, by this port.
    pub(crate) async fn addresses(&self, host: &Host<&str>, port: u16) -> Result<Vec<SocketAddr>, String> {
        let found = match host {
            Host::Ipv4(address) => vec![IpAddr::V4(*address)],
            Host::Ipv6(address) => vec![IpAddr::V6(*address)],
            Host::Domain(name) => self.names.look_up(name).await?,
        };
        let good: Vec<_> = found
            .iter()
            .filter(|address| self.admits(**address, Some(port)))
            .map(|address| SocketAddr::new(*address, port))
            .collect();
        match good.is_empty() {
            true => Err(format!("{host}:{port} has no address that may be asked")),
            false => Ok(good),
        }
    }

    /// Whether this URL may be asked at all, as far as can be told without asking.
    async fn judge(&self, url: &Url) -> Result<(), String> {
        check_url(url).map_err(str::to_owned)?;
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else { return Err("no host".into()) };
        // Behind a proxy, names are the proxy's to judge; an address that stands there itself is still ours.
        if self.proxy.is_some() && matches!(host, Host::Domain(_)) {
            return if url.scheme() == "https" { Ok(()) } else { Err("plain http".into()) };
        }
        let addresses = self.addresses(&host, port).await?;
        let on_this_machine = addresses.iter().all(|address| self.is_own_loopback(address.ip(), port));
        match url.scheme() == "https" || on_this_machine {
            true => Ok(()),
            false => Err("plain http".into()),
        }
    }
}

/// A URL's host; those of `ldap:` are read as those of `https:` are (an address in odd notation is that address).
pub(crate) fn host_of(url: &Url) -> Option<Host<String>> {
    match url.host()? {
        Host::Domain(name) => Host::parse(name).ok(),
        host => Some(host.to_owned()),
    }
}

/// A URL's port, or its scheme's.
pub(crate) fn port_of(url: &Url) -> Option<u16> {
    url.port_or_known_default().or(match url.scheme() {
        "ldaps" => Some(636),
        "ldap" => Some(389),
        _ => None,
    })
}

/// What a URL that admins name must be, wherever it leads.
pub(crate) fn check_url(url: &Url) -> Result<(), &'static str> {
    if url.as_str().len() > LONGEST_URL {
        return Err("is too long");
    }
    if !matches!(url.scheme(), "https" | "http") || url.host().is_none() {
        return Err("begins with https:// and names a host");
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("names no user");
    }
    if url.fragment().is_some() {
        return Err("has no fragment");
    }
    Ok(())
}

/// Looks names up for the client, and gives it only what was judged. Ports are judged before.
struct Judged(Arc<Guard>);

impl Resolve for Judged {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.0.clone();
        Box::pin(async move {
            let name = name.as_str();
            let proxy = guard.proxy.as_ref().and_then(Url::host_str) == Some(name);
            let found = guard.names.look_up(name).await?;
            let good: Vec<_> = found.into_iter().filter(|address| proxy || guard.admits(*address, None)).collect();
            if good.is_empty() {
                return Err("no address that may be asked".into());
            }
            Ok(Box::new(good.into_iter().map(|address| SocketAddr::new(address, 0))) as Addrs)
        })
    }
}

/// What a tenant has asked for.
struct Quota {
    at_once: Arc<Semaphore>,
    minute: Mutex<(Instant, u32)>,
}

impl Quota {
    fn count(&self) -> bool {
        let mut minute = self.minute.lock().unwrap_or_else(PoisonError::into_inner);
        if minute.0.elapsed() >= Duration::from_secs(60) {
            *minute = (Instant::now(), 0);
        }
        minute.1 += 1;
        minute.1 <= IN_A_MINUTE
    }
}

/// A document that was fetched, and when.
#[derive(Clone)]
pub(crate) struct Document {
    pub(crate) json: Arc<Value>,
    at: Instant,
}

/// What came back from a form that was posted.
pub(crate) struct Posted {
    /// True for 200.
    pub(crate) ok: bool,
    pub(crate) json: Value,
}

/// Asks others.
pub(crate) struct Outbound {
    http: reqwest::Client,
    pub(crate) guard: Arc<Guard>,
    documents: Cache<(TenantId, String), Arc<OnceCell<Document>>>,
    quotas: Cache<TenantId, Arc<Quota>>,
}

/// Why the other side's answer is of no use. For the log; whoever asked hears one text.
fn no_use(url: &Url, why: impl std::fmt::Display) -> Failure {
    let place = url.origin().ascii_serialization();
    Fault::Upstream(format!("{place}{}: {why}", url.path())).into()
}

impl Outbound {
    pub(crate) fn new(settings: &OutboundSettings) -> Result<Self, reqwest::Error> {
        let OutboundSettings { allow, proxy, names } = settings.clone();
        let guard = Arc::new(Guard { allow, proxy: proxy.clone(), names });
        let builder = reqwest::Client::builder()
            .dns_resolver(Judged(guard.clone()))
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .timeout(PATIENCE)
            // Connections are not kept: each is made to an address that was judged for it.
            .pool_max_idle_per_host(0)
            .referer(false)
            .user_agent("claviger");
        let builder = match proxy {
            Some(proxy) => builder.proxy(reqwest::Proxy::all(proxy)?),
            None => builder.no_proxy(),
        };
        let documents = Cache::builder().max_capacity(REMEMBERED).time_to_live(REMEMBERED_FOR).build();
        let quotas = Cache::builder().max_capacity(10_000).time_to_idle(Duration::from_secs(120)).build();
        Ok(Self { http: builder.build()?, guard, documents, quotas })
    }

    /// Whether a URL that an admin names may be asked at all, as far as can be told without looking names up. `plain` says
    /// that its scheme decides about TLS: without it, only what the operator listed of this machine is asked.
    pub(crate) fn may_be_asked(&self, url: &str, plain: bool) -> bool {
        let Ok(url) = Url::parse(url) else { return false };
        let address = match host_of(&url) {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) => None,
            None => return false,
        };
        let port = port_of(&url);
        let under_tls = !plain || matches!(url.scheme(), "https" | "ldaps");
        match address {
            Some(address) => {
                self.guard.admits(address, port)
                    && (under_tls || port.is_some_and(|port| self.guard.is_own_loopback(address, port)))
            }
            None => under_tls,
        }
    }

    /// A public document, remembered for five minutes. Asked for by many at once, it is fetched once.
    pub(crate) async fn document(&self, tenant: TenantId, url: &Url) -> Result<Document, Failure> {
        let key = (tenant, url.as_str().to_owned());
        let cell = self.documents.get_with(key, || Arc::new(OnceCell::new()));
        let fetched = cell.get_or_try_init(|| async {
            let (status, json) = self.ask(tenant, url, Method::GET, |request| request).await?;
            match status {
                200 => Ok(Document { json: Arc::new(json), at: Instant::now() }),
                other => Err(no_use(url, format_args!("status {other}"))),
            }
        });
        fetched.await.cloned()
    }

    /// The same document as it is now, if what is remembered of it is not from just now.
    pub(crate) async fn newer(&self, tenant: TenantId, url: &Url, before: &Document) -> Result<Option<Document>, Failure> {
        if before.at.elapsed() < ASKED_AGAIN_AFTER {
            return Ok(None);
        }
        let key = (tenant, url.as_str().to_owned());
        let kept = self.documents.get(&key).and_then(|cell| cell.get().map(|document| document.at));
        if kept == Some(before.at) {
            self.documents.invalidate(&key);
        }
        self.document(tenant, url).await.map(Some)
    }

    /// What is behind an access token.
    pub(crate) async fn with_token(&self, tenant: TenantId, url: &Url, token: &SecretString) -> Result<Value, Failure> {
        let (status, json) = self.ask(tenant, url, Method::GET, |request| request.bearer_auth(token.expose_secret())).await?;
        match status {
            200 => Ok(json),
            401 | 403 => Err(Refusal::Upstream(crate::oidc::Declined::Refused).into()),
            other => Err(no_use(url, format_args!("status {other}"))),
        }
    }

    /// Posts a form, with the client's id and secret as Basic if they are given.
    pub(crate) async fn post(
        &self,
        tenant: TenantId,
        url: &Url,
        form: &[(&str, &str)],
        basic: Option<(&str, &SecretString)>,
    ) -> Result<Posted, Failure> {
        let (status, json) = self
            .ask(tenant, url, Method::POST, |request| match basic {
                Some((id, secret)) => request.form(form).basic_auth(encoded(id), Some(encoded(secret.expose_secret()))),
                None => request.form(form),
            })
            .await?;
        match status {
            200 => Ok(Posted { ok: true, json }),
            400 | 401 | 403 => Ok(Posted { ok: false, json }),
            other => Err(no_use(url, format_args!("status {other}"))),
        }
    }

    /// A tenant's turn to ask, as long as it is held: so many at once, and in a minute.
    pub(crate) fn turn(&self, tenant: TenantId) -> Result<OwnedSemaphorePermit, Failure> {
        let quota = self.quotas.get_with(tenant, || {
            Arc::new(Quota { at_once: Arc::new(Semaphore::new(AT_ONCE)), minute: Mutex::new((Instant::now(), 0)) })
        });
        let turn = quota.at_once.clone().try_acquire_owned().ok().filter(|_| quota.count());
        turn.ok_or_else(|| Fault::Overloaded("the asking of others for this tenant").into())
    }

    async fn ask(
        &self,
        tenant: TenantId,
        url: &Url,
        method: Method,
        dress: impl FnOnce(RequestBuilder) -> RequestBuilder,
    ) -> Result<(u16, Value), Failure> {
        let _turn = self.turn(tenant)?;
        let exchange = async {
            self.guard.judge(url).await?;
            let request = dress(self.http.request(method, url.clone())).header(header::ACCEPT, "application/json");
            let mut response = request.send().await.map_err(|error| described(&error))?;
            let connected = response.remote_addr();
            let judged = self.guard.proxy.is_some()
                || connected.is_some_and(|address| self.guard.admits(address.ip(), Some(address.port())));
            if !judged {
                return Err("an address that may not be asked answered".to_owned());
            }
            let status = response.status().as_u16();
            if !is_json(response.headers().get(header::CONTENT_TYPE)) {
                return Err(format!("status {status} with something that is not JSON"));
            }
            let mut body = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|error| described(&error))? {
                if body.len() + chunk.len() > LONGEST_ANSWER {
                    return Err(format!("an answer longer than {LONGEST_ANSWER} bytes"));
                }
                body.extend_from_slice(&chunk);
            }
            let json = serde_json::from_slice(&body).map_err(|_| "an answer that is not JSON".to_owned())?;
            Ok((status, json))
        };
        match tokio::time::timeout(PATIENCE, exchange).await {
            Ok(outcome) => outcome.map_err(|why| no_use(url, why)),
            Err(_) => Err(no_use(url, "no answer in time")),
        }
    }
}

/// As RFC 6749 §2.3.1 has it.
fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// With what caused it, without the URL, whose query may be a secret.
fn described(error: &reqwest::Error) -> String {
    let mut text = if error.is_timeout() { "no answer in time".to_owned() } else { "no answer".to_owned() };
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

/// `application/json` and what is built upon it (RFC 6839 §3.1).
fn is_json(kind: Option<&header::HeaderValue>) -> bool {
    let kind = kind.and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}
