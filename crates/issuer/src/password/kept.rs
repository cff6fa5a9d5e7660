//! Password hashes as they are kept: our own, and those that other systems made and we took over.

use std::num::NonZeroU32;

use argon2::password_hash::phc;
use argon2::{Algorithm, Argon2, Params, Version};
use aws_lc_rs::pbkdf2;
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use claviger_store::password::PasswordHash;
use subtle::ConstantTimeEq;

use super::Cost;
use super::memory::Memory;
use crate::Refusal;

/// Longest text that is read as a hash, in bytes.
const LONGEST_TEXT: usize = 512;
/// What fewer bytes could hold would fit more than one password.
const SHORTEST_OUTPUT: usize = 16;
/// Longest output, in bytes: that of SHA-512.
const LONGEST_OUTPUT: usize = 64;

/// 1 GiB, in KiB: the memory that checking an imported hash may take.
const MOST_MEMORY_KIB: u64 = 1_048_576;
/// How often at most an imported hash goes over 1 GiB of memory, or more often over less: a few seconds' work.
const MOST_PASSES: u64 = 4;
/// Of PBKDF2.
const MOST_ROUNDS: u64 = 10_000_000;
/// Of bcrypt: 2^15 rounds.
const HIGHEST_BCRYPT_COST: u32 = 15;

const FORMS: &str = "is argon2 (`$argon2id$v=19$m=…,t=…,p=…$salt$hash`, also `argon2i` and `argon2d`), \
    bcrypt (`$2b$…`, also `$2a$` and `$2y$`), \
    PBKDF2 with SHA-1, SHA-256 or SHA-512 (`$pbkdf2-sha256$i=…,l=…$salt$hash`, `$pbkdf2-sha256$rounds$salt$hash` or \
    `pbkdf2_sha256$rounds$salt$hash`) or scrypt (`$scrypt$ln=…,r=…,p=…$salt$hash`)";

/// Takes over a hash that another system made, if what is presented can be checked against it in bearable time. The field
/// is the one that a refusal names.
pub fn imported(field: &'static str, text: &str) -> Result<PasswordHash, Refusal> {
    let kept = Kept::parse(text).ok_or_else(|| Refusal::invalid(field, FORMS))?;
    kept.check_cost().map_err(|most| Refusal::invalid(field, format!("costs too much to check: {most}")))?;
    Ok(PasswordHash::new(text.to_owned()))
}

/// A hash that was read.
pub(super) enum Kept {
    /// RFC 9106.
    Argon2 { algorithm: Algorithm, version: Version, params: Params, salt: Vec<u8>, output: Vec<u8> },
    /// As a whole, in its own form.
    Bcrypt { text: String, cost: u32 },
    /// RFC 8018 §5.2.
    Pbkdf2 { digest: Digest, rounds: NonZeroU32, salt: Vec<u8>, output: Vec<u8> },
    /// RFC 7914.
    Scrypt { params: ::scrypt::Params, salt: Vec<u8>, output: Vec<u8> },
}

/// The hash function beneath PBKDF2.
#[derive(Clone, Copy)]
pub(super) enum Digest {
    Sha1,
    Sha256,
    Sha512,
}

impl Digest {
    fn length(self) -> usize {
        match self {
            Self::Sha1 => 20,
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }

    fn algorithm(self) -> pbkdf2::Algorithm {
        match self {
            Self::Sha1 => pbkdf2::PBKDF2_HMAC_SHA1,
            Self::Sha256 => pbkdf2::PBKDF2_HMAC_SHA256,
            Self::Sha512 => pbkdf2::PBKDF2_HMAC_SHA512,
        }
    }
}

impl Kept {
    /// `None` when it has none of the forms that we know.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() > LONGEST_TEXT {
            return None;
        }
        let Some(rest) = text.strip_prefix('$') else { return pbkdf2_with_text_salt(text) };
        let (name, rest) = rest.split_once('$')?;
        match name {
            "argon2id" | "argon2i" | "argon2d" => argon2(Algorithm::new(name).ok()?, text),
            "2a" | "2b" | "2y" => {
                let parts: bcrypt::HashParts = text.parse().ok()?;
                Some(Self::Bcrypt { text: text.to_owned(), cost: parts.get_cost() })
            }
            "pbkdf2" | "pbkdf2-sha1" => pbkdf2(Digest::Sha1, text, rest),
            "pbkdf2-sha256" => pbkdf2(Digest::Sha256, text, rest),
            "pbkdf2-sha512" => pbkdf2(Digest::Sha512, text, rest),
            "scrypt" => scrypt(text),
            _ => None,
        }
    }

    /// Refuses what would occupy a thread, or the machine's memory, for too long at each login.
    fn check_cost(&self) -> Result<(), String> {
        match self {
            Self::Argon2 { params, .. } => memory_bounds(params.m_cost().into(), params.t_cost().into()),
            Self::Scrypt { params, .. } => {
                let (r, p) = (u64::from(params.r()), u64::from(params.p()));
                // RFC 7914 §6: N and p blocks of 128 r bytes.
                memory_bounds(params.n().saturating_add(p).saturating_mul(r) / 8, p)
            }
            Self::Bcrypt { cost, .. } if *cost > HIGHEST_BCRYPT_COST => {
                Err(format!("bcrypt of a cost of {HIGHEST_BCRYPT_COST} at most is accepted"))
            }
            Self::Pbkdf2 { digest, rounds, output, .. }
                if u64::from(rounds.get()) * output.len().div_ceil(digest.length()) as u64 > MOST_ROUNDS =>
            {
                Err(format!("PBKDF2 of {MOST_ROUNDS} rounds at most is accepted"))
            }
            Self::Bcrypt { .. } | Self::Pbkdf2 { .. } => Ok(()),
        }
    }

    /// Whether it is what a new hash would be now.
    pub(super) fn is_current(&self, now: Cost) -> bool {
        match self {
            Self::Argon2 { algorithm, version, params, output, .. } => {
                let Cost { memory_kib, iterations } = now;
                let cost = (params.m_cost(), params.t_cost(), params.p_cost());
                (*algorithm, *version) == (Algorithm::Argon2id, Version::V0x13)
                    && cost == (memory_kib, iterations, 1)
                    && output.len() == super::OUTPUT_LENGTH
            }
            Self::Bcrypt { .. } | Self::Pbkdf2 { .. } | Self::Scrypt { .. } => false,
        }
    }

    /// Whether it is this password's. Takes the same time for any password of a length.
    pub(super) fn fits(&self, password: &[u8], memory: &mut Memory) -> Result<bool, String> {
        match self {
            Self::Argon2 { algorithm, version, params, salt, output } => {
                let mut computed = vec![0; output.len()];
                memory
                    .hash(&Argon2::new(*algorithm, *version, params.clone()), password, salt, &mut computed)
                    .map_err(|error| format!("argon2: {error}"))?;
                Ok(computed.ct_eq(output).into())
            }
            // A password of more than 72 bytes is compared by its first 72: so it was when the hash was made.
            Self::Bcrypt { text, .. } => bcrypt::verify(password, text).map_err(|error| format!("bcrypt: {error}")),
            Self::Pbkdf2 { digest, rounds, salt, output } => {
                Ok(pbkdf2::verify(digest.algorithm(), *rounds, salt, password, output).is_ok())
            }
            Self::Scrypt { params, salt, output } => {
                let mut computed = vec![0; output.len()];
                ::scrypt::scrypt(password, salt, params, &mut computed).map_err(|error| format!("scrypt: {error}"))?;
                Ok(computed.ct_eq(output).into())
            }
        }
    }
}

/// The refusal's words, if it takes more memory or goes over it more often than it may.
fn memory_bounds(kib: u64, passes: u64) -> Result<(), String> {
    if kib > MOST_MEMORY_KIB {
        return Err("1 GiB of memory at most is accepted".into());
    }
    match kib.saturating_mul(passes) > MOST_MEMORY_KIB * MOST_PASSES {
        true => Err(format!("memory times passes of {MOST_PASSES} GiB at most is accepted")),
        false => Ok(()),
    }
}

/// A PHC string with salt and output.
struct Phc {
    parsed: phc::PasswordHash,
    salt: Vec<u8>,
    output: Vec<u8>,
}

impl Phc {
    /// One that has all the needed parameters, and none besides but those that it may have.
    fn parse(text: &str, needed: &[&str], allowed: &[&str]) -> Option<Self> {
        let parsed = phc::PasswordHash::new(text).ok()?;
        let given: Vec<_> = parsed.params.iter().map(|(name, _)| name).collect();
        let complete = needed.iter().all(|name| given.iter().any(|given| given.as_str() == *name));
        let known = given.iter().all(|name| needed.contains(&name.as_str()) || allowed.contains(&name.as_str()));
        let salt = parsed.salt?.to_vec();
        let output = of_good_length(parsed.hash?.as_bytes().to_vec())?;
        (complete && known).then_some(Self { parsed, salt, output })
    }

    fn number(&self, name: &str) -> Option<u32> {
        self.parsed.params.get_decimal(name)
    }
}

fn of_good_length(output: Vec<u8>) -> Option<Vec<u8>> {
    (SHORTEST_OUTPUT..=LONGEST_OUTPUT).contains(&output.len()).then_some(output)
}

fn argon2(algorithm: Algorithm, text: &str) -> Option<Kept> {
    let phc = Phc::parse(text, &["m", "t", "p"], &[])?;
    let version = match phc.parsed.version {
        Some(version) => Version::try_from(version).ok()?,
        // It is of a time when there was one version, which was not written.
        None => Version::V0x10,
    };
    let params = Params::new(phc.number("m")?, phc.number("t")?, phc.number("p")?, Some(phc.output.len())).ok()?;
    Some(Kept::Argon2 { algorithm, version, params, salt: phc.salt, output: phc.output })
}

fn scrypt(text: &str) -> Option<Kept> {
    let phc = Phc::parse(text, &["ln", "r", "p"], &[])?;
    let (log_n, r, p) = (u8::try_from(phc.number("ln")?).ok()?, phc.number("r")?, phc.number("p")?);
    // The library multiplies before it compares.
    r.checked_mul(p)?;
    let params = ::scrypt::Params::new(log_n, r, p).ok()?;
    phc.parsed.version.is_none().then_some(Kept::Scrypt { params, salt: phc.salt, output: phc.output })
}

/// As a PHC string, or as the modular crypt format has it: rounds alone, and base64 with `.` for `+`.
fn pbkdf2(digest: Digest, text: &str, rest: &str) -> Option<Kept> {
    if rest.starts_with(|c: char| c.is_ascii_digit()) {
        let decoded = |part: &str| STANDARD_NO_PAD.decode(part.replace('.', "+")).ok();
        return three_parts(digest, rest, decoded, decoded);
    }
    let phc = Phc::parse(text, &["i"], &["l"])?;
    let rounds = NonZeroU32::new(phc.number("i")?)?;
    let length_fits = phc.number("l").is_none_or(|length| usize::try_from(length) == Ok(phc.output.len()));
    let Phc { parsed, salt, output } = phc;
    (length_fits && parsed.version.is_none()).then_some(Kept::Pbkdf2 { digest, rounds, salt, output })
}

/// `pbkdf2_sha256$rounds$salt$hash`: the salt is used as the text that it is, the hash is base64 with padding.
fn pbkdf2_with_text_salt(text: &str) -> Option<Kept> {
    let (name, rest) = text.split_once('$')?;
    let digest = match name {
        "pbkdf2_sha1" => Digest::Sha1,
        "pbkdf2_sha256" => Digest::Sha256,
        "pbkdf2_sha512" => Digest::Sha512,
        _ => return None,
    };
    three_parts(digest, rest, |salt| Some(salt.as_bytes().to_vec()), |hash| STANDARD.decode(hash).ok())
}

/// `rounds$salt$hash`.
fn three_parts(
    digest: Digest,
    text: &str,
    salt: impl Fn(&str) -> Option<Vec<u8>>,
    hash: impl Fn(&str) -> Option<Vec<u8>>,
) -> Option<Kept> {
    let mut parts = text.split('$');
    let (rounds, salt, hash) = (parts.next()?, salt(parts.next()?)?, hash(parts.next()?)?);
    if parts.next().is_some() || salt.is_empty() {
        return None;
    }
    Some(Kept::Pbkdf2 { digest, rounds: rounds.parse().ok()?, salt, output: of_good_length(hash)? })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PASSWORD: &str = "correct horse battery staple";

    /// Made of [`PASSWORD`] by the reference implementation of argon2, by OpenSSL, by OpenBSD's bcrypt and by two
    /// frameworks that keep PBKDF2 in forms of their own.
    const VECTORS: &[&str] = &[
        "$argon2id$v=19$m=256,t=3,p=2$AAECAwQFBgcICQoLDA0ODw$5LzIIXvch3JdTOvNzWeGZ16UVocX0TxkVMAfrZ0tyH8",
        "$argon2i$v=19$m=256,t=3,p=2$AAECAwQFBgcICQoLDA0ODw$0aDgzEMZiRVi1u+x+Y6w2tkwUn+VWMMuiKet5NmyEUU",
        "$argon2d$v=19$m=256,t=3,p=2$AAECAwQFBgcICQoLDA0ODw$YwmVA0YXxpPNTcciFW1Az4oFXJi44bFFuS3zuIEUqls",
        "$argon2i$v=16$m=256,t=3,p=1$AAECAwQFBgcICQoLDA0ODw$y40HWJQFbptBOixsCsbcqRgRiEI6fYTNNyTOifOEsTo",
        "$argon2i$m=256,t=3,p=1$AAECAwQFBgcICQoLDA0ODw$y40HWJQFbptBOixsCsbcqRgRiEI6fYTNNyTOifOEsTo",
        "$argon2id$v=19$m=64,t=1,p=1$AAECAwQFBgcICQoLDA0ODw$ktxdZwGWI4aL3geSdeUi9LfoIT00FO2Fy8KsikERcog",
        "$2b$04$Vco3uIFu.iBObPS6.pd76ehJEj5/UT09yyXYJLlmLXzjsPvnqChzG",
        "$2a$04$0BwjLqGE7OoOjWRXN0frwupmGlgfj2D/4/kfju3cUb.Y6eH1xV4da",
        "$2y$04$Vco3uIFu.iBObPS6.pd76ehJEj5/UT09yyXYJLlmLXzjsPvnqChzG",
        "$pbkdf2$i=1000,l=20$AAECAwQFBgcICQoLDA0ODw$AOm/kOb/+YAZ3ZwSogYgNu9fO1g",
        "$pbkdf2-sha1$i=1000,l=20$AAECAwQFBgcICQoLDA0ODw$AOm/kOb/+YAZ3ZwSogYgNu9fO1g",
        "$pbkdf2-sha256$i=1000,l=32$AAECAwQFBgcICQoLDA0ODw$ppsXnjrdPB4KryJ6DrOqKqhkWrhv7PbKAMF1Eml8cZ4",
        "$pbkdf2-sha256$i=1000$AAECAwQFBgcICQoLDA0ODw$ppsXnjrdPB4KryJ6DrOqKqhkWrhv7PbKAMF1Eml8cZ4",
        "$pbkdf2-sha512$i=1000,l=64$AAECAwQFBgcICQoLDA0ODw$\
         A6AmFIti7CKlYdoPiV9jf1d9llp37o27Wms8Zx8fwMJGCOigJzAthOW3Pg+XF5PnNiYnsQsIz1N5NtynrEm78w",
        "$pbkdf2-sha512$i=1000,l=32$AAECAwQFBgcICQoLDA0ODw$A6AmFIti7CKlYdoPiV9jf1d9llp37o27Wms8Zx8fwMI",
        "$pbkdf2$1000$././APo.P8gBAgMEBQYHCA$m6OwuSwtUkGcXySjWe1LYZxy0t0",
        "$pbkdf2-sha256$1000$././APo.P8gBAgMEBQYHCA$6D1n6./RoJ4J.D/q8HF5pGiWcRIU/sb8mpg0fuNisTw",
        "$pbkdf2-sha512$1000$././APo.P8gBAgMEBQYHCA$\
         ngIbx.PuEV0GxvR8m5rTmIwAsQ2j4qG3stUYHhcKnHX3pq3d2GQF3pmfS.s0PdXS3AlERgApUXQiPsALb.5jrg",
        "pbkdf2_sha256$1000$seasalt2seasalt2seasal$drro7xMJ13elIahJIAiY3HqARVlFS9K53WQiGn8FlkM=",
        "pbkdf2_sha1$1000$seasalt2seasalt2seasal$l3wbCJwCaDmfSvNLuVouWNZCc/E=",
        "$scrypt$ln=10,r=8,p=2$AAECAwQFBgcICQoLDA0ODw$wk79EttC618m617oirShLZuxJkXcX6rXHrrS9rQQ/44",
        "$scrypt$ln=9,r=4,p=1$AAECAwQFBgcICQoLDA0ODw$\
         CzuGxYRctuM6FqthiBQWi6xFC36Ep4V21xJs3VQvsN2rXk7d5kgqO6RGEluOykJW8E3Lo+3m7bpv5G7RqsuyoQ",
        "$scrypt$ln=8,r=8,p=1$MDEyMzQ1Njc4OWFiY2RlZg$zsALpsN0ItlCA5wf30wttK9zWaFIhGiJbEtlz5xt1oU",
    ];

    fn fits(hash: &str, password: &str) -> bool {
        let kept = Kept::parse(imported("password_hash", hash).unwrap().as_str()).unwrap();
        kept.fits(password.as_bytes(), &mut Memory::new(64)).unwrap()
    }

    fn refusal(hash: &str) -> String {
        imported("password_hash", hash).unwrap_err().to_string()
    }

    #[test]
    fn what_others_made_fits_its_password_and_no_other() {
        for hash in VECTORS {
            assert!(fits(hash, PASSWORD), "{hash}");
            for wrong in ["", "correct horse battery stapl", "correct horse battery staple ", "Correct horse battery staple"] {
                assert!(!fits(hash, wrong), "{hash}: {wrong}");
            }
        }
        let long_output = "$argon2id$v=19$m=512,t=2,p=1$bG9uZ2VyIHNhbHQgb2YgdHdlbnR5LWZvdXI$\
             wqqG6kmy/BUPipiluRUKiz/njXjkdkW4qJbSSFG/jYtzdopCNKVm2a6ySOw25BqpzPTo6tQoUXrwuRYdAputjg";
        for hash in [long_output, "$2b$04$lxWj7dHjCBnsXSZjpPz2yOjRYKxAq7/SXQlH1OKLwzQ2BhX3aZ9Ii"] {
            assert!(fits(hash, "pässwörd ☃"), "{hash}");
            assert!(!fits(hash, "password ☃"), "{hash}");
        }
    }

    #[test]
    fn one_changed_character_of_the_output_fits_nothing() {
        for hash in VECTORS {
            let (start, output) = hash.rsplit_once('$').unwrap();
            // Not at the start: that is bcrypt's salt.
            let at = output.len() - 10;
            let changed = if &output[at..=at] == "A" { "B" } else { "A" };
            let other = format!("{start}${}{changed}{}", &output[..at], &output[at + 1..]);
            assert!(!fits(&other, PASSWORD), "{other}");
        }
    }

    #[test]
    fn bcrypt_compares_the_first_72_bytes() {
        let hash = "$2b$04$K8XRNX1038UWXZKSXMAIneGGVikpSoN/olkT1a2HFF2z4lF/Qvk1u";
        let password = "0123456789".repeat(7) + "ab";
        assert!(fits(hash, &password));
        assert!(fits(hash, &format!("{password}c and more")));
        assert!(!fits(hash, &password[..71]));
    }

    #[test]
    fn other_forms_are_refused_and_the_refusal_names_those_that_are_not() {
        let output = "ppsXnjrdPB4KryJ6DrOqKqhkWrhv7PbKAMF1Eml8cZ4";
        for hash in [
            "",
            "$",
            "5f4dcc3b5aa765d61d8327deb882cf99",
            "$1$salt$qJH7.N4xYta3aEG/dfqo/0",
            "$6$salt$IxDD3jeSOb5eB1CX5LBsqZFVkJdido3OUILO5Ifz5iwMuTS4XMS130MTSuDDl3aCI6WouIL9AjRbLCelDCy.g.",
            "$2x$04$Vco3uIFu.iBObPS6.pd76ehJEj5/UT09yyXYJLlmLXzjsPvnqChzG",
            "$2b$04$Vco3uIFu.iBObPS6.pd76ehJEj5/UT09yyXYJLlmLXzjsPvnqChz",
            " $2b$04$Vco3uIFu.iBObPS6.pd76ehJEj5/UT09yyXYJLlmLXzjsPvnqChzG",
            "$argon2id$v=18$m=256,t=3,p=2$AAECAwQFBgcICQoLDA0ODw$5LzIIXvch3JdTOvNzWeGZ16UVocX0TxkVMAfrZ0tyH8",
            "$argon2id$v=19$m=256,t=3$AAECAwQFBgcICQoLDA0ODw$5LzIIXvch3JdTOvNzWeGZ16UVocX0TxkVMAfrZ0tyH8",
            "$argon2id$v=19$m=256,t=3,p=2,keyid=AAAA$AAECAwQFBgcICQoLDA0ODw$5LzIIXvch3JdTOvNzWeGZ16UVocX0TxkVMAfrZ0tyH8",
            "$argon2id$v=19$m=256,t=0,p=2$AAECAwQFBgcICQoLDA0ODw$5LzIIXvch3JdTOvNzWeGZ16UVocX0TxkVMAfrZ0tyH8",
            "$argon2id$v=19$m=256,t=3,p=2$AAECAwQFBgcICQoLDA0ODw",
            "$argon2id$v=19$m=256,t=3,p=2$AAECAwQFBgcICQoLDA0ODw$5LzIIXvch3JdTOvNzQ",
            &format!("$pbkdf2-sha256$i=1000,l=16$AAECAwQFBgcICQoLDA0ODw${output}"),
            &format!("$pbkdf2-sha256$i=0,l=32$AAECAwQFBgcICQoLDA0ODw${output}"),
            &format!("$pbkdf2-md5$i=1000,l=32$AAECAwQFBgcICQoLDA0ODw${output}"),
            "pbkdf2_sha256$0$seasalt$drro7xMJ13elIahJIAiY3HqARVlFS9K53WQiGn8FlkM=",
            "pbkdf2_sha256$1000$$drro7xMJ13elIahJIAiY3HqARVlFS9K53WQiGn8FlkM=",
            "pbkdf2_sha256$1000$seasalt$ZHJybw==",
            "pbkdf2_sha256$1000$seasalt$drro7xMJ13elIahJIAiY3HqARVlFS9K53WQiGn8FlkM=$",
            &format!("$scrypt$ln=64,r=8,p=1$AAECAwQFBgcICQoLDA0ODw${output}"),
            &format!("$scrypt$ln=300,r=8,p=1$AAECAwQFBgcICQoLDA0ODw${output}"),
            &format!("$scrypt$ln=10,r=4294967295,p=4294967295$AAECAwQFBgcICQoLDA0ODw${output}"),
            &format!("$scrypt$ln=10,r=0,p=1$AAECAwQFBgcICQoLDA0ODw${output}"),
            &"$2b$04$".repeat(100),
        ] {
            let refusal = refusal(hash);
            assert!(refusal.starts_with("`password_hash` is argon2 (`$argon2id$"), "{hash}: {refusal}");
        }
    }

    #[test]
    fn what_would_take_too_long_is_refused_at_import() {
        let output = "ppsXnjrdPB4KryJ6DrOqKqhkWrhv7PbKAMF1Eml8cZ4";
        let end = format!("$AAECAwQFBgcICQoLDA0ODw${output}");
        let bcrypt = "$Vco3uIFu.iBObPS6.pd76ehJEj5/UT09yyXYJLlmLXzjsPvnqChzG";
        for (accepted, refused) in [
            (format!("$argon2id$v=19$m=1048576,t=4,p=4{end}"), format!("$argon2id$v=19$m=1048577,t=1,p=4{end}")),
            (format!("$argon2id$v=19$m=41943,t=100,p=1{end}"), format!("$argon2id$v=19$m=41944,t=100,p=1{end}")),
            (format!("$argon2id$v=19$m=64,t=65536,p=1{end}"), format!("$argon2id$v=19$m=64,t=4294967295,p=1{end}")),
            (format!("$2b$15{bcrypt}"), format!("$2b$16{bcrypt}")),
            (format!("$pbkdf2-sha256$i=10000000,l=32{end}"), format!("$pbkdf2-sha256$i=10000001,l=32{end}")),
            // Twice the rounds for an output of twice the digest.
            (format!("$pbkdf2-sha1$i=5000000,l=32{end}"), format!("$pbkdf2-sha1$i=5000001,l=32{end}")),
            (format!("$scrypt$ln=19,r=8,p=1{end}"), format!("$scrypt$ln=20,r=8,p=1{end}")),
            (format!("$scrypt$ln=17,r=8,p=31{end}"), format!("$scrypt$ln=17,r=8,p=33{end}")),
            (format!("$scrypt$ln=1,r=1,p=1{end}"), format!("$scrypt$ln=1,r=1,p=100000000{end}")),
            (format!("$scrypt$ln=1,r=1,p=1{end}"), format!("$scrypt$ln=40,r=1,p=1{end}")),
        ] {
            assert!(imported("password_hash", &accepted).is_ok(), "{accepted}");
            assert!(refusal(&refused).starts_with("`password_hash` costs too much to check: "), "{refused}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_panic(
            name in prop::sample::select(vec!["$argon2id", "$2b", "$pbkdf2-sha256", "$scrypt", "pbkdf2_sha1", "$"]),
            rest in "[$=,a-z0-9.+/äA-Z]{0,80}",
        ) {
            let _ = imported("password_hash", &format!("{name}${rest}"));
        }
    }
}
