//! The pages that people see: plain HTML that works without a script, and the files that belong to them.
//!
//! A page is a struct of what it shows; the handlers fill it and [`respond`] sends it. Whatever text it is given is
//! escaped by the template: nothing here marks text as safe.

use std::sync::LazyLock;

use actix_web::http::{StatusCode, header};
use actix_web::web::Path;
use actix_web::{HttpResponse, get};
use askama::Template;
use chrono::{DateTime, SecondsFormat, Utc};
use claviger_issuer::{Failure, Fault};
use sha2::{Digest as _, Sha256};

use crate::hex::hex;
use crate::problem::{Answer, Answered};

#[cfg(test)]
mod tests;

/// The pages' policy: our own style and image, forms to ourselves, no script at all, in nobody's frame.
pub(crate) const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'; \
                                 frame-ancestors 'none'";

/// Other sites hear nothing of where somebody came from. Not `no-referrer`, which a browser would take to mean that
/// the `Origin` of our own forms is kept from us too (Fetch, "append a request `Origin` header").
pub(crate) const REFERRER_POLICY: &str = "same-origin";

/// Where somebody signs in.
#[derive(Template)]
#[template(path = "login.html")]
pub(crate) struct LoginPage<'a> {
    /// The tenant's name for people.
    pub(crate) tenant_name: &'a str,
    /// Where the form is sent: a path of our own.
    pub(crate) action: &'a str,
    /// What was typed before; empty at first.
    pub(crate) username: &'a str,
    /// The token against forged forms, sent back as `csrf`; empty where the form has none.
    pub(crate) token: &'a str,
    /// Where to go afterwards, and what the form calls it. Sent back as it is: judged when it is used.
    pub(crate) target: Option<(&'a str, &'a str)>,
    /// Why the attempt before did not succeed.
    pub(crate) problem: Option<&'a str>,
    /// Other ways to sign in: where each begins, a path of our own, and what it is called.
    pub(crate) connections: Vec<(String, String)>,
}

/// What somebody who is signed in sees of their account.
#[derive(Template)]
#[template(path = "account.html")]
pub(crate) struct AccountPage<'a> {
    /// The tenant's name for people.
    pub(crate) tenant_name: &'a str,
    /// `/t/{slug}`.
    pub(crate) base: &'a str,
    /// Who is signed in.
    pub(crate) username: &'a str,
    /// Their e-mail address.
    pub(crate) email: Option<&'a str>,
    /// The token against forged forms, sent back as `csrf`.
    pub(crate) token: &'a str,
    /// Where they are signed in, in the order in which it is shown.
    pub(crate) sessions: Vec<SessionLine<'a>>,
    /// What a new password must be, as a sentence.
    pub(crate) password_rule: &'a str,
    /// Other ways in, in order of name.
    pub(crate) ways: Vec<WayLine>,
    /// What was done, shown at the top.
    pub(crate) notice: Option<&'a str>,
    /// Why the password was not changed, shown at its form.
    pub(crate) problem: Option<&'a str>,
    /// Why nothing was linked or unlinked, shown there.
    pub(crate) link_problem: Option<&'a str>,
}

/// A connection, as one's own way in or as one that could be.
pub(crate) struct WayLine {
    /// Its name, sent back as `connection`.
    pub(crate) name: String,
    /// What it is called.
    pub(crate) title: String,
    /// Who they are there, where they are linked.
    pub(crate) known_as: Option<String>,
}

/// A place where somebody is signed in.
pub(crate) struct SessionLine<'a> {
    /// What ends it, sent back as `id`.
    pub(crate) id: String,
    /// "Browser", "App".
    pub(crate) what: &'a str,
    /// What the program calls itself.
    pub(crate) agent: String,
    /// When they signed in there.
    pub(crate) begun: Moment,
    /// When it was last used.
    pub(crate) last_used: Moment,
    /// Whether it is the one that this page is shown in.
    pub(crate) current: bool,
}

/// A time, for programs and for people.
pub(crate) struct Moment {
    machine: String,
    shown: String,
}

impl From<DateTime<Utc>> for Moment {
    fn from(time: DateTime<Utc>) -> Self {
        Self { machine: time.to_rfc3339_opts(SecondsFormat::Secs, true), shown: time.format("%-d %B %Y, %H:%M UTC").to_string() }
    }
}

/// Asks whether somebody means to sign out: the request for it did not come from a page of ours.
#[derive(Template)]
#[template(path = "logout.html")]
pub(crate) struct LogoutPage<'a> {
    /// The tenant's name for people.
    pub(crate) tenant_name: &'a str,
    /// `/t/{slug}`.
    pub(crate) base: &'a str,
    /// Who is signed in, where that is known.
    pub(crate) username: Option<&'a str>,
    /// The token against forged forms, sent back as `csrf`.
    pub(crate) token: &'a str,
}

/// Where somebody asks for a key.
#[derive(Template)]
#[template(path = "request_key.html")]
pub(crate) struct RequestKeyPage<'a> {
    /// The tenant's name for people.
    pub(crate) tenant_name: &'a str,
    /// `/t/{slug}`.
    pub(crate) base: &'a str,
    /// What was typed before; empty at first.
    pub(crate) app_name: &'a str,
    /// Likewise.
    pub(crate) email: &'a str,
    /// Likewise.
    pub(crate) reason: &'a str,
    /// The token against forged forms, sent back as `csrf`.
    pub(crate) token: &'a str,
    /// Why the attempt before did not succeed.
    pub(crate) problem: Option<&'a str>,
}

/// What a link leads to: a question with one button, because programs open links too.
#[derive(Template)]
#[template(path = "button.html")]
pub(crate) struct ButtonPage<'a> {
    /// The tenant's name for people.
    pub(crate) tenant_name: &'a str,
    /// The heading.
    pub(crate) title: &'a str,
    /// What the button does.
    pub(crate) text: &'a str,
    /// The application that it is about.
    pub(crate) about: &'a str,
    /// Where the button leads: a path of our own.
    pub(crate) action: &'a str,
    /// What stands on it.
    pub(crate) button: &'a str,
    /// The token against forged forms, sent back as `csrf`.
    pub(crate) token: &'a str,
}

/// A key and its secret, shown this once.
#[derive(Template)]
#[template(path = "claimed.html")]
pub(crate) struct ClaimedPage<'a> {
    /// The tenant's name for people.
    pub(crate) tenant_name: &'a str,
    /// The key.
    pub(crate) api_key: &'a str,
    /// Its secret.
    pub(crate) api_secret: &'a str,
    /// What it may do, space-separated.
    pub(crate) scopes: &'a str,
    /// The day on which it ends.
    pub(crate) ends: Option<&'a str>,
    /// Where it is exchanged.
    pub(crate) endpoint: &'a str,
}

/// A few words: something was done, or could not be, and the way on.
#[derive(Template)]
#[template(path = "message.html")]
pub(crate) struct MessagePage<'a> {
    /// The tenant's name for people, where there is a tenant.
    pub(crate) tenant_name: Option<&'a str>,
    /// The heading.
    pub(crate) title: &'a str,
    /// What happened, and what to do now.
    pub(crate) text: &'a str,
    /// A path of our own, or where a provider takes people, never one that a request named; and what it is called.
    pub(crate) link: Option<(&'a str, &'a str)>,
}

/// Writes a page as HTML.
pub(crate) fn render(page: &impl Template) -> Answered<String> {
    page.render().map_err(|error| Failure::from(Fault::Internal(format!("a page could not be written: {error}"))).into())
}

/// A page, with the headers that belong to it. The border adds those of every answer.
pub(crate) fn respond(status: StatusCode, page: &impl Template) -> Answered<HttpResponse> {
    let html = render(page)?;
    Ok(HttpResponse::build(status)
        .insert_header((header::CONTENT_TYPE, "text/html; charset=utf-8"))
        .insert_header((header::CONTENT_SECURITY_POLICY, POLICY))
        .insert_header((header::REFERRER_POLICY, REFERRER_POLICY))
        .body(html))
}

/// A file that pages refer to. Its name says what is in it, so that it may be kept for ever.
struct Asset {
    name: String,
    content_type: &'static str,
    content: &'static str,
}

impl Asset {
    fn new(stem: &str, extension: &str, content_type: &'static str, content: &'static str) -> Self {
        let digest = hex(Sha256::digest(content).as_slice());
        let short = digest.get(..12).unwrap_or_default();
        Self { name: format!("{stem}.{short}.{extension}"), content_type, content }
    }

    fn path(&self) -> String {
        format!("/assets/{}", self.name)
    }
}

static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("pages", "css", "text/css; charset=utf-8", include_str!("../assets/pages.css")));
static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("favicon", "svg", "image/svg+xml", include_str!("../assets/favicon.svg")));

/// Where the style sheet is.
fn style_path() -> String {
    STYLE.path()
}

/// Where the icon is.
fn icon_path() -> String {
    ICON.path()
}

/// A file of the pages, under the name of its present content alone.
#[get("/assets/{file}")]
pub(crate) async fn asset(file: Path<String>) -> Answered<HttpResponse> {
    let kept = [&STYLE, &ICON].into_iter().find(|kept| kept.name == *file).ok_or_else(Answer::not_found)?;
    Ok(HttpResponse::Ok()
        .insert_header((header::CONTENT_TYPE, kept.content_type))
        .insert_header((header::CACHE_CONTROL, "public, max-age=31536000, immutable"))
        .body(kept.content))
}
