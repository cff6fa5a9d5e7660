//! Refusals and faults as problem documents (RFC 9457): the one table of statuses.

use std::fmt;

use actix_web::http::StatusCode;
use actix_web::http::header::{self, HeaderValue};
use actix_web::{HttpResponse, HttpResponseBuilder, ResponseError};
use claviger_issuer::{Declined, Failure, Fault, GrantRefused, Refusal};
use serde::Serialize;
use utoipa::ToSchema;

use crate::oauth::OAuthError;

/// Why a request was not done. Sent as `application/problem+json` (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({
    "type": "urn:claviger:problem:not_found", "title": "Not Found", "status": 404,
    "detail": "There is no such thing here.", "error": "not_found"
}))]
pub(crate) struct Problem {
    /// A URN that names the kind of problem.
    r#type: String,
    /// The status in words.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What is wrong with this request, and the way out.
    detail: String,
    /// The kind of problem as a word for programs; OAuth's where OAuth has one.
    error: &'static str,
    /// The field that is wrong, where one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// More about why, as a word for programs: `refresh_token_reused` where a login was ended because one of its refresh
    /// tokens was used a second time, `superseded` where another request used the token at the same time; where the server is
    /// not ready, the check that failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'static str>,
}

/// How another system writes what is not done: media type and body, for an answer that has its status already.
pub(crate) type Dialect = fn(&Answer) -> (&'static str, String);

/// What a handler answers with when it does not answer with success.
#[derive(Debug)]
pub(crate) struct Answer {
    status: StatusCode,
    error: &'static str,
    detail: String,
    field: Option<String>,
    reason: Option<&'static str>,
    retry_after: Option<u64>,
    challenge: Option<String>,
    /// Written as RFC 6749 §5.2 says, and not as a problem document.
    oauth: bool,
    /// Written as another system would, with that status.
    dialect: Option<Dialect>,
    /// Logged at the border, never told.
    fault: Option<Fault>,
    /// Said by the answer itself only where the border cannot say it.
    request_id: Option<String>,
}

/// A handler's result.
pub(crate) type Answered<T> = Result<T, Answer>;

impl Answer {
    pub(crate) fn new(status: StatusCode, error: &'static str, detail: impl Into<String>) -> Self {
        Self {
            status,
            error,
            detail: detail.into(),
            field: None,
            reason: None,
            retry_after: None,
            challenge: None,
            oauth: false,
            dialect: None,
            fault: None,
            request_id: None,
        }
    }

    pub(crate) fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
    }

    pub(crate) fn unprocessable(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let mut answer = Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", detail);
        answer.field = Some(field.into()).filter(|field| !field.is_empty());
        answer
    }

    /// Credentials are needed, or not good.
    pub(crate) fn unauthorized(error: &'static str, detail: impl Into<String>) -> Self {
        let mut answer = Self::new(StatusCode::UNAUTHORIZED, error, detail);
        answer.challenge = Some("Bearer".into());
        answer
    }

    pub(crate) fn not_found() -> Self {
        Refusal::NotFound.into()
    }

    /// A browser says that another site made it send this, with our cookies.
    pub(crate) fn cross_site() -> Self {
        let detail = "The request came from another site. Do it from a page of this server, or with an Authorization header.";
        Self::new(StatusCode::FORBIDDEN, "cross_site", detail)
    }

    pub(crate) fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", "Something broke here. The request's id is in X-Request-Id.")
    }

    /// For an answer that the border does not dress any more.
    pub(crate) fn of_request(mut self, id: &str) -> Self {
        self.request_id = Some(id.to_owned());
        self
    }

    /// The same in other words.
    pub(crate) fn saying(self, detail: impl Into<String>) -> Self {
        Self { detail: detail.into(), ..self }
    }

    /// What would let the caller in.
    pub(crate) fn with_challenge(mut self, challenge: &str) -> Self {
        self.challenge = Some(challenge.to_owned());
        self
    }

    /// More about why, as a word for programs.
    pub(crate) fn because(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }

    /// The same in OAuth's form (RFC 6749 §5.2). A challenge of other routes is left out of what is no 401.
    pub(crate) fn in_oauth(mut self, status: StatusCode, error: &'static str) -> Self {
        self.challenge = self.challenge.filter(|_| status == StatusCode::UNAUTHORIZED);
        Self { status, error, oauth: true, ..self }
    }

    /// The same as another system says it. A challenge is left out of what is no 401.
    pub(crate) fn in_dialect(mut self, status: StatusCode, dialect: Dialect) -> Self {
        self.challenge = self.challenge.filter(|_| status == StatusCode::UNAUTHORIZED);
        Self { status, dialect: Some(dialect), ..self }
    }

    /// Plain http, where https is wanted.
    pub(crate) fn https_required() -> Self {
        let detail = "This is answered over https only. Send it again to the https:// address, with a new secret if this one \
                      crossed an untrusted network.";
        Self::new(StatusCode::FORBIDDEN, "https-required", detail)
    }

    /// The kind of problem as a word for programs.
    pub(crate) fn error(&self) -> &'static str {
        self.error
    }

    /// The most exact word for the problem.
    pub(crate) fn reason(&self) -> &'static str {
        self.reason.unwrap_or(self.error)
    }

    /// Its HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        self.status
    }

    /// What is wrong, in a sentence for people.
    pub(crate) fn detail(&self) -> &str {
        &self.detail
    }

    /// The field that is wrong, where one is.
    pub(crate) fn field(&self) -> Option<&str> {
        self.field.as_deref()
    }

    /// Seconds after which it makes sense to try again.
    pub(crate) fn retry_after(&self) -> Option<u64> {
        self.retry_after
    }

    /// True when more was asked for than can be done in time.
    pub(crate) fn is_overload(&self) -> bool {
        matches!(self.fault, Some(Fault::Overloaded(_)))
    }

    /// The fault behind it, to be logged once.
    pub(crate) fn fault(&self) -> Option<&Fault> {
        self.fault.as_ref()
    }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let text = sentence(&refusal.to_string());
        match refusal {
            Refusal::NotFound => Self::new(StatusCode::NOT_FOUND, "not_found", text),
            Refusal::HttpsRequired => Self::https_required(),
            Refusal::InvalidPair => Self::new(
                StatusCode::NOT_FOUND,
                "not_found",
                "No key answers to this. Send `Authorization: KEY:SECRET` with a key that is active and not expired.",
            ),
            Refusal::Throttled { retry_after } => {
                let mut answer = Self::new(StatusCode::TOO_MANY_REQUESTS, "too_many_requests", text);
                answer.retry_after = Some(retry_after);
                answer
            }
            Refusal::UsedUp { reason, retry_after } => {
                let mut answer = Self::new(StatusCode::TOO_MANY_REQUESTS, reason, text);
                answer.retry_after = Some(retry_after);
                answer
            }
            Refusal::KeyLimit(reason) => Self::new(StatusCode::FORBIDDEN, reason, text),
            Refusal::InvalidScope(_) => Self::new(
                StatusCode::BAD_REQUEST,
                "invalid_scope",
                format!("{text} Ask for less, or leave `scope` out to get all that the key holds."),
            ),
            Refusal::InvalidTarget => Self::new(
                StatusCode::BAD_REQUEST,
                "invalid_target",
                format!("{text} Ask an admin to add it to the tenant's settings, or leave `resource` out."),
            ),
            Refusal::WrongLogin => {
                let mut answer = Self::new(StatusCode::UNAUTHORIZED, "invalid_credentials", text);
                answer.challenge = Some("Bearer".into());
                answer
            }
            Refusal::InvalidGrant { why } => {
                let detail = match why {
                    Some(GrantRefused::Reused) => {
                        "One of this login's refresh tokens was used a second time, so it may have been stolen: the login has \
                             ended. Log in again."
                    }
                    Some(GrantRefused::Superseded) => {
                        "Another request used this refresh token at the same time, and went on from there. Use the newer token."
                    }
                    None => {
                        "The refresh token is not one that can be used now: it, or the login behind it, has ended. Log in again."
                    }
                };
                let mut answer = Self::new(StatusCode::UNAUTHORIZED, "invalid_grant", detail);
                answer.reason = why.map(|why| match why {
                    GrantRefused::Reused => "refresh_token_reused",
                    GrantRefused::Superseded => "superseded",
                });
                answer.challenge = Some("Bearer".into());
                answer
            }
            Refusal::NotAPerson => Self::new(
                StatusCode::FORBIDDEN,
                "not_a_person",
                "This is about a person who logged in, and the caller is a key. Log in at POST /t/{tenant}/v1/login.",
            ),
            Refusal::ActingForAnother => Self::new(
                StatusCode::FORBIDDEN,
                "acting_for_another",
                "Whoever acts for another does not do this in their name. Use a credential of your own.",
            ),
            Refusal::NotExchangeable(_) => Self::new(StatusCode::BAD_REQUEST, "invalid_request", text),
            Refusal::NoSession => {
                let detail = "Nobody is signed in here, or the session has ended. Sign in at /t/{tenant}/login.";
                let mut answer = Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail);
                answer.challenge = Some("Bearer".into());
                answer
            }
            Refusal::Upstream(declined) => Self::from(declined),
            Refusal::Unauthenticated => {
                let detail = "Send `Authorization: Bearer TOKEN`, or `Authorization: Basic` with an API key and its secret.";
                let mut answer = Self::new(StatusCode::UNAUTHORIZED, "unauthenticated", detail);
                answer.challenge = Some("Bearer".into());
                answer
            }
            Refusal::InvalidToken(why) => {
                let detail = format!(
                    "{text} Get another: refresh it at POST /v1/token/refresh, log in again, or exchange the key and secret at \
                     POST /v1/authentications."
                );
                let mut answer = Self::new(StatusCode::UNAUTHORIZED, "invalid_token", detail);
                answer.challenge = Some(format!("Bearer error=\"invalid_token\", error_description=\"{why}\""));
                answer
            }
            Refusal::InsufficientScope(scope) => {
                let mut answer = Self::new(StatusCode::FORBIDDEN, "insufficient_scope", text);
                answer.challenge = Some(format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\""));
                answer
            }
            Refusal::Conflict(_) => Self::new(StatusCode::CONFLICT, "conflict", text),
            Refusal::Invalid { field, problem } => Self::unprocessable(field, format!("`{field}` {problem}.")),
        }
    }
}

impl From<Declined> for Answer {
    fn from(declined: Declined) -> Self {
        let (status, detail) = match declined {
            Declined::State => (
                StatusCode::BAD_REQUEST,
                "This answer belongs to no sign-in that was begun in this browser, or it took too long. Begin again.",
            ),
            Declined::Refused => (
                StatusCode::UNAUTHORIZED,
                "The identity provider did not let you in, or its answer does not hold. Begin again, or ask an admin.",
            ),
            Declined::MissingGroup => {
                (StatusCode::FORBIDDEN, "You lack a group that is needed to sign in here. Ask an admin for it.")
            }
            Declined::NoAccount => (
                StatusCode::FORBIDDEN,
                "User auto-creation is disabled, and no account here is linked to you. Ask an admin for one, or sign in with \
                 your password and link it at your account page.",
            ),
            Declined::NameTaken => (
                StatusCode::CONFLICT,
                "There is an account with your name that is not linked to you there. If it is yours, sign in with its password \
                 and link it at your account page; or ask an admin.",
            ),
            Declined::NoName => {
                (StatusCode::FORBIDDEN, "The identity provider gives no name that an account here can have. Ask an admin.")
            }
            Declined::MayNot => (StatusCode::FORBIDDEN, "The account that is linked to you may not be used. Ask an admin."),
            Declined::NotWhoBegan => (
                StatusCode::FORBIDDEN,
                "Only whoever began to link an account can finish, signed in in the same browser. Begin again at your account \
                 page.",
            ),
            Declined::LinkedOtherwise => (
                StatusCode::CONFLICT,
                "That identity is linked to another account, or your account to another identity there. Unlink it first.",
            ),
        };
        let mut answer = Self::new(status, declined.reason(), detail);
        answer.challenge = (status == StatusCode::UNAUTHORIZED).then(|| "Bearer".into());
        answer
    }
}

impl From<Failure> for Answer {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refusal(refusal) => refusal.into(),
            Failure::Fault(fault @ Fault::Overloaded(_)) => {
                let detail = "More is asked for just now than can be done in time. Nothing was done: try again in a moment.";
                let mut answer = Self::new(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", detail);
                answer.retry_after = Some(2);
                answer.fault = Some(fault);
                answer
            }
            Failure::Fault(fault @ (Fault::Store(_) | Fault::Unknown(_))) => {
                let detail = "It is not known whether this was done: something that we depend on did not answer. Try again.";
                let mut answer = Self::new(StatusCode::SERVICE_UNAVAILABLE, "temporarily_unavailable", detail);
                answer.retry_after = Some(1);
                answer.fault = Some(fault);
                answer
            }
            Failure::Fault(fault @ Fault::Upstream(_)) => {
                let detail =
                    "The identity provider or directory gave no answer that is of use. Try again in a moment, or ask an admin.";
                let mut answer = Self::new(StatusCode::SERVICE_UNAVAILABLE, "upstream_unavailable", detail);
                answer.retry_after = Some(5);
                answer.fault = Some(fault);
                answer
            }
            Failure::Fault(fault @ Fault::Internal(_)) => {
                let mut answer = Self::internal();
                answer.fault = Some(fault);
                answer
            }
        }
    }
}

/// Begins with a capital and ends with a full stop.
pub(crate) fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    let first = letters.next().map(|first| first.to_uppercase().to_string()).unwrap_or_default();
    format!("{first}{}.", letters.as_str())
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.error)
    }
}

impl ResponseError for Answer {
    fn status_code(&self) -> StatusCode {
        self.status
    }

    fn error_response(&self) -> HttpResponse {
        let mut response = HttpResponseBuilder::new(self.status);
        if let Some(seconds) = self.retry_after {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        // A scope comes from the caller: what is no header value is left out.
        if let Some(challenge) = self.challenge.as_ref().and_then(|text| HeaderValue::from_str(text).ok()) {
            response.insert_header((header::WWW_AUTHENTICATE, challenge));
        }
        if let Some(id) = &self.request_id {
            response.insert_header(("x-request-id", id.as_str()));
        }
        if let Some(dialect) = self.dialect {
            let (kind, body) = dialect(self);
            return response.insert_header((header::CONTENT_TYPE, kind)).body(body);
        }
        if self.oauth {
            let error = OAuthError::new(self.error, &self.detail, self.reason);
            return response.json(error);
        }
        let problem = Problem {
            r#type: format!("urn:claviger:problem:{}", self.error),
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: self.detail.clone(),
            error: self.error,
            field: self.field.clone(),
            reason: self.reason,
        };
        response.insert_header((header::CONTENT_TYPE, "application/problem+json"));
        response.body(serde_json::to_string(&problem).unwrap_or_default())
    }
}
