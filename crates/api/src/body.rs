//! JSON bodies: bounded in size, depth and time, strict in their fields, with errors that name the field.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use actix_web::dev::Payload;
use actix_web::http::{StatusCode, header};
use actix_web::web::Bytes;
use actix_web::{FromRequest, HttpRequest};
use serde::de::{Deserialize, DeserializeOwned, Deserializer};

use crate::problem::Answer;

/// Longest body, in bytes. Also the limit of the app's `PayloadConfig`.
pub(crate) const LONGEST_BODY: usize = 64 * 1024;
/// Deepest nesting.
const DEEPEST: usize = 32;
/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// A JSON body that must be there.
pub(crate) struct Body<T>(pub(crate) T);

/// A body as it came, read whole.
pub(crate) struct RawBody(pub(crate) Bytes);

impl FromRequest for RawBody {
    type Error = Answer;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Answer>>>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let bytes = Bytes::from_request(req, payload);
        Box::pin(async move {
            match tokio::time::timeout(PATIENCE, bytes).await {
                Ok(Ok(bytes)) => Ok(Self(bytes)),
                Ok(Err(error)) if error.as_response_error().status_code() == StatusCode::PAYLOAD_TOO_LARGE => {
                    Err(Answer::new(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request", "The body is longer than 64 KiB."))
                }
                Ok(Err(_)) => Err(Answer::bad_request("The body could not be read.")),
                Err(_) => {
                    Err(Answer::new(StatusCode::REQUEST_TIMEOUT, "invalid_request", "The body took longer than 10 seconds."))
                }
            }
        })
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = Answer;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Answer>>>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let json = is_json(req);
        let raw = RawBody::from_request(req, payload);
        Box::pin(async move {
            if !json {
                let detail = "Send the body as `Content-Type: application/json`.";
                return Err(Answer::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request", detail));
            }
            parse(&raw.await?.0).map(Self)
        })
    }
}

fn is_json(req: &HttpRequest) -> bool {
    let Some(kind) = req.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()) else { return false };
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || kind.starts_with("application/") && kind.ends_with("+json")
}

/// Parses JSON strictly: unknown and repeated fields are refused by the types themselves.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Answer> {
    if depth(bytes) > DEEPEST {
        return Err(Answer::bad_request(format!("The body is nested deeper than {DEEPEST} levels.")));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data => {
                let text = inner.to_string();
                let field = named_field(&text).unwrap_or(path);
                Answer::unprocessable(field, format!("The body does not fit: {text}."))
            }
            _ => Answer::bad_request("The body is not valid JSON."),
        }
    })?;
    json.end().map_err(|_| Answer::bad_request("The body is not valid JSON: something follows it."))?;
    Ok(value)
}

/// The field that an error about a missing, unknown or repeated one names.
fn named_field(text: &str) -> Option<String> {
    let named = ["missing field `", "unknown field `", "duplicate field `"].iter().find_map(|start| text.strip_prefix(start))?;
    named.split_once('`').map(|(field, _)| field.chars().take(64).collect())
}

/// How deep brackets nest, strings left out.
fn depth(bytes: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in bytes {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

/// For a field of a change: absent is `None` (leave it), `null` is `Some(None)` (remove it).
pub(crate) fn present<'de, T: Deserialize<'de>, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(deserializer).map(Some)
}

#[cfg(test)]
mod tests {
    use actix_web::ResponseError as _;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Thing {
        #[expect(dead_code, reason = "only its parsing is of interest")]
        name: String,
    }

    fn status(text: &str) -> u16 {
        parse::<Thing>(text.as_bytes()).map_or_else(|answer| answer.status_code().as_u16(), |_| 200)
    }

    #[test]
    fn p42_twins_unknown_fields_and_trailing_text_are_refused() {
        assert_eq!(status(r#"{"name":"a"}"#), 200);
        assert_eq!(status(r#"{"name":"a","name":"b"}"#), 422);
        assert_eq!(status(r#"{"name":"a","\u006eame":"b"}"#), 422);
        assert_eq!(status(r#"{"name":"a","admin":true}"#), 422);
        assert_eq!(status(r#"{"name":"a"}{"#), 400);
        assert_eq!(status(r#"{"name":1}"#), 422);
        assert_eq!(status("{}"), 422);
        assert_eq!(status(""), 400);
    }

    #[test]
    fn p37_deep_nesting_is_refused_before_it_is_parsed() {
        assert_eq!(status(&"[".repeat(100_000)), 400);
        assert_eq!(depth(br#"{"a":"[[[[\"[[","b":[{}]}"#), 3);
    }
}
