//! ES256 and RS256: each key serves one algorithm, under one name, with one form of signature (J1, J2, J13, J17).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

mod support;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, KeyPair as _,
    RSA_PKCS1_SHA256, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RsaEncoding, RsaKeyPair,
};
use claviger_verifier::{AccessToken, KeySet, Rejection, verify};
use support::{KID, NOW, b64, claims, expected, header_with};

struct P256 {
    pkcs8: Vec<u8>,
    keys: KeySet,
}

impl P256 {
    fn new() -> Self {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap();
        let mut keys = KeySet::new();
        keys.insert_es256(KID, pair.public_key().as_ref().try_into().unwrap()).unwrap();
        Self { pkcs8: pair.to_pkcs8v1().unwrap().as_ref().to_vec(), keys }
    }

    fn signature(&self, signed: &str, form: &'static EcdsaSigningAlgorithm) -> Vec<u8> {
        let pair = EcdsaKeyPair::from_pkcs8(form, &self.pkcs8).unwrap();
        pair.sign(&SystemRandom::new(), signed.as_bytes()).unwrap().as_ref().to_vec()
    }
}

struct Rsa {
    pair: RsaKeyPair,
    keys: KeySet,
}

impl Rsa {
    fn new() -> Self {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let mut keys = KeySet::new();
        keys.insert_rs256(KID, pair.public_key().modulus().big_endian_without_leading_zero(), &[1, 0, 1]).unwrap();
        Self { pair, keys }
    }

    fn signature(&self, signed: &str, scheme: &'static dyn RsaEncoding) -> Vec<u8> {
        let mut signature = vec![0; self.pair.public_modulus_len()];
        self.pair.sign(scheme, &SystemRandom::new(), signed.as_bytes(), &mut signature).unwrap();
        signature
    }
}

fn signed(alg: &str) -> String {
    format!("{}.{}", b64(header_with("alg", &format!("\"{alg}\"")).as_bytes()), b64(claims().as_bytes()))
}

fn check(keys: &KeySet, signed: &str, signature: &[u8]) -> Result<AccessToken, Rejection> {
    verify(&format!("{signed}.{}", b64(signature)), keys, &expected(), NOW)
}

#[test]
fn j02_an_es256_key_serves_es256_in_its_one_form() {
    let key = P256::new();
    let message = signed("ES256");
    let good = key.signature(&message, &ECDSA_P256_SHA256_FIXED_SIGNING);
    assert_eq!(good.len(), 64);
    assert!(check(&key.keys, &message, &good).is_ok());
    for alg in ["es256", "ES256 ", "ES384", "ES256K", "EdDSA", "Ed25519", "RS256", "HS256", "none", "NONE", ""] {
        let message = signed(alg);
        let signature = key.signature(&message, &ECDSA_P256_SHA256_FIXED_SIGNING);
        assert_eq!(check(&key.keys, &message, &signature), Err(Rejection::Algorithm), "{alg:?}");
    }
    let asn1 = key.signature(&message, &ECDSA_P256_SHA256_ASN1_SIGNING);
    for wrong in [asn1, vec![0; 64], vec![0xff; 64], good[..63].to_vec(), [&good[..], &[0]].concat(), vec![]] {
        assert_eq!(check(&key.keys, &message, &wrong), Err(Rejection::Signature));
    }
    for bit in 0..good.len() * 8 {
        let mut other = good.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(check(&key.keys, &message, &other), Err(Rejection::Signature), "bit {bit}");
    }
    assert_eq!(check(&P256::new().keys, &message, &good), Err(Rejection::Signature), "another key");
}

#[test]
fn j02_an_rs256_key_serves_rs256_in_its_one_scheme() {
    let key = Rsa::new();
    let message = signed("RS256");
    let good = key.signature(&message, &RSA_PKCS1_SHA256);
    assert!(check(&key.keys, &message, &good).is_ok());
    for alg in ["rs256", "RS256 ", "RS512", "PS256", "ES256", "EdDSA", "HS256", "none", ""] {
        let message = signed(alg);
        let signature = key.signature(&message, &RSA_PKCS1_SHA256);
        assert_eq!(check(&key.keys, &message, &signature), Err(Rejection::Algorithm), "{alg:?}");
    }
    for scheme in [&RSA_PKCS1_SHA512 as &'static dyn RsaEncoding, &RSA_PSS_SHA256] {
        assert_eq!(check(&key.keys, &message, &key.signature(&message, scheme)), Err(Rejection::Signature));
    }
    for wrong in [vec![0; 256], vec![0xff; 256], good[..255].to_vec(), [&[0], &good[..]].concat(), vec![]] {
        assert_eq!(check(&key.keys, &message, &wrong), Err(Rejection::Signature));
    }
    for bit in (0..good.len() * 8).step_by(7) {
        let mut other = good.clone();
        other[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(check(&key.keys, &message, &other), Err(Rejection::Signature), "bit {bit}");
    }
}

#[test]
fn j05_a_point_that_is_not_on_the_curve_verifies_nothing() {
    let mut keys = KeySet::new();
    let mut point = [7; 65];
    point[0] = 4;
    keys.insert_es256(KID, &point).unwrap();
    let message = signed("ES256");
    assert_eq!(
        check(&keys, &message, &P256::new().signature(&message, &ECDSA_P256_SHA256_FIXED_SIGNING)),
        Err(Rejection::Signature)
    );
    for form in [0, 2, 3, 6] {
        point[0] = form;
        assert!(KeySet::new().insert_es256(KID, &point).is_err(), "{form}");
    }
}
