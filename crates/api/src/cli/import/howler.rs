//! Howler's user documents, with the keys that stand in them.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use claviger_issuer::newcomer::{Newcomer, NewcomerKey};
use claviger_issuer::user::{NewPassword, NewUser};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Map, json};

use super::{Parsed, Record, filled};

#[derive(Deserialize)]
struct Document {
    #[serde(alias = "username")]
    uname: String,
    name: Option<String>,
    email: Option<String>,
    password: Option<String>,
    #[serde(rename = "type", default)]
    types: Vec<String>,
    #[serde(default)]
    groups: Vec<String>,
    classification: Option<String>,
    #[serde(default = "yes")]
    is_active: bool,
    #[serde(default)]
    apikeys: BTreeMap<String, Key>,
}

fn yes() -> bool {
    true
}

#[derive(Deserialize)]
struct Key {
    acl: Vec<String>,
    password: String,
    expiry_date: Option<DateTime<Utc>>,
    #[serde(default)]
    agents: Option<Vec<String>>,
}

/// What makes a key one for others: `I`. There it is a letter, here it is its agents.
const LENT: &str = "I";

/// The scope of a letter.
fn scope(letter: &str) -> Option<&'static str> {
    Some(match letter {
        "R" => "howler:read",
        "W" => "howler:write",
        "E" => "howler:extended",
        _ => return None,
    })
}

pub(super) fn parse(place: &str, record: &Record<'_>, now: DateTime<Utc>) -> Parsed {
    let Document { uname, name, email, password, types, groups, classification, is_active, apikeys } = match record.read() {
        Ok(document) => document,
        Err(error) => return Parsed::unreadable(place, "a user of Howler", &error),
    };
    let mut attributes = Map::new();
    attributes.extend(filled(name).map(|name| ("name".to_owned(), json!(name))));
    attributes.extend(filled(classification).map(|text| ("classification".to_owned(), json!(text))));
    if !groups.is_empty() {
        attributes.insert("groups".to_owned(), json!(groups));
    }
    let mut notes = Vec::new();
    let mut keys = Vec::new();
    for (name, key) in apikeys {
        match read(name.clone(), key, now) {
            Ok(Some(key)) => keys.push(key),
            Ok(None) => notes.push(format!("without the key `{name}`, which has ended")),
            Err(why) => return Parsed { name: uname, newcomer: Err(format!("the key `{name}` {why}")), notes: Vec::new() },
        }
    }
    let person = NewUser {
        username: uname.clone(),
        email: filled(email),
        roles: types,
        attributes,
        password: filled(password).map(NewPassword::Hash),
        disabled: !is_active,
        ..NewUser::default()
    };
    Parsed { name: uname, newcomer: Ok(Newcomer { person, keys }), notes }
}

/// `None` has ended.
fn read(name: String, key: Key, now: DateTime<Utc>) -> Result<Option<NewcomerKey>, String> {
    let Key { acl, password, expiry_date, agents } = key;
    if expiry_date.is_some_and(|end| end <= now) {
        return Ok(None);
    }
    let letters = acl.iter().filter(|letter| *letter != LENT);
    let scopes =
        letters.map(|letter| scope(letter).map(str::to_owned).ok_or_else(|| format!("has the unknown letter `{letter}`")));
    let scopes = scopes.collect::<Result<Vec<String>, String>>()?;
    // Without the letter, agents say nothing there.
    let agents = match acl.iter().any(|letter| letter == LENT) {
        false => None,
        true => match agents {
            Some(agents) if !agents.is_empty() => Some(agents),
            _ => return Err("lets others act for its owner, and names nobody".into()),
        },
    };
    let hash = SecretString::from(password);
    Ok(Some(NewcomerKey { name, id: None, hash, scopes, roles: Vec::new(), agents, expires_at: expiry_date }))
}
