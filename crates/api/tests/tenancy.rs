//! Tenants cannot see each other: what is another's answers like what is not there (SEEDS scenario 68, P30).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use claviger_issuer::secret::new_key_id;
use claviger_store::id::Owner;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::operations::{ABSENT_UUID, Operation, operations};
use support::wire::send;
use support::{Answer, Client, Key, Options, Server, Tenant, UNTHROTTLED, basic, claims, jose_header};

const ABSENT_KEY: &str = "ck_absent";

/// A tenant with the same things in it as its neighbour.
struct House<'a> {
    tenant: Tenant<'a>,
    admin: Key,
    admin_token: String,
    person: Key,
    machine: Key,
}

impl<'a> House<'a> {
    async fn of(server: &'a Server, slug: &str) -> Self {
        let tenant = server.tenant(slug).await;
        let admin = tenant.admin().await;
        let admin_token = server.with(&admin.pair()).token().await;
        let person = tenant.user_key("alice", &["events:read"]).await;
        let machine = tenant.app_key("portal", &["events:read"]).await;
        Self { tenant, admin, admin_token, person, machine }
    }

    /// Both ways in which its admin can call.
    fn callers(&self) -> [Client<'a>; 2] {
        [self.tenant.server.with(&self.admin.basic()), self.tenant.server.with(&format!("Bearer {}", self.admin_token))]
    }

    /// Every id in it that the other tenant could try.
    fn ids(&self) -> Vec<String> {
        let mut ids = vec![self.tenant.id.to_string()];
        for key in [&self.admin, &self.person, &self.machine] {
            ids.extend([key.id.clone(), key.subject()]);
        }
        ids.push(claims(&self.admin_token)["jti"].as_str().unwrap().to_owned());
        ids
    }

    /// Everything that the tenant holds, as text.
    async fn everything(&self) -> String {
        // Uses that wait to be written are of before.
        self.tenant.server.issuer.write_uses().await.unwrap();
        let mut database = self.tenant.server.database.superuser().await;
        let mut all = String::new();
        for table in ["users", "applications", "api_keys", "api_key_secrets", "api_key_usage", "issued_tokens", "audit_entries"] {
            let query = format!("SELECT t::text FROM {table} t WHERE tenant_id = $1 ORDER BY 1");
            let rows: Vec<(String,)> =
                sqlx::query_as(sqlx::AssertSqlSafe(query)).bind(self.tenant.id).fetch_all(&mut database).await.unwrap();
            assert!(!rows.is_empty(), "{table}");
            all.extend(rows.into_iter().map(|(row,)| row + "\n"));
        }
        all
    }
}

/// A good body for each operation that takes one: it must be the id that is refused, and nothing else.
fn body(operation: &str) -> Option<Value> {
    Some(match operation {
        "changeUser" => json!({ "email": "mallory@example.com", "disabled": true }),
        "changeApplication" => json!({ "name": "stolen", "disabled": true }),
        "changeKey" => json!({ "name": "stolen", "scopes": [], "disabled": true }),
        "changeAudience" => json!({ "name": "stolen" }),
        "confirmAudienceKey" => json!({ "kid": "k" }),
        "rotateKey" => json!({ "grace_seconds": 0 }),
        "changeConnection" => json!({ "enabled": false }),
        "linkUser" => json!({ "connection": ABSENT_UUID, "subject": "mallory" }),
        "setPasswordOfUser" => json!({ "password": "taken over by mallory" }),
        _ => return None,
    })
}

async fn call(caller: &Client<'_>, method: &Method, path: &str, body: Option<&Value>) -> Answer {
    let request = caller.request(method.clone(), path);
    send(match body {
        Some(body) => request.json(body),
        None => request,
    })
    .await
}

#[actix_web::test]
async fn scenario_68_p30_every_id_of_another_tenant_answers_exactly_like_an_absent_one() {
    let server = Server::start().await;
    let a = House::of(&server, "a").await;
    let b = House::of(&server, "b").await;
    let before = b.everything().await;
    // But a person's own logins and keys, which no key reaches, and requests for keys: `idor.rs` asks for these; and status
    // lists, which are for everybody: `status_lists.rs`.
    let is_of_this_kind = |one: &Operation| {
        let elsewhere = ["/v1/me/", "/v1/key-requests/", "/v1/status-lists/"].iter().any(|place| one.template.contains(place));
        one.template.contains("{id}") && !elsewhere
    };
    let by_id: Vec<_> = operations().into_iter().filter(is_of_this_kind).collect();
    // At the root and in the tenant.
    let kinds = "show, change, delete of four kinds, the rotation, an audience's key, and a person's password, logins and links";
    assert_eq!(by_id.len(), 50, "{kinds}");
    let mut cells = 0;
    for operation in &by_id {
        let body = body(operation.root_id());
        for caller in a.callers() {
            for foreign in b.ids() {
                // An absent id of the same form: the path in the answer would be no excuse.
                let absent = if foreign.starts_with("ck_") { ABSENT_KEY } else { ABSENT_UUID };
                let told = call(&caller, &operation.method, &operation.path("a", absent), body.as_ref()).await;
                assert_eq!(told.status, StatusCode::NOT_FOUND, "{}: {}", operation.id, told.text);
                assert_eq!(told.error(), "not_found");
                let answer = call(&caller, &operation.method, &operation.path("a", &foreign), body.as_ref()).await;
                assert_eq!(answer.told(), told.told(), "{} of {foreign}", operation.id);
                cells += 1;
            }
        }
    }
    println!("{cells} cells of operation x credential x foreign id");
    assert_eq!(b.everything().await, before, "and nothing happened to it");
    for key in [&b.admin, &b.person, &b.machine] {
        server.with(&key.pair()).token().await;
    }
}

#[actix_web::test]
async fn scenario_68_p30_credentials_of_one_tenant_open_nothing_in_another() {
    let server = Server::start_with(Options { throttle: UNTHROTTLED, ..Options::default() }).await;
    let a = House::of(&server, "a").await;
    let b = House::of(&server, "b").await;
    let before = b.everything().await;
    let wrong = server.with(&basic(&format!("{}:S1", new_key_id("c", server.issuer.random()).unwrap())));
    for operation in operations().into_iter().filter(|one| one.needs_caller && one.template.starts_with("/t/")) {
        let good = body(operation.root_id()).unwrap_or_else(|| match operation.root_id() {
            "createUser" => json!({ "username": "mallory" }),
            "createApplication" => json!({ "name": "mallory" }),
            "createKey" => json!({ "application_id": b.machine.subject(), "name": "n", "scopes": [] }),
            _ => json!({}),
        });
        let request = |caller: &Client<'_>, id: &str| {
            let request = caller.request(operation.method.clone(), &operation.path("b", id));
            match operation.body.as_deref() {
                Some("application/json") => request.json(&good),
                Some(_) => request.form(&[("token", b.admin_token.as_str())]),
                None => request,
            }
        };
        let [by_key, by_token] = a.callers();
        // A path without an id is the same for all of them.
        let ids = b.ids();
        let ids = if operation.path("b", "x") == operation.path("b", "y") { &ids[..1] } else { &ids[..] };
        for id in ids {
            let key = send(request(&by_key, id)).await;
            assert_eq!(key.status, StatusCode::UNAUTHORIZED, "{}", operation.id);
            assert_eq!(key.told(), send(request(&wrong, id)).await.told(), "as a key that exists nowhere: {}", operation.id);
            let token = send(request(&by_token, id)).await;
            assert_eq!((token.status, token.error().as_str()), (StatusCode::UNAUTHORIZED, "invalid_token"), "{}", operation.id);
            assert_eq!(token.told(), send(request(&by_token, ABSENT_UUID)).await.told(), "{}", operation.id);
        }
    }
    // Its pairs are nobody's at the neighbour's door.
    let unknown = server.with("nokey:S1").post_empty(&b.tenant.path("/v1/authentications")).await.told();
    for key in [&a.admin, &a.person, &a.machine] {
        assert_eq!(server.with(&key.pair()).post_empty(&b.tenant.path("/v1/authentications")).await.told(), unknown);
    }
    assert_eq!(b.everything().await, before);
}

#[actix_web::test]
async fn p30_ids_of_another_tenant_in_bodies_and_queries_are_those_of_nobody() {
    let server = Server::start().await;
    let a = House::of(&server, "a").await;
    let b = House::of(&server, "b").await;
    let before = b.everything().await;
    for caller in a.callers() {
        for (member, foreign) in [("application_id", b.machine.subject()), ("user_id", b.person.subject())] {
            let order = |id: &str| json!({ member: id, "name": "n", "scopes": [] });
            let answer = caller.post("/v1/keys", order(&foreign)).await;
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY);
            assert_eq!(answer.told(), caller.post("/v1/keys", order(ABSENT_UUID)).await.told());

            let list = caller.get(&format!("/v1/keys?{member}={foreign}")).await;
            assert_eq!(list.json(), json!({ "items": [], "next": null }));
            assert_eq!(list.told(), caller.get(&format!("/v1/keys?{member}={ABSENT_UUID}")).await.told());
        }
        // As a place in a list, an id is only compared, whosever it is.
        for (path, foreign) in
            [("/v1/keys", b.person.id.clone()), ("/v1/users", b.person.subject()), ("/v1/applications", b.machine.subject())]
        {
            let page = caller.get(&format!("{path}?after={foreign}")).await;
            assert_eq!(page.status, StatusCode::OK);
            assert!(b.ids().iter().all(|id| !page.text.contains(id)), "{path}");
        }
        for token in [&b.admin_token, &server.with(&b.person.pair()).token().await] {
            let answer = caller.introspect("/v1/introspect", token).await;
            assert_eq!(answer.told(), caller.introspect("/v1/introspect", "abcd.efgh").await.told());
        }
    }
    // A token of A that claims B, and says so everywhere that a token can.
    let mut claims = claims(&a.admin_token);
    claims["tid"] = json!(b.tenant.id);
    claims["sub"] = json!(b.admin.subject());
    claims["client_id"] = json!(b.admin.subject());
    let forged = a.tenant.sign(&jose_header(&a.admin_token), &claims).await;
    let users = server.with(&format!("Bearer {forged}")).get("/v1/users").await;
    if users.status == StatusCode::OK {
        assert!(b.ids().iter().all(|id| !users.text.contains(id)), "a claim chooses no tenant: {}", users.text);
    }
    claims["key_id"] = json!(b.admin.id);
    let forged = a.tenant.sign(&jose_header(&a.admin_token), &claims).await;
    assert_eq!(server.with(&format!("Bearer {forged}")).get("/v1/users").await.error(), "invalid_token");

    let after = b.everything().await;
    let exchanges = |text: &str| text.matches("key.exchange").count();
    // Only the tokens that B's person fetched above.
    assert_eq!(exchanges(&after), exchanges(&before) + 2);
}

#[actix_web::test]
async fn scenario_68_lists_and_audit_show_ones_own_alone_and_names_may_repeat() {
    let server = Server::start().await;
    let a = House::of(&server, "a").await;
    let b = House::of(&server, "b").await;
    for (one, other) in [(&a, &b), (&b, &a)] {
        for caller in one.callers() {
            for prefix in ["", &one.tenant.path("")] {
                for (path, count) in [("/v1/users", 1), ("/v1/applications", 2), ("/v1/keys", 3), ("/v1/audit", 9)] {
                    let answer = caller.get(&format!("{prefix}{path}?limit=200")).await;
                    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
                    let items = answer.json()["items"].as_array().unwrap().len();
                    assert!(if path == "/v1/audit" { items >= count } else { items == count }, "{path}: {items}");
                    assert!(other.ids().iter().all(|id| !answer.text.contains(id)), "{path}");
                }
            }
            let users = caller.get("/v1/users").await.json();
            assert_eq!(users["items"][0]["username"], "alice");
            assert_eq!(users["items"][0]["id"], one.person.subject());
        }
        // A chain begins at 1 in each tenant: its numbers tell nothing of the neighbour.
        let audit = one.callers()[0].get("/v1/audit?limit=200").await.json();
        let seqs: Vec<i64> = audit["items"].as_array().unwrap().iter().map(|item| item["seq"].as_i64().unwrap()).collect();
        assert_eq!(seqs, (1..=i64::try_from(seqs.len()).unwrap()).rev().collect::<Vec<_>>());
    }
}

#[actix_web::test]
async fn p30_a_tenants_admin_cannot_tell_which_tenants_there_are() {
    let server = Server::start().await;
    server.default_tenant().await;
    let a = House::of(&server, "a").await;
    House::of(&server, "b").await;
    for caller in a.callers() {
        for (method, body) in [(Method::GET, None), (Method::PATCH, Some(json!({ "disabled": true }))), (Method::DELETE, None)] {
            let absent = call(&caller, &method, "/v1/tenants/nowhere", body.as_ref()).await;
            assert_eq!(absent.status, StatusCode::FORBIDDEN);
            for slug in ["a", "b", "default"] {
                let answer = call(&caller, &method, &format!("/v1/tenants/{slug}"), body.as_ref()).await;
                assert_eq!(answer.told(), absent.told(), "{method} {slug}");
            }
        }
        let taken = caller.post("/v1/tenants", json!({ "slug": "b" })).await.told();
        assert_eq!(taken, caller.post("/v1/tenants", json!({ "slug": "free" })).await.told());
    }
}

#[actix_web::test]
async fn p30_a_key_handed_to_the_wrong_owner_kind_stays_in_its_tenant() {
    let server = Server::start().await;
    let a = House::of(&server, "a").await;
    let b = House::of(&server, "b").await;
    // Even the operator's own calls cannot tie a key of one tenant to an owner of another.
    let order = claviger_issuer::key::KeyOrder {
        owner: b.person.owner,
        name: "n".into(),
        scopes: vec![],
        roles: Vec::new(),
        acting: Default::default(),
        token_lifetime: None,
        refresh: false,
        expires_at: None,
        limits: claviger_issuer::limits::KeyLimits::default(),
        import: None,
    };
    let actor = claviger_issuer::audit::Actor::operator();
    assert!(server.issuer.create_key(a.tenant.id, &actor, order).await.is_err());
    let mut database = server.database.superuser().await;
    let Owner::User(user) = b.person.owner else { panic!("a person") };
    let tied = sqlx::query(
        "INSERT INTO api_keys (tenant_id, id, name, user_id, scopes, created_at, created_by) VALUES ($1, 'x', 'x', $2, '{}', now(), 'x')",
    )
    .bind(a.tenant.id)
    .bind(user)
    .execute(&mut database)
    .await;
    assert!(tied.is_err(), "the foreign key carries the tenant");
}
