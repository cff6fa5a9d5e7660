//! The refresh rule against a reference model, by random sequences (SECURITY T17).
//!
//! The model is told in other words: it keeps every token that was ever given and when it was spent, where the rule keeps
//! one number and one time. What both say to a presented token must be the same, and what follows from it too.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use claviger_issuer::refresh::{Client, FamilyState, Verdict, Why, judge};
use claviger_store::token_family::EndedBy;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

// ---- The model ----

/// Milliseconds since the login.
type Time = i64;

/// Stands for a secret: no two are alike.
type Secret = u32;

/// What a holder holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Held {
    number: usize,
    secret: Secret,
}

/// A token that was given, in the order in which they follow each other.
struct Given {
    secret: Secret,
    /// When it was spent, last.
    spent: Option<Time>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// A new token follows.
    New(Held),
    /// What was said before, with the token that it gave.
    Same(Held),
    /// Another secret for the token that was given and not used.
    Instead(Held),
    /// The alarm: everything ends.
    Alarm,
    Nothing(Reason),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reason {
    NotOurs,
    NotYours,
    WasEnded(EndedBy),
    TooLate,
}

/// A login.
struct Model {
    given: Vec<Given>,
    window: Time,
    /// Whether its client can prove itself.
    confidential: bool,
    ended: Option<EndedBy>,
    /// When something was last given that was not given before.
    last: Time,
    idle: Time,
    end: Time,
}

impl Model {
    fn present(&mut self, held: Held, right_client: bool, now: Time, fresh: Secret) -> Said {
        let Some(token) = self.given.get(held.number).filter(|token| token.secret == held.secret) else {
            return Said::Nothing(Reason::NotOurs);
        };
        // Another client learns nothing, not even that it has ended.
        if !right_client {
            return Said::Nothing(Reason::NotYours);
        }
        if let Some(why) = self.ended {
            return Said::Nothing(Reason::WasEnded(why));
        }
        if now >= self.end || now >= self.last + self.idle {
            return Said::Nothing(Reason::TooLate);
        }
        let Some(spent) = token.spent else {
            self.given[held.number].spent = Some(now);
            self.given.push(Given { secret: fresh, spent: None });
            self.last = now;
            return Said::New(self.newest());
        };
        let successor_is_used = self.given[held.number + 1].spent.is_some();
        if !successor_is_used && now < spent + self.window {
            return Said::Same(self.newest());
        }
        if !successor_is_used && self.confidential {
            self.given[held.number].spent = Some(now);
            self.given[held.number + 1].secret = fresh;
            self.last = now;
            return Said::Instead(self.newest());
        }
        self.ended = Some(EndedBy::Reuse);
        Said::Alarm
    }

    fn newest(&self) -> Held {
        let number = self.given.len() - 1;
        Held { number, secret: self.given[number].secret }
    }
}

// ---- The rule, with what the database would keep ----

struct Kept {
    state: FamilyState,
    secrets: BTreeMap<i32, Secret>,
    /// The answer that is kept for whoever asks again.
    answer: Option<Held>,
}

fn at(time: Time) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(1_800_000_000_000 + time).unwrap()
}

impl Kept {
    fn present(&mut self, held: Held, client: Client, window: TimeDelta, now: Time, fresh: Secret) -> Said {
        let number = i32::try_from(held.number).unwrap();
        let genuine = self.secrets.get(&number) == Some(&held.secret);
        match judge(&self.state, number, genuine, client, window, at(now), TimeDelta::zero()) {
            Verdict::Rotate => {
                self.state.generation += 1;
                self.give(fresh, now);
                Said::New(self.answer.unwrap())
            }
            Verdict::Replace => {
                self.give(fresh, now);
                Said::Instead(self.answer.unwrap())
            }
            Verdict::Replay => Said::Same(self.answer.expect("there is an answer to be given again")),
            Verdict::Reuse => {
                self.state.ended = Some(EndedBy::Reuse);
                Said::Alarm
            }
            Verdict::Refuse(why) => Said::Nothing(match why {
                Why::Unknown => Reason::NotOurs,
                Why::OtherClient => Reason::NotYours,
                Why::Ended(why) => Reason::WasEnded(why),
                Why::Over => Reason::TooLate,
                Why::Fallen => panic!("the rule does not look at who stands behind"),
                Why::Overtaken => panic!("nothing waits in these stories"),
            }),
        }
    }

    fn give(&mut self, fresh: Secret, now: Time) {
        self.state.rotated_at = at(now);
        self.secrets.insert(self.state.generation, fresh);
        self.answer = Some(Held { number: usize::try_from(self.state.generation).unwrap(), secret: fresh });
    }
}

// ---- What happens ----

#[derive(Debug, Clone)]
enum Step {
    /// A token that was given at some time, so many before the newest.
    Present {
        back: usize,
        right_client: bool,
    },
    /// Any that was ever given, be it dead.
    PresentAny {
        which: Index,
        right_client: bool,
    },
    /// Of the right number and the wrong secret, or of a number that nothing was given for.
    Forge {
        number: usize,
    },
    Pass(Time),
    End(EndedBy),
}

#[derive(Debug, Clone)]
struct Story {
    window: Time,
    confidential: bool,
    idle: Time,
    end: Time,
    steps: Vec<Step>,
}

fn steps() -> impl Strategy<Value = Step> {
    let right = || prop::bool::weighted(0.9);
    let why = prop::sample::select(vec![EndedBy::Logout, EndedBy::Revoked, EndedBy::Password, EndedBy::Disabled, EndedBy::Key]);
    prop_oneof![
        12 => (0..3_usize, right()).prop_map(|(back, right_client)| Step::Present { back, right_client }),
        6 => right().prop_map(|right_client| Step::Present { back: 0, right_client }),
        3 => (any::<Index>(), right()).prop_map(|(which, right_client)| Step::PresentAny { which, right_client }),
        1 => (0..12_usize).prop_map(|number| Step::Forge { number }),
        // Often exactly at an edge.
        4 => prop::sample::select(vec![0, 1, 999, 1_000, 4_999, 5_000, 29_999, 30_000, 59_999, 60_000, 90_000]).prop_map(Step::Pass),
        3 => (0..70_000_i64).prop_map(Step::Pass),
        1 => why.prop_map(Step::End),
    ]
}

fn stories() -> impl Strategy<Value = Story> {
    let windows = prop_oneof![0..=60_i64, prop::sample::select(vec![0, 5, 30, 60])];
    let lives = || prop::sample::select(vec![60_000_i64, 120_000, 1_209_600_000]);
    (windows, any::<bool>(), lives(), lives(), vec(steps(), 1..32)).prop_map(|(window, confidential, idle, end, steps)| Story {
        window: window * 1000,
        confidential,
        idle,
        end,
        steps,
    })
}

/// Plays a story in front of both; counts what was said.
fn play(story: &Story, said: &mut BTreeMap<&'static str, u32>) -> Result<(), TestCaseError> {
    let Story { window, confidential, idle, end, steps } = story;
    let mut model = Model {
        given: vec![Given { secret: 0, spent: None }],
        window: *window,
        confidential: *confidential,
        ended: None,
        last: 0,
        idle: *idle,
        end: *end,
    };
    let mut kept = Kept {
        state: FamilyState {
            generation: 0,
            rotated_at: at(0),
            ends_at: at(*end),
            idle: TimeDelta::milliseconds(*idle),
            ended: None,
        },
        secrets: BTreeMap::from([(0, 0)]),
        answer: None,
    };
    let window = TimeDelta::milliseconds(*window);
    let mut held = vec![Held { number: 0, secret: 0 }];
    let mut successors = HashSet::new();
    let mut over = false;
    let (mut now, mut fresh) = (0, 0);
    for step in steps {
        let (presented, right_client) = match step {
            Step::Pass(time) => {
                now += time;
                continue;
            }
            Step::End(why) => {
                model.ended.get_or_insert(*why);
                kept.state.ended.get_or_insert(*why);
                over = true;
                continue;
            }
            Step::Present { back, right_client } => {
                let number = model.given.len().saturating_sub(back + 1);
                (Held { number, secret: model.given[number].secret }, *right_client)
            }
            Step::PresentAny { which, right_client } => (*which.get(&held), *right_client),
            Step::Forge { number } => (Held { number: *number, secret: u32::MAX }, true),
        };
        fresh += 1;
        let client = match (right_client, confidential) {
            (false, _) => Client::Other,
            (true, true) => Client::Proven,
            (true, false) => Client::Bearer,
        };
        let before = (kept.state.clone(), kept.secrets.clone());
        let expected = model.present(presented, right_client, now, fresh);
        let ruled = kept.present(presented, client, window, now, fresh);
        prop_assert_eq!(expected, ruled, "{:?} by {:?} at {}", presented, client, now);
        prop_assert_eq!(usize::try_from(kept.state.generation).unwrap(), model.given.len() - 1);
        prop_assert_eq!(kept.state.rotated_at, at(model.last));
        prop_assert_eq!(kept.state.ended, model.ended);
        let secrets: Vec<_> = model.given.iter().map(|token| token.secret).collect();
        prop_assert_eq!(kept.secrets.values().copied().collect::<Vec<_>>(), secrets);

        // What holds whatever the model says.
        let granted = matches!(ruled, Said::New(_) | Said::Same(_) | Said::Instead(_));
        prop_assert!(!(granted && over), "something was given after the end");
        prop_assert!(!(granted && client == Client::Other), "something was given to somebody else");
        prop_assert!(!(granted && presented.secret == u32::MAX), "something was given for a forged token");
        match ruled {
            Said::New(next) => {
                prop_assert_eq!(next.number, presented.number + 1);
                prop_assert!(successors.insert(presented.number), "two successors of number {}", presented.number);
                held.push(next);
            }
            Said::Instead(next) => {
                prop_assert!(*confidential, "a bearer's successor was replaced");
                prop_assert_eq!(next.number, presented.number + 1);
                prop_assert!(next != held[held.len() - 1], "the same secret again");
                held.push(next);
            }
            Said::Same(next) => {
                prop_assert_eq!(next, held[held.len() - 1], "an answer that was not the last");
                prop_assert!(window > TimeDelta::zero());
                prop_assert_eq!(&before, &(kept.state.clone(), kept.secrets.clone()), "a replay changed something");
            }
            Said::Alarm => over = true,
            Said::Nothing(_) => {
                prop_assert_eq!(&before, &(kept.state.clone(), kept.secrets.clone()), "a refusal changed something");
            }
        }
        let word = match ruled {
            Said::New(_) => "new",
            Said::Same(_) => "same",
            Said::Instead(_) => "instead",
            Said::Alarm => "alarm",
            Said::Nothing(Reason::NotOurs) => "not ours",
            Said::Nothing(Reason::NotYours) => "not yours",
            Said::Nothing(Reason::WasEnded(EndedBy::Reuse)) => "ended by reuse",
            Said::Nothing(Reason::WasEnded(_)) => "ended",
            Said::Nothing(Reason::TooLate) => "too late",
        };
        *said.entry(word).or_default() += 1;
    }
    Ok(())
}

#[test]
fn t17_the_rule_and_the_model_say_the_same_in_ten_thousand_stories() {
    let said = RefCell::new(BTreeMap::new());
    let mut runner = TestRunner::new(Config { cases: 10_000, failure_persistence: None, ..Config::default() });
    let outcome = runner.run(&stories(), |story| play(&story, &mut said.borrow_mut()));
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
    // Each of them was heard often, or this shows little.
    let said = said.into_inner();
    let words = ["new", "same", "instead", "alarm", "not ours", "not yours", "ended by reuse", "ended", "too late"];
    for word in words {
        assert!(said.get(word).is_some_and(|times| *times > 500), "{word} was heard too seldom: {said:?}");
    }
}

#[test]
fn a_number_that_nothing_was_given_for_is_not_ours_even_if_its_secret_fits() {
    let state = FamilyState { generation: 3, rotated_at: at(0), ends_at: at(60_000), idle: TimeDelta::seconds(60), ended: None };
    for client in [Client::Bearer, Client::Proven, Client::Other] {
        for number in [4, 5, i32::MAX] {
            let verdict = judge(&state, number, true, client, TimeDelta::seconds(30), at(1), TimeDelta::zero());
            assert_eq!(verdict, Verdict::Refuse(Why::Unknown), "{number} by {client:?}");
        }
    }
}

#[test]
fn a_token_that_waited_is_judged_by_when_it_came() {
    let state = |generation| FamilyState {
        generation,
        rotated_at: at(100_000),
        ends_at: at(10_000_000),
        idle: TimeDelta::seconds(9_000),
        ended: None,
    };
    let judged = |generation, number, now: i64, waited| {
        let (window, waited) = (TimeDelta::seconds(10), TimeDelta::seconds(waited));
        judge(&state(generation), number, true, Client::Bearer, window, at(now * 1000), waited)
    };
    // It came within the window, or before the token after it was made at all.
    assert_eq!(judged(1, 0, 111, 2), Verdict::Replay);
    assert_eq!(judged(1, 0, 101, 2), Verdict::Replay);
    assert_eq!(judged(1, 0, 111, 1), Verdict::Reuse);
    // Its successor was used while it waited: nothing is known, nothing ends. Had it come a moment later, it were reuse.
    assert_eq!(judged(2, 0, 101, 2), Verdict::Refuse(Why::Overtaken));
    assert_eq!(judged(2, 0, 101, 1), Verdict::Reuse);
    assert_eq!(judged(2, 0, 101, 0), Verdict::Reuse);
    // Older ones were used before it came, whenever that was.
    assert_eq!(judged(3, 0, 101, 2), Verdict::Reuse);
}
