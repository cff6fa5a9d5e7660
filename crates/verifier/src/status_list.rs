//! Status lists (IETF OAuth Token Status List): the bit of a token, fetched when it is first needed and kept for as long as its
//! list says.

use std::collections::HashMap;
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::read::ZlibDecoder;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderValue};
use url::Url;

use crate::client::{Refused, Unavailable};
use crate::compact::Compact;
use crate::json::Members;
use crate::published::{Published, read};
use crate::verify::open;
use crate::{KeySet, Rejection, StatusPlace};

/// `typ` of a list.
const LIST_TYPE: &str = "statuslist+jwt";
/// Longest list that is read, in bytes: signed, and with its bits unpacked. A million tokens.
const LONGEST_LIST: usize = 256 * 1024;
const MOST_BYTES: u64 = 128 * 1024;
/// Lists that are kept. Beyond that, all are fetched anew.
const MOST_LISTS: usize = 1_000;
/// Seconds for which a list is kept, whatever it says: its word counts between these.
const TTL: std::ops::RangeInclusive<i64> = 5..=3600;
/// For lists that say nothing: seconds for which they are kept, and after which they say nothing any more.
const USUAL: (i64, i64) = (60, 600);
/// How long a list may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between attempts while a list cannot be fetched.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A list that was fetched. Times are Unix seconds.
struct List {
    bits: Vec<u8>,
    /// To be fetched again from then on.
    stale_at: i64,
    /// Says nothing any more from then on.
    ends_at: i64,
}

impl List {
    /// Reads a signed list that was asked for at this place.
    fn read(jws: &str, keys: &KeySet, issuer: &str, uri: &str, now: i64, leeway: i64) -> Result<Self, Rejection> {
        let payload = open(Compact::split_within(jws, LONGEST_LIST)?, keys, |header| header.is(LIST_TYPE))?;
        let claims = Members::parse(&payload).ok_or(Rejection::Malformed("claims are not a JSON object"))?;
        let wrong = Rejection::Claims("status_list");
        let number = |name: &'static str| claims.number(name).map_err(|_| Rejection::Claims(name));
        let seconds = |number: f64| if (1.0..1e12).contains(&number) { Some(number as i64) } else { None };
        if claims.text("iss").ok().flatten().is_some_and(|iss| iss != issuer) {
            return Err(Rejection::Issuer);
        }
        // A list of another place says nothing about this one's tokens.
        if claims.text("sub").ok().flatten().as_deref() != Some(uri) {
            return Err(Rejection::Claims("sub"));
        }
        let iat = number("iat")?.and_then(seconds).ok_or(Rejection::Claims("iat"))?;
        if iat > now.saturating_add(leeway) {
            return Err(Rejection::NotYetValid);
        }
        let ttl = number("ttl")?.map(|ttl| seconds(ttl).ok_or(Rejection::Claims("ttl"))).transpose()?;
        let exp = number("exp")?.map(|exp| seconds(exp).ok_or(Rejection::Claims("exp"))).transpose()?;
        let ends_at = exp.unwrap_or(iat + USUAL.1).saturating_add(leeway);
        if now >= ends_at {
            return Err(Rejection::Expired);
        }
        let list = claims.object("status_list").ok().flatten().ok_or(wrong)?;
        let lst = list.text("lst").ok().flatten().ok_or(wrong)?;
        if list.number("bits") != Ok(Some(1.0)) {
            return Err(wrong);
        }
        let packed = URL_SAFE_NO_PAD.decode(lst).map_err(|_| wrong)?;
        let mut bits = Vec::new();
        // One byte more than may be, so that what is too long is seen.
        ZlibDecoder::new(packed.as_slice()).take(MOST_BYTES + 1).read_to_end(&mut bits).map_err(|_| wrong)?;
        if bits.len() as u64 > MOST_BYTES {
            return Err(wrong);
        }
        let ttl = ttl.unwrap_or(USUAL.0).clamp(*TTL.start(), *TTL.end());
        Ok(Self { bits, stale_at: now.saturating_add(ttl), ends_at })
    }

    /// The bit of a place; `None` where there is none.
    fn bit(&self, index: u64) -> Option<bool> {
        let byte = self.bits.get(usize::try_from(index / 8).ok()?)?;
        Some(byte >> (index % 8) & 1 == 1)
    }
}

/// One list's place.
#[derive(Default)]
struct Slot {
    kept: RwLock<Option<Arc<List>>>,
    /// One fetch at a time; holds when the last began.
    fetching: tokio::sync::Mutex<Option<Instant>>,
}

impl Slot {
    fn kept(&self) -> Option<Arc<List>> {
        self.kept.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The lists of one issuer.
pub(crate) struct StatusLists {
    slots: Mutex<HashMap<String, Arc<Slot>>>,
    leeway: i64,
}

impl StatusLists {
    pub(crate) fn new(leeway_seconds: u64) -> Self {
        Self { slots: Mutex::default(), leeway: i64::try_from(leeway_seconds).unwrap_or(i64::MAX) }
    }

    /// Whether the token of this place counts still.
    pub(crate) async fn check(
        &self,
        place: &StatusPlace,
        published: &Published,
        credential: Option<&HeaderValue>,
    ) -> Result<(), Refused> {
        let list = self.list(&place.uri, published, credential).await?;
        match list.bit(place.index) {
            Some(false) => Ok(()),
            Some(true) => Err(Refused::Revoked),
            None => Err(Refused::Token(Rejection::Claims("status"))),
        }
    }

    fn slot(&self, uri: &str) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(uri) {
            return slot.clone();
        }
        if slots.len() >= MOST_LISTS {
            slots.clear();
        }
        slots.entry(uri.to_owned()).or_default().clone()
    }

    async fn list(&self, uri: &str, published: &Published, credential: Option<&HeaderValue>) -> Result<Arc<List>, Refused> {
        let slot = self.slot(uri);
        let now = || (published.clock)();
        let fresh = || slot.kept().filter(|list| now() < list.stale_at);
        // Old, but better than nothing.
        let usable = || slot.kept().filter(|list| now() < list.ends_at).ok_or(Refused::Unavailable(Unavailable::StatusList));
        if let Some(list) = fresh() {
            return Ok(list);
        }
        let mut last = match slot.fetching.try_lock() {
            Ok(last) => last,
            Err(_) => match usable() {
                Ok(list) => return Ok(list),
                Err(_) => slot.fetching.lock().await,
            },
        };
        if let Some(list) = fresh() {
            return Ok(list);
        }
        if last.is_some_and(|last| last.elapsed() < RETRY_AFTER) {
            return usable();
        }
        *last = Some(Instant::now());
        let fetched = tokio::time::timeout(PATIENCE, self.fetch(uri, published, credential)).await;
        match fetched.unwrap_or_else(|_| Err("it took too long".into())) {
            Ok(list) => {
                let list = Arc::new(list);
                *slot.kept.write().unwrap_or_else(PoisonError::into_inner) = Some(list.clone());
                Ok(list)
            }
            Err(why) => {
                published.note(Some(format!("a status list of {} could not be fetched: {why}", published.issuer)));
                usable()
            }
        }
    }

    async fn fetch(&self, uri: &str, published: &Published, credential: Option<&HeaderValue>) -> Result<List, String> {
        // Signed by the issuer or not: nobody is sent elsewhere, least of all with a credential.
        let within = uri.strip_prefix(&published.issuer).is_some_and(|rest| rest.starts_with('/'));
        let place = Url::parse(uri).ok().filter(|place| within && place.as_str() == uri).ok_or("it is not the issuer's")?;
        let mut request = published.http.get(place).header(ACCEPT, "application/statuslist+jwt");
        if let Some(credential) = credential {
            request = request.header(AUTHORIZATION, credential.clone());
        }
        let answer = request.send().await.map_err(|error| error.without_url().to_string())?;
        let body = read(answer, LONGEST_LIST).await?;
        let jws = String::from_utf8(body).map_err(|_| "it is not text")?;
        let jws = jws.trim();
        let kept = published.get().await.map_err(|error| error.to_string())?;
        let take = |keys: &_| List::read(jws, keys, &published.issuer, uri, (published.clock)(), self.leeway);
        let mut list = take(&kept.keys);
        if matches!(list, Err(Rejection::UnknownKey))
            && let Some(newer) = published.newer_than(&kept).await
        {
            list = take(&newer.keys);
        }
        list.map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use std::io::Write as _;

    use ed25519_dalek::{Signer as _, SigningKey};
    use flate2::Compression;
    use flate2::write::ZlibEncoder;
    use serde_json::{Value, json};

    use super::*;

    const URI: &str = "https://id.example/t/acme/v1/status-lists/1";

    fn packed(bits: &[u8]) -> String {
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(bits).unwrap();
        URL_SAFE_NO_PAD.encode(encoder.finish().unwrap())
    }

    fn claims() -> Value {
        json!({ "iss": "https://id.example/t/acme", "sub": URI, "iat": 1000, "exp": 1600, "ttl": 60,
                "status_list": { "bits": 1, "lst": "eNrbuRgAAhcBXQ" } })
    }

    fn read_at(claims: &Value, typ: &str, now: i64) -> Result<List, Rejection> {
        let key = SigningKey::from_bytes(&[1; 32]);
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"typ":"{typ}","alg":"EdDSA","kid":"one"}}"#));
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let signature = URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).to_bytes());
        let mut keys = KeySet::new();
        keys.insert_ed25519("one", key.verifying_key().as_bytes()).unwrap();
        List::read(&format!("{signed}.{signature}"), &keys, "https://id.example/t/acme", URI, now, 5)
    }

    #[test]
    fn the_example_of_the_standard_is_read_bit_by_bit() {
        let list = read_at(&claims(), LIST_TYPE, 1010).unwrap();
        let set: Vec<u64> = (0..16).filter(|index| list.bit(*index) == Some(true)).collect();
        assert_eq!(set, [0, 3, 4, 5, 7, 8, 9, 13, 15]);
        assert_eq!((list.bit(16), list.bit(u64::MAX)), (None, None));
        assert_eq!((list.stale_at, list.ends_at), (1070, 1605));
    }

    #[test]
    fn a_list_must_be_the_one_that_was_asked_for_and_young_enough() {
        let refused = |name: &str, value: Value| {
            let mut claims = claims();
            claims.as_object_mut().unwrap().insert(name.to_owned(), value);
            read_at(&claims, LIST_TYPE, 1010).err()
        };
        assert_eq!(refused("sub", json!(format!("{URI}2"))), Some(Rejection::Claims("sub")));
        assert_eq!(refused("sub", json!(null)), Some(Rejection::Claims("sub")));
        assert_eq!(refused("iss", json!("https://id.example/t/other")), Some(Rejection::Issuer));
        assert_eq!(refused("iat", json!(1016)), Some(Rejection::NotYetValid));
        assert_eq!(refused("iat", json!("1000")), Some(Rejection::Claims("iat")));
        assert_eq!(refused("exp", json!(1005)), Some(Rejection::Expired));
        assert_eq!(refused("ttl", json!(0)), Some(Rejection::Claims("ttl")));
        for list in [
            json!({ "bits": 2, "lst": "eNrbuRgAAhcBXQ" }),
            json!({ "bits": 1 }),
            json!({ "bits": 1, "lst": "AAAA" }),
            json!({ "bits": 1, "lst": packed(&vec![0; 128 * 1024 + 1]) }),
        ] {
            assert_eq!(refused("status_list", list), Some(Rejection::Claims("status_list")));
        }
        for typ in ["at+jwt", "JWT", "revocations+jwt"] {
            assert_eq!(read_at(&claims(), typ, 1010).err(), Some(Rejection::Type), "{typ}");
        }
    }
}
