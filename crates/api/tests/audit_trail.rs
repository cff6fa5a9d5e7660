//! The audit trail in the real database: whatever is done to it behind the server's back is found, with its place,
//! and nothing is done without it (SECURITY D10, T27).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a failure here is a failed test, and what was measured is shown with --nocapture"
)]

mod support;

use std::collections::BTreeSet;
use std::time::Instant;

use chrono::{DateTime, Utc};
use claviger_issuer::audit::{Anchor, Broken};
use claviger_issuer::clock::Clock;
use claviger_issuer::settings::Throttle;
use claviger_issuer::vault::Vault;
use claviger_store::id::TenantId;
use futures_util::stream::{self, StreamExt as _};
use reqwest::StatusCode;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions as _, PgConnection, Row as _};
use support::{Key, Options, Server, Tenant, claims};

fn options() -> Options {
    let throttle = Throttle { failures: 1_000, window: 900 };
    Options { throttle, clock: Some(Clock::System), ..Options::default() }
}

async fn run(connection: &mut PgConnection, statement: &str) -> u64 {
    match sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(connection).await {
        Ok(done) => done.rows_affected(),
        Err(error) => panic!("{statement}: {error}"),
    }
}

async fn count(connection: &mut PgConnection, question: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(question.to_owned())).fetch_one(connection).await.unwrap()
}

async fn check(server: &Server, tenant: TenantId, anchor: Option<Anchor>) -> Result<Anchor, Broken> {
    server.issuer.verify_audit(tenant, anchor).await.unwrap()
}

/// Admin deeds and exchanges, good and refused ones, at two servers at once: two writers on one chain.
async fn lived_in<'a>(a: &'a Server, b: &Server, slug: &str) -> (Tenant<'a>, Key) {
    let tenant = a.tenant(slug).await;
    let admin = tenant.admin().await;
    let key = tenant.user_key("alice", &["events:read"]).await;
    let wrong = Key { secret: "wrong".into(), ..key.clone() };
    let work = stream::iter(0..12).map(|round| {
        let (server, admin, key, wrong) = (if round % 2 == 0 { a } else { b }, admin.basic(), key.pair(), wrong.pair());
        async move {
            match round % 4 {
                0 | 1 => {
                    let order = json!({ "name": format!("app {round}") });
                    let made = server.with(&admin).post("/v1/applications", order).await;
                    assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
                }
                2 => {
                    server.with(&key).token().await;
                    server.with(&key).token().await;
                }
                _ => {
                    let refused = server.with(&wrong).post_empty("/v1/authentications").await;
                    assert_eq!(refused.status, StatusCode::NOT_FOUND);
                    server.with(&key).token().await;
                }
            }
        }
    });
    work.buffer_unordered(4).collect::<Vec<()>>().await;
    (tenant, key)
}

/// What a tenant's trail was, to be put back after each tampering.
struct Kept {
    tenant: TenantId,
}

impl Kept {
    async fn of(tenant: TenantId, superuser: &mut PgConnection) -> Self {
        for table in ["audit_entries", "audit_heads"] {
            run(superuser, &format!("CREATE TEMP TABLE kept_{table} AS SELECT * FROM {table} WHERE tenant_id = '{tenant}'"))
                .await;
        }
        Self { tenant }
    }

    async fn put_back(&self, superuser: &mut PgConnection) {
        for table in ["audit_entries", "audit_heads"] {
            let tenant = self.tenant;
            run(superuser, &format!("DELETE FROM {table} WHERE tenant_id = '{tenant}'")).await;
            run(superuser, &format!("INSERT INTO {table} SELECT * FROM kept_{table}")).await;
        }
    }
}

/// The digest of an entry, written from its description: the hash before it, then each field, texts and bytes after
/// their length in eight bytes.
struct Written<'a> {
    seq: i64,
    at: DateTime<Utc>,
    texts: [&'a str; 7],
    personal_digest: &'a [u8],
}

impl Written<'_> {
    fn hash(&self, previous: &[u8]) -> Vec<u8> {
        let mut bytes = [previous, &self.seq.to_be_bytes(), &self.at.timestamp_micros().to_be_bytes()].concat();
        for field in self.texts.iter().map(|text| text.as_bytes()).chain([self.personal_digest]) {
            bytes.extend_from_slice(&u64::try_from(field.len()).unwrap().to_be_bytes());
            bytes.extend_from_slice(field);
        }
        Sha256::digest(&bytes).to_vec()
    }
}

/// Writes every hash from an entry on anew, as somebody could who knows how it is done. Returns the last.
async fn rewrite_hashes(tenant: TenantId, from: i64, superuser: &mut PgConnection) -> Vec<u8> {
    let question = "SELECT seq, at, action, outcome, actor, subject, target, request_id, detail, personal_digest, hash
                      FROM audit_entries WHERE tenant_id = $1 AND seq >= $2 ORDER BY seq";
    let rows = sqlx::query(question).bind(tenant).bind(from - 1).fetch_all(&mut *superuser).await.unwrap();
    let mut hash: Vec<u8> = rows[0].get("hash");
    for row in &rows[1..] {
        let texts = ["action", "outcome", "actor", "subject", "target", "request_id", "detail"].map(|name| row.get(name));
        let seq: i64 = row.get("seq");
        hash = Written { seq, at: row.get("at"), texts, personal_digest: row.get("personal_digest") }.hash(&hash);
        let update = "UPDATE audit_entries SET hash = $3 WHERE tenant_id = $1 AND seq = $2";
        sqlx::query(update).bind(tenant).bind(seq).bind(&hash).execute(&mut *superuser).await.unwrap();
    }
    hash
}

#[actix_web::test]
async fn t27_every_edit_of_every_column_is_found_with_its_position_and_erasure_is_not_one() {
    let a = Server::start_with(options()).await;
    let b = a.replica(options()).await;
    let (tenant, _) = lived_in(&a, &b, "acme").await;
    let (id, other) = (tenant.id, a.tenant("other").await.id);
    let whole = check(&a, id, None).await.unwrap();
    assert_eq!(check(&b, id, Some(whole.clone())).await, Ok(whole.clone()));
    let last = whole.seq;
    assert!(last > 20, "{last}");
    let mut superuser = a.database.superuser().await;
    let kept = Kept::of(id, &mut superuser).await;
    let columns: Vec<String> = sqlx::query_scalar(
        "SELECT attname::text FROM pg_attribute
          WHERE attrelid = 'audit_entries'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
    )
    .fetch_all(&mut superuser)
    .await
    .unwrap();
    assert_eq!(columns.len(), 14);
    let mut tampered = 0;
    for seq in [1, 2, last / 2, last - 1, last] {
        for column in &columns {
            let changed = Broken::Changed { seq };
            let (set, found) = match column.as_str() {
                "tenant_id" if seq == last => (format!("'{other}', seq = 1000"), Broken::Truncated { last: seq - 1, head: last }),
                "tenant_id" => (format!("'{other}', seq = 1000"), Broken::Gap { seq }),
                "seq" => ("1000".into(), Broken::Gap { seq }),
                "at" => ("at + interval '1 microsecond'".into(), changed),
                "outcome" => ("CASE outcome WHEN 'ok' THEN 'refused' ELSE 'ok' END".into(), changed),
                "action" | "actor" | "subject" | "target" | "request_id" | "detail" => (format!("{column} || ' '"), changed),
                "personal" => ("replace(personal, '{', '{ ')".into(), Broken::PersonalChanged { seq }),
                "personal_salt" => ("sha256(personal_salt)".into(), Broken::PersonalChanged { seq }),
                "personal_digest" | "hash" => (format!("sha256({column})"), changed),
                other => panic!("a new column, {other}: is it hashed?"),
            };
            let edit = format!("UPDATE audit_entries SET {column} = {set} WHERE tenant_id = '{id}' AND seq = {seq}");
            assert_eq!(run(&mut superuser, &edit).await, 1);
            assert_eq!(check(&a, id, None).await, Err(found), "{edit}");
            run(&mut superuser, &format!("DELETE FROM audit_entries WHERE tenant_id = '{other}' AND seq = 1000")).await;
            kept.put_back(&mut superuser).await;
            tampered += 1;
        }
        let erase = format!("UPDATE audit_entries SET personal = NULL WHERE tenant_id = '{id}' AND seq = {seq}");
        run(&mut superuser, &erase).await;
        assert_eq!(check(&a, id, None).await, Ok(whole.clone()), "erasure is not tampering");
        kept.put_back(&mut superuser).await;
    }
    println!("{tampered} edits, all found at their place");
    run(&mut superuser, &format!("UPDATE audit_entries SET personal = NULL WHERE tenant_id = '{id}'")).await;
    assert_eq!(check(&a, id, Some(whole.clone())).await, Ok(whole));
}

#[actix_web::test]
async fn t27_deleting_reordering_cutting_and_forging_are_found_with_their_position() {
    let a = Server::start_with(options()).await;
    let b = a.replica(options()).await;
    let (tenant, _) = lived_in(&a, &b, "acme").await;
    let (stranger, _) = lived_in(&a, &b, "other").await;
    let id = tenant.id;
    let whole = check(&a, id, None).await.unwrap();
    let last = whole.seq;
    let mut superuser = a.database.superuser().await;
    let kept = Kept::of(id, &mut superuser).await;
    let of = format!("WHERE tenant_id = '{id}'");
    let swap = |one: i64, two: i64| {
        format!(
            "UPDATE audit_entries SET seq = 1000 {of} AND seq = {one};
             UPDATE audit_entries SET seq = {one} {of} AND seq = {two};
             UPDATE audit_entries SET seq = {two} {of} AND seq = 1000"
        )
    };
    let theirs = count(&mut superuser, &format!("SELECT seq FROM audit_heads WHERE tenant_id = '{}'", stranger.id)).await;
    let tamperings = [
        // Deleted, and deleted with the rest moved up.
        (format!("DELETE FROM audit_entries {of} AND seq = 1"), Broken::Gap { seq: 1 }),
        (format!("DELETE FROM audit_entries {of} AND seq = {}", last / 2), Broken::Gap { seq: last / 2 }),
        (format!("DELETE FROM audit_entries {of} AND seq = {last}"), Broken::Truncated { last: last - 1, head: last }),
        (
            format!("DELETE FROM audit_entries {of} AND seq = 5; UPDATE audit_entries SET seq = 5 {of} AND seq = 6"),
            Broken::Changed { seq: 5 },
        ),
        // Put in another order.
        (swap(1, 2), Broken::Changed { seq: 1 }),
        (swap(3, last - 2), Broken::Changed { seq: 3 }),
        (swap(last - 1, last), Broken::Changed { seq: last - 1 }),
        // Doubled: an old entry told again in place of another.
        (
            format!(
                "DELETE FROM audit_entries {of} AND seq = 9;
                 INSERT INTO audit_entries SELECT (jsonb_populate_record(e, '{{\"seq\": 9}}')).* FROM audit_entries e {of} AND seq = 4"
            ),
            Broken::Changed { seq: 9 },
        ),
        // Cut off, with the head left as it was.
        (format!("DELETE FROM audit_entries {of} AND seq > 7"), Broken::Truncated { last: 7, head: last }),
        (format!("DELETE FROM audit_entries {of}"), Broken::Truncated { last: 0, head: last }),
        // Cut off, and the head moved back by somebody who has not the key.
        (
            format!(
                "UPDATE audit_heads h SET seq = e.seq, hash = e.hash FROM audit_entries e
                  WHERE h.tenant_id = '{id}' AND e.tenant_id = '{id}' AND e.seq = 7;
                 DELETE FROM audit_entries {of} AND seq > 7"
            ),
            Broken::ForgedHead { seq: 7 },
        ),
        (format!("UPDATE audit_heads SET seq = seq - 1 {of}"), Broken::ForgedHead { seq: last - 1 }),
        (format!("UPDATE audit_heads SET hash = sha256(hash) {of}"), Broken::ForgedHead { seq: last }),
        (format!("UPDATE audit_heads SET mac = sha256(mac) {of}"), Broken::ForgedHead { seq: last }),
        (format!("UPDATE audit_heads SET mac = '' {of}"), Broken::ForgedHead { seq: last }),
        // Another tenant's head, which is genuine there.
        (
            format!(
                "UPDATE audit_heads h SET seq = o.seq, hash = o.hash, mac = o.mac FROM audit_heads o
                  WHERE h.tenant_id = '{id}' AND o.tenant_id = '{}'",
                stranger.id
            ),
            Broken::ForgedHead { seq: theirs },
        ),
        (format!("DELETE FROM audit_heads {of}"), Broken::NoHead),
    ];
    for (statement, found) in tamperings {
        assert!(run(&mut superuser, &statement).await > 0, "{statement}");
        assert_eq!(check(&b, id, None).await, Err(found), "{statement}");
        kept.put_back(&mut superuser).await;
        assert_eq!(check(&b, id, None).await, Ok(whole.clone()));
    }
    // Rewritten from an edit on to the end, hashes and all: the head does not fit.
    run(&mut superuser, &format!("UPDATE audit_entries SET actor = 'operator:nobody' {of} AND seq = 5")).await;
    rewrite_hashes(id, 5, &mut superuser).await;
    assert_eq!(check(&b, id, None).await, Err(Broken::Changed { seq: last }));
    kept.put_back(&mut superuser).await;
    // The rewriting itself is right: of what was not edited it makes what was there.
    assert_eq!(rewrite_hashes(id, 2, &mut superuser).await, whole.hash);
    assert_eq!(check(&b, id, None).await, Ok(whole));
}

#[actix_web::test]
async fn t27_an_entry_slipped_in_behind_the_head_is_found() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    tenant.admin().await;
    let whole = check(&server, tenant.id, None).await.unwrap();
    let mut superuser = server.database.superuser().await;
    let slipped = format!(
        "INSERT INTO audit_entries
         SELECT (jsonb_populate_record(e, '{{\"seq\": {}, \"actor\": \"key:framed\"}}')).*
           FROM audit_entries e WHERE tenant_id = '{}' AND seq = {}",
        whole.seq + 1,
        tenant.id,
        whole.seq
    );
    run(&mut superuser, &slipped).await;
    // The list of the trail shows it, so the check must tell that it is none of ours.
    assert_eq!(server.issuer.list_audit(tenant.id, None, None, 1).await.unwrap()[0].actor, "key:framed");
    assert!(check(&server, tenant.id, None).await.is_err());
}

#[actix_web::test]
async fn t27_a_forged_head_is_not_made_good_by_the_next_deed() {
    let a = Server::start_with(options()).await;
    let b = a.replica(options()).await;
    let (tenant, key) = lived_in(&a, &b, "acme").await;
    let id = tenant.id;
    let mut superuser = a.database.superuser().await;
    // The last entries are cut off, and the head is moved back without the key that makes its MAC.
    let cut = format!(
        "UPDATE audit_heads h SET seq = e.seq, hash = e.hash FROM audit_entries e
          WHERE h.tenant_id = '{id}' AND e.tenant_id = '{id}' AND e.seq = h.seq - 5;
         DELETE FROM audit_entries WHERE tenant_id = '{id}' AND seq > (SELECT seq FROM audit_heads WHERE tenant_id = '{id}')"
    );
    run(&mut superuser, &cut).await;
    assert!(matches!(check(&a, id, None).await, Err(Broken::ForgedHead { .. })));
    // Whatever the servers do next must not put their own seal on it.
    for server in [&a, &b] {
        let _ = server.with(&key.pair()).post_empty("/v1/authentications").await;
        let change = claviger_issuer::user::UserChange { email: Some(Some("a@example.com".into())), ..Default::default() };
        let claviger_store::id::Owner::User(user) = key.owner else { panic!("a user's key") };
        let _ = server.issuer.change_user(id, &claviger_issuer::audit::Actor::operator(), user, change).await;
        assert!(check(server, id, None).await.is_err(), "five entries are missing and the trail counts as whole");
    }
}

#[actix_web::test]
async fn t27_an_older_head_put_back_with_its_trail_is_found_by_an_anchor_kept_elsewhere() {
    let a = Server::start_with(options()).await;
    let b = a.replica(options()).await;
    let (tenant, key) = lived_in(&a, &b, "acme").await;
    let id = tenant.id;
    let mut superuser = a.database.superuser().await;
    let kept = Kept::of(id, &mut superuser).await;
    let before = check(&a, id, None).await.unwrap();
    for _ in 0..3 {
        b.with(&key.pair()).token().await;
    }
    let anchor = check(&a, id, Some(before.clone())).await.unwrap();
    assert_eq!(anchor.seq, before.seq + 3);
    kept.put_back(&mut superuser).await;
    assert_eq!(check(&a, id, None).await, Ok(before.clone()), "by itself it is a genuine trail");
    assert_eq!(check(&a, id, Some(anchor.clone())).await, Err(Broken::AnchorMissing { seq: anchor.seq }));
    // Nor does it help to let it grow again.
    for _ in 0..4 {
        let _ = a.with(&key.pair()).post_empty("/v1/authentications").await;
        let _ = b.with(&key.pair()).post_empty("/v1/authentications").await;
    }
    let grown = check(&a, id, None).await.unwrap();
    assert!(grown.seq > anchor.seq, "{} {}", grown.seq, anchor.seq);
    assert_eq!(check(&a, id, Some(anchor.clone())).await, Err(Broken::AnchorMissing { seq: anchor.seq }));
    assert_eq!(check(&a, id, Some(before)).await, Ok(grown));
}

#[actix_web::test]
async fn t27_deeds_and_exchanges_at_two_servers_at_once_leave_no_gap_and_nothing_unwritten() {
    const DEEDS: usize = 100;
    const EXCHANGES: usize = 200;
    let a = Server::start_with(options()).await;
    let b = a.replica(options()).await;
    let tenant = a.tenant("acme").await;
    let (admin, key) = (tenant.admin().await, tenant.app_key("app", &["events:read"]).await);
    let before = check(&a, tenant.id, None).await.unwrap().seq;
    let (admin, pair) = (admin.basic(), key.pair());
    let server = |round: usize| if round.is_multiple_of(2) { &a } else { &b };
    let began = Instant::now();
    let deeds = stream::iter(0..DEEDS).map(|round| {
        let (server, admin) = (server(round), &admin);
        async move {
            let made = server.with(admin).post("/v1/applications", json!({ "name": format!("made {round}") })).await;
            assert_eq!(made.status, StatusCode::CREATED, "{}", made.text);
            made.json()["id"].as_str().unwrap().to_owned()
        }
    });
    let exchanges = stream::iter(0..EXCHANGES).map(|round| {
        let (server, pair) = (server(round), &pair);
        async move { claims(&server.with(pair).token().await)["jti"].as_str().unwrap().to_owned() }
    });
    let (made, tokens): (BTreeSet<String>, Vec<String>) =
        tokio::join!(deeds.buffer_unordered(4).collect(), exchanges.buffered(8).collect());
    println!("{DEEDS} deeds and {EXCHANGES} exchanges took {} ms", began.elapsed().as_millis());
    assert_eq!((made.len(), tokens.iter().collect::<BTreeSet<_>>().len()), (DEEDS, EXCHANGES));

    let head = check(&b, tenant.id, None).await.unwrap();
    assert_eq!(head.seq, before + i64::try_from(DEEDS + EXCHANGES).unwrap());
    let mut superuser = a.database.superuser().await;
    let of = format!("tenant_id = '{}'", tenant.id);
    let dense = format!("SELECT count(*) FROM audit_entries WHERE {of} AND seq BETWEEN 1 AND {}", head.seq);
    assert_eq!(count(&mut superuser, &dense).await, head.seq);
    assert_eq!(count(&mut superuser, &format!("SELECT count(*) FROM audit_entries WHERE {of}")).await, head.seq);
    let entries = |action: &str| {
        format!(
            "SELECT split_part(target, ':', 2) FROM audit_entries WHERE {of} AND action = '{action}' AND outcome = 'ok' AND seq > {before} ORDER BY seq"
        )
    };
    let written: Vec<String> =
        sqlx::query_scalar(AssertSqlSafe(entries("key.exchange"))).fetch_all(&mut superuser).await.unwrap();
    let recorded: BTreeSet<String> = sqlx::query_scalar(AssertSqlSafe(format!("SELECT jti::text FROM issued_tokens WHERE {of}")))
        .fetch_all(&mut superuser)
        .await
        .unwrap()
        .into_iter()
        .collect();
    let answered: BTreeSet<String> = tokens.iter().cloned().collect();
    assert_eq!(written.len(), EXCHANGES, "one entry each");
    assert_eq!(written.iter().cloned().collect::<BTreeSet<_>>(), answered);
    assert_eq!(recorded, answered);
    let created: Vec<String> =
        sqlx::query_scalar(AssertSqlSafe(entries("application.create"))).fetch_all(&mut superuser).await.unwrap();
    assert_eq!(created.len(), DEEDS);
    assert_eq!(created.into_iter().collect::<BTreeSet<_>>(), made);
    // Even rounds were asked of one server, odd ones of the other: the chain had two writers in turn.
    let of_a: BTreeSet<&String> = tokens.iter().step_by(2).collect();
    let turns = written.windows(2).filter(|pair| of_a.contains(&pair[0]) != of_a.contains(&pair[1])).count();
    println!("the writers took turns {turns} times");
    assert!(turns > 2, "{turns}");
}

#[actix_web::test]
async fn d10_a_deed_whose_entry_cannot_be_written_is_not_done() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    let (admin, key) = (tenant.admin().await, tenant.app_key("app", &["events:read"]).await);
    let admin = admin.basic();
    server.with(&key.pair()).token().await;
    let mut superuser = server.database.superuser().await;
    run(&mut superuser, "ALTER TABLE audit_entries ADD CONSTRAINT full_disk CHECK (false) NOT VALID").await;
    let state = "SELECT md5(string_agg(t::text, ',' ORDER BY t::text))::text FROM (
                     SELECT u::text FROM users u UNION ALL SELECT a::text FROM applications a UNION ALL SELECT k::text FROM api_keys k
                     UNION ALL SELECT s::text FROM api_key_secrets s UNION ALL SELECT o::text FROM issued_tokens o
                     UNION ALL SELECT t::text FROM tenants t UNION ALL SELECT h::text FROM audit_heads h
                     UNION ALL SELECT c.id::text FROM changes c) AS t";
    let before: String = sqlx::query_scalar(state).fetch_one(&mut superuser).await.unwrap();
    let (application, path) = (key.subject(), format!("/v1/keys/{}", key.id));
    let caller = server.with(&admin);
    let answers = [
        caller.post("/v1/applications", json!({ "name": "new" })).await,
        caller.patch(&format!("/v1/applications/{application}"), json!({ "disabled": true })).await,
        caller.delete(&format!("/v1/applications/{application}")).await,
        caller.post("/v1/users", json!({ "username": "new" })).await,
        caller.post("/v1/keys", json!({ "application_id": application, "name": "new", "scopes": [] })).await,
        caller.patch(&path, json!({ "scopes": [] })).await,
        caller.post(&format!("{path}/rotate"), json!({ "grace_seconds": 0 })).await,
        caller.delete(&path).await,
        server.with(&key.pair()).post_empty("/v1/authentications").await,
    ];
    for answer in answers {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text);
        assert!(!answer.text.contains("jwt") && !answer.text.contains("api_secret"), "{}", answer.text);
    }
    let after: String = sqlx::query_scalar(state).fetch_one(&mut superuser).await.unwrap();
    assert_eq!(after, before, "something was done that nobody wrote down");
    run(&mut superuser, "ALTER TABLE audit_entries DROP CONSTRAINT full_disk").await;
    server.with(&key.pair()).token().await;
    assert!(check(&server, tenant.id, None).await.is_ok());
}

#[actix_web::test]
async fn d10_the_application_role_cannot_change_or_take_away_an_entry() {
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await;
    tenant.admin().await;
    let whole = check(&server, tenant.id, None).await.unwrap();
    let database: PgConnectOptions = server.database.url().parse().unwrap();
    let mut app = database.options([("role", "claviger_app")]).connect().await.unwrap();
    let statements = [
        "UPDATE audit_entries SET actor = 'operator:nobody'",
        "UPDATE audit_entries SET personal = NULL",
        "DELETE FROM audit_entries",
        "DELETE FROM audit_entries WHERE seq = 1",
        "TRUNCATE audit_entries",
        "DELETE FROM audit_heads",
        "TRUNCATE audit_heads",
        "DROP TABLE audit_entries",
        "ALTER TABLE audit_entries DISABLE TRIGGER ALL",
        "INSERT INTO audit_entries SELECT * FROM audit_entries ON CONFLICT (tenant_id, seq) DO UPDATE SET actor = 'operator:nobody'",
    ];
    for statement in statements {
        run(&mut app, &format!("BEGIN; SET LOCAL app.tenant = '{}'", tenant.id)).await;
        let error = sqlx::raw_sql(statement).execute(&mut app).await.expect_err(statement);
        assert_eq!(error.as_database_error().unwrap().code().unwrap(), "42501", "{statement}");
        run(&mut app, "ROLLBACK").await;
    }
    assert_eq!(check(&server, tenant.id, None).await, Ok(whole));
}

/// HMAC-SHA-256 (RFC 2104).
fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    assert!(key.len() <= 64);
    let pad = |with: u8| (0..64).map(|at| key.get(at).copied().unwrap_or(0) ^ with).collect::<Vec<u8>>();
    let inner = Sha256::digest([pad(0x36), message.to_vec()].concat());
    Sha256::digest([pad(0x5c), inner.to_vec()].concat()).to_vec()
}

#[actix_web::test]
async fn t27_a_hundred_thousand_entries_are_checked_and_a_change_in_the_middle_is_found() {
    const ENTRIES: i64 = 100_000;
    let server = Server::start_with(options()).await;
    let tenant = server.tenant("acme").await.id;
    let start = check(&server, tenant, None).await.unwrap();
    let mut superuser = server.database.superuser().await;
    let (at, digest) =
        (DateTime::from_timestamp(1_800_000_000, 0).unwrap(), Sha256::digest([[7; 16].as_slice(), b"{}"].concat()));
    let texts = ["key.exchange", "ok", "key:ck_1", "user:1", "token:1", "request", "{\"scope\":\"events:read\"}"];
    let mut hash = start.hash.clone();
    let seqs: Vec<i64> = (start.seq + 1..=ENTRIES).collect();
    for part in seqs.chunks(10_000) {
        let mut hashes = Vec::with_capacity(part.len());
        for seq in part {
            hash = Written { seq: *seq, at, texts, personal_digest: &digest }.hash(&hash);
            hashes.push(hash.clone());
        }
        let insert = "INSERT INTO audit_entries (tenant_id, action, outcome, actor, subject, target, request_id, detail, at,
                                                 personal, personal_salt, personal_digest, seq, hash)
                      SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, '{}', $10, $11, n.* FROM unnest($12::bigint[], $13::bytea[]) AS n";
        let query = texts.iter().fold(sqlx::query(insert).bind(tenant), |query, text| query.bind(*text));
        let query = query.bind(at).bind([7_u8; 16].as_slice()).bind(digest.as_slice()).bind(part).bind(hashes);
        query.execute(&mut superuser).await.unwrap();
    }
    // The key of the heads lies sealed in the database; with the master key, as the installation has it, it opens.
    let sealed: Vec<u8> = sqlx::query_scalar("SELECT sealed FROM sealed_secrets WHERE purpose = 'audit' AND version = 1")
        .fetch_one(&mut superuser)
        .await
        .unwrap();
    let key = Vault::new(&server.master_key, "sealed_secrets").unwrap().open("sealed_secrets:sealed:audit:1", &sealed).unwrap();
    let message = [b"claviger audit head".as_slice(), tenant.0.as_bytes(), &ENTRIES.to_be_bytes(), &hash].concat();
    let head = "UPDATE audit_heads SET seq = $2, hash = $3, mac = $4 WHERE tenant_id = $1";
    let query = sqlx::query(head).bind(tenant).bind(ENTRIES).bind(&hash).bind(hmac(&key, &message));
    query.execute(&mut superuser).await.unwrap();

    let began = Instant::now();
    let whole = check(&server, tenant, Some(start)).await;
    println!("{ENTRIES} entries were checked in {} ms (unoptimised build)", began.elapsed().as_millis());
    assert_eq!(whole, Ok(Anchor { seq: ENTRIES, hash }));
    run(&mut superuser, "UPDATE audit_entries SET detail = detail || ' ' WHERE seq = 54321").await;
    assert_eq!(check(&server, tenant, None).await, Err(Broken::Changed { seq: 54_321 }));
}
