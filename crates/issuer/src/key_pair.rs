//! Key pairs that sign tokens: how they are made, read, written, and what a JOSE header calls them.

use aws_lc_rs::encoding::{AsBigEndian as _, AsDer as _, Curve25519SeedBin, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use claviger_store::signing_key::Algorithm;
use claviger_verifier::{KeySet, KeySetError};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use crate::audience::AlgorithmName;
use crate::random::Random;
use crate::vault::DoesNotOpen;

/// What stands before the raw key in a SubjectPublicKeyInfo (RFC 8410 §4).
const ED25519_SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// The same for an uncompressed point of P-256 (RFC 5480 §2).
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x03,
    0x01, 0x07, 0x03, 0x42, 0x00,
];
/// The same for a modulus of 2048 bits (RFC 3279 §2.3.1), behind which the exponent comes.
const RSA_2048_SPKI: [u8; 33] = [
    0x30, 0x82, 0x01, 0x22, 0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00, 0x03, 0x82,
    0x01, 0x0f, 0x00, 0x30, 0x82, 0x01, 0x0a, 0x02, 0x82, 0x01, 0x01, 0x00,
];
/// 65537.
const EXPONENT: [u8; 5] = [0x02, 0x03, 0x01, 0x00, 0x01];

/// The private half, as it is sealed: the seed of Ed25519, PKCS#8 of the others.
pub(crate) type Private = Zeroizing<Vec<u8>>;

/// Public halves of pairs that anybody can look up: in ClusterCockpit's documentation, and in RFC 8037 appendix A.1.
const PUBLISHED: [&str; 2] = ["kzfYrYy+TzpanWZHJ5qSdMj5uKUWgq74BWhQG6copP0=", "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="];

/// A pair that does not fit together, or is of no kind that signs here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a key pair that can sign here: Ed25519, P-256, or RSA with 2048 bits")]
pub struct NotAPair;

/// A new pair. `Random` makes Ed25519 seeds; the library draws the others from the system itself. RSA takes a good part of
/// a second.
pub(crate) fn generate(algorithm: Algorithm, random: &Random) -> Result<(PublicKey, Private), NotAPair> {
    match algorithm {
        Algorithm::EdDsa => {
            let seed = Zeroizing::new(random.bytes::<32>().to_vec());
            Ok((public_half(algorithm, &seed)?, seed))
        }
        Algorithm::Es256 => {
            let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|_| NotAPair)?;
            let private = pair.to_pkcs8v1().map_err(|_| NotAPair)?;
            Ok((PublicKey::new(algorithm, pair.public_key().as_ref())?, Zeroizing::new(private.as_ref().to_vec())))
        }
        Algorithm::Rs256 => {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).map_err(|_| NotAPair)?;
            let private: Pkcs8V1Der<'_> = pair.as_der().map_err(|_| NotAPair)?;
            let private = Zeroizing::new(private.as_ref().to_vec());
            Ok((public_half(algorithm, &private)?, private))
        }
    }
}

/// The public half of a private one.
fn public_half(algorithm: Algorithm, private: &[u8]) -> Result<PublicKey, NotAPair> {
    match Pair::open(algorithm, private)? {
        Pair::Ed25519(pair) => PublicKey::new(algorithm, pair.public_key().as_ref()),
        Pair::P256(pair) => PublicKey::new(algorithm, pair.public_key().as_ref()),
        Pair::Rsa(pair) => {
            let public = pair.public_key();
            match public.exponent().big_endian_without_leading_zero() {
                [1, 0, 1] => PublicKey::new(algorithm, public.modulus().big_endian_without_leading_zero()),
                _ => Err(NotAPair),
            }
        }
    }
}

/// A new Ed25519 pair in raw form: the public half, and the seed with the public half behind it.
#[must_use]
pub fn raw_pair(random: &Random) -> ([u8; 32], Zeroizing<Vec<u8>>) {
    let seed = Zeroizing::new(random.bytes::<32>());
    let public = ed25519_dalek::SigningKey::from_bytes(&seed).verifying_key().to_bytes();
    (public, Zeroizing::new([seed.as_slice(), &public].concat()))
}

/// Reads a private key: base64 of 64 bytes (a seed and its public half, as `keypair generate` prints it) or of the 32 bytes
/// of a seed, or PEM of PKCS#8.
pub(crate) fn read(text: &str) -> Result<(PublicKey, Private), NotAPair> {
    let text = text.trim();
    if let Some(body) = text.strip_prefix("-----BEGIN PRIVATE KEY-----") {
        let body = body.strip_suffix("-----END PRIVATE KEY-----").ok_or(NotAPair)?;
        let body = Zeroizing::new(body.split_ascii_whitespace().collect::<String>());
        let der = STANDARD.decode(body.as_bytes()).map(Zeroizing::new).map_err(|_| NotAPair)?;
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der) {
            let seed = pair.seed().map_err(|_| NotAPair)?;
            let seed: Curve25519SeedBin<'_> = seed.as_be_bytes().map_err(|_| NotAPair)?;
            let seed = Zeroizing::new(seed.as_ref().to_vec());
            return Ok((public_half(Algorithm::EdDsa, &seed)?, seed));
        }
        let algorithm = [Algorithm::Es256, Algorithm::Rs256].into_iter().find(|algorithm| Pair::open(*algorithm, &der).is_ok());
        return Ok((public_half(algorithm.ok_or(NotAPair)?, &der)?, der));
    }
    let bytes = STANDARD.decode(text).map(Zeroizing::new).map_err(|_| NotAPair)?;
    let (seed, public) = bytes.split_at_checked(32).ok_or(NotAPair)?;
    let made = public_half(Algorithm::EdDsa, seed)?;
    match public.is_empty() || public == made.raw {
        true => Ok((made, Zeroizing::new(seed.to_vec()))),
        false => Err(NotAPair),
    }
}

enum Pair {
    Ed25519(Ed25519KeyPair),
    P256(EcdsaKeyPair),
    Rsa(RsaKeyPair),
}

impl Pair {
    fn open(algorithm: Algorithm, private: &[u8]) -> Result<Self, NotAPair> {
        match algorithm {
            Algorithm::EdDsa => Ed25519KeyPair::from_seed_unchecked(private).map(Self::Ed25519),
            Algorithm::Es256 => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, private).map(Self::P256),
            Algorithm::Rs256 => RsaKeyPair::from_pkcs8(private).map(Self::Rsa),
        }
        .map_err(|_| NotAPair)
    }
}

/// A key that signs, parsed once.
pub struct Signer {
    pair: Pair,
    kid: String,
    /// The encoded JOSE header of access tokens and the dot behind it: the same for every token.
    header: String,
}

impl Signer {
    /// `public` must be the other half of `private`.
    pub(crate) fn new(public: &PublicKey, private: &[u8]) -> Result<Self, DoesNotOpen> {
        if public_half(public.algorithm, private).map_err(|_| DoesNotOpen)?.raw != public.raw {
            return Err(DoesNotOpen);
        }
        let pair = Pair::open(public.algorithm, private).map_err(|_| DoesNotOpen)?;
        let kid = public.kid.clone();
        let header = encoded_header("at+jwt", public.algorithm.name(), &kid);
        Ok(Self { pair, kid, header })
    }

    /// `kid`.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The encoded JOSE header of access tokens, with its dot.
    pub(crate) fn header(&self) -> &str {
        &self.header
    }

    /// The same for another `typ`.
    pub(crate) fn header_of(&self, typ: &str) -> String {
        encoded_header(typ, self.algorithm().name(), &self.kid)
    }

    fn algorithm(&self) -> Algorithm {
        match self.pair {
            Pair::Ed25519(_) => Algorithm::EdDsa,
            Pair::P256(_) => Algorithm::Es256,
            Pair::Rsa(_) => Algorithm::Rs256,
        }
    }

    /// Signs in the form of RFC 7518 §3.3 and §3.4, and RFC 8037 §3.1.
    pub(crate) fn sign(&self, message: &[u8]) -> Result<Vec<u8>, NotAPair> {
        match &self.pair {
            Pair::Ed25519(pair) => Ok(pair.sign(message).as_ref().to_vec()),
            Pair::P256(pair) => Ok(pair.sign(&SystemRandom::new(), message).map_err(|_| NotAPair)?.as_ref().to_vec()),
            Pair::Rsa(pair) => {
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).map_err(|_| NotAPair)?;
                Ok(signature)
            }
        }
    }
}

/// An encoded JOSE header and the dot behind it.
pub(crate) fn encoded_header(typ: &str, alg: &str, kid: &str) -> String {
    format!("{}.", URL_SAFE_NO_PAD.encode(format!(r#"{{"typ":"{typ}","alg":"{alg}","kid":"{kid}"}}"#)))
}

/// A public key in its forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicKey {
    kid: String,
    algorithm: Algorithm,
    /// `alg` as its tokens have it.
    name: &'static str,
    raw: Vec<u8>,
}

impl PublicKey {
    /// From the point, or the modulus.
    pub(crate) fn new(algorithm: Algorithm, raw: &[u8]) -> Result<Self, NotAPair> {
        let length = match algorithm {
            Algorithm::EdDsa => 32,
            Algorithm::Es256 => 65,
            Algorithm::Rs256 => 256,
        };
        if raw.len() != length {
            return Err(NotAPair);
        }
        let mut key = Self { kid: String::new(), algorithm, name: algorithm.name(), raw: raw.to_vec() };
        key.kid = key.thumbprint();
        Ok(key)
    }

    /// The same, of an audience whose tokens name its algorithm so: a strict reader takes no key whose `alg` is another's.
    pub(crate) fn named(self, name: AlgorithmName) -> Self {
        Self { name: name.name(), ..self }
    }

    /// Its RFC 7638 thumbprint, which is its `kid`.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// What its pair signs with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// True for the public half of a pair that was published as an example: whoever reads it can sign.
    #[must_use]
    pub fn is_published_sample(&self) -> bool {
        PUBLISHED.contains(&self.raw().as_str())
    }

    /// Of Ed25519 the 32 bytes, of P-256 the uncompressed point, of RSA the modulus.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.raw
    }

    /// Base64 of the raw bytes: 32 of Ed25519, 65 of P-256; of RSA, of its SubjectPublicKeyInfo, as it has no raw form.
    #[must_use]
    pub fn raw(&self) -> String {
        match self.algorithm {
            Algorithm::EdDsa | Algorithm::Es256 => STANDARD.encode(&self.raw),
            Algorithm::Rs256 => STANDARD.encode(self.spki()),
        }
    }

    fn spki(&self) -> Vec<u8> {
        match self.algorithm {
            Algorithm::EdDsa => [&ED25519_SPKI, self.raw.as_slice()].concat(),
            Algorithm::Es256 => [&P256_SPKI, self.raw.as_slice()].concat(),
            Algorithm::Rs256 => [&RSA_2048_SPKI, self.raw.as_slice(), &EXPONENT].concat(),
        }
    }

    /// A PEM `PUBLIC KEY` (RFC 7468 §13).
    #[must_use]
    pub fn pem(&self) -> String {
        let mut text = "-----BEGIN PUBLIC KEY-----\n".to_owned();
        for (n, letter) in STANDARD.encode(self.spki()).chars().enumerate() {
            if n > 0 && n % 64 == 0 {
                text.push('\n');
            }
            text.push(letter);
        }
        text.push_str("\n-----END PUBLIC KEY-----\n");
        text
    }

    /// The members that make it what it is, in the order of RFC 7638 §3.2.
    fn essence(&self) -> Vec<(&'static str, String)> {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        match self.algorithm {
            Algorithm::EdDsa => vec![("crv", "Ed25519".into()), ("kty", "OKP".into()), ("x", text(&self.raw))],
            Algorithm::Es256 => {
                let (x, y) = self.raw.get(1..).unwrap_or_default().split_at_checked(32).unwrap_or_default();
                vec![("crv", "P-256".into()), ("kty", "EC".into()), ("x", text(x)), ("y", text(y))]
            }
            Algorithm::Rs256 => vec![("e", "AQAB".into()), ("kty", "RSA".into()), ("n", text(&self.raw))],
        }
    }

    fn thumbprint(&self) -> String {
        let members: Vec<_> = self.essence().iter().map(|(name, value)| format!(r#""{name}":"{value}""#)).collect();
        URL_SAFE_NO_PAD.encode(Sha256::digest(format!("{{{}}}", members.join(","))))
    }

    /// A JWK (RFC 7517 §4, RFC 8037 §2).
    #[must_use]
    pub fn jwk(&self) -> serde_json::Value {
        let mut jwk: serde_json::Map<_, _> =
            self.essence().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        jwk.insert("kid".into(), self.kid.clone().into());
        jwk.insert("alg".into(), self.name.into());
        jwk.insert("use".into(), "sig".into());
        jwk.into()
    }

    /// Lets `keys` verify with it.
    pub(crate) fn insert_into(&self, keys: &mut KeySet) -> Result<(), KeySetError> {
        match self.algorithm {
            Algorithm::EdDsa => {
                let raw = self.raw.as_slice().try_into().map_err(|_| KeySetError::PublicKey)?;
                keys.insert_ed25519(&self.kid, raw)
            }
            Algorithm::Es256 => {
                let point = self.raw.as_slice().try_into().map_err(|_| KeySetError::PublicKey)?;
                keys.insert_es256(&self.kid, point)
            }
            Algorithm::Rs256 => keys.insert_rs256(&self.kid, &self.raw, &[1, 0, 1]),
        }
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{DecodingKey, EncodingKey, Header, Validation, decode, encode};
    use serde_json::{Value, json};

    use super::*;

    const ALL: [Algorithm; 3] = [Algorithm::EdDsa, Algorithm::Es256, Algorithm::Rs256];

    fn theirs(algorithm: Algorithm) -> jsonwebtoken::Algorithm {
        algorithm.name().parse().unwrap()
    }

    #[test]
    fn the_thumbprint_is_that_of_rfc_8037_appendix_a_and_rfc_7638() {
        let decode = |text| URL_SAFE_NO_PAD.decode(text).unwrap();
        let key = PublicKey::new(Algorithm::EdDsa, &decode("11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo")).unwrap();
        assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
        let modulus = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4n3oknjhMs\
                       tn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5\
                       hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw";
        let key = PublicKey::new(Algorithm::Rs256, &decode(modulus)).unwrap();
        assert_eq!(key.kid(), "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs");
    }

    #[test]
    fn each_form_of_a_public_key_verifies_with_an_independent_reader() {
        let random = Random::from_system();
        for algorithm in ALL {
            let (public, private) = generate(algorithm, &random).unwrap();
            let signer = Signer::new(&public, &private).unwrap();
            let claims = URL_SAFE_NO_PAD.encode(json!({ "sub": "s", "exp": 4_000_000_000_i64 }).to_string());
            let signed = format!("{}{claims}", signer.header());
            let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signer.sign(signed.as_bytes()).unwrap()));
            let jwk: jsonwebtoken::jwk::Jwk = serde_json::from_value(public.jwk()).unwrap();
            let pem = public.pem();
            let from_pem = match algorithm {
                Algorithm::EdDsa => DecodingKey::from_ed_pem(pem.as_bytes()),
                Algorithm::Es256 => DecodingKey::from_ec_pem(pem.as_bytes()),
                Algorithm::Rs256 => DecodingKey::from_rsa_pem(pem.as_bytes()),
            };
            for key in [DecodingKey::from_jwk(&jwk).unwrap(), from_pem.unwrap()] {
                let read = decode::<Value>(&token, &key, &Validation::new(theirs(algorithm))).unwrap();
                assert_eq!((read.claims["sub"].as_str(), read.header.kid.as_deref()), (Some("s"), Some(public.kid())));
            }
        }
    }

    #[test]
    fn our_verifier_takes_what_an_independent_signer_made_for_the_algorithm_of_the_key_alone() {
        use claviger_verifier::{Expected, Rejection, verify};
        let random = Random::from_system();
        let claims = json!({ "iss": "i", "sub": "s", "aud": "a", "exp": 2000, "iat": 1000, "jti": "j" });
        let expected = Expected { issuer: "i", audience: Some("a"), leeway_seconds: 0 };
        for algorithm in ALL {
            let (public, private) = generate(algorithm, &random).unwrap();
            let key = match algorithm {
                Algorithm::EdDsa => {
                    use ed25519_dalek::pkcs8::{EncodePrivateKey as _, KeypairBytes};
                    let pair = KeypairBytes { secret_key: private.as_slice().try_into().unwrap(), public_key: None };
                    EncodingKey::from_ed_der(pair.to_pkcs8_der().unwrap().as_bytes())
                }
                Algorithm::Es256 => EncodingKey::from_ec_der(&private),
                Algorithm::Rs256 => EncodingKey::from_rsa_pem(pem_of(&private).as_bytes()).unwrap(),
            };
            let mut header = Header::new(theirs(algorithm));
            (header.typ, header.kid) = (Some("at+jwt".into()), Some(public.kid().into()));
            let token = encode(&header, &claims, &key).unwrap();
            let keys = KeySet::from_jwks(&json!({ "keys": [public.jwk()] }).to_string()).unwrap();
            assert_eq!(verify(&token, &keys, &expected, 1500).unwrap().subject, "s");
            // The same key id for another kind of key: the key says what it serves, not the token.
            for other in ALL.into_iter().filter(|other| *other != algorithm) {
                let (wrong, _) = generate(other, &random).unwrap();
                let mut keys = KeySet::new();
                PublicKey { kid: public.kid().into(), ..wrong }.insert_into(&mut keys).unwrap();
                assert_eq!(verify(&token, &keys, &expected, 1500), Err(Rejection::Algorithm), "{algorithm:?} {other:?}");
            }
        }
    }

    fn pem_of(der: &[u8]) -> String {
        let text = STANDARD.encode(der);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", lines.join("\n"))
    }

    #[test]
    fn a_private_key_is_read_in_each_of_its_forms() {
        use ed25519_dalek::pkcs8::EncodePrivateKey as _;
        let random = Random::from_system();
        let (public, pair) = raw_pair(&random);
        let seed: [u8; 32] = pair[..32].try_into().unwrap();
        let pem = ed25519_dalek::SigningKey::from_bytes(&seed).to_pkcs8_pem(Default::default()).unwrap();
        for text in
            [STANDARD.encode(pair.as_slice()), STANDARD.encode(seed), format!(" {}\n", STANDARD.encode(seed)), pem.to_string()]
        {
            let (read, private) = read(&text).unwrap();
            assert_eq!((read.bytes(), private.as_slice()), (public.as_slice(), seed.as_slice()));
        }
        for algorithm in [Algorithm::Es256, Algorithm::Rs256] {
            let (public, private) = generate(algorithm, &random).unwrap();
            assert_eq!(read(&pem_of(&private)).unwrap().0, public);
        }
        let mut wrong = pair.to_vec();
        wrong[40] ^= 1;
        let short = STANDARD.encode(&pair[..31]);
        for text in ["", "x", &STANDARD.encode(wrong), &short, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----"] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn pairs_that_were_published_are_known() {
        let sample = "dtPC/6dWJFKZK7KZ78CvWuynylOmjBFyMsUWArwmodOTN9itjL5POlqdZkcnmpJ0yPm4pRaCrvgFaFAbpyik/Q==";
        assert!(read(sample).unwrap().0.is_published_sample());
        assert!(read("nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=").unwrap().0.is_published_sample());
        assert!(!generate(Algorithm::EdDsa, &Random::from_system()).unwrap().0.is_published_sample());
    }
}
