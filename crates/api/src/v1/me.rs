//! Who am I?

use actix_web::get;
use actix_web::web::Json;
use claviger_store::id::KeyId;
use serde::Serialize;
use utoipa::ToSchema;

use crate::caller::{Anyone, Caller};

/// The caller, as we see it now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Me {
    /// The subject of tokens: the person, or the application where no person stands behind the key.
    #[schema(example = "0195f6a2-6a0e-7c3b-9c53-3f0f2b1a7d11")]
    sub: String,
    /// The login name, where a person stands behind the key.
    #[schema(example = "alice")]
    username: Option<String>,
    /// What may be done now, space-separated.
    #[schema(example = "events:read events:write")]
    scope: String,
    /// The tenant's slug.
    #[schema(example = "acme")]
    tenant: String,
    /// The key behind the call.
    #[schema(value_type = String, example = "ck_4gSDYpTTs2U5zkLxBHBUuc0HlQ3a")]
    key_id: KeyId,
    /// When the token ends, in seconds since 1970; `null` for a key.
    exp: Option<i64>,
}

/// Show the caller
#[utoipa::path(
    tag = "Tokens",
    operation_id = "showMe",
    responses((status = 200, description = "The caller", body = Me)),
    security(("bearer" = []), ("basic" = [])),
)]
#[get("/v1/me")]
pub(crate) async fn show(caller: Caller<Anyone>) -> Json<Me> {
    let who = &caller.who;
    Json(Me {
        sub: who.key.subject(),
        username: who.key.username().map(str::to_owned),
        scope: who.scopes.to_string(),
        tenant: who.key.tenant.tenant.slug.clone(),
        key_id: who.key.entry.key.id.clone(),
        exp: who.token_ends,
    })
}
