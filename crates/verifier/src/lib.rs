#![doc = include_str!("../README.md")]
//!
//! # Where to look
//!
//! `verify` holds the order of the checks, `compact` the outer form, `header` and `claims` what the two
//! JSON objects may say, `json` the strict reading both share, `keys` and `jwks` the verification keys.

mod claims;
mod compact;
mod header;
mod json;
mod jwks;
mod keys;
mod rejection;
mod verify;

pub use claims::{AccessToken, Actor};
pub use compact::MAX_TOKEN_BYTES;
pub use jwks::MAX_JWKS_BYTES;
pub use keys::{KeySet, KeySetError, MAX_KEYS, MAX_KID_BYTES};
pub use rejection::Rejection;
pub use verify::{Expected, Expiry, judge, unverified_issuer, verify, verify_with};
