//! JSON bodies from the document's schemas: right, wrong in a value, wrong in the whole.

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde_json::Value;

use super::{World, chance, pick, word};

/// What stands where a value should.
const ODD_VALUES: [&[u8]; 44] = [
    b"null",
    b"true",
    b"0",
    b"-1",
    b"-0",
    b"1.5",
    b"1e400",
    b"-1e400",
    b"4294967296",
    b"2147483648",
    b"-2147483649",
    b"9223372036854775808",
    b"18446744073709551616",
    b"99999999999999999999999999999999999999",
    b"0.000000000000000000000000000000000001",
    b"NaN",
    b"0x10",
    b"01",
    b"[]",
    b"{}",
    b"[null]",
    b"[[[]]]",
    b"{\"\":{}}",
    b"\"\"",
    b"\" \"",
    b"\"\\u0000\"",
    b"\"a\\u0000b\"",
    b"\"\\ud800\"",
    b"\"\\udfff\\ud800\"",
    b"\"\\ud83d\\ude00\"",
    b"\"\\u202e\\u2066\"",
    b"\"\\r\\nX-Injected: 1\"",
    b"\"\\u001b[31m\"",
    b"\"\xff\xfe\"",
    b"\"\xc0\x80\"",
    b"\"\xed\xa0\x80\"",
    b"\"a\nb\"",
    b"\"\0\"",
    b"\"\\x\"",
    b"\"'; DROP TABLE users; --\"",
    b"\"${jndi:ldap://127.0.0.1/}\"",
    b"\"../../../etc/passwd\"",
    b"\"*\"",
    b"\"\xc4\xb0\xef\xac\x80\xc7\x85\"",
];

const DATES: [&str; 12] = [
    "2099-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999Z",
    "+262142-12-31T23:59:59Z",
    "+294277-01-01T00:00:00Z",
    "-262143-01-01T00:00:00Z",
    "0000-01-01T00:00:00Z",
    "2099-02-30T00:00:00Z",
    "2099-12-31T23:59:60Z",
    "2099-01-01T00:00:00+23:59",
    "2099-01-01 00:00:00",
    "infinity",
    "4102444800",
];

pub struct Maker<'a> {
    pub world: &'a World,
    /// How many of a hundred values are odd.
    pub odd: u32,
}

impl Maker<'_> {
    /// An instance of a schema, as text: some of what is tried cannot be held by a parsed value.
    pub fn instance(&self, random: &mut StdRng, name: &str, schema: &Value, depth: u32) -> Vec<u8> {
        if chance(random, self.odd) {
            return odd_value(random);
        }
        if let Some(reference) = schema["$ref"].as_str() {
            let target = self.world.document.pointer(reference.trim_start_matches('#')).unwrap();
            return self.instance(random, name, target, depth);
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            let chosen = random.random_range(0..choices.len());
            return self.instance(random, name, &choices[chosen], depth);
        }
        let kind = match &schema["type"] {
            Value::Array(kinds) => kinds[0].as_str().unwrap_or_default(),
            Value::String(kind) => kind.as_str(),
            _ => "",
        };
        match kind {
            "object" => self.object(random, schema, depth),
            "array" => {
                let items: Vec<Vec<u8>> =
                    (0..many(random, self.odd)).map(|_| self.instance(random, name, &schema["items"], depth + 1)).collect();
                [b"[", items.join(&b',').as_slice(), b"]"].concat()
            }
            "integer" | "number" => pick(random, &["5", "60", "3600", "0", "8640000", "2147483647"]).as_bytes().to_vec(),
            "boolean" => pick(random, &["true", "false"]).as_bytes().to_vec(),
            "string" => serde_json::to_vec(&self.string(random, name)).unwrap(),
            _ => b"null".to_vec(),
        }
    }

    fn object(&self, random: &mut StdRng, schema: &Value, depth: u32) -> Vec<u8> {
        let none = serde_json::Map::new();
        let required = schema["required"].as_array().cloned().unwrap_or_default();
        let mut members = Vec::new();
        for (name, member) in schema["properties"].as_object().unwrap_or(&none) {
            let percent = if required.iter().any(|one| one == name) { 100 - self.odd / 2 } else { 40 };
            // A key has one owner.
            let twice = name == "user_id" && members.iter().any(|member: &Vec<u8>| member.starts_with(b"\"application_id\""));
            if chance(random, percent) && !(twice && chance(random, 90)) {
                let twins = if chance(random, self.odd / 4) { 2 } else { 1 };
                for _ in 0..twins {
                    let value = self.instance(random, name, member, depth + 1);
                    members.push([format!("\"{name}\":").as_bytes(), &value].concat());
                }
            }
        }
        if chance(random, self.odd / 4) {
            let value = odd_value(random);
            let name = pick(
                random,
                &["", "admin", "__proto__", "constructor", "Name", "name ", "\\u006eame", "\\u0000", "tenant_id", "$ne"],
            );
            members.push([format!("\"{name}\":").as_bytes(), &value].concat());
        }
        [b"{", members.join(&b',').as_slice(), b"}"].concat()
    }

    /// Text that fits a field of this name.
    pub fn string(&self, random: &mut StdRng, name: &str) -> String {
        let of = |random: &mut StdRng, ids: &[String]| ids[random.random_range(0..ids.len())].clone();
        match name {
            // Taken.
            "slug" if chance(random, 15) => "acme".to_owned(),
            "name" | "username" if chance(random, 15) => pick(random, &["app0", "app1", "user0", "user1"]).to_owned(),
            "slug" => format!("t-{}", word(random)),
            "email" => format!("{}@example.com", word(random)),
            "application_id" => of(random, &self.world.applications),
            "user_id" => of(random, &self.world.users),
            "scopes" => pick(random, &["events:read", "events:write", "keys:read", "tenants:write"]).to_owned(),
            "scope" => {
                pick(random, &["keys:read", "keys:read users:read", "", " ", "events:read", "\u{0}", "keys:read\tx"]).to_owned()
            }
            "expires_at" => pick(random, &DATES).to_owned(),
            "api_key" => format!("imported-{}", word(random)),
            "api_secret" => word(random).repeat(2),
            "token" => super::credentials::token(random, self.world),
            _ => word(random),
        }
    }
}

fn many(random: &mut StdRng, odd: u32) -> usize {
    match chance(random, odd / 4) {
        true => random.random_range(90..120),
        false => random.random_range(0..4),
    }
}

fn odd_value(random: &mut StdRng) -> Vec<u8> {
    match random.random_range(0..50) {
        0 => format!("\"{}\"", "x".repeat(random.random_range(100..60_000))).into_bytes(),
        1 => format!("\"{}\"", "\u{1f600}".repeat(random.random_range(10..300))).into_bytes(),
        2 => [b"[".repeat(random.random_range(2..200)), b"]".repeat(random.random_range(2..200))].concat(),
        3 => format!("-{}", "9".repeat(random.random_range(20..5000))).into_bytes(),
        4 => format!("\"{}\"", pick(random, &DATES)).into_bytes(),
        _ => pick(random, &ODD_VALUES).to_vec(),
    }
}

/// Breaks the whole of a body.
pub fn break_whole(random: &mut StdRng, mut body: Vec<u8>) -> Vec<u8> {
    match random.random_range(0..15) {
        0 => Vec::new(),
        1 => {
            body.truncate(random.random_range(0..=body.len()));
            body
        }
        2 => [body.as_slice(), b"x"].concat(),
        3 => [body.as_slice(), &body].concat(),
        4 => [b"\xef\xbb\xbf", body.as_slice()].concat(),
        5 => body.iter().flat_map(|byte| [*byte, 0]).collect(),
        6 => pick(random, &[&b"["[..], b"{\"a\":"]).repeat(random.random_range(20..20_000)),
        7 => [b"{\"name\":".repeat(random.random_range(20..200)).as_slice(), b"1", &b"}".repeat(200)].concat(),
        8 => {
            if !body.is_empty() {
                let at = random.random_range(0..body.len());
                body[at] = random.random();
            }
            body
        }
        9 => (0..random.random_range(1..300)).map(|_| random.random()).collect(),
        10 => vec![b' '; random.random_range(1..70_000)],
        11 => [b"[".as_slice(), &body, b"]"].concat(),
        12 => b"a=b&token=%00&token=x&=&%zz=%ff&token_type_hint[]=1".to_vec(),
        13 => vec![b'a'; random.random_range(65_000..66_500)],
        _ => [&body[..body.len().min(1)], b" \t\r\n\x0b\x0c", &body[body.len().min(1)..]].concat(),
    }
}
