//! Follows the issuer's revocations: a stream of events where there is one, else one answer after another.

use std::hash::{BuildHasher as _, RandomState};
use std::sync::PoisonError;
use std::time::Duration;

use reqwest::StatusCode;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};

use crate::Rejection;
use crate::client::Core;
use crate::published::read;
use crate::revocations::{BatchError, LONGEST_BATCH};

/// How long a stream may be silent: the issuer says something every 10 seconds.
const SILENCE: Duration = Duration::from_secs(25);
/// Seconds that one answer is waited for.
const WAIT: u64 = 20;
/// Longest pause between attempts, in milliseconds.
const LONGEST_PAUSE: u64 = 5_000;

/// Follows for ever.
pub(crate) async fn follow(core: &Core) {
    let mut failures = 0u32;
    loop {
        match follow_once(core).await {
            Ok(()) => failures = 0,
            Err(why) => {
                failures = (failures + 1).min(6);
                core.published.note(Some(format!("the revocations of {} could not be followed: {why}", core.published.issuer)));
            }
        }
        tokio::time::sleep(pause(failures, RandomState::new().hash_one(failures))).await;
    }
}

/// Doubles from 100 ms to 5 s; of that, each follower waits another part, so that many do not come back at once.
fn pause(failures: u32, random: u64) -> Duration {
    let longest = (100u64 << failures.min(6)).min(LONGEST_PAUSE);
    Duration::from_millis(longest / 2 + random % (longest / 2))
}

/// Until a stream ends, or something goes wrong.
async fn follow_once(core: &Core) -> Result<(), String> {
    let mut wait = 0;
    loop {
        let kept = core.published.get().await.map_err(|error| error.to_string())?;
        let mut place = kept.revocations.clone().ok_or("it publishes none")?;
        let cursor = core.revocations().cursor();
        if let Some(cursor) = cursor {
            place.query_pairs_mut().append_pair("since", &cursor.to_string());
        }
        if core.long_poll && wait > 0 {
            place.query_pairs_mut().append_pair("wait", &wait.to_string());
        }
        let mut request = core.published.http.get(place);
        if !core.long_poll {
            request = request.header(ACCEPT, "text/event-stream");
        }
        if let Some(credential) = &core.credential {
            request = request.header(AUTHORIZATION, credential.clone());
        }
        let patience = Duration::from_secs(wait) + SILENCE;
        let answer = tokio::time::timeout(patience, request.send()).await.map_err(|_| "no answer came")?;
        let answer = answer.map_err(|error| error.without_url().to_string())?;
        let streams = answer.headers().get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if streams && answer.status() == StatusCode::OK {
            return stream(core, answer).await;
        }
        let body = tokio::time::timeout(SILENCE, read(answer, LONGEST_BATCH)).await.map_err(|_| "the answer did not end")??;
        let jws = String::from_utf8(body).map_err(|_| "the answer is not text")?;
        wait = if take(core, jws.trim()).await? { 0 } else { WAIT };
        if !core.long_poll && wait > 0 {
            // Whoever stands between us and the issuer does not stream.
            tokio::time::sleep(Duration::from_secs(2)).await;
        }
    }
}

async fn stream(core: &Core, mut answer: reqwest::Response) -> Result<(), String> {
    let mut lines = Lines::default();
    loop {
        let part = tokio::time::timeout(SILENCE, answer.chunk()).await.map_err(|_| "the stream fell silent")?;
        let Some(part) = part.map_err(|error| error.without_url().to_string())? else { return Ok(()) };
        for data in lines.push(&part)? {
            take(core, &data).await?;
        }
    }
}

/// True when there is more to be read at once.
async fn take(core: &Core, jws: &str) -> Result<bool, String> {
    let kept = core.published.get().await.map_err(|error| error.to_string())?;
    let apply = |keys: &_| {
        let mut revocations = core.revocations.write().unwrap_or_else(PoisonError::into_inner);
        revocations.apply(jws, keys, &core.published.issuer, (core.published.clock)())
    };
    let mut applied = apply(&kept.keys);
    if applied == Err(BatchError::Refused(Rejection::UnknownKey))
        && let Some(newer) = core.published.newer_than(&kept).await
    {
        applied = apply(&newer.keys);
    }
    let more = applied.map_err(|error| error.to_string())?;
    core.heard.send_replace(core.revocations().as_of());
    Ok(more)
}

/// The `data` of events (the event stream format of the HTML standard, one line each, as the issuer sends them).
#[derive(Default)]
struct Lines {
    rest: Vec<u8>,
}

impl Lines {
    /// The data of the events that are complete with this part.
    fn push(&mut self, part: &[u8]) -> Result<Vec<String>, String> {
        let mut found = Vec::new();
        for piece in part.split_inclusive(|byte| *byte == b'\n') {
            if self.rest.len() + piece.len() > LONGEST_BATCH {
                return Err("an event is too long".into());
            }
            self.rest.extend_from_slice(piece);
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.rest);
                let line = String::from_utf8(line).map_err(|_| "an event is not text")?;
                found.extend(line.strip_prefix("data:").map(|data| data.trim().to_owned()));
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_read_however_they_are_cut() {
        let text = b"event: revocations\nid: 1\ndata: one\n\n: comment\r\nevent: revocations\r\nid: 2\r\ndata:two\r\n\r\n";
        for size in 1..text.len() {
            let mut lines = Lines::default();
            let found: Vec<String> = text.chunks(size).flat_map(|part| lines.push(part).unwrap()).collect();
            assert_eq!(found, ["one", "two"], "in parts of {size}");
        }
    }

    #[test]
    fn a_line_without_an_end_is_given_up() {
        let mut lines = Lines::default();
        let part = vec![b'x'; LONGEST_BATCH / 2];
        assert!(lines.push(&part).is_ok());
        assert!(lines.push(&part).is_ok());
        assert!(lines.push(b"x").is_err());
    }

    #[test]
    fn pauses_grow_and_differ() {
        assert!((50..100).contains(&pause(0, 12_345).as_millis()));
        assert!((2500..5000).contains(&pause(9, 777).as_millis()));
        assert_ne!(pause(5, 1), pause(5, 2));
    }
}
