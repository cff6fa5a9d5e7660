//! Secrets stay where they belong, whatever is done with them and wherever they are sent (P39); and whatever is sent,
//! a log line is a log line (P41).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod binary_support;

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use binary_support::{Home, Pair, Serving, free_port, one_document, run, wait_until};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// What must not be found anywhere, by the name it is reported under.
#[derive(Default)]
struct Canaries(BTreeMap<String, String>);

impl Canaries {
    /// A secret, in every form in which it might be kept or printed by mistake.
    fn secret(&mut self, name: &str, secret: &str) {
        self.0.insert(name.to_owned(), secret.to_owned());
        self.0.insert(format!("{name}, base64"), STANDARD.encode(secret).trim_end_matches('=').to_owned());
        self.0.insert(format!("{name}, hexadecimal"), hex(secret.as_bytes()));
        self.0.insert(format!("{name}, percent-encoded"), percent(secret));
        let digest = Sha256::digest(secret.as_bytes());
        self.0.insert(format!("{name}, SHA-256"), hex(&digest));
        self.0.insert(format!("{name}, SHA-256 in base64"), STANDARD.encode(digest).trim_end_matches('=').to_owned());
    }

    fn pair(&mut self, name: &str, pair: &Pair) {
        self.secret(name, &pair.secret);
        // As Basic carries it; the last letters depend on what follows.
        let basic = STANDARD.encode(pair.text());
        self.0.insert(format!("{name}, Basic"), basic[basic.len() / 2..].trim_end_matches('=').to_owned());
    }

    /// The third part makes it a token; the others are told to whoever asks.
    fn token(&mut self, name: &str, jwt: &str) {
        let signature = jwt.split('.').nth(2).unwrap();
        self.0.insert(format!("{name}, signature"), signature.to_owned());
        self.0.insert(format!("{name}, signature in hexadecimal"), hex(&URL_SAFE_NO_PAD.decode(signature).unwrap()));
    }

    /// The master key: as it is written, and its bytes.
    fn key(&mut self, name: &str, base64: &str) {
        let bytes = STANDARD.decode(base64.trim()).unwrap();
        self.0.insert(name.to_owned(), base64.trim().to_owned());
        self.0.insert(format!("{name}, hexadecimal"), hex(&bytes));
    }

    /// Names of what is found in a text.
    fn found_in(&self, place: &str, text: &str) -> Vec<String> {
        self.0
            .iter()
            .filter(|(_, canary)| text.contains(canary.as_str()))
            .map(|(name, _)| format!("{name}: in {place}"))
            .collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn percent(text: &str) -> String {
    text.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Every row of every table, as text: the values that are bytes, in hexadecimal.
async fn dump(database: &mut PgConnection) -> String {
    let tables = "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables
                   WHERE schemaname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1";
    let tables: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut *database).await.unwrap();
    assert!(tables.len() > 10, "{tables:?}");
    let mut dump = String::new();
    for table in tables {
        let rows = AssertSqlSafe(format!("SELECT t::text FROM {table} t"));
        for row in sqlx::query_scalar::<_, String>(rows).fetch_all(&mut *database).await.unwrap() {
            dump.push_str(&row);
            dump.push('\n');
        }
    }
    dump
}

/// Files below the folder that contain one of these, as bytes.
fn files_with(folder: &std::path::Path, what: &[&str]) -> String {
    let mut grep = Command::new("grep");
    grep.args(["-rlaF", "-f", "-", "--exclude=master.key"]).arg(folder).env("LC_ALL", "C");
    let mut grep = grep.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    grep.stdin.take().unwrap().write_all(what.join("\n").as_bytes()).unwrap();
    let output = grep.wait_with_output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 1)), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Sends bytes as they are; whatever comes back is dropped.
async fn raw(serving: &Serving, bytes: &[u8]) {
    let mut connection = TcpStream::connect(serving.address()).await.unwrap();
    connection.write_all(bytes).await.unwrap();
    connection.shutdown().await.unwrap();
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(20), connection.read_to_end(&mut answer)).await;
}

/// A server that says all it can, as JSON.
async fn talkative(home: &Home) -> Serving {
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let mut command = home.command(&["serve", "--listen", &listen]);
    command.env("CLAVIGER_LOG", "trace").env("CLAVIGER_LOG_FORMAT", "json");
    Serving::start(command, port).await
}

/// One object a line, each with what every event has.
fn events(log: &str) -> Vec<Value> {
    let event = |line: &str| {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("not a JSON line ({error}): {line:?}"));
        for name in ["timestamp", "level", "target"] {
            assert!(event[name].is_string(), "without {name}: {line}");
        }
        event
    };
    log.lines().map(event).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn p39_secrets_are_found_nowhere_but_where_they_were_asked_for() {
    let home = Home::new();
    let mut canaries = Canaries::default();
    let mut said = Vec::new();
    let mut note = |what: &str, text: &str| said.push((what.to_owned(), text.to_owned()));

    // Everything the server can be told.
    let serving = talkative(&home).await;
    wait_until("the admin key is printed", async || serving.out().contains("/docs")).await;
    let admin = serving.admin();
    canaries.pair("the first admin's secret", &admin);
    canaries.key("the master key", &fs::read_to_string(home.master_key()).unwrap());

    // Everything the command line does with secrets. What it was asked for is on standard output, and only there.
    home.ok(&["tenant", "create", "acme"]);
    home.ok(&["app", "create", "--tenant", "acme", "--name", "demo"]);
    home.ok(&["user", "add", "--tenant", "acme", "--username", "alice", "--email", "alice@example.com"]);
    let loud = [("CLAVIGER_LOG", "trace"), ("CLAVIGER_LOG_FORMAT", "json")];
    let create = ["key", "create", "--tenant", "acme", "--app", "demo", "--scope", "events:read", "--output", "json"];
    let made = home.run_with(&create, &loud);
    note("standard error of `key create`", &made.err);
    let first = Pair::of(&one_document(&made.out));
    canaries.pair("a made secret", &first);
    let rotated = home.run_with(&["key", "rotate", "--tenant", "acme", &first.key, "--output", "json"], &loud);
    note("standard error of `key rotate`", &rotated.err);
    let second = Pair::of(&one_document(&rotated.out));
    canaries.pair("a rotated secret", &second);
    let imported = Pair { key: "imported-1".into(), secret: "canary-imported-KXvq3mZp7Lr2".into() };
    let mut import = home.command(&["key", "import", "--tenant", "acme", "--user", "alice", "--scope", "events:read"]);
    import.envs(loud);
    let done = run(import, &imported.text());
    assert_eq!(done.code, Some(0), "{done:?}");
    note("the output of `key import`", &format!("{}{}", done.out, done.err));
    canaries.pair("an imported secret", &imported);
    for (case, pair) in [
        ("taken", imported.text()),
        ("short", "imported-2:canary-short-Wq9".into()),
        ("no pair", "canary-alone-ZuT4eXb8Qo1m".into()),
    ] {
        let mut import = home.command(&["key", "import", "--tenant", "acme", "--user", "alice"]);
        import.envs(loud);
        let done = run(import, &pair);
        assert_eq!(done.code, Some(1), "{done:?}");
        note(&format!("the output of a refused `key import` ({case})"), &format!("{}{}", done.out, done.err));
        canaries.secret(&format!("a refused import ({case})"), pair.split(':').next_back().unwrap());
    }
    let wrong_place = home.run(&["key", "import", "--tenant", "acme", "--user", "alice", "imported-3:canary-argument-Jp5sVn"]);
    assert_eq!(wrong_place.code, Some(2), "a secret on a command line is refused: every process sees it");
    for arguments in
        [&["key", "list", "--tenant", "acme"][..], &["audit", "list", "--tenant", "acme"], &["audit", "verify"], &["doctor"]]
    {
        let done = home.run_with(&[arguments, &["--output", "json"]].concat(), &loud);
        note(&format!("the output of {arguments:?}"), &format!("{}{}", done.out, done.err));
    }

    // Exchanges, good and bad, in every form.
    let http = &serving.http;
    let url = |path: &str| serving.url(path);
    let exchange = url("/v1/authentications");
    for (name, authorization) in [
        ("admin", admin.text()),
        ("admin, Basic", admin.basic()),
        ("old secret", first.text()),
        ("new secret", second.basic()),
        ("imported", imported.text()),
    ] {
        let answer = http.post(&exchange).header("Authorization", authorization).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{name}");
        canaries.token(&format!("a token ({name})"), answer.json::<Value>().await.unwrap()["jwt"].as_str().unwrap());
    }
    let jwt = serving.token(&admin).await;
    canaries.token("the admin's token", &jwt);
    let wrong = Pair { key: second.key.clone(), secret: "canary-wrong-secret-Hy7Kc2Rw9".into() };
    canaries.pair("a wrong secret", &wrong);
    for path in
        ["/v1/authentications", "/t/acme/v1/authentications", "/t/default/v1/authentications", "/t/nobody/v1/authentications"]
    {
        for authorization in
            [wrong.text(), wrong.basic(), format!("unknown-key:{}", wrong.secret), format!("Bearer {}", wrong.text())]
        {
            let answer = http.post(url(path)).header("Authorization", authorization).send().await.unwrap();
            assert!([404, 429].contains(&answer.status().as_u16()), "{path}");
            note("a refusal's body", &answer.text().await.unwrap());
        }
    }

    // Secrets and tokens in places that are not theirs.
    let misplaced = [&second.secret, &imported.secret, &wrong.secret, &jwt, &second.text()];
    for secret in misplaced {
        for place in [
            format!("/v1/me?access_token={secret}"),
            format!("/v1/keys?after={secret}"),
            format!("/v1/keys?{secret}"),
            format!("/v1/audit?action={secret}"),
            format!("/v1/tenants?after={secret}"),
            format!("/v1/keys/{secret}"),
            format!("/v1/keys/{}", percent(secret)),
            format!("/v1/users/{secret}"),
            format!("/v1/tenants/{secret}"),
            format!("/t/{secret}/v1/me"),
            format!("/{secret}"),
            format!("/v1/authentications/{secret}"),
            format!("/docs/{secret}"),
            format!("/.well-known/oauth-authorization-server/t/{secret}"),
        ] {
            for authorization in [jwt.as_str(), "nobody"] {
                let answer = http.get(url(&place)).bearer_auth(authorization).send().await.unwrap();
                assert!(answer.status().is_success() || answer.status().is_client_error());
            }
        }
        for header in
            ["Authorization", "X-Api-Key", "User-Agent", "Cookie", "Referer", "X-Forwarded-For", "If-None-Match", "X-Request-Id"]
        {
            http.get(url("/v1/me")).header(header, secret.as_str()).send().await.unwrap();
            http.post(&exchange).header(header, secret.as_str()).header("Host", "id.test").send().await.unwrap();
        }
        for authorization in [
            format!("Basic {secret}"),
            format!("Bearer Bearer {secret}"),
            format!("Token {secret}"),
            format!("{secret}:{secret}"),
        ] {
            http.get(url("/v1/me")).header("Authorization", &authorization).send().await.unwrap();
            http.post(&exchange).header("Authorization", &authorization).send().await.unwrap();
        }
        let as_admin = |path: &str| http.post(url(path)).bearer_auth(&jwt);
        for body in [
            json!({ "scope": secret }),
            json!({ "name": { "secret": secret } }),
            json!({ secret.as_str(): 1 }),
            json!({ "name": "x", "scopes": [secret] }),
            json!({ "name": "x", "scopes": [], "application_id": secret }),
            json!({ "name": "x", "scopes": [], "token_lifetime": secret }),
            json!({ "name": "x", "scopes": [], "application_id": null, "user_id": null, "import": secret }),
            json!({ "name": "x", "scopes": [], "import": [secret] }),
            json!({ "slug": secret }),
            json!({ "slug": "x", "settings": { "throttle": secret } }),
            json!({ "username": "u", "email": secret, "secret": secret }),
            json!(secret),
            json!([secret]),
        ] {
            for path in ["/v1/keys", "/v1/tenants", "/v1/users", "/v1/applications", "/v1/introspect"] {
                let answer = as_admin(path).json(&body).send().await.unwrap();
                assert!(!answer.status().is_server_error(), "{path}: {body}");
            }
            let answer = http.post(&exchange).header("Authorization", second.text()).json(&body).send().await.unwrap();
            assert!(!answer.status().is_server_error());
        }
        as_admin("/v1/introspect").form(&[("token", secret)]).send().await.unwrap();
        as_admin("/v1/introspect").form(&[("token", &secret[1..]), ("token_type_hint", secret)]).send().await.unwrap();
        as_admin("/v1/keys").header("Content-Type", secret.as_str()).body("{}").send().await.unwrap();
        as_admin("/v1/keys")
            .header("Content-Type", "application/json")
            .body(format!("{{\"name\": {secret}"))
            .send()
            .await
            .unwrap();
        raw(&serving, format!("GET /{secret} HTTP/1.1\r\nHost: x\r\nBad Header: {secret}\r\n\r\n").as_bytes()).await;
        raw(&serving, format!("{secret} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes()).await;
        raw(&serving, format!("{secret}\r\n\r\n").as_bytes()).await;
    }

    // What is made and changed over HTTP.
    let post = async |path: &str, body: Value| {
        let answer = http.post(url(path)).bearer_auth(&jwt).json(&body).send().await.unwrap();
        assert_eq!(answer.status(), 201, "{path}: {body}");
        answer.json::<Value>().await.unwrap()
    };
    let user = post("/v1/users", json!({ "username": "bob" })).await;
    let made = post("/v1/keys", json!({ "user_id": user["id"], "name": "n", "scopes": ["events:read"] })).await;
    canaries.pair("a secret made over HTTP", &Pair::of(&made));
    let path = format!("/v1/keys/{}", made["api_key"].as_str().unwrap());
    let rotated = Pair::of(&post(&format!("{path}/rotate"), json!({ "grace_seconds": 0 })).await);
    canaries.pair("a secret rotated over HTTP", &rotated);
    let over_http = Pair { key: "imported-4".into(), secret: "canary-over-http-Tn6Gd3Yb0Va".into() };
    let import = json!({ "user_id": user["id"], "name": "n", "scopes": ["events:read"], "import": { "api_key": over_http.key, "api_secret": over_http.secret } });
    let answer = http.post(url("/v1/keys")).bearer_auth(&jwt).json(&import).send().await.unwrap();
    assert_eq!(answer.status(), 201);
    canaries.pair("a secret imported over HTTP", &over_http);
    let again = http.post(url("/v1/keys")).bearer_auth(&jwt).json(&import).send().await.unwrap();
    assert_eq!(again.status(), 409);
    note("the refusal of a second import", &again.text().await.unwrap());
    let token = serving.token(&over_http).await;
    canaries.token("a token of an imported key", &token);
    for token in [token.as_str(), &format!("{}x", &token[..token.len() - 1])] {
        http.get(url("/v1/me")).bearer_auth(token).send().await.unwrap();
        http.post(url("/v1/introspect")).header("Authorization", rotated.basic()).form(&[("token", token)]).send().await.unwrap();
    }
    for path in ["/v1/keys", "/v1/audit?limit=200", "/v1/users", &path] {
        let answer = http.get(url(path)).bearer_auth(&jwt).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{path}");
        note(&format!("what GET {path} says"), &answer.text().await.unwrap());
    }
    http.delete(url(&path)).bearer_auth(&jwt).send().await.unwrap();

    // Now look everywhere.
    let mut database = home.superuser().await;
    let dumped = dump(&mut database).await;
    sqlx::raw_sql("CHECKPOINT").execute(&mut database).await.unwrap();
    drop(database);
    let ended = serving.stop().await;
    assert_eq!(ended.status.code(), Some(0));
    home.postgres_is_down().await;

    let printed = ended.out.replace(&admin.secret, "");
    assert_eq!(ended.out.matches(&admin.secret).count(), 2, "the admin's secret: once by itself, once in the line to try");
    said.push(("standard output of the server".into(), printed));
    said.push(("the database".into(), dumped.clone()));
    said.push(("Postgres' log".into(), home.postgres_log()));
    let mut found: Vec<String> = said.iter().flat_map(|(place, text)| canaries.found_in(place, text)).collect();
    let log = events(&ended.err);
    assert!(log.iter().any(|event| event["level"] == "TRACE"), "the log is not as talkative as it was told to be");
    for canary in canaries.found_in("the server's log", &ended.err) {
        let name = canary.split(": in ").next().unwrap();
        let lines: Vec<&str> = ended.err.lines().filter(|line| line.contains(&canaries.0[name])).collect();
        found.push(format!("{canary}, {} times, such as {}", lines.len(), lines[0]));
    }
    let everywhere: Vec<&str> = canaries.0.values().map(String::as_str).collect();
    let files = files_with(&home.data_dir(), &everywhere);
    found.extend(files.lines().map(|file| format!("a secret: in the file {file}")));

    // The search itself works.
    assert!(ended.err.contains("/v1/authentications") && dumped.contains(&over_http.key));
    assert!(!files_with(&home.data_dir(), &[&over_http.key]).is_empty());
    assert!(found.is_empty(), "{} leaks:\n{}", found.len(), found.join("\n"));
}

#[tokio::test(flavor = "multi_thread")]
async fn p39_a_refusal_does_not_repeat_a_secret_that_was_sent_in_the_wrong_field() {
    // Clients and proxies keep the bodies of errors in logs of their own.
    let home = Home::new();
    let serving = home.serve().await;
    wait_until("the admin key is printed", async || serving.out().contains("/docs")).await;
    let admin = serving.admin();
    let secret = "canary-misplaced-Lm4Xe8Tz";
    let as_admin = |request: reqwest::RequestBuilder| request.header("Authorization", admin.basic());
    let mut repeated = Vec::new();
    for (path, body) in [
        ("/v1/keys", json!({ "name": "x", "scopes": [], "token_lifetime": secret })),
        ("/v1/keys", json!({ "name": "x", "scopes": secret })),
        ("/v1/keys", json!({ "name": "x", "scopes": [secret] })),
        ("/v1/keys", json!({ "name": "x", "scopes": [], "application_id": secret })),
        ("/v1/keys", json!({ "name": "x", "scopes": [], "expires_at": secret })),
        ("/v1/keys", json!({ "name": "x", "scopes": [], "import": [secret] })),
        ("/v1/keys", json!({ "name": "x", "scopes": [], "import": secret })),
        ("/v1/keys", json!(secret)),
        ("/v1/tenants", json!({ "slug": secret, "settings": { "throttle": secret } })),
        ("/v1/users", json!({ "username": "u", "email": secret })),
        ("/v1/applications", json!({ "name": "x", "token_lifetime": secret })),
    ] {
        let answer = as_admin(serving.http.post(serving.url(path))).json(&body).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 422, "{path}: {body}: {text}");
        if text.contains(secret) {
            repeated.push(format!("POST {path} {body}: {text}"));
        }
    }
    for path in [
        "/v1/keys?limit=",
        "/v1/keys?user_id=",
        "/v1/users?after=",
        "/v1/tenants?after=",
        "/v1/audit?after=",
        "/v1/public-key?format=",
    ] {
        let answer = as_admin(serving.http.get(serving.url(&format!("{path}{secret}")))).send().await.unwrap();
        let text = answer.text().await.unwrap();
        if text.contains(secret) {
            repeated.push(format!("GET {path}{secret}: {text}"));
        }
    }
    assert!(repeated.is_empty(), "{}", repeated.join("\n"));
    assert_eq!(serving.stop().await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn p41_a_log_line_is_one_json_object_whatever_is_sent() {
    /// What would end a line, colour it, turn it round, or close its string.
    const NASTY: [&str; 9] = [
        "\r\n{\"level\":\"ERROR\",\"message\":\"forged\"}",
        "\n",
        "\r",
        "\u{1b}[31mred\u{1b}[0m",
        "\u{202e}drowssap\u{2066}",
        "\",\"forged\":\"",
        "\\\",\\",
        "\u{2028}\u{85}\u{9b}31m",
        "\0",
    ];
    let home = Home::new();
    let serving = talkative(&home).await;
    wait_until("the admin key is printed", async || serving.out().contains("/docs")).await;
    let admin = serving.admin();
    for nasty in NASTY {
        for as_sent in [nasty.to_owned(), percent(nasty)] {
            for (method, path) in [
                ("GET", format!("/{as_sent}")),
                ("GET", format!("/t/{as_sent}/v1/me")),
                ("POST", format!("/v1/authentications?{as_sent}")),
            ] {
                raw(&serving, format!("{method} {path} HTTP/1.1\r\nHost: id.test\r\nConnection: close\r\n\r\n").as_bytes()).await;
            }
        }
        for header in ["User-Agent", "X-Request-Id", "X-Forwarded-For", "Host", "Content-Type", "Traceparent", "Referer"] {
            let authorization = admin.basic();
            let request = format!(
                "POST /v1/keys HTTP/1.1\r\nHost: id.test\r\nConnection: close\r\nAuthorization: {authorization}\r\n{header}: a{nasty}b\r\nContent-Length: 0\r\n\r\n"
            );
            raw(&serving, request.as_bytes()).await;
        }
        for method in [format!("G{nasty}ET"), nasty.to_owned()] {
            raw(&serving, format!("{method} / HTTP/1.1\r\nHost: id.test\r\nConnection: close\r\n\r\n").as_bytes()).await;
        }
        // The id of a key that is refused is logged.
        for authorization in [format!("ck_{nasty}:secret"), format!("Basic {}", STANDARD.encode(format!("ck_{nasty}:secret")))] {
            let request = format!(
                "POST /v1/authentications HTTP/1.1\r\nHost: id.test\r\nConnection: close\r\nAuthorization: {authorization}\r\nContent-Length: 0\r\n\r\n"
            );
            raw(&serving, request.as_bytes()).await;
        }
        let send = async |path: &str, body: Value| {
            let request = serving.http.post(serving.url(path)).header("Authorization", admin.basic()).json(&body);
            assert!(!request.send().await.unwrap().status().is_server_error(), "{path}: {body}");
        };
        send("/v1/users", json!({ "username": nasty, "email": nasty })).await;
        send("/v1/applications", json!({ "name": format!("a{nasty}") })).await;
        send("/v1/tenants", json!({ "slug": nasty, "name": nasty })).await;
        send("/v1/keys", json!({ "name": nasty, "scopes": [nasty], nasty: nasty })).await;
        let header = URL_SAFE_NO_PAD.encode(json!({ "alg": nasty, "kid": nasty, "typ": nasty }).to_string());
        let claims = URL_SAFE_NO_PAD.encode(json!({ "iss": format!("{}t/{nasty}", serving.url("/")), "sub": nasty }).to_string());
        let me = serving.http.get(serving.url("/v1/me")).bearer_auth(format!("{header}.{claims}.AAAA"));
        assert_eq!(me.send().await.unwrap().status(), 401);
    }
    let unknown = Pair { key: "well-formed".into(), secret: "but-not-known-to-anybody".into() };
    assert_eq!(serving.exchange(&unknown).await.status(), 404);
    let ended = serving.stop().await;
    assert_eq!(ended.status.code(), Some(0));
    let log = events(&ended.err);
    assert!(log.len() > 100);
    assert!(log.iter().all(|event| event.get("forged").is_none() && event["message"] != "forged"), "a line was forged");
    // What moves a terminal's cursor or turns its text round is not printed as it came.
    let raw_characters = ['\u{1b}', '\u{9b}', '\u{85}', '\u{202e}', '\u{2066}', '\u{2028}', '\0', '\r'];
    for character in raw_characters {
        let line = ended.err.lines().find(|line| line.contains(character));
        assert!(line.is_none(), "{character:?} was printed as it came: {line:?}");
    }
    // Logged, but without the id that nobody has: it may be a secret in the wrong place.
    let refused = log.iter().find(|event| event["reason"] == "unknown_key").expect("a refused pair is logged");
    assert_eq!(refused["level"], "INFO");
    assert!(!ended.err.contains("well-formed"));
}
