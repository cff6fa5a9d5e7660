//! What operators see of refresh: counters that tell lost answers from parallel ones and from theft.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod binary_support;

use std::collections::BTreeMap;

use binary_support::{Home, Serving};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse battery staple";

/// `claviger_refresh_total` by outcome.
async fn counted(serving: &Serving, port: u16) -> BTreeMap<String, u64> {
    let answer = serving.http.get(format!("http://127.0.0.1:{port}/metrics")).send().await.unwrap();
    assert_eq!(answer.status(), 200);
    let text = answer.text().await.unwrap();
    text.lines()
        .filter_map(|line| {
            let (outcome, value) = line.strip_prefix("claviger_refresh_total{outcome=\"")?.split_once("\"} ")?;
            Some((outcome.to_owned(), value.parse().unwrap()))
        })
        .collect()
}

async fn post(serving: &Serving, path: &str, body: &Value) -> (u16, Value) {
    let answer = serving.http.post(serving.url(path)).json(body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn refresh(serving: &Serving, token: &Value) -> (u16, Value) {
    post(serving, "/v1/token/refresh", &json!({ "refresh_token": token })).await
}

#[tokio::test]
async fn lost_answers_parallel_ones_and_thefts_are_counted_apart() {
    let home = Home::new();
    let (serving, metrics) = home.serve_measured().await;
    let user = json!({ "username": "alice", "password": PASSWORD });
    let made = serving.http.post(serving.url("/v1/users")).header("Authorization", serving.admin().basic()).json(&user);
    assert_eq!(made.send().await.unwrap().status(), 201);
    let (status, first) = post(&serving, "/t/default/v1/login", &user).await;
    assert_eq!(status, 200, "{first}");
    let first = &first["refresh_token"];
    assert_eq!(counted(&serving, metrics).await, BTreeMap::new());

    let (status, lost) = refresh(&serving, first).await;
    assert_eq!(status, 200);
    assert_eq!(refresh(&serving, first).await, (200, lost.clone()));
    assert_eq!(refresh(&serving, first).await, (200, lost.clone()));
    let mut database = home.superuser().await;
    let pass = "UPDATE token_families SET rotated_at = rotated_at - interval '5 seconds'";
    sqlx::query(pass).execute(&mut database).await.unwrap();
    drop(database);
    assert_eq!(refresh(&serving, first).await, (200, lost.clone()));
    let (status, newest) = refresh(&serving, &lost["refresh_token"]).await;
    assert_eq!(status, 200);
    let (status, garbage) = refresh(&serving, &json!("garbage")).await;
    assert_eq!((status, garbage.get("reason")), (401, None));
    let expected = |outcomes: &[(&str, u64)]| -> BTreeMap<_, _> {
        outcomes.iter().map(|(outcome, times)| ((*outcome).to_owned(), *times)).collect()
    };
    let before = [("refused", 1), ("replayed_lost_answer", 1), ("replayed_parallel", 2), ("rotated", 2)];
    assert_eq!(counted(&serving, metrics).await, expected(&before));

    // A theft, and then a token of the login that it ended.
    for token in [first, &newest["refresh_token"]] {
        let (status, problem) = refresh(&serving, token).await;
        assert_eq!((status, &problem["reason"]), (401, &json!("refresh_token_reused")));
    }
    let after = counted(&serving, metrics).await;
    assert_eq!(after.get("reuse"), Some(&1));
    assert_eq!(after.get("rotated"), Some(&2));
    assert_eq!(after.get("replayed_parallel"), Some(&2));
    assert_eq!(after.get("replayed_lost_answer"), Some(&1));
    // Eight tokens were presented: each is counted once, by what became of it.
    assert_eq!(after.values().sum::<u64>(), 8, "{after:?}");
    assert_eq!(after.get("refused"), Some(&2));
    assert_eq!(after.get("failed"), None);
    let ended = serving.stop().await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    home.postgres_is_down().await;
}
