//! Whole requests. Each is made from the seed and its number alone, so that one that failed can be repeated.

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::Value;

use super::{World, chance, credentials, json, path, pick};

pub struct Request {
    pub bytes: Vec<u8>,
    pub head_only: bool,
    /// Not HTTP as it should be: the framework may answer in the app's stead, or hang up.
    pub not_http: bool,
    /// Nothing more is sent, even if more was announced.
    pub hang_up: bool,
    /// Longer than anything that is read: the rest may be cut off.
    pub too_long: bool,
    /// Whether somebody who may do everything asks.
    pub admin: bool,
}

/// `{"name":"gzipped"}`, and 300,000 letters.
const GZIP: [&str; 2] = [
    "1f8b0800000000000203ab56ca4bcc4d55b2524aafca2c28484d51aa05003dd6cd3512000000",
    concat!(
        "1f8b0800000000000203edc1311100200c04302f2f03371d3a82010eeff8e825b939b53b2b05",
        "0000000000000000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000000000000000",
        "0000000000000000000000000000000000000000000000000000000000000000000000000000",
        "000000000000000000000000000083e47dd4a86b7aeb930400",
    ),
];

type Headers = Vec<(String, Vec<u8>)>;

/// The request of this number.
pub fn make(world: &World, seed: u64, number: u64) -> Request {
    let random = &mut StdRng::seed_from_u64(seed ^ number.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let paths = world.document["paths"].as_object().unwrap();
    let (template, operations) = paths.iter().nth(random.random_range(0..paths.len())).unwrap();
    let operations = operations.as_object().unwrap();
    let (method, operation) = operations.iter().nth(random.random_range(0..operations.len())).unwrap();
    // Some are wrong in one place only, which is how they get far.
    let odd = *pick(random, &[&0, &5, &15, &40]);
    // Tenants are managed by the default one's admins; others are told so.
    let platform = template.contains("/tenants") && chance(random, 80);
    let admin = &world.admins[if platform { 0 } else { random.random_range(0..world.admins.len()) }];
    let harm = method == "delete";

    let mut request =
        Request { bytes: Vec::new(), head_only: false, not_http: false, hang_up: false, too_long: false, admin: false };
    let mut target = path::of_template(random, world, template, &admin.tenant, harm);
    target.push_str(&path::query(random, operation, odd));
    let mut method = method.to_uppercase();
    if chance(random, 6) {
        method =
            pick(random, &["HEAD", "OPTIONS", "PUT", "TRACE", "PATCH", "DELETE", "POST", "GET", "PROPFIND", "get", "Post", "X"])
                .to_owned();
    }
    request.head_only = method == "HEAD";

    let mut headers: Headers = vec![("Host".into(), b"id.test".to_vec())];
    match template.ends_with("-revoke") {
        // A good key would end itself, or all of its owner's, and with them the rest of the run.
        true => headers.push(("Authorization".to_owned(), credentials::broken(random, world))),
        false => authorize(random, world, admin, template.ends_with("/v1/authentications"), &mut headers, &mut request),
    }
    let body = body(random, world, operation, odd, &mut headers);
    more_headers(random, &mut headers, &mut request);
    frame(random, &method, &target, headers, body, &mut request);
    request
}

fn authorize(
    random: &mut StdRng,
    world: &World,
    admin: &super::Admin,
    exchange: bool,
    headers: &mut Headers,
    request: &mut Request,
) {
    let name = pick(random, &["Authorization", "authorization", "AUTHORIZATION"]).to_owned();
    match random.random_range(0..100) {
        0..60 => {
            request.admin = true;
            headers.push((name, credentials::valid(random, admin, exchange)));
        }
        60..68 => {}
        68..70 => {
            headers.push((name.clone(), credentials::valid(random, admin, exchange)));
            headers.push((name, credentials::broken(random, world)));
        }
        _ => headers.push((name, credentials::broken(random, world))),
    }
}

fn body(random: &mut StdRng, world: &World, operation: &Value, odd: u32, headers: &mut Headers) -> Vec<u8> {
    let content = operation["requestBody"]["content"].as_object();
    let Some((kind, content)) = content.and_then(|content| content.iter().next()) else {
        return match chance(random, odd / 2) {
            true => json::break_whole(random, b"{}".to_vec()),
            false => Vec::new(),
        };
    };
    let maker = json::Maker { world, odd };
    let mut body = match kind.as_str() {
        "application/json" => maker.instance(random, "", &content["schema"], 0),
        _ => format!("token={}&token_type_hint=access_token", maker.string(random, "token")).into_bytes(),
    };
    if chance(random, odd / 2) {
        body = json::break_whole(random, body);
    }
    let mut kind = kind.clone();
    if chance(random, odd / 3) {
        let wrong = [
            "",
            "text/plain",
            "application/json; charset=utf-16",
            "application/jsonx",
            "application/vnd.api+json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/xml",
            "application/json, text/plain",
            ";",
            "application/\u{e9}",
            "APPLICATION/JSON",
        ];
        kind = pick(random, &wrong).to_owned();
    }
    if chance(random, 95) {
        headers.push(("Content-Type".into(), kind.into_bytes()));
    }
    if chance(random, odd / 5) {
        let encoding = pick(random, &["gzip", "gzip", "gzip", "deflate", "br", "zstd", "identity", "gzip, gzip", "x"]);
        headers.push(("Content-Encoding".into(), encoding.as_bytes().to_vec()));
        if chance(random, 60) {
            body = from_hex(pick(random, &GZIP));
        }
    }
    body
}

fn from_hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

fn more_headers(random: &mut StdRng, headers: &mut Headers, request: &mut Request) {
    if chance(random, 75) {
        return;
    }
    let mut add = |name: &str, value: &[u8]| headers.push((name.to_owned(), value.to_vec()));
    match random.random_range(0..22) {
        0 => add("X-Huge", &vec![b'x'; random.random_range(1000..60_000)]),
        1 => (0..random.random_range(40..85)).for_each(|n| add(&format!("X-{n}"), b"1")),
        2 => {
            request.not_http = true;
            (0..random.random_range(97..400)).for_each(|n| add(&format!("X-{n}"), b"1"));
        }
        3 => add("Cookie", b"a=b; session=%00; \"=\xff"),
        4 => add("X-Forwarded-For", b"127.0.0.1, ::1, nonsense"),
        5 => add("Forwarded", b"for=\"[::1]:0\";proto=https;host=evil"),
        6 => add("Expect", pick(random, &["100-continue", "200-ok"]).as_bytes()),
        7 => add("If-None-Match", pick(random, &["*", "\"", "W/\"x\"", "\"a\", \"b\"", ",,,"]).as_bytes()),
        8 => add("Accept", b"*/*;q=nan, text/html;q=2, \xff"),
        9 => add("Range", b"bytes=0-18446744073709551615,-1"),
        10 => add("Accept-Encoding", b"gzip;q=1.0, *;q=0, br"),
        11 => add("Connection", pick(random, &["close", "keep-alive, X-Huge", "Authorization", "upgrade"]).as_bytes()),
        12 => {
            // To the framework, what follows is another protocol, whose end is the connection's.
            request.not_http = true;
            request.hang_up = true;
            add("Connection", b"Upgrade, HTTP2-Settings");
            add("Upgrade", pick(random, &["h2c", "websocket"]).as_bytes());
        }
        13 => {
            request.not_http = true;
            add("Host", pick(random, &["evil.test", "", "a b", "127.0.0.1:99999"]).as_bytes());
        }
        14 => add("User-Agent", b"a\"b\\c\x1b[31m\xe2\x80\xae"),
        15 => {
            request.not_http = true;
            add(pick(random, &["X-Bad Name", "X-Bad\0", "", "X\u{e9}", "(x)"]), b"1");
        }
        16 => {
            request.not_http = true;
            let lines: [&[u8]; 7] = [
                b"a\r\nX-Injected: 1\r\n\r\nGET /healthz HTTP/1.1",
                b"a\nX-Injected: 1",
                b"a\rb",
                b"a\0b",
                b"a\r\n folded",
                b"\x7f",
                b"\x01",
            ];
            add("X-Line", pick(random, &lines));
        }
        17 => add("Content-Length", b"0"),
        18 => add("X-Http-Method-Override", b"DELETE"),
        19 => add("Trailer", b"Authorization"),
        20 => add("Origin", pick(random, &["null", "http://evil.test", "\u{0}x"]).trim_matches('\0').as_bytes()),
        _ => add("Content-Type", b"application/json"),
    }
}

fn frame(random: &mut StdRng, method: &str, target: &str, mut headers: Headers, body: Vec<u8>, request: &mut Request) {
    let mut target = target.as_bytes().to_vec();
    let mut version = "HTTP/1.1";
    let announced = headers.iter().any(|(name, _)| name == "Content-Length");
    // Two lengths, or one that is not the body's.
    request.not_http |= announced;
    let visible = |byte: &u8| *byte == b'\t' || *byte >= b' ' && *byte != 0x7f;
    request.not_http |= headers.iter().any(|(_, value)| !value.iter().all(visible));
    // Not a URI, whatever the app would have made of it.
    request.not_http |= target.iter().any(|byte| !byte.is_ascii_graphic() || b"<>\\{}^`|\"".contains(byte));
    if chance(random, 4) {
        request.not_http = true;
        match random.random_range(0..8) {
            0 => target = [b"http://evil.test".as_slice(), &target].concat(),
            1 => target = b"*".to_vec(),
            2 => target = b"127.0.0.1:80".to_vec(),
            3 => target.extend_from_slice(b" /v1/me"),
            4 => target.extend_from_slice(pick(random, &[&b"\r"[..], b"\0", b"\xff", b"#fragment", b"\t"])),
            5 => target = target.split_off(1),
            6 => version = pick(random, &["HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/1.2", "HTTP/9", "http/1.1", ""]),
            _ => target = [b"/".as_slice(), &target].concat(),
        }
    }
    let mut framed = body.clone();
    match random.random_range(0..100) {
        0..80 if body.is_empty() => {}
        0..80 => headers.push(("Content-Length".into(), body.len().to_string().into_bytes())),
        80..90 => {
            headers.push(("Transfer-Encoding".into(), b"chunked".to_vec()));
            framed = chunked(random, &body, "");
        }
        90..92 => {
            headers.push(("Transfer-Encoding".into(), pick(random, &["chunked", "Chunked"]).as_bytes().to_vec()));
            framed = chunked(random, &body, ";name=\"value\"");
        }
        _ => {
            request.not_http = true;
            request.hang_up = true;
            framed = misframed(random, &body, &mut headers);
        }
    }
    request.too_long = framed.len() > 60_000;
    let mut bytes = [method.as_bytes(), b" ", &target, b" ", version.as_bytes(), b"\r\n"].concat();
    for (name, value) in &headers {
        bytes.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(&framed);
    request.bytes = bytes;
}

fn chunked(random: &mut StdRng, body: &[u8], extension: &str) -> Vec<u8> {
    let size = random.random_range(1..=body.len().max(1));
    let mut framed = Vec::new();
    for chunk in body.chunks(size.max(body.len() / 50 + 1)) {
        framed.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
        framed.extend_from_slice(chunk);
        framed.extend_from_slice(b"\r\n");
    }
    framed.extend_from_slice(b"0\r\n\r\n");
    framed
}

/// Lengths that lie, and chunks that are none.
fn misframed(random: &mut StdRng, body: &[u8], headers: &mut Headers) -> Vec<u8> {
    let mut add = |name: &str, value: &str| headers.push((name.to_owned(), value.as_bytes().to_vec()));
    match random.random_range(0..6) {
        0 => {
            add("Content-Length", pick(random, &["-1", "+5", "5 5", "0x10", "99999999999999999999", "1e3", "", " ", "10000000"]));
            body.to_vec()
        }
        1 => {
            add("Content-Length", "3");
            add("Content-Length", "4");
            body.to_vec()
        }
        2 => {
            add("Content-Length", "5");
            add("Transfer-Encoding", "chunked");
            chunked(random, body, "")
        }
        3 => {
            add(
                "Transfer-Encoding",
                pick(random, &["chunked, chunked", "gzip, chunked", "identity", "xchunked", "chunked\u{b}", ""]),
            );
            chunked(random, body, "")
        }
        4 => {
            add("Transfer-Encoding", "chunked");
            let chunks = [
                "-1\r\nx\r\n0\r\n\r\n",
                "ffffffffffffffff\r\nx",
                "1ffffffffffffffff\r\nx",
                "5\r\nab\r\n",
                "0x5\r\nabcde\r\n",
                "5;\r\n",
                "zz\r\n",
                "5\nabcde\n0\n\n",
                "\r\n",
            ];
            pick(random, &chunks).as_bytes().to_vec()
        }
        _ => {
            add("Content-Length", &(body.len() + 10).to_string());
            body.to_vec()
        }
    }
}
