//! ClusterCockpit's dialect.

use actix_web::http::{StatusCode, header};
use actix_web::web::Data;
use actix_web::{HttpRequest, HttpResponse, get};
use claviger_issuer::caller::Caller;
use claviger_issuer::dialect::Dialects;
use claviger_issuer::{Issuer, Refusal, TenantEntry};
use serde::Deserialize;
use serde_json::json;
use std::sync::Arc;
use utoipa::IntoParams;
use utoipa_actix_web::service_config::ServiceConfig;

use super::{Dialect, Speaks, caller_as_usual};
use crate::body::Asked;
use crate::caller::request_info;
use crate::cookies::{Cookies, from_here};
use crate::problem::{Answer, Answered};

/// ClusterCockpit's.
pub(crate) struct ClusterCockpit;

impl Dialect for ClusterCockpit {
    fn is_spoken(dialects: &Dialects) -> bool {
        dialects.clustercockpit.is_some()
    }
}

pub(super) fn routes(routes: &mut ServiceConfig<'_>) {
    routes.service(issue_token);
}

/// `{"status":"Forbidden","error":"…"}`.
fn written(answer: &Answer) -> (&'static str, String) {
    let status = answer.status().canonical_reason().unwrap_or_default();
    ("application/json", json!({ "status": status, "error": answer.detail() }).to_string())
}

/// What ClusterCockpit answers where we answer otherwise.
fn said(answer: Answer) -> Answer {
    let status = answer.status();
    answer.in_dialect(status, written)
}

/// A token in `X-Auth-Token`, which its adapters send.
pub(crate) fn own_token(req: &HttpRequest) -> Option<String> {
    let mut lines = req.headers().get_all("x-auth-token");
    let token = lines.next().filter(|_| lines.next().is_none())?.to_str().ok()?.trim();
    (!token.is_empty()).then(|| token.to_owned())
}

/// Who calls: by `X-Auth-Token`, `Authorization`, or the browser's session, with all that the person holds.
async fn caller(req: &HttpRequest, issuer: &Issuer, tenant: &Arc<TenantEntry>) -> Answered<Caller> {
    if let Some(caller) = caller_as_usual(req, tenant, own_token(req)).await? {
        return Ok(caller);
    }
    let cookies = Cookies::of(&tenant.tenant.slug);
    let cookie = cookies.session(req).ok_or(Refusal::Unauthenticated)?;
    if !req.method().is_safe() && !from_here(req, &issuer.settings().origin()) {
        return Err(Answer::cross_site());
    }
    Ok(issuer.signed_in_as_usual(tenant, &cookie, request_info(req)).await?)
}

/// Whom a token is for.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct TokenQuery {
    /// The login name.
    #[param(example = "demo")]
    username: String,
}

/// Make an API token for oneself, or as an admin for somebody else
#[utoipa::path(
    tag = "Dialects",
    operation_id = "clustercockpitToken",
    params(TokenQuery),
    responses(
        (status = 200, description = "The token alone", content_type = "text/plain", body = String),
        (status = 401, description = "Nobody is signed in", content_type = "application/json", body = String),
        (status = 403, description = "For others, only admins make tokens", content_type = "application/json", body = String),
        (status = 404, description = "There is no such person", content_type = "application/json", body = String),
    ),
    security(("bearer" = []), ("session" = [])),
)]
#[get("/frontend/jwt/")]
pub(crate) async fn issue_token(
    req: HttpRequest,
    issuer: Data<Issuer>,
    speaks: Speaks<ClusterCockpit>,
    query: Asked<TokenQuery>,
) -> Answered<HttpResponse> {
    let issued = async {
        let caller = caller(&req, &issuer, &speaks.tenant).await?;
        let TokenQuery { username } = query.take()?;
        issuer.issue_api_token(&caller, &username).await.map_err(|failure| {
            let answer = Answer::from(failure);
            match answer.error() {
                "insufficient_scope" => {
                    let text = "only admins are allowed to sign JWTs not for themselves";
                    Answer::new(StatusCode::FORBIDDEN, "insufficient_scope", text)
                }
                _ => answer,
            }
        })
    };
    let jwt = issued.await.map_err(said)?;
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "text/plain; charset=utf-8")).body(jwt))
}
