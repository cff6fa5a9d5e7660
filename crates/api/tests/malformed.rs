//! Malformed requests, by the thousand: whatever is sent, the answer is an answer (T15, P37, P38).
//!
//! `REQUESTS` says how many (default 10,000); `SEED` repeats an earlier run, and `ONLY` one request of it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a failure here is a failed test"
)]

mod malformed_support;
mod support;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use claviger_issuer::clock::Clock;
use claviger_issuer::random::Random;
use claviger_issuer::settings::Throttle;
use claviger_store::id::Owner;
use malformed_support::request::{Request, make};
use malformed_support::wire::{Heard, Wire};
use malformed_support::{Admin, World};
use serde_json::Value;
use support::{Options, Server, Tenant};

const CONNECTIONS: usize = 16;
/// An answer that takes longer is a failure. The figure to keep is 1 s; a crowded machine gets more.
const SLOWEST: Duration = Duration::from_secs(5);

/// What every answer of the app wears.
const WORN: [&str; 7] = [
    "cache-control",
    "content-security-policy",
    "x-content-type-options",
    "referrer-policy",
    "cross-origin-resource-policy",
    "cross-origin-opener-policy",
    "x-request-id",
];

async fn admin(tenant: &Tenant<'_>) -> Admin {
    let key = tenant.admin().await;
    Admin { tenant: tenant.slug.clone(), pair: key.pair(), token: tenant.server.with(&key.pair()).token().await }
}

/// Two tenants with much in them, and some that may come to harm.
async fn populate(server: &Server) -> World {
    let default = server.tenant("default").await;
    let acme = server.tenant("acme").await;
    let mut world = World {
        document: claviger::openapi::document(),
        admins: vec![admin(&default).await, admin(&acme).await],
        victim: acme.user_key("victim", &[]).await.pair(),
        applications: Vec::new(),
        users: Vec::new(),
        keys: Vec::new(),
        tenants: Vec::new(),
    };
    for number in 0..30 {
        let tenant = if number % 2 == 0 { &default } else { &acme };
        for key in [
            tenant.app_key(&format!("app{number}"), &["events:read"]).await,
            tenant.user_key(&format!("user{number}"), &["events:read"]).await,
        ] {
            match key.owner {
                Owner::Application(id) => world.applications.push(id.to_string()),
                Owner::User(id) => world.users.push(id.to_string()),
            }
            world.keys.push(key.id);
        }
        if number % 3 == 0 {
            world.tenants.push(server.tenant(&format!("victim-{number}")).await.slug);
        }
    }
    // It may not, and says so.
    world.tenants.push(default.slug.clone());
    world
}

/// What is wrong with an answer, if anything is.
fn judge(request: &Request, heard: &Heard) -> Result<(), String> {
    let answer = match heard {
        Heard::Answer(answer) => answer,
        Heard::HungUp if request.not_http || request.too_long => return Ok(()),
        Heard::HungUp => return Err("hung up without an answer".into()),
        Heard::Silence => return Err("neither answered nor hung up".into()),
    };
    let status = answer.status;
    // 501 is what the draft of status lists wants to be said of times that are not kept.
    if status >= 500 && status != 501 {
        return Err(format!("answered {status}"));
    }
    if answer.took > SLOWEST {
        return Err(format!("took {:?}", answer.took));
    }
    if answer.header("x-injected").is_some() || answer.header("set-cookie").is_some_and(|cookie| !cookie.starts_with("__Host-")) {
        return Err("a header was injected".into());
    }
    if answer.header("x-request-id").is_none() {
        // Not the app, but the framework below it, which could not read the request.
        return match request.not_http && matches!(status, 400 | 431) {
            true => Ok(()),
            false => Err(format!("answered {status} without the app")),
        };
    }
    if let Some(missing) = WORN.iter().find(|name| answer.header(name).is_none()) {
        return Err(format!("answered {status} without {missing}"));
    }
    // Pages tell their own server where a form came from.
    let is_page = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/html"));
    let referrer = if is_page { "same-origin" } else { "no-referrer" };
    let worn = (answer.header("x-content-type-options"), answer.header("referrer-policy"));
    if worn != (Some("nosniff"), Some(referrer)) {
        return Err("wears the wrong headers".into());
    }
    // Forms that did not come from our pages are refused on a page, and so are links that are not good.
    if status < 400 || request.head_only || matches!(status, 403 | 404) && is_page {
        return Ok(());
    }
    // The token endpoint refuses in a form of its own (RFC 6749 §5.2).
    let oauth = answer.header("content-type") == Some("application/json");
    if !oauth && answer.header("content-type") != Some("application/problem+json") {
        return Err(format!("answered {status} as {:?}", answer.header("content-type")));
    }
    if answer.header("cache-control") != Some("no-store") {
        return Err(format!("answered {status} to be cached"));
    }
    let problem: Value = serde_json::from_slice(&answer.body).map_err(|error| format!("a problem that is not JSON: {error}"))?;
    let members: &[&str] = if oauth { &["error", "error_description"] } else { &["type", "title", "detail", "error"] };
    let filled = members.iter().all(|name| problem[name].as_str().is_some_and(|text| !text.is_empty()));
    match filled && (oauth || problem["status"] == status) {
        true => Ok(()),
        false => Err(format!("an incomplete problem: {problem}")),
    }
}

#[derive(Default)]
struct Tally {
    statuses: BTreeMap<u16, u64>,
    hung_up: u64,
    done_by_admin: u64,
    slowest: Duration,
    failures: Vec<String>,
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name} is no number: {text}")))
}

fn shown(bytes: &[u8]) -> String {
    let text: String = bytes.iter().take(1500).flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect();
    text.replace("\\r\\n", "\n      ")
}

#[actix_web::test]
async fn t15_p37_p38_whatever_is_sent_the_answer_is_an_answer() {
    let seed = from_environment("SEED").unwrap_or_else(|| u64::from_le_bytes(Random::from_system().bytes()));
    let requests = from_environment("REQUESTS").unwrap_or(10_000);
    let only = from_environment("ONLY");
    println!("SEED={seed} REQUESTS={requests}");
    let throttle = Throttle { failures: u32::MAX, window: 1 };
    let server = Server::start_with(Options { throttle, clock: Some(Clock::System), ..Options::default() }).await;
    let world = Rc::new(populate(&server).await);
    let tally = Rc::new(RefCell::new(Tally::default()));
    let next = Rc::new(Cell::new(only.unwrap_or(0)));
    let end = only.map_or(requests, |only| only + 1);
    let clients: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (world, tally, next, mut wire) = (world.clone(), tally.clone(), next.clone(), Wire::new(server.address));
            actix_web::rt::spawn(async move {
                while next.get() < end {
                    let number = next.replace(next.get() + 1);
                    let request = make(&world, seed, number);
                    let heard = wire.send(&request).await;
                    let verdict = judge(&request, &heard);
                    let mut tally = tally.borrow_mut();
                    match &heard {
                        Heard::Answer(answer) => {
                            *tally.statuses.entry(answer.status).or_default() += 1;
                            tally.slowest = tally.slowest.max(answer.took);
                            tally.done_by_admin += u64::from(request.admin && answer.status < 300);
                        }
                        Heard::HungUp | Heard::Silence => tally.hung_up += 1,
                    }
                    if let Err(why) = verdict {
                        let body = match heard {
                            Heard::Answer(answer) => shown(&answer.body),
                            Heard::HungUp | Heard::Silence => String::new(),
                        };
                        tally.failures.push(format!("ONLY={number}: {why}\n      {}\n   => {body}", shown(&request.bytes)));
                    }
                }
            })
        })
        .collect();
    for client in clients {
        client.await.unwrap();
    }

    let tally = tally.take();
    println!("answers {:?}, hung up {}, slowest {:?}", tally.statuses, tally.hung_up, tally.slowest);
    println!("{} things done by an admin", tally.done_by_admin);
    for failure in tally.failures.iter().take(from_environment("SHOW").map_or(20, |show| show as usize)) {
        println!("SEED={seed} {failure}\n");
    }
    assert!(tally.failures.is_empty(), "{} of {requests} failed; SEED={seed}", tally.failures.len());
    assert_eq!(server.stopper.panics(), 0, "a handler panicked");

    // It is alive, and does what it did before.
    assert_eq!(server.anonymous().get("/readyz").await.status, 200);
    for admin in &world.admins {
        let me = server.with(&support::basic(&admin.pair)).get("/v1/me").await;
        assert_eq!((me.status.as_u16(), &me.json()["tenant"]), (200, &Value::from(admin.tenant.as_str())));
        let token = server.with(&admin.pair).token().await;
        assert_eq!(server.with(&format!("Bearer {token}")).get("/v1/me").await.status, 200);
        let tenant = server.issuer.find_tenant(&admin.tenant).await.unwrap().id;
        assert!(server.issuer.verify_audit(tenant, None).await.unwrap().is_ok());
    }
    if only.is_none() && requests >= 10_000 {
        // The requests were malformed, but not so much that nothing was reached.
        assert!(tally.done_by_admin > requests / 20, "only {} got through", tally.done_by_admin);
        for status in [200, 201, 204, 400, 401, 403, 404, 405, 409, 413, 414, 415, 422, 431] {
            assert!(tally.statuses.contains_key(&status), "no answer was {status}: {:?}", tally.statuses);
        }
    }
}

#[actix_web::test]
async fn t13_a_body_that_does_not_end_is_given_up_on_every_route_that_reads_one() {
    let server = Server::start_with(Options { clock: Some(Clock::System), ..Options::default() }).await;
    let admin = admin(&server.tenant("default").await).await;
    let document = claviger::openapi::document();
    let mut waiting = Vec::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            let Some(content) = operation["requestBody"]["content"].as_object() else { continue };
            // Whoever is not signed in hears that nobody is, whatever they send.
            if path.ends_with("{tenant}/logout") {
                continue;
            }
            let kind = content.keys().next().unwrap();
            let path = path.replace("{tenant}", "default").replace("{id}", "x").replace("{login}", "x").replace("{slug}", "x");
            let scheme = if path.ends_with("/authentications") { String::new() } else { "Bearer ".to_owned() };
            let credential = if scheme.is_empty() { &admin.pair } else { &admin.token };
            let head =
                format!("{} {path} HTTP/1.1\r\nHost: id.test\r\nAuthorization: {scheme}{credential}\r\n", method.to_uppercase());
            for never_ending in ["Content-Length: 100", "Transfer-Encoding: chunked", "Connection: Upgrade\r\nUpgrade: websocket"]
            {
                let start = if never_ending.starts_with("Transfer") { "5\r\n{\"na" } else { "{\"na" };
                let bytes = format!("{head}Content-Type: {kind}\r\n{never_ending}\r\n\r\n{start}").into_bytes();
                let request = Request { bytes, head_only: false, not_http: true, hang_up: false, too_long: false, admin: true };
                let (mut wire, name) = (Wire::new(server.address), format!("{method} {path} with {never_ending:?}"));
                waiting.push(actix_web::rt::spawn(async move { (name, wire.send(&request).await) }));
            }
        }
    }
    assert!(waiting.len() > 30);
    let mut endless = Vec::new();
    for one in waiting {
        match one.await.unwrap() {
            // The promise is ten seconds for a body; what cannot be reached without one may be refused before.
            // Pages lead who is not signed in to the login page.
            (_, Heard::Answer(answer)) if (300..500).contains(&answer.status) && answer.took < Duration::from_secs(20) => {}
            (name, heard) => endless.push(format!("{name}: {heard:?}")),
        }
    }
    assert!(endless.is_empty(), "{}", endless.join("\n"));
    assert_eq!(server.anonymous().get("/readyz").await.status, 200);
}
