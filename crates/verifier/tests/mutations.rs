//! Whatever is done to a valid token, it no longer passes, nothing panics, and no message repeats it.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops at the first surprise")]

mod support;

use claviger_verifier::{KeySet, unverified_issuer};
use proptest::prelude::*;
use support::*;

/// One change of a text, by positions taken modulo its length.
#[derive(Debug, Clone)]
enum Change {
    Replace(usize, char),
    Insert(usize, char),
    Remove(usize),
    Truncate(usize),
    Swap(usize, usize),
    Repeat(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let letter = prop_oneof![
        8 => proptest::sample::select(
            "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n"
                .chars()
                .collect::<Vec<_>>()
        ),
        1 => any::<char>(),
    ];
    prop_oneof![
        4 => (any::<usize>(), letter.clone()).prop_map(|(at, c)| Change::Replace(at, c)),
        2 => (any::<usize>(), letter).prop_map(|(at, c)| Change::Insert(at, c)),
        2 => any::<usize>().prop_map(Change::Remove),
        1 => any::<usize>().prop_map(Change::Truncate),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Change::Swap(a, b)),
        1 => (any::<usize>(), any::<usize>()).prop_map(|(a, b)| Change::Repeat(a, b)),
    ]
}

fn apply(text: &mut Vec<char>, change: &Change) {
    let Some(last) = text.len().checked_sub(1) else {
        return;
    };
    let within = |at: usize| at % (last + 1);
    match *change {
        Change::Replace(at, c) => text[within(at)] = c,
        Change::Insert(at, c) => text.insert(within(at), c),
        Change::Remove(at) => {
            text.remove(within(at));
        }
        Change::Truncate(at) => text.truncate(within(at)),
        Change::Swap(a, b) => text.swap(within(a), within(b)),
        Change::Repeat(a, b) => {
            let (from, upto) = (within(a).min(within(b)), within(a).max(within(b)));
            let again = text[from..upto].to_vec();
            text.extend(again);
        }
    }
}

/// Any run of this many characters shared by message and token would be a leak; the words of the
/// messages themselves are shorter where they coincide with claim values.
const LEAK: usize = 10;

fn assert_silent(token: &str, message: &str) {
    let secrets = [token, HEADER, &claims()].map(str::to_owned);
    let message: Vec<char> = message.chars().collect();
    for run in message.windows(LEAK) {
        let run: String = run.iter().collect();
        assert!(!secrets.iter().any(|secret| secret.contains(&run)), "the message repeats {run:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_changed_token_never_passes(changes in prop::collection::vec(change(), 1..4)) {
        let valid = token(HEADER, claims());
        let mut text: Vec<char> = valid.chars().collect();
        for change in &changes {
            apply(&mut text, change);
        }
        let text: String = text.into_iter().collect();
        match check(&text) {
            Ok(_) => prop_assert_eq!(text, valid),
            Err(rejection) => {
                prop_assert_ne!(&text, &valid);
                assert_silent(&text, &rejection.to_string());
                assert_silent(&text, &format!("{rejection:?}"));
            }
        }
    }

    #[test]
    fn any_text_is_answered_without_panic(text in any::<String>()) {
        prop_assert!(check(&text).is_err());
        let _ = unverified_issuer(&text);
        let _ = KeySet::from_jwks(&text);
    }

    #[test]
    fn any_three_segments_are_answered_without_panic(
        header in prop::collection::vec(any::<u8>(), 0..80),
        claims in prop::collection::vec(any::<u8>(), 0..80),
        signature in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let text = format!("{}.{}.{}", b64(&header), b64(&claims), b64(&signature));
        prop_assert!(check(&text).is_err());
        let _ = unverified_issuer(&text);
    }

    /// Signed by us, so that the claims are reached: random edits of the JSON itself.
    #[test]
    fn changed_claims_are_answered_without_panic(changes in prop::collection::vec(change(), 1..6)) {
        let mut text: Vec<char> = claims().chars().collect();
        for change in &changes {
            apply(&mut text, change);
        }
        let text: String = text.into_iter().collect();
        let signed = token(HEADER, &text);
        if let Err(rejection) = check(&signed) {
            assert_silent(&signed, &rejection.to_string());
        }
    }

    /// And of the header.
    #[test]
    fn changed_headers_are_answered_without_panic(changes in prop::collection::vec(change(), 1..6)) {
        let mut text: Vec<char> = HEADER.chars().collect();
        for change in &changes {
            apply(&mut text, change);
        }
        let text: String = text.into_iter().collect();
        if let Err(rejection) = check(&token(&text, claims())) {
            assert_silent(&text, &rejection.to_string());
        }
    }
}
