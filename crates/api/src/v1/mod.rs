//! One file for each thing that `/v1` serves.

pub(crate) mod applications;
pub(crate) mod audit;
pub(crate) mod authentications;
pub(crate) mod connections;
pub(crate) mod forward_auth;
pub(crate) mod introspect;
pub(crate) mod key_requests;
pub(crate) mod keys;
pub(crate) mod links;
pub(crate) mod login;
pub(crate) mod logins;
pub(crate) mod logout;
pub(crate) mod me;
pub(crate) mod my_keys;
pub(crate) mod public_key;
pub(crate) mod refresh;
pub(crate) mod revocations;
pub(crate) mod revoke;
pub(crate) mod roles;
pub(crate) mod scopes;
pub(crate) mod settings;
pub(crate) mod tenants;
pub(crate) mod token;
pub(crate) mod users;
pub(crate) mod verify;
pub(crate) mod ws_tickets;
