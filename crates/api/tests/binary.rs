//! The binary as its users have it: started, asked, stopped, killed, misconfigured.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod binary_support;
mod support;

use std::fs;
use std::net::TcpListener;
use std::process::Command;
use std::time::{Duration, Instant};

use binary_support::{
    CLAVIGER, Home, Pair, Said, Serving, claviger, free_port, is_gone, mode, one_document, run, wait_until, without_settings,
};
use claviger_verifier::{Expected, KeySet, verify};
use nix::sys::signal::{Signal, kill};
use serde_json::{Value, json};
use sqlx::Row as _;
use support::{Database, claims};

/// The last that is said, after the log of a server, is `error: …`, and it names what is wrong and the way out.
fn assert_complains(said: &str, about: &[&str]) {
    let start = if said.starts_with("error: ") { Some(0) } else { said.find("\nerror: ") };
    let error = start.and_then(|start| said.get(start..)).unwrap_or_else(|| panic!("no error is told: {said}"));
    for part in about {
        assert!(error.contains(part), "`{part}` is not in: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scenario_01_the_first_steps_work_as_they_stand() {
    let home = Home::new();
    let port = free_port();
    assert_eq!(run(home.line("claviger --data-dir D tenant create acme"), "").code, Some(0));
    assert_eq!(run(home.line("claviger --data-dir D app create --tenant acme --name demo"), "").code, Some(0));
    let made = run(
        home.line(
            "claviger --data-dir D key create --tenant acme --app demo --scope events:read --scope events:write --output json",
        ),
        "",
    );
    assert_eq!(made.code, Some(0), "{made:?}");
    let made = one_document(&made.out);
    let pair = Pair::of(&made);
    assert!(pair.key.starts_with("ck_") && pair.secret.starts_with("cs_"), "{made}");
    assert_eq!(made["scopes"], json!(["events:read", "events:write"]));
    assert!(made["expires_at"].is_string(), "a year, unless the tenant says otherwise: {made}");
    let user = run(
        home.line("claviger --data-dir D user add --tenant acme --username alice --email alice@example.com --output json"),
        "",
    );
    let user = one_document(&user.out);
    assert_eq!((&user["username"], &user["email"]), (&json!("alice"), &json!("alice@example.com")));

    let serving = Serving::start(home.line(&format!("claviger --data-dir D serve --listen 127.0.0.1:{port}")), port).await;
    let answer = serving
        .http
        .post(format!("http://127.0.0.1:{port}/v1/authentications"))
        .header("Authorization", format!("{}:{}", pair.key, pair.secret))
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 201);
    let jwt = answer.json::<Value>().await.unwrap()["jwt"].as_str().unwrap().to_owned();
    let jwks = serving.http.get(format!("http://127.0.0.1:{port}/t/acme/.well-known/jwks.json")).send().await.unwrap();
    assert_eq!(jwks.status(), 200);
    let keys = KeySet::from_jwks(&jwks.text().await.unwrap()).unwrap();
    let issuer = format!("http://127.0.0.1:{port}/t/acme");
    let expected = Expected { issuer: &issuer, audience: Some(&issuer), leeway_seconds: 60 };
    let now = claims(&jwt)["iat"].as_i64().unwrap();
    let token = verify(&jwt, &keys, &expected, now).unwrap();
    assert_eq!(token.scope, ["events:read", "events:write"]);
    assert_eq!(token.key_id.as_deref(), Some(pair.key.as_str()));
    assert_eq!(token.subject, made["application_id"].as_str().unwrap());

    let entries = home.json(&["audit", "list", "--tenant", "acme", "--action", "key.exchange"]);
    assert_eq!(entries.as_array().unwrap().len(), 1);
    assert_eq!((&entries[0]["outcome"], &entries[0]["target"]), (&json!("ok"), &json!(format!("token:{}", token.token_id))));
    let mut database = home.superuser().await;
    let row = sqlx::query("SELECT key_id, scope FROM issued_tokens WHERE jti = $1::uuid")
        .bind(&token.token_id)
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert_eq!((row.get::<String, _>(0), row.get::<String, _>(1)), (pair.key.clone(), "events:read events:write".to_owned()));
    drop(database);
    assert!(serving.stop().await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_start_prints_an_admin_key_once_and_its_curl_line_works() {
    let home = Home::new();
    let serving = home.serve().await;
    wait_until("the admin key is printed", async || serving.out().contains("/docs")).await;
    let admin = serving.admin();
    let out = serving.out();
    assert_eq!(out.matches("api_secret").count(), 1, "{out}");
    let line = out.lines().map(str::trim).find(|line| line.starts_with("curl ")).expect("no curl line");
    let wanted = format!(
        "curl -i -X POST http://127.0.0.1:{}/v1/authentications -H 'Authorization: {}:{}'",
        serving.port, admin.key, admin.secret
    );
    assert_eq!(line, wanted);
    assert_eq!(serving.exchange(&admin).await.status(), 201);
    if Command::new("curl").arg("--version").output().is_ok_and(|found| found.status.success()) {
        let mut shell = Command::new("sh");
        shell.args(["-c", line]).env("no_proxy", "*");
        let said = run(shell, "");
        assert!(said.out.starts_with("HTTP/1.1 201 ") && said.out.contains("{\"jwt\":\""), "{said:?}");
    }
    // It is an admin: of its own tenant, and of the others.
    let tenants = serving.http.get(serving.url("/v1/tenants")).header("Authorization", admin.basic()).send().await.unwrap();
    assert_eq!(tenants.status(), 200);
    assert_eq!(mode(&home.master_key()), 0o600);
    let postmaster = home.postmaster().expect("the private Postgres runs");

    let port = serving.port;
    let ended = serving.stop().await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert!(is_gone(postmaster), "SIGTERM left the private Postgres behind");
    assert!(!ended.err.contains(&admin.secret), "the secret is in the log");

    let again = home.serve_on(port).await;
    assert_eq!(again.exchange(&admin).await.status(), 201);
    let ended = again.stop().await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(ended.out, "", "the second start printed something");
    assert!(!ended.err.contains("api_key"), "{}", ended.err);
    let made = home.json(&["audit", "list", "--tenant", "default", "--action", "key.create"]);
    assert_eq!(made.as_array().unwrap().len(), 1, "one admin key, made once");
}

#[tokio::test(flavor = "multi_thread")]
async fn scenario_20_commands_work_beside_a_running_server_and_after_it() {
    let home = Home::new();
    home.ok(&["tenant", "create", "acme"]);
    home.ok(&["app", "create", "--tenant", "acme", "--name", "demo"]);
    let create = ["key", "create", "--tenant", "acme", "--app", "demo", "--scope", "events:read"];
    let before = Pair::of(&home.json(&create));
    let serving = home.serve().await;
    assert_eq!(serving.exchange(&before).await.status(), 201);
    let beside = Pair::of(&home.json(&create));
    let jwt = serving.token(&beside).await;

    assert_eq!(home.ok(&["key", "revoke", "--tenant", "acme", &beside.key]), format!("{}  revoked\n", beside.key));
    // The promise is one second; a crowded machine gets more.
    let began = Instant::now();
    wait_until("the running server refuses the key", async || serving.exchange(&beside).await.status() == 404).await;
    println!("a key revoked by the command line was refused after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(5));
    let me = serving.http.get(serving.url("/v1/me")).bearer_auth(&jwt).send().await.unwrap();
    assert_eq!(me.status(), 401, "the token of a revoked key still counts");
    assert_eq!(serving.exchange(&before).await.status(), 201, "the other key is as it was");

    // A whole application, too.
    home.ok(&["app", "disable", "--tenant", "acme", "demo"]);
    let began = Instant::now();
    wait_until("the running server refuses the application", async || serving.exchange(&before).await.status() == 404).await;
    assert!(began.elapsed() < Duration::from_secs(5));
    let postmaster = home.postmaster().unwrap();
    assert!(serving.stop().await.status.success());
    assert!(is_gone(postmaster));

    assert_eq!(home.ok(&["key", "list", "--tenant", "acme"]).lines().count(), 1);
    home.ok(&["app", "enable", "--tenant", "acme", "demo"]);
    let revoked = home.json(&["audit", "list", "--tenant", "acme", "--action", "key.revoke"]);
    assert_eq!(revoked[0]["target"], format!("key:{}", beside.key));
    assert_eq!(revoked[0]["actor"], "operator:cli");
    home.postgres_is_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_kill_minus_nine_the_next_start_is_clean() {
    let home = Home::new();
    let serving = home.serve().await;
    wait_until("the admin key is printed", async || serving.out().contains("/docs")).await;
    let (port, admin) = (serving.port, serving.admin());
    let mut tokens = vec![serving.token(&admin).await];
    serving.kill();
    for round in ["once", "twice", "with the whole database", "with its watchers"] {
        let serving = home.serve_on(port).await;
        println!("killed {round}: ready again after {:?}", serving.ready_after);
        tokens.push(serving.token(&admin).await);
        let (postmaster, watchers) = (home.postmaster().unwrap(), home.watchers());
        assert!(!watchers.is_empty());
        if round == "with its watchers" {
            // First, because they would stop what nobody uses any more: so it becomes an orphan that runs on.
            watchers.iter().for_each(|watcher| kill(*watcher, Signal::SIGKILL).unwrap());
        }
        if round == "with the whole database" {
            kill(postmaster, Signal::SIGKILL).unwrap();
        }
        serving.kill();
    }
    let orphan = home.postmaster().expect("the orphan still runs");
    let serving = home.serve_on(port).await;
    assert_eq!(home.postmaster(), Some(orphan), "the orphan is joined, not doubled");
    tokens.push(serving.token(&admin).await);
    let mut database = home.superuser().await;
    for jwt in &tokens {
        let found: i64 = sqlx::query_scalar("SELECT count(*) FROM issued_tokens WHERE jti = $1::uuid")
            .bind(claims(jwt)["jti"].as_str().unwrap())
            .fetch_one(&mut database)
            .await
            .unwrap();
        assert_eq!(found, 1);
    }
    drop(database);
    let ended = serving.stop().await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(ended.out, "", "a start after a kill made a second admin key");
    home.postgres_is_down().await;
    home.ok(&["audit", "verify"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_port_is_told_before_anything_is_started() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let said = home.fails(&["serve", "--listen", &address]);
    assert_complains(&said, &[&format!("cannot listen on {address}"), "--listen"]);
    assert!(!home.data_dir().exists(), "a database was made in vain");
    let said = home.fails(&["serve", "--listen", "nonsense"]);
    assert!(said.contains("nonsense") && said.contains("--listen"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_master_key_is_refused_by_every_way_in() {
    let home = Home::new();
    // However lax the user is about new files: the key is not.
    let mut lax = Command::new("sh");
    without_settings(&mut lax);
    lax.args(["-c", r#"umask 0; exec "$0" "$@""#, CLAVIGER, "--data-dir"])
        .arg(home.data_dir())
        .args(["tenant", "create", "acme"]);
    assert_eq!(run(lax, "").code, Some(0));
    let right = fs::read_to_string(home.master_key()).unwrap();
    assert_eq!(mode(&home.master_key()), 0o600);
    assert_eq!(mode(&home.data_dir()) & 0o066, 0, "others may look into the data directory");

    let other = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n";
    fs::write(home.master_key(), other).unwrap();
    let wrong = ["the master key does not open", "CLAVIGER_MASTER_KEY"];
    assert_complains(&home.fails(&["serve", "--listen", "127.0.0.1:0"]), &wrong);
    assert_complains(&home.fails(&["tenant", "list"]), &wrong);
    let (code, findings) = doctor(&home, &[]);
    assert_eq!(code, Some(1));
    let sealed = finding(&findings, "sealed secrets");
    assert!(sealed["ok"] == false && sealed["text"].as_str().unwrap().contains("the master key does not open"), "{findings:?}");
    let text = home.run(&["doctor"]);
    assert_eq!(text.code, Some(1));
    assert!(text.out.contains("WRONG  sealed secrets: "), "{text:?}");

    fs::write(home.master_key(), "not a key").unwrap();
    let said = home.fails(&["serve", "--listen", "127.0.0.1:0"]);
    assert_complains(&said, &["master.key", "is not 32 bytes in base64", "openssl rand -base64 32"]);
    assert!(!said.contains("not a key\n"), "what stands in the file is not printed");

    // One that is gone is not replaced by another, which would open nothing.
    fs::remove_file(home.master_key()).unwrap();
    assert_complains(&home.fails(&["serve", "--listen", "127.0.0.1:0"]), &["master.key", "is gone", "put it back"]);
    assert!(!home.master_key().exists());

    fs::write(home.master_key(), right).unwrap();
    home.ok(&["tenant", "list"]);
    home.postgres_is_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn production_needs_a_master_key_and_a_public_url_and_speaks_https_only() {
    const MASTER_KEY: &str = "CLAVIGER_MASTER_KEY";
    const PUBLIC_URL: &str = "CLAVIGER_PUBLIC_URL";
    let home = Home::new();
    let database = Database::create().await;
    let key = "bmV2ZXIgdG8gYmUgdXNlZCBvdXRzaWRlIG9mIGEgdGU=";
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let production = |arguments: &[&str], more: &[(&str, &str)]| {
        let mut command = home.command(arguments);
        command.env("DATABASE_URL", database.url()).envs(more.iter().copied()).env("CLAVIGER_DRAIN_WAIT", "0");
        command
    };
    let serve = ["serve", "--listen", listen.as_str()];
    let refused = |more: &[(&str, &str)], about: &[&str]| {
        let said = run(production(&serve, more), "");
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{said:?}");
        assert_complains(&said.err, about);
        assert!(!said.err.contains(key));
    };
    refused(&[], &["configuration: production needs"]);
    refused(&[(MASTER_KEY, key)], &["production needs public_url", PUBLIC_URL]);
    refused(&[(PUBLIC_URL, "https://id.example.com")], &["production needs a master key", MASTER_KEY]);
    refused(&[(MASTER_KEY, key), (PUBLIC_URL, "http://id.example.com")], &["https://"]);
    refused(&[(MASTER_KEY, "c2hvcnQ="), (PUBLIC_URL, "https://id.example.com")], &["master_key is not 32 bytes in base64"]);
    refused(
        &[(MASTER_KEY, key), (PUBLIC_URL, "https://id.example.com"), ("CLAVIGER_TRUSTED_PROXIES", "0.0.0.0/0")],
        &["would believe everybody"],
    );
    assert!(!home.data_dir().exists(), "production keeps nothing in a data directory");

    let set = [(MASTER_KEY, key), (PUBLIC_URL, "https://id.example.com"), ("CLAVIGER_TRUSTED_PROXIES", "127.0.0.1")];
    let said = run(production(&["config", "check"], &set), "");
    assert!(said.code == Some(0) && said.out.contains("production") && said.out.contains("https only  true"), "{said:?}");
    for arguments in [&["tenant", "create", "acme"][..], &["user", "add", "--tenant", "acme", "--username", "alice"]] {
        let said = run(production(arguments, &set), "");
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    }
    let create = ["key", "create", "--tenant", "acme", "--user", "alice", "--scope", "events:read", "--output", "json"];
    let pair = Pair::of(&one_document(&run(production(&create, &set), "").out));

    let serving = Serving::start(production(&serve, &set), port).await;
    let plain = serving.exchange(&pair).await;
    assert_eq!(plain.status(), 403);
    assert_eq!(plain.headers()["content-type"], "application/problem+json");
    assert!(plain.headers().get("strict-transport-security").is_none());
    assert_eq!(plain.json::<Value>().await.unwrap()["error"], "https-required");
    let behind_proxy = serving
        .http
        .post(serving.url("/v1/authentications"))
        .header("Authorization", pair.text())
        .header("X-Forwarded-Proto", "https")
        .header("X-Forwarded-For", "198.51.100.7");
    let answer = behind_proxy.send().await.unwrap();
    assert_eq!(answer.status(), 201);
    assert_eq!(answer.headers()["strict-transport-security"], "max-age=63072000; includeSubDomains");
    let jwt = answer.json::<Value>().await.unwrap()["jwt"].as_str().unwrap().to_owned();
    assert_eq!(claims(&jwt)["iss"], "https://id.example.com/t/acme");
    assert_eq!(serving.http.get(serving.url("/healthz")).send().await.unwrap().status(), 200);

    let mut superuser = database.superuser().await;
    let heard: Vec<(String, Option<String>)> =
        sqlx::query_as("SELECT outcome, personal FROM audit_entries WHERE action = 'key.exchange'")
            .fetch_all(&mut superuser)
            .await
            .unwrap();
    assert_eq!(heard.len(), 1, "what was sent over plain http is not an exchange: {heard:?}");
    assert!(heard[0].0 == "ok" && heard[0].1.as_ref().unwrap().contains("198.51.100.7"), "{heard:?}");
    let ended = serving.stop().await;
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    assert_eq!(ended.out, "", "production makes no admin key by itself");
    assert!(!ended.err.contains(&pair.secret) && !ended.err.contains(key));
    assert!(!home.data_dir().exists());
    let answers: i32 = sqlx::query_scalar("SELECT 1").fetch_one(&mut superuser).await.unwrap();
    assert_eq!(answers, 1, "the given database is not ours to stop");
}

#[test]
fn an_unknown_setting_is_named() {
    let home = Home::new();
    let file = home.file("claviger.toml");
    let named = file.to_str().unwrap();
    fs::write(&file, "lisen = \"127.0.0.1:1\"\n").unwrap();
    for arguments in
        [&["config", "check", "--config", named][..], &["serve", "--config", named], &["tenant", "list", "--config", named]]
    {
        let said = home.fails(arguments);
        assert_complains(&said, &["configuration: ", "lisen"]);
        assert!(said.contains("claviger.toml"), "which file is it? {said}");
    }
    let said = home.run_with(&["config", "check"], &[("CLAVIGER_LISEN", "127.0.0.1:1")]);
    assert_eq!(said.code, Some(1));
    assert_complains(&said.err, &["configuration: ", "lisen"]);
    fs::write(&file, "[throttle]\nfailure = 1\n").unwrap();
    assert_complains(&home.fails(&["config", "check", "--config", named]), &["failure"]);
    fs::write(&file, "token_lifetime = \"long\"\n").unwrap();
    assert_complains(&home.fails(&["config", "check", "--config", named]), &["token_lifetime"]);
    fs::write(&file, "listen = \n").unwrap();
    assert_complains(&home.fails(&["config", "check", "--config", named]), &["claviger.toml"]);
    assert_complains(&home.fails(&["config", "check", "--config", "nowhere.toml"]), &["nowhere.toml does not exist"]);
    assert!(!home.data_dir().exists());
}

#[test]
fn the_printed_configuration_is_one_that_can_be_used() {
    let home = Home::new();
    let printed = home.ok(&["config", "print"]);
    let file = home.file("claviger.toml");
    let named = file.to_str().unwrap();
    fs::write(&file, &printed).unwrap();
    let said = home.ok(&["config", "check", "--config", named]);
    assert!(said.starts_with("The configuration is good.") && said.contains("trial run"), "{said}");
    // What is saved is what counts, and the environment wins over it.
    fs::write(&file, printed.replace("listen = \"127.0.0.1:8080\"", "listen = \"127.0.0.1:8181\"")).unwrap();
    assert!(home.ok(&["config", "check", "--config", named]).contains("127.0.0.1:8181"));
    let with = |name, value| home.run_with(&["config", "check"], &[("CLAVIGER_CONFIG", named), (name, value)]);
    assert!(with("CLAVIGER_LISTEN", "127.0.0.1:8282").out.contains("127.0.0.1:8282"));
    assert_eq!(with("CLAVIGER_THROTTLE__WINDOW", "60").code, Some(0));
    // Every setting that is only mentioned exists as well.
    let mut table = "";
    let mut mentioned = Vec::new();
    for line in printed.lines() {
        match line.strip_prefix("# ").filter(|line| is_setting(line)) {
            Some(setting) => mentioned.push(format!("{table}\n{setting}\n")),
            None if line.starts_with('[') => table = line,
            None => {}
        }
    }
    assert!(mentioned.len() > 5, "{mentioned:?}");
    for setting in mentioned {
        fs::write(&file, &setting).unwrap();
        let said = home.run(&["config", "check", "--config", named]);
        assert!(!said.err.contains("unknown field"), "{setting}: {}", said.err);
    }
}

/// `name = value`, and no sentence.
fn is_setting(line: &str) -> bool {
    line.split_once(" = ").is_some_and(|(name, _)| !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'))
}

#[test]
fn openapi_prints_the_document_without_an_installation() {
    let home = Home::new();
    let document = one_document(&home.ok(&["openapi"]));
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    assert!(document["paths"]["/v1/authentications"]["post"].is_object());
    assert_eq!(document, claviger::openapi::document());
    assert!(!home.data_dir().exists());
}

fn doctor(home: &Home, environment: &[(&str, &str)]) -> (Option<i32>, Vec<Value>) {
    let said = home.run_with(&["doctor", "--output", "json"], environment);
    (said.code, one_document(&said.out).as_array().unwrap().clone())
}

fn finding(findings: &[Value], check: &str) -> Value {
    findings.iter().find(|finding| finding["check"] == check).unwrap_or_else(|| panic!("no `{check}`: {findings:?}")).clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_doctor_finds_what_is_wrong_and_says_the_way_out() {
    let home = Home::new();
    let empty = home.file("empty");
    fs::create_dir(&empty).unwrap();
    let no_postgres = [("CLAVIGER_POSTGRES_BIN", empty.to_str().unwrap())];
    let (code, findings) = doctor(&home, &no_postgres);
    assert_eq!(code, Some(1));
    let database = finding(&findings, "database");
    assert_eq!(database["ok"], false);
    let text = database["text"].as_str().unwrap();
    assert!(text.contains(empty.to_str().unwrap()) && text.contains("`postgres` and `initdb`"), "{text}");
    let said = home.run_with(&["serve", "--listen", "127.0.0.1:0"], &no_postgres);
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    assert_complains(&said.err, &[empty.to_str().unwrap(), "initdb"]);

    let (code, findings) = doctor(&home, &[]);
    assert_eq!(code, Some(1), "there is no default tenant yet");
    assert!(finding(&findings, "default tenant")["text"].as_str().unwrap().contains("claviger tenant create default"));

    let serving = home.serve().await;
    let beside = home.run(&["doctor"]);
    assert_eq!(beside.code, Some(0), "{beside:?}");
    assert!(serving.stop().await.status.success());
    let said = home.run(&["doctor"]);
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    assert!(said.out.lines().count() >= 8 && said.out.lines().all(|line| line.starts_with("ok     ")), "{}", said.out);

    fs::set_permissions(home.master_key(), std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let (code, findings) = doctor(&home, &[]);
    assert_eq!(code, Some(1));
    assert!(finding(&findings, "master key file")["text"].as_str().unwrap().contains("chmod 600"));
    fs::set_permissions(home.master_key(), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();

    let said = home.run_with(&["doctor"], &[("CLAVIGER_LISEN", "x")]);
    assert_eq!(said.code, Some(1));
    assert!(said.out.starts_with("WRONG  configuration: ") && said.out.contains("lisen"), "{said:?}");
    let elsewhere = [("DATABASE_URL", "postgres://user:canary@127.0.0.1:1/none"), ("CLAVIGER_PRODUCTION", "false")];
    let said = home.run_with(&["doctor"], &elsewhere);
    assert_eq!(said.code, Some(1));
    assert!(said.out.contains("WRONG  database"), "{said:?}");
    assert!(!said.out.contains("canary") && !said.err.contains("canary"), "the database's password is printed");
    home.postgres_is_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn scenario_21_create_key_for_a_person_prints_key_and_secret_once() {
    let home = Home::new();
    let serving = home.serve().await;
    home.ok(&["tenant", "create", "cta"]);
    for blank in ["", "  "] {
        let said = home.fails(&["create-key", "--tenant", "cta", "--email", blank]);
        assert_complains(&said, &["can't be blank"]);
    }
    home.fails(&["create-key", "--tenant", "cta", "--email", "no address"]);
    assert_eq!(home.json(&["user", "list", "--tenant", "cta"]), json!([]));

    let printed = home.ok(&["create-key", "--tenant", "cta", "--email", "New@Example.com"]);
    let word = |name: &str| {
        let lines: Vec<&str> = printed.lines().filter_map(|line| line.strip_prefix(name)).collect();
        assert_eq!(lines.len(), 1, "{printed}");
        lines[0].trim().to_owned()
    };
    let pair = Pair { key: word("api_key "), secret: word("api_secret ") };
    assert_eq!((printed.matches(&pair.key).count(), printed.matches(&pair.secret).count()), (1, 1), "{printed}");
    let users = home.json(&["user", "list", "--tenant", "cta"]);
    assert_eq!((users.as_array().unwrap().len(), &users[0]["email"]), (1, &json!("new@example.com")));
    // The same person's second key; the person is not made twice.
    let second = home.json(&["create-key", "--tenant", "cta", "--email", "new@example.com"]);
    assert_eq!(second["user_id"], users[0]["id"]);
    assert_eq!(home.json(&["user", "list", "--tenant", "cta"]).as_array().unwrap().len(), 1);
    for arguments in [&["key", "list", "--tenant", "cta"][..], &["audit", "list", "--tenant", "cta"]] {
        assert!(!home.json(arguments).to_string().contains(&pair.secret), "{arguments:?} shows the secret again");
    }
    let token = serving.token(&pair).await;
    assert_eq!(claims(&token)["sub"], users[0]["id"]);
    assert!(serving.stop().await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_made_elsewhere_is_imported_rotated_disabled_and_revoked() {
    const IMPORTED: &str = "legacy.key~1:kept-since-2019-by-our-old-server";
    let home = Home::new();
    let serving = home.serve().await;
    home.ok(&["tenant", "create", "acme"]);
    let with_key = home.json(&["tenant", "create", "b", "--admin-key"]);
    let first = Pair::of(&with_key["admin_key"]);
    assert_eq!((&with_key["slug"], serving.exchange(&first).await.status().as_u16()), (&json!("b"), 201));
    let told = home.ok(&["tenant", "create", "c", "--admin-key"]);
    assert!(told.contains("tenant-admin") && told.contains("api_secret  cs_"), "{told}");
    home.ok(&["app", "create", "--tenant", "acme", "--name", "demo"]);
    let import = ["key", "import", "--tenant", "acme", "--app", "demo", "--scope", "events:read", "--output", "json"];
    let said = run(home.command(&import), &format!("{IMPORTED}\n"));
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    let made = one_document(&said.out);
    assert_eq!(made["api_key"], "legacy.key~1");
    assert!(made.get("api_secret").is_none() && !said.out.contains("kept-since"), "an imported secret is known already: {made}");
    let fails = |input: &str, about: &str| {
        let Said { code, out, err } = run(home.command(&import), input);
        assert!(code == Some(1) && out.is_empty() && err.contains(about), "{code:?} {out} {err}");
        assert!(!err.contains("kept-since"), "the secret is repeated: {err}");
    };
    fails(IMPORTED, "taken");
    fails("another:kept-since-2", "could be guessed");
    fails("kept-since-2019-by-our-old-server", "key:secret");
    fails("", "key:secret");

    // Of another, the old system kept a hash alone: bcrypt of the secret.
    let hashed = Pair { key: "4JUfqYxWvMqGpkVkGfVwxRPx".into(), secret: "9f86d081884c7d659a2feaa0c55ad015".into() };
    let mut of_hash = home.command(&import);
    of_hash.arg("--hashed");
    let said = run(of_hash, &format!("{}:$2a$04$Zx9sGkQ0r5vJ3nB7mWc1peJg9l1uAArIho6j5RwDxOH7BNwTYWSoO\n", hashed.key));
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
    assert_eq!(one_document(&said.out)["api_key"], hashed.key);
    assert!(!said.out.contains("$2a$"), "{said:?}");
    assert_eq!(serving.exchange(&hashed).await.status(), 201);
    home.ok(&["key", "revoke", "--tenant", "acme", &hashed.key]);
    let mut of_no_hash = home.command(&import);
    of_no_hash.arg("--hashed");
    let said = run(of_no_hash, IMPORTED);
    assert!(said.code == Some(1) && said.err.contains("bcrypt") && !said.err.contains("kept-since"), "{said:?}");

    let pair = Pair { key: "legacy.key~1".into(), secret: "kept-since-2019-by-our-old-server".into() };
    assert_eq!(serving.exchange(&pair).await.status(), 201);
    let rotated = Pair::of(&home.json(&["key", "rotate", "--tenant", "acme", &pair.key, "--grace", "0"]));
    assert_eq!(rotated.key, pair.key);
    wait_until("the new secret works", async || serving.exchange(&rotated).await.status() == 201).await;
    assert_eq!(serving.exchange(&pair).await.status(), 404, "a grace of nothing leaves nothing");
    let overlapping = Pair::of(&home.json(&["key", "rotate", "--tenant", "acme", &pair.key]));
    wait_until("the newest secret works", async || serving.exchange(&overlapping).await.status() == 201).await;
    assert_eq!(serving.exchange(&rotated).await.status(), 201, "a day of grace is the default");

    home.ok(&["key", "disable", "--tenant", "acme", &pair.key]);
    wait_until("a disabled key is refused", async || serving.exchange(&overlapping).await.status() == 404).await;
    home.ok(&["key", "enable", "--tenant", "acme", &pair.key]);
    wait_until("an enabled key works", async || serving.exchange(&overlapping).await.status() == 201).await;
    assert_eq!(home.json(&["key", "revoke", "--tenant", "acme", &pair.key]), json!({ "revoked": pair.key }));
    wait_until("a revoked key is refused", async || serving.exchange(&overlapping).await.status() == 404).await;
    assert_complains(&home.fails(&["key", "revoke", "--tenant", "acme", &pair.key]), &["revoked already"]);
    assert_complains(&home.fails(&["key", "rotate", "--tenant", "acme", &pair.key]), &["there is no"]);
    assert_complains(&home.fails(&["key", "revoke", "--tenant", "acme", "no key id"]), &["`no key id`"]);
    assert_complains(&home.fails(&["key", "list", "--tenant", "nobody"]), &["`nobody`", "claviger tenant list"]);
    assert_eq!(home.json(&["key", "list", "--tenant", "acme"]), json!([]));

    let mut database = home.superuser().await;
    let secrets: i64 = sqlx::query_scalar("SELECT count(*) FROM api_key_secrets").fetch_one(&mut database).await.unwrap();
    assert_eq!(secrets, 6, "two of the imported key, one of the hashed one, two of new tenants, one of the first start's admin");
    drop(database);
    let entries = home.json(&["audit", "list", "--tenant", "acme", "--limit", "200"]);
    let done = |action: &str| entries.as_array().unwrap().iter().filter(|entry| entry["action"] == action).count();
    let counted = ["key.create", "key.rotate", "key.disable", "key.enable", "key.revoke"].map(done);
    assert_eq!(counted, [2, 2, 1, 1, 2], "what failed left no trace of success");
    assert_eq!(home.ok(&["audit", "list", "--tenant", "acme", "--action", "key.rotate", "--limit", "1"]).lines().count(), 1);
    assert!(serving.stop().await.status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn t27_audit_verify_finds_what_was_tampered_with() {
    let home = Home::new();
    let serving = home.serve().await;
    for tenant in ["acme", "other"] {
        home.ok(&["tenant", "create", tenant]);
        home.ok(&["app", "create", "--tenant", tenant, "--name", "demo"]);
    }
    let sound = home.json(&["audit", "verify", "--tenant", "acme"]);
    assert_eq!((&sound[0]["sound"], &sound[0]["entries"]), (&json!(true), &json!(3)));
    let anchor = sound[0]["anchor"].as_str().unwrap().to_owned();
    home.ok(&["audit", "verify", "--tenant", "acme", "--anchor", &anchor]);

    let mut database = home.superuser().await;
    let mut sql = async |statement: &'static str| {
        let statement = statement.replace("ACME", "(SELECT id FROM tenants WHERE slug = 'acme')");
        sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&mut database).await.unwrap().rows_affected()
    };
    assert_eq!(sql("UPDATE audit_entries SET detail = '{\"name\":\"demo\"} ' WHERE tenant_id = ACME AND seq = 3").await, 1);
    let said = home.run(&["audit", "verify"]);
    assert_eq!((said.code, said.err.as_str()), (Some(1), ""), "{said:?}");
    let of = |tenant: &str| said.out.lines().find(|line| line.starts_with(tenant)).unwrap().to_owned();
    assert!(of("acme").contains("BROKEN") && of("acme").contains('3'), "{}", said.out);
    assert!(of("other").contains("sound") && of("default").contains("sound"), "{}", said.out);
    let said = home.run(&["audit", "verify", "--output", "json"]);
    assert_eq!(said.code, Some(1));
    let results = one_document(&said.out);
    let broken: Vec<&Value> = results.as_array().unwrap().iter().filter(|result| result["sound"] == false).collect();
    assert!(broken.len() == 1 && broken[0]["tenant"] == "acme" && broken[0]["problem"].is_string(), "{results}");
    assert_eq!(home.run(&["audit", "verify", "--tenant", "other"]).code, Some(0));

    sql("UPDATE audit_entries SET detail = '{\"name\":\"demo\"}' WHERE tenant_id = ACME AND seq = 3").await;
    home.ok(&["audit", "verify"]);
    sql("DELETE FROM audit_entries WHERE tenant_id = ACME AND seq = 3").await;
    assert_eq!(home.run(&["audit", "verify"]).code, Some(1));
    drop(database);
    assert!(serving.stop().await.status.success());
    // After the server has gone as well.
    assert_eq!(home.run(&["audit", "verify", "--tenant", "acme"]).code, Some(1));
    assert_complains(&home.fails(&["audit", "verify", "--tenant", "acme", "--anchor", "1:xyz"]), &["64 hexadecimal digits"]);
    home.postgres_is_down().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_output_json_every_command_prints_one_document_and_nothing_else() {
    let home = Home::new();
    // Keeps the database up, which makes each command quick.
    let serving = home.serve().await;
    let json = |line: &str| home.json(&line.split(' ').collect::<Vec<_>>());
    assert_eq!(json("tenant create acme --name Acme")["name"], "Acme");
    assert_eq!(json("tenant list").as_array().unwrap().len(), 2);
    assert_eq!(json("tenant show acme")["slug"], "acme");
    assert_eq!(json("tenant disable acme")["status"], "disabled");
    assert_eq!(json("tenant enable acme")["status"], "active");
    let app = json("app create --tenant acme --name demo --token-lifetime 60");
    assert_eq!(app["token_lifetime"], 60);
    assert_eq!(json("app list --tenant acme")[0]["id"], app["id"]);
    assert_eq!(json("app disable --tenant acme demo")["status"], "disabled");
    assert_eq!(json(&format!("app enable --tenant acme {}", app["id"].as_str().unwrap()))["status"], "active");
    let user = json("user add --tenant acme --username alice --email alice@example.com");
    assert_eq!(json("user list --tenant acme")[0]["id"], user["id"]);
    assert_eq!(json("user disable --tenant acme alice")["status"], "disabled");
    assert_eq!(json("user enable --tenant acme alice")["status"], "active");
    let made = json("key create --tenant acme --user alice --scope events:read --expires 90d --token-lifetime 60 --name n");
    let key = made["api_key"].as_str().unwrap();
    assert!(made["expires_at"].is_string());
    assert_eq!(json("key list --tenant acme")[0]["api_key"], key);
    assert!(json(&format!("key rotate --tenant acme {key}"))["api_secret"].is_string());
    assert_eq!(json(&format!("key disable --tenant acme {key}"))["status"], "disabled");
    assert_eq!(json(&format!("key enable --tenant acme {key}"))["status"], "active");
    assert_eq!(json(&format!("key revoke --tenant acme {key}"))["revoked"], key);
    assert!(json("create-key --tenant acme --email bob@example.com")["api_secret"].is_string());
    assert!(json("audit list --tenant acme --limit 5").as_array().unwrap().len() == 5);
    assert_eq!(json("audit verify --tenant acme")[0]["sound"], true);
    assert!(json("user delete --tenant acme alice")["deleted"].is_string());
    assert!(json("app delete --tenant acme demo")["deleted"].is_string());
    assert_eq!(json("tenant delete acme")["deleted"], "acme");
    assert!(json("doctor").as_array().unwrap().iter().all(|finding| finding["ok"] == true));
    json("openapi");
    assert!(serving.stop().await.status.success());
}

#[test]
fn with_output_json_migrate_and_config_check_print_one_document_too() {
    let home = Home::new();
    assert!(home.json(&["config", "check"]).is_object());
    assert!(home.json(&["migrate"]).is_object());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_fails_says_so_on_standard_error_with_a_code() {
    let home = Home::new();
    // Before anything exists: nothing of this reaches a database.
    for arguments in [&["tenant"][..], &["no-such-command"], &["key", "create", "--tenant", "acme"], &["tenant", "create"]] {
        let said = home.run(arguments);
        assert!(said.code == Some(2) && said.out.is_empty() && !said.err.is_empty(), "{arguments:?}: {said:?}");
    }
    assert!(!home.data_dir().exists());
    // Keeps the database up, which makes each command quick.
    let serving = home.serve().await;
    home.ok(&["tenant", "create", "acme"]);
    home.ok(&["app", "create", "--tenant", "acme", "--name", "demo"]);
    home.ok(&["user", "add", "--tenant", "acme", "--username", "alice"]);
    let refused: [(&str, &str); 15] = [
        ("tenant create acme", "taken"),
        ("tenant create Acme", "slug"),
        ("tenant show nobody", "`nobody`"),
        ("tenant delete nobody", "`nobody`"),
        ("app create --tenant acme --name demo", "already"),
        ("app create --tenant nobody --name demo", "`nobody`"),
        ("app create --tenant acme --name x --token-lifetime 4", "token_lifetime"),
        ("app delete --tenant acme nothing", "`nothing`"),
        ("user add --tenant acme --username ALICE", "taken"),
        ("user disable --tenant acme nobody", "`nobody`"),
        ("key create --tenant acme --app nothing", "`nothing`"),
        ("key create --tenant acme --app demo --scope *", "wildcard"),
        ("key create --tenant acme --app demo --expires yesterday", "`yesterday`"),
        ("key create --tenant acme --app demo --expires 2001-01-01T00:00:00Z", "past"),
        ("audit list --tenant nobody", "`nobody`"),
    ];
    for format in ["text", "json"] {
        for (line, about) in refused {
            let mut arguments: Vec<&str> = line.split(' ').collect();
            arguments.extend(["--output", format]);
            let said = home.run(&arguments);
            assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{line}: {said:?}");
            assert_complains(&said.err, &[about]);
        }
    }
    let entries = home.json(&["audit", "list", "--tenant", "acme", "--limit", "200"]);
    assert_eq!(entries.as_array().unwrap().len(), 4, "what failed is in the trail as done: {entries}");
    assert!(serving.stop().await.status.success());
}

#[test]
fn every_command_and_every_option_has_a_help_text() {
    let version = run(command(&["--version"]), "");
    assert_eq!((version.code, version.out.as_str()), (Some(0), concat!("claviger ", env!("CARGO_PKG_VERSION"), "\n")));
    let bare = run(command(&[]), "");
    assert!(bare.code == Some(2) && bare.err.contains("Usage: "), "{bare:?}");
    let mut looked_at = 0;
    let mut waiting: Vec<Vec<String>> = vec![Vec::new()];
    while let Some(path) = waiting.pop() {
        looked_at += 1;
        let mut words: Vec<&str> = path.iter().map(String::as_str).collect();
        words.push("--help");
        let long = run(command(&words), "");
        assert!(long.code == Some(0) && long.err.is_empty(), "{words:?}: {long:?}");
        assert!(!long.out.starts_with("Usage"), "{path:?} does not say what it does");
        *words.last_mut().unwrap() = "-h";
        let short = run(command(&words), "").out;
        let mut section = "";
        for line in short.lines() {
            match line {
                "Commands:" | "Options:" | "Arguments:" => section = line,
                "" => section = "",
                _ if section.is_empty() => {}
                _ => {
                    // `  name  what it is`, or `  -n, --name <NAME>  what it is`
                    let (name, text) = line.trim().split_once("  ").unwrap_or_else(|| panic!("{path:?}: no help for {line}"));
                    assert!(!text.trim().is_empty(), "{path:?}: {line}");
                    if section == "Commands:" && name != "help" {
                        waiting.push(path.iter().cloned().chain([name.to_owned()]).collect());
                    }
                }
            }
        }
    }
    assert!(looked_at > 30, "only {looked_at} commands were found");
}

fn command(arguments: &[&str]) -> Command {
    let mut command = claviger();
    assert_eq!(command.get_program(), CLAVIGER);
    command.args(arguments);
    command
}
