//! One-time tickets for WebSockets.

use actix_web::web::Data;
use actix_web::{HttpResponse, post};
use claviger_issuer::Issuer;
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::body::{RawBody, parse};
use crate::caller::{Caller, ForWebSocket};
use crate::problem::Answered;

/// Seconds that a ticket lives when nothing is said.
const USUAL: u32 = 60;

/// A ticket to be made. The whole body is optional.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct TicketIn {
    /// The origin whose pages may use it, as browsers send it. Absent lets clients that send none use it.
    #[schema(example = "https://app.example.com")]
    origin: Option<String>,
    /// Seconds that it lives, 5 to 60; 60 if absent.
    #[schema(minimum = 5, maximum = 60, example = 60)]
    expires_in: Option<u32>,
}

/// A ticket.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TicketOut {
    /// To be sent once, as `?token=` of a WebSocket's address.
    #[schema(example = "ct_8sZyqk0sPn1tFJ9m5xQmT3vWcR7bL2dH6gK4jN0pX8aYuE1i9oVf")]
    ticket: String,
    /// Seconds that it lives.
    #[schema(example = 60)]
    expires_in: u32,
}

/// Get a ticket for a WebSocket
///
/// Browsers cannot send headers with a WebSocket, and what stands in an address ends up in logs: a ticket is good once, for
/// a minute at most, and holds what the caller holds. The resource server hands it to `POST /v1/verify` as `token`.
#[utoipa::path(
    tag = "Verify",
    operation_id = "createWsTicket",
    request_body(content = Option<TicketIn>, example = json!({ "origin": "https://app.example.com" })),
    responses(
        (status = 201, description = "The ticket", body = TicketOut),
        (status = 403, description = "The caller acts for another", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = []), ("basic" = [])),
)]
#[post("/v1/ws-tickets")]
pub(crate) async fn create(caller: Caller<ForWebSocket>, issuer: Data<Issuer>, body: RawBody) -> Answered<HttpResponse> {
    let asked = if body.0.is_empty() { TicketIn::default() } else { parse(&body.0)? };
    let TicketIn { origin, expires_in } = asked;
    let lifetime = expires_in.unwrap_or(USUAL);
    let ticket = issuer.make_ticket(&caller.who, origin, lifetime).await?;
    let out = TicketOut { ticket: ticket.expose_secret().to_owned(), expires_in: lifetime };
    Ok(HttpResponse::Created().json(out))
}
