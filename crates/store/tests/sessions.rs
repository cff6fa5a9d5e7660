//! Browser sessions: begun, seen, ended.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use chrono::TimeDelta;
use claviger_store::api_key::SecretMac;
use claviger_store::id::{SessionId, UserId};
use claviger_store::session::{NewSession, Session};
use claviger_store::token_family::{Ended, EndedBy};
use claviger_store::{Store, TenantTx};
use sqlx::AssertSqlSafe;
use support::{Database, Furnished, furnish, new_session, now, refusal_of, run, sqlstate, uuid, uuid_of, waits};

const BY: &str = "operator:test";

async fn with_tenant() -> (Database, Store, Furnished) {
    let database = Database::create().await;
    let store = database.store().await;
    store.ensure_token_partitions(now()).await.unwrap();
    let furnished = furnish(&store, "a").await;
    (database, store, furnished)
}

async fn read(scoped: &mut TenantTx<'_>, id: SessionId) -> Session {
    scoped.session(id).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_session_is_read_as_it_was_opened_by_the_databases_time() {
    let (_database, store, at) = with_tenant().await;
    let new = NewSession {
        mac: SecretMac([42; 32]),
        pepper_version: 9,
        user_agent: Some("Mozilla/5.0".into()),
        idle_seconds: 77,
        ..new_session(at.user)
    };
    let before = store.database_time().await.unwrap();
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = tx.tenant(at.tenant).await.unwrap();
    scoped.open_session(&new).await.unwrap();
    tx.commit().await.unwrap();
    let after = store.database_time().await.unwrap();
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = tx.tenant(at.tenant).await.unwrap();
    let session = read(&mut scoped, new.id).await;
    assert_eq!((session.id, session.user, session.mac.0, session.pepper_version), (new.id, at.user, [42; 32], 9));
    assert_eq!((session.user_agent.as_deref(), session.idle_seconds), (Some("Mozilla/5.0"), 77));
    assert_eq!((session.ends_at, session.seen_at, session.ended), (new.ends_at, session.created_at, None));
    assert!(before <= session.created_at && session.created_at <= after);
    assert!(scoped.session(SessionId(uuid())).await.unwrap().is_none());
    assert_eq!(refusal_of(scoped.open_session(&new).await.unwrap_err()), "23505");
}

#[tokio::test]
async fn a_session_is_seen_later_and_never_earlier_and_not_once_it_has_ended() {
    let (_database, store, at) = with_tenant().await;
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = tx.tenant(at.tenant).await.unwrap();
    let (earlier, later) = (now() - TimeDelta::hours(1), now() + TimeDelta::minutes(5));
    let begun = read(&mut scoped, at.session).await.seen_at;
    for (seen, kept) in [(earlier, begun), (later, later), (earlier, later)] {
        scoped.touch_session(at.session, seen).await.unwrap();
        assert_eq!(read(&mut scoped, at.session).await.seen_at, kept);
    }
    assert!(scoped.end_session(at.session, now(), BY, EndedBy::Logout).await.unwrap());
    scoped.touch_session(at.session, later + TimeDelta::minutes(5)).await.unwrap();
    assert_eq!(read(&mut scoped, at.session).await.seen_at, later);
}

#[tokio::test]
async fn a_session_ends_once_and_keeps_its_evidence() {
    let (_database, store, at) = with_tenant().await;
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = tx.tenant(at.tenant).await.unwrap();
    for why in [EndedBy::Logout, EndedBy::Revoked, EndedBy::Login, EndedBy::Password, EndedBy::Disabled, EndedBy::Deleted] {
        let (session, ended_at) = (new_session(at.user), now());
        scoped.open_session(&session).await.unwrap();
        assert!(scoped.end_session(session.id, ended_at, BY, why).await.unwrap());
        assert!(!scoped.end_session(session.id, ended_at + TimeDelta::minutes(1), "user:other", EndedBy::Revoked).await.unwrap());
        assert_eq!(read(&mut scoped, session.id).await.ended, Some(Ended { at: ended_at, by: BY.into(), why }));
    }
    assert!(!scoped.end_session(SessionId(uuid()), now(), BY, EndedBy::Logout).await.unwrap());
}

#[tokio::test]
async fn all_sessions_of_a_person_end_and_nobody_elses() {
    let (_database, store, at) = with_tenant().await;
    let stranger = new_session(UserId(uuid()));
    let before = new_session(at.user);
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = tx.tenant(at.tenant).await.unwrap();
    for session in [&stranger, &before, &new_session(at.user), &new_session(at.user)] {
        scoped.open_session(session).await.unwrap();
    }
    assert!(scoped.end_session(before.id, now(), "user:self", EndedBy::Logout).await.unwrap());
    assert_eq!(scoped.end_sessions(at.user, now(), BY, EndedBy::Password).await.unwrap(), 3);
    assert_eq!(scoped.end_sessions(at.user, now(), BY, EndedBy::Password).await.unwrap(), 0);
    assert!(scoped.sessions_of(at.user, now()).await.unwrap().is_empty());
    assert_eq!(read(&mut scoped, before.id).await.ended.unwrap().why, EndedBy::Logout);
    assert_eq!(read(&mut scoped, at.session).await.ended.unwrap().why, EndedBy::Password);
    assert_eq!(read(&mut scoped, stranger.id).await.ended, None);
    assert_eq!(scoped.sessions_of(stranger.user, now()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn of_two_who_end_a_session_at_once_one_did() {
    let (database, store, at) = with_tenant().await;
    let mut superuser = database.superuser().await;
    let mut first = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = first.tenant(at.tenant).await.unwrap();
    assert!(scoped.end_session(at.session, now(), BY, EndedBy::Logout).await.unwrap());
    let second = async {
        let mut tx = store.begin_in(at.tenant).await.unwrap();
        tx.tenant(at.tenant).await.unwrap().end_session(at.session, now(), "user:other", EndedBy::Revoked).await.unwrap()
    };
    assert!(!waits(&mut superuser, second, async { first.commit().await.unwrap() }).await);
}

#[tokio::test]
async fn a_persons_sessions_are_listed_while_they_live_last_seen_first() {
    let (_database, store, at) = with_tenant().await;
    let (user, now) = (UserId(uuid()), now());
    let session = |idle_seconds, hours| {
        let ends_at = now + TimeDelta::hours(hours);
        NewSession { id: SessionId(uuid_of(ends_at)), ends_at, idle_seconds, ..new_session(user) }
    };
    let [first, ended, short, seen, lasting] =
        [session(3600, 24), session(3600, 24), session(60, 24), session(3600, 24), session(172_800, 12)];
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = tx.tenant(at.tenant).await.unwrap();
    for session in [&first, &ended, &short, &seen, &lasting] {
        scoped.open_session(session).await.unwrap();
    }
    assert!(scoped.end_session(ended.id, now, BY, EndedBy::Logout).await.unwrap());
    scoped.touch_session(seen.id, now + TimeDelta::minutes(30)).await.unwrap();
    let mut listed = Vec::new();
    for minutes in [0, 10, 80, 91, 12 * 60] {
        let sessions = scoped.sessions_of(user, now + TimeDelta::minutes(minutes)).await.unwrap();
        listed.push(sessions.iter().map(|session| session.id).collect::<Vec<_>>());
    }
    assert_eq!(listed[0], [seen.id, lasting.id, short.id, first.id]);
    // Not seen for too long.
    assert_eq!(listed[1], [seen.id, lasting.id, first.id]);
    assert_eq!(listed[2], [seen.id, lasting.id]);
    assert_eq!(listed[3], [lasting.id]);
    // Over, whatever its use.
    assert_eq!(listed[4], []);
}

#[tokio::test]
async fn rows_that_no_deed_leaves_are_refused() {
    let (database, _store, _at) = with_tenant().await;
    let mut superuser = database.superuser().await;
    let impossible = [
        "revoked_at = now()",
        "revoked_by = 'operator:test'",
        "revoked_why = 'logout'",
        "revoked_at = now(), revoked_by = 'operator:test'",
        "revoked_at = now(), revoked_why = 'logout'",
        "revoked_by = 'operator:test', revoked_why = 'logout'",
        "revoked_at = now(), revoked_by = 'operator:test', revoked_why = 'boredom'",
        // What ends families only.
        "revoked_at = now(), revoked_by = 'operator:test', revoked_why = 'reuse'",
        "revoked_at = now(), revoked_by = 'operator:test', revoked_why = 'key'",
        "idle_seconds = 0",
        "idle_seconds = -60",
        "mac = ''",
        "mac = decode(repeat('00', 31), 'hex')",
        "mac = decode(repeat('00', 33), 'hex')",
    ];
    for change in impossible {
        let refused = sqlx::raw_sql(AssertSqlSafe(format!("UPDATE sessions SET {change}"))).execute(&mut superuser).await;
        assert_eq!(refused.map_err(|error| sqlstate(&error)).map(|_| ()), Err("23514".to_owned()), "{change}");
    }
    let end = "revoked_at = now(), revoked_by = 'operator:test', revoked_why = 'logout'";
    assert_eq!(run(&mut superuser, &format!("UPDATE sessions SET {end}")).await, 1);
}
