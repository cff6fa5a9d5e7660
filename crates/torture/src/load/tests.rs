//! The rig as a whole against a peer in memory: nothing is found in one that is sound, and the defect of one that is not.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::*;
use crate::checker::{Anomaly, FamilyRow, Kind, compare, judge};
use crate::client::{Door, Network, Person};
use crate::history::{History, lock};
use crate::plan::{Part, stream};
use crate::proxy::Proxy;

/// What is wrong with a peer.
#[derive(Clone, Copy, PartialEq)]
enum Defect {
    None,
    /// Every presentation within the window gets a successor of its own.
    Forks,
    /// A token whose answer was lost is taken for a replay.
    Strict,
    /// A token works for ever.
    Lenient,
    /// Replays are refused, but their families live on.
    Halfhearted,
    /// One rotation in ten is answered but not kept.
    Forgets,
}

#[derive(Default)]
struct Kept {
    /// The token's family and number.
    tokens: HashMap<String, (usize, usize)>,
    families: Vec<Chain>,
    made: u128,
}

struct Chain {
    sid: Uuid,
    generation: usize,
    answers: Vec<String>,
    rotated: std::time::Instant,
    window: Duration,
    ended: bool,
    issued: Vec<Uuid>,
}

impl Kept {
    fn answer(&mut self, family: usize, generation: usize) -> String {
        self.made += 1;
        let (token, jti) = (format!("token-{}", self.made), Uuid::from_u128(self.made));
        self.tokens.insert(token.clone(), (family, generation));
        let chain = &mut self.families[family];
        chain.issued.push(jti);
        let claims = URL_SAFE_NO_PAD.encode(json!({ "sid": chain.sid, "jti": jti }).to_string());
        json!({ "access_token": format!("h.{claims}.s"), "token_type": "Bearer", "expires_in": 900, "refresh_token": token })
            .to_string()
    }

    fn login(&mut self, window: Duration) -> String {
        let family = self.families.len();
        let sid = Uuid::from_u128(1_000_000 + u128::try_from(family).unwrap());
        let rotated = std::time::Instant::now();
        let (answers, issued) = (Vec::new(), Vec::new());
        self.families.push(Chain { sid, generation: 0, answers, rotated, window, ended: false, issued });
        self.answer(family, 0)
    }

    fn refresh(&mut self, token: &str, defect: Defect) -> Option<String> {
        let (family, number) = *self.tokens.get(token)?;
        let chain = &self.families[family];
        if chain.ended {
            return None;
        }
        let fresh = chain.rotated.elapsed() < chain.window;
        if number == chain.generation {
            let answer = self.answer(family, number + 1);
            if defect == Defect::Forgets && self.made.is_multiple_of(10) {
                self.tokens.retain(|_, place| *place != (family, number + 1));
                return Some(answer);
            }
            let chain = &mut self.families[family];
            (chain.generation, chain.rotated) = (number + 1, std::time::Instant::now());
            chain.answers.push(answer.clone());
            return Some(answer);
        }
        if defect == Defect::Lenient || (number + 1 == chain.generation && fresh && defect != Defect::Strict) {
            return if defect == Defect::Forks {
                Some(self.answer(family, number + 1))
            } else {
                chain.answers.get(number).cloned()
            };
        }
        self.families[family].ended = defect != Defect::Halfhearted;
        None
    }

    fn rows(&self) -> Vec<FamilyRow> {
        let row = |chain: &Chain| {
            let generation = i32::try_from(chain.generation).unwrap();
            FamilyRow {
                sid: chain.sid,
                generation,
                generations: (0..=generation).collect(),
                revoked_why: chain.ended.then(|| "reuse".into()),
                reuses_audited: i64::from(chain.ended),
                rotations_audited: i64::from(generation),
                issued: chain.issued.iter().copied().collect(),
            }
        };
        self.families.iter().map(row).collect()
    }
}

async fn serve(mut caller: TcpStream, kept: Arc<Mutex<Kept>>, defect: Defect) {
    let mut read = Vec::new();
    let (path, body) = loop {
        if !matches!(caller.read_buf(&mut read).await, Ok(1..)) {
            return;
        }
        let text = String::from_utf8_lossy(&read).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("Content-Length: ")).unwrap();
        if body.len() == length.parse::<usize>().unwrap() {
            break (head.split(' ').nth(1).unwrap().to_owned(), serde_json::from_str::<Value>(body).unwrap());
        }
    };
    let answer = match path.as_str() {
        "/t/wide/v1/login" => Some(lock(&kept).login(Duration::from_secs(30))),
        "/t/narrow/v1/login" => Some(lock(&kept).login(Duration::from_millis(300))),
        _ => lock(&kept).refresh(body["refresh_token"].as_str().unwrap(), defect),
    };
    let (status, body) = match answer {
        Some(answer) => ("200 OK", answer),
        None => ("401 Unauthorized", json!({ "error": "invalid_grant", "reason": "refresh_token_reused" }).to_string()),
    };
    let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let _ = caller.write_all(answer.as_bytes()).await;
}

/// Loads such a peer for a while; returns what the checker finds, and what went wrong with the clients.
async fn torture(defect: Defect) -> (Vec<Anomaly>, Vec<String>) {
    let kept = Arc::<Mutex<Kept>>::default();
    let mut doors = Vec::new();
    for _ in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        doors.push(Door::new(Proxy::start(listener.local_addr().unwrap()).await.unwrap()));
        let kept = kept.clone();
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                tokio::spawn(serve(caller, kept.clone(), defect));
            }
        });
    }
    let network = Arc::new(Network { doors, history: Arc::new(History::new()) });
    let client = |number, tenant, window| Client {
        network: network.clone(),
        part: Part::T01,
        number,
        person: Person { tenant, username: "alice".into(), password: "secret".into(), window },
        doors: vec![0, 1],
        random: stream(1, "client", number),
        family: 0,
        token: String::new(),
    };
    let mut load = Load::default();
    for number in 0..40 {
        load.rotate(client(number, "wide", Duration::from_secs(30)), true);
    }
    for number in 100..110 {
        load.plant(client(number, "wide", Duration::from_secs(30)));
    }
    for number in 200..205 {
        load.plant_late(client(number, "narrow", Duration::from_millis(300)));
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let problems = load.finish().await;
    let (families, calls) = (network.history.families(), network.history.calls());
    assert!(families.iter().any(|family| family.planted) && families.iter().any(|family| family.finished));
    let mut anomalies = judge(&families, &calls);
    anomalies.extend(compare(&families, &calls, &lock(&kept).rows()));
    (anomalies, problems)
}

/// The kinds that are found in a peer, each once.
async fn found_in(defect: Defect) -> Vec<Kind> {
    let (anomalies, problems) = torture(defect).await;
    assert_eq!(problems, Vec::<String>::new());
    let mut kinds: Vec<Kind> = anomalies.into_iter().map(|anomaly| anomaly.kind).collect();
    kinds.sort_unstable();
    kinds.dedup();
    kinds
}

#[tokio::test]
async fn nothing_is_found_in_a_sound_peer() {
    let (anomalies, problems) = torture(Defect::None).await;
    assert_eq!((anomalies, problems), (Vec::new(), Vec::new()));
}

#[tokio::test]
async fn forks_are_found() {
    assert!(found_in(Defect::Forks).await.contains(&Kind::Double));
}

#[tokio::test]
async fn families_that_end_for_a_lost_answer_are_found() {
    assert!(found_in(Defect::Strict).await.contains(&Kind::WronglyRevoked));
}

#[tokio::test]
async fn replays_that_go_unnoticed_are_found() {
    assert_eq!(found_in(Defect::Lenient).await, [Kind::MissedReplay]);
}

#[tokio::test]
async fn families_that_outlive_their_replay_are_found() {
    assert_eq!(found_in(Defect::Halfhearted).await, [Kind::MissedReplay]);
}

#[tokio::test]
async fn rotations_that_are_not_kept_are_found() {
    assert!(found_in(Defect::Forgets).await.contains(&Kind::Lost));
}
