//! The one route table. The OpenAPI document is made from it.

use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::{StatusCode, header};
use actix_web::web::{self, Data};
use actix_web::{HttpRequest, HttpResponse, ResponseError as _};
use utoipa_actix_web::service_config::ServiceConfig;

use crate::problem::Answer;
use crate::{account_page, docs, health, login_page, pages, request_pages, upstream_pages, v1, well_known};

/// What every tenant serves under `/t/{tenant}`, and the root for whichever tenant the credential names.
pub(crate) fn tenant_routes(routes: &mut ServiceConfig<'_>) {
    routes
        .service(v1::authentications::create)
        .service(v1::token::create)
        .service(v1::me::show)
        .service(v1::refresh::create)
        .service(v1::introspect::introspect)
        .service(v1::revoke::create)
        .service(v1::logout::create)
        .service(v1::logins::mine)
        .service(v1::logins::end_mine)
        .service(v1::logins::end_one_of_mine)
        .service(v1::logins::change_my_password)
        .service(v1::public_key::show)
        .service(v1::users::create)
        .service(v1::users::list)
        .service(v1::users::show)
        .service(v1::users::change)
        .service(v1::users::delete)
        .service(v1::links::mine)
        .service(v1::links::create)
        .service(v1::links::list)
        .service(v1::links::delete)
        .service(v1::connections::create)
        .service(v1::connections::list)
        .service(v1::connections::show)
        .service(v1::connections::change)
        .service(v1::connections::delete)
        .service(v1::logins::set_password)
        .service(v1::logins::list)
        .service(v1::logins::end_all)
        .service(v1::logins::end_one)
        .service(v1::applications::create)
        .service(v1::applications::list)
        .service(v1::applications::show)
        .service(v1::applications::change)
        .service(v1::applications::delete)
        .service(v1::key_requests::list)
        .service(v1::key_requests::show)
        .service(v1::key_requests::approve)
        .service(v1::key_requests::deny)
        .service(v1::keys::bulk_revoke)
        .service(v1::keys::self_revoke)
        .service(v1::my_keys::create_mine)
        .service(v1::my_keys::list_mine)
        .service(v1::my_keys::rotate_mine)
        .service(v1::my_keys::revoke_mine)
        .service(v1::keys::create)
        .service(v1::keys::list)
        .service(v1::keys::rotate)
        .service(v1::keys::show)
        .service(v1::keys::change)
        .service(v1::keys::revoke)
        .service(v1::verify::one)
        .service(v1::verify::batch)
        .service(v1::ws_tickets::create)
        .service(v1::roles::create)
        .service(v1::roles::list)
        .service(v1::roles::show)
        .service(v1::roles::change)
        .service(v1::roles::delete)
        .service(v1::scopes::put)
        .service(v1::scopes::list)
        .service(v1::scopes::delete)
        .service(v1::scopes::available)
        .service(v1::audit::export)
        .service(v1::audit::list)
        .service(v1::audiences::create)
        .service(v1::audiences::list)
        .service(v1::audiences::show)
        .service(v1::audiences::change)
        .service(v1::audiences::delete)
        .service(v1::audiences::public_key)
        .service(v1::audiences::confirm_key)
        .service(v1::signing_keys::list)
        .service(v1::signing_keys::verifiers)
        .service(v1::signing_keys::rotate)
        .service(v1::signing_keys::activate)
        .service(v1::signing_keys::retire)
        .service(v1::audit::explain)
        .service(v1::audit::done_in_my_name)
        .service(well_known::jwks);
}

/// What a tenant serves under `/t/{tenant}` alone: metadata name the issuer, and it is not the root (RFC 8414 §3.3); and a
/// login has nothing that names its tenant but the path.
pub(crate) fn tenant_only_routes(routes: &mut ServiceConfig<'_>) {
    routes
        .service(v1::login::create)
        .service(v1::forward_auth::show)
        .service(v1::key_requests::create)
        .service(request_pages::show_request)
        .service(request_pages::request)
        .service(request_pages::show_confirm)
        .service(request_pages::confirm)
        .service(request_pages::show_claim)
        .service(request_pages::claim)
        .service(v1::revocations::show)
        .service(v1::status_lists::show)
        .service(v1::status_lists::list)
        .service(well_known::metadata)
        .service(login_page::show)
        .service(login_page::sign_in)
        .service(login_page::ask_to_sign_out)
        .service(login_page::sign_out)
        .service(account_page::show)
        .service(account_page::end)
        .service(account_page::end_all)
        .service(account_page::change_password)
        .service(account_page::link_account)
        .service(account_page::unlink_account)
        .service(upstream_pages::begin)
        .service(upstream_pages::callback)
        // Any method and any path behind it: a proxy asks with the request itself.
        .map(|plain| plain.route("/v1/forward-auth/envoy/{policy}/{asked:.*}", web::route().to(v1::forward_auth::envoy)));
}

/// What the installation serves.
pub(crate) fn root_routes(routes: &mut ServiceConfig<'_>) {
    routes
        .service(v1::tenants::create)
        .service(v1::tenants::list)
        .service(v1::tenants::show)
        .service(v1::tenants::change)
        .service(v1::tenants::apply_preset)
        .service(v1::tenants::delete)
        .service(well_known::metadata_path_inserted)
        .service(health::alive)
        .service(health::ready)
        .service(docs::document)
        .map(|plain| plain.service(docs::to_console).service(docs::console).service(pages::asset));
}

/// Which methods each path takes, to tell 405 from 404.
pub(crate) struct Methods(Vec<(Vec<String>, String)>);

impl Methods {
    /// From the OpenAPI document.
    pub(crate) fn of(document: &serde_json::Value) -> Self {
        let paths = document.get("paths").and_then(serde_json::Value::as_object);
        let methods = paths.into_iter().flatten().map(|(path, operations)| {
            let mut allowed: Vec<String> =
                operations.as_object().into_iter().flatten().map(|(method, _)| method.to_uppercase()).collect();
            if allowed.iter().any(|method| method == "GET") {
                allowed.push("HEAD".into());
            }
            (path.split('/').map(str::to_owned).collect(), allowed.join(", "))
        });
        Self(methods.collect())
    }

    /// Of a path whose segments match; `{…}` matches any.
    fn allowed(&self, path: &str) -> Option<&str> {
        let asked: Vec<&str> = path.split('/').collect();
        let matches = |template: &[String]| {
            template.len() == asked.len()
                && template.iter().zip(&asked).all(|(want, have)| want == have || want.starts_with('{') && !have.is_empty())
        };
        self.0.iter().find(|(template, _)| matches(template)).map(|(_, allowed)| allowed.as_str())
    }
}

/// What no route took.
pub(crate) async fn nowhere(req: ServiceRequest) -> Result<ServiceResponse, actix_web::Error> {
    let response = refuse(req.request());
    Ok(req.into_response(response))
}

fn refuse(req: &HttpRequest) -> HttpResponse {
    let allowed = req.app_data::<Data<Methods>>().and_then(|methods| methods.allowed(req.path()));
    let Some(allowed) = allowed else {
        return Answer::new(StatusCode::NOT_FOUND, "not_found", "There is nothing at this path. See /docs.").error_response();
    };
    let detail = format!("This path takes {allowed}. See /docs.");
    let mut response = Answer::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail).error_response();
    if let Ok(allowed) = header::HeaderValue::from_str(allowed) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

/// The framework's own extractors, of which we use two: the body's limit, and a path that does not fit.
pub(crate) fn extractor_errors(plain: &mut web::ServiceConfig) {
    plain
        .app_data(web::PayloadConfig::new(crate::body::LONGEST_BODY))
        .app_data(web::PathConfig::default().error_handler(|_, _| Answer::not_found().into()));
}
