//! OAuth's dialect (RFC 6749): forms whose parameters come once, clients that prove themselves, and errors in OAuth's own
//! words. It parses and renders; what is decided is decided by the same flows as elsewhere.

use std::collections::BTreeMap;

use actix_web::HttpRequest;
use actix_web::http::{StatusCode, header};
use claviger_issuer::secret::AppKeyCredential;
use claviger_issuer::{Failure, Refusal};
use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;
use utoipa::ToSchema;

use crate::body::{RawBody, is_form};
use crate::credentials;
use crate::problem::{Answer, Answered};

/// How clients may prove themselves at the token endpoint (RFC 8414 §2). `none` is for refresh tokens that were given to
/// nobody in particular.
pub(crate) const CLIENT_AUTHENTICATION: [&str; 3] = ["client_secret_basic", "client_secret_post", "none"];

/// Why a token was not given (RFC 6749 §5.2).
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({ "error": "invalid_client", "error_description": "No key answers to this." }))]
pub(crate) struct OAuthError {
    /// What is wrong, as a word for programs.
    pub(crate) error: &'static str,
    /// What is wrong with this request, and the way out. ASCII without `"` and `\`.
    pub(crate) error_description: String,
    /// More about why: `refresh_token_reused` or `superseded`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<&'static str>,
}

impl OAuthError {
    pub(crate) fn new(error: &'static str, detail: &str, reason: Option<&'static str>) -> Self {
        let plain = |c: char| if matches!(c, ' '..='~') && c != '"' && c != '\\' { c } else { '?' };
        Self { error, error_description: detail.chars().map(plain).collect(), reason }
    }
}

/// The table of refusals and faults in OAuth's words: the sibling of the one in `problem.rs`.
pub(crate) fn refused(failure: impl Into<Failure>) -> Answer {
    match failure.into() {
        Failure::Refusal(Refusal::InvalidPair | Refusal::Unauthenticated) => {
            invalid_client("No key answers to this. Send the id and secret of a key that is active and not expired.")
        }
        // Here the key proved itself, or none was asked for: it is the grant that does not hold.
        Failure::Refusal(refusal @ Refusal::InvalidGrant { .. }) => {
            Answer::from(refusal).in_oauth(StatusCode::BAD_REQUEST, "invalid_grant")
        }
        failure => said(failure.into()),
    }
}

/// The same, in OAuth's form.
pub(crate) fn said(answer: Answer) -> Answer {
    let (status, error) = (answer.status(), answer.error());
    answer.in_oauth(status, error)
}

/// 401, with the challenge that RFC 6749 §5.2 asks for.
fn invalid_client(detail: &str) -> Answer {
    Answer::new(StatusCode::UNAUTHORIZED, "invalid_client", detail)
        .with_challenge("Basic realm=\"claviger\"")
        .in_oauth(StatusCode::UNAUTHORIZED, "invalid_client")
}

/// 400 with one of the words of RFC 6749 §5.2.
pub(crate) fn bad_request(error: &'static str, detail: impl Into<String>) -> Answer {
    Answer::bad_request(detail).in_oauth(StatusCode::BAD_REQUEST, error)
}

/// The parameters of a form. Any of them may be a secret, be it in the wrong place: they cannot be printed.
pub(crate) struct Parameters(BTreeMap<String, SecretString>);

impl Parameters {
    /// Reads a form. Empty parameters are omitted ones (RFC 6749 §3.2), repeated ones are refused, unknown ones are kept and
    /// need not be asked for. What belongs into the form is refused in the query.
    pub(crate) fn read(req: &HttpRequest, body: Answered<RawBody>, known: &[&str]) -> Answered<Self> {
        if !is_form(req) {
            return Err(bad_request("invalid_request", "Send a form, as `Content-Type: application/x-www-form-urlencoded`."));
        }
        let RawBody(bytes) = body.map_err(said)?;
        let in_query = |pair: &str| known.iter().any(|name| pair.split('=').next() == Some(name));
        if req.query_string().split('&').any(in_query) {
            let detail = "Send the parameters as a form in the body. A secret that was sent in the address may be in logs.";
            return Err(bad_request("invalid_request", detail));
        }
        let malformed = || bad_request("invalid_request", "The form is malformed.");
        let text = std::str::from_utf8(&bytes).map_err(|_| malformed())?;
        let mut seen = BTreeMap::new();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = form_decoded(name).ok_or_else(malformed)?;
            let value = form_decoded(value).map(SecretString::from).ok_or_else(malformed)?;
            if seen.contains_key(&name) {
                // One audience a token: then nobody can use it where it was not meant for.
                let (error, detail) = match name == "resource" {
                    true => ("invalid_target", "A token is for one resource. Ask for one token for each.".to_owned()),
                    false => match known.iter().find(|known| **known == name) {
                        Some(known) => ("invalid_request", format!("`{known}` is given twice.")),
                        None => ("invalid_request", "A parameter is given twice.".to_owned()),
                    },
                };
                return Err(bad_request(error, detail));
            }
            seen.insert(name, value);
        }
        seen.retain(|_, value| !value.expose_secret().is_empty());
        Ok(Self(seen))
    }

    /// Refuses clients that would prove themselves with an assertion (RFC 7521 §4.2): that is not looked at, so nothing else
    /// of the request may count for them.
    pub(crate) fn refuse_assertions(&self) -> Answered<()> {
        match self.0.contains_key("client_assertion") || self.0.contains_key("client_assertion_type") {
            true => Err(invalid_client("Assertions of clients are not taken. Send the id and secret of a key.")),
            false => Ok(()),
        }
    }

    /// One that may be a secret.
    pub(crate) fn secret(&mut self, name: &str) -> Option<SecretString> {
        self.0.remove(name)
    }

    /// One that is none.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        self.0.remove(name).map(|value| value.expose_secret().to_owned())
    }
}

/// Undoes `application/x-www-form-urlencoded`, strictly: `None` for a `%` without two digits, and for what is not UTF-8.
pub(crate) fn form_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'+' => b' ',
            b'%' => {
                let mut digit = || char::from(rest.next()?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
                digit()? << 4 | digit()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// A scope as RFC 6749 §3.3 writes it: visible ASCII without `"` and `\`, one space between two.
pub(crate) fn check_scope(scope: Option<&str>) -> Answered<()> {
    let is_token = |token: &str| !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic() && b != b'"' && b != b'\\');
    match scope.is_none_or(|scope| scope.split(' ').all(is_token)) {
        true => Ok(()),
        false => Err(bad_request("invalid_scope", "`scope` is a list of scopes with one space between two.")),
    }
}

/// What a client brings to prove itself.
pub(crate) enum Proof {
    /// Nothing.
    Absent,
    /// A key and its secret; `None` when what was sent is no pair.
    Pair(Option<AppKeyCredential>),
}

impl Proof {
    /// Reads it from the header (`client_secret_basic`) or the form (`client_secret_post`), and refuses more than one of them
    /// (RFC 6749 §2.3). A `client_id` alone proves nothing.
    pub(crate) fn read(req: &HttpRequest, id: Option<String>, secret: Option<SecretString>, brand: &str) -> Answered<Self> {
        match (req.headers().get(header::AUTHORIZATION), secret) {
            (Some(_), Some(_)) => {
                let detail = "Send the client's secret once: as `Authorization: Basic`, or as `client_secret`.";
                Err(bad_request("invalid_request", detail))
            }
            (Some(header), None) => {
                let basic = header.to_str().ok().and_then(|value| credentials::with_scheme(value, "basic"));
                let Some(basic) = basic else {
                    return Err(invalid_client("Clients prove themselves with `Authorization: Basic`, or in the form."));
                };
                let pair = credentials::encoded_basic(basic, brand);
                match (&pair, id) {
                    (Some(pair), Some(id)) if pair.key.as_str() != id => {
                        Err(bad_request("invalid_request", "`client_id` names another client than the header does."))
                    }
                    _ => Ok(Self::Pair(pair)),
                }
            }
            (None, Some(secret)) => match id {
                Some(id) => Ok(Self::Pair(AppKeyCredential::of(&id, secret.expose_secret(), brand))),
                None => Err(bad_request("invalid_request", "`client_secret` needs `client_id`, the id of the key.")),
            },
            (None, None) => Ok(Self::Absent),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn o5_a_form_is_decoded_strictly() {
        assert_eq!(form_decoded("a+b%20c%2B%c3%A4").as_deref(), Some("a b c+ä"));
        assert_eq!(form_decoded("").as_deref(), Some(""));
        for bad in ["%", "%2", "%zz", "%2z", "a%", "%ff", "%+1"] {
            assert_eq!(form_decoded(bad), None, "{bad}");
        }
    }

    #[test]
    fn o6_a_scope_has_one_space_between_two() {
        assert!(check_scope(None).is_ok());
        assert!(check_scope(Some("a:b c:d")).is_ok());
        for bad in ["", " ", " a:b", "a:b ", "a:b  c:d", "a:b\tc:d", "a:\"b", "a:\\b", "ä:b"] {
            assert!(check_scope(Some(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_description_has_only_the_letters_that_it_may() {
        assert_eq!(OAuthError::new("x", "a \"b\" \\ ä \n `c`", None).error_description, "a ?b? ? ? ? `c`");
    }
}
