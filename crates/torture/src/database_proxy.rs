//! The fault proxy between a server and Postgres: it cuts a connection around the COMMIT of a rotation.

use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinHandle;

use crate::history::lock;
use crate::wire::{Framer, Tracker, Verdict};

/// Codes in place of a protocol version.
const CANCEL: [u8; 4] = 80_877_102_u32.to_be_bytes();
const TLS: [u8; 4] = 80_877_103_u32.to_be_bytes();
const GSS: [u8; 4] = 80_877_104_u32.to_be_bytes();

/// Where to cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Snip {
    /// COMMIT never arrives.
    Before,
    /// COMMIT was carried out, its answer never arrives.
    After,
}

/// One cut at a time, made by whichever connection comes first.
#[derive(Debug, Default)]
pub(crate) struct Scissors {
    armed: Mutex<Option<Snip>>,
}

impl Scissors {
    /// The next commit will be cut.
    pub(crate) fn arm(&self, snip: Snip) {
        *lock(&self.armed) = Some(snip);
    }

    /// No commit will be cut. True when one was, since they were armed.
    pub(crate) fn put_away(&self) -> bool {
        lock(&self.armed).take().is_none()
    }

    fn take(&self, snip: Snip) -> bool {
        let mut armed = lock(&self.armed);
        let hit = *armed == Some(snip);
        if hit {
            *armed = None;
        }
        hit
    }
}

/// Listens like a Postgres. Ends when dropped; connections under way end with their peers.
pub(crate) struct DatabaseProxy {
    pub(crate) scissors: Arc<Scissors>,
    listening: JoinHandle<()>,
}

impl DatabaseProxy {
    /// Listens in `folder` for what shall go to the Postgres that listens in `postgres`.
    ///
    /// # Errors
    /// The socket cannot be made.
    pub(crate) fn start(folder: &Path, postgres: &Path) -> io::Result<Self> {
        let listener = UnixListener::bind(socket(folder))?;
        std::fs::set_permissions(socket(folder), std::fs::Permissions::from_mode(0o700))?;
        let scissors = Arc::<Scissors>::default();
        let (postgres, shared) = (socket(postgres), scissors.clone());
        let listening = tokio::spawn(async move {
            loop {
                match listener.accept().await {
                    Ok((client, _)) => {
                        let (postgres, scissors) = (postgres.clone(), shared.clone());
                        tokio::spawn(async move {
                            // However it ends, both connections end with it.
                            let _ = relay(client, &postgres, &scissors).await;
                        });
                    }
                    Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
                }
            }
        });
        Ok(Self { scissors, listening })
    }
}

impl Drop for DatabaseProxy {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// The socket that stands for port 5432 in a folder.
pub(crate) fn socket(folder: &Path) -> PathBuf {
    folder.join(".s.PGSQL.5432")
}

async fn relay(mut client: UnixStream, postgres: &Path, scissors: &Scissors) -> io::Result<()> {
    let mut server = UnixStream::connect(postgres).await?;
    let (mut asked, mut answered) = (Framer::default(), Framer::default());
    begin(&mut client, &mut server, &mut asked).await?;

    let mut tracker = Tracker::default();
    let mut held = Vec::new();
    loop {
        tokio::select! {
            read = client.read_buf(&mut asked.buffer) => {
                if read? == 0 {
                    return Ok(());
                }
                while let Some(message) = asked.next(true)? {
                    if tracker.asked(&message) && scissors.take(Snip::Before) {
                        return Ok(());
                    }
                    server.write_all(&message.bytes).await?;
                }
            }
            read = server.read_buf(&mut answered.buffer) => {
                if read? == 0 {
                    return Ok(());
                }
                while let Some(message) = answered.next(true)? {
                    let verdict = tracker.answered(&message);
                    if verdict == Verdict::Committed && scissors.take(Snip::After) {
                        return Ok(());
                    }
                    held.extend_from_slice(&message.bytes);
                    if verdict != Verdict::Hold {
                        client.write_all(&held).await?;
                        held.clear();
                    }
                }
            }
        }
    }
}

/// The messages without a kind, up to the one that begins a session.
async fn begin(client: &mut UnixStream, server: &mut UnixStream, asked: &mut Framer) -> io::Result<()> {
    loop {
        while let Some(message) = asked.next(false)? {
            match message.payload().first_chunk::<4>() {
                // Neither is spoken on a Unix socket, and Postgres would say the same.
                Some(&(TLS | GSS)) => client.write_all(b"N").await?,
                Some(&CANCEL) => {
                    server.write_all(&message.bytes).await?;
                    return Err(ErrorKind::ConnectionReset.into());
                }
                _ => return server.write_all(&message.bytes).await,
            }
        }
        if client.read_buf(&mut asked.buffer).await? == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio::sync::mpsc;

    use super::*;
    use crate::wire::Message;
    use crate::wire::tests::message;

    /// Something that answers queries as Postgres would, and tells which arrived.
    fn peer(folder: &Path) -> mpsc::UnboundedReceiver<String> {
        let listener = UnixListener::bind(socket(folder)).unwrap();
        let (tell, told) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok((mut caller, _)) = listener.accept().await {
                let tell = tell.clone();
                tokio::spawn(async move {
                    let (mut framer, mut begun, mut in_block) = (Framer::default(), false, false);
                    while matches!(caller.read_buf(&mut framer.buffer).await, Ok(1..)) {
                        while let Some(Message { bytes, .. }) = framer.next(begun).unwrap() {
                            begun = true;
                            let text = String::from_utf8_lossy(bytes.get(5..).unwrap()).trim_end_matches('\0').to_owned();
                            in_block = (in_block || text == "BEGIN") && text != "COMMIT";
                            let complete = message(b'C', format!("{text}\0").as_bytes());
                            let ready = message(b'Z', if in_block { b"T" } else { b"I" });
                            caller.write_all(&[complete.bytes, ready.bytes].concat()).await.unwrap();
                            tell.send(text).unwrap();
                        }
                    }
                    tell.send("gone".into()).unwrap();
                });
            }
        });
        told
    }

    struct Session(UnixStream, Framer);

    impl Session {
        async fn begin(folder: &Path) -> Self {
            let mut stream = UnixStream::connect(socket(folder)).await.unwrap();
            stream.write_all(&message(0, &TLS).bytes).await.unwrap();
            assert_eq!(stream.read_u8().await.unwrap(), b'N');
            stream.write_all(&message(0, &[0, 3, 0, 0]).bytes).await.unwrap();
            let mut session = Self(stream, Framer::default());
            assert_eq!(session.heard().await, Some("CZ".into()));
            session
        }

        /// The kinds of the next two messages; `None` when the connection ended.
        async fn heard(&mut self) -> Option<String> {
            let mut kinds = String::new();
            while kinds.len() < 2 {
                match self.1.next(true).unwrap() {
                    Some(message) => kinds.push(char::from(message.kind)),
                    None if self.0.read_buf(&mut self.1.buffer).await.unwrap_or(0) == 0 => return None,
                    None => {}
                }
            }
            Some(kinds)
        }

        async fn query(&mut self, text: &str) -> Option<String> {
            self.0.write_all(&message(b'Q', format!("{text}\0").as_bytes()).bytes).await.ok()?;
            self.heard().await
        }
    }

    const WRITE: &str = "INSERT INTO refresh_tokens VALUES (1)";

    async fn set_up() -> (tempfile::TempDir, DatabaseProxy, mpsc::UnboundedReceiver<String>, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (front, back) = (folder.path().join("front"), folder.path().join("back"));
        std::fs::create_dir(&front).unwrap();
        std::fs::create_dir(&back).unwrap();
        let mut told = peer(&back);
        let proxy = DatabaseProxy::start(&front, &back).unwrap();
        let mut session = Session::begin(&front).await;
        told.recv().await.unwrap();
        assert_eq!(session.query("SELECT 1").await, Some("CZ".into()));
        drop(session);
        assert_eq!(told.recv().await.unwrap(), "SELECT 1");
        assert_eq!(told.recv().await.unwrap(), "gone");
        (folder, proxy, told, front)
    }

    async fn begun(front: &Path, told: &mut mpsc::UnboundedReceiver<String>) -> Session {
        let mut session = Session::begin(front).await;
        told.recv().await.unwrap();
        session.query("BEGIN").await.map(|_| ()).unwrap();
        assert_eq!(session.query(WRITE).await, Some("CZ".into()));
        assert_eq!(told.recv().await.unwrap(), "BEGIN");
        assert_eq!(told.recv().await.unwrap(), WRITE);
        session
    }

    #[tokio::test]
    async fn after_commit_the_database_has_done_it_and_the_server_never_hears_of_it() {
        let (_folder, proxy, mut told, front) = set_up().await;
        let mut session = begun(&front, &mut told).await;
        proxy.scissors.arm(Snip::After);
        assert_eq!(session.query("COMMIT").await, None);
        assert!(proxy.scissors.put_away());
        assert_eq!(told.recv().await.unwrap(), "COMMIT");
        assert_eq!(told.recv().await.unwrap(), "gone");
    }

    #[tokio::test]
    async fn before_commit_the_database_never_hears_of_it_either() {
        let (_folder, proxy, mut told, front) = set_up().await;
        let mut session = begun(&front, &mut told).await;
        proxy.scissors.arm(Snip::Before);
        assert_eq!(session.query("COMMIT").await, None);
        assert!(proxy.scissors.put_away());
        assert_eq!(told.recv().await.unwrap(), "gone");
    }

    #[tokio::test]
    async fn a_statement_that_stands_alone_is_cut_too() {
        let (_folder, proxy, mut told, front) = set_up().await;
        let mut session = Session::begin(&front).await;
        told.recv().await.unwrap();
        proxy.scissors.arm(Snip::After);
        assert_eq!(session.query(WRITE).await, None);
        assert!(proxy.scissors.put_away());
        assert_eq!(told.recv().await.unwrap(), WRITE);
    }

    #[tokio::test]
    async fn scissors_cut_once_and_only_what_wrote_refresh_tokens() {
        let (_folder, proxy, mut told, front) = set_up().await;
        proxy.scissors.arm(Snip::After);
        let mut other = Session::begin(&front).await;
        for text in ["BEGIN", "SELECT * FROM refresh_tokens", "COMMIT"] {
            assert_eq!(other.query(text).await, Some("CZ".into()));
        }
        assert!(!proxy.scissors.put_away());
        for _ in 0..4 {
            told.recv().await.unwrap();
        }
        proxy.scissors.arm(Snip::After);
        let (mut first, mut second) = (begun(&front, &mut told).await, begun(&front, &mut told).await);
        assert_eq!(first.query("COMMIT").await, None);
        assert_eq!(second.query("COMMIT").await, Some("CZ".into()));
        assert!(proxy.scissors.put_away());
    }
}
