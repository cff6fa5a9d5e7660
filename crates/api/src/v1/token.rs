//! OAuth's token endpoint (RFC 6749 §3.2): the same exchange and refresh as elsewhere, in the words that every OAuth client
//! speaks.

use std::sync::Arc;

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, post};
use claviger_issuer::exchange::{Exchange, Granted, VerifiedKey};
use claviger_issuer::refresh::{Refresh, Tokens};
use claviger_issuer::token_exchange::{Lent, Subject, TokenExchange};
use claviger_issuer::upstream_token::{UpstreamExchange, UpstreamToken};
use claviger_issuer::{Issuer, Refusal, TenantEntry};
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::IntoDeserializer as _;
use serde::de::value::Error as Unknown;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::RawBody;
use crate::caller::{path_tenant, request_info};
use crate::oauth::{self, OAuthError, Parameters, Proof, bad_request, check_scope, refused};
use crate::problem::{Answer, Answered, Problem};

/// What a token is given for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum GrantType {
    /// The client's own key (RFC 6749 §4.4).
    ClientCredentials,
    /// A refresh token (RFC 6749 §6).
    RefreshToken,
    /// Another token (RFC 8693): somebody acts for somebody else.
    #[serde(rename = "urn:ietf:params:oauth:grant-type:token-exchange")]
    TokenExchange,
}

impl GrantType {
    /// All that there are, as the metadata lists them.
    pub(crate) const ALL: [Self; 3] = [Self::ClientCredentials, Self::RefreshToken, Self::TokenExchange];

    fn parse(text: &str) -> Option<Self> {
        let text: serde::de::value::StrDeserializer<'_, Unknown> = text.into_deserializer();
        Self::deserialize(text).ok()
    }
}

/// Everything that the endpoint knows by name.
const KNOWN: [&str; 14] = [
    "grant_type",
    "scope",
    "resource",
    "refresh_token",
    "client_id",
    "client_secret",
    "client_assertion",
    "client_assertion_type",
    "subject_token",
    "subject_token_type",
    "actor_token",
    "actor_token_type",
    "requested_token_type",
    "reason",
];

/// What is asked for, as a form.
#[derive(Debug, ToSchema)]
pub(crate) struct TokenIn {
    /// What the token is given for.
    grant_type: GrantType,
    /// Scopes, space-separated, of those that are held. Absent or empty asks for all of them.
    #[schema(example = "events:read")]
    scope: Option<String>,
    /// Whom the token is for (RFC 8707): the issuer, or one of the tenant's `resources`. Absent is the issuer.
    #[schema(example = "https://api.example.com")]
    resource: Option<String>,
    /// With `refresh_token`: the newest refresh token of a login.
    #[schema(value_type = Option<String>)]
    refresh_token: Option<SecretString>,
    /// With token exchange: for whom, as the type says.
    #[schema(value_type = Option<String>)]
    subject_token: Option<SecretString>,
    /// What `subject_token` is: `urn:ietf:params:oauth:token-type:access_token` (or `…:jwt`),
    /// `urn:claviger:params:oauth:token-type:impersonation-key` with `USER:KEY:SECRET`, or
    /// `urn:claviger:params:oauth:token-type:user` with a person's id or login name.
    #[schema(example = "urn:ietf:params:oauth:token-type:access_token")]
    subject_token_type: Option<String>,
    /// With token exchange: the access token of whoever acts. Absent, the client acts.
    #[schema(value_type = Option<String>)]
    actor_token: Option<SecretString>,
    /// What `actor_token` is: an access token.
    actor_token_type: Option<String>,
    /// What is asked for: an access token, if it is said at all, or
    /// `urn:claviger:params:oauth:token-type:upstream-access-token`, the provider's own.
    requested_token_type: Option<String>,
    /// With token exchange: why, in at most 200 characters, for the audit trail and the person that is acted for.
    #[schema(example = "ticket 4711")]
    reason: Option<String>,
    /// The key, where it is not in the `Authorization` header.
    client_id: Option<String>,
    /// Its secret, where it is not in the `Authorization` header.
    #[schema(value_type = Option<String>)]
    client_secret: Option<SecretString>,
}

impl TokenIn {
    fn read(parameters: &mut Parameters) -> Answered<Self> {
        let Some(grant_type) = parameters.text("grant_type") else {
            return Err(bad_request("invalid_request", "`grant_type` is missing."));
        };
        let Some(grant_type) = GrantType::parse(&grant_type) else {
            let detail =
                "`grant_type` is none of those that the metadata lists: client_credentials, refresh_token and token-exchange.";
            return Err(bad_request("unsupported_grant_type", detail));
        };
        parameters.refuse_assertions()?;
        let scope = parameters.text("scope");
        check_scope(scope.as_deref())?;
        Ok(Self {
            grant_type,
            scope,
            resource: parameters.text("resource"),
            refresh_token: parameters.secret("refresh_token"),
            subject_token: parameters.secret("subject_token"),
            subject_token_type: parameters.text("subject_token_type"),
            actor_token: parameters.secret("actor_token"),
            actor_token_type: parameters.text("actor_token_type"),
            requested_token_type: parameters.text("requested_token_type"),
            reason: parameters.text("reason"),
            client_id: parameters.text("client_id"),
            client_secret: parameters.secret("client_secret"),
        })
    }
}

/// A token (RFC 6749 §5.1).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokenOut {
    /// A JWT (RFC 9068), to be sent as `Authorization: Bearer`.
    #[schema(example = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZERTQSJ9.eyJzdWIiOiIuLi4ifQ.c2lnbmF0dXJl")]
    access_token: String,
    /// After a token exchange (RFC 8693 §2.2.1).
    #[serde(skip_serializing_if = "Option::is_none")]
    issued_token_type: Option<&'static str>,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds that the access token lives; absent for one without an end.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 86400)]
    expires_in: Option<i64>,
    /// To be used once. For logins, and for keys that were made with `refresh`.
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
    /// What the access token allows; absent where that is nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "events:read")]
    scope: Option<String>,
}

impl From<Granted> for TokenOut {
    fn from(granted: Granted) -> Self {
        let Granted { jwt, expires_in, scope, refresh_token } = granted;
        let refresh_token = refresh_token.map(|token| token.expose_secret().to_owned());
        Self { access_token: jwt, issued_token_type: None, token_type: "Bearer", expires_in, refresh_token, scope }
    }
}

impl From<Tokens> for TokenOut {
    fn from(tokens: Tokens) -> Self {
        let Tokens { access_token, expires_in, scope, refresh_token } = tokens;
        let expires_in = Some(expires_in);
        let refresh_token = Some(refresh_token.expose_secret().to_owned());
        Self { access_token, issued_token_type: None, token_type: "Bearer", expires_in, refresh_token, scope }
    }
}

impl From<UpstreamToken> for TokenOut {
    fn from(upstream: UpstreamToken) -> Self {
        let UpstreamToken { token, expires_in, scope } = upstream;
        let access_token = token.expose_secret().to_owned();
        let issued_token_type = Some(ACCESS_TOKEN);
        Self { access_token, issued_token_type, token_type: "Bearer", expires_in, refresh_token: None, scope }
    }
}

impl From<Lent> for TokenOut {
    fn from(lent: Lent) -> Self {
        let Lent { jwt, expires_in, scope } = lent;
        let (issued_token_type, expires_in) = (Some(ACCESS_TOKEN), Some(expires_in));
        Self { access_token: jwt, issued_token_type, token_type: "Bearer", expires_in, refresh_token: None, scope }
    }
}

/// Get a token as an OAuth client (RFC 6749 §3.2)
///
/// The client is an API key: `client_id` its id, `client_secret` its secret, sent as `Authorization: Basic` or in the form,
/// and not in both. `client_credentials` is the exchange of `/v1/authentications`, `refresh_token` is that of
/// `/v1/token/refresh`, with the same rules; for refresh tokens that were given to no client, no client need prove itself.
///
/// With token exchange (RFC 8693) somebody acts for somebody else: a person with a key that lists them among its `agents`, a
/// client with `tokens:exchange` with a token that it was sent, or somebody with `users:impersonate` for a person, where the
/// tenant lets them. The token lives 15 minutes at most, names both (`sub`, `act`), allows nothing of the tenant's management,
/// and is no ground for another.
///
/// With `requested_token_type=urn:claviger:params:oauth:token-type:upstream-access-token` a client with `tokens:upstream` gets a
/// new access token of the provider that a person logged in through, for a token of that login, where the connection has
/// `hand_out_tokens`. If the provider refuses, the login has ended.
#[utoipa::path(
    tag = "Tokens",
    operation_id = "requestToken",
    request_body(content = TokenIn, content_type = "application/x-www-form-urlencoded", example = json!({ "grant_type": "client_credentials", "scope": "events:read" })),
    responses(
        (status = 200, description = "A token", body = TokenOut),
        (status = 400, description = "`invalid_request`, `invalid_grant`, `invalid_scope`, `invalid_target` or `unsupported_grant_type`", content((OAuthError = "application/json"), (Problem = "application/problem+json"))),
        (status = 401, description = "No client, none that holds, or one that proves itself in another way (`invalid_client`)", body = OAuthError),
        (status = 408, description = "The body took longer than 10 seconds", body = OAuthError),
        (status = 413, description = "The body is longer than 64 KiB", body = OAuthError),
        (status = 429, description = "Too many failures of this key from this address; see `Retry-After`", body = OAuthError),
        (status = 500, description = "Something broke here; the request's id is in `X-Request-Id`", content((OAuthError = "application/json"), (Problem = "application/problem+json"))),
        (status = 503, description = "Something that we depend on did not answer; see `Retry-After`", body = OAuthError),
    ),
    security((), ("basic" = [])),
)]
#[post("/v1/token")]
pub(crate) async fn create(req: HttpRequest, issuer: Data<Issuer>, body: Result<RawBody, Answer>) -> Answered<HttpResponse> {
    let mut parameters = Parameters::read(&req, body, &KNOWN)?;
    let TokenIn {
        grant_type,
        scope,
        resource,
        refresh_token,
        subject_token,
        subject_token_type,
        actor_token,
        actor_token_type,
        requested_token_type,
        reason,
        client_id,
        client_secret,
    } = TokenIn::read(&mut parameters)?;
    let proof = Proof::read(&req, client_id, client_secret, &issuer.settings().brand)?;
    let wish = Wish { scope: scope.as_deref(), resource: resource.as_deref() };
    let tokens = match grant_type {
        GrantType::ClientCredentials => exchange(&req, &issuer, proof, wish).await?,
        GrantType::RefreshToken => refresh(&req, &issuer, proof, refresh_token, wish).await?,
        GrantType::TokenExchange => {
            let subject = subject(subject_token, subject_token_type.as_deref())?;
            let actor_token = actor(actor_token, actor_token_type.as_deref())?;
            let (reason, wanted) = (reason.as_deref(), requested_token_type.as_deref());
            match wanted.is_none_or(is_access_token) {
                true => lend(&req, &issuer, proof, subject, actor_token, reason, wish).await?,
                false if wanted == Some(UPSTREAM_TOKEN) => {
                    upstream(&req, &issuer, proof, subject, actor_token, reason, wish).await?
                }
                false => {
                    let detail = "`requested_token_type` is an access token, or that of a provider: see the description.";
                    return Err(bad_request("invalid_request", detail));
                }
            }
        }
    };
    // RFC 6749 §5.1 wants both this and `Cache-Control: no-store`, which every answer has.
    Ok(HttpResponse::Ok().insert_header((header::PRAGMA, "no-cache")).json(tokens))
}

/// What a token should hold; absent is as much as there is.
struct Wish<'a> {
    scope: Option<&'a str>,
    resource: Option<&'a str>,
}

async fn exchange(req: &HttpRequest, issuer: &Issuer, proof: Proof, wish: Wish<'_>) -> Answered<TokenOut> {
    let request = request_info(req);
    let credential = match proof {
        Proof::Absent => None,
        Proof::Pair(pair) => pair,
    };
    let tenant = match path_tenant(req).await {
        Ok(tenant) => tenant,
        // A tenant that is not there answers as a client that is none.
        Err(answer) if answer.fault().is_none() => {
            issuer.verify_pair(None, None, &request, issuer.clock().now()).await.map_err(refused)?;
            return Err(refused(Refusal::InvalidPair));
        }
        Err(answer) => return Err(oauth::said(answer)),
    };
    let Wish { scope, resource } = wish;
    let exchange = Exchange { tenant: tenant.as_deref(), credential, scope, resource, audience: None, request };
    Ok(issuer.exchange(exchange).await.map_err(refused)?.into())
}

async fn refresh(
    req: &HttpRequest,
    issuer: &Issuer,
    proof: Proof,
    token: Option<SecretString>,
    wish: Wish<'_>,
) -> Answered<TokenOut> {
    let Some(token) = token else {
        return Err(bad_request("invalid_request", "`refresh_token` is missing."));
    };
    let request = request_info(req);
    let tenant = match path_tenant(req).await {
        Ok(tenant) => tenant,
        // No token is one of a tenant that is not there.
        Err(answer) if answer.fault().is_none() => return Err(refused(Refusal::InvalidGrant { why: None })),
        Err(answer) => return Err(oauth::said(answer)),
    };
    let tenant = tenant.as_deref();
    let client = match proof {
        Proof::Absent => None,
        Proof::Pair(pair) => Some(issuer.verify_pair(tenant, pair, &request, issuer.clock().now()).await.map_err(refused)?),
    };
    let Wish { scope, resource } = wish;
    let refresh = Refresh { tenant, token: &token, client: client.as_ref(), scope, resource, as_usual: false, request };
    Ok(issuer.refresh(refresh).await.map_err(refused)?.into())
}

/// `token_type` of access tokens (RFC 8693 §3).
const ACCESS_TOKEN: &str = "urn:ietf:params:oauth:token-type:access_token";
/// The access token of the provider that somebody came through.
const UPSTREAM_TOKEN: &str = "urn:claviger:params:oauth:token-type:upstream-access-token";

/// An access token is a JWT here, so the two types are one.
fn is_access_token(kind: &str) -> bool {
    matches!(kind, ACCESS_TOKEN | "urn:ietf:params:oauth:token-type:jwt")
}

fn subject(token: Option<SecretString>, kind: Option<&str>) -> Answered<Subject> {
    let Some(token) = token else { return Err(bad_request("invalid_request", "`subject_token` is missing.")) };
    match kind {
        None => Err(bad_request("invalid_request", "`subject_token_type` is missing.")),
        Some(kind) if is_access_token(kind) => Ok(Subject::AccessToken(token)),
        Some("urn:claviger:params:oauth:token-type:impersonation-key") => Ok(Subject::ImpersonationKey(token)),
        Some("urn:claviger:params:oauth:token-type:user") => Ok(Subject::Person(token.expose_secret().to_owned())),
        Some(_) => Err(bad_request("invalid_request", "`subject_token_type` is none that is taken here.")),
    }
}

fn actor(token: Option<SecretString>, kind: Option<&str>) -> Answered<Option<SecretString>> {
    match (token, kind) {
        (None, None) => Ok(None),
        (Some(token), Some(kind)) if is_access_token(kind) => Ok(Some(token)),
        (Some(_), Some(_)) => Err(bad_request("invalid_request", "`actor_token` can be an access token alone.")),
        // RFC 8693 §2.1: one without the other is an error.
        (Some(_), None) => Err(bad_request("invalid_request", "`actor_token_type` is missing.")),
        (None, Some(_)) => Err(bad_request("invalid_request", "`actor_token` is missing.")),
    }
}

async fn lend(
    req: &HttpRequest,
    issuer: &Issuer,
    proof: Proof,
    subject: Subject,
    actor_token: Option<SecretString>,
    reason: Option<&str>,
    wish: Wish<'_>,
) -> Answered<TokenOut> {
    let (tenant, client) = tenant_and_client(req, issuer, proof).await?;
    let Wish { scope, resource } = wish;
    let request = request_info(req);
    let exchange = TokenExchange { tenant: &tenant, client, actor_token, subject, scope, resource, reason, request };
    Ok(issuer.exchange_token(exchange).await.map_err(refused)?.into())
}

async fn upstream(
    req: &HttpRequest,
    issuer: &Issuer,
    proof: Proof,
    subject: Subject,
    actor_token: Option<SecretString>,
    reason: Option<&str>,
    wish: Wish<'_>,
) -> Answered<TokenOut> {
    let (tenant, client) = tenant_and_client(req, issuer, proof).await?;
    let client = client.ok_or_else(|| refused(Refusal::Unauthenticated))?;
    let (Subject::AccessToken(subject), None, Wish { scope: None, resource: None }) = (subject, actor_token, wish) else {
        let detail = "A provider's token is given for an access token as `subject_token`, without `actor_token`, `scope` and \
                      `resource`: what it allows is the provider's to say.";
        return Err(bad_request("invalid_request", detail));
    };
    let exchange = UpstreamExchange { tenant: &tenant, client: &client, subject, reason, request: request_info(req) };
    Ok(issuer.upstream_token(exchange).await.map_err(refused)?.into())
}

/// The tenant that the path or the client names, and the client, if one proves itself.
async fn tenant_and_client(
    req: &HttpRequest,
    issuer: &Issuer,
    proof: Proof,
) -> Answered<(Arc<TenantEntry>, Option<VerifiedKey>)> {
    let tenant = match path_tenant(req).await {
        Ok(tenant) => tenant,
        Err(answer) if answer.fault().is_none() => return Err(refused(Refusal::Unauthenticated)),
        Err(answer) => return Err(oauth::said(answer)),
    };
    let client = match proof {
        Proof::Absent => None,
        Proof::Pair(pair) => {
            let verified = issuer.verify_pair(tenant.as_deref(), pair, &request_info(req), issuer.clock().now()).await;
            Some(verified.map_err(refused)?)
        }
    };
    match tenant.or_else(|| client.as_ref().map(|key| key.tenant.clone())) {
        Some(tenant) => Ok((tenant, client)),
        None => {
            let detail = "Send it to /t/{tenant}/v1/token, or prove the client: nothing else names the tenant.";
            Err(bad_request("invalid_request", detail))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_grant_is_read_by_the_name_that_the_metadata_gives() {
        for grant in GrantType::ALL {
            let name = serde_json::to_value(grant).unwrap();
            assert_eq!(GrantType::parse(name.as_str().unwrap()), Some(grant));
        }
        for other in ["password", "authorization_code", "Client_Credentials", "client_credentials ", "ClientCredentials", ""] {
            assert_eq!(GrantType::parse(other), None, "{other}");
        }
    }
}
