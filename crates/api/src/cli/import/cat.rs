//! Cheshire Cat's users: `{"<id>": {"id", "username", "password", "permissions": {"RESOURCE": ["PERMISSION"]}}}`.

use std::collections::BTreeMap;

use claviger_issuer::newcomer::Newcomer;
use claviger_issuer::user::{NewPassword, NewUser};
use claviger_store::id::UserId;
use serde::Deserialize;

use super::{Parsed, Record, filled};

#[derive(Deserialize)]
struct User {
    id: Option<UserId>,
    username: String,
    password: Option<String>,
    #[serde(default)]
    permissions: BTreeMap<String, Vec<String>>,
}

/// What somebody may there becomes scopes of their own: each has them one by one.
pub(super) fn parse(place: &str, record: &Record<'_>) -> Parsed {
    let User { id, username, password, permissions } = match record.read() {
        Ok(user) => user,
        Err(error) => return Parsed::unreadable(place, "a user of Cheshire Cat", &error),
    };
    let key = record.key.as_deref().and_then(|key| key.parse().ok());
    if key.is_none() || id.is_some_and(|id| Some(id) != key) {
        let newcomer = Err("stands under an id that is not a UUID, or not its own".into());
        return Parsed { name: username, newcomer, notes: Vec::new() };
    }
    let scopes = permissions
        .iter()
        .flat_map(|(resource, permissions)| permissions.iter().map(move |permission| format!("{resource}:{permission}")))
        .map(|scope| scope.to_lowercase())
        .collect();
    let password = filled(password).map(NewPassword::Hash);
    let person = NewUser { username: username.clone(), id: key, scopes, password, ..NewUser::default() };
    Parsed { name: username, newcomer: Ok(Newcomer { person, keys: Vec::new() }), notes: Vec::new() }
}
