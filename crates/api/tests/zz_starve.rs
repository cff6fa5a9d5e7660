//! x
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, reason = "x")]
#[path = "support/people.rs"]
mod people;
mod support;
use std::time::{Duration, Instant};
use futures_util::future::join_all;
use people::*;
use support::*;
#[actix_web::test]
async fn starve() {
    let server = Server::start().await;
    let tenant = server.tenant("acme").await;
    tenant.user("alice", Some(PASSWORD)).await;
    tenant.user("bob", Some(PASSWORD)).await;
    let key = tenant.app_key("app", &["events:read"]).await;
    let mut tokens = tenant.log_in("bob", PASSWORD).await;
    let browser = Browser::signed_in(&tenant, "bob", PASSWORD).await;
    for calm in [true, false] {
    let mut out = std::collections::BTreeMap::<String, usize>::new();
    let mut slow = Duration::ZERO;
    let stop = std::cell::Cell::new(calm);
    let flood = join_all((0..if calm {0} else {100}).map(|_| async {
        let mut n = std::collections::BTreeMap::<u16, usize>::new();
        while !stop.get() { *n.entry(try_login(&tenant, "alice", WRONG_PASSWORD, &[]).await.status.as_u16()).or_default() += 1; }
        n
    }));
    let began = Instant::now();
    let watch = async {
        for _ in 0..20 {
            let t = Instant::now();
            let a = browser.me().await.status;
            *out.entry(format!("session me {a}")).or_default() += 1;
            let b = refresh(&tenant, refresh_token(&tokens)).await;
            *out.entry(format!("refresh {}", b.status)).or_default() += 1;
            if b.status == 200 { tokens = b.json(); }
            let c = server.with(&key.pair()).post_empty("/v1/authentications").await.status;
            *out.entry(format!("exchange {c}")).or_default() += 1;
            slow = slow.max(t.elapsed());
        }
        stop.set(true);
    };
    let (flood, ()) = tokio::join!(flood, watch);
    let mut total = std::collections::BTreeMap::<u16, usize>::new();
    for n in flood { for (k, v) in n { *total.entry(k).or_default() += v; } }
    eprintln!("calm={calm} {out:?} slowest round {slow:?} in {:?}; flood {total:?}", began.elapsed());
    }
}
