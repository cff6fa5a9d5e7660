//! A whole tenant, written into a file and made again under another master key.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod binary_support;

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use base64::Engine as _;
use binary_support::{Home, Pair, Said, Serving, free_port, mode, one_document, run};
use claviger_issuer::clock::Clock;
use claviger_verifier::{Expected, Expiry, KeySet, verify_with};
use serde_json::{Value, json};

const PASSWORD: &str = "correct horse battery staple";
const PASSPHRASE: &str = "nine copper kettles sing";
const CONNECTION_SECRET: &str = "connection-canary-1d0f";
/// Of "lantern-how-7".
const BCRYPT: &str = "$2b$04$cd9sGkQ0r5vJ3nB7mWc1pelOgfuNBXD4lFF432f2m3OCCpd/8WGMm";
/// Of "devkey-secret-8f3a6b1c9d2e4f70".
const HASHED_KEY: &str = "old.key:$2b$04$ef9sGkQ0r5vJ3nB7mWc1pejXkPSOf08kboq1X522Y8uyvLhcK3JvK";
const OLD_PAIR: &str = "old.key:devkey-secret-8f3a6b1c9d2e4f70";

/// An installation with a data directory, and so a master key, of its own.
struct House {
    home: Home,
    port: u16,
}

impl House {
    fn new(port: u16) -> Self {
        Self { home: Home::new(), port }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = self.home.command(arguments);
        command.env("CLAVIGER_PUBLIC_URL", format!("http://127.0.0.1:{}", self.port));
        command
    }

    fn say(&self, arguments: &[&str], input: &str) -> Said {
        run(self.command(arguments), input)
    }

    fn ok(&self, arguments: &[&str], input: &str) -> String {
        let said = self.say(arguments, input);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{arguments:?}: {said:?}");
        said.out
    }

    fn json(&self, arguments: &[&str]) -> Value {
        one_document(&self.ok(&[arguments, &["--output", "json"]].concat(), ""))
    }

    async fn serve(&self) -> Serving {
        Serving::start(self.command(&["serve", "--listen", &format!("127.0.0.1:{}", self.port)]), self.port).await
    }

    /// A passphrase in a file.
    fn passphrase(&self, text: &str) -> String {
        let file = self.home.file("passphrase");
        fs::write(&file, format!("{text}\n")).unwrap();
        file.to_str().unwrap().to_owned()
    }

    /// Exports the tenant and returns the file's content.
    fn export(&self, more: &[&str]) -> String {
        let file = self.home.file("acme.export");
        self.ok(&[&["export", "--tenant", "acme", file.to_str().unwrap()], more].concat(), "");
        assert_eq!(mode(&file), 0o600);
        fs::read_to_string(file).unwrap()
    }

    fn sealed(&self) -> String {
        self.export(&["--passphrase-file", &self.passphrase(PASSPHRASE)])
    }

    /// Imports a content as this tenant, with the passphrase.
    fn import(&self, tenant: &str, content: &str, more: &[&str]) -> Said {
        let passphrase = self.passphrase(PASSPHRASE);
        self.import_unsealed(tenant, content, &[&["--passphrase-file", &passphrase], more].concat())
    }

    fn import_unsealed(&self, tenant: &str, content: &str, more: &[&str]) -> Said {
        let file: PathBuf = self.home.file("to-import");
        fs::write(&file, content).unwrap();
        let arguments = ["import", "--format", "claviger", "--tenant", tenant, file.to_str().unwrap(), "--output", "json"];
        self.say(&[&arguments[..], more].concat(), "")
    }

    fn moved(&self, content: &str, more: &[&str]) -> Value {
        let said = self.import("acme", content, more);
        assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "{said:?}");
        one_document(&said.out)
    }

    fn refuses(&self, tenant: &str, content: &str, why: &str) {
        let said = self.import(tenant, content, &[]);
        assert!(said.code == Some(1) && said.out.is_empty() && said.err.contains(why), "{why}: {said:?}");
    }

    /// The peppers that secrets of these keys are hashed under.
    async fn peppers(&self, keys: &[&str]) -> Vec<i16> {
        let query = "SELECT pepper_version FROM api_key_secrets WHERE key_id = ANY ($1) ORDER BY 1";
        sqlx::query_scalar(query).bind(keys).fetch_all(&mut self.home.superuser().await).await.unwrap()
    }

    async fn tenants(&self) -> i64 {
        let all = self.json(&["tenant", "list"]);
        i64::try_from(all.as_array().unwrap().len()).unwrap()
    }
}

async fn login(serving: &Serving, username: &str, password: &str) -> (u16, Value) {
    let body = json!({ "username": username, "password": password });
    let answer = serving.http.post(serving.url("/t/acme/v1/login")).json(&body).send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

async fn exchange(serving: &Serving, pair: &str) -> (u16, Value) {
    let request = serving.http.post(serving.url("/v1/authentications")).header("Authorization", pair);
    let answer = request.send().await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap_or_default())
}

async fn jwks(serving: &Serving) -> String {
    serving.http.get(serving.url("/t/acme/.well-known/jwks.json")).send().await.unwrap().text().await.unwrap()
}

async fn introspect(serving: &Serving, pair: &Pair, token: &str) -> Value {
    let request = serving.http.post(serving.url("/t/acme/v1/introspect")).header("Authorization", pair.basic());
    request.form(&[("token", token)]).send().await.unwrap().json().await.unwrap()
}

/// Cursor and entries of what is revoked.
async fn revocations(serving: &Serving) -> (Value, Value) {
    let answer = serving.http.get(serving.url("/t/acme/v1/revocations")).send().await.unwrap();
    let batch = answer.text().await.unwrap();
    let batch = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(batch.split('.').nth(1).unwrap()).unwrap();
    let batch: Value = serde_json::from_slice(&batch).unwrap();
    (batch["cursor"].clone(), batch["entries"].clone())
}

/// A tenant `acme` with something of everything, and what is known of it outside.
struct Acme {
    house: House,
    asker: Pair,
    own: Pair,
    usual: String,
    endless: String,
    called_back: String,
    jwks: String,
    revocations: (Value, Value),
}

impl Acme {
    async fn build() -> Self {
        let house = House::new(free_port());
        let serving = house.serve().await;
        house.ok(&["tenant", "create", "acme", "--name", "Acme & Söhne", "--preset", "clustercockpit"], "");
        let of = ["--tenant", "acme"];
        let with =
            |words: &[&str], rest: &[&str]| [words, &of[..], rest].concat().iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let ok = |words: &[&str], rest: &[&str], input: &str| {
            let arguments = with(words, rest);
            house.ok(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), input)
        };
        let pair = |words: &[&str], rest: &[&str]| {
            let arguments = with(words, rest);
            Pair::of(&house.json(&arguments.iter().map(String::as_str).collect::<Vec<_>>()))
        };
        ok(
            &["user", "add"],
            &[
                "--username",
                "alice",
                "--email",
                "alice@example.com",
                "--role",
                "manager",
                "--scope",
                "x:y",
                "--attribute",
                "projects=[\"p1\"]",
                "--password-stdin",
            ],
            PASSWORD,
        );
        ok(&["user", "add"], &["--username", "leaver"], "");
        ok(&["user", "delete"], &["leaver"], "");
        ok(&["user", "add"], &["--username", "banned", "--password-stdin"], PASSWORD);
        ok(&["user", "disable"], &["banned"], "");
        ok(&["user", "import"], &["-"], &json!({ "username": "old", "roles": ["api"], "password_hash": BCRYPT }).to_string());
        ok(&["role", "create"], &["auditor", "--scope", "audit:read"], "");
        ok(&["app", "create"], &["--name", "portal"], "");
        ok(&["app", "create"], &["--name", "gone"], "");
        pair(&["key", "create"], &["--app", "gone"]);
        ok(&["app", "delete"], &["gone"], "");
        let asker = pair(&["key", "create"], &["--app", "portal", "--scope", "tokens:introspect", "--expires", "never"]);
        let own = pair(
            &["key", "create"],
            &[
                "--app",
                "portal",
                "--scope",
                "jobs:all",
                "--role",
                "api",
                "--act-as",
                "svc-*",
                "--allow-ip",
                "127.0.0.0/8",
                "--token-lifetime",
                "600",
            ],
        );
        let revoked = pair(&["key", "create"], &["--app", "portal"]);
        ok(&["key", "revoke"], &[&revoked.key], "");
        let disabled = pair(&["key", "create"], &["--user", "alice", "--agent", "old"]);
        ok(&["key", "disable"], &[&disabled.key], "");
        ok(&["key", "import", "--hashed"], &["--user", "old", "--scope", "jobs:own"], HASHED_KEY);
        ok(&["key", "rotate"], &[&own.key, "--grace", "3600"], "");
        ok(
            &["connection", "create"],
            &["--issuer", "https://idp.example.com", "--client-id", "us", "--secret-stdin", "corp"],
            CONNECTION_SECRET,
        );
        ok(&["connection", "set"], &["--settings", "{\"enabled\":false}", "corp"], "");
        ok(&["signing-key", "rotate"], &[], "");

        let (status, body) = exchange(&serving, &own.text()).await;
        assert_eq!(status, 201, "{body}");
        let usual = body["jwt"].as_str().unwrap().to_owned();
        let issue = |expires: &str| {
            let issue = ["token", "issue", "--tenant", "acme", "--user", "old", "--expires", expires, "--output", "json"];
            one_document(&house.say(&issue, "").out)["access_token"].as_str().unwrap().to_owned()
        };
        let (endless, called_back) = (issue("none"), issue("90d"));
        let revoke = serving.http.post(serving.url("/t/acme/v1/token/revoke")).form(&[("token", &called_back)]);
        assert_eq!(revoke.send().await.unwrap().status(), 200);
        let (jwks, revocations) = (jwks(&serving).await, revocations(&serving).await);
        assert_eq!(serving.stop().await.status.code(), Some(0));
        Self { house, asker, own, usual, endless, called_back, jwks, revocations }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_made_again_under_another_master_key_with_all_that_it_was() {
    let acme = Acme::build().await;
    let file = acme.house.sealed();
    assert_eq!(file, acme.house.sealed(), "the same tenant, the same bytes");
    let piped = acme.house.say(&["export", "--tenant", "acme", "--passphrase-file", &acme.house.passphrase(PASSPHRASE)], "");
    assert_eq!((piped.code, &piped.out), (Some(0), &file));
    let master = fs::read_to_string(acme.house.home.master_key()).unwrap();
    for canary in [CONNECTION_SECRET, PASSWORD, PASSPHRASE, &acme.own.secret, &acme.asker.secret, master.trim(), "devkey-secret"]
    {
        assert!(!file.contains(canary), "{canary}");
    }
    let exports = "SELECT count(*) FROM audit_entries WHERE action = 'tenant.export'";
    // Something must hold the private database for the look.
    let serving = acme.house.serve().await;
    let exports: i64 = sqlx::query_scalar(exports).fetch_one(&mut acme.house.home.superuser().await).await.unwrap();
    assert_eq!(exports, 3, "who took the tenant along is written down");
    assert_eq!(serving.stop().await.status.code(), Some(0));

    let copy = House::new(acme.house.port);
    let made = copy.moved(&file, &["--dry-run"]);
    assert_eq!(copy.tenants().await, 0, "a dry run made something: {made}");
    let moved = copy.moved(&file, &[]);
    assert_eq!((&moved["made"], &moved["unchanged"]), (&made["made"], &json!(false)));
    for kind in
        ["users", "keys", "signing_keys", "audiences", "connections", "peppers", "roles", "scopes", "tokens", "revocations"]
    {
        assert!(moved["made"][kind].as_u64() > Some(0), "{kind}: {moved}");
    }
    assert_eq!(copy.sealed(), file, "the copy is what it was made of");
    assert_eq!(copy.moved(&file, &[])["unchanged"], true);
    assert_ne!(fs::read_to_string(copy.home.master_key()).unwrap(), master);

    // It does all that it did before.
    let serving = copy.serve().await;
    let both = [acme.own.key.as_str(), &acme.asker.key];
    assert_eq!(copy.peppers(&both).await, [-1, -1, -1], "another's pepper, under which nothing new is hashed");
    assert_eq!(jwks(&serving).await, acme.jwks, "the same keys are published");
    assert_eq!(revocations(&serving).await, acme.revocations);
    let issuer = format!("http://127.0.0.1:{}/t/acme", acme.house.port);
    let keys = KeySet::from_jwks(&acme.jwks).unwrap();
    let now = Clock::System.now().timestamp();
    for token in [&acme.endless, &acme.called_back] {
        let expected = Expected { issuer: &issuer, audience: Some(&issuer), leeway_seconds: 60 };
        verify_with(token, &keys, &expected, Expiry::Optional, now).unwrap();
    }
    assert_eq!(introspect(&serving, &acme.asker, &acme.endless).await["active"], true, "it has no end, and is known");
    assert_eq!(introspect(&serving, &acme.asker, &acme.called_back).await["active"], false, "it was called back, and stays so");
    let (status, body) = login(&serving, "alice", PASSWORD).await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(login(&serving, "old", "lantern-how-7").await.0, 200);
    assert_eq!(login(&serving, "banned", PASSWORD).await.0, 401);
    let (status, body) = exchange(&serving, &acme.own.text()).await;
    assert_eq!(status, 201, "the secret before the rotation still has its hour: {body}");
    let kid = |token: &str| token.split('.').next().unwrap().to_owned();
    assert_eq!(kid(body["jwt"].as_str().unwrap()), kid(&acme.usual), "under the same key");
    assert_eq!(exchange(&serving, OLD_PAIR).await.0, 201);
    assert_eq!(exchange(&serving, &format!("{}x", acme.own.text())).await.0, 404);
    assert!(!copy.say(&["user", "add", "--tenant", "acme", "--username", "leaver"], "").err.is_empty(), "no name is given twice");
    copy.ok(&["audit", "verify", "--tenant", "acme"], "");
    binary_support::wait_until("secrets are hashed under a pepper of this installation", async || {
        copy.peppers(&both).await == [-1, 1, 1]
    })
    .await;
    assert_eq!(serving.stop().await.status.code(), Some(0));
    // It has gone on since: what is there is not overwritten.
    copy.refuses("acme", &file, "not as the file says");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_is_not_whole_not_ours_or_not_welcome_makes_nothing() {
    let acme = Acme::build().await;
    let file = acme.house.sealed();
    let copy = House::new(free_port());
    let lines: Vec<&str> = file.lines().collect();
    copy.refuses("acme", &format!("{}\n", lines[..lines.len() - 1].join("\n")), "not whole");
    copy.refuses("acme", &[&lines[..3], &lines[4..]].concat().join("\n"), "somebody changed the file");
    copy.refuses("acme", &file.replace("\"manager\"", "\"admin\""), "somebody changed the file");
    copy.refuses("acme", "", "is all that there is");
    copy.refuses("acme", "{\"uname\": \"x\"}\n{}\n", "no record of a tenant");
    copy.refuses("Not A Slug", &file, "slug");
    // Who changes the file and its digest does not know the passphrase.
    let forged = forge(&file, |line| line.replace("\"manager\"", "\"admin\""));
    copy.refuses("acme", &forged, "somebody changed the file");
    let passphrase = copy.home.file("other");
    fs::write(&passphrase, "another passphrase").unwrap();
    let wrong = copy.home.file("to-import");
    fs::write(&wrong, &file).unwrap();
    let arguments = ["import", "--format", "claviger", "--tenant", "acme", wrong.to_str().unwrap()];
    let said = copy.say(&[&arguments[..], &["--passphrase-file", passphrase.to_str().unwrap()]].concat(), "");
    assert!(said.code == Some(1) && said.err.contains("does not open this file"), "{said:?}");
    assert_eq!(copy.tenants().await, 0);

    // The passphrase from the environment is one too; a short one protects nothing.
    let mut export = acme.house.command(&["export", "--tenant", "acme"]);
    export.env("CLAVIGER_PASSPHRASE", PASSPHRASE);
    assert_eq!(run(export, "").out, file);
    let said = acme.house.say(&["export", "--tenant", "acme", "--passphrase-file", &acme.house.passphrase("short")], "");
    assert!(said.code == Some(1) && said.out.is_empty() && said.err.contains("at least 12"), "{said:?}");
    let said = acme.house.say(&["export", "--tenant", "acme", "--passphrase", PASSPHRASE], "");
    assert_eq!(said.code, Some(2), "a passphrase on a command line is refused: every process sees it");
    let said = acme.house.say(&["export", "--tenant", "nobody", "--without-secrets"], "");
    assert!(said.code == Some(1) && said.err.contains("no tenant `nobody`"), "{said:?}");

    // Where it came from it is still: a tenant is there once.
    acme.house.refuses("other", &file, "is here already, as `acme`");
    acme.house.ok(&["tenant", "create", "taken"], "");
    acme.house.refuses("taken", &file, "another tenant here");
    assert_eq!(acme.house.moved(&file, &[])["unchanged"], true);
    acme.house.ok(&["user", "set-roles", "--tenant", "acme", "alice", "--role", "user"], "");
    acme.house.refuses("acme", &file, "not as the file says");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_column_of_a_tenant_moves_or_is_known_to_stay_behind() {
    // A new column or table: does it belong into `issuer/src/moving`? Then here, in the list of what moves or of what stays.
    let moves = [
        ("api_key_routes", "key_id"),
        (
            "api_keys",
            "act_as act_as_default agents application_id created_at created_by disabled_at disabled_by expires_at id limits name \
             refresh roles scopes token_lifetime user_id | enabled_at end_noted_at reminded revoked_at revoked_by",
        ),
        ("api_key_secrets", "created_at expires_at hash key_id mac pepper_version slot"),
        ("api_key_usage", "key_id last_used_at | agent network"),
        ("applications", "created_at disabled_at disabled_by id name roles scopes token_lifetime | deleted_at deleted_by"),
        ("audiences", "created_at id name profile uri | deleted_at deleted_by"),
        ("connection_links", "connection_id created_at profile subject used_at user_id"),
        ("connections", "created_at disabled_at id kind name sealed_secret settings title updated_at | disabled_by"),
        ("issued_tokens", "expires_at family_id issued_at jti key_id revoked_at revoked_by scope subject"),
        ("passwords", "hash user_id | set_at set_by version"),
        ("revocation_heads", "seq"),
        ("revocations", "before id kind seq until"),
        ("roles", "created_at description name scopes updated_at"),
        ("scopes", "created_at description name"),
        (
            "signing_keys",
            "activated_at algorithm at_once audience_id created_at ends_at erased_at gone_at gone_why kid public_key retired_at \
             sealed_private state unending",
        ),
        (
            "users",
            "attributes created_at deleted_at deleted_by disabled_at disabled_by email id roles scopes username \
             username_folded username_skeleton",
        ),
    ];
    let stays = [
        "app_tokens",
        "attempts",
        "audit_entries",
        "audit_heads",
        "changes",
        "connection_logins",
        "connection_states",
        "jwks_fetches",
        "key_budgets",
        "key_request_links",
        "key_requests",
        "listed_tokens",
        "mail_outbox",
        "refresh_tokens",
        "sessions",
        "status_lists",
        "token_families",
        "ws_tickets",
    ];
    let home = Home::new();
    let serving = home.serve().await;
    let query = "SELECT c.table_name::text, string_agg(c.column_name::text, ' ' ORDER BY c.column_name::text COLLATE \"C\")
                   FROM information_schema.columns c
                  WHERE c.table_schema = 'public' AND c.column_name <> 'tenant_id' AND c.table_name !~ '_[0-9]{8}$|_unending$'
                    AND EXISTS (SELECT FROM information_schema.columns t
                                 WHERE t.table_schema = 'public' AND t.table_name = c.table_name AND t.column_name = 'tenant_id')
                  GROUP BY 1 ORDER BY 1";
    let tables: Vec<(String, String)> = sqlx::query_as(query).fetch_all(&mut home.superuser().await).await.unwrap();
    for (table, columns) in &tables {
        let Some((_, known)) = moves.iter().find(|(name, _)| name == table) else {
            assert!(stays.contains(&table.as_str()), "{table}: does it move?");
            continue;
        };
        let mut known: Vec<&str> = known.split_whitespace().filter(|word| *word != "|").collect();
        known.sort_unstable();
        assert_eq!(&known.join(" "), columns, "{table}: what moves of it?");
    }
    for name in moves.iter().map(|(name, _)| *name).chain(stays) {
        assert!(tables.iter().any(|(table, _)| table == name), "{name}: is there no more");
    }
    assert_eq!(serving.stop().await.status.code(), Some(0));
}

/// The file with other lines and a digest that fits them.
fn forge(file: &str, change: impl Fn(&str) -> String) -> String {
    use sha2::Digest as _;
    let (before, end) = file.trim_end().rsplit_once('\n').unwrap();
    let before = change(before) + "\n";
    let mut end: Value = serde_json::from_str(end).unwrap();
    let digest = base64::engine::general_purpose::STANDARD.encode(sha2::Sha256::digest(&before));
    end["end"]["sha256"] = json!(digest);
    format!("{before}{end}\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn without_secrets_others_take_their_place_and_what_was_signed_still_verifies() {
    let acme = Acme::build().await;
    let file = acme.house.export(&["--without-secrets"]);
    assert_eq!(file, acme.house.export(&["--without-secrets"]));
    assert!(!file.contains("\"sealed\":\"") && file.contains("left_out"), "no secret is in it");
    let copy = House::new(acme.house.port);
    // Whoever gives a passphrase trusts what it proves: here it proves nothing.
    copy.refuses("acme", &file, "is not sealed");
    let said = copy.import_unsealed("acme", &file, &[]);
    assert!(said.code == Some(1) && said.err.contains("stayed behind"), "{said:?}");
    let report = one_document(&said.out);
    assert_eq!(report["connections_without_secret"], json!(["corp"]));
    let lacking = report["keys_without_secret"].as_array().unwrap();
    assert!(lacking.contains(&json!(acme.own.key)) && !lacking.contains(&json!("old.key")), "{report}");
    assert!(report["signing_keys_replaced"].as_array().unwrap().len() >= 3, "the tenant's and its audiences': {report}");

    let serving = copy.serve().await;
    let issuer = format!("http://127.0.0.1:{}/t/acme", acme.house.port);
    let keys = KeySet::from_jwks(&jwks(&serving).await).unwrap();
    let expected = Expected { issuer: &issuer, audience: Some(&issuer), leeway_seconds: 60 };
    let now = Clock::System.now().timestamp();
    verify_with(&acme.endless, &keys, &expected, Expiry::Optional, now).unwrap();
    assert_eq!(login(&serving, "alice", PASSWORD).await.0, 200, "another key signs");
    assert_eq!(exchange(&serving, &acme.own.text()).await.0, 404, "its pepper stayed behind");
    assert_eq!(exchange(&serving, OLD_PAIR).await.0, 201, "a hash needs none");
    let rotated = Pair::of(&copy.json(&["key", "rotate", "--tenant", "acme", &acme.own.key, "--grace", "0"]));
    assert_eq!(exchange(&serving, &rotated.text()).await.0, 201);
    assert_eq!(serving.stop().await.status.code(), Some(0));
}
