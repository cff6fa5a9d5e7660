//! API keys of a tenant.

use actix_web::web::{Data, Json, Path};
use actix_web::{HttpResponse, delete, get, patch, post};
use chrono::{DateTime, Utc};
use claviger_issuer::Issuer;
use claviger_issuer::acting::ActingRule;
use claviger_issuer::key::{KeyChange, KeyOrder, MadeKey};
use claviger_store::api_key::ApiKey;
use claviger_store::id::{ApplicationId, KeyId, Owner, UserId};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::body::{Asked, Body, present};
use crate::caller::{Caller, KeysRead, KeysWrite};
use crate::page::{Page, limit};
use crate::problem::{Answer, Answered};

/// A key to be made. It belongs to an application or to a user: name exactly one.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyIn {
    /// The application that owns it.
    application_id: Option<Uuid>,
    /// The user that owns it.
    user_id: Option<Uuid>,
    /// Its name for people.
    #[schema(example = "production")]
    name: String,
    /// What it may do, as `resource:action`. Empty is nothing.
    #[schema(example = json!(["events:read", "events:write"]))]
    scopes: Vec<String>,
    /// Roles whose scopes it has too.
    #[serde(default)]
    roles: Vec<String>,
    /// Whom it may say that it acts for (`user_id` of `POST /v1/verify`): names, beginnings of names such as `svc-*`, or `*`.
    #[schema(example = json!(["svc-*"]))]
    act_as: Option<Vec<String>>,
    /// Whom it acts for when nobody is named.
    act_as_default: Option<String>,
    /// Login names of those who may act for the key's owner with it (`X-Impersonating`). A key with this is good for nothing
    /// else.
    agents: Option<Vec<String>>,
    /// Seconds that its tokens live; absent takes the application's, then the tenant's.
    #[schema(minimum = 5, maximum = 8_640_000)]
    token_lifetime: Option<i32>,
    /// Whether an exchange gives a refresh token too.
    #[serde(default)]
    refresh: bool,
    /// When it ends; absent is never.
    expires_at: Option<DateTime<Utc>>,
    /// A pair made elsewhere, as `key:secret`, to be taken over. Absent makes a new one.
    #[schema(value_type = Option<String>)]
    import: Option<SecretString>,
}

/// What to change of a key; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyChangeIn {
    /// Its name.
    name: Option<String>,
    /// What it may do.
    scopes: Option<Vec<String>>,
    /// All of the roles whose scopes it has too.
    roles: Option<Vec<String>>,
    /// Whom it may say that it acts for; `null` is nobody.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>)]
    act_as: Option<Option<Vec<String>>>,
    /// Whom it acts for when nobody is named; `null` is its owner.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    act_as_default: Option<Option<String>>,
    /// Who may act for its owner with it: for keys that were made with this.
    agents: Option<Vec<String>>,
    /// Seconds; `null` takes the application's, then the tenant's.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i32>, minimum = 5, maximum = 8_640_000)]
    token_lifetime: Option<Option<i32>>,
    /// Whether an exchange gives a refresh token too.
    refresh: Option<bool>,
    /// When it ends; `null` is never.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<DateTime<Utc>>)]
    expires_at: Option<Option<DateTime<Utc>>>,
    /// Whether it may be exchanged.
    disabled: Option<bool>,
}

/// How to rotate.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotationIn {
    /// Seconds that the secret before still works, 0 to 2592000.
    #[schema(maximum = 2_592_000, example = 3600)]
    grace_seconds: u32,
}

/// A key, without its secrets.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyView {
    /// Its public half.
    #[schema(example = "ck_4gSDYpTTs2U5zkLxBHBUuc0HlQ3a")]
    pub(crate) api_key: String,
    /// Its name for people.
    #[schema(example = "production")]
    pub(crate) name: String,
    /// Whose it is.
    application_id: Option<Uuid>,
    user_id: Option<Uuid>,
    /// What it was given; it may do as much of that as its owner holds.
    #[schema(example = json!(["events:read", "events:write"]))]
    pub(crate) scopes: Vec<String>,
    /// Roles whose scopes it was given too.
    roles: Vec<String>,
    /// Whom it may say that it acts for.
    #[serde(skip_serializing_if = "Option::is_none")]
    act_as: Option<Vec<String>>,
    /// Whom it acts for when nobody is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    act_as_default: Option<String>,
    /// Who may act for its owner with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    agents: Option<Vec<String>>,
    /// Seconds; `null` takes the application's, then the tenant's.
    token_lifetime: Option<i32>,
    /// Whether an exchange gives a refresh token too.
    refresh: bool,
    /// `active`, `disabled` or `revoked`.
    #[schema(example = "active")]
    pub(crate) status: &'static str,
    created_at: DateTime<Utc>,
    /// Who made it.
    #[schema(example = "operator:cli")]
    created_by: String,
    pub(crate) expires_at: Option<DateTime<Utc>>,
    /// To the minute.
    last_used_at: Option<DateTime<Utc>>,
}

/// A key with the secret that is shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MadeKeyView {
    #[serde(flatten)]
    key: KeyView,
    /// Kept nowhere: write it down now.
    #[schema(example = "cs_8sZyqk0sPn1tFJ9m5xQmT3vWcR7bL2dH6gK4jN0pX8aYuE1i9oVf")]
    api_secret: String,
}

impl From<ApiKey> for KeyView {
    fn from(key: ApiKey) -> Self {
        let ApiKey {
            id,
            name,
            owner,
            scopes,
            roles,
            act_as,
            act_as_default,
            agents,
            token_lifetime,
            refresh,
            created_at,
            created_by,
            expires_at,
            status,
            last_used_at,
        } = key;
        let (application_id, user_id) = match owner {
            Owner::Application(id) => (Some(id.0), None),
            Owner::User(id) => (None, Some(id.0)),
        };
        Self {
            api_key: id.to_string(),
            name,
            application_id,
            user_id,
            scopes,
            roles,
            act_as,
            act_as_default,
            agents,
            token_lifetime,
            refresh,
            status: status.word(),
            created_at,
            created_by,
            expires_at,
            last_used_at,
        }
    }
}

impl From<MadeKey> for MadeKeyView {
    fn from(made: MadeKey) -> Self {
        let MadeKey { key, secret } = made;
        Self { key: key.into(), api_secret: secret.expose_secret().to_owned() }
    }
}

impl MadeKeyView {
    pub(crate) fn parts(&self) -> (&KeyView, &str) {
        (&self.key, &self.api_secret)
    }
}

fn owner(application: Option<Uuid>, user: Option<Uuid>) -> Result<Option<Owner>, Answer> {
    match (application, user) {
        (Some(id), None) => Ok(Some(Owner::Application(ApplicationId(id)))),
        (None, Some(id)) => Ok(Some(Owner::User(UserId(id)))),
        (None, None) => Ok(None),
        (Some(_), Some(_)) => Err(Answer::unprocessable("user_id", "A key belongs to an application or to a user, not to both.")),
    }
}

/// Make a key
///
/// The answer holds the secret; it is shown this once. Nobody gives a key what they do not hold, but who may write roles
/// gives whatever the tenant's own services understand. Scopes that the owning person lacks are given to that person too, by
/// who may write users.
#[utoipa::path(
    tag = "Keys",
    operation_id = "createKey",
    request_body = KeyIn,
    responses(
        (status = 201, description = "The key and its secret", body = MadeKeyView),
        (status = 409, description = "The imported key id is taken", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = ["keys:write"]), ("basic" = ["keys:write"])),
)]
#[post("/v1/keys")]
pub(crate) async fn create(caller: Caller<KeysWrite>, issuer: Data<Issuer>, body: Body<KeyIn>) -> Answered<HttpResponse> {
    let KeyIn {
        application_id,
        user_id,
        name,
        scopes,
        roles,
        act_as,
        act_as_default,
        agents,
        token_lifetime,
        refresh,
        expires_at,
        import,
    } = body.take()?;
    let owner = owner(application_id, user_id)?
        .ok_or_else(|| Answer::unprocessable("application_id", "Name the application or the user that the key belongs to."))?;
    let acting = ActingRule { act_as, act_as_default, agents };
    let order = KeyOrder { owner, name, scopes, roles, acting, token_lifetime, refresh, expires_at, import };
    let made = issuer.create_key(caller.tenant(), &caller.actor(), order).await?;
    Ok(HttpResponse::Created().json(MadeKeyView::from(made)))
}

/// Which keys.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct KeysQuery {
    /// `next` of the page before.
    after: Option<String>,
    /// How many, 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u16>,
    /// Only this application's.
    application_id: Option<Uuid>,
    /// Only this user's.
    user_id: Option<Uuid>,
}

/// List keys that are not revoked
#[utoipa::path(
    tag = "Keys",
    operation_id = "listKeys",
    params(KeysQuery),
    responses((status = 200, description = "Keys in order of id", body = Page<KeyView>)),
    security(("bearer" = ["keys:read"]), ("basic" = ["keys:read"])),
)]
#[get("/v1/keys")]
pub(crate) async fn list(
    caller: Caller<KeysRead>,
    issuer: Data<Issuer>,
    query: Asked<KeysQuery>,
) -> Answered<Json<Page<KeyView>>> {
    let KeysQuery { after, limit: asked, application_id, user_id } = query.take()?;
    let limit = limit(asked)?;
    let after = after.map(|after| KeyId::parse(&after).ok_or(after)).transpose();
    let after = after.map_err(|_| Answer::unprocessable("after", "Send `next` of the page before, as it was."))?;
    let keys = issuer.list_keys(caller.tenant(), owner(application_id, user_id)?, after.as_ref(), limit).await?;
    Ok(Json(Page::of(keys, limit, |key| key.id.to_string())))
}

/// Show a key
#[utoipa::path(
    tag = "Keys",
    operation_id = "showKey",
    params(("id" = String, Path, description = "The key's public half")),
    responses(
        (status = 200, description = "The key", body = KeyView),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
    ),
    security(("bearer" = ["keys:read"]), ("basic" = ["keys:read"])),
)]
#[get("/v1/keys/{id}")]
pub(crate) async fn show(caller: Caller<KeysRead>, issuer: Data<Issuer>, path: Path<KeyInPath>) -> Answered<Json<KeyView>> {
    Ok(Json(issuer.find_key(caller.tenant(), &path.id()?).await?.into()))
}

/// Change a key
#[utoipa::path(
    tag = "Keys",
    operation_id = "changeKey",
    params(("id" = String, Path, description = "The key's public half")),
    request_body(content = KeyChangeIn, example = json!({ "scopes": ["events:read"] })),
    responses(
        (status = 200, description = "The key as it is now", body = KeyView),
        (status = 404, description = "There is none in this tenant, or it is revoked", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = ["keys:write"]), ("basic" = ["keys:write"])),
)]
#[patch("/v1/keys/{id}")]
pub(crate) async fn change(
    caller: Caller<KeysWrite>,
    issuer: Data<Issuer>,
    path: Path<KeyInPath>,
    body: Body<KeyChangeIn>,
) -> Answered<Json<KeyView>> {
    let KeyChangeIn { name, scopes, roles, act_as, act_as_default, agents, token_lifetime, refresh, expires_at, disabled } =
        body.take()?;
    let change = KeyChange { name, scopes, roles, act_as, act_as_default, agents, token_lifetime, refresh, expires_at, disabled };
    Ok(Json(issuer.change_key(caller.tenant(), &caller.actor(), &path.id()?, change).await?.into()))
}

/// Give a key a new secret
///
/// The secret before it works for `grace_seconds` more, so that clients can be changed over; one that is older still
/// ends at once.
#[utoipa::path(
    tag = "Keys",
    operation_id = "rotateKey",
    params(("id" = String, Path, description = "The key's public half")),
    request_body = RotationIn,
    responses(
        (status = 201, description = "The key and its new secret", body = MadeKeyView),
        (status = 404, description = "There is none in this tenant, or it is revoked", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = ["keys:write"]), ("basic" = ["keys:write"])),
)]
#[post("/v1/keys/{id}/rotate")]
pub(crate) async fn rotate(
    caller: Caller<KeysWrite>,
    issuer: Data<Issuer>,
    path: Path<KeyInPath>,
    body: Body<RotationIn>,
) -> Answered<HttpResponse> {
    let RotationIn { grace_seconds } = body.take()?;
    let made = issuer.rotate_key(caller.tenant(), &caller.actor(), &path.id()?, grace_seconds).await?;
    Ok(HttpResponse::Created().json(MadeKeyView::from(made)))
}

/// Revoke a key for good
#[utoipa::path(
    tag = "Keys",
    operation_id = "revokeKey",
    params(("id" = String, Path, description = "The key's public half")),
    responses(
        (status = 204, description = "It cannot be exchanged any more, and its tokens count no more here"),
        (status = 404, description = "There is none in this tenant, or it is revoked", body = crate::problem::Problem),
    ),
    security(("bearer" = ["keys:write"]), ("basic" = ["keys:write"])),
)]
#[delete("/v1/keys/{id}")]
pub(crate) async fn revoke(caller: Caller<KeysWrite>, issuer: Data<Issuer>, path: Path<KeyInPath>) -> Answered<HttpResponse> {
    issuer.revoke_key(caller.tenant(), &caller.actor(), &path.id()?).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Taken by name, because the path may also hold the tenant that it is mounted under.
#[derive(Deserialize)]
pub(crate) struct KeyInPath {
    id: String,
}

impl KeyInPath {
    /// What is no id is the id of none.
    fn id(&self) -> Result<KeyId, Answer> {
        KeyId::parse(&self.id).ok_or_else(Answer::not_found)
    }
}
