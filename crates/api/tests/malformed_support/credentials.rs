//! `Authorization`, right and wrong.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rand::rngs::StdRng;

use super::{Admin, World, chance, pick, word};

/// A header value of an admin, in a form that the route takes.
pub fn valid(random: &mut StdRng, admin: &Admin, exchange: bool) -> Vec<u8> {
    let scheme = |random: &mut StdRng, name: &str| match chance(random, 20) {
        true => name.to_uppercase(),
        false => name.to_owned(),
    };
    let text = if exchange && chance(random, 70) {
        admin.pair.clone()
    } else if exchange || chance(random, 50) {
        format!("{} {}", scheme(random, "Basic"), STANDARD.encode(&admin.pair))
    } else {
        format!("{} {}", scheme(random, "Bearer"), admin.token)
    };
    text.into_bytes()
}

/// A header value that must not let anybody in.
pub fn broken(random: &mut StdRng, world: &World) -> Vec<u8> {
    let victim = world.victim.as_str();
    let key = victim.split(':').next().unwrap();
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let text = match random_below(random, 24) {
        0 => String::new(),
        1 => " ".into(),
        2 => pick(
            random,
            &["Basic", "Bearer", "Basic ", "Bearer ", "Basic  ", "Bearer:", "Digest x", "Negotiate", ":", "::", "a:"],
        )
        .into(),
        3 => basic(pick(random, &["", ":", "a", "a:", ":b", "\0:\0", "a\0b:c", "ä:ö", "a:b\r\nc", "a:b:c:d"])),
        4 => format!(
            "Basic {}",
            pick(random, &["=", "====", "YTpi=", "YTpi===", "Y Tp i", "YT\u{2d}pi", "%%%", "YTpiYTpi\"", "_-_-"])
        ),
        5 => format!("Basic {}", STANDARD.encode([0xff, 0xfe, b':', 0xff])),
        6 => format!("{key}:{}", word(random)),
        7 => basic(&format!("{key}:{}", word(random))),
        8 => format!("{}:{}", word(random), word(random)),
        9 => format!("{}:{}", "k".repeat(129), word(random)),
        10 => format!("k:{}", "s".repeat(pick(random, &[&256_usize, &257, &4000, &60_000]).to_owned())),
        11 => format!("Bearer {}", "x".repeat(pick(random, &[&1_usize, &5000, &60_000]).to_owned())),
        12 => format!(
            "Bearer {}",
            pick(random, &["..", ".", "...", "a.b.c", "a.b", "é.é.é", "a.b.c.d.e", "\"", "{}.{}.{}", "=.=.="])
        ),
        13 => format!("Bearer {}", token(random, world)),
        14 => format!("Bearer Bearer {}", world.admins[0].token),
        15 => format!("Bearer: {}", world.admins[0].token),
        16 => format!("Bearer {},{}", world.admins[0].token, world.admins[0].token),
        17 => format!("Bearer\t{}", world.admins[0].token),
        18 => world.admins[0].token.clone(),
        19 => format!("ck_{}:cs_{}", "0".repeat(28), "0".repeat(49)),
        20 => format!("Basic {}", STANDARD.encode(victim).to_lowercase()),
        21 => format!("DPoP {}", world.admins[0].token),
        22 => format!("{key}\u{a0}:{}", word(random)),
        _ => return vec![b'B', b'e', b'a', b'r', b'e', b'r', b' ', 0x80, 0xff, 0xc0],
    };
    text.into_bytes()
}

fn random_below(random: &mut StdRng, end: u32) -> u32 {
    use rand::RngExt as _;
    random.random_range(0..end)
}

/// A token that nobody signed, or that somebody changed.
pub fn token(random: &mut StdRng, world: &World) -> String {
    let good = &pick_admin(random, world).token;
    let mut parts: Vec<String> = good.split('.').map(str::to_owned).collect();
    match random_below(random, 9) {
        0 => parts[2] = URL_SAFE_NO_PAD.encode([7; 64]),
        1 => parts[2] = String::new(),
        2 => parts[0] = URL_SAFE_NO_PAD.encode(pick(random, &HEADERS)),
        3 => {
            parts.pop();
        }
        4 => parts[1].push('='),
        5 => return good.replace('.', "%2e"),
        6 => return format!("{good}{}", pick(random, &[" ", "\"", "=", ".", "\u{0}"]).trim_matches('\0')),
        _ => {
            let issuer = pick(random, &ISSUERS).replace("WORD", &word(random));
            let exp = pick(random, &["1", "-1", "99999999999", "1e400", "9223372036854775808", "\"1\"", "null", "{}"]);
            let claims = format!(r#"{{"iss":{issuer},"sub":"x","aud":{issuer},"exp":{exp},"iat":0,"jti":"x"}}"#);
            parts[1] = URL_SAFE_NO_PAD.encode(claims);
        }
    }
    parts.join(".")
}

fn pick_admin<'a>(random: &mut StdRng, world: &'a World) -> &'a Admin {
    &world.admins[random_below(random, u32::try_from(world.admins.len()).unwrap()) as usize]
}

const HEADERS: [&str; 8] = [
    r#"{"alg":"none"}"#,
    r#"{"alg":"HS256","typ":"at+jwt"}"#,
    r#"{"alg":"EdDSA","kid":"../../etc/passwd"}"#,
    r#"{"alg":"EdDSA","kid":"\u0000"}"#,
    r#"{"alg":"EdDSA","jku":"http://127.0.0.1:1/","crit":["x"]}"#,
    r#"{"alg":"EdDSA","alg":"none"}"#,
    "[]",
    "{",
];

/// The issuer of an unverified token chooses the tenant whose keys are looked up.
const ISSUERS: [&str; 14] = [
    r#""http://id.test/t/default""#,
    r#""http://id.test/t/acme""#,
    r#""http://id.test/t/WORD""#,
    r#""http://id.test/t/\u0000""#,
    r#""http://id.test/t/acme\u0000""#,
    r#""http://id.test/t/ac\u00e9me""#,
    r#""http://id.test/t/""#,
    r#""http://id.test/t/acme/../default""#,
    r#""http://id.test/t/\ud83d\ude00""#,
    r#""http://id.test/t/'; SELECT pg_sleep(10); --""#,
    r#""http://evil.test""#,
    r#""""#,
    "null",
    "[1]",
];
