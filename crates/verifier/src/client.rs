//! A verifier that looks after itself: keys fetched ahead of need, revocations followed, and a stated policy for the time
//! when the issuer cannot be reached.

use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use reqwest::header::{HeaderName, HeaderValue};
use thiserror::Error;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use url::Url;

use crate::answer::{ErrorAnswer, ErrorStyle};
use crate::follow::follow;
use crate::presented::{Presented, RequestParts};
use crate::published::{Kept, Published, may_ask};
use crate::revocations::Revocations;
use crate::status_list::StatusLists;
use crate::{AccessToken, Expected, Expiry, Rejection, verify_with};

/// Unix seconds.
pub(crate) type Clock = Arc<dyn Fn() -> i64 + Send + Sync>;

/// Least time without news that can mean anything: a batch may be 5 seconds old, and silence lasts 10.
const LEAST_SILENCE: Duration = Duration::from_secs(30);

/// What is done about revocations while the issuer cannot be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum CutOff {
    /// Tokens are accepted by what is known, also before anything is: for at most that long since the last news (or the
    /// start), 30 seconds or more. Then they are refused.
    FailOpen {
        /// Counted from when the last news was made.
        at_most: Duration,
    },
    /// Tokens are refused until the revocations are known, and when there was no news for that long, 30 seconds or more.
    FailClosed {
        /// Counted from when the last news was made.
        after: Duration,
    },
    /// Revocations are not followed: a token lives until it ends.
    NotFollowed,
}

/// Why a token was not accepted, or none was found.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Refused {
    /// The request has none where one may stand.
    #[error("no access token")]
    Missing,
    /// The request has two that differ.
    #[error("more than one access token")]
    Ambiguous,
    /// The token is not good.
    #[error(transparent)]
    Token(Rejection),
    /// The token was good and is revoked.
    #[error("revoked")]
    Revoked,
    /// The token does not allow that: it lacks this scope.
    #[error("the scope {0} is needed")]
    Scope(String),
    /// Nobody can say now. Not the caller's fault: 503.
    #[error(transparent)]
    Unavailable(Unavailable),
}

/// What is not there to decide with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// The issuer's keys, or none that are young enough.
    #[error("the issuer's keys could not be fetched")]
    Keys,
    /// News of revocations.
    #[error("there is no news of revocations")]
    Revocations,
    /// The list that says whether the token counts still, or none that is young enough.
    #[error("the token's status list could not be fetched")]
    StatusList,
}

/// Why a verifier cannot be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BuildError {
    /// The issuer is not an `https` URL (`http` counts on this machine, or with [`Builder::plain_http`]).
    #[error("the issuer must be an https URL, without query and fragment")]
    Issuer,
    /// No audience was named: say which service this is, or [`Builder::any_audience`].
    #[error("name the audience: which service is this?")]
    Audience,
    /// A header's name or a credential has characters that it cannot have.
    #[error("not a header: {0}")]
    Header(String),
    /// Less than 30 seconds.
    #[error("silence of less than 30 seconds means nothing")]
    Silence,
    /// Tokens without an end can only be accepted while revocations are followed.
    #[error("tokens without an end need revocations to be followed")]
    Unending,
    /// There is no tokio runtime to work on.
    #[error("a verifier is made on a tokio runtime")]
    Runtime,
    /// The HTTP client could not be made.
    #[error("no HTTP client: {0}")]
    Http(#[from] reqwest::Error),
}

/// How a verifier is told what to do.
#[derive(Clone)]
pub struct Builder {
    issuer: String,
    audience: Option<String>,
    any_audience: bool,
    leeway_seconds: u64,
    expiry: Expiry,
    stale_for: Duration,
    between_fetches: Duration,
    cut_off: CutOff,
    long_poll: bool,
    status_lists: bool,
    credential: Option<String>,
    presented: Presented,
    style: ErrorStyle,
    plain_http: bool,
    http: Option<reqwest::Client>,
    clock: Clock,
}

/// What all clones of a verifier share.
pub(crate) struct Core {
    pub(crate) published: Published,
    pub(crate) revocations: RwLock<Revocations>,
    /// `as_of` after each batch.
    pub(crate) heard: watch::Sender<Option<i64>>,
    pub(crate) long_poll: bool,
    pub(crate) credential: Option<HeaderValue>,
    status_lists: Option<StatusLists>,
    audience: Option<String>,
    leeway_seconds: u64,
    expiry: Expiry,
    cut_off: CutOff,
    born: i64,
    presented: Presented,
    style: ErrorStyle,
}

impl Core {
    pub(crate) fn revocations(&self) -> RwLockReadGuard<'_, Revocations> {
        self.revocations.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends what works in the background.
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// Verifies the tokens of one issuer. Cheap to clone; the last one dropped ends the work in the background.
#[derive(Clone)]
pub struct Verifier {
    core: Arc<Core>,
    _tasks: Arc<Tasks>,
}

/// How a verifier is doing, for a health page.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Status {
    /// Seconds since the keys were fetched; `None` without keys.
    pub keys_age: Option<i64>,
    /// Seconds since the last news of revocations was made; `None` before the first.
    pub news_age: Option<i64>,
    /// Entries among what was revoked.
    pub revoked: usize,
    /// Bytes that they take.
    pub revoked_bytes: usize,
    /// What went wrong last, unless keys were fetched since.
    pub last_error: Option<String>,
}

impl Verifier {
    /// Begins to describe a verifier for this issuer: exactly as its tokens name it, `https://id.example/t/acme`.
    #[must_use]
    pub fn builder(issuer: impl Into<String>) -> Builder {
        Builder {
            issuer: issuer.into(),
            audience: None,
            any_audience: false,
            leeway_seconds: 5,
            expiry: Expiry::Required,
            stale_for: Duration::from_secs(86_400),
            between_fetches: Duration::from_secs(10),
            cut_off: CutOff::FailOpen { at_most: Duration::from_secs(900) },
            long_poll: false,
            status_lists: false,
            credential: None,
            presented: Presented::default(),
            style: ErrorStyle::default(),
            plain_http: false,
            http: None,
            clock: Arc::new(system_clock),
        }
    }

    /// Verifies a token: form, signature, claims and time as [`verify`](crate::verify) does, then that it is not revoked.
    /// Waits for the network only where there are no keys yet, or the token names one, or a status list, that is not known.
    ///
    /// # Errors
    /// [`Refused::Token`], [`Refused::Revoked`] or [`Refused::Unavailable`].
    pub async fn verify(&self, token: &str) -> Result<AccessToken, Refused> {
        let token = self.verify_by_feed(token).await?;
        let Core { published, status_lists, credential, .. } = &*self.core;
        if let (Some(lists), Some(place)) = (status_lists, &token.status) {
            lists.check(place, published, credential.as_ref()).await?;
        }
        Ok(token)
    }

    async fn verify_by_feed(&self, token: &str) -> Result<AccessToken, Refused> {
        let Core { published, .. } = &*self.core;
        let kept = match published.usable() {
            Some(kept) => kept,
            None => published.get().await.map_err(Refused::Unavailable)?,
        };
        match self.verify_with(token, &kept) {
            Err(Refused::Token(Rejection::UnknownKey)) => match published.newer_than(&kept).await {
                Some(newer) => self.verify_with(token, &newer),
                None => Err(Refused::Token(Rejection::UnknownKey)),
            },
            outcome => outcome,
        }
    }

    /// As [`Verifier::verify`], and the token must hold that scope.
    ///
    /// # Errors
    /// As [`Verifier::verify`], and [`Refused::Scope`].
    pub async fn verify_scope(&self, token: &str, scope: &str) -> Result<AccessToken, Refused> {
        let token = self.verify(token).await?;
        require(&token, scope)?;
        Ok(token)
    }

    /// Finds the token of a request and verifies it.
    ///
    /// # Errors
    /// Any [`Refused`] but [`Refused::Scope`].
    pub async fn verify_request(&self, request: &impl RequestParts) -> Result<AccessToken, Refused> {
        let token = self.core.presented.find(request)?;
        self.verify(&token).await
    }

    /// What to answer to a request that was refused.
    #[must_use]
    pub fn answer(&self, refused: &Refused) -> ErrorAnswer {
        self.core.style.answer(refused)
    }

    /// Returns when keys are there and the revocations are known, where they are followed: wait for it before the first
    /// request is taken, with a time-out of your own.
    pub async fn ready(&self) {
        while self.core.published.get().await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        if self.core.cut_off != CutOff::NotFollowed {
            let mut heard = self.core.heard.subscribe();
            // The sender is in `core`.
            let _ = heard.wait_for(Option::is_some).await;
        }
    }

    /// How it is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        let now = (self.core.published.clock)();
        let kept = self.core.published.kept.read().unwrap_or_else(PoisonError::into_inner).clone();
        let revocations = self.core.revocations();
        Status {
            keys_age: kept.map(|kept| now - kept.fetched_at),
            news_age: revocations.as_of().map(|as_of| now - as_of),
            revoked: revocations.len(),
            revoked_bytes: revocations.memory_bytes(),
            last_error: self.core.published.last_error.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Whether the other is a clone of this one.
    #[cfg(feature = "actix")]
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.core, &other.core)
    }

    fn verify_with(&self, token: &str, kept: &Kept) -> Result<AccessToken, Refused> {
        let core = &*self.core;
        let expected =
            Expected { issuer: &core.published.issuer, audience: core.audience.as_deref(), leeway_seconds: core.leeway_seconds };
        let now = (core.published.clock)();
        let token = verify_with(token, &kept.keys, &expected, core.expiry, now).map_err(Refused::Token)?;
        if core.cut_off == CutOff::NotFollowed {
            return Ok(token);
        }
        let revocations = core.revocations();
        if revocations.stops(&token) {
            return Err(Refused::Revoked);
        }
        judge_silence(core.cut_off, revocations.as_of(), core.born, now).map_err(Refused::Unavailable)?;
        Ok(token)
    }
}

/// Whether a token holds a scope.
pub(crate) fn require(token: &AccessToken, scope: &str) -> Result<(), Refused> {
    match token.scope.iter().any(|held| held == scope) {
        true => Ok(()),
        false => Err(Refused::Scope(scope.to_owned())),
    }
}

/// Whether what is known of revocations is young enough.
fn judge_silence(cut_off: CutOff, as_of: Option<i64>, born: i64, now: i64) -> Result<(), Unavailable> {
    let within =
        |since: i64, longest: Duration| now.saturating_sub(since) <= i64::try_from(longest.as_secs()).unwrap_or(i64::MAX);
    let good = match cut_off {
        CutOff::FailOpen { at_most } => within(as_of.unwrap_or(born), at_most),
        CutOff::FailClosed { after } => as_of.is_some_and(|as_of| within(as_of, after)),
        CutOff::NotFollowed => true,
    };
    if good { Ok(()) } else { Err(Unavailable::Revocations) }
}

#[expect(clippy::disallowed_methods, reason = "the one place where a verifier's time comes from, unless another is given")]
fn system_clock() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX))
}

impl Builder {
    /// Which service this is: one of a token's `aud` must be exactly that.
    #[must_use]
    pub fn audience(mut self, audience: impl Into<String>) -> Self {
        self.audience = Some(audience.into());
        self
    }

    /// Accepts tokens that were meant for other services too. Only where nothing but the issuer stands behind this one.
    #[must_use]
    pub fn any_audience(mut self) -> Self {
        self.any_audience = true;
        self
    }

    /// Tolerated clock difference in seconds; 5 if not said.
    #[must_use]
    pub fn leeway_seconds(mut self, seconds: u64) -> Self {
        self.leeway_seconds = seconds;
        self
    }

    /// Accepts tokens without `exp`, which live until they are revoked.
    #[must_use]
    pub fn accept_unending(mut self) -> Self {
        self.expiry = Expiry::Optional;
        self
    }

    /// How long keys are used while the issuer cannot be reached; a day if not said.
    #[must_use]
    pub fn stale_for(mut self, longest: Duration) -> Self {
        self.stale_for = longest;
        self
    }

    /// The shortest time between fetches because of unknown key ids; 10 seconds if not said.
    #[must_use]
    pub fn between_fetches(mut self, shortest: Duration) -> Self {
        self.between_fetches = shortest;
        self
    }

    /// What is done about revocations while the issuer cannot be reached; [`CutOff::FailOpen`] for 15 minutes if not said.
    #[must_use]
    pub fn when_cut_off(mut self, policy: CutOff) -> Self {
        self.cut_off = policy;
        self
    }

    /// Asks for revocations again and again instead of reading a stream: for networks that do not let one through.
    #[must_use]
    pub fn long_poll(mut self) -> Self {
        self.long_poll = true;
        self
    }

    /// Asks the status list of each token that has a place in one (the audience's profile says so): for services whose tokens
    /// lack the claims that revocations name, or that do not follow them. A list is kept for as long as it says, a minute;
    /// while it cannot be fetched, until it ends, ten minutes. Then its tokens are refused with 503.
    #[must_use]
    pub fn status_lists(mut self) -> Self {
        self.status_lists = true;
        self
    }

    /// What is sent as `Authorization` to a private feed, and for private status lists: `Basic …` of a key that holds `revocations:read`.
    #[must_use]
    pub fn feed_credential(mut self, authorization: impl Into<String>) -> Self {
        self.credential = Some(authorization.into());
        self
    }

    /// The headers in which a token may stand, instead of `Authorization` alone. In others than that one it stands bare.
    #[must_use]
    pub fn headers<N: AsRef<str>>(mut self, names: impl IntoIterator<Item = N>) -> Self {
        self.presented.headers = names.into_iter().map(|name| name.as_ref().to_ascii_lowercase()).collect();
        self
    }

    /// Takes `Authorization: TOKEN` and `Bearer: TOKEN` too.
    #[must_use]
    pub fn lenient_bearer(mut self) -> Self {
        self.presented.lenient_bearer = true;
        self
    }

    /// Takes the token of a WebSocket, and of nothing else, from this query parameter too. Queries end up in logs: tokens for
    /// that should be short-lived.
    #[must_use]
    pub fn websocket_query(mut self, parameter: impl Into<String>) -> Self {
        self.presented.websocket_query = Some(parameter.into());
        self
    }

    /// How refusals are told.
    #[must_use]
    pub fn error_style(mut self, style: ErrorStyle) -> Self {
        self.style = style;
        self
    }

    /// Allows `http` to other machines: within a network where nobody listens.
    #[must_use]
    pub fn plain_http(mut self) -> Self {
        self.plain_http = true;
        self
    }

    /// The HTTP client to use, as for a proxy or a private certificate authority. It should follow no redirects.
    #[must_use]
    pub fn http_client(mut self, client: reqwest::Client) -> Self {
        self.http = Some(client);
        self
    }

    /// Where time comes from, in Unix seconds: for tests.
    #[must_use]
    pub fn clock(mut self, clock: impl Fn() -> i64 + Send + Sync + 'static) -> Self {
        self.clock = Arc::new(clock);
        self
    }

    /// Makes the verifier and begins to fetch and to follow. Nothing is waited for: see [`Verifier::ready`].
    ///
    /// # Errors
    /// Any [`BuildError`].
    pub fn build(self) -> Result<Verifier, BuildError> {
        let Self {
            issuer,
            audience,
            any_audience,
            leeway_seconds,
            expiry,
            stale_for,
            between_fetches,
            cut_off,
            long_poll,
            status_lists,
            credential,
            presented,
            style,
            plain_http,
            http,
            clock,
        } = self;
        let url = Url::parse(&issuer).map_err(|_| BuildError::Issuer)?;
        if !may_ask(&url, plain_http) || url.query().is_some() || url.fragment().is_some() {
            return Err(BuildError::Issuer);
        }
        if audience.is_none() && !any_audience {
            return Err(BuildError::Audience);
        }
        match cut_off {
            CutOff::FailOpen { at_most: silence } | CutOff::FailClosed { after: silence } if silence < LEAST_SILENCE => {
                return Err(BuildError::Silence);
            }
            CutOff::NotFollowed if expiry == Expiry::Optional => return Err(BuildError::Unending),
            _ => {}
        }
        for name in &presented.headers {
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| BuildError::Header(name.clone()))?;
        }
        let credential = credential
            .map(|text| {
                let mut value = HeaderValue::from_str(&text).map_err(|_| BuildError::Header("authorization".into()))?;
                value.set_sensitive(true);
                Ok::<_, BuildError>(value)
            })
            .transpose()?;
        let http = match http {
            Some(client) => client,
            None => {
                let timeout = Duration::from_secs(5);
                reqwest::Client::builder().connect_timeout(timeout).redirect(reqwest::redirect::Policy::none()).build()?
            }
        };
        let runtime = tokio::runtime::Handle::try_current().map_err(|_| BuildError::Runtime)?;
        let born = clock();
        let published = Published {
            issuer,
            http,
            clock,
            stale_for: i64::try_from(stale_for.as_secs()).unwrap_or(i64::MAX),
            between_fetches,
            plain_http,
            kept: RwLock::new(None),
            fetching: tokio::sync::Mutex::new(None),
            last_error: Mutex::new(None),
        };
        let core = Arc::new(Core {
            published,
            revocations: RwLock::new(Revocations::new()),
            heard: watch::Sender::new(None),
            long_poll,
            credential,
            status_lists: status_lists.then(|| StatusLists::new(leeway_seconds)),
            audience,
            leeway_seconds,
            expiry,
            cut_off,
            born,
            presented,
            style,
        });
        let ours = core.clone();
        let mut tasks = vec![runtime.spawn(async move { ours.published.refresh().await })];
        if cut_off != CutOff::NotFollowed {
            let ours = core.clone();
            tasks.push(runtime.spawn(async move { follow(&ours).await }));
        }
        Ok(Verifier { core, _tasks: Arc::new(Tasks(tasks)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_is_judged_by_the_policy() {
        let open = CutOff::FailOpen { at_most: Duration::from_secs(60) };
        let closed = CutOff::FailClosed { after: Duration::from_secs(60) };
        for (policy, as_of, now, good) in [
            (open, None, 1060, true),
            (open, None, 1061, false),
            (open, Some(2000), 2060, true),
            (open, Some(2000), 2061, false),
            (closed, None, 1000, false),
            (closed, Some(2000), 2060, true),
            (closed, Some(2000), 2061, false),
            (CutOff::NotFollowed, None, 1_000_000, true),
        ] {
            assert_eq!(judge_silence(policy, as_of, 1000, now).is_ok(), good, "{policy:?} {as_of:?} {now}");
        }
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_refused_when_it_is_built() {
        let here = || Verifier::builder("http://127.0.0.1:1/t/a").audience("a");
        assert!(here().build().is_ok());
        assert!(matches!(Verifier::builder("http://127.0.0.1:1/t/a").build(), Err(BuildError::Audience)));
        for issuer in
            ["", "id.example", "http://id.example/t/a", "https://id.example/?a=b", "https://id.example/#a", "ftp://localhost/"]
        {
            assert!(matches!(Verifier::builder(issuer).audience("a").build(), Err(BuildError::Issuer)), "{issuer}");
        }
        let hasty = CutOff::FailClosed { after: Duration::from_secs(29) };
        assert!(matches!(here().when_cut_off(hasty).build(), Err(BuildError::Silence)));
        let unending = here().accept_unending().when_cut_off(CutOff::NotFollowed).build();
        assert!(matches!(unending, Err(BuildError::Unending)));
        assert!(matches!(here().headers(["x auth"]).build(), Err(BuildError::Header(_))));
        assert!(matches!(here().feed_credential("Basic \n").build(), Err(BuildError::Header(_))));
    }
}
