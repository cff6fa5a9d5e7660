//! Acceptance scenarios of keys and of those who act with them, as far as no other file tells them whole.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use reqwest::StatusCode;
use serde_json::{Value, json};
use support::{Answer, Client, Key, Server, Tenant, basic};

const PASSWORD: &str = "correct horse battery staple";

/// A tenant whose admin manages it and asks for its services.
struct Scene<'a> {
    server: &'a Server,
    tenant: Tenant<'a>,
    admin: Key,
}

impl<'a> Scene<'a> {
    async fn of(server: &'a Server) -> Self {
        let tenant = server.default_tenant().await;
        let admin = tenant.admin().await;
        Self { server, tenant, admin }
    }

    fn admin(&self) -> Client<'a> {
        self.server.with(&self.admin.basic())
    }

    async fn person(&self, name: &str, scopes: &[&str]) -> String {
        let body = json!({ "username": name, "password": PASSWORD, "scopes": scopes });
        self.admin().post("/v1/users", body).await.json()["id"].as_str().unwrap().to_owned()
    }

    async fn login(&self, name: &str) -> String {
        format!("Bearer {}", self.tenant.log_in(name, PASSWORD).await["access_token"].as_str().unwrap())
    }

    async fn key(&self, order: Value) -> String {
        let made = self.admin().post("/v1/keys", order).await;
        assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
        let made = made.json();
        format!("{}:{}", made["api_key"].as_str().unwrap(), made["api_secret"].as_str().unwrap())
    }

    async fn verify(&self, question: Value) -> Value {
        let answer = self.admin().post("/v1/verify", question).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        answer.json()
    }
}

#[actix_web::test]
async fn scenario_16_the_secret_of_an_approved_request_is_seen_once_and_kept_nowhere() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let asked = json!({ "app_name": "MyApp", "email": "Dev@Example.com", "reason": "to read events" });
    let asked = server.anonymous().post(&scene.tenant.path("/v1/key-requests"), asked).await;
    assert_eq!((asked.status, &asked.json()["status"]), (StatusCode::ACCEPTED, &json!("pending")));
    let path = format!("/v1/key-requests/{}", asked.json()["id"].as_str().unwrap());
    let order = json!({ "scopes": ["events:write"], "expires_in_days": 90 });
    let made = scene.admin().post(&format!("{path}/approve"), order).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let (key, secret) =
        (made.json()["api_key"].as_str().unwrap().to_owned(), made.json()["api_secret"].as_str().unwrap().to_owned());
    for path in [path, format!("/v1/keys/{key}"), "/v1/keys".into(), "/v1/key-requests".into(), "/v1/audit".into()] {
        let shown = scene.admin().get(&path).await;
        assert!(shown.status == StatusCode::OK && !shown.text.contains(&secret), "{path}: {}", shown.text);
    }
    let mut database = server.database.superuser().await;
    for table in ["api_keys", "api_key_secrets", "key_requests", "key_request_links", "audit_entries"] {
        let text = sqlx::AssertSqlSafe(format!("SELECT coalesce(string_agg(t::text, ' '), '') FROM {table} t"));
        let (text,): (String,) = sqlx::query_as(text).fetch_one(&mut database).await.unwrap();
        assert!(!text.contains(&secret), "{table}");
    }
}

#[actix_web::test]
async fn scenario_33_35_a_key_for_websockets_opens_nothing_over_http_and_nothing_opens_anything() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let application = scene.tenant.application("cat").await;
    for transport in ["http", "ws"] {
        let open = scene.verify(json!({ "transport": transport })).await;
        assert_eq!((&open["allow"], &open["reason"]), (&json!(false), &json!("no_credential")), "{transport}");
    }
    let order = json!({ "application_id": application, "name": "WK", "scopes": ["STATUS:READ"], "transports": ["ws"] });
    let key = scene.key(order).await;
    let ask = async |transport: &str, pair: &str| {
        let question = json!({
            "authorization": format!("Bearer {pair}"), "transport": transport, "require": { "permission": "STATUS:READ" },
        });
        scene.verify(question).await["allow"].clone()
    };
    assert_eq!((ask("http", &key).await, ask("ws", &key).await), (json!(false), json!(true)));
    let wrong = format!("{}x", &key[..key.len() - 1]);
    assert_eq!((ask("http", &wrong).await, ask("ws", &wrong).await), (json!(false), json!(false)));
}

#[actix_web::test]
async fn scenario_37_a_right_that_is_given_counts_for_the_token_that_is_there() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let user = scene.person("user", &["USERS:READ"]).await;
    let login = scene.login("user").await;
    let question = json!({ "authorization": login, "require": { "permission": "USERS:LIST" } });
    let before = scene.verify(question.clone()).await;
    assert_eq!((&before["allow"], &before["status"]), (&json!(false), &json!(403)), "{before}");
    let given = scene.admin().patch(&format!("/v1/users/{user}"), json!({ "scopes": ["USERS:READ", "USERS:LIST"] })).await;
    assert_eq!(given.status, StatusCode::OK, "{}", given.text);
    assert_eq!(scene.verify(question).await["allow"], true);
}

#[actix_web::test]
async fn scenario_65_71_whoever_acts_for_another_lets_no_third_act_and_the_trail_is_for_admins() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let (boss, user) = (scene.person("admin", &["r:r", "w:w"]).await, scene.person("user", &["r:r", "w:w"]).await);
    let order = json!({ "user_id": user, "name": "impersonate_admin", "scopes": ["r:r"], "agents": ["admin"] });
    let lent = scene.key(order).await;
    let secret = lent.split_once(':').unwrap().1;
    let exchange = async |actor: &str| {
        let subject = format!("user:impersonate_admin:{secret}");
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("actor_token", actor),
            ("actor_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("subject_token", subject.as_str()),
            ("subject_token_type", "urn:claviger:params:oauth:token-type:impersonation-key"),
        ];
        Answer::of(server.http.post(server.url(&scene.tenant.path("/v1/token"))).form(&form).send().await.unwrap()).await
    };
    let login = scene.login("admin").await;
    let actor = login.strip_prefix("Bearer ").unwrap();
    let made = exchange(actor).await;
    assert_eq!(made.status, StatusCode::OK, "{}", made.text);
    let token = made.json()["access_token"].as_str().unwrap().to_owned();
    let claims = support::claims(&token);
    assert_eq!((&claims["sub"], &claims["act"]["sub"], &claims["scope"]), (&json!(user), &json!(boss), &json!("r:r")));
    assert_eq!(made.json().get("refresh_token"), None);
    let again = exchange(&token).await;
    assert_eq!((again.status, &again.json()["error"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")));

    let trail = "/v1/audit?action=impersonate&outcome=ok";
    let rows = scene.admin().get(trail).await;
    let row = rows.json()["items"][0].clone();
    assert_eq!((&row["actor"], &row["subject"]), (&json!(format!("user:{boss}")), &json!(format!("user:{user}"))));
    assert_eq!((&row["outcome"], &row["ip"], &row["at"]), (&json!("ok"), &json!("127.0.0.1"), &json!(server.clock.now())));
    for told in [PASSWORD, secret, actor, &token] {
        assert!(!rows.text.contains(told));
    }
    for caller in [login.clone(), format!("Bearer {token}"), basic(&scene.tenant.app_key("reader", &["r:r"]).await.pair())] {
        let refused = server.with(&caller).get(trail).await;
        assert_eq!((refused.status, refused.error().as_str()), (StatusCode::FORBIDDEN, "insufficient_scope"));
    }
}
