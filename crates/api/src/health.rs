//! Is it alive, and can it work?

use std::sync::atomic::Ordering;

use actix_web::get;
use actix_web::http::StatusCode;
use actix_web::web::{Data, Json};
use chrono::TimeDelta;
use claviger_issuer::Issuer;
use serde::Serialize;
use utoipa::ToSchema;

use crate::border::Border;
use crate::problem::{Answer, Answered};

/// How far our clock and the database's may be apart.
const CLOCK_SKEW: TimeDelta = TimeDelta::seconds(30);

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
/// The database answers, its schema is new enough, its clock and ours agree to 30 seconds, and no shutdown has begun.
#[utoipa::path(
    tag = "Operation",
    operation_id = "showReadiness",
    responses(
        (status = 200, description = "Send requests here", body = Health),
        (status = 503, description = "Do not, for the reason given", body = crate::problem::Problem),
    ),
    security(()),
)]
#[get("/readyz")]
pub(crate) async fn ready(issuer: Data<Issuer>, border: Data<Border>) -> Answered<Json<Health>> {
    let not = |why: String| Answer::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", why);
    if !border.accepting.load(Ordering::SeqCst) {
        return Err(not("The server is shutting down.".into()));
    }
    let store = issuer.store();
    store.check().await.map_err(|error| {
        tracing::warn!(error = %error, "not ready");
        not("The database does not answer, or its schema is too old.".into())
    })?;
    let database = store.database_time().await.map_err(|_| not("The database does not answer.".into()))?;
    let skew = (database - issuer.clock().now()).abs();
    if skew > CLOCK_SKEW {
        return Err(not(format!("The database's clock and ours are {} seconds apart.", skew.num_seconds())));
    }
    Ok(Json(Health { status: "ok" }))
}
