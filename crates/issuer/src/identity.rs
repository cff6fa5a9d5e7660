//! What the other side says of somebody, as a connection's mapping reads it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::attribute::{Attributes, changed, is_attribute};
use crate::connection::{AttributeRule, Mapping, whole};
use crate::oidc::Declined;
use crate::user::normal_email;

/// Most groups that are kept of one person.
const MOST_GROUPS: usize = 200;
/// Longest value that is kept, in characters.
const LONGEST_VALUE: usize = 256;

/// Somebody as a connection knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// What they are called there, for ever.
    pub(crate) subject: String,
    /// The name that an account of theirs would have.
    pub(crate) username: Option<String>,
    /// An address that the other side stands for.
    pub(crate) email: Option<String>,
    /// Their name for people.
    pub(crate) name: Option<String>,
    /// Groups and roles of theirs.
    pub(crate) groups: BTreeSet<String>,
    /// Our roles for them, in order.
    pub(crate) roles: Vec<String>,
    /// Attributes by the connection's rules.
    pub(crate) attributes: BTreeMap<String, Value>,
}

/// Values at a path: the claim of that whole name, or else one step for each part between dots; `*` is every member.
fn at<'a>(claims: &'a Map<String, Value>, path: &str) -> Vec<&'a Value> {
    if let Some(value) = claims.get(path) {
        return vec![value];
    }
    let mut parts = path.split('.');
    let first = parts.next().unwrap_or_default();
    let step = |object: &'a Map<String, Value>, part: &str| -> Vec<&'a Value> {
        match part {
            "*" => object.values().collect(),
            _ => object.get(part).into_iter().collect(),
        }
    };
    let mut found = step(claims, first);
    for part in parts {
        found = found.into_iter().filter_map(Value::as_object).flat_map(|object| step(object, part)).collect();
    }
    found
}

/// Texts at a path: a text, a number, or a list of them.
fn texts(claims: &Map<String, Value>, path: &str) -> Vec<String> {
    let flat = at(claims, path).into_iter().flat_map(|value| match value {
        Value::Array(list) => list.iter().collect(),
        one => vec![one],
    });
    let text = flat.filter_map(|value| match value {
        Value::String(text) => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    });
    text.filter(|text| !text.is_empty() && text.chars().count() <= LONGEST_VALUE && !text.chars().any(char::is_control)).collect()
}

fn first(claims: &Map<String, Value>, path: &str) -> Option<String> {
    texts(claims, path).into_iter().next()
}

/// A value by a pattern and a format: `None` when it does not fit.
fn formed(value: &str, pattern: Option<&str>, format: Option<&str>) -> Option<String> {
    let Some(pattern) = pattern else { return Some(value.to_owned()) };
    let pattern = whole(pattern)?;
    let captures = pattern.captures(value)?;
    match format {
        None => Some(captures.get(1).map_or(value, |group| group.as_str()).to_owned()),
        Some(format) => {
            let mut formed = String::new();
            captures.expand(format, &mut formed);
            Some(formed)
        }
    }
}

fn attribute(rule: &AttributeRule, claims: &Map<String, Value>) -> Option<(String, Value)> {
    let AttributeRule { attribute, claim, pattern, value } = rule;
    let mut found: Vec<String> = texts(claims, claim)
        .iter()
        .filter_map(|text| match value {
            None => pattern
                .as_deref()
                .is_none_or(|pattern| whole(pattern).is_some_and(|whole| whole.is_match(text)))
                .then(|| text.clone()),
            Some(_) => formed(text, pattern.as_deref(), value.as_deref()),
        })
        .take(MOST_GROUPS)
        .collect();
    match found.len() {
        0 => None,
        1 => Some((attribute.clone(), Value::String(found.remove(0)))),
        _ => Some((attribute.clone(), json!(found))),
    }
}

impl Identity {
    /// The rule.
    pub(crate) fn of(subject: String, claims: &Map<String, Value>, mapping: &Mapping) -> Self {
        // Some providers write it as text.
        let verified = matches!(claims.get("email_verified"), Some(Value::Bool(true)))
            || claims.get("email_verified").and_then(Value::as_str) == Some("true");
        let trusted = verified || mapping.trust_email;
        let is_email = |claim: &str| claim == "email" || mapping.email.as_deref() == Some(claim);
        let named = mapping.username.iter().filter(|claim| trusted || !is_email(claim)).find_map(|claim| match claim.as_str() {
            "sub" => Some(subject.clone()),
            claim => first(claims, claim),
        });
        let username =
            named.and_then(|name| formed(&name, mapping.username_pattern.as_deref(), mapping.username_format.as_deref()));
        let email = mapping.email.as_deref().filter(|_| trusted).and_then(|claim| first(claims, claim));
        let groups: BTreeSet<String> =
            mapping.groups.iter().chain(&mapping.roles).flat_map(|path| texts(claims, path)).take(MOST_GROUPS * 10).collect();
        let mapped = groups.iter().filter_map(|group| mapping.role_map.get(group)).flatten();
        let roles: BTreeSet<String> = mapped.chain(&mapping.default_roles).cloned().collect();
        Self {
            username,
            email: email.and_then(|email| normal_email(&email).ok()),
            name: mapping.name.as_deref().and_then(|claim| first(claims, claim)),
            groups,
            roles: roles.into_iter().collect(),
            attributes: mapping.attributes.iter().filter_map(|rule| attribute(rule, claims)).collect(),
            subject,
        }
    }

    /// Refuses who lacks a group that the connection requires.
    pub(crate) fn check_groups(&self, mapping: &Mapping) -> Result<(), Declined> {
        match mapping.required_groups.iter().all(|group| self.groups.contains(group)) {
            true => Ok(()),
            false => Err(Declined::MissingGroup),
        }
    }

    /// Roles after a login: those that the map can give follow the other side, the others stay.
    pub(crate) fn synced(&self, before: &[String], mapping: &Mapping) -> Vec<String> {
        let gifts = mapping.gifts();
        let kept = before.iter().filter(|role| !gifts.contains(role.as_str()));
        kept.chain(&self.roles).cloned().collect::<BTreeSet<_>>().into_iter().collect()
    }

    /// Attributes after a login: those that a rule names follow the other side, which may say them no more; the others stay.
    /// What does not fit beside them is missing then, rather than as it was.
    pub(crate) fn told(&self, before: &Attributes, mapping: &Mapping) -> Attributes {
        let named = || mapping.attributes.iter().map(|rule| &rule.attribute).filter(|name| is_attribute(name));
        let mut after = before.clone();
        after.retain(|name, _| !named().any(|one| one == name));
        for name in named() {
            if let Some(value) = self.attributes.get(name)
                && let Ok(with) = changed(&after, &Attributes::from_iter([(name.clone(), value.clone())]))
            {
                after = with;
            }
        }
        after
    }

    /// What is kept with the link.
    pub(crate) fn profile(&self) -> Value {
        let groups: Vec<&String> = self.groups.iter().take(MOST_GROUPS).collect();
        json!({ "name": self.name, "username": self.username, "email": self.email, "groups": groups, "attributes": self.attributes })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims() -> Map<String, Value> {
        let Value::Object(claims) = json!({
            "preferred_username": "alice", "email": "Alice@Example.com", "email_verified": true, "name": "Alice A.",
            "groups": ["staff", "hpc", 7, null, {"x": 1}],
            "realm_access": { "roles": ["admin", "offline"] },
            "resource_access": { "a": { "roles": ["reader"] }, "b": { "roles": ["writer"] }, "c": 3 },
            "https://ns.test/roles": ["boss"], "clearance": "level-3"
        }) else {
            panic!()
        };
        claims
    }

    fn mapping() -> Mapping {
        Mapping {
            username: vec!["preferred_username".into(), "email".into(), "sub".into()],
            name: Some("name".into()),
            email: Some("email".into()),
            groups: vec!["groups".into()],
            roles: vec!["realm_access.roles".into(), "resource_access.*.roles".into(), "https://ns.test/roles".into()],
            role_map: BTreeMap::from([
                ("admin".into(), vec!["admin".into(), "api".into()]),
                ("reader".into(), vec!["reader".into()]),
            ]),
            default_roles: vec!["user".into()],
            ..Mapping::default()
        }
    }

    fn read(mapping: &Mapping, claims: &Map<String, Value>) -> Identity {
        Identity::of("s1".into(), claims, mapping)
    }

    #[test]
    fn groups_are_found_at_their_paths_and_only_named_ones_give_roles() {
        let alice = read(&mapping(), &claims());
        let groups: Vec<&str> = alice.groups.iter().map(String::as_str).collect();
        assert_eq!(groups, ["7", "admin", "boss", "hpc", "offline", "reader", "staff", "writer"]);
        assert_eq!(alice.roles, ["admin", "api", "reader", "user"]);
        assert_eq!((alice.username.as_deref(), alice.email.as_deref()), (Some("alice"), Some("alice@example.com")));
        let nobody = read(&mapping(), &Map::new());
        assert_eq!((nobody.username.as_deref(), nobody.roles), (Some("s1"), vec!["user".to_owned()]));
    }

    #[test]
    fn p36_an_address_that_nobody_verified_is_neither_kept_nor_a_name() {
        for unverified in [json!(false), json!(null), json!("yes"), json!(1)] {
            let mut claims = claims();
            claims.remove("preferred_username");
            claims.insert("email_verified".into(), unverified);
            let alice = read(&mapping(), &claims);
            assert_eq!((alice.email, alice.username.as_deref()), (None, Some("s1")));
        }
        let mut claims = claims();
        claims.remove("email_verified");
        assert!(read(&Mapping { trust_email: true, ..mapping() }, &claims).email.is_some());
    }

    #[test]
    fn a_name_must_fit_its_pattern_as_a_whole() {
        let with = |pattern: &str, format: Option<&str>, name: &str| {
            let mut claims = claims();
            claims.insert("preferred_username".into(), json!(name));
            let mapping =
                Mapping { username_pattern: Some(pattern.into()), username_format: format.map(str::to_owned), ..mapping() };
            read(&mapping, &claims).username
        };
        assert_eq!(with("([a-z]+)@corp\\.test", None, "bob@corp.test").as_deref(), Some("bob"));
        assert_eq!(with("([a-z]+)@corp\\.test", Some("corp-$1"), "bob@corp.test").as_deref(), Some("corp-bob"));
        assert_eq!(with("([a-z]+)@corp\\.test", None, "bob@corp.test.evil"), None);
        assert_eq!(with("a|b", None, "ab"), None);
    }

    #[test]
    fn roles_that_the_map_can_give_follow_the_provider_and_others_stay() {
        let alice = read(&mapping(), &claims());
        let before = ["api".to_owned(), "own".to_owned(), "reader".to_owned()];
        assert_eq!(alice.synced(&before, &mapping()), ["admin", "api", "own", "reader", "user"]);
        let mut claims = claims();
        claims.remove("realm_access");
        claims.remove("resource_access");
        assert_eq!(read(&mapping(), &claims).synced(&before, &mapping()), ["own", "user"]);
    }

    #[test]
    fn attributes_that_a_rule_names_follow_the_provider_and_others_stay() {
        let rule = |attribute: &str, claim: &str| AttributeRule {
            attribute: attribute.into(),
            claim: claim.into(),
            pattern: None,
            value: None,
        };
        let rules = vec![rule("clearance", "clearance"), rule("team", "absent"), rule("no name", "name")];
        let mapping = Mapping { attributes: rules, ..mapping() };
        let told = |before: Value| Value::from(read(&mapping, &claims()).told(before.as_object().unwrap(), &mapping));
        assert_eq!(told(json!({})), json!({ "clearance": "level-3" }));
        let before = json!({ "clearance": "level-1", "team": "t", "projects": ["p"] });
        assert_eq!(told(before), json!({ "clearance": "level-3", "projects": ["p"] }));
        let own = json!({ "projects": "x".repeat(4060) });
        let full = json!({ "clearance": "a", "projects": own["projects"] });
        assert_eq!(told(full), own, "what has no room is missing, and is not what it was");
    }

    #[test]
    fn attributes_are_read_by_their_rules_and_groups_may_be_required() {
        let rule = |claim: &str, pattern: Option<&str>, value: Option<&str>| AttributeRule {
            attribute: "a".into(),
            claim: claim.into(),
            pattern: pattern.map(str::to_owned),
            value: value.map(str::to_owned),
        };
        let with = |rule| read(&Mapping { attributes: vec![rule], ..mapping() }, &claims()).attributes.get("a").cloned();
        assert_eq!(with(rule("clearance", Some("level-(\\d)"), Some("L$1"))), Some(json!("L3")));
        assert_eq!(with(rule("clearance", Some("level-(\\d)"), None)), Some(json!("level-3")));
        assert_eq!(with(rule("clearance", Some("level"), None)), None);
        assert_eq!(with(rule("groups", Some("s.*|h.*"), None)), Some(json!(["staff", "hpc"])));
        let requiring =
            |groups: &[&str]| Mapping { required_groups: groups.iter().map(|group| (*group).to_owned()).collect(), ..mapping() };
        assert!(read(&mapping(), &claims()).check_groups(&requiring(&["staff", "admin"])).is_ok());
        assert_eq!(read(&mapping(), &claims()).check_groups(&requiring(&["staff", "x"])), Err(Declined::MissingGroup));
    }
}
