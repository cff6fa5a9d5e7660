//! Status lists: what services read that asked for a place for each of their tokens.

use actix_web::dev::Payload;
use actix_web::http::{StatusCode, header};
use actix_web::web::Path;
use actix_web::{FromRequest as _, HttpRequest, HttpResponse, get};
use claviger_issuer::TenantEntry;
use claviger_issuer::status_list::KEPT_FOR;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::body::Asked;
use crate::caller::{Caller, RevocationsRead, issuer};
use crate::problem::{Answer, Answered};
use crate::well_known;

const MEDIA_TYPE: &str = "application/statuslist+jwt";

/// As of when.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct StatusListQuery {
    /// Lists of the past are not kept: 501.
    #[serde(default)]
    time: Option<String>,
}

/// Taken by name, because the path also holds the tenant.
#[derive(Deserialize)]
pub(crate) struct StatusListInPath {
    id: String,
}

/// Where the lists are.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct StatusListsOut {
    #[schema(example = json!(["https://id.example.com/t/acme/v1/status-lists/7d3d6b0e-55a2-4d0c-9a57-6a2f2f1f4a10"]))]
    status_lists: Vec<String>,
}

/// As the revocations, which say the same: for everybody, unless the tenant's are private.
async fn reader_of(req: &HttpRequest, tenant: &TenantEntry) -> Answered<&'static str> {
    if !tenant.settings.revocations_private.unwrap_or(false) {
        return Ok("public");
    }
    Caller::<RevocationsRead>::from_request(req, &mut Payload::None).await?;
    Ok("private")
}

/// Whether an answer of that type is welcome: it is, unless others are named and it is not.
fn takes_jwt(accept: Option<&str>) -> bool {
    let mut ranges = accept.unwrap_or("*/*").split(',').filter_map(|range| range.split(';').next());
    ranges.any(|range| ["*/*", "application/*", MEDIA_TYPE].iter().any(|taken| range.trim().eq_ignore_ascii_case(taken)))
}

/// Read a status list
///
/// A signed list (`typ` `statuslist+jwt`) with one bit for each token that the claim `status` sends here: set when it counts
/// no more. Signed with a key that its tokens are signed with. May be kept for `ttl` seconds, and says nothing after `exp`.
/// No credential is needed, unless the tenant's setting `revocations_private` is on: then the scope `revocations:read`.
#[utoipa::path(
    tag = "Publication",
    operation_id = "showStatusList",
    params(("id" = uuid::Uuid, Path, description = "The list's id: follow the `uri` of a token"), StatusListQuery),
    responses(
        (status = 200, description = "The list as it is now", body = String, content_type = "application/statuslist+jwt",
            example = "eyJ0eXAiOiJzdGF0dXNsaXN0K2p3dCIsImFsZyI6IkVkRFNBIn0.eyJpc3MiOiLigKYifQ.c2ln"),
        (status = 401, description = "The lists are private: no credential, or one that does not hold", body = crate::problem::Problem),
        (status = 403, description = "The lists are private: `revocations:read` is not held", body = crate::problem::Problem),
        (status = 404, description = "There is none of that id, or all of its tokens have ended", body = crate::problem::Problem),
        (status = 406, description = "`Accept` names other forms only", body = crate::problem::Problem),
        (status = 422, description = "A parameter is unknown", body = crate::problem::Problem),
        (status = 501, description = "A list of the past was asked for", body = crate::problem::Problem),
        (status = 503, description = "The database did not answer", body = crate::problem::Problem),
    ),
    security((), ("basic" = []), ("bearer" = [])),
)]
#[get("/v1/status-lists/{id}")]
pub(crate) async fn show(
    req: HttpRequest,
    path: Path<StatusListInPath>,
    query: Asked<StatusListQuery>,
) -> Answered<HttpResponse> {
    let tenant = well_known::tenant(&req).await?;
    let cache = reader_of(&req, &tenant).await?;
    if query.take()?.time.is_some() {
        let detail = "Lists of the past are not kept: ask without `time`.";
        return Err(Answer::new(StatusCode::NOT_IMPLEMENTED, "not_implemented", detail));
    }
    if !takes_jwt(req.headers().get(header::ACCEPT).and_then(|accept| accept.to_str().ok())) {
        let detail = format!("The list is there as `{MEDIA_TYPE}` alone: accept that.");
        return Err(Answer::new(StatusCode::NOT_ACCEPTABLE, "not_acceptable", detail));
    }
    let id = path.id.parse().map_err(|_| Answer::not_found())?;
    let made = issuer(&req)?.status_list(&tenant, id).await?;
    let mut response = HttpResponse::Ok();
    well_known::open_to_pages(&mut response);
    response.insert_header((header::CACHE_CONTROL, format!("{cache}, max-age={KEPT_FOR}")));
    response.insert_header((header::CONTENT_TYPE, MEDIA_TYPE));
    Ok(response.body(made.to_string()))
}

/// List the status lists
///
/// For services that fetch all of them ahead of need.
#[utoipa::path(
    tag = "Publication",
    operation_id = "listStatusLists",
    responses(
        (status = 200, description = "Where they are, oldest first", body = StatusListsOut),
        (status = 401, description = "The lists are private: no credential, or one that does not hold", body = crate::problem::Problem),
        (status = 403, description = "The lists are private: `revocations:read` is not held", body = crate::problem::Problem),
        (status = 404, description = "There is no such tenant", body = crate::problem::Problem),
        (status = 503, description = "The database did not answer", body = crate::problem::Problem),
    ),
    security((), ("basic" = []), ("bearer" = [])),
)]
#[get("/v1/status-lists")]
pub(crate) async fn list(req: HttpRequest) -> Answered<HttpResponse> {
    let tenant = well_known::tenant(&req).await?;
    let cache = reader_of(&req, &tenant).await?;
    let status_lists = issuer(&req)?.status_lists(&tenant).await?;
    let mut response = HttpResponse::Ok();
    well_known::open_to_pages(&mut response);
    response.insert_header((header::CACHE_CONTROL, format!("{cache}, max-age={KEPT_FOR}")));
    Ok(response.json(StatusListsOut { status_lists }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_accepts_anything_accepts_a_jwt() {
        for accept in [None, Some("*/*"), Some("application/statuslist+jwt"), Some("text/html, Application/StatusList+JWT;q=0.5")]
        {
            assert!(takes_jwt(accept), "{accept:?}");
        }
        assert!(!takes_jwt(Some("application/statuslist+cwt")));
    }
}
