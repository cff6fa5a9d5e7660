//! That the checker finds what it is for: each test plants one anomaly into a history that is sound without it.

use std::time::Duration;

use super::*;

const WINDOW: Duration = Duration::from_secs(30);
const SECOND: u64 = 1_000_000;

/// A history that is written down by hand. Token `n` is the digest `n`; a family begins with token 1.
struct Told {
    families: Vec<Family>,
    calls: Vec<Call>,
    now: u64,
}

fn sid(family: u32) -> Uuid {
    Uuid::from_u128(u128::from(family))
}

impl Told {
    fn new() -> Self {
        Self { families: Vec::new(), calls: Vec::new(), now: 0 }.with_family(1)
    }

    fn with_family(mut self, number: u32) -> Self {
        self.families.push(Family {
            number,
            part: Part::T01,
            sid: Some(sid(number)),
            first_token: Digest(1 + 1_000 * u64::from(number - 1)),
            window: WINDOW,
            planted: false,
            finished: true,
            abandoned: false,
        });
        self
    }

    /// A presentation of `token`, a moment after the last; `out` is the token that came of it, with status 200.
    fn call(&mut self, ask: Ask, token: u64, status: u16, out: Option<u64>) -> &mut Call {
        self.now += SECOND / 10;
        let id = u64::try_from(self.calls.len() + 1).unwrap();
        self.calls.push(Call {
            id,
            part: Part::T01,
            client: 1,
            family: 1,
            server: 0,
            start: self.now,
            end: self.now + SECOND / 100,
            ask,
            fault: Fault::None,
            token_in: Some(Digest(token)),
            status,
            received: status != 0,
            token_out: out.map(Digest),
            body: out.map(|out| Digest(out + 500)),
            jti: None,
            error: (status == 401).then(|| "invalid_grant".into()),
            reason: None,
            retry_after: status == 503,
        });
        self.calls.last_mut().unwrap()
    }

    fn rotated(&mut self, token: u64, out: u64) -> &mut Call {
        self.call(Ask::Refresh, token, 200, Some(out))
    }

    fn refused(&mut self, token: u64) -> &mut Call {
        self.call(Ask::Refresh, token, 401, None)
    }

    fn plant(&mut self, token: u64) -> &mut Call {
        self.families[0].planted = true;
        self.families[0].finished = false;
        let call = self.call(Ask::Replay, token, 401, None);
        call.reason = Some("refresh_token_reused".into());
        call
    }

    fn kinds(&self) -> Vec<Kind> {
        judge(&self.families, &self.calls).into_iter().map(|anomaly| anomaly.kind).collect()
    }

    /// The tables as they must be after this.
    fn rows(&self) -> Vec<FamilyRow> {
        let rows = self.families.iter().map(|family| {
            let calls = self.calls.iter().filter(|call| call.family == family.number);
            let tokens: BTreeSet<_> = calls.clone().filter_map(|call| call.token_out).collect();
            let generation = i32::try_from(tokens.len()).unwrap();
            FamilyRow {
                sid: family.sid.unwrap(),
                generation,
                generations: (0..=generation).collect(),
                revoked_why: family.planted.then(|| "reuse".into()),
                reuses_audited: i64::from(family.planted),
                rotations_audited: i64::from(generation),
                issued: calls.filter_map(|call| call.jti).collect(),
            }
        });
        rows.collect()
    }

    fn against(&self, rows: &[FamilyRow]) -> Vec<Kind> {
        compare(&self.families, &self.calls, rows).into_iter().map(|anomaly| anomaly.kind).collect()
    }
}

/// Three rotations with everything that is allowed to happen on the way.
fn sound() -> Told {
    let mut told = Told::new();
    told.rotated(1, 2);
    // Swallowed, unknown, without an answer: then the same answer again.
    let swallowed = told.rotated(2, 3);
    (swallowed.received, swallowed.fault) = (false, Fault::Swallowed);
    told.call(Ask::Refresh, 2, 503, None);
    told.call(Ask::Refresh, 2, 0, None);
    told.rotated(2, 3);
    // At the same time.
    told.rotated(3, 4);
    let start = told.now;
    told.rotated(3, 4).start = start;
    told
}

#[test]
fn a_sound_history_has_no_anomaly() {
    let told = sound();
    assert_eq!(judge(&told.families, &told.calls), []);
    assert_eq!(compare(&told.families, &told.calls, &told.rows()), []);
    let counts = &count(&told.families, &told.calls)[&Part::T01];
    assert_eq!((counts.calls, counts.acknowledged, counts.replayed), (7, 3, 2));
    assert_eq!((counts.planted, counts.caught), (0, 0));
    assert_eq!(counts.statuses, BTreeMap::from([(0, 1), (200, 5), (503, 1)]));
}

#[test]
fn a_planted_replay_that_is_caught_is_no_anomaly() {
    let mut told = sound();
    told.plant(2);
    told.call(Ask::Afterwards, 4, 401, None);
    assert_eq!(judge(&told.families, &told.calls), []);
    assert_eq!(compare(&told.families, &told.calls, &told.rows()), []);
    let counts = &count(&told.families, &told.calls)[&Part::T01];
    assert_eq!((counts.planted, counts.caught), (1, 1));
}

#[test]
fn an_acknowledged_rotation_from_which_the_chain_does_not_go_on_is_lost() {
    let mut told = sound();
    told.refused(4);
    told.refused(4);
    assert_eq!(told.kinds(), [Kind::Lost], "and told once");
}

#[test]
fn a_rotation_that_is_lost_to_the_tables_is_lost() {
    let told = sound();
    let mut rows = told.rows();
    rows[0].generation = 2;
    rows[0].generations = vec![0, 1, 2];
    rows[0].rotations_audited = 2;
    assert_eq!(told.against(&rows), [Kind::Lost]);
    assert_eq!(told.against(&[]), [Kind::Lost], "no row at all");
}

#[test]
fn an_access_token_without_a_record_is_lost() {
    let mut told = sound();
    told.rotated(4, 5).jti = Some(Uuid::from_u128(7));
    let mut rows = told.rows();
    assert_eq!(told.against(&rows), []);
    rows[0].issued.clear();
    assert_eq!(told.against(&rows), [Kind::Lost]);
}

#[test]
fn a_client_that_cannot_go_on_has_lost_its_rotation() {
    let mut told = sound();
    told.families[0].finished = false;
    assert_eq!(told.against(&told.rows()), [Kind::Lost]);
    told.families[0].abandoned = true;
    assert_eq!(told.against(&told.rows()), []);
}

#[test]
fn two_successors_of_a_token_are_double_even_if_one_was_swallowed() {
    let mut told = sound();
    told.rotated(4, 5).received = false;
    told.rotated(4, 6);
    assert_eq!(told.kinds(), [Kind::Double]);
}

#[test]
fn one_successor_in_different_bytes_is_double() {
    let mut told = sound();
    told.rotated(4, 5);
    told.rotated(4, 5).body = Some(Digest(1));
    assert_eq!(told.kinds(), [Kind::Double]);
}

#[test]
fn one_successor_of_two_tokens_is_double_within_a_family_and_across() {
    let mut told = sound();
    told.rotated(4, 3);
    // 3 comes out of 2 and of 4, and 4 was answered after its "successor" had been used.
    assert!(told.kinds().contains(&Kind::Double));
    let mut told = sound().with_family(2);
    told.rotated(1_001, 3).family = 2;
    assert_eq!(told.kinds(), [Kind::Double]);
}

#[test]
fn more_rows_than_tokens_are_double() {
    let told = sound();
    let mut rows = told.rows();
    rows[0].generation = 4;
    rows[0].generations = vec![0, 1, 2, 3, 4];
    rows[0].rotations_audited = 4;
    assert_eq!(told.against(&rows), [Kind::Double]);
}

#[test]
fn generations_that_are_missing_or_ahead_are_double() {
    let told = sound();
    for generations in [vec![0, 1, 3], vec![0, 1, 2, 3, 4], vec![0, 1, 2, 2, 3], vec![]] {
        let mut rows = told.rows();
        rows[0].generations = generations;
        assert_eq!(told.against(&rows), [Kind::Double]);
    }
}

#[test]
fn a_family_that_ends_though_nobody_replayed_was_revoked_wrongly() {
    let told = sound();
    let mut rows = told.rows();
    rows[0].revoked_why = Some("reuse".into());
    assert_eq!(told.against(&rows), [Kind::WronglyRevoked]);
    // Seen from outside: a repeated presentation within the window that is refused.
    let mut told = sound();
    told.rotated(4, 5);
    told.refused(4);
    assert_eq!(told.kinds(), [Kind::WronglyRevoked]);
    // Or its newest token, with a reason that nobody gave.
    let mut told = sound();
    told.refused(4).reason = Some("refresh_token_reused".into());
    told.families[0].finished = false;
    assert_eq!(told.kinds(), [Kind::WronglyRevoked]);
    assert_eq!(told.against(&told.rows()), [], "told already");
}

#[test]
fn a_refusal_after_a_silence_longer_than_the_window_is_late() {
    let mut told = sound();
    told.call(Ask::Refresh, 4, 0, None);
    told.now += 31 * SECOND;
    told.refused(4);
    assert_eq!(told.kinds(), [Kind::Late]);
}

#[test]
fn a_replay_that_is_answered_was_missed_whether_planted_or_not() {
    let mut told = sound();
    let call = told.plant(2);
    (call.status, call.error, call.token_out, call.body) = (200, None, Some(Digest(3)), Some(Digest(503)));
    assert!(told.kinds().iter().all(|kind| *kind == Kind::MissedReplay) && !told.kinds().is_empty());
    assert_eq!(count(&told.families, &told.calls)[&Part::T01].caught, 0);
    // The rules see it without knowing of a plan.
    let mut told = sound();
    told.rotated(2, 3);
    assert_eq!(told.kinds(), [Kind::MissedReplay]);
    let mut told = sound();
    told.rotated(4, 5);
    told.now += 31 * SECOND;
    told.rotated(4, 5);
    assert_eq!(told.kinds(), [Kind::MissedReplay]);
}

#[test]
fn a_family_that_outlives_its_replay_is_a_missed_one() {
    let mut told = sound();
    told.plant(2);
    told.call(Ask::Afterwards, 4, 200, Some(5));
    assert_eq!(told.kinds(), [Kind::MissedReplay]);
    let mut told = sound();
    told.plant(2);
    let mut rows = told.rows();
    for why in [None, Some("logout".to_owned())] {
        rows[0].revoked_why = why;
        assert_eq!(told.against(&rows), [Kind::MissedReplay]);
    }
}

#[test]
fn a_replay_that_was_never_refused_or_never_named_or_never_audited_is_told() {
    let mut told = sound();
    let call = told.plant(2);
    (call.status, call.error, call.reason, call.received) = (0, None, None, false);
    assert_eq!(told.kinds(), [Kind::MissedReplay]);
    let mut told = sound();
    told.plant(2).reason = None;
    assert_eq!(told.kinds(), [Kind::Other]);
    let mut told = sound();
    told.plant(2);
    let mut rows = told.rows();
    rows[0].reuses_audited = 0;
    assert_eq!(told.against(&rows), [Kind::Other]);
}

#[test]
fn a_refusal_before_the_planted_replay_is_not_excused_by_it() {
    let mut told = sound();
    told.refused(4);
    told.plant(2);
    assert_eq!(told.kinds(), [Kind::Lost]);
}

#[test]
fn rotations_and_audit_entries_go_together() {
    let told = sound();
    let mut rows = told.rows();
    rows[0].rotations_audited += 1;
    assert_eq!(told.against(&rows), [Kind::Other]);
}

#[test]
fn an_unknown_outcome_that_is_told_as_anything_else_is_an_anomaly() {
    for fault in [Fault::CutAfterCommit, Fault::CutBeforeCommit] {
        let mut told = sound();
        told.call(Ask::Refresh, 4, 503, None).fault = fault;
        told.rotated(4, 5);
        assert_eq!(told.kinds(), []);
        let mut told = sound();
        told.rotated(4, 5).fault = fault;
        assert_eq!(told.kinds(), [Kind::NotUnknown]);
        let mut told = sound();
        told.call(Ask::Refresh, 4, 0, None).fault = fault;
        assert_eq!(told.kinds(), [Kind::NotUnknown]);
    }
    let mut told = sound();
    told.call(Ask::Refresh, 4, 503, None).retry_after = false;
    assert_eq!(told.kinds(), [Kind::NotUnknown]);
}

#[test]
fn an_answer_outside_the_contract_is_told() {
    let mut told = sound();
    told.call(Ask::Refresh, 4, 500, None);
    assert_eq!(told.kinds(), [Kind::Other]);
    let mut told = sound();
    told.call(Ask::Refresh, 4, 200, None);
    assert_eq!(told.kinds(), [Kind::Other]);
    let mut told = sound();
    told.plant(2).error = Some("unauthenticated".into());
    assert_eq!(told.kinds(), [Kind::Other]);
    let mut told = sound();
    told.call(Ask::Login, 4, 429, None);
    assert_eq!(told.kinds(), [Kind::Other]);
}

#[test]
fn families_of_unanswered_logins_are_expected_and_no_others() {
    let mut told = sound();
    let mut rows = told.rows();
    let stranger = FamilyRow {
        sid: sid(9),
        generation: 0,
        generations: vec![0],
        revoked_why: None,
        reuses_audited: 0,
        rotations_audited: 0,
        issued: BTreeSet::new(),
    };
    rows.push(stranger.clone());
    assert_eq!(told.against(&rows), [Kind::Other]);
    let login = told.call(Ask::Login, 0, 0, None);
    (login.family, login.token_in) = (0, None);
    assert_eq!(told.against(&rows), []);
    rows[1].generation = 1;
    rows[1].generations = vec![0, 1];
    assert_eq!(told.against(&rows), [Kind::Other]);
}
