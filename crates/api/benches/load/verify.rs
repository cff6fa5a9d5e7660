//! Questions of resource servers and of proxies: may this caller?

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::driver::{self, Requests, Target};
use crate::nginx::{self, Nginx};
use crate::report::Row;
use crate::server::Server;
use crate::{CONCURRENCIES, Pace, add_ratios, bare, rate_row};

/// Callers that a busy resource server hears from again and again.
const TOKENS: usize = 1000;
const FORWARD_AUTH: &str = "/t/bench/v1/forward-auth?kind=nginx";

/// `key` is a caller's.
pub(crate) fn measure(
    server: &Server,
    key: &str,
    pace: Pace,
    is_wanted: impl Fn(&str) -> bool,
    notes: &mut Vec<String>,
) -> Vec<Row> {
    // Without these, the ceilings would be measured for nothing.
    let asked = ["verify", "forward-auth"].map(&is_wanted);
    if asked == [false, false] {
        return Vec::new();
    }
    let tokens: Vec<String> = (0..TOKENS).map(|_| format!("Bearer {}", server.token(key))).collect();
    let (one, _) = tokens.split_at(1);
    let mut operations = vec![("constant JSON", server.constant())];
    if asked[0] {
        let resource_server = STANDARD.encode(server.new_key("verify"));
        let verify = |callers: &[String]| verifications(server, &resource_server, callers);
        operations.push(("verify, a key", verify(&[format!("Bearer {key}")])));
        operations.push(("verify, a token", verify(one)));
        operations.push(("verify, 1,000 tokens", verify(&tokens)));
    }
    let nginx = if asked[1] { Nginx::start(server.address, FORWARD_AUTH) } else { None };
    if asked[1] {
        operations.push(("forward-auth, a token", forwarded(server, one)));
        operations.push(("forward-auth, 1,000 tokens", forwarded(server, &tokens)));
    }
    if let Some(nginx) = &nginx {
        operations.push((nginx::ALONE, nginx.target("/open", one)));
        operations.push(("nginx, forward-auth", nginx.target("/guarded", one)));
    }
    let mut rows = Vec::new();
    for concurrency in CONCURRENCIES {
        for (operation, target) in &operations {
            rows.push(server.row(operation, target, &pace.plan(concurrency)));
        }
    }
    add_ratios(&mut rows);
    rows.push(rate_row("Ed25519 + claims, in process", 1, bare::checking(pace.seconds(4)), "one thread, no HTTP"));
    if asked[1] && nginx.is_none() {
        notes.push("; nginx, forward-auth: not measured, there is no nginx with auth_request here".to_owned());
    }
    rows
}

/// A resource server with that Basic credential asks about these callers.
fn verifications(server: &Server, basic: &str, callers: &[String]) -> Target {
    let basic = format!("Basic {basic}");
    let headers = [("Authorization", basic.as_str()), ("Content-Type", "application/json")];
    let requests = callers.iter().map(|caller| {
        let question = json!({ "authorization": caller, "ip": "198.51.100.7", "require": { "permission": "events:read" } });
        driver::request("POST", "/t/bench/v1/verify", "bench", &headers, Some(&question.to_string()))
    });
    Target { requests: Requests::InTurn(requests.collect()), ..server.constant() }
}

/// A proxy passes on what these callers sent.
fn forwarded(server: &Server, callers: &[String]) -> Target {
    let requests = callers.iter().map(|caller| {
        let headers = [
            ("Authorization", caller.as_str()),
            ("X-Original-Method", "GET"),
            ("X-Original-URL", "https://app.example.com/reports?page=7"),
        ];
        driver::request("GET", FORWARD_AUTH, "bench", &headers, None)
    });
    Target { requests: Requests::InTurn(requests.collect()), ..server.constant() }
}
