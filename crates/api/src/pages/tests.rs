use std::collections::{BTreeMap, BTreeSet};

use actix_web::test as at;
use actix_web::{App, body};
use proptest::prelude::*;

use super::*;

/// Other people's text that would be markup if anybody let it.
const HOSTILE: &str = "\"'><script>alert(1)</script><img src=x onerror=alert(1)><!-- {{ 7 }} & &lt; \u{202e}";

/// Every page with the same text in all places that hold somebody else's, each in all its forms.
fn pages(text: &str) -> Vec<(&'static str, String)> {
    let time = DateTime::from_timestamp(1_700_000_000, 0).unwrap();
    let session = |current| SessionLine {
        id: text.to_owned(),
        what: "Browser",
        agent: text.to_owned(),
        begun: time.into(),
        last_used: time.into(),
        current,
    };
    let login = |username, target: Option<_>, problem| {
        let connections = vec![("/t/acme/login/corp".to_owned(), text.to_owned())];
        let (action, target) = ("/t/acme/login", target.map(|target| ("return_to", target)));
        render(&LoginPage { tenant_name: text, action, username, token: text, target, problem, connections }).unwrap()
    };
    let way = |known_as: Option<&str>| WayLine {
        name: "corp".to_owned(),
        title: text.to_owned(),
        known_as: known_as.map(str::to_owned),
    };
    let account = |email, notice, problem, link_problem| {
        let sessions = vec![session(true), session(false)];
        render(&AccountPage {
            tenant_name: text,
            base: "/t/acme",
            username: text,
            email,
            token: text,
            sessions,
            password_rule: text,
            ways: vec![way(Some(text)), way(None)],
            notice,
            problem,
            link_problem,
        })
        .unwrap()
    };
    let logout = |username| render(&LogoutPage { tenant_name: text, base: "/t/acme", username, token: text }).unwrap();
    let message = |tenant_name, link| render(&MessagePage { tenant_name, title: text, text, link }).unwrap();
    vec![
        ("login", login("", None, None)),
        ("login with a target", login("", Some(text), None)),
        ("login after a blank name", login("", Some(text), Some(text))),
        ("login after a wrong password", login(text, Some(text), Some(text))),
        ("account", account(None, None, None, None)),
        ("account with a notice", account(Some(text), Some(text), None, None)),
        ("account with a problem", account(Some(text), None, Some(text), None)),
        ("account with a problem of a link", account(Some(text), None, None, Some(text))),
        ("logout", logout(Some(text))),
        ("logout of nobody", logout(None)),
        ("message", message(Some(text), Some(("/t/acme/login", text)))),
        ("message of no tenant", message(None, None)),
    ]
}

/// A start tag: its name, and its attributes with their values as a browser would read them.
#[derive(Debug)]
struct Tag {
    name: String,
    attributes: Vec<(String, String)>,
}

impl Tag {
    fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

/// The tags of a page, by the rules of HTML's tokenizer as far as our templates need them.
/// What is neither a tag nor text of those is an error: then somebody else's text has become markup.
fn tags(html: &str) -> Vec<Tag> {
    let mut tags = Vec::new();
    let mut rest = html.strip_prefix("<!doctype html>").expect("a doctype");
    while let Some((_, after)) = rest.split_once('<') {
        if let Some(end) = after.strip_prefix('/') {
            let (name, after) = end.split_once('>').unwrap();
            assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric()), "end tag {name:?}");
            rest = after;
            continue;
        }
        let length = after.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap();
        assert_ne!(length, 0, "no tag: {after:.40}");
        let (name, mut inside) = after.split_at(length);
        let mut attributes = Vec::new();
        loop {
            inside = inside.trim_start();
            if let Some(after) = inside.strip_prefix('>') {
                rest = after;
                break;
            }
            let length = inside.find(|letter: char| !letter.is_ascii_lowercase() && !"-_".contains(letter)).unwrap();
            assert_ne!(length, 0, "no attribute in {name}: {inside:.40}");
            let (attribute, after) = inside.split_at(length);
            let value = if let Some(quoted) = after.strip_prefix("=\"") {
                let (value, after) = quoted.split_once('"').unwrap();
                inside = after;
                value
            } else {
                assert!(after.starts_with([' ', '\n', '>']), "an attribute without quotes in {name}: {after:.40}");
                inside = after;
                ""
            };
            attributes.push((attribute.to_owned(), unescape(value)));
        }
        tags.push(Tag { name: name.to_owned(), attributes });
    }
    tags
}

/// The numeric references that the templates write.
fn unescape(text: &str) -> String {
    let mut parts = text.split("&#");
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let (number, rest) = part.split_once(';').unwrap();
        plain.push(char::from_u32(number.parse().unwrap()).unwrap());
        plain.push_str(rest);
    }
    plain
}

/// The page without anybody's text: tags and the names of their attributes.
fn shape(html: &str) -> Vec<(String, Vec<String>)> {
    let names = |tag: Tag| (tag.name, tag.attributes.into_iter().map(|(name, _)| name).collect());
    tags(html).into_iter().map(names).collect()
}

fn same_shape_as_harmless(text: &str) {
    for ((name, harmless), (_, html)) in pages("harmless").into_iter().zip(pages(text)) {
        assert_eq!(shape(&html), shape(&harmless), "{name} with {text:?}");
    }
}

#[test]
fn hostile_text_stays_text() {
    same_shape_as_harmless(HOSTILE);
    for (name, html) in pages(HOSTILE) {
        assert!(!html.contains("<script") && !html.contains("<img") && !html.contains("<!--"), "{name}");
        assert!(html.contains("&#60;script&#62;"), "{name} does not show the text at all");
    }
}

proptest! {
    #[test]
    fn no_text_changes_a_page(text in "[<>\"'&=/!a-z \\n\u{0}-\u{20}\u{e000}-\u{e00f}-]{1,40}") {
        same_shape_as_harmless(&text);
    }
}

#[test]
fn what_was_typed_and_the_return_target_come_back_unchanged() {
    let typed = |text: &str| {
        let page = LoginPage {
            tenant_name: "Acme",
            action: "/t/acme/login",
            username: text,
            token: "t",
            target: Some(("return_to", text)),
            problem: Some("Wrong."),
            connections: Vec::new(),
        };
        let tags = tags(&render(&page).unwrap());
        let value = |name| {
            let input = tags.iter().find(|tag| tag.name == "input" && tag.get("name") == Some(name)).unwrap();
            input.get("value").unwrap().to_owned()
        };
        assert_eq!((value("username"), value("return_to")), (text.to_owned(), text.to_owned()));
    };
    for text in [HOSTILE, "//evil.test", "javascript:alert(1)", "/\\evil.test", "/t/acme/account?a=1&b=2#c"] {
        typed(text);
    }
}

#[test]
fn nobodys_text_becomes_an_address() {
    for (name, html) in pages("javascript:alert(1)") {
        for tag in tags(&html) {
            for (attribute, value) in &tag.attributes {
                if ["href", "src", "action", "formaction"].contains(&attribute.as_str()) {
                    assert!(value.starts_with("/t/acme/") || value.starts_with("/assets/"), "{name}: {attribute}={value}");
                }
            }
        }
    }
}

#[test]
fn no_page_has_script_or_style_of_its_own() {
    let allowed: BTreeSet<&str> = [
        "a", "bdi", "body", "button", "div", "form", "h1", "h2", "head", "html", "input", "label", "li", "link", "main", "meta",
        "p", "section", "span", "strong", "time", "title", "ul",
    ]
    .into();
    for (name, html) in pages(HOSTILE) {
        for tag in tags(&html) {
            assert!(allowed.contains(tag.name.as_str()), "{name}: <{}>", tag.name);
            for (attribute, _) in &tag.attributes {
                assert!(!attribute.starts_with("on") && attribute != "style", "{name}: <{} {attribute}>", tag.name);
            }
        }
    }
    assert!(!POLICY.contains("unsafe") && POLICY.starts_with("default-src 'none'"));
}

#[test]
fn every_page_can_be_read_aloud() {
    for (name, html) in pages("text") {
        let tags = tags(&html);
        let count = |wanted: &str| tags.iter().filter(|tag| tag.name == wanted).count();
        assert_eq!((count("h1"), count("title"), count("main")), (1, 1, 1), "{name}");
        assert_eq!(tags.first().and_then(|tag| tag.get("lang")), Some("en"), "{name}");
        let mut ids = BTreeMap::new();
        for id in tags.iter().filter_map(|tag| tag.get("id")) {
            *ids.entry(id).or_insert(0) += 1;
        }
        assert!(ids.values().all(|count| *count == 1), "{name}: {ids:?}");
        for tag in &tags {
            for reference in ["for", "aria-describedby", "aria-labelledby"] {
                assert!(tag.get(reference).is_none_or(|id| ids.contains_key(id)), "{name}: {tag:?}");
            }
            if tag.name == "input" && tag.get("type") != Some("hidden") {
                let labelled = tags.iter().any(|label| label.name == "label" && label.get("for") == tag.get("id"));
                assert!(labelled || tag.get("aria-label").is_some(), "{name}: {tag:?}");
            }
        }
        assert!(tags.iter().filter(|tag| tag.get("autofocus").is_some()).count() <= 1, "{name}");
    }
}

#[test]
fn the_field_that_is_needed_has_the_focus_and_refers_to_the_problem() {
    let focus = |username, problem| {
        let connections = Vec::new();
        let page =
            LoginPage { tenant_name: "Acme", action: "/t/acme/login", username, token: "t", target: None, problem, connections };
        let tags = tags(&render(&page).unwrap());
        let focused = tags.iter().find(|tag| tag.get("autofocus").is_some()).unwrap();
        let described = tags.iter().filter(|tag| tag.get("aria-describedby").is_some()).count();
        (focused.get("name").unwrap().to_owned(), focused.get("aria-describedby").map(str::to_owned), described)
    };
    assert_eq!(focus("", None), ("username".into(), None, 0));
    assert_eq!(focus("", Some("Who?")), ("username".into(), Some("problem".into()), 1));
    assert_eq!(focus("alice", Some("No.")), ("password".into(), Some("problem".into()), 1));
}

#[test]
fn every_form_is_posted_with_its_token() {
    for (name, html) in pages("text") {
        let mut within = None;
        let mut forms = BTreeMap::new();
        for tag in tags(&html) {
            match tag.name.as_str() {
                "form" => {
                    assert_eq!(tag.get("method"), Some("post"), "{name}");
                    within = Some(forms.len());
                    forms.insert(forms.len(), 0);
                }
                "input" if tag.get("name") == Some("csrf") => {
                    assert_eq!((tag.get("type"), tag.get("value")), (Some("hidden"), Some("text")), "{name}");
                    *forms.get_mut(&within.unwrap()).unwrap() += 1;
                }
                _ => {}
            }
        }
        assert!(forms.values().all(|tokens| *tokens == 1), "{name}: {forms:?}");
    }
}

#[test]
fn a_time_is_told_to_programs_and_people() {
    let moment = Moment::from(DateTime::from_timestamp(1_700_000_000, 999_999_999).unwrap());
    assert_eq!((moment.machine.as_str(), moment.shown.as_str()), ("2023-11-14T22:13:20Z", "14 November 2023, 22:13 UTC"));
}

#[test]
fn a_page_wears_its_headers() {
    let page = MessagePage { tenant_name: None, title: "Not found", text: "There is nothing here.", link: None };
    let response = respond(StatusCode::NOT_FOUND, &page).unwrap();
    let header = |name| response.headers().get(name).unwrap().to_str().unwrap();
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(header(header::CONTENT_TYPE), "text/html; charset=utf-8");
    assert_eq!(header(header::CONTENT_SECURITY_POLICY), POLICY);
    assert_eq!(header(header::REFERRER_POLICY), "same-origin");
}

#[actix_web::test]
async fn the_files_are_served_under_the_name_of_their_content_alone() {
    let app = at::init_service(App::new().service(asset)).await;
    let ask = async |path: &str| at::call_service(&app, at::TestRequest::get().uri(path).to_request()).await;
    for (kept, content_type) in [(&STYLE, "text/css; charset=utf-8"), (&ICON, "image/svg+xml")] {
        let path = kept.path();
        let response = ask(&path).await;
        assert_eq!(response.status(), StatusCode::OK, "{path}");
        let header = |name| response.headers().get(name).unwrap().to_str().unwrap().to_owned();
        assert_eq!(header(header::CONTENT_TYPE), content_type);
        assert_eq!(header(header::CACHE_CONTROL), "public, max-age=31536000, immutable");
        let content = body::to_bytes(response.into_body()).await.unwrap();
        assert_eq!(content, kept.content.as_bytes());
        let digest: String = Sha256::digest(&content).iter().take(6).map(|byte| format!("{byte:02x}")).collect();
        assert!(path.contains(&digest), "{path}");
    }
    for path in ["/assets/pages.css", "/assets/pages.000000000000.css", "/assets/..%2fCargo.toml", "/assets/"] {
        assert_eq!(ask(path).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[test]
fn the_style_sheet_asks_nobody_else() {
    for word in ["url(", "@import", "http:", "https:", "//"] {
        assert!(!STYLE.content.contains(word), "{word}");
    }
}
