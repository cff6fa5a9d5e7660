//! Answers as a stranger compares them, and requests that no client library would send.

use std::net::SocketAddr;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{RequestBuilder, StatusCode};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::Answer;

/// Headers that differ from answer to answer and say nothing.
/// `connection` says whether a body that nobody read had arrived by then (RFC 9110 §7.6.1: it is of this hop alone).
const VARYING: [&str; 3] = ["date", "x-request-id", "connection"];

impl Answer {
    /// Everything that could tell this answer from another: status, headers and body, but not the varying headers.
    pub fn told(&self) -> String {
        let mut lines: Vec<String> = self
            .headers
            .iter()
            .filter(|(name, _)| !VARYING.contains(&name.as_str()))
            .map(|(name, value)| format!("{name}: {value:?}"))
            .collect();
        lines.sort();
        format!("{}\n{}\n\n{}", self.status.as_u16(), lines.join("\n"), self.text)
    }

    /// Status, names of headers and length of the body.
    pub fn shape(&self) -> String {
        let mut names: Vec<&str> = self.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        format!("{} {} {}", self.status.as_u16(), names.join(","), self.text.len())
    }

    /// The `field` of a 422, whose `error` is checked too.
    pub fn wrong_field(&self) -> String {
        assert_eq!(self.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", self.text);
        assert_eq!(self.error(), "invalid_request");
        self.json()["field"].as_str().unwrap_or_default().to_owned()
    }
}

/// Sends a request that was put together by hand.
pub async fn send(request: RequestBuilder) -> Answer {
    Answer::of(request.send().await.unwrap()).await
}

/// Sends these bytes over a connection of their own and reads the answer until the server closes it. They should ask
/// for `Connection: close`.
pub async fn raw(address: SocketAddr, request: &[u8]) -> Answer {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A server that refuses early may stop reading: its answer counts all the same.
    let _ = stream.write_all(request).await;
    let mut bytes = Vec::new();
    let mut chunk = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        bytes.extend_from_slice(&chunk[..read]);
    }
    let mut lines = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut lines);
    let status = match head.parse(&bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        other => panic!("not an answer: {other:?} in {:?}", String::from_utf8_lossy(&bytes)),
    };
    let mut headers = HeaderMap::new();
    for line in head.headers.iter() {
        let name = HeaderName::from_bytes(line.name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(line.value).unwrap());
    }
    let text = String::from_utf8_lossy(&bytes[status..]).into_owned();
    Answer { status: StatusCode::from_u16(head.code.unwrap()).unwrap(), headers, text }
}

/// `POST` to this path with these bytes as the `Authorization` header, whatever they are.
pub async fn raw_exchange(address: SocketAddr, path: &str, authorization: &[u8]) -> Answer {
    let mut request =
        format!("POST {path} HTTP/1.1\r\nHost: id.test\r\nConnection: close\r\nContent-Length: 0\r\nAuthorization: ")
            .into_bytes();
    request.extend_from_slice(authorization);
    request.extend_from_slice(b"\r\n\r\n");
    raw(address, &request).await
}
