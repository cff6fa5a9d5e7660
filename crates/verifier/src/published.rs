//! What the issuer publishes: its metadata (RFC 8414) and its keys, fetched ahead of need and kept while it is away.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant};

use reqwest::header::CACHE_CONTROL;
use reqwest::{Response, StatusCode};
use serde::Deserialize;
use url::{Host, Url};

use crate::client::{Clock, Unavailable};
use crate::{KeySet, MAX_JWKS_BYTES};

/// How long a document may take to arrive.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest metadata that are read, in bytes.
const LONGEST_METADATA: usize = 64 * 1024;
/// Seconds that keys are fresh, whatever the issuer says: its word counts between these, unless less was asked for.
pub(crate) const FRESH: std::ops::RangeInclusive<i64> = 30..=3600;
/// Between attempts while there are no keys that may be used.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The part of the metadata that we use.
#[derive(Deserialize)]
struct Metadata {
    issuer: String,
    jwks_uri: String,
    revocations_endpoint: Option<String>,
}

/// What was fetched, and when.
pub(crate) struct Kept {
    pub(crate) keys: KeySet,
    pub(crate) revocations: Option<Url>,
    /// Unix seconds.
    pub(crate) fetched_at: i64,
    /// Seconds after which it is to be fetched again.
    pub(crate) fresh_for: i64,
}

/// The cache.
pub(crate) struct Published {
    pub(crate) issuer: String,
    pub(crate) http: reqwest::Client,
    pub(crate) clock: Clock,
    /// Seconds for which keys are used while the issuer is away.
    pub(crate) stale_for: i64,
    /// Seconds that keys are fresh at least.
    pub(crate) fresh_at_least: i64,
    /// Between fetches because of unknown key ids.
    pub(crate) between_fetches: Duration,
    pub(crate) plain_http: bool,
    pub(crate) kept: RwLock<Option<Arc<Kept>>>,
    /// One fetch at a time; holds when the last began.
    pub(crate) fetching: tokio::sync::Mutex<Option<Instant>>,
    pub(crate) last_error: Mutex<Option<String>>,
}

impl Published {
    /// What may be used now.
    pub(crate) fn usable(&self) -> Option<Arc<Kept>> {
        let kept = self.kept.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        is_usable(kept.fetched_at, self.stale_for, (self.clock)()).then_some(kept)
    }

    /// What may be used now, fetched if need be.
    pub(crate) async fn get(&self) -> Result<Arc<Kept>, Unavailable> {
        if let Some(kept) = self.usable() {
            return Ok(kept);
        }
        let mut last = self.fetching.lock().await;
        if let Some(kept) = self.usable() {
            return Ok(kept);
        }
        if last.is_some_and(|last| last.elapsed() < RETRY_AFTER) {
            return Err(Unavailable::Keys);
        }
        *last = Some(Instant::now());
        self.fetch().await.ok_or(Unavailable::Keys)
    }

    /// Newer keys than those, because one was not among them. `None` when there are none, or it is too early to ask:
    /// anybody can send unknown key ids.
    pub(crate) async fn newer_than(&self, known: &Arc<Kept>) -> Option<Arc<Kept>> {
        let mut last = self.fetching.lock().await;
        let kept = self.usable()?;
        if !Arc::ptr_eq(&kept, known) {
            return Some(kept);
        }
        if last.is_some_and(|last| last.elapsed() < self.between_fetches) {
            return None;
        }
        *last = Some(Instant::now());
        self.fetch().await
    }

    /// Fetches ahead of need, for ever.
    pub(crate) async fn refresh(&self) {
        let mut failures = 0u32;
        loop {
            let mut last = self.fetching.lock().await;
            *last = Some(Instant::now());
            let fetched = self.fetch().await;
            drop(last);
            let wait = match fetched {
                Some(kept) => {
                    failures = 0;
                    // At four fifths of its time.
                    Duration::from_secs(u64::try_from(kept.fresh_for).unwrap_or(0)) * 4 / 5
                }
                None => {
                    failures += 1;
                    Duration::from_secs(1 << failures.min(5))
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    async fn fetch(&self) -> Option<Arc<Kept>> {
        let outcome = tokio::time::timeout(PATIENCE, self.try_fetch()).await.unwrap_or_else(|_| Err("it took too long".into()));
        match outcome {
            Ok(kept) => {
                let kept = Arc::new(kept);
                *self.kept.write().unwrap_or_else(PoisonError::into_inner) = Some(kept.clone());
                self.note(None);
                Some(kept)
            }
            Err(why) => {
                self.note(Some(format!("the keys of {} could not be fetched: {why}", self.issuer)));
                None
            }
        }
    }

    pub(crate) fn note(&self, error: Option<String>) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    async fn try_fetch(&self) -> Result<Kept, String> {
        let (inserted, appended) = places(&self.issuer).ok_or("the issuer is not a URL")?;
        let mut answer = self.ask(inserted).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            answer = self.ask(appended).await?;
        }
        let metadata = read(answer, LONGEST_METADATA).await?;
        let metadata: Metadata = serde_json::from_slice(&metadata).map_err(|_| "the metadata cannot be read")?;
        // RFC 8414 §3.3: compared byte for byte.
        if metadata.issuer != self.issuer {
            return Err("the metadata are another issuer's".into());
        }
        let revocations = metadata.revocations_endpoint.map(|place| self.place(&place)).transpose()?;
        let answer = self.ask(self.place(&metadata.jwks_uri)?).await?;
        let fresh_for = max_age(&answer).unwrap_or(0).clamp(self.fresh_at_least, *FRESH.end());
        let jwks = String::from_utf8(read(answer, MAX_JWKS_BYTES).await?).map_err(|_| "the JWK set is not text")?;
        let keys = KeySet::from_jwks(&jwks).map_err(|error| error.to_string())?;
        Ok(Kept { keys, revocations, fetched_at: (self.clock)(), fresh_for })
    }

    fn place(&self, text: &str) -> Result<Url, String> {
        Url::parse(text).ok().filter(|url| may_ask(url, self.plain_http)).ok_or_else(|| format!("{text} is not an https URL"))
    }

    async fn ask(&self, place: Url) -> Result<Response, String> {
        // Without the URL: what is behind it is said beside it.
        self.http.get(place).send().await.map_err(|error| error.without_url().to_string())
    }
}

/// Keys that were fetched a while ago may be used for that many seconds.
fn is_usable(fetched_at: i64, stale_for: i64, now: i64) -> bool {
    now.saturating_sub(fetched_at) <= stale_for
}

/// Over https, to this machine, or where plain http was asked for.
pub(crate) fn may_ask(url: &Url, plain_http: bool) -> bool {
    let here = match url.host() {
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        Some(Host::Domain(name)) => name == "localhost",
        None => return false,
    };
    url.scheme() == "https" || url.scheme() == "http" && (here || plain_http)
}

/// Where the metadata are: as RFC 8414 §3.1 says, and behind the issuer.
fn places(issuer: &str) -> Option<(Url, Url)> {
    const NAME: &str = "/.well-known/oauth-authorization-server";
    let url = Url::parse(issuer).ok()?;
    let mut inserted = url.clone();
    inserted.set_path(&format!("{NAME}{}", url.path().trim_end_matches('/')));
    let mut appended = url.clone();
    appended.set_path(&format!("{}{NAME}", url.path().trim_end_matches('/')));
    Some((inserted, appended))
}

/// Seconds that an answer says it is fresh for (RFC 9111 §5.2.2.1).
fn max_age(answer: &Response) -> Option<i64> {
    let control = answer.headers().get(CACHE_CONTROL)?.to_str().ok()?;
    control.split(',').find_map(|directive| directive.trim().strip_prefix("max-age=")?.parse().ok())
}

/// A body of at most that many bytes, of an answer that is 200.
pub(crate) async fn read(mut answer: Response, longest: usize) -> Result<Vec<u8>, String> {
    if answer.status() != StatusCode::OK {
        return Err(format!("the answer was {}", answer.status()));
    }
    let mut body = Vec::new();
    while let Some(part) = answer.chunk().await.map_err(|error| error.without_url().to_string())? {
        if body.len() + part.len() > longest {
            return Err("the answer is too long".into());
        }
        body.extend_from_slice(&part);
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metadata_have_two_places() {
        let (inserted, appended) = places("https://id.example/t/acme").unwrap();
        assert_eq!(inserted.as_str(), "https://id.example/.well-known/oauth-authorization-server/t/acme");
        assert_eq!(appended.as_str(), "https://id.example/t/acme/.well-known/oauth-authorization-server");
        assert!(places("id.example").is_none());
    }

    #[test]
    fn keys_are_asked_for_over_https_or_here() {
        let may = |url: &str, plain| may_ask(&Url::parse(url).unwrap(), plain);
        for url in ["https://id.example/", "http://127.0.0.1:8080/", "http://[::1]/", "http://localhost/"] {
            assert!(may(url, false), "{url}");
        }
        for url in ["http://id.example/", "http://127.0.0.1.example/", "http://10.0.0.1/", "ftp://localhost/"] {
            assert!(!may(url, false), "{url}");
        }
        assert!(may("http://id.internal/", true));
        assert!(!may("file:///etc/passwd", true));
    }

    #[test]
    fn keys_grow_stale_to_the_second() {
        assert!(is_usable(1000, 60, 1060));
        assert!(!is_usable(1000, 60, 1061));
        assert!(is_usable(1000, 60, 900), "a clock that was put back");
    }
}
