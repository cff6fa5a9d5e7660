//! May this caller do this? Asked by resource servers.

use actix_web::post;
use actix_web::web::{Data, Json};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_issuer::acting::Acting;
use claviger_issuer::app_token::AppToken;
use claviger_issuer::budget::Remaining;
use claviger_issuer::cheshire_cat::{scope_of, written};
use claviger_issuer::requirement::{Missing, Requirement, RolesNeeded, ScopesNeeded};
use claviger_issuer::secret::AppKeyCredential;
use claviger_issuer::settings::RequestInfo;
use claviger_issuer::verify::{Allowed, Decision, Denied, Question, Shown, Transport};
use claviger_issuer::{Issuer, TenantEntry};
use claviger_store::id::KeyId;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::{Body, Object};
use crate::caller::{Caller, Verify};
use crate::credentials::{lenient_token, with_scheme};
use crate::dialects::cheshire_cat;
use crate::problem::{Answer, Answered};

/// Most questions of one batch.
const MOST_QUESTIONS: usize = 50;

/// What the resource server was presented with, and what it asks for.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({
    "authorization": "Bearer eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZERTQSJ9.eyJzdWIiOiIuLi4ifQ.c2lnbmF0dXJl",
    "ip": "198.51.100.7", "require": { "scopes": { "all": ["events:read"] } }
}))]
pub(crate) struct VerifyIn {
    /// The caller's `Authorization` header, as it came: `Bearer` with a token, an app token or `KEY:SECRET`, `Basic` with `KEY:SECRET`,
    /// `USER:KEY:SECRET` or `USER:PASSWORD`, or a bare `KEY:SECRET`.
    #[schema(value_type = Option<String>)]
    authorization: Option<SecretString>,
    /// The caller's `X-Auth-Token` header, as it came: a token, read before `authorization`, which is then not looked at.
    #[schema(value_type = Option<String>)]
    x_auth_token: Option<SecretString>,
    /// The caller's `access_token` header, as it came: Cheshire Cat's, which it has given up. Read where the tenant speaks its
    /// dialect and takes credentials leniently, and no `authorization` came.
    #[schema(value_type = Option<String>)]
    access_token: Option<SecretString>,
    /// The caller's `X-Impersonating` header, as it came: `Basic` with `USER:KEY:SECRET` of a key that lets it act for USER.
    #[schema(value_type = Option<String>)]
    x_impersonating: Option<SecretString>,
    /// `?token=` of a WebSocket's address: a ticket, or what the tenant's setting `ws_query_token` allows there.
    #[schema(value_type = Option<String>)]
    token: Option<SecretString>,
    /// Whom the caller says that it acts for. Counts for keys with `act_as` alone; a token says by itself whose it is.
    #[schema(example = "Caterpillar")]
    user_id: Option<String>,
    /// `http` if absent, or `ws`.
    #[serde(default)]
    transport: TransportIn,
    /// The `Origin` of a WebSocket's request.
    #[schema(example = "https://app.example.com")]
    origin: Option<String>,
    /// The caller's address: failures are counted by it, and keys may be limited to some.
    #[schema(value_type = Option<String>, example = "198.51.100.7")]
    ip: Option<std::net::IpAddr>,
    /// Whom a token must be for (`aud`). Absent takes any token of the tenant.
    audience: Option<String>,
    /// What is asked for; absent asks for nothing but a caller who may act.
    #[serde(default)]
    #[schema(value_type = Option<RequireIn>)]
    require: Option<Object<RequireIn>>,
}

/// How the resource was asked for.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum TransportIn {
    #[default]
    Http,
    Ws,
}

impl From<TransportIn> for Transport {
    fn from(transport: TransportIn) -> Self {
        match transport {
            TransportIn::Http => Self::Http,
            TransportIn::Ws => Self::Ws,
        }
    }
}

impl From<Transport> for TransportIn {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Http => Self::Http,
            Transport::Ws => Self::Ws,
        }
    }
}

/// What is asked for: all of it.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RequireIn {
    /// Scopes.
    #[serde(default)]
    #[schema(value_type = Option<ScopesIn>)]
    scopes: Option<Object<ScopesIn>>,
    /// Roles.
    #[serde(default)]
    #[schema(value_type = Option<RolesIn>)]
    roles: Option<Object<RolesIn>>,
    /// One scope, as `resource:action`: short for `scopes.all` of it alone. Where the tenant speaks Cheshire Cat's dialect, also
    /// as `RESOURCE:ACTION`.
    #[schema(example = "events:read")]
    permission: Option<String>,
    /// Letters of the tenant's usual audience, as its tokens' `priv` writes them: at least one of these; empty asks for nothing.
    #[serde(default, rename = "priv")]
    #[schema(example = json!(["W"]))]
    privileges: Vec<String>,
    /// A policy of the tenant.
    #[schema(example = "cc-api")]
    policy: Option<String>,
    /// Policies of the tenant: all of them.
    #[serde(default)]
    policies: Vec<String>,
}

/// Scopes that are asked for.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct ScopesIn {
    /// Every one of these.
    #[schema(example = json!(["events:read"]))]
    all: Vec<String>,
    /// At least one of these; empty asks for nothing.
    any: Vec<String>,
}

/// Roles that are asked for.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct RolesIn {
    /// Every one of these.
    all: Vec<String>,
    /// At least one of these; empty asks for nothing.
    any: Vec<String>,
    /// Exactly these and no others.
    equals: Option<Vec<String>>,
}

impl From<Object<ScopesIn>> for ScopesNeeded {
    fn from(Object(ScopesIn { all, any }): Object<ScopesIn>) -> Self {
        Self { all, any }
    }
}

impl From<Object<RolesIn>> for RolesNeeded {
    fn from(Object(RolesIn { all, any, equals }): Object<RolesIn>) -> Self {
        Self { all, any, equals }
    }
}

/// What was decided. The resource server lets its caller in, or answers with `status`.
#[derive(Debug, Default, Serialize, ToSchema)]
#[schema(example = json!({
    "allow": true, "subject": "0195f6a2-6a0e-7c3b-9c53-3f0f2b1a7d11", "username": "alice", "roles": ["editor"],
    "scopes": ["events:read"], "exp": 1800000900, "request_id": "1f0e2d3c4b5a69788796a5b4"
}))]
pub(crate) struct VerifyOut {
    /// Whether the caller may.
    allow: bool,
    /// What to answer the caller with: 400, 401, 403 or 429.
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    /// Why not, for the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Why not, as a word for programs.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
    /// What was missing.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<Vec<String>>,
    /// Seconds after which it makes sense to try again.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    /// The caller's `sub`, or whom it acts for.
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<String>,
    /// The login name, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    /// Roles held now.
    #[serde(skip_serializing_if = "Option::is_none")]
    roles: Option<Vec<String>>,
    /// What may be done now.
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<String>>,
    /// The same in the letters of the tenant's usual audience, where it has any.
    #[serde(rename = "priv", skip_serializing_if = "Option::is_none")]
    privileges: Option<Vec<String>>,
    /// What of this Cheshire Cat knows, as it writes it: actions by resource, where the tenant speaks its dialect.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    permissions: Option<serde_json::Value>,
    /// Who acts, where that is not the subject.
    #[serde(skip_serializing_if = "Option::is_none")]
    actor: Option<ActorOut>,
    /// The key behind the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    key_id: Option<KeyId>,
    /// When the credential ends, in seconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    /// What is left of the rate limit and quota of the caller's key, where it has any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    limits: Vec<LimitOut>,
    /// Under which an admin finds out more about a refusal: `GET /v1/decisions/{request_id}`.
    request_id: String,
}

/// What is left of a limit of a key.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct LimitOut {
    /// `rate` or `quota`.
    policy: &'static str,
    /// Uses in a window.
    limit: i64,
    /// Seconds of a window.
    window: i64,
    /// Uses that are left of it.
    remaining: i64,
    /// Seconds until it ends.
    reset: i64,
}

impl From<Remaining> for LimitOut {
    fn from(Remaining { kind, limit, window, left, ends_in }: Remaining) -> Self {
        Self { policy: kind.word(), limit, window, remaining: left, reset: ends_in }
    }
}

/// Who acts for the subject.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ActorOut {
    /// The actor's `sub`.
    sub: String,
    /// The login name, or the name of the application or key.
    name: String,
    /// As the audit trail writes it.
    #[schema(example = "user:0195f6a2-6a0e-7c3b-9c53-3f0f2b1a7d11")]
    id: String,
}

impl From<Acting> for ActorOut {
    fn from(acting: Acting) -> Self {
        let Acting { subject, name, shown } = acting;
        Self { sub: subject, name: shown, id: name }
    }
}

/// Several questions.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct VerifyBatchIn {
    /// At most 50.
    #[schema(value_type = Vec<VerifyIn>, min_items = 1, max_items = 50)]
    items: Vec<Object<VerifyIn>>,
}

/// Several decisions.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VerifyBatchOut {
    /// In the order of the questions.
    items: Vec<VerifyOut>,
}

/// Ask whether a caller may do something
///
/// For resource servers, with a key of their own that holds `verify`. It is decided by what holds now, not by what a token
/// says. Whoever did not prove to hold a good credential hears only that it is not good.
#[utoipa::path(
    tag = "Verify",
    operation_id = "verify",
    request_body = VerifyIn,
    responses(
        (status = 200, description = "The decision, a yes or a no", body = VerifyOut),
        (status = 422, description = "A field is wrong, or a policy is asked for that the tenant has not", body = crate::problem::Problem),
        (status = 503, description = "It cannot be found out now: do not let the caller in", body = crate::problem::Problem),
    ),
    security(("bearer" = ["verify"]), ("basic" = ["verify"])),
)]
#[post("/v1/verify")]
pub(crate) async fn one(caller: Caller<Verify>, issuer: Data<Issuer>, body: Body<VerifyIn>) -> Answered<Json<VerifyOut>> {
    Ok(Json(decide(&caller, &issuer, body.take()?).await?))
}

/// Ask about several callers
///
/// Each question is decided by itself; what cannot be found out for one fails the batch.
#[utoipa::path(
    tag = "Verify",
    operation_id = "verifyBatch",
    request_body = VerifyBatchIn,
    responses(
        (status = 200, description = "The decisions, in the order of the questions", body = VerifyBatchOut),
        (status = 422, description = "A field is wrong, or there are more than 50 questions", body = crate::problem::Problem),
        (status = 503, description = "It cannot be found out now: do not let the callers in", body = crate::problem::Problem),
    ),
    security(("bearer" = ["verify"]), ("basic" = ["verify"])),
)]
#[post("/v1/verify/batch")]
pub(crate) async fn batch(
    caller: Caller<Verify>,
    issuer: Data<Issuer>,
    body: Body<VerifyBatchIn>,
) -> Answered<Json<VerifyBatchOut>> {
    let VerifyBatchIn { items } = body.take()?;
    if items.is_empty() || items.len() > MOST_QUESTIONS {
        return Err(Answer::unprocessable("items", format!("A batch holds 1 to {MOST_QUESTIONS} questions.")));
    }
    let mut decided = Vec::with_capacity(items.len());
    for Object(item) in items {
        decided.push(decide(&caller, &issuer, item).await?);
    }
    Ok(Json(VerifyBatchOut { items: decided }))
}

async fn decide(caller: &Caller<Verify>, issuer: &Issuer, asked: VerifyIn) -> Answered<VerifyOut> {
    let id = caller.who.request.id.clone();
    let tenant = caller.who.tenant();
    let question = question(asked, &issuer.settings().brand, tenant, &id)?;
    let told = question.request.told.clone();
    let decision = issuer.verify(&caller.who, question).await?;
    let limits = told.heard().into_iter().map(LimitOut::from).collect();
    Ok(VerifyOut { limits, ..rendered(decision, tenant, id) })
}

fn question(asked: VerifyIn, brand: &str, tenant: &TenantEntry, request: &str) -> Answered<Question> {
    let VerifyIn {
        authorization,
        x_auth_token,
        access_token,
        x_impersonating,
        token,
        user_id,
        transport,
        origin,
        ip,
        audience,
        require,
    } = asked;
    let (lenient, is_cat) = (tenant.settings.lenient_bearer, cheshire_cat::is_spoken_by(tenant));
    // Its core takes nothing without a scheme, unless it always did.
    let (authorization, no_scheme) = match is_cat {
        true => (authorization.or(access_token.filter(|_| lenient)), !lenient),
        false => (authorization, false),
    };
    let is_bare = |text: &SecretString| !text.expose_secret().trim().contains(' ');
    let x_auth_token = x_auth_token.filter(|token| !token.expose_secret().is_empty());
    let RequireIn { scopes, roles, permission, privileges, policy, mut policies } =
        require.map(|Object(require)| require).unwrap_or_default();
    let mut scopes = scopes.map(ScopesNeeded::from).unwrap_or_default();
    scopes.all.extend(permission.map(|permission| match is_cat {
        true => scope_of(tenant, permission),
        false => permission,
    }));
    policies.extend(policy);
    if policies.len() > 10 {
        return Err(Answer::unprocessable("policies", "A question names at most 10 policies."));
    }
    if privileges.len() > 10 {
        return Err(Answer::unprocessable("priv", "A question names at most 10 privileges."));
    }
    Ok(Question {
        authorization: match x_auth_token {
            Some(token) => Some(Shown::Token(token.expose_secret().trim().to_owned())),
            None => authorization.map(|text| match no_scheme && is_bare(&text) {
                true => Shown::Unreadable,
                false => shown(&text, brand, lenient),
            }),
        },
        impersonating: x_impersonating.map(|text| basic(&text)),
        token,
        user_id,
        origin,
        audiences: audience.into_iter().collect(),
        require: Requirement { scopes, roles: roles.map(RolesNeeded::from).unwrap_or_default() },
        privileges,
        policies,
        request: RequestInfo { transport: transport.into(), ..RequestInfo::new(request.to_owned(), ip) },
    })
}

/// An `Authorization` header, taken apart.
pub(crate) fn shown(header: &SecretString, brand: &str, lenient: bool) -> Shown {
    let text = header.expose_secret();
    if lenient && let Some(token) = lenient_token(text) {
        return Shown::Token(token.to_owned());
    }
    if let Some(bearer) = with_scheme(text, "bearer") {
        return match (AppToken::parse(bearer), AppKeyCredential::parse(bearer, brand)) {
            (Some(token), pair) => Shown::AppToken(token, pair),
            (None, Some(pair)) => Shown::Pair(pair),
            (None, None) => Shown::Token(bearer.to_owned()),
        };
    }
    if let Some(decoded) = basic(header) {
        return Shown::Basic(decoded);
    }
    match AppKeyCredential::parse(text.trim(), brand) {
        Some(pair) => Shown::Pair(pair),
        None => Shown::Unreadable,
    }
}

/// What `Basic` carries.
pub(crate) fn basic(header: &SecretString) -> Option<SecretString> {
    let decoded = STANDARD.decode(with_scheme(header.expose_secret(), "basic")?).ok()?;
    let decoded = zeroize::Zeroizing::new(decoded);
    std::str::from_utf8(&decoded).ok().map(SecretString::from)
}

/// The status and the words that a resource server is told to answer with.
pub(crate) fn told(denied: &Denied) -> (u16, String) {
    match denied {
        Denied::Malformed(what) => (400, format!("The request is ambiguous: {what}")),
        Denied::NoCredential => (401, "Credentials are needed".into()),
        Denied::Invalid => (401, "Invalid credentials".into()),
        Denied::NoSuchKey => (401, "API Key does not exist".into()),
        Denied::KeyExpired => (401, "Key is expired".into()),
        Denied::Token(why) => (401, format!("The access token is not valid: {why}")),
        Denied::Throttled { retry_after } => (429, format!("Too many failed attempts; try again in {retry_after} seconds")),
        Denied::KeyLimit(_) => (403, "The key may not be used from here or in this way".into()),
        Denied::UsedUp { retry_after, .. } => (429, format!("The key's limit is used up; try again in {retry_after} seconds")),
        Denied::TokenInQuery => (403, "A token does not belong into an address: get a ticket at POST /v1/ws-tickets".into()),
        Denied::Ticket => (403, "The ticket is for a WebSocket from another place".into()),
        Denied::ActAs => (403, "The key may not act for this user".into()),
        Denied::ImpersonationKeyAlone => {
            (403, "Cannot use impersonation key in normal Authorization Header! Send it as X-Impersonating".into())
        }
        Denied::NotImpersonationKey => (403, "Not a valid impersonation api key".into()),
        Denied::NoImpersonatedUser => (401, "No impersonated user found".into()),
        Denied::Chained => (400, "Whoever acts for another cannot act for a third".into()),
        Denied::HoldsMore(_) => (403, "Nobody may act for somebody who holds more".into()),
        Denied::Missing(_) => (403, "The caller may not do this".into()),
        Denied::Policy { name, status, .. } => (*status, format!("The caller does not fulfil `{name}`")),
    }
}

fn rendered(decision: Decision, tenant: &TenantEntry, request_id: String) -> VerifyOut {
    let is_cat = cheshire_cat::is_spoken_by(tenant);
    match decision {
        Ok(Allowed { subject, username, roles, scopes, actor, key, ends }) => VerifyOut {
            allow: true,
            subject: Some(subject),
            username,
            roles: Some(roles),
            privileges: tenant.privileges(&scopes),
            permissions: is_cat.then(|| written(tenant, &scopes)),
            scopes: Some(scopes.to_vec()),
            actor: actor.map(ActorOut::from),
            key_id: key,
            exp: ends,
            request_id,
            ..VerifyOut::default()
        },
        Err(denied) => {
            let (status, error) = if is_cat { cheshire_cat::told(&denied) } else { told(&denied) };
            let missing = match &denied {
                Denied::Missing(missing) | Denied::Policy { missing, .. } => match missing {
                    Missing::Scopes(names) | Missing::Roles(names) => Some(names.clone()),
                },
                Denied::HoldsMore(scope) => Some(vec![scope.clone()]),
                _ => None,
            };
            let retry_after = match denied {
                Denied::Throttled { retry_after } | Denied::UsedUp { retry_after, .. } => Some(retry_after),
                _ => None,
            };
            let reason = Some(denied.word());
            VerifyOut {
                status: Some(status),
                error: Some(error),
                reason,
                missing,
                retry_after,
                request_id,
                ..VerifyOut::default()
            }
        }
    }
}
