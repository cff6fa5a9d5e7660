//! News of changed rows: noted with the change, announced when it is done, and missed by no sweep.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::TimeDelta;
use claviger_store::api_key::{KeptSecret, KeyUse, SecretMac};
use claviger_store::audit::Batch;
use claviger_store::change::{Change, ChangeListener, Sweep};
use claviger_store::id::{ApplicationId, Owner, TenantId, UserId};
use claviger_store::token_family::{EndedBy, Principal};
use claviger_store::{Store, Tx};
use support::{
    BUCKET, Database, Furnished, audience, entry, furnish, hash, head, key_id, lines, new_family, new_key, new_session, new_user,
    now, number, run, signing_key, successor, token, uuid,
};

const SECOND: TimeDelta = TimeDelta::seconds(1);
/// For what comes within milliseconds, on a machine that does much else.
const SOON: Duration = Duration::from_secs(20);

async fn with_tenant() -> (Database, Store, Furnished) {
    let database = Database::create().await;
    let store = database.store().await;
    store.ensure_token_partitions(now()).await.unwrap();
    let furnished = furnish(&store, "a").await;
    (database, store, furnished)
}

/// Every deed that changes what the hot path remembers, and what must be forgotten for it.
async fn deed(store: &Store, at: &Furnished, name: &str, commit: bool) -> BTreeSet<String> {
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = tx.tenant(at.tenant).await.unwrap();
    let now = now();
    let by = Some((now, "operator:test"));
    let (tenant, user, application, key) = (
        format!("tenants {}", at.tenant),
        format!("users {}", at.user),
        format!("applications {}", at.application),
        format!("api_keys {}", at.key),
    );
    let secret = format!("api_key_secrets {}", at.key);
    let expected = match name {
        "update_tenant" => {
            scoped.update_tenant("new name", &serde_json::json!({ "token_lifetime": 60 })).await.unwrap();
            vec![tenant]
        }
        "set_tenant_disabled" => {
            assert!(scoped.set_tenant_disabled(by).await.unwrap());
            vec![tenant]
        }
        "delete_tenant" => {
            assert!(scoped.delete_tenant(now, "operator:test").await.unwrap());
            vec![tenant]
        }
        "create_user" => {
            let id = UserId(uuid());
            scoped.create_user(&new_user(id, &format!("u{id}")), now).await.unwrap();
            vec![format!("users {id}")]
        }
        "set_user_email" => {
            assert!(scoped.set_user_email(at.user, None).await.unwrap());
            vec![user]
        }
        "set_user_roles" => {
            assert!(scoped.set_user_roles(at.user, &["auditor".to_owned()]).await.unwrap());
            vec![user]
        }
        "set_user_disabled" => {
            assert!(scoped.set_user_disabled(at.user, by).await.unwrap());
            vec![user]
        }
        "delete_user" => {
            assert!(scoped.delete_user(at.user, now, "operator:test").await.unwrap());
            vec![user]
        }
        "create_application" => {
            let id = ApplicationId(uuid());
            scoped.create_application(id, &id.to_string(), None, now).await.unwrap();
            vec![format!("applications {id}")]
        }
        "update_application" => {
            assert!(scoped.update_application(at.application, "new name", Some(60)).await.unwrap());
            vec![application]
        }
        "set_application_disabled" => {
            assert!(scoped.set_application_disabled(at.application, by).await.unwrap());
            vec![application]
        }
        "delete_application" => {
            assert!(scoped.delete_application(at.application, now, "operator:test").await.unwrap());
            vec![application]
        }
        "create_key" => {
            let id = key_id();
            let new = new_key(&id, Owner::User(at.user), &[]);
            scoped.create_key(&new, &KeptSecret::Mac(SecretMac([7; 32]), 1), now).await.unwrap();
            vec![format!("api_keys {id}"), format!("api_key_secrets {id}")]
        }
        "update_key" => {
            assert!(scoped.update_key(&at.key, "new name", &[], None, true, None).await.unwrap());
            vec![key]
        }
        "set_key_disabled" => {
            assert!(scoped.set_key_disabled(&at.key, Some("operator:test"), now).await.unwrap());
            vec![key]
        }
        "revoke_key" => {
            assert!(scoped.revoke_key(&at.key, now, "operator:test").await.unwrap());
            vec![key]
        }
        "put_secret" => {
            scoped.put_secret(&at.key, 1, &KeptSecret::Mac(SecretMac([8; 32]), 1), now).await.unwrap();
            vec![secret]
        }
        "put_secret over another" => {
            scoped.put_secret(&at.key, 0, &KeptSecret::Mac(SecretMac([9; 32]), 1), now).await.unwrap();
            vec![secret]
        }
        "put_secret of which a hash is known" => {
            scoped.put_secret(&at.key, 1, &KeptSecret::Hash(hash("old")), now).await.unwrap();
            vec![secret]
        }
        "upgrade_secret" => {
            let (id, old) = (&at.hashed_key, hash(&at.slug));
            assert!(scoped.upgrade_secret(id, &old, SecretMac([7; 32]), 1).await.unwrap());
            assert!(!scoped.upgrade_secret(id, &old, SecretMac([8; 32]), 1).await.unwrap());
            let [kept] = scoped.key_secrets(id).await.unwrap().try_into().ok().unwrap();
            assert!(kept.kept == KeptSecret::Mac(SecretMac([7; 32]), 1));
            vec![format!("api_key_secrets {id}")]
        }
        "end_secret" => {
            scoped.end_secret(&at.key, 0, now + SECOND).await.unwrap();
            vec![secret]
        }
        "create_signing_key" => {
            // A tenant has one active key: this one gets its first.
            let (other, kid) = (TenantId(uuid()), uuid().to_string());
            let mut scoped = tx.tenant(other).await.unwrap();
            scoped.create_tenant(&other.to_string(), "other", &serde_json::json!({}), now).await.unwrap();
            scoped.create_signing_key(signing_key(&kid), now).await.unwrap();
            vec![format!("tenants {other}"), format!("signing_keys {kid}")]
        }
        "create_audience" => {
            let audience = audience();
            scoped.create_audience(&audience).await.unwrap();
            vec![format!("audiences {}", audience.id)]
        }
        "update_audience" => {
            assert!(scoped.update_audience(at.audience, "renamed", "urn:renamed", &serde_json::json!({})).await.unwrap());
            vec![format!("audiences {}", at.audience)]
        }
        "delete_audience" => {
            assert!(scoped.delete_audience(at.audience, now, "operator:test").await.unwrap());
            vec![format!("audiences {}", at.audience)]
        }
        "revoke_token" => {
            assert!(scoped.revoke_token(at.token.id, at.token.expires_at, now, "operator:test").await.unwrap());
            vec![format!("issued_tokens {}", at.token.id)]
        }
        "end_family" => {
            assert!(scoped.end_family(at.family, now, "operator:test", EndedBy::Reuse).await.unwrap());
            vec![format!("token_families {}", at.family)]
        }
        "end_families" => {
            let both = [new_family(Principal::Key(at.key.clone())), new_family(Principal::Key(at.key.clone()))];
            for family in &both {
                scoped.open_family(family).await.unwrap();
            }
            let principal = Principal::Key(at.key.clone());
            assert_eq!(scoped.end_families(&principal, now, "operator:test", EndedBy::Key).await.unwrap().len(), 2);
            both.iter().map(|family| format!("token_families {}", family.id)).collect()
        }
        "end_session" => {
            assert!(scoped.end_session(at.session, now, "operator:test", EndedBy::Logout).await.unwrap());
            vec![format!("sessions {}", at.session)]
        }
        "end_sessions" => {
            let session = new_session(UserId(uuid()));
            scoped.open_session(&session).await.unwrap();
            assert_eq!(scoped.end_sessions(session.user, now, "operator:test", EndedBy::Logout).await.unwrap(), 1);
            vec![format!("sessions {}", session.id)]
        }
        other => panic!("no such deed: {other}"),
    };
    if commit {
        tx.commit().await.unwrap();
    }
    expected.into_iter().collect()
}

/// In an order in which each can be done: those that end something last.
const DEEDS: [&str; 25] = [
    "update_tenant",
    "create_user",
    "set_user_email",
    "set_user_roles",
    "set_user_disabled",
    "create_application",
    "update_application",
    "set_application_disabled",
    "create_key",
    "update_key",
    "set_key_disabled",
    "put_secret",
    "end_secret",
    "put_secret over another",
    "put_secret of which a hash is known",
    "upgrade_secret",
    "create_signing_key",
    "create_audience",
    "update_audience",
    "delete_audience",
    "revoke_key",
    "delete_user",
    "delete_application",
    "set_tenant_disabled",
    "delete_tenant",
];

/// Deeds on rows that lie in partitions. Told under the table's name: a replica does not know the partitions.
const PARTITIONED_DEEDS: [&str; 5] = ["revoke_token", "end_family", "end_families", "end_session", "end_sessions"];

/// All that a sweep tells, as `table id`.
fn told_of_all(sweep: &Sweep) -> BTreeSet<String> {
    sweep.changes.iter().map(|change| format!("{} {}", change.table, change.id)).collect()
}

async fn assert_notes_what_it_changed(deeds: &[&str]) {
    let (database, store, furnished) = with_tenant().await;
    let mut superuser = database.superuser().await;
    for &name in deeds {
        run(&mut superuser, "DELETE FROM changes").await;
        let from = store.sweep_start().await.unwrap();
        let expected = deed(&store, &furnished, name, true).await;
        let sweep = store.sweep(from).await.unwrap();
        assert_eq!(told_of_all(&sweep), expected, "{name}");
        assert_eq!(sweep.changes.len(), expected.len(), "{name} is told once");
        assert!(!sweep.overflow);
        assert!(sweep.changes.iter().all(|change| change.tenant == furnished.tenant) || name == "create_signing_key");
    }
}

#[tokio::test]
async fn every_deed_notes_what_it_changed_and_no_more() {
    assert_notes_what_it_changed(&DEEDS).await;
}

#[tokio::test]
async fn every_deed_on_a_partitioned_table_notes_what_it_changed_under_the_tables_name() {
    assert_notes_what_it_changed(&PARTITIONED_DEEDS).await;
    assert_announces_what_it_changed(&PARTITIONED_DEEDS).await;
}

#[tokio::test]
async fn a_deed_that_is_undone_leaves_no_note_and_is_not_announced() {
    let (database, store, furnished) = with_tenant().await;
    let mut superuser = database.superuser().await;
    let before = number(&mut superuser, "SELECT count(*) FROM changes").await;
    let mut listener = store.listen().await.unwrap();
    for name in DEEDS.into_iter().chain(PARTITIONED_DEEDS) {
        deed(&store, &furnished, name, false).await;
    }
    assert_eq!(number(&mut superuser, "SELECT count(*) FROM changes").await, before);
    // Notifications come in order: this one is the first.
    let marker = deed(&store, &furnished, "set_user_disabled", true).await;
    assert_eq!(next(&mut listener).await.map(|change| format!("{} {}", change.table, change.id)), marker.into_iter().next());
}

#[tokio::test]
async fn a_use_of_a_key_is_no_change_of_it() {
    let (database, store, furnished) = with_tenant().await;
    let mut superuser = database.superuser().await;
    let before = number(&mut superuser, "SELECT count(*) FROM changes").await;
    let mut tx = store.begin_in(furnished.tenant).await.unwrap();
    let (before_it, head, entries) = (head(1), head(2), [entry(2, now())]);
    let tokens = [token(&furnished.key, now() + TimeDelta::minutes(5))];
    let batch = Batch { expected: &before_it, head: &head, entries: &entries, tokens: &tokens };
    let used = KeyUse { at: now() + SECOND, network: None, agent: None };
    let mut scoped = tx.tenant(furnished.tenant).await.unwrap();
    assert!(scoped.record(&batch).await.unwrap());
    scoped.write_key_uses(&[(furnished.key.clone(), used)]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(number(&mut superuser, "SELECT count(*) FROM changes").await, before);
}

#[tokio::test]
async fn what_happens_with_every_login_and_refresh_is_no_news() {
    let (database, store, furnished) = with_tenant().await;
    let mut superuser = database.superuser().await;
    let before = number(&mut superuser, "SELECT count(*) FROM changes").await;
    let (user, family, session) = (furnished.user, furnished.family, furnished.session);
    let mut tx = store.begin_in(furnished.tenant).await.unwrap();
    let mut scoped = tx.tenant(furnished.tenant).await.unwrap();
    // Beginning.
    scoped.open_family(&new_family(Principal::User(user))).await.unwrap();
    scoped.open_session(&new_session(user)).await.unwrap();
    scoped.touch_session(session, now() + SECOND).await.unwrap();
    // Rotating.
    scoped.lock_families(&[(family, 0)]).await.unwrap();
    assert_eq!(scoped.rotate_families(&[&successor(family, 1)], now()).await.unwrap(), 1);
    assert!(scoped.replace_newest(&successor(family, 1), now() + SECOND).await.unwrap());
    // Passwords are read anew at each login.
    scoped.set_password(user, &hash("other"), now(), "operator:test").await.unwrap();
    assert!(scoped.upgrade_password(user, &hash("other"), &hash("stronger")).await.unwrap());
    assert_eq!(scoped.hold_passwords(&[user]).await.unwrap().len(), 1);
    scoped.forget_password(user).await.unwrap();
    // Counting.
    assert_eq!(scoped.count_attempt(&[(BUCKET, 60)], now()).await.unwrap()[0].used, 2);
    scoped.give_back_attempts(&[(BUCKET, 1)]).await.unwrap();
    assert_eq!(scoped.prune_attempts(now() + TimeDelta::days(1)).await.unwrap(), 1);
    tx.commit().await.unwrap();
    assert_eq!(number(&mut superuser, "SELECT count(*) FROM changes").await, before);
}

#[tokio::test]
async fn an_end_is_told_once_and_a_second_one_is_no_news() {
    let (database, store, furnished) = with_tenant().await;
    let mut superuser = database.superuser().await;
    for name in PARTITIONED_DEEDS {
        deed(&store, &furnished, name, true).await;
    }
    let before = number(&mut superuser, "SELECT count(*) FROM changes").await;
    let (now, by) = (now(), "operator:test");
    let mut tx = store.begin_in(furnished.tenant).await.unwrap();
    let mut scoped = tx.tenant(furnished.tenant).await.unwrap();
    assert!(!scoped.revoke_token(furnished.token.id, furnished.token.expires_at, now, by).await.unwrap());
    assert!(!scoped.end_family(furnished.family, now, by, EndedBy::Logout).await.unwrap());
    let principal = Principal::Key(furnished.key.clone());
    assert!(scoped.end_families(&principal, now, by, EndedBy::Key).await.unwrap().is_empty());
    assert!(!scoped.end_session(furnished.session, now, by, EndedBy::Logout).await.unwrap());
    assert_eq!(scoped.end_sessions(furnished.user, now, by, EndedBy::Logout).await.unwrap(), 0);
    tx.commit().await.unwrap();
    assert_eq!(number(&mut superuser, "SELECT count(*) FROM changes").await, before);
}

#[tokio::test]
async fn the_tables_that_note_their_changes_are_listed_here_and_lose_no_row() {
    let (database, _store, _furnished) = with_tenant().await;
    let mut superuser = database.superuser().await;
    let noting = lines(
        &mut superuser,
        "SELECT c.relname::text, replace(encode(t.tgargs, 'escape'), '\\000', ' '),
                -- After each row's insert, update, delete.
                concat_ws(' ', CASE WHEN t.tgtype & 3 = 1 THEN 'after row' END, CASE WHEN t.tgtype & 4 <> 0 THEN 'insert' END,
                          CASE WHEN t.tgtype & 16 <> 0 THEN 'update' END, CASE WHEN t.tgtype & 8 <> 0 THEN 'delete' END),
                coalesce(substring(pg_get_triggerdef(t.oid) FROM 'WHEN \\((.*)\\) EXECUTE'), 'always')
           FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_proc p ON p.oid = t.tgfoid
          WHERE p.proname = 'note_change' AND t.tgenabled = 'O' AND t.tgparentid = 0
            AND NOT has_table_privilege('claviger_app', c.oid, 'DELETE')
          ORDER BY c.relname",
    )
    .await;
    let whole = "after row insert update | always";
    let ended = "after row update | (old.revoked_at IS DISTINCT FROM new.revoked_at)";
    let sooner = "after row update | ((old.revoked_at IS DISTINCT FROM new.revoked_at) OR (old.ends_at IS DISTINCT FROM \
                  new.ends_at))";
    let expected = [
        format!("api_key_secrets | key_id tenant_id | {whole}"),
        format!("api_keys | id tenant_id | {whole}"),
        format!("applications | id tenant_id | {whole}"),
        format!("audiences | id tenant_id | {whole}"),
        // Nothing but the end of one may be updated.
        "issued_tokens | jti tenant_id | after row update | always".to_owned(),
        format!("sessions | id tenant_id | {ended}"),
        format!("signing_keys | kid tenant_id | {whole}"),
        format!("tenants | id id | {whole}"),
        // A family may also be made to end sooner.
        format!("token_families | id tenant_id | {sooner}"),
        format!("users | id tenant_id | {whole}"),
    ];
    // A trigger may be told more than the two columns.
    let columns_alone = |line: &String| {
        let mut parts: Vec<String> = line.split(" | ").map(str::to_owned).collect();
        parts[1] = parts[1].split(' ').take(2).collect::<Vec<_>>().join(" ");
        parts.join(" | ")
    };
    assert_eq!(noting.iter().map(columns_alone).collect::<Vec<_>>(), expected);
    let silent = lines(
        &mut superuser,
        "SELECT i.inhrelid::regclass::text FROM pg_inherits i
          WHERE EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = i.inhparent AND t.tgname = 'note_change')
            AND NOT EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = i.inhrelid AND t.tgname = 'note_change')",
    )
    .await;
    assert_eq!(silent, [""; 0], "partitions without their table's trigger");
}

/// A transaction that made a user and is still open, and the note it left.
async fn under_way(store: &Store, tenant: TenantId) -> (Tx, String) {
    let id = UserId(uuid());
    let mut tx = store.begin_in(tenant).await.unwrap();
    tx.tenant(tenant).await.unwrap().create_user(&new_user(id, &id.to_string()), now()).await.unwrap();
    (tx, format!("users {id}"))
}

#[tokio::test]
async fn a_sweep_misses_no_change_that_began_before_it_and_was_committed_after_it() {
    let (_database, store, a) = with_tenant().await;
    let b = furnish(&store, "b").await;
    let start = store.sweep_start().await.unwrap();
    // The older transaction, with the smaller number, is slow.
    let (slow, of_slow) = under_way(&store, a.tenant).await;
    let (quick, of_quick) = under_way(&store, b.tenant).await;
    quick.commit().await.unwrap();
    let first = store.sweep(start).await.unwrap();
    assert!(told_of_all(&first).contains(&of_quick));
    assert!(!told_of_all(&first).contains(&of_slow), "what is not committed is not told");
    let second = store.sweep(first.next).await.unwrap();
    assert!(!told_of_all(&second).contains(&of_slow));
    slow.commit().await.unwrap();
    let third = store.sweep(second.next).await.unwrap();
    assert!(told_of_all(&third).contains(&of_slow), "the gap in the sequence is not stepped over");
    // Nor by who begins to sweep while it is under way.
    let (slow, of_slow) = under_way(&store, a.tenant).await;
    let late_start = store.sweep_start().await.unwrap();
    slow.commit().await.unwrap();
    assert!(told_of_all(&store.sweep(late_start).await.unwrap()).contains(&of_slow));
}

#[tokio::test]
async fn sweeps_amid_many_writers_tell_every_change() {
    const WRITERS: i64 = 4;
    const EACH: i64 = 25;
    let (database, store, a) = with_tenant().await;
    let writers = Store::connect(&database.urls(), 8).await.unwrap();
    let start = store.sweep_start().await.unwrap();
    let done = std::sync::atomic::AtomicBool::new(false);
    let write = async {
        let each = (0..WRITERS).map(|writer| {
            let (writers, tenant) = (&writers, a.tenant);
            async move {
                let mut written = BTreeSet::new();
                for round in 0..EACH {
                    let id = UserId(uuid());
                    let mut tx = writers.begin_in(tenant).await.unwrap();
                    let name = format!("u{writer}.{round}");
                    tx.tenant(tenant).await.unwrap().create_user(&new_user(id, &name), now()).await.unwrap();
                    // Commits leave the order of the beginnings.
                    tokio::time::sleep(Duration::from_millis(u64::try_from((writer * 7 + round * 3) % 11).unwrap())).await;
                    tx.commit().await.unwrap();
                    written.insert(format!("users {id}"));
                }
                written
            }
        });
        let written = futures_util::future::join_all(each).await;
        done.store(true, std::sync::atomic::Ordering::SeqCst);
        written.into_iter().flatten().collect::<BTreeSet<String>>()
    };
    let sweep = async {
        let (mut heard, mut from, mut sweeps) = (BTreeSet::new(), start, 0);
        loop {
            let last = done.load(std::sync::atomic::Ordering::SeqCst);
            let swept = store.sweep(from).await.unwrap();
            heard.extend(told_of_all(&swept));
            from = swept.next;
            sweeps += 1;
            if last {
                break (heard, sweeps);
            }
        }
    };
    let (written, (heard, sweeps)) = tokio::join!(write, sweep);
    assert_eq!(written.len(), usize::try_from(WRITERS * EACH).unwrap());
    assert_eq!(written.difference(&heard).count(), 0, "changes that no sweep told");
    assert!(sweeps > 3, "{sweeps}");
}

async fn next(listener: &mut ChangeListener) -> Option<Change> {
    tokio::time::timeout(SOON, listener.next()).await.expect("no notification").unwrap()
}

async fn assert_announces_what_it_changed(deeds: &[&str]) {
    let (_database, store, furnished) = with_tenant().await;
    let mut listener = store.listen().await.unwrap();
    let mut expected: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for &name in deeds {
        expected.insert(name, deed(&store, &furnished, name, true).await);
    }
    for name in deeds {
        let mut heard = BTreeSet::new();
        for _ in &expected[name] {
            let change = next(&mut listener).await.unwrap();
            assert_eq!(change.tenant == furnished.tenant, *name != "create_signing_key", "{name}");
            heard.insert(format!("{} {}", change.table, change.id));
        }
        assert_eq!(heard, expected[name], "{name}");
    }
}

#[tokio::test]
async fn a_listener_hears_of_every_committed_change() {
    assert_announces_what_it_changed(&DEEDS).await;
}

#[tokio::test]
async fn what_a_listener_does_not_understand_or_did_not_hear_counts_as_missed_news() {
    let (database, store, furnished) = with_tenant().await;
    let mut superuser = database.superuser().await;
    let mut listener = store.listen().await.unwrap();
    for nonsense in ["", "users", "users not-an-id x", &format!("users {}", furnished.tenant)] {
        run(&mut superuser, &format!("SELECT pg_notify('claviger_change', '{nonsense}')")).await;
        assert_eq!(next(&mut listener).await, None, "{nonsense}");
    }
    run(
        &mut superuser,
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
          WHERE datname = current_database() AND query ILIKE 'LISTEN%' AND pid <> pg_backend_pid()",
    )
    .await;
    // Either it says that news may have been missed and goes on, or it says that it is broken; never nothing.
    let broken = tokio::time::timeout(SOON, listener.next()).await.expect("the loss was not noticed");
    assert!(matches!(broken, Ok(None) | Err(_)), "{broken:?}");
    if broken.is_err() {
        listener = store.listen().await.unwrap();
    }
    deed(&store, &furnished, "set_user_disabled", true).await;
    let heard = next(&mut listener).await.unwrap();
    assert_eq!(heard, Change { table: "users".into(), tenant: furnished.tenant, id: furnished.user.to_string() });
}

#[tokio::test]
async fn too_many_changes_to_tell_are_an_overflow() {
    let (database, store, furnished) = with_tenant().await;
    let mut superuser = database.superuser().await;
    run(&mut superuser, "DELETE FROM changes").await;
    let start = store.sweep_start().await.unwrap();
    let notes = |count: i64| {
        format!(
            "INSERT INTO changes (tenant_id, kind, subject)
             SELECT '{}', 'users', n::text FROM generate_series(1, {count}) AS n",
            furnished.tenant
        )
    };
    run(&mut superuser, &notes(9_999)).await;
    let almost = store.sweep(start).await.unwrap();
    assert_eq!((almost.changes.len(), almost.overflow), (9_999, false));
    run(&mut superuser, &notes(2)).await;
    let over = store.sweep(start).await.unwrap();
    assert!(over.overflow);
    // One goes on from behind them, as soon as the transactions of that time have ended, other databases' too.
    let mut from = over.next;
    let behind = async {
        loop {
            let sweep = store.sweep(from).await.unwrap();
            from = sweep.next;
            if sweep.changes.is_empty() {
                break assert!(!sweep.overflow);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(SOON, behind).await.expect("the same changes are told again and again");
}

#[tokio::test]
async fn old_notes_are_pruned_and_recent_ones_stay() {
    let (database, store, furnished) = with_tenant().await;
    let mut superuser = database.superuser().await;
    run(&mut superuser, "DELETE FROM changes").await;
    let start = store.sweep_start().await.unwrap();
    for minutes in [0, 59, 90, 119, 121, 600, 100_000] {
        let note = format!(
            "INSERT INTO changes (tenant_id, kind, subject, at)
             VALUES ('{}', 'users', '{minutes}', clock_timestamp() - interval '{minutes} minutes')",
            furnished.tenant
        );
        run(&mut superuser, &note).await;
    }
    assert_eq!(store.prune_changes().await.unwrap(), 3);
    let left: BTreeSet<String> = ["0", "59", "90", "119"].map(|minutes| format!("users {minutes}")).into();
    assert_eq!(told_of_all(&store.sweep(start).await.unwrap()), left);
    assert_eq!(store.prune_changes().await.unwrap(), 0);
    // Whatever else the application asks for, what a replica may not have read yet stays.
    let mut app = database.app().await;
    assert_eq!(run(&mut app, "DELETE FROM changes").await, 2);
    assert_eq!(number(&mut superuser, "SELECT count(*) FROM changes").await, 2);
}
