//! People and keys: names that are nobody else's, passwords, and what a login holds while it begins.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use claviger_store::id::{KeyId, TenantId, UserId};
use claviger_store::user::{EMAIL_TAKEN, ID_TAKEN, LOOK_TAKEN, NewUser, USERNAME_TAKEN};
use claviger_store::{Store, StoreError};
use support::{Database, Furnished, furnish, hash, lines, new_user, now, uuid, waits};

const BY: &str = "operator:test";

async fn with_tenant() -> (Database, Store, Furnished) {
    let database = Database::create().await;
    let store = database.store().await;
    store.ensure_token_partitions(now()).await.unwrap();
    let furnished = furnish(&store, "a").await;
    (database, store, furnished)
}

async fn create(store: &Store, tenant: TenantId, user: &NewUser<'_>) -> Result<(), StoreError> {
    let mut tx = store.begin_in(tenant).await?;
    tx.tenant(tenant).await?.create_user(user, now()).await?;
    tx.commit().await
}

/// A person with a password.
async fn person(store: &Store, tenant: TenantId, name: &str) -> UserId {
    let id = UserId(uuid());
    let mut tx = store.begin_in(tenant).await.unwrap();
    let mut scoped = tx.tenant(tenant).await.unwrap();
    scoped.create_user(&new_user(id, name), now()).await.unwrap();
    scoped.set_password(id, &hash(name), now(), BY).await.unwrap();
    tx.commit().await.unwrap();
    id
}

#[tokio::test]
async fn a_person_is_read_as_it_was_made() {
    let (_database, store, at) = with_tenant().await;
    let id = UserId(uuid());
    let roles = ["admin".to_owned(), "auditor".to_owned()];
    let user = NewUser {
        id,
        username: "Ada.Lovelace",
        folded: "ada.lovelace",
        skeleton: "ada.love1ace",
        email: Some("ada@example.com"),
        roles: &roles,
        scopes: &[],
        attributes: Some(&serde_json::json!({ "projects": ["p1"] })),
    };
    create(&store, at.tenant, &user).await.unwrap();
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = tx.tenant(at.tenant).await.unwrap();
    for found in [
        scoped.user(id).await.unwrap().unwrap(),
        scoped.user_by_username("ada.lovelace").await.unwrap().unwrap(),
        scoped.user_by_email("ada@example.com").await.unwrap().unwrap(),
        scoped.login_row("ada.lovelace").await.unwrap().unwrap().user,
    ] {
        assert_eq!((found.id, found.username.as_str(), found.email.as_deref()), (id, "Ada.Lovelace", Some("ada@example.com")));
        assert_eq!(found.roles, roles);
        assert_eq!(found.attributes["projects"], serde_json::json!(["p1"]));
        assert!(found.status.is_active());
    }
    assert!(scoped.user_by_username("Ada.Lovelace").await.unwrap().is_none(), "found by the mapped name only");
    assert!(scoped.user_by_username("ada.love1ace").await.unwrap().is_none(), "and never by its look");
    assert!(scoped.set_user_roles(id, &[]).await.unwrap());
    assert!(scoped.user(id).await.unwrap().unwrap().roles.is_empty());
    assert!(!scoped.set_user_roles(UserId(uuid()), &roles).await.unwrap());
}

#[tokio::test]
async fn a_name_its_look_and_an_id_are_given_once_and_never_again() {
    let (_database, store, at) = with_tenant().await;
    let id = UserId(uuid());
    let first = NewUser { email: Some("ada@example.com"), skeleton: "look", ..new_user(id, "ada") };
    create(&store, at.tenant, &first).await.unwrap();
    let stranger = furnish(&store, "b").await.tenant;
    create(&store, stranger, &first).await.unwrap();
    let attempts = [
        (NewUser { username: "ADA", folded: "ada", ..new_user(UserId(uuid()), "other") }, USERNAME_TAKEN),
        (NewUser { skeleton: "look", ..new_user(UserId(uuid()), "other") }, LOOK_TAKEN),
        (new_user(id, "other"), ID_TAKEN),
    ];
    let same_address = NewUser { email: Some("ada@example.com"), ..new_user(UserId(uuid()), "other") };
    let refused = create(&store, at.tenant, &same_address).await.unwrap_err();
    assert_eq!(refused.unique_violation(), Some(EMAIL_TAKEN));
    for deleted in [false, true] {
        if deleted {
            let mut tx = store.begin_in(at.tenant).await.unwrap();
            let mut scoped = tx.tenant(at.tenant).await.unwrap();
            assert!(scoped.delete_user(id, now(), BY).await.unwrap());
            assert!(scoped.user_by_username("ada").await.unwrap().is_none());
            assert!(scoped.login_row("ada").await.unwrap().is_none());
            assert!(!scoped.set_user_roles(id, &["admin".to_owned()]).await.unwrap());
            assert!(!scoped.lock_user(id).await.unwrap());
            tx.commit().await.unwrap();
        }
        for (user, taken) in &attempts {
            let refused = create(&store, at.tenant, user).await.unwrap_err();
            assert_eq!(refused.unique_violation(), Some(*taken), "deleted: {deleted}");
        }
    }
    // The address is free again: it belongs to whoever reads its mail.
    create(&store, at.tenant, &same_address).await.unwrap();
}

#[tokio::test]
async fn a_password_is_set_replaced_upgraded_and_forgotten() {
    let (database, store, at) = with_tenant().await;
    let mut superuser = database.superuser().await;
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = tx.tenant(at.tenant).await.unwrap();
    let passwordless = UserId(uuid());
    scoped.create_user(&new_user(passwordless, "passwordless"), now()).await.unwrap();
    assert_eq!(scoped.login_row("passwordless").await.unwrap().unwrap().password.map(|kept| kept.hash), None);
    assert!(!scoped.upgrade_password(passwordless, &hash("x"), &hash("y")).await.unwrap());
    scoped.set_password(at.user, &hash("second"), now(), "user:self").await.unwrap();
    assert_eq!(scoped.password(at.user).await.unwrap().map(|kept| kept.hash), Some(hash("second")));
    assert_eq!(scoped.login_row(&at.username).await.unwrap().unwrap().password.map(|kept| kept.hash), Some(hash("second")));
    // Changed meanwhile: the upgrade of the old one comes to nothing.
    assert!(!scoped.upgrade_password(at.user, &hash("a"), &hash("stronger")).await.unwrap());
    assert!(scoped.upgrade_password(at.user, &hash("second"), &hash("stronger")).await.unwrap());
    assert_eq!(scoped.password(at.user).await.unwrap().map(|kept| kept.hash), Some(hash("stronger")));
    tx.commit().await.unwrap();
    // An upgrade is no change: who set it stays.
    let kept = "SELECT hash, set_by FROM passwords";
    assert_eq!(lines(&mut superuser, kept).await, [format!("{} | user:self", hash("stronger").as_str())]);
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    tx.tenant(at.tenant).await.unwrap().forget_password(at.user).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(lines(&mut superuser, kept).await, [""; 0]);
    assert!(!format!("{:?}", hash("canary")).contains("canary"));
}

#[tokio::test]
async fn held_are_the_passwords_of_those_who_may_act() {
    let (_database, store, at) = with_tenant().await;
    let (disabled, deleted) = (person(&store, at.tenant, "disabled").await, person(&store, at.tenant, "deleted").await);
    let second = person(&store, at.tenant, "second").await;
    let passwordless = UserId(uuid());
    create(&store, at.tenant, &new_user(passwordless, "passwordless")).await.unwrap();
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = tx.tenant(at.tenant).await.unwrap();
    assert!(scoped.set_user_disabled(disabled, Some((now(), BY))).await.unwrap());
    assert!(scoped.delete_user(deleted, now(), BY).await.unwrap());
    tx.commit().await.unwrap();
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = tx.tenant(at.tenant).await.unwrap();
    let mut held = scoped.hold_passwords(&[second, disabled, deleted, passwordless, at.user, UserId(uuid())]).await.unwrap();
    held.sort();
    let mut expected = vec![];
    for user in [at.user, second] {
        expected.push((user, scoped.password(user).await.unwrap().unwrap().version));
    }
    expected.sort();
    assert_eq!(held, expected);
    assert!(scoped.hold_passwords(&[]).await.unwrap().is_empty());
    assert!(scoped.hold_passwords(&[disabled, deleted]).await.unwrap().is_empty());
}

/// What changes a person in a way that a login must not overlook.
const DEEDS_ON_A_PERSON: [&str; 5] = ["disable", "delete", "set password", "upgrade password", "forget password"];

async fn deed_on_a_person(store: &Store, tenant: TenantId, user: UserId, name: &str) {
    let mut tx = store.begin_in(tenant).await.unwrap();
    let mut scoped = tx.tenant(tenant).await.unwrap();
    match name {
        "disable" => assert!(scoped.set_user_disabled(user, Some((now(), BY))).await.unwrap()),
        "delete" => assert!(scoped.delete_user(user, now(), BY).await.unwrap()),
        "set password" => scoped.set_password(user, &hash("changed"), now(), BY).await.unwrap(),
        "upgrade password" => assert!(scoped.upgrade_password(user, &hash(name), &hash("changed")).await.unwrap()),
        "forget password" => scoped.forget_password(user).await.unwrap(),
        other => panic!("no such deed: {other}"),
    }
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn whoever_would_change_a_person_waits_for_a_login_that_holds_the_password() {
    let (database, store, at) = with_tenant().await;
    let mut superuser = database.superuser().await;
    for name in DEEDS_ON_A_PERSON {
        let user = person(&store, at.tenant, name).await;
        let mut login = store.begin_in(at.tenant).await.unwrap();
        let held = login.tenant(at.tenant).await.unwrap().hold_passwords(&[user]).await.unwrap();
        assert_eq!(held.into_iter().map(|(user, _)| user).collect::<Vec<_>>(), [user]);
        let deed = deed_on_a_person(&store, at.tenant, user, name);
        waits(&mut superuser, deed, async { login.commit().await.unwrap() }).await;
    }
}

#[tokio::test]
async fn a_login_that_waited_for_a_change_sees_it() {
    let (database, store, at) = with_tenant().await;
    let mut superuser = database.superuser().await;
    for name in DEEDS_ON_A_PERSON {
        let user = person(&store, at.tenant, name).await;
        let mut changing = store.begin_in(at.tenant).await.unwrap();
        let mut scoped = changing.tenant(at.tenant).await.unwrap();
        let version = scoped.password(user).await.unwrap().unwrap().version;
        let expected = match name {
            "disable" => {
                assert!(scoped.set_user_disabled(user, Some((now(), BY))).await.unwrap());
                vec![]
            }
            "delete" => {
                assert!(scoped.delete_user(user, now(), BY).await.unwrap());
                vec![]
            }
            "forget password" => {
                scoped.forget_password(user).await.unwrap();
                vec![]
            }
            "upgrade password" => {
                assert!(scoped.upgrade_password(user, &hash(name), &hash("changed")).await.unwrap());
                // The same password, as before.
                vec![(user, version)]
            }
            _ => {
                scoped.set_password(user, &hash("changed"), now(), BY).await.unwrap();
                vec![(user, version + 1)]
            }
        };
        let login = async {
            let mut tx = store.begin_in(at.tenant).await.unwrap();
            tx.tenant(at.tenant).await.unwrap().hold_passwords(&[user]).await.unwrap()
        };
        let held = waits(&mut superuser, login, async { changing.commit().await.unwrap() }).await;
        assert_eq!(held, expected, "{name}");
    }
}

#[tokio::test]
async fn held_are_the_keys_that_may_be_exchanged() {
    let (_database, store, at) = with_tenant().await;
    let mut tx = store.begin_in(at.tenant).await.unwrap();
    let mut scoped = tx.tenant(at.tenant).await.unwrap();
    let unknown = KeyId::parse("ck_unknown").unwrap();
    let asked = [at.user_key.clone(), unknown, at.key.clone()];
    let mut both = vec![at.key.clone(), at.user_key.clone()];
    both.sort();
    assert_eq!(scoped.hold_keys(&asked).await.unwrap(), both);
    assert!(scoped.set_key_disabled(&at.key, Some(BY), now()).await.unwrap());
    assert_eq!(scoped.hold_keys(&asked).await.unwrap(), std::slice::from_ref(&at.user_key));
    assert!(scoped.set_key_disabled(&at.key, None, now()).await.unwrap());
    assert!(scoped.revoke_key(&at.user_key, now(), BY).await.unwrap());
    assert_eq!(scoped.hold_keys(&asked).await.unwrap(), std::slice::from_ref(&at.key));
    assert!(scoped.hold_keys(&[]).await.unwrap().is_empty());
}

#[tokio::test]
async fn whoever_would_end_a_key_waits_for_an_exchange_that_holds_it_and_the_other_way_round() {
    let (database, store, at) = with_tenant().await;
    let mut superuser = database.superuser().await;
    for (key, revoke) in [(&at.key, false), (&at.user_key, true)] {
        let hold = async || {
            let mut tx = store.begin_in(at.tenant).await.unwrap();
            tx.tenant(at.tenant).await.unwrap().hold_keys(std::slice::from_ref(key)).await.unwrap()
        };
        let end = async || {
            let mut tx = store.begin_in(at.tenant).await.unwrap();
            let mut scoped = tx.tenant(at.tenant).await.unwrap();
            let done = match revoke {
                true => scoped.revoke_key(key, now(), BY).await.unwrap(),
                false => scoped.set_key_disabled(key, Some(BY), now()).await.unwrap(),
            };
            assert!(done);
            tx
        };
        let mut exchange = store.begin_in(at.tenant).await.unwrap();
        let held = exchange.tenant(at.tenant).await.unwrap().hold_keys(std::slice::from_ref(key)).await.unwrap();
        assert_eq!(held, std::slice::from_ref(key));
        assert_eq!(hold().await, std::slice::from_ref(key), "other exchanges do not wait");
        // Ended once the exchange is over, and undone again.
        drop(waits(&mut superuser, end(), async { exchange.commit().await.unwrap() }).await);
        let ending = end().await;
        assert!(waits(&mut superuser, hold(), async { ending.commit().await.unwrap() }).await.is_empty());
    }
}
