//! What verifiers and clients fetch: the JWK set and the metadata.

use std::sync::Arc;

use actix_web::http::header::{self, CacheControl, CacheDirective, HeaderName};
use actix_web::web::{Data, Path};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, get};
use chrono::{DateTime, Utc};
use claviger_issuer::{Issuer, TenantEntry};
use serde_json::json;

use crate::caller::{issuer, request_info};
use crate::oauth::CLIENT_AUTHENTICATION;
use crate::problem::{Answer, Answered};
use crate::v1::token::GrantType;

/// The tenant of the path, or the default one at the root. Signing keys of a disabled tenant stay published, and those
/// of every tenant while the database is away: whether tokens count is another question.
pub(crate) async fn tenant(req: &HttpRequest) -> Answered<Arc<TenantEntry>> {
    let issuer = issuer(req)?;
    let slug = req.match_info().get("tenant").unwrap_or(&issuer.settings().default_tenant);
    issuer.publishing_tenant(slug).await?.ok_or_else(Answer::not_found)
}

/// Public, from any page, and cacheable unless keys were just withdrawn.
pub(crate) fn publish(response: &mut HttpResponseBuilder, tenant: &TenantEntry, now: DateTime<Utc>) {
    let max_age = tenant.published.max_age(now);
    response.insert_header(CacheControl(vec![CacheDirective::Public, CacheDirective::MaxAge(max_age)]));
    open_to_pages(response);
}

/// Readable from any page.
pub(crate) fn open_to_pages(response: &mut HttpResponseBuilder) {
    response
        .insert_header((header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"))
        .insert_header((HeaderName::from_static("cross-origin-resource-policy"), "cross-origin"));
}

/// Fetch the keys that verify tokens (RFC 7517)
///
/// At the root, those of the default tenant. Fetch again when a token names a `kid` that is not there.
#[utoipa::path(
    tag = "Publication",
    operation_id = "showJwks",
    responses(
        (status = 200, description = "The JWK set", body = serde_json::Value, content_type = "application/jwk-set+json", example = json!({ "keys": [{
            "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
            "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k", "alg": "EdDSA", "use": "sig"
        }] })),
        (status = 304, description = "As it was: `If-None-Match` matched"),
        (status = 404, description = "There is no such tenant", body = crate::problem::Problem),
    ),
    security(()),
)]
#[get("/.well-known/jwks.json")]
pub(crate) async fn jwks(req: HttpRequest) -> Answered<HttpResponse> {
    let tenant = tenant(&req).await?;
    let issuer = issuer(&req)?;
    let now = issuer.clock().now();
    let agent = req.headers().get(header::USER_AGENT).and_then(|agent| agent.to_str().ok()).unwrap_or_default();
    issuer.jwks_fetched(&tenant, request_info(&req).address, agent);
    let known = req.headers().get_all(header::IF_NONE_MATCH).filter_map(|tags| tags.to_str().ok()).any(|tags| {
        tags.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == "*" || tag == tenant.published.etag)
    });
    let mut response = if known { HttpResponse::NotModified() } else { HttpResponse::Ok() };
    publish(&mut response, &tenant, now);
    response.insert_header((header::ETAG, tenant.published.etag.clone()));
    if known {
        return Ok(response.finish());
    }
    response.insert_header((header::CONTENT_TYPE, "application/jwk-set+json"));
    Ok(response.body(tenant.published.jwks.clone()))
}

/// Fetch the metadata (RFC 8414), appended form
#[utoipa::path(
    tag = "Publication",
    operation_id = "showMetadata",
    responses(
        (status = 200, description = "The metadata", body = serde_json::Value, example = json!({
            "issuer": "https://id.example.com/t/acme",
            "jwks_uri": "https://id.example.com/t/acme/.well-known/jwks.json"
        })),
        (status = 404, description = "There is no such tenant", body = crate::problem::Problem),
    ),
    security(()),
)]
#[get("/.well-known/oauth-authorization-server")]
pub(crate) async fn metadata(req: HttpRequest) -> Answered<HttpResponse> {
    let tenant = tenant(&req).await?;
    Ok(metadata_of(&tenant, issuer(&req)?.clock().now()))
}

/// Fetch the metadata (RFC 8414 §3.1), path-inserted form
#[utoipa::path(
    tag = "Publication",
    operation_id = "showMetadataPathInserted",
    params(("slug" = String, Path, description = "The tenant's slug", example = "acme")),
    responses(
        (status = 200, description = "The metadata, as in the appended form", body = serde_json::Value),
        (status = 404, description = "There is no such tenant", body = crate::problem::Problem),
    ),
    security(()),
)]
#[get("/.well-known/oauth-authorization-server/t/{slug}")]
pub(crate) async fn metadata_path_inserted(issuer: Data<Issuer>, slug: Path<String>) -> Answered<HttpResponse> {
    let tenant = issuer.publishing_tenant(&slug).await?.ok_or_else(Answer::not_found)?;
    Ok(metadata_of(&tenant, issuer.clock().now()))
}

fn metadata_of(tenant: &TenantEntry, now: DateTime<Utc>) -> HttpResponse {
    let issuer = &tenant.issuer;
    let mut response = HttpResponse::Ok();
    publish(&mut response, tenant, now);
    response.json(json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/.well-known/jwks.json"),
        "token_endpoint": format!("{issuer}/v1/token"),
        "token_endpoint_auth_methods_supported": CLIENT_AUTHENTICATION,
        "revocation_endpoint": format!("{issuer}/v1/token/revoke"),
        "revocation_endpoint_auth_methods_supported": ["client_secret_basic", "none"],
        "revocations_endpoint": format!("{issuer}/v1/revocations"),
        "status_list_aggregation_endpoint": format!("{issuer}/v1/status-lists"),
        "introspection_endpoint": format!("{issuer}/v1/introspect"),
        "introspection_endpoint_auth_methods_supported": ["client_secret_basic"],
        // Required by RFC 8414 §2; there is no authorization endpoint.
        "response_types_supported": [],
        "grant_types_supported": GrantType::ALL,
    }))
}
