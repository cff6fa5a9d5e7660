//! The OpenAPI document, made from the route table.

use actix_web::App;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;
use utoipa_actix_web::AppExt as _;

use crate::dialects::dialect_routes;
use crate::problem::Problem;
use crate::routes;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "Claviger",
        description = "Multi-tenant identity provider and token issuer. Every path under `/v1` but `/v1/tenants` also \
                       exists under `/t/{tenant}`, where it serves that tenant alone; at the root the credential names \
                       its tenant.",
        license(name = "MIT OR Apache-2.0", identifier = "MIT OR Apache-2.0"),
    ),
    components(schemas(Problem)),
    tags(
        (name = "Tokens", description = "Exchange keys for tokens, and ask about them"),
        (name = "Login", description = "People log in, refresh and log out"),
        (name = "Account", description = "A person's own affairs"),
        (name = "Pages", description = "What people see in a browser"),
        (name = "Publication", description = "What verifiers fetch; no credentials needed"),
        (name = "Keys", description = "API keys"),
        (name = "Audiences", description = "Services with their own shape of token"),
        (name = "Signing keys", description = "What signs tokens"),
        (name = "Key requests", description = "Developers ask for keys, admins decide"),
        (name = "Applications", description = "What owns API keys"),
        (name = "Verify", description = "Resource servers and proxies ask whether a caller may"),
        (name = "Users", description = "People"),
        (name = "Connections", description = "Providers and directories that people log in through"),
        (name = "Roles", description = "What can be done in a tenant, and by whom"),
        (name = "Dialects", description = "Other systems' routes, for clients that cannot be changed: 404 unless the tenant's \
                                           setting `dialects` says that they are served"),
        (name = "Tenants", description = "Managed by the admins of the default tenant"),
        (name = "Audit", description = "What was done, by whom"),
        (name = "Operation", description = "Health, and this document"),
    )
)]
struct Document;

/// The document, as JSON.
#[must_use]
pub fn document() -> Value {
    let (_, root) = App::new().into_utoipa_app().openapi(Document::openapi()).configure(routes::root_routes).split_for_parts();
    let (_, tenant) = App::new().into_utoipa_app().configure(routes::tenant_routes).split_for_parts();
    let (_, tenant_only) =
        App::new().into_utoipa_app().configure(routes::tenant_only_routes).configure(dialect_routes).split_for_parts();
    let mut document = serde_json::to_value(root).unwrap_or_default();
    let tenant = serde_json::to_value(tenant).unwrap_or_default();
    let tenant_only = serde_json::to_value(tenant_only).unwrap_or_default();
    for part in [&tenant, &tenant_only] {
        let schemas = part.pointer("/components/schemas").and_then(Value::as_object).cloned().unwrap_or_default();
        if let Some(all) = document.pointer_mut("/components/schemas").and_then(Value::as_object_mut) {
            all.extend(schemas);
        }
    }
    if let Some(components) = document.get_mut("components").and_then(Value::as_object_mut) {
        components.insert("securitySchemes".into(), security_schemes());
    }
    let paths_of = |part: &Value| part.get("paths").and_then(Value::as_object).cloned().unwrap_or_default();
    let (shared, tenant_only) = (paths_of(&tenant), paths_of(&tenant_only));
    if let Some(paths) = document.get_mut("paths").and_then(Value::as_object_mut) {
        for (path, operations) in shared {
            paths.insert(format!("/t/{{tenant}}{path}"), within_tenant(operations.clone()));
            paths.insert(path, operations);
        }
        for (path, operations) in tenant_only {
            // The same path may take other methods at the root too.
            let known = paths.entry(format!("/t/{{tenant}}{path}")).or_insert_with(|| json!({}));
            if let (Some(known), Value::Object(operations)) = (known.as_object_mut(), within_tenant(operations)) {
                known.extend(operations);
            }
        }
        for operation in paths.values_mut().filter_map(Value::as_object_mut).flat_map(Map::values_mut) {
            add_common_errors(operation);
        }
        paths.sort_keys();
    }
    document
}

fn security_schemes() -> Value {
    json!({
        "appKey": {
            "type": "apiKey", "in": "header", "name": "Authorization",
            "description": "`KEY:SECRET`, without a scheme. For /v1/authentications only.",
        },
        "basic": { "type": "http", "scheme": "basic", "description": "The key as the user name, the secret as the password." },
        "session": {
            "type": "apiKey", "in": "cookie", "name": "__Host-session-{tenant}",
            "description": "The cookie that the login page sets; under `/t/{tenant}` alone.",
        },
        "bearer": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "A token from /v1/authentications." },
    })
}

/// The same operations under a tenant's path, with ids of their own.
fn within_tenant(mut operations: Value) -> Value {
    for operation in operations.as_object_mut().into_iter().flat_map(Map::values_mut) {
        if let Some(id) = operation.get("operationId").and_then(Value::as_str).map(|id| format!("{id}InTenant")) {
            operation["operationId"] = json!(id);
        }
        let tenant = json!({
            "name": "tenant", "in": "path", "required": true, "description": "The tenant's slug",
            "schema": { "type": "string" }, "example": "acme",
        });
        match operation.get_mut("parameters").and_then(Value::as_array_mut) {
            Some(parameters) => parameters.insert(0, tenant),
            None => operation["parameters"] = json!([tenant]),
        }
    }
    operations
}

/// The answers that any operation may give, and any operation that takes credentials.
fn add_common_errors(operation: &mut Value) {
    let takes = |scheme: &str| {
        let all = operation.get("security").and_then(Value::as_array);
        all.is_some_and(|all| all.iter().any(|one| one.get(scheme).is_some()))
    };
    let (secured, keyed) = (takes("bearer"), takes("bearer") || takes("basic"));
    let scoped = operation.pointer("/security/0/bearer/0").is_some();
    let body = operation.get("requestBody").is_some();
    let parameter_in = |place: &str| {
        let parameters = operation.get("parameters").and_then(Value::as_array);
        parameters.into_iter().flatten().any(|parameter| parameter.get("in").is_some_and(|found| found == place))
    };
    let (query, path) = (parameter_in("query"), parameter_in("path"));
    let required_body = operation.pointer("/requestBody/required").is_some_and(|required| required == true);
    // Cheshire Cat says all of this with 400 and 403, which its handlers describe.
    let says_less = operation.get("operationId").and_then(Value::as_str).is_some_and(|id| id.starts_with("cheshireCat"));
    let Some(responses) = operation.get_mut("responses").and_then(Value::as_object_mut) else { return };
    let mut common = vec![
        ("414", "The path and query are longer than 8 KiB"),
        ("431", "There are more than 64 header lines"),
        ("400", "The request is malformed"),
        ("403", "Sent over plain http where https is required (`https-required`)"),
        ("500", "Something broke here; the request's id is in `X-Request-Id`"),
        ("503", "Something that we depend on did not answer; see `Retry-After`"),
    ];
    if secured {
        common.push(("401", "No credentials, or none that hold; see `WWW-Authenticate`"));
    }
    if keyed {
        common.push(("429", "Too many failures of this key from this address; see `Retry-After`"));
    }
    if scoped {
        common.push(("403", "The credentials hold too little (`insufficient_scope`), or https is required (`https-required`)"));
    }
    if path {
        common.push(("404", "There is no such tenant"));
    }
    if query {
        common.push(("422", "A parameter is wrong, or is not one of this path's"));
    }
    if body {
        common.push(("408", "The body took longer than 10 seconds"));
        common.push(("413", "The body is longer than 64 KiB"));
    }
    // A body that may be left out is read whatever it is called.
    if required_body {
        common.push(("415", "The body is of another type than this takes"));
    }
    common.retain(|(status, _)| !(says_less && ["401", "415", "422", "429"].contains(status)));
    for (status, description) in common.into_iter().rev() {
        let problem = json!({
            "description": description,
            "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
        });
        responses.entry(status).or_insert(problem);
    }
    let problem_schema = json!("#/components/schemas/Problem");
    for (status, response) in responses.iter_mut() {
        // Problems written beside their handlers carry the schema; their media type is said here, once.
        let content = response.get_mut("content").and_then(Value::as_object_mut);
        if status.starts_with(['4', '5'])
            && let Some(content) = content
            && content.get("application/json").and_then(|json| json.pointer("/schema/$ref")) == Some(&problem_schema)
            && let Some(schema) = content.remove("application/json")
        {
            content.insert("application/problem+json".into(), schema);
        }
    }
    responses.sort_keys();
}
