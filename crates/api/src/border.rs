//! The border that every request crosses, both ways: its id and origin, what is too much, https, security headers,
//! the log line, and the last resort when a handler panics.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use actix_web::body::{EitherBody, MessageBody};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{ConnectionType, Method, StatusCode, Uri};
use actix_web::middleware::Next;
use actix_web::web::Data;
use actix_web::{Error, HttpMessage as _, ResponseError as _};
use claviger_issuer::Issuer;
use claviger_issuer::budget::{Remaining, Told};
use claviger_issuer::settings::RequestInfo;
use futures_util::FutureExt as _;
use ipnet::IpNet;
use tracing::Instrument as _;

use crate::config::ProxyHeader;
use crate::metrics;
use crate::problem::Answer;
use crate::traces;

/// Longest path with query, in bytes.
const LONGEST_URI: usize = 8 * 1024;
/// Most header lines.
const MOST_HEADERS: usize = 64;
/// Methods that are named in the log; any other text may be anything.
const KNOWN_METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
/// Hops of a forwarding header that are looked at.
const MOST_HOPS: usize = 32;

/// What the border knows besides the request.
pub(crate) struct Border {
    pub(crate) trusted_proxies: Vec<IpNet>,
    pub(crate) proxy_header: ProxyHeader,
    pub(crate) require_https: bool,
    /// Tenants by the host that stands for them, in lower case and without a port.
    pub(crate) hosts: BTreeMap<String, String>,
    /// False once the server is about to stop.
    pub(crate) accepting: AtomicBool,
    /// Handlers that panicked since the start. Anything but 0 is a bug.
    pub(crate) panics: AtomicU64,
}

/// The host that a request was sent to, with its port, where that host stands for a tenant.
#[derive(Debug, Clone)]
pub(crate) struct MappedHost(pub(crate) String);

/// What the installation serves itself, on whatever host.
const OF_NO_TENANT: [&str; 5] = ["/healthz", "/readyz", "/openapi.json", "/docs", "/assets"];

/// Where a request came from, as far as it can be believed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Origin {
    address: Option<IpAddr>,
    https: bool,
}

impl Border {
    fn trusts(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.trusted_proxies.iter().any(|network| network.contains(&address))
    }

    /// The host as it was written, and the path as a tenant's, if the configuration says that this host stands for one. A path
    /// that names a tenant wins; forwarding headers do not count.
    fn mapped(&self, headers: &HeaderMap, path: &str) -> Option<(String, String)> {
        if self.hosts.is_empty() || path.starts_with("/t/") {
            return None;
        }
        let beneath = |root: &&str| path.strip_prefix(*root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        if OF_NO_TENANT.iter().any(beneath) {
            return None;
        }
        let authority = one(headers, &header::HOST).ok()??.to_ascii_lowercase();
        let host = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|b| b.is_ascii_digit()));
        let host = host.map_or(authority.as_str(), |(host, _)| host);
        let slug = self.hosts.get(host.strip_suffix('.').unwrap_or(host))?;
        Some((authority.clone(), format!("/t/{slug}{path}")))
    }

    /// The peer, or whom a listed proxy names: the rightmost hop that is not itself a listed proxy.
    fn origin(&self, peer: Option<IpAddr>, headers: &HeaderMap) -> Result<Origin, &'static str> {
        let Some(peer) = peer.filter(|peer| self.trusts(*peer)) else { return Ok(Origin { address: peer, https: false }) };
        let (hops, proto) = match self.proxy_header {
            ProxyHeader::XForwardedFor => {
                let hops = one(headers, &HeaderName::from_static("x-forwarded-for"))?.unwrap_or_default();
                let proto = one(headers, &HeaderName::from_static("x-forwarded-proto"))?;
                (hops.split(',').map(str::trim).map(str::to_owned).collect::<Vec<_>>(), proto.map(str::to_owned))
            }
            ProxyHeader::Forwarded => forwarded(one(headers, &header::FORWARDED)?.unwrap_or_default()),
        };
        let mut address = peer;
        for hop in hops.iter().rev().take(MOST_HOPS).filter(|hop| !hop.is_empty()) {
            address = hop_address(hop).ok_or("a forwarding header does not hold an address")?;
            if !self.trusts(address) {
                break;
            }
        }
        let https = proto.is_some_and(|proto| proto.trim().eq_ignore_ascii_case("https"));
        Ok(Origin { address: Some(address), https })
    }
}

/// A header that occurs once, or not at all.
fn one<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Result<Option<&'a str>, &'static str> {
    let mut lines = headers.get_all(name);
    let Some(line) = lines.next() else { return Ok(None) };
    if lines.next().is_some() {
        return Err("a forwarding header occurs twice");
    }
    line.to_str().map(Some).map_err(|_| "a forwarding header is not text")
}

/// The `for` of each hop and the `proto` of the last (RFC 7239 §4).
fn forwarded(value: &str) -> (Vec<String>, Option<String>) {
    let mut proto = None;
    let hops = value
        .split(',')
        .map(|hop| {
            let pairs = hop.split(';').filter_map(|pair| pair.trim().split_once('='));
            let mut address = String::new();
            // Of the last hop alone: what stands before it, a client may have written.
            proto = None;
            for (name, text) in pairs {
                let text = text.trim().trim_matches('"');
                match name.trim().to_ascii_lowercase().as_str() {
                    "for" => address = text.to_owned(),
                    "proto" => proto = Some(text.to_owned()),
                    _ => {}
                }
            }
            address
        })
        .collect();
    (hops, proto)
}

/// An address with or without brackets and port.
fn hop_address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|rest| rest.split_once(']')).map(|(address, _)| address);
    bare.unwrap_or(hop)
        .parse()
        .ok()
        .or_else(|| hop.parse::<std::net::SocketAddr>().ok().map(|socket| socket.ip()))
        .map(|address: IpAddr| address.to_canonical())
}

/// The middleware.
pub(crate) async fn cross<B: MessageBody + 'static>(
    mut req: ServiceRequest,
    next: Next<B>,
) -> Result<ServiceResponse<EitherBody<B>>, Error> {
    let started = Instant::now();
    let _in_hand = metrics::in_hand();
    let (Some(border), Some(issuer)) = (req.app_data::<Data<Border>>().cloned(), req.app_data::<Data<Issuer>>().cloned()) else {
        return Err(Answer::internal().into());
    };
    // 96 random bits in hexadecimal.
    let id = format!("{:024x}", u128::from_be_bytes(issuer.random().bytes()) >> 32);
    let method = req.method().clone();
    let health = req.path() == "/readyz";
    let peer = req.peer_addr().map(|peer| peer.ip());
    let span = traces::begin(&id, req.headers(), peer.is_some_and(|peer| border.trusts(peer)));
    let origin = border.origin(peer, req.headers());
    let known = origin.unwrap_or(Origin { address: None, https: false });
    let mut told = Told::default();
    let mut response = match admit(&border, &req, origin) {
        Err(refused) => req.into_response(refused.error_response()).map_into_right_body(),
        Ok(()) => {
            if method == Method::HEAD {
                // Answered as GET; the body is left out on the wire.
                req.head_mut().method = Method::GET;
            }
            let agent = req.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).map(str::to_owned);
            let request = RequestInfo { agent, https: known.https, ..RequestInfo::new(id.clone(), known.address) };
            told = request.told.clone();
            req.extensions_mut().insert(request);
            if let Some((host, path)) = border.mapped(req.headers(), req.path()) {
                lead(&mut req, &path)?;
                req.extensions_mut().insert(MappedHost(host));
            }
            // No clone of the request may be held here: routing writes into it.
            match AssertUnwindSafe(next.call(req).instrument(span.clone())).catch_unwind().await {
                Ok(response) => response?.map_into_left_body(),
                Err(_) => {
                    border.panics.fetch_add(1, Ordering::Relaxed);
                    metrics::count_panic();
                    tracing::error!(request.id = %id, "a handler panicked");
                    return Err(Answer::internal().of_request(&id).into());
                }
            }
        }
    };
    let method = KNOWN_METHODS.iter().find(|known| **known == method).map_or("other", Method::as_str);
    // The pattern and not the path as it came: whatever somebody puts into a path by mistake stays out.
    let route = response.request().match_pattern().unwrap_or_else(|| "-".to_owned());
    metrics::count(method, &route, response.status(), response.response().error(), started.elapsed());
    traces::end(&span, method, &route, response.status());
    log(&response, &id, method, &route, health, known.address, started);
    if !border.accepting.load(Ordering::Relaxed) {
        response.response_mut().head_mut().set_connection_type(ConnectionType::Close);
    }
    dress(response.headers_mut(), &id, known.https);
    tell_limits(response.headers_mut(), &told.heard());
    Ok(response)
}

/// What is refused before anybody reads it.
fn admit(border: &Border, req: &ServiceRequest, origin: Result<Origin, &'static str>) -> Result<(), Answer> {
    if req.uri().path_and_query().is_some_and(|uri| uri.as_str().len() > LONGEST_URI) {
        return Err(Answer::new(StatusCode::URI_TOO_LONG, "invalid_request", "The path and query are longer than 8 KiB."));
    }
    if req.headers().iter().count() > MOST_HEADERS {
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        return Err(Answer::new(status, "invalid_request", "There are more than 64 header lines."));
    }
    if req.headers().get_all(header::AUTHORIZATION).count() > 1 {
        return Err(Answer::bad_request("There are two Authorization headers: send one."));
    }
    let origin = origin.map_err(|why| Answer::bad_request(format!("The proxy's headers cannot be used: {why}.")))?;
    let health = matches!(req.path(), "/healthz" | "/readyz");
    if border.require_https && !origin.https && !health {
        return Err(Answer::https_required());
    }
    Ok(())
}

/// Leads a request to another path, before it is routed.
fn lead(req: &mut ServiceRequest, path: &str) -> Result<(), Answer> {
    let asked = match req.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut parts = req.uri().clone().into_parts();
    parts.path_and_query = Some(asked.parse().map_err(|_| Answer::not_found())?);
    let uri = Uri::from_parts(parts).map_err(|_| Answer::not_found())?;
    req.match_info_mut().get_mut().update(&uri);
    req.head_mut().uri = uri;
    Ok(())
}

/// One line a request: what failed at warn or error, what was done at info, a token issued at debug, since the audit
/// trail has each.
fn log<B>(
    response: &ServiceResponse<B>,
    id: &str,
    method: &'static str,
    path: &str,
    readiness: bool,
    address: Option<IpAddr>,
    started: Instant,
) {
    let status = response.status().as_u16();
    let token = status == 201 && path.ends_with("/v1/authentications") || status == 200 && path.ends_with("/v1/token");
    let routine = token || status == 200 && method == "GET";
    if routine && !tracing::enabled!(tracing::Level::DEBUG) {
        return;
    }
    let answer = response.response().error().and_then(|error| error.as_error::<Answer>());
    let fault = answer.and_then(Answer::fault).map(tracing::field::display);
    let overloaded = answer.is_some_and(Answer::is_overload);
    let micros = u64::try_from(started.elapsed().as_micros()).unwrap_or(u64::MAX);
    let address = address.map(tracing::field::display);
    macro_rules! line {
        ($level:ident, $message:literal) => {
            tracing::$level!(
                request.id = id,
                http.method = method,
                http.path = path,
                http.status = status,
                client.address = address,
                duration.us = micros,
                error = fault,
                $message
            )
        };
    }
    match status {
        // A balancer asks again and again; the reason was logged where it was found.
        503 if readiness => line!(debug, "request"),
        // Refused on purpose, and perhaps thousands of times a second.
        503 if overloaded => line!(info, "request"),
        500.. => line!(error, "request failed"),
        _ if routine => line!(debug, "request"),
        _ => line!(info, "request"),
    }
}

/// `RateLimit-Policy` and `RateLimit` (draft-ietf-httpapi-ratelimit-headers), where the caller's key has limits.
fn tell_limits(headers: &mut HeaderMap, limits: &[Remaining]) {
    if limits.is_empty() {
        return;
    }
    let line = |of: &dyn Fn(&Remaining) -> String| limits.iter().map(of).collect::<Vec<_>>().join(", ");
    let policy = line(&|one| format!("\"{}\";q={};w={}", one.kind.word(), one.limit, one.window));
    let left = line(&|one| format!("\"{}\";r={};t={}", one.kind.word(), one.left, one.ends_in));
    for (name, value) in [("ratelimit-policy", policy), ("ratelimit", left)] {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// Headers that every answer wears unless its handler chose its own.
fn dress(headers: &mut HeaderMap, id: &str, https: bool) {
    let mut unless_set = |name: HeaderName, value: &'static str| {
        if !headers.contains_key(&name) {
            headers.insert(name, HeaderValue::from_static(value));
        }
    };
    unless_set(header::CACHE_CONTROL, "no-store");
    unless_set(
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    );
    unless_set(header::X_CONTENT_TYPE_OPTIONS, "nosniff");
    unless_set(header::REFERRER_POLICY, "no-referrer");
    unless_set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    unless_set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    if https {
        unless_set(header::STRICT_TRANSPORT_SECURITY, "max-age=63072000; includeSubDomains");
    }
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(HeaderName::from_static("x-request-id"), id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn border(proxy_header: ProxyHeader) -> Border {
        Border {
            trusted_proxies: vec!["10.0.0.0/8".parse().unwrap()],
            proxy_header,
            require_https: false,
            hosts: BTreeMap::from([("auth.cc.example".to_owned(), "cc".to_owned())]),
            accepting: AtomicBool::new(true),
            panics: AtomicU64::new(0),
        }
    }

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        map
    }

    fn origin(
        proxy_header: ProxyHeader,
        peer: &str,
        lines: &[(&'static str, &'static str)],
    ) -> Result<(String, bool), &'static str> {
        let origin = border(proxy_header).origin(Some(peer.parse().unwrap()), &headers(lines))?;
        Ok((origin.address.unwrap().to_string(), origin.https))
    }

    #[test]
    fn p15_forwarding_headers_of_unlisted_peers_are_ignored() {
        let lines =
            [("x-forwarded-for", "198.51.100.1"), ("x-forwarded-proto", "https"), ("forwarded", "for=198.51.100.1;proto=https")];
        for kind in [ProxyHeader::XForwardedFor, ProxyHeader::Forwarded] {
            assert_eq!(origin(kind, "192.0.2.1", &lines), Ok(("192.0.2.1".into(), false)));
        }
    }

    #[test]
    fn the_rightmost_hop_that_is_no_proxy_of_ours_is_the_caller() {
        let kind = ProxyHeader::XForwardedFor;
        let lines = [("x-forwarded-for", "203.0.113.66, 198.51.100.1, 10.0.0.2"), ("x-forwarded-proto", "https")];
        assert_eq!(origin(kind, "10.0.0.1", &lines), Ok(("198.51.100.1".into(), true)));
        assert_eq!(origin(kind, "10.0.0.1", &[]), Ok(("10.0.0.1".into(), false)));
        assert_eq!(
            origin(kind, "::ffff:10.0.0.1", &[("x-forwarded-for", "[2001:db8::1]:443")]),
            Ok(("2001:db8::1".into(), false))
        );
    }

    #[test]
    fn only_the_chosen_header_is_read() {
        let lines =
            [("forwarded", "for=198.51.100.1;proto=https"), ("x-forwarded-for", "203.0.113.66"), ("x-forwarded-proto", "http")];
        assert_eq!(origin(ProxyHeader::Forwarded, "10.0.0.1", &lines), Ok(("198.51.100.1".into(), true)));
        assert_eq!(origin(ProxyHeader::XForwardedFor, "10.0.0.1", &lines), Ok(("203.0.113.66".into(), false)));
    }

    #[test]
    fn p16_a_host_counts_only_if_it_was_configured() {
        let border = border(ProxyHeader::XForwardedFor);
        let led = |lines: &[(&'static str, &'static str)], path: &str| border.mapped(&headers(lines), path).map(|(_, path)| path);
        for host in ["auth.cc.example", "AUTH.cc.example", "auth.cc.example:8443", "auth.cc.example."] {
            assert_eq!(led(&[("host", host)], "/login").as_deref(), Some("/t/cc/login"), "{host}");
        }
        for host in ["cc.example", "auth.cc.example.evil.test", "evil.test", "", "auth.cc.example:x"] {
            assert_eq!(led(&[("host", host)], "/login"), None, "{host}");
        }
        assert_eq!(led(&[("x-forwarded-host", "auth.cc.example")], "/login"), None);
        assert_eq!(led(&[("host", "auth.cc.example"), ("host", "evil.test")], "/login"), None);
        assert_eq!(led(&[], "/login"), None);
        let ours = [("host", "auth.cc.example")];
        for path in ["/t/other/v1/me", "/healthz", "/docs/", "/docs", "/assets/pages.css"] {
            assert_eq!(led(&ours, path), None, "{path}");
        }
        assert_eq!(led(&ours, "/docsier").as_deref(), Some("/t/cc/docsier"));
    }

    #[test]
    fn twice_or_nonsense_is_refused() {
        let kind = ProxyHeader::XForwardedFor;
        assert!(origin(kind, "10.0.0.1", &[("x-forwarded-for", "198.51.100.1"), ("x-forwarded-for", "198.51.100.2")]).is_err());
        assert!(origin(kind, "10.0.0.1", &[("x-forwarded-proto", "http"), ("x-forwarded-proto", "https")]).is_err());
        assert!(origin(kind, "10.0.0.1", &[("x-forwarded-for", "unknown")]).is_err());
    }
}
