//! A client that sends bytes as they are and reads one answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::request::Request;

/// Far more than any answer takes; what takes longer has hung.
const PATIENCE: Duration = Duration::from_secs(30);

/// What came back.
#[derive(Debug)]
pub enum Heard {
    Answer(Answer),
    /// The server closed the connection without an answer.
    HungUp,
    /// Neither an answer nor an end.
    Silence,
}

/// An answer, read whole.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub took: Duration,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// Keeps its connection for as long as the server does.
pub struct Wire {
    address: SocketAddr,
    connection: Option<TcpStream>,
}

impl Wire {
    pub fn new(address: SocketAddr) -> Self {
        Self { address, connection: None }
    }

    /// Sends a request and hears what comes back.
    pub async fn send(&mut self, request: &Request) -> Heard {
        match self.connection.take() {
            // The server may close a connection that is kept at any time: then it did not see this request.
            Some(kept) => match self.send_over(Some(kept), request).await {
                Heard::HungUp => self.send_over(None, request).await,
                heard => heard,
            },
            None => self.send_over(None, request).await,
        }
    }

    async fn send_over(&mut self, kept: Option<TcpStream>, request: &Request) -> Heard {
        let mut connection = match kept {
            Some(connection) => connection,
            None => TcpStream::connect(self.address).await.expect("the server does not listen any more"),
        };
        let began = Instant::now();
        let (mut from, mut to) = connection.split();
        // Both at once: the answer may come before the whole was sent.
        let sending = async {
            let _ = to.write_all(&request.bytes).await;
            if request.hang_up {
                let _ = to.shutdown().await;
            }
        };
        let reading = tokio::time::timeout(PATIENCE, read_answer(&mut from, request.head_only));
        let (_, answer) = tokio::join!(tokio::time::timeout(PATIENCE, sending), reading);
        let (status, headers, body) = match answer {
            Ok(Some(read)) => read,
            Ok(None) => return Heard::HungUp,
            Err(_) => return Heard::Silence,
        };
        let answer = Answer { status, headers, body, took: began.elapsed() };
        let closes = answer.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
        if !request.not_http && !closes {
            self.connection = Some(connection);
        }
        Heard::Answer(answer)
    }
}

type Read = (u16, Vec<(String, String)>, Vec<u8>);

async fn read_answer(from: &mut (impl tokio::io::AsyncRead + Unpin), head_only: bool) -> Option<Read> {
    let mut bytes = Vec::new();
    loop {
        let (length, status, headers) = loop {
            let mut slots = [httparse::EMPTY_HEADER; 64];
            let mut parsed = httparse::Response::new(&mut slots);
            if let httparse::Status::Complete(length) = parsed.parse(&bytes).expect("an answer that is not HTTP") {
                let headers = parsed
                    .headers
                    .iter()
                    .map(|header| (header.name.to_owned(), String::from_utf8_lossy(header.value).into_owned()));
                break (length, parsed.code.unwrap(), headers.collect::<Vec<_>>());
            }
            more(from, &mut bytes).await?;
        };
        bytes.drain(..length);
        if (100..200).contains(&status) {
            continue;
        }
        let of = |name: &str| headers.iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str());
        if head_only || matches!(status, 204 | 304) {
            return Some((status, headers, Vec::new()));
        }
        if let Some(length) = of("content-length") {
            let length: usize = length.parse().unwrap();
            while bytes.len() < length {
                more(from, &mut bytes).await?;
            }
            bytes.truncate(length);
            return Some((status, headers, bytes));
        }
        if of("transfer-encoding").is_some() {
            let mut body = Vec::new();
            loop {
                match httparse::parse_chunk_size(&bytes).expect("a chunk that is none") {
                    httparse::Status::Complete((start, size)) => {
                        let size = usize::try_from(size).unwrap();
                        while bytes.len() < start + size + 2 {
                            more(from, &mut bytes).await?;
                        }
                        body.extend_from_slice(&bytes[start..start + size]);
                        bytes.drain(..start + size + 2);
                        if size == 0 {
                            return Some((status, headers, body));
                        }
                    }
                    httparse::Status::Partial => more(from, &mut bytes).await?,
                }
            }
        }
        while more(from, &mut bytes).await.is_some() {}
        return Some((status, headers, bytes));
    }
}

async fn more(from: &mut (impl tokio::io::AsyncRead + Unpin), into: &mut Vec<u8>) -> Option<()> {
    match from.read_buf(into).await {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(()),
    }
}
