//! Audiences: downstream services with their own shape of token.

use std::collections::BTreeMap;

use actix_web::http::header::{self, HeaderValue};
use actix_web::web::{Data, Json, Path};
use actix_web::{HttpResponse, delete, get, patch, post};
use chrono::{DateTime, Utc};
use claviger_issuer::Issuer;
use claviger_issuer::audience::{AlgorithmName, AudienceChange, AudienceView, Claim, NewAudience, Privilege, Profile, SubjectIs};
use claviger_store::audience::Audience;
use claviger_store::id::AudienceId;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::public_key::{Format, written};
use super::signing_keys::SigningKeysOut;
use crate::body::{Asked, Body, Object};
use crate::caller::{AudiencesRead, AudiencesWrite, Caller};
use crate::problem::{Answer, Answered};

/// What `sub` says.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum SubjectOf {
    /// The id of the person or application.
    #[default]
    Id,
    /// The login name; where there is no person, the id.
    Username,
}

/// `alg` of the tokens.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize, ToSchema)]
pub(crate) enum Alg {
    /// Ed25519 under the name that most verifiers know.
    #[default]
    EdDSA,
    /// Ed25519 under its fully specified name (RFC 9864).
    Ed25519,
    /// ECDSA on P-256; needs `own_key`.
    ES256,
    /// RSA with 2048 bits; needs `own_key`.
    RS256,
}

/// A claim beside `iss`, `sub`, `aud`, `exp`, `iat` and `jti`.
#[derive(Debug, Clone, Copy, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum ClaimName {
    ClientId,
    KeyId,
    Tid,
    Username,
    Roles,
    Scope,
    /// The scopes as a map from resource to actions.
    Permissions,
    /// The same in capitals.
    PermissionsUpper,
    /// The person's e-mail address.
    Email,
    /// The login name, as OpenID Connect calls it.
    PreferredUsername,
    /// The id of the person or application, whatever `sub` says.
    Uid,
}

/// A letter of the claim `priv`.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PrivilegeIn {
    /// A letter, or a word of at most 16 letters and digits.
    #[schema(example = "R")]
    letter: String,
    /// What must have been granted.
    #[schema(example = "hits:read")]
    scope: String,
}

/// What an audience's tokens look like; what is absent is as usual.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProfileIn {
    #[serde(default)]
    subject: SubjectOf,
    /// Which claims are there; if absent `client_id`, `key_id`, `tid`, `username`, `roles` and `scope`.
    claims: Option<Vec<ClaimName>>,
    /// Claims that are always the same: at most 20, none with a meaning of its own.
    #[serde(default)]
    #[schema(value_type = Object)]
    extra: Map<String, Value>,
    /// Claims that are attributes of the person: the attribute's name by the claim's, at most 20. One that the person lacks is
    /// left out.
    #[serde(default)]
    #[schema(example = json!({ "projects": "projects" }))]
    attributes: BTreeMap<String, String>,
    /// The letters of the claim `priv`, in their order: those whose scope was granted are there. Without any, there is no such
    /// claim.
    #[serde(default)]
    #[schema(value_type = Vec<PrivilegeIn>)]
    privileges: Vec<Object<PrivilegeIn>>,
    /// The role that the claim `admin` is about, true or false; absent is no such claim.
    #[schema(example = "admin")]
    admin_role: Option<String>,
    /// Leave `iss` out. Nobody can be asked about such a token.
    #[serde(default)]
    omit_iss: bool,
    /// Leave `jti` out. Nobody can be asked about such a token.
    #[serde(default)]
    omit_jti: bool,
    /// Seconds that `iat` lies back, for verifiers whose clock may be late.
    #[serde(default)]
    #[schema(minimum = 0, maximum = 30)]
    backdate: i32,
    /// Leave `aud` out, for verifiers that refuse one.
    #[serde(default)]
    omit_aud: bool,
    /// Leave `exp` out of tokens from exchanges, unless `lifetime` says how long they live. Needs `allow_non_expiring`.
    #[serde(default)]
    omit_exp: bool,
    /// Tokens without an end may be issued: they live until they are called back or their key ends.
    #[serde(default)]
    allow_non_expiring: bool,
    /// Seconds that tokens live; absent takes the key's.
    #[schema(minimum = 5, maximum = 8_640_000)]
    lifetime: Option<i32>,
    /// What a key must hold to get tokens for it.
    #[schema(example = "metrics:write")]
    required_scope: Option<String>,
    /// Stays of one kind.
    #[serde(default)]
    algorithm: Alg,
    /// It has signing keys of its own: what they sign opens nothing else. Stays as it is.
    #[serde(default)]
    own_key: bool,
    /// Its own key changes only when `confirm-key` says that the service has the next one.
    #[serde(default)]
    static_key: bool,
    /// Its own keys are not in the tenant's JWK set.
    #[serde(default)]
    private_jwks: bool,
    /// Its tokens have a place in a status list, by which the service can tell that they were revoked.
    #[serde(default)]
    status_list: bool,
}

impl From<Object<ProfileIn>> for Profile {
    fn from(Object(profile): Object<ProfileIn>) -> Self {
        let ProfileIn {
            subject,
            claims,
            extra,
            attributes,
            privileges,
            admin_role,
            omit_iss,
            omit_jti,
            backdate,
            omit_aud,
            omit_exp,
            allow_non_expiring,
            lifetime,
            required_scope,
            algorithm,
            own_key,
            static_key,
            private_jwks,
            status_list,
        } = profile;
        Self {
            subject: match subject {
                SubjectOf::Id => SubjectIs::Id,
                SubjectOf::Username => SubjectIs::Username,
            },
            claims: claims.map_or_else(|| Self::default().claims, |claims| claims.into_iter().map(Claim::from).collect()),
            extra,
            attributes,
            privileges: privileges.into_iter().map(|Object(PrivilegeIn { letter, scope })| Privilege { letter, scope }).collect(),
            admin_role,
            omit_iss,
            omit_jti,
            backdate,
            omit_aud,
            omit_exp,
            allow_non_expiring,
            lifetime,
            required_scope,
            algorithm: match algorithm {
                Alg::EdDSA => AlgorithmName::EdDsa,
                Alg::Ed25519 => AlgorithmName::Ed25519,
                Alg::ES256 => AlgorithmName::Es256,
                Alg::RS256 => AlgorithmName::Rs256,
            },
            own_key,
            static_key,
            private_jwks,
            status_list,
        }
    }
}

impl From<ClaimName> for Claim {
    fn from(name: ClaimName) -> Self {
        match name {
            ClaimName::ClientId => Self::ClientId,
            ClaimName::KeyId => Self::KeyId,
            ClaimName::Tid => Self::Tid,
            ClaimName::Username => Self::Username,
            ClaimName::Roles => Self::Roles,
            ClaimName::Scope => Self::Scope,
            ClaimName::Permissions => Self::Permissions,
            ClaimName::PermissionsUpper => Self::PermissionsUpper,
            ClaimName::Email => Self::Email,
            ClaimName::PreferredUsername => Self::PreferredUsername,
            ClaimName::Uid => Self::Uid,
        }
    }
}

/// What an audience's tokens look like.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ProfileOut {
    #[schema(value_type = SubjectOf)]
    subject: SubjectIs,
    #[schema(value_type = Vec<ClaimName>)]
    claims: Vec<Claim>,
    #[schema(value_type = Object)]
    extra: Map<String, Value>,
    attributes: BTreeMap<String, String>,
    #[schema(value_type = Vec<PrivilegeIn>)]
    privileges: Vec<Privilege>,
    admin_role: Option<String>,
    omit_iss: bool,
    omit_jti: bool,
    backdate: i32,
    omit_aud: bool,
    omit_exp: bool,
    allow_non_expiring: bool,
    lifetime: Option<i32>,
    required_scope: Option<String>,
    #[schema(value_type = Alg)]
    algorithm: AlgorithmName,
    own_key: bool,
    static_key: bool,
    private_jwks: bool,
    status_list: bool,
}

impl From<Profile> for ProfileOut {
    fn from(profile: Profile) -> Self {
        let Profile {
            subject,
            claims,
            extra,
            attributes,
            privileges,
            admin_role,
            omit_iss,
            omit_jti,
            backdate,
            omit_aud,
            omit_exp,
            allow_non_expiring,
            lifetime,
            required_scope,
            algorithm,
            own_key,
            static_key,
            private_jwks,
            status_list,
        } = profile;
        Self {
            subject,
            claims,
            extra,
            attributes,
            privileges,
            admin_role,
            omit_iss,
            omit_jti,
            backdate,
            omit_aud,
            omit_exp,
            allow_non_expiring,
            lifetime,
            required_scope,
            algorithm,
            own_key,
            static_key,
            private_jwks,
            status_list,
        }
    }
}

/// An audience to be registered.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AudienceIn {
    /// How it is asked for; unique in the tenant.
    #[schema(example = "metric-store")]
    name: String,
    /// The `aud` of its tokens; unique in the tenant.
    #[schema(example = "https://metrics.example.com")]
    uri: String,
    /// What its tokens look like.
    #[serde(default)]
    #[schema(value_type = Option<ProfileIn>)]
    profile: Option<Object<ProfileIn>>,
}

/// What to change of an audience; what is absent stays. A profile is one value: what you send replaces all of it.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AudienceChangeIn {
    name: Option<String>,
    uri: Option<String>,
    #[serde(default)]
    #[schema(value_type = Option<ProfileIn>)]
    profile: Option<Object<ProfileIn>>,
}

/// An audience.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AudienceOut {
    pub(crate) id: Uuid,
    #[schema(example = "metric-store")]
    pub(crate) name: String,
    #[schema(example = "https://metrics.example.com")]
    pub(crate) uri: String,
    profile: ProfileOut,
    created_at: DateTime<Utc>,
}

impl From<AudienceView> for AudienceOut {
    fn from(AudienceView { row, profile }: AudienceView) -> Self {
        let Audience { id, name, uri, profile: _, created_at } = row;
        Self { id: id.0, name, uri, profile: profile.into(), created_at }
    }
}

/// All audiences of a tenant, oldest first.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AudiencesOut {
    items: Vec<AudienceOut>,
}

/// The key that the service has from now on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConfirmationIn {
    /// The `kid` of the next key.
    kid: String,
}

/// Which key, in which form.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct AudienceKeyQuery {
    /// `raw` (default), `pem` or `jwk`.
    #[serde(default)]
    #[param(inline)]
    format: Format,
    /// The next key instead of the one that signs now.
    #[serde(default)]
    next: bool,
}

/// Taken by name, because the path may also hold the tenant that it is mounted under.
#[derive(Deserialize)]
pub(crate) struct AudienceInPath {
    id: String,
}

impl AudienceInPath {
    /// What is no id is the id of none.
    fn id(&self) -> Result<AudienceId, Answer> {
        self.id.parse().map_err(|_| Answer::not_found())
    }
}

/// Register an audience
///
/// A downstream service whose tokens have their own shape. `POST /v1/authentications` with `{"audience": "NAME"}` gets one.
#[utoipa::path(
    tag = "Audiences",
    operation_id = "createAudience",
    request_body(content = AudienceIn, example = json!({ "name": "metric-store", "uri": "https://metrics.example.com",
        "profile": { "subject": "username", "own_key": true, "static_key": true, "required_scope": "metrics:write" } })),
    responses(
        (status = 201, description = "The audience", body = AudienceOut),
        (status = 409, description = "Name or `uri` are taken, or there are too many", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = ["audiences:write"]), ("basic" = ["audiences:write"])),
)]
#[post("/v1/audiences")]
pub(crate) async fn create(
    caller: Caller<AudiencesWrite>,
    issuer: Data<Issuer>,
    body: Body<AudienceIn>,
) -> Answered<HttpResponse> {
    let AudienceIn { name, uri, profile } = body.take()?;
    let new = NewAudience { name, uri, profile: profile.map(Profile::from).unwrap_or_default() };
    let made = issuer.create_audience(caller.tenant(), &caller.actor(), new).await?;
    Ok(HttpResponse::Created().json(AudienceOut::from(made)))
}

/// List audiences
#[utoipa::path(
    tag = "Audiences",
    operation_id = "listAudiences",
    responses((status = 200, description = "All of them, oldest first", body = AudiencesOut)),
    security(("bearer" = ["audiences:read"]), ("basic" = ["audiences:read"])),
)]
#[get("/v1/audiences")]
pub(crate) async fn list(caller: Caller<AudiencesRead>, issuer: Data<Issuer>) -> Answered<Json<AudiencesOut>> {
    let all = issuer.list_audiences(caller.tenant()).await?;
    Ok(Json(AudiencesOut { items: all.into_iter().map(AudienceOut::from).collect() }))
}

/// Show an audience
#[utoipa::path(
    tag = "Audiences",
    operation_id = "showAudience",
    params(("id" = Uuid, Path, description = "The audience's id")),
    responses(
        (status = 200, description = "The audience", body = AudienceOut),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
    ),
    security(("bearer" = ["audiences:read"]), ("basic" = ["audiences:read"])),
)]
#[get("/v1/audiences/{id}")]
pub(crate) async fn show(
    caller: Caller<AudiencesRead>,
    issuer: Data<Issuer>,
    path: Path<AudienceInPath>,
) -> Answered<Json<AudienceOut>> {
    Ok(Json(issuer.find_audience(caller.tenant(), path.id()?).await?.into()))
}

/// Change an audience
#[utoipa::path(
    tag = "Audiences",
    operation_id = "changeAudience",
    params(("id" = Uuid, Path, description = "The audience's id")),
    request_body(content = AudienceChangeIn, example = json!({ "name": "metrics" })),
    responses(
        (status = 200, description = "The audience as it is now", body = AudienceOut),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
        (status = 409, description = "Name or `uri` are taken, or it would need another kind of key", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = ["audiences:write"]), ("basic" = ["audiences:write"])),
)]
#[patch("/v1/audiences/{id}")]
pub(crate) async fn change(
    caller: Caller<AudiencesWrite>,
    issuer: Data<Issuer>,
    path: Path<AudienceInPath>,
    body: Body<AudienceChangeIn>,
) -> Answered<Json<AudienceOut>> {
    let AudienceChangeIn { name, uri, profile } = body.take()?;
    let change = AudienceChange { name, uri, profile: profile.map(Profile::from) };
    Ok(Json(issuer.change_audience(caller.tenant(), &caller.actor(), path.id()?, change).await?.into()))
}

/// End an audience for good
#[utoipa::path(
    tag = "Audiences",
    operation_id = "deleteAudience",
    params(("id" = Uuid, Path, description = "The audience's id")),
    responses(
        (status = 204, description = "What its own keys signed counts no more"),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
    ),
    security(("bearer" = ["audiences:write"]), ("basic" = ["audiences:write"])),
)]
#[delete("/v1/audiences/{id}")]
pub(crate) async fn delete(
    caller: Caller<AudiencesWrite>,
    issuer: Data<Issuer>,
    path: Path<AudienceInPath>,
) -> Answered<HttpResponse> {
    issuer.delete_audience(caller.tenant(), &caller.actor(), path.id()?).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Show the key that signs for an audience
///
/// For services that take a pasted key: its own, or the tenant's where it has none. `next=true` shows the one that will
/// sign.
#[utoipa::path(
    tag = "Audiences",
    operation_id = "showAudienceKey",
    params(("id" = Uuid, Path, description = "The audience's id"), AudienceKeyQuery),
    responses(
        (status = 200, description = "The public key", content(
            (String = "text/plain", example = "OFsM3Q1rIyM8R1KsQ1hJX5tMZxwU1E4vQy2uZ0m3l5o="),
            (String = "application/x-pem-file"),
            (serde_json::Value = "application/jwk+json"),
        )),
        (status = 404, description = "There is no such audience in this tenant, or no next key", body = crate::problem::Problem),
    ),
    security(("bearer" = ["audiences:read"]), ("basic" = ["audiences:read"])),
)]
#[get("/v1/audiences/{id}/public-key")]
pub(crate) async fn public_key(
    caller: Caller<AudiencesRead>,
    issuer: Data<Issuer>,
    path: Path<AudienceInPath>,
    query: Asked<AudienceKeyQuery>,
) -> Answered<HttpResponse> {
    let AudienceKeyQuery { format, next } = query.take()?;
    let key = issuer.audience_key(caller.tenant(), path.id()?, next).await?.ok_or_else(Answer::not_found)?;
    let (kind, text) = written(&key, format);
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, HeaderValue::from_static(kind))).body(text))
}

/// Confirm that the service has the next key
///
/// For audiences with a static key: from now on the next key signs. `POST /v1/signing-keys/rotate` with the audience makes
/// one; `public-key?next=true` shows it.
#[utoipa::path(
    tag = "Audiences",
    operation_id = "confirmAudienceKey",
    params(("id" = Uuid, Path, description = "The audience's id")),
    request_body(content = ConfirmationIn, example = json!({ "kid": "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k" })),
    responses(
        (status = 200, description = "The tenant's keys as they are now", body = SigningKeysOut),
        (status = 404, description = "There is no such audience in this tenant", body = crate::problem::Problem),
        (status = 409, description = "There is no next key of this `kid`, or no static key", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = ["audiences:write"]), ("basic" = ["audiences:write"])),
)]
#[post("/v1/audiences/{id}/confirm-key")]
pub(crate) async fn confirm_key(
    caller: Caller<AudiencesWrite>,
    issuer: Data<Issuer>,
    path: Path<AudienceInPath>,
    body: Body<ConfirmationIn>,
) -> Answered<Json<SigningKeysOut>> {
    let ConfirmationIn { kid } = body.take()?;
    Ok(Json(issuer.confirm_audience_key(caller.tenant(), &caller.actor(), path.id()?, &kid).await?.into()))
}
