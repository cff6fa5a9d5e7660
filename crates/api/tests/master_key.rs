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
