//! The `Authorization` header, in the forms that each route reads.

use actix_web::HttpRequest;
use actix_web::http::header;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use claviger_issuer::caller::Presented;
use claviger_issuer::secret::AppKeyCredential;

use crate::oauth::form_decoded;

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

/// As [`presented`], where a key and its secret may also stand where a token does. Where the tenant takes them so, either may come
/// without a scheme, or in the header `access_token`.
pub(crate) fn bearer_or_pair(req: &HttpRequest, brand: &str, lenient: bool) -> Option<Presented> {
    let text = |name: &str| req.headers().get(name)?.to_str().ok().map(str::trim).filter(|text| !text.is_empty());
    let shown = match text(header::AUTHORIZATION.as_str()) {
        Some(value) => match with_scheme(value, "bearer") {
            Some(bearer) => bearer,
            None if lenient && with_scheme(value, "basic").is_none() => lenient_token(value).unwrap_or(value),
            None => return presented(req, brand),
        },
        None => text("access_token").filter(|_| lenient)?,
    };
    Some(match AppKeyCredential::parse(shown, brand) {
        Some(pair) => Presented::Pair(Some(pair)),
        None => Presented::Token(shown.to_owned()),
    })
}

/// As [`presented`], where the tenant takes a token also after `Bearer:` or without any scheme.
pub(crate) fn presented_leniently(req: &HttpRequest, brand: &str) -> Option<Presented> {
    presented(req, brand).or_else(|| {
        let value = req.headers().get(header::AUTHORIZATION)?.to_str().ok()?;
        lenient_token(value).map(|token| Presented::Token(token.to_owned()))
    })
}

/// A token after `Bearer:`, or alone. A key and its secret are no token: between them is a colon.
pub(crate) fn lenient_token(value: &str) -> Option<&str> {
    let value = value.trim();
    let token = match value.split_once(':') {
        Some((scheme, rest)) if scheme.trim().eq_ignore_ascii_case("bearer") => rest.trim(),
        Some(_) => return None,
        None => value,
    };
    let plain = !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'));
    (plain && token.contains('.')).then_some(token)
}

/// What follows a scheme, which is compared without case (RFC 9110 §11.1).
pub(crate) fn with_scheme<'a>(value: &'a str, scheme: &str) -> Option<&'a str> {
    let (found, rest) = value.trim().split_once(' ')?;
    found.eq_ignore_ascii_case(scheme).then(|| rest.trim())
}

/// As most clients write it. A key's id has no `%`: where there is one, an OAuth client encoded both parts.
fn basic(encoded: &str, brand: &str) -> Option<AppKeyCredential> {
    let text = decoded(encoded)?;
    match text.split_once(':')?.0.contains('%') {
        true => encoded_pair(&text, brand),
        false => AppKeyCredential::parse(&text, brand),
    }
}

/// As OAuth writes it: both parts are form-encoded (RFC 6749 §2.3.1).
pub(crate) fn encoded_basic(encoded: &str, brand: &str) -> Option<AppKeyCredential> {
    encoded_pair(&decoded(encoded)?, brand)
}

fn encoded_pair(text: &str, brand: &str) -> Option<AppKeyCredential> {
    let (key, secret) = text.split_once(':')?;
    AppKeyCredential::of(&form_decoded(key)?, &form_decoded(secret)?, brand)
}

fn decoded(encoded: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(encoded).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_found_after_a_colon_or_alone_and_a_pair_is_none() {
        for value in ["Bearer: a.b.c", "bearer:a.b.c", " a.b.c ", "Bearer : a.b.c"] {
            assert_eq!(lenient_token(value), Some("a.b.c"), "{value}");
        }
        for value in
            ["Bearer a.b.c", "ck_1:cs_1", "Bearer:", "Bearer: ", "", "abcd", "Bearer: a.b c", "Token: a.b.c", "Basic YTpi"]
        {
            assert_eq!(lenient_token(value), None, "{value}");
        }
    }
}
