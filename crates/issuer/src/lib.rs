//! What is decided: who may have a token, for what, and what is written down about it.
//!
//! One file per thing a user would ask about. In each, the pure rule (no I/O, time passed in) stands above the flow
//! that fetches, applies it and writes. No HTTP type is known here.

pub mod account;
pub mod acting;
pub mod application;
mod attempt;
pub mod audit;
pub mod bench;
pub mod budget;
pub mod caller;
mod checked_token;
pub mod clock;
mod denial;
mod directory;
pub mod exchange;
mod form_token;
mod grant;
mod installation;
pub mod introspect;
pub mod key;
pub mod key_request;
pub mod limits;
pub mod login;
pub mod mail;
pub mod measure;
pub mod mint;
mod news;
mod opening;
pub mod password;
pub mod random;
pub mod readiness;
mod record;
pub mod refresh;
mod refresh_token;
mod refusal;
pub mod requirement;
mod resource;
pub mod revocation_feed;
pub mod revoke;
pub mod rights;
pub mod role;
pub mod scope;
pub mod secret;
pub mod session;
pub mod settings;
pub mod signing_key;
pub mod standing;
pub mod tenant;
mod throttle;
mod ticket;
pub mod token_exchange;
mod token_issue;
pub mod trail;
mod upkeep;
mod usage;
pub mod user;
pub mod username;
pub mod vault;
pub mod verify;

pub use directory::{KeyEntry, TenantEntry};
pub use installation::{Issuer, Open};
pub use refusal::{Failure, Fault, GrantRefused, Refusal};
