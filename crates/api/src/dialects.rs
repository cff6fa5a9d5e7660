//! Other systems' routes, for clients that cannot be changed. A tenant serves those that its setting `dialects` names, and
//! answers 404 at the others. A handler here parses and renders as the other system does, and calls the flows that everything
//! else calls: no rule lives here.
//!
//! They take tokens of the tenant's usual audience as well as our own ([`caller_as_usual`]); our management never does.

pub(crate) mod cheshire_cat;
pub(crate) mod clustercockpit;
mod howler;

use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::sync::Arc;

use actix_web::dev::Payload;
use actix_web::{FromRequest, HttpMessage as _, HttpRequest};
use claviger_issuer::caller::{Caller, Presented};
use claviger_issuer::dialect::Dialects;
use claviger_issuer::{Refusal, TenantEntry};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::border::MappedHost;
use crate::caller::{issuer, path_tenant, request_info};
use crate::credentials;
use crate::login_page::Place;
use crate::problem::{Answer, Answered};

/// What the dialects serve, under `/t/{tenant}` and on hosts that stand for a tenant.
pub(crate) fn dialect_routes(routes: &mut ServiceConfig<'_>) {
    cheshire_cat::routes(routes);
    clustercockpit::routes(routes);
    howler::routes(routes);
}

/// A dialect that a tenant may speak.
pub(crate) trait Dialect: 'static {
    /// Whether it does.
    fn is_spoken(dialects: &Dialects) -> bool;
}

/// The path's tenant, which speaks the dialect `D`. As a parameter it makes a route of that dialect: 404 where it is not spoken.
pub(crate) struct Speaks<D> {
    pub(crate) tenant: Arc<TenantEntry>,
    dialect: PhantomData<D>,
}

impl<D: Dialect> FromRequest for Speaks<D> {
    type Error = Answer;
    type Future = Pin<Box<dyn Future<Output = Answered<Self>>>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let req = req.clone();
        Box::pin(async move {
            let tenant = path_tenant(&req).await?.ok_or_else(Answer::not_found)?;
            match D::is_spoken(&tenant.settings.dialects) {
                true => Ok(Self { tenant, dialect: PhantomData }),
                false => Err(Answer::not_found()),
            }
        })
    }
}

/// Whether the request came to a host that stands for its tenant.
fn is_mapped(req: &HttpRequest) -> bool {
    req.extensions().get::<MappedHost>().is_some()
}

/// Where a cookie of a dialect counts: for its tenant's paths alone, since its name is not the tenant's, and other tenants may be on
/// the same host.
fn cookie_path(req: &HttpRequest, place: &Place) -> String {
    match is_mapped(req) {
        true => "/".to_owned(),
        false => place.base.clone(),
    }
}

/// Who calls a dialect's route: by the token that its own header carries, if there is one, else by `Authorization`. `None` when
/// there is neither, so that the dialect can look at its cookie.
pub(crate) async fn caller_as_usual(
    req: &HttpRequest,
    tenant: &Arc<TenantEntry>,
    own_token: Option<String>,
) -> Answered<Option<Caller>> {
    let issuer = issuer(req)?;
    let brand = &issuer.settings().brand;
    let presented = match (own_token, tenant.settings.lenient_bearer) {
        (Some(token), _) => Some(Presented::Token(token)),
        (None, true) => credentials::presented_leniently(req, brand),
        (None, false) => credentials::presented(req, brand),
    };
    match presented {
        Some(presented) => Ok(Some(issuer.authenticate_as_usual(Some(tenant), presented, request_info(req)).await?)),
        None if req.headers().contains_key(actix_web::http::header::AUTHORIZATION) => Err(Refusal::Unauthenticated.into()),
        None => Ok(None),
    }
}
