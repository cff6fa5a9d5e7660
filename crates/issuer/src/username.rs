//! Login names: as shown, as compared, and as they look.
//!
//! Two names that differ in case or width are one name (RFC 8265 §3.3), and two that look alike cannot both be given
//! away (UTS 39 §4): who reads a name in an audit trail or a list must know who is meant.

use precis_profiles::precis_core::Error;
use precis_profiles::precis_core::profile::PrecisFastInvocation;
use precis_profiles::{UsernameCaseMapped, UsernameCasePreserved};

use crate::Refusal;

/// In characters.
const LONGEST: usize = 128;

/// A login name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Username {
    /// As it was typed, in normal form (RFC 8265 §3.4).
    pub(crate) shown: String,
    /// For comparing and finding: also in lower case.
    pub(crate) folded: String,
    /// What it looks like: the same for all names that look like it.
    pub(crate) skeleton: String,
}

impl Username {
    /// Reads a new name: 1 to 128 letters and digits of any script, and `. _ @ + -`.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let (shown, folded) = normal(text)?;
        // The prototype of a small letter may be a capital one.
        let skeleton = unicode_security::skeleton(&folded).collect::<String>().to_lowercase();
        Ok(Self { shown, folded, skeleton })
    }

    /// A presented name as it is compared; `None` when nobody can have it.
    pub(crate) fn fold(text: &str) -> Option<String> {
        normal(text).ok().map(|(_, folded)| folded)
    }
}

/// As shown, and as compared.
fn normal(text: &str) -> Result<(String, String), Refusal> {
    if text.trim().is_empty() {
        return Err(Refusal::invalid("username", "can't be blank"));
    }
    if text.chars().nth(LONGEST).is_some() {
        return Err(bad_form());
    }
    let shown = UsernameCasePreserved::enforce(text).map_err(explained)?.into_owned();
    let folded = UsernameCaseMapped::enforce(shown.as_str()).map_err(explained)?.into_owned();
    // Asked of the normal forms: there an accent is part of its letter, and full-width characters are ordinary ones.
    // What is compared must be a name itself, and its own normal form (RFC 8264 §7).
    let stable = UsernameCaseMapped::enforce(folded.as_str()).is_ok_and(|again| again == folded);
    match stable && is_well_formed(&shown) && is_well_formed(&folded) {
        true => Ok((shown, folded)),
        false => Err(bad_form()),
    }
}

fn is_well_formed(name: &str) -> bool {
    name.chars().count() <= LONGEST && name.chars().all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '@' | '+' | '-'))
}

fn bad_form() -> Refusal {
    Refusal::invalid("username", format!("is at most {LONGEST} letters, digits, `.`, `_`, `@`, `+` and `-`"))
}

fn explained(error: Error) -> Refusal {
    match error {
        // A name that is not empty is only refused as a whole for its directions.
        Error::Invalid => Refusal::invalid(
            "username",
            "has letters that are written from right to left: then it has no others, begins with such a letter and ends \
             with one or a digit",
        ),
        Error::BadCodepoint(_) | Error::Unexpected(_) => bad_form(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> Username {
        Username::parse(text).expect(text)
    }

    fn problem(text: &str) -> String {
        match Username::parse(text) {
            Err(Refusal::Invalid { field: "username", problem }) => problem,
            other => panic!("{text:?}: {other:?}"),
        }
    }

    #[test]
    fn a_name_is_kept_as_typed_and_compared_in_lower_case() {
        let alice = name("Alice.Smith+x_1@Example-Host.com");
        assert_eq!(alice.shown, "Alice.Smith+x_1@Example-Host.com");
        assert_eq!(alice.folded, "alice.smith+x_1@example-host.com");
        assert_eq!(Username::fold("ALICE.smith+X_1@example-host.COM"), Some(alice.folded));
        assert_eq!(name("ÄRGER").folded, "ärger");
        assert_eq!(name("ИВАН").folded, "иван");
        assert_eq!(name("山田太郎").folded, "山田太郎");
    }

    #[test]
    fn widths_and_compositions_are_one_name() {
        let wide = name("Ａｌｉｃｅ＠１");
        assert_eq!((wide.shown.as_str(), wide.folded.as_str()), ("Alice@1", "alice@1"));
        let decomposed = name("Zoe\u{308}");
        assert_eq!(decomposed, name("Zo\u{eb}"));
        assert_eq!(decomposed.folded, "zo\u{eb}");
        // The sign for ångström is the letter.
        assert_eq!(Username::fold("a\u{30a}"), Some("å".into()));
    }

    #[test]
    fn names_that_look_alike_have_one_skeleton() {
        for (one, other) in [
            ("paypal", "p\u{430}ypal"),
            ("paypal", "\u{440}\u{430}y\u{440}\u{430}l"),
            ("paypal", "PayPal"),
            ("paypal", "paypa1"),
            ("admin0", "admino"),
            ("modern", "modem"),
            ("scope", "ѕсоре"),
        ] {
            assert_eq!(name(one).skeleton, name(other).skeleton, "{one} {other}");
        }
        assert_ne!(name("paypal").folded, name("p\u{430}ypal").folded);
        assert_ne!(name("alice").skeleton, name("alicia").skeleton);
        assert_ne!(name("zoe").skeleton, name("zo\u{eb}").skeleton);
    }

    #[test]
    fn blank_long_and_strange_names_are_refused() {
        for blank in ["", " ", "\t\n", "\u{3000}"] {
            assert_eq!(problem(blank), "can't be blank");
        }
        assert_eq!(name(&"x".repeat(128)).folded.len(), 128);
        assert_eq!(name(&"山".repeat(128)).folded.chars().count(), 128);
        for strange in [
            &"x".repeat(129),
            &"山".repeat(129),
            // One character that is two in normal form.
            &"\u{958}".repeat(128),
            "a b",
            " alice",
            "alice\n",
            "a/b",
            "a:b",
            "a<b>",
            "a'b",
            "a\"b",
            "a\\b",
            "a\u{0}b",
            "a\u{200b}b",
            "a\u{200d}b",
            "a\u{202e}b",
            "a\u{ad}b",
            "\u{301}",
            "a²",
            "ﬁn",
            "Ⅷ",
            "🦀",
            "l·l",
            "\u{e000}",
            "\u{378}",
            // Its small form is no letter of a name.
            "\u{13a0}",
        ] {
            assert_eq!(problem(strange), "is at most 128 letters, digits, `.`, `_`, `@`, `+` and `-`", "{strange:?}");
            assert_eq!(Username::fold(strange), None, "{strange:?}");
        }
    }

    #[test]
    fn directions_are_not_mixed() {
        assert_eq!(name("אבג").folded, "אבג");
        assert_eq!(name("אבג12").folded, "אבג12");
        assert_eq!(name("محمد").folded, "محمد");
        for mixed in ["aliceאבג", "אבגalice", "1אבג", "אבג.", "محمدx"] {
            assert!(problem(mixed).starts_with("has letters that are written from right to left"), "{mixed}");
            assert_eq!(Username::fold(mixed), None);
        }
    }

    proptest! {
        #[test]
        fn a_name_is_found_by_each_of_its_forms(text in "[\\p{L}\\p{N}._@+-]{1,12}") {
            if let Ok(name) = Username::parse(&text) {
                prop_assert_eq!(Username::fold(&text), Some(name.folded.clone()));
                prop_assert_eq!(Username::fold(&name.shown), Some(name.folded.clone()));
                let again = Username::parse(&name.shown).unwrap();
                prop_assert_eq!(&again, &name);
                let folded = Username::parse(&name.folded).unwrap();
                prop_assert_eq!(&folded.folded, &name.folded);
                prop_assert_eq!(&folded.skeleton, &name.skeleton);
            }
        }

        #[test]
        fn no_text_makes_the_reader_panic(text in "\\PC{0,12}") {
            prop_assert_eq!(Username::parse(&text).ok().map(|name| name.folded), Username::fold(&text));
        }
    }
}
