//! What is decided: who may have a token, for what, and what is written down about it.
//!
//! One file per thing a user would ask about. In each, the pure rule (no I/O, time passed in) stands above the flow
//! that fetches, applies it and writes. No HTTP type is known here.

pub mod application;
pub mod audit;
pub mod bench;
pub mod caller;
pub mod clock;
mod directory;
pub mod exchange;
mod installation;
pub mod introspect;
pub mod key;
pub mod mint;
mod news;
pub mod random;
mod record;
mod refusal;
pub mod scope;
pub mod secret;
pub mod settings;
pub mod signing_key;
pub mod standing;
pub mod tenant;
mod throttle;
mod upkeep;
pub mod user;
pub mod vault;

pub use directory::{KeyEntry, TenantEntry};
pub use installation::{Issuer, Open};
pub use refusal::{Failure, Fault, Refusal};
