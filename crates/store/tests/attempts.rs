//! Counted attempts: exact over all connections, forgotten by the time that is given.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use std::collections::BTreeSet;

use chrono::{DateTime, TimeDelta, Utc};
use claviger_store::Store;
use claviger_store::attempt::{Bucket, Counted};
use claviger_store::id::TenantId;
use futures_util::stream::{StreamExt as _, iter};
use sqlx::AssertSqlSafe;
use support::{Database, lines, now, number, run, sqlstate, uuid};

const ACCOUNT: Bucket = [1; 32];
const ADDRESS: Bucket = [2; 32];
const OTHER: Bucket = [3; 32];

async fn with_tenant() -> (Database, Store, TenantId) {
    let database = Database::create().await;
    let store = Store::connect(&database.urls(), 16).await.unwrap();
    let tenant = another_tenant(&store).await;
    (database, store, tenant)
}

async fn another_tenant(store: &Store) -> TenantId {
    let tenant = TenantId(uuid());
    let mut tx = store.begin_in(tenant).await.unwrap();
    let mut scoped = tx.tenant(tenant).await.unwrap();
    scoped.create_tenant(&tenant.to_string(), "test", &serde_json::json!({}), now()).await.unwrap();
    tx.commit().await.unwrap();
    tenant
}

async fn count(store: &Store, tenant: TenantId, buckets: &[(Bucket, i32)], now: DateTime<Utc>) -> Vec<Counted> {
    let mut tx = store.begin_in(tenant).await.unwrap();
    let counted = tx.tenant(tenant).await.unwrap().count_attempt(buckets, now).await.unwrap();
    tx.commit().await.unwrap();
    counted
}

async fn give_back(store: &Store, tenant: TenantId, buckets: &[(Bucket, i32)]) {
    let mut tx = store.begin_in(tenant).await.unwrap();
    tx.tenant(tenant).await.unwrap().give_back_attempts(buckets).await.unwrap();
    tx.commit().await.unwrap();
}

/// What is kept: the first byte of each bucket and its count.
async fn kept(database: &Database) -> Vec<String> {
    let mut superuser = database.superuser().await;
    lines(&mut superuser, "SELECT get_byte(bucket, 0)::text, used::text FROM attempts ORDER BY 1").await
}

#[tokio::test]
async fn two_hundred_attempts_at_once_are_counted_one_by_one() {
    let (database, store, tenant) = with_tenant().await;
    let now = now();
    // Half of them name the buckets the other way round: neither waits for the other for ever.
    let attempts = iter(0..200).map(|attempt| {
        let store = &store;
        async move {
            let (mine, theirs) = ((ACCOUNT, 60), (ADDRESS, 60));
            let turned = attempt % 2 == 1;
            let counted = count(store, tenant, &if turned { [theirs, mine] } else { [mine, theirs] }, now).await;
            (counted[usize::from(turned)].used, counted[usize::from(!turned)].used)
        }
    });
    let counted: Vec<(i32, i32)> = attempts.buffer_unordered(16).collect().await;
    let each_once: BTreeSet<i32> = (1..=200).collect();
    assert_eq!(counted.len(), 200);
    assert_eq!(counted.iter().map(|(account, _)| *account).collect::<BTreeSet<_>>(), each_once);
    assert_eq!(counted.iter().map(|(_, address)| *address).collect::<BTreeSet<_>>(), each_once);
    assert_eq!(kept(&database).await, ["1 | 200", "2 | 200"]);
    // All but one were right: the one stays, whoever gives back beside whom.
    let returns = iter(0..199).map(|attempt| {
        let turned = attempt % 2 == 1;
        let buckets = if turned { [(ADDRESS, 1), (ACCOUNT, 1)] } else { [(ACCOUNT, 1), (ADDRESS, 1)] };
        let store = &store;
        async move { give_back(store, tenant, &buckets).await }
    });
    returns.buffer_unordered(16).collect::<Vec<()>>().await;
    assert_eq!(kept(&database).await, ["1 | 1", "2 | 1"]);
}

#[tokio::test]
async fn an_attempt_that_is_undone_was_not_counted() {
    let (database, store, tenant) = with_tenant().await;
    let mut tx = store.begin_in(tenant).await.unwrap();
    tx.tenant(tenant).await.unwrap().count_attempt(&[(ACCOUNT, 60)], now()).await.unwrap();
    drop(tx);
    assert_eq!(kept(&database).await, [""; 0]);
    assert_eq!(count(&store, tenant, &[(ACCOUNT, 60)], now()).await[0].used, 1);
}

#[tokio::test]
async fn a_window_is_over_by_the_time_that_is_given_and_does_not_grow_with_its_attempts() {
    let (_database, store, tenant) = with_tenant().await;
    let start = now();
    let after = |seconds| start + TimeDelta::seconds(seconds);
    let steps = [
        // Seconds, then what is counted and when it is forgotten.
        (0, 1, 60),
        (1, 2, 60),
        (59, 3, 60),
        (60, 1, 120),
        (119, 2, 120),
        (1000, 1, 1060),
    ];
    for (seconds, used, forgotten) in steps {
        let counted = count(&store, tenant, &[(ACCOUNT, 60)], after(seconds)).await;
        assert_eq!(counted, [Counted { used, forgotten_at: after(forgotten) }], "after {seconds} s");
    }
    // To the microsecond.
    let almost = after(1060) - TimeDelta::microseconds(1);
    assert_eq!(count(&store, tenant, &[(ACCOUNT, 60)], almost).await[0].used, 2);
    assert_eq!(count(&store, tenant, &[(ACCOUNT, 60)], after(1060)).await[0].used, 1);
}

#[tokio::test]
async fn each_bucket_has_its_own_window_and_answers_come_in_the_order_of_the_question() {
    let (_database, store, tenant) = with_tenant().await;
    let start = now();
    count(&store, tenant, &[(ADDRESS, 3600)], start).await;
    let later = start + TimeDelta::seconds(10);
    let asked = [(OTHER, 5), (ADDRESS, 60), (ACCOUNT, 86_400)];
    let counted = count(&store, tenant, &asked, later).await;
    let expected = [
        Counted { used: 1, forgotten_at: later + TimeDelta::seconds(5) },
        Counted { used: 2, forgotten_at: start + TimeDelta::seconds(3600) },
        Counted { used: 1, forgotten_at: later + TimeDelta::seconds(86_400) },
    ];
    assert_eq!(counted, expected);
    assert_eq!(count(&store, tenant, &[], later).await, []);
    // Another tenant's bucket of that name is another bucket.
    let stranger = another_tenant(&store).await;
    assert_eq!(count(&store, stranger, &[(ADDRESS, 60)], later).await[0].used, 1);
}

#[tokio::test]
async fn what_is_given_back_never_makes_room_for_more_than_there_was() {
    let (database, store, tenant) = with_tenant().await;
    let now = now();
    for _ in 0..3 {
        count(&store, tenant, &[(ACCOUNT, 60), (ADDRESS, 60)], now).await;
    }
    give_back(&store, tenant, &[]).await;
    give_back(&store, tenant, &[(ADDRESS, 1), (ACCOUNT, 2), (OTHER, 1)]).await;
    assert_eq!(kept(&database).await, ["1 | 1", "2 | 2"]);
    give_back(&store, tenant, &[(ACCOUNT, 5), (ADDRESS, i32::MAX)]).await;
    assert_eq!(kept(&database).await, ["1 | 0", "2 | 0"]);
    give_back(&store, tenant, &[(ACCOUNT, 1)]).await;
    assert_eq!(count(&store, tenant, &[(ACCOUNT, 60)], now).await[0].used, 1);
}

#[tokio::test]
async fn counts_whose_window_is_over_are_pruned_and_no_others() {
    let (database, store, tenant) = with_tenant().await;
    let stranger = another_tenant(&store).await;
    let now = now();
    count(&store, tenant, &[(ACCOUNT, 60), (ADDRESS, 120), (OTHER, 180)], now).await;
    count(&store, stranger, &[(ACCOUNT, 60)], now).await;
    let prune = async |at| {
        let mut tx = store.begin_in(tenant).await.unwrap();
        let pruned = tx.tenant(tenant).await.unwrap().prune_attempts(at).await.unwrap();
        tx.commit().await.unwrap();
        pruned
    };
    assert_eq!(prune(now).await, 0);
    assert_eq!(prune(now + TimeDelta::seconds(121)).await, 2);
    assert_eq!(kept(&database).await, ["1 | 1", "3 | 1"], "the other tenant's stays");
    assert_eq!(prune(now + TimeDelta::days(1)).await, 1);
    assert_eq!(prune(now + TimeDelta::days(1)).await, 0);
    assert_eq!(kept(&database).await, ["1 | 1"]);
    let mut superuser = database.superuser().await;
    assert_eq!(number(&mut superuser, &format!("SELECT count(*) FROM attempts WHERE tenant_id = '{stranger}'")).await, 1);
}

#[tokio::test]
async fn rows_that_no_deed_leaves_are_refused() {
    let (database, store, tenant) = with_tenant().await;
    count(&store, tenant, &[(ACCOUNT, 60)], now()).await;
    let mut superuser = database.superuser().await;
    for change in ["used = -1", "bucket = 'alice'", "bucket = decode(repeat('00', 33), 'hex')"] {
        let refused = sqlx::raw_sql(AssertSqlSafe(format!("UPDATE attempts SET {change}"))).execute(&mut superuser).await;
        assert_eq!(refused.map_err(|error| sqlstate(&error)).map(|_| ()), Err("23514".to_owned()), "{change}");
    }
    assert_eq!(run(&mut superuser, "UPDATE attempts SET used = 0").await, 1);
}
