//! How keys live: from where, how and how often they may be used, until when, and how they end.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test stops at the first surprise"
)]

mod support;

use chrono::TimeDelta;
use claviger_issuer::settings::TenantSettings;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::{Answer, Key, Options, Server, Tenant, basic, claims, detail};

const PASSWORD: &str = "correct horse battery staple";
const EXCHANGE: &str = "/v1/authentications";

struct Scene<'a> {
    tenant: Tenant<'a>,
    admin: Key,
    application: String,
    resource_server: Key,
}

impl<'a> Scene<'a> {
    async fn new(server: &'a Server, settings: Value) -> Scene<'a> {
        let settings: TenantSettings = serde_json::from_value(settings).unwrap();
        let tenant = server.tenant_with("acme", settings).await;
        let admin = tenant.admin().await;
        let application = tenant.application("app").await.to_string();
        let resource_server = tenant.app_key("resource server", &["verify"]).await;
        Self { tenant, admin, application, resource_server }
    }

    async fn manage(&self, method: Method, path: &str, body: Value) -> Answer {
        let caller = self.tenant.server.with(&self.admin.basic());
        Answer::of(caller.request(method, path).json(&body).send().await.unwrap()).await
    }

    async fn order(&self, mut more: Value) -> Answer {
        let order = json!({ "application_id": self.application, "name": "k", "scopes": ["events:read"] });
        for (name, value) in order.as_object().unwrap() {
            if more.get(name).is_none() && !(name == "application_id" && more.get("user_id").is_some()) {
                more[name] = value.clone();
            }
        }
        self.manage(Method::POST, "/v1/keys", more).await
    }

    async fn make(&self, more: Value) -> Value {
        let answer = self.order(more).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
        answer.json()
    }

    async fn show(&self, made: &Value) -> Value {
        self.manage(Method::GET, &format!("/v1/keys/{}", id(made)), Value::Null).await.json()
    }

    async fn ask(&self, question: Value) -> Value {
        let asks = self.tenant.server.with(&self.resource_server.basic());
        asks.post(&self.tenant.path("/v1/verify"), question).await.json()
    }

    /// The reason of the last refusal that the trail holds about this key.
    async fn why(&self, made: &Value) -> Value {
        let key = format!("key:{}", id(made));
        let entries = self.tenant.audit("key.use").await;
        detail(entries.iter().find(|entry| entry.actor == key).unwrap())["reason"].clone()
    }
}

fn id(made: &Value) -> &str {
    made["api_key"].as_str().unwrap()
}

fn pair(made: &Value) -> String {
    format!("{}:{}", id(made), made["api_secret"].as_str().unwrap())
}

/// From that address, as a proxy says.
async fn from(server: &Server, address: &str, method: Method, path: &str, authorization: &str) -> Answer {
    let request = server.with(authorization).request(method, path).header("x-forwarded-for", address);
    Answer::of(request.send().await.unwrap()).await
}

async fn proxied() -> Server {
    Server::start_with(Options { trusted_proxies: vec!["127.0.0.1/32"], ..Options::default() }).await
}

#[actix_web::test]
async fn a_key_with_a_list_of_addresses_works_from_there_alone_and_its_token_says_so() {
    let server = proxied().await;
    let scene = Scene::new(&server, json!({})).await;
    let made = scene.make(json!({ "allowed_ips": ["198.51.100.7/24", "2001:db8::5"], "refresh": true })).await;
    assert_eq!(made["allowed_ips"], json!(["198.51.100.0/24", "2001:db8::5/128"]));
    let pair = pair(&made);
    for inside in ["198.51.100.99", "2001:db8::5"] {
        assert_eq!(from(&server, inside, Method::POST, EXCHANGE, &pair).await.status, StatusCode::CREATED, "{inside}");
    }
    let tokens = from(&server, "198.51.100.1", Method::POST, EXCHANGE, &pair).await.json();
    let token = tokens["jwt"].as_str().unwrap().to_owned();
    assert_eq!(claims(&token)["allowed_ips"], json!(["198.51.100.0/24", "2001:db8::5/128"]));

    // Outsiders hear the one answer that there is; the trail hears why.
    let outside = from(&server, "203.0.113.1", Method::POST, EXCHANGE, &pair).await;
    let unknown = from(&server, "203.0.113.1", Method::POST, EXCHANGE, "ck_nobody:x").await;
    assert_eq!(outside.status, StatusCode::NOT_FOUND);
    assert_eq!(outside.json()["detail"], unknown.json()["detail"]);
    assert_eq!(scene.why(&made).await, "ip_not_allowed");
    let bearer = format!("Bearer {token}");
    for (credential, from_inside) in [(&bearer, true), (&basic(&pair), true), (&bearer, false), (&basic(&pair), false)] {
        let address = if from_inside { "198.51.100.1" } else { "203.0.113.1" };
        let status = from(&server, address, Method::GET, "/v1/me", credential).await.status;
        assert_eq!(status, if from_inside { StatusCode::OK } else { StatusCode::UNAUTHORIZED }, "{credential} {address}");
    }
    // Where a resource server asks for whoever holds the secret or a token of it, the reason is told.
    for authorization in [&bearer, &basic(&pair)] {
        for (address, verdict) in [
            (json!("198.51.100.1"), json!(null)),
            (json!("203.0.113.1"), json!("ip_not_allowed")),
            (json!(null), json!("ip_not_allowed")),
        ] {
            let decision = scene.ask(json!({ "authorization": authorization, "ip": address })).await;
            assert_eq!((&decision["allow"], &decision["reason"]), (&json!(verdict.is_null()), &verdict), "{address}: {decision}");
        }
    }
    // A refresh token that was begun inside is not used from outside.
    let refresh = |address: &'static str| {
        let body = json!({ "refresh_token": tokens["refresh_token"] });
        let request = server.http.post(server.url("/v1/token/refresh")).header("x-forwarded-for", address).json(&body);
        async move { request.send().await.unwrap().status() }
    };
    assert_eq!(refresh("203.0.113.1").await, StatusCode::UNAUTHORIZED);
    assert_eq!(refresh("198.51.100.1").await, StatusCode::OK);

    let change = scene.manage(Method::PATCH, &format!("/v1/keys/{}", id(&made)), json!({ "allowed_ips": [] })).await;
    assert_eq!(change.json()["allowed_ips"], json!([]), "{}", change.text);
    assert_eq!(from(&server, "203.0.113.1", Method::POST, EXCHANGE, &pair).await.status, StatusCode::CREATED);
    for wrong in [json!(["10.0.0.0/33"]), json!(["example.com"]), json!([""])] {
        assert_eq!(scene.order(json!({ "allowed_ips": wrong })).await.wrong_field(), "allowed_ips");
    }
}

#[actix_web::test]
async fn a_key_for_one_transport_is_good_for_that_one() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({ "ws_query_token": true })).await;
    let of = async |transports: Value| pair(&scene.make(json!({ "transports": transports })).await);
    let (http, ws, both) = (of(json!(["http"])).await, of(json!(["ws"])).await, of(json!([])).await);
    for (key, transport, fits) in [
        (&http, "http", true),
        (&http, "ws", false),
        (&ws, "http", false),
        (&ws, "ws", true),
        (&both, "http", true),
        (&both, "ws", true),
    ] {
        let decision = scene.ask(json!({ "authorization": basic(key), "transport": transport })).await;
        let expected = if fits { Value::Null } else { json!("transport_not_allowed") };
        assert_eq!((&decision["allow"], &decision["reason"]), (&json!(fits), &expected), "{transport}: {decision}");
    }
    // A ticket is for a WebSocket; a token is for anything.
    for (key, ticket, token) in [(&http, 401, 201), (&ws, 201, 404), (&both, 201, 201)] {
        let got = server.with(&basic(key)).post_empty(&scene.tenant.path("/v1/ws-tickets")).await;
        assert_eq!(got.status.as_u16(), ticket, "{}", got.text);
        assert_eq!(server.with(key).post_empty(EXCHANGE).await.status.as_u16(), token);
    }
}

#[actix_web::test]
async fn a_rate_limit_holds_over_three_servers_and_every_answer_tells_what_is_left() {
    let server = Server::start().await;
    let options = || Options { clock: Some(server.clock.clone()), ..Options::default() };
    let (second, third) = (server.replica(options()).await, server.replica(options()).await);
    let scene = Scene::new(&server, json!({})).await;
    for limit in [7_i64, 300] {
        let made = scene.make(json!({ "rate_limit": { "requests": limit, "seconds": 60 } })).await;
        let basic = basic(&pair(&made));
        // At the beginning of a window.
        server.clock.advance(TimeDelta::seconds(60 - server.clock.now().timestamp().rem_euclid(60)));
        let asked = limit + 60;
        let mut calls = Vec::new();
        for round in 0..asked {
            let at = [&server, &second, &third][usize::try_from(round % 3).unwrap()];
            calls.push(async { at.with(&basic).get("/v1/me").await });
        }
        let answers = futures_util::future::join_all(calls).await;
        let served = answers.iter().filter(|answer| answer.status == StatusCode::OK).count();
        let refused: Vec<_> = answers.iter().filter(|answer| answer.status == StatusCode::TOO_MANY_REQUESTS).collect();
        assert_eq!(served + refused.len(), answers.len());
        // What a server took and did not give out is lost: 2 % for each other server.
        let least = limit - limit * 4 / 100;
        let served = i64::try_from(served).unwrap();
        assert!((least..=limit).contains(&served), "{served} of {limit}");
        let answer = refused[0];
        assert_eq!(answer.error(), "rate_limited");
        let wait: i64 = answer.header("retry-after").parse().unwrap();
        assert!((1..=61).contains(&wait), "{wait}");
        assert_eq!(answer.header("ratelimit-policy"), format!("\"rate\";q={limit};w=60"));
        assert!(answer.header("ratelimit").starts_with("\"rate\";r=0;t="), "{}", answer.header("ratelimit"));

        server.clock.advance(TimeDelta::seconds(60));
        let fresh = server.with(&basic).get("/v1/me").await;
        assert_eq!(fresh.status, StatusCode::OK);
        let left: i64 = fresh.header("ratelimit").split([';', '=']).nth(2).unwrap().parse().unwrap();
        assert_eq!(left, limit - 1, "{}", fresh.header("ratelimit"));
        assert_eq!(scene.why(&made).await, "rate_limited");
    }
}

#[actix_web::test]
async fn a_quota_holds_for_a_day_and_a_resource_server_is_told_what_is_left() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({})).await;
    let made = scene.make(json!({ "quota": { "requests": 3, "period": "day" } })).await;
    let token = server.with(&pair(&made)).token().await;
    let question = json!({ "authorization": format!("Bearer {token}") });
    for left in [1, 0] {
        let decision = scene.ask(question.clone()).await;
        assert_eq!(decision["allow"], true, "{decision}");
        let limit = &decision["limits"][0];
        let expected = (&json!("quota"), &json!(3), &json!(86_400), &json!(left));
        assert_eq!((&limit["policy"], &limit["limit"], &limit["window"], &limit["remaining"]), expected);
    }
    let decision = scene.ask(question.clone()).await;
    assert_eq!((&decision["status"], &decision["reason"]), (&json!(429), &json!("quota_exhausted")), "{decision}");
    assert!(decision["retry_after"].as_i64().unwrap() > 0);
    assert_eq!(server.with(&pair(&made)).post_empty(EXCHANGE).await.error(), "quota_exhausted");

    // More is more at once; without any it is without any.
    let path = format!("/v1/keys/{}", id(&made));
    let more = scene.manage(Method::PATCH, &path, json!({ "quota": { "requests": 5, "period": "day" } })).await;
    assert_eq!(more.json()["quota"], json!({ "requests": 5, "period": "day" }), "{}", more.text);
    assert_eq!(scene.ask(question.clone()).await["allow"], true);
    assert_eq!(scene.manage(Method::PATCH, &path, json!({ "quota": null })).await.json()["quota"], Value::Null);
    for _ in 0..3 {
        let decision = scene.ask(question.clone()).await;
        assert_eq!((&decision["allow"], decision.get("limits")), (&json!(true), None), "{decision}");
    }
    for wrong in [json!({ "requests": 0, "period": "day" }), json!({ "requests": 1, "period": "week" })] {
        assert_eq!(scene.order(json!({ "quota": wrong })).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
}

#[actix_web::test]
async fn keys_end_as_the_tenant_says() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({ "keys": { "default_days": 90, "max_days": 180 } })).await;
    let in_days = |days| json!(server.clock.now() + TimeDelta::days(days));
    assert_eq!(scene.make(json!({})).await["expires_at"], in_days(90));
    assert_eq!(scene.make(json!({ "expires_at": in_days(180) })).await["expires_at"], in_days(180));
    for late in [Value::Null, in_days(181)] {
        let refused = scene.order(json!({ "expires_at": late })).await;
        assert_eq!(refused.wrong_field(), "expires_at");
    }
    let made = scene.make(json!({})).await;
    let path = format!("/v1/keys/{}", id(&made));
    let never = scene.manage(Method::PATCH, &path, json!({ "expires_at": null })).await;
    assert_eq!(never.status, StatusCode::UNPROCESSABLE_ENTITY, "created short and made long: {}", never.text);
    assert_eq!(scene.manage(Method::PATCH, &path, json!({ "name": "n" })).await.json()["expires_at"], in_days(90));
    server.clock.advance(TimeDelta::days(90));
    let ended = server.issuer.find_key(scene.tenant.id, &claviger_store::id::KeyId::parse(id(&made)).unwrap()).await.unwrap();
    assert_eq!(server.issuer.verdict(scene.tenant.id, &ended).await.unwrap(), "key_expired", "as the admin's own key has");

    let usual = server.tenant("usual").await;
    let admin = usual.admin().await;
    let application = usual.application("app").await.to_string();
    let order = |more: Value| {
        let mut order = json!({ "application_id": application, "name": "k", "scopes": [] });
        order.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        order
    };
    let caller = server.with(&admin.basic());
    assert_eq!(caller.post("/v1/keys", order(json!({}))).await.json()["expires_at"], in_days(365));
    assert_eq!(caller.post("/v1/keys", order(json!({ "expires_at": null }))).await.json()["expires_at"], Value::Null);
}

#[actix_web::test]
async fn ends_are_told_thirty_seven_and_one_days_ahead_once_each() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({})).await;
    let ends = server.clock.now() + TimeDelta::days(31);
    let made = scene.make(json!({ "expires_at": ends })).await;
    let told = async || {
        let mut entries = scene.tenant.audit("key.expiring").await;
        entries.reverse();
        entries
            .iter()
            .filter(|entry| entry.target == format!("key:{}", id(&made)))
            .map(|entry| detail(entry)["days"].as_i64().unwrap())
            .collect::<Vec<_>>()
    };
    let expected: [&[i64]; 5] = [&[], &[30], &[30, 7], &[30, 7, 1], &[30, 7, 1]];
    for (days, expected) in [0, 2, 23, 5, 0].into_iter().zip(expected) {
        server.clock.advance(TimeDelta::days(days));
        server.issuer.upkeep().await;
        server.issuer.upkeep().await;
        assert_eq!(told().await, expected);
    }
    // A key that lives longer again is told of again.
    let path = format!("/v1/keys/{}", id(&made));
    scene.manage(Method::PATCH, &path, json!({ "expires_at": server.clock.now() + TimeDelta::days(20) })).await;
    server.issuer.upkeep().await;
    assert_eq!(told().await, [30, 7, 1, 30]);
}

#[actix_web::test]
async fn keys_that_nobody_uses_are_disabled_and_can_be_enabled() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({ "keys": { "dormant_days": 90 } })).await;
    let (used, unused) = (scene.make(json!({})).await, scene.make(json!({})).await);
    assert_eq!(server.with(&pair(&used)).post_empty(EXCHANGE).await.status, StatusCode::CREATED);
    server.clock.advance(TimeDelta::days(60));
    assert_eq!(server.with(&basic(&pair(&used))).get("/v1/me").await.status, StatusCode::OK, "not exchanged, but used");
    assert_eq!(scene.show(&unused).await["verdict"], "active", "and by this the admin's key was used");
    server.clock.advance(TimeDelta::days(31));
    server.issuer.upkeep().await;
    assert_eq!(scene.show(&used).await["verdict"], "active");
    let shown = scene.manage(Method::GET, &format!("/v1/keys/{}", id(&unused)), Value::Null).await;
    assert_eq!(shown.status, StatusCode::OK, "{}", shown.text);
    assert_eq!(shown.json()["verdict"], "dormant");
    assert_eq!(server.with(&pair(&unused)).post_empty(EXCHANGE).await.status, StatusCode::NOT_FOUND);
    let entry = scene.tenant.audit("key.disable").await.remove(0);
    assert_eq!(entry.actor, "system:dormant");

    let path = format!("/v1/keys/{}", id(&unused));
    scene.manage(Method::PATCH, &path, json!({ "disabled": false })).await;
    server.issuer.upkeep().await;
    assert_eq!(scene.show(&unused).await["verdict"], "active", "its time begins anew");
}

#[actix_web::test]
async fn of_the_last_use_time_network_and_agent_are_kept() {
    let server = proxied().await;
    let scene = Scene::new(&server, json!({})).await;
    let made = scene.make(json!({})).await;
    for (address, network, agent) in
        [("198.51.100.77", "198.51.100.0/24", "importer/1.2"), ("2001:db8:1:2::3", "2001:db8:1::/48", "importer/1.3")]
    {
        server.clock.advance(TimeDelta::seconds(1));
        let request = server.with(&pair(&made)).request(Method::POST, EXCHANGE);
        let request = request.header("x-forwarded-for", address).header("user-agent", agent);
        assert_eq!(request.send().await.unwrap().status(), StatusCode::CREATED);
        let shown = scene.show(&made).await;
        assert_eq!(shown["last_used_at"], json!(server.clock.now()));
        assert_eq!((&shown["last_used_network"], &shown["last_used_agent"]), (&json!(network), &json!(agent)));
    }
}

#[actix_web::test]
async fn all_keys_of_an_owner_are_revoked_at_once() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({})).await;
    let user = scene.tenant.user("alice", Some(PASSWORD)).await.to_string();
    let of_alice = json!({ "user_id": user, "scopes": [] });
    let alices = [scene.make(of_alice.clone()).await, scene.make(of_alice.clone()).await];
    let apps = [scene.make(json!({})).await, scene.make(json!({ "refresh": true })).await];
    let tokens = server.with(&pair(&apps[1])).post_empty(EXCHANGE).await.json();

    let bulk = async |body: Value| scene.manage(Method::POST, "/v1/keys/bulk-revoke", body).await;
    for wrong in [json!({}), json!({ "application_id": scene.application, "user_id": user })] {
        assert_eq!(bulk(wrong).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    }
    assert_eq!(bulk(json!({ "user_id": uuid::Uuid::nil() })).await.wrong_field(), "user_id");
    let revoked = bulk(json!({ "application_id": scene.application, "except": id(&apps[0]) })).await;
    assert_eq!(revoked.json(), json!({ "revoked": [id(&apps[1])] }));
    for (made, lives) in [(&apps[0], true), (&apps[1], false), (&alices[0], true)] {
        let status = server.with(&pair(made)).post_empty(EXCHANGE).await.status;
        assert_eq!(status, if lives { StatusCode::CREATED } else { StatusCode::NOT_FOUND });
    }
    let me = server.with(&format!("Bearer {}", tokens["jwt"].as_str().unwrap())).get("/v1/me").await;
    assert_eq!(me.status, StatusCode::UNAUTHORIZED);
    let refreshed = server.anonymous().post("/v1/token/refresh", json!({ "refresh_token": tokens["refresh_token"] })).await;
    assert_eq!(refreshed.status, StatusCode::UNAUTHORIZED);
    assert_eq!(scene.show(&apps[1]).await["verdict"], "key_revoked");

    let revoked = bulk(json!({ "user_id": user })).await.json();
    assert_eq!(revoked["revoked"].as_array().unwrap().len(), 2);
    assert_eq!(bulk(json!({ "user_id": user })).await.json(), json!({ "revoked": [] }));
    assert_eq!(scene.tenant.audit("key.revoke").await.len(), 3);
}

#[actix_web::test]
async fn whoever_holds_a_pair_can_end_it_from_anywhere() {
    let server = proxied().await;
    let scene = Scene::new(&server, json!({})).await;
    let limits = json!({ "allowed_ips": ["198.51.100.0/24"], "quota": { "requests": 1, "period": "month" } });
    let made = scene.make(limits).await;
    let path = "/v1/keys/self-revoke";
    for wrong in ["", "Bearer x", &format!("{}:cs_wrong", id(&made)), &basic("ck_nobody:x")] {
        assert_eq!(from(&server, "203.0.113.1", Method::POST, path, wrong).await.status, StatusCode::UNAUTHORIZED, "{wrong}");
    }
    assert_eq!(scene.show(&made).await["status"], "active");
    let ended = from(&server, "203.0.113.1", Method::POST, path, &basic(&pair(&made))).await;
    assert_eq!(ended.status, StatusCode::NO_CONTENT, "{}", ended.text);
    assert_eq!(scene.show(&made).await["verdict"], "key_revoked");
    assert_eq!(from(&server, "203.0.113.1", Method::POST, path, &basic(&pair(&made))).await.status, StatusCode::UNAUTHORIZED);
    let entry = scene.tenant.audit("key.revoke").await.remove(0);
    assert_eq!(entry.actor, format!("key:{}", id(&made)));
    // A key that is good for nothing but acting for its owner can be ended too.
    let alice = scene.tenant.user("alice", Some(PASSWORD)).await.to_string();
    let lent = scene.make(json!({ "user_id": alice, "scopes": [], "agents": ["bob"] })).await;
    assert_eq!(from(&server, "203.0.113.1", Method::POST, path, &pair(&lent)).await.status, StatusCode::NO_CONTENT);
}

#[actix_web::test]
async fn people_manage_keys_of_their_own_and_no_others() {
    let server = Server::start().await;
    let scene = Scene::new(&server, json!({})).await;
    for (name, scopes) in [("alice", json!(["events:read"])), ("bob", json!(["events:read", "events:write"]))] {
        let body = json!({ "username": name, "password": PASSWORD, "scopes": scopes });
        assert_eq!(scene.manage(Method::POST, "/v1/users", body).await.status, StatusCode::CREATED);
    }
    let login =
        async |name: &str| format!("Bearer {}", scene.tenant.log_in(name, PASSWORD).await["access_token"].as_str().unwrap());
    let (alice, bob) = (login("alice").await, login("bob").await);
    let made = server.with(&alice).post("/v1/me/keys", json!({ "name": "laptop", "scopes": ["events:read"] })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
    let made = made.json();
    let token = server.with(&pair(&made)).token().await;
    assert_eq!(claims(&token)["scope"], "events:read");
    for more in ["events:write", "keys:write"] {
        let refused = server.with(&alice).post("/v1/me/keys", json!({ "name": "n", "scopes": [more] })).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{more}: {}", refused.text);
    }
    let mine = server.with(&alice).get("/v1/me/keys").await.json();
    assert_eq!((mine["items"].as_array().unwrap().len(), &mine["items"][0]["api_key"]), (1, &made["api_key"]));
    assert_eq!(mine["items"][0]["verdict"], "active");
    assert_eq!(server.with(&bob).get("/v1/me/keys").await.json()["items"], json!([]));

    // Another's is none, and neither is an application's.
    let path = format!("/v1/me/keys/{}", id(&made));
    let apps = scene.make(json!({})).await;
    for foreign in [path.clone(), format!("/v1/me/keys/{}", id(&apps)), "/v1/me/keys/ck_nobody".into()] {
        assert_eq!(server.with(&bob).delete(&foreign).await.status, StatusCode::NOT_FOUND, "{foreign}");
        let rotated = server.with(&bob).post(&format!("{foreign}/rotate"), json!({ "grace_seconds": 0 })).await;
        assert_eq!(rotated.status, StatusCode::NOT_FOUND, "{foreign}");
    }
    // A key manages no keys, not even its person's.
    assert_eq!(server.with(&basic(&pair(&made))).get("/v1/me/keys").await.error(), "not_a_person");
    let rotated = server.with(&alice).post(&format!("{path}/rotate"), json!({ "grace_seconds": 0 })).await;
    assert_eq!(rotated.status, StatusCode::CREATED, "{}", rotated.text);
    assert_eq!(server.with(&pair(&made)).post_empty(EXCHANGE).await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.with(&pair(&rotated.json())).post_empty(EXCHANGE).await.status, StatusCode::CREATED);
    assert_eq!(server.with(&alice).delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(server.with(&pair(&rotated.json())).post_empty(EXCHANGE).await.status, StatusCode::NOT_FOUND);
    assert_eq!(server.with(&alice).delete(&path).await.status, StatusCode::NOT_FOUND);
}
