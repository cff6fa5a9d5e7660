//! What is answered to a request without a good token.

use serde_json::json;

use crate::client::Refused;

/// How refusals are told.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub enum ErrorStyle {
    /// RFC 6750 §3: 401 or 403 with `WWW-Authenticate`, and a small JSON body.
    #[default]
    Bearer,
    /// 403 with this body, whatever is wrong; for clients that know nothing else.
    Forbidden {
        /// Its media type.
        content_type: String,
        /// The body.
        body: String,
    },
    /// 401 or 403 with `{"api_response": null, "api_error_message": …, "api_server_version": …, "api_status_code": …}`.
    Envelope {
        /// What `api_server_version` says.
        server_version: String,
    },
}

/// An answer, whatever the framework.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ErrorAnswer {
    /// The HTTP status.
    pub status: u16,
    /// `WWW-Authenticate`.
    pub www_authenticate: Option<String>,
    /// Seconds, `Retry-After`.
    pub retry_after: Option<u64>,
    /// `Content-Type`.
    pub content_type: String,
    /// The body.
    pub body: String,
}

impl ErrorStyle {
    /// The answer to a refusal.
    #[must_use]
    pub fn answer(&self, refused: &Refused) -> ErrorAnswer {
        let (status, error) = told(refused);
        let unavailable = status == 503;
        let challenge = (!unavailable).then(|| match (refused, error) {
            // RFC 6750 §3.1: who sent nothing is told nothing.
            (Refused::Missing, _) => "Bearer".to_owned(),
            (Refused::Scope(scope), _) => format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\""),
            (_, error) => format!("Bearer error=\"{error}\", error_description=\"{refused}\""),
        });
        let retry_after = unavailable.then_some(1);
        let json = "application/json".to_owned();
        match self {
            Self::Bearer => {
                let body = json!({ "error": error, "error_description": refused.to_string() }).to_string();
                ErrorAnswer { status, www_authenticate: challenge, retry_after, content_type: json, body }
            }
            Self::Forbidden { content_type, body } => ErrorAnswer {
                status: if unavailable { status } else { 403 },
                www_authenticate: None,
                retry_after,
                content_type: content_type.clone(),
                body: body.clone(),
            },
            Self::Envelope { server_version } => {
                let body = json!({
                    "api_response": null,
                    "api_error_message": refused.to_string(),
                    "api_server_version": server_version,
                    "api_status_code": status,
                });
                ErrorAnswer { status, www_authenticate: challenge, retry_after, content_type: json, body: body.to_string() }
            }
        }
    }
}

/// The one table: status, and the word of RFC 6750 §3.1.
fn told(refused: &Refused) -> (u16, &'static str) {
    match refused {
        Refused::Missing => (401, "invalid_token"),
        Refused::Ambiguous => (400, "invalid_request"),
        Refused::Token(_) | Refused::Revoked => (401, "invalid_token"),
        Refused::Scope(_) => (403, "insufficient_scope"),
        Refused::Unavailable(_) => (503, "temporarily_unavailable"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Rejection;
    use crate::client::Unavailable;

    #[test]
    fn each_refusal_has_its_status_and_challenge() {
        let style = ErrorStyle::default();
        let told = |refused| {
            let answer = style.answer(&refused);
            (answer.status, answer.www_authenticate.unwrap_or_default())
        };
        assert_eq!(told(Refused::Missing), (401, "Bearer".into()));
        let expired = "Bearer error=\"invalid_token\", error_description=\"expired\"";
        assert_eq!(told(Refused::Token(Rejection::Expired)), (401, expired.into()));
        assert_eq!(told(Refused::Revoked), (401, "Bearer error=\"invalid_token\", error_description=\"revoked\"".into()));
        let scope = "Bearer error=\"insufficient_scope\", scope=\"a:read\"";
        assert_eq!(told(Refused::Scope("a:read".into())), (403, scope.into()));
        assert_eq!(told(Refused::Unavailable(Unavailable::Keys)), (503, String::new()));
        assert_eq!(told(Refused::Ambiguous).0, 400);
    }

    #[test]
    fn other_styles_say_the_same_otherwise() {
        let forbidden = ErrorStyle::Forbidden { content_type: "text/plain".into(), body: "no".into() };
        let answer = forbidden.answer(&Refused::Missing);
        assert_eq!((answer.status, answer.www_authenticate, answer.body.as_str()), (403, None, "no"));
        assert_eq!(forbidden.answer(&Refused::Unavailable(Unavailable::Keys)).status, 503);
        let envelope = ErrorStyle::Envelope { server_version: "7".into() }.answer(&Refused::Revoked);
        let body: serde_json::Value = serde_json::from_str(&envelope.body).unwrap();
        assert_eq!((envelope.status, &body["api_status_code"], &body["api_server_version"]), (401, &json!(401), &json!("7")));
        assert_eq!((&body["api_error_message"], &body["api_response"]), (&json!("revoked"), &json!(null)));
    }
}
