//! A reverse proxy asks about each request before it lets it through.
//!
//! The proxy sends the request's headers along, and says what was asked for in headers of its own:
//!
//! | `kind` | | headers |
//! |---|---|---|
//! | `nginx` | `auth_request` | `X-Original-Method`, `X-Original-URL` |
//! | `traefik` | ForwardAuth | `X-Forwarded-Method`, `X-Forwarded-Proto`, `X-Forwarded-Host`, `X-Forwarded-Uri` |
//! | `envoy` | ext_authz over HTTP | the request itself, its path behind `/v1/forward-auth/envoy/{policy}` |
//!
//! All of them must be there, each once, and be in the form that clients send. Anything odd is 403: a proxy and we would read
//! it differently, and one of us would be wrong.

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, get};
use claviger_issuer::requirement::Requirement;
use claviger_issuer::verify::{Allowed, Denied, Question, Shown};
use claviger_issuer::{Failure, Issuer, Refusal};
use secrecy::SecretString;
use serde::Deserialize;
use utoipa::{IntoParams, ToSchema};

use crate::body::Asked;
use crate::caller::{path_tenant, request_info};
use crate::dialects::clustercockpit::own_token;
use crate::problem::{Answer, Answered};
use crate::v1::verify::{shown, told};

/// Headers that proxies say things in, and those that we answer with: none may have a twin.
const SPOKEN: [&str; 6] =
    ["x-original-method", "x-original-url", "x-forwarded-method", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-uri"];
/// What an answer always says of the caller, empty where there is nothing to say: whatever a client sent under these names
/// must be replaced.
const IDENTITY: [&str; 8] = [
    "remote-user",
    "x-claviger-subject",
    "x-claviger-username",
    "x-claviger-roles",
    "x-claviger-scope",
    "x-claviger-tenant",
    "x-claviger-actor",
    "x-claviger-key-id",
];

/// Which proxy asks, and for what. Written into the proxy's configuration; never part of a client's request.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct ForwardAuthQuery {
    /// Which proxy asks. Absent, it is told by which headers there are.
    #[param(inline)]
    kind: Option<Kind>,
    /// A policy of the tenant that the caller must fulfil; absent asks for nothing but a caller who may act.
    policy: Option<String>,
    /// Whom a token must be for (`aud`); absent takes those for the tenant's own issuer and for the protected host.
    audience: Option<String>,
}

/// Which proxy asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    Nginx,
    Traefik,
}

/// What a client asked the proxy for, in one form.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    host: String,
}

/// Decide about a proxied request
///
/// For nginx `auth_request` and Traefik ForwardAuth. 200 lets the request through; the answer's identity headers are always
/// set, empty where there is nothing to say. Anything odd in what the proxy says is 403.
#[utoipa::path(
    tag = "Verify",
    operation_id = "forwardAuth",
    params(ForwardAuthQuery),
    responses(
        (status = 200, description = "Let it through", headers(
            ("Remote-User" = String, description = "The login name, or else the subject"),
            ("X-Claviger-Subject" = String, description = "`sub`, or whom the caller acts for"),
            ("X-Claviger-Username" = String, description = "The login name"),
            ("X-Claviger-Roles" = String, description = "Roles, separated by commas"),
            ("X-Claviger-Scope" = String, description = "What may be done, space-separated"),
            ("X-Claviger-Tenant" = String, description = "The tenant's slug"),
            ("X-Claviger-Actor" = String, description = "Who acts, where that is somebody else"),
            ("X-Claviger-Key-Id" = String, description = "The key behind the caller"),
        )),
        (status = 401, description = "Credentials are needed, or not good", body = crate::problem::Problem),
        (status = 403, description = "The caller may not, or the request is odd", body = crate::problem::Problem),
        (status = 404, description = "There is no such tenant", body = crate::problem::Problem),
        (status = 503, description = "It cannot be found out now: do not let it through", body = crate::problem::Problem),
    ),
    security(()),
)]
#[get("/v1/forward-auth")]
pub(crate) async fn show(req: HttpRequest, issuer: Data<Issuer>, query: Asked<ForwardAuthQuery>) -> HttpResponse {
    let decided = match query.take() {
        Ok(ForwardAuthQuery { kind, policy, audience }) => match target(req.headers(), kind) {
            Ok(target) => decide(&req, &issuer, &target, policy, audience).await,
            Err(odd) => Err(refused(odd)),
        },
        Err(_) => Err(refused("the address that the proxy asks at is wrong")),
    };
    answer(decided, &issuer, &req)
}

/// As [`show`], for Envoy, which asks with the request itself.
pub(crate) async fn envoy(req: HttpRequest, issuer: Data<Issuer>) -> HttpResponse {
    let policy = req.match_info().get("policy").filter(|policy| *policy != "-").map(str::to_owned);
    let decided = match envoy_target(&req) {
        Ok(target) => decide(&req, &issuer, &target, policy, None).await,
        Err(odd) => Err(refused(odd)),
    };
    answer(decided, &issuer, &req)
}

fn refused(odd: &'static str) -> Answer {
    Answer::new(StatusCode::FORBIDDEN, "odd_request", format!("The request is not let through: {odd}."))
}

async fn decide(
    req: &HttpRequest,
    issuer: &Issuer,
    target: &Target,
    policy: Option<String>,
    audience: Option<String>,
) -> Answered<Allowed> {
    let tenant = path_tenant(req).await?.ok_or_else(Answer::not_found)?;
    let own = own_token(req).filter(|_| tenant.settings.dialects.clustercockpit.is_some());
    let authorization = match req.headers().get(header::AUTHORIZATION).map(HeaderValue::to_str) {
        _ if own.is_some() => own.map(Shown::Token),
        None => None,
        Some(Ok(text)) => Some(shown(&SecretString::from(text), &issuer.settings().brand, tenant.settings.lenient_bearer)),
        Some(Err(_)) => return Err(refused("the Authorization header is not text")),
    };
    let audiences = match audience {
        Some(audience) => vec![audience],
        None => vec![tenant.issuer.clone(), format!("https://{}", target.host)],
    };
    let question = Question {
        authorization,
        impersonating: None,
        token: None,
        user_id: None,
        origin: None,
        audiences,
        require: Requirement::default(),
        privileges: Vec::new(),
        policies: policy.into_iter().collect(),
        request: request_info(req),
    };
    match issuer.verify_for_proxy(&tenant, question).await {
        Ok(Ok(allowed)) => Ok(allowed),
        Ok(Err(denied)) => Err(answer_of(&denied)),
        Err(Failure::Refusal(Refusal::Invalid { .. })) => Err(refused("the proxy asks for a policy that the tenant has not")),
        Err(failure) => Err(failure.into()),
    }
}

/// nginx knows 401 and 403; everything else would be an error of its own.
fn answer_of(denied: &Denied) -> Answer {
    let (status, words) = told(denied);
    match status {
        401 => Answer::unauthorized(denied.word(), format!("{words}.")),
        _ => Answer::new(StatusCode::FORBIDDEN, denied.word(), format!("{words}.")),
    }
}

fn answer(decided: Answered<Allowed>, issuer: &Issuer, req: &HttpRequest) -> HttpResponse {
    use actix_web::ResponseError as _;
    let mut identity = IDENTITY.map(|_| String::new());
    let mut response = match decided {
        Ok(allowed) => {
            let Allowed { subject, username, roles, scopes, actor, key, ends: _ } = allowed;
            let tenant = req.match_info().get("tenant").unwrap_or(&issuer.settings().default_tenant).to_owned();
            identity = [
                username.clone().unwrap_or_else(|| subject.clone()),
                subject,
                username.unwrap_or_default(),
                roles.join(","),
                scopes.to_string(),
                tenant,
                actor.map(|actor| actor.name).unwrap_or_default(),
                key.map(|key| key.to_string()).unwrap_or_default(),
            ];
            HttpResponse::Ok().finish()
        }
        // Kept for the border, which logs what broke.
        Err(answer) if answer.fault().is_some() => HttpResponse::from_error(answer),
        Err(answer) => answer.error_response(),
    };
    for (name, value) in IDENTITY.iter().zip(identity) {
        // Names and roles are checked when they are given; what no header can hold is left empty all the same.
        let value = HeaderValue::from_bytes(value.as_bytes()).unwrap_or_else(|_| HeaderValue::from_static(""));
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
    response
}

/// What the proxy says was asked for.
fn target(headers: &HeaderMap, kind: Option<Kind>) -> Result<Target, &'static str> {
    no_twins(headers)?;
    let nginx = headers.contains_key("x-original-url") || headers.contains_key("x-original-method");
    let traefik = headers.contains_key("x-forwarded-uri") || headers.contains_key("x-forwarded-method");
    match (kind, nginx, traefik) {
        (Some(Kind::Nginx), ..) | (None, true, false) => {
            method(one(headers, "x-original-method")?)?;
            let url = one(headers, "x-original-url")?;
            let (scheme, rest) = url.split_once("://").ok_or("X-Original-URL is no address")?;
            scheme_is_known(scheme)?;
            let at = rest.find('/').ok_or("X-Original-URL has no path")?;
            let (host, path) = rest.split_at(at);
            place(host, path)
        }
        (Some(Kind::Traefik), ..) | (None, false, true) => {
            method(one(headers, "x-forwarded-method")?)?;
            scheme_is_known(one(headers, "x-forwarded-proto")?)?;
            place(one(headers, "x-forwarded-host")?, one(headers, "x-forwarded-uri")?)
        }
        (None, true, true) => Err("it comes with the headers of two kinds of proxies: name one with ?kind="),
        (None, false, false) => Err("the proxy does not say what was asked for"),
    }
}

/// What Envoy says was asked for: the request itself.
fn envoy_target(req: &HttpRequest) -> Result<Target, &'static str> {
    no_twins(req.headers())?;
    let host = one(req.headers(), "host")?;
    let path = req.uri().path_and_query().map_or("", |path| path.as_str());
    // Behind our own four or five segments.
    let at = path.find("/v1/forward-auth/envoy/").ok_or("the address is not one of ours")?;
    let rest = path.get(at + "/v1/forward-auth/envoy/".len()..).unwrap_or_default();
    let (_, asked) = rest.split_once('/').ok_or("there is no path behind the policy")?;
    place(host, &format!("/{asked}"))
}

/// No name that some servers take for one of ours, and none that a hop is told to drop.
fn no_twins(headers: &HeaderMap) -> Result<(), &'static str> {
    let watched = |name: &str| SPOKEN.contains(&name) || IDENTITY.contains(&name) || name == "authorization";
    for name in headers.keys() {
        let plain = name.as_str().replace(['_', '.'], "-");
        if plain != name.as_str() && watched(&plain) {
            return Err("a header has a twin that is written with `_` or `.`");
        }
    }
    for value in headers.get_all(header::CONNECTION) {
        let value = value.to_str().map_err(|_| "the Connection header is not text")?;
        if value.split(',').any(|name| watched(name.trim().to_ascii_lowercase().as_str())) {
            return Err("the Connection header names a header that is needed");
        }
    }
    Ok(())
}

fn one<'a>(headers: &'a HeaderMap, name: &'static str) -> Result<&'a str, &'static str> {
    let mut lines = headers.get_all(name);
    let line = lines.next().ok_or("a header of the proxy is missing")?;
    if lines.next().is_some() {
        return Err("a header of the proxy occurs twice");
    }
    line.to_str().map_err(|_| "a header of the proxy is not text")
}

fn method(text: &str) -> Result<(), &'static str> {
    let known = [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
    match known.iter().any(|method| method.as_str() == text) {
        true => Ok(()),
        false => Err("the method is not a usual one"),
    }
}

fn scheme_is_known(scheme: &str) -> Result<(), &'static str> {
    match scheme {
        "https" | "http" | "wss" | "ws" => Ok(()),
        _ => Err("the scheme is neither http nor https"),
    }
}

/// A host and a path as clients send them when they mean well: lower case, nothing encoded that need not be, no dot segments.
fn place(host: &str, path: &str) -> Result<Target, &'static str> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !host.ends_with(']') => (name, Some(port)),
        _ => (host, None),
    };
    let plain_name = |name: &str| {
        (1..=253).contains(&name.len())
            && name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'))
            && name.split('.').all(|label| !label.is_empty())
    };
    let bracketed = |name: &str| {
        name.strip_prefix('[')
            .and_then(|name| name.strip_suffix(']'))
            .is_some_and(|name| name.parse::<std::net::Ipv6Addr>().is_ok())
    };
    if !plain_name(name) && !bracketed(name) {
        return Err("the host is not in its plain form");
    }
    if port.is_some_and(|port| port.parse::<u16>().is_err() || port.starts_with(['0', '+'])) {
        return Err("the port is not a number");
    }
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    if !path.starts_with('/') || path.len() + query.len() > 8192 {
        return Err("the path is not one");
    }
    if !path.bytes().chain(query.bytes()).all(|b| b.is_ascii_graphic() && !matches!(b, b'\\' | b'#' | b'"' | b'<' | b'>')) {
        return Err("the address holds characters that no client sends");
    }
    let lower = path.to_ascii_lowercase();
    if ["%2f", "%5c", "%2e", "%00", "%25", "%0a", "%0d", "//", ";"].iter().any(|odd| lower.contains(odd)) {
        return Err("the path hides a separator");
    }
    let mut escapes = path.split('%').skip(1).chain(query.split('%').skip(1));
    if !escapes.all(|rest| rest.get(..2).is_some_and(|two| two.bytes().all(|b| b.is_ascii_hexdigit()))) {
        return Err("an escape is not one");
    }
    if path.split('/').any(|segment| matches!(segment, "." | "..")) {
        return Err("the path has dot segments");
    }
    Ok(Target { host: host.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        map
    }

    fn nginx(url: &str) -> Result<Target, &'static str> {
        target(&headers(&[("x-original-method", "GET"), ("x-original-url", url)]), Some(Kind::Nginx))
    }

    #[test]
    fn plain_addresses_are_read() {
        for url in ["https://app.example.com/", "http://app.example.com:8080/a/b?x=1&y=%2F..", "https://[::1]/a%20b"] {
            assert!(nginx(url).is_ok(), "{url}");
        }
    }

    #[test]
    fn p40_odd_addresses_are_refused() {
        for url in [
            "https://APP.example.com/",
            "https://app.example.com",
            "app.example.com/",
            "ftp://app.example.com/",
            "https://user@app.example.com/",
            "https://app.example.com:0x50/",
            "https://app.example.com./",
            "https:///a",
            "https://app.example.com/a/../b",
            "https://app.example.com/a/./b",
            "https://app.example.com/a%2Fb",
            "https://app.example.com/a%2e%2e/b",
            "https://app.example.com/a%252e/b",
            "https://app.example.com/a%5cb",
            "https://app.example.com/a\\b",
            "https://app.example.com//a",
            "https://app.example.com/a;b",
            "https://app.example.com/a%zz",
            "https://app.example.com/a%0d%0ab",
            "https://app.example.com/\u{e4}",
            "https://app.example.com/a#b",
        ] {
            assert!(nginx(url).is_err(), "{url}");
        }
    }

    #[test]
    fn p40_headers_that_are_missing_twice_or_twins_are_refused() {
        let good = [
            ("x-forwarded-method", "GET"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "app.example.com"),
            ("x-forwarded-uri", "/a"),
        ];
        assert!(target(&headers(&good), None).is_ok());
        for at in 0..good.len() {
            let mut missing = good.to_vec();
            let one = missing.remove(at);
            assert!(target(&headers(&missing), Some(Kind::Traefik)).is_err());
            assert!(target(&headers(&[&good[..], &[one]].concat()), Some(Kind::Traefik)).is_err());
            let twin = one.0.replace("x-forwarded-", "x_forwarded-");
            assert!(target(&headers(&[&good[..], &[(twin.as_str(), one.1)]].concat()), Some(Kind::Traefik)).is_err());
            assert!(target(&headers(&[&good[..], &[("connection", one.0)]].concat()), Some(Kind::Traefik)).is_err());
        }
        for more in [("remote_user", "admin"), ("x.claviger.subject", "admin"), ("connection", "close, Authorization")] {
            assert!(target(&headers(&[&good[..], &[more]].concat()), None).is_err(), "{more:?}");
        }
        let both = [&good[..], &[("x-original-url", "https://app.example.com/"), ("x-original-method", "GET")]].concat();
        assert!(target(&headers(&both), None).is_err());
        assert!(target(&headers(&both), Some(Kind::Nginx)).is_ok());
        assert!(target(&headers(&[]), None).is_err());
        assert!(target(&headers(&[("x-forwarded-method", "get")]), None).is_err());
    }
}
