//! People on the command line: added, imported, logged out, and given tokens by hand (SEEDS scenarios 42 to 44 and 72).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod binary_support;

use std::fs;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use binary_support::{Home, Pair, Said, Serving, free_port, one_document, run};
use claviger_issuer::clock::Clock;
use claviger_verifier::{Expected, Expiry, KeySet, verify, verify_with};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse battery staple";
const OTHER_PASSWORD: &str = "seven green lanterns drift";

/// A running server with a tenant `acme`, and commands beside it that know where the world reaches it.
struct Scene {
    home: Home,
    serving: Serving,
    url: String,
    /// A key that may ask about every token.
    asker: Pair,
}

impl Scene {
    async fn set() -> Self {
        let home = Home::new();
        let port = free_port();
        let url = format!("http://127.0.0.1:{port}");
        let mut command = home.command(&["serve", "--listen", &format!("127.0.0.1:{port}")]);
        command.env("CLAVIGER_PUBLIC_URL", &url);
        let serving = Serving::start(command, port).await;
        home.ok(&["tenant", "create", "acme"]);
        home.ok(&["app", "create", "--tenant", "acme", "--name", "asker"]);
        let create = ["key", "create", "--tenant", "acme", "--app", "asker", "--scope", "tokens:introspect"];
        let asker = Pair::of(&home.json(&create));
        Self { home, serving, url, asker }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.home.command(arguments);
        command.env("CLAVIGER_PUBLIC_URL", &self.url);
        command
    }

    fn with_input(&self, arguments: &[&str], input: &str) -> Said {
        run(self.command(arguments), input)
    }

    /// Runs a command that must succeed; what it printed on standard output.
    fn ok(&self, arguments: &[&str]) -> String {
        let said = self.with_input(arguments, "");
        assert_eq!(said.code, Some(0), "{arguments:?}: {said:?}");
        said.out
    }

    fn add(&self, username: &str, password: &str) -> Value {
        let arguments = ["user", "add", "--tenant", "acme", "--username", username, "--password-stdin", "--output", "json"];
        let said = self.with_input(&arguments, password);
        assert_eq!(said.code, Some(0), "{said:?}");
        one_document(&said.out)
    }

    async fn login(&self, username: &str, password: &str) -> (u16, Value) {
        let body = json!({ "username": username, "password": password });
        let answer = self.serving.http.post(self.serving.url("/t/acme/v1/login")).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn me(&self, token: &str) -> u16 {
        let answer = self.serving.http.get(self.serving.url("/t/acme/v1/me")).bearer_auth(token).send().await.unwrap();
        answer.status().as_u16()
    }

    async fn introspect(&self, token: &str) -> Value {
        let request = self.serving.http.post(self.serving.url("/t/acme/v1/introspect"));
        let request = request.header("Authorization", self.asker.basic()).form(&[("token", token)]);
        request.send().await.unwrap().json().await.unwrap()
    }

    /// Waits until the server has heard of what a command did: a second at most, asserted with patience.
    async fn dies(&self, token: &str) {
        binary_support::wait_until("the token is dead", async || self.introspect(token).await == json!({ "active": false }))
            .await;
        assert_eq!(self.me(token).await, 401);
    }

    async fn keys(&self) -> KeySet {
        let jwks = self.serving.http.get(self.serving.url("/t/acme/.well-known/jwks.json")).send().await.unwrap();
        KeySet::from_jwks(&jwks.text().await.unwrap()).unwrap()
    }

    /// Target and subject of the tenant's audit entries with this action, in order. Read from the table: a command each
    /// time would be most of what these tests do.
    async fn audit(&self, action: &str) -> Vec<(String, String)> {
        let query = "SELECT e.target, e.subject FROM audit_entries e JOIN tenants t ON t.id = e.tenant_id
                      WHERE t.slug = 'acme' AND e.action = $1 AND e.outcome = 'ok' ORDER BY e.seq";
        sqlx::query_as(query).bind(action).fetch_all(&mut self.home.superuser().await).await.unwrap()
    }

    async fn users(&self) -> i64 {
        sqlx::query_scalar("SELECT count(*) FROM users").fetch_one(&mut self.home.superuser().await).await.unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn people_are_added_with_a_password_and_logged_out_beside_a_running_server() {
    let scene = Scene::set().await;
    let alice = scene.add("alice", &format!("{PASSWORD}\n"));
    // One line's end is the shell's, whatever the shell; all else is the password.
    scene.add("spaces", &format!("  {PASSWORD} \r\n"));
    scene.add("colon", "pa:ss with: colons");
    for (username, password) in [("alice", PASSWORD), ("colon", "pa:ss with: colons")] {
        let (status, body) = scene.login(username, password).await;
        assert_eq!((status, &body["token_type"]), (200, &json!("Bearer")), "{username}");
    }
    assert_eq!(scene.login("spaces", &format!("  {PASSWORD} ")).await.0, 200);
    assert_eq!(scene.login("spaces", PASSWORD).await.0, 401);

    for (what, input) in [("an empty line", "\n"), ("too short", "short\n"), ("the name", "alice2-alice2-alice2\n")] {
        let arguments = ["user", "add", "--tenant", "acme", "--username", "alice2", "--password-stdin"];
        let said = scene.with_input(&arguments, input);
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{what}");
        assert!(said.err.contains("password"), "{what}: {}", said.err);
        assert!(input.len() < 2 || !said.err.contains(input.trim()), "{what}: {}", said.err);
    }
    for arguments in [
        &["user", "add", "--tenant", "acme", "--username", "bob", "--password", PASSWORD][..],
        &["user", "set-password", "--tenant", "acme", "alice", PASSWORD],
        &["user", "set-password", "--tenant", "acme", "alice"],
    ] {
        let said = scene.with_input(arguments, "");
        assert_eq!(said.code, Some(2), "a password on a command line is refused: every process sees it");
    }
    assert_eq!(scene.with_input(&["user", "add", "--tenant", "acme", "--username", "ALICE"], "").code, Some(1));
    assert_eq!(scene.with_input(&["user", "add", "--tenant", "nobody", "--username", "x"], "").code, Some(1));
    assert_eq!(
        scene.with_input(&["user", "set-password", "--tenant", "acme", "nobody", "--password-stdin"], PASSWORD).code,
        Some(1)
    );

    // Every login of hers ends, at the running server too.
    let (_, tokens) = scene.login("alice", PASSWORD).await;
    let token = tokens["access_token"].as_str().unwrap();
    assert_eq!(scene.introspect(token).await["active"], true);
    scene.ok(&["user", "log-out", "--tenant", "acme", "alice"]);
    scene.dies(token).await;
    let (status, tokens) = scene.login("ALICE", PASSWORD).await;
    assert_eq!(status, 200, "whoever knows the password may come back");
    let token = tokens["access_token"].as_str().unwrap();
    let said = scene
        .with_input(&["user", "set-password", "--tenant", "acme", "Alice", "--password-stdin"], &format!("{OTHER_PASSWORD}\n"));
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(!format!("{said:?}").contains(OTHER_PASSWORD) && !format!("{said:?}").contains("argon2"));
    scene.dies(token).await;
    let body = json!({ "refresh_token": tokens["refresh_token"] });
    let refreshed = scene.serving.http.post(scene.serving.url("/v1/token/refresh")).json(&body).send().await.unwrap();
    assert_eq!(refreshed.status(), 401);
    assert_eq!(scene.login("alice", PASSWORD).await.0, 401);
    assert_eq!(scene.login("alice", OTHER_PASSWORD).await.0, 200);

    scene.ok(&["user", "set-roles", "--tenant", "acme", "alice", "--role", "admin", "--role", "api"]);
    let listed = scene.home.json(&["user", "list", "--tenant", "acme"]);
    let shown = listed.as_array().unwrap().iter().find(|user| user["username"] == "alice").unwrap();
    assert_eq!((&shown["roles"], &shown["id"]), (&json!(["admin", "api"]), &alice["id"]));
    assert!(!listed.to_string().contains("argon2"));
    for action in ["user.logout_everywhere", "user.password_set"] {
        let targets: Vec<String> = scene.audit(action).await.into_iter().map(|(target, _)| target).collect();
        assert_eq!(targets, [format!("user:{}", alice["id"].as_str().unwrap())], "{action}");
    }
    assert_eq!(scene.serving.stop().await.status.code(), Some(0));
}

/// Of "brass lantern 7 Päter ", by bcrypt 4 of Python.
const BCRYPT: &str = "$2b$04$/n77vMBFK1/pIsMdkmiMy.PHslL/JdvMO3ghgAYA1aQaB2/TdYxWa";
const DJANGO: &str = "pbkdf2_sha256$1200$qFGd1SVBozFN$NuwUr+DcBvFcvG4xMYAp30zssdv4uWR/dIYQsJGz8ss=";
const OLD_PASSWORD: &str = "brass lantern 7 P\u{e4}ter ";

#[tokio::test(flavor = "multi_thread")]
async fn scenario_72_people_are_imported_with_ids_and_hashes_and_log_in_as_before() {
    let scene = Scene::set().await;
    scene.add("taken", PASSWORD);
    let (one, two, three) =
        ("0b2f3c52-64fb-4b8e-9a0e-5d9b6f4d1a01", "0b2f3c52-64fb-4b8e-9a0e-5d9b6f4d1a02", "0b2f3c52-64fb-4b8e-9a0e-5d9b6f4d1a03");
    let good = [
        json!({ "username": "Anna", "id": one, "email": "Anna@Example.com", "roles": ["user", "api"], "password_hash": BCRYPT }),
        json!({ "username": "ben", "id": two, "password_hash": DJANGO, "disabled": true }),
        json!({ "username": "cleo", "id": three }),
    ];
    let bad = [
        ("not JSON".to_owned(), "is not a person"),
        (json!({ "username": "dora", "password_hash": "5f4dcc3b5aa765d61d8327deb882cf99" }).to_string(), "password_hash"),
        (json!({ "username": "dora", "password_hash": "" }).to_string(), "password_hash"),
        (json!({ "username": "dora", "password_hash": "$argon2id$v=19$m=4194304,t=9,p=1$c2FsdHNhbHQ$c2FsdHNhbHRzYWx0c2FsdHNhbHQ" }).to_string(), "costs too much"),
        (json!({ "username": "dora", "password": "in the clear" }).to_string(), "is not a person"),
        (json!({ "username": "dora", "id": "12" }).to_string(), "is not a person"),
        (json!({ "username": "dora", "tenant": "other" }).to_string(), "is not a person"),
        (json!({ "username": "no name", "password_hash": BCRYPT }).to_string(), "username"),
        (json!({ "username": "\u{430}nna", "password_hash": BCRYPT }).to_string(), "looks like"),
        (json!({ "username": "taken", "id": one }).to_string(), "another id"),
        (json!({ "username": "dora", "roles": ["no role"] }).to_string(), "roles"),
        (json!({ "username": "dora", "email": "nonsense" }).to_string(), "email"),
        (r#"{"username":"dora","username":"emil"}"#.to_owned(), "is not a person"),
    ];
    let file = scene.home.file("people.jsonl");
    let write = |lines: &[String]| fs::write(&file, lines.join("\n")).unwrap();
    let import = |extra: &[&str]| {
        let arguments = [&["user", "import", "--tenant", "acme", file.to_str().unwrap(), "--output", "json"], extra].concat();
        let said = scene.with_input(&arguments, "");
        let told = format!("{said:?}");
        for secret in [BCRYPT, DJANGO, "5f4dcc3b5aa765d61d8327deb882cf99", "in the clear", "argon2id$v=19$m=4194304"] {
            assert!(!told.contains(secret), "{told}");
        }
        (said.code, serde_json::from_str::<Value>(&said.out).unwrap_or_else(|_| panic!("{said:?}")), said.err)
    };
    let mut lines: Vec<String> = good.iter().map(Value::to_string).collect();
    lines.insert(1, String::new());
    write(&lines);
    let report = json!({ "imported": 3, "present": 0, "skipped": {} });
    assert_eq!(import(&["--dry-run"]), (Some(0), report.clone(), String::new()));
    assert_eq!(scene.users().await, 1, "a dry run wrote something");
    assert_eq!(scene.audit("user.create").await.len(), 1);
    assert_eq!(import(&[]), (Some(0), report, String::new()));
    assert_eq!(import(&[]), (Some(0), json!({ "imported": 0, "present": 3, "skipped": {} }), String::new()));
    assert_eq!((scene.users().await, scene.audit("user.create").await.len()), (4, 4));

    // What cannot be taken over is told by line, and the rest is done all the same.
    lines.extend(bad.iter().map(|(line, _)| line.clone()));
    lines.push(json!({ "username": "last", "password_hash": BCRYPT }).to_string());
    write(&lines);
    for (extra, count) in [(&["--dry-run"][..], 4), (&[], 5)] {
        let (code, report, err) = import(extra);
        assert_eq!(code, Some(1), "{report}");
        assert_eq!((&report["imported"], &report["present"]), (&json!(1), &json!(3)), "{extra:?}");
        let skipped = report["skipped"].as_object().unwrap();
        assert_eq!(skipped.len(), bad.len(), "{report}");
        for (number, (line, why)) in (5..).zip(&bad) {
            let told = skipped[&number.to_string()].as_str().unwrap();
            assert!(told.contains(why), "{line}: {told}");
        }
        assert!(err.contains(&format!("{} lines", bad.len())), "{err}");
        assert_eq!(scene.users().await, count);
    }
    // From standard input, too.
    let line = json!({ "username": "piped", "password_hash": BCRYPT }).to_string();
    let said = scene.with_input(&["user", "import", "--tenant", "acme", "-"], &line);
    assert_eq!((said.code, said.out.lines().next()), (Some(0), Some("1 imported, 0 there already, 0 skipped")), "{said:?}");
    assert_eq!(scene.with_input(&["user", "import", "--tenant", "acme", "/nowhere/at/all"], "").code, Some(1));
    assert_eq!(scene.with_input(&["user", "import", "--tenant", "nobody", "-"], &line).code, Some(1));

    let (status, tokens) = scene.login("anna", OLD_PASSWORD).await;
    assert_eq!(status, 200, "{tokens}");
    let issuer = format!("{}/t/acme", scene.url);
    let expected = Expected { issuer: &issuer, audience: Some(&issuer), leeway_seconds: 60 };
    let now = Clock::System.now().timestamp();
    let token = verify(tokens["access_token"].as_str().unwrap(), &scene.keys().await, &expected, now).unwrap();
    assert_eq!((token.subject.as_str(), token.roles.as_slice()), (one, &["api".to_owned(), "user".to_owned()][..]));
    assert_eq!(scene.login("ben", OLD_PASSWORD).await.0, 401, "who was disabled there is disabled here");
    assert_eq!(scene.login("cleo", OLD_PASSWORD).await.0, 401, "who had no password has none");
    let mut database = scene.home.superuser().await;
    let hash = async |database: &mut sqlx::PgConnection, id: &str| {
        let query = sqlx::query_scalar::<_, String>("SELECT hash FROM passwords WHERE user_id = $1::uuid").bind(id.to_owned());
        query.fetch_optional(database).await.unwrap()
    };
    let upgraded = hash(&mut database, one).await.unwrap();
    assert!(upgraded.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{upgraded}");
    assert_eq!(hash(&mut database, two).await.as_deref(), Some(DJANGO));
    assert_eq!(hash(&mut database, three).await, None);
    drop(database);
    // To import again does not bring the old hash back.
    write(&good.iter().map(Value::to_string).collect::<Vec<_>>());
    assert_eq!(import(&[]).0, Some(0));
    let mut database = scene.home.superuser().await;
    assert_eq!(hash(&mut database, one).await.unwrap(), upgraded);
    drop(database);
    assert_eq!(scene.serving.stop().await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn scenario_42_a_token_issued_by_hand_is_alone_on_standard_output_and_dies_with_its_person() {
    let scene = Scene::set().await;
    let bot = scene.add("bot", PASSWORD);
    scene.ok(&["user", "set-roles", "--tenant", "acme", "bot", "--role", "api"]);
    let issue =
        |extra: &[&str]| scene.with_input(&[&["token", "issue", "--tenant", "acme", "--user", "bot"], extra].concat(), "");
    let one = |said: &Said| {
        assert_eq!(said.code, Some(0), "{said:?}");
        let token = said.out.strip_suffix('\n').expect("a line");
        assert!(token.split('.').count() == 3 && !token.contains(char::is_whitespace), "{said:?}");
        token.to_owned()
    };
    let issuer = format!("{}/t/acme", scene.url);
    let keys = scene.keys().await;
    let now = Clock::System.now().timestamp();
    let for_us = Expected { issuer: &issuer, audience: Some(&issuer), leeway_seconds: 60 };

    let said = issue(&[]);
    assert_eq!(said.err, "");
    let usual = one(&said);
    let token = verify(&usual, &keys, &for_us, now).unwrap();
    assert_eq!(token.subject, bot["id"].as_str().unwrap());
    assert_eq!((token.username.as_deref(), token.roles.as_slice()), (Some("bot"), &["api".to_owned()][..]));
    assert_eq!((token.audience.as_slice(), token.client_id.as_deref()), (&[issuer.clone()][..], Some("operator")));
    assert_eq!(token.expires_at, Some(token.issued_at + 86_400));
    assert!(token.session.is_none() && token.key_id.is_none() && token.scope.is_empty());
    assert_eq!(scene.introspect(&usual).await["active"], true);
    assert_eq!(scene.me(&usual).await, 200);
    let entries = scene.audit("token.issue").await;
    assert_eq!(entries, [(format!("token:{}", token.token_id), format!("user:{}", token.subject))]);

    // For somebody else: they may use it, and we may not be asked with it.
    let other = one(&issue(&["--audience", "https://jobs.example", "--expires", "90d"]));
    let expected = Expected { audience: Some("https://jobs.example"), ..for_us };
    let token = verify(&other, &keys, &expected, now).unwrap();
    assert_eq!(token.expires_at, Some(token.issued_at + 90 * 86_400));
    assert!(verify(&other, &keys, &for_us, now).is_err());
    assert_eq!(scene.me(&other).await, 401);
    assert_eq!(scene.introspect(&other).await["aud"], json!(["https://jobs.example"]));

    // Without an end: only who asks us knows when it is over, and so it is said.
    let said = issue(&["--expires", "none"]);
    assert!(said.err.contains("no end"), "{said:?}");
    let endless = one(&said);
    let header = endless.split('.').nth(1).unwrap();
    let claims = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(header).unwrap();
    assert!(serde_json::from_slice::<Value>(&claims).unwrap().get("exp").is_none());
    assert!(verify(&endless, &keys, &for_us, now).is_err(), "RFC 9068 wants an end");
    assert!(verify_with(&endless, &keys, &for_us, Expiry::Optional, now).is_ok());
    let asked = scene.introspect(&endless).await;
    assert_eq!((&asked["active"], asked.get("exp")), (&json!(true), None));
    let as_json = one_document(&issue(&["--expires", "2000h", "--output", "json"]).out);
    assert_eq!(as_json["expires_in"], json!(7_200_000));
    assert!(verify(as_json["access_token"].as_str().unwrap(), &keys, &for_us, now).is_ok());

    for wrong in [["--expires", "never"], ["--expires", "0s"], ["--expires", "101d"], ["--audience", ""]] {
        let said = issue(&wrong);
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{wrong:?}: {said:?}");
    }
    for arguments in
        [["token", "issue", "--tenant", "acme", "--user", "nobody"], ["token", "issue", "--tenant", "nobody", "--user", "bot"]]
    {
        let said = scene.with_input(&arguments, "");
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{said:?}");
    }

    // Called back, it is dead at once, and the others live.
    let revoke = scene.serving.http.post(scene.serving.url("/t/acme/v1/token/revoke")).form(&[("token", &endless)]);
    assert_eq!(revoke.send().await.unwrap().status(), 200);
    scene.dies(&endless).await;
    assert_eq!(scene.introspect(&usual).await["active"], true);
    // With its person, all of them are.
    scene.ok(&["user", "disable", "--tenant", "acme", "bot"]);
    scene.dies(&usual).await;
    scene.dies(&other).await;
    let refused = issue(&[]);
    assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""), "{refused:?}");
    assert!(refused.err.contains("may not act"), "{refused:?}");
    assert_eq!(scene.serving.stop().await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn scenario_44_a_key_pair_is_two_quoted_lines_and_kept_nowhere() {
    let home = Home::new();
    let pairs: Vec<(Vec<u8>, Vec<u8>)> = (0..2)
        .map(|_| {
            let out = home.ok(&["keypair", "generate"]);
            let lines: Vec<&str> = out.lines().collect();
            assert_eq!(lines.len(), 2, "{out}");
            let value = |line: &str, start: &str| {
                let value = line.strip_prefix(start).and_then(|rest| rest.strip_suffix('"')).unwrap_or_else(|| panic!("{out}"));
                STANDARD.decode(value).unwrap()
            };
            (value(lines[0], "ED25519 PUBLIC_KEY=\""), value(lines[1], "ED25519 PRIVATE_KEY=\""))
        })
        .collect();
    for (public, private) in &pairs {
        assert_eq!((public.len(), private.len()), (32, 64));
        assert_eq!(&private[32..], public);
        let seed: [u8; 32] = private[..32].try_into().unwrap();
        assert_eq!(ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().as_bytes(), public.as_slice());
    }
    assert_ne!(pairs[0], pairs[1]);
    let document = home.json(&["keypair", "generate"]);
    assert_eq!(STANDARD.decode(document["public_key"].as_str().unwrap()).unwrap().len(), 32);
    assert_eq!(STANDARD.decode(document["private_key"].as_str().unwrap()).unwrap().len(), 64);
    assert!(!home.data_dir().exists(), "a key pair needs no installation");
}
