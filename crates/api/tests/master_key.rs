//! Another master key while servers run, and where the master key comes from (SECURITY D3, T29).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod binary_support;

use std::fs;
use std::time::{Duration, Instant};

use binary_support::{Home, Serving, free_port, run};

const NEW: &str = "bmV3IG1hc3RlciBrZXksIDMyIGJ5dGVzIGxvbmchISE=\n";

#[tokio::test]
async fn t29_the_master_key_is_changed_under_load_and_nothing_fails() {
    let home = Home::new();
    let new = home.file("new.key");
    fs::write(&new, NEW).unwrap();
    let port = free_port();
    let mut command = home.command(&["serve", "--listen", &format!("127.0.0.1:{port}")]);
    // While it changes, servers open both.
    command.env("CLAVIGER_OTHER_MASTER_KEY_FILES", format!("[{new:?}]"));
    let serving = Serving::start(command, port).await;
    let admin = serving.admin();
    for slug in ["a", "b", "c"] {
        home.ok(&["tenant", "create", slug]);
    }
    // A connection whose secret is sealed.
    let provider = ["--issuer", "https://id.example.com", "--client-id", "us", "--secret-stdin", "corp"];
    let made = run(home.command(&[&["connection", "create", "--tenant", "a"], &provider[..]].concat()), "hush hush");
    assert_eq!(made.code, Some(0), "{made:?}");
    let rotate = ["master-key", "rotate", "--new-file", new.to_str().unwrap()];
    let begun = Instant::now();
    let (mut exchanges, mut counts) = (0, Vec::new());
    let working = async {
        while begun.elapsed() < Duration::from_secs(4) {
            assert_eq!(serving.exchange(&admin).await.status(), 201);
            exchanges += 1;
        }
    };
    let changing = async {
        for _ in 0..2 {
            let said = tokio::process::Command::from(home.command(&[&rotate[..], &["--output", "json"]].concat()));
            let said = { said }.output().await.unwrap();
            assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
            let told: serde_json::Value = serde_json::from_slice(&said.stdout).unwrap();
            counts.push((told["changed"].as_u64().unwrap(), told["unchanged"].as_u64().unwrap()));
        }
    };
    tokio::join!(working, changing);
    // Two secrets of the installation, a signing key of each tenant, and the connection's secret.
    assert_eq!(counts, [(7, 0), (0, 7)], "done once, and again it finds nothing to do");
    assert!(exchanges > 10, "{exchanges}");
    let token = serving.token(&admin).await;
    serving.stop().await;

    // The old one opens nothing any more, and says so soon; the new one alone does.
    let begun = Instant::now();
    let refused = home.fails(&["tenant", "list"]);
    assert!(refused.contains("the master key does not open"), "{refused}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}, with the start of the database", begun.elapsed());
    fs::write(home.master_key(), NEW).unwrap();
    let serving = home.serve().await;
    let asked = serving.http.get(serving.url("/v1/me")).bearer_auth(&token).send().await.unwrap();
    // The issuer has moved to another port: it is another issuer's token, and no fault.
    assert!([200, 401].contains(&asked.status().as_u16()));
    assert_eq!(serving.exchange(&admin).await.status(), 201);
    let trail = home.json(&["audit", "list", "--tenant", "a", "--action", "master_key.rotate"]);
    assert_eq!(trail.as_array().unwrap().len(), 1);
    let begun = Instant::now();
    let wrong = home.run_with(&["tenant", "list"], &[("CLAVIGER_MASTER_KEY", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=")]);
    assert_eq!(wrong.code, Some(1));
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_master_key_can_come_from_a_command() {
    let home = Home::new();
    home.ok(&["tenant", "create", "acme"]);
    let file = home.master_key();
    let key = fs::read_to_string(&file).unwrap();
    let elsewhere = home.file("elsewhere.key");
    fs::rename(&file, &elsewhere).unwrap();
    let with = |command: &str| home.run_with(&["tenant", "list"], &[("CLAVIGER_MASTER_KEY_COMMAND", command)]);
    let told = with(&format!("cat {}", elsewhere.display()));
    assert_eq!(told.code, Some(0), "{told:?}");
    for (command, complaint) in [("exit 3", "failed"), ("echo nonsense", "is not 32 bytes"), ("no-such-command-here", "failed")] {
        let said = with(command);
        assert_eq!(said.code, Some(1), "{command}");
        assert!(said.err.contains("master_key_command") && said.err.contains(complaint), "{said:?}");
        assert!(!said.err.contains("nonsense\n"));
    }
    let both =
        home.run_with(&["tenant", "list"], &[("CLAVIGER_MASTER_KEY_COMMAND", "cat key"), ("CLAVIGER_MASTER_KEY", key.trim())]);
    assert!(both.err.contains("give one of"), "{both:?}");
}

#[tokio::test]
async fn t29_a_change_that_is_killed_again_and_again_is_taken_up_and_waiting_mail_goes_along() {
    let home = Home::new();
    let new = home.file("new.key");
    fs::write(&new, NEW).unwrap();
    let port = free_port();
    let mut command = home.command(&["serve", "--listen", &format!("127.0.0.1:{port}")]);
    command.env("CLAVIGER_OTHER_MASTER_KEY_FILES", format!("[{new:?}]"));
    // Nobody takes mail there: it waits.
    command.env("CLAVIGER_MAIL__SMTP_URL", format!("smtp://127.0.0.1:{}", free_port()));
    command.env("CLAVIGER_MAIL__FROM", "Claviger <no-reply@example.com>");
    let serving = Serving::start(command, port).await;
    let admin = serving.admin();
    for number in 0..80 {
        let body = serde_json::json!({ "slug": format!("t{number}") });
        let made = serving.http.post(serving.url("/v1/tenants")).header("Authorization", admin.basic()).json(&body);
        assert_eq!(made.send().await.unwrap().status(), 201);
    }
    const MAILS: i64 = 3;
    for number in 0..MAILS {
        let body = serde_json::json!({ "app_name": "a", "email": format!("dev{number}@example.com") });
        let asked = serving.http.post(serving.url(&format!("/t/t{number}/v1/key-requests"))).json(&body);
        assert_eq!(asked.send().await.unwrap().status(), 202);
    }
    let mut superuser = home.superuser().await;
    let waiting: i64 = sqlx::query_scalar("SELECT count(*) FROM mail_outbox").fetch_one(&mut superuser).await.unwrap();
    assert_eq!(waiting, MAILS);

    let rotate = ["master-key", "rotate", "--new-file", new.to_str().unwrap(), "--output", "json"];
    let (mut kills, mut patience) = (0, Duration::from_millis(50));
    let told = loop {
        let mut child = tokio::process::Command::from(home.command(&rotate));
        let child = child.stdout(std::process::Stdio::piped()).kill_on_drop(true).spawn().unwrap();
        // Dropped, it is killed (SIGKILL), wherever it is.
        match tokio::time::timeout(patience, child.wait_with_output()).await {
            Ok(said) => break said.unwrap(),
            Err(_) => kills += 1,
        }
        assert_eq!(serving.exchange(&admin).await.status(), 201, "whatever was left half done, it is served");
        patience += Duration::from_millis(20);
    };
    assert!(told.status.success());
    let told: serde_json::Value = serde_json::from_slice(&told.stdout).unwrap();
    let (changed, unchanged) = (told["changed"].as_i64().unwrap(), told["unchanged"].as_i64().unwrap());
    // The keys of 80 tenants and the default one, two secrets of the installation, and what waits.
    assert_eq!(changed + unchanged, 81 + 2 + MAILS, "{told}");
    assert!(kills > 0 && unchanged > 0, "{kills} kills left {unchanged} done: nothing was taken up");
    let trail: i64 = sqlx::query_scalar("SELECT count(*) FROM audit_entries WHERE action = 'master_key.rotate'")
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    assert_eq!(trail, 81, "of each tenant once");
    sqlx::query("UPDATE mail_outbox SET next_try_at = now()").execute(&mut superuser).await.unwrap();
    drop(superuser);
    serving.stop().await;

    // The new key alone opens all of it: every tenant signs, and the mail is sent.
    fs::write(home.master_key(), NEW).unwrap();
    let serving = home.serve().await;
    for number in 0..80 {
        let answer = serving.http.get(serving.url(&format!("/t/t{number}/.well-known/jwks.json"))).send().await.unwrap();
        assert_eq!(answer.status(), 200);
    }
    let outbox = home.data_dir().join("outbox");
    let sent = || fs::read_dir(&outbox).map_or(0, |entries| i64::try_from(entries.count()).unwrap());
    binary_support::wait_until("the mail is sent", async || sent() == MAILS).await;
    home.ok(&["audit", "verify"]);
}

#[tokio::test]
async fn t29_production_does_not_start_with_a_signing_key_that_everybody_can_read() {
    let home = Home::new();
    home.ok(&["tenant", "create", "acme"]);
    let sample = home.file("sample.key");
    // The example of RFC 8037, appendix A.
    fs::write(&sample, "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=").unwrap();
    home.ok(&["signing-key", "import", "--tenant", "acme", "--now", "--file", sample.to_str().unwrap()]);
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    let production = |key: &str| {
        let mut command = home.command(&["serve", "--listen", &listen]);
        command.envs([
            ("CLAVIGER_PRODUCTION", "true"),
            ("CLAVIGER_PUBLIC_URL", "https://id.example.com"),
            ("CLAVIGER_MASTER_KEY", key),
        ]);
        command
    };
    let key = fs::read_to_string(home.master_key()).unwrap();
    let said = binary_support::run(production(key.trim()), "");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.err.contains("acme") && said.err.contains("published as an example") && said.err.contains("--emergency"),
        "{said:?}"
    );
    home.ok(&["signing-key", "rotate", "--tenant", "acme", "--emergency"]);
    Serving::start(production(key.trim()), port).await.stop().await;
}
