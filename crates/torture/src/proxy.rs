//! The fault proxy between clients and a server.
//!
//! A client first says in a line of its own which call this is, how long its request is and what shall happen to it; the
//! line is for the proxy and goes no further. The server sees what a broken network would leave of the request.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::str::{FromStr, SplitWhitespace};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use crate::history::lock;
use crate::http::{Reply, read_reply};

/// What shall happen to a call. `abrupt` ends connections with a reset, otherwise in good order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Nothing.
    Never,
    /// The answer is read to its end, kept for the rig, and nothing of it is passed on.
    Swallow,
    /// The connections end after that many bytes of the request.
    Request { bytes: usize, abrupt: bool },
    /// The connections end after the request and at most that many bytes of the answer.
    Answer { bytes: usize, abrupt: bool },
    /// The connections end so long after the request; no answer is passed on.
    After { micros: u64, abrupt: bool },
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("never"),
            Self::Swallow => f.write_str("swallow"),
            Self::Request { bytes, abrupt } => write!(f, "request {bytes} {abrupt}"),
            Self::Answer { bytes, abrupt } => write!(f, "answer {bytes} {abrupt}"),
            Self::After { micros, abrupt } => write!(f, "after {micros} {abrupt}"),
        }
    }
}

/// The line in front of a request.
#[derive(Debug, PartialEq, Eq)]
struct Order {
    call: u64,
    length: usize,
    cut: Cut,
}

impl FromStr for Order {
    type Err = io::Error;

    fn from_str(line: &str) -> Result<Self, io::Error> {
        fn next<T: FromStr>(words: &mut SplitWhitespace<'_>) -> Result<T, io::Error> {
            words.next().and_then(|word| word.parse().ok()).ok_or_else(|| ErrorKind::InvalidData.into())
        }
        let mut words = line.split_whitespace();
        let (call, length) = (next(&mut words)?, next(&mut words)?);
        let cut = match next::<String>(&mut words)?.as_str() {
            "never" => Cut::Never,
            "swallow" => Cut::Swallow,
            "request" => Cut::Request { bytes: next(&mut words)?, abrupt: next(&mut words)? },
            "answer" => Cut::Answer { bytes: next(&mut words)?, abrupt: next(&mut words)? },
            "after" => Cut::After { micros: next(&mut words)?, abrupt: next(&mut words)? },
            _ => return Err(ErrorKind::InvalidData.into()),
        };
        Ok(Self { call, length, cut })
    }
}

/// A call as the proxy wants it.
pub(crate) fn order(call: u64, cut: Cut, request: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{call} {} {cut}\n", request.len()).into_bytes();
    bytes.extend_from_slice(request);
    bytes
}

/// A proxy in front of one server. Ends when dropped; connections under way end with their peers.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    swallowed: Arc<Mutex<HashMap<u64, Reply>>>,
    listening: JoinHandle<()>,
}

impl Proxy {
    /// Listens on a port of its own.
    ///
    /// # Errors
    /// There is no port to be had.
    pub(crate) async fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let swallowed = Arc::<Mutex<HashMap<u64, Reply>>>::default();
        let kept = swallowed.clone();
        let listening = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((client, _)) => {
                        let kept = kept.clone();
                        tokio::spawn(async move {
                            // Whatever goes wrong, both ends see their connection end: that is all a network would say.
                            let _ = serve(client, server, &kept).await;
                        });
                    }
                    // Out of descriptors, for instance: it passes.
                    Err(_) => sleep(Duration::from_millis(10)).await,
                }
            }
        });
        Ok(Self { address, swallowed, listening })
    }

    /// The answer to a call that was swallowed, if the server gave one.
    pub(crate) fn take_swallowed(&self, call: u64) -> Option<Reply> {
        lock(&self.swallowed).remove(&call)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

async fn serve(client: TcpStream, server: SocketAddr, swallowed: &Mutex<HashMap<u64, Reply>>) -> io::Result<()> {
    client.set_nodelay(true)?;
    let mut client = BufReader::new(client);
    let mut line = String::new();
    client.read_line(&mut line).await?;
    let Order { call, length, cut } = line.parse()?;
    let mut server = TcpStream::connect(server).await?;
    server.set_nodelay(true)?;

    let wanted = if let Cut::Request { bytes, .. } = cut { bytes.min(length) } else { length };
    let mut request = vec![0; wanted];
    client.read_exact(&mut request).await?;
    server.write_all(&request).await?;

    match cut {
        Cut::Never => {
            tokio::io::copy(&mut server, &mut client).await?;
            client.shutdown().await
        }
        Cut::Swallow => {
            let reply = read_reply(&mut server).await?;
            lock(swallowed).insert(call, reply);
            Ok(())
        }
        Cut::Request { abrupt, .. } => end(client.into_inner(), server, abrupt),
        Cut::Answer { bytes, abrupt } => {
            let limit = u64::try_from(bytes).unwrap_or(u64::MAX);
            tokio::io::copy(&mut (&mut server).take(limit), &mut client).await?;
            client.flush().await?;
            end(client.into_inner(), server, abrupt)
        }
        Cut::After { micros, abrupt } => {
            sleep(Duration::from_micros(micros)).await;
            end(client.into_inner(), server, abrupt)
        }
    }
}

/// Ends both connections.
fn end(client: TcpStream, server: TcpStream, abrupt: bool) -> io::Result<()> {
    if abrupt {
        server.set_zero_linger()?;
    }
    drop((client, server));
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    /// A server that reads until its caller stops for a moment or hangs up, tells what it read, and answers.
    async fn peer(answer: &'static [u8]) -> (SocketAddr, mpsc::UnboundedReceiver<Vec<u8>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, told) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut caller, _)) = listener.accept().await {
                let mut read = Vec::new();
                while !read.ends_with(b"end") && matches!(caller.read_buf(&mut read).await, Ok(1..)) {}
                if read.ends_with(b"end") {
                    let _ = caller.write_all(answer).await;
                }
                tell.send(read).unwrap();
            }
        });
        (address, told)
    }

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";

    async fn call(proxy: &Proxy, id: u64, cut: Cut) -> io::Result<Vec<u8>> {
        let mut connection = TcpStream::connect(proxy.address).await?;
        connection.write_all(&order(id, cut, b"begin .. end")).await?;
        let mut read = Vec::new();
        connection.read_to_end(&mut read).await?;
        Ok(read)
    }

    #[test]
    fn an_order_is_read_as_it_was_written() {
        let cuts = [
            Cut::Never,
            Cut::Swallow,
            Cut::Request { bytes: 3, abrupt: true },
            Cut::Answer { bytes: 0, abrupt: false },
            Cut::After { micros: 17, abrupt: true },
        ];
        for cut in cuts {
            let bytes = order(9, cut, b"abc");
            let line = std::str::from_utf8(&bytes[..bytes.len() - 3]).unwrap();
            assert_eq!(line.parse::<Order>().unwrap(), Order { call: 9, length: 3, cut });
        }
        assert!("1 2".parse::<Order>().is_err() && "1 2 answer".parse::<Order>().is_err());
    }

    #[tokio::test]
    async fn a_call_that_passes_is_relayed_both_ways_without_the_order() {
        let (server, mut told) = peer(ANSWER).await;
        let proxy = Proxy::start(server).await.unwrap();
        assert_eq!(call(&proxy, 1, Cut::Never).await.unwrap(), ANSWER);
        assert_eq!(told.recv().await.unwrap(), b"begin .. end");
    }

    #[tokio::test]
    async fn a_swallowed_answer_reaches_the_rig_alone() {
        let (server, mut told) = peer(ANSWER).await;
        let proxy = Proxy::start(server).await.unwrap();
        assert_eq!(call(&proxy, 7, Cut::Swallow).await.unwrap(), b"");
        assert_eq!(told.recv().await.unwrap(), b"begin .. end");
        let reply = proxy.take_swallowed(7).unwrap();
        assert_eq!((reply.status, reply.body.as_slice(), reply.bytes.as_slice()), (200, &b"hello"[..], ANSWER));
        assert!(proxy.take_swallowed(7).is_none());
    }

    #[tokio::test]
    async fn a_request_is_cut_after_exactly_that_many_bytes() {
        let (server, mut told) = peer(ANSWER).await;
        let proxy = Proxy::start(server).await.unwrap();
        for bytes in [0, 1, 5, 12] {
            let got = call(&proxy, 1, Cut::Request { bytes, abrupt: false }).await;
            assert!(got.is_err() || got.unwrap().is_empty());
            assert_eq!(told.recv().await.unwrap(), &b"begin .. end"[..bytes]);
        }
    }

    #[tokio::test]
    async fn an_answer_is_cut_after_exactly_that_many_bytes() {
        let (server, mut told) = peer(ANSWER).await;
        let proxy = Proxy::start(server).await.unwrap();
        for bytes in [1, 20, ANSWER.len(), ANSWER.len() + 9] {
            let got = call(&proxy, 1, Cut::Answer { bytes, abrupt: true }).await.unwrap();
            assert_eq!(got, &ANSWER[..bytes.min(ANSWER.len())]);
            assert_eq!(told.recv().await.unwrap(), b"begin .. end");
        }
    }

    #[tokio::test]
    async fn a_caller_that_hangs_up_after_a_while_has_sent_all_and_hears_nothing() {
        let (server, mut told) = peer(ANSWER).await;
        let proxy = Proxy::start(server).await.unwrap();
        let got = call(&proxy, 1, Cut::After { micros: 2_000, abrupt: true }).await;
        assert!(got.is_err() || got.unwrap().is_empty());
        assert_eq!(told.recv().await.unwrap(), b"begin .. end");
    }

    #[tokio::test]
    async fn a_server_that_is_down_is_a_connection_that_ends() {
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        let proxy = Proxy::start(nobody).await.unwrap();
        let got = call(&proxy, 1, Cut::Never).await;
        assert!(got.is_err() || got.unwrap().is_empty());
    }
}
