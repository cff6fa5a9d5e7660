//! Room for the record of tokens and for logins: weeks and quarters made ahead, and dropped when all in them has ended.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use chrono::{DateTime, Datelike as _, Months, TimeDelta, Timelike as _, Utc, Weekday};
use claviger_store::audit::{Batch, TokenRow};
use claviger_store::id::{FamilyId, SessionId, TenantId, UserId};
use claviger_store::issued_token::{LONGEST_TOKEN_LIFETIME, UNENDING};
use claviger_store::session::NewSession;
use claviger_store::standing::Evidence;
use claviger_store::token_family::{LONGEST_LOGIN, Principal};
use claviger_store::{Store, StoreError};
use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, PgConnection, Row as _};
use support::{
    Database, Furnished, entry, family_until, furnish, head, lines, new_family, new_session, new_user, now, number, refusal_of,
    rows, run, sqlstate, successor, token, uuid, uuid_of,
};
use uuid::Uuid;

/// A partition as the catalogue has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Week {
    name: String,
    from: DateTime<Utc>,
    until: DateTime<Utc>,
}

/// Every week's partition, oldest first.
async fn weeks(superuser: &mut PgConnection) -> Vec<Week> {
    let found = rows(
        superuser,
        "SELECT c.relname::text,
                (regexp_match(b.bounds, 'FROM \\(''([^'']+)''\\)'))[1]::timestamptz,
                (regexp_match(b.bounds, 'TO \\(''([^'']+)''\\)'))[1]::timestamptz
           FROM pg_inherits i
           JOIN pg_class c ON c.oid = i.inhrelid
           CROSS JOIN LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS bounds) AS b
          WHERE i.inhparent = 'issued_tokens'::regclass AND c.relname <> 'issued_tokens_unending'
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
    let batch = Batch { expected: &before, head: &head, entries: &entries, tokens };
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
        let found = scoped.issued_token(token.id, token.expires_at).await.unwrap().unwrap();
        assert_eq!((found.key, found.family, found.revoked), (Some(furnished.key.clone()), None, None));
        assert!(scoped.issued_token(token.id, token.expires_at + second).await.unwrap().is_none());
        let mut scoped = tx.tenant(stranger.tenant).await.unwrap();
        assert!(scoped.issued_token(token.id, token.expires_at).await.unwrap().is_none());
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
        assert_eq!(scoped.issued_token(token.id, token.expires_at).await.unwrap().unwrap().key, Some(furnished.key.clone()));
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
    let batch = Batch { expected: &before, head: &head, entries: &entries, tokens: &tokens };
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
          WHERE c.relkind = 'r' AND NOT (c.relrowsecurity AND c.relforcerowsecurity AND c.relacl IS NULL
                     AND EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid AND polname = 'tenant_wall'))",
    )
    .await;
    assert_eq!(open, [""; 0]);
    let tenant = furnished.tenant;
    let week = &weeks[0].name;
    let mut partitions = vec![("issued_tokens", week.clone()), ("issued_tokens", "issued_tokens_unending".to_owned())];
    let quarter = quarters(&mut superuser, "sessions").await[0].from.format("%Y%m%d").to_string();
    partitions.extend(LOGIN_TABLES.map(|table| (table, format!("{table}_{quarter}"))));
    let mut statements = vec![
        "CREATE TABLE mine PARTITION OF issued_tokens FOR VALUES FROM ('2000-01-03') TO ('2000-01-10')".to_owned(),
        "SELECT add_token_partition('mine', '2000-01-03', '2000-01-10')".to_owned(),
        format!("SELECT raise_tenant_wall('{week}')"),
    ];
    for (table, partition) in partitions {
        statements.extend([
            format!("SELECT * FROM {partition}"),
            format!("INSERT INTO {partition} SELECT * FROM {table}"),
            format!("UPDATE {partition} SET tenant_id = tenant_id"),
            format!("DELETE FROM {partition}"),
            format!("TRUNCATE {partition}"),
            format!("DROP TABLE {partition}"),
            format!("ALTER TABLE {table} DETACH PARTITION {partition}"),
            format!("ALTER TABLE {partition} DISABLE ROW LEVEL SECURITY"),
        ]);
    }
    for statement in statements {
        run(&mut app, &format!("BEGIN; SET LOCAL app.tenant = '{tenant}'")).await;
        let denied = sqlx::raw_sql(AssertSqlSafe(statement.clone())).execute(&mut app).await;
        run(&mut app, "ROLLBACK").await;
        assert_eq!(sqlstate(&denied.unwrap_err()), "42501", "{statement}");
    }
    // Nor can it be led to make a partition without end.
    for kind in ["token", "login"] {
        let far = format!("SELECT ensure_{kind}_partitions(now(), now() + interval '100 years')");
        let far = sqlx::raw_sql(AssertSqlSafe(far)).execute(&mut app).await;
        assert_eq!(sqlstate(&far.unwrap_err()), "P0001", "{kind}");
    }
}

#[tokio::test]
async fn a_token_without_an_end_lies_apart_from_all_weeks_and_is_never_dropped() {
    let database = Database::create().await;
    let (store, mut superuser) = (database.store().await, database.superuser().await);
    let now = now();
    store.ensure_token_partitions(now - TimeDelta::days(60)).await.unwrap();
    store.ensure_token_partitions(now).await.unwrap();
    let furnished = furnish(&store, "a").await;
    let end = DateTime::from_timestamp(UNENDING, 0).unwrap();
    let of_a_key = TokenRow { issued_at: now, ..token(&furnished.key, end) };
    // An operator's stands for no key and no login.
    let of_nobody = TokenRow { issued_at: now, key: None, ..token(&furnished.key, end) };
    assert!(record(&store, &furnished, 1, &[of_a_key.clone(), of_nobody.clone()]).await.unwrap());
    let where_they_lie = "SELECT tableoid::regclass::text, count(*)::text FROM issued_tokens
                           WHERE expires_at > now() + interval '1 year' GROUP BY 1";
    assert_eq!(lines(&mut superuser, where_they_lie).await, ["issued_tokens_unending | 2"]);

    let end_of_time = end + TimeDelta::days(1000);
    assert!(store.drop_ended_token_partitions(end_of_time).await.unwrap() > 0, "weeks that are over");
    assert_eq!(store.drop_ended_token_partitions(end_of_time).await.unwrap(), 0);
    assert_eq!(lines(&mut superuser, where_they_lie).await, ["issued_tokens_unending | 2"]);
    let mut tx = store.begin_in(furnished.tenant).await.unwrap();
    let mut scoped = tx.tenant(furnished.tenant).await.unwrap();
    let found = scoped.issued_token(of_a_key.id, end).await.unwrap().unwrap();
    assert_eq!((found.key, found.family, found.revoked), (Some(furnished.key), None, None));
    assert!(scoped.revoke_token(of_nobody.id, end, now, "operator:test").await.unwrap());
    let found = scoped.issued_token(of_nobody.id, end).await.unwrap().unwrap();
    assert_eq!((found.key, found.family), (None, None));
    assert_eq!(found.revoked, Some(Evidence { at: now, by: "operator:test".into() }));
    assert!(!scoped.revoke_token(of_nobody.id, end, now, "operator:other").await.unwrap());
}

/// Tables whose partitions hold the logins that end in a quarter.
const LOGIN_TABLES: [&str; 3] = ["refresh_tokens", "sessions", "token_families"];

/// A quarter's partition as the catalogue has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Quarter {
    from: DateTime<Utc>,
    until: DateTime<Utc>,
}

/// The quarters of one of the three tables, oldest first.
async fn quarters(superuser: &mut PgConnection, table: &str) -> Vec<Quarter> {
    let question = format!(
        "SELECT c.relname::text,
                (regexp_match(b.bounds, 'FROM \\(''([^'']+)''\\)'))[1]::uuid,
                (regexp_match(b.bounds, 'TO \\(''([^'']+)''\\)'))[1]::uuid
           FROM pg_inherits i
           JOIN pg_class c ON c.oid = i.inhrelid
           CROSS JOIN LATERAL (SELECT pg_get_expr(c.relpartbound, c.oid) AS bounds) AS b
          WHERE i.inhparent = '{table}'::regclass
          ORDER BY 2"
    );
    let read = |row: &sqlx::postgres::PgRow| {
        let quarter = Quarter { from: least_id(row.get(1)), until: least_id(row.get(2)) };
        assert_eq!(row.get::<String, _>(0), format!("{table}_{}", quarter.from.format("%Y%m%d")));
        quarter
    };
    rows(superuser, &question).await.iter().map(read).collect()
}

/// The time of which an id is the least one.
fn least_id(id: Uuid) -> DateTime<Utc> {
    let number = id.as_u128();
    assert_eq!(number & ((1 << 80) - 1), 0, "{id} leaves some ids of its time out");
    DateTime::from_timestamp_millis(i64::try_from(number >> 80).unwrap()).unwrap()
}

/// The quarters that all three tables have.
async fn common_quarters(superuser: &mut PgConnection) -> Vec<Quarter> {
    let quarters_of_one = quarters(superuser, LOGIN_TABLES[0]).await;
    for table in LOGIN_TABLES {
        assert_eq!(quarters(superuser, table).await, quarters_of_one, "{table}");
    }
    for quarter in &quarters_of_one {
        assert_eq!((quarter.from.day(), quarter.from.num_seconds_from_midnight()), (1, 0), "{quarter:?}");
        assert!([1, 4, 7, 10].contains(&quarter.from.month()), "{quarter:?}");
        assert_eq!(quarter.from.checked_add_months(Months::new(3)), Some(quarter.until), "{quarter:?}");
    }
    for pair in quarters_of_one.windows(2) {
        assert_eq!(pair[0].until, pair[1].from);
    }
    quarters_of_one
}

/// The longest life of a login, and the month until the next is made for certain.
fn farthest_end() -> TimeDelta {
    TimeDelta::seconds(i64::from(LONGEST_LOGIN)) + TimeDelta::days(31)
}

/// A tenant, and a user whom no partition is needed for.
async fn tenant_with_a_user(store: &Store) -> (TenantId, UserId) {
    let (tenant, user) = (TenantId(uuid()), UserId(uuid()));
    let mut tx = store.begin_in(tenant).await.unwrap();
    let mut scoped = tx.tenant(tenant).await.unwrap();
    scoped.create_tenant(&tenant.to_string(), "test", &serde_json::json!({}), now()).await.unwrap();
    scoped.create_user(&new_user(user, "somebody"), now()).await.unwrap();
    tx.commit().await.unwrap();
    (tenant, user)
}

/// Begins a family and a session that end then.
async fn log_in(store: &Store, (tenant, user): (TenantId, UserId), ends_at: DateTime<Utc>) -> Result<(), StoreError> {
    let mut tx = store.begin_in(tenant).await?;
    let mut scoped = tx.tenant(tenant).await?;
    scoped.open_family(&family_until(Principal::User(user), ends_at)).await?;
    scoped.open_session(&NewSession { id: SessionId(uuid_of(ends_at)), ends_at, ..new_session(user) }).await?;
    tx.commit().await
}

#[tokio::test]
async fn quarters_are_made_as_far_ahead_as_a_login_of_the_next_month_can_live_and_once() {
    let database = Database::create().await;
    let (store, mut superuser) = (database.store().await, database.superuser().await);
    let now = now();
    assert!(common_quarters(&mut superuser).await.is_empty());
    let made = store.ensure_login_partitions(now).await.unwrap();
    let first = common_quarters(&mut superuser).await;
    assert_eq!(usize::try_from(made).unwrap(), 3 * first.len());
    assert!(first[0].from <= now && now < first[0].until);
    let last = first.last().unwrap();
    assert!(last.until > now + farthest_end());
    assert!(last.from <= now + farthest_end(), "not one more than needed");
    assert_eq!(store.ensure_login_partitions(now).await.unwrap(), 0);
    assert_eq!(common_quarters(&mut superuser).await, first);
    let next = store.ensure_login_partitions(now + TimeDelta::days(92)).await.unwrap();
    assert!(next == 3 || next == 6, "{next}");
    common_quarters(&mut superuser).await;
}

#[tokio::test]
async fn the_edges_of_a_quarter_and_of_a_year_make_no_gap() {
    let database = Database::create().await;
    let (store, mut superuser) = (database.store().await, database.superuser().await);
    for instant in ["2028-12-31T23:59:59.999999Z", "2029-01-01T00:00:00Z", "2029-03-31T23:59:59Z", "2029-04-01T00:00:00Z"] {
        let now: DateTime<Utc> = instant.parse().unwrap();
        store.ensure_login_partitions(now).await.unwrap();
        let quarters = common_quarters(&mut superuser).await;
        assert!(quarters[0].from <= now && quarters.last().unwrap().until > now + farthest_end(), "{instant}");
    }
}

#[tokio::test]
async fn quarters_are_utc_whatever_the_sessions_time_zone() {
    for zone in ["America/New_York", "Europe/Berlin", "Pacific/Chatham"] {
        let database = Database::create().await;
        let (store, mut superuser, mut app) = (database.store().await, database.superuser().await, database.app().await);
        run(&mut app, &format!("SET TIME ZONE '{zone}'")).await;
        let now: DateTime<Utc> = "2029-03-31T23:30:00Z".parse().unwrap();
        let question = format!("SELECT ensure_login_partitions('{now}', '{}')::bigint", now + TimeDelta::days(600));
        assert!(number(&mut app, &question).await > 18);
        assert_eq!(common_quarters(&mut superuser).await[0].from, "2029-01-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap());
        assert_eq!(store.ensure_login_partitions(now).await.unwrap(), 0, "{zone}");
    }
}

#[tokio::test]
async fn servers_that_make_quarters_at_once_make_each_once() {
    let database = Database::create().await;
    let (store, mut superuser) = (database.store().await, database.superuser().await);
    let now = now();
    let made = join_all((0..4).map(|_| store.ensure_login_partitions(now))).await;
    let made: i32 = made.into_iter().map(Result::unwrap).sum();
    assert_eq!(usize::try_from(made).unwrap(), 3 * common_quarters(&mut superuser).await.len());
}

#[tokio::test]
async fn a_login_lies_in_the_quarter_in_which_it_ends_with_all_its_tokens() {
    let database = Database::create().await;
    let (store, mut superuser) = (database.store().await, database.superuser().await);
    store.ensure_login_partitions(now()).await.unwrap();
    let whose = tenant_with_a_user(&store).await;
    let quarters = common_quarters(&mut superuser).await;
    let least = TimeDelta::milliseconds(1);
    for quarter in &quarters {
        for ends_at in [quarter.from, quarter.from + least, quarter.until - least] {
            log_in(&store, whose, ends_at).await.unwrap();
        }
        let part = quarter.from.format("%Y%m%d");
        for table in LOGIN_TABLES {
            assert_eq!(number(&mut superuser, &format!("SELECT count(*) FROM {table}_{part}")).await, 3, "{table}_{part}");
        }
        // What follows the first token lies beside it.
        let mut tx = store.begin_in(whose.0).await.unwrap();
        let mut scoped = tx.tenant(whose.0).await.unwrap();
        let ended = rows(&mut superuser, &format!("SELECT id FROM token_families_{part}")).await;
        let successors: Vec<_> = ended.iter().map(|row| successor(FamilyId(row.get(0)), 1)).collect();
        assert_eq!(scoped.rotate_families(&successors.iter().collect::<Vec<_>>(), now()).await.unwrap(), 3);
        tx.commit().await.unwrap();
        assert_eq!(number(&mut superuser, &format!("SELECT count(*) FROM refresh_tokens_{part}")).await, 6);
    }
    // The longest login that may begin now, and within the month.
    log_in(&store, whose, now() + farthest_end()).await.unwrap();
}

#[tokio::test]
async fn a_login_without_room_is_refused_whole() {
    let database = Database::create().await;
    let (store, mut superuser) = (database.store().await, database.superuser().await);
    store.ensure_login_partitions(now()).await.unwrap();
    let whose = tenant_with_a_user(&store).await;
    let quarters = common_quarters(&mut superuser).await;
    for ends_at in [quarters[0].from - TimeDelta::milliseconds(1), quarters.last().unwrap().until] {
        assert_eq!(refusal_of(log_in(&store, whose, ends_at).await.unwrap_err()), "23514");
    }
    for table in LOGIN_TABLES {
        assert_eq!(number(&mut superuser, &format!("SELECT count(*) FROM {table}")).await, 0);
    }
}

#[tokio::test]
async fn only_quarters_that_ended_more_than_a_day_ago_are_dropped() {
    let database = Database::create().await;
    let (store, mut superuser) = (database.store().await, database.superuser().await);
    let now = now();
    store.ensure_login_partitions(now - TimeDelta::days(400)).await.unwrap();
    store.ensure_login_partitions(now).await.unwrap();
    let whose = tenant_with_a_user(&store).await;
    let before = common_quarters(&mut superuser).await;
    for quarter in &before {
        log_in(&store, whose, quarter.until - TimeDelta::milliseconds(1)).await.unwrap();
    }

    // At most a day after its end a quarter is still there …
    let oldest = &before[0];
    for late in [-TimeDelta::days(30), TimeDelta::zero(), TimeDelta::hours(23), TimeDelta::days(1)] {
        assert_eq!(store.drop_ended_login_partitions(oldest.until + late).await.unwrap(), 0, "{late}");
    }
    // … and then it is gone, alone, from all three tables.
    let later = oldest.until + TimeDelta::days(1) + TimeDelta::seconds(1);
    assert_eq!(store.drop_ended_login_partitions(later).await.unwrap(), 3);
    assert_eq!(common_quarters(&mut superuser).await, before[1..]);

    // A clock that is ahead drops nothing that the database's clock would keep.
    let ended = before[1..].iter().filter(|quarter| quarter.until + TimeDelta::days(1) < now).count();
    assert!(ended >= 2, "{ended}");
    let dropped = store.drop_ended_login_partitions(now + TimeDelta::days(36_500)).await.unwrap();
    assert_eq!(usize::try_from(dropped).unwrap(), 3 * ended);
    let left = common_quarters(&mut superuser).await;
    assert_eq!(left, before[1 + ended..]);
    assert_eq!(store.drop_ended_login_partitions(now).await.unwrap(), 0);
    for table in LOGIN_TABLES {
        let kept = number(&mut superuser, &format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(usize::try_from(kept).unwrap(), left.len(), "{table}");
    }
}

#[tokio::test]
async fn a_quarter_that_somebody_reads_is_dropped_the_next_time() {
    let database = Database::create().await;
    let (store, mut superuser) = (database.store().await, database.superuser().await);
    let now = now();
    store.ensure_login_partitions(now - TimeDelta::days(300)).await.unwrap();
    let before = common_quarters(&mut superuser).await;
    for table in LOGIN_TABLES {
        run(&mut superuser, &format!("BEGIN; SELECT count(*) FROM {table}")).await;
        assert!(store.drop_ended_login_partitions(now).await.is_err(), "it waits two seconds and gives up");
        run(&mut superuser, "COMMIT").await;
        assert_eq!(common_quarters(&mut superuser).await, before, "nothing is half done");
    }
    assert!(store.drop_ended_login_partitions(now).await.unwrap() > 0);
}

#[tokio::test]
async fn making_a_quarter_does_not_wait_for_those_who_log_in_and_rotate() {
    let database = Database::create().await;
    let (store, mut superuser) = (database.store().await, database.superuser().await);
    let now = now();
    store.ensure_token_partitions(now).await.unwrap();
    let furnished = furnish(&store, "a").await;
    let before = common_quarters(&mut superuser).await.len();
    let mut tx = store.begin_in(furnished.tenant).await.unwrap();
    let mut scoped = tx.tenant(furnished.tenant).await.unwrap();
    scoped.open_family(&new_family(Principal::User(furnished.user))).await.unwrap();
    scoped.open_session(&new_session(furnished.user)).await.unwrap();
    scoped.lock_families(&[(furnished.family, 0)]).await.unwrap();
    assert_eq!(scoped.rotate_families(&[&successor(furnished.family, 1)], now).await.unwrap(), 1);
    // The server's statements give up after two seconds.
    assert!(store.ensure_login_partitions(now + TimeDelta::days(92)).await.unwrap() > 0);
    tx.commit().await.unwrap();
    assert!(common_quarters(&mut superuser).await.len() > before);
}
