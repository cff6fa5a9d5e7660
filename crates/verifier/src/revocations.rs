//! What was revoked, as far as a verifier has heard: the batches of the issuer's feed put together, in 17 bytes an entry.

use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;

use serde::Deserialize;
use thiserror::Error;

use crate::compact::Compact;
use crate::verify::open;
use crate::{AccessToken, KeySet, Rejection};

/// `typ` of a batch.
const BATCH_TYPE: &str = "revocations+jwt";
/// Longest batch that is read, in bytes (8 MiB).
pub(crate) const LONGEST_BATCH: usize = 8 * 1024 * 1024;
/// Entries that a look-up reads: two lines of memory.
const RANGE: usize = 8;
/// Entries that are new enough not to be sorted yet.
const FEWEST_RECENT: usize = 1024;

/// Why a batch was not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum BatchError {
    /// Not signed by the issuer, or not a batch.
    #[error("a batch of revocations was refused: {0}")]
    Refused(#[from] Rejection),
    /// Of another issuer.
    #[error("a batch of another issuer's revocations")]
    Issuer,
    /// The claims are not those of a batch.
    #[error("a batch of revocations that cannot be read")]
    Malformed,
    /// It follows another cursor than ours: something was missed. Ask again without a cursor.
    #[error("revocations were missed")]
    Gap,
}

#[derive(Deserialize)]
struct Batch {
    iss: String,
    iat: i64,
    prev: Option<u64>,
    cursor: u64,
    more: bool,
    entries: Vec<Entry>,
}

/// `[claim, value, until]`, or with a fourth: tokens issued until then.
#[derive(Deserialize)]
#[serde(untagged)]
enum Entry {
    All(String, String, Option<i64>),
    Before(String, String, Option<i64>, i64),
}

/// What is kept of an entry.
#[derive(Debug, Clone, Copy)]
struct Times {
    /// Unix seconds after which no token can be stopped; `u32::MAX` is never.
    until: u32,
    /// Tokens issued until then, in Unix seconds; `u32::MAX` is all.
    before: u32,
}

/// One entry: a keyed hash of claim and value instead of both. With a million entries, a good token in three trillion is
/// refused by mistake; the key is random, so nobody can look for one.
#[derive(Debug, Clone, Copy)]
struct Held {
    hash: u64,
    times: Times,
}

/// Sorted, but for the newest.
#[derive(Debug, Default)]
struct Set {
    sorted: Vec<Held>,
    /// Where among the sorted each range of hashes begins: all of one length, for about [`RANGE`] entries each.
    ranges: Vec<u32>,
    recent: HashMap<u64, Times>,
}

impl Set {
    fn insert(&mut self, hash: u64, times: Times, now: i64) {
        self.recent.insert(hash, times);
        if self.recent.len() > FEWEST_RECENT.max(self.sorted.len() / 8) {
            self.sort(now);
        }
    }

    /// Puts the recent among the sorted and drops what is of no use any more.
    fn sort(&mut self, now: i64) {
        // In front, so that of two with the same hash the later is kept.
        let mut all: Vec<Held> = self.recent.drain().map(|(hash, times)| Held { hash, times }).collect();
        self.recent.shrink_to(FEWEST_RECENT);
        all.append(&mut self.sorted);
        all.retain(|held| held.times.until == u32::MAX || i64::from(held.times.until) > now);
        all.sort_by_key(|held| held.hash);
        all.dedup_by_key(|held| held.hash);
        all.shrink_to_fit();
        // Hashes are spread evenly, so their leading bits lead to them.
        let bits = (all.len() / RANGE).max(1).ilog2();
        let begin = |range: u64| all.partition_point(|held| held.hash.checked_shr(64 - bits).unwrap_or(0) < range);
        self.ranges = (0..=1 << bits).map(|range| u32::try_from(begin(range)).unwrap_or(u32::MAX)).collect();
        self.sorted = all;
    }

    fn get(&self, hash: u64) -> Option<Times> {
        self.recent.get(&hash).copied().or_else(|| {
            let range = usize::try_from(hash.checked_shr(64 - self.ranges.len().checked_sub(1)?.ilog2()).unwrap_or(0)).ok()?;
            let (from, until) = (*self.ranges.get(range)?, *self.ranges.get(range + 1)?);
            let near = self.sorted.get(usize::try_from(from).ok()?..usize::try_from(until).ok()?)?;
            near.iter().find(|held| held.hash == hash).map(|held| held.times)
        })
    }

    fn len(&self) -> usize {
        self.sorted.len() + self.recent.len()
    }
}

/// The state of the feed of one issuer.
///
/// [`Verifier`](crate::Verifier) keeps one by itself; this is for whoever carries batches by other means.
#[derive(Debug, Default)]
pub struct Revocations {
    hasher: RandomState,
    live: Set,
    /// A new beginning that is not complete yet: until then, what was known before counts.
    building: Option<Set>,
    cursor: Option<u64>,
    as_of: Option<i64>,
}

impl Revocations {
    /// Knows nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a batch at the time `now_unix` (Unix seconds). True when there is more to be read at once.
    ///
    /// # Errors
    /// Any [`BatchError`]; nothing of the batch is then kept. After a [`BatchError::Gap`] the cursor is forgotten.
    pub fn apply(&mut self, jws: &str, keys: &KeySet, issuer: &str, now_unix: i64) -> Result<bool, BatchError> {
        let payload = open(Compact::split_within(jws, LONGEST_BATCH)?, keys, |header| header.is(BATCH_TYPE))?;
        let batch: Batch = serde_json::from_slice(&payload).map_err(|_| BatchError::Malformed)?;
        let Batch { iss, iat, prev, cursor, more, entries } = batch;
        if iss != issuer {
            return Err(BatchError::Issuer);
        }
        match prev {
            None => self.building = Some(Set::default()),
            Some(_) if prev == self.cursor => {}
            Some(_) => {
                self.forget_cursor();
                return Err(BatchError::Gap);
            }
        }
        let set = self.building.as_mut().unwrap_or(&mut self.live);
        for entry in entries {
            let (claim, value, until, before) = match entry {
                Entry::All(claim, value, until) => (claim, value, until, None),
                Entry::Before(claim, value, until, before) => (claim, value, until, Some(before)),
            };
            let seconds = |at: i64| u32::try_from(at.max(0)).unwrap_or(u32::MAX).min(u32::MAX - 1);
            let times = Times { until: until.map_or(u32::MAX, seconds), before: before.map_or(u32::MAX, seconds) };
            set.insert(self.hasher.hash_one((claim.as_str(), value.as_str())), times, now_unix);
        }
        self.cursor = Some(cursor);
        if !more {
            if let Some(complete) = self.building.take() {
                self.live = complete;
            }
            // What lies in the future says that clocks differ, not that we know what will be.
            self.as_of = self.as_of.max(Some(iat.min(now_unix)));
        }
        Ok(more)
    }

    /// Whether a token is among what was revoked.
    #[must_use]
    pub fn stops(&self, token: &AccessToken) -> bool {
        let claims = [
            ("sid", token.session.as_deref()),
            ("key_id", token.key_id.as_deref()),
            ("sub", Some(token.subject.as_str())),
            ("client_id", token.client_id.as_deref()),
            ("jti", Some(token.token_id.as_str())),
            ("tid", token.tenant.as_deref()),
        ];
        // What lets somebody act for another ends with either.
        let acting = token.actor.iter().flat_map(|actor| {
            [
                ("sid", actor.session.as_deref()),
                ("key_id", actor.key_id.as_deref()),
                ("key_id", actor.client_key_id.as_deref()),
                ("sub", Some(actor.subject.as_str())),
                ("client_id", Some(actor.subject.as_str())),
            ]
        });
        self.live.len() > 0
            && claims.into_iter().chain(acting).any(|(claim, value)| {
                let times = value.and_then(|value| self.live.get(self.hasher.hash_one((claim, value))));
                times.is_some_and(|times| times.before == u32::MAX || token.issued_at <= i64::from(times.before))
            })
    }

    /// What to ask for next: `since`. `None` is the beginning.
    #[must_use]
    pub fn cursor(&self) -> Option<u64> {
        self.cursor
    }

    /// Until when everything is known, in Unix seconds; `None` before the first complete beginning.
    #[must_use]
    pub fn as_of(&self) -> Option<i64> {
        self.as_of
    }

    /// Begins anew with the next batch; what is known counts until that is complete.
    pub fn forget_cursor(&mut self) {
        self.cursor = None;
        self.building = None;
    }

    /// How many entries are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Bytes of memory that the entries take.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        // A hash table keeps a control byte beside each place, and an eighth of the places free.
        let recent = self.live.recent.capacity() * 8 / 7 * (size_of::<(u64, Times)>() + 1);
        self.live.sorted.capacity() * size_of::<Held>() + self.live.ranges.capacity() * size_of::<u32>() + recent
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use ed25519_dalek::{Signer as _, SigningKey};
    use serde_json::{Value, json};

    use super::*;
    use crate::Actor;

    const ISSUER: &str = "https://id.example/t/acme";
    const NOW: i64 = 1_800_000_000;

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[7; 32])
    }

    fn keys() -> KeySet {
        let mut keys = KeySet::new();
        keys.insert_ed25519("k", key().verifying_key().as_bytes()).unwrap();
        keys
    }

    fn jws(typ: &str, claims: &Value) -> String {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"typ":"{typ}","alg":"EdDSA","kid":"k"}}"#));
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(key().sign(signed.as_bytes()).to_bytes()))
    }

    fn batch(prev: Option<u64>, cursor: u64, more: bool, entries: Value) -> Value {
        json!({ "iss": ISSUER, "iat": NOW, "prev": prev, "cursor": cursor, "more": more, "entries": entries })
    }

    fn apply(revocations: &mut Revocations, claims: &Value) -> Result<bool, BatchError> {
        revocations.apply(&jws(BATCH_TYPE, claims), &keys(), ISSUER, NOW)
    }

    fn token() -> AccessToken {
        AccessToken {
            issuer: ISSUER.into(),
            subject: "person".into(),
            audience: vec![ISSUER.into()],
            expires_at: Some(NOW + 60),
            issued_at: NOW - 60,
            not_before: None,
            token_id: "token".into(),
            scope: vec![],
            roles: vec![],
            tenant: Some("tenant".into()),
            client_id: Some("client".into()),
            username: None,
            key_id: Some("key".into()),
            session: Some("login".into()),
            actor: None,
            narrowed: false,
            allowed_ips: Vec::new(),
            status: None,
        }
    }

    #[test]
    fn each_claim_stops_its_tokens_and_no_others() {
        for (claim, value) in
            [("sid", "login"), ("key_id", "key"), ("sub", "person"), ("client_id", "client"), ("jti", "token"), ("tid", "tenant")]
        {
            let mut revocations = Revocations::new();
            apply(&mut revocations, &batch(None, 1, false, json!([[claim, value, NOW + 60]]))).unwrap();
            assert!(revocations.stops(&token()), "{claim}");
            let mut revocations = Revocations::new();
            apply(&mut revocations, &batch(None, 2, false, json!([[claim, "other", null], ["new", value, null]]))).unwrap();
            assert!(!revocations.stops(&token()), "{claim}");
        }
    }

    #[test]
    fn a_token_for_acting_ends_with_the_actor_and_with_whatever_the_actor_used() {
        let acting = AccessToken {
            actor: Some(Actor {
                subject: "agent".into(),
                key_id: Some("agents-key".into()),
                session: Some("agents-login".into()),
                client_key_id: Some("clients-key".into()),
                right: Some("users:impersonate".into()),
            }),
            ..token()
        };
        for (claim, value, stops) in [
            ("sub", "agent", true),
            ("client_id", "agent", true),
            ("key_id", "agents-key", true),
            ("key_id", "clients-key", true),
            ("sid", "agents-login", true),
            ("sid", "agents-key", false),
            ("jti", "agent", false),
        ] {
            let mut revocations = Revocations::new();
            apply(&mut revocations, &batch(None, 1, false, json!([[claim, value, NOW + 60]]))).unwrap();
            assert_eq!(revocations.stops(&acting), stops, "{claim} {value}");
            assert!(!revocations.stops(&token()));
        }
    }

    #[test]
    fn what_was_issued_later_is_good_and_a_later_entry_counts() {
        let mut revocations = Revocations::new();
        let mut stops = |cursor: u64, entry: Value| {
            let prev = cursor.checked_sub(1).filter(|prev| *prev > 0);
            apply(&mut revocations, &batch(prev, cursor, false, json!([entry]))).unwrap();
            revocations.stops(&token())
        };
        assert!(stops(1, json!(["key_id", "key", null])));
        assert!(stops(2, json!(["key_id", "key", null, NOW - 60])));
        assert!(!stops(3, json!(["key_id", "key", null, NOW - 61])));
        assert!(stops(4, json!(["key_id", "key", NOW + 60])));
    }

    #[test]
    fn a_gap_is_noticed_and_what_is_known_counts_until_the_new_beginning_is_whole() {
        let mut revocations = Revocations::new();
        assert_eq!(apply(&mut revocations, &batch(Some(0), 1, false, json!([]))), Err(BatchError::Gap), "there was no beginning");
        assert_eq!(revocations.as_of(), None);
        apply(&mut revocations, &batch(None, 1, false, json!([["sid", "login", null]]))).unwrap();
        assert_eq!((revocations.cursor(), revocations.as_of()), (Some(1), Some(NOW)));
        assert_eq!(apply(&mut revocations, &batch(Some(2), 3, false, json!([]))), Err(BatchError::Gap));
        assert_eq!(revocations.cursor(), None);
        assert!(revocations.stops(&token()));
        assert_eq!(apply(&mut revocations, &batch(None, 5000, true, json!([["sid", "other", null]]))), Ok(true));
        assert!(revocations.stops(&token()), "the new beginning is not whole");
        assert_eq!(apply(&mut revocations, &batch(Some(5000), 5001, false, json!([]))), Ok(false));
        assert!(!revocations.stops(&token()));
        assert_eq!(revocations.len(), 1);
    }

    #[test]
    fn only_the_issuers_batches_are_taken() {
        let mut revocations = Revocations::new();
        let good = batch(None, 1, false, json!([["sid", "login", null]]));
        let as_token = revocations.apply(&jws("at+jwt", &good), &keys(), ISSUER, NOW);
        assert_eq!(as_token, Err(BatchError::Refused(Rejection::Type)));
        let mut forged = jws(BATCH_TYPE, &good);
        forged.replace_range(
            forged.len() - 10..forged.len() - 9,
            if forged.as_bytes()[forged.len() - 10] == b'A' { "B" } else { "A" },
        );
        let forged = revocations.apply(&forged, &keys(), ISSUER, NOW);
        assert_eq!(forged, Err(BatchError::Refused(Rejection::Signature)));
        let other = revocations.apply(&jws(BATCH_TYPE, &good), &keys(), "https://id.example/t/other", NOW);
        assert_eq!(other, Err(BatchError::Issuer));
        for claims in
            [json!({}), json!({ "iss": ISSUER }), batch(None, 1, false, json!([["sid"]])), batch(None, 1, false, json!(1))]
        {
            assert_eq!(apply(&mut revocations, &claims), Err(BatchError::Malformed), "{claims}");
        }
        assert!(revocations.is_empty());
        assert_eq!(revocations.as_of(), None);
    }

    #[test]
    fn news_is_as_old_as_it_says_and_never_of_tomorrow() {
        let mut revocations = Revocations::new();
        let mut of = |prev, iat: i64| {
            let mut claims = batch(prev, 1, false, json!([]));
            claims["iat"] = json!(iat);
            apply(&mut revocations, &claims).unwrap();
            revocations.as_of().unwrap() - NOW
        };
        assert_eq!(of(None, NOW - 100), -100);
        assert_eq!(of(Some(1), NOW - 200), -100, "an old batch told again is no news");
        assert_eq!(of(Some(1), NOW + 5000), 0);
    }

    #[test]
    fn entries_are_small_and_dropped_when_they_are_of_no_use() {
        let mut revocations = Revocations::new();
        let entries =
            |from: u64, until: i64| json!((from..from + 5000).map(|n| json!(["jti", n.to_string(), until])).collect::<Vec<_>>());
        apply(&mut revocations, &batch(None, 5000, false, entries(0, NOW))).unwrap();
        let mut cursor = 5000;
        while cursor < 50_000 {
            apply(&mut revocations, &batch(Some(cursor), cursor + 5000, false, entries(cursor, NOW + 60))).unwrap();
            cursor += 5000;
        }
        assert_eq!(revocations.len(), 45_000, "the first have ended");
        assert!(revocations.memory_bytes() < 45_000 * 24, "{}", revocations.memory_bytes());
        let stops = |n: u64| revocations.stops(&AccessToken { token_id: n.to_string(), ..token() });
        assert!(!stops(0) && !stops(50_000));
        assert!((5000..50_000).all(stops));
    }
}
