//! Requests for developer keys.

use actix_web::web::{Data, Json, Path};
use actix_web::{HttpRequest, HttpResponse, get, post};
use chrono::{DateTime, Utc};
use claviger_issuer::Issuer;
use claviger_issuer::key_request::{Approved, Decide, Deliver, NewKeyRequest};
use claviger_store::id::{ApplicationId, KeyRequestId};
use claviger_store::key_request::{KeyRequest, RequestStatus};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::body::{Asked, Body};
use crate::caller::{Caller, KeysRead, KeysWrite, path_tenant, request_info};
use crate::page::{Page, limit};
use crate::problem::{Answer, Answered};
use crate::v1::keys::MadeKeyView;

/// A request for a key.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct KeyRequestIn {
    /// What the key is for, in at most 200 characters.
    #[schema(example = "MyApp")]
    app_name: String,
    /// Who asks; kept in lower case.
    #[schema(example = "dev@example.com")]
    email: String,
    /// Why, in at most 1000 characters of plain text.
    #[serde(default)]
    #[schema(example = "To show events on our site")]
    reason: String,
}

/// A request that was taken.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyRequestTaken {
    id: Uuid,
    /// Always `pending`: an admin decides.
    #[schema(example = "pending")]
    status: &'static str,
}

/// A request, for admins.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct KeyRequestView {
    pub(crate) id: Uuid,
    #[schema(example = "MyApp")]
    pub(crate) app_name: String,
    #[schema(example = "dev@example.com")]
    pub(crate) email: String,
    #[schema(example = "To show events on our site")]
    reason: String,
    /// `pending`, `approved` (the developer has not taken the key yet), `claimed` or `denied`.
    #[schema(example = "pending")]
    pub(crate) status: &'static str,
    /// Whether whoever reads that mailbox said that the request is theirs.
    #[schema(example = false)]
    pub(crate) confirmed: bool,
    created_at: DateTime<Utc>,
    decided_at: Option<DateTime<Utc>>,
    decided_by: Option<String>,
    /// Why it was denied.
    decision_reason: Option<String>,
    /// The application that the key belongs to; `null` is the person of that address.
    application_id: Option<Uuid>,
    /// What was approved.
    scopes: Option<Vec<String>>,
    /// When the key ends.
    expires_at: Option<DateTime<Utc>>,
    /// The key that was made. Its secret was shown once.
    #[schema(example = "ck_4gSDYpTTs2U5zkLxBHBUuc0HlQ3a")]
    api_key: Option<String>,
}

impl From<KeyRequest> for KeyRequestView {
    fn from(request: KeyRequest) -> Self {
        let KeyRequest {
            id,
            app_name,
            email,
            reason,
            status,
            created_at,
            confirmed_at,
            decided_at,
            decided_by,
            decision_reason,
            application,
            scopes,
            key_expires_at,
            key,
        } = request;
        Self {
            id: id.0,
            app_name,
            email,
            reason,
            status: status.word(),
            confirmed: confirmed_at.is_some(),
            created_at,
            decided_at,
            decided_by,
            decision_reason,
            application_id: application.map(|id| id.0),
            scopes,
            expires_at: key_expires_at,
            api_key: key.map(|key| key.to_string()),
        }
    }
}

/// Ask for a developer key
///
/// Anybody may. Asked again for the same application with the same address, it is the same request as long as nobody has
/// decided. Where mail reaches people, whoever reads the mailbox is asked to confirm it.
#[utoipa::path(
    tag = "Key requests",
    operation_id = "requestKey",
    request_body = KeyRequestIn,
    responses(
        (status = 202, description = "An admin decides", body = KeyRequestTaken),
        (status = 404, description = "The tenant is not there, or takes no requests", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
        (status = 429, description = "Too many requests from this address; see `Retry-After`", body = crate::problem::Problem),
    ),
    security(()),
)]
#[post("/v1/key-requests")]
pub(crate) async fn create(req: HttpRequest, issuer: Data<Issuer>, body: Body<KeyRequestIn>) -> Answered<HttpResponse> {
    let tenant = path_tenant(&req).await?.ok_or_else(Answer::not_found)?;
    let KeyRequestIn { app_name, email, reason } = body.take()?;
    let new = NewKeyRequest { app_name: &app_name, email: &email, reason: &reason, request: request_info(&req) };
    let id = issuer.request_key(&tenant, new).await?;
    Ok(HttpResponse::Accepted().json(KeyRequestTaken { id: id.0, status: "pending" }))
}

/// Which requests.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct KeyRequestsQuery {
    /// Only those that stand so: `pending`, `approved`, `claimed` or `denied`.
    status: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    /// How many, 1 to 200.
    #[param(minimum = 1, maximum = 200, default = 50)]
    limit: Option<u16>,
}

/// List requests for keys
#[utoipa::path(
    tag = "Key requests",
    operation_id = "listKeyRequests",
    params(KeyRequestsQuery),
    responses((status = 200, description = "Requests, oldest first", body = Page<KeyRequestView>)),
    security(("bearer" = ["keys:read"]), ("basic" = ["keys:read"])),
)]
#[get("/v1/key-requests")]
pub(crate) async fn list(
    caller: Caller<KeysRead>,
    issuer: Data<Issuer>,
    query: Asked<KeyRequestsQuery>,
) -> Answered<Json<Page<KeyRequestView>>> {
    let KeyRequestsQuery { status, after, limit: asked } = query.take()?;
    let limit = limit(asked)?;
    let status = status.map(|word| RequestStatus::parse(&word).ok_or(())).transpose();
    let status = status.map_err(|()| Answer::unprocessable("status", "It is pending, approved, claimed or denied."))?;
    let after = after.as_deref().map(str::parse).transpose();
    let after = after.map_err(|_| Answer::unprocessable("after", "Send `next` of the page before, as it was."))?;
    let requests = issuer.list_key_requests(caller.tenant(), status, after, limit).await?;
    Ok(Json(Page::of(requests, limit, |request| request.id.to_string())))
}

/// Show a request for a key
#[utoipa::path(
    tag = "Key requests",
    operation_id = "showKeyRequest",
    params(("id" = Uuid, Path, description = "The request's id")),
    responses(
        (status = 200, description = "The request", body = KeyRequestView),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
    ),
    security(("bearer" = ["keys:read"]), ("basic" = ["keys:read"])),
)]
#[get("/v1/key-requests/{id}")]
pub(crate) async fn show(
    caller: Caller<KeysRead>,
    issuer: Data<Issuer>,
    path: Path<RequestInPath>,
) -> Answered<Json<KeyRequestView>> {
    Ok(Json(issuer.find_key_request(caller.tenant(), path.id()?).await?.into()))
}

/// What is approved.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ApprovalIn {
    /// What the key may do.
    #[schema(example = json!(["events:write"]))]
    scopes: Vec<String>,
    /// Days that the key lives, 1 to 3650; absent takes the tenant's rule.
    #[schema(minimum = 1, maximum = 3650, example = 90)]
    expires_in_days: Option<i64>,
    /// The application that the key is to belong to; absent is the person of that address, made if there is none.
    application_id: Option<Uuid>,
    /// `answer`: the pair is in the answer, this once. `claim_link`: a link is mailed to the developer, who alone sees the
    /// secret.
    #[serde(default)]
    deliver: DeliverIn,
}

/// How the key reaches the developer.
#[derive(Debug, Clone, Copy, Default, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub(crate) enum DeliverIn {
    #[default]
    Answer,
    ClaimLink,
}

/// What an approval gives: a pair, or a link that shows it.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum ApprovedOut {
    /// The key and its secret, shown this once.
    Made(Box<MadeKeyView>),
    /// A link that shows them once.
    Link(ClaimLink),
}

/// A link that shows a key and its secret once.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ClaimLink {
    /// Mailed to the developer as well.
    #[schema(example = "https://id.example.com/t/acme/claim/cl_8sZyqk0sPn1tFJ9m5xQmT3vWcR7bL2dH6gK4jN0pX8aYuE1i9oVf")]
    pub(crate) claim_link: String,
    /// When it ends.
    pub(crate) expires_at: DateTime<Utc>,
}

impl From<Approved> for ApprovedOut {
    fn from(approved: Approved) -> Self {
        match approved {
            Approved::Made(made) => Self::Made(Box::new(MadeKeyView::from(*made))),
            Approved::Link { link, expires_at } => {
                Self::Link(ClaimLink { claim_link: link.expose_secret().to_owned(), expires_at })
            }
        }
    }
}

/// Approve a request for a key
///
/// Nobody approves more than they may give. A request that nobody confirmed never leads to a key of a person who is here
/// already.
#[utoipa::path(
    tag = "Key requests",
    operation_id = "approveKeyRequest",
    params(("id" = Uuid, Path, description = "The request's id")),
    request_body(content = ApprovalIn, example = json!({ "scopes": ["events:write"], "expires_in_days": 90 })),
    responses(
        (status = 201, description = "The key and its secret, or the link that shows them", body = ApprovedOut),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
        (status = 409, description = "It was decided already, or nobody confirmed it and the address is somebody's", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = ["keys:write"]), ("basic" = ["keys:write"])),
)]
#[post("/v1/key-requests/{id}/approve")]
pub(crate) async fn approve(
    caller: Caller<KeysWrite>,
    issuer: Data<Issuer>,
    path: Path<RequestInPath>,
    body: Body<ApprovalIn>,
) -> Answered<HttpResponse> {
    let ApprovalIn { scopes, expires_in_days, application_id, deliver } = body.take()?;
    let deliver = match deliver {
        DeliverIn::Answer => Deliver::Answer,
        DeliverIn::ClaimLink => Deliver::ClaimLink,
    };
    let decide = Decide { scopes, expires_in_days, application: application_id.map(ApplicationId), deliver };
    let approved = issuer.approve_key_request(caller.who.tenant(), &caller.actor(), path.id()?, decide).await?;
    Ok(HttpResponse::Created().json(ApprovedOut::from(approved)))
}

/// Why a request is denied.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct DenialIn {
    /// In at most 1000 characters.
    #[schema(example = "We do not know this application")]
    reason: Option<String>,
}

/// Deny a request for a key
#[utoipa::path(
    tag = "Key requests",
    operation_id = "denyKeyRequest",
    params(("id" = Uuid, Path, description = "The request's id")),
    request_body(content = Option<DenialIn>, example = json!({ "reason": "We do not know this application" })),
    responses(
        (status = 200, description = "The request, denied", body = KeyRequestView),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
        (status = 409, description = "It was decided already", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = ["keys:write"]), ("basic" = ["keys:write"])),
)]
#[post("/v1/key-requests/{id}/deny")]
pub(crate) async fn deny(
    caller: Caller<KeysWrite>,
    issuer: Data<Issuer>,
    path: Path<RequestInPath>,
    body: crate::body::RawBody,
) -> Answered<Json<KeyRequestView>> {
    let DenialIn { reason } = if body.0.is_empty() { DenialIn::default() } else { crate::body::parse(&body.0)? };
    let denied = issuer.deny_key_request(caller.tenant(), &caller.actor(), path.id()?, reason.as_deref()).await?;
    Ok(Json(denied.into()))
}

/// Taken by name, because the path may also hold the tenant that it is mounted under.
#[derive(Deserialize)]
pub(crate) struct RequestInPath {
    id: String,
}

impl RequestInPath {
    /// What is no id is the id of none.
    fn id(&self) -> Result<KeyRequestId, Answer> {
        self.id.parse().map_err(|_| Answer::not_found())
    }
}
