//! What the history proves (T22): pure functions from what was seen to what is wrong with it.
//!
//! A rotation is *acknowledged* when a client received its 200. From then on the chain has to continue from it: no token
//! may have two successors, no client that only ever presented its newest token may be refused, and a token whose
//! successor was used must not be answered any more.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use uuid::Uuid;

use crate::history::{Ask, Call, Digest, Family, Fault};
use crate::plan::Part;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// An acknowledged rotation from which the chain does not continue.
    Lost,
    /// A token with two successors, a successor with two parents, or two different answers for one rotation.
    Double,
    /// A family that ended though nobody replayed anything.
    WronglyRevoked,
    /// A replay that was not refused, or after which the family lived on.
    MissedReplay,
    /// A client that heard nothing for longer than the window, and was then refused.
    Late,
    /// An unknown outcome that was not told as one: 503 with `Retry-After`.
    NotUnknown,
    /// Anything else that does not fit.
    Other,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Anomaly {
    pub(crate) kind: Kind,
    pub(crate) part: Part,
    pub(crate) family: u32,
    pub(crate) what: String,
}

impl fmt::Display for Anomaly {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, part, family, what } = self;
        write!(f, "{part} {kind:?}: family {family}: {what}")
    }
}

/// What the tables say of a family at the end.
#[derive(Debug, Clone)]
pub(crate) struct FamilyRow {
    pub(crate) sid: Uuid,
    /// The number of the newest token, counted from 0.
    pub(crate) generation: i32,
    /// The numbers of all its tokens.
    pub(crate) generations: Vec<i32>,
    pub(crate) revoked_why: Option<String>,
    /// Entries of the audit trail that tell of a replay in it.
    pub(crate) reuses_audited: i64,
    /// Entries of the audit trail that tell of a rotation in it.
    pub(crate) rotations_audited: i64,
    /// The ids of the access tokens that were issued for it.
    pub(crate) issued: BTreeSet<Uuid>,
}

/// What was counted in a part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Count {
    pub(crate) calls: u64,
    /// Rotations of which a client received the answer.
    pub(crate) acknowledged: u64,
    /// Answers that were given more than once, the same each time.
    pub(crate) replayed: u64,
    pub(crate) planted: u64,
    pub(crate) caught: u64,
    /// Answers by status; 0 is none.
    pub(crate) statuses: BTreeMap<u16, u64>,
}

/// One family and its calls, in order of their start.
struct View<'a> {
    family: &'a Family,
    calls: Vec<&'a Call>,
}

impl View<'_> {
    fn presentations(&self) -> impl Iterator<Item = (&Call, Digest)> {
        self.calls.iter().filter(|call| call.ask != Ask::Login).filter_map(|call| Some((*call, call.token_in?)))
    }

    /// Answers with a new token, of each token that was presented.
    fn answers(&self) -> BTreeMap<Digest, Vec<&Call>> {
        let mut answers: BTreeMap<Digest, Vec<&Call>> = BTreeMap::new();
        for (call, token) in self.presentations().filter(|(call, _)| call.rotated()) {
            answers.entry(token).or_default().push(call);
        }
        answers
    }

    /// When the first planted replay began.
    fn planted_from(&self) -> u64 {
        let replays = self.calls.iter().filter(|call| call.ask == Ask::Replay);
        replays.map(|call| call.start).min().unwrap_or(u64::MAX)
    }

    fn anomaly(&self, kind: Kind, what: String) -> Anomaly {
        Anomaly { kind, part: self.family.part, family: self.family.number, what }
    }
}

fn views<'a>(families: &'a [Family], calls: &'a [Call]) -> Vec<View<'a>> {
    let mut by_family: HashMap<u32, Vec<&Call>> = HashMap::new();
    for call in calls {
        by_family.entry(call.family).or_default().push(call);
    }
    let view = |family: &'a Family| View { family, calls: by_family.remove(&family.number).unwrap_or_default() };
    families.iter().map(view).collect()
}

/// Judges what was seen from outside.
pub(crate) fn judge(families: &[Family], calls: &[Call]) -> Vec<Anomaly> {
    let views = views(families, calls);
    let mut anomalies = shared_successors(calls);
    anomalies.extend(calls.iter().filter_map(odd_answer));
    for view in &views {
        anomalies.extend(double_answers(view));
        anomalies.extend(refused_honesty(view));
        anomalies.extend(answered_replays(view));
        anomalies.extend(plants(view));
    }
    anomalies
}

/// Every token out belongs to one token in, over all families.
fn shared_successors(calls: &[Call]) -> Vec<Anomaly> {
    let mut parents: HashMap<Digest, &Call> = HashMap::new();
    let mut anomalies = Vec::new();
    for call in calls {
        let Some(token) = call.token_out else { continue };
        let first = *parents.entry(token).or_insert(call);
        if (first.family, first.token_in) != (call.family, call.token_in) {
            let what = format!("the token {token:?} came out of calls {} and {}, for different tokens", first.id, call.id);
            anomalies.push(Anomaly { kind: Kind::Double, part: call.part, family: call.family, what });
        }
    }
    anomalies
}

/// The contract of one answer, whatever the history.
fn odd_answer(call: &Call) -> Option<Anomaly> {
    let complain = |kind, what: &str| {
        let what = format!("call {}: {what}", call.id);
        Some(Anomaly { kind, part: call.part, family: call.family, what })
    };
    let cut = matches!(call.fault, Fault::CutAfterCommit | Fault::CutBeforeCommit);
    match (call.status, call.ask) {
        (503, _) if !call.retry_after => complain(Kind::NotUnknown, "503 without Retry-After"),
        (status, _) if cut && status != 503 => {
            complain(Kind::NotUnknown, &format!("its commit was cut and the answer was {status}"))
        }
        (0 | 503, _) => None,
        (200, _) if call.token_out.is_some() => None,
        (200, _) => complain(Kind::Other, "200 without the promised tokens"),
        (401, Ask::Refresh | Ask::Replay | Ask::Afterwards) => match call.error.as_deref() {
            Some("invalid_grant") => None,
            error => complain(Kind::Other, &format!("401 with the error {error:?} instead of invalid_grant")),
        },
        (status, ask) => complain(Kind::Other, &format!("{ask:?} was answered {status} ({:?})", call.error)),
    }
}

/// One token, one answer.
fn double_answers(view: &View<'_>) -> Vec<Anomaly> {
    let mut anomalies = Vec::new();
    for (token, answers) in view.answers() {
        let Some(first) = answers.first() else { continue };
        for other in &answers {
            if other.token_out != first.token_out {
                let what = format!("{token:?} has two successors: calls {} and {}", first.id, other.id);
                anomalies.push(view.anomaly(Kind::Double, what));
            } else if other.body != first.body {
                let what = format!(
                    "{token:?} was answered with one successor, but different bytes: calls {} and {}",
                    first.id, other.id
                );
                anomalies.push(view.anomaly(Kind::Double, what));
            }
        }
    }
    anomalies
}

/// A client that presents its newest token is never refused. Only the first refusal is told: the rest follows from it.
fn refused_honesty(view: &View<'_>) -> Option<Anomaly> {
    let planted_from = view.planted_from();
    let (refused, token) =
        view.presentations().find(|(call, _)| call.ask == Ask::Refresh && call.status == 401 && call.end < planted_from)?;
    let window = u64::try_from(view.family.window.as_micros()).unwrap_or(u64::MAX);
    let earlier = view.presentations().filter(|(call, other)| *other == token && call.id != refused.id);
    let first_tried = earlier.map(|(call, _)| call.start).min().unwrap_or(refused.start);
    let answered = view.answers();
    let used_before =
        answered.get(&token).is_some_and(|answers| answers.iter().any(|answer| answer.received && answer.end <= refused.start));
    // A presentation that nobody waited for any more may have been carried out late.
    let unheard: Vec<u64> = view
        .presentations()
        .filter(|(call, other)| *other != token && !call.received && call.start < refused.start)
        .map(|(call, _)| call.id)
        .collect();
    let details = format!(
        "call {} with {token:?} was refused ({}); unanswered before it, with older tokens: {:?}",
        refused.id,
        refused.reason.as_deref().unwrap_or("no reason"),
        unheard.iter().rev().take(5).collect::<Vec<_>>(),
    );
    let kind = match () {
        () if refused.end.saturating_sub(first_tried) > window => Kind::Late,
        // Its rotation was not lost: the family was ended, for a replay that nobody made.
        () if used_before || refused.reason.is_some() => Kind::WronglyRevoked,
        () => Kind::Lost,
    };
    Some(view.anomaly(kind, details))
}

/// No token is answered once its successor was used, or when its window is over.
fn answered_replays(view: &View<'_>) -> Vec<Anomaly> {
    let answers = view.answers();
    let window = u64::try_from(view.family.window.as_micros()).unwrap_or(u64::MAX);
    let mut anomalies = Vec::new();
    for (token, answered) in &answers {
        let successors: BTreeSet<Digest> = answered.iter().filter_map(|answer| answer.token_out).collect();
        let used = successors.iter().filter_map(|successor| answers.get(successor)).flatten().map(|call| call.end).min();
        let rotated = answered.iter().map(|answer| answer.end).min().unwrap_or(0);
        for late in answered {
            if used.is_some_and(|used| used < late.start) {
                let what = format!("call {} with {token:?} was answered after its successor had been used", late.id);
                anomalies.push(view.anomaly(Kind::MissedReplay, what));
            } else if late.start.saturating_sub(rotated) > window {
                let what = format!("call {} with {token:?} was answered after its window", late.id);
                anomalies.push(view.anomaly(Kind::MissedReplay, what));
            }
        }
    }
    anomalies
}

/// Every planted replay is refused, by name, and ends its family.
fn plants(view: &View<'_>) -> Vec<Anomaly> {
    let replays: Vec<&&Call> = view.calls.iter().filter(|call| call.ask == Ask::Replay).collect();
    if replays.is_empty() {
        return Vec::new();
    }
    let mut anomalies = Vec::new();
    for answered in replays.iter().filter(|call| call.status == 200) {
        anomalies.push(view.anomaly(Kind::MissedReplay, format!("the planted replay in call {} was answered 200", answered.id)));
    }
    let Some(caught) = replays.iter().filter(|call| call.status == 401).map(|call| call.end).min() else {
        anomalies.push(view.anomaly(Kind::MissedReplay, "its planted replay was never refused".into()));
        return anomalies;
    };
    if !replays.iter().any(|call| call.status == 401 && call.reason.as_deref() == Some("refresh_token_reused")) {
        anomalies
            .push(view.anomaly(Kind::Other, "its planted replay was refused without the reason refresh_token_reused".into()));
    }
    for alive in view.calls.iter().filter(|call| call.rotated() && call.start > caught) {
        let what = format!("call {} was answered 200 after the family's replay had been refused", alive.id);
        anomalies.push(view.anomaly(Kind::MissedReplay, what));
    }
    anomalies
}

/// Judges whether every client could go on at the end, and compares what was seen with the tables.
pub(crate) fn compare(families: &[Family], calls: &[Call], rows: &[FamilyRow]) -> Vec<Anomaly> {
    let by_sid: HashMap<Uuid, &FamilyRow> = rows.iter().map(|row| (row.sid, row)).collect();
    let mut anomalies = Vec::new();
    for view in views(families, calls) {
        let Family { planted, finished, abandoned, sid, .. } = view.family;
        // Where a refusal is the cause, it was told already.
        if !planted && !finished && !abandoned && refused_honesty(&view).is_none() {
            anomalies.push(view.anomaly(Kind::Lost, "its client could not go on at the end".into()));
        }
        match sid.and_then(|sid| by_sid.get(&sid)) {
            Some(row) => anomalies.extend(compare_one(&view, row)),
            None => {
                anomalies.push(view.anomaly(Kind::Lost, format!("its login was acknowledged, but no row has its sid {sid:?}")))
            }
        }
    }
    anomalies.extend(strangers(families, calls, rows));
    anomalies
}

fn compare_one(view: &View<'_>, row: &FamilyRow) -> Vec<Anomaly> {
    let mut anomalies = Vec::new();
    let mut wrong = |kind, what: String| anomalies.push(view.anomaly(kind, format!("sid {}: {what}", row.sid)));

    let expected: Vec<i32> = (0..=row.generation).collect();
    let mut generations = row.generations.clone();
    generations.sort_unstable();
    if generations != expected {
        wrong(Kind::Double, format!("generation {} with tokens numbered {generations:?}", row.generation));
    }
    let mut seen: BTreeSet<Digest> = view.calls.iter().filter_map(|call| call.token_out).collect();
    seen.insert(view.family.first_token);
    if seen.len() > expected.len() {
        wrong(Kind::Lost, format!("{} tokens were given out, the tables know {}", seen.len(), expected.len()));
    }
    if view.family.finished && seen.len() < expected.len() {
        wrong(Kind::Double, format!("its client walked through {} tokens, the tables know {}", seen.len(), expected.len()));
    }
    let missing = view.calls.iter().filter_map(|call| call.jti).filter(|jti| !row.issued.contains(jti)).count();
    if missing > 0 {
        wrong(Kind::Lost, format!("{missing} access tokens were given out that are not on record"));
    }
    if row.rotations_audited != i64::from(row.generation) {
        wrong(Kind::Other, format!("{} rotations, {} in the audit trail", row.generation, row.rotations_audited));
    }
    match (view.family.planted, row.revoked_why.as_deref()) {
        (false, None) => {}
        (false, Some(why)) => wrong(Kind::WronglyRevoked, format!("ended ({why}) though nobody replayed a token")),
        (true, Some("reuse")) if row.reuses_audited > 0 => {}
        (true, Some("reuse")) => wrong(Kind::Other, "its replay is not in the audit trail".into()),
        (true, why) => wrong(Kind::MissedReplay, format!("a token was replayed, and the family ended as {why:?}")),
    }
    anomalies
}

/// Families of which no client knows come from logins without an answer, and nothing happened to them since.
fn strangers(families: &[Family], calls: &[Call], rows: &[FamilyRow]) -> Vec<Anomaly> {
    let known: BTreeSet<Uuid> = families.iter().filter_map(|family| family.sid).collect();
    let unknown: Vec<&FamilyRow> = rows.iter().filter(|row| !known.contains(&row.sid)).collect();
    let unanswered: Vec<&Call> = calls.iter().filter(|call| call.ask == Ask::Login && call.status != 200).collect();
    let part = unanswered.first().or(calls.first().as_ref()).map_or(Part::T01, |call| call.part);
    let anomaly = |what| Anomaly { kind: Kind::Other, part, family: 0, what };
    let mut anomalies = Vec::new();
    if unknown.len() > unanswered.len() {
        let what =
            format!("{} families that no client knows, and only {} logins without an answer", unknown.len(), unanswered.len());
        anomalies.push(anomaly(what));
    }
    for row in unknown.iter().filter(|row| row.generation != 0 || row.revoked_why.is_some()) {
        anomalies.push(anomaly(format!("nobody knows the family {}, and yet it was used", row.sid)));
    }
    anomalies
}

/// Counts for the table.
pub(crate) fn count(families: &[Family], calls: &[Call]) -> BTreeMap<Part, Count> {
    let mut counts: BTreeMap<Part, Count> = BTreeMap::new();
    for call in calls {
        let count = counts.entry(call.part).or_default();
        count.calls += 1;
        *count.statuses.entry(call.status).or_default() += 1;
    }
    for view in views(families, calls) {
        let count = counts.entry(view.family.part).or_default();
        for answers in view.answers().values() {
            count.acknowledged += u64::from(answers.iter().any(|answer| answer.received));
            count.replayed += u64::try_from(answers.len().saturating_sub(1)).unwrap_or(0);
        }
        count.planted += u64::from(view.family.planted);
        let mut replays = view.calls.iter().filter(|call| call.ask == Ask::Replay);
        count.caught += u64::from(view.family.planted && plants(&view).is_empty() && replays.any(|call| call.status == 401));
    }
    counts
}

#[cfg(test)]
mod tests;
