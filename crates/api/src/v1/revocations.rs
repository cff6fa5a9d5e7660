//! The revocation feed: what services that verify offline follow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::dev::Payload;
use actix_web::http::header;
use actix_web::web::{Bytes, Data};
use actix_web::{FromRequest as _, HttpRequest, HttpResponse, get};
use claviger_issuer::revocation_feed::{Batch, Reader};
use claviger_issuer::{Failure, Issuer};
use futures_util::stream::unfold;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::body::Asked;
use crate::caller::{Caller, RevocationsRead, issuer};
use crate::problem::{Answer, Answered};
use crate::well_known;

/// Longest wait for news, in seconds.
const LONGEST_WAIT: u64 = 30;
/// How long a stream lasts: who goes on comes back, and may meanwhile have been moved elsewhere or lost the right to read.
const STREAM: Duration = Duration::from_secs(300);
/// Between signs of life in a stream.
const HEARTBEAT: Duration = Duration::from_secs(10);

/// Where to begin, and how long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct RevocationsQuery {
    /// The `cursor` of the last batch; without it, all that is of use is told.
    #[serde(default)]
    #[param(minimum = 0, example = 42)]
    since: Option<u64>,
    /// Seconds to wait for something new, at most 30; 0 if absent.
    #[serde(default)]
    #[param(maximum = 30, example = 20)]
    wait: Option<u64>,
}

/// Follow what was revoked
///
/// A signed batch (`typ` `revocations+jwt`) of what counts no more since `since`: `entries` of `[claim, value, until,
/// before]`, where `claim` is `sid`, `key_id`, `sub`, `client_id`, `jti` or `tid`. Tokens whose claim has that value are
/// revoked, of those with `before` the ones whose `iat` is not later. After `until` (Unix seconds; `null` is never) the entry
/// can be dropped. `prev` is the cursor that the batch follows: if it is not the one you have, you missed something, and
/// without one (`null`) all you knew is to be forgotten. With `more`, ask again at once.
///
/// With `Accept: text/event-stream` batches come as events whose `id` is their cursor, empty ones as a sign of life every
/// 10 seconds; `Last-Event-ID` says where to go on. No credential is needed, since there is nothing but ids, unless the
/// tenant's setting `revocations_private` is on: then the scope `revocations:read`.
#[utoipa::path(
    tag = "Publication",
    operation_id = "followRevocations",
    params(
        RevocationsQuery,
        ("Last-Event-ID" = Option<String>, Header, description = "As `since`, sent by readers of event streams that come back", example = "42"),
    ),
    responses(
        (status = 200, description = "A batch, or a stream of them", content(
            (String = "application/revocations+jwt", example = "eyJ0eXAiOiJyZXZvY2F0aW9ucytqd3QiLCJhbGciOiJFZERTQSIsImtpZCI6IuKApiJ9.eyJpc3MiOiLigKYifQ.c2ln"),
            (String = "text/event-stream", example = "event: revocations\nid: 42\ndata: eyJ0eXAiOiJyZXZvY2F0aW9ucytqd3QiLCJhbGciOiJFZERTQSJ9.eyJpc3MiOiLigKYifQ.c2ln\n\n"),
        )),
        (status = 401, description = "The feed is private: no credential, or one that does not hold", body = crate::problem::Problem),
        (status = 403, description = "The feed is private: `revocations:read` is not held", body = crate::problem::Problem),
        (status = 404, description = "There is no such tenant", body = crate::problem::Problem),
        (status = 422, description = "A parameter is unknown or out of range", body = crate::problem::Problem),
        (status = 503, description = "The database did not answer, too many readers wait, or the server is about to stop", body = crate::problem::Problem),
    ),
    security((), ("basic" = []), ("bearer" = [])),
)]
#[get("/v1/revocations")]
pub(crate) async fn show(req: HttpRequest, query: Asked<RevocationsQuery>) -> Answered<HttpResponse> {
    let issuer = issuer(&req)?;
    let tenant = well_known::tenant(&req).await?;
    let private = tenant.settings.revocations_private.unwrap_or(false);
    if private {
        Caller::<RevocationsRead>::from_request(&req, &mut Payload::None).await?;
    }
    let RevocationsQuery { since, wait } = query.take()?;
    let wait = wait.unwrap_or(0);
    if wait > LONGEST_WAIT {
        return Err(Answer::unprocessable("wait", "`wait` is 0 to 30 seconds."));
    }
    let streams = req.headers().get(header::ACCEPT).is_some_and(|accept| accept.as_bytes().starts_with(b"text/event-stream"));
    let since = match req.headers().get("last-event-id").filter(|_| streams) {
        Some(last) => {
            let last = last.to_str().ok().and_then(|last| last.parse().ok());
            Some(last.ok_or_else(|| Answer::bad_request("`Last-Event-ID` is not an id of this stream."))?)
        }
        None => since,
    };
    // What no cursor can be was never given.
    let since = since.map(|since| i64::try_from(since).unwrap_or(i64::MAX));
    let tenant = tenant.tenant.id;
    let mut response = HttpResponse::Ok();
    well_known::open_to_pages(&mut response);
    if streams {
        let reader = issuer.follow_revocations(tenant, since)?.ok_or_else(stopping)?;
        response.insert_header((header::CACHE_CONTROL, "no-store"));
        // Proxies that collect an answer before they pass it on would collect for ever.
        response.insert_header(("x-accel-buffering", "no"));
        response.insert_header((header::CONTENT_TYPE, "text/event-stream"));
        return Ok(response.streaming(stream(issuer, reader)));
    }
    let batch = match wait {
        0 => issuer.revocations(tenant, since).await?,
        _ => {
            let mut reader = issuer.follow_revocations(tenant, since)?.ok_or_else(stopping)?;
            issuer.next_revocations(&mut reader, Duration::from_secs(wait)).await?.ok_or_else(stopping)?
        }
    };
    let cache = match (private, wait) {
        (true, _) => "no-store",
        // It is signed, says when it was made, and may be carried by anybody for a moment.
        (false, 0) => "public, max-age=1",
        (false, _) => "no-cache",
    };
    response.insert_header((header::CACHE_CONTROL, cache));
    response.insert_header((header::CONTENT_TYPE, "application/revocations+jwt"));
    Ok(response.body(batch.jws.clone()))
}

fn stopping() -> Answer {
    Failure::Fault(claviger_issuer::Fault::Overloaded("a server that is about to stop")).into()
}

/// Batches as events, until the reader leaves, the time is over, or nothing can be said for sure.
fn stream(issuer: Data<Issuer>, reader: Reader) -> impl futures_util::Stream<Item = Result<Bytes, actix_web::Error>> + 'static {
    let began = Instant::now();
    unfold(Some((issuer, reader, true)), move |state| async move {
        let (issuer, mut reader, first) = state?;
        let over = began.elapsed() >= STREAM;
        if over {
            return None;
        }
        // The first batch comes at once, whatever it says: so the reader knows that it is heard.
        let patience = if first { Duration::ZERO } else { HEARTBEAT };
        match issuer.next_revocations(&mut reader, patience).await {
            Ok(Some(batch)) => Some((Ok(event(&batch)), Some((issuer, reader, false)))),
            Ok(None) => None,
            Err(error) => {
                // The reader comes back and is told what it is, or finds another server.
                tracing::debug!(error = %error, "a stream of revocations was ended");
                None
            }
        }
    })
}

fn event(batch: &Arc<Batch>) -> Bytes {
    Bytes::from(format!("event: revocations\nid: {}\ndata: {}\n\n", batch.cursor, batch.jws))
}
