//! Stands before the servers: passes each connection on to one that is there, and counts the JWK sets that are asked for.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

/// What a request for it has in its first line. It is sent in one piece.
const JWKS: &[u8] = b"/.well-known/jwks.json HTTP/1.1\r\n";

pub(crate) struct Switchboard {
    pub(crate) address: SocketAddr,
    pub(crate) asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Switchboard {
    /// Passes on what comes to this listener.
    pub(crate) fn start(listener: TcpListener, servers: Vec<SocketAddr>) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = asked.clone();
        let task = tokio::spawn(async move {
            let mut calls = JoinSet::new();
            let mut turn = 0;
            while let Ok((near, _)) = listener.accept().await {
                turn += 1;
                let mut servers = servers.clone();
                let length = servers.len().max(1);
                servers.rotate_left(turn % length);
                calls.spawn(pass(near, servers, counter.clone()));
                while calls.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, asked, task })
    }

    /// A place to listen at, for who must know it before the servers run.
    pub(crate) async fn listener() -> std::io::Result<TcpListener> {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await
    }
}

impl Drop for Switchboard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(near: TcpStream, servers: Vec<SocketAddr>, asked: Arc<AtomicUsize>) {
    for server in servers {
        // One that was killed refuses.
        let Ok(far) = TcpStream::connect(server).await else { continue };
        let (mut from_near, mut to_near) = near.into_split();
        let (mut from_far, mut to_far) = far.into_split();
        let up = async {
            let mut buffer = vec![0; 4096];
            while let Ok(read @ 1..) = from_near.read(&mut buffer).await {
                let sent = buffer.get(..read).unwrap_or_default();
                let found = sent.windows(JWKS.len()).filter(|part| *part == JWKS).count();
                asked.fetch_add(found, Ordering::Relaxed);
                if to_far.write_all(sent).await.is_err() {
                    break;
                }
            }
        };
        let down = tokio::io::copy(&mut from_far, &mut to_near);
        // Either side's end is the end: a server that is killed must not leave anybody waiting.
        tokio::select! {
            () = up => {}
            _ = down => {}
        }
        return;
    }
}
