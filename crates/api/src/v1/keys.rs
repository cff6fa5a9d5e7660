//! API keys of a tenant.

use actix_web::web::{Data, Json, Path};
use actix_web::{HttpRequest, HttpResponse, delete, get, patch, post};
use chrono::{DateTime, Utc};
use claviger_issuer::Issuer;
use claviger_issuer::acting::ActingRule;
use claviger_issuer::key::{BulkRevocation, HashedPair, ImportedPair, KeyChange, KeyOrder, LimitsChange, MadeKey};
use claviger_issuer::limits::{KeyLimits, Period, Quota, RateLimit};
use claviger_issuer::verify::Transport;
use claviger_store::api_key::ApiKey;
use claviger_store::id::{ApplicationId, KeyId, Owner, TenantId, UserId};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::body::{Asked, Body, Object, present};
use crate::caller::{self, Caller, KeysRead, KeysWrite};
use crate::credentials;
use crate::page::{Page, limit};
use crate::problem::{Answer, Answered};
use crate::v1::verify::TransportIn;

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
    /// When it ends; absent is as the tenant's settings say (after 365 days, unless they say otherwise), `null` is never.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<DateTime<Utc>>)]
    expires_at: Option<Option<DateTime<Utc>>>,
    /// Networks and addresses that it may be used from; absent is everywhere. Its tokens carry them too.
    #[serde(default)]
    #[schema(max_items = 50, example = json!(["192.0.2.0/24"]))]
    allowed_ips: Vec<String>,
    /// How it may be used; absent is every way.
    #[serde(default)]
    transports: Vec<TransportIn>,
    /// How often in a short time; absent sets no limit.
    #[serde(default)]
    #[schema(value_type = Option<RateLimitWire>)]
    rate_limit: Option<Object<RateLimitWire>>,
    /// How often in a day or month; absent sets no limit.
    #[serde(default)]
    #[schema(value_type = Option<QuotaWire>)]
    quota: Option<Object<QuotaWire>>,
    /// A pair made elsewhere, to be taken over. Absent makes a new one.
    #[serde(default)]
    #[schema(value_type = Option<ImportIn>)]
    import: Option<Object<ImportIn>>,
}

/// A pair made elsewhere: with its secret, or with the hash that was kept of it. Give exactly one of the two.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Import)]
pub(crate) struct ImportIn {
    /// Its public half: 1 to 128 letters, digits, `.`, `_`, `~` and `-`.
    #[schema(example = "4JUfqYxWvMqGpkVkGfVwxRPx")]
    api_key: String,
    /// Its secret: 22 to 256 visible ASCII characters.
    #[schema(value_type = Option<String>)]
    api_secret: Option<SecretString>,
    /// A hash of its secret: argon2, bcrypt, PBKDF2 or scrypt, as of imported passwords. When the secret is first used, its MAC
    /// is kept instead.
    #[schema(value_type = Option<String>, example = "$2a$10$pNhEqDWYNKSTSbxrUzNnV.dVTMJ0Zc3n2w9yv6Z9zUeVvYzQbG2yK")]
    hash: Option<SecretString>,
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
    /// Networks and addresses that it may be used from; none is everywhere.
    #[schema(max_items = 50)]
    allowed_ips: Option<Vec<String>>,
    /// How it may be used; none is every way.
    transports: Option<Vec<TransportIn>>,
    /// How often in a short time; `null` sets no limit.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<RateLimitWire>)]
    rate_limit: Option<Option<Object<RateLimitWire>>>,
    /// How often in a day or month; `null` sets no limit.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<QuotaWire>)]
    quota: Option<Option<Object<QuotaWire>>>,
    /// Whether it may be exchanged.
    disabled: Option<bool>,
}

/// How often in a short time. Windows begin at whole multiples of their length.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = RateLimit)]
pub(crate) struct RateLimitWire {
    /// Uses in a window.
    #[schema(minimum = 1, maximum = 1_000_000_000, example = 100)]
    requests: i64,
    /// Seconds of a window.
    #[schema(minimum = 1, maximum = 86_400, example = 60)]
    seconds: i64,
}

/// How often in a day or month, in UTC.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Quota)]
pub(crate) struct QuotaWire {
    /// Uses in a period.
    #[schema(minimum = 1, maximum = 1_000_000_000_000i64, example = 100_000)]
    requests: i64,
    /// The period.
    period: PeriodWire,
}

/// A day or a month, in UTC.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(as = Period)]
pub(crate) enum PeriodWire {
    Day,
    Month,
}

impl From<Object<RateLimitWire>> for RateLimit {
    fn from(Object(RateLimitWire { requests, seconds }): Object<RateLimitWire>) -> Self {
        Self { requests, seconds }
    }
}

impl From<Object<QuotaWire>> for Quota {
    fn from(Object(QuotaWire { requests, period }): Object<QuotaWire>) -> Self {
        let period = match period {
            PeriodWire::Day => Period::Day,
            PeriodWire::Month => Period::Month,
        };
        Self { requests, period }
    }
}

impl From<Quota> for QuotaWire {
    fn from(Quota { requests, period }: Quota) -> Self {
        let period = match period {
            Period::Day => PeriodWire::Day,
            Period::Month => PeriodWire::Month,
        };
        Self { requests, period }
    }
}

/// How to rotate.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RotationIn {
    /// Seconds that the secret before still works, 0 to 2592000.
    #[schema(maximum = 2_592_000, example = 3600)]
    pub(super) grace_seconds: u32,
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
    pub(crate) roles: Vec<String>,
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
    /// Networks that it may be used from; none is everywhere.
    allowed_ips: Vec<String>,
    /// How it may be used; none is every way.
    transports: Vec<TransportIn>,
    /// How often in a short time.
    rate_limit: Option<RateLimitWire>,
    /// How often in a day or month.
    quota: Option<QuotaWire>,
    last_used_at: Option<DateTime<Utc>>,
    /// The network that its last use came from.
    #[schema(example = "198.51.100.0/24")]
    last_used_network: Option<String>,
    /// How the client of its last use called itself.
    last_used_agent: Option<String>,
}

/// A key, and whether it can be used.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct JudgedKeyView {
    #[serde(flatten)]
    pub(super) key: KeyView,
    /// `active`, or why it cannot be used: `key_disabled`, `dormant`, `key_expired`, `key_revoked`, `owner_disabled`,
    /// `tenant_disabled`.
    #[schema(example = "active")]
    verdict: &'static str,
}

impl JudgedKeyView {
    async fn of(issuer: &Issuer, tenant: TenantId, key: ApiKey) -> Answered<Self> {
        let verdict = issuer.verdict(tenant, &key).await?;
        Ok(Self { key: key.into(), verdict })
    }

    pub(super) async fn all(issuer: &Issuer, tenant: TenantId, keys: Vec<ApiKey>) -> Answered<Vec<Self>> {
        let mut judged = Vec::with_capacity(keys.len());
        for key in keys {
            judged.push(Self::of(issuer, tenant, key).await?);
        }
        Ok(judged)
    }
}

/// A key with the secret that is shown this once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MadeKeyView {
    #[serde(flatten)]
    key: KeyView,
    /// Kept nowhere: write it down now. Absent where only its hash is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "cs_8sZyqk0sPn1tFJ9m5xQmT3vWcR7bL2dH6gK4jN0pX8aYuE1i9oVf")]
    api_secret: Option<String>,
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
            limits,
            token_lifetime,
            refresh,
            created_at,
            created_by,
            expires_at,
            status,
            last_used_at,
            last_used_network,
            last_used_agent,
        } = key;
        let KeyLimits { allowed_ips, transports, rate_limit, quota } = KeyLimits::kept(&limits).unwrap_or_default();
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
            allowed_ips: allowed_ips.iter().map(ToString::to_string).collect(),
            transports: transports.into_iter().map(TransportIn::from).collect(),
            rate_limit: rate_limit.map(|RateLimit { requests, seconds }| RateLimitWire { requests, seconds }),
            quota: quota.map(QuotaWire::from),
            last_used_at,
            last_used_network,
            last_used_agent,
        }
    }
}

impl From<MadeKey> for MadeKeyView {
    fn from(made: MadeKey) -> Self {
        let MadeKey { key, secret } = made;
        Self { key: key.into(), api_secret: Some(secret.expose_secret().to_owned()) }
    }
}

impl MadeKeyView {
    pub(crate) fn parts(&self) -> (&KeyView, &str) {
        (&self.key, self.api_secret.as_deref().unwrap_or_default())
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
    let (tenant, actor) = (caller.tenant(), caller.actor());
    let made = match order(body.take()?)? {
        (order, None) => MadeKeyView::from(issuer.create_key(tenant, &actor, order).await?),
        (order, Some(hashed)) => {
            let key = issuer.import_hashed_key(tenant, &actor, order, hashed).await?;
            MadeKeyView { key: key.into(), api_secret: None }
        }
    };
    Ok(HttpResponse::Created().json(made))
}

/// What is to be made, and the pair where its secret is known as a hash alone.
fn order(wished: KeyIn) -> Answered<(KeyOrder, Option<HashedPair>)> {
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
        allowed_ips,
        transports,
        rate_limit,
        quota,
        import,
    } = wished;
    let owner = owner(application_id, user_id)?
        .ok_or_else(|| Answer::unprocessable("application_id", "Name the application or the user that the key belongs to."))?;
    let acting = ActingRule { act_as, act_as_default, agents };
    let limits = KeyLimits {
        allowed_ips: KeyLimits::networks(&allowed_ips)?,
        transports: transports.into_iter().map(Transport::from).collect(),
        rate_limit: rate_limit.map(RateLimit::from),
        quota: quota.map(Quota::from),
    };
    let (import, hashed) = match import.map(|Object(import)| import) {
        None => (None, None),
        Some(ImportIn { api_key: key, api_secret: Some(secret), hash: None }) => (Some(ImportedPair { key, secret }), None),
        Some(ImportIn { api_key: key, api_secret: None, hash: Some(hash) }) => (None, Some(HashedPair { key, hash })),
        Some(ImportIn { .. }) => {
            return Err(Answer::unprocessable("import", "Give either the secret (`api_secret`) or its `hash`."));
        }
    };
    Ok((KeyOrder { owner, name, scopes, roles, acting, token_lifetime, refresh, expires_at, limits, import }, hashed))
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
    responses((status = 200, description = "Keys in order of id", body = Page<JudgedKeyView>)),
    security(("bearer" = ["keys:read"]), ("basic" = ["keys:read"])),
)]
#[get("/v1/keys")]
pub(crate) async fn list(
    caller: Caller<KeysRead>,
    issuer: Data<Issuer>,
    query: Asked<KeysQuery>,
) -> Answered<Json<Page<JudgedKeyView>>> {
    let KeysQuery { after, limit: asked, application_id, user_id } = query.take()?;
    let limit = limit(asked)?;
    let after = after_key(after)?;
    let keys = issuer.list_keys(caller.tenant(), owner(application_id, user_id)?, after.as_ref(), limit).await?;
    let keys = JudgedKeyView::all(&issuer, caller.tenant(), keys).await?;
    Ok(Json(Page::of(keys, limit, |judged: &JudgedKeyView| judged.key.api_key.clone())))
}

/// Show a key
#[utoipa::path(
    tag = "Keys",
    operation_id = "showKey",
    params(("id" = String, Path, description = "The key's public half")),
    responses(
        (status = 200, description = "The key", body = JudgedKeyView),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
    ),
    security(("bearer" = ["keys:read"]), ("basic" = ["keys:read"])),
)]
#[get("/v1/keys/{id}")]
pub(crate) async fn show(caller: Caller<KeysRead>, issuer: Data<Issuer>, path: Path<KeyInPath>) -> Answered<Json<JudgedKeyView>> {
    let key = issuer.find_key(caller.tenant(), &path.id()?).await?;
    Ok(Json(JudgedKeyView::of(&issuer, caller.tenant(), key).await?))
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
    let KeyChangeIn {
        name,
        scopes,
        roles,
        act_as,
        act_as_default,
        agents,
        token_lifetime,
        refresh,
        expires_at,
        allowed_ips,
        transports,
        rate_limit,
        quota,
        disabled,
    } = body.take()?;
    let limits = LimitsChange {
        allowed_ips: allowed_ips.map(|networks| KeyLimits::networks(&networks)).transpose()?,
        transports: transports.map(|all| all.into_iter().map(Transport::from).collect()),
        rate_limit: rate_limit.map(|limit| limit.map(RateLimit::from)),
        quota: quota.map(|quota| quota.map(Quota::from)),
    };
    let change =
        KeyChange { name, scopes, roles, act_as, act_as_default, agents, token_lifetime, refresh, expires_at, limits, disabled };
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

/// Whose keys are revoked together: name exactly one of the two.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct BulkRevocationIn {
    /// The application that owns them.
    application_id: Option<Uuid>,
    /// The user that owns them.
    user_id: Option<Uuid>,
    /// A key that is kept.
    except: Option<String>,
}

/// The keys that were revoked.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct BulkRevocationOut {
    revoked: Vec<String>,
}

/// Revoke every key of an application or user for good
///
/// All of them or, when something is wrong, none.
#[utoipa::path(
    tag = "Keys",
    operation_id = "revokeKeys",
    request_body(content = BulkRevocationIn, example = json!({ "user_id": "0195f6a2-6a0e-7c3b-9c53-3f0f2b1a7d11" })),
    responses(
        (status = 200, description = "The keys that were revoked", body = BulkRevocationOut),
        (status = 422, description = "A field is wrong, or there is no such owner", body = crate::problem::Problem),
    ),
    security(("bearer" = ["keys:write"]), ("basic" = ["keys:write"])),
)]
#[post("/v1/keys/bulk-revoke")]
pub(crate) async fn bulk_revoke(
    caller: Caller<KeysWrite>,
    issuer: Data<Issuer>,
    body: Body<BulkRevocationIn>,
) -> Answered<Json<BulkRevocationOut>> {
    let BulkRevocationIn { application_id, user_id, except } = body.take()?;
    let owner = owner(application_id, user_id)?.ok_or_else(|| {
        Answer::unprocessable("application_id", "Name the application or the user whose keys are to be revoked.")
    })?;
    let except = except.map(|id| KeyId::parse(&id).ok_or_else(|| Answer::unprocessable("except", "This is no key's id.")));
    let which = BulkRevocation { owner, except: except.transpose()? };
    let revoked = issuer.revoke_keys(caller.tenant(), &caller.actor(), &which).await?;
    Ok(Json(BulkRevocationOut { revoked: revoked.iter().map(ToString::to_string).collect() }))
}

/// Revoke the key that is presented, for good
///
/// Whoever holds a key and its secret may end it, from wherever they are: send it when you find one where it does not belong.
#[utoipa::path(
    tag = "Keys",
    operation_id = "revokePresentedKey",
    responses(
        (status = 204, description = "It cannot be exchanged any more, and its tokens count no more here"),
        (status = 401, description = "This is not a key and secret that are good", body = crate::problem::Problem),
        (status = 429, description = "There were too many failed attempts", body = crate::problem::Problem),
    ),
    security(("basic" = [])),
)]
#[post("/v1/keys/self-revoke")]
pub(crate) async fn self_revoke(req: HttpRequest, issuer: Data<Issuer>) -> Answered<HttpResponse> {
    let tenant = caller::path_tenant(&req).await?;
    let pair = credentials::pair(&req, &issuer.settings().brand);
    issuer.revoke_by_possession(tenant.as_deref(), pair, &caller::request_info(&req)).await?;
    Ok(HttpResponse::NoContent().finish())
}

pub(super) fn after_key(after: Option<String>) -> Answered<Option<KeyId>> {
    let after = after.map(|after| KeyId::parse(&after).ok_or(after)).transpose();
    after.map_err(|_| Answer::unprocessable("after", "Send `next` of the page before, as it was."))
}

/// Taken by name, because the path may also hold the tenant that it is mounted under.
#[derive(Deserialize)]
pub(crate) struct KeyInPath {
    id: String,
}

impl KeyInPath {
    /// What is no id is the id of none.
    pub(super) fn id(&self) -> Result<KeyId, Answer> {
        KeyId::parse(&self.id).ok_or_else(Answer::not_found)
    }
}
