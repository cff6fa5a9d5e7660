//! Is it alive, and can it work?

use std::error::Error as _;
use std::sync::atomic::Ordering;

use actix_web::get;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Json};
use claviger_issuer::Issuer;
use serde::Serialize;
use utoipa::ToSchema;

use crate::border::Border;
use crate::problem::{Answer, Answered, sentence};

/// All is well.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Health {
    #[schema(example = "ok")]
    status: &'static str,
}

/// Is the process alive?
///
/// Does not ask the database: a restart would not help it.
#[utoipa::path(tag = "Operation", operation_id = "showHealth", responses((status = 200, description = "Alive", body = Health)), security(()))]
#[get("/healthz")]
pub(crate) async fn alive() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Can it work?
///
/// The database answers, its schema is one that this program can serve, its clock and ours agree to 30 seconds, the default
/// tenant's signing key can be used, and no shutdown has begun. If not, `reason` names the check that failed: `database`,
/// `schema`, `clock`, `signing_keys` or `stopping`.
#[utoipa::path(
    tag = "Operation",
    operation_id = "showReadiness",
    responses(
        (status = 200, description = "Send requests here", body = Health),
        (status = 503, description = "Do not, for the reason given", body = crate::problem::Problem, example = json!({
            "type": "urn:claviger:problem:not_ready", "title": "Service Unavailable", "status": 503,
            "detail": "The database's clock and ours are 31 seconds apart, and more than 30 is too much: set both by NTP.",
            "error": "not_ready", "reason": "clock"
        })),
    ),
    security(()),
)]
#[get("/readyz")]
pub(crate) async fn ready(issuer: Data<Issuer>, border: Data<Border>) -> Answered<Json<Health>> {
    let not = |check, why: &str| Answer::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", sentence(why)).because(check);
    if !border.accepting.load(Ordering::SeqCst) {
        return Err(not("stopping", "the server is shutting down"));
    }
    issuer.readiness().await.map_err(|unready| {
        let cause = unready.source().map(tracing::field::display);
        tracing::warn!(check = unready.check(), error = cause, "not ready");
        not(unready.check(), &unready.to_string())
    })?;
    Ok(Json(Health { status: "ok" }))
}
