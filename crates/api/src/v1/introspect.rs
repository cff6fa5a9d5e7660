//! Is this token good right now? (RFC 7662)

use actix_web::post;
use actix_web::web::{Data, Json};
use claviger_issuer::Issuer;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::FormBody;
use crate::caller::{Anyone, Caller};
use crate::problem::Answered;

/// RFC 7662 §2.1, as a form.
#[derive(Debug, Deserialize, ToSchema)]
pub(crate) struct IntrospectionIn {
    /// The token asked about.
    token: String,
    /// Accepted and not needed: access tokens are the ones that can be asked about.
    #[serde(rename = "token_type_hint")]
    _token_type_hint: Option<String>,
}

/// RFC 7662 §2.2. All but `active` are absent when it is false.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(crate) struct IntrospectionOut {
    /// Whether the token is good right now.
    active: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    username: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_type: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sub: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<String>,
    /// The login that the token came from.
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<String>,
    /// The roles that the token carries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    roles: Vec<String>,
}

/// Ask about a token
///
/// A key with the scope `tokens:introspect` may ask about every token of its tenant, any other key about its own.
/// Whatever else is asked about is `{"active": false}`.
#[utoipa::path(
    tag = "Tokens",
    operation_id = "introspectToken",
    request_body(content = IntrospectionIn, content_type = "application/x-www-form-urlencoded"),
    responses((status = 200, description = "What is known of it", body = IntrospectionOut, example = json!({ "active": false }))),
    security(("bearer" = []), ("basic" = [])),
)]
#[post("/v1/introspect")]
pub(crate) async fn introspect(
    caller: Caller<Anyone>,
    issuer: Data<Issuer>,
    form: FormBody<IntrospectionIn>,
) -> Answered<Json<IntrospectionOut>> {
    let Some(token) = issuer.introspect(&caller.who, &form.take()?.token).await? else {
        return Ok(Json(IntrospectionOut::default()));
    };
    Ok(Json(IntrospectionOut {
        active: true,
        scope: Some(token.scope.join(" ")).filter(|scope| !scope.is_empty()),
        client_id: token.client_id,
        username: token.username,
        token_type: Some("Bearer"),
        exp: token.expires_at,
        iat: Some(token.issued_at),
        sub: Some(token.subject),
        aud: Some(token.audience).filter(|audience| !audience.is_empty()),
        iss: Some(token.issuer),
        jti: Some(token.token_id),
        sid: token.session,
        roles: token.roles,
    }))
}
