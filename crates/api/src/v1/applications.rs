//! Applications of a tenant.

use actix_web::web::{Data, Json, Path};
use actix_web::{HttpResponse, delete, get, patch, post};
use chrono::{DateTime, Utc};
use claviger_issuer::Issuer;
use claviger_issuer::application::{ApplicationChange, NewApplication};
use claviger_store::application::Application;
use claviger_store::id::ApplicationId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::body::{Asked, Body, present};
use crate::caller::{ApplicationsRead, ApplicationsWrite, Caller};
use crate::page::{Page, PageQuery};
use crate::problem::{Answer, Answered};

/// An application to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApplicationIn {
    /// Unique among the tenant's applications.
    #[schema(example = "demo")]
    name: String,
    /// Seconds that tokens of its keys live; absent takes the tenant's.
    #[schema(minimum = 5, maximum = 8_640_000)]
    token_lifetime: Option<i32>,
    /// What its keys may hold at most, as scopes and patterns (`memory:*`). Absent, with no roles, sets no limit.
    #[schema(example = json!(["events:*"]))]
    scopes: Option<Vec<String>>,
    /// Roles whose scopes its keys may hold.
    #[serde(default)]
    roles: Vec<String>,
}

/// What to change of an application; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApplicationChangeIn {
    /// Its name.
    name: Option<String>,
    /// Seconds; `null` takes the tenant's.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i32>, minimum = 5, maximum = 8_640_000)]
    token_lifetime: Option<Option<i32>>,
    /// What its keys may hold at most; `null`, with no roles, sets no limit. Needs `roles:write` too.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>)]
    scopes: Option<Option<Vec<String>>>,
    /// All of the roles whose scopes its keys may hold. Needs `roles:write` too.
    roles: Option<Vec<String>>,
    /// Whether it may act.
    disabled: Option<bool>,
}

/// An application.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ApplicationView {
    /// The `client_id` of its tokens.
    pub(crate) id: Uuid,
    #[schema(example = "demo")]
    pub(crate) name: String,
    /// Seconds; `null` takes the tenant's.
    token_lifetime: Option<i32>,
    /// What its keys may hold at most; `null`, with no roles, is no limit.
    #[schema(example = json!(["events:*"]))]
    scopes: Option<Vec<String>>,
    /// Roles whose scopes its keys may hold.
    roles: Vec<String>,
    /// `active` or `disabled`.
    #[schema(example = "active")]
    pub(crate) status: &'static str,
    created_at: DateTime<Utc>,
}

impl From<Application> for ApplicationView {
    fn from(application: Application) -> Self {
        let Application { id, name, token_lifetime, scopes, roles, created_at, status } = application;
        Self { id: id.0, name, token_lifetime, scopes, roles, status: status.word(), created_at }
    }
}

/// Make an application
#[utoipa::path(
    tag = "Applications",
    operation_id = "createApplication",
    request_body = ApplicationIn,
    responses(
        (status = 201, description = "The application", body = ApplicationView),
        (status = 409, description = "The name is taken", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = ["applications:write"]), ("basic" = ["applications:write"])),
)]
#[post("/v1/applications")]
pub(crate) async fn create(
    caller: Caller<ApplicationsWrite>,
    issuer: Data<Issuer>,
    body: Body<ApplicationIn>,
) -> Answered<HttpResponse> {
    let ApplicationIn { name, token_lifetime, scopes, roles } = body.take()?;
    let new = NewApplication { name, token_lifetime, scopes, roles };
    let application = issuer.create_application(caller.tenant(), &caller.actor(), new).await?;
    Ok(HttpResponse::Created().json(ApplicationView::from(application)))
}

/// List applications
#[utoipa::path(
    tag = "Applications",
    operation_id = "listApplications",
    params(PageQuery),
    responses((status = 200, description = "Applications, oldest first", body = Page<ApplicationView>)),
    security(("bearer" = ["applications:read"]), ("basic" = ["applications:read"])),
)]
#[get("/v1/applications")]
pub(crate) async fn list(
    caller: Caller<ApplicationsRead>,
    issuer: Data<Issuer>,
    page: Asked<PageQuery>,
) -> Answered<Json<Page<ApplicationView>>> {
    let page = page.take()?;
    let limit = page.limit()?;
    let after = page.after.as_deref().map(str::parse).transpose();
    let after = after.map_err(|_| Answer::unprocessable("after", "Send `next` of the page before, as it was."))?;
    let applications = issuer.list_applications(caller.tenant(), after, limit).await?;
    Ok(Json(Page::of(applications, limit, |application| application.id.to_string())))
}

/// Show an application
#[utoipa::path(
    tag = "Applications",
    operation_id = "showApplication",
    params(("id" = Uuid, Path, description = "The application's id")),
    responses(
        (status = 200, description = "The application", body = ApplicationView),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
    ),
    security(("bearer" = ["applications:read"]), ("basic" = ["applications:read"])),
)]
#[get("/v1/applications/{id}")]
pub(crate) async fn show(
    caller: Caller<ApplicationsRead>,
    issuer: Data<Issuer>,
    path: Path<ApplicationInPath>,
) -> Answered<Json<ApplicationView>> {
    Ok(Json(issuer.find_application(caller.tenant(), path.id()?).await?.into()))
}

/// Change an application
#[utoipa::path(
    tag = "Applications",
    operation_id = "changeApplication",
    params(("id" = Uuid, Path, description = "The application's id")),
    request_body(content = ApplicationChangeIn, example = json!({ "disabled": true })),
    responses(
        (status = 200, description = "The application as it is now", body = ApplicationView),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
        (status = 409, description = "The name is taken", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = ["applications:write"]), ("basic" = ["applications:write"])),
)]
#[patch("/v1/applications/{id}")]
pub(crate) async fn change(
    caller: Caller<ApplicationsWrite>,
    issuer: Data<Issuer>,
    path: Path<ApplicationInPath>,
    body: Body<ApplicationChangeIn>,
) -> Answered<Json<ApplicationView>> {
    let ApplicationChangeIn { name, token_lifetime, scopes, roles, disabled } = body.take()?;
    let change = ApplicationChange { name, token_lifetime, scopes, roles, disabled };
    Ok(Json(issuer.change_application(caller.tenant(), &caller.actor(), path.id()?, change).await?.into()))
}

/// End an application for good
#[utoipa::path(
    tag = "Applications",
    operation_id = "deleteApplication",
    params(("id" = Uuid, Path, description = "The application's id")),
    responses(
        (status = 204, description = "Its keys and their tokens count no more"),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
    ),
    security(("bearer" = ["applications:write"]), ("basic" = ["applications:write"])),
)]
#[delete("/v1/applications/{id}")]
pub(crate) async fn delete(
    caller: Caller<ApplicationsWrite>,
    issuer: Data<Issuer>,
    path: Path<ApplicationInPath>,
) -> Answered<HttpResponse> {
    issuer.delete_application(caller.tenant(), &caller.actor(), path.id()?).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Taken by name, because the path may also hold the tenant that it is mounted under.
#[derive(Deserialize)]
pub(crate) struct ApplicationInPath {
    id: String,
}

impl ApplicationInPath {
    /// What is no id is the id of none.
    fn id(&self) -> Result<ApplicationId, Answer> {
        self.id.parse().map_err(|_| Answer::not_found())
    }
}
