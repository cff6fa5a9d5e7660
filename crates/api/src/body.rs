//! What comes with a request: JSON bodies, forms and queries; bounded in size, depth and time, strict in their fields,
//! with errors that name the field.
//!
//! Bodies of known types, forms and queries do not fail on their own: a handler takes what was asked after its caller was
//! let in, so that what is wrong with a request is told only to who may make it. A raw body does, when it is too long or
//! too slow to be read at all.

use std::fmt;
use std::future::{Future, Ready, ready};
use std::marker::PhantomData;
use std::pin::Pin;
use std::time::Duration;

use actix_multipart::Multipart;
use actix_web::dev::Payload;
use actix_web::error::QueryPayloadError;
use actix_web::http::header::HeaderMap;
use actix_web::http::{StatusCode, header};
use actix_web::web::{Bytes, Query};
use actix_web::{FromRequest, HttpRequest};
use futures_util::{StreamExt as _, stream};
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, DeserializeOwned, Deserializer, MapAccess, Visitor};
use url::form_urlencoded;

use crate::problem::{Answer, Answered};

/// Longest body, in bytes. Also the limit of the app's `PayloadConfig`.
pub(crate) const LONGEST_BODY: usize = 64 * 1024;
/// Deepest nesting.
const DEEPEST: usize = 32;
/// How long a body may take to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// A JSON body that must be there.
pub(crate) struct Body<T>(Answered<T>);

/// A form (`application/x-www-form-urlencoded`).
pub(crate) struct FormBody<T>(Answered<T>);

/// A form in either of the ways in which browsers send one: as [`FormBody`], or as `multipart/form-data`.
pub(crate) struct AnyForm<T>(Answered<T>);

/// The query.
pub(crate) struct Asked<T>(Answered<T>);

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

impl<T> Body<T> {
    /// What it says.
    pub(crate) fn take(self) -> Answered<T> {
        self.0
    }
}

impl<T> FormBody<T> {
    /// What it says.
    pub(crate) fn take(self) -> Answered<T> {
        self.0
    }
}

impl<T> AnyForm<T> {
    /// What it says.
    pub(crate) fn take(self) -> Answered<T> {
        self.0
    }
}

impl<T> Asked<T> {
    /// What it says.
    pub(crate) fn take(self) -> Answered<T> {
        self.0
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for Body<T> {
    type Error = Answer;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Answer>>>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let kind = media_type(req);
        let json = kind == "application/json" || kind.starts_with("application/") && kind.ends_with("+json");
        let raw = RawBody::from_request(req, payload);
        Box::pin(async move {
            Ok(Self(match json {
                true => raw.await.and_then(|raw| parse(&raw.0)),
                false => Err(unsupported("application/json")),
            }))
        })
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for FormBody<T> {
    type Error = Answer;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Answer>>>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let form = is_form(req);
        let raw = RawBody::from_request(req, payload);
        Box::pin(async move {
            Ok(Self(match form {
                true => raw.await.and_then(|raw| read_form(&raw.0)),
                false => Err(unsupported("application/x-www-form-urlencoded")),
            }))
        })
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for AnyForm<T> {
    type Error = Answer;
    type Future = Pin<Box<dyn Future<Output = Result<Self, Answer>>>>;

    fn from_request(req: &HttpRequest, payload: &mut Payload) -> Self::Future {
        if media_type(req) != "multipart/form-data" {
            let form = FormBody::from_request(req, payload);
            return Box::pin(async move { Ok(Self(form.await?.0)) });
        }
        let raw = RawBody::from_request(req, payload);
        let headers = req.headers().clone();
        Box::pin(async move {
            let parts = async {
                let pairs = multipart_pairs(&headers, raw.await?.0).await?;
                read_form(pairs.as_bytes())
            };
            Ok(Self(parts.await))
        })
    }
}

fn read_form<T: DeserializeOwned>(form: &[u8]) -> Answered<T> {
    let text = std::str::from_utf8(form).map_err(|_| Answer::bad_request("The form is not UTF-8."))?;
    from_pairs(text).map_err(|why| Answer::bad_request(format!("The form does not fit: {why}.")))
}

/// The parts of a `multipart/form-data` body (RFC 7578) as the pairs of an ordinary form.
async fn multipart_pairs(headers: &HeaderMap, body: Bytes) -> Answered<String> {
    let unreadable = || Answer::bad_request("The form cannot be read: it is no multipart/form-data.");
    let mut parts = Multipart::new(headers, stream::iter([Ok(body)]));
    let mut pairs = form_urlencoded::Serializer::new(String::new());
    while let Some(part) = parts.next().await {
        let mut part = part.map_err(|_| unreadable())?;
        let name = part.name().ok_or_else(unreadable)?.to_owned();
        if part.content_disposition().is_some_and(|disposition| disposition.get_filename().is_some()) {
            return Err(Answer::bad_request("The form holds a file, where text belongs."));
        }
        let value = part.bytes(LONGEST_BODY).await.ok().and_then(Result::ok).ok_or_else(unreadable)?;
        let value = std::str::from_utf8(&value).map_err(|_| Answer::bad_request("The form is not UTF-8."))?;
        pairs.append_pair(&name, value);
    }
    Ok(pairs.finish())
}

impl<T: DeserializeOwned> FromRequest for Asked<T> {
    type Error = Answer;
    type Future = Ready<Result<Self, Answer>>;

    fn from_request(req: &HttpRequest, _: &mut Payload) -> Self::Future {
        let asked = from_pairs(req.query_string()).map_err(|why| {
            let field = named_field(&why).unwrap_or_default();
            Answer::unprocessable(field, format!("The query does not fit: {why}."))
        });
        ready(Ok(Self(asked)))
    }
}

/// Pairs of a query or a form, repeated and unknown ones refused as the type says.
fn from_pairs<T: DeserializeOwned>(text: &str) -> Result<T, String> {
    match Query::from_query(text) {
        Ok(Query(value)) => Ok(value),
        Err(QueryPayloadError::Deserialize(error)) => Err(without_values(&error.to_string())),
        Err(_) => Err("it cannot be read".to_owned()),
    }
}

fn media_type(req: &HttpRequest) -> String {
    let kind = req.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// True for `application/x-www-form-urlencoded`.
pub(crate) fn is_form(req: &HttpRequest) -> bool {
    media_type(req) == "application/x-www-form-urlencoded"
}

fn unsupported(wanted: &str) -> Answer {
    let detail = format!("Send the body as `Content-Type: {wanted}`.");
    Answer::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "invalid_request", detail)
}

/// A JSON object, and nothing else: derived types would take an array as well, its elements by position.
#[derive(Debug)]
pub(crate) struct Object<T>(pub(crate) T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(members))
            }
        }
        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

/// Parses JSON strictly: unknown and repeated fields are refused by the types themselves.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Answer> {
    if depth(bytes) > DEEPEST {
        return Err(Answer::bad_request(format!("The body is nested deeper than {DEEPEST} levels.")));
    }
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let Object(value) = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let path = error.path().to_string();
        let inner = error.into_inner();
        match inner.classify() {
            serde_json::error::Category::Data => {
                let text = without_values(&inner.to_string());
                // A body that is no object has no path.
                let field = named_field(&text).unwrap_or(path).trim_matches('.').to_owned();
                Answer::unprocessable(field, format!("The body does not fit: {text}."))
            }
            _ => Answer::bad_request("The body is not valid JSON."),
        }
    })?;
    json.end().map_err(|_| Answer::bad_request("The body is not valid JSON: something follows it."))?;
    Ok(value)
}

/// An error's text without the value that was sent: it may be a secret in the wrong place, and clients keep what we
/// answer in logs of their own.
fn without_values(text: &str) -> String {
    let kinds = ["invalid type", "invalid value", "unknown variant"];
    match kinds.iter().find(|kind| text.starts_with(**kind)).zip(text.rsplit_once(", expected ")) {
        Some((kind, (_, expected))) => format!("{kind}, expected {expected}"),
        None => text.to_owned(),
    }
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
        assert_eq!(status(r#"["a"]"#), 422);
        assert_eq!(status(""), 400);
    }

    #[test]
    fn p37_deep_nesting_is_refused_before_it_is_parsed() {
        assert_eq!(status(&"[".repeat(100_000)), 400);
        assert_eq!(depth(br#"{"a":"[[[[\"[[","b":[{}]}"#), 3);
    }
}
