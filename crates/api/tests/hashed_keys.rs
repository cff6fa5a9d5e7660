//! Keys that another system made, and of whose secrets it kept hashes alone (SEEDS scenario 72).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use std::time::{Duration, Instant};

use chrono::TimeDelta;
use futures_util::future::join_all;
use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Answer, Key, Options, Server, Tenant, UNTHROTTLED, basic, claims, detail};

const EXCHANGE: &str = "/v1/authentications";
/// 128 bits, as the old system made them.
const SECRET: &str = "9f86d081884c7d659a2feaa0c55ad015";
/// Hashes of [`SECRET`] by other systems.
const HASHES: [&str; 3] = [
    "$2a$04$Zx9sGkQ0r5vJ3nB7mWc1peJg9l1uAArIho6j5RwDxOH7BNwTYWSoO",
    "$scrypt$ln=8,r=8,p=1$MDEyMzQ1Njc4OWFiY2RlZg$JAwC2NcTMbFFM01VCpaXan5gpJ+So4I2he+fij4hsEE",
    "$pbkdf2-sha256$i=1200,l=32$MDEyMzQ1Njc4OWFiY2RlZg$l2aI+cwv3iCu8YRVtawn5VuFVc/8sqoU9vKnnLK+PNo",
];
/// A hash of `admin`: some people chose their secrets themselves.
const HASH_OF_ADMIN: &str = "$2b$04$abcdefghijklmnopqrstuuQe66hACgXZ.ImKMvPGdqru0gQrWJ8Ju";

struct Scene<'a> {
    server: &'a Server,
    tenant: Tenant<'a>,
    admin: Key,
    application: String,
}

impl<'a> Scene<'a> {
    async fn of(server: &'a Server) -> Self {
        let tenant = server.default_tenant().await;
        let admin = tenant.admin().await;
        let application = tenant.application("portal").await.to_string();
        Self { server, tenant, admin, application }
    }

    async fn ask(&self, import: Value) -> Answer {
        let order = json!({
            "application_id": self.application, "name": "old", "scopes": ["events:read", "verify"], "import": import,
        });
        self.server.with(&self.admin.basic()).post("/v1/keys", order).await
    }

    /// Takes over a key of that id.
    async fn import(&self, id: &str, hash: &str) {
        let answer = self.ask(json!({ "api_key": id, "hash": hash })).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        let made = answer.json();
        assert_eq!((made["api_key"].as_str(), made.get("api_secret")), (Some(id), None), "{made}");
        assert!(!answer.text.contains(hash));
    }

    /// The hashes that are kept of a key, and how many MACs, in order of their slots.
    async fn kept(&self, id: &str) -> Vec<(Option<String>, Option<i32>)> {
        let mut database = self.server.database.superuser().await;
        sqlx::query_as("SELECT hash, octet_length(mac) FROM api_key_secrets WHERE key_id = $1 ORDER BY slot")
            .bind(id)
            .fetch_all(&mut database)
            .await
            .unwrap()
    }
}

/// As kept before the first use.
fn hashed(hash: &str) -> (Option<String>, Option<i32>) {
    (Some(hash.to_owned()), None)
}

/// As kept after it.
const MAC: (Option<String>, Option<i32>) = (None, Some(32));

async fn exchange(server: &Server, pair: &str) -> Answer {
    server.with(pair).post_empty(EXCHANGE).await
}

#[actix_web::test]
async fn scenario_72_the_old_secret_works_and_its_mac_takes_the_place_of_the_hash() {
    let server = Server::start_with(Options { throttle: UNTHROTTLED, ..Options::default() }).await;
    let scene = Scene::of(&server).await;
    // Ours too: argon2id, as we hash passwords.
    scene.tenant.user("alice", Some(SECRET)).await;
    let mut database = server.database.superuser().await;
    let ours: String = sqlx::query_scalar("SELECT hash FROM passwords").fetch_one(&mut database).await.unwrap();
    assert!(ours.starts_with("$argon2id$"));
    for (number, hash) in HASHES.into_iter().chain([ours.as_str()]).enumerate() {
        let id = format!("old.key-{number}");
        scene.import(&id, hash).await;
        assert_eq!(scene.kept(&id).await, [hashed(hash)]);
        let wrong = exchange(&server, &format!("{id}:{}", SECRET.replace('9', "8"))).await;
        assert_eq!(wrong.status, StatusCode::NOT_FOUND, "{hash}");
        assert_eq!(scene.kept(&id).await, [hashed(hash)], "a wrong secret changes nothing");

        let pair = format!("{id}:{SECRET}");
        let answer = exchange(&server, &pair).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{hash}: {}", answer.text);
        let jwt = answer.json()["jwt"].as_str().unwrap().to_owned();
        assert_eq!(claims(&jwt)["sub"], json!(scene.application));
        assert_eq!(scene.kept(&id).await, [MAC], "{hash}");
        assert_eq!(exchange(&server, &pair).await.status, StatusCode::CREATED, "{hash}");
        assert_eq!(exchange(&server, &format!("{id}:{hash}")).await.status, StatusCode::NOT_FOUND, "a hash is no secret");
        assert_eq!(exchange(&server, &format!("{pair}0")).await.status, StatusCode::NOT_FOUND);
    }
    let entry = scene.tenant.audit("key.create").await.into_iter().find(|entry| entry.target == "key:old.key-0").unwrap();
    assert_eq!(detail(&entry)["imported"], true);
    assert!(!entry.detail.contains("$2a$"));
}

#[actix_web::test]
async fn every_way_to_present_a_pair_takes_it_and_a_secret_that_somebody_chose_works_too() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    for way in ["bare", "basic", "form", "asked-about"] {
        let id = format!("admin.{way}");
        scene.import(&id, HASH_OF_ADMIN).await;
        let status = match way {
            "bare" => exchange(&server, &format!("{id}:admin")).await.status,
            "basic" => server.with(&basic(&format!("{id}:admin"))).get("/v1/me").await.status,
            "form" => {
                let form = [("grant_type", "client_credentials"), ("client_id", id.as_str()), ("client_secret", "admin")];
                server.http.post(server.url("/v1/token")).form(&form).send().await.unwrap().status()
            }
            _ => {
                let question = json!({ "authorization": basic(&format!("{id}:admin")) });
                let answer = server.with(&scene.admin.basic()).post("/v1/verify", question).await;
                assert_eq!(answer.json()["allow"], true, "{}", answer.text);
                answer.status
            }
        };
        assert!(status.is_success(), "{way}: {status}");
        assert_eq!(scene.kept(&id).await, [MAC], "{way}");
    }
}

#[actix_web::test]
async fn p16_whether_a_hash_is_kept_of_a_key_is_told_by_no_byte_and_no_moment() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    scene.import("old.key", HASHES[0]).await;
    scene.ask(json!({ "api_key": "old.pair", "api_secret": "0123456789abcdef0123" })).await;
    let mut told = Vec::new();
    for pair in ["old.key:wrong", "old.pair:wrong", "nobodys.key:wrong"] {
        let began = Instant::now();
        let answer = exchange(&server, pair).await;
        let took = began.elapsed();
        assert_eq!(answer.status, StatusCode::NOT_FOUND);
        assert!(took >= Duration::from_millis(300), "{pair}: {took:?}");
        told.push(answer.told());
    }
    assert!(told.iter().all(|one| *one == told[0]));
    let refused = scene.tenant.audit("key.exchange").await;
    assert_eq!(detail(&refused.last().unwrap().clone())["reason"], "wrong_secret");
}

#[actix_web::test]
async fn two_servers_take_the_first_uses_at_once_and_go_on_with_what_one_of_them_kept() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let other = server.replica(Options { clock: Some(server.clock.clone()), notifications: false, ..Options::default() }).await;
    scene.import("old.key", HASHES[0]).await;
    let pair = format!("old.key:{SECRET}");
    // Both have it in memory as it was.
    for server in [&server, &other] {
        assert_eq!(exchange(server, "old.key:wrong").await.status, StatusCode::NOT_FOUND);
    }
    let uses = (0..16).map(|number| exchange(if number % 2 == 0 { &server } else { &other }, &pair));
    for answer in join_all(uses).await {
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    }
    assert_eq!(scene.kept("old.key").await, [MAC]);
    for server in [&server, &other] {
        assert_eq!(exchange(server, &pair).await.status, StatusCode::CREATED);
    }
}

#[actix_web::test]
async fn a_hashed_secret_is_rotated_with_overlap_and_ends_with_it() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    scene.import("old.key", HASHES[0]).await;
    let admin = server.with(&scene.admin.basic());
    let rotated = admin.post("/v1/keys/old.key/rotate", json!({ "grace_seconds": 60 })).await.json();
    let new = format!("old.key:{}", rotated["api_secret"].as_str().unwrap());
    assert_eq!(scene.kept("old.key").await, [hashed(HASHES[0]), MAC]);
    assert_eq!(exchange(&server, &new).await.status, StatusCode::CREATED);
    assert_eq!(scene.kept("old.key").await, [hashed(HASHES[0]), MAC], "the new secret says nothing of the old one");
    let old = format!("old.key:{SECRET}");
    assert_eq!(exchange(&server, &old).await.status, StatusCode::CREATED);
    assert_eq!(scene.kept("old.key").await, [MAC, MAC]);
    server.clock.advance(TimeDelta::seconds(61));
    assert_eq!(exchange(&server, &old).await.status, StatusCode::NOT_FOUND);
    assert_eq!(exchange(&server, &new).await.status, StatusCode::CREATED);

    // Never used, and replaced at once.
    scene.import("unused.key", HASHES[1]).await;
    admin.post("/v1/keys/unused.key/rotate", json!({ "grace_seconds": 0 })).await;
    assert_eq!(exchange(&server, &format!("unused.key:{SECRET}")).await.status, StatusCode::NOT_FOUND);
    admin.post("/v1/keys/unused.key/rotate", json!({ "grace_seconds": 0 })).await;
    assert_eq!(scene.kept("unused.key").await, [MAC, MAC], "a slot that is used again keeps no hash");
}

#[actix_web::test]
async fn p17_guesses_at_a_hashed_secret_are_counted_like_all_others() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    scene.import("old.key", HASH_OF_ADMIN).await;
    for _ in 0..5 {
        exchange(&server, "old.key:wrong").await;
    }
    let right = exchange(&server, "old.key:admin").await;
    assert_eq!(right.status, StatusCode::TOO_MANY_REQUESTS, "{}", right.text);
    assert_eq!(scene.kept("old.key").await, [hashed(HASH_OF_ADMIN)], "nothing was found out");
}

#[actix_web::test]
async fn what_cannot_be_checked_is_refused_and_nothing_is_made() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let dear = "$2b$16$Vco3uIFu.iBObPS6.pd76ehJEj5/UT09yyXYJLlmLXzjsPvnqChzG";
    for (import, field) in [
        (json!({ "api_key": "k", "hash": "5f4dcc3b5aa765d61d8327deb882cf99" }), "import.hash"),
        (json!({ "api_key": "k", "hash": "" }), "import.hash"),
        (json!({ "api_key": "k", "hash": HASHES[0][..59] }), "import.hash"),
        (json!({ "api_key": "k", "hash": dear }), "import.hash"),
        (json!({ "api_key": "k", "hash": HASHES[0], "api_secret": SECRET }), "import"),
        (json!({ "api_key": "k" }), "import"),
        (json!({ "api_key": "a:b", "hash": HASHES[0] }), "import"),
        (json!({ "api_key": "", "hash": HASHES[0] }), "import"),
        (json!({ "api_key": "ck_anything", "hash": HASHES[0] }), "import"),
        (json!({ "hash": HASHES[0] }), "api_key"),
        (json!({ "api_key": "k", "hash": HASHES[0], "salt": "x" }), "salt"),
        (json!(["k", HASHES[0]]), "import"),
        (json!(format!("k:{SECRET}")), "import"),
    ] {
        let answer = scene.ask(import.clone()).await;
        assert_eq!(answer.wrong_field(), field, "{import}");
        assert!(!answer.text.contains(HASHES[0]) && !answer.text.contains(SECRET), "{}", answer.text);
    }
    let forms = scene.ask(json!({ "api_key": "k", "hash": "md5" })).await.text;
    for form in ["argon2", "bcrypt", "scrypt", "PBKDF2"] {
        assert!(forms.contains(form), "{forms}");
    }
    assert_eq!(scene.tenant.audit("key.create").await.len(), 1, "the admin's own alone");
    scene.import("k", HASHES[0]).await;
    assert_eq!(scene.ask(json!({ "api_key": "k", "hash": HASHES[1] })).await.error(), "conflict");
}
