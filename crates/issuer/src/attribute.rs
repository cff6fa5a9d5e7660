//! People's attributes: what services want to know of somebody besides name, address and roles. They give no rights here; an
//! audience's profile says which of them its tokens carry.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::Refusal;

/// Most attributes of a person.
const MOST_ATTRIBUTES: usize = 50;
/// Most bytes that they take as JSON: some services take no header longer than 8 KiB, and a token carries them.
const MOST_BYTES: usize = 4096;
/// Deepest nesting of one: verifiers of ours look eight levels deep into a token.
pub(crate) const DEEPEST: usize = 6;

/// Named attributes.
pub type Attributes = Map<String, Value>;

/// An attribute's name: letters, digits, `_`, `.` and `-`.
pub(crate) fn is_attribute(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

/// Brackets around the innermost value.
pub(crate) fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(members) => 1 + members.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// What somebody has after a change: of those that it names, `null` removes one and any other value sets it.
pub(crate) fn changed(before: &Attributes, change: &Attributes) -> Result<Attributes, Refusal> {
    let mut after = before.clone();
    for (name, value) in change {
        match value {
            Value::Null => after.remove(name),
            value => after.insert(name.clone(), value.clone()),
        };
    }
    let size = serde_json::to_string(&after).map_or(usize::MAX, |text| text.len());
    let fits = |(name, value): (&String, &Value)| is_attribute(name) && depth(value) <= DEEPEST;
    if after.len() > MOST_ATTRIBUTES || size > MOST_BYTES || !after.iter().all(fits) {
        let problem = format!(
            "are at most {MOST_ATTRIBUTES} in {MOST_BYTES} bytes, {DEEPEST} levels deep, named by 1 to 64 letters, digits, `_`, \
             `.` and `-`"
        );
        return Err(Refusal::invalid("attributes", problem));
    }
    Ok(after)
}

/// The names of those that are otherwise after than before.
pub(crate) fn differing(before: &Attributes, after: &Attributes) -> Vec<String> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    names.into_iter().filter(|name| before.get(*name) != after.get(*name)).cloned().collect()
}

/// Adds to an audit entry's detail which attributes there are, if any: what they say may be personal, which there are is not.
pub(crate) fn name_attributes(detail: &mut Value, names: &[String]) {
    if let Some(detail) = detail.as_object_mut().filter(|_| !names.is_empty()) {
        detail.insert("attributes".to_owned(), json!(names));
    }
}

/// The strings of an attribute that is a list; what is no string is left out, and so is an attribute that is no list.
#[must_use]
pub fn strings(attributes: &Attributes, name: &str) -> Vec<String> {
    let list = attributes.get(name).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(value: Value) -> Attributes {
        value.as_object().cloned().unwrap()
    }

    #[test]
    fn a_change_sets_removes_and_leaves() {
        let before = of(json!({ "name": "Ada", "projects": ["p1"], "old": 1 }));
        let after = changed(&before, &of(json!({ "projects": ["p2"], "old": null, "absent": null }))).unwrap();
        assert_eq!(Value::from(after), json!({ "name": "Ada", "projects": ["p2"] }));
    }

    #[test]
    fn what_would_not_fit_into_a_token_is_refused() {
        let change = |value| changed(&Attributes::new(), &of(value));
        assert!(change(json!({ "a": [[[[[["x"]]]]]] })).is_ok());
        assert!(change(json!({ "a": [[[[[[["x"]]]]]]] })).is_err());
        assert!(change(json!({ "a": "x".repeat(4000) })).is_ok());
        assert!(change(json!({ "a": "x".repeat(4096) })).is_err());
        for name in ["", "a b", "ä", "a/b", &"a".repeat(65)] {
            assert!(change(json!({ name: 1 })).is_err(), "{name}");
        }
        let many: Attributes = (0..51).map(|n| (format!("a{n}"), json!(1))).collect();
        assert!(changed(&Attributes::new(), &many).is_err());
    }

    #[test]
    fn a_list_of_strings_is_read_leniently() {
        let attributes = of(json!({ "projects": ["p1", 2, "p3"], "name": "Ada" }));
        assert_eq!(strings(&attributes, "projects"), ["p1", "p3"]);
        assert!(strings(&attributes, "name").is_empty() && strings(&attributes, "absent").is_empty());
    }
}
