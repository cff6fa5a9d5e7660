//! Status lists (IETF OAuth Token Status List): one bit for each token of a service that asks for it.
//!
//! ```text
//! a token is made ─► the next place of its audience's open list ─► claim `status`
//! whatever revokes ─► revocations (the rows of the feed) ─► bits, worked out when somebody asks
//! ```
//!
//! A list is full after 32768 tokens; then the next is opened. Its places are given in a shuffled order, so that a place says
//! nothing about when its token was issued. A list goes when all of its tokens have ended.

use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta, Utc};
use claviger_store::id::{AudienceId, StatusListId, TenantId, TokenId};
use claviger_store::status_list::{Listed, Place, StatusList};
use flate2::Compression;
use flate2::write::ZlibEncoder;
use moka::sync::Cache;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::audience::AudienceEntry;
use crate::directory::TenantEntry;
use crate::mint::{Grant, Minted, in_seconds, kept_until, mint_for, sign_as};
use crate::random::Random;
use crate::{Failure, Fault, Issuer, Refusal};

/// `typ` of a list.
pub const STATUS_LIST_TYPE: &str = "statuslist+jwt";
/// Seconds for which a verifier may keep a list before it looks again (`ttl`).
pub const KEPT_FOR: i64 = 60;
/// Seconds after which a list says nothing any more (`exp`).
const LASTS: i64 = 600;
/// Places of a list.
const PLACES: u16 = 32_768;
/// Seconds for which a list may be told again while nothing happens.
const SHARED_FOR: i64 = 5;
/// For so long a list may be told again whatever happens: who revokes much makes nobody work for each of it.
const JUST_MADE: Duration = Duration::from_millis(250);
/// Lists that are remembered.
const REMEMBERED: u64 = 10_000;
/// Attempts to get a place, each in a list that others filled meanwhile.
const ATTEMPTS: usize = 5;
/// How long after its last token's end a list stays, for clocks that go wrong.
const GRACE: TimeDelta = TimeDelta::days(1);

/// A token's `status`.
pub(crate) struct StatusClaim {
    index: i32,
    uri: String,
}

impl StatusClaim {
    pub(crate) fn to_json(&self) -> Value {
        json!({ "status_list": { "idx": self.index, "uri": self.uri } })
    }
}

/// Where a list is: its `sub`, and the `uri` of its tokens.
fn uri(issuer: &str, id: StatusListId) -> String {
    format!("{issuer}/v1/status-lists/{id}")
}

/// One bit for each place, the first of each byte its lowest; compressed (ZLIB) and encoded.
fn encode(size: i32, revoked: &[i32]) -> std::io::Result<String> {
    use std::io::Write as _;
    let mut bits = vec![0u8; usize::try_from(size).unwrap_or(0).div_ceil(8)];
    for place in revoked.iter().filter_map(|place| usize::try_from(*place).ok()) {
        if let Some(byte) = bits.get_mut(place / 8) {
            *byte |= 1 << (place % 8);
        }
    }
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(&bits)?;
    Ok(URL_SAFE_NO_PAD.encode(encoder.finish()?))
}

/// All places in any order, two bytes each (Fisher and Yates).
fn shuffled(random: &Random) -> Vec<u8> {
    let mut places: Vec<u16> = (0..PLACES).collect();
    for last in (1..places.len()).rev() {
        // Of 2⁶⁴ values a few more lead to some places than to others: by one in 2⁴⁸.
        let any = u64::from_le_bytes(random.bytes()) % (last as u64 + 1);
        places.swap(last, usize::try_from(any).unwrap_or(0));
    }
    places.into_iter().flat_map(u16::to_be_bytes).collect()
}

/// A list that was made a moment ago.
struct Made {
    jws: Arc<str>,
    at: Instant,
    /// The count of news that it knows of.
    news: u64,
    /// The time in steps of [`SHARED_FOR`].
    step: i64,
}

impl Made {
    /// Whether it may be told again.
    fn is_current(&self, news: u64, step: i64, trusted: bool, now: Instant) -> bool {
        trusted && self.step == step && (self.news == news || now.saturating_duration_since(self.at) < JUST_MADE)
    }
}

/// What was made lately. Who asks for the same list at the same time waits for one that makes it.
pub(crate) struct Lists(Cache<(TenantId, StatusListId), Arc<Mutex<Option<Made>>>>);

impl Lists {
    pub(crate) fn new() -> Self {
        Self(Cache::builder().max_capacity(REMEMBERED).time_to_idle(Duration::from_secs(600)).build())
    }
}

impl Issuer {
    /// A token in the shape that an audience asks for, with a place in a status list if it asks for that too. The place is
    /// in the database before the token is made; one whose token is never recorded stays empty.
    pub(crate) async fn mint_for_audience(
        &self,
        tenant: &TenantEntry,
        audience: &AudienceEntry,
        grant: &Grant<'_>,
        now: DateTime<Utc>,
    ) -> Result<Minted, Failure> {
        let signer = tenant.signer_for(audience, &self.clock)?;
        let id = TokenId(self.random.uuid_at(now));
        if !audience.profile.status_list {
            return Ok(mint_for(signer, audience, grant, now, id, None)?);
        }
        let listed = Listed {
            id,
            key: grant.key,
            family: grant.family,
            subject: grant.subject,
            client_id: grant.client_id,
            issued_at: in_seconds(now.timestamp()),
            expires_at: kept_until(grant.ends(now)),
        };
        let Place { list, index } = self.take_place(grant.tenant, audience.row.id, &listed, now).await?;
        let status = StatusClaim { index, uri: uri(&tenant.issuer, list) };
        Ok(mint_for(signer, audience, grant, now, id, Some(&status))?)
    }

    async fn take_place(
        &self,
        tenant: TenantId,
        audience: AudienceId,
        listed: &Listed<'_>,
        now: DateTime<Utc>,
    ) -> Result<Place, Failure> {
        for _ in 0..ATTEMPTS {
            // Nothing waits for the disk here: the token's record, which follows, makes both durable.
            let mut tx = self.store.begin_brief(tenant).await?;
            let place = tx.tenant(tenant).await?.take_place(audience, listed).await?;
            tx.commit().await?;
            if let Some(place) = place {
                return Ok(place);
            }
            let mut tx = self.store.begin_in(tenant).await?;
            let id = StatusListId(self.random.uuid());
            tx.tenant(tenant).await?.open_status_list(audience, id, &shuffled(&self.random), now).await?;
            tx.commit().await?;
        }
        Err(Fault::Overloaded("the status list").into())
    }

    /// Where a tenant's lists are, oldest first.
    pub async fn status_lists(&self, tenant: &TenantEntry) -> Result<Vec<String>, Failure> {
        let id = tenant.tenant.id;
        let mut tx = self.store.begin_in(id).await?;
        let lists = tx.tenant(id).await?.status_lists().await?;
        Ok(lists.into_iter().map(|list| uri(&tenant.issuer, list)).collect())
    }

    /// A list as it is now: a compact JWS.
    pub async fn status_list(&self, tenant: &TenantEntry, id: StatusListId) -> Result<Arc<str>, Failure> {
        let place = (tenant.tenant.id, id);
        let cell = self.lists.0.get_with(place, Arc::default);
        let mut made = cell.lock().await;
        let (news, step) = (self.feeds.news(), self.clock.now().timestamp() / SHARED_FOR);
        if let Some(made) = made.as_ref().filter(|made| made.is_current(news, step, self.directory.is_trusted(), Instant::now()))
        {
            return Ok(made.jws.clone());
        }
        // From before the question to the database, so that nothing is taken for known that came meanwhile.
        let at = Instant::now();
        let jws: Arc<str> = match self.make_status_list(tenant, id).await {
            Ok(jws) => jws.into(),
            Err(failure) => {
                self.lists.0.invalidate(&place);
                return Err(failure);
            }
        };
        *made = Some(Made { jws: jws.clone(), at, news, step });
        Ok(jws)
    }

    async fn make_status_list(&self, tenant: &TenantEntry, id: StatusListId) -> Result<String, Failure> {
        let now = self.clock.now();
        let of = tenant.tenant.id;
        self.note_ended_keys(of, now).await?;
        let mut tx = self.store.begin_in(of).await?;
        let list = tx.tenant(of).await?.status_list(id).await?;
        drop(tx);
        let StatusList { audience, size, revoked } = list.ok_or(Refusal::NotFound)?;
        let lst = encode(size, &revoked).map_err(|error| Fault::Internal(error.to_string()))?;
        let iat = now.timestamp();
        let claims = json!({
            "iss": tenant.issuer,
            "sub": uri(&tenant.issuer, id),
            "iat": iat,
            "exp": iat + LASTS,
            "ttl": KEPT_FOR,
            "status_list": { "bits": 1, "lst": lst },
        });
        // Whoever checks the audience's tokens has the key that signed them. One that ended left tokens under the tenant's keys.
        let signer = match tenant.audiences.iter().find(|known| known.row.id == audience) {
            Some(audience) => tenant.signer_for(audience, &self.clock)?,
            None => tenant.signer(&self.clock)?,
        };
        Ok(sign_as(STATUS_LIST_TYPE, signer, claims.to_string().as_bytes())?)
    }

    /// Drops lists whose tokens have all ended. Returns how many.
    pub(crate) async fn drop_ended_status_lists(&self, tenant: TenantId) -> Result<u64, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        let dropped = tx.tenant(tenant).await?.drop_ended_status_lists(self.clock.now() - GRACE).await?;
        tx.commit().await?;
        Ok(dropped)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_bits_are_those_of_the_standard() {
        // The example of the standard (one bit each): 0, 3, 4, 5, 7, 8, 9, 13 and 15 of 16 are set.
        let lst = encode(16, &[0, 3, 4, 5, 7, 8, 9, 13, 15]).unwrap();
        let mut bits = Vec::new();
        flate2::read::ZlibDecoder::new(&URL_SAFE_NO_PAD.decode(&lst).unwrap()[..]).read_to_end(&mut bits).unwrap();
        assert_eq!(bits, [0xb9, 0xa3]);
        assert_eq!(lst, "eNrbuRgAAhcBXQ");
    }

    #[test]
    fn what_is_no_place_sets_no_bit() {
        assert_eq!(encode(16, &[-1, 16, 70_000]).unwrap(), encode(16, &[]).unwrap());
    }

    #[test]
    fn every_place_is_given_once_and_not_in_order() {
        let random = Random::from_system();
        let places = |bytes: &[u8]| bytes.chunks(2).map(|two| u16::from_be_bytes([two[0], two[1]])).collect::<Vec<_>>();
        let (one, other) = (places(&shuffled(&random)), places(&shuffled(&random)));
        assert_eq!(one.iter().collect::<BTreeSet<_>>().len(), usize::from(PLACES));
        assert_eq!(one.iter().max(), Some(&(PLACES - 1)));
        assert_ne!(one, other);
        let in_order = one.windows(2).filter(|two| two[0] < two[1]).count();
        assert!((14_000..18_800).contains(&in_order), "{in_order} of 32767 are followed by a greater one");
    }

    #[test]
    fn a_list_is_told_again_while_nothing_happened_and_never_while_news_is_late() {
        let at = Instant::now();
        let made = Made { jws: "".into(), at, news: 7, step: 100 };
        let later = at + Duration::from_secs(1);
        assert!(made.is_current(7, 100, true, later));
        assert!(!made.is_current(8, 100, true, later), "something was revoked");
        assert!(!made.is_current(7, 101, true, at), "it says when it was made");
        assert!(made.is_current(8, 100, true, at + Duration::from_millis(249)));
        assert!(!made.is_current(7, 100, false, at));
    }
}
