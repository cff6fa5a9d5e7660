//! Which new passwords are accepted: long ones that nobody else would try first (ASVS 6.2). Nothing is asked of the
//! characters; a password is taken exactly as typed.
//!
//! `common.txt` is the list of common passwords of Django 5.2.19 (`django/contrib/auth/common-passwords.txt.gz`, made by
//! Royce Williams; BSD-3-Clause, © Django Software Foundation and individual contributors), in lower case, without what
//! is shorter than four characters or was garbled by a wrong encoding, sorted by bytes.

use std::sync::LazyLock;

use serde::{Deserialize, Serialize};

use super::{LONGEST_PRESENTED, too_long};
use crate::Refusal;

/// Sorted.
static COMMON: LazyLock<Vec<&'static str>> = LazyLock::new(|| include_str!("common.txt").lines().collect());
/// Of a listed word, in characters.
static LONGEST_COMMON: LazyLock<usize> =
    LazyLock::new(|| COMMON.iter().map(|word| word.chars().count()).max().unwrap_or_default());
/// Shorter listed words may stand in a password whose other characters are no letters.
const SHORTEST_CORE: usize = 5;
/// A longer piece may be repeated, unless it is listed.
const LONGEST_REPEATED: usize = 4;
/// Shorter words of the context are not looked for: they are in many words.
const SHORTEST_CONTEXT: usize = 4;
/// Characters that are to be there besides words of the context.
const OWN_CHARACTERS: usize = 8;
/// Always a word of the context.
const PRODUCT: &str = "claviger";

/// What is asked of new passwords. Those that are set already stay good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PasswordPolicy {
    /// Shortest password, in characters, 4 to 64.
    pub min_length: usize,
    /// Longest password, in characters, 64 to 512.
    pub max_length: usize,
    /// Refuse what is on the list of common passwords, or next to it.
    pub refuse_common: bool,
    /// Refuse what is hardly more than the names of user, tenant and product.
    pub refuse_context: bool,
}

impl Default for PasswordPolicy {
    fn default() -> Self {
        Self { min_length: 12, max_length: 128, refuse_common: true, refuse_context: true }
    }
}

impl PasswordPolicy {
    /// Refuses what cannot be served. The longest is at least 64, so at least as long as any shortest.
    pub fn check(&self) -> Result<(), Refusal> {
        if !(4..=64).contains(&self.min_length) {
            return Err(Refusal::invalid("min_length", "is 4 to 64 characters"));
        }
        match self.max_length {
            64..=512 => Ok(()),
            _ => Err(Refusal::invalid("max_length", "is 64 to 512 characters")),
        }
    }

    /// Judges a new password. `context` is what others know of its owner: user name, the part of the e-mail address
    /// before the `@`, the tenant's slug and name; the product's name is added.
    pub fn judge(&self, field: &'static str, password: &str, context: &[&str]) -> Result<(), Refusal> {
        let Self { min_length, max_length, refuse_common, refuse_context } = *self;
        if password.is_empty() {
            return Err(Refusal::invalid(field, "can't be blank"));
        }
        // What could be set and never presented.
        if password.len() > LONGEST_PRESENTED {
            return Err(too_long(field));
        }
        let length = password.chars().count();
        if length < min_length {
            let problem = format!("is at least {min_length} characters long; a few words in a row make a good one");
            return Err(Refusal::invalid(field, problem));
        }
        if length > max_length {
            return Err(Refusal::invalid(field, format!("is at most {max_length} characters long")));
        }
        if refuse_common && let Some(what) = commonness(&password.to_lowercase()) {
            return Err(Refusal::invalid(field, format!("{what}; a few words in a row make a good one")));
        }
        if refuse_context && without(password, context) < OWN_CHARACTERS.min(min_length) {
            let problem = "is hardly more than the name of its owner, of the tenant or of Claviger; \
                add a few words that have nothing to do with them";
            return Err(Refusal::invalid(field, problem));
        }
        Ok(())
    }
}

fn is_listed(word: &str) -> bool {
    COMMON.binary_search(&word).is_ok()
}

/// What makes a password, in lower case, one that others try first.
fn commonness(password: &str) -> Option<&'static str> {
    if is_listed(password) {
        return Some("is on the list of common passwords");
    }
    if holds_common_core(password) {
        return Some("is on the list of common passwords, but for digits and signs around it");
    }
    is_repetition(password).then_some("is one short piece again and again")
}

/// `passwordpassword`, `abcabcabcabc`.
fn is_repetition(password: &str) -> bool {
    let length = password.chars().count();
    password.char_indices().enumerate().skip(1).take(length / 2).any(|(count, (at, _))| {
        let Some(piece) = password.get(..at) else { return false };
        length.is_multiple_of(count)
            && (count <= LONGEST_REPEATED || is_listed(piece))
            && piece.repeat(length / count) == password
    })
}

/// `!!monkey2024!`: what stands before and behind the listed word is no letter.
fn holds_common_core(password: &str) -> bool {
    let boundaries: Vec<usize> = password.char_indices().map(|(at, _)| at).chain([password.len()]).collect();
    let length = boundaries.len() - 1;
    // The word begins at the first letter or before, and ends at the last or behind.
    let latest_start = password.find(char::is_alphabetic).unwrap_or(password.len());
    let earliest_end = password.rfind(char::is_alphabetic).map_or(0, |at| at + 1);
    let starts = boundaries.iter().enumerate().take_while(|(_, start)| **start <= latest_start);
    starts.into_iter().any(|(first, start)| {
        (SHORTEST_CORE..=*LONGEST_COMMON)
            .map_while(|count| Some((count, boundaries.get(first + count)?)))
            .filter(|(_, end)| **end >= earliest_end)
            .any(|(count, end)| {
                password.get(*start..*end).is_some_and(|word| {
                    // Somewhere in many digits there is always a listed number.
                    let carries = word.contains(char::is_alphabetic) || count * 2 >= length;
                    carries && is_listed(word)
                })
            })
    })
}

/// The characters that remain when every word of the context is taken out.
fn without(password: &str, context: &[&str]) -> usize {
    let mut words: Vec<String> = Vec::new();
    for name in context.iter().chain(&[PRODUCT]) {
        let name = name.to_lowercase();
        words.extend(name.split(|c: char| !c.is_alphanumeric()).map(str::to_owned));
        words.push(name);
    }
    words.retain(|word| word.chars().count() >= SHORTEST_CONTEXT);
    // A whole name before its parts.
    words.sort_by_key(|word| std::cmp::Reverse(word.len()));
    let rest = words.iter().fold(password.to_lowercase(), |rest, word| rest.replace(word.as_str(), ""));
    rest.chars().count()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTEXT: &[&str] = &["alice.smith", "alice", "acme", "Acme Industries Ltd"];

    fn judged(password: &str) -> Result<(), String> {
        PasswordPolicy::default().judge("password", password, CONTEXT).map_err(|refusal| refusal.to_string())
    }

    fn is_refused_as(password: &str, what: &str) {
        let refusal = judged(password).expect_err(password);
        assert!(refusal.contains(what), "{password}: {refusal}");
        assert!(refusal.starts_with("`password` "), "{refusal}");
    }

    #[test]
    fn the_list_is_as_it_is_read() {
        assert!(COMMON.len() > 19_000);
        assert!(COMMON.is_sorted_by(|a, b| a < b));
        assert!(COMMON.iter().all(|word| word.to_lowercase() == **word && word.chars().count() >= 4));
        assert_eq!(*LONGEST_COMMON, 21);
        assert!(include_str!("common.txt").len() < 400_000);
        for known in ["password", "123456", "qwerty", "iloveyou", "йцукен", "passw0rd"] {
            assert!(is_listed(known), "{known}");
        }
    }

    #[test]
    fn policies_have_bounds() {
        let policy = PasswordPolicy::default();
        assert_eq!(policy.check(), Ok(()));
        for (min_length, max_length) in [(4, 64), (64, 64), (64, 512)] {
            assert_eq!(PasswordPolicy { min_length, max_length, ..policy }.check(), Ok(()));
        }
        for (min_length, max_length) in [(3, 64), (65, 128), (12, 63), (12, 513), (0, 0)] {
            assert!(PasswordPolicy { min_length, max_length, ..policy }.check().is_err(), "{min_length} {max_length}");
        }
        let partial: PasswordPolicy = serde_json::from_str(r#"{"min_length": 15}"#).unwrap();
        assert_eq!(partial, PasswordPolicy { min_length: 15, ..policy });
        assert!(serde_json::from_str::<PasswordPolicy>(r#"{"needs_digits": true}"#).is_err());
    }

    #[test]
    fn good_passwords_are_accepted_whatever_they_are_made_of() {
        for good in [
            "correct horse battery staple",
            "tr0ub4dor&3 x",
            "gxqvbtwnklsz",
            "пароль лошадь батарея",
            "日本語のパスワードはここに長く",
            "     gxqvbt     ",
            "new\nline and \u{0} zero",
            "829104756301",
            &"many words in a row ".repeat(5),
            "🦀🐎🔋📎🍎🍊🍋🍌🦊🐝🌵🧊",
        ] {
            assert_eq!(judged(good), Ok(()), "{good:?}");
        }
    }

    #[test]
    fn length_is_counted_in_characters() {
        is_refused_as("", "can't be blank");
        is_refused_as("gxqvbtwnkls", "at least 12 characters");
        is_refused_as("ñandúñandúq", "at least 12 characters");
        assert_eq!(judged("ñandú gxqvbt"), Ok(()));
        let words = "gxqvbtwnklszmdpf".repeat(8);
        assert_eq!(judged(&words), Ok(()));
        is_refused_as(&format!("{words}x"), "at most 128 characters");
    }

    #[test]
    fn what_could_never_be_presented_is_not_accepted() {
        let policy = PasswordPolicy { max_length: 512, ..PasswordPolicy::default() };
        let word = "🦀🐎🔋📎🍎🍊🍋🍌";
        assert_eq!(policy.judge("password", &word.repeat(32), &[]), Ok(()));
        let refusal = policy.judge("password", &format!("{}x", word.repeat(32)), &[]).unwrap_err();
        assert_eq!(refusal.to_string(), "`password` is at most 1024 bytes long");
    }

    #[test]
    fn common_passwords_are_refused() {
        for bad in [
            "international",
            "InterNational",
            "qwertyuiop[]",
            "password1234",
            "Password!!!!",
            "2024-Password-2024",
            "...monkey...99",
            "monkey  2024",
            "ПАРОЛЬ123456",
            "123456789012",
            "12345678901234",
            "!1234567890!",
        ] {
            is_refused_as(bad, "list of common passwords");
        }
    }

    #[test]
    fn repeated_pieces_are_refused() {
        for bad in ["aaaaaaaaaaaa", "abcabcabcabc", "xq7xxq7xxq7x", "dragondragon", "Iloveyouiloveyou", "ёёёёёёёёёёёё"]
        {
            is_refused_as(bad, "one short piece again and again");
        }
        assert_eq!(judged("gxqvbtgxqvbt"), Ok(()));
    }

    #[test]
    fn a_listed_word_among_others_is_no_harm() {
        // Letters besides the word; a short word; a number that is less than half.
        for good in ["my monkey swims", "monkeygxqvbt", "1234 love 567890", "90817123456543079281"] {
            assert_eq!(judged(good), Ok(()), "{good}");
        }
    }

    #[test]
    fn the_names_of_user_tenant_and_product_do_not_count() {
        for bad in
            ["alice.smith1234567", "AliceSmith2024", "acme-Industries!", "claviger1234", "CLAVIGERclaviger-x", "ALICEacme2024"]
        {
            is_refused_as(bad, "hardly more than the name");
        }
        for good in ["alice swims far", "acmegxqvbtwn", "claviger opens doors"] {
            assert_eq!(judged(good), Ok(()), "{good}");
        }
        // Words of fewer than four characters are in many others.
        let policy = PasswordPolicy { min_length: 4, ..PasswordPolicy::default() };
        assert_eq!(policy.judge("password", "bobxqz", &["bob"]), Ok(()));
        // Where a shorter password is allowed, so many characters are its own.
        assert_eq!(policy.judge("password", "acmexqzv", &["acme"]), Ok(()));
        assert!(policy.judge("password", "acmexqz", &["acme"]).is_err());
    }

    #[test]
    fn rules_can_be_left_out() {
        let policy = PasswordPolicy { refuse_common: false, refuse_context: false, ..PasswordPolicy::default() };
        for password in ["password1234", "alice.smith12", "aaaaaaaaaaaa"] {
            assert_eq!(policy.judge("new_password", password, CONTEXT), Ok(()));
        }
        assert!(
            policy.judge("new_password", "short", CONTEXT).unwrap_err().to_string().starts_with("`new_password` is at least")
        );
    }
}
