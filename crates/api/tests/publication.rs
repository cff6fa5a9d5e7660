//! What everybody may fetch: keys, metadata, the API's document and its console; and the headers of every answer
//! (SEEDS scenarios 66 and 70).

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::pkcs8::DecodePublicKey as _;
use ed25519_dalek::{Signature, Verifier as _, VerifyingKey};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use support::operations::operations;
use support::wire::{raw, send};
use support::{Answer, Options, Server, UNTHROTTLED, claims, jose_header};

const JWKS: &str = "/.well-known/jwks.json";
const METADATA: &str = "/.well-known/oauth-authorization-server";

/// RFC 7638 §3 for an OKP key (RFC 8037 §2): required members only, in lexicographic order, no white space.
fn thumbprint(jwk: &Value) -> String {
    let text = |name: &str| jwk[name].as_str().unwrap().to_owned();
    let canonical = format!(r#"{{"crv":"{}","kty":"{}","x":"{}"}}"#, text("crv"), text("kty"), text("x"));
    URL_SAFE_NO_PAD.encode(Sha256::digest(canonical.as_bytes()))
}

fn assert_published(answer: &Answer) {
    let cache = answer.header("cache-control");
    assert!(cache.contains("public") && cache.contains("max-age=300"), "{cache}");
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert!(answer.header("access-control-allow-credentials").is_empty());
    assert_eq!(answer.header("cross-origin-resource-policy"), "cross-origin");
    assert!(answer.header("set-cookie").is_empty());
}

#[actix_web::test]
async fn scenario_66_the_key_set_holds_public_keys_that_verify_and_nothing_else() {
    let server = Server::start().await;
    server.default_tenant().await;
    let tenant = server.tenant("cta").await;
    let answer = server.anonymous().get(&tenant.path(JWKS)).await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.header("content-type"), "application/jwk-set+json");
    assert_published(&answer);
    let set = answer.json();
    assert_eq!(set.as_object().unwrap().keys().collect::<Vec<_>>(), ["keys"]);
    let jwk = &set["keys"][0];
    assert_eq!(set["keys"].as_array().unwrap().len(), 1);
    let members: BTreeSet<&str> = jwk.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(members, BTreeSet::from(["alg", "crv", "kid", "kty", "use", "x"]), "no `d`, no other member");
    assert_eq!(
        (&jwk["kty"], &jwk["crv"], &jwk["alg"], &jwk["use"]),
        (&json!("OKP"), &json!("Ed25519"), &json!("EdDSA"), &json!("sig"))
    );
    assert_eq!(jwk["kid"], thumbprint(jwk));

    // The same key in all of its forms.
    let raw = server.anonymous().get(&tenant.path("/v1/public-key")).await;
    assert!(raw.header("content-type").starts_with("text/plain"));
    assert_published(&raw);
    let bytes: [u8; 32] = STANDARD.decode(&raw.text).unwrap().try_into().unwrap();
    assert_eq!(URL_SAFE_NO_PAD.encode(bytes), jwk["x"].as_str().unwrap());
    assert_eq!(server.anonymous().get(&tenant.path("/v1/public-key?format=raw")).await.text, raw.text);
    let pem = server.anonymous().get(&tenant.path("/v1/public-key?format=pem")).await;
    assert_eq!(pem.header("content-type"), "application/x-pem-file");
    let key = VerifyingKey::from_public_key_pem(&pem.text).unwrap();
    assert_eq!(key.to_bytes(), bytes);
    let single = server.anonymous().get(&tenant.path("/v1/public-key?format=jwk")).await;
    assert_eq!((single.header("content-type"), &single.json()), ("application/jwk+json", jwk));
    for query in ["format=der", "format=", "format=RAW", "private=true", "format=raw&format=pem"] {
        let answer = server.anonymous().get(&tenant.path(&format!("/v1/public-key?{query}"))).await;
        assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{query}");
    }

    // And it is the key that signs.
    let token = server.with(&tenant.user_key("foo", &[]).await.pair()).token().await;
    assert_eq!(jose_header(&token)["kid"], jwk["kid"]);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature = Signature::from_slice(&URL_SAFE_NO_PAD.decode(signature).unwrap()).unwrap();
    key.verify(signed.as_bytes(), &signature).unwrap();

    // The private half is in no answer and in no row.
    let mut database = server.database.superuser().await;
    let (sealed,): (Vec<u8>,) = sqlx::query_as("SELECT sealed_private FROM signing_keys WHERE kid = $1")
        .bind(jwk["kid"].as_str().unwrap())
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert_eq!(sealed.len(), 1 + 12 + 32 + 16);
}

#[actix_web::test]
async fn scenario_66_a_verifier_that_has_the_set_hears_304_and_the_root_serves_the_default_tenant() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let other = server.tenant("other").await;
    let root = server.anonymous().get(JWKS).await;
    assert_eq!(root.told(), server.anonymous().get(&default.path(JWKS)).await.told());
    assert_ne!(root.text, server.anonymous().get(&other.path(JWKS)).await.text);
    let etag = root.header("etag").to_owned();
    assert!(etag.starts_with('"') && etag.ends_with('"') && etag.len() > 20, "{etag}");
    let conditional = async |tags: &str| send(server.anonymous().request(Method::GET, JWKS).header("If-None-Match", tags)).await;
    for tags in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".into()] {
        let answer = conditional(&tags).await;
        assert_eq!((answer.status, answer.text.as_str()), (StatusCode::NOT_MODIFIED, ""), "{tags}");
        assert_eq!(answer.header("etag"), etag);
        assert_published(&answer);
    }
    for tags in
        ["\"x\"".to_owned(), etag.trim_matches('"').to_owned(), String::new(), other_etag(&server, &other.path(JWKS)).await]
    {
        let answer = conditional(&tags).await;
        assert_eq!((answer.status, &answer.text), (StatusCode::OK, &root.text), "{tags}");
    }
    for path in ["/t/nowhere/.well-known/jwks.json", "/t/Not%20a%20slug/.well-known/jwks.json", "/t//.well-known/jwks.json"] {
        let answer = server.anonymous().get(path).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::NOT_FOUND, "not_found"), "{path}");
    }
}

async fn other_etag(server: &Server, path: &str) -> String {
    server.anonymous().get(path).await.header("etag").to_owned()
}

#[actix_web::test]
async fn the_metadata_is_the_same_in_both_forms_and_names_the_issuer_exactly() {
    let server = Server::start().await;
    server.default_tenant().await;
    let tenant = server.tenant("cta").await;
    let appended = server.anonymous().get(&tenant.path(METADATA)).await;
    assert_eq!(appended.status, StatusCode::OK);
    assert_eq!(appended.header("content-type"), "application/json");
    assert_published(&appended);
    let inserted = server.anonymous().get(&format!("{METADATA}/t/cta")).await;
    assert_eq!(appended.told(), inserted.told());
    let metadata = appended.json();
    assert_eq!(metadata["issuer"], "http://id.test/t/cta");
    assert_eq!(metadata["jwks_uri"], "http://id.test/t/cta/.well-known/jwks.json");
    assert_eq!(metadata["introspection_endpoint"], "http://id.test/t/cta/v1/introspect");
    assert!(metadata["response_types_supported"].is_array(), "required by RFC 8414 §2");
    // What tokens say is what the metadata says (RFC 9068 §4).
    let token = server.with(&tenant.user_key("foo", &[]).await.pair()).token().await;
    assert_eq!(claims(&token)["iss"], metadata["issuer"]);
    // Its links lead to what they promise.
    for (link, method) in [
        ("jwks_uri", Method::GET),
        ("token_endpoint", Method::POST),
        ("revocation_endpoint", Method::POST),
        ("introspection_endpoint", Method::POST),
    ] {
        let path = metadata[link].as_str().unwrap().strip_prefix("http://id.test").unwrap();
        let answer = send(server.anonymous().request(method, path).form(&[("token", "x")])).await;
        assert!(
            [StatusCode::OK, StatusCode::BAD_REQUEST, StatusCode::UNAUTHORIZED].contains(&answer.status),
            "{link}: {}",
            answer.status
        );
    }
    // No issuer is the root, so there are no metadata of it (RFC 8414 §3.3).
    assert_eq!(server.anonymous().get(METADATA).await.status, StatusCode::NOT_FOUND);
    let absent = server.anonymous().get("/t/nowhere/.well-known/oauth-authorization-server").await;
    assert_eq!(absent.status, StatusCode::NOT_FOUND);
    assert_eq!(absent.told(), server.anonymous().get(&format!("{METADATA}/t/nowhere")).await.told());
}

#[actix_web::test]
async fn p18_no_header_of_a_request_changes_an_issuer_or_a_link() {
    for trusted_proxies in [vec![], vec!["127.0.0.1/32"]] {
        let server = Server::start_with(Options { trusted_proxies, ..Options::default() }).await;
        server.default_tenant().await;
        let tenant = server.tenant("cta").await;
        let key = tenant.user_key("foo", &[]).await;
        let mut references = Vec::new();
        for path in [tenant.path(METADATA), format!("{METADATA}/t/cta"), tenant.path(JWKS), "/openapi.json".into()] {
            references.push((path.clone(), server.anonymous().get(&path).await.told()));
        }
        for (name, value) in [
            ("Host", "evil.example"),
            ("Host", "evil.example:443"),
            ("X-Forwarded-Host", "evil.example"),
            ("X-Forwarded-Server", "evil.example"),
            ("X-Forwarded-Prefix", "/evil"),
            ("X-Forwarded-Port", "1"),
            ("X-Forwarded-Proto", "https"),
            ("Forwarded", "for=198.51.100.7;host=evil.example;proto=https"),
            ("X-Original-URL", "/t/other"),
            ("X-Rewrite-URL", "/t/other"),
            ("X-Tenant", "other"),
        ] {
            for (path, reference) in &references {
                let answer = send(server.anonymous().request(Method::GET, path).header(name, value)).await;
                let told = answer.told().replace("strict-transport-security: \"max-age=63072000; includeSubDomains\"\n", "");
                assert_eq!(told, *reference, "{path} with {name}: {value}");
            }
            let answer = send(server.with(&key.pair()).request(Method::POST, "/v1/authentications").header(name, value)).await;
            let token = claims(answer.json()["jwt"].as_str().unwrap());
            assert_eq!(
                (&token["iss"], &token["aud"]),
                (&json!("http://id.test/t/cta"), &json!("http://id.test/t/cta")),
                "{name}"
            );
        }
        // An absolute request target names a host as well.
        let request =
            format!("GET http://evil.example{METADATA}/t/cta HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n");
        let answer = raw(server.address, request.as_bytes()).await;
        assert!(!answer.text.contains("evil"), "{}", answer.text);
        assert!(answer.status != StatusCode::OK || answer.text.contains("http://id.test/t/cta"), "{}", answer.text);
    }
}

#[actix_web::test]
async fn scenario_70_the_document_is_whole_and_is_the_committed_one() {
    let server = Server::start().await;
    let answer = server.anonymous().get("/openapi.json").await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "application/json"));
    let document = answer.json();
    let committed: Value = serde_json::from_str(include_str!("../../../openapi/openapi.json")).unwrap();
    assert_eq!(document, committed, "run `make openapi`");
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
    let schemes: BTreeSet<&str> =
        document["components"]["securitySchemes"].as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(schemes, BTreeSet::from(["appKey", "basic", "bearer", "session"]));

    let all = operations();
    let ids: BTreeSet<&str> = all.iter().map(|operation| operation.id.as_str()).collect();
    assert_eq!(ids.len(), all.len(), "operation ids are unique");
    for operation in &all {
        let id = &operation.id;
        let said = &operation.document;
        assert!(said["summary"].as_str().is_some_and(|summary| !summary.is_empty()), "{id}");
        assert!(said["security"].is_array(), "{id} says what it needs");
        for one in said["security"].as_array().unwrap() {
            assert!(one.as_object().unwrap().keys().all(|scheme| schemes.contains(scheme.as_str())), "{id}");
        }
        // Every placeholder is described.
        let described: BTreeSet<String> = said["parameters"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|parameter| parameter["in"] == "path")
            .map(|parameter| format!("{{{}}}", parameter["name"].as_str().unwrap()))
            .collect();
        let placeholders: BTreeSet<String> =
            operation.template.split('/').filter(|part| part.starts_with('{')).map(str::to_owned).collect();
        assert_eq!(described, placeholders, "{id}");
        for content in
            said.pointer("/requestBody/content").and_then(Value::as_object).into_iter().flat_map(serde_json::Map::values)
        {
            assert!(content.get("schema").is_some(), "{id}: a body without a schema");
        }
        let answers = said["responses"].as_object().unwrap();
        assert!(answers.keys().any(|status| status.starts_with(['2', '3'])), "{id}");
        for (status, answer) in answers {
            assert!(!answer["description"].as_str().unwrap().is_empty(), "{id} {status}");
            match status.as_bytes()[0] {
                // People read a page.
                b'4' | b'5' if answer.pointer("/content/text~1html").is_some() => {
                    assert_eq!(said["tags"], json!(["Pages"]), "{id} {status}");
                }
                // OAuth has a form of its own (RFC 6749 §5.2).
                b'4' | b'5' if answer.pointer("/content/application~1json").is_some() => {
                    assert_eq!(operation.root_id(), "requestToken", "{id} {status}");
                    let schema = answer.pointer("/content/application~1json/schema/$ref");
                    assert_eq!(schema, Some(&json!("#/components/schemas/OAuthError")), "{id} {status}");
                }
                b'4' | b'5' => {
                    let schema = answer.pointer("/content/application~1problem+json/schema/$ref");
                    assert_eq!(schema, Some(&json!("#/components/schemas/Problem")), "{id} {status}");
                }
                // RFC 7009 §2.2 answers 200 with nothing in it, and a proxy reads headers alone.
                b'2' if status != "204" && !["revokeToken", "forwardAuth"].contains(&operation.root_id()) => {
                    let content = answer["content"].as_object().unwrap_or_else(|| panic!("{id} {status}: no content"));
                    let described = |one: &Value| one.get("schema").is_some() || one.get("example").is_some();
                    assert!(content.values().all(described), "{id} {status}");
                }
                _ => {}
            }
        }
        for status in ["400", "403", "500", "503"] {
            assert!(answers.contains_key(status), "{id}: {status}");
        }
        if operation.needs_caller {
            assert!(answers.contains_key("401") && answers.contains_key("429"), "{id}");
        }
        if said.get("requestBody").is_some() {
            assert!(answers.contains_key("413"), "{id}");
        }
    }
    // No reference leads nowhere.
    let text = answer.text.as_str();
    for reference in text.split("\"$ref\":\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(document.pointer(reference).is_some(), "{reference}");
    }
}

#[actix_web::test]
async fn scenario_70_every_answer_that_is_given_is_described_in_the_document() {
    let server = Server::start_with(Options { throttle: UNTHROTTLED, ..Options::default() }).await;
    let default = server.default_tenant().await;
    let admin = default.admin().await;
    let mut undocumented = BTreeSet::new();
    for operation in operations() {
        let documented: BTreeSet<&str> =
            operation.document["responses"].as_object().unwrap().keys().map(String::as_str).collect();
        let mut paths =
            vec![operation.path_of_nothing("default"), format!("{}?limit=x&format=x", operation.path_of_nothing("default"))];
        if operation.template.contains("{tenant}") {
            paths.push(operation.path_of_nothing("nowhere"));
        }
        for path in paths {
            for header in [None, Some(admin.basic()), Some("Bearer abcd.efgh".to_owned())] {
                let caller = header.as_ref().map_or_else(|| server.anonymous(), |header| server.with(header));
                let request = || caller.request(operation.method.clone(), &path);
                let mut answers = vec![operation.call(&caller, &path).await];
                if operation.body.is_some() {
                    answers.push(send(request()).await);
                    answers.push(send(request().body("{}")).await);
                    answers.push(send(request().header("Content-Type", "application/json").body("{")).await);
                    answers.push(send(request().header("Content-Type", "application/json").body("{\"x\":1}")).await);
                    answers.push(send(request().header("Content-Type", "application/json").body("x".repeat(70_000))).await);
                }
                for answer in answers {
                    assert!(!answer.status.is_server_error(), "{}: {}", operation.id, answer.text);
                    if !documented.contains(answer.status.as_str()) {
                        undocumented.insert(format!("{} {}", operation.id, answer.status.as_u16()));
                    }
                    let kind = answer.header("content-type").to_owned();
                    if answer.status.is_client_error() && !kind.starts_with("text/html") {
                        let described = &operation.document["responses"][answer.status.as_str()]["content"];
                        assert!(described.get(&kind).is_some(), "{}: {kind}", operation.id);
                    }
                }
            }
        }
    }
    assert!(undocumented.is_empty(), "answers that the document does not know: {undocumented:#?}");
}

#[actix_web::test]
async fn scenario_70_the_console_is_served_to_everybody_from_here_alone() {
    let server = Server::start().await;
    let bare = server.anonymous().get("/docs").await;
    assert_eq!((bare.status, bare.header("location")), (StatusCode::PERMANENT_REDIRECT, "/docs/"));
    let page = server.anonymous().get("/docs/").await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.header("content-type").starts_with("text/html"));
    let policy = page.header("content-security-policy");
    for directive in
        ["default-src 'none'", "script-src 'self';", "connect-src 'self'", "base-uri 'none'", "frame-ancestors 'none'"]
    {
        assert!(policy.contains(directive), "{directive} in {policy}");
    }
    assert!(!policy.contains("unsafe-eval") && !policy.contains("http:") && !policy.contains("https:") && !policy.contains('*'));
    // The policy allows no script in the page, so there must be none.
    for tag in page.text.split("<script").skip(1) {
        let (attributes, rest) = tag.split_once('>').unwrap();
        assert!(attributes.contains("src="), "a script in the page: {attributes}");
        assert!(rest.split("</script>").next().unwrap().trim().is_empty());
    }
    let mut assets = BTreeSet::new();
    for attribute in ["src=\"", "href=\""] {
        for link in page.text.split(attribute).skip(1).map(|rest| rest.split('"').next().unwrap()) {
            assert!(!link.contains("//"), "{link} is elsewhere");
            if !link.starts_with("data:") && !link.starts_with('#') {
                assets.insert(link.trim_start_matches("./").to_owned());
            }
        }
    }
    assert!(assets.len() >= 3, "{assets:?}");
    let mut shown = String::new();
    for asset in &assets {
        let answer = server.anonymous().get(&format!("/docs/{asset}")).await;
        assert_eq!(answer.status, StatusCode::OK, "{asset}");
        let kind = answer.header("content-type").to_owned();
        let expected = match asset.rsplit('.').next().unwrap() {
            "js" => "javascript",
            "css" => "text/css",
            "png" => "image/png",
            _ => "",
        };
        assert!(kind.contains(expected) && !kind.is_empty(), "{asset}: {kind}");
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
        if asset.ends_with("initializer.js") {
            shown = answer.text;
        }
    }
    assert!(shown.contains("/openapi.json"), "the console shows our document");
    for path in ["/docs/nothing.js", "/docs/../Cargo.toml", "/docs/..%2f..%2fetc%2fpasswd", "/docs/%00"] {
        let answer = server.anonymous().get(path).await;
        assert_eq!(answer.status, StatusCode::NOT_FOUND, "{path}");
        assert!(!answer.text.contains("root:"));
    }
}

#[actix_web::test]
async fn every_kind_of_answer_wears_the_security_headers() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let admin = default.admin().await;
    let caller = server.with(&admin.basic());
    let anonymous = server.anonymous();
    let long = format!("/v1/me?{}", "x".repeat(9000));
    let json = |body: String| caller.request(Method::POST, "/v1/users").header("Content-Type", "application/json").body(body);
    let two = anonymous.request(Method::GET, "/v1/me").header("Authorization", "a:b").header("Authorization", "a:b");
    let kinds: Vec<(u16, Answer)> = vec![
        (200, anonymous.get("/healthz").await),
        (200, anonymous.get("/readyz").await),
        (200, anonymous.get(JWKS).await),
        (200, anonymous.get("/docs/").await),
        (200, anonymous.get("/openapi.json").await),
        (200, caller.get("/v1/me").await),
        (201, caller.post_empty("/v1/authentications").await),
        (204, caller.delete(&format!("/v1/keys/{}", default.app_key("x", &[]).await.id)).await),
        (308, anonymous.get("/docs").await),
        (400, json("{".into()).send().await.map(Answer::of).unwrap().await),
        (400, send(two).await),
        (401, anonymous.get("/v1/me").await),
        (403, server.with(&default.app_key("y", &[]).await.basic()).get("/v1/users").await),
        (404, anonymous.get("/nothing").await),
        (404, anonymous.get("/").await),
        (404, anonymous.post_empty("/v1/authentications").await),
        (404, caller.get("/v1/users/nobody").await),
        (405, anonymous.delete("/v1/me").await),
        (409, caller.post("/v1/applications", json!({ "name": "x" })).await),
        (413, send(json(format!("{{\"username\":\"{}\"}}", "x".repeat(70_000)))).await),
        (414, anonymous.get(&long).await),
        (415, send(caller.request(Method::POST, "/v1/users").header("Content-Type", "text/plain").body("{}")).await),
        (415, send(caller.request(Method::POST, "/v1/users").body("{}")).await),
        (422, caller.post("/v1/users", json!({})).await),
        (422, caller.get("/v1/users?limit=0").await),
    ];
    let mut ids = BTreeSet::new();
    for (status, answer) in &kinds {
        assert_eq!(answer.status.as_u16(), *status, "{}", answer.text);
        assert_eq!(answer.header("x-content-type-options"), "nosniff", "{status}");
        assert_eq!(answer.header("referrer-policy"), "no-referrer", "{status}");
        assert!(answer.header("content-security-policy").contains("frame-ancestors 'none'"), "{status}");
        assert!(!answer.header("cache-control").is_empty(), "{status}");
        assert!(!answer.header("cross-origin-resource-policy").is_empty(), "{status}");
        for told in ["server", "x-powered-by", "set-cookie"] {
            assert!(answer.header(told).is_empty(), "{status}: {told}");
        }
        let id = answer.header("x-request-id");
        assert!(id.len() == 24 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{status}: {id}");
        assert!(ids.insert(id.to_owned()), "a request's id is its own");
        if *status >= 400 {
            assert_eq!(answer.header("cache-control"), "no-store", "{status}");
            answer.error();
            let problem = answer.json();
            assert!(problem["type"].as_str().unwrap().starts_with("urn:claviger:problem:"), "{status}");
            assert!(!problem["title"].as_str().unwrap().is_empty() && !problem["detail"].as_str().unwrap().is_empty());
        }
    }
    // An id that the client sends is not taken for ours: it would be written into the log and the trail.
    let answer = send(anonymous.request(Method::GET, "/healthz").header("X-Request-Id", "mine")).await;
    assert_ne!(answer.header("x-request-id"), "mine");
}

#[actix_web::test]
async fn a_path_that_takes_other_methods_is_405_and_names_them() {
    let server = Server::start().await;
    server.default_tenant().await;
    for (method, path, allowed) in [
        (Method::GET, "/v1/authentications", vec!["POST"]),
        (Method::PUT, "/t/default/v1/authentications", vec!["POST"]),
        (Method::DELETE, "/v1/me", vec!["GET", "HEAD"]),
        (Method::PUT, "/v1/users/x", vec!["DELETE", "GET", "HEAD", "PATCH"]),
        (Method::DELETE, "/v1/keys", vec!["GET", "HEAD", "POST"]),
        (Method::GET, "/v1/keys/x/rotate", vec!["POST"]),
        (Method::OPTIONS, "/v1/users", vec!["GET", "HEAD", "POST"]),
        (Method::TRACE, "/healthz", vec!["GET", "HEAD"]),
        (Method::POST, JWKS, vec!["GET", "HEAD"]),
        (Method::PATCH, "/v1/tenants", vec!["GET", "HEAD", "POST"]),
        (Method::POST, "/openapi.json", vec!["GET", "HEAD"]),
    ] {
        let answer = send(server.anonymous().request(method.clone(), path)).await;
        assert_eq!(
            (answer.status, answer.error().as_str()),
            (StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed"),
            "{method} {path}"
        );
        let named: BTreeSet<&str> = answer.header("allow").split(", ").collect();
        assert_eq!(named, allowed.into_iter().collect(), "{method} {path}");
    }
    for path in
        ["/v1", "/v1/", "/v1/users/", "/V1/users", "//v1/users", "/v2/users", "/t/default", "/v1/users/x/y", "/admin", "/.env"]
    {
        assert_eq!(server.anonymous().get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
}

#[actix_web::test]
async fn head_answers_as_get_does_without_the_body() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let admin = default.admin().await;
    for path in [
        "/healthz",
        JWKS,
        "/.well-known/oauth-authorization-server/t/default",
        "/openapi.json",
        "/docs/",
        "/v1/public-key",
        "/v1/me",
        "/v1/users",
        "/v1/users/x",
        "/nothing",
    ] {
        let caller = server.with(&admin.basic());
        let get = caller.get(path).await;
        let head = send(caller.request(Method::HEAD, path)).await;
        assert_eq!((head.status, head.text.as_str()), (get.status, ""), "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        assert_eq!(head.header("content-length"), get.header("content-length"), "{path}");
    }
    assert_eq!(send(server.anonymous().request(Method::HEAD, "/v1/me")).await.status, StatusCode::UNAUTHORIZED);
    let post_only = send(server.with(&admin.pair()).request(Method::HEAD, "/v1/authentications")).await;
    assert_eq!(post_only.status, StatusCode::METHOD_NOT_ALLOWED);
}

#[actix_web::test]
async fn p37_what_is_too_large_or_too_deep_is_refused_quickly() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let admin = default.admin().await;
    let caller = server.with(&admin.basic());
    let post = |body: String| caller.request(Method::POST, "/v1/users").header("Content-Type", "application/json").body(body);
    let padded = |length: usize| {
        let empty = "{\"username\":\"\"}";
        format!("{{\"username\":\"{}\"}}", "x".repeat(length - empty.len()))
    };
    let started = Instant::now();
    assert_eq!(send(post(padded(65_536))).await.wrong_field(), "username", "64 KiB is read");
    for length in [65_537, 1 << 20, 8 << 20] {
        let request = post(padded(length)).build().unwrap();
        // A server that stops reading may also reset the connection.
        if let Ok(response) = server.http.execute(request).await {
            assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE, "{length}");
        }
    }
    for deep in [
        "[".repeat(60_000),
        "{\"a\":".repeat(10_000),
        format!("{}{}", "[".repeat(33), "]".repeat(33)),
        format!("{{\"username\":{}1{}}}", "[".repeat(32), "]".repeat(32)),
    ] {
        let answer = send(post(deep)).await;
        assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_request"));
    }
    let path = |length: usize| format!("/v1/me?{}", "x".repeat(length - "/v1/me?".len()));
    assert_eq!(caller.get(&path(8192)).await.status, StatusCode::OK, "8 KiB is read");
    assert_eq!(caller.get(&path(8193)).await.status, StatusCode::URI_TOO_LONG);
    let headers = |count: usize| {
        let lines: String = (0..count).map(|n| format!("X-{n}: y\r\n")).collect();
        format!("GET /healthz HTTP/1.1\r\nHost: id.test\r\nConnection: close\r\n{lines}\r\n")
    };
    assert_eq!(raw(server.address, headers(62).as_bytes()).await.status, StatusCode::OK);
    assert_eq!(raw(server.address, headers(63).as_bytes()).await.status, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
    for request in [
        headers(5000),
        format!("GET /healthz HTTP/1.1\r\nHost: id.test\r\nConnection: close\r\nX: {}\r\n\r\n", "y".repeat(300_000)),
        format!("GET /{} HTTP/1.1\r\nHost: id.test\r\nConnection: close\r\n\r\n", "y".repeat(300_000)),
    ] {
        assert!(raw(server.address, request.as_bytes()).await.status.is_client_error());
    }
    let scopes: Vec<String> = (0..5000).map(|n| format!("r:{n}")).collect();
    let order = json!({ "application_id": admin.subject(), "name": "n", "scopes": scopes });
    assert_eq!(caller.post("/v1/keys", order).await.wrong_field(), "scopes");
    // The promise is 100 ms for each on a quiet machine; there are about twenty of them.
    println!("all refused within {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert_eq!(server.stopper.panics(), 0);
    assert!(default.audit("user.create").await.is_empty());
}

/// Some 10 MB of `x` as gzip (RFC 1952) in about 64 KB: one letter, and then again and again "258 more of it"
/// (RFC 1951 §3.2.6). The trailer is left out: nobody should get that far.
fn bomb() -> Vec<u8> {
    let mut packed = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut bits = vec![true, true, false];
    let mut code = |value: u32, length: u32| bits.extend((0..length).rev().map(|bit| value >> bit & 1 == 1));
    code(0x30 + u32::from(b'x'), 8);
    for _ in 0..39_000 {
        code(0b1100_0101, 8);
        code(0, 5);
    }
    packed.extend(bits.chunks(8).map(|byte| byte.iter().enumerate().map(|(at, bit)| u8::from(*bit) << at).sum::<u8>()));
    packed
}

#[actix_web::test]
async fn p37_a_compressed_body_is_not_unpacked_beyond_the_limit() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let admin = default.admin().await;
    let bomb = bomb();
    assert!(bomb.len() < 64 * 1024);
    let started = Instant::now();
    for (path, header) in
        [("/v1/users", admin.basic()), ("/v1/authentications", admin.pair()), ("/v1/authentications", "K1".into())]
    {
        for encoding in ["gzip", "deflate", "br", "zstd", "gzip, gzip", "nonsense"] {
            let request = server
                .with(&header)
                .request(Method::POST, path)
                .header("Content-Type", "application/json")
                .header("Content-Encoding", encoding)
                .body(bomb.clone());
            let answer = send(request).await;
            assert!(answer.status.is_client_error(), "{encoding}: {}", answer.status);
            if encoding == "gzip" {
                assert_eq!(answer.status, StatusCode::PAYLOAD_TOO_LARGE);
            }
        }
    }
    println!("all refused within {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    assert!(default.audit("user.create").await.is_empty());
    assert_eq!(server.stopper.panics(), 0);
}

#[actix_web::test]
async fn p42_what_is_said_twice_is_refused() {
    let server = Server::start().await;
    let default = server.default_tenant().await;
    let admin = default.admin().await;
    let caller = server.with(&admin.basic());
    for text in [
        r#"{"name":"a","name":"a"}"#,
        r#"{"name":"a","n\u0061me":"b"}"#,
        r#"{"name":"a","token_lifetime":60,"token_lifetime":60}"#,
        r#"{"name":"a","token_lifetime":60,"token_lifetime":null}"#,
    ] {
        let request = caller.request(Method::POST, "/v1/applications").header("Content-Type", "application/json").body(text);
        assert!(["name", "token_lifetime"].contains(&send(request).await.wrong_field().as_str()), "{text}");
    }
    for query in ["limit=1&limit=1", "after=x&after=y"] {
        assert_eq!(caller.get(&format!("/v1/applications?{query}")).await.status, StatusCode::UNPROCESSABLE_ENTITY, "{query}");
    }
    let two = caller.request(Method::GET, "/v1/me").header("Authorization", admin.basic());
    let answer = send(two).await;
    assert_eq!((answer.status, answer.error().as_str()), (StatusCode::BAD_REQUEST, "invalid_request"));
    // Two lengths, or a length beside chunks, is how requests are smuggled (RFC 9112 §6.3).
    for lines in
        ["Content-Length: 2\r\nContent-Length: 3", "Content-Length: 2\r\nTransfer-Encoding: chunked", "Content-Length: +2"]
    {
        let request = format!("POST /v1/users HTTP/1.1\r\nHost: id.test\r\nConnection: close\r\n{lines}\r\n\r\n{{}}");
        assert!(raw(server.address, request.as_bytes()).await.status.is_client_error(), "{lines}");
    }
    assert_eq!(default.audit("application.create").await.len(), 1, "the admin's own");
}

#[actix_web::test]
async fn health_and_readiness_are_told_without_credentials() {
    let server = Server::start().await;
    for path in ["/healthz", "/readyz"] {
        let answer = server.anonymous().get(path).await;
        assert_eq!((answer.status, answer.json()), (StatusCode::OK, json!({ "status": "ok" })), "{path}: {}", answer.text);
    }
}
