//! A client: logs in, rotates its refresh token, and tells the history everything.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::bail;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use crate::history::{Ask, Call, Digest, Family, Fault, History};
use crate::http::{Reply, read_reply, request};
use crate::plan::{Fate, Part};
use crate::proxy::{Cut, Proxy, order};

/// A server gives up long before that.
const LONGEST_CALL: Duration = Duration::from_secs(15);
/// A client that hears nothing for so long is stuck, and the run with it.
const PATIENCE: Duration = Duration::from_secs(90);

/// The way to one server.
pub(crate) struct Door {
    pub(crate) proxy: Proxy,
    /// When a client last received a new token here, in the history's time.
    pub(crate) last_rotation: AtomicU64,
}

impl Door {
    pub(crate) fn new(proxy: Proxy) -> Self {
        Self { proxy, last_rotation: AtomicU64::new(0) }
    }
}

/// All doors, and what is written down of what happens there.
pub(crate) struct Network {
    pub(crate) doors: Vec<Door>,
    pub(crate) history: Arc<History>,
}

/// Who can log in.
#[derive(Debug, Clone)]
pub(crate) struct Person {
    pub(crate) tenant: &'static str,
    pub(crate) username: String,
    pub(crate) password: String,
    /// The tenant's window for a lost answer.
    pub(crate) window: Duration,
}

/// What came of a presentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The token that follows.
    Rotated(String),
    /// The token does not work.
    Refused,
    /// Nobody knows: to be presented again.
    Unknown,
}

/// A client.
pub(crate) struct Client {
    pub(crate) network: Arc<Network>,
    pub(crate) part: Part,
    pub(crate) number: u32,
    pub(crate) person: Person,
    /// The doors that it chooses among.
    pub(crate) doors: Vec<usize>,
    pub(crate) random: StdRng,
    /// The family that it has.
    pub(crate) family: u32,
    /// The newest token that it received.
    pub(crate) token: String,
}

impl Client {
    /// Begins a family.
    ///
    /// # Errors
    /// No login is answered with success for a long time.
    pub(crate) async fn login(&mut self) -> anyhow::Result<()> {
        let began = Instant::now();
        while !self.try_login().await {
            if began.elapsed() > PATIENCE {
                bail!("{}: client {} could not log in within {PATIENCE:?}", self.part, self.number);
            }
            self.pause(50..250).await;
        }
        Ok(())
    }

    async fn try_login(&mut self) -> bool {
        let Person { tenant, username, password, window } = self.person.clone();
        let body = json!({ "username": username, "password": password });
        let request = request("POST", &format!("/t/{tenant}/v1/login"), None, Some(&body));
        let door = self.any_door();
        let (mut call, reply) = self.exchange(door, Ask::Login, None, &request, Cut::Never).await;
        let token = reply.as_ref().and_then(refresh_token);
        if let (Some(reply), Some(token)) = (&reply, &token) {
            let number = u32::try_from(self.network.history.number()).unwrap_or(u32::MAX);
            call.family = number;
            self.network.history.begin(Family {
                number,
                part: self.part,
                sid: claim(reply, "sid"),
                first_token: Digest::of(token.as_bytes()),
                window,
                planted: false,
                finished: false,
                abandoned: false,
            });
            (self.family, self.token) = (number, token.clone());
        }
        self.network.history.saw(call);
        token.is_some()
    }

    /// One presentation of the newest token, with that fate. The newest token is another afterwards if that is the outcome.
    pub(crate) async fn present(&mut self, fate: Fate) -> Outcome {
        let token = self.token.clone();
        let (door, other) = (self.any_door(), self.any_door());
        let outcome = match fate {
            Fate::Pass => self.present_at(door, Ask::Refresh, &token, Cut::Never, Fault::None).await,
            Fate::Swallow => self.present_at(door, Ask::Refresh, &token, Cut::Swallow, Fault::Swallowed).await,
            Fate::Duplicate => {
                let first = self.present_at(door, Ask::Refresh, &token, Cut::Never, Fault::Duplicated);
                let second = self.present_at(other, Ask::Refresh, &token, Cut::Never, Fault::Duplicated);
                // Both are awaited: to use the successor while the parent is still being presented would be a replay.
                match futures_util::future::join(first, second).await {
                    (Outcome::Rotated(token), _) | (_, Outcome::Rotated(token)) => Outcome::Rotated(token),
                    (Outcome::Refused, _) | (_, Outcome::Refused) => Outcome::Refused,
                    (Outcome::Unknown, Outcome::Unknown) => Outcome::Unknown,
                }
            }
        };
        if let Outcome::Rotated(token) = &outcome {
            self.token.clone_from(token);
        }
        outcome
    }

    /// Presents the newest token until the outcome is known, the first time with that fate. False when it was refused.
    ///
    /// # Errors
    /// The outcome stays unknown for a long time.
    pub(crate) async fn rotate(&mut self, mut fate: Fate) -> anyhow::Result<bool> {
        let began = Instant::now();
        loop {
            match self.present(fate).await {
                Outcome::Rotated(_) => return Ok(true),
                Outcome::Refused => return Ok(false),
                Outcome::Unknown if began.elapsed() > PATIENCE => {
                    bail!("{}: family {} did not get an answer within {PATIENCE:?}", self.part, self.family)
                }
                Outcome::Unknown => {
                    fate = Fate::Pass;
                    self.pause(5..80).await;
                }
            }
        }
    }

    /// Presents a token of which nothing but a refusal is expected, until it is answered.
    ///
    /// # Errors
    /// There is no answer for a long time.
    pub(crate) async fn insist(&mut self, ask: Ask, token: &str) -> anyhow::Result<Outcome> {
        let began = Instant::now();
        loop {
            let door = self.any_door();
            let outcome = self.present_at(door, ask, token, Cut::Never, Fault::None).await;
            if outcome != Outcome::Unknown {
                return Ok(outcome);
            }
            if began.elapsed() > PATIENCE {
                bail!("{}: family {} did not get an answer within {PATIENCE:?}", self.part, self.family);
            }
            self.pause(5..80).await;
        }
    }

    /// Rotates once more, undisturbed: the family works to the end.
    ///
    /// # Errors
    /// As [`Client::rotate`].
    pub(crate) async fn finish(&mut self) -> anyhow::Result<()> {
        if self.rotate(Fate::Pass).await? {
            self.network.history.change(self.family, |family| family.finished = true);
        }
        Ok(())
    }

    /// The request that presents a token.
    pub(crate) fn refresh_request(&self, token: &str) -> Vec<u8> {
        let path = format!("/t/{}/v1/token/refresh", self.person.tenant);
        request("POST", &path, None, Some(&json!({ "refresh_token": token })))
    }

    /// One presentation of a token.
    pub(crate) async fn present_at(&self, door: usize, ask: Ask, token: &str, cut: Cut, fault: Fault) -> Outcome {
        let (call, outcome) = self.try_present_at(door, ask, token, cut, fault).await;
        self.network.history.saw(call);
        outcome
    }

    /// As [`Client::present_at`], but leaves it to the caller to tell the history.
    pub(crate) async fn try_present_at(&self, door: usize, ask: Ask, token: &str, cut: Cut, fault: Fault) -> (Call, Outcome) {
        let request = self.refresh_request(token);
        let (mut call, reply) = self.exchange(door, ask, Some(token), &request, cut).await;
        call.fault = fault;
        let outcome = match reply.as_ref().map(|reply| (reply.status, refresh_token(reply))) {
            Some((200, Some(token))) => Outcome::Rotated(token),
            Some((401, _)) => Outcome::Refused,
            _ => Outcome::Unknown,
        };
        if matches!(outcome, Outcome::Rotated(_))
            && let Some(door) = self.network.doors.get(door)
        {
            door.last_rotation.store(call.end, Ordering::Relaxed);
        }
        (call, outcome)
    }

    /// One call, and its answer if the client received one.
    async fn exchange(&self, door: usize, ask: Ask, token: Option<&str>, request: &[u8], cut: Cut) -> (Call, Option<Reply>) {
        let history = &self.network.history;
        let (id, start) = (history.number(), history.now());
        let proxy = self.network.doors.get(door).map(|door| &door.proxy);
        let exchange = async {
            let mut connection = TcpStream::connect(proxy?.address).await.ok()?;
            connection.set_nodelay(true).ok()?;
            connection.write_all(&order(id, cut, request)).await.ok()?;
            read_reply(&mut connection).await.ok()
        };
        let received = timeout(LONGEST_CALL, exchange).await.ok().flatten();
        let end = history.now();
        let seen = received.clone().or_else(|| proxy?.take_swallowed(id));
        let problem = |name: &str| {
            let value = seen.as_ref().filter(|reply| reply.status >= 400).map(Reply::json);
            value.and_then(|json| json.get(name)?.as_str().map(str::to_owned))
        };
        let call = Call {
            id,
            part: self.part,
            client: self.number,
            family: if ask == Ask::Login { 0 } else { self.family },
            server: door,
            start,
            end,
            ask,
            fault: Fault::None,
            token_in: token.map(|token| Digest::of(token.as_bytes())),
            status: seen.as_ref().map_or(0, |reply| reply.status),
            received: received.is_some(),
            token_out: seen.as_ref().and_then(refresh_token).map(|token| Digest::of(token.as_bytes())),
            body: seen.as_ref().map(|reply| Digest::of(&reply.body)),
            jti: seen.as_ref().and_then(|reply| claim(reply, "jti")),
            error: problem("error"),
            reason: problem("reason"),
            retry_after: seen.as_ref().is_some_and(|reply| reply.retry_after),
        };
        (call, received)
    }

    fn any_door(&mut self) -> usize {
        let at = self.random.random_range(0..self.doors.len().max(1));
        self.doors.get(at).copied().unwrap_or_default()
    }

    /// Waits so many milliseconds.
    pub(crate) async fn pause(&mut self, millis: std::ops::Range<u64>) {
        sleep(Duration::from_millis(self.random.random_range(millis))).await;
    }
}

/// The refresh token of a good answer; `None` unless all that was promised is there.
fn refresh_token(reply: &Reply) -> Option<String> {
    let json = Some(reply).filter(|reply| reply.status == 200)?.json();
    let text = |name: &str| json.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let whole = text("access_token").is_some() && text("token_type") == Some("Bearer") && json.get("expires_in")?.is_u64();
    text("refresh_token").filter(|_| whole).map(str::to_owned)
}

/// A claim of the access token that is a UUID.
fn claim(reply: &Reply, name: &str) -> Option<Uuid> {
    let json = Some(reply).filter(|reply| reply.status == 200)?.json();
    let claims = URL_SAFE_NO_PAD.decode(json.get("access_token")?.as_str()?.split('.').nth(1)?).ok()?;
    serde_json::from_slice::<Value>(&claims).ok()?.get(name)?.as_str()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(status: u16, body: &Value) -> Reply {
        Reply { status, retry_after: false, body: body.to_string().into_bytes(), bytes: Vec::new() }
    }

    #[test]
    fn a_good_answer_holds_all_that_was_promised() {
        let jwt = format!("x.{}.x", URL_SAFE_NO_PAD.encode(r#"{"sid":"00000000-0000-0000-0000-000000000007"}"#));
        let good = json!({ "access_token": jwt, "token_type": "Bearer", "expires_in": 900, "refresh_token": "rt" });
        assert_eq!(refresh_token(&reply(200, &good)), Some("rt".into()));
        assert_eq!(claim(&reply(200, &good), "sid"), Some(Uuid::from_u128(7)));
        assert_eq!(claim(&reply(200, &good), "jti"), None);
        assert_eq!(refresh_token(&reply(401, &good)), None);
        for name in ["access_token", "token_type", "expires_in", "refresh_token"] {
            let mut broken = good.clone();
            broken.as_object_mut().unwrap().remove(name);
            assert_eq!(refresh_token(&reply(200, &broken)), None, "{name}");
        }
    }
}
