//! The API's documentation, served by itself: the document, and a console with embedded assets.

use std::sync::Arc;

use actix_web::http::header;
use actix_web::web::{Data, Path};
use actix_web::{HttpResponse, get};
use utoipa_swagger_ui::Config;

use crate::problem::{Answer, Answered};

/// The console's page policy: its own scripts and styles, its own server. Swagger UI sets a few inline styles.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; font-src 'self'; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";

/// The document, serialised once.
pub(crate) struct Document(pub(crate) String);

/// Fetch this document
#[utoipa::path(tag = "Operation", operation_id = "showOpenApi", responses((status = 200, description = "OpenAPI 3.1", body = serde_json::Value)), security(()))]
#[get("/openapi.json")]
pub(crate) async fn document(document: Data<Document>) -> HttpResponse {
    HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, "application/json"))
        .insert_header((header::CACHE_CONTROL, "no-cache"))
        .body(document.0.clone())
}

/// `/docs` alone would break the console's relative links.
#[get("/docs")]
pub(crate) async fn to_console() -> HttpResponse {
    HttpResponse::PermanentRedirect().insert_header((header::LOCATION, "/docs/")).finish()
}

/// A file of the console.
#[get("/docs/{file:.*}")]
pub(crate) async fn console(file: Path<String>, config: Data<Arc<Config<'static>>>) -> Answered<HttpResponse> {
    let file = match file.as_str() {
        "" => "index.html",
        file => file,
    };
    match utoipa_swagger_ui::serve(file, Arc::clone(&config)) {
        Ok(Some(found)) => Ok(HttpResponse::Ok()
            .insert_header((header::CONTENT_TYPE, found.content_type))
            .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
            .insert_header((header::CACHE_CONTROL, "no-cache"))
            .body(found.bytes.into_owned())),
        _ => Err(Answer::not_found()),
    }
}

/// The console shows our document, and asks nobody else about it.
pub(crate) fn console_config() -> Arc<Config<'static>> {
    Arc::new(Config::new(["/openapi.json"]).validator_url("none").use_base_layout())
}
