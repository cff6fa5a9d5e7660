//! Readiness says which check failed and the way out, liveness asks nobody, and a server that cannot be ready does not start.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod binary_support;
mod support;

use std::time::Duration;

use binary_support::{Home, Serving, free_port, run};
use chrono::TimeDelta;
use reqwest::StatusCode;
use sqlx::{AssertSqlSafe, PgConnection};
use support::{Database, Server};

const MASTER_KEY: &str = "bmV2ZXIgdG8gYmUgdXNlZCBvdXRzaWRlIG9mIGEgdGU=";

async fn execute(superuser: &mut PgConnection, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(superuser).await.unwrap();
}

/// Waits until the server is unready for this reason, and returns what it says of it.
async fn unready(server: &Server, reason: &str) -> String {
    for _ in 0..200 {
        let answer = server.anonymous().get("/readyz").await;
        if answer.status == StatusCode::SERVICE_UNAVAILABLE {
            assert_eq!(answer.error(), "not_ready");
            assert_eq!(answer.json()["reason"], reason, "{}", answer.text);
            let detail = answer.json()["detail"].as_str().unwrap().to_owned();
            assert!(!answer.text.contains("test_") && !answer.text.contains("postgres"), "it names what is inside: {detail}");
            assert_eq!(server.anonymous().get("/healthz").await.status, StatusCode::OK, "{reason} is no reason to restart");
            return detail;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("still ready, in spite of {reason}");
}

async fn ready(server: &Server) {
    for _ in 0..200 {
        if server.anonymous().get("/readyz").await.status == StatusCode::OK {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("not ready: {}", server.anonymous().get("/readyz").await.text);
}

#[actix_web::test]
async fn each_check_that_fails_is_named_and_passes_again_when_mended() {
    let server = Server::start().await;
    // Before there is a default tenant, which is made while a server runs.
    ready(&server).await;
    let tenant = server.default_tenant().await;
    ready(&server).await;
    let mut superuser = server.database.superuser().await;

    for seconds in [31, -31] {
        server.clock.advance(TimeDelta::seconds(seconds));
        assert!(unready(&server, "clock").await.contains("NTP"));
        server.clock.advance(TimeDelta::seconds(-seconds));
        ready(&server).await;
    }

    let migrated = |version, what| {
        format!(
            "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
             VALUES ({version}, '{what}', true, '', 0)"
        )
    };
    execute(&mut superuser, &migrated(9001, "something more")).await;
    ready(&server).await;
    execute(&mut superuser, &migrated(9002, "tables contract since 0001")).await;
    ready(&server).await;
    execute(&mut superuser, &migrated(9003, "tables contract since 9001")).await;
    assert!(unready(&server, "schema").await.contains("start a newer claviger"));
    execute(&mut superuser, "DELETE FROM _sqlx_migrations WHERE version > 9000").await;
    ready(&server).await;
    execute(&mut superuser, "UPDATE _sqlx_migrations SET success = false WHERE version > 10").await;
    assert!(unready(&server, "schema").await.contains("claviger migrate"));
    execute(&mut superuser, "UPDATE _sqlx_migrations SET success = true").await;
    ready(&server).await;

    let twist = format!(
        "UPDATE signing_keys SET sealed_private = set_byte(sealed_private, 30, get_byte(sealed_private, 30) # 1)
          WHERE tenant_id = '{}'",
        tenant.id
    );
    execute(&mut superuser, &twist).await;
    assert!(unready(&server, "signing_keys").await.contains("claviger doctor"));
    execute(&mut superuser, &twist).await;
    ready(&server).await;

    server.issuer.store().close().await;
    unready(&server, "database").await;
}

/// A server over a given database, as production has it.
fn production(home: &Home, database: &Database, arguments: &[&str]) -> std::process::Command {
    let mut command = home.command(arguments);
    command
        .env("DATABASE_URL", database.url())
        .env("CLAVIGER_MASTER_KEY", MASTER_KEY)
        .env("CLAVIGER_PUBLIC_URL", "https://id.example.com")
        .env("CLAVIGER_DRAIN_WAIT", "0");
    command
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_whose_clock_is_31_seconds_off_refuses_to_start() {
    let home = Home::new();
    let database = Database::create().await;
    let mut superuser = database.superuser().await;
    let port = free_port();
    let listen = format!("127.0.0.1:{port}");
    // The clock of this database alone goes wrong.
    execute(
        &mut superuser,
        "CREATE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
             AS $$ SELECT pg_catalog.clock_timestamp() - interval '31 seconds' $$;
         GRANT EXECUTE ON FUNCTION public.clock_timestamp() TO PUBLIC;
         DO $$ BEGIN
             EXECUTE format('ALTER DATABASE %I SET search_path = public, pg_catalog', current_database());
         END $$",
    )
    .await;
    let said = run(production(&home, &database, &["serve", "--listen", &listen]), "");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(
        said.err.contains("error: the database's clock and ours are 31 seconds apart") && said.err.contains("NTP"),
        "{said:?}"
    );

    execute(
        &mut superuser,
        "CREATE OR REPLACE FUNCTION public.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE
             AS $$ SELECT pg_catalog.clock_timestamp() - interval '25 seconds' $$",
    )
    .await;
    let serving = Serving::start(production(&home, &database, &["serve", "--listen", &listen]), port).await;
    assert_eq!(serving.stop().await.status.code(), Some(0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_does_not_start_on_a_schema_that_has_lost_what_it_reads() {
    let home = Home::new();
    let database = Database::create().await;
    let mut superuser = database.superuser().await;
    execute(
        &mut superuser,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         VALUES (9001, 'more', true, '', 0), (9002, 'passwords contract since 9001', true, '', 0)",
    )
    .await;
    let said = run(production(&home, &database, &["serve", "--listen", "127.0.0.1:0"]), "");
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("for programs that know migration 9001") && said.err.contains("newer claviger"), "{said:?}");
    let doctor = run(production(&home, &database, &["doctor"]), "");
    assert!(doctor.code == Some(1) && doctor.out.contains("WRONG  schema: "), "{doctor:?}");
}
