//! The life of a signing key, as a rule without any I/O.
//!
//! ```text
//! next ──────────► active ─────────► retired ─────────► gone
//! published,       signs             published          withdrawn
//! does not sign    │                 ├ signs where its successor is not known long enough
//!                  │                 ├ private half destroyed
//!                  │                 └ its tokens end
//!                  └─────────────── emergency ────────► gone
//! ```
//!
//! All times here are the database's, so that servers agree and no server's clock can hurry a key. How long a server knows
//! a key is measured by that server's own steady time instead: it signs only under what it has itself published for the
//! whole lead, so that whoever fetched keys from it knows them.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use claviger_store::signing_key::{Ends, GoneWhy, SigningKey, SigningKeyState};

use crate::settings::SigningRule;

/// Seconds that a verifier may keep what it fetched.
pub(crate) const JWKS_MAX_AGE: u32 = 300;
/// How long after its last token's end a key stays published: for clocks that go wrong.
const LEEWAY: TimeDelta = TimeDelta::minutes(10);
/// How long after the private half is gone every token that it signed is in the database.
const SETTLED: TimeDelta = TimeDelta::minutes(1);
/// How long after an emergency nobody may keep what they fetched.
const ALARM: TimeDelta = TimeDelta::hours(1);

/// What is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make and publish a next key.
    Publish,
    /// This next key signs from now on.
    Activate(String),
    /// Nobody signs with this retired key any more: destroy its private half.
    Erase(String),
    /// Find out when the last token of this retired key ends. It began to sign at the given time.
    Count(String, DateTime<Utc>),
    /// All tokens of this retired key have ended.
    Remove(String),
}

/// What keys follow each other by.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms {
    /// The tenant's rule.
    pub(crate) rule: SigningRule,
    /// A next key waits until an admin lets it sign.
    pub(crate) pinned: bool,
    /// There is no room for another key among the published ones.
    pub(crate) full: bool,
    /// Somebody that the tenant named does not know the next key yet.
    pub(crate) awaited: bool,
}

/// The first thing that is due at `now` with keys that follow each other, if anything is.
pub(crate) fn due(keys: &[SigningKey], terms: Terms, now: DateTime<Utc>) -> Option<Step> {
    let Terms { rule, pinned, full, awaited } = terms;
    if let Some(step) = keys.iter().find_map(|key| due_of_retired(key, rule, now)) {
        return Some(step);
    }
    if let Some(next) = next(keys) {
        let from = if awaited { waits_until(next, rule) } else { may_sign_from(next, rule) };
        return (!pinned && now >= from).then(|| Step::Activate(next.kid.clone()));
    }
    let active_since = keys.iter().find_map(|key| match key.state {
        SigningKeyState::Active { since } => Some(since),
        _ => None,
    });
    let age = TimeDelta::days(i64::from(rule.rotate_days?)) - rule.lead();
    (!full && now >= active_since? + age).then_some(Step::Publish)
}

fn due_of_retired(key: &SigningKey, rule: SigningRule, now: DateTime<Utc>) -> Option<Step> {
    let SigningKeyState::Retired { at, erased_at, ends } = key.state else { return None };
    let kid = || key.kid.clone();
    match (erased_at, ends) {
        (None, _) => (now >= at + rule.lead()).then(|| Step::Erase(kid())),
        (Some(erased), None) => (now >= erased + SETTLED).then(|| Step::Count(kid(), key.activated_at.unwrap_or(at))),
        (Some(_), Some(Ends::At(end))) => (now >= end + LEEWAY).then(|| Step::Remove(kid())),
        (Some(_), Some(Ends::Never)) => None,
    }
}

/// The key that will sign next.
pub(crate) fn next(keys: &[SigningKey]) -> Option<&SigningKey> {
    keys.iter().find(|key| key.state == SigningKeyState::Next)
}

/// When a next key has been published long enough.
pub(crate) fn may_sign_from(next: &SigningKey, rule: SigningRule) -> DateTime<Utc> {
    next.created_at + rule.lead()
}

/// When a next key signs whoever does not know it.
pub(crate) fn waits_until(next: &SigningKey, rule: SigningRule) -> DateTime<Utc> {
    next.created_at + rule.lead().max(TimeDelta::seconds(i64::from(rule.longest_wait)))
}

/// When a key stops being published; `None` if that is not known yet, or does not happen by itself.
pub(crate) fn published_until(key: &SigningKey) -> Option<DateTime<Utc>> {
    match key.state {
        SigningKeyState::Retired { ends: Some(Ends::At(end)), .. } => Some(end + LEEWAY),
        SigningKeyState::Gone { at, .. } => Some(at),
        _ => None,
    }
}

/// Whether the world sees it, and tokens under it count.
pub(crate) fn is_published(key: &SigningKey) -> bool {
    !matches!(key.state, SigningKeyState::Gone { .. })
}

/// The key that a server signs with: the active one, if it may; else the one that is longest known of those that signed
/// before and still can. `known_for` says how long this server has published a key.
pub(crate) fn signs<K: AsRef<SigningKey>>(keys: &[K], rule: SigningRule, known_for: impl Fn(&K) -> Duration) -> Option<&K> {
    let lead = rule.lead().to_std().unwrap_or_default();
    let is_known = |key: &K| key.as_ref().at_once || known_for(key) >= lead;
    let active = keys.iter().find(|key| matches!(key.as_ref().state, SigningKeyState::Active { .. }));
    if active.is_none_or(is_known) {
        return active;
    }
    let before = keys.iter().filter(|key| matches!(key.as_ref().state, SigningKeyState::Retired { erased_at: None, .. }));
    // Of those it knows long enough the newest, else the oldest of all.
    let known = before.clone().filter(|key| is_known(key)).max_by_key(|key| key.as_ref().created_at);
    known.or_else(|| before.min_by_key(|key| key.as_ref().created_at)).or(active)
}

/// Seconds that a verifier may keep what it fetches at `now`. Just after an emergency: not at all.
pub(crate) fn max_age(keys: &[SigningKey], now: DateTime<Utc>) -> u32 {
    let alarmed = keys.iter().any(|key| match key.state {
        SigningKeyState::Gone { at, why: GoneWhy::Emergency } => now < at + ALARM,
        _ => false,
    });
    if alarmed { 0 } else { JWKS_MAX_AGE }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use claviger_store::signing_key::Algorithm;
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    fn key(kid: &str, created: i64, state: SigningKeyState) -> SigningKey {
        let activated_at = match state {
            SigningKeyState::Next => None,
            _ => Some(at(created)),
        };
        SigningKey {
            kid: kid.into(),
            algorithm: Algorithm::EdDsa,
            public_key: vec![],
            sealed_private: vec![1],
            created_at: at(created),
            activated_at,
            at_once: false,
            audience: None,
            state,
        }
    }

    const DAY: i64 = 86_400;

    fn by(rule: SigningRule) -> Terms {
        Terms { rule, pinned: false, full: false, awaited: false }
    }

    #[test]
    fn a_pinned_key_waits_for_an_admin_and_a_full_set_for_room() {
        let rule = SigningRule { lead: 3600, rotate_days: Some(30), ..SigningRule::default() };
        let active = key("a", 0, SigningKeyState::Active { since: at(0) });
        let pinned = Terms { pinned: true, ..by(rule) };
        assert_eq!(due(std::slice::from_ref(&active), pinned, at(30 * DAY)), Some(Step::Publish));
        assert_eq!(due(std::slice::from_ref(&active), Terms { full: true, ..by(rule) }, at(3000 * DAY)), None);
        assert_eq!(due(&[key("b", 0, SigningKeyState::Next), active], pinned, at(3000 * DAY)), None);
    }

    #[test]
    fn a_next_key_is_published_a_lead_before_its_turn_and_signs_after_it() {
        let rule = SigningRule { lead: 3600, rotate_days: Some(30), ..SigningRule::default() };
        let active = key("a", 0, SigningKeyState::Active { since: at(0) });
        let keys = [active.clone()];
        assert_eq!(due(&keys, by(rule), at(30 * DAY - 3601)), None);
        assert_eq!(due(&keys, by(rule), at(30 * DAY - 3600)), Some(Step::Publish));
        assert_eq!(due(&keys, by(SigningRule { rotate_days: None, ..rule }), at(3000 * DAY)), None);
        let keys = [key("b", 10, SigningKeyState::Next), active];
        assert_eq!(due(&keys, by(rule), at(3609)), None);
        assert_eq!(due(&keys, by(rule), at(3610)), Some(Step::Activate("b".into())));
        assert_eq!(due(&keys, by(SigningRule { rotate_days: None, ..rule }), at(3610)), Some(Step::Activate("b".into())));
    }

    #[test]
    fn a_next_key_waits_for_those_who_are_named_and_no_longer_than_the_longest_wait() {
        let rule = SigningRule { lead: 3600, rotate_days: None, longest_wait: 7200 };
        let keys = [key("b", 0, SigningKeyState::Next), key("a", 0, SigningKeyState::Active { since: at(0) })];
        let awaited = Terms { awaited: true, ..by(rule) };
        assert_eq!(due(&keys, awaited, at(7199)), None);
        assert_eq!(due(&keys, awaited, at(7200)), Some(Step::Activate("b".into())));
        let short = Terms { rule: SigningRule { longest_wait: 0, ..rule }, ..awaited };
        assert_eq!(due(&keys, short, at(3599)), None, "the lead is the least");
        assert_eq!(due(&keys, short, at(3600)), Some(Step::Activate("b".into())));
    }

    #[test]
    fn a_retired_key_loses_its_private_half_then_its_tokens_then_itself() {
        let rule = SigningRule { lead: 3600, rotate_days: None, ..SigningRule::default() };
        let retired =
            |erased: Option<i64>, ends| [key("a", -10, SigningKeyState::Retired { at: at(0), erased_at: erased.map(at), ends })];
        assert_eq!(due(&retired(None, None), by(rule), at(3599)), None);
        assert_eq!(due(&retired(None, None), by(rule), at(3600)), Some(Step::Erase("a".into())));
        assert_eq!(due(&retired(Some(3600), None), by(rule), at(3659)), None);
        assert_eq!(due(&retired(Some(3600), None), by(rule), at(3660)), Some(Step::Count("a".into(), at(-10))));
        let ends = Some(Ends::At(at(5000)));
        assert_eq!(due(&retired(Some(3600), ends), by(rule), at(5599)), None);
        assert_eq!(due(&retired(Some(3600), ends), by(rule), at(5600)), Some(Step::Remove("a".into())));
        assert_eq!(due(&retired(Some(3600), Some(Ends::Never)), by(rule), at(5000 * DAY)), None);
    }

    #[test]
    fn after_an_emergency_nothing_is_kept_for_an_hour() {
        let gone = |why| [key("a", 0, SigningKeyState::Gone { at: at(100), why })];
        assert_eq!(max_age(&gone(GoneWhy::Emergency), at(3699)), 0);
        assert_eq!(max_age(&gone(GoneWhy::Emergency), at(3700)), JWKS_MAX_AGE);
        assert_eq!(max_age(&gone(GoneWhy::Ended), at(100)), JWKS_MAX_AGE);
    }

    /// A server: what it last read, and since when it knows each key, by its own steady time.
    #[derive(Default)]
    struct Replica {
        keys: Vec<SigningKey>,
        known: BTreeMap<String, i64>,
    }

    struct Known(SigningKey);

    impl AsRef<SigningKey> for Known {
        fn as_ref(&self) -> &SigningKey {
            &self.0
        }
    }

    struct Token {
        kid: String,
        ends: i64,
    }

    /// Verifiers that keep what they fetched from one server for as long as they may.
    struct Verifier {
        replica: usize,
        fetched_at: i64,
        kids: BTreeSet<String>,
    }

    struct World {
        now: i64,
        made: usize,
        kept: Vec<SigningKey>,
        replicas: Vec<Replica>,
        verifiers: Vec<Verifier>,
        tokens: Vec<Token>,
        rule: SigningRule,
    }

    impl World {
        fn new(rule: SigningRule) -> Self {
            let mut first = key("0", 0, SigningKeyState::Active { since: at(0) });
            first.at_once = true;
            let replicas = (0..3).map(|_| Replica::default()).collect();
            let mut world = Self { now: 0, made: 1, kept: vec![first], replicas, verifiers: vec![], tokens: vec![], rule };
            for replica in 0..3 {
                world.read(replica);
                world.verifiers.push(Verifier { replica, fetched_at: -1_000_000, kids: BTreeSet::new() });
            }
            world.pass(0);
            world
        }

        fn read(&mut self, replica: usize) {
            let now = self.now;
            let replica = &mut self.replicas[replica];
            replica.keys.clone_from(&self.kept);
            for key in replica.keys.iter().filter(|key| is_published(key)) {
                replica.known.entry(key.kid.clone()).or_insert(now);
            }
        }

        /// News reaches everybody within seconds; verifiers fetch what they may keep no longer.
        fn pass(&mut self, seconds: i64) {
            self.now += seconds;
            for replica in 0..3 {
                self.read(replica);
            }
            for verifier in &mut self.verifiers {
                if self.now - verifier.fetched_at >= i64::from(JWKS_MAX_AGE) {
                    verifier.fetched_at = self.now;
                    let published = self.replicas[verifier.replica].keys.iter().filter(|key| is_published(key));
                    verifier.kids = published.map(|key| key.kid.clone()).collect();
                }
            }
        }

        fn publish(&mut self) {
            self.kept.push(key(&self.made.to_string(), self.now, SigningKeyState::Next));
            self.made += 1;
        }

        /// What one server does when it looks. It goes by the database's time: no server's clock can hurry a key.
        fn look(&mut self) {
            while let Some(step) = due(&self.kept, by(self.rule), at(self.now)) {
                let now = at(self.now);
                let last = |from| {
                    let of = |token: &&Token| self.kept.iter().any(|key| key.kid == token.kid) && token.ends > from;
                    self.tokens.iter().filter(of).map(|token| token.ends).max()
                };
                let end = last(self.now).unwrap_or(self.now);
                for key in &mut self.kept {
                    match (&step, key.state) {
                        (Step::Activate(kid), _) if key.kid == *kid => {
                            key.state = SigningKeyState::Active { since: now };
                            key.activated_at = Some(now);
                        }
                        (Step::Activate(_), SigningKeyState::Active { .. }) => {
                            key.state = SigningKeyState::Retired { at: now, erased_at: None, ends: None };
                        }
                        (Step::Erase(kid), SigningKeyState::Retired { at, .. }) if key.kid == *kid => {
                            key.state = SigningKeyState::Retired { at, erased_at: Some(now), ends: None };
                        }
                        (Step::Count(kid, _), SigningKeyState::Retired { at: since, erased_at, .. }) if key.kid == *kid => {
                            key.state = SigningKeyState::Retired { at: since, erased_at, ends: Some(Ends::At(at(end))) };
                        }
                        (Step::Remove(kid), _) if key.kid == *kid => {
                            key.state = SigningKeyState::Gone { at: now, why: GoneWhy::Ended };
                        }
                        _ => {}
                    }
                }
                if step == Step::Publish {
                    self.publish();
                }
            }
        }

        fn emergency(&mut self) {
            let now = at(self.now);
            for key in &mut self.kept {
                let signs =
                    !matches!(key.state, SigningKeyState::Gone { .. } | SigningKeyState::Retired { erased_at: Some(_), .. });
                if signs {
                    key.state = SigningKeyState::Gone { at: now, why: GoneWhy::Emergency };
                }
            }
            let mut new = key(&self.made.to_string(), self.now, SigningKeyState::Active { since: now });
            new.at_once = true;
            self.made += 1;
            self.kept.push(new);
            // Whoever fetches now may not keep it; whoever fetched before is told within max-age.
            self.pass(i64::from(JWKS_MAX_AGE));
        }

        fn sign(&mut self, replica: usize, lifetime: i64) {
            let now = self.now;
            let server = &self.replicas[replica];
            let known = |key: &Known| {
                let seconds = server.known.get(&key.0.kid).map_or(0, |since| now - since);
                Duration::from_secs(u64::try_from(seconds).unwrap())
            };
            let keys: Vec<_> = server.keys.iter().cloned().map(Known).collect();
            let signs = &signs(&keys, self.rule, known).expect("there is always a key to sign with").0;
            for other in &self.replicas {
                assert!(
                    other.keys.iter().any(|key| key.kid == signs.kid && is_published(key)),
                    "signed under a key that a server does not publish"
                );
            }
            self.tokens.push(Token { kid: signs.kid.clone(), ends: now + lifetime });
        }

        /// Every token that has not ended is believed by everybody, unless its key was withdrawn.
        fn check(&self) {
            for token in self.tokens.iter().filter(|token| token.ends > self.now) {
                let kept = self.kept.iter().find(|key| key.kid == token.kid).unwrap();
                if matches!(kept.state, SigningKeyState::Gone { why: GoneWhy::Emergency, .. }) {
                    continue;
                }
                for verifier in &self.verifiers {
                    assert!(verifier.kids.contains(&token.kid), "a token that has not ended was refused");
                }
            }
            for replica in &self.replicas {
                let gone = |key: &&SigningKey| !is_published(key);
                assert!(
                    self.kept
                        .iter()
                        .filter(gone)
                        .all(|key| replica.keys.iter().any(|seen| seen.kid == key.kid && !is_published(seen)))
                );
            }
        }
    }

    #[derive(Debug, Clone)]
    enum Event {
        Pass(i64),
        Look,
        Rotate,
        Emergency,
        /// A server is started anew and has seen nothing.
        Restart(usize),
        Sign(usize, i64),
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            6 => (1..3600_i64).prop_map(Event::Pass),
            2 => (3600..10 * DAY).prop_map(Event::Pass),
            6 => Just(Event::Look),
            2 => Just(Event::Rotate),
            1 => Just(Event::Emergency),
            1 => (0..3_usize).prop_map(Event::Restart),
            8 => ((0..3_usize), (5..40 * DAY)).prop_map(|(replica, lifetime)| Event::Sign(replica, lifetime)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]

        #[test]
        fn t06_no_valid_token_is_refused_and_none_is_under_an_unpublished_key(
            lead in 300..2 * DAY,
            rotate_days in prop_oneof![Just(None), (3..40_i32).prop_map(Some)],
            events in proptest::collection::vec(event(), 1..120),
        ) {
            let mut world = World::new(SigningRule { lead: i32::try_from(lead).unwrap(), rotate_days, ..SigningRule::default() });
            for event in events {
                match event {
                    Event::Pass(seconds) => world.pass(seconds),
                    Event::Look => {
                        world.look();
                        world.pass(0);
                    }
                    Event::Rotate => {
                        if next(&world.kept).is_none() {
                            world.publish();
                            world.pass(0);
                        }
                    }
                    Event::Emergency => world.emergency(),
                    Event::Restart(replica) => {
                        world.replicas[replica] = Replica::default();
                        world.read(replica);
                    }
                    Event::Sign(replica, lifetime) => world.sign(replica, lifetime),
                }
                world.check();
            }
        }
    }
}
