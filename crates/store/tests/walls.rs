//! The two walls of tenancy, each with the other one taken away, and the door that lets no strong login in
//! (SECURITY D14, T21).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use claviger_store::api_key::{KEY_ID_TAKEN, KeptSecret, KeyUse, SecretMac};
use claviger_store::audit::{Batch, Filter, Order, Page};
use claviger_store::id::{ApplicationId, FamilyId, Owner, SessionId, TenantId, UserId};
use claviger_store::session::NewSession;
use claviger_store::status_list::Listed;
use claviger_store::token_family::{EndedBy, NewFamily, Principal};
use claviger_store::{DatabaseUrls, Store, StoreError};
use futures_util::TryStreamExt as _;
use futures_util::future::join_all;
use sqlx::{AssertSqlSafe, PgConnection};
use support::{
    APP, APP_TOKEN, BUCKET, Database, Furnished, entry, furnish, hash, head, key_id, lines, new_family, new_key, new_session,
    now, number, refusal_of, run, sqlstate, successor, token, uuid,
};

/// Tables whose primary key does not begin with `tenant_id`, and why.
const KEYED_OTHERWISE: [(&str, &str); 3] = [
    // What leads from a key id to its tenant cannot ask for the tenant.
    ("api_key_routes", "key_id"),
    // Belongs to the installation.
    ("sealed_secrets", "purpose"),
    // Its id is the tenant's.
    ("tenants", "id"),
];

/// Unique indexes that hold over all tenants: what they refuse, one tenant can learn about another.
const UNIQUE_OVER_ALL_TENANTS: [&str; 4] =
    ["api_key_routes_pkey(key_id)", "sealed_secrets_pkey(purpose)", "tenants_pkey(id)", "tenants_slug_key(slug)"];

/// Every policy that is not the tenant wall: table, name, command, USING, WITH CHECK.
const OTHER_POLICIES: [&str; 11] = [
    "api_key_routes | read_by_all | r | true | -",
    "api_key_routes | written_by_tenant | a | - | tenant_id = APP.TENANT",
    // Nobody needs a note that is an hour old.
    "changes | prune_old | d | (at < (clock_timestamp() - '01:00:00'::interval)) | -",
    // Ids only: every replica reads the changes of all tenants.
    "changes | read_by_all | r | true | -",
    "changes | written_by_tenant | a | - | tenant_id = APP.TENANT",
    "sealed_secrets | add | a | - | true",
    "sealed_secrets | read_by_all | r | true | -",
    // Under another master key.
    "sealed_secrets | seal_again | w | (current_setting('app.seal_again'::text, true) = 'on'::text) | true",
    "tenants | insert_own | a | - | id = APP.TENANT",
    // A request's tenant is found here.
    "tenants | read_by_all | r | true | -",
    "tenants | update_own | w | id = APP.TENANT | id = APP.TENANT",
];

/// All that the application role may do, and nobody else may do anything. Partitions carry no grant.
const PRIVILEGES: [&str; 37] = [
    // To tell the schema's version.
    "_sqlx_migrations | SELECT",
    "api_key_routes | INSERT,SELECT",
    "api_key_secrets | INSERT,SELECT,UPDATE",
    "api_key_usage | INSERT,SELECT,UPDATE",
    "api_keys | INSERT,SELECT,UPDATE",
    // Over with their login, and gone.
    "app_tokens | DELETE,INSERT,SELECT",
    "applications | INSERT,SELECT,UPDATE",
    // Counts are forgotten when their window is over.
    "attempts | DELETE,INSERT,SELECT,UPDATE",
    "audiences | INSERT,SELECT,UPDATE",
    // An entry is never changed and never taken away.
    "audit_entries | INSERT,SELECT",
    "audit_heads | INSERT,SELECT,UPDATE",
    "changes | DELETE,INSERT,SELECT",
    // Unlinked, come back, ended, removed: gone.
    "connection_links | DELETE,INSERT,SELECT",
    "connection_logins | DELETE,INSERT,SELECT",
    "connection_states | DELETE,INSERT,SELECT",
    "connections | DELETE,INSERT,SELECT",
    "issued_tokens | INSERT,SELECT",
    // Whoever does not come any more is forgotten.
    "jwks_fetches | DELETE,INSERT,SELECT,UPDATE",
    "key_budgets | INSERT,SELECT,UPDATE",
    // Used once, and gone.
    "key_request_links | DELETE,INSERT,SELECT",
    // Nobody's address is kept for ever.
    "key_requests | DELETE,INSERT,SELECT,UPDATE",
    // Gone with its list.
    "listed_tokens | INSERT,SELECT",
    // Sent, and gone.
    "mail_outbox | DELETE,INSERT,SELECT",
    // Who is deleted leaves none.
    "passwords | DELETE,INSERT,SELECT,UPDATE",
    "refresh_tokens | INSERT,SELECT",
    "revocation_heads | INSERT,SELECT,UPDATE",
    // What has ended by itself need not be listed.
    "revocations | DELETE,INSERT,SELECT,UPDATE",
    // What nobody names any more may go.
    "roles | DELETE,INSERT,SELECT",
    "scopes | DELETE,INSERT,SELECT",
    "sealed_secrets | INSERT,SELECT",
    "sessions | INSERT,SELECT,UPDATE",
    "signing_keys | INSERT,SELECT,UPDATE",
    // All of its tokens have ended.
    "status_lists | DELETE,INSERT,SELECT",
    "tenants | INSERT,SELECT,UPDATE",
    "token_families | INSERT,SELECT,UPDATE",
    "users | INSERT,SELECT,UPDATE",
    // Used once, and gone.
    "ws_tickets | DELETE,INSERT,SELECT",
];

/// What the application role may do to single columns.
const COLUMN_PRIVILEGES: [&str; 26] = [
    // Who somebody is at a connection never changes, nor what a login is under way to.
    "connection_links.profile | UPDATE",
    "connection_links.used_at | UPDATE",
    "connection_logins.asking_until | UPDATE",
    "connection_logins.checked_at | UPDATE",
    "connection_logins.sealed_refresh | UPDATE",
    "connection_states.consumed_at | UPDATE",
    // A name never becomes another, and a provider no directory.
    "connections.disabled_at | UPDATE",
    "connections.disabled_by | UPDATE",
    "connections.sealed_secret | UPDATE",
    "connections.settings | UPDATE",
    "connections.title | UPDATE",
    "connections.updated_at | UPDATE",
    // Which token it is, whose, and until when, stands for ever; only its end is added.
    "issued_tokens.revoked_at | UPDATE",
    "issued_tokens.revoked_by | UPDATE",
    // A message is never changed, only tried again.
    "mail_outbox.next_try_at | UPDATE",
    // Under another master key.
    "mail_outbox.sealed | UPDATE",
    "mail_outbox.tries | UPDATE",
    // A secret may take another's place; a number and a family may not.
    "refresh_tokens.mac | UPDATE",
    "refresh_tokens.pepper_version | UPDATE",
    // A name never becomes another.
    "roles.description | UPDATE",
    "roles.scopes | UPDATE",
    "roles.updated_at | UPDATE",
    "scopes.description | UPDATE",
    // Under another master key.
    "sealed_secrets.sealed | UPDATE",
    // The order of its places stands.
    "status_lists.given | UPDATE",
    "status_lists.open | UPDATE",
];

/// Tables in partitions.
const PARTITIONED: [&str; 4] = ["issued_tokens", "refresh_tokens", "sessions", "token_families"];

/// Whether the application role may do that to the whole of a table.
fn may(table: &str, privilege: &str) -> bool {
    PRIVILEGES.iter().any(|line| line.starts_with(&format!("{table} | ")) && line.contains(privilege))
}

/// A column that the application role may update: any, one that it was given, or none.
fn updatable(table: &str) -> Option<&'static str> {
    let given = || {
        let mut columns = COLUMN_PRIVILEGES.iter().filter_map(|line| line.strip_suffix(" | UPDATE")?.split_once('.'));
        columns.find(|(of, _)| *of == table).map(|(_, column)| column)
    };
    if may(table, "UPDATE") { Some("tenant_id") } else { given() }
}

fn newest(limit: u16) -> Page {
    Page { order: Order::Newest(None), limit }
}

async fn with_partitions() -> (Database, Store) {
    let database = Database::create().await;
    let store = database.store().await;
    assert!(store.ensure_token_partitions(now()).await.unwrap() > 0);
    assert!(store.ensure_login_partitions(now()).await.unwrap() > 0);
    (database, store)
}

/// Every table of ours but the migrator's, partitions included.
async fn all_tables(superuser: &mut PgConnection) -> Vec<String> {
    let tables = lines(
        superuser,
        "SELECT relname::text FROM pg_class
          WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relname <> '_sqlx_migrations'
          ORDER BY relname",
    )
    .await;
    for table in PARTITIONED {
        let partitions = tables.iter().filter(|name| name.strip_prefix(table).is_some_and(|rest| rest.starts_with("_2"))).count();
        assert!(partitions > 4, "the partitions of {table} are among them: {tables:?}");
    }
    tables
}

/// Tables behind the tenant wall that are reached by their own name.
async fn walled_tables(superuser: &mut PgConnection) -> Vec<String> {
    let walled = lines(
        superuser,
        "SELECT c.relname::text FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
          WHERE p.polname = 'tenant_wall' AND NOT c.relispartition
          ORDER BY c.relname",
    )
    .await;
    assert_eq!(walled.len(), 32, "{walled:?}");
    walled
}

#[tokio::test]
async fn t21_every_table_has_row_level_security_forced_and_a_policy() {
    let (database, _store) = with_partitions().await;
    let mut superuser = database.superuser().await;
    let open = lines(
        &mut superuser,
        "SELECT relname::text FROM pg_class c
          WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') AND relname <> '_sqlx_migrations'
            AND NOT (relrowsecurity AND relforcerowsecurity AND EXISTS (SELECT FROM pg_policy WHERE polrelid = c.oid))",
    )
    .await;
    assert_eq!(open, [""; 0], "tables without a wall");
    assert!(all_tables(&mut superuser).await.contains(&"issued_tokens_unending".to_owned()));
    let partitioned = "SELECT relname::text FROM pg_class
                        WHERE relnamespace = 'public'::regnamespace AND relkind = 'p' ORDER BY relname";
    assert_eq!(lines(&mut superuser, partitioned).await, PARTITIONED);
    let others = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm', 'f')";
    assert_eq!(lines(&mut superuser, others).await, [""; 0], "a view answers with its owner's rights");
    let schemas = lines(
        &mut superuser,
        "SELECT nspname::text FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'",
    )
    .await;
    assert_eq!(schemas, ["public"]);
}

#[tokio::test]
async fn t21_every_policy_is_the_tenant_wall_or_listed_here() {
    let (database, _store) = with_partitions().await;
    let mut superuser = database.superuser().await;
    let policies = lines(
        &mut superuser,
        "SELECT c.relname::text, p.polname::text, p.polcmd::text, coalesce(pg_get_expr(p.polqual, p.polrelid), '-'),
                coalesce(pg_get_expr(p.polwithcheck, p.polrelid), '-'), (p.polpermissive AND p.polroles = '{0}')::text
           FROM pg_policy p JOIN pg_class c ON c.oid = p.polrelid
          ORDER BY 1, 2",
    )
    .await;
    let wall = "(tenant_id = ( SELECT (current_setting('app.tenant'::text))::uuid AS current_setting))";
    let mut walled = BTreeSet::new();
    let mut others = Vec::new();
    for policy in policies {
        let policy = policy.strip_suffix(" | true").unwrap_or_else(|| panic!("not for everybody: {policy}"));
        match policy.split_once(" | tenant_wall | ") {
            Some((table, rest)) => {
                assert_eq!(rest, format!("* | {wall} | {wall}"), "{table}");
                walled.insert(table.to_owned());
            }
            None => others.push(
                policy.replace(wall, "tenant_id = APP.TENANT").replace(&wall.replace("tenant_id", "id"), "id = APP.TENANT"),
            ),
        }
    }
    assert_eq!(others, OTHER_POLICIES);
    let listed: BTreeSet<String> =
        OTHER_POLICIES.iter().filter_map(|policy| policy.split(" | ").next()).map(str::to_owned).collect();
    let all: BTreeSet<String> = all_tables(&mut superuser).await.into_iter().collect();
    assert_eq!(&walled | &listed, all);
    assert!(walled.is_disjoint(&listed), "a second policy opens the wall, because policies are joined by OR");
}

#[tokio::test]
async fn t21_the_tenant_leads_every_primary_key_every_unique_index_and_every_foreign_key() {
    let (database, _store) = with_partitions().await;
    let mut superuser = database.superuser().await;
    let leading = lines(
        &mut superuser,
        "SELECT c.relname::text, coalesce(a.attname::text, 'no primary key')
           FROM pg_class c
           LEFT JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
           LEFT JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0]
          WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND c.relname <> '_sqlx_migrations'
          ORDER BY 1",
    )
    .await;
    let otherwise: Vec<&String> = leading.iter().filter(|line| !line.ends_with(" | tenant_id")).collect();
    assert_eq!(otherwise, KEYED_OTHERWISE.map(|(table, column)| format!("{table} | {column}")).iter().collect::<Vec<_>>());
    let unique = lines(
        &mut superuser,
        "SELECT i.indexrelid::regclass::text || '(' || a.attname || ')'
           FROM pg_index i
           JOIN pg_class c ON c.oid = i.indrelid
           JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]
          WHERE c.relnamespace = 'public'::regnamespace AND c.relname <> '_sqlx_migrations' AND i.indisunique
            AND a.attname <> 'tenant_id'
          ORDER BY 1",
    )
    .await;
    assert_eq!(unique, UNIQUE_OVER_ALL_TENANTS);
    let foreign = lines(
        &mut superuser,
        "SELECT DISTINCT f.conrelid::regclass::text, f.confrelid::regclass::text,
                (SELECT string_agg(a.attname, ',' ORDER BY k.n) FROM unnest(f.conkey) WITH ORDINALITY AS k (num, n)
                   JOIN pg_attribute a ON a.attrelid = f.conrelid AND a.attnum = k.num),
                (SELECT string_agg(a.attname, ',' ORDER BY k.n) FROM unnest(f.confkey) WITH ORDINALITY AS k (num, n)
                   JOIN pg_attribute a ON a.attrelid = f.confrelid AND a.attnum = k.num)
           FROM pg_constraint f
          WHERE f.contype = 'f' AND f.connamespace = 'public'::regnamespace",
    )
    .await;
    for known in
        ["api_key_secrets | api_keys | tenant_id,key_id | tenant_id,id", "api_keys | users | tenant_id,user_id | tenant_id,id"]
    {
        assert!(foreign.iter().any(|key| key == known), "{foreign:?}");
    }
    for key in foreign {
        let parts: Vec<&str> = key.split(" | ").collect();
        match parts[1] {
            "tenants" => assert_eq!((parts[2], parts[3]), ("tenant_id", "id"), "{key}"),
            _ => assert!(parts[2].starts_with("tenant_id,") && parts[3].starts_with("tenant_id,"), "{key}"),
        }
    }
}

#[tokio::test]
async fn t21_the_application_role_owns_nothing_and_may_do_only_what_is_listed_here() {
    let (database, _store) = with_partitions().await;
    let mut superuser = database.superuser().await;
    let strong = lines(
        &mut superuser,
        "SELECT rolname::text FROM pg_roles WHERE rolname = 'claviger_app'
            AND (rolsuper OR rolbypassrls OR rolcreaterole OR rolcreatedb OR rolreplication)",
    )
    .await;
    assert_eq!(strong, [""; 0]);
    let member_of = "SELECT count(*) FROM pg_auth_members WHERE member = 'claviger_app'::regrole";
    assert_eq!(number(&mut superuser, member_of).await, 0);
    let owned = "SELECT count(*) FROM pg_shdepend WHERE deptype = 'o' AND refobjid = 'claviger_app'::regrole
                    AND dbid IN (0, (SELECT oid FROM pg_database WHERE datname = current_database()))";
    assert_eq!(number(&mut superuser, owned).await, 0);
    let privileges = lines(
        &mut superuser,
        "SELECT c.relname::text, string_agg(a.privilege_type, ',' ORDER BY a.privilege_type)
           FROM pg_class c, aclexplode(c.relacl) AS a
          WHERE c.relnamespace = 'public'::regnamespace AND a.grantee <> c.relowner
          GROUP BY c.relname ORDER BY c.relname",
    )
    .await;
    assert_eq!(privileges, PRIVILEGES);
    let grantees = lines(
        &mut superuser,
        "SELECT DISTINCT coalesce(r.rolname::text, 'PUBLIC'), a.is_grantable::text
           FROM pg_class c CROSS JOIN aclexplode(c.relacl) AS a LEFT JOIN pg_roles r ON r.oid = a.grantee
          WHERE c.relnamespace = 'public'::regnamespace AND a.grantee <> c.relowner",
    )
    .await;
    assert_eq!(grantees, ["claviger_app | false"]);
    let columns = lines(
        &mut superuser,
        "SELECT c.relname || '.' || a.attname, string_agg(p.privilege_type, ',' ORDER BY p.privilege_type)
           FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid, aclexplode(a.attacl) AS p
          WHERE c.relnamespace = 'public'::regnamespace AND p.grantee = 'claviger_app'::regrole AND NOT p.is_grantable
          GROUP BY c.relname, a.attname ORDER BY 1",
    )
    .await;
    assert_eq!(columns, COLUMN_PRIVILEGES);
    let others = "SELECT count(*) FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid, aclexplode(a.attacl) AS p
                   WHERE c.relnamespace = 'public'::regnamespace AND (p.grantee <> 'claviger_app'::regrole OR p.is_grantable)";
    assert_eq!(number(&mut superuser, others).await, 0, "no privilege hides at a column");
    // Said once more, without the catalogue's words: no partition may be reached by its own name in any way.
    let reachable = "SELECT count(*) FROM pg_inherits i, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) AS p (kind)
                      WHERE has_any_column_privilege('claviger_app', i.inhrelid, p.kind)
                         OR has_table_privilege('claviger_app', i.inhrelid, 'DELETE, TRUNCATE, TRIGGER')";
    assert_eq!(number(&mut superuser, reachable).await, 0);
    let create = "SELECT (has_schema_privilege('claviger_app', 'public', 'CREATE')
                          OR has_database_privilege('claviger_app', current_database(), 'CREATE'))::text";
    assert_eq!(lines(&mut superuser, create).await, ["false"]);
}

#[tokio::test]
async fn t21_the_functions_that_the_application_role_may_call_are_listed_here() {
    let (database, _store) = with_partitions().await;
    let mut superuser = database.superuser().await;
    let callable = lines(
        &mut superuser,
        "SELECT p.proname::text, CASE WHEN p.prosecdef THEN 'as owner' ELSE 'as caller' END,
                coalesce(array_to_string(p.proconfig, ','), '-')
           FROM pg_proc p
          WHERE p.pronamespace = 'public'::regnamespace
            AND (p.prosecdef OR has_function_privilege('claviger_app', p.oid, 'EXECUTE')
                 OR EXISTS (SELECT FROM aclexplode(p.proacl) WHERE grantee = 0))
          ORDER BY 1",
    )
    .await;
    let named: Vec<(&str, &str)> =
        callable.iter().map(|line| line.split(" | ").collect::<Vec<_>>()).map(|parts| (parts[0], parts[1])).collect();
    assert_eq!(
        named,
        [
            ("drop_login_partitions", "as owner"),
            ("drop_token_partitions", "as owner"),
            ("ensure_login_partitions", "as owner"),
            ("ensure_token_partitions", "as owner"),
            ("first_uuid_of", "as caller"),
            ("is_routine", "as caller"),
            ("note_change", "as caller"),
            ("note_revocation", "as caller"),
        ]
    );
    for line in callable.iter().filter(|line| line.contains("as owner")) {
        assert!(line.contains("search_path=public, pg_temp"), "a caller's temporary table must not come first: {line}");
        assert!(line.contains("TimeZone=UTC"), "a caller's time zone must not move a partition: {line}");
    }
}

/// One statement as the application, in a transaction of its own that is undone. The rows it gave or touched, or its
/// SQLSTATE.
async fn probe(app: &mut PgConnection, tenant: Option<&str>, statement: &str) -> Result<u64, String> {
    run(app, "BEGIN").await;
    if let Some(tenant) = tenant {
        run(app, &format!("SET LOCAL app.tenant = '{tenant}'")).await;
    }
    let outcome = sqlx::raw_sql(AssertSqlSafe(statement.to_owned())).execute(&mut *app).await;
    run(app, "ROLLBACK").await;
    outcome.map(|done| done.rows_affected()).map_err(|error| sqlstate(&error))
}

/// A number that a question of the application's answers, within a tenant.
async fn counted(app: &mut PgConnection, tenant: TenantId, question: &str) -> i64 {
    run(app, "BEGIN").await;
    run(app, &format!("SET LOCAL app.tenant = '{tenant}'")).await;
    let counted = number(app, question).await;
    run(app, "ROLLBACK").await;
    counted
}

/// All rows of a tenant in every table, with what tells a rewritten row from an untouched one.
async fn kept(superuser: &mut PgConnection, tenant: TenantId) -> BTreeMap<String, Vec<String>> {
    let mut kept = BTreeMap::new();
    for table in all_tables(superuser).await {
        let column = match table.as_str() {
            "tenants" => "id",
            "sealed_secrets" => continue,
            _ => "tenant_id",
        };
        let question = format!("SELECT t.xmin::text, t::text FROM {table} t WHERE {column} = '{tenant}' ORDER BY t::text");
        kept.insert(table, lines(superuser, &question).await);
    }
    kept
}

/// The columns of a table that a statement may write.
async fn columns(superuser: &mut PgConnection, table: &str) -> String {
    let question = format!(
        "SELECT string_agg(quote_ident(column_name), ', ' ORDER BY ordinal_position) FROM information_schema.columns
          WHERE table_schema = 'public' AND table_name = '{table}' AND is_identity = 'NO'"
    );
    lines(superuser, &question).await.remove(0)
}

/// An INSERT of a copy of one of a tenant's rows, with the tenant as it is or another.
async fn copy_of_a_row(superuser: &mut PgConnection, table: &str, of: TenantId) -> String {
    let columns = columns(superuser, table).await;
    let question = format!("SELECT row_to_json(t)::text FROM {table} t WHERE tenant_id = '{of}' LIMIT 1");
    let row = lines(superuser, &question).await.remove(0).replace('\'', "''");
    format!("INSERT INTO {table} ({columns}) SELECT {columns} FROM json_populate_record(NULL::{table}, '{row}')")
}

const DENIED: &str = "42501";

#[tokio::test]
async fn t21_second_wall_alone_no_question_without_a_filter_sees_another_tenant() {
    let (database, store) = with_partitions().await;
    let (mut superuser, mut app) = (database.superuser().await, database.app().await);
    let (a, b) = (furnish(&store, "a").await, furnish(&store, "b").await);
    run(&mut superuser, "ANALYZE").await;
    for table in walled_tables(&mut superuser).await {
        for tenant in [&a, &b] {
            let own =
                number(&mut superuser, &format!("SELECT count(*) FROM {table} WHERE tenant_id = '{}'", tenant.tenant)).await;
            assert!(own > 0, "{table} holds nothing to be leaked");
            let seen = counted(&mut app, tenant.tenant, &format!("SELECT count(*) FROM {table}")).await;
            assert_eq!(seen, own, "{table}");
        }
        let (a, b) = (a.tenant, b.tenant);
        let foreign = [
            format!("SELECT count(*) FROM {table} WHERE tenant_id = '{b}'"),
            format!("SELECT count(*) FROM {table} WHERE tenant_id <> '{a}'"),
            format!("SELECT count(*) FROM {table} WHERE tenant_id <> '{a}' OR true AND tenant_id IN ('{b}')"),
            format!("SELECT EXISTS (SELECT FROM {table} WHERE tenant_id = '{b}')::int::bigint"),
            format!(
                "WITH everything AS MATERIALIZED (SELECT * FROM {table}) SELECT count(*) FROM everything WHERE tenant_id = '{b}'"
            ),
            format!("SELECT count(*) FROM {table} x JOIN {table} y ON x.tenant_id <> y.tenant_id"),
            format!("SELECT count(*) FROM tenants o JOIN {table} x ON x.tenant_id = o.id WHERE o.id = '{b}'"),
            format!("SELECT count(x.tenant_id) FROM tenants o LEFT JOIN {table} x ON x.tenant_id = o.id WHERE o.id = '{b}'"),
            format!(
                "SELECT count(*) FROM tenants o, LATERAL (SELECT * FROM {table} i WHERE i.tenant_id = o.id) x WHERE o.id = '{b}'"
            ),
            format!("SELECT count(*) FROM (SELECT * FROM {table} UNION ALL SELECT * FROM {table}) x WHERE tenant_id = '{b}'"),
            // Asked of every row, it would divide by zero at the other tenant's.
            format!("SELECT count(*) FROM {table} WHERE 1 / (tenant_id = '{a}')::int <> 1"),
            format!("SELECT count(*) FROM pg_stats WHERE tablename = '{table}'"),
        ];
        for question in foreign {
            assert_eq!(counted(&mut app, a, &question).await, 0, "{question}");
        }
        for lock in ["FOR UPDATE", "FOR SHARE", "FOR KEY SHARE"] {
            let locked =
                probe(&mut app, Some(&a.to_string()), &format!("SELECT FROM {table} WHERE tenant_id = '{b}' {lock}")).await;
            assert!(matches!(&locked, Ok(0)) || locked == Err(DENIED.into()), "{table} {lock}: {locked:?}");
        }
        run(&mut app, &format!("BEGIN; SET LOCAL app.tenant = '{a}'")).await;
        let copied = app.copy_out_raw(&format!("COPY {table} TO STDOUT")).await.unwrap();
        let copied: Vec<u8> = copied.try_fold(Vec::new(), async |all, part| Ok([all, part.to_vec()].concat())).await.unwrap();
        run(&mut app, "ROLLBACK").await;
        let copied = String::from_utf8(copied).unwrap();
        assert!(!copied.contains(&b.to_string()), "COPY {table}");
        // Of a partitioned table Postgres copies the table itself, which is empty, and not its partitions.
        let partitioned = PARTITIONED.contains(&table.as_str());
        assert_eq!(copied.contains(&a.to_string()), !partitioned, "COPY {table} shows nothing");
    }
}

#[tokio::test]
async fn t21_second_wall_alone_no_write_without_a_filter_reaches_another_tenant() {
    let (database, store) = with_partitions().await;
    let (mut superuser, mut app) = (database.superuser().await, database.app().await);
    let (a, b) = (furnish(&store, "a").await, furnish(&store, "b").await);
    let before = kept(&mut superuser, b.tenant).await;
    let within = a.tenant.to_string();
    let (a, b) = (a.tenant, b.tenant);
    for table in walled_tables(&mut superuser).await {
        let own = u64::try_from(number(&mut superuser, &format!("SELECT count(*) FROM {table} WHERE tenant_id = '{a}'")).await)
            .unwrap();
        let may_update = |rows| if may(&table, "UPDATE") { Ok(rows) } else { Err(DENIED.to_owned()) };
        let updated = probe(&mut app, Some(&within), &format!("UPDATE {table} SET tenant_id = tenant_id")).await;
        assert_eq!(updated, may_update(own), "{table}");
        let updated =
            probe(&mut app, Some(&within), &format!("UPDATE {table} SET tenant_id = tenant_id WHERE tenant_id = '{b}'")).await;
        assert_eq!(updated, may_update(0), "{table}");
        let through =
            format!("UPDATE {table} x SET tenant_id = x.tenant_id FROM tenants o WHERE x.tenant_id = o.id AND o.id = '{b}'");
        assert_eq!(probe(&mut app, Some(&within), &through).await, may_update(0), "{table}");
        if let Some(column) = updatable(&table) {
            let update = format!("UPDATE {table} SET {column} = {column}");
            assert_eq!(probe(&mut app, Some(&within), &update).await, Ok(own), "{update}");
            let update = format!("{update} WHERE tenant_id = '{b}'");
            assert_eq!(probe(&mut app, Some(&within), &update).await, Ok(0), "{update}");
        }
        let may_delete = |rows| if may(&table, "DELETE") { Ok(rows) } else { Err(DENIED.to_owned()) };
        assert_eq!(probe(&mut app, Some(&within), &format!("DELETE FROM {table}")).await, may_delete(own), "{table}");
        let deleted = probe(&mut app, Some(&within), &format!("DELETE FROM {table} WHERE tenant_id = '{b}'")).await;
        assert_eq!(deleted, may_delete(0), "{table}");
        let through = format!("DELETE FROM {table} x USING tenants o WHERE x.tenant_id = o.id AND o.id = '{b}'");
        assert_eq!(probe(&mut app, Some(&within), &through).await, may_delete(0), "{table}");
        let denied = [
            format!("UPDATE {table} SET tenant_id = '{b}'"),
            format!("TRUNCATE {table}"),
            format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY"),
            format!("ALTER TABLE {table} NO FORCE ROW LEVEL SECURITY"),
            format!("CREATE POLICY all_of_it ON {table} USING (true)"),
            format!("DROP POLICY tenant_wall ON {table}"),
            format!("CREATE TRIGGER peep AFTER INSERT ON {table} FOR EACH ROW EXECUTE FUNCTION note_change('x', 'y')"),
            copy_of_a_row(&mut superuser, &table, b).await,
            format!("{} ON CONFLICT DO NOTHING", copy_of_a_row(&mut superuser, &table, b).await),
            format!("WITH put AS ({} RETURNING 1) SELECT * FROM put", copy_of_a_row(&mut superuser, &table, b).await),
        ];
        for statement in denied {
            assert_eq!(probe(&mut app, Some(&within), &statement).await, Err(DENIED.into()), "{statement}");
        }
        let off = probe(&mut app, Some(&within), &format!("SET LOCAL row_security = off; SELECT * FROM {table}")).await;
        assert_eq!(off, Err(DENIED.into()), "{table}: it asks for an error instead of a filter, not for the rows");
    }
    assert_eq!(kept(&mut superuser, b).await, before);
}

#[tokio::test]
async fn t21_second_wall_alone_tables_that_all_read_are_written_by_their_tenant_only() {
    let (database, store) = with_partitions().await;
    let (mut superuser, mut app) = (database.superuser().await, database.app().await);
    let (a, b) = (furnish(&store, "a").await, furnish(&store, "b").await);
    let before = kept(&mut superuser, b.tenant).await;
    let within = a.tenant.to_string();
    let (slug, key, of_b) = (&b.slug, &b.key, b.tenant);
    let stranger = uuid();
    assert_eq!(probe(&mut app, Some(&within), "UPDATE tenants SET name = 'mine'").await, Ok(1));
    assert_eq!(probe(&mut app, Some(&within), &format!("UPDATE tenants SET name = 'mine' WHERE id = '{of_b}'")).await, Ok(0));
    // No note is older than an hour.
    assert_eq!(probe(&mut app, Some(&within), "DELETE FROM changes").await, Ok(0));
    let note = |tenant: TenantId| format!("INSERT INTO changes (tenant_id, kind, subject) VALUES ('{tenant}', 'users', 'x')");
    let route = |tenant: TenantId| format!("INSERT INTO api_key_routes (tenant_id, key_id) VALUES ('{tenant}', '{key}')");
    let tenant = |id| format!("INSERT INTO tenants (id, slug, name, created_at) VALUES ('{id}', '{slug}', 'mine', now())");
    assert_eq!(probe(&mut app, Some(&within), &note(a.tenant)).await, Ok(1));
    let denied = [
        note(of_b),
        route(of_b),
        format!("{} ON CONFLICT DO NOTHING", route(of_b)),
        format!("UPDATE tenants SET id = '{stranger}'"),
        "DELETE FROM tenants".into(),
        "UPDATE api_key_routes SET tenant_id = tenant_id".into(),
        "DELETE FROM api_key_routes".into(),
        "UPDATE changes SET kind = kind".into(),
        "UPDATE sealed_secrets SET purpose = ''".into(),
        "DELETE FROM sealed_secrets".into(),
        tenant(stranger),
    ];
    for statement in denied {
        assert_eq!(probe(&mut app, Some(&within), &statement).await, Err(DENIED.into()), "{statement}");
    }
    // Sealed again is only what a transaction says is to be.
    assert_eq!(probe(&mut app, Some(&within), "UPDATE sealed_secrets SET sealed = ''").await, Ok(0));
    // Whoever is in a tenant that is not there yet cannot take over one that is, by its slug.
    let takeover = format!("{} ON CONFLICT (slug) DO UPDATE SET name = 'mine'", tenant(stranger));
    assert_eq!(probe(&mut app, Some(&stranger.to_string()), &takeover).await, Err(DENIED.into()));
    // A route cannot be bent: the key it names must be the tenant's own (23503), and it names it once (23505).
    assert_eq!(probe(&mut app, Some(&within), &route(a.tenant)).await, Err("23505".into()));
    run(&mut superuser, &format!("DELETE FROM api_key_routes WHERE key_id = '{key}'")).await;
    assert_eq!(probe(&mut app, Some(&within), &route(a.tenant)).await, Err("23503".into()));
    run(&mut superuser, &route(of_b)).await;
    let mut after = kept(&mut superuser, of_b).await;
    after.insert("api_key_routes".into(), before["api_key_routes"].clone());
    assert_eq!(after, before);
}

#[tokio::test]
async fn t21_without_a_tenant_every_statement_is_an_error_and_not_an_empty_answer() {
    let (database, store) = with_partitions().await;
    let (mut superuser, mut app) = (database.superuser().await, database.app().await);
    let a = furnish(&store, "a").await;
    for table in walled_tables(&mut superuser).await {
        let insert = copy_of_a_row(&mut superuser, &table, a.tenant).await;
        let statements = [
            format!("SELECT count(*) FROM {table}"),
            format!("SELECT * FROM {table} WHERE tenant_id = '{}'", a.tenant),
            format!("SELECT EXISTS (SELECT FROM {table})"),
            insert,
        ];
        let update = updatable(&table).map(|column| format!("UPDATE {table} SET {column} = {column}"));
        let delete = may(&table, "DELETE").then(|| format!("DELETE FROM {table}"));
        for statement in statements.into_iter().chain(update).chain(delete) {
            // A connection that never heard of a tenant does not know the setting (42704); one that did, and one that
            // was told of no tenant, read a text that is no id (22P02).
            let mut fresh = database.app().await;
            assert_eq!(probe(&mut fresh, None, &statement).await, Err("42704".into()), "{statement}");
            assert_eq!(probe(&mut app, Some(""), &statement).await, Err("22P02".into()), "{statement}");
            assert_eq!(probe(&mut app, Some("everybody"), &statement).await, Err("22P02".into()), "{statement}");
            assert!(probe(&mut app, Some(&a.tenant.to_string()), "SELECT count(*) FROM users").await.is_ok());
            assert_eq!(probe(&mut app, None, &statement).await, Err("22P02".into()), "{statement}: the tenant of before");
        }
    }
    let writes = [
        "UPDATE tenants SET name = name".to_owned(),
        format!("INSERT INTO changes (tenant_id, kind, subject) VALUES ('{}', 'users', 'x')", a.tenant),
        format!("INSERT INTO api_key_routes (tenant_id, key_id) VALUES ('{}', 'x')", a.tenant),
        format!("INSERT INTO tenants (id, slug, name, created_at) VALUES ('{}', 'x', 'x', now())", uuid()),
    ];
    for statement in writes {
        assert_eq!(probe(&mut app, None, &statement).await, Err("22P02".into()), "{statement}");
    }
}

#[tokio::test]
async fn t21_first_wall_alone_every_finder_answers_for_the_tenant_that_was_asked() {
    let (database, store) = with_partitions().await;
    let mut superuser = database.superuser().await;
    let (a, b) = (furnish(&store, "a").await, furnish(&store, "b").await);
    for table in all_tables(&mut superuser).await {
        run(&mut superuser, &format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")).await;
    }
    let mut app = database.app().await;
    let seen = counted(&mut app, a.tenant, "SELECT count(DISTINCT tenant_id) FROM users").await;
    assert_eq!(seen, 2, "the second wall is down, or this proves nothing");
    let mut tx = store.begin_in(a.tenant).await.unwrap();
    let mut tx = tx.tenant(a.tenant).await.unwrap();
    assert!(tx.user(b.user).await.unwrap().is_none());
    assert!(tx.user_by_username(&b.username).await.unwrap().is_none());
    assert!(tx.user_by_email(&b.email).await.unwrap().is_none());
    assert!(tx.application(b.application).await.unwrap().is_none());
    assert!(tx.application_by_name(&b.application_name).await.unwrap().is_none());
    for key in [&b.key, &b.user_key] {
        assert!(tx.key(key).await.unwrap().is_none());
        assert!(!tx.lock_key(key).await.unwrap());
        assert!(tx.key_secrets(key).await.unwrap().is_empty());
    }
    for owner in [Owner::User(b.user), Owner::Application(b.application)] {
        assert!(tx.list_keys(Some(owner), None, 100).await.unwrap().is_empty());
    }
    assert!(tx.issued_token(b.token.id, b.token.expires_at).await.unwrap().is_none());
    assert!(!tx.lock_user(b.user).await.unwrap());
    assert!(tx.login_row(&b.username).await.unwrap().is_none());
    assert!(tx.password(b.user).await.unwrap().is_none());
    let held = tx.hold_passwords(&[b.user, a.user]).await.unwrap();
    assert_eq!(held.into_iter().map(|(user, _)| user).collect::<Vec<_>>(), [a.user]);
    let held = tx.hold_keys(&[b.key.clone(), a.key.clone(), b.user_key.clone()]).await.unwrap();
    assert_eq!(held.iter().collect::<Vec<_>>(), [&a.key]);
    assert!(tx.family(b.family).await.unwrap().is_none());
    assert!(tx.families_of(b.user, now()).await.unwrap().is_empty());
    assert_eq!(tx.family_of_app_token(&[APP_TOKEN]).await.unwrap(), Some(a.family));
    let locked = tx.lock_families(&[(b.family, 0), (a.family, 0)]).await.unwrap();
    assert_eq!(locked.families.keys().collect::<Vec<_>>(), [&a.family]);
    assert_eq!(locked.macs.keys().collect::<Vec<_>>(), [&(a.family, 0)]);
    assert_eq!(tx.status_lists().await.unwrap(), [a.status_list]);
    assert!(tx.status_list(b.status_list).await.unwrap().is_none());
    let listed =
        Listed { id: b.token.id, key: None, family: None, subject: "s", client_id: "c", issued_at: now(), expires_at: now() };
    assert_eq!(tx.take_place(b.audience, &listed).await.unwrap(), None);
    assert_eq!(tx.drop_ended_status_lists(now()).await.unwrap(), 0);
    assert!(!tx.has_unnoted_end(now()).await.unwrap());
    assert!(tx.session(b.session).await.unwrap().is_none());
    assert!(tx.sessions_of(b.user, now()).await.unwrap().is_empty());
    let mut own = vec![&a.key, &a.user_key, &a.hashed_key];
    own.sort();
    let listed = tx.list_keys(None, None, 100).await.unwrap();
    assert_eq!(listed.iter().map(|key| &key.id).collect::<Vec<_>>(), own);
    let listed = tx.list_users(None, 100).await.unwrap();
    assert_eq!(listed.iter().map(|user| user.id).collect::<Vec<_>>(), [a.user]);
    assert_eq!(tx.everybody(None, 100).await.unwrap().iter().map(|user| user.id).collect::<Vec<_>>(), [a.user]);
    let passwords = tx.passwords(&[a.user, b.user]).await.unwrap();
    assert_eq!(passwords.into_iter().map(|(user, _)| user).collect::<Vec<_>>(), [a.user]);
    assert!(tx.links_of(&[b.user]).await.unwrap().is_empty());
    let secrets = tx.secrets_of(&[a.key.clone(), b.key.clone()]).await.unwrap();
    assert_eq!(secrets.iter().map(|(key, _)| key).collect::<Vec<_>>(), [&a.key]);
    assert_eq!(tx.peppers_in_use().await.unwrap(), [1]);
    let tokens = tx.tokens_that_matter(&[now() - TimeDelta::days(1)]).await.unwrap();
    assert_eq!(tokens.iter().map(|token| token.row.id).collect::<Vec<_>>(), [a.token.id]);
    let own = "SELECT count(*) FROM revocations WHERE tenant_id = current_setting('app.tenant')::uuid";
    let revoked = i64::try_from(tx.all_revocations().await.unwrap().len()).unwrap();
    assert!(revoked > 0 && revoked == counted(&mut app, a.tenant, own).await);
    let listed = tx.list_applications(None, 100).await.unwrap();
    assert_eq!(listed.iter().map(|application| application.id).collect::<Vec<_>>(), [a.application]);
    assert!(tx.audience(b.audience).await.unwrap().is_none() && tx.audience(a.audience).await.unwrap().is_some());
    assert_eq!(tx.audiences().await.unwrap().iter().map(|one| one.id).collect::<Vec<_>>(), [a.audience]);
    assert!(!tx.update_audience(b.audience, "stolen", "urn:stolen", &serde_json::json!({})).await.unwrap());
    assert!(!tx.delete_audience(b.audience, now(), "operator:test").await.unwrap());
    let signing = tx.signing_keys().await.unwrap();
    assert_eq!(signing.iter().map(|key| key.kid.as_str()).collect::<Vec<_>>(), [a.kid.as_str()]);
    assert_eq!(tx.list_audit(&Filter::default(), newest(100)).await.unwrap().len(), 1);
    assert_eq!(tx.list_audit(&Filter { prefix: Some("key.exchange"), ..Filter::default() }, newest(100)).await.unwrap().len(), 1);
    assert_eq!(tx.list_audit(&Filter { prefix: Some("key.create"), ..Filter::default() }, newest(100)).await.unwrap().len(), 0);
    let mut walked = 0;
    tx.walk_audit(1, |_| {
        walked += 1;
        true
    })
    .await
    .unwrap();
    assert_eq!(walked, 1);
    // Its own, to show that the questions above are good ones.
    assert!(tx.user(a.user).await.unwrap().is_some() && tx.key(&a.key).await.unwrap().is_some());
    let own = tx.issued_token(a.token.id, a.token.expires_at).await.unwrap().unwrap();
    assert_eq!((own.key, own.family, own.revoked), (Some(a.key.clone()), None, None));
    assert!(tx.lock_user(a.user).await.unwrap());
    assert_eq!(tx.login_row(&a.username).await.unwrap().unwrap().password.map(|kept| kept.hash), Some(hash("a")));
    assert!(tx.family(a.family).await.unwrap().is_some() && tx.session(a.session).await.unwrap().is_some());
    assert_eq!(tx.families_of(a.user, now()).await.unwrap().len(), 1);
    assert_eq!(tx.sessions_of(a.user, now()).await.unwrap().len(), 1);
}

#[tokio::test]
async fn t21_first_wall_alone_every_change_stays_with_the_tenant_that_was_asked() {
    let (database, store) = with_partitions().await;
    let mut superuser = database.superuser().await;
    let (a, b) = (furnish(&store, "a").await, furnish(&store, "b").await);
    for table in all_tables(&mut superuser).await {
        run(&mut superuser, &format!("ALTER TABLE {table} DISABLE ROW LEVEL SECURITY")).await;
    }
    let before = kept(&mut superuser, b.tenant).await;
    let now = now();
    let by = Some((now, "operator:test"));
    let mut tx = store.begin_in(a.tenant).await.unwrap();
    let mut of_a = tx.tenant(a.tenant).await.unwrap();
    assert!(!of_a.set_user_email(b.user, Some("mallory@example.com")).await.unwrap());
    assert!(!of_a.set_user_disabled(b.user, by).await.unwrap());
    assert!(!of_a.delete_user(b.user, now, "operator:test").await.unwrap());
    assert!(!of_a.update_application(b.application, "mine", None).await.unwrap());
    assert!(!of_a.set_application_disabled(b.application, by).await.unwrap());
    assert!(!of_a.delete_application(b.application, now, "operator:test").await.unwrap());
    assert!(!of_a.update_key(&b.key, "mine", &[], None, true, None).await.unwrap());
    assert!(!of_a.set_key_disabled(&b.key, Some("operator:test"), now).await.unwrap());
    assert!(!of_a.revoke_key(&b.key, now, "operator:test").await.unwrap());
    of_a.end_secret(&b.key, 0, now).await.unwrap();
    assert!(!of_a.upgrade_secret(&b.hashed_key, &hash("b"), SecretMac([9; 32]), 1).await.unwrap());
    assert!(!of_a.set_user_roles(b.user, &["admin".to_owned()]).await.unwrap());
    assert!(!of_a.upgrade_password(b.user, &hash("b"), &hash("mine")).await.unwrap());
    of_a.forget_password(b.user).await.unwrap();
    assert!(!of_a.revoke_token(b.token.id, b.token.expires_at, now, "operator:test").await.unwrap());
    assert_eq!(of_a.rotate_families(&[&successor(b.family, 1)], now).await.unwrap(), 0);
    assert!(!of_a.replace_newest(&successor(b.family, 0), now).await.unwrap());
    assert!(!of_a.end_family(b.family, now, "operator:test", EndedBy::Revoked).await.unwrap());
    for principal in [Principal::User(b.user), Principal::Key(b.key.clone())] {
        assert!(of_a.end_families(&principal, now, "operator:test", EndedBy::Revoked).await.unwrap().is_empty());
    }
    assert!(of_a.end_app_tokens(b.user, now, "operator:test", EndedBy::Password).await.unwrap().is_empty());
    assert_eq!(of_a.prune_app_tokens(now + TimeDelta::days(1)).await.unwrap(), 1);
    of_a.touch_session(b.session, now + TimeDelta::hours(1)).await.unwrap();
    assert!(!of_a.end_session(b.session, now, "operator:test", EndedBy::Revoked).await.unwrap());
    assert_eq!(of_a.end_sessions(b.user, now, "operator:test", EndedBy::Revoked).await.unwrap(), 0);
    // Both tenants count in a bucket of that name.
    assert_eq!(of_a.count_attempt(&[(BUCKET, 60)], now).await.unwrap()[0].used, 2);
    of_a.give_back_attempts(&[(BUCKET, 2)]).await.unwrap();
    assert_eq!(of_a.prune_attempts(now + TimeDelta::days(1)).await.unwrap(), 1);
    // The same id in two tenants is two families, and two sessions.
    of_a.open_family(&NewFamily { id: b.family, ..new_family(Principal::User(a.user)) }).await.unwrap();
    assert!(of_a.end_family(b.family, now, "operator:test", EndedBy::Revoked).await.unwrap());
    of_a.open_session(&NewSession { id: b.session, ..new_session(a.user) }).await.unwrap();
    assert!(of_a.end_session(b.session, now, "operator:test", EndedBy::Revoked).await.unwrap());
    assert!(of_a.set_tenant_disabled(by).await.unwrap());
    of_a.update_tenant("mine", &serde_json::json!({})).await.unwrap();
    let (first, head, entries, tokens) = (head(1), head(2), [entry(2, now)], [token(&b.key, now + TimeDelta::minutes(10))]);
    let used = KeyUse { at: now + TimeDelta::days(1), network: None, agent: None };
    of_a.write_key_uses(&[(b.key.clone(), used)]).await.unwrap();
    let batch = Batch { expected: &first, head: &head, entries: &entries, tokens: &tokens };
    assert!(of_a.record(&batch).await.unwrap());
    assert!(of_a.delete_tenant(now, "operator:test").await.unwrap());
    tx.commit().await.unwrap();
    // What would hang a row of one tenant on another's is refused by the keys themselves.
    let refusals = [
        put_secret_of_another(&store, &a, &b).await,
        set_password_of_another(&store, &a, &b).await,
        key_for(&store, &a, Owner::User(b.user)).await,
        key_for(&store, &a, Owner::Application(b.application)).await,
    ];
    for refusal in refusals {
        assert_eq!(refusal_of(refusal), "23503");
    }
    let mut tx = store.begin_in(a.tenant).await.unwrap();
    let mut of_a = tx.tenant(a.tenant).await.unwrap();
    let taken = of_a
        .create_key(&new_key(&b.key, Owner::User(a.user), &[]), &KeptSecret::Mac(SecretMac([9; 32]), 1), now)
        .await
        .unwrap_err();
    assert_eq!(taken.unique_violation(), Some(KEY_ID_TAKEN));
    drop(tx);
    assert_eq!(kept(&mut superuser, b.tenant).await, before);
}

async fn put_secret_of_another(store: &Store, a: &Furnished, b: &Furnished) -> StoreError {
    let mut tx = store.begin_in(a.tenant).await.unwrap();
    tx.tenant(a.tenant).await.unwrap().put_secret(&b.key, 1, &KeptSecret::Mac(SecretMac([9; 32]), 1), now()).await.unwrap_err()
}

async fn set_password_of_another(store: &Store, a: &Furnished, b: &Furnished) -> StoreError {
    let mut tx = store.begin_in(a.tenant).await.unwrap();
    tx.tenant(a.tenant).await.unwrap().set_password(b.user, &hash("mine"), now(), "operator:test").await.unwrap_err()
}

async fn key_for(store: &Store, a: &Furnished, owner: Owner) -> StoreError {
    let mut tx = store.begin_in(a.tenant).await.unwrap();
    let (id, secret) = (key_id(), KeptSecret::Mac(SecretMac([9; 32]), 1));
    tx.tenant(a.tenant).await.unwrap().create_key(&new_key(&id, owner, &[]), &secret, now()).await.unwrap_err()
}

#[tokio::test]
async fn both_walls_move_together_within_a_transaction() {
    let (_database, store) = with_partitions().await;
    let (a, b) = (furnish(&store, "a").await, furnish(&store, "b").await);
    let mut tx = store.begin().await.unwrap();
    for one in [&a, &b, &a] {
        let other = if one.tenant == a.tenant { &b } else { &a };
        assert_eq!(tx.any_tenant().tenant_of_key(&one.key).await.unwrap(), Some(one.tenant));
        let mut scoped = tx.tenant(one.tenant).await.unwrap();
        assert!(scoped.user(one.user).await.unwrap().is_some());
        assert!(scoped.user(other.user).await.unwrap().is_none());
        assert!(scoped.set_user_email(one.user, None).await.unwrap());
    }
    tx.commit().await.unwrap();
    // The next user of the connection begins without a tenant.
    for _ in 0..8 {
        let mut tx = store.begin_in(b.tenant).await.unwrap();
        let mut scoped = tx.tenant(b.tenant).await.unwrap();
        assert!(scoped.user(a.user).await.unwrap().is_none());
        assert_eq!(scoped.user(b.user).await.unwrap().unwrap().email, None);
    }
}

/// What a server that is given these logins says.
async fn two_logins(database: &Database, application: &str, owner: &str) -> Result<Store, StoreError> {
    let urls = DatabaseUrls::parse(&database.url_as(application), Some(&database.url_as(owner))).unwrap();
    Store::connect(&urls, 2).await
}

fn refusal(outcome: Result<Store, StoreError>) -> &'static str {
    match outcome {
        Err(StoreError::RoleTooStrong { why }) => why,
        Err(other) => panic!("refused, but not for its strength: {other}"),
        Ok(_) => "not refused",
    }
}

#[tokio::test]
async fn d14_a_login_that_could_step_over_the_wall_is_refused() {
    let mut database = Database::create().await;
    let owner = database.owner().await;
    let mut superuser = database.superuser().await;
    for table in lines(&mut superuser, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'").await {
        run(&mut superuser, &format!("ALTER TABLE {table} OWNER TO {owner}")).await;
    }
    database.of_the_server(&format!("GRANT {APP} TO {owner}")).await;
    assert_eq!(refusal(two_logins(&database, &owner, &owner).await), "it owns the tables");
    let strong = database.login("SUPERUSER").await;
    assert_eq!(refusal(two_logins(&database, &strong, &owner).await), "it is a superuser");
    let bypassing = database.login(&format!("BYPASSRLS IN ROLE {APP}")).await;
    assert_eq!(refusal(two_logins(&database, &bypassing, &owner).await), "it has BYPASSRLS");
    let stranger = database.login("").await;
    assert!(two_logins(&database, &stranger, &owner).await.is_err(), "it may not become {APP}");
    let member = database.login(&format!("IN ROLE {APP}")).await;
    assert!(two_logins(&database, &member, &owner).await.is_ok());
}

#[tokio::test]
async fn d14_a_login_that_can_become_somebody_strong_is_refused_too() {
    let mut database = Database::empty().await;
    let owner = database.owner().await;
    let superuser = Store::migrate(&database.urls()).await;
    superuser.unwrap();
    let mut superuser = database.superuser().await;
    for table in lines(&mut superuser, "SELECT tablename::text FROM pg_tables WHERE schemaname = 'public'").await {
        run(&mut superuser, &format!("ALTER TABLE {table} OWNER TO {owner}")).await;
    }
    // One `SET ROLE` away from the owner's rights, or from nobody's limits.
    let heir = database.login(&format!("IN ROLE {APP}, {owner}")).await;
    assert_ne!(refusal(two_logins(&database, &heir, &owner).await), "not refused", "a member of the owner");
    let late_heir = database.login(&format!("NOINHERIT IN ROLE {APP}, {owner}")).await;
    assert_ne!(refusal(two_logins(&database, &late_heir, &owner).await), "not refused", "a member of the owner");
    let strong = database.login("SUPERUSER").await;
    let friend = database.login(&format!("IN ROLE {APP}, {strong}")).await;
    assert_ne!(refusal(two_logins(&database, &friend, &owner).await), "not refused", "a member of a superuser");
    let bypassing = database.login("BYPASSRLS").await;
    let friend = database.login(&format!("IN ROLE {APP}, {bypassing}")).await;
    assert_ne!(refusal(two_logins(&database, &friend, &owner).await), "not refused", "a member of one with BYPASSRLS");
}

#[tokio::test]
async fn d14_a_single_login_gives_up_its_rights_on_every_connection() {
    let (database, store) = with_partitions().await;
    let mut superuser = database.superuser().await;
    run(&mut superuser, "ALTER TABLE sealed_secrets ADD COLUMN by_role text DEFAULT current_user").await;
    let more = (0..5).map(|version| {
        let store = &store;
        async move {
            let mut tx = store.begin().await.unwrap();
            tx.any_tenant().add_sealed_secret("test", version, b"sealed", now()).await.unwrap();
            tx.commit().await.unwrap();
        }
    });
    join_all(more).await;
    let by = lines(&mut superuser, "SELECT by_role, count(*)::text FROM sealed_secrets GROUP BY by_role").await;
    assert_eq!(by, [format!("{APP} | 5")]);
}

#[tokio::test]
async fn an_owner_without_any_rights_beyond_its_database_serves_too() {
    let mut database = Database::empty().await;
    // The role is there already, made by whoever runs the cluster.
    Store::migrate(&Database::empty().await.urls()).await.unwrap();
    let owner = database.owner().await;
    let urls = DatabaseUrls::parse(&database.url_as(&owner), None).unwrap();
    Store::migrate(&urls).await.unwrap();
    Store::migrate(&urls).await.unwrap();
    assert!(Store::connect(&urls, 2).await.is_err(), "nobody let this login become {APP}");
    database.of_the_server(&format!("GRANT {APP} TO {owner}")).await;
    let member = database.login(&format!("IN ROLE {APP}")).await;
    for store in [Store::connect(&urls, 2).await.unwrap(), two_logins(&database, &member, &owner).await.unwrap()] {
        store.check().await.unwrap();
        store.ensure_token_partitions(now()).await.unwrap();
        let furnished = furnish(&store, &format!("t{}", uuid().simple())).await;
        let mut tx = store.begin_in(furnished.tenant).await.unwrap();
        let mut scoped = tx.tenant(furnished.tenant).await.unwrap();
        let found = scoped.issued_token(furnished.token.id, furnished.token.expires_at).await.unwrap().unwrap();
        assert_eq!(found.key, Some(furnished.key));
        assert!(scoped.family(furnished.family).await.unwrap().is_some());
        drop(tx);
        store.ensure_token_partitions(now() - TimeDelta::days(60)).await.unwrap();
        assert!(store.drop_ended_token_partitions(now()).await.unwrap() > 0);
        store.ensure_login_partitions(now() - TimeDelta::days(200)).await.unwrap();
        assert!(store.drop_ended_login_partitions(now()).await.unwrap() > 0);
        store.prune_changes().await.unwrap();
    }
    let mut superuser = database.superuser().await;
    let others =
        format!("SELECT count(*) FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relowner <> '{owner}'::regrole");
    assert_eq!(number(&mut superuser, &others).await, 0);
    // FORCE: not even the owner sees rows without naming a tenant.
    run(&mut superuser, &format!("SET ROLE {owner}")).await;
    assert_eq!(probe(&mut superuser, None, "SELECT count(*) FROM users").await, Err("42704".into()));
    assert_eq!(counted(&mut superuser, TenantId(uuid()), "SELECT count(*) FROM users").await, 0);
}

#[tokio::test]
async fn four_servers_that_start_at_once_migrate_once() {
    let database = Database::empty().await;
    let urls = database.urls();
    for outcome in join_all((0..4).map(|_| Store::migrate(&urls))).await {
        outcome.unwrap();
    }
    Store::migrate(&urls).await.unwrap();
    database.store().await.check().await.unwrap();
    let mut superuser = database.superuser().await;
    let applied = number(&mut superuser, "SELECT count(*) FROM _sqlx_migrations WHERE success").await;
    let versions = number(&mut superuser, "SELECT count(DISTINCT version) FROM _sqlx_migrations").await;
    assert_eq!(applied, versions);
}

#[tokio::test]
async fn a_schema_that_is_behind_is_said_and_one_that_is_ahead_is_served() {
    let database = Database::create().await;
    let store = database.store().await;
    store.check().await.unwrap();
    let mut superuser = database.superuser().await;
    let latest = number(&mut superuser, "SELECT max(version) FROM _sqlx_migrations").await;
    let earlier = format!("SELECT max(version) FROM _sqlx_migrations WHERE version < {latest}");
    let earlier = number(&mut superuser, &earlier).await;
    run(
        &mut superuser,
        "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
         SELECT max(version) + 1, 'of a newer release', true, '', 0 FROM _sqlx_migrations",
    )
    .await;
    store.check().await.unwrap();
    run(&mut superuser, &format!("DELETE FROM _sqlx_migrations WHERE version > {latest}")).await;
    run(&mut superuser, &format!("UPDATE _sqlx_migrations SET success = false WHERE version = {latest}")).await;
    let behind = store.check().await.unwrap_err();
    assert!(matches!(behind, StoreError::SchemaVersion { found, wanted } if found == earlier && wanted == latest), "{behind}");
    run(&mut superuser, &format!("DELETE FROM _sqlx_migrations WHERE version = {latest}")).await;
    let behind = store.check().await.unwrap_err();
    assert!(matches!(behind, StoreError::SchemaVersion { found, wanted } if found == earlier && wanted == latest), "{behind}");
    let empty = Database::empty().await;
    assert!(empty.store().await.check().await.is_err(), "a database without a schema is not ready");
}

#[tokio::test]
async fn ids_of_different_kinds_are_not_found_as_one_another() {
    let (_database, store) = with_partitions().await;
    let a = furnish(&store, "a").await;
    let mut tx = store.begin_in(a.tenant).await.unwrap();
    let mut scoped = tx.tenant(a.tenant).await.unwrap();
    assert!(scoped.user(UserId(a.application.0)).await.unwrap().is_none());
    assert!(scoped.application(ApplicationId(a.user.0)).await.unwrap().is_none());
    assert!(scoped.family(FamilyId(a.session.0)).await.unwrap().is_none());
    assert!(scoped.session(SessionId(a.family.0)).await.unwrap().is_none());
}
