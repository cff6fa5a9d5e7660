//! ClusterCockpit's dialect: its command line, session, tokens, gates and people (SEEDS scenarios 42 to 44, 46 to 49 and 51).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod binary_support;
#[path = "support/people.rs"]
mod people;
mod support;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use binary_support::Home;
use chrono::TimeDelta;
use claviger_issuer::audit::Actor;
use claviger_issuer::clock::Clock;
use claviger_issuer::settings::TenantSettings;
use claviger_issuer::tenant::NewTenant;
use claviger_issuer::user::{NewPassword, NewUser};
use claviger_store::id::{Owner, UserId};
use ed25519_dalek::{Signature, VerifyingKey};
use people::{Browser, set_cookies};
use reqwest::{Method, StatusCode};
use secrecy::SecretString;
use serde_json::{Value, json};
use support::wire::send;
use support::{Answer, Options, Server, Tenant, UNTHROTTLED, claims, detail, jose_header};

const PASSWORD: &str = "correct horse battery staple";

/// What cc-metric-store and golang-jwt look at: `alg` exactly, the signature under one raw key, `exp` and `iat` without leeway.
fn raw_key_check(jwt: &str, key: &str, now: i64) -> Result<Value, &'static str> {
    let key: [u8; 32] = STANDARD.decode(key).unwrap().try_into().map_err(|_| "not 32 bytes")?;
    let key = VerifyingKey::from_bytes(&key).map_err(|_| "no key")?;
    let (signed, signature) = jwt.rsplit_once('.').ok_or("no JWT")?;
    if jose_header(jwt)["alg"] != "EdDSA" {
        return Err("alg");
    }
    let signature = Signature::from_slice(&URL_SAFE_NO_PAD.decode(signature).unwrap()).map_err(|_| "no signature")?;
    key.verify_strict(signed.as_bytes(), &signature).map_err(|_| "signature")?;
    let claims = claims(jwt);
    let late = claims.get("exp").is_some_and(|exp| exp.as_i64().is_none_or(|exp| now >= exp));
    let early = claims["iat"].as_i64().is_none_or(|iat| iat > now);
    match (late, early) {
        (true, _) => Err("expired"),
        (_, true) => Err("issued in the future"),
        _ => Ok(claims),
    }
}

/// The tenant `cc` with its people: demo[user], apiu[api], adm[admin,api], mgr[manager,api; projects p1].
struct Scene<'a> {
    tenant: Tenant<'a>,
}

impl<'a> Scene<'a> {
    async fn with(server: &'a Server, settings: Value) -> Self {
        let settings: TenantSettings = serde_json::from_value(settings).unwrap();
        let new = NewTenant { slug: "cc".into(), name: None, settings, preset: Some("clustercockpit".into()) };
        let id = server.issuer.create_tenant(&Actor::operator(), new).await.unwrap().id;
        let scene = Self { tenant: Tenant { server, slug: "cc".into(), id } };
        scene.person("demo", &["user"], json!({ "name": "Demo User" })).await;
        scene.person("apiu", &["api"], json!({})).await;
        scene.person("adm", &["admin", "api"], json!({})).await;
        scene.person("mgr", &["manager", "api"], json!({ "projects": ["p1"] })).await;
        scene
    }

    async fn of(server: &'a Server) -> Self {
        Self::with(server, json!({})).await
    }

    fn server(&self) -> &'a Server {
        self.tenant.server
    }

    async fn person(&self, name: &str, roles: &[&str], attributes: Value) -> UserId {
        let entry = self.server().issuer.tenant("cc").await.unwrap().unwrap();
        let new = NewUser {
            username: name.into(),
            roles: roles.iter().map(|role| (*role).to_owned()).collect(),
            attributes: attributes.as_object().cloned().unwrap(),
            password: Some(NewPassword::Text(SecretString::from(PASSWORD))),
            ..NewUser::default()
        };
        self.server().issuer.create_user(&entry, &Actor::operator(), new).await.unwrap().id
    }

    /// A token as `claviger jwt` makes it.
    async fn token(&self, name: &str) -> String {
        let entry = self.server().issuer.tenant("cc").await.unwrap().unwrap();
        let user = self.server().issuer.find_user_by_name(self.tenant.id, name).await.unwrap().id;
        let audience = entry.settings.usual_audience.as_deref();
        let lifetime = entry.lifetime_by_hand(None);
        self.server().issuer.issue_token(&entry, &Actor::operator(), user, audience, None, lifetime).await.unwrap()
    }

    async fn login(&self, form: &[(&str, &str)]) -> Answer {
        send(self.server().anonymous().request(Method::POST, "/t/cc/login").form(form)).await
    }

    /// The cookie of a session.
    async fn session(&self, name: &str) -> String {
        let answer = self.login(&[("username", name), ("password", PASSWORD)]).await;
        assert_eq!(answer.status, StatusCode::FOUND, "{}", answer.text);
        let cookie = set_cookies(&answer).into_iter().find(|cookie| cookie.name == "session").unwrap();
        format!("session={}", cookie.value)
    }

    async fn ask(&self, method: Method, path: &str, cookie: &str, form: Option<&[(&str, &str)]>) -> Answer {
        let request = self.server().anonymous().request(method, &format!("/t/cc{path}")).header("Cookie", cookie);
        send(match form {
            Some(form) => request.form(form),
            None => request,
        })
        .await
    }
}

#[test]
fn scenario_42_add_user_and_jwt_on_the_command_line_without_a_server() {
    let home = Home::new();
    home.ok(&["tenant", "create", "cc", "--preset", "clustercockpit"]);
    let added = home.json(&["add-user", "--tenant", "cc", "--no-server", "bot:api:pa:ss"]);
    assert_eq!((&added["username"], &added["roles"]), (&json!("bot"), &json!(["api"])));

    let issued = home.run(&["jwt", "--tenant", "cc", "--no-server", "bot"]);
    assert_eq!(issued.code, Some(0), "{issued:?}");
    assert!(issued.err.contains("no end") && !issued.err.contains("warning"), "{issued:?}");
    let jwt = issued.out.strip_suffix('\n').unwrap();
    let told = claims(jwt);
    let names: Vec<&str> = told.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, ["iat", "iss", "jti", "roles", "sub"], "and no exp");
    assert_eq!((&told["sub"], &told["roles"]), (&json!("bot"), &json!(["api"])));
    let key = home.ok(&["signing-key", "export", "--tenant", "cc", "--format", "raw"]);
    raw_key_check(jwt, key.trim(), Clock::System.now().timestamp()).unwrap();

    // max_age = 2000h.
    let profile = json!({
        "subject": "username", "claims": ["roles"], "omit_aud": true, "allow_non_expiring": true, "lifetime": 7_200_000
    });
    home.ok(&["audience", "change", "--tenant", "cc", "cc-backend", "--profile", &profile.to_string()]);
    let ending = home.ok(&["jwt", "--tenant", "cc", "bot"]);
    let told = claims(ending.trim());
    assert_eq!(told["exp"].as_i64().unwrap() - told["iat"].as_i64().unwrap(), 7_200_000);

    // Nobody's token, a warning, a project.
    let noted = home.run(&["add-user", "--tenant", "cc", "demo:user:a longer password"]);
    assert!(noted.code == Some(0) && noted.err.contains("`api`"), "{noted:?}");
    assert!(home.run(&["jwt", "--tenant", "cc", "demo"]).err.contains("warning"));
    assert!(home.fails(&["add-user", "--tenant", "cc", "mgr:manager:a longer password"]).contains("project"));
    home.json(&["add-user", "--tenant", "cc", "--project", "p1", "mgr:manager,api:a longer password"]);
    // Scripts need no password.
    home.json(&["add-user", "--tenant", "cc", "script:api:"]);
    assert!(home.fails(&["add-user", "--tenant", "cc", "someone:user:"]).contains("password"));

    // One that is not there is no error.
    home.ok(&["del-user", "--tenant", "cc", "--no-server", "bot"]);
    assert!(home.ok(&["del-user", "--tenant", "cc", "bot"]).contains("was not there"));
    home.fails(&["jwt", "--tenant", "cc", "bot"]);
}

#[test]
fn scenario_43_unknown_roles_and_people_are_errors_and_nothing_is_served() {
    let home = Home::new();
    home.ok(&["tenant", "create", "cc", "--preset", "clustercockpit"]);
    assert!(home.fails(&["add-user", "--tenant", "cc", "x:root:pw"]).contains("no valid option"));
    assert!(home.fails(&["add-user", "--tenant", "cc", "x"]).contains("NAME:ROLE,ROLE:PASSWORD"));
    assert!(home.fails(&["jwt", "--tenant", "cc", "nobody"]).contains("nobody"));
    assert_eq!(home.ok(&["user", "list", "--tenant", "cc"]), "", "nothing was made");
    assert!(home.fails(&["tenant", "create", "x", "--preset", "unknown"]).contains("clustercockpit"));
}

#[test]
fn scenario_44_gen_keypair_prints_the_two_halves_and_an_imported_one_is_published_raw() {
    let home = Home::new();
    let out = home.ok(&["gen-keypair"]);
    let half = |mark: &str| {
        let (_, rest) = out.split_once(mark).unwrap();
        STANDARD.decode(rest.split('"').next().unwrap()).unwrap()
    };
    let (public, private) = (half("ED25519 PUBLIC_KEY=\""), half("ED25519 PRIVATE_KEY=\""));
    assert_eq!((public.len(), private.len(), &private[32..]), (32, 64, public.as_slice()));

    home.ok(&["tenant", "create", "cc", "--preset", "clustercockpit"]);
    let file = home.file("pair.env");
    std::fs::write(&file, &out).unwrap();
    home.ok(&["signing-key", "import", "--tenant", "cc", "--file", file.to_str().unwrap(), "--now"]);
    let exported = home.ok(&["signing-key", "export", "--tenant", "cc", "--format", "raw"]);
    assert_eq!(exported.trim(), STANDARD.encode(&public));
    home.json(&["add-user", "--tenant", "cc", "bot:api:a longer password"]);
    let jwt = home.run(&["jwt", "--tenant", "cc", "bot"]).out;
    raw_key_check(jwt.trim(), exported.trim(), Clock::System.now().timestamp()).unwrap();
}

#[actix_web::test]
async fn a_thousand_tokens_in_a_row_hold_under_the_raw_key_and_none_is_of_the_future() {
    let server = Server::start_with(Options { clock: Some(Clock::System), throttle: UNTHROTTLED, ..Options::default() }).await;
    let scene = Scene::of(&server).await;
    let raw = server.anonymous().get("/t/cc/v1/public-key?format=raw").await.text;
    let user = server.issuer.find_user_by_name(scene.tenant.id, "apiu").await.unwrap().id;
    let key = scene.tenant.key_of(Owner::User(user), &["metrics:write"]).await;
    for n in 0..1000 {
        // Half by hand, half from a key.
        let jwt = match n % 2 {
            0 => scene.token("apiu").await,
            _ => {
                let answer = server.with(&key.pair()).post_empty("/t/cc/v1/authentications").await;
                answer.json()["jwt"].as_str().unwrap().to_owned()
            }
        };
        // The verifier's clock is a second late.
        let claims = raw_key_check(&jwt, raw.trim(), Clock::System.now().timestamp() - 1).unwrap();
        assert_eq!(claims["sub"], "apiu");
    }
    // The metric store has a key of its own: neither opens the other's door.
    let store = server.with(&key.pair()).post("/t/cc/v1/authentications", json!({ "audience": "cc-metric-store" })).await;
    let store = store.json()["jwt"].as_str().unwrap().to_owned();
    let now = Clock::System.now().timestamp();
    assert_eq!(raw_key_check(&store, raw.trim(), now), Err("signature"));
    let audience = server.issuer.find_audience_by_name(scene.tenant.id, "cc-metric-store").await.unwrap();
    let own = server.issuer.audience_key(scene.tenant.id, audience.row.id, false).await.unwrap().unwrap().raw();
    let claims = raw_key_check(&store, &own, now).unwrap();
    assert_eq!(claims["sub"], "apiu");
    // It says no end, also where its key has one: the feed tells of that.
    assert!(claims.get("exp").is_none());
    assert_eq!(raw_key_check(&scene.token("apiu").await, &own, now), Err("signature"));
}

#[actix_web::test]
async fn scenario_46_the_gates_of_api_userapi_and_metric_store() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let asker = scene.tenant.app_key("cc-backend", &["verify"]).await;
    let ask = async |mut body: Value, policy: &str| {
        body["require"] = json!({ "policy": policy });
        let answer = server.with(&asker.basic()).post("/t/cc/v1/verify", body).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
        (answer.json()["allow"].as_bool().unwrap(), answer.json()["status"].as_u64())
    };
    let (yes, no) = ((true, None), (false, Some(401)));
    for (name, api, userapi, store) in
        [("apiu", yes, yes, yes), ("demo", no, no, no), ("adm", yes, yes, yes), ("mgr", no, yes, yes)]
    {
        let token = scene.token(name).await;
        let bearer = json!({ "authorization": format!("Bearer {token}") });
        assert_eq!(ask(bearer.clone(), "cc-api").await, api, "{name}");
        assert_eq!(ask(bearer.clone(), "cc-userapi").await, userapi, "{name}");
        assert_eq!(ask(bearer, "cc-metric-store").await, store, "{name}");
        // Read first, whatever Authorization says.
        assert_eq!(ask(json!({ "x_auth_token": token, "authorization": "Bearer x" }), "cc-api").await, api, "{name}");
    }
    assert_eq!(ask(json!({}), "cc-api").await, no);
    assert_eq!(ask(json!({ "x_auth_token": "abcd.efgh" }), "cc-api").await, no);
}

#[actix_web::test]
async fn scenario_47_a_token_for_oneself_and_as_admin_for_others() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let (demo, adm) = (scene.session("demo").await, scene.session("adm").await);
    let ask = async |cookie: &str, username: &str| {
        scene.ask(Method::GET, &format!("/frontend/jwt/?username={username}"), cookie, None).await
    };
    let own = ask(&demo, "demo").await;
    assert_eq!((own.status, own.header("content-type")), (StatusCode::OK, "text/plain; charset=utf-8"), "{}", own.text);
    assert_eq!(claims(&own.text)["sub"], "demo");
    assert_eq!(own.header("cache-control"), "no-store");

    let refused = ask(&demo, "adm").await;
    let text = "only admins are allowed to sign JWTs not for themselves";
    assert_eq!((refused.status, refused.json()), (StatusCode::FORBIDDEN, json!({ "status": "Forbidden", "error": text })));
    assert_eq!(ask(&demo, "nobody").await.json()["error"], text, "who is here is not told");

    let for_demo = ask(&adm, "demo").await;
    assert_eq!((for_demo.status, &claims(&for_demo.text)["sub"]), (StatusCode::OK, &json!("demo")));
    let entry = &scene.tenant.audit("token.issue").await[0];
    let id = async |name: &str| format!("user:{}", server.issuer.find_user_by_name(scene.tenant.id, name).await.unwrap().id);
    assert_eq!((&entry.actor, &entry.subject), (&id("adm").await, &id("demo").await));
    let unknown = ask(&adm, "nobody").await;
    assert_eq!((unknown.status, &unknown.json()["status"]), (StatusCode::NOT_FOUND, &json!("Not Found")));

    let nobody = ask("", "demo").await;
    assert_eq!((nobody.status, &nobody.json()["status"]), (StatusCode::UNAUTHORIZED, &json!("Unauthorized")));
    // Nobody gets into the place of somebody who holds more.
    scene.person("root", &["tenant-admin"], json!({})).await;
    assert_eq!(ask(&adm, "root").await.status, StatusCode::FORBIDDEN);
    // A token makes no further ones, and manages nothing of ours.
    let token = scene.token("adm").await;
    for (header, value) in [("X-Auth-Token", token.clone()), ("Authorization", format!("Bearer {token}"))] {
        let request = server.anonymous().request(Method::GET, "/t/cc/frontend/jwt/?username=demo");
        assert_eq!(send(request.header(header, value)).await.status, StatusCode::UNAUTHORIZED, "{header}");
    }
    let ours = server.with(&format!("Bearer {token}")).get("/t/cc/v1/users").await;
    assert_eq!((ours.status, ours.error().as_str()), (StatusCode::UNAUTHORIZED, "invalid_token"));
}

#[actix_web::test]
async fn scenario_48_login_by_form_leads_to_where_it_should_with_a_session_of_a_week() {
    let server = Server::start_with(Options { trusted_proxies: vec!["127.0.0.1/32"], ..Options::default() }).await;
    let scene = Scene::of(&server).await;
    let login = async |redirect: Option<&str>, proto: &str| {
        let mut form = vec![("username", "demo"), ("password", PASSWORD)];
        form.extend(redirect.map(|to| ("redirect", to)));
        let request = server.anonymous().request(Method::POST, "/t/cc/login").form(&form);
        send(request.header("X-Forwarded-Proto", proto)).await
    };
    for (redirect, to) in [
        (None, "/"),
        (Some("/jobs"), "/jobs"),
        (Some("//evil.test"), "/"),
        (Some("https://evil.test/"), "/"),
        (Some("/\\evil.test"), "/"),
        (Some("jobs"), "/"),
    ] {
        let answer = login(redirect, "https").await;
        assert_eq!((answer.status, answer.header("location")), (StatusCode::FOUND, to), "{redirect:?}");
    }
    let session = async |proto: &str| {
        let answer = login(None, proto).await;
        set_cookies(&answer).into_iter().find(|cookie| cookie.name == "session").unwrap()
    };
    assert_eq!(session("https").await.attributes, ["HttpOnly", "Max-Age=604800", "Path=/t/cc", "SameSite=Lax", "Secure"]);
    let cookie = session("http").await;
    assert_eq!(cookie.attributes, ["HttpOnly", "Max-Age=604800", "Path=/t/cc", "SameSite=Lax"]);

    let bad = scene.login(&[("username", "demo"), ("password", "wrong wrong wrong")]).await;
    assert_eq!((bad.status, bad.header("content-type")), (StatusCode::UNAUTHORIZED, "text/html; charset=utf-8"));
    assert!(set_cookies(&bad).iter().all(|cookie| cookie.name != "session"), "no session");
    let unknown = scene.login(&[("username", "nobody"), ("password", "wrong wrong wrong")]).await;
    assert_eq!(unknown.status, StatusCode::UNAUTHORIZED);

    // From another site, a browser logs nobody in and nobody out.
    let value = format!("session={}", cookie.value);
    for path in ["/t/cc/login", "/t/cc/logout"] {
        let form = [("username", "demo"), ("password", PASSWORD)];
        let request = server.anonymous().request(Method::POST, path).form(&form).header("Cookie", &value);
        let answer = send(request.header("Sec-Fetch-Site", "cross-site")).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{path}");
    }
    assert_eq!(scene.ask(Method::GET, "/frontend/jwt/?username=demo", &value, None).await.status, StatusCode::OK);
    let out = scene.ask(Method::POST, "/logout", &value, Some(&[])).await;
    assert_eq!(out.status, StatusCode::OK, "{}", out.text);
    assert!(out.text.contains("Logout successful"));
    let gone = set_cookies(&out).into_iter().find(|cookie| cookie.name == "session").unwrap();
    assert!(gone.attributes.contains(&"Max-Age=0".to_owned()));
    assert_eq!(scene.ask(Method::GET, "/frontend/jwt/?username=demo", &value, None).await.status, StatusCode::UNAUTHORIZED);
    // A session lasts a week.
    let week = format!("session={}", session("https").await.value);
    server.clock.advance(TimeDelta::seconds(604_799));
    assert_eq!(scene.ask(Method::GET, "/frontend/jwt/?username=demo", &week, None).await.status, StatusCode::OK);
    server.clock.advance(TimeDelta::seconds(1));
    assert_eq!(scene.ask(Method::GET, "/frontend/jwt/?username=demo", &week, None).await.status, StatusCode::UNAUTHORIZED);
}

#[actix_web::test]
async fn our_own_login_page_serves_its_people_too() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let mut browser = Browser::at(&scene.tenant);
    let page = browser.get("/login").await;
    assert!(page.text.contains("name=\"csrf\""));
    let token = people::form_token(&page.text);
    let form = [("username", "demo"), ("password", PASSWORD), ("csrf", token.as_str())];
    let answer = browser.submit("/login", &form).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, "/t/cc/account"), "{}", answer.text);
    assert_eq!(browser.get("/frontend/jwt/?username=demo").await.status, StatusCode::OK);
}

#[actix_web::test]
async fn scenario_49_the_sixth_attempt_is_refused_whoever_is_right_and_others_are_not_affected() {
    let server = Server::start_with(Options { trusted_proxies: vec!["127.0.0.1/32"], ..Options::default() }).await;
    let scene = Scene::of(&server).await;
    let login = async |name: &str, password: &str, from: &str| {
        let form = [("username", name), ("password", password)];
        let request = server.anonymous().request(Method::POST, "/t/cc/login").form(&form);
        send(request.header("X-Forwarded-For", from)).await
    };
    let token = scene.token("demo").await;
    for _ in 0..5 {
        assert_eq!(login("demo", "wrong wrong wrong", "198.51.100.1").await.status, StatusCode::UNAUTHORIZED);
    }
    let sixth = login("demo", PASSWORD, "198.51.100.1").await;
    assert_eq!((sixth.status, sixth.header("content-type")), (StatusCode::UNAUTHORIZED, "text/html; charset=utf-8"));
    assert!(sixth.text.contains("Too many login attempts"), "{}", sixth.text);
    assert!(sixth.header("retry-after").parse::<u64>().unwrap() > 0);
    assert_eq!(login("adm", PASSWORD, "198.51.100.1").await.status, StatusCode::FOUND);
    assert_eq!(login("demo", PASSWORD, "198.51.100.2").await.status, StatusCode::FOUND);
    // Tokens go on.
    let asker = scene.tenant.app_key("asker", &["verify"]).await;
    let body = json!({ "authorization": format!("Bearer {token}"), "ip": "198.51.100.1" });
    assert_eq!(server.with(&asker.basic()).post("/t/cc/v1/verify", body).await.json()["allow"], true);
    server.clock.advance(TimeDelta::seconds(901));
    assert_eq!(login("demo", PASSWORD, "198.51.100.1").await.status, StatusCode::FOUND);
}

#[actix_web::test]
async fn scenario_51_roles_and_projects_go_together_and_only_admins_change_them() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let (adm, demo) = (scene.session("adm").await, scene.session("demo").await);
    let edit = async |cookie: &str, name: &str, what: &str, value: &str| {
        scene.ask(Method::POST, &format!("/api/user/{name}"), cookie, Some(&[(what, value)])).await
    };
    for (name, what, value) in [
        ("mgr", "remove-role", "manager"),
        ("demo", "add-role", "root"),
        ("demo", "add-role", "user"),
        ("demo", "remove-role", "api"),
        ("demo", "add-project", "p2"),
        ("mgr", "add-project", "p1"),
        ("mgr", "remove-project", "p9"),
        ("demo", "rename", "x"),
    ] {
        let refused = edit(&adm, name, what, value).await;
        assert_eq!(refused.status, StatusCode::UNPROCESSABLE_ENTITY, "{name} {what} {value}: {}", refused.text);
        assert_eq!(refused.json()["status"], "Unprocessable Entity");
    }
    assert_eq!(edit(&adm, "nobody", "add-role", "api").await.status, StatusCode::NOT_FOUND);
    let refused = edit(&demo, "demo", "add-role", "admin").await;
    let text = "Only admins are allowed to update a user";
    assert_eq!((refused.status, refused.json()), (StatusCode::FORBIDDEN, json!({ "status": "Forbidden", "error": text })));
    assert_eq!(edit("", "demo", "add-role", "admin").await.status, StatusCode::UNAUTHORIZED);

    for (name, what, value) in [
        ("demo", "add-role", "manager"),
        ("demo", "add-project", "p2"),
        ("mgr", "remove-project", "p1"),
        ("mgr", "remove-role", "manager"),
    ] {
        assert_eq!(edit(&adm, name, what, value).await.status, StatusCode::OK, "{name} {what} {value}");
    }
    let people = scene.ask(Method::GET, "/config/users/", &adm, None).await.json();
    let of = |name: &str| people.as_array().unwrap().iter().find(|one| one["username"] == name).unwrap().clone();
    assert_eq!((&of("demo")["roles"], &of("demo")["projects"]), (&json!(["manager", "user"]), &json!(["p2"])));
    assert_eq!((&of("mgr")["roles"], &of("mgr")["projects"]), (&json!(["api"]), &json!([])));
    assert_eq!(detail(&scene.tenant.audit("user.update").await[0])["roles"], json!(["api"]));
    // An admin gives no more than an admin holds.
    assert_eq!(edit(&adm, "demo", "add-role", "tenant-admin").await.status, StatusCode::UNPROCESSABLE_ENTITY);

    // By a token, as scripts do; with a browser's cookie, not from another site.
    let token = scene.token("adm").await;
    let request = server.with(&format!("Bearer {token}")).request(Method::POST, "/t/cc/api/user/demo");
    assert_eq!(send(request.form(&[("add-role", "api")])).await.status, StatusCode::OK);
    let request = server.anonymous().request(Method::POST, "/t/cc/api/user/demo").header("Cookie", &adm);
    let forged = send(request.form(&[("remove-role", "api")]).header("Sec-Fetch-Site", "cross-site")).await;
    assert_eq!(forged.status, StatusCode::FORBIDDEN);
}

#[actix_web::test]
async fn people_are_listed_added_and_removed_by_admins() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let (adm, demo) = (scene.session("adm").await, scene.session("demo").await);
    let add = async |form: &[(&str, &str)]| scene.ask(Method::POST, "/config/users/", &adm, Some(form)).await;
    let made = add(&[
        ("username", "ada"),
        ("password", PASSWORD),
        ("role", "manager"),
        ("project", "p7"),
        ("name", "Ada Lovelace"),
        ("email", "Ada@example.org"),
    ])
    .await;
    assert_eq!((made.status, made.text.as_str()), (StatusCode::OK, "User ada successfully created!\n"));
    assert_eq!(add(&[("username", "script"), ("role", "api")]).await.status, StatusCode::OK);
    for (form, status) in [
        (vec![("username", "x"), ("role", "user")], 400),
        (vec![("username", "x"), ("role", "manager"), ("password", PASSWORD)], 400),
        (vec![("username", "x"), ("role", "user"), ("password", PASSWORD), ("project", "p1")], 400),
        (vec![("username", "x"), ("role", "root"), ("password", PASSWORD)], 422),
        (vec![("username", "ADA"), ("role", "user"), ("password", PASSWORD)], 422),
        (vec![("username", "x"), ("role", "user"), ("password", "abc")], 422),
    ] {
        let refused = add(&form).await;
        assert_eq!(refused.status.as_u16(), status, "{form:?}: {}", refused.text);
        assert!(refused.json()["error"].is_string() && !refused.text.contains(PASSWORD));
    }
    let listed = scene.ask(Method::GET, "/config/users/?not-just-user=true", &adm, None).await.json();
    let ada = json!({
        "username": "ada", "name": "Ada Lovelace", "email": "ada@example.org", "roles": ["manager"], "projects": ["p7"]
    });
    assert!(listed.as_array().unwrap().contains(&ada), "{listed}");
    assert!(listed.as_array().unwrap().iter().all(|one| one["username"] != "demo"));
    for (method, path) in [(Method::GET, "/config/users/"), (Method::POST, "/config/users/"), (Method::DELETE, "/config/users/")]
    {
        let form = [("username", "adm"), ("role", "user")];
        let refused = scene.ask(method, path, &demo, Some(&form)).await;
        assert_eq!((refused.status, &refused.json()["status"]), (StatusCode::FORBIDDEN, &json!("Forbidden")));
    }
    for _ in 0..2 {
        let removed = scene.ask(Method::DELETE, "/config/users/", &adm, Some(&[("username", "ada")])).await;
        assert_eq!(removed.status, StatusCode::OK, "{}", removed.text);
    }
    assert_eq!(scene.login(&[("username", "ada"), ("password", PASSWORD)]).await.status, StatusCode::UNAUTHORIZED);
}

/// As a browser sends `new FormData()`.
fn multipart(fields: &[(&str, &str)]) -> (String, String) {
    let part = |(name, value): &(&str, &str)| {
        format!("--frontier\r\nContent-Disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n")
    };
    let body = fields.iter().map(part).collect::<String>() + "--frontier--\r\n";
    ("multipart/form-data; boundary=frontier".to_owned(), body)
}

#[actix_web::test]
async fn its_settings_page_sends_forms_of_many_parts_and_asks_for_the_roles() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let (adm, demo) = (scene.session("adm").await, scene.session("demo").await);
    let roles = scene.ask(Method::GET, "/config/roles/", &adm, None).await;
    assert_eq!(roles.json(), json!(["admin", "anonymous", "api", "manager", "support", "user"]));
    let refused = scene.ask(Method::GET, "/config/roles/", &demo, None).await;
    let text = "only admins are allowed to fetch a list of roles";
    assert_eq!((refused.status, refused.json()), (StatusCode::FORBIDDEN, json!({ "status": "Forbidden", "error": text })));
    let post = async |method: Method, path: &str, (kind, body): (String, String)| {
        let request = server.anonymous().request(method, &format!("/t/cc{path}")).header("Cookie", &adm);
        send(request.header("Content-Type", kind).body(body)).await
    };
    let ada = [
        ("username", "ada"),
        ("password", "pass: & = wörd"),
        ("role", "user"),
        ("name", "Ada L."),
        ("email", ""),
        ("project", ""),
    ];
    let made = post(Method::POST, "/config/users/", multipart(&ada)).await;
    assert_eq!((made.status, made.text.as_str()), (StatusCode::OK, "User ada successfully created!\n"));
    assert_eq!(scene.login(&[("username", "ada"), ("password", "pass: & = wörd")]).await.status, StatusCode::FOUND);
    let again = post(Method::PUT, "/config/users/", multipart(&ada)).await;
    assert_eq!(again.status, StatusCode::UNPROCESSABLE_ENTITY);
    let edited = post(Method::POST, "/config/user/ada", multipart(&[("username", "ada"), ("add-role", "support")])).await;
    assert_eq!((edited.status, edited.text.as_str()), (StatusCode::OK, "User ada: roles support, user; projects \n"));
    let removed = post(Method::DELETE, "/config/users/", multipart(&[("username", "ada")])).await;
    assert_eq!(removed.status, StatusCode::OK);

    // What is no such form is 400, and nothing is lost.
    let (kind, good) = multipart(&[("username", "x"), ("role", "api")]);
    let file = good.replacen("name=\"username\"", "name=\"username\"; filename=\"x\"", 1);
    let twice = multipart(&[("username", "x"), ("username", "y"), ("role", "api")]).1;
    let cut = good[..good.len() - 20].to_owned();
    let unnamed = good.replacen("; name=\"username\"", "", 1);
    for (kind, body) in [
        (kind.clone(), file),
        (kind.clone(), twice),
        (kind.clone(), cut),
        (kind.clone(), unnamed),
        (kind.clone(), String::new()),
        (kind.clone(), "\0".repeat(1000)),
        ("multipart/form-data".to_owned(), good.clone()),
        ("multipart/form-data; boundary=".to_owned(), good.clone()),
    ] {
        let answer = post(Method::POST, "/config/users/", (kind.clone(), body.clone())).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{kind} {body:?}: {}", answer.text);
        assert!(answer.json()["error"].is_string());
    }
    let long = post(Method::POST, "/config/users/", (kind, "x".repeat(65 * 1024))).await;
    assert_eq!(long.status, StatusCode::PAYLOAD_TOO_LARGE);
    let json = post(Method::POST, "/config/users/", ("application/json".to_owned(), "{}".to_owned())).await;
    assert_eq!(json.status, StatusCode::UNSUPPORTED_MEDIA_TYPE);
}

#[actix_web::test]
async fn a_cross_login_hands_over_a_token_of_a_minute_and_leads_there() {
    let server = Server::start_with(Options { hosts: vec![("auth.example.org", "cc")], ..Options::default() }).await;
    let client = json!({
        "url": "https://cc.example.org/jwt-login", "domain": "example.org", "audience": "cc-cross-login"
    });
    let long = json!({ "url": "https://cc.example.org/jwt-login", "audience": "cc-backend" });
    let dialects = json!({ "dialects": { "clustercockpit": { "cross_login": { "cc": client, "long": long } } } });
    let scene = Scene::with(&server, dialects).await;
    let session = scene.session("mgr").await;
    let answer = scene.ask(Method::GET, "/cross-login/cc", &session, None).await;
    assert_eq!((answer.status, answer.header("location")), (StatusCode::FOUND, "https://cc.example.org/jwt-login"));
    let cookie = set_cookies(&answer).into_iter().find(|cookie| cookie.name == "access_cc").unwrap();
    assert_eq!(cookie.attributes, ["Domain=example.org", "HttpOnly", "Max-Age=60", "Path=/", "SameSite=Lax", "Secure"]);
    let told = claims(&cookie.value);
    let now = server.clock.now().timestamp();
    assert_eq!((&told["iss"], &told["sub"], &told["exp"]), (&json!("http://id.test/t/cc"), &json!("mgr"), &json!(now + 60)));
    assert_eq!((&told["roles"], &told["projects"]), (&json!(["api", "manager"]), &json!(["p1"])));
    assert!(told["jti"].is_string());
    // Under a key of its own: it is no API token, and no API token is one of these.
    let audience = server.issuer.find_audience_by_name(scene.tenant.id, "cc-cross-login").await.unwrap();
    let own = server.issuer.audience_key(scene.tenant.id, audience.row.id, false).await.unwrap().unwrap().raw();
    raw_key_check(&cookie.value, &own, now).unwrap();
    assert_eq!(raw_key_check(&scene.token("mgr").await, &own, now), Err("signature"));
    let as_api = async |token: &str| {
        send(server.anonymous().request(Method::GET, "/t/cc/config/users/").header("X-Auth-Token", token)).await.status
    };
    assert_eq!(as_api(&cookie.value).await, StatusCode::UNAUTHORIZED);
    assert_eq!(as_api(&scene.token("mgr").await).await, StatusCode::FORBIDDEN, "somebody, but no admin");
    let demo = scene.ask(Method::GET, "/cross-login/cc", &scene.session("demo").await, None).await;
    let cookie = set_cookies(&demo).into_iter().find(|cookie| cookie.name == "access_cc").unwrap();
    assert_eq!(claims(&cookie.value)["name"], "Demo User");

    let nobody = scene.ask(Method::GET, "/cross-login/cc", "", None).await;
    assert_eq!(nobody.status, StatusCode::FOUND);
    assert_eq!(nobody.header("location"), "/t/cc/login?return_to=%2Ft%2Fcc%2Fcross-login%2Fcc");
    assert_eq!(scene.ask(Method::GET, "/cross-login/none", &session, None).await.status, StatusCode::NOT_FOUND);
    let long = scene.ask(Method::GET, "/cross-login/long", &session, None).await;
    assert_eq!(long.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert!(set_cookies(&long).is_empty(), "a token without an end is handed to nobody");

    // On a host of its own, the session's cookie is for the whole host.
    let form = [("username", "demo"), ("password", PASSWORD)];
    let request = server.anonymous().request(Method::POST, "/login").form(&form).header("Host", "auth.example.org");
    let answer = send(request.header("Origin", "https://auth.example.org")).await;
    assert_eq!(answer.status, StatusCode::FOUND, "{}", answer.text);
    let cookie = set_cookies(&answer).into_iter().find(|cookie| cookie.name == "session").unwrap();
    assert!(cookie.attributes.contains(&"Path=/".to_owned()), "{cookie:?}");
    let foreign = server.anonymous().request(Method::POST, "/login").form(&form).header("Host", "auth.example.org");
    assert_eq!(send(foreign.header("Origin", "https://evil.test")).await.status, StatusCode::FORBIDDEN);
}

#[actix_web::test]
async fn p30_a_session_or_token_of_one_tenant_is_nobody_in_another_that_speaks_the_same() {
    let server = Server::start().await;
    let scene = Scene::of(&server).await;
    let new = NewTenant {
        slug: "other".into(),
        name: None,
        settings: TenantSettings::default(),
        preset: Some("clustercockpit".into()),
    };
    server.issuer.create_tenant(&Actor::operator(), new).await.unwrap();
    let (session, token) = (scene.session("adm").await, scene.token("adm").await);
    for (method, path) in [
        (Method::GET, "frontend/jwt/?username=adm"),
        (Method::GET, "config/users/"),
        (Method::POST, "config/users/"),
        (Method::DELETE, "config/users/"),
        (Method::PUT, "config/users/"),
        (Method::GET, "config/roles/"),
        (Method::POST, "api/user/adm"),
        (Method::POST, "config/user/adm"),
    ] {
        let ask =
            |slug: &str| server.anonymous().request(method.clone(), &format!("/t/{slug}/{path}")).form(&[("username", "x")]);
        for slug in ["cc", "other"] {
            let by_session = send(ask(slug).header("Cookie", &session)).await.status;
            let by_token = send(ask(slug).header("X-Auth-Token", &token)).await.status;
            let nobody = (by_session, by_token) == (StatusCode::UNAUTHORIZED, StatusCode::UNAUTHORIZED);
            assert_eq!(nobody, slug == "other", "{method} {path} {slug}: {by_session} {by_token}");
        }
    }
}
