//! Rows of ClusterCockpit's table `user`, as `sqlite3 -json` prints them: roles and projects are JSON within text.

use claviger_issuer::clustercockpit::PROJECTS;
use claviger_issuer::newcomer::Newcomer;
use claviger_issuer::user::{NewPassword, NewUser};
use serde::Deserialize;
use serde_json::{Map, json};

use super::{Parsed, Record, filled};

#[derive(Deserialize)]
struct Row {
    username: String,
    password: Option<String>,
    roles: Option<String>,
    name: Option<String>,
    email: Option<String>,
    projects: Option<String>,
    /// 0 logs in with the password that is kept there; anything else, somewhere else.
    #[serde(default)]
    ldap: i64,
}

pub(super) fn parse(place: &str, record: &Record<'_>) -> Parsed {
    let Row { username, password, roles, name, email, projects, ldap } = match record.read() {
        Ok(row) => row,
        Err(error) => return Parsed::unreadable(place, "a user of ClusterCockpit", &error),
    };
    let (Some(roles), Some(projects)) = (list(roles), list(projects)) else {
        let newcomer = Err("has `roles` or `projects` that are not a JSON list of texts, within text".into());
        return Parsed { name: username, newcomer, notes: Vec::new() };
    };
    let mut attributes = Map::new();
    attributes.extend(filled(name).map(|name| ("name".to_owned(), json!(name))));
    if !projects.is_empty() {
        attributes.insert(PROJECTS.to_owned(), json!(projects));
    }
    // Nobody logs in there with what is kept of a password besides.
    let password = filled(password).filter(|_| ldap == 0).map(NewPassword::Hash);
    let note = match (ldap, &password) {
        (0, Some(_)) => None,
        (0, None) => Some("has no password"),
        _ => Some("comes without a password: there, a directory or provider has it. Make a connection to it"),
    };
    let person = NewUser { username: username.clone(), email: filled(email), roles, attributes, password, ..NewUser::default() };
    let newcomer = Ok(Newcomer { person, keys: Vec::new() });
    Parsed { name: username, newcomer, notes: note.map(str::to_owned).into_iter().collect() }
}

/// A list within text; nothing, an empty text and `null` are an empty one.
fn list(text: Option<String>) -> Option<Vec<String>> {
    match filled(text) {
        None => Some(Vec::new()),
        Some(text) => serde_json::from_str::<Option<Vec<String>>>(&text).ok().map(Option::unwrap_or_default),
    }
}
