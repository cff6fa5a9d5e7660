//! HTTP/1.1, one request a connection: as little as the faults leave to be done.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Nothing that is asked here has a longer answer.
const LONGEST_REPLY: usize = 256 * 1024;

/// An answer that arrived whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) retry_after: bool,
    pub(crate) body: Vec<u8>,
    /// Exactly as it came.
    pub(crate) bytes: Vec<u8>,
}

impl Reply {
    /// Its body as JSON; null where it is none.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

/// A request as bytes.
pub(crate) fn request(method: &str, path: &str, authorization: Option<&str>, json: Option<&serde_json::Value>) -> Vec<u8> {
    let mut text = format!("{method} {path} HTTP/1.1\r\nHost: torture\r\nConnection: close\r\n");
    if let Some(value) = authorization {
        text.push_str(&format!("Authorization: {value}\r\n"));
    }
    let body = json.map(serde_json::Value::to_string);
    if let Some(body) = &body {
        text.push_str(&format!("Content-Type: application/json\r\nContent-Length: {}\r\n", body.len()));
    }
    text.push_str("\r\n");
    text.push_str(&body.unwrap_or_default());
    text.into_bytes()
}

/// Sends a request without any fault.
///
/// # Errors
/// There is no whole answer within 10 seconds.
pub(crate) async fn ask(address: SocketAddr, request: &[u8]) -> anyhow::Result<Reply> {
    let exchange = async {
        let mut connection = TcpStream::connect(address).await?;
        connection.write_all(request).await?;
        read_reply(&mut connection).await
    };
    Ok(timeout(Duration::from_secs(10), exchange).await??)
}

/// Reads one answer to its end.
///
/// # Errors
/// It is cut short, not HTTP, too long, or framed in a way that is not expected here.
pub(crate) async fn read_reply<S: AsyncRead + Unpin>(stream: &mut S) -> io::Result<Reply> {
    let mut bytes = Vec::with_capacity(2_048);
    let (mut reply, head, length) = loop {
        if let Some(head) = parse_head(&bytes)? {
            break head;
        }
        more(stream, &mut bytes).await?;
    };
    while bytes.len() < head + length {
        more(stream, &mut bytes).await?;
    }
    reply.body = bytes.get(head..head + length).unwrap_or_default().to_vec();
    bytes.truncate(head + length);
    reply.bytes = bytes;
    Ok(reply)
}

/// The answer without its body, the length of its head, and that of its body. `None` while the head is incomplete.
fn parse_head(bytes: &[u8]) -> io::Result<Option<(Reply, usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut headers);
    let end = match head.parse(bytes).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))? {
        httparse::Status::Complete(end) => end,
        httparse::Status::Partial => return Ok(None),
    };
    let header = |name: &str| head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name)).map(|h| h.value);
    let length = header("content-length").and_then(|value| std::str::from_utf8(value).ok()).and_then(|text| text.parse().ok());
    let length = length.filter(|length| *length <= LONGEST_REPLY);
    let length = length.ok_or_else(|| io::Error::new(ErrorKind::InvalidData, "an answer without a sensible content-length"))?;
    let retry_after = header("retry-after").is_some();
    let status = head.code.unwrap_or_default();
    Ok(Some((Reply { status, retry_after, body: Vec::new(), bytes: Vec::new() }, end, length)))
}

async fn more<S: AsyncRead + Unpin>(stream: &mut S, bytes: &mut Vec<u8>) -> io::Result<()> {
    if bytes.len() > LONGEST_REPLY {
        return Err(io::Error::new(ErrorKind::InvalidData, "an answer that does not end"));
    }
    match stream.read_buf(bytes).await? {
        0 => Err(ErrorKind::UnexpectedEof.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_is_read_to_its_last_byte_and_not_further() {
        let mut wire = &b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nContent-Length: 4\r\n\r\n{\"\"}rest"[..];
        let reply = read_reply(&mut wire).await.unwrap();
        assert_eq!((reply.status, reply.retry_after, reply.body.as_slice()), (503, true, &b"{\"\"}"[..]));
        assert!(reply.bytes.ends_with(b"\r\n\r\n{\"\"}"));
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_anywhere_is_none() {
        let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nbody";
        assert!(read_reply(&mut &whole[..]).await.is_ok());
        for cut in 0..whole.len() {
            assert!(read_reply(&mut &whole[..cut]).await.is_err(), "{cut}");
        }
    }

    #[test]
    fn a_request_says_how_long_it_is() {
        let text = String::from_utf8(request("POST", "/x", Some("Basic eA=="), Some(&serde_json::json!({"a": 1})))).unwrap();
        assert!(text.starts_with("POST /x HTTP/1.1\r\n") && text.contains("\r\nContent-Length: 7\r\n"));
        assert!(text.contains("\r\nAuthorization: Basic eA==\r\n") && text.ends_with("\r\n\r\n{\"a\":1}"));
        assert!(String::from_utf8(request("GET", "/x", None, None)).unwrap().ends_with("Connection: close\r\n\r\n"));
    }
}
