//! Signing keys on the command line (SEEDS scenario 44).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod binary_support;

use binary_support::{Home, run};
use serde_json::Value;

#[tokio::test]
async fn scenario_44_a_generated_pair_is_imported_shown_rotated_and_exported() {
    let home = Home::new();
    home.ok(&["tenant", "create", "acme"]);
    let pair = home.ok(&["keypair", "generate"]);
    let public = pair.split('"').nth(1).unwrap();
    let import = ["signing-key", "import", "--tenant", "acme", "--file", "-", "--now"];
    let said = run(home.command(&import), &pair);
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(!said.out.contains(pair.split('"').nth(3).unwrap()), "the private half is not shown");
    assert_eq!(home.ok(&["signing-key", "export", "--tenant", "acme"]).trim(), public);
    let pem = home.ok(&["signing-key", "export", "--tenant", "acme", "--format", "pem"]);
    assert!(pem.starts_with("-----BEGIN PUBLIC KEY-----\n"), "{pem}");
    let jwk: Value = serde_json::from_str(&home.ok(&["signing-key", "export", "--tenant", "acme", "--format", "jwk"])).unwrap();
    let jwks: Value = serde_json::from_str(&home.ok(&["signing-key", "export", "--tenant", "acme", "--format", "jwks"])).unwrap();
    assert!(jwks["keys"].as_array().unwrap().contains(&jwk));

    let status = home.json(&["signing-key", "status", "--tenant", "acme"]);
    let states: Vec<_> = status["keys"].as_array().unwrap().iter().map(|key| key["state"].as_str().unwrap()).collect();
    assert_eq!(states, ["active", "retired"]);
    home.ok(&["signing-key", "rotate", "--tenant", "acme"]);
    let early = home.fails(&["signing-key", "rotate", "--tenant", "acme"]);
    assert!(early.contains("signs from"), "{early}");
    let next = home.json(&["signing-key", "status", "--tenant", "acme"])["keys"][0]["kid"].as_str().unwrap().to_owned();
    assert!(home.fails(&["signing-key", "activate", "--tenant", "acme", "--kid", &next]).contains("signs from"));
    home.ok(&["signing-key", "retire", "--tenant", "acme", "--kid", &next]);
    assert!(home.fails(&["signing-key", "retire", "--tenant", "acme", "--kid", "nobody"]).contains("there is no"));
    home.ok(&["signing-key", "rotate", "--tenant", "acme", "--emergency"]);
    let all = home.json(&["signing-key", "list", "--tenant", "acme"]);
    let signing: Vec<_> = all.as_array().unwrap().iter().filter(|key| key["state"] == "active").collect();
    assert_eq!(signing.len(), 1);
    assert_ne!(signing[0]["kid"], jwk["kid"]);
    assert_eq!(run(home.command(&import), &pair).code, Some(1), "a key is used once");
    assert_eq!(run(home.command(&import), "nonsense").code, Some(1));
}

#[tokio::test]
async fn an_audience_is_registered_and_gets_tokens_of_its_shape_until_it_ends() {
    let home = Home::new();
    home.ok(&["tenant", "create", "acme"]);
    home.ok(&["user", "add", "--tenant", "acme", "--username", "grace", "--role", "api"]);
    let profile = r#"{"subject":"username","claims":["roles"],"lifetime":600}"#;
    let create = ["audience", "create", "--tenant", "acme", "--name", "store", "--uri", "urn:store", "--profile", profile];
    let made = home.json(&[&create[..], &["--algorithm", "es256", "--static-key"]].concat());
    assert_eq!((&made["profile"]["algorithm"], &made["profile"]["own_key"]), (&Value::from("ES256"), &Value::from(true)));
    let token = home.ok(&["token", "issue", "--tenant", "acme", "--user", "grace", "--audience", "store"]);
    let claims = claims(&token);
    assert_eq!((&claims["sub"], &claims["aud"], &claims["roles"]), (&"grace".into(), &"urn:store".into(), &vec!["api"].into()));
    assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 600);
    let unending = ["token", "issue", "--tenant", "acme", "--user", "grace", "--audience", "store", "--expires", "none"];
    assert!(home.fails(&unending).contains("allow_non_expiring"));

    home.ok(&["signing-key", "rotate", "--tenant", "acme", "--audience", "store"]);
    let key =
        |more: &[&str]| home.ok(&[&["audience", "public-key", "--tenant", "acme", "store", "--format", "jwk"], more].concat());
    let (now, next): (Value, Value) =
        (serde_json::from_str(&key(&[])).unwrap(), serde_json::from_str(&key(&["--next"])).unwrap());
    assert_ne!(now["kid"], next["kid"]);
    let confirm = ["audience", "confirm-key", "--tenant", "acme", "store", "--kid"];
    assert!(home.fails(&[&confirm[..], &[now["kid"].as_str().unwrap()]].concat()).contains("not this one"));
    home.ok(&[&confirm[..], &[next["kid"].as_str().unwrap()]].concat());
    assert_eq!(serde_json::from_str::<Value>(&key(&[])).unwrap()["kid"], next["kid"]);
    assert_eq!(home.json(&["audience", "list", "--tenant", "acme"]).as_array().unwrap().len(), 1);
    home.ok(&["audience", "delete", "--tenant", "acme", "store"]);
    assert!(home.fails(&["audience", "show", "--tenant", "acme", "store"]).contains("there is no"));
}

fn claims(token: &str) -> Value {
    use base64::Engine as _;
    let part = token.split('.').nth(1).unwrap();
    serde_json::from_slice(&base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}
