//! Tenants, managed by the admins of the default tenant.

use actix_web::web::{Data, Json, Path};
use actix_web::{HttpResponse, delete, get, patch, post};
use chrono::{DateTime, Utc};
use claviger_issuer::audit::Actor;
use claviger_issuer::preset::{Applied, Difference, PresetView, given};
use claviger_issuer::tenant::{NewTenant, TenantChange};
use claviger_issuer::{Failure, Issuer};
use claviger_store::tenant::Tenant;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::body::{Asked, Body, Object};
use crate::caller::{Caller, TenantsRead, TenantsWrite};
use crate::page::{Page, PageQuery};
use crate::problem::Answered;
use crate::v1::keys::MadeKeyView;
use crate::v1::settings::SettingsIn;

/// A tenant to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantIn {
    /// Its name in URLs: 1 to 63 of `a-z`, `0-9` and `-`. Never changes and is never given twice.
    #[schema(example = "acme")]
    slug: String,
    /// Its name for people.
    #[schema(example = "Acme Inc.")]
    name: Option<String>,
    /// Its settings.
    #[schema(value_type = Option<SettingsIn>)]
    settings: Option<Object<SettingsIn>>,
    /// Whether its first key is made too: of an application `admin`, with the role `tenant-admin`.
    #[serde(default)]
    admin_key: bool,
    /// What it starts from: `cheshire-cat`, `clustercockpit`, `cta` or `howler`. What `settings` say wins.
    #[schema(example = "clustercockpit")]
    preset: Option<String>,
}

/// What to change of a tenant; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct TenantChangeIn {
    /// Its name for people.
    name: Option<String>,
    /// All of its settings.
    #[schema(value_type = Option<SettingsIn>)]
    settings: Option<Object<SettingsIn>>,
    /// Whether it may act.
    disabled: Option<bool>,
}

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct TenantView {
    id: Uuid,
    /// Its name in URLs.
    #[schema(example = "acme")]
    pub(crate) slug: String,
    /// Its name for people.
    #[schema(example = "Acme Inc.")]
    name: String,
    /// `active` or `disabled`.
    #[schema(example = "active")]
    pub(crate) status: &'static str,
    /// Its settings.
    #[schema(value_type = SettingsIn)]
    settings: serde_json::Value,
    /// Presets that it was given.
    presets: Vec<PresetOut>,
    created_at: DateTime<Utc>,
}

/// A preset that a tenant was given.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct PresetOut {
    #[schema(example = "clustercockpit")]
    name: String,
    /// When it was last applied.
    applied_at: DateTime<Utc>,
    /// Items that it set and that are so still; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = json!(["roles.manager", "settings.policies.cc-api"]))]
    set: Option<Vec<String>>,
    /// Items that are otherwise now; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    differs: Option<Vec<DifferenceOut>>,
}

/// An item that is not as the preset has it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct DifferenceOut {
    #[schema(example = "settings.session")]
    item: String,
    /// As the preset has it.
    #[schema(example = json!({ "idle": 604800, "absolute": 604800 }))]
    preset: serde_json::Value,
    /// As it is; `null` if it is not there.
    #[schema(example = json!({ "idle": 3600, "absolute": 86400 }))]
    now: serde_json::Value,
}

impl From<PresetView> for PresetOut {
    fn from(PresetView { name, applied_at, set, differs }: PresetView) -> Self {
        let out = |Difference { item, preset, now }| DifferenceOut { item, preset, now };
        Self { name, applied_at, set: Some(set), differs: Some(differs.into_iter().map(out).collect()) }
    }
}

impl PresetOut {
    /// One line for people.
    pub(crate) fn text(&self) -> String {
        let differs = self.differs.iter().flatten().map(|one| one.item.as_str()).collect::<Vec<_>>();
        match differs.as_slice() {
            [] => format!("preset {}", self.name),
            some => format!("preset {}, but {}", self.name, some.join(", ")),
        }
    }
}

impl TenantView {
    /// With all that is known of its presets.
    pub(crate) async fn whole(issuer: &Issuer, tenant: Tenant) -> Result<Self, Failure> {
        let presets = issuer.presets_of(&tenant).await?.into_iter().map(PresetOut::from).collect();
        Ok(Self { presets, ..Self::from(tenant) })
    }

    /// A line for each of its presets.
    pub(crate) fn preset_lines(&self) -> Vec<String> {
        self.presets.iter().map(PresetOut::text).collect()
    }
}

/// Which preset.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PresetIn {
    /// `cheshire-cat`, `clustercockpit`, `cta` or `howler`.
    #[schema(example = "clustercockpit")]
    preset: String,
}

/// What became of a preset.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct AppliedOut {
    /// Items that were made or changed.
    #[schema(example = json!(["roles.support"]))]
    pub(crate) changed: Vec<String>,
    /// Items that differ, because somebody made or changed them by hand, and were left so.
    #[schema(example = json!(["settings.session"]))]
    pub(crate) kept: Vec<String>,
}

impl From<Applied> for AppliedOut {
    fn from(Applied { changed, kept }: Applied) -> Self {
        Self { changed, kept }
    }
}

impl From<Tenant> for TenantView {
    fn from(tenant: Tenant) -> Self {
        let presets = given(&tenant).into_iter();
        let presets = presets.map(|(name, applied_at)| PresetOut { name, applied_at, set: None, differs: None }).collect();
        let Tenant { id, slug, name, settings, presets: _, created_at, status, logins_ended_at: _ } = tenant;
        Self { id: id.0, slug, name, status: status.word(), settings, presets, created_at }
    }
}

/// A tenant, with its first key where that was asked for.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct MadeTenantView {
    #[serde(flatten)]
    pub(crate) tenant: TenantView,
    /// The secret in it is shown this once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) admin_key: Option<MadeKeyView>,
}

impl MadeTenantView {
    /// Makes a tenant, with its first key or without.
    pub(crate) async fn make(issuer: &Issuer, actor: &Actor, new: NewTenant, admin_key: bool) -> Result<Self, Failure> {
        match admin_key {
            true => {
                let (tenant, key) = issuer.create_tenant_with_admin(actor, new).await?;
                Ok(Self { tenant: TenantView::whole(issuer, tenant).await?, admin_key: Some(key.into()) })
            }
            false => {
                let tenant = issuer.create_tenant(actor, new).await?;
                Ok(Self { tenant: TenantView::whole(issuer, tenant).await?, admin_key: None })
            }
        }
    }
}

/// Make a tenant
#[utoipa::path(
    tag = "Tenants",
    operation_id = "createTenant",
    request_body = TenantIn,
    responses(
        (status = 201, description = "The tenant, with its signing key and audit trail", body = MadeTenantView),
        (status = 409, description = "The slug is taken", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = ["tenants:write"]), ("basic" = ["tenants:write"])),
)]
#[post("/v1/tenants")]
pub(crate) async fn create(caller: Caller<TenantsWrite>, issuer: Data<Issuer>, body: Body<TenantIn>) -> Answered<HttpResponse> {
    let TenantIn { slug, name, settings, admin_key, preset } = body.take()?;
    let new = NewTenant { slug, name, settings: settings.map(Into::into).unwrap_or_default(), preset };
    Ok(HttpResponse::Created().json(MadeTenantView::make(&issuer, &caller.actor(), new, admin_key).await?))
}

/// List tenants
#[utoipa::path(
    tag = "Tenants",
    operation_id = "listTenants",
    params(PageQuery),
    responses((status = 200, description = "Tenants in order of slug", body = Page<TenantView>)),
    security(("bearer" = ["tenants:read"]), ("basic" = ["tenants:read"])),
)]
#[get("/v1/tenants")]
pub(crate) async fn list(
    _: Caller<TenantsRead>,
    issuer: Data<Issuer>,
    page: Asked<PageQuery>,
) -> Answered<Json<Page<TenantView>>> {
    let page = page.take()?;
    let limit = page.limit()?;
    let tenants = issuer.list_tenants(page.after.as_deref(), limit).await?;
    Ok(Json(Page::of(tenants, limit, |tenant| tenant.slug.clone())))
}

/// Show a tenant
#[utoipa::path(
    tag = "Tenants",
    operation_id = "showTenant",
    params(("slug" = String, Path, description = "The tenant's slug", example = "acme")),
    responses(
        (status = 200, description = "The tenant", body = TenantView),
        (status = 404, description = "There is none", body = crate::problem::Problem),
    ),
    security(("bearer" = ["tenants:read"]), ("basic" = ["tenants:read"])),
)]
#[get("/v1/tenants/{slug}")]
pub(crate) async fn show(_: Caller<TenantsRead>, issuer: Data<Issuer>, slug: Slug) -> Answered<Json<TenantView>> {
    let tenant = issuer.find_tenant(&slug.slug).await?;
    Ok(Json(TenantView::whole(&issuer, tenant).await?))
}

/// Change a tenant
#[utoipa::path(
    tag = "Tenants",
    operation_id = "changeTenant",
    params(("slug" = String, Path, description = "The tenant's slug", example = "acme")),
    request_body(content = TenantChangeIn, example = json!({ "disabled": true })),
    responses(
        (status = 200, description = "The tenant as it is now", body = TenantView),
        (status = 404, description = "There is none", body = crate::problem::Problem),
        (status = 409, description = "The default tenant cannot be disabled", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = ["tenants:write"]), ("basic" = ["tenants:write"])),
)]
#[patch("/v1/tenants/{slug}")]
pub(crate) async fn change(
    caller: Caller<TenantsWrite>,
    issuer: Data<Issuer>,
    slug: Slug,
    body: Body<TenantChangeIn>,
) -> Answered<Json<TenantView>> {
    let TenantChangeIn { name, settings, disabled } = body.take()?;
    let change = TenantChange { name, settings: settings.map(Into::into), disabled };
    Ok(Json(issuer.change_tenant(&caller.actor(), &slug.slug, change).await?.into()))
}

/// Apply a preset
///
/// Makes what is not there: settings, scopes, roles and audiences. What was made or changed by hand stays, and is told. Done
/// again, it does nothing.
#[utoipa::path(
    tag = "Tenants",
    operation_id = "applyPreset",
    params(("slug" = String, Path, description = "The tenant's slug", example = "acme")),
    request_body = PresetIn,
    responses(
        (status = 200, description = "What was done and what was left", body = AppliedOut),
        (status = 404, description = "There is no such tenant", body = crate::problem::Problem),
        (status = 409, description = "The tenant has too many scopes, roles or audiences already", body = crate::problem::Problem),
        (status = 422, description = "There is no such preset", body = crate::problem::Problem),
    ),
    security(("bearer" = ["tenants:write"]), ("basic" = ["tenants:write"])),
)]
#[post("/v1/tenants/{slug}/preset")]
pub(crate) async fn apply_preset(
    caller: Caller<TenantsWrite>,
    issuer: Data<Issuer>,
    slug: Slug,
    body: Body<PresetIn>,
) -> Answered<Json<AppliedOut>> {
    let PresetIn { preset } = body.take()?;
    Ok(Json(issuer.apply_preset(&caller.actor(), &slug.slug, &preset).await?.into()))
}

/// End a tenant for good
#[utoipa::path(
    tag = "Tenants",
    operation_id = "deleteTenant",
    params(("slug" = String, Path, description = "The tenant's slug", example = "acme")),
    responses(
        (status = 204, description = "Its keys and tokens count no more"),
        (status = 404, description = "There is none", body = crate::problem::Problem),
        (status = 409, description = "The default tenant cannot be deleted", body = crate::problem::Problem),
    ),
    security(("bearer" = ["tenants:write"]), ("basic" = ["tenants:write"])),
)]
#[delete("/v1/tenants/{slug}")]
pub(crate) async fn delete(caller: Caller<TenantsWrite>, issuer: Data<Issuer>, slug: Slug) -> Answered<HttpResponse> {
    issuer.delete_tenant(&caller.actor(), &slug.slug).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Taken by name, because the path may also hold the tenant that it is mounted under.
#[derive(Deserialize)]
pub(crate) struct SlugInPath {
    slug: String,
}
type Slug = Path<SlugInPath>;
