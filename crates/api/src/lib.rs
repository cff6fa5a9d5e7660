//! What is said: routes, wire types, error rendering, pages, configuration and the command line.
//!
//! A handler parses, calls one flow of the issuer, and renders. No rule and no SQL lives here.

mod body;
mod border;
mod caller;
pub mod cli;
pub mod config;
mod credentials;
mod docs;
mod health;
mod log;
pub mod openapi;
mod page;
mod problem;
mod routes;
pub mod server;
mod v1;
mod well_known;
