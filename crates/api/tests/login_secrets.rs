//! Passwords, cookies and tokens of people stay where they belong (P39), and what somebody types is no log line (P41).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod binary_support;

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use binary_support::{Home, Said, Serving, free_port, one_document, run, wait_until};
use reqwest::Response;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::AssertSqlSafe;

/// What must not be found anywhere, by the name it is reported under.
#[derive(Default)]
struct Canaries(BTreeMap<String, String>);

impl Canaries {
    /// A secret, in every form in which it might be kept or printed by mistake.
    fn add(&mut self, name: &str, secret: &str) {
        let digest = Sha256::digest(secret.as_bytes());
        let percent: String = secret.bytes().map(|byte| format!("%{byte:02X}")).collect();
        for (form, text) in [
            ("as it is", secret.to_owned()),
            ("of a form", secret.replace(' ', "+")),
            ("percent-encoded", percent),
            ("base64", STANDARD.encode(secret).trim_end_matches('=').to_owned()),
            ("hexadecimal", hex(secret.as_bytes())),
            ("SHA-256", hex(&digest)),
            ("SHA-256 in base64", STANDARD.encode(digest).trim_end_matches('=').to_owned()),
        ] {
            self.0.insert(format!("{name}, {form}"), text);
        }
    }

    /// What is base64 itself, also as the bytes that it stands for. What comes first is an id, and no secret.
    fn opaque(&mut self, name: &str, secret: &str) {
        self.add(name, secret);
        let bytes = URL_SAFE_NO_PAD.decode(secret.strip_prefix("cr_").unwrap_or(secret)).expect("base64url");
        self.0.insert(format!("{name}, its end in hexadecimal"), hex(&bytes[bytes.len() / 2..]));
        self.0.insert(format!("{name}, its end"), secret[secret.len() / 2..].to_owned());
    }

    fn found_in(&self, place: &str, text: &str) -> Vec<String> {
        let found = self.0.iter().filter(|(_, canary)| text.contains(canary.as_str()));
        found.map(|(name, _)| format!("{name}: in {place}")).collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Every row of every table, as text.
async fn dump(home: &Home) -> String {
    let mut database = home.superuser().await;
    let tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = 'public' ORDER BY 1";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut database).await.unwrap();
    assert!(tables.len() > 12, "{tables:?}");
    let mut dump = String::new();
    for table in tables {
        let rows = AssertSqlSafe(format!("SELECT t::text FROM {table} t"));
        for row in sqlx::query_scalar::<_, String>(rows).fetch_all(&mut database).await.unwrap() {
            dump.push_str(&row);
            dump.push('\n');
        }
    }
    dump
}

/// A server that says all it can, as JSON.
async fn talkative(home: &Home) -> Serving {
    let port = free_port();
    let mut command = home.command(&["serve", "--listen", &format!("127.0.0.1:{port}")]);
    command.env("CLAVIGER_LOG", "trace").env("CLAVIGER_LOG_FORMAT", "json");
    Serving::start(command, port).await
}

fn cookie(answer: &Response, name: &str) -> Option<String> {
    let lines = answer.headers().get_all("set-cookie").iter().filter_map(|line| line.to_str().ok());
    lines.filter_map(|line| line.split(';').next()?.strip_prefix(&format!("{name}="))).map(str::to_owned).next()
}

#[tokio::test(flavor = "multi_thread")]
async fn p39_what_people_log_in_with_is_found_nowhere() {
    let home = Home::new();
    let mut canaries = Canaries::default();
    let serving = talkative(&home).await;
    home.ok(&["tenant", "create", "acme"]);
    home.ok(&["app", "create", "--tenant", "acme", "--name", "admin"]);
    let create = [
        "key",
        "create",
        "--tenant",
        "acme",
        "--app",
        "admin",
        "--scope",
        "users:read",
        "--scope",
        "users:write",
        "--scope",
        "tokens:introspect",
    ];
    let admin = binary_support::Pair::of(&home.json(&create));
    let mut said: Vec<(String, String)> = Vec::new();
    let first = "canary first passphrase of alice";
    let second = "canary second passphrase of alice";
    let third = "canary third passphrase of alice";
    let wrong = "canary wrong passphrase of alice";
    let misplaced = "canary-typed-into-the-name";
    for (name, secret) in [("first", first), ("second", second), ("third", third), ("wrong", wrong), ("misplaced", misplaced)] {
        canaries.add(&format!("the {name} password"), secret);
    }
    let loud = |arguments: &[&str], input: &str| -> Said {
        let mut command = home.command(arguments);
        command.env("CLAVIGER_LOG", "trace").env("CLAVIGER_LOG_FORMAT", "json");
        let done = run(command, input);
        assert_eq!(done.code, Some(0), "{done:?}");
        done
    };
    let made = loud(&["user", "add", "--tenant", "acme", "--username", "alice", "--password-stdin", "--output", "json"], first);
    let alice = one_document(&made.out)["id"].as_str().unwrap().to_owned();
    said.push(("the output of `user add`".into(), format!("{made:?}")));

    let http = &serving.http;
    let url = |path: &str| serving.url(&format!("/t/acme{path}"));
    let login = async |username: &str, password: &str| {
        let body = json!({ "username": username, "password": password });
        http.post(url("/v1/login")).json(&body).send().await.unwrap()
    };
    // Right and wrong, and in the wrong fields.
    let answer = login("alice", first).await;
    canaries.opaque("a device cookie", &cookie(&answer, "__Host-device-acme").unwrap());
    let tokens: Value = answer.json().await.unwrap();
    let (access, refresh) = (tokens["access_token"].as_str().unwrap(), tokens["refresh_token"].as_str().unwrap());
    canaries.opaque("a refresh token", refresh);
    canaries.add("an access token's signature", access.rsplit('.').next().unwrap());
    for (username, password) in [("alice", wrong), (misplaced, wrong), (wrong, misplaced), (first, "alice")] {
        let answer = login(username, password).await;
        assert_eq!(answer.status(), 401);
        said.push(("a refusal".into(), answer.text().await.unwrap()));
    }
    for body in [
        json!({ "username": first, "password": [first] }),
        json!({ "username": [first], "password": wrong }),
        json!({ "username": "alice", first: wrong }),
        json!({ "username": "alice", "password": { wrong: first } }),
        json!([first, wrong]),
        json!(first),
    ] {
        let answer = http.post(url("/v1/login")).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 422, "{body}");
        // A name of a field is told; a value is not.
        if body.get(first).is_none() {
            said.push(("a refusal".into(), answer.text().await.unwrap()));
        }
    }
    http.get(url(&format!("/v1/login?password={}", first.replace(' ', "+")))).send().await.unwrap();
    http.get(url(&format!("/login?username=alice&password={}&return_to=/{misplaced}", first.replace(' ', "+"))))
        .send()
        .await
        .unwrap();
    http.get(url("/v1/me"))
        .header("Authorization", format!("Basic {}", STANDARD.encode(format!("alice:{first}"))))
        .send()
        .await
        .unwrap();
    http.get(url("/v1/me")).bearer_auth(refresh).send().await.unwrap();
    http.get(serving.url(&format!("/{refresh}"))).send().await.unwrap();

    // A browser.
    let page = http.get(url("/login")).send().await.unwrap();
    let form_cookie = cookie(&page, "__Host-form-acme").unwrap();
    let page = page.text().await.unwrap();
    let csrf = page.split("name=\"csrf\" value=\"").nth(1).unwrap().split('"').next().unwrap().to_owned();
    canaries.opaque("a form cookie", &form_cookie);
    canaries.opaque("a form token", &csrf);
    for (password, status) in [(wrong, 401), (first, 303)] {
        let form = [("csrf", csrf.as_str()), ("username", "alice"), ("password", password)];
        let request = http.post(url("/login")).header("Cookie", format!("__Host-form-acme={form_cookie}")).form(&form);
        let answer = request.send().await.unwrap();
        assert_eq!(answer.status(), status);
        if let Some(session) = cookie(&answer, "__Host-session-acme") {
            canaries.opaque("a session cookie", &session);
            let with = format!("__Host-session-acme={session}");
            for path in ["/v1/me", "/v1/me/sessions", "/account", "/logout"] {
                let answer = http.get(url(path)).header("Cookie", &with).send().await.unwrap();
                assert_eq!(answer.status(), 200, "{path}");
                let text = answer.text().await.unwrap();
                assert!(!text.contains(&session), "{path}: a session's value is in its cookie alone (ASVS 3.3.4)");
            }
            http.get(url(&format!("/v1/me?session={session}"))).bearer_auth(&session).send().await.unwrap();
        }
        said.push(("the login page's answer".into(), answer.text().await.unwrap().replace(&csrf, "")));
    }

    // Tokens are refreshed, asked about, misused.
    let body = json!({ "refresh_token": refresh });
    let refreshed: Value = http.post(url("/v1/token/refresh")).json(&body).send().await.unwrap().json().await.unwrap();
    let next = refreshed["refresh_token"].as_str().unwrap();
    canaries.opaque("the next refresh token", next);
    canaries.add("the next access token's signature", refreshed["access_token"].as_str().unwrap().rsplit('.').next().unwrap());
    for token in [access, refresh, next] {
        let asked = http.post(url("/v1/introspect")).header("Authorization", admin.basic()).form(&[("token", token)]);
        said.push(("an introspection".into(), asked.send().await.unwrap().text().await.unwrap()));
    }
    // Passwords change, by every way.
    let bearer = refreshed["access_token"].as_str().unwrap();
    for (current, new, status) in [(wrong, second, 422), (first, "short", 422), (first, second, 204)] {
        let body = json!({ "current_password": current, "new_password": new });
        let answer = http.post(url("/v1/me/password")).bearer_auth(bearer).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), status);
        said.push(("a change".into(), answer.text().await.unwrap()));
    }
    let put = http.put(url(&format!("/v1/users/{alice}/password"))).header("Authorization", admin.basic());
    assert_eq!(put.json(&json!({ "password": third })).send().await.unwrap().status(), 204);
    let done = loud(&["user", "set-password", "--tenant", "acme", "alice", "--password-stdin"], second);
    said.push(("the output of `user set-password`".into(), format!("{done:?}")));
    let body = json!({ "username": "bob", "password": third });
    let bob = http.post(url("/v1/users")).header("Authorization", admin.basic()).json(&body).send().await.unwrap();
    assert_eq!(bob.status(), 201);
    said.push(("a user".into(), bob.text().await.unwrap()));
    let issued = loud(&["token", "issue", "--tenant", "acme", "--user", "alice"], "");
    canaries.add("an issued token's signature", issued.out.trim().rsplit('.').next().unwrap());
    said.push(("standard error of `token issue`".into(), issued.err));

    let dumped = dump(&home).await;
    let ended = serving.stop().await;
    assert_eq!(ended.status.code(), Some(0));
    home.postgres_is_down().await;
    assert!(dumped.contains("$argon2id$") && dumped.contains("user.password_change"), "the search itself works");
    assert!(ended.err.contains("\"TRACE\""), "the log is not as talkative as it was told to be");
    said.push(("the database".into(), dumped));
    said.push(("standard output of the server".into(), ended.out));
    said.push(("the server's log".into(), ended.err));
    said.push(("Postgres' log".into(), home.postgres_log()));
    let found: Vec<String> = said.iter().flat_map(|(place, text)| canaries.found_in(place, text)).collect();
    assert!(found.is_empty(), "{} leaks:\n{}", found.len(), found.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn p41_what_is_typed_into_a_login_is_never_a_line_of_the_log() {
    let home = Home::new();
    let serving = talkative(&home).await;
    wait_until("the first start is over", async || serving.out().contains("/docs")).await;
    let forged = "\r\n{\"level\":\"ERROR\",\"message\":\"forged\"}";
    for nasty in
        [forged, "\n", "\u{1b}[31mred\u{1b}[0m", "\u{202e}eciila\u{2066}", "\",\"forged\":\"", "\\\",\\", "\u{2028}\u{85}", "\0"]
    {
        let body = json!({ "username": nasty, "password": nasty, nasty: nasty });
        let url = serving.url("/t/default/v1/login");
        assert_eq!(serving.http.post(&url).json(&body).send().await.unwrap().status(), 422);
        let body = json!({ "username": format!("a{nasty}"), "password": nasty });
        let status = serving.http.post(&url).json(&body).send().await.unwrap().status();
        assert!([401, 429].contains(&status.as_u16()), "{status}");
        let form = [("username", nasty), ("password", nasty), ("csrf", nasty), ("return_to", nasty)];
        let page = serving.http.post(serving.url("/t/default/login")).form(&form).send().await.unwrap();
        assert_eq!(page.status(), 403);
        let page = serving.http.get(serving.url("/t/default/login")).query(&[("return_to", nasty)]).send().await.unwrap();
        assert_eq!(page.status(), 200);
    }
    let ended = serving.stop().await;
    assert_eq!(ended.status.code(), Some(0));
    let mut refused = 0;
    for line in ended.err.lines() {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("not a JSON line ({error}): {line:?}"));
        assert!(event.get("forged").is_none() && event["message"] != "forged", "{line}");
        assert!(!line.contains(['\u{1b}', '\u{202e}', '\u{2066}', '\u{2028}', '\u{85}', '\0']), "{line:?}");
        refused += usize::from(event["message"] == "a login was refused");
    }
    assert!(refused >= 5, "refused logins are told: {refused}");
}
