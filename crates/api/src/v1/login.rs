//! A username and password become tokens.

use actix_web::http::header;
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, post};
use claviger_issuer::caller::Presented;
use claviger_issuer::exchange::VerifiedKey;
use claviger_issuer::login::{LoggedIn, Login};
use claviger_issuer::refresh::Tokens;
use claviger_issuer::{Failure, Issuer, Refusal, TenantEntry};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::Body;
use crate::caller::{path_tenant, request_info};
use crate::cookies::Cookies;
use crate::credentials;
use crate::problem::{Answer, Answered};

/// Who logs in.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LoginIn {
    /// The login name, in any case.
    #[schema(example = "alice")]
    username: String,
    /// The password, exactly as it is: at most 1024 bytes.
    #[schema(value_type = String, example = "correct horse battery staple", format = Password)]
    password: SecretString,
    /// Scopes, space-separated (RFC 6749 §3.3), of those that the person holds. Absent asks for all of them.
    #[schema(example = "events:read")]
    scope: Option<String>,
}

/// Tokens of a login (RFC 6749 §5.1).
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TokensOut {
    /// A JWT (RFC 9068), to be sent as `Authorization: Bearer`.
    #[schema(example = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFZERTQSJ9.eyJzdWIiOiIuLi4ifQ.c2lnbmF0dXJl")]
    access_token: String,
    /// Always `Bearer`.
    #[schema(example = "Bearer")]
    token_type: &'static str,
    /// Seconds that the access token lives.
    #[schema(example = 900)]
    expires_in: i64,
    /// To be used once, at `POST /v1/token/refresh`.
    #[schema(example = "cr_AaL-Xy0bcmVmcmVzaCB0b2tlbnMgYXJlIG9wYXF1ZQ")]
    refresh_token: String,
    /// What the access token allows, where that is anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
}

impl From<Tokens> for TokensOut {
    fn from(tokens: Tokens) -> Self {
        let Tokens { access_token, expires_in, scope, refresh_token } = tokens;
        let refresh_token = refresh_token.expose_secret().to_owned();
        Self { access_token, token_type: "Bearer", expires_in, refresh_token, scope }
    }
}

/// Log in with a password
///
/// Whatever is wrong, the answer is one and the same 401, after one and the same time. A client that sends an API key as
/// `Authorization: Basic` gets refresh tokens that are worth nothing without that key.
#[utoipa::path(
    tag = "Login",
    operation_id = "logIn",
    request_body = LoginIn,
    responses(
        (status = 200, description = "Tokens", body = TokensOut),
        (status = 400, description = "More was asked for than the person holds (`invalid_scope`)", body = crate::problem::Problem),
        (status = 401, description = "The username or password is wrong (`invalid_credentials`), or the client's key is", body = crate::problem::Problem),
        (status = 422, description = "A field is missing, unknown or too long", body = crate::problem::Problem),
        (status = 429, description = "Too many failures; see `Retry-After`", body = crate::problem::Problem),
    ),
    security((), ("basic" = [])),
)]
#[post("/v1/login")]
pub(crate) async fn create(req: HttpRequest, issuer: Data<Issuer>, body: Body<LoginIn>) -> Answered<HttpResponse> {
    let tenant = path_tenant(&req).await?.ok_or_else(Answer::not_found)?;
    let LoginIn { username, password, scope } = body.take()?;
    let client = client(&req, &issuer, Some(&tenant)).await?;
    let cookies = Cookies::of(&tenant.tenant.slug);
    let device = cookies.device(&req);
    let login = Login {
        tenant: &tenant,
        username: &username,
        password,
        scope: scope.as_deref(),
        client: client.as_ref(),
        device: device.as_deref(),
        user_agent: user_agent(&req),
        request: request_info(&req),
    };
    let LoggedIn { tokens, device } = issuer.log_in(login).await?;
    Ok(HttpResponse::Ok().cookie(cookies.set_device(&device)).json(TokensOut::from(tokens)))
}

/// The client that proves itself with a key, if it tries. A bearer token is none: clients send an old one along.
pub(crate) async fn client(req: &HttpRequest, issuer: &Issuer, tenant: Option<&TenantEntry>) -> Answered<Option<VerifiedKey>> {
    match credentials::presented(req, &issuer.settings().brand) {
        None | Some(Presented::Token(_)) => Ok(None),
        Some(Presented::Pair(pair)) => {
            let verified = issuer.verify_pair(tenant, pair, &request_info(req), issuer.clock().now()).await;
            match verified {
                Ok(key) => Ok(Some(key)),
                Err(Failure::Refusal(Refusal::InvalidPair)) => Err(Refusal::Unauthenticated.into()),
                Err(failure) => Err(failure.into()),
            }
        }
    }
}

/// How a client calls itself.
pub(crate) fn user_agent(req: &HttpRequest) -> Option<&str> {
    req.headers().get(header::USER_AGENT)?.to_str().ok()
}
