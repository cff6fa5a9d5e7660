//! The outer form: three base64url segments (RFC 7515 §7.1), each with exactly one spelling.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use crate::Rejection;

/// Longest token that is looked at, in bytes (16 KiB).
pub const MAX_TOKEN_BYTES: usize = 16 * 1024;

/// Longest encoded header, in bytes. Three short members need about 150.
const MAX_HEADER_BYTES: usize = 2 * 1024;

/// A token taken apart; nothing in it has been believed yet.
pub(crate) struct Compact<'a> {
    pub(crate) header: Vec<u8>,
    pub(crate) payload: Vec<u8>,
    pub(crate) signature: Vec<u8>,
    /// The bytes the signature covers: the first two segments as received (RFC 7515 §5.2).
    pub(crate) signed: &'a [u8],
}

impl<'a> Compact<'a> {
    pub(crate) fn split(token: &'a str) -> Result<Self, Rejection> {
        Self::split_within(token, MAX_TOKEN_BYTES)
    }

    /// As [`Compact::split`], for what may be that many bytes long.
    pub(crate) fn split_within(token: &'a str, longest: usize) -> Result<Self, Rejection> {
        if token.len() > longest {
            return Err(Rejection::Malformed("too large"));
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(NOT_THREE)?;
        let (header, payload) = signed.split_once('.').ok_or(NOT_THREE)?;
        if payload.contains('.') {
            return Err(NOT_THREE);
        }
        if header.len() > MAX_HEADER_BYTES {
            return Err(Rejection::Malformed("header too large"));
        }
        Ok(Self { header: decode(header)?, payload: decode(payload)?, signature: decode(signature)?, signed: signed.as_bytes() })
    }
}

const NOT_THREE: Rejection = Rejection::Malformed("not three segments");

/// Base64url without padding, whitespace or spare bits: with several spellings of one signature,
/// a deny-list of token texts could be walked around.
fn decode(segment: &str) -> Result<Vec<u8>, Rejection> {
    URL_SAFE_NO_PAD.decode(segment).map_err(|_| Rejection::Malformed("not base64url"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]

    use super::*;

    #[test]
    fn takes_three_segments_apart() {
        let compact = Compact::split("aGVhZA.Ym9keQ.c2ln").unwrap();
        assert_eq!(compact.header, b"head");
        assert_eq!(compact.payload, b"body");
        assert_eq!(compact.signature, b"sig");
        assert_eq!(compact.signed, b"aGVhZA.Ym9keQ");
    }

    #[test]
    fn any_other_number_of_segments_is_refused() {
        for token in ["", ".", "aGVhZA", "aGVhZA.Ym9keQ", "a.b.c.d", "....", "aGVhZA.Ym9keQ.c2ln."] {
            assert_eq!(Compact::split(token).err(), Some(NOT_THREE), "{token}");
        }
    }

    #[test]
    fn a_segment_has_one_spelling() {
        assert_eq!(decode("YQ"), Ok(b"a".to_vec()));
        for other in ["YQ==", "YQ=", "YR", "YZ", "Y", " YQ", "YQ\n", "+/8", "Y Q", "YQ\0", "é"] {
            assert!(decode(other).is_err(), "{other:?}");
        }
    }

    #[test]
    fn size_is_bounded_to_the_byte() {
        let fits = format!("YQ.{}.YQ", "A".repeat(MAX_TOKEN_BYTES - 6));
        assert_eq!(fits.len(), MAX_TOKEN_BYTES);
        assert_eq!(Compact::split(&fits).unwrap().signature, b"a");
        let over = format!("YQ.{}.YQ", "A".repeat(MAX_TOKEN_BYTES - 5));
        assert_eq!(Compact::split(&over).err(), Some(Rejection::Malformed("too large")));
        let header = "A".repeat(MAX_HEADER_BYTES + 4);
        assert_eq!(Compact::split(&format!("{header}.YQ.YQ")).err(), Some(Rejection::Malformed("header too large")));
    }
}
