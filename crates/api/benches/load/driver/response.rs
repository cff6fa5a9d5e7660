//! Reads one HTTP/1.1 answer off a connection and throws its body away, unless it is wanted.
//!
//! The head is left to `httparse`; where the answer ends follows RFC 9112 §6.3.

use std::io::{self, ErrorKind};

use tokio::io::{AsyncRead, AsyncReadExt};

/// A head, or a line of a chunked body, must fit; bodies may be larger.
const BUFFER_BYTES: usize = 16 * 1024;
const MAX_HEADERS: usize = 64;

/// What the driver needs to know of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// The server will not answer on this connection again.
    pub(crate) close: bool,
}

/// Bytes read but not yet understood. One per connection, allocated once.
pub(crate) struct Buffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
    /// The last answer's body, where somebody wants it.
    body: Option<Vec<u8>>,
}

impl Buffer {
    /// An empty buffer.
    pub(crate) fn new() -> Self {
        Self { bytes: vec![0; BUFFER_BYTES], start: 0, end: 0, body: None }
    }

    /// An empty buffer that keeps the last answer's body.
    pub(crate) fn keeping_bodies() -> Self {
        Self { body: Some(Vec::new()), ..Self::new() }
    }

    /// The last answer's body, unless it is not kept.
    pub(crate) fn body(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default()
    }

    /// Whether every byte read so far was understood.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Forgets what is left of a former connection.
    pub(crate) fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    fn pending(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    fn consume(&mut self, count: usize) {
        self.start = (self.start + count).min(self.end);
        if self.is_empty() {
            self.clear();
        }
    }

    /// Appends what the stream has; 0 means that it has ended.
    async fn fill<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<usize> {
        if self.start > 0 {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        let room = self.bytes.get_mut(self.end..).unwrap_or_default();
        if room.is_empty() {
            return Err(invalid("the head is too long"));
        }
        let count = stream.read(room).await?;
        self.end += count;
        Ok(count)
    }

    /// As [`Buffer::fill`], where the answer is not complete without more.
    async fn fill_more<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<()> {
        if self.fill(stream).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        Ok(())
    }

    /// Goes past so many bytes that are there, which are the body's.
    fn pass(&mut self, count: usize) {
        if let Some(body) = &mut self.body {
            body.extend_from_slice(self.bytes.get(self.start..self.start + count).unwrap_or_default());
        }
        self.consume(count);
    }

    /// Goes past this many bytes of the body.
    async fn skip<S: AsyncRead + Unpin>(&mut self, stream: &mut S, mut count: u64) -> io::Result<()> {
        loop {
            let here = self.pending().len();
            if let Ok(count) = usize::try_from(count)
                && count <= here
            {
                self.pass(count);
                return Ok(());
            }
            self.pass(here);
            count -= here as u64;
            self.fill_more(stream).await?;
        }
    }

    /// Skips one line and says whether it was empty.
    async fn skip_line<S: AsyncRead + Unpin>(&mut self, stream: &mut S) -> io::Result<bool> {
        loop {
            let mut pair = self.pending().windows(2);
            if let Some(length) = pair.position(|two| two == b"\r\n") {
                self.consume(length + 2);
                return Ok(length == 0);
            }
            self.fill_more(stream).await?;
        }
    }
}

/// Reads the next final answer whole. `to_head` says that the request was a `HEAD`, whose answer has no body.
///
/// # Errors
/// The stream fails or ends too early, or what it says is not HTTP/1.1.
pub(crate) async fn read_answer<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Buffer, to_head: bool) -> io::Result<Answer> {
    let head = loop {
        match parse_head(buffer.pending())? {
            // 1xx: the final answer is still to come (RFC 9110 §15.2).
            Some(head) if head.status < 200 => buffer.consume(head.length),
            Some(head) => break head,
            None => buffer.fill_more(stream).await?,
        }
    };
    buffer.consume(head.length);
    if let Some(body) = &mut buffer.body {
        body.clear();
    }
    let mut close = head.close;
    match head.body {
        _ if to_head || matches!(head.status, 204 | 304) => {}
        Body::Sized(length) => buffer.skip(stream, length).await?,
        Body::Chunked => skip_chunks(stream, buffer).await?,
        Body::UntilClose => {
            close = true;
            loop {
                buffer.pass(buffer.pending().len());
                if buffer.fill(stream).await? == 0 {
                    break;
                }
            }
        }
    }
    Ok(Answer { status: head.status, close })
}

/// The part of a head that says where the answer ends.
struct Head {
    status: u16,
    close: bool,
    body: Body,
    length: usize,
}

#[derive(Clone, Copy)]
enum Body {
    Sized(u64),
    Chunked,
    UntilClose,
}

/// `None` while the head is incomplete.
fn parse_head(bytes: &[u8]) -> io::Result<Option<Head>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(invalid(error)),
    };
    let mut close = response.version == Some(0);
    let mut body = Body::UntilClose;
    for header in response.headers.iter() {
        if header.name.eq_ignore_ascii_case("content-length") {
            // A chunked body overrides its length, whichever header comes first (RFC 9112 §6.3).
            if !matches!(body, Body::Chunked) {
                body = Body::Sized(number(header.value)?);
            }
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            if !header.value.eq_ignore_ascii_case(b"chunked") {
                return Err(invalid("an unknown transfer encoding"));
            }
            body = Body::Chunked;
        } else if header.name.eq_ignore_ascii_case("connection") {
            close |= header.value.split(|byte| *byte == b',').any(|option| option.trim_ascii().eq_ignore_ascii_case(b"close"));
        }
    }
    Ok(Some(Head { status: response.code.unwrap_or_default(), close, body, length }))
}

/// RFC 9112 §7.1: chunks up to the empty one, then trailer lines up to the empty one.
async fn skip_chunks<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Buffer) -> io::Result<()> {
    loop {
        let (line, size) = match httparse::parse_chunk_size(buffer.pending()) {
            Ok(httparse::Status::Complete(chunk)) => chunk,
            Ok(httparse::Status::Partial) => {
                buffer.fill_more(stream).await?;
                continue;
            }
            Err(_) => return Err(invalid("a malformed chunk size")),
        };
        buffer.consume(line);
        if size == 0 {
            break;
        }
        buffer.skip(stream, size).await?;
        if !buffer.skip_line(stream).await? {
            return Err(invalid("a chunk longer than it says"));
        }
    }
    while !buffer.skip_line(stream).await? {}
    Ok(())
}

fn number(digits: &[u8]) -> io::Result<u64> {
    std::str::from_utf8(digits)
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .ok_or_else(|| invalid("a malformed content-length"))
}

fn invalid(reason: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, reason)
}
