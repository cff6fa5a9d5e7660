//! As much of the Postgres protocol (version 3, "Frontend/Backend Protocol") as it takes to know when a transaction that
//! wrote refresh tokens has been committed.
//!
//! ```text
//!   a client writes refresh tokens ──► COMMIT, or the end of a statement that stands alone
//!        │                                  │ from here on the server's messages are held back
//!        ▼                                  ▼
//!   marked                             ReadyForQuery(idle): committed; anything else: all is passed on
//! ```
//!
//! A statement that stands alone is committed after its CommandComplete, but before ReadyForQuery: only the latter proves
//! it. Postgres sends both together, so holding the former back until then delays nothing.

use std::collections::HashMap;
use std::io::{self, ErrorKind};

/// No message of ours is longer.
const LONGEST_MESSAGE: usize = 64 * 1024 * 1024;

/// What a statement must begin with, in lower case, to be one that writes refresh tokens. Somewhere within it, because it
/// may stand behind a WITH.
const WRITES: [&str; 2] = ["insert into refresh_tokens", "update refresh_tokens"];

/// One message. `kind` is 0 for those that begin a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Message {
    pub(crate) kind: u8,
    /// All of it, as it goes over the wire.
    pub(crate) bytes: Vec<u8>,
}

impl Message {
    /// What follows kind and length.
    pub(crate) fn payload(&self) -> &[u8] {
        self.bytes.get(if self.kind == 0 { 4 } else { 5 }..).unwrap_or_default()
    }
}

/// Cuts a stream of bytes into messages.
#[derive(Debug, Default)]
pub(crate) struct Framer {
    pub(crate) buffer: Vec<u8>,
}

impl Framer {
    /// The next message, if it is there as a whole. The first ones of a client have no kind.
    ///
    /// # Errors
    /// The bytes are no messages.
    pub(crate) fn next(&mut self, has_kind: bool) -> io::Result<Option<Message>> {
        let at = usize::from(has_kind);
        let Some(length) = self.buffer.get(at..).and_then(|rest| rest.first_chunk::<4>()) else { return Ok(None) };
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        if !(4..=LONGEST_MESSAGE).contains(&length) {
            return Err(ErrorKind::InvalidData.into());
        }
        if self.buffer.len() < at + length {
            return Ok(None);
        }
        let kind = if has_kind { self.buffer.first().copied().unwrap_or_default() } else { 0 };
        Ok(Some(Message { kind, bytes: self.buffer.drain(..at + length).collect() }))
    }
}

/// What to do with a message from Postgres.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Pass it on, and whatever was held back before it.
    Relay,
    /// Keep it back.
    Hold,
    /// A transaction that wrote refresh tokens has just become durable, and nobody was told yet.
    Committed,
}

/// Follows one connection.
#[derive(Debug, Default)]
pub(crate) struct Tracker {
    /// Prepared statements by name: whether they write refresh tokens.
    statements: HashMap<Vec<u8>, bool>,
    portals: HashMap<Vec<u8>, bool>,
    /// Within a transaction block, as Postgres said last.
    in_block: bool,
    /// Refresh tokens were written since the transaction began.
    marked: bool,
    /// This round of messages may end the transaction.
    ending: bool,
    /// Something failed, or was undone, in this round.
    undone: bool,
}

impl Tracker {
    /// Follows a message to Postgres. True when it asks to commit a transaction that wrote refresh tokens.
    pub(crate) fn asked(&mut self, message: &Message) -> bool {
        let payload = message.payload();
        let mut texts = payload.split(|byte| *byte == 0);
        let mut text = || texts.next().unwrap_or_default();
        match message.kind {
            b'P' => {
                let (name, query) = (text(), text());
                self.statements.insert(name.to_vec(), writes(query));
            }
            b'B' => {
                let (portal, statement) = (text(), text());
                let writes = self.statements.get(statement).copied().unwrap_or(false);
                self.portals.insert(portal.to_vec(), writes);
            }
            b'E' if self.portals.get(text()).copied().unwrap_or(false) => {
                self.marked = true;
                self.ending |= !self.in_block;
            }
            b'Q' => {
                let query = text();
                if writes(query) {
                    self.marked = true;
                    self.ending |= !self.in_block;
                }
                if is_commit(query) && self.marked {
                    self.ending = true;
                    return true;
                }
            }
            _ => {}
        }
        false
    }

    /// Follows a message from Postgres.
    pub(crate) fn answered(&mut self, message: &Message) -> Verdict {
        match message.kind {
            // ErrorResponse.
            b'E' => self.undone = true,
            // CommandComplete. COMMIT of a failed transaction answers ROLLBACK.
            b'C' if message.payload().starts_with(b"ROLLBACK") => self.undone = true,
            // ReadyForQuery.
            b'Z' => {
                self.in_block = message.payload() != b"I";
                let committed = self.marked && !self.in_block && !self.undone;
                self.marked &= self.in_block;
                (self.ending, self.undone) = (false, false);
                return if committed { Verdict::Committed } else { Verdict::Relay };
            }
            _ => {}
        }
        if self.ending { Verdict::Hold } else { Verdict::Relay }
    }
}

fn writes(query: &[u8]) -> bool {
    let query = String::from_utf8_lossy(query).to_ascii_lowercase();
    let words: Vec<&str> = query.split_whitespace().collect();
    let query = words.join(" ");
    WRITES.iter().any(|write| query.contains(write))
}

fn is_commit(query: &[u8]) -> bool {
    let query = String::from_utf8_lossy(query).trim().trim_end_matches(';').to_ascii_lowercase();
    matches!(query.as_str(), "commit" | "end")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A message of that kind.
    pub(crate) fn message(kind: u8, payload: &[u8]) -> Message {
        let mut bytes = if kind == 0 { Vec::new() } else { vec![kind] };
        bytes.extend_from_slice(&u32::try_from(payload.len() + 4).unwrap().to_be_bytes());
        bytes.extend_from_slice(payload);
        Message { kind, bytes }
    }

    const WRITE: &[u8] = b"s1\0WITH moved AS (UPDATE token_families SET x = 1), born AS (\n  INSERT INTO\n refresh_tokens (a) SELECT 1) SELECT 1\0\0\0";
    const READ: &[u8] = b"s2\0SELECT * FROM refresh_tokens FOR UPDATE\0\0\0";

    /// Prepares both statements on a new connection.
    fn connection() -> Tracker {
        let mut tracker = Tracker::default();
        assert!(!tracker.asked(&message(b'P', WRITE)));
        assert!(!tracker.asked(&message(b'P', READ)));
        assert_eq!(tracker.answered(&message(b'Z', b"I")), Verdict::Relay);
        tracker
    }

    fn execute(tracker: &mut Tracker, statement: &str) {
        tracker.asked(&message(b'B', format!("\0{statement}\0\0\0\0\0\0\0").as_bytes()));
        tracker.asked(&message(b'E', b"\0\0\0\0\0"));
        tracker.asked(&message(b'S', b""));
    }

    fn query(tracker: &mut Tracker, text: &str) -> bool {
        tracker.asked(&message(b'Q', format!("{text}\0").as_bytes()))
    }

    #[test]
    fn bytes_become_messages_wherever_they_are_split() {
        let all: Vec<u8> = [message(b'Z', b"I"), message(b'C', b"COMMIT\0")].iter().flat_map(|m| m.bytes.clone()).collect();
        for split in 0..=all.len() {
            let mut framer = Framer::default();
            let mut found = Vec::new();
            for part in [&all[..split], &all[split..]] {
                framer.buffer.extend_from_slice(part);
                while let Some(message) = framer.next(true).unwrap() {
                    found.push(message.kind);
                }
            }
            assert_eq!(found, b"ZC");
        }
        let mut first = Framer { buffer: vec![0, 0, 0, 8, 4, 210, 22, 47, b'Q'] };
        assert_eq!(first.next(false).unwrap().unwrap().payload(), [4, 210, 22, 47]);
        assert_eq!(first.buffer, b"Q");
        assert!(Framer { buffer: vec![b'Q', 0, 0, 0, 3] }.next(true).is_err());
        assert!(Framer { buffer: vec![b'Q', 255, 0, 0, 3] }.next(true).is_err());
    }

    #[test]
    fn the_commit_of_a_transaction_that_wrote_refresh_tokens_is_found() {
        let mut tracker = connection();
        assert!(!query(&mut tracker, "BEGIN; SET LOCAL app.tenant = 'x'"));
        assert_eq!(tracker.answered(&message(b'C', b"BEGIN\0")), Verdict::Relay);
        assert_eq!(tracker.answered(&message(b'C', b"SET\0")), Verdict::Relay);
        assert_eq!(tracker.answered(&message(b'Z', b"T")), Verdict::Relay);
        execute(&mut tracker, "s1");
        assert_eq!(tracker.answered(&message(b'C', b"SELECT 1\0")), Verdict::Relay);
        assert_eq!(tracker.answered(&message(b'Z', b"T")), Verdict::Relay);
        execute(&mut tracker, "s2");
        assert_eq!(tracker.answered(&message(b'Z', b"T")), Verdict::Relay);
        assert!(query(&mut tracker, "COMMIT"));
        assert_eq!(tracker.answered(&message(b'C', b"COMMIT\0")), Verdict::Hold);
        assert_eq!(tracker.answered(&message(b'Z', b"I")), Verdict::Committed);
        // The next transaction begins anew.
        query(&mut tracker, "BEGIN");
        assert_eq!(tracker.answered(&message(b'Z', b"T")), Verdict::Relay);
        assert!(!query(&mut tracker, "COMMIT"));
        assert_eq!(tracker.answered(&message(b'Z', b"I")), Verdict::Relay);
    }

    #[test]
    fn a_statement_that_stands_alone_is_committed_when_postgres_is_ready_again() {
        let mut tracker = connection();
        execute(&mut tracker, "s1");
        assert_eq!(tracker.answered(&message(b'2', b"")), Verdict::Hold);
        assert_eq!(tracker.answered(&message(b'C', b"INSERT 0 1\0")), Verdict::Hold);
        assert_eq!(tracker.answered(&message(b'Z', b"I")), Verdict::Committed);
    }

    #[test]
    fn what_is_undone_or_only_reads_is_no_commit() {
        let mut tracker = connection();
        execute(&mut tracker, "s2");
        assert_eq!(tracker.answered(&message(b'C', b"SELECT 1\0")), Verdict::Relay);
        assert_eq!(tracker.answered(&message(b'Z', b"I")), Verdict::Relay);
        // An error of a statement that stands alone.
        execute(&mut tracker, "s1");
        assert_eq!(tracker.answered(&message(b'E', b"SERROR\0\0")), Verdict::Hold);
        assert_eq!(tracker.answered(&message(b'Z', b"I")), Verdict::Relay);
        // A block that failed: COMMIT answers ROLLBACK.
        query(&mut tracker, "BEGIN");
        tracker.answered(&message(b'Z', b"T"));
        execute(&mut tracker, "s1");
        tracker.answered(&message(b'Z', b"E"));
        assert!(query(&mut tracker, "COMMIT;"));
        assert_eq!(tracker.answered(&message(b'C', b"ROLLBACK\0")), Verdict::Hold);
        assert_eq!(tracker.answered(&message(b'Z', b"I")), Verdict::Relay);
        // A block that was given up.
        query(&mut tracker, "BEGIN");
        tracker.answered(&message(b'Z', b"T"));
        execute(&mut tracker, "s1");
        tracker.answered(&message(b'Z', b"T"));
        assert!(!query(&mut tracker, "ROLLBACK"));
        tracker.answered(&message(b'C', b"ROLLBACK\0"));
        assert_eq!(tracker.answered(&message(b'Z', b"I")), Verdict::Relay);
    }
}
