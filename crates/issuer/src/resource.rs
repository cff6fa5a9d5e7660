//! Resources: the services of a tenant that a token may be asked for (RFC 8707), and become its `aud`.

use url::Url;

use crate::Refusal;

/// Most resources of a tenant.
const MOST_RESOURCES: usize = 100;
/// Longest resource, in bytes.
const LONGEST_RESOURCE: usize = 255;

/// An absolute URI without fragment (RFC 8707 §2), 1 to 255 bytes.
fn is_resource(text: &str) -> bool {
    let plain = text.len() <= LONGEST_RESOURCE && text.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
    plain && Url::parse(text).is_ok()
}

/// Refuses a tenant's list that has something else in it, or has it twice.
pub(crate) fn check_resources(resources: &[String]) -> Result<(), Refusal> {
    let twice = |(at, one): (usize, &String)| resources.iter().take(at).any(|other| other == one);
    match resources.len() <= MOST_RESOURCES && resources.iter().all(|one| is_resource(one)) {
        true if !resources.iter().enumerate().any(twice) => Ok(()),
        _ => Err(Refusal::invalid(
            "resources",
            format!(
                "are at most {MOST_RESOURCES} different absolute URIs of up to {LONGEST_RESOURCE} bytes, without `#`: \
                 `https://api.example.com`"
            ),
        )),
    }
}

/// The rule of every audience: what was asked for, if the tenant has it, compared byte for byte; the issuer itself if
/// nothing was.
pub(crate) fn audience<'a>(issuer: &'a str, resources: &'a [String], asked: Option<&str>) -> Result<&'a str, Refusal> {
    match asked {
        None => Ok(issuer),
        Some(asked) if asked == issuer => Ok(issuer),
        Some(asked) => resources.iter().find(|one| *one == asked).map(String::as_str).ok_or(Refusal::InvalidTarget),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resource_is_an_absolute_uri_without_fragment() {
        for good in ["https://api.example.com", "https://api.example.com/v1?tenant=a", "urn:example:api", "http://127.0.0.1:9"] {
            assert!(is_resource(good), "{good}");
        }
        let long = format!("https://api.example.com/{}", "x".repeat(LONGEST_RESOURCE));
        for bad in
            ["", "api", "/v1", "//api.example.com", "https://a#b", "https://a#", " https://a", "https://a\n", "https://é", &long]
        {
            assert!(!is_resource(bad), "{bad}");
        }
    }

    #[test]
    fn a_list_has_no_twins_and_an_end() {
        let list = |n: usize| (0..n).map(|n| format!("urn:api:{n}")).collect::<Vec<_>>();
        assert!(check_resources(&list(MOST_RESOURCES)).is_ok());
        assert!(check_resources(&list(MOST_RESOURCES + 1)).is_err());
        assert!(check_resources(&["urn:api:1".into(), "urn:api:1".into()]).is_err());
        assert!(check_resources(&["nonsense".into()]).is_err());
    }

    #[test]
    fn an_audience_is_the_issuer_or_one_of_the_list_and_nothing_like_it() {
        let list = vec!["https://api.example.com".to_owned()];
        let of = |asked| audience("https://id.example/t/a", &list, asked);
        assert_eq!(of(None), Ok("https://id.example/t/a"));
        assert_eq!(of(Some("https://id.example/t/a")), Ok("https://id.example/t/a"));
        assert_eq!(of(Some("https://api.example.com")), Ok("https://api.example.com"));
        for other in
            ["", "https://api.example.com/", "https://API.example.com", "https://id.example/t/b", "https://id.example/t/a/"]
        {
            assert_eq!(of(Some(other)), Err(Refusal::InvalidTarget), "{other}");
        }
    }
}
