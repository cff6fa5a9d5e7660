//! Requests that follow the grammar of the API nearly everywhere, and what is heard in answer.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "test support: a failure here is a failed test"
)]

pub mod credentials;
pub mod json;
pub mod path;
pub mod request;
pub mod wire;

use rand::RngExt as _;
use rand::rngs::StdRng;

/// One of them.
pub fn pick<'a, T: ?Sized>(random: &mut StdRng, from: &[&'a T]) -> &'a T {
    from[random.random_range(0..from.len())]
}

/// True in so many of a hundred cases.
pub fn chance(random: &mut StdRng, percent: u32) -> bool {
    random.random_range(0..100) < percent
}

/// Visible ASCII, different each time.
pub fn word(random: &mut StdRng) -> String {
    let number: u64 = random.random();
    format!("w{number:016x}")
}

/// What exists on the server, for requests that are to get through to it.
pub struct World {
    pub document: serde_json::Value,
    /// `key:secret` and token of somebody who may do everything, for each tenant: first the default one.
    pub admins: Vec<Admin>,
    /// A key that may do nothing of interest, and fails as often as anybody likes.
    pub victim: String,
    pub applications: Vec<String>,
    pub users: Vec<String>,
    pub keys: Vec<String>,
    /// Tenants that may come to harm.
    pub tenants: Vec<String>,
}

pub struct Admin {
    pub tenant: String,
    pub pair: String,
    pub token: String,
}
