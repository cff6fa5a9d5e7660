//! What is said: routes, wire types, error rendering, pages, configuration and the command line.
//!
//! A handler parses, calls one flow of the issuer, and renders. No rule and no SQL lives here.

mod account_page;
mod body;
mod border;
mod caller;
pub mod cli;
pub mod config;
mod cookies;
mod credentials;
mod dialects;
mod docs;
mod health;
mod hex;
mod log;
mod login_page;
mod mail;
mod metrics;
mod oauth;
pub mod openapi;
mod page;
mod pages;
mod problem;
mod request_pages;
mod routes;
pub mod server;
mod traces;
mod upstream_pages;
mod v1;
mod well_known;
