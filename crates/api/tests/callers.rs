//! Who may call what: tokens and keys as credentials, and the permission of every route (SEEDS scenarios 8 and 9).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

#[path = "support/people.rs"]
mod people;
mod support;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use chrono::TimeDelta;
use claviger_issuer::audit::Actor;
use claviger_issuer::key::KeyChange;
use claviger_issuer::scope::MANAGEMENT;
use claviger_issuer::secret::new_key_id;
use claviger_store::id::Owner;
use jsonwebtoken::{Algorithm, EncodingKey};
use people::{Browser, PASSWORD};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use support::operations::{Operation, operations};
use support::wire::{raw, send};
use support::{Answer, Key, Options, Server, Tenant, UNTHROTTLED, basic, claims, jose_header};

fn bearer(token: &str) -> String {
    format!("Bearer {token}")
}

fn assert_invalid_token(answer: &Answer, what: &str) {
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what}: {}", answer.text);
    assert_eq!(answer.error(), "invalid_token", "{what}");
    assert!(answer.header("www-authenticate").starts_with("Bearer error=\"invalid_token\""), "{what}");
}

#[actix_web::test]
async fn scenario_08_me_shows_the_caller_at_the_root_and_in_the_tenant() {
    let server = Server::start().await;
    let tenant = server.tenant("cta").await;
    let person = tenant.user_key("foo", &["events:write", "events:read"]).await;
    let machine = tenant.app_key("importer", &[]).await;
    for path in ["/v1/me".to_owned(), tenant.path("/v1/me")] {
        let token = server.with(&person.pair()).token().await;
        let answer = server.with(&bearer(&token)).get(&path).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        assert_eq!(answer.header("cache-control"), "no-store");
        let expected = json!({
            "sub": person.subject(), "username": "foo", "scope": "events:read events:write", "tenant": "cta",
            "key_id": person.id, "exp": claims(&token)["exp"],
        });
        assert_eq!(answer.json(), expected);
        let mut by_key = expected;
        by_key["exp"] = Value::Null;
        assert_eq!(server.with(&person.basic()).get(&path).await.json(), by_key);

        let me = server.with(&machine.basic()).get(&path).await.json();
        assert_eq!((&me["sub"], &me["username"], &me["scope"]), (&json!(machine.subject()), &Value::Null, &json!("")));

        let nobody = server.anonymous().get(&path).await;
        assert_eq!(nobody.status, StatusCode::UNAUTHORIZED);
        assert_eq!(nobody.error(), "unauthenticated");
        assert_eq!(nobody.header("www-authenticate"), "Bearer");
    }
}

#[actix_web::test]
async fn the_scheme_is_compared_without_case_and_only_the_known_ones_count() {
    let server = Server::start().await;
    let tenant = server.tenant("cta").await;
    let key = tenant.user_key("foo", &[]).await;
    let token = server.with(&key.pair()).token().await;
    for scheme in ["Bearer", "bearer", "BEARER", "bEaReR"] {
        assert_eq!(server.with(&format!("{scheme} {token}")).get("/v1/me").await.status, StatusCode::OK, "{scheme}");
    }
    for header in [
        token.clone(),
        format!("Bearer: {token}"),
        format!("Bearer{token}"),
        format!("Token {token}"),
        format!("DPoP {token}"),
        format!("Bearer,{token}"),
        key.pair(),
        format!("Bearer {}", key.pair()),
        format!("Bearer {token} {token}"),
        format!("Bearer {token},"),
        "Bearer".into(),
        "Bearer ".into(),
        "Bearer é.é.é".into(),
        String::new(),
    ] {
        let answer = server.with(&header).get("/v1/me").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{header}");
        assert!(answer.header("www-authenticate").starts_with("Bearer"), "{header}");
    }
    // Never from the query (RFC 6750 §2.3) and never from a cookie.
    let answer = server.anonymous().get(&format!("/v1/me?access_token={token}")).await;
    assert_eq!(answer.error(), "unauthenticated");
    let request =
        server.anonymous().request(Method::GET, "/v1/me").header("Cookie", format!("token={token}; access_token={token}"));
    assert_eq!(send(request).await.error(), "unauthenticated");
}

#[actix_web::test]
async fn scenario_09_an_expired_a_garbled_and_a_tampered_token_are_401() {
    let server = Server::start().await;
    let tenant = server.tenant("cta").await;
    let key = tenant.user_key("foo", &["events:read"]).await;
    let token = server.with(&key.pair()).token().await;
    let me = async |token: String| server.with(&bearer(&token)).get(&tenant.path("/v1/me")).await;
    assert_eq!(me(token.clone()).await.status, StatusCode::OK);

    for garbage in ["abcd.efgh", "abcd", "a.b.c", "..", "eyJhbGciOiJub25lIn0..", &"x".repeat(7000)] {
        assert_invalid_token(&me(garbage.to_owned()).await, garbage);
    }
    let parts: Vec<&str> = token.split('.').collect();
    let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    for at in [0, 1, 31, 32, 62, 63] {
        for bit in [0x01, 0x80] {
            let mut flipped = signature.clone();
            flipped[at] ^= bit;
            let tampered = format!("{}.{}.{}", parts[0], parts[1], URL_SAFE_NO_PAD.encode(flipped));
            assert_invalid_token(&me(tampered).await, "a flipped bit of the signature");
        }
    }
    let mut richer = claims(&token);
    richer["scope"] = json!("users:write");
    let tampered = format!("{}.{}.{}", parts[0], URL_SAFE_NO_PAD.encode(richer.to_string()), parts[2]);
    assert_invalid_token(&me(tampered).await, "other claims under the same signature");
    assert_invalid_token(&me(format!("{token}=")).await, "padding");
    assert_invalid_token(&me(format!("{}.{}", parts[0], parts[1])).await, "no signature");
    assert_invalid_token(&me(format!("{}.{}.", parts[0], parts[1])).await, "an empty signature");

    let left = claims(&token)["exp"].as_i64().unwrap() - server.clock.now().timestamp();
    server.clock.advance(TimeDelta::seconds(left - 1));
    assert_eq!(me(token.clone()).await.status, StatusCode::OK);
    server.clock.advance(TimeDelta::seconds(1));
    let expired = me(token).await;
    assert_invalid_token(&expired, "expired");
    assert!(expired.header("www-authenticate").contains("expired"));
}

#[actix_web::test]
async fn a_token_or_key_of_one_tenant_is_nobody_in_another() {
    let server = Server::start().await;
    let a = server.tenant("a").await;
    let b = server.tenant("b").await;
    let key = a.admin().await;
    let token = server.with(&key.pair()).token().await;
    for path in ["/v1/me", "/v1/users", "/v1/keys", "/v1/audit"] {
        assert_eq!(server.with(&bearer(&token)).get(&a.path(path)).await.status, StatusCode::OK);
        assert_invalid_token(&server.with(&bearer(&token)).get(&b.path(path)).await, path);
        let by_key = server.with(&key.basic()).get(&b.path(path)).await;
        assert_eq!((by_key.status, by_key.error().as_str()), (StatusCode::UNAUTHORIZED, "unauthenticated"));
        // A key that exists elsewhere and one that exists nowhere are told alike.
        assert_eq!(by_key.told(), server.with(&basic("nokey:S1")).get(&b.path(path)).await.told());
    }
    // Signed by B's own key, for A's issuer and A's key: B cannot speak for A.
    let mut forged = claims(&token);
    let header = jose_header(&token);
    assert_invalid_token(&server.with(&bearer(&b.sign(&header, &forged).await)).get("/v1/me").await, "B's signature, A's issuer");
    let b_header = jose_header(&server.with(&b.app_key("x", &[]).await.pair()).token().await);
    forged["iss"] = json!("http://id.test/t/b");
    forged["aud"] = json!("http://id.test/t/b");
    for path in ["/v1/me".to_owned(), a.path("/v1/me"), b.path("/v1/me")] {
        let answer = server.with(&bearer(&b.sign(&b_header, &forged).await)).get(&path).await;
        assert_invalid_token(&answer, "B's issuer, A's key");
    }
}

/// Every operation that is open to all. Whoever adds one adds it here, and says why.
const OPEN: [&str; 14] = [
    "showJwks",
    "showJwksInTenant",
    "showMetadataInTenant",
    "showMetadataPathInserted",
    "showPublicKey",
    "showPublicKeyInTenant",
    // Ids only, signed; a tenant may want a scope for it all the same.
    "followRevocationsInTenant",
    "listStatusListsInTenant",
    "showHealth",
    "showReadiness",
    "showOpenApi",
    "showLoginPageInTenant",
    "showRequestKeyPageInTenant",
    // Says that nobody is signed in.
    "askToSignOutInTenant",
];

/// Operations that take proof of their own, and what they answer to whoever has none.
const PROOF_OF_THEIR_OWN: [(&str, u16); 24] = [
    // Open as the revocations are; here there is none of that id.
    ("showStatusList", 404),
    ("revokePresentedKey", 401),
    ("createAuthentication", 404),
    ("logIn", 422),
    ("refreshToken", 422),
    ("requestToken", 400),
    ("revokeToken", 200),
    // Of whom the proxy asks about.
    ("forwardAuth", 403),
    // Anybody asks, with what is in the body.
    ("requestKey", 422),
    ("requestKeyFromPage", 403),
    // Of a link.
    ("showConfirmPage", 404),
    ("confirmFromPage", 403),
    ("showClaimPage", 404),
    ("claimFromPage", 403),
    // Pages: without a session they lead to the login page, without their own form's token they do nothing.
    ("signIn", 400),
    ("signOut", 200),
    ("showAccountPage", 303),
    ("endLoginFromPage", 303),
    ("endAllLoginsFromPage", 303),
    ("changePasswordFromPage", 303),
    ("linkFromPage", 303),
    ("unlinkFromPage", 303),
    // Of a browser, and of what a provider sends back with it; a connection that is not there takes none.
    ("signInThroughConnection", 404),
    ("comeBackFromConnection", 404),
];

fn is_open(operation: &Operation) -> bool {
    OPEN.contains(&operation.id.as_str()) || !operation.needs_caller && own_proof(operation).is_some()
}

fn own_proof(operation: &Operation) -> Option<u16> {
    PROOF_OF_THEIR_OWN.iter().find(|(id, _)| *id == operation.root_id()).map(|(_, status)| *status)
}

/// What only a person has. Keys are told so.
const PERSONS: [&str; 11] = [
    "createMyKey",
    "listMyKeys",
    "rotateMyKey",
    "revokeMyKey",
    "logOut",
    "listMyLogins",
    "endMyLogins",
    "endMyLogin",
    "changeMyPassword",
    "listMyLinks",
    "listDoneInMyName",
];

fn is_persons(operation: &Operation) -> bool {
    PERSONS.contains(&operation.root_id())
}

/// What each operation needs, by its name at the root. `None` lets in whoever may act at all.
fn needs() -> BTreeMap<&'static str, Option<&'static str>> {
    BTreeMap::from([
        ("showMe", None),
        ("introspectToken", None),
        ("logOut", None),
        ("createMyKey", None),
        ("listMyKeys", None),
        ("rotateMyKey", None),
        ("revokeMyKey", None),
        ("revokeKeys", Some("keys:write")),
        ("listMyLogins", None),
        ("endMyLogins", None),
        ("endMyLogin", None),
        ("changeMyPassword", None),
        ("createUser", Some("users:write")),
        ("listUsers", Some("users:read")),
        ("showUser", Some("users:read")),
        ("changeUser", Some("users:write")),
        ("deleteUser", Some("users:write")),
        ("setPasswordOfUser", Some("users:write")),
        ("listLoginsOfUser", Some("users:read")),
        ("endLoginsOfUser", Some("users:write")),
        ("endLoginOfUser", Some("users:write")),
        ("listMyLinks", None),
        ("listLinksOfUser", Some("users:read")),
        ("linkUser", Some("users:write")),
        ("unlinkUser", Some("users:write")),
        ("createConnection", Some("connections:write")),
        ("listConnections", Some("connections:read")),
        ("showConnection", Some("connections:read")),
        ("changeConnection", Some("connections:write")),
        ("deleteConnection", Some("connections:write")),
        ("createApplication", Some("applications:write")),
        ("listApplications", Some("applications:read")),
        ("showApplication", Some("applications:read")),
        ("changeApplication", Some("applications:write")),
        ("deleteApplication", Some("applications:write")),
        ("createKey", Some("keys:write")),
        ("listKeys", Some("keys:read")),
        ("showKey", Some("keys:read")),
        ("changeKey", Some("keys:write")),
        ("rotateKey", Some("keys:write")),
        ("revokeKey", Some("keys:write")),
        ("listKeyRequests", Some("keys:read")),
        ("showKeyRequest", Some("keys:read")),
        ("approveKeyRequest", Some("keys:write")),
        ("denyKeyRequest", Some("keys:write")),
        ("verify", Some("verify")),
        ("verifyBatch", Some("verify")),
        ("createWsTicket", None),
        ("createRole", Some("roles:write")),
        ("listRoles", Some("roles:read")),
        ("showRole", Some("roles:read")),
        ("changeRole", Some("roles:write")),
        ("deleteRole", Some("roles:write")),
        ("putScope", Some("roles:write")),
        ("listScopes", Some("roles:read")),
        ("deleteScope", Some("roles:write")),
        ("listAvailablePermissions", Some("roles:read")),
        ("exportAudit", Some("audit:read")),
        ("explainDecision", Some("audit:read")),
        ("listDoneInMyName", None),
        ("listAudit", Some("audit:read")),
        ("createAudience", Some("audiences:write")),
        ("listAudiences", Some("audiences:read")),
        ("showAudience", Some("audiences:read")),
        ("changeAudience", Some("audiences:write")),
        ("deleteAudience", Some("audiences:write")),
        ("showAudienceKey", Some("audiences:read")),
        ("confirmAudienceKey", Some("audiences:write")),
        ("listVerifiers", Some("signing-keys:read")),
        ("listSigningKeys", Some("signing-keys:read")),
        ("rotateSigningKey", Some("signing-keys:write")),
        ("activateSigningKey", Some("signing-keys:write")),
        ("retireSigningKey", Some("signing-keys:write")),
        ("createTenant", Some("tenants:write")),
        ("listTenants", Some("tenants:read")),
        ("showTenant", Some("tenants:read")),
        ("changeTenant", Some("tenants:write")),
        ("applyPreset", Some("tenants:write")),
        ("deleteTenant", Some("tenants:write")),
    ])
}

/// Operations of the installation: only the default tenant's keys may.
fn is_platform(operation: &Operation) -> bool {
    operation.template.starts_with("/v1/tenants")
}

#[actix_web::test]
async fn p28_without_credentials_every_operation_but_the_listed_is_401() {
    let server = Server::start_with(Options { throttle: UNTHROTTLED, ..Options::default() }).await;
    server.default_tenant().await;
    server.tenant("acme").await;
    let (open, closed): (Vec<_>, Vec<_>) = operations().into_iter().partition(is_open);
    // Five of those with proof of their own are at the root too.
    assert_eq!(open.len(), OPEN.len() + PROOF_OF_THEIR_OWN.len() + 5, "an operation of the list is gone");
    for operation in &open {
        assert!(!operation.needs_caller, "{}", operation.id);
        let answer = operation.call(&server.anonymous(), &operation.path("acme", "x")).await;
        assert_eq!(answer.status.as_u16(), own_proof(operation).unwrap_or(200), "{}", operation.id);
    }
    for operation in &closed {
        assert!(operation.needs_caller, "{} needs credentials, so the document must say so", operation.id);
        for path in [operation.path("acme", "x"), operation.path_of_nothing("acme")] {
            let answer = operation.call(&server.anonymous(), &path).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}: {}", operation.id, answer.text);
            assert_eq!(answer.header("www-authenticate"), "Bearer", "{}", operation.id);
            let nobody = format!("{}:S1", new_key_id("c", server.issuer.random()).unwrap());
            for header in ["Bearer abcd.efgh".to_owned(), basic(&nobody), basic("K1"), nobody] {
                let answer = operation.call(&server.with(&header), &path).await;
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{} with {header}: {}", operation.id, answer.text);
                assert!(answer.header("www-authenticate").starts_with("Bearer"), "{}", operation.id);
            }
        }
    }
}

/// What proxies tell of a client's certificate, or of whom they let in; we were told of neither.
const TOLD_BY_PROXIES: [(&str, &str); 12] = [
    ("X-Client-Cert", "MIIB"),
    ("X-Client-Verify", "SUCCESS"),
    ("X-Forwarded-Client-Cert", "Hash=00;Subject=\"CN=admin\""),
    ("X-SSL-Client-Cert", "MIIB"),
    ("X-SSL-Client-S-DN", "CN=admin"),
    ("SSL-Client-Cert", "MIIB"),
    ("SSL_CLIENT_CERT", "MIIB"),
    ("Client-Cert", ":MIIB:"),
    ("X-Remote-User", "admin"),
    ("Remote-User", "admin"),
    ("X-Forwarded-User", "admin"),
    ("X-Auth-Request-User", "admin"),
];

#[actix_web::test]
async fn p43_a_certificate_or_a_name_in_a_header_is_nobody_from_a_trusted_proxy_too() {
    let trusted = Options { throttle: UNTHROTTLED, trusted_proxies: vec!["127.0.0.1/32"], ..Options::default() };
    for options in [Options { throttle: UNTHROTTLED, ..Options::default() }, trusted] {
        let server = Server::start_with(options).await;
        server.default_tenant().await;
        let tenant = server.tenant("acme").await;
        let key = tenant.app_key("weak", &[]).await;
        for operation in operations().into_iter().filter(|operation| operation.needs_caller) {
            let path = operation.path("acme", "x");
            let told = |caller: support::Client<'_>| {
                TOLD_BY_PROXIES
                    .iter()
                    .fold(caller.request(operation.method.clone(), &path), |request, (name, value)| request.header(*name, *value))
            };
            let answer = send(told(server.anonymous())).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{}: {}", operation.id, answer.text);
            // Nor does it add to what somebody may do.
            if needs()[operation.root_id()].is_some() {
                let answer = send(told(server.with(&key.basic()))).await;
                assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}: {}", operation.id, answer.text);
            }
        }
    }
}

#[actix_web::test]
async fn p28_credentials_are_asked_for_before_anything_else_is_looked_at() {
    // Nothing is in memory: then finding out who calls takes longer than looking at the body.
    let server = Server::start_with(Options { throttle: UNTHROTTLED, memory: false, ..Options::default() }).await;
    server.default_tenant().await;
    let tenant = server.tenant("acme").await;
    let key = tenant.app_key("weak", &[]).await;
    let wrong = basic(&format!("{}:S1", key.id));
    for operation in operations().into_iter().filter(|operation| operation.needs_caller) {
        let path = operation.path("acme", "x");
        // Whatever is wrong with query and body: who may not call hears that, and nothing of the rest.
        let query = format!("{path}?limit=nonsense&admin=true");
        for (header, status) in
            [(None, 401), (Some("Bearer abcd.efgh"), 401), (Some(wrong.as_str()), 401), (Some(&key.basic()), 403)]
        {
            if status == 403 && needs()[operation.root_id()].is_none() && !is_persons(&operation) {
                continue;
            }
            for body in ["", "{", "{\"unknown\":1}"] {
                let caller = header.map_or_else(|| server.anonymous(), |header| server.with(header));
                let request = caller.request(operation.method.clone(), &query).body(body);
                for request in [request.try_clone().unwrap(), request.header("Content-Type", "application/json")] {
                    let answer = send(request).await;
                    assert_eq!(answer.status.as_u16(), status, "{} {header:?} {body:?}: {}", operation.id, answer.text);
                }
            }
        }
    }
}

#[actix_web::test]
async fn p28_a_key_without_scopes_may_do_nothing_but_ask_who_it_is() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let acme = server.tenant("acme").await;
    for tenant in [&default, &acme] {
        let key = tenant.app_key("bare", &[]).await;
        let token = server.with(&key.pair()).token().await;
        let before = tenant.server.issuer.list_audit(tenant.id, None, None, 1000).await.unwrap();
        let before = before.iter().filter(|entry| entry.outcome == "ok").count();
        let mut tickets = 0;
        for operation in operations().into_iter().filter(|operation| operation.needs_caller) {
            for header in [key.basic(), bearer(&token)] {
                let answer = operation.call(&server.with(&header), &operation.path(&tenant.slug, "x")).await;
                match needs()[operation.root_id()] {
                    None if is_persons(&operation) => assert_eq!(answer.error(), "not_a_person", "{}", operation.id),
                    // It holds what the key holds: nothing.
                    None if operation.root_id() == "createWsTicket" => {
                        assert_eq!(answer.status, StatusCode::CREATED);
                        tickets += 1;
                    }
                    None => assert_eq!(answer.status, StatusCode::OK, "{}", operation.id),
                    Some(scope) => {
                        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{}: {}", operation.id, answer.text);
                        assert_eq!(answer.error(), "insufficient_scope", "{}", operation.id);
                        let expected = format!("Bearer error=\"insufficient_scope\", scope=\"{scope}\"");
                        assert_eq!(answer.header("www-authenticate"), expected, "{}", operation.id);
                    }
                }
            }
        }
        let after = tenant.server.issuer.list_audit(tenant.id, None, None, 1000).await.unwrap();
        let after = after.iter().filter(|entry| entry.outcome == "ok").count();
        assert_eq!(before + tickets, after, "nothing was done");
    }
}

#[actix_web::test]
async fn p28_each_management_scope_opens_exactly_its_own_routes() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let acme = server.tenant("acme").await;
    let all: Vec<Operation> = operations().into_iter().filter(|operation| operation.needs_caller).collect();
    let table = needs();
    let (mut cells, mut used) = (0, std::collections::BTreeSet::new());
    for tenant in [&default, &acme] {
        for scope in MANAGEMENT {
            let key = tenant.app_key(&format!("only {scope}"), &[scope]).await;
            let token = server.with(&key.pair()).token().await;
            for operation in &all {
                let needed = *table.get(operation.root_id()).unwrap_or_else(|| panic!("{} is not in the table", operation.id));
                used.insert(operation.root_id().to_owned());
                let platform = is_platform(operation);
                let allowed = needed.is_none_or(|needed| needed == scope)
                    && (!platform || tenant.slug == "default")
                    && !is_persons(operation);
                for header in [key.basic(), bearer(&token)] {
                    let path = operation.path_of_nothing(&tenant.slug);
                    let answer = operation.call(&server.with(&header), &path).await;
                    cells += 1;
                    if allowed {
                        let refused = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN].contains(&answer.status);
                        assert!(!refused && !answer.status.is_server_error(), "{scope} at {}: {}", operation.id, answer.text);
                    } else {
                        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{scope} of {} at {}", tenant.slug, operation.id);
                        let error = if is_persons(operation) { "not_a_person" } else { "insufficient_scope" };
                        assert_eq!(answer.error(), error);
                    }
                }
            }
        }
    }
    assert_eq!(used.len(), table.len(), "the table names an operation that is gone");
    println!("{cells} cells of operation x scope x tenant x credential");
}

/// What a kind of caller comes to at an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Comes {
    /// Past every question of who may: to the thing itself, or to what is wrong with the request.
    Through,
    /// 401: nobody.
    Unknown,
    /// 403: not with these scopes.
    Short,
    /// 403: not a key.
    NotAPerson,
    /// 403: not in another's name.
    Acting,
}

impl Comes {
    fn of(answer: &Answer) -> Self {
        match (answer.status.as_u16(), answer.status.is_server_error()) {
            (401, _) => Self::Unknown,
            (403, _) => match answer.error().as_str() {
                "insufficient_scope" => Self::Short,
                "not_a_person" => Self::NotAPerson,
                "acting_for_another" => Self::Acting,
                other => panic!("{other}: {}", answer.text),
            },
            (_, false) => Self::Through,
            (status, true) => panic!("{status}: {}", answer.text),
        }
    }
}

/// Kinds of callers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Nobody,
    /// A key that holds nothing but what the operation needs; the others of its kind hold everything else, or nothing.
    KeyWithScope,
    KeyTokenWithScope,
    KeyWithAllOthers,
    KeyTokenWithAllOthers,
    KeyWithNothing,
    /// Scopes by a role.
    PersonWithScope,
    PersonWithAllOthers,
    PersonWithNothing,
    /// The browser of a person who holds everything.
    Browser,
    /// Its cookie, at another tenant.
    BrowserOfAnotherTenant,
    /// Acts for a person who holds everything.
    ActingToken,
    ImpersonationKey,
    /// Is for WebSockets.
    Ticket,
    AdminOfAnotherTenant,
    AdminTokenOfAnotherTenant,
    DisabledKey,
    TokenOfDisabledKey,
    RevokedKey,
    ExpiredKey,
    RefreshToken,
    UsernameAndPassword,
}

const KINDS: [Kind; 22] = [
    Kind::Nobody,
    Kind::KeyWithScope,
    Kind::KeyTokenWithScope,
    Kind::KeyWithAllOthers,
    Kind::KeyTokenWithAllOthers,
    Kind::KeyWithNothing,
    Kind::PersonWithScope,
    Kind::PersonWithAllOthers,
    Kind::PersonWithNothing,
    Kind::Browser,
    Kind::BrowserOfAnotherTenant,
    Kind::ActingToken,
    Kind::ImpersonationKey,
    Kind::Ticket,
    Kind::AdminOfAnotherTenant,
    Kind::AdminTokenOfAnotherTenant,
    Kind::DisabledKey,
    Kind::TokenOfDisabledKey,
    Kind::RevokedKey,
    Kind::ExpiredKey,
    Kind::RefreshToken,
    Kind::UsernameAndPassword,
];

/// The rule that the servers are held to, in one place.
fn comes(kind: Kind, operation: &Operation, tenant: &str) -> Comes {
    let at_root = !operation.id.ends_with("InTenant");
    let needed = needs()[operation.root_id()];
    let (persons, platform) = (is_persons(operation), is_platform(operation));
    let may = |holds: bool, of_default: bool| match needed {
        None => Comes::Through,
        Some(_) if holds && (!platform || of_default) => Comes::Through,
        Some(_) => Comes::Short,
    };
    let key = |holds, of_default| if persons { Comes::NotAPerson } else { may(holds, of_default) };
    let default = tenant == "default";
    match kind {
        Kind::KeyWithScope | Kind::KeyTokenWithScope => key(true, default),
        Kind::KeyWithAllOthers | Kind::KeyTokenWithAllOthers | Kind::KeyWithNothing => key(false, default),
        Kind::PersonWithScope if persons => Comes::Through,
        Kind::PersonWithScope => may(true, default),
        Kind::PersonWithAllOthers | Kind::PersonWithNothing if persons => Comes::Through,
        Kind::PersonWithAllOthers | Kind::PersonWithNothing => may(false, default),
        // A cookie has a path, and is taken where the document says so.
        Kind::Browser if !at_root && (persons || operation.root_id() == "showMe") => Comes::Through,
        Kind::ActingToken if persons || operation.root_id() == "createWsTicket" => Comes::Acting,
        Kind::ActingToken => may(false, default),
        // At the root a credential names its own tenant.
        Kind::AdminOfAnotherTenant | Kind::AdminTokenOfAnotherTenant if at_root => key(true, false),
        Kind::Nobody
        | Kind::Browser
        | Kind::BrowserOfAnotherTenant
        | Kind::ImpersonationKey
        | Kind::Ticket
        | Kind::AdminOfAnotherTenant
        | Kind::AdminTokenOfAnotherTenant
        | Kind::DisabledKey
        | Kind::TokenOfDisabledKey
        | Kind::RevokedKey
        | Kind::ExpiredKey
        | Kind::RefreshToken
        | Kind::UsernameAndPassword => Comes::Unknown,
    }
}

/// A tenant with a caller of every kind, for every scope.
struct Cast<'a> {
    tenant: Tenant<'a>,
    /// By scope: a key that holds it alone and its token, one that holds all others and its token.
    keys: BTreeMap<&'static str, [String; 4]>,
    /// By scope: who holds it alone, and who holds all others.
    people: BTreeMap<&'static str, [String; 2]>,
    /// By kind: what they present.
    others: Vec<(Kind, String)>,
    /// Another tenant's, under the name that it would have here.
    foreign_cookie: String,
}

/// What needs nothing is asked for with nothing.
const NOTHING: &str = "";

impl<'a> Cast<'a> {
    async fn of(server: &'a Server, slug: &str, foreign: &Key, foreign_browser: &Browser<'_>) -> Cast<'a> {
        let tenant = server.tenant(slug).await;
        let manage = tenant.admin().await;
        let admin = server.with(&manage.basic());
        let make = async |path: &str, body: Value| {
            let answer = admin.post(&tenant.path(path), body).await;
            assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
            answer.json()
        };
        let person = async |name: &str, scopes: &[&str]| {
            make("/v1/roles", json!({ "name": name, "scopes": scopes })).await;
            make("/v1/users", json!({ "username": name, "password": PASSWORD, "roles": [name] })).await["id"].clone()
        };
        let (mut keys, mut people) = (BTreeMap::new(), BTreeMap::new());
        for scope in MANAGEMENT.into_iter().chain([NOTHING]) {
            let name = format!("only.{}", scope.replace(':', "."));
            let alone: Vec<&str> = Some(scope).filter(|scope| *scope != NOTHING).into_iter().collect();
            let others: Vec<&str> = MANAGEMENT.into_iter().filter(|one| *one != scope).collect();
            let (with, without) = (tenant.app_key(&name, &alone).await, tenant.app_key(&format!("not {name}"), &others).await);
            let tokens = [server.with(&with.pair()).token().await, server.with(&without.pair()).token().await];
            keys.insert(scope, [with.basic(), bearer(&tokens[0]), without.basic(), bearer(&tokens[1])]);
            let but = name.replace("only.", "but.");
            person(&name, &alone).await;
            person(&but, &others).await;
            people.insert(scope, [name, but]);
        }
        person("boss", &MANAGEMENT).await;
        let lender = person("lender", &MANAGEMENT).await;
        let access = tenant.log_in("lender", PASSWORD).await;
        let token = access["access_token"].as_str().unwrap();
        let exchange = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", token),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
        ];
        let lent = send(admin.request(Method::POST, &tenant.path("/v1/token")).form(&exchange)).await.json();
        assert!(claims(lent["access_token"].as_str().unwrap())["act"]["sub"].is_string());
        let order = json!({ "user_id": lender, "name": "lent", "scopes": ["events:read"], "agents": ["boss"] });
        let impersonation = make("/v1/keys", order).await;
        let pair = |made: &Value| format!("{}:{}", made["api_key"].as_str().unwrap(), made["api_secret"].as_str().unwrap());
        let ticket = server.with(&bearer(token)).post(&tenant.path("/v1/ws-tickets"), json!({})).await.json();
        let (disabled, revoked) = (tenant.app_key("off", &MANAGEMENT).await, tenant.app_key("revoked", &MANAGEMENT).await);
        let orphan = server.with(&disabled.pair()).token().await;
        let off = admin.patch(&tenant.path(&format!("/v1/keys/{}", disabled.id)), json!({ "disabled": true })).await;
        assert_eq!(off.status, StatusCode::OK);
        assert_eq!(admin.delete(&tenant.path(&format!("/v1/keys/{}", revoked.id))).await.status, StatusCode::NO_CONTENT);
        let application = tenant.application("short-lived").await;
        let end = server.clock.now() + TimeDelta::seconds(60);
        let expired =
            make("/v1/keys", json!({ "application_id": application, "name": "x", "scopes": MANAGEMENT, "expires_at": end }))
                .await;
        let others = vec![
            (Kind::KeyWithNothing, tenant.app_key("bare", &[]).await.basic()),
            (Kind::ActingToken, bearer(lent["access_token"].as_str().unwrap())),
            (Kind::ImpersonationKey, basic(&pair(&impersonation))),
            (Kind::Ticket, bearer(ticket["ticket"].as_str().unwrap())),
            (Kind::AdminOfAnotherTenant, foreign.basic()),
            (Kind::AdminTokenOfAnotherTenant, bearer(&server.with(&foreign.pair()).token().await)),
            (Kind::DisabledKey, disabled.basic()),
            (Kind::TokenOfDisabledKey, bearer(&orphan)),
            (Kind::RevokedKey, revoked.basic()),
            (Kind::ExpiredKey, basic(&pair(&expired))),
            (Kind::RefreshToken, bearer(access["refresh_token"].as_str().unwrap())),
            (Kind::UsernameAndPassword, basic(&format!("boss:{PASSWORD}"))),
        ];
        let foreign_cookie = format!("__Host-session-{slug}={}", foreign_browser.cookie("session").unwrap());
        Self { tenant, keys, people, others, foreign_cookie }
    }

    /// Presents what this kind has. Logs people in anew: some of what they do ends their logins.
    async fn call(&self, kind: Kind, operation: &Operation, path: &str) -> Answer {
        let server = self.tenant.server;
        let needed = needs()[operation.root_id()].unwrap_or(NOTHING);
        let person = async |name: &str| {
            let login = self.tenant.log_in(name, PASSWORD).await;
            bearer(login["access_token"].as_str().unwrap())
        };
        let with_cookie = async |cookie: &str| {
            let request = operation.request(&server.anonymous(), path);
            send(request.header("Cookie", cookie).header("Sec-Fetch-Site", "same-origin")).await
        };
        let header = match kind {
            Kind::Nobody => return operation.call(&server.anonymous(), path).await,
            Kind::Browser => {
                let browser = Browser::signed_in(&self.tenant, "boss", PASSWORD).await;
                let cookie = format!("{}={}", browser.name("session"), browser.cookie("session").unwrap());
                return with_cookie(&cookie).await;
            }
            Kind::BrowserOfAnotherTenant => return with_cookie(&self.foreign_cookie).await,
            Kind::KeyWithScope => self.keys[needed][0].clone(),
            Kind::KeyTokenWithScope => self.keys[needed][1].clone(),
            Kind::KeyWithAllOthers => self.keys[needed][2].clone(),
            Kind::KeyTokenWithAllOthers => self.keys[needed][3].clone(),
            Kind::PersonWithScope => person(&self.people[needed][0]).await,
            Kind::PersonWithAllOthers => person(&self.people[needed][1]).await,
            Kind::PersonWithNothing => person(&self.people[NOTHING][0]).await,
            other => self.others.iter().find(|(kind, _)| *kind == other).unwrap().1.clone(),
        };
        operation.call(&server.with(&header), path).await
    }
}

#[actix_web::test]
async fn p28_every_kind_of_caller_at_every_route() {
    let server = Server::start_with(Options { throttle: UNTHROTTLED, ..Options::default() }).await;
    let elsewhere = server.tenant("elsewhere").await;
    elsewhere.user("stranger", Some(PASSWORD)).await;
    let (foreign, browser) = (elsewhere.admin().await, Browser::signed_in(&elsewhere, "stranger", PASSWORD).await);
    let casts = [Cast::of(&server, "default", &foreign, &browser).await, Cast::of(&server, "acme", &foreign, &browser).await];
    server.clock.advance(TimeDelta::seconds(61));
    server.settle().await;
    let all: Vec<Operation> = operations().into_iter().filter(|operation| operation.needs_caller).collect();
    let (mut cells, mut mismatches) = (0, Vec::new());
    for cast in &casts {
        for operation in &all {
            let path = operation.path_of_nothing(&cast.tenant.slug);
            for kind in KINDS {
                let answer = cast.call(kind, operation, &path).await;
                let (expected, came) = (comes(kind, operation, &cast.tenant.slug), Comes::of(&answer));
                cells += 1;
                if came != expected {
                    mismatches.push(format!(
                        "{kind:?} at {} of {}: {came:?}, not {expected:?}: {}",
                        operation.id, cast.tenant.slug, answer.text
                    ));
                }
            }
        }
    }
    println!("{cells} cells of operation x kind of caller x tenant, {} mismatches", mismatches.len());
    assert_eq!(cells, casts.len() * all.len() * KINDS.len());
    assert!(mismatches.is_empty(), "{}", mismatches.join("\n"));
}

#[actix_web::test]
async fn p28_the_document_names_the_scope_that_each_operation_really_needs() {
    let table = needs();
    for operation in operations().into_iter().filter(|operation| operation.needs_caller) {
        let scopes: Vec<&str> = table[operation.root_id()].into_iter().collect();
        if is_persons(&operation) {
            assert_eq!(operation.document["security"], json!([{ "bearer": [] }, { "session": [] }]), "{}", operation.id);
            continue;
        }
        if operation.root_id() == "showMe" {
            assert_eq!(operation.document["security"], json!([{ "bearer": [] }, { "basic": [] }, { "session": [] }]));
            continue;
        }
        assert_eq!(operation.document["security"], json!([{ "bearer": scopes }, { "basic": scopes }]), "{}", operation.id);
    }
}

#[actix_web::test]
async fn p28_a_tenants_admin_with_every_scope_does_not_manage_tenants() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let acme = server.tenant("acme").await;
    let admin = acme.admin().await;
    let token = server.with(&admin.pair()).token().await;
    assert!(claims(&token)["scope"].as_str().unwrap().contains("tenants:write"));
    for header in [admin.basic(), bearer(&token)] {
        let caller = server.with(&header);
        for answer in [
            caller.get("/v1/tenants").await,
            caller.get("/v1/tenants/acme").await,
            caller.post("/v1/tenants", json!({ "slug": "mine" })).await,
            caller.patch("/v1/tenants/acme", json!({ "settings": { "token_lifetime": 8_640_000 } })).await,
            caller.patch("/v1/tenants/default", json!({ "disabled": true })).await,
            caller.delete("/v1/tenants/acme").await,
        ] {
            assert_eq!((answer.status, answer.error().as_str()), (StatusCode::FORBIDDEN, "insufficient_scope"));
        }
    }
    assert!(server.issuer.find_tenant("mine").await.is_err());
    assert_eq!(server.issuer.find_tenant("acme").await.unwrap().settings, json!({}));
    let platform = default.admin().await;
    assert_eq!(server.with(&platform.basic()).get("/v1/tenants").await.json()["items"].as_array().unwrap().len(), 2);
}

#[actix_web::test]
async fn p28_rights_shrink_at_once_with_the_keys_though_the_token_still_names_them() {
    let server = Server::start().await;
    let tenant = server.default_tenant().await;
    let key = tenant.user_key("foo", &["users:read", "events:read"]).await;
    let token = server.with(&key.pair()).token().await;
    let caller = server.with(&bearer(&token));
    assert_eq!(caller.get("/v1/users").await.status, StatusCode::OK);
    let change = |scopes: &[&str]| KeyChange {
        scopes: Some(scopes.iter().map(|scope| (*scope).to_owned()).collect()),
        ..KeyChange::default()
    };
    let set = async |scopes: &[&str]| {
        server.issuer.change_key(tenant.id, &Actor::operator(), &key.key_id(), change(scopes)).await.unwrap();
        server.settle().await;
    };
    set(&["events:read"]).await;
    assert_eq!(claims(&token)["scope"], "events:read users:read");
    assert_eq!(caller.get("/v1/users").await.error(), "insufficient_scope");
    assert_eq!(caller.get("/v1/me").await.json()["scope"], "events:read");
    let asked = server.with(&key.basic()).introspect("/v1/introspect", &token).await.json();
    assert_eq!((&asked["active"], &asked["scope"]), (&json!(true), &json!("events:read")));
    // They do not grow beyond what the token was granted.
    set(&["events:read", "users:read", "keys:read"]).await;
    assert_eq!(caller.get("/v1/me").await.json()["scope"], "events:read users:read");
    assert_eq!(caller.get("/v1/users").await.status, StatusCode::OK);
    assert_eq!(caller.get("/v1/keys").await.error(), "insufficient_scope");

    // A token that asked for less stays that small.
    let narrow = server.with(&key.pair()).post("/v1/authentications", json!({ "scope": "events:read" })).await.json();
    let narrow = bearer(narrow["jwt"].as_str().unwrap());
    assert_eq!(server.with(&narrow).get("/v1/users").await.error(), "insufficient_scope");
    assert_eq!(server.with(&key.basic()).get("/v1/users").await.status, StatusCode::OK);
}

#[actix_web::test]
async fn a_tokens_key_owner_and_tenant_must_still_stand() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let admin = default.admin().await;
    let acme = server.tenant("acme").await;
    let platform = server.with(&admin.basic());
    let acme_admin = acme.admin().await;
    let manage = server.with(&acme_admin.basic());
    let issue = async |key: &Key| server.with(&key.pair()).token().await;
    let state = async |token: &str| {
        server.settle().await;
        server.with(&bearer(token)).get("/v1/me").await
    };

    let key = acme.user_key("foo", &[]).await;
    let token = issue(&key).await;
    let key_path = acme.path(&format!("/v1/keys/{}", key.id));
    let user_path = acme.path(&format!("/v1/users/{}", key.subject()));
    let tenant_path = "/v1/tenants/acme".to_owned();
    for (who, path) in [(&manage, &key_path), (&manage, &user_path), (&platform, &tenant_path)] {
        assert_eq!(who.patch(path, json!({ "disabled": true })).await.status, StatusCode::OK, "{path}");
        assert_invalid_token(&state(&token).await, path);
        assert_eq!(who.patch(path, json!({ "disabled": false })).await.status, StatusCode::OK, "{path}");
        assert_eq!(state(&token).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(manage.delete(&user_path).await.status, StatusCode::NO_CONTENT);
    assert_invalid_token(&state(&token).await, "deleted user");

    let key = acme.app_key("portal", &[]).await;
    let token = issue(&key).await;
    let path = acme.path(&format!("/v1/applications/{}", key.subject()));
    assert_eq!(manage.patch(&path, json!({ "disabled": true })).await.status, StatusCode::OK);
    assert_invalid_token(&state(&token).await, "disabled application");
    assert_eq!(server.with(&key.basic()).get("/v1/me").await.error(), "unauthenticated");
    assert_eq!(manage.patch(&path, json!({ "disabled": false })).await.status, StatusCode::OK);
    assert_eq!(state(&token).await.status, StatusCode::OK);
    assert_eq!(platform.delete(&tenant_path).await.status, StatusCode::NO_CONTENT);
    assert_invalid_token(&state(&token).await, "deleted tenant");
    assert_eq!(server.with(&acme_admin.basic()).get("/v1/me").await.error(), "unauthenticated");
    assert_eq!(server.with(&acme_admin.basic()).get(&acme.path("/v1/me")).await.status, StatusCode::NOT_FOUND);
}

#[actix_web::test]
async fn p27_p33_nobody_hands_out_a_management_scope_that_they_do_not_hold() {
    let server = Server::start().await;
    let tenant = server.default_tenant().await;
    let admin = tenant.admin().await;
    let application = tenant.application("portal").await;
    let clerk = tenant.app_key("clerk", &["events:read", "keys:write", "keys:read"]).await;
    let plain = tenant.key_of(Owner::Application(application), &["events:read"]).await;
    let token = server.with(&clerk.pair()).token().await;
    let count = async || server.issuer.list_keys(tenant.id, None, None, 200).await.unwrap().len();
    let keys = count().await;

    for header in [clerk.basic(), bearer(&token)] {
        let caller = server.with(&header);
        for scope in MANAGEMENT.into_iter().filter(|scope| !scope.starts_with("keys:")) {
            let order = json!({ "application_id": application, "name": "up", "scopes": ["events:read", scope] });
            let change = json!({ "scopes": ["events:read", scope] });
            for answer in [
                caller.post("/v1/keys", order).await,
                caller.patch(&format!("/v1/keys/{}", plain.id), change.clone()).await,
                caller.patch(&format!("/v1/keys/{}", clerk.id), change).await,
            ] {
                assert_eq!((answer.status, answer.error().as_str()), (StatusCode::FORBIDDEN, "insufficient_scope"), "{scope}");
                assert!(answer.header("www-authenticate").contains(&format!("scope=\"{scope}\"")), "{scope}");
            }
        }
        let answer = caller.post(&format!("/v1/keys/{}/rotate", admin.id), json!({ "grace_seconds": 0 })).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::FORBIDDEN, "insufficient_scope"));
        assert!(!answer.text.contains("api_secret"));
    }
    assert_eq!(count().await, keys);
    assert_eq!(server.issuer.find_key(tenant.id, &plain.key_id()).await.unwrap().scopes, ["events:read"]);
    assert_eq!(
        server.issuer.find_key(tenant.id, &clerk.key_id()).await.unwrap().scopes,
        ["events:read", "keys:read", "keys:write"]
    );
    assert!(tenant.audit("key.rotate").await.is_empty());
    assert!(tenant.audit("key.update").await.is_empty());
    assert_eq!(server.with(&admin.basic()).get("/v1/me").await.status, StatusCode::OK, "its secret is the same");

    // What a clerk holds may be handed on, and nothing else: but who may write roles says what the tenant's own scopes are.
    let caller = server.with(&clerk.basic());
    let order = |scopes: Value| json!({ "application_id": application, "name": "fine", "scopes": scopes });
    let answer = caller.post("/v1/keys", order(json!(["events:read", "keys:read", "keys:write"]))).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    assert_eq!(caller.post("/v1/keys", order(json!(["events:write"]))).await.error(), "insufficient_scope");
    let other = tenant.key_of(Owner::Application(application), &["events:write"]).await;
    let rotate = format!("/v1/keys/{}/rotate", other.id);
    assert_eq!(caller.post(&rotate, json!({ "grace_seconds": 0 })).await.error(), "insufficient_scope");
    let clerk = tenant.app_key("chief clerk", &["keys:write", "keys:read", "roles:write"]).await;
    let caller = server.with(&clerk.basic());
    let answer = caller.post("/v1/keys", order(json!(["events:read", "anything:else"]))).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.text);
    let answer = caller.post(&format!("/v1/keys/{}/rotate", plain.id), json!({ "grace_seconds": 0 })).await;
    assert_eq!(answer.status, StatusCode::CREATED);
    // A token that was narrowed hands on what it was narrowed to, not what its key holds.
    let narrow = server.with(&admin.pair()).post("/v1/authentications", json!({ "scope": "keys:write" })).await.json();
    let narrow = bearer(narrow["jwt"].as_str().unwrap());
    let order = json!({ "application_id": application, "name": "up", "scopes": ["users:write"] });
    assert_eq!(server.with(&narrow).post("/v1/keys", order).await.error(), "insufficient_scope");
    let rotate = format!("/v1/keys/{}/rotate", admin.id);
    assert_eq!(server.with(&narrow).post(&rotate, json!({ "grace_seconds": 0 })).await.error(), "insufficient_scope");
}

#[actix_web::test]
async fn p33_who_made_a_key_is_written_down_with_the_person_behind_it() {
    let server = Server::start().await;
    let tenant = server.default_tenant().await;
    let clerk = tenant.user_key("clerk", &["keys:write"]).await;
    let application = tenant.application("portal").await;
    let order = json!({ "application_id": application, "name": "fine", "scopes": [] });
    let answer = server.with(&clerk.basic()).post("/v1/keys", order).await;
    assert_eq!(answer.json()["created_by"], format!("key:{}", clerk.id));
    let entry = tenant.audit("key.create").await.remove(0);
    assert_eq!(entry.actor, format!("key:{}", clerk.id));
    assert_eq!(entry.subject, format!("user:{}", clerk.subject()));
    assert_eq!(entry.target, format!("key:{}", answer.json()["api_key"].as_str().unwrap()));
    assert_eq!(entry.request_id, answer.header("x-request-id"));
}

/// A token without a signature to match, from raw parts.
fn compact(header: &Value, payload: &Value, signature: &[u8]) -> String {
    format!(
        "{}.{}.{}",
        URL_SAFE_NO_PAD.encode(header.to_string()),
        URL_SAFE_NO_PAD.encode(payload.to_string()),
        URL_SAFE_NO_PAD.encode(signature)
    )
}

/// HMAC-SHA-256 under any bytes, by a library that we do not use for our own tokens.
fn hs256(header: &Value, payload: &Value, secret: &[u8]) -> String {
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(payload.to_string()));
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &EncodingKey::from_secret(secret), Algorithm::HS256).unwrap();
    format!("{signed}.{signature}")
}

struct Victim<'a> {
    server: &'a Server,
    token: String,
    header: Value,
    claims: Value,
}

impl<'a> Victim<'a> {
    async fn of(tenant: &Tenant<'a>) -> Self {
        let key = tenant.user_key("foo", &["events:read"]).await;
        let token = tenant.server.with(&key.pair()).token().await;
        let victim = Self { server: tenant.server, header: jose_header(&token), claims: claims(&token), token };
        assert_eq!(victim.me(&victim.token).await.status, StatusCode::OK);
        // The means of the attack are the right ones: what nobody tampered with is accepted.
        assert_eq!(tenant.sign(&victim.header, &victim.claims).await.len(), victim.token.len());
        assert_eq!(victim.me(&tenant.sign(&victim.header, &victim.claims).await).await.status, StatusCode::OK);
        victim
    }

    async fn me(&self, token: &str) -> Answer {
        self.server.with(&bearer(token)).get("/v1/me").await
    }

    fn header_with(&self, member: &str, value: Value) -> Value {
        let mut header = self.header.clone();
        header[member] = value;
        header
    }
}

#[actix_web::test]
async fn p01_algorithm_confusion_is_401() {
    let server = Server::start().await;
    let tenant = server.tenant("cta").await;
    let victim = Victim::of(&tenant).await;
    let signature = URL_SAFE_NO_PAD.decode(victim.token.rsplit('.').next().unwrap()).unwrap();
    for alg in ["none", "None", "NONE", "nOnE", "", "none "] {
        let header = victim.header_with("alg", json!(alg));
        for signature in [&[][..], &signature] {
            assert_invalid_token(&victim.me(&compact(&header, &victim.claims, signature)).await, alg);
        }
    }
    let jwk = server.anonymous().get(&tenant.path("/v1/public-key?format=jwk")).await.json();
    let x = jwk["x"].as_str().unwrap();
    let pem = server.anonymous().get(&tenant.path("/v1/public-key?format=pem")).await.text;
    let raw_base64 = server.anonymous().get(&tenant.path("/v1/public-key")).await.text;
    let header = victim.header_with("alg", json!("HS256"));
    for secret in [
        &URL_SAFE_NO_PAD.decode(x).unwrap()[..],
        x.as_bytes(),
        pem.as_bytes(),
        pem.trim().as_bytes(),
        raw_base64.as_bytes(),
        jwk.to_string().as_bytes(),
        b"",
        b"\0",
        b"secret",
    ] {
        assert_invalid_token(&victim.me(&hs256(&header, &victim.claims, secret)).await, "HS256");
    }
    // The right signature under a wrong name of the algorithm.
    for alg in ["HS256", "RS256", "ES256", "PS256", "ES256K", "EdDSA ", " EdDSA", "eddsa", "EDDSA", "Ed448", "EdDSA\0", "*"] {
        let header = victim.header_with("alg", json!(alg));
        assert_invalid_token(&victim.me(&tenant.sign(&header, &victim.claims).await).await, alg);
        assert_invalid_token(&victim.me(&compact(&header, &victim.claims, &[1; 256])).await, alg);
    }
    for alg in [json!(null), json!(["EdDSA"]), json!(1), json!({ "alg": "EdDSA" })] {
        let header = victim.header_with("alg", alg);
        assert_invalid_token(&victim.me(&tenant.sign(&header, &victim.claims).await).await, "an alg that is no text");
    }
    for typ in [json!("JWT"), json!(null), json!("id+jwt"), json!("logout+jwt"), json!("")] {
        let header = victim.header_with("typ", typ);
        assert_invalid_token(&victim.me(&tenant.sign(&header, &victim.claims).await).await, "another type of token");
    }
}

#[actix_web::test]
async fn p02_claims_of_wrong_types_are_401_though_we_signed_them() {
    let server = Server::start().await;
    let tenant = server.tenant("cta").await;
    let victim = Victim::of(&tenant).await;
    let now = server.clock.now().timestamp();
    let odd = [
        json!(null),
        json!("1"),
        json!([now + 60]),
        json!({}),
        json!(true),
        json!(-1),
        json!(-9_223_372_036_854_775_808_i64),
        json!(1e300),
        json!(""),
    ];
    for claim in ["exp", "iat", "nbf"] {
        for value in &odd {
            // Not before the year 1: a number, in the past, and so no reason to refuse.
            if claim == "nbf" && value.as_f64().is_some_and(|number| number < 0.0) {
                continue;
            }
            if claim == "iat" && value == -1 {
                continue;
            }
            let mut claims = victim.claims.clone();
            claims[claim] = value.clone();
            let answer = victim.me(&tenant.sign(&victim.header, &claims).await).await;
            assert_invalid_token(&answer, &format!("{claim}: {value}"));
        }
    }
    for claim in ["iss", "sub", "aud", "jti", "key_id", "exp", "iat"] {
        let mut claims = victim.claims.clone();
        claims.as_object_mut().unwrap().remove(claim);
        assert_invalid_token(&victim.me(&tenant.sign(&victim.header, &claims).await).await, &format!("without {claim}"));
    }
    for (claim, value) in [
        ("iss", json!(["http://id.test/t/cta"])),
        ("iss", json!("http://id.test/t/cta/")),
        ("iss", json!("https://id.test/t/cta")),
        ("iss", json!("http://ID.test/t/cta")),
        ("aud", json!("https://events.example")),
        ("aud", json!([])),
        ("aud", json!(1)),
        ("sub", json!(1)),
        ("scope", json!(["users:write"])),
        ("key_id", json!("nokey")),
        ("key_id", json!("' OR 1=1")),
        ("key_id", json!(["ck_1"])),
        ("iat", json!(now + 3600)),
        ("nbf", json!(now + 3600)),
        ("exp", json!(now)),
    ] {
        let mut claims = victim.claims.clone();
        claims[claim] = value.clone();
        assert_invalid_token(&victim.me(&tenant.sign(&victim.header, &claims).await).await, &format!("{claim}: {value}"));
    }
    // 1e999 and repeated members cannot be said with a JSON value: as text.
    for text in [
        victim.claims.to_string().replace(&format!("\"exp\":{}", victim.claims["exp"]), "\"exp\":1e999"),
        victim.claims.to_string().replacen('{', &format!("{{\"exp\":{},", now + 10), 1),
        victim.claims.to_string().replacen('{', "{\"scope\":\"users:write\",", 1),
    ] {
        assert_invalid_token(
            &victim.me(&tenant.sign_bytes(victim.header.to_string().as_bytes(), text.as_bytes()).await).await,
            &text,
        );
    }
}

#[actix_web::test]
async fn p03_keys_that_a_token_brings_along_are_not_used() {
    let server = Server::start().await;
    let tenant = server.tenant("cta").await;
    let victim = Victim::of(&tenant).await;
    // Where a verifier that follows links would call.
    let trap = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    trap.set_nonblocking(true).unwrap();
    let url = format!("http://{}/keys.json", trap.local_addr().unwrap());
    let mine = ed25519_dalek::SigningKey::from_bytes(&[7; 32]);
    let my_jwk = json!({
        "kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(mine.verifying_key().to_bytes()), "alg": "EdDSA", "use": "sig",
    });
    let sign_mine = |header: &Value| {
        use ed25519_dalek::Signer as _;
        let signed =
            format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(victim.claims.to_string()));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(mine.sign(signed.as_bytes()).to_bytes()))
    };
    let brought = [
        ("jwk", my_jwk.clone()),
        ("jku", json!(url)),
        ("x5u", json!(url)),
        ("x5c", json!([STANDARD.encode([0x30, 0x82])])),
        ("crit", json!(["b64"])),
        ("b64", json!(false)),
        ("zip", json!("DEF")),
        ("cty", json!("JWT")),
    ];
    for (member, value) in brought {
        let header = victim.header_with(member, value);
        assert_invalid_token(&victim.me(&sign_mine(&header)).await, member);
        assert_invalid_token(
            &victim.me(&tenant.sign(&header, &victim.claims).await).await,
            "even where our own signature is right",
        );
        let mut without = header.clone();
        without.as_object_mut().unwrap().remove("kid");
        assert_invalid_token(&victim.me(&sign_mine(&without)).await, member);
    }
    assert_invalid_token(&victim.me(&sign_mine(&victim.header)).await, "our kid, another key");
    let odd_kids = [
        json!(null),
        json!(1),
        json!([victim.header["kid"]]),
        json!(""),
        json!("../../../../dev/null"),
        json!("' UNION SELECT '"),
        json!("\0"),
        json!("x".repeat(1400)),
    ];
    for kid in odd_kids.into_iter().chain((0..200).map(|n| json!(format!("unknown-{n}")))) {
        let header = victim.header_with("kid", kid.clone());
        assert_invalid_token(&victim.me(&sign_mine(&header)).await, &kid.to_string());
    }
    let mut without = victim.header.clone();
    without.as_object_mut().unwrap().remove("kid");
    assert_invalid_token(&victim.me(&tenant.sign(&without, &victim.claims).await).await, "no kid");
    // A megabyte of it is not even read.
    let long = compact(&victim.header_with("kid", json!("k".repeat(1 << 20))), &victim.claims, &[0; 64]);
    let request = format!("GET /v1/me HTTP/1.1\r\nHost: id.test\r\nConnection: close\r\nAuthorization: Bearer {long}\r\n\r\n");
    assert!(raw(server.address, request.as_bytes()).await.status.is_client_error());
    assert!(trap.accept().is_err(), "a key was asked for at an address that the token named");
    assert_eq!(victim.me(&victim.token).await.status, StatusCode::OK);
}
