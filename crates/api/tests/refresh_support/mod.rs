//! What tests of refresh tokens stand on: tokens taken apart and put together again, families as the database has them, and
//! the passing of time.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support: every test file uses its own part of it, and a failure here is a failed test"
)]

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use claviger_issuer::clock::Clock;
use claviger_store::audit::Entry;
use reqwest::StatusCode;
use serde_json::{Value, json};
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use crate::support::{Answer, Options, Server, Tenant, UNTHROTTLED, claims};

pub const PASSWORD: &str = "correct horse battery staple";

/// Real time: refresh is decided by the database's clock, which no test can move. Time passes with [`pass`].
pub fn options() -> Options {
    Options { clock: Some(Clock::System), throttle: UNTHROTTLED, ..Options::default() }
}

/// The tokens of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tokens {
    pub access: String,
    pub refresh: String,
}

impl Tokens {
    pub fn of(body: &Value) -> Self {
        let text = |name: &str| body[name].as_str().unwrap_or_else(|| panic!("no {name}: {body}")).to_owned();
        let access = body.get("access_token").map_or("jwt", |_| "access_token");
        Self { access: text(access), refresh: text("refresh_token") }
    }

    pub fn bearer(&self) -> String {
        format!("Bearer {}", self.access)
    }

    /// `sid`.
    pub fn family(&self) -> Uuid {
        let family = claims(&self.access)["sid"].as_str().unwrap().parse().unwrap();
        assert_eq!(Parts::of(&self.refresh).family, family, "the two tokens are of one family");
        family
    }
}

/// Logs in over HTTP.
pub async fn log_in(tenant: &Tenant<'_>, username: &str) -> Tokens {
    Tokens::of(&tenant.log_in(username, PASSWORD).await)
}

/// A new user of that name, logged in.
pub async fn newcomer(tenant: &Tenant<'_>, username: &str) -> Tokens {
    tenant.user(username, Some(PASSWORD)).await;
    log_in(tenant, username).await
}

/// `POST /v1/token/refresh`, at the root.
pub async fn refresh(server: &Server, token: &str) -> Answer {
    server.anonymous().post("/v1/token/refresh", json!({ "refresh_token": token })).await
}

/// The same by whoever this header names.
pub async fn refresh_as(server: &Server, authorization: &str, token: &str) -> Answer {
    server.with(authorization).post("/v1/token/refresh", json!({ "refresh_token": token })).await
}

/// A refresh that succeeds.
pub async fn next(server: &Server, token: &str) -> Tokens {
    tokens(&refresh(server, token).await)
}

/// The tokens of an answer that must be a 200.
pub fn tokens(answer: &Answer) -> Tokens {
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    Tokens::of(&answer.json())
}

/// A refusal that tells nothing.
pub fn assert_refused(what: &str, answer: &Answer) {
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what}: {}", answer.text);
    assert_eq!(answer.error(), "invalid_grant", "{what}: {}", answer.text);
    assert!(answer.json().get("reason").is_none(), "{what}: {}", answer.text);
    assert!(answer.json().get("access_token").is_none(), "{what}");
}

/// A refusal because a token of the login was used twice.
pub fn assert_reused(what: &str, answer: &Answer) {
    assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{what}: {}", answer.text);
    assert_eq!(answer.error(), "invalid_grant", "{what}: {}", answer.text);
    assert_eq!(answer.json()["reason"], "refresh_token_reused", "{what}: {}", answer.text);
}

/// Who an access token says that one is.
pub async fn me(server: &Server, access: &str) -> Answer {
    server.with(&format!("Bearer {access}")).get("/v1/me").await
}

/// A refresh token taken apart: `cr_` and, in base64url, family, number, tenant, secret and a CRC-32 over all of them.
#[derive(Clone)]
pub struct Parts {
    pub family: Uuid,
    pub generation: u32,
    pub tenant: Uuid,
    pub secret: [u8; 32],
}

impl Parts {
    pub fn of(token: &str) -> Self {
        let bytes = URL_SAFE_NO_PAD.decode(token.strip_prefix("cr_").unwrap()).unwrap();
        assert_eq!(bytes.len(), 72);
        let parts = Self {
            family: Uuid::from_slice(&bytes[..16]).unwrap(),
            generation: u32::from_be_bytes(bytes[16..20].try_into().unwrap()),
            tenant: Uuid::from_slice(&bytes[20..36]).unwrap(),
            secret: bytes[36..68].try_into().unwrap(),
        };
        assert_eq!(parts.text(), token, "what is taken apart here is put together as it was");
        parts
    }

    /// The token, with a checksum that is right.
    pub fn text(&self) -> String {
        let number = self.generation.to_be_bytes();
        let mut bytes = [self.family.as_bytes(), number.as_slice(), self.tenant.as_bytes(), &self.secret].concat();
        let checksum = crc32(&bytes);
        bytes.extend(checksum.to_be_bytes());
        format!("cr_{}", URL_SAFE_NO_PAD.encode(bytes))
    }
}

/// CRC-32 as IEEE 802.3 has it, bit by bit.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xEDB8_8320 * (crc & 1))))
}

/// A family as the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Family {
    pub generation: i32,
    /// Why it ended, and by whom.
    pub ended: Option<(String, String)>,
    /// The numbers of its tokens, in order.
    pub tokens: Vec<i32>,
    /// All there is, so that two looks can be compared.
    pub whole: String,
}

pub async fn family(database: &mut PgConnection, id: Uuid) -> Family {
    let row = sqlx::query(
        "SELECT f.generation, f.revoked_why, f.revoked_by,
                array(SELECT r.generation FROM refresh_tokens r WHERE r.family_id = f.id ORDER BY r.generation) AS tokens,
                f::text || array(SELECT r::text FROM refresh_tokens r WHERE r.family_id = f.id ORDER BY r.generation)::text
                    AS whole
           FROM token_families f WHERE f.id = $1",
    )
    .bind(id)
    .fetch_one(database)
    .await
    .unwrap();
    let ended: (Option<String>, Option<String>) = (row.get("revoked_why"), row.get("revoked_by"));
    Family { generation: row.get("generation"), ended: ended.0.zip(ended.1), tokens: row.get("tokens"), whole: row.get("whole") }
}

impl Family {
    /// It lives, and has exactly one token of each number.
    pub fn assert_lives_at(&self, generation: i32) {
        assert_eq!((self.generation, &self.ended), (generation, &None));
        assert_eq!(self.tokens, (0..=generation).collect::<Vec<_>>());
    }

    pub fn assert_ended(&self, why: &str, by: &str) {
        assert_eq!(self.ended, Some((why.to_owned(), by.to_owned())));
    }
}

/// Lets seconds pass since the last rotation of a family.
pub async fn pass(database: &mut PgConnection, family: Uuid, seconds: i32) {
    let sql = "UPDATE token_families SET rotated_at = rotated_at - make_interval(secs => $2) WHERE id = $1";
    let done = sqlx::query(sql).bind(family).bind(f64::from(seconds)).execute(database).await.unwrap();
    assert_eq!(done.rows_affected(), 1);
}

/// Entries of the trail with this action that are about this family.
pub async fn trail(tenant: &Tenant<'_>, action: &str, family: Uuid) -> Vec<Entry> {
    let target = format!("family:{family}");
    tenant.audit(action).await.into_iter().filter(|entry| entry.target == target).collect()
}

pub async fn count(database: &mut PgConnection, question: &'static str) -> i64 {
    sqlx::query_scalar(question).fetch_one(database).await.unwrap()
}
