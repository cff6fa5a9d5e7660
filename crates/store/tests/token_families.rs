//! Token families: one step at a time, one successor a token, and locks that those who end a family wait for.

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
use claviger_store::api_key::SecretMac;
use claviger_store::id::{FamilyId, UserId};
use claviger_store::token_family::{EndedBy, LockedFamily, NewFamily, Principal, Successor};
use claviger_store::{Store, StoreError};
use sqlx::{AssertSqlSafe, PgConnection};
use support::{
    Database, Furnished, family_until, furnish, lines, new_family, now, number, refusal_of, run, sqlstate, successor, uuid, waits,
};

const BY: &str = "operator:test";

async fn with_tenant() -> (Database, Store, Furnished) {
    let database = Database::create().await;
    let store = database.store().await;
    store.ensure_token_partitions(now()).await.unwrap();
    let furnished = furnish(&store, "a").await;
    (database, store, furnished)
}

/// Rotates in a transaction of its own.
async fn rotate(store: &Store, at: &Furnished, successors: &[&Successor]) -> Result<usize, StoreError> {
    let mut tx = store.begin_in(at.tenant).await?;
    let moved = tx.tenant(at.tenant).await?.rotate_families(successors, now()).await?;
    tx.commit().await?;
    Ok(moved)
}

/// A family under its lock, which is given back.
async fn state(store: &Store, at: &Furnished, family: FamilyId) -> LockedFamily {
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let mut locked = tx.tenant(at.tenant).await.unwrap().lock_families(&[(family, 0)]).await.unwrap();
    locked.families.remove(&family).unwrap()
}

/// The numbers of a family's tokens, and the first byte of what is kept of each.
async fn tokens(superuser: &mut PgConnection, family: FamilyId) -> Vec<String> {
    let question = format!(
        "SELECT generation::text, get_byte(mac, 0)::text FROM refresh_tokens WHERE family_id = '{family}' ORDER BY generation"
    );
    lines(superuser, &question).await
}

async fn open(store: &Store, at: &Furnished, family: NewFamily) -> FamilyId {
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    tx.tenant(at.tenant).await.unwrap().open_family(&family).await.unwrap();
    tx.commit().await.unwrap();
    family.id
}

#[tokio::test]
async fn a_family_is_read_as_it_was_opened_by_the_databases_time() {
    let (database, store, at) = with_tenant().await;
    let mut superuser = database.superuser().await;
    let new = NewFamily {
        client: Some("key:ck_client".into()),
        scope: vec!["events:read".into(), "events:write".into()],
        user_agent: Some("Mozilla/5.0".into()),
        idle_seconds: 77,
        mac: SecretMac([42; 32]),
        pepper_version: 9,
        ..new_family(Principal::Key(at.key.clone()))
    };
    let (id, ends_at) = (new.id, new.ends_at);
    let before = store.database_time().await.unwrap();
    open(&store, &at, new).await;
    let after = store.database_time().await.unwrap();
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = tx.tenant(at.tenant).await.unwrap();
    let family = scoped.family(id).await.unwrap().unwrap();
    assert_eq!((family.id, &family.principal), (id, &Principal::Key(at.key.clone())));
    assert_eq!(family.client.as_deref(), Some("key:ck_client"));
    assert_eq!(family.scope, ["events:read", "events:write"]);
    assert_eq!((family.user_agent.as_deref(), family.idle_seconds), (Some("Mozilla/5.0"), 77));
    assert_eq!((family.ends_at, family.rotated_at, family.ended), (ends_at, family.created_at, None));
    assert!(before <= family.created_at && family.created_at <= after);
    assert_eq!(scoped.family(at.family).await.unwrap().unwrap().principal, Principal::User(at.user));
    let locked = scoped.lock_families(&[(id, 0), (at.family, 0), (id, 1)]).await.unwrap();
    assert!(after <= locked.now && locked.tenant_active && locked.logins_ended_at.is_none());
    assert_eq!(locked.families.len(), 2);
    let under_lock = &locked.families[&id];
    assert_eq!(under_lock.id, id);
    assert_eq!((under_lock.created_at, under_lock.ends_at), (family.created_at, ends_at));
    assert_eq!((under_lock.idle_seconds, under_lock.generation), (77, 0));
    assert_eq!((&under_lock.sealed_answer, &under_lock.ended), (&None, &None));
    let macs: BTreeSet<_> = locked.macs.into_iter().map(|(token, (version, mac))| (token, version, mac.0)).collect();
    assert_eq!(macs, BTreeSet::from([((id, 0), 9, [42; 32]), ((at.family, 0), 1, [0; 32])]));
    assert_eq!(tokens(&mut superuser, id).await, ["0 | 42"]);
}

#[tokio::test]
async fn what_is_locked_tells_whether_the_tenant_may_act_and_what_it_ended() {
    let (_database, store, at) = with_tenant().await;
    let mut ended = None;
    for (disabled, active) in [(Some((now(), BY)), false), (None, true)] {
        let mut tx = store.begin_in(at.tenant).await.unwrap();
        assert!(tx.tenant(at.tenant).await.unwrap().set_tenant_disabled(disabled).await.unwrap());
        tx.commit().await.unwrap();
        let mut tx = store.begin_in(at.tenant).await.unwrap();
        let locked = tx.tenant(at.tenant).await.unwrap().lock_families(&[(at.family, 0)]).await.unwrap();
        // What ended with the tenant does not come back with it.
        assert_eq!(locked.tenant_active, active);
        // By the database's time, as what it ends.
        let ended_at = locked.logins_ended_at.unwrap();
        assert!(ended_at <= locked.now);
        assert_eq!(*ended.get_or_insert(ended_at), ended_at);
    }
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    assert!(tx.tenant(at.tenant).await.unwrap().delete_tenant(now(), BY).await.unwrap());
    tx.commit().await.unwrap();
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    assert!(!tx.tenant(at.tenant).await.unwrap().lock_families(&[(at.family, 0)]).await.unwrap().tenant_active);
}

#[tokio::test]
async fn a_rotation_moves_one_step_and_keeps_its_answer() {
    let (database, store, at) = with_tenant().await;
    let mut superuser = database.superuser().await;
    let other = open(&store, &at, new_family(Principal::User(at.user))).await;
    for generation in 1..=3 {
        let later = now() + TimeDelta::seconds(i64::from(generation));
        let mut tx = store.begin_in(at.tenant).await.unwrap();
        let moved =
            tx.tenant(at.tenant).await.unwrap().rotate_families(&[&successor(at.family, generation)], later).await.unwrap();
        assert_eq!(moved, 1);
        tx.commit().await.unwrap();
        let family = state(&store, &at, at.family).await;
        assert_eq!((family.generation, family.rotated_at), (generation, later));
        assert_eq!(family.sealed_answer, Some(format!("answer {generation}").into_bytes()));
    }
    assert_eq!(tokens(&mut superuser, at.family).await, ["0 | 0", "1 | 1", "2 | 2", "3 | 3"]);
    assert_eq!((state(&store, &at, other).await.generation, tokens(&mut superuser, other).await), (0, vec!["0 | 0".to_owned()]));
    // Neither back, nor again, nor two steps at once.
    for generation in [0, 2, 3, 5] {
        assert_eq!(rotate(&store, &at, &[&successor(at.family, generation)]).await.unwrap(), 0, "{generation}");
    }
    assert_eq!(state(&store, &at, at.family).await.generation, 3);
    assert_eq!(tokens(&mut superuser, at.family).await.len(), 4);
}

#[tokio::test]
async fn a_second_rotation_of_the_same_token_moves_nothing() {
    let (database, store, at) = with_tenant().await;
    let mut superuser = database.superuser().await;
    // One after the other.
    assert_eq!(rotate(&store, &at, &[&successor(at.family, 1)]).await.unwrap(), 1);
    let second = Successor { mac: SecretMac([99; 32]), sealed_answer: b"forked".to_vec(), ..successor(at.family, 1) };
    assert_eq!(rotate(&store, &at, &[&second]).await.unwrap(), 0);
    // Both at once, without the lock that they should have taken.
    let mut first = store.begin_in(at.tenant).await.unwrap();
    let moved = first.tenant(at.tenant).await.unwrap().rotate_families(&[&successor(at.family, 2)], now()).await.unwrap();
    assert_eq!(moved, 1);
    let fork = Successor { mac: SecretMac([98; 32]), sealed_answer: b"forked".to_vec(), ..successor(at.family, 2) };
    let commit = async { first.commit().await.unwrap() };
    assert_eq!(waits(&mut superuser, rotate(&store, &at, &[&fork]), commit).await.unwrap(), 0);
    assert_eq!(tokens(&mut superuser, at.family).await, ["0 | 0", "1 | 1", "2 | 2"]);
    assert_eq!(state(&store, &at, at.family).await.sealed_answer, Some(b"answer 2".to_vec()));
    // One that was undone did not happen.
    let mut undone = store.begin_in(at.tenant).await.unwrap();
    let moved = undone.tenant(at.tenant).await.unwrap().rotate_families(&[&successor(at.family, 3)], now()).await.unwrap();
    assert_eq!(moved, 1);
    drop(undone);
    assert_eq!(rotate(&store, &at, &[&successor(at.family, 3)]).await.unwrap(), 1);
}

#[tokio::test]
async fn of_a_batch_those_that_were_as_expected_move() {
    let (database, store, at) = with_tenant().await;
    let mut superuser = database.superuser().await;
    let stale = open(&store, &at, new_family(Principal::User(at.user))).await;
    let ended = open(&store, &at, new_family(Principal::User(at.user))).await;
    assert_eq!(rotate(&store, &at, &[&successor(stale, 1)]).await.unwrap(), 1);
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    assert!(tx.tenant(at.tenant).await.unwrap().end_family(ended, now(), BY, EndedBy::Logout).await.unwrap());
    tx.commit().await.unwrap();
    let nowhere = FamilyId(uuid());
    let batch = [stale, at.family, ended, nowhere].map(|family| successor(family, 1));
    assert_eq!(rotate(&store, &at, &batch.iter().collect::<Vec<_>>()).await.unwrap(), 1);
    assert_eq!(tokens(&mut superuser, at.family).await, ["0 | 0", "1 | 1"]);
    assert_eq!(tokens(&mut superuser, ended).await, ["0 | 0"]);
    assert_eq!(number(&mut superuser, "SELECT count(*) FROM refresh_tokens").await, 5);
    assert_eq!(rotate(&store, &at, &[]).await.unwrap(), 0);
}

#[tokio::test]
async fn a_batch_that_names_two_steps_of_a_family_takes_one_and_leaves_no_token_of_the_other() {
    let (database, store, at) = with_tenant().await;
    let mut superuser = database.superuser().await;
    let (one, two) = (successor(at.family, 1), successor(at.family, 2));
    assert_eq!(rotate(&store, &at, &[&one, &two]).await.unwrap(), 1);
    assert_eq!(tokens(&mut superuser, at.family).await, ["0 | 0", "1 | 1"]);
    assert_eq!(rotate(&store, &at, &[&two]).await.unwrap(), 1);
}

#[tokio::test]
async fn a_second_successor_is_refused_by_the_key_whatever_else_goes_wrong() {
    let (database, store, at) = with_tenant().await;
    let mut superuser = database.superuser().await;
    assert_eq!(rotate(&store, &at, &[&successor(at.family, 1)]).await.unwrap(), 1);
    for generation in [0, 1] {
        let insert = format!(
            "INSERT INTO refresh_tokens (tenant_id, family_id, generation, mac, pepper_version)
             VALUES ('{}', '{}', {generation}, decode(repeat('ff', 32), 'hex'), 1)",
            at.tenant, at.family
        );
        let refused = sqlx::raw_sql(AssertSqlSafe(insert)).execute(&mut superuser).await.unwrap_err();
        assert_eq!(sqlstate(&refused), "23505");
    }
    // A family that was set back by hand gives no second successor either: the whole statement is refused.
    run(&mut superuser, "UPDATE token_families SET generation = 0, sealed_answer = NULL").await;
    let fork = Successor { mac: SecretMac([99; 32]), ..successor(at.family, 1) };
    assert_eq!(refusal_of(rotate(&store, &at, &[&fork]).await.unwrap_err()), "23505");
    assert_eq!(tokens(&mut superuser, at.family).await, ["0 | 0", "1 | 1"]);
    assert_eq!(state(&store, &at, at.family).await.generation, 0);
    // And a family is opened once.
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let again = NewFamily { id: at.family, ..new_family(Principal::User(at.user)) };
    assert_eq!(refusal_of(tx.tenant(at.tenant).await.unwrap().open_family(&again).await.unwrap_err()), "23505");
}

#[tokio::test]
async fn the_newest_token_gets_another_secret_in_its_place() {
    let (database, store, at) = with_tenant().await;
    let mut superuser = database.superuser().await;
    for generation in [1, 2] {
        assert_eq!(rotate(&store, &at, &[&successor(at.family, generation)]).await.unwrap(), 1);
    }
    let later = now() + TimeDelta::seconds(40);
    let replace = async |generation: i32| {
        let new = Successor {
            mac: SecretMac([77; 32]),
            pepper_version: 5,
            sealed_answer: b"again".to_vec(),
            ..successor(at.family, generation)
        };
        let mut tx = store.begin_in(at.tenant).await.unwrap();
        let replaced = tx.tenant(at.tenant).await.unwrap().replace_newest(&new, later).await?;
        tx.commit().await?;
        Ok::<_, StoreError>(replaced)
    };
    for generation in [0, 1, 3] {
        assert!(!replace(generation).await.unwrap(), "{generation} is not the newest");
    }
    assert_eq!(tokens(&mut superuser, at.family).await, ["0 | 0", "1 | 1", "2 | 2"]);
    assert!(replace(2).await.unwrap());
    assert_eq!(tokens(&mut superuser, at.family).await, ["0 | 0", "1 | 1", "2 | 77"]);
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = tx.tenant(at.tenant).await.unwrap();
    let locked = scoped.lock_families(&[(at.family, 2)]).await.unwrap();
    let family = &locked.families[&at.family];
    assert_eq!((family.generation, family.rotated_at), (2, later));
    assert_eq!(family.sealed_answer, Some(b"again".to_vec()));
    assert_eq!(locked.macs[&(at.family, 2)].0, 5);
    assert!(scoped.end_family(at.family, now(), BY, EndedBy::Reuse).await.unwrap());
    tx.commit().await.unwrap();
    assert!(!replace(2).await.unwrap(), "of a family that ended nothing moves");
    assert_eq!(rotate(&store, &at, &[&successor(at.family, 3)]).await.unwrap(), 0);
    // The first token stands behind no answer: it cannot be replaced.
    let fresh = open(&store, &at, new_family(Principal::User(at.user))).await;
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let first = tx.tenant(at.tenant).await.unwrap().replace_newest(&successor(fresh, 0), later).await;
    assert_eq!(refusal_of(first.unwrap_err()), "23514");
}

#[tokio::test]
async fn whoever_would_end_a_locked_family_waits_and_then_ends_it() {
    let (database, store, at) = with_tenant().await;
    let mut superuser = database.superuser().await;
    let others = database.store().await;
    for all in [false, true] {
        let family = open(&store, &at, new_family(Principal::Key(at.key.clone()))).await;
        let mut rotating = store.begin_in(at.tenant).await.unwrap();
        let mut scoped = rotating.tenant(at.tenant).await.unwrap();
        let locked = scoped.lock_families(&[(family, 0)]).await.unwrap();
        assert_eq!(locked.families[&family].ended, None);
        let end = async {
            let mut tx = others.begin_in(at.tenant).await.unwrap();
            let mut scoped = tx.tenant(at.tenant).await.unwrap();
            if all {
                let ended = scoped.end_families(&Principal::Key(at.key.clone()), now(), BY, EndedBy::Key).await.unwrap();
                assert_eq!(ended, [family]);
            } else {
                assert!(scoped.end_family(family, now(), BY, EndedBy::Revoked).await.unwrap());
            }
            tx.commit().await.unwrap();
        };
        let finish = async {
            let mut scoped = rotating.tenant(at.tenant).await.unwrap();
            assert_eq!(scoped.rotate_families(&[&successor(family, 1)], now()).await.unwrap(), 1);
            rotating.commit().await.unwrap();
        };
        waits(&mut superuser, end, finish).await;
        let family = state(&store, &at, family).await;
        let why = if all { EndedBy::Key } else { EndedBy::Revoked };
        assert_eq!((family.generation, family.ended.map(|ended| ended.why)), (1, Some(why)));
    }
}

#[tokio::test]
async fn a_lock_that_was_waited_for_sees_all_that_was_committed_before_it_was_given() {
    let (database, store, at) = with_tenant().await;
    let mut superuser = database.superuser().await;
    let others = database.store().await;
    let asked = [(at.family, 0), (at.family, 1), (at.family, 2)];
    let lock = async || {
        let mut tx = others.begin_in(at.tenant).await.unwrap();
        tx.tenant(at.tenant).await.unwrap().lock_families(&asked).await.unwrap()
    };
    // A rotation.
    let mut first = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = first.tenant(at.tenant).await.unwrap();
    scoped.lock_families(&asked).await.unwrap();
    assert_eq!(scoped.rotate_families(&[&successor(at.family, 1)], now()).await.unwrap(), 1);
    let mut committed_at = None;
    let commit = async {
        committed_at = Some(store.database_time().await.unwrap());
        first.commit().await.unwrap();
    };
    let locked = waits(&mut superuser, lock(), commit).await;
    assert_eq!(locked.families[&at.family].generation, 1);
    assert_eq!(locked.families[&at.family].sealed_answer, Some(b"answer 1".to_vec()));
    let known: BTreeSet<i32> = locked.macs.keys().map(|(_, generation)| *generation).collect();
    assert_eq!(known, BTreeSet::from([0, 1]), "the successor that was made meanwhile is known");
    assert!(locked.now >= committed_at.unwrap(), "the time is that after the wait");
    // Another secret in its place.
    let mut first = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = first.tenant(at.tenant).await.unwrap();
    scoped.lock_families(&asked).await.unwrap();
    let again = Successor { mac: SecretMac([55; 32]), ..successor(at.family, 1) };
    assert!(scoped.replace_newest(&again, now()).await.unwrap());
    let locked = waits(&mut superuser, lock(), async { first.commit().await.unwrap() }).await;
    assert_eq!(locked.macs[&(at.family, 1)].1.0, [55; 32]);
    // An end, of the family and of all that the tenant began.
    let mut first = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = first.tenant(at.tenant).await.unwrap();
    let (ended_at, disabled) = (now(), Some((now(), BY)));
    assert!(scoped.end_family(at.family, ended_at, BY, EndedBy::Password).await.unwrap());
    assert!(scoped.set_tenant_disabled(disabled).await.unwrap());
    let locked = waits(&mut superuser, lock(), async { first.commit().await.unwrap() }).await;
    let ended = locked.families[&at.family].ended.clone().unwrap();
    assert_eq!((ended.at, ended.by.as_str(), ended.why), (ended_at, BY, EndedBy::Password));
    assert!(!locked.tenant_active && locked.logins_ended_at.is_some_and(|ended| ended <= locked.now));
    // Nothing, when it was undone.
    let mut first = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = first.tenant(at.tenant).await.unwrap();
    let other = new_family(Principal::User(at.user));
    scoped.lock_families(&asked).await.unwrap();
    scoped.open_family(&other).await.unwrap();
    let locked = waits(&mut superuser, lock(), async { drop(first) }).await;
    assert_eq!(locked.families[&at.family].generation, 1);
}

#[tokio::test]
async fn reading_a_family_and_rotating_another_do_not_wait() {
    let (database, store, at) = with_tenant().await;
    let others = database.store().await;
    let other = open(&store, &at, new_family(Principal::User(at.user))).await;
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = tx.tenant(at.tenant).await.unwrap();
    scoped.lock_families(&[(at.family, 0)]).await.unwrap();
    // A lock that is waited for ends in an error after two seconds.
    assert_eq!(rotate(&others, &at, &[&successor(other, 1)]).await.unwrap(), 1);
    let mut reading = others.begin_in(at.tenant).await.unwrap();
    let mut scoped = reading.tenant(at.tenant).await.unwrap();
    assert!(scoped.family(at.family).await.unwrap().is_some());
    assert_eq!(scoped.families_of(at.user, now()).await.unwrap().len(), 2);
    scoped.open_family(&new_family(Principal::User(at.user))).await.unwrap();
}

#[tokio::test]
async fn batches_over_the_same_families_lock_them_in_one_order_whatever_theirs() {
    const ROUNDS: usize = 200;
    let (_database, store, at) = with_tenant().await;
    // In two quarters, so that they lie in two tables.
    let mut families = Vec::new();
    for days in [1, 200, 2, 250, 3] {
        families.push(open(&store, &at, family_until(Principal::Key(at.key.clone()), now() + TimeDelta::days(days))).await);
    }
    let forwards: Vec<_> = families.iter().map(|family| (*family, 0)).collect();
    let backwards: Vec<_> = forwards.iter().copied().rev().collect();
    let batches = async |asked: &[(FamilyId, i32)]| {
        for _ in 0..ROUNDS {
            let mut tx = store.begin_in(at.tenant).await.unwrap();
            let mut scoped = tx.tenant(at.tenant).await.unwrap();
            let locked = scoped.lock_families(asked).await.unwrap();
            assert_eq!(locked.families.len(), asked.len());
            let next: Vec<_> =
                asked.iter().map(|(family, _)| successor(*family, locked.families[family].generation % 100 + 1)).collect();
            let moved = scoped.rotate_families(&next.iter().collect::<Vec<_>>(), now()).await.unwrap();
            assert_eq!(moved, asked.len());
            // Undone, so that the next round finds the same.
        }
    };
    let ends = async {
        for _ in 0..ROUNDS {
            let mut tx = store.begin_in(at.tenant).await.unwrap();
            let mut scoped = tx.tenant(at.tenant).await.unwrap();
            let ended = scoped.end_families(&Principal::Key(at.key.clone()), now(), BY, EndedBy::Key).await.unwrap();
            assert_eq!(ended.len(), families.len());
        }
    };
    tokio::join!(batches(&forwards), batches(&backwards), ends);
}

/// Who ended a family, when and why.
async fn end_of(store: &Store, at: &Furnished, family: FamilyId) -> Option<(DateTime<Utc>, String, EndedBy)> {
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let family = tx.tenant(at.tenant).await.unwrap().family(family).await.unwrap().unwrap();
    family.ended.map(|ended| (ended.at, ended.by, ended.why))
}

#[tokio::test]
async fn all_families_of_a_person_or_of_a_key_end_and_nobody_elses() {
    let (_database, store, at) = with_tenant().await;
    let stranger = UserId(uuid());
    let of_user = at.family;
    let second_of_user = open(&store, &at, new_family(Principal::User(at.user))).await;
    let of_stranger = open(&store, &at, new_family(Principal::User(stranger))).await;
    let of_key = open(&store, &at, new_family(Principal::Key(at.key.clone()))).await;
    let of_other_key = open(&store, &at, new_family(Principal::Key(at.user_key.clone()))).await;
    // One ended before, and keeps its evidence.
    let ended_before = open(&store, &at, new_family(Principal::User(at.user))).await;
    let (early, late) = (now() - TimeDelta::minutes(5), now());
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = tx.tenant(at.tenant).await.unwrap();
    assert!(scoped.end_family(ended_before, early, "user:self", EndedBy::Logout).await.unwrap());
    assert!(!scoped.end_family(ended_before, late, BY, EndedBy::Reuse).await.unwrap());
    assert!(!scoped.end_family(FamilyId(uuid()), late, BY, EndedBy::Reuse).await.unwrap());
    let ended = scoped.end_families(&Principal::User(at.user), late, BY, EndedBy::Password).await.unwrap();
    assert_eq!(ended.into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([of_user, second_of_user]));
    assert!(scoped.end_families(&Principal::User(at.user), late, BY, EndedBy::Deleted).await.unwrap().is_empty());
    assert_eq!(scoped.end_families(&Principal::Key(at.key.clone()), late, BY, EndedBy::Key).await.unwrap(), [of_key]);
    tx.commit().await.unwrap();
    for (family, why) in [(of_user, EndedBy::Password), (second_of_user, EndedBy::Password), (of_key, EndedBy::Key)] {
        assert_eq!(end_of(&store, &at, family).await, Some((late, BY.to_owned(), why)));
    }
    assert_eq!(end_of(&store, &at, ended_before).await, Some((early, "user:self".to_owned(), EndedBy::Logout)));
    for family in [of_stranger, of_other_key] {
        assert_eq!(end_of(&store, &at, family).await, None);
    }
}

#[tokio::test]
async fn every_reason_is_kept_as_it_was_given() {
    let (_database, store, at) = with_tenant().await;
    let reasons =
        [EndedBy::Reuse, EndedBy::Logout, EndedBy::Revoked, EndedBy::Password, EndedBy::Disabled, EndedBy::Deleted, EndedBy::Key];
    for why in reasons {
        let family = open(&store, &at, new_family(Principal::User(at.user))).await;
        let mut tx = store.begin_in(at.tenant).await.unwrap();
        assert!(tx.tenant(at.tenant).await.unwrap().end_family(family, now(), BY, why).await.unwrap());
        tx.commit().await.unwrap();
        assert_eq!(end_of(&store, &at, family).await.unwrap().2, why);
    }
    // A login takes the place of a session, never of a family.
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let refused = tx.tenant(at.tenant).await.unwrap().end_family(at.family, now(), BY, EndedBy::Login).await;
    assert_eq!(refusal_of(refused.unwrap_err()), "23514");
}

#[tokio::test]
async fn a_persons_families_are_listed_while_they_live_newest_first() {
    let (_database, store, at) = with_tenant().await;
    let user = UserId(uuid());
    let now = now();
    let mut opened = Vec::new();
    for (idle_seconds, days) in [(3600, 1), (3600, 1), (60, 1), (3600, 2), (172_800, 1)] {
        let new = NewFamily { idle_seconds, ..family_until(Principal::User(user), now + TimeDelta::days(days)) };
        opened.push(open(&store, &at, new).await);
    }
    let [first, ended, short, moved, lasting] = opened[..] else { panic!("{opened:?}") };
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = tx.tenant(at.tenant).await.unwrap();
    assert!(scoped.end_family(ended, now, BY, EndedBy::Logout).await.unwrap());
    assert_eq!(scoped.rotate_families(&[&successor(moved, 1)], now + TimeDelta::minutes(30)).await.unwrap(), 1);
    let listed = async |scoped: &mut claviger_store::TenantTx<'_>, at| {
        let families = scoped.families_of(user, at).await.unwrap();
        families.iter().map(|family| family.id).collect::<Vec<_>>()
    };
    assert_eq!(listed(&mut scoped, now).await, [moved, lasting, short, first]);
    // Not refreshed for too long.
    assert_eq!(listed(&mut scoped, now + TimeDelta::minutes(10)).await, [moved, lasting, first]);
    assert_eq!(listed(&mut scoped, now + TimeDelta::minutes(80)).await, [moved, lasting]);
    assert_eq!(listed(&mut scoped, now + TimeDelta::minutes(91)).await, [lasting]);
    // Over, whatever its use.
    assert_eq!(listed(&mut scoped, now + TimeDelta::days(1)).await, []);
    assert!(listed(&mut scoped, now).await.iter().all(|family| *family != at.family));
}

#[tokio::test]
async fn rows_that_no_deed_leaves_are_refused() {
    let (database, store, at) = with_tenant().await;
    let mut superuser = database.superuser().await;
    let living = at.family;
    let rotated = open(&store, &at, new_family(Principal::Key(at.key.clone()))).await;
    assert_eq!(rotate(&store, &at, &[&successor(rotated, 1)]).await.unwrap(), 1);
    let impossible = [
        // An end without its author, time or reason.
        (living, "revoked_at = now()"),
        (living, "revoked_by = 'operator:test'"),
        (living, "revoked_why = 'reuse'"),
        (living, "revoked_at = now(), revoked_by = 'operator:test'"),
        (living, "revoked_at = now(), revoked_why = 'reuse'"),
        (living, "revoked_by = 'operator:test', revoked_why = 'reuse'"),
        (living, "revoked_at = now(), revoked_by = 'operator:test', revoked_why = 'boredom'"),
        (living, "revoked_at = now(), revoked_by = 'operator:test', revoked_why = 'login'"),
        // The first token was carried by no answer, every other by one.
        (living, "sealed_answer = 'answer'"),
        (living, "generation = 1"),
        (rotated, "sealed_answer = NULL"),
        (rotated, "generation = 0"),
        (living, "generation = -1, sealed_answer = 'answer'"),
        // Nobody's, and two principals'.
        (living, "user_id = NULL"),
        (living, "key_id = 'ck_other'"),
        (rotated, "user_id = gen_random_uuid()"),
        (rotated, "key_id = NULL"),
        (living, "idle_seconds = 0"),
        (living, "idle_seconds = -60"),
    ];
    for (family, change) in impossible {
        let update = format!("UPDATE token_families SET {change} WHERE id = '{family}'");
        let refused = sqlx::raw_sql(AssertSqlSafe(update)).execute(&mut superuser).await;
        assert_eq!(refused.map_err(|error| sqlstate(&error)).map(|_| ()), Err("23514".to_owned()), "{change}");
    }
    for length in [0, 31, 33] {
        let update = format!("UPDATE refresh_tokens SET mac = decode(repeat('00', {length}), 'hex')");
        let refused = sqlx::raw_sql(AssertSqlSafe(update)).execute(&mut superuser).await.unwrap_err();
        assert_eq!(sqlstate(&refused), "23514", "{length}");
    }
    // What may be, is.
    let end = "revoked_at = now(), revoked_by = 'operator:test', revoked_why = 'reuse'";
    assert_eq!(run(&mut superuser, &format!("UPDATE token_families SET {end}")).await, 2);
}

#[tokio::test]
async fn a_row_that_could_not_have_been_kept_is_an_error_and_not_a_guess() {
    let (database, store, at) = with_tenant().await;
    let mut superuser = database.superuser().await;
    let checks = lines(
        &mut superuser,
        "SELECT conrelid::regclass::text, conname::text FROM pg_constraint
          WHERE contype = 'c' AND conislocal AND conrelid = 'token_families'::regclass",
    )
    .await;
    for check in &checks {
        let (table, name) = check.split_once(" | ").unwrap();
        run(&mut superuser, &format!("ALTER TABLE {table} DROP CONSTRAINT {name}")).await;
    }
    for change in ["key_id = 'ck_other'", "user_id = NULL", "revoked_at = now()"] {
        run(&mut superuser, "BEGIN").await;
        run(&mut superuser, &format!("UPDATE token_families SET {change}")).await;
        run(&mut superuser, "COMMIT").await;
        let mut tx = store.begin_in(at.tenant).await.unwrap();
        let family = tx.tenant(at.tenant).await.unwrap().family(at.family).await;
        assert!(matches!(family, Err(StoreError::ImpossibleRow { table: "token_families", .. })), "{change}: {family:?}");
        let mend = format!("user_id = '{}', key_id = NULL, revoked_at = NULL", at.user);
        run(&mut superuser, &format!("UPDATE token_families SET {mend}")).await;
    }
    let unknown = "revoked_at = now(), revoked_by = 'operator:test', revoked_why = 'boredom'";
    run(&mut superuser, &format!("UPDATE token_families SET {unknown}")).await;
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let locked = tx.tenant(at.tenant).await.unwrap().lock_families(&[(at.family, 0)]).await;
    assert!(matches!(locked, Err(StoreError::ImpossibleRow { table: "token_families", .. })));
}
