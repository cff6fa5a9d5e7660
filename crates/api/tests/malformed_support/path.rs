//! Paths and queries: from a template, then bent.

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::Value;

use super::{World, chance, pick, word};

/// Segments and values that nobody asks for by mistake.
const ODD: [&str; 42] = [
    "",
    ".",
    "..",
    "...",
    "%2e",
    "%2e%2e",
    "%2E%2e%2f",
    "..%2f..%2fv1",
    "%2f",
    "%5c",
    "\\",
    "%00",
    "a%00b",
    "%ff",
    "%c0%80",
    "%ed%a0%80",
    "%f0%9f%98%80",
    "%",
    "%z",
    "%zz",
    "%25%30%30",
    "%u0000",
    "a;b=c",
    ";",
    "a,b",
    "*",
    "~",
    "null",
    "undefined",
    "0",
    "-1",
    "%0d%0aX-Injected:%201",
    "%1b[31m",
    "%e2%80%ae",
    "'%20OR%201=1--",
    "%7Btenant%7D",
    "<script>",
    "00000000-0000-0000-0000-000000000000",
    "{00000000-0000-0000-0000-000000000000}",
    "urn:uuid:00000000-0000-0000-0000-000000000000",
    "ck_0000000000000000000000000000",
    "acme%00",
];

pub fn odd(random: &mut StdRng) -> String {
    match random.random_range(0..20) {
        0 => "x".repeat(random.random_range(100..9000)),
        1 => "%00".repeat(random.random_range(1..100)),
        2 => "../".repeat(random.random_range(1..50)),
        _ => pick(random, &ODD).to_owned(),
    }
}

/// The path of a template for a tenant. `harm` says that what it names may come to harm.
pub fn of_template(random: &mut StdRng, world: &World, template: &str, tenant: &str, harm: bool) -> String {
    let mut segments: Vec<String> = Vec::new();
    for segment in template.split('/').skip(1) {
        let filled = match segment {
            "{tenant}" if chance(random, 85) => tenant.to_owned(),
            "{id}" | "{slug}" if chance(random, 60) => id(random, world, template, harm),
            "{tenant}" | "{id}" | "{slug}" => match chance(random, 50) {
                true => odd(random),
                false => word(random),
            },
            plain => plain.to_owned(),
        };
        segments.push(filled);
    }
    if chance(random, 12) {
        let at = random.random_range(0..=segments.len());
        match random.random_range(0..5) {
            0 => segments.insert(at, odd(random)),
            1 => segments.push(odd(random)),
            2 => segments.push(String::new()),
            3 => {
                segments.pop();
            }
            _ => {
                let at = at.min(segments.len() - 1);
                let bent = segments[at].to_uppercase();
                segments[at] = if chance(random, 50) { bent } else { odd(random) };
            }
        }
    }
    format!("/{}", segments.join("/"))
}

fn id(random: &mut StdRng, world: &World, template: &str, harm: bool) -> String {
    let ids = if template.contains("/applications") {
        &world.applications
    } else if template.contains("/users") {
        &world.users
    } else if template.contains("/keys") {
        &world.keys
    } else {
        &world.tenants
    };
    // What ends for good is drawn from the end of the list, so that something is left to work with.
    let from = if harm { ids.len() / 2 } else { 0 };
    ids[random.random_range(from..ids.len())].clone()
}

/// A query from the parameters of an operation.
pub fn query(random: &mut StdRng, operation: &Value, odds: u32) -> String {
    let mut pairs = Vec::new();
    let parameters = operation["parameters"].as_array().cloned().unwrap_or_default();
    for parameter in parameters.iter().filter(|parameter| parameter["in"] == "query") {
        let name = parameter["name"].as_str().unwrap();
        let times = if chance(random, odds / 5) { 2 } else { u32::from(chance(random, 40)) };
        for _ in 0..times {
            let value = match (name, chance(random, odds)) {
                (_, true) if chance(random, 50) => odd(random),
                ("limit", true) => {
                    let odd = ["0", "-1", "201", "65536", "99999999999", "1e3", "1.0", "+1", "", "0x1", "%31"];
                    pick(random, &odd).to_owned()
                }
                ("limit", false) => random.random_range(1..=200).to_string(),
                ("action", _) => {
                    pick(random, &["key.create", "key.exchange", "%00", "key.create%00", "x", "%F0%9F%98%80"]).to_owned()
                }
                ("after", _) => {
                    let odd =
                        ["1", "-1", "9223372036854775807", "9223372036854775808", "default", "%00", "acme%00", "zzz", "%E9"];
                    pick(random, &odd).to_owned()
                }
                ("format", _) => pick(random, &["raw", "pem", "jwk", "RAW", "der"]).to_owned(),
                _ => word(random),
            };
            pairs.push(format!("{name}={value}"));
        }
    }
    if chance(random, odds / 3) {
        let strange = [
            "",
            "=",
            "&&&",
            "%",
            "%00=%00",
            "a[]=1",
            "a[b]=c",
            "limit",
            "limit=",
            "=limit",
            "access_token=x",
            "a+b=c+d",
            "?",
            "\u{00e9}",
        ];
        pairs.push(pick(random, &strange).to_owned());
    }
    match pairs.is_empty() {
        true => String::new(),
        false => format!("?{}", pairs.join("&")),
    }
}
