//! People and keys of other systems, and whole tenants, moved in and out on the command line (SEEDS scenario 72).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod binary_support;

use std::fs;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use binary_support::{Home, Serving, free_port, one_document, run};
use reqwest::StatusCode;
use serde_json::{Value, json};

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/examples").join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The claims of a token.
fn claims(token: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap()).unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    list.as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect()
}

fn told(list: &Value) -> Vec<(String, String)> {
    let text = |one: &Value, field: &str| one[field].as_str().unwrap().to_owned();
    list.as_array().unwrap().iter().map(|one| (text(one, "name"), text(one, "why"))).collect()
}

/// A running server with a tenant `old` of a preset.
struct Scene {
    home: Home,
    serving: Serving,
}

impl Scene {
    async fn of(preset: &str) -> Self {
        let home = Home::new();
        let port = free_port();
        let mut command = home.command(&["serve", "--listen", &format!("127.0.0.1:{port}")]);
        command.env("CLAVIGER_PUBLIC_URL", format!("http://127.0.0.1:{port}"));
        let serving = Serving::start(command, port).await;
        home.ok(&["tenant", "create", "old", "--preset", preset]);
        Self { home, serving }
    }

    /// Imports a file, and returns the exit code and the report. Neither it nor anything else says a hash.
    fn import(&self, format: &str, file: &Path, more: &[&str]) -> (i32, Value) {
        let arguments = [&["import", "--tenant", "old", "--format", format, text(file), "--output", "json"], more].concat();
        let said = self.home.run(&arguments);
        assert!(!format!("{said:?}").contains("$04$"), "{said:?}");
        assert_eq!(said.err.is_empty(), said.code == Some(0), "{said:?}");
        (said.code.unwrap(), one_document(&said.out))
    }

    /// The same with a text of our own.
    fn import_text(&self, format: &str, content: &str, more: &[&str]) -> (i32, Value) {
        let file = self.home.file("people.json");
        fs::write(&file, content).unwrap();
        self.import(format, &file, more)
    }

    /// Imports an example as an operator would: first without doing it, then twice.
    async fn moves_in(&self, format: &str, file: &Path, made: &[&str]) -> Value {
        let (code, dry) = self.import(format, file, &["--dry-run"]);
        assert_eq!((code, names(&dry["made"])), (0, made.to_vec()), "{dry}");
        assert_eq!(self.counted("users").await + self.counted("api_keys").await, 0, "a dry run wrote something");
        let (code, report) = self.import(format, file, &[]);
        assert_eq!((code, names(&report["made"])), (0, made.to_vec()), "{report}");
        let before = self.snapshot().await;
        let (code, again) = self.import(format, file, &[]);
        assert_eq!((code, names(&again["unchanged"]), &again["made"]), (0, made.to_vec(), &json!([])), "{again}");
        assert_eq!(self.snapshot().await, before, "a second time changed something");
        report
    }

    async fn counted(&self, table: &'static str) -> i64 {
        let query = format!("SELECT count(*) FROM {table} x JOIN tenants t ON t.id = x.tenant_id WHERE t.slug = 'old'");
        let query = sqlx::query_scalar(sqlx::AssertSqlSafe(query));
        query.fetch_one(&mut self.home.superuser().await).await.unwrap()
    }

    async fn snapshot(&self) -> Vec<String> {
        let mut database = self.home.superuser().await;
        let mut all = Vec::new();
        for table in ["users", "passwords", "api_keys", "api_key_secrets", "scopes", "roles", "audit_entries"] {
            let query = format!("SELECT to_jsonb(x)::text FROM {table} x ORDER BY 1");
            let query = sqlx::query_scalar::<_, String>(sqlx::AssertSqlSafe(query));
            all.extend(query.fetch_all(&mut database).await.unwrap());
        }
        all
    }

    /// No hash, no e-mail address and nobody's name is in the trail or in what the server says.
    async fn says_nothing(&self, canaries: &[&str]) {
        let query = "SELECT action || target || detail FROM audit_entries";
        let trail: Vec<String> = sqlx::query_scalar(query).fetch_all(&mut self.home.superuser().await).await.unwrap();
        for canary in ["$04$", "@example"].iter().chain(canaries) {
            assert!(trail.iter().all(|entry| !entry.contains(canary)), "{canary}");
            assert!(!self.serving.out().contains(canary) && !self.serving.err().contains(canary), "{canary}");
        }
    }

    async fn login(&self, username: &str, password: &str) -> (StatusCode, Value) {
        login(&self.serving, "old", username, password).await
    }

    async fn exchange(&self, pair: &str) -> (StatusCode, Value) {
        exchange(&self.serving, pair).await
    }

    /// What is kept of a person's password.
    async fn hash(&self, username: &str) -> String {
        let query = "SELECT p.hash FROM passwords p JOIN users u ON (u.tenant_id, u.id) = (p.tenant_id, p.user_id)
                      WHERE u.username = $1";
        sqlx::query_scalar(query).bind(username).fetch_one(&mut self.home.superuser().await).await.unwrap()
    }

    /// The claims of a token in an audience's shape.
    fn token(&self, username: &str, audience: &str) -> Value {
        let issue = ["token", "issue", "--tenant", "old", "--user", username, "--audience", audience];
        claims(self.home.json(&issue)["access_token"].as_str().unwrap())
    }

    fn users(&self) -> Vec<Value> {
        self.home.json(&["user", "list", "--tenant", "old"]).as_array().unwrap().clone()
    }

    fn user(&self, username: &str) -> Value {
        self.users().into_iter().find(|user| user["username"] == username).unwrap_or_else(|| panic!("no {username}"))
    }
}

async fn login(serving: &Serving, tenant: &str, username: &str, password: &str) -> (StatusCode, Value) {
    let body = json!({ "username": username, "password": password });
    let answer = serving.http.post(serving.url(&format!("/t/{tenant}/v1/login"))).json(&body).send().await.unwrap();
    (answer.status(), answer.json().await.unwrap())
}

async fn exchange(serving: &Serving, pair: &str) -> (StatusCode, Value) {
    let request = serving.http.post(serving.url("/v1/authentications")).header("Authorization", pair);
    let answer = request.send().await.unwrap();
    (answer.status(), answer.json().await.unwrap_or_default())
}

#[tokio::test(flavor = "multi_thread")]
async fn scenario_72_cats_people_log_in_with_their_old_passwords_ids_and_permissions() {
    let scene = Scene::of("cheshire-cat").await;
    let report = scene.moves_in("cat", &example("import-cat.json"), &["admin", "caterpillar"]).await;
    assert_eq!((names(&report["admins"]), &report["skipped"]), (vec!["admin"], &json!([])));
    assert!(scene.hash("caterpillar").await.starts_with("$2b$"));
    let (status, tokens) = scene.login("caterpillar", "lantern-cat-7").await;
    assert_eq!(status, 200, "{tokens}");
    assert_eq!(claims(tokens["access_token"].as_str().unwrap())["sub"], "0b2f3c52-64fb-4b8e-9a0e-5d9b6f4d1a02");
    let told = scene.token("caterpillar", "cheshire-cat");
    assert_eq!(told["sub"], "0b2f3c52-64fb-4b8e-9a0e-5d9b6f4d1a02");
    let permissions = json!({
        "STATUS": ["READ"], "MEMORY": ["LIST", "READ"], "STATIC": ["READ"],
        "CONVERSATION": ["DELETE", "EDIT", "LIST", "READ", "WRITE"]
    });
    assert_eq!(told["permissions"], permissions);
    assert!(scene.hash("caterpillar").await.starts_with("$argon2id$"), "hashed anew with the login");
    assert_eq!(scene.login("caterpillar", "lantern-cat-8").await.0, 401);
    scene.says_nothing(&["lantern", "caterpillar"]).await;
    assert_eq!(scene.serving.stop().await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn scenario_72_clustercockpits_people_keep_roles_projects_and_passwords() {
    let scene = Scene::of("clustercockpit").await;
    let report = scene.moves_in("clustercockpit", &example("import-clustercockpit.json"), &["demo", "mgr", "ldapuser"]).await;
    assert_eq!(names(&report["admins"]), ["demo"]);
    let notes = told(&report["notes"]);
    assert!(notes.len() == 1 && notes[0].0 == "ldapuser" && notes[0].1.contains("without a password"), "{notes:?}");
    let manager = scene.user("mgr");
    assert_eq!(manager["roles"], json!(["manager"]));
    assert_eq!(manager["attributes"], json!({ "name": "M. Ager", "projects": ["p1", "p2"] }));
    assert_eq!(manager["email"], "mgr@example.org");
    let (status, tokens) = scene.login("demo", "lantern-cc-7").await;
    assert_eq!(status, 200, "{tokens}");
    assert_eq!(claims(tokens["access_token"].as_str().unwrap())["roles"], json!(["admin", "api"]));
    assert!(scene.hash("demo").await.starts_with("$argon2id$"));
    assert_eq!(scene.login("ldapuser", "").await.0, 401);
    assert_eq!(scene.login("ldapuser", "lantern-cc-7").await.0, 401);
    // What is kept of a password beside a directory opens nothing there, and nothing here.
    let hash = "$2b$04$ab9sGkQ0r5vJ3nB7mWc1pe6ecc.ecDduTvIeeg4UKFvEq3AXW4S7y";
    let stale = json!({ "username": "stale", "password": hash, "roles": "[]", "projects": null, "ldap": 3 }).to_string();
    assert_eq!(scene.import_text("clustercockpit", &stale, &[]).0, 0);
    assert_eq!(scene.login("stale", "lantern-cc-7").await.0, 401);
    scene.says_nothing(&["lantern", "M. Ager"]).await;
    assert_eq!(scene.serving.stop().await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn scenario_72_howlers_people_keep_their_keys_by_name_with_letters_agents_and_ends() {
    let scene = Scene::of("howler").await;
    let made = ["admin", "admin/devkey", "user", "user/impersonate_admin", "user/readonly"];
    let report = scene.moves_in("howler", &example("import-howler.json"), &made).await;
    assert_eq!(names(&report["admins"]), ["admin"]);
    let (status, tokens) = scene.login("user", "lantern-how-7").await;
    assert_eq!(status, 200, "{tokens}");
    let told = scene.token("user", "howler");
    assert_eq!((&told["classification"], &told["groups"]), (&json!("TLP:W"), &json!(["USERS"])));
    assert!(scene.hash("user").await.starts_with("$argon2id$"));

    // Asked about as Howler's own clients present them: `user:keyname:secret`.
    scene.home.ok(&["app", "create", "--tenant", "old", "--name", "howler-api"]);
    let create = ["key", "create", "--tenant", "old", "--app", "howler-api", "--scope", "verify"];
    let asker = binary_support::Pair::of(&scene.home.json(&create));
    let verify = async |question: Value| -> Value {
        let request = scene.serving.http.post(scene.serving.url("/t/old/v1/verify")).header("Authorization", asker.basic());
        request.json(&question).send().await.unwrap().json().await.unwrap()
    };
    let basic = |text: &str| format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text));
    let secret = "devkey-secret-8f3a6b1c9d2e4f70";
    let answer = verify(json!({ "authorization": basic(&format!("admin:devkey:{secret}")) })).await;
    assert_eq!((&answer["allow"], &answer["username"]), (&json!(true), &json!("admin")), "{answer}");
    assert_eq!(answer["scopes"], json!(["howler:read", "howler:write"]), "{answer}");
    let answer = verify(json!({ "authorization": basic(&format!("user:readonly:{secret}")) })).await;
    assert_eq!(answer["scopes"], json!(["howler:read"]), "{answer}");
    let lent = basic("user:impersonate_admin:impersonation-secret-5c1d7e2f");
    let question = json!({ "authorization": basic(&format!("admin:devkey:{secret}")), "x_impersonating": lent });
    let answer = verify(question).await;
    assert_eq!((&answer["allow"], &answer["username"]), (&json!(true), &json!("user")), "{answer}");
    assert_eq!(verify(json!({ "authorization": lent })).await["allow"], false, "a lent key is good for its agents alone");
    let kept: Vec<(String, Option<String>, Option<String>)> = sqlx::query_as(
        "SELECT k.name, s.hash, k.expires_at::date::text FROM api_keys k
           JOIN api_key_secrets s ON (s.tenant_id, s.key_id) = (k.tenant_id, k.id)
          WHERE k.user_id IS NOT NULL ORDER BY k.name",
    )
    .fetch_all(&mut scene.home.superuser().await)
    .await
    .unwrap();
    let ends: Vec<_> = kept.iter().map(|(name, hash, end)| (name.as_str(), hash.is_none(), end.as_deref())).collect();
    assert_eq!(ends, [("devkey", true, None), ("impersonate_admin", true, None), ("readonly", true, Some("2099-12-31"))]);

    // Somebody who may act there no more, and a key that has ended.
    let more = json!([{ "username": "gone", "type": ["user"], "is_active": false, "password": null, "apikeys": {
        "old": { "acl": ["R"], "password": "$2b$04$ef9sGkQ0r5vJ3nB7mWc1pejXkPSOf08kboq1X522Y8uyvLhcK3JvK", "expiry_date": "2001-01-01T00:00:00Z" } } }]);
    let (code, report) = scene.import_text("howler", &more.to_string(), &[]);
    assert_eq!((code, names(&report["made"])), (0, vec!["gone"]), "{report}");
    assert!(self::told(&report["notes"])[0].1.contains("`old`"), "{report}");
    assert_eq!(scene.user("gone")["status"], "disabled");
    scene.says_nothing(&["lantern", "secret-"]).await;
    assert_eq!(scene.serving.stop().await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn scenario_72_ctas_accounts_exchange_their_old_pairs_for_tokens_of_their_old_ids() {
    let scene = Scene::of("cta").await;
    let made = ["foo@example.com", "foo@example.com/developer key", "boss@example.com", "boss@example.com/developer key"];
    let report = scene.moves_in("cta", &example("import-cta.json"), &made).await;
    assert_eq!(names(&report["admins"]), ["boss@example.com"]);
    let developer = "3vQB7B6MrGQZaxCuFg4oh2Yp:0f1e2d3c4b5a69788796a5b4c3d2e1f0";
    let (status, body) = scene.exchange(developer).await;
    assert_eq!(status, 201, "{body}");
    let told = claims(body["jwt"].as_str().unwrap());
    assert_eq!((&told["sub"], &told["admin"]), (&json!("5f0c7a52-8d0b-4c63-9f62-0d5cf3c5d3b1"), &json!(false)), "{told}");
    assert_eq!(told["scope"], "events:read events:write");
    let (status, body) = scene.exchange("8fWZ1TqXyG5KQmCuFg4oh2Yq:00112233445566778899aabbccddeeff").await;
    assert_eq!(status, 201, "{body}");
    assert_eq!(claims(body["jwt"].as_str().unwrap())["admin"], true);
    assert_eq!(scene.exchange("3vQB7B6MrGQZaxCuFg4oh2Yp:00112233445566778899aabbccddeeff").await.0, 404);
    let kept = "SELECT count(*) FROM api_key_secrets WHERE hash IS NOT NULL";
    let kept: i64 = sqlx::query_scalar(kept).fetch_one(&mut scene.home.superuser().await).await.unwrap();
    assert_eq!(kept, 0, "MACs have taken their place");
    // To import again does not bring them back.
    assert_eq!(scene.import("cta", &example("import-cta.json"), &[]).0, 0);
    assert_eq!(scene.exchange(developer).await.0, 201);
    scene.says_nothing(&["0f1e2d3c"]).await;
    assert_eq!(scene.serving.stop().await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_record_stands_alone_and_what_is_left_out_is_told_with_why() {
    let scene = Scene::of("howler").await;
    let hash = "$2b$04$ef9sGkQ0r5vJ3nB7mWc1pejXkPSOf08kboq1X522Y8uyvLhcK3JvK";
    let key = |acl: &[&str], hash: &str| json!({ "acl": acl, "password": hash });
    let lines = [
        json!({ "uname": "good", "type": ["user", "hunter", "tenant-admin"], "apikeys": { "k": key(&["R"], hash) } }).to_string(),
        "not JSON".to_owned(),
        json!({ "uname": "halved", "apikeys": { "good": key(&["R"], hash), "bad": key(&["R"], "5f4dcc3b5aa765d61d8327deb882cf99") } })
            .to_string(),
        json!({ "uname": "letters", "apikeys": { "bad": key(&["X"], hash) } }).to_string(),
        json!({ "uname": "lender", "apikeys": { "bad": key(&["R", "I"], hash) } }).to_string(),
        json!({ "uname": "GOOD" }).to_string(),
        json!({ "uname": "md5", "password": "5f4dcc3b5aa765d61d8327deb882cf99" }).to_string(),
        json!({ "uname": "long", "name": "x".repeat(2 * 1024 * 1024) }).to_string(),
        json!({ "name": "nobody" }).to_string(),
        json!({ "uname": "last", "type": ["user"] }).to_string(),
    ];
    for more in [&["--dry-run"][..], &[]] {
        let (code, report) = scene.import_text("howler", &lines.join("\n"), more);
        assert_eq!((code, names(&report["made"])), (1, vec!["good", "good/k", "last"]), "{report}");
        let skipped = told(&report["skipped"]);
        let expected = [
            ("good", "without `hunter`"),
            ("good", "without `tenant-admin`"),
            ("record 2", "nor JSON"),
            ("halved", "the key `bad`: `import.hash`"),
            ("letters", "unknown letter `X`"),
            ("lender", "names nobody"),
            ("GOOD", "has the username of record 1"),
            ("md5", "password_hash"),
            ("record 8", "longer than 1 MiB"),
            ("record 9", "is not a user of Howler"),
        ];
        assert_eq!(skipped.len(), expected.len(), "{skipped:?}");
        for ((name, why), (expected_name, expected_why)) in skipped.iter().zip(expected) {
            assert!(name == expected_name && why.contains(expected_why), "{name}: {why}");
        }
        assert!(!report.to_string().contains("5f4dcc3b"), "{report}");
    }
    assert_eq!(scene.users().len(), 2, "nothing of a bad record was written");
    assert_eq!(scene.user("good")["roles"], json!(["user"]), "nobody becomes an admin by a name");

    // A name that belongs to somebody else here, and a key likewise.
    let taken = json!({ "0b2f3c52-64fb-4b8e-9a0e-5d9b6f4d1a01": { "username": "good" }, "no id": { "username": "x" } });
    let (code, report) = scene.import_text("cat", &taken.to_string(), &[]);
    let skipped = told(&report["skipped"]);
    assert!(code == 1 && skipped[0].1.contains("another id") && skipped[1].1.contains("UUID"), "{report}");
    let (row, other) = ("5f0c7a52-8d0b-4c63-9f62-0d5cf3c5d3b1", "5f0c7a52-8d0b-4c63-9f62-0d5cf3c5d3b2");
    let account = |id: &str, email: &str| json!({ "id": id, "email": email, "api_key": "k1", "api_secret_digest": hash });
    let (code, report) = scene.import_text("cta", &account(row, "a@example.com").to_string(), &[]);
    assert_eq!((code, names(&report["made"]).len()), (1, 2), "{report}");
    let (_, report) = scene.import_text("cta", &account(other, "b@example.com").to_string(), &[]);
    assert!(told(&report["skipped"])[0].1.contains("belongs to somebody else"), "{report}");
    assert_eq!(scene.users().len(), 3);

    for garbage in ["[{\"uname\": \"a\"}", "[1, 2] x", "{", ""] {
        let file = scene.home.file("garbage.json");
        fs::write(&file, garbage).unwrap();
        let format = if garbage.starts_with('[') { "howler" } else { "cat" };
        let said = scene.home.fails(&["import", "--tenant", "old", "--format", format, text(&file)]);
        assert!(said.contains("nothing was done"), "{garbage}: {said}");
    }
    let odd = format!("{{\"uname\": \"odd\\u001b[2J{}\"}}", "x".repeat(100_000));
    let piped = run(scene.home.command(&["import", "--tenant", "old", "--format", "howler", "-"]), &odd);
    assert!(piped.code == Some(1) && !piped.out.contains('\u{1b}') && piped.out.len() < 2000, "{piped:?}");
    let said = scene.home.fails(&["import", "--tenant", "nobody", "--format", "cta", text(&example("import-cta.json"))]);
    assert!(said.contains("no tenant `nobody`"), "{said}");
    let piped = run(scene.home.command(&["import", "--tenant", "old", "--format", "howler", "-"]), "{\"uname\": \"piped\"}\n");
    assert_eq!((piped.code, piped.out.lines().next()), (Some(0), Some("1 made, 0 unchanged, 0 skipped")), "{piped:?}");
    assert_eq!(scene.serving.stop().await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_of_100_mb_and_a_file_without_an_end_are_bounded() {
    let scene = Scene::of("howler").await;
    let long = format!("{{\"uname\": \"long\", \"name\": \"{}\"}}\n{{\"uname\": \"short\"}}\n", "x".repeat(100 * 1024 * 1024));
    let (code, report) = scene.import_text("howler", &long, &[]);
    assert_eq!((code, names(&report["made"])), (1, vec!["short"]), "one line spoils no other");
    fs::remove_file(scene.home.file("people.json")).unwrap();
    let said = scene.home.fails(&["import", "--tenant", "old", "--format", "howler", "/dev/zero"]);
    assert!(said.contains("larger than 256 MiB"), "{said}");
    assert_eq!(scene.serving.stop().await.status.code(), Some(0));
}
