//! Who am I?

use actix_web::get;
use actix_web::web::Json;
use claviger_issuer::Failure;
use claviger_store::id::KeyId;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::caller::{Caller, Oneself};
use crate::problem::Answered;
use crate::v1::logins::current;
use crate::v1::verify::ActorOut;

/// The caller, as we see it now.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Me {
    /// The subject of tokens: the person, or the application where no person stands behind the key.
    #[schema(example = "0195f6a2-6a0e-7c3b-9c53-3f0f2b1a7d11")]
    sub: String,
    /// The login name, where there is a person.
    #[schema(example = "alice")]
    username: Option<String>,
    /// The e-mail address of a person who logged in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "alice@example.com")]
    email: Option<String>,
    /// The roles of a person who logged in.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["editor"]))]
    roles: Option<Vec<String>>,
    /// What may be done now, space-separated.
    #[schema(example = "events:read events:write")]
    scope: String,
    /// The tenant's slug.
    #[schema(example = "acme")]
    tenant: String,
    /// The key behind the call; `null` for a person who logged in.
    #[schema(value_type = Option<String>, example = "ck_4gSDYpTTs2U5zkLxBHBUuc0HlQ3a")]
    key_id: Option<KeyId>,
    /// The login behind the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    sid: Option<Uuid>,
    /// Who acts for the subject, where that is somebody else.
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<ActorOut>,
    /// When the token ends, in seconds since 1970; `null` for what does not end.
    exp: Option<i64>,
}

/// Show the caller
#[utoipa::path(
    tag = "Tokens",
    operation_id = "showMe",
    responses((status = 200, description = "The caller", body = Me)),
    security(("bearer" = []), ("basic" = []), ("session" = [])),
)]
#[get("/v1/me")]
pub(crate) async fn show(caller: Caller<Oneself>) -> Answered<Json<Me>> {
    let who = &caller.who;
    let person = match who.key() {
        Some(_) => None,
        None => Some(who.person()?.user().map_err(Failure::from)?),
    };
    Ok(Json(Me {
        sub: who.principal.subject(),
        username: who.principal.username().map(str::to_owned),
        email: person.and_then(|user| user.email.clone()),
        roles: person.map(|user| user.roles.clone()),
        scope: who.scopes.to_string(),
        tenant: who.tenant().tenant.slug.clone(),
        key_id: who.key().map(|key| key.entry.key.id.clone()),
        sid: current(who),
        act: who.acting.clone().map(ActorOut::from),
        exp: who.token_ends,
    }))
}
