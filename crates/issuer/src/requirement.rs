//! What a resource server asks of a caller: scopes, roles, and policies that the tenant has named.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::Refusal;
use crate::scope::{ScopeSet, is_scope};

/// Most policies of a tenant.
const MOST_POLICIES: usize = 100;
/// Most names in one list.
const MOST_NAMES: usize = 100;

/// Scopes that are asked for. An empty list asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ScopesNeeded {
    /// Every one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<String>,
    /// At least one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<String>,
}

/// Roles that are asked for. An empty list asks for nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RolesNeeded {
    /// Every one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub all: Vec<String>,
    /// At least one of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub any: Vec<String>,
    /// Exactly these and no others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub equals: Option<Vec<String>>,
}

/// What is asked for: all of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Requirement {
    /// Scopes.
    pub scopes: ScopesNeeded,
    /// Roles.
    pub roles: RolesNeeded,
}

/// A requirement that the tenant has named: at least one of its alternatives.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The alternatives.
    pub any_of: Vec<Requirement>,
    /// The status that a resource server is told to answer with: 401 or 403, 403 if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
}

/// What was missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Missing {
    /// Scopes; of `any`, all of them.
    Scopes(Vec<String>),
    /// Roles; of `any`, all of them.
    Roles(Vec<String>),
}

fn unheld(needed: &ScopesNeeded, held: &ScopeSet) -> Option<Vec<String>> {
    let missing: Vec<String> = needed.all.iter().filter(|scope| !held.contains(scope)).cloned().collect();
    if !missing.is_empty() {
        return Some(missing);
    }
    let any = needed.any.is_empty() || needed.any.iter().any(|scope| held.contains(scope));
    (!any).then(|| needed.any.clone())
}

fn unfitting(needed: &RolesNeeded, held: &[String]) -> Option<Vec<String>> {
    let missing: Vec<String> = needed.all.iter().filter(|role| !held.contains(role)).cloned().collect();
    if !missing.is_empty() {
        return Some(missing);
    }
    if !needed.any.is_empty() && !needed.any.iter().any(|role| held.contains(role)) {
        return Some(needed.any.clone());
    }
    let exact = needed
        .equals
        .as_ref()
        .is_none_or(|exact| exact.iter().all(|role| held.contains(role)) && held.iter().all(|role| exact.contains(role)));
    (!exact).then(|| needed.equals.clone().unwrap_or_default())
}

impl Requirement {
    /// The rule.
    pub fn judge(&self, scopes: &ScopeSet, roles: &[String]) -> Result<(), Missing> {
        if let Some(missing) = unheld(&self.scopes, scopes) {
            return Err(Missing::Scopes(missing));
        }
        match unfitting(&self.roles, roles) {
            Some(missing) => Err(Missing::Roles(missing)),
            None => Ok(()),
        }
    }

    /// Refuses what can never be fulfilled or is too long.
    pub fn check(&self, field: &'static str) -> Result<(), Refusal> {
        let Self { scopes, roles } = self;
        let lists = [&scopes.all, &scopes.any, &roles.all, &roles.any];
        let longest = lists.iter().map(|list| list.len()).chain(roles.equals.as_ref().map(Vec::len)).max().unwrap_or(0);
        if longest > MOST_NAMES {
            return Err(Refusal::invalid(field, format!("names at most {MOST_NAMES} scopes or roles in a list")));
        }
        match scopes.all.iter().chain(&scopes.any).find(|scope| !is_scope(scope)) {
            Some(bad) => {
                let bad: String = bad.chars().filter(char::is_ascii_graphic).take(97).collect();
                Err(Refusal::invalid(field, format!("names `{bad}`, which is no scope: a scope is `resource:action`")))
            }
            None => Ok(()),
        }
    }
}

impl Policy {
    /// The rule. What the last alternative missed is told.
    pub fn judge(&self, scopes: &ScopeSet, roles: &[String]) -> Result<(), Missing> {
        let mut missing = Missing::Roles(Vec::new());
        for requirement in &self.any_of {
            match requirement.judge(scopes, roles) {
                Ok(()) => return Ok(()),
                Err(why) => missing = why,
            }
        }
        Err(missing)
    }
}

/// Refuses policies that cannot be served.
pub(crate) fn check_policies(policies: &BTreeMap<String, Policy>) -> Result<(), Refusal> {
    const FIELD: &str = "policies";
    let name = |name: &str| {
        (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
    };
    if policies.len() > MOST_POLICIES || !policies.keys().all(|key| name(key)) {
        let problem = format!("are at most {MOST_POLICIES}, named by 1 to 64 letters, digits, `_`, `.` and `-`");
        return Err(Refusal::invalid(FIELD, problem));
    }
    for policy in policies.values() {
        if policy.any_of.is_empty() || policy.any_of.len() > 20 {
            return Err(Refusal::invalid(FIELD, "have 1 to 20 alternatives each (`any_of`)"));
        }
        if !matches!(policy.status, None | Some(401 | 403)) {
            return Err(Refusal::invalid(FIELD, "answer with the status 401 or 403"));
        }
        policy.any_of.iter().try_for_each(|requirement| requirement.check(FIELD))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(list: &[&str]) -> Vec<String> {
        list.iter().map(|role| (*role).to_owned()).collect()
    }

    fn need(json: serde_json::Value) -> Requirement {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn all_any_and_exactly() {
        let scopes = ScopeSet::granted(&["a:b", "c:d"]).unwrap();
        let held = roles(&["api", "user"]);
        let judge = |json| need(json).judge(&scopes, &held).is_ok();
        assert!(judge(serde_json::json!({})));
        assert!(judge(serde_json::json!({ "scopes": { "all": ["a:b", "c:d"], "any": ["x:y", "a:b"] } })));
        assert!(!judge(serde_json::json!({ "scopes": { "all": ["a:b", "x:y"] } })));
        assert!(!judge(serde_json::json!({ "scopes": { "any": ["x:y"] } })));
        assert!(judge(serde_json::json!({ "roles": { "all": ["api"], "any": ["admin", "user"], "equals": ["user", "api"] } })));
        assert!(!judge(serde_json::json!({ "roles": { "equals": ["api"] } })));
        assert!(!judge(serde_json::json!({ "roles": { "equals": [] } })));
        assert!(!judge(serde_json::json!({ "roles": { "any": ["admin"] } })));
    }

    #[test]
    fn a_policy_is_fulfilled_by_one_alternative() {
        let policy: Policy = serde_json::from_value(serde_json::json!({
            "any_of": [{ "roles": { "equals": ["api"] } }, { "roles": { "all": ["admin", "api"] } }], "status": 401
        }))
        .unwrap();
        let judge = |list: &[&str]| policy.judge(&ScopeSet::default(), &roles(list));
        assert!(judge(&["api"]).is_ok());
        assert!(judge(&["api", "admin", "user"]).is_ok());
        assert!(judge(&["api", "user"]).is_err());
        assert!(judge(&[]).is_err());
        assert!(check_policies(&BTreeMap::from([("cc-api".to_owned(), policy)])).is_ok());
        for bad in [r#"{"any_of": []}"#, r#"{"any_of": [{}], "status": 200}"#, r#"{"any_of": [{"scopes": {"all": ["*"]}}]}"#] {
            let policy = serde_json::from_str(bad).unwrap();
            assert!(check_policies(&BTreeMap::from([("p".to_owned(), policy)])).is_err(), "{bad}");
        }
    }
}
