//! The `Authorization` header, in the forms that each route reads.

use actix_web::HttpRequest;
use actix_web::http::header;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_issuer::caller::Presented;
use claviger_issuer::secret::AppKeyCredential;

/// `key:secret` without a scheme, or `Basic` (RFC 7617). `None` when it is no pair, whatever else it is.
pub(crate) fn pair(req: &HttpRequest, brand: &str) -> Option<AppKeyCredential> {
    let value = req.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    match with_scheme(value, "basic") {
        Some(encoded) => basic(encoded, brand),
        None => AppKeyCredential::parse(value.trim(), brand),
    }
}

/// `Bearer` (RFC 6750 §2.1) or `Basic`. `None` when there is neither.
pub(crate) fn presented(req: &HttpRequest, brand: &str) -> Option<Presented> {
    let value = req.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
    if let Some(token) = with_scheme(value, "bearer") {
        return Some(Presented::Token(token.to_owned()));
    }
    with_scheme(value, "basic").map(|encoded| Presented::Pair(basic(encoded, brand)))
}

/// What follows a scheme, which is compared without case (RFC 9110 §11.1).
pub(crate) fn with_scheme<'a>(value: &'a str, scheme: &str) -> Option<&'a str> {
    let (found, rest) = value.trim().split_once(' ')?;
    found.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

fn basic(encoded: &str, brand: &str) -> Option<AppKeyCredential> {
    AppKeyCredential::parse(&String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?, brand)
}
