#![doc = include_str!("../README.md")]
//!
//! # Where to look
//!
//! `verify` holds the order of the checks, `compact` the outer form, `header` and `claims` what the two
//! JSON objects may say, `json` the strict reading both share, `keys` and `jwks` the verification keys.
//! With the feature `client`: `client` holds the verifier that fetches and follows by itself, `published` what it fetches,
//! `follow` how it follows, `revocations` what it then knows, `status_list` what it asks for single tokens, `presented` where a token may stand in a request, `answer`
//! what is answered without one that is good. `actix` puts these before a service.

#[cfg(feature = "actix")]
pub mod actix;
#[cfg(feature = "client")]
mod answer;
mod claims;
#[cfg(feature = "client")]
mod client;
mod compact;
#[cfg(feature = "client")]
mod follow;
mod header;
mod json;
mod jwks;
mod keys;
#[cfg(feature = "client")]
mod presented;
#[cfg(feature = "client")]
mod published;
mod rejection;
#[cfg(feature = "client")]
mod revocations;
#[cfg(feature = "client")]
mod status_list;
mod verify;

#[cfg(feature = "client")]
pub use answer::{ErrorAnswer, ErrorStyle};
pub use claims::{AccessToken, Actor, StatusPlace};
#[cfg(feature = "client")]
pub use client::{BuildError, Builder, CutOff, Refused, Status, Unavailable, Verifier};
pub use compact::MAX_TOKEN_BYTES;
pub use jwks::MAX_JWKS_BYTES;
pub use keys::{KeySet, KeySetError, MAX_KEYS, MAX_KID_BYTES};
#[cfg(feature = "client")]
pub use presented::{Presented, RequestParts};
pub use rejection::Rejection;
#[cfg(feature = "client")]
pub use revocations::{BatchError, Revocations};
pub use verify::{Expected, Expiry, judge, unverified_issuer, verify, verify_with};
