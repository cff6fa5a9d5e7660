//! Room for the record of tokens: weeks made ahead, weeks dropped when all their tokens have ended.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use chrono::{DateTime, Datelike as _, TimeDelta, Timelike as _, Utc, Weekday};
use claviger_store::audit::{Batch, TokenRow};
use claviger_store::issued_token::LONGEST_TOKEN_LIFETIME;
use claviger_store::{Store, StoreError};
use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use support::{Database, Furnished, entry, furnish, head, lines, now, number, rows, run, sqlstate, token};

/// A partition as the catalogue has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Week {
    name: String,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
}

/// Every partition, oldest first.
async fn weeks(superuser: &mut PgConnection) -> Vec<Week> {
    let found = rows(
        superuser,
        "SELECT c.relname::text,
                (regexp_match(b.bounds, 'FROM \\(''([^'']+)''\\)'))[1]::timestamptz,
                (regexp_match(b.bounds, 'TO \\(''([^'']+)''\\)'))[1]::timestamptz
           FROM pg_inherits i
           JOIN pg_class c ON c.oid = i.inhrelid
           CROSS JOIN LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS bounds) AS b
          WHERE i.inhparent = 'issued_tokens'::regclass
          ORDER BY 2",
    )
    .await;
    found.iter().map(|row| Week { name: row.get(0), from: row.get(1), until: row.get(2) }).collect()
}

fn assert_without_gaps(weeks: &[Week]) {
    for week in weeks {
        assert_eq!((week.from.weekday(), week.from.num_seconds_from_midnight()), (Weekday::Mon, 0), "{week:?}");
        assert_eq!(week.until - week.from, TimeDelta::days(7), "{week:?}");
        assert_eq!(week.name, format!("issued_tokens_{}", week.from.format("%Y%m%d")));
    }
    for pair in weeks.windows(2) {
        assert_eq!(pair[0].until, pair[1].from);
    }
}

fn longest() -> TimeDelta {
    TimeDelta::seconds(i64::from(LONGEST_TOKEN_LIFETIME))
}

/// Records tokens behind the tenant's first entry.
async fn record(store: &Store, furnished: &Furnished, seq: i64, tokens: &[TokenRow]) -> Result<bool, StoreError> {
    let mut tx = store.begin_in(furnished.tenant).await?;
    let (before, head, entries) = (head(seq), head(seq + 1), [entry(seq + 1, now())]);
    let batch = Batch { expected: &before, head: &head, entries: &entries, tokens, used: &[] };
    let recorded = tx.tenant(furnished.tenant).await?.record(&batch).await?;
    tx.commit().await?;
    Ok(recorded)
}

#[tokio::test]
async fn weeks_are_made_as_far_ahead_as_a_token_of_the_next_week_can_live_and_once() {
    let database = Database::create().await;
    let (store, mut superuser) = (database.store().await, database.superuser().await);
    let now = now();
    let made = store.ensure_token_partitions(now).await.unwrap();
    let first = weeks(&mut superuser).await;
    assert_eq!(usize::try_from(made).unwrap(), first.len());
    assert_without_gaps(&first);
    assert!(first[0].from <= now && now < first[0].until);
    let last = first.last().unwrap();
    assert!(last.until > now + TimeDelta::days(7) + longest());
    assert!(last.from <= now + TimeDelta::days(7) + longest(), "not one more than needed");
    assert_eq!(store.ensure_token_partitions(now).await.unwrap(), 0);
    assert_eq!(weeks(&mut superuser).await, first);
    assert_eq!(store.ensure_token_partitions(now + TimeDelta::days(7)).await.unwrap(), 1);
    assert_without_gaps(&weeks(&mut superuser).await);
}

#[tokio::test]
async fn the_edges_of_a_week_and_of_a_year_make_no_gap() {
    let database = Database::create().await;
    let (store, mut superuser) = (database.store().await, database.superuser().await);
    for instant in ["2028-12-31T23:59:59Z", "2029-01-01T00:00:00Z", "2029-01-07T23:59:59.999999Z", "2029-01-08T00:00:00Z"] {
        let now: DateTime<Utc> = instant.parse().unwrap();
        store.ensure_token_partitions(now).await.unwrap();
        let weeks = weeks(&mut superuser).await;
        assert_without_gaps(&weeks);
        assert!(weeks[0].from <= now && weeks.last().unwrap().until > now + longest(), "{instant}");
    }
}

#[tokio::test]
async fn weeks_are_utc_whatever_the_sessions_time_zone() {
    for zone in ["America/New_York", "Europe/Berlin", "Pacific/Chatham"] {
        let database = Database::create().await;
        let (store, mut superuser, mut app) = (database.store().await, database.superuser().await, database.app().await);
        run(&mut app, &format!("SET TIME ZONE '{zone}'")).await;
        // Summer time ends in all of them on the way.
        let now: DateTime<Utc> = "2029-03-01T12:00:00Z".parse().unwrap();
        let question = format!("SELECT ensure_token_partitions('{now}', '{}')::bigint", now + TimeDelta::days(300));
        assert!(number(&mut app, &question).await > 40);
        assert_without_gaps(&weeks(&mut superuser).await);
        assert_eq!(store.ensure_token_partitions(now).await.unwrap(), 0, "{zone}");
    }
}

#[tokio::test]
async fn servers_that_make_weeks_at_once_make_each_once() {
    let database = Database::create().await;
    let (store, mut superuser) = (database.store().await, database.superuser().await);
    let now = now();
    let made = join_all((0..4).map(|_| store.ensure_token_partitions(now))).await;
    let made: i32 = made.into_iter().map(Result::unwrap).sum();
    let weeks = weeks(&mut superuser).await;
    assert_eq!(usize::try_from(made).unwrap(), weeks.len());
    assert_without_gaps(&weeks);
}

#[tokio::test]
async fn a_token_lies_in_the_week_in_which_it_ends_and_is_found_by_its_end() {
    let database = Database::create().await;
    let (store, mut superuser) = (database.store().await, database.superuser().await);
    store.ensure_token_partitions(now()).await.unwrap();
    let furnished = furnish(&store, "a").await;
    let stranger = furnish(&store, "b").await;
    let weeks = weeks(&mut superuser).await;
    let second = TimeDelta::seconds(1);
    let ends = weeks.iter().flat_map(|week| [week.from, week.from + second, week.until - second]).chain([now() + longest()]);
    let tokens: Vec<TokenRow> = ends.map(|end| token(&furnished.key, end)).collect();
    assert!(record(&store, &furnished, 1, &tokens).await.unwrap());
    let misplaced = weeks.iter().map(|week| {
        format!("tableoid = '{}'::regclass AND (expires_at < '{}' OR expires_at >= '{}')", week.name, week.from, week.until)
    });
    let misplaced = misplaced.collect::<Vec<_>>().join(" OR ");
    let misplaced = number(&mut superuser, &format!("SELECT count(*) FROM issued_tokens WHERE {misplaced}")).await;
    assert_eq!(misplaced, 0);
    let kept = "SELECT count(*) FROM issued_tokens WHERE tableoid <> 'issued_tokens'::regclass";
    assert_eq!(number(&mut superuser, kept).await, i64::try_from(tokens.len()).unwrap() + 2);
    for token in &tokens {
        let mut tx = store.begin_in(furnished.tenant).await.unwrap();
        let mut scoped = tx.tenant(furnished.tenant).await.unwrap();
        assert_eq!(scoped.issued_token_key(token.id, token.expires_at).await.unwrap(), Some(furnished.key.clone()));
        assert_eq!(scoped.issued_token_key(token.id, token.expires_at + second).await.unwrap(), None);
        let mut scoped = tx.tenant(stranger.tenant).await.unwrap();
        assert_eq!(scoped.issued_token_key(token.id, token.expires_at).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_token_without_room_is_refused_whole() {
    let database = Database::create().await;
    let (store, mut superuser) = (database.store().await, database.superuser().await);
    store.ensure_token_partitions(now()).await.unwrap();
    let furnished = furnish(&store, "a").await;
    let beyond = weeks(&mut superuser).await.last().unwrap().until;
    let tokens = [token(&furnished.key, now() + TimeDelta::minutes(5)), token(&furnished.key, beyond)];
    let StoreError::Database(error) = record(&store, &furnished, 1, &tokens).await.unwrap_err() else { panic!("another error") };
    assert_eq!(sqlstate(&error), "23514");
    assert_eq!(number(&mut superuser, "SELECT count(*) FROM issued_tokens").await, 1);
    assert_eq!(number(&mut superuser, "SELECT seq FROM audit_heads").await, 1);
    assert_eq!(number(&mut superuser, "SELECT count(*) FROM audit_entries").await, 1);
}

#[tokio::test]
async fn only_weeks_that_ended_more_than_a_day_ago_are_dropped() {
    let database = Database::create().await;
    let (store, mut superuser) = (database.store().await, database.superuser().await);
    let now = now();
    store.ensure_token_partitions(now - TimeDelta::days(70)).await.unwrap();
    store.ensure_token_partitions(now).await.unwrap();
    let furnished = furnish(&store, "a").await;
    let before = weeks(&mut superuser).await;
    assert_without_gaps(&before);
    let tokens: Vec<TokenRow> = before.iter().map(|week| token(&furnished.key, week.until - TimeDelta::seconds(1))).collect();
    assert!(record(&store, &furnished, 1, &tokens).await.unwrap());

    // At most a day after its end a week is still there …
    let oldest = &before[0];
    for late in [-TimeDelta::days(30), TimeDelta::zero(), TimeDelta::hours(23), TimeDelta::days(1)] {
        assert_eq!(store.drop_ended_token_partitions(oldest.until + late).await.unwrap(), 0, "{late}");
    }
    // … and then it is gone, alone.
    let later = oldest.until + TimeDelta::days(1) + TimeDelta::seconds(1);
    assert_eq!(store.drop_ended_token_partitions(later).await.unwrap(), 1);
    assert_eq!(weeks(&mut superuser).await, before[1..]);

    // A clock that is ahead drops nothing that the database's clock would keep.
    let ended = before[1..].iter().filter(|week| week.until + TimeDelta::days(1) < now).count();
    assert!(ended >= 7, "{ended}");
    assert_eq!(usize::try_from(store.drop_ended_token_partitions(now + TimeDelta::days(365)).await.unwrap()).unwrap(), ended);
    let left = weeks(&mut superuser).await;
    assert_eq!(left, before[1 + ended..]);
    assert_without_gaps(&left);
    assert_eq!(store.drop_ended_token_partitions(now).await.unwrap(), 0);
    for token in tokens.iter().filter(|token| token.expires_at > now) {
        let mut tx = store.begin_in(furnished.tenant).await.unwrap();
        let mut scoped = tx.tenant(furnished.tenant).await.unwrap();
        assert_eq!(scoped.issued_token_key(token.id, token.expires_at).await.unwrap(), Some(furnished.key.clone()));
    }
    let live = tokens.iter().filter(|token| token.expires_at > now).count() + 1;
    let kept = format!("SELECT count(*) FROM issued_tokens WHERE expires_at > '{now}'");
    assert_eq!(usize::try_from(number(&mut superuser, &kept).await).unwrap(), live);
}

#[tokio::test]
async fn a_week_that_somebody_reads_is_dropped_the_next_time() {
    let database = Database::create().await;
    let (store, mut superuser) = (database.store().await, database.superuser().await);
    let now = now();
    store.ensure_token_partitions(now - TimeDelta::days(60)).await.unwrap();
    let before = weeks(&mut superuser).await;
    run(&mut superuser, "BEGIN; SELECT count(*) FROM issued_tokens").await;
    assert!(store.drop_ended_token_partitions(now).await.is_err(), "it waits two seconds and gives up");
    run(&mut superuser, "COMMIT").await;
    assert_eq!(weeks(&mut superuser).await, before, "nothing is half done");
    assert!(store.drop_ended_token_partitions(now).await.unwrap() > 0);
}

#[tokio::test]
async fn making_a_week_does_not_wait_for_those_who_insert() {
    let database = Database::create().await;
    let (store, mut superuser) = (database.store().await, database.superuser().await);
    let now = now();
    store.ensure_token_partitions(now).await.unwrap();
    let furnished = furnish(&store, "a").await;
    let mut tx = store.begin_in(furnished.tenant).await.unwrap();
    let (before, head, entries) = (head(1), head(2), [entry(2, now)]);
    let tokens = [token(&furnished.key, now + TimeDelta::minutes(5))];
    let batch = Batch { expected: &before, head: &head, entries: &entries, tokens: &tokens, used: &[] };
    assert!(tx.tenant(furnished.tenant).await.unwrap().record(&batch).await.unwrap());
    // The server's statements give up after two seconds.
    assert_eq!(store.ensure_token_partitions(now + TimeDelta::days(14)).await.unwrap(), 2);
    tx.commit().await.unwrap();
    assert_without_gaps(&weeks(&mut superuser).await);
}

#[tokio::test]
async fn t21_a_partition_is_walled_and_the_application_cannot_reach_it_but_through_its_table() {
    let database = Database::create().await;
    let (store, mut superuser, mut app) = (database.store().await, database.superuser().await, database.app().await);
    store.ensure_token_partitions(now()).await.unwrap();
    let furnished = furnish(&store, "a").await;
    let weeks = weeks(&mut superuser).await;
    let open = lines(
        &mut superuser,
        "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
          WHERE i.inhparent = 'issued_tokens'::regclass
            AND NOT (c.relrowsecurity AND c.relforcerowsecurity AND c.relacl IS NULL
                     AND EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid AND polname = 'tenant_wall'))",
    )
    .await;
    assert_eq!(open, [""; 0]);
    let tenant = furnished.tenant;
    let week = &weeks[0].name;
    let statements = [
        format!("SELECT * FROM {week}"),
        format!("INSERT INTO {week} SELECT * FROM issued_tokens"),
        format!("UPDATE {week} SET scope = 'all:all'"),
        format!("DELETE FROM {week}"),
        format!("TRUNCATE {week}"),
        format!("DROP TABLE {week}"),
        format!("ALTER TABLE issued_tokens DETACH PARTITION {week}"),
        format!("ALTER TABLE {week} DISABLE ROW LEVEL SECURITY"),
        "CREATE TABLE mine PARTITION OF issued_tokens FOR VALUES FROM ('2000-01-03') TO ('2000-01-10')".to_owned(),
        "SELECT add_token_partition('mine', '2000-01-03', '2000-01-10')".to_owned(),
        format!("SELECT raise_tenant_wall('{week}')"),
    ];
    for statement in statements {
        run(&mut app, &format!("BEGIN; SET LOCAL app.tenant = '{tenant}'")).await;
        let denied = sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut app).await;
        run(&mut app, "ROLLBACK").await;
        assert_eq!(sqlstate(&denied.unwrap_err()), "42501", "{statement}");
    }
    // Nor can it be led to make a partition without end.
    let far = sqlx::raw_sql("SELECT ensure_token_partitions(now(), now() + interval '100 years')").execute(&mut app).await;
    assert_eq!(sqlstate(&far.unwrap_err()), "P0001");
}
