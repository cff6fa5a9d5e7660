//! Signing keys of a tenant: what signs, what will, what did.

use actix_web::web::{Data, Json, Path};
use actix_web::{get, post};
use chrono::{DateTime, Utc};
use claviger_issuer::Issuer;
use claviger_issuer::signing_key::SigningKeyView;
use claviger_issuer::verifier_watch::{VerifierView, VerifiersView};
use claviger_store::jwks_fetch::JwksFetch;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::body::Body;
use crate::caller::{Caller, SigningKeysRead, SigningKeysWrite};
use crate::problem::Answered;

/// A signing key; its private half is never shown.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SigningKeyOut {
    /// RFC 7638 thumbprint of its public half.
    #[schema(example = "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k")]
    pub(crate) kid: String,
    #[schema(example = "EdDSA")]
    algorithm: &'static str,
    /// `next` (published, does not sign), `active`, `retired` (published until its last token has ended) or `gone`.
    #[schema(example = "active")]
    pub(crate) state: &'static str,
    /// When it was made, and published.
    created_at: DateTime<Utc>,
    /// When it began to sign; of a next key, when it may at the earliest.
    pub(crate) signs_from: Option<DateTime<Utc>>,
    retired_at: Option<DateTime<Utc>>,
    /// When it stops, or stopped, being published; `null` if that is not known yet.
    pub(crate) published_until: Option<DateTime<Utc>>,
    /// True while a token without an end keeps it published. Call such tokens back to let it go.
    pub(crate) unending: bool,
    /// Why it is gone: `ended`, `discarded`, or `emergency`: then nothing that it signed counts.
    pub(crate) gone: Option<&'static str>,
    /// The audience whose tokens alone it signs; `null` for the tenant's own keys.
    pub(crate) audience: Option<Uuid>,
}

impl From<SigningKeyView> for SigningKeyOut {
    fn from(key: SigningKeyView) -> Self {
        let SigningKeyView { public, state, created_at, signs_from, retired_at, published_until, unending, gone, audience } = key;
        Self {
            kid: public.kid().to_owned(),
            algorithm: public.algorithm().name(),
            state,
            created_at,
            signs_from,
            retired_at,
            published_until,
            unending,
            gone,
            audience: audience.map(|id| id.0),
        }
    }
}

/// All signing keys of a tenant, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct SigningKeysOut {
    items: Vec<SigningKeyOut>,
}

impl From<Vec<SigningKeyView>> for SigningKeysOut {
    fn from(keys: Vec<SigningKeyView>) -> Self {
        Self { items: keys.into_iter().map(SigningKeyOut::from).collect() }
    }
}

/// Somebody who fetches the JWK set.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VerifierOut {
    /// The network that it comes from; empty where no address is known.
    #[schema(example = "192.0.2.0/24")]
    pub(crate) network: String,
    #[schema(example = "metric-store/1.4")]
    pub(crate) user_agent: String,
    fetches: i64,
    first_at: DateTime<Utc>,
    pub(crate) last_at: DateTime<Utc>,
    /// The newest key that it got.
    newest_kid: String,
    /// Whether it has the next key; `null` if there is none.
    pub(crate) knows_next: Option<bool>,
}

/// Who fetches the tenant's keys.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct VerifiersOut {
    /// Everybody who came within a month, whoever came last first; at most a thousand.
    pub(crate) items: Vec<VerifierOut>,
    /// Names from the setting `verifiers` that the next key waits for.
    pub(crate) waiting_for: Vec<String>,
    /// When it waits no longer; `null` if there is no next key.
    pub(crate) waits_until: Option<DateTime<Utc>>,
}

impl From<VerifiersView> for VerifiersOut {
    fn from(view: VerifiersView) -> Self {
        let VerifiersView { callers, waiting_for, waits_until } = view;
        Self { items: callers.into_iter().map(VerifierOut::from).collect(), waiting_for, waits_until }
    }
}

impl From<VerifierView> for VerifierOut {
    fn from(VerifierView { caller, knows_next }: VerifierView) -> Self {
        let JwksFetch { network, user_agent, fetches, first_at, last_at, newest_kid, newest_key_at: _ } = caller;
        Self { network, user_agent, fetches, first_at, last_at, newest_kid, knows_next }
    }
}

/// How to rotate. The whole body may be `{}`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotationIn {
    /// True when a private key may be in the wrong hands: a new key signs at once, and what the old ones signed counts no
    /// more.
    #[serde(default)]
    emergency: bool,
    /// Name or `aud` of the audience whose own keys are meant; absent for the tenant's.
    audience: Option<String>,
}

/// Which key.
#[derive(Debug, Deserialize)]
pub(crate) struct SigningKeyInPath {
    kid: String,
}

/// List signing keys
#[utoipa::path(
    tag = "Signing keys",
    operation_id = "listSigningKeys",
    responses((status = 200, description = "All of them, newest first, those that are gone too", body = SigningKeysOut)),
    security(("bearer" = ["signing-keys:read"]), ("basic" = ["signing-keys:read"])),
)]
#[get("/v1/signing-keys")]
pub(crate) async fn list(caller: Caller<SigningKeysRead>, issuer: Data<Issuer>) -> Answered<Json<SigningKeysOut>> {
    Ok(Json(issuer.list_signing_keys(caller.tenant()).await?.into()))
}

/// List who fetches the keys
///
/// Counted by network and user agent. A next key waits for the verifiers that the tenant's setting `verifiers` names, until
/// all of them have fetched it, but no longer than `signing.longest_wait`.
#[utoipa::path(
    tag = "Signing keys",
    operation_id = "listVerifiers",
    responses((status = 200, description = "Who came within a month", body = VerifiersOut)),
    security(("bearer" = ["signing-keys:read"]), ("basic" = ["signing-keys:read"])),
)]
#[get("/v1/signing-keys/verifiers")]
pub(crate) async fn verifiers(caller: Caller<SigningKeysRead>, issuer: Data<Issuer>) -> Answered<Json<VerifiersOut>> {
    Ok(Json(issuer.list_verifiers(caller.who.tenant()).await?.into()))
}

/// Rotate the signing key
///
/// Publishes a next key, or, when there is one that was published long enough, lets it sign. Keys also rotate by
/// themselves (setting `signing` of the tenant). In an emergency a new key signs at once and every key that could sign is
/// withdrawn: tokens under them are refused here at once, and elsewhere when verifiers fetch the JWK set again, within 300
/// seconds.
#[utoipa::path(
    tag = "Signing keys",
    operation_id = "rotateSigningKey",
    request_body(content = RotationIn, example = json!({ "emergency": false })),
    responses(
        (status = 200, description = "The keys as they are now", body = SigningKeysOut),
        (status = 404, description = "There is no such audience in this tenant", body = crate::problem::Problem),
        (status = 409, description = "The next key was not published long enough; the answer says until when to wait", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = ["signing-keys:write"]), ("basic" = ["signing-keys:write"])),
)]
#[post("/v1/signing-keys/rotate")]
pub(crate) async fn rotate(
    caller: Caller<SigningKeysWrite>,
    issuer: Data<Issuer>,
    body: Body<RotationIn>,
) -> Answered<Json<SigningKeysOut>> {
    let RotationIn { emergency, audience } = body.take()?;
    let audience = match audience {
        Some(name) => Some(issuer.find_audience_by_name(caller.tenant(), &name).await?.row.id),
        None => None,
    };
    Ok(Json(issuer.rotate_signing_key(caller.tenant(), &caller.actor(), audience, emergency).await?.into()))
}

/// Let a next key sign
#[utoipa::path(
    tag = "Signing keys",
    operation_id = "activateSigningKey",
    params(("kid" = String, Path, description = "The key's `kid`")),
    responses(
        (status = 200, description = "The keys as they are now", body = SigningKeysOut),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
        (status = 409, description = "It is not a next key, or was not published long enough", body = crate::problem::Problem),
    ),
    security(("bearer" = ["signing-keys:write"]), ("basic" = ["signing-keys:write"])),
)]
#[post("/v1/signing-keys/{kid}/activate")]
pub(crate) async fn activate(
    caller: Caller<SigningKeysWrite>,
    issuer: Data<Issuer>,
    path: Path<SigningKeyInPath>,
) -> Answered<Json<SigningKeysOut>> {
    Ok(Json(issuer.activate_signing_key(caller.tenant(), &caller.actor(), &path.kid).await?.into()))
}

/// Take a signing key out
///
/// A next key before it ever signed; or a retired one before its time: then tokens under it are refused from now on. The
/// active one retires when its successor signs.
#[utoipa::path(
    tag = "Signing keys",
    operation_id = "retireSigningKey",
    params(("kid" = String, Path, description = "The key's `kid`")),
    responses(
        (status = 200, description = "The keys as they are now", body = SigningKeysOut),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
        (status = 409, description = "It signs, or is gone already", body = crate::problem::Problem),
    ),
    security(("bearer" = ["signing-keys:write"]), ("basic" = ["signing-keys:write"])),
)]
#[post("/v1/signing-keys/{kid}/retire")]
pub(crate) async fn retire(
    caller: Caller<SigningKeysWrite>,
    issuer: Data<Issuer>,
    path: Path<SigningKeyInPath>,
) -> Answered<Json<SigningKeysOut>> {
    Ok(Json(issuer.retire_signing_key(caller.tenant(), &caller.actor(), &path.kid).await?.into()))
}
