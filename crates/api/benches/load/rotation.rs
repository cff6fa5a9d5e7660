//! The ceiling of refreshes: one durable statement for each rotation, over plain connections to the same Postgres, in a
//! database of its own.

use std::path::Path;
use std::time::{Duration, Instant};

use claviger_store::private_postgres::PrivatePostgres;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use tokio::runtime::Runtime;
use tokio::task::JoinSet;

/// Distance between the families that rotate, so that no two share a page.
const APART: i64 = 100;
const CONNECTIONS: u32 = 32;

const TABLES: &str = "
    CREATE TABLE families (
        id bigint PRIMARY KEY,
        generation integer NOT NULL,
        rotated_at timestamptz NOT NULL
    ) WITH (fillfactor = 60);
    CREATE TABLE tokens (
        family_id bigint NOT NULL,
        generation integer NOT NULL,
        mac bytea NOT NULL,
        PRIMARY KEY (family_id, generation)
    );
    INSERT INTO families SELECT n, 0, now() FROM generate_series(0, 100 * 32) AS n;
    ANALYZE families;";

const ROTATE: &str = "
    WITH moved AS (
        UPDATE families SET generation = generation + 1, rotated_at = clock_timestamp()
         WHERE id = $1 AND generation = $2
     RETURNING id, generation
    )
    INSERT INTO tokens (family_id, generation, mac) SELECT id, generation, $3 FROM moved";

/// Families that nobody but this file knows.
pub(crate) struct Rotations {
    runtime: Runtime,
    pool: PgPool,
    /// Keeps the cluster running; the server under load has a share too.
    _postgres: PrivatePostgres,
}

impl Rotations {
    pub(crate) fn prepare(data_dir: &Path) -> Self {
        let postgres = PrivatePostgres::open(data_dir, None).unwrap();
        let login = PgConnectOptions::new_without_pgpass()
            .socket(postgres.socket_dir())
            .port(postgres.port())
            .username(postgres.superuser());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let pool = runtime.block_on(async {
            let first = PgPool::connect_with(login.clone().database("postgres")).await.unwrap();
            sqlx::raw_sql("CREATE DATABASE ceiling").execute(&first).await.unwrap();
            first.close().await;
            let options = PgPoolOptions::new().max_connections(CONNECTIONS).test_before_acquire(false);
            let pool = options.connect_with(login.database("ceiling")).await.unwrap();
            sqlx::raw_sql(TABLES).execute(&pool).await.unwrap();
            pool
        });
        Self { runtime, pool, _postgres: postgres }
    }

    /// Rotations in a second with so many connections, each with a family of its own.
    pub(crate) fn per_second(&self, connections: usize, warm_up: Duration, measure: Duration) -> f64 {
        self.runtime.block_on(async {
            let from = Instant::now() + warm_up;
            let until = from + measure;
            let mut busy = JoinSet::new();
            for number in 0..i64::try_from(connections).unwrap() {
                busy.spawn(rotate(self.pool.clone(), number * APART, from, until));
            }
            let done: u64 = busy.join_all().await.iter().sum();
            done as f64 / measure.as_secs_f64()
        })
    }
}

impl Drop for Rotations {
    fn drop(&mut self) {
        self.runtime.block_on(self.pool.close());
    }
}

/// Rotates a family until the end. Returns how often that was done within the measurement.
async fn rotate(pool: PgPool, family: i64, from: Instant, until: Instant) -> u64 {
    let mut connection = pool.acquire().await.unwrap();
    let known = sqlx::query_scalar::<_, i32>("SELECT generation FROM families WHERE id = $1").bind(family);
    let mut generation = known.fetch_one(&mut *connection).await.unwrap();
    let mut done = 0;
    loop {
        let rotated = sqlx::query(ROTATE).bind(family).bind(generation).bind(&[7_u8; 32][..]);
        assert_eq!(rotated.execute(&mut *connection).await.unwrap().rows_affected(), 1);
        generation += 1;
        let now = Instant::now();
        if now >= until {
            return done;
        }
        done += u64::from(now >= from);
    }
}
