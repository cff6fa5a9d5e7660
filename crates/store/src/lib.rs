//! What is kept: the only crate that says SQL.
//!
//! A request begins a transaction ([`Store::begin`]), names its tenant ([`Tx::tenant`]) and reaches the tenant's
//! tables from there; there is no other way to a tenant's row. Underneath, row-level security holds the same wall
//! a second time. This crate decides nothing: it keeps, finds and says what changed.

pub mod api_key;
pub mod app_token;
pub mod application;
pub mod attempt;
pub mod audience;
pub mod audit;
pub mod change;
pub mod connection;
mod database;
mod error;
pub mod id;
pub mod issued_token;
pub mod jwks_fetch;
pub mod key_request;
pub mod mail;
pub mod moving;
pub mod password;
pub mod private_postgres;
pub mod revocation;
pub mod role;
mod scribe;
pub mod sealed_secret;
pub mod session;
pub mod signing_key;
pub mod standing;
pub mod status_list;
pub mod tenant;
pub mod ticket;
pub mod token_family;
mod transaction;
pub mod user;

pub use database::{Connections, DatabaseUrls, Store, prepare_private_cluster};
pub use error::StoreError;
pub use scribe::Scribe;
pub use transaction::{AnyTenant, TRACES, TenantTx, Tx};
