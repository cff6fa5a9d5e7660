//! Every operation of the OpenAPI document, ready to be called.

use reqwest::{Method, RequestBuilder};
use serde_json::Value;

use super::wire::send;
use super::{Answer, Client};

/// The id of no user and no application.
pub const ABSENT_UUID: &str = "00000000-0000-4000-8000-000000000000";

/// One operation.
#[derive(Debug, Clone)]
pub struct Operation {
    pub id: String,
    pub method: Method,
    /// With `{tenant}`, `{id}` and `{slug}` in it.
    pub template: String,
    /// True when a token is taken: then it needs one, or a key.
    pub needs_caller: bool,
    /// The media type of its body, if it takes one.
    pub body: Option<String>,
    pub document: Value,
}

/// All of our own, in order of path.
pub fn operations() -> Vec<Operation> {
    all().into_iter().filter(|operation| operation.document["tags"] != serde_json::json!(["Dialects"])).collect()
}

/// Those that answer as other systems do, where a tenant says so.
pub fn dialect_operations() -> Vec<Operation> {
    all().into_iter().filter(|operation| operation.document["tags"] == serde_json::json!(["Dialects"])).collect()
}

fn all() -> Vec<Operation> {
    let document = claviger::openapi::document();
    let mut all = Vec::new();
    for (template, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let security = operation["security"].as_array().expect("every operation says what it needs");
            all.push(Operation {
                id: operation["operationId"].as_str().unwrap().to_owned(),
                method: method.to_uppercase().parse().unwrap(),
                template: template.clone(),
                needs_caller: security.iter().any(|one| one.get("bearer").is_some())
                    && !security.iter().any(|one| one.as_object().is_some_and(serde_json::Map::is_empty)),
                body: operation
                    .pointer("/requestBody/content")
                    .and_then(Value::as_object)
                    .and_then(|content| content.keys().next().cloned()),
                document: operation.clone(),
            });
        }
    }
    all
}

impl Operation {
    /// Its path in this tenant, for this `{id}`.
    pub fn path(&self, tenant: &str, id: &str) -> String {
        self.template
            .replace("{tenant}", tenant)
            .replace("{id}", id)
            .replace("{kid}", id)
            .replace("{name}", id)
            .replace("{link}", id)
            .replace("{request_id}", id)
            .replace("{login}", id)
            .replace("{connection}", id)
            .replace("{slug}", tenant)
    }

    /// Its path for things that are not there.
    pub fn path_of_nothing(&self, tenant: &str) -> String {
        let template = self
            .template
            .replace("{tenant}", tenant)
            .replace("{kid}", "no-such-kid")
            .replace("{slug}", "no-such-tenant")
            .replace("{name}", "no:such-name")
            .replace("{link}", "no-such-link")
            .replace("{request_id}", "000000000000000000000000")
            .replace("{login}", ABSENT_UUID)
            .replace("{connection}", ABSENT_UUID);
        match template.contains("/keys/") {
            true => template.replace("{id}", "no-such-key"),
            false => template.replace("{id}", ABSENT_UUID),
        }
    }

    /// The operation at the root that this one repeats for a tenant.
    pub fn root_id(&self) -> &str {
        self.id.strip_suffix("InTenant").unwrap_or(&self.id)
    }

    /// Calls it, with a well-formed body that changes nothing where it takes one.
    pub async fn call(&self, caller: &Client<'_>, path: &str) -> Answer {
        send(self.request(caller, path)).await
    }

    /// The same, not yet sent.
    pub fn request(&self, caller: &Client<'_>, path: &str) -> RequestBuilder {
        let request = caller.request(self.method.clone(), path);
        match self.body.as_deref() {
            Some("application/x-www-form-urlencoded") => request.form(&[("token", "abcd.efgh")]),
            Some(_) => request.json(&serde_json::json!({})),
            None => request,
        }
    }
}
