//! Rows of the CTA Aggregator's table `users`. An account there is an e-mail address with a developer key.

use claviger_issuer::newcomer::{Newcomer, NewcomerKey};
use claviger_issuer::user::NewUser;
use claviger_store::id::UserId;
use secrecy::SecretString;
use serde::Deserialize;

use super::{Parsed, Record, filled};

#[derive(Deserialize)]
struct Row {
    id: UserId,
    email: String,
    api_key: Option<String>,
    #[serde(alias = "api_secret_digest")]
    hashed_api_secret: Option<String>,
    #[serde(default)]
    admin: Option<bool>,
}

/// The key has the same roles as the person: there, it is the person.
pub(super) fn parse(place: &str, record: &Record<'_>) -> Parsed {
    let Row { id, email, api_key, hashed_api_secret, admin } = match record.read() {
        Ok(row) => row,
        Err(error) => return Parsed::unreadable(place, "an account of the CTA Aggregator", &error),
    };
    let mut roles = vec!["developer".to_owned()];
    if admin == Some(true) {
        roles.push("admin".to_owned());
    }
    let (keys, note) = match (filled(api_key), filled(hashed_api_secret)) {
        (Some(key), Some(hash)) => {
            let key = NewcomerKey {
                name: "developer key".to_owned(),
                id: Some(key),
                hash: SecretString::from(hash),
                scopes: Vec::new(),
                roles: roles.clone(),
                agents: None,
                expires_at: None,
            };
            (vec![key], None)
        }
        _ => (Vec::new(), Some("has no key")),
    };
    let username = email.trim().to_lowercase();
    let person = NewUser { username: username.clone(), email: Some(email), id: Some(id), roles, ..NewUser::default() };
    let notes = note.map(str::to_owned).into_iter().collect();
    Parsed { name: username, newcomer: Ok(Newcomer { person, keys }), notes }
}
