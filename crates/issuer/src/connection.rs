//! Connections: the providers and directories of others that a tenant's people log in through.
//!
//! What a connection says is a gift: whoever comes through it gets the roles that its map names. So nobody writes a
//! connection whose map holds more than they hold themselves. And where it leads never changes: its links say that whoever
//! is called so *there* is this person here.

use std::collections::{BTreeMap, BTreeSet};

use claviger_store::connection::{CONNECTION_TAKEN, Connection};
use claviger_store::id::{ConnectionId, TenantId};
use regex::{Regex, RegexBuilder};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use url::Url;

use crate::audit::{Actor, append};
use crate::directory::TenantEntry;
use crate::outbound::check_url;
use crate::role::checked_roles;
use crate::tenant::{check_name, is_slug};
use crate::{Failure, Fault, Issuer, Refusal};

/// Most connections of a tenant.
const MOST_CONNECTIONS: usize = 50;
/// Longest text of a setting, in bytes.
const LONGEST_TEXT: usize = 512;
/// Most entries of a list or map.
const MOST_ENTRIES: usize = 100;
/// Largest compiled pattern, in bytes.
const LARGEST_PATTERN: usize = 256 * 1024;

/// How a connection is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConnectionSettings {
    /// The other side.
    pub provider: Provider,
    /// What is read from what it says of somebody.
    pub mapping: Mapping,
    /// Whether somebody who is not linked gets an account.
    pub auto_create: bool,
    /// Whether roles of the map and attributes of the rules follow the provider at each login.
    pub sync: bool,
    /// Seconds, 0 to 31,622,400, after which a refresh of ours asks the provider whether this person still may; `None` never
    /// asks.
    pub recheck_after: Option<i32>,
    /// Whether clients with `tokens:upstream` get the provider's own access tokens of people who came through here.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub hand_out_tokens: bool,
}

/// The other side.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Provider {
    /// An OpenID Connect provider.
    Oidc(Oidc),
    /// A directory.
    Ldap(Ldap),
}

/// An OpenID Connect provider.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// Its issuer identifier, exactly as it says it; never changes.
    pub issuer: String,
    /// Who we are there.
    pub client_id: String,
    /// What we ask for; `openid` is always among it.
    pub scopes: Vec<String>,
    /// Whether its userinfo endpoint is asked too.
    pub userinfo: bool,
}

/// A directory (RFC 4511).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ldap {
    /// `ldaps://host` or `ldap://host`; never changes.
    pub url: String,
    /// Whether `ldap://` goes on under TLS (RFC 4511 §4.14); without it only this machine itself is asked.
    pub starttls: bool,
    /// The name of a person's entry with `{username}` in it; `None` searches for it.
    pub user_dn: Option<String>,
    /// Below which people are searched for.
    pub base: Option<String>,
    /// The filter that finds a person (RFC 4515), with `{username}` in it.
    pub filter: Option<String>,
    /// Who searches; the password is the connection's secret. `None` searches as nobody.
    pub bind_dn: Option<String>,
    /// The attribute that names an entry for ever; `dn` takes its name. Never changes.
    pub id_attribute: String,
    /// Below which groups are searched for.
    pub group_base: Option<String>,
    /// The filter that finds somebody's groups, with `{dn}` or `{username}` in it.
    pub group_filter: Option<String>,
    /// The attribute that names a group.
    pub group_attribute: String,
}

/// What is read from what the other side says of somebody: claims, or attributes of an entry.
///
/// A claim within another is named with a dot, any with `*`: `realm_access.roles`, `resource_access.*.roles`. A claim whose
/// name has dots itself is found under its whole name first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mapping {
    /// Claims that may name the account, the first that is there.
    pub username: Vec<String>,
    /// What a name must look like as a whole.
    pub username_pattern: Option<String>,
    /// The account's name with `$1` for the pattern's first group.
    pub username_format: Option<String>,
    /// The claim with the name for people.
    pub name: Option<String>,
    /// The claim with the e-mail address.
    pub email: Option<String>,
    /// Whether an address counts that the provider does not call verified.
    pub trust_email: bool,
    /// Claims with groups.
    pub groups: Vec<String>,
    /// Claims with roles.
    pub roles: Vec<String>,
    /// Our roles for a group or role of theirs; what is not named is dropped.
    pub role_map: BTreeMap<String, Vec<String>>,
    /// Our roles for everybody who comes.
    pub default_roles: Vec<String>,
    /// Groups or roles of theirs that somebody must have, all of them.
    pub required_groups: Vec<String>,
    /// Attributes of the person.
    pub attributes: Vec<AttributeRule>,
}

/// An attribute that is read from a claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttributeRule {
    /// The attribute's name.
    pub attribute: String,
    /// The claim.
    pub claim: String,
    /// What a value must look like as a whole; `None` takes any.
    pub pattern: Option<String>,
    /// The attribute's value with `$1` for the pattern's first group; `None` takes the claim's.
    pub value: Option<String>,
}

/// A connection to be made.
pub struct NewConnection {
    /// In addresses: 1 to 63 of `a-z 0-9 -`. Never changes.
    pub name: String,
    /// For people, on the login page; the name if absent.
    pub title: Option<String>,
    /// How it is used.
    pub settings: ConnectionSettings,
    /// The client's secret, or the password of who searches.
    pub secret: Option<SecretString>,
}

/// What to change of a connection; `None` leaves as it is.
#[derive(Default)]
pub struct ConnectionChange {
    /// For people.
    pub title: Option<String>,
    /// All about the other side.
    pub provider: Option<Provider>,
    /// All of what is read.
    pub mapping: Option<Mapping>,
    /// Whether somebody who is not linked gets an account.
    pub auto_create: Option<bool>,
    /// Whether roles of the map follow the provider.
    pub sync: Option<bool>,
    /// Seconds; `Some(None)` never asks.
    pub recheck_after: Option<Option<i32>>,
    /// Whether clients get the provider's access tokens.
    pub hand_out_tokens: Option<bool>,
    /// Its secret; `Some(None)` removes it.
    pub secret: Option<Option<SecretString>>,
    /// Whether it may be used.
    pub enabled: Option<bool>,
}

/// A connection with its settings read.
#[derive(Debug, Clone)]
pub struct ConnectionEntry {
    /// Its row.
    pub row: Connection,
    /// How it is used.
    pub settings: ConnectionSettings,
}

impl ConnectionEntry {
    /// A row as it is kept.
    pub(crate) fn of(row: Connection) -> Result<Self, Fault> {
        let settings = serde_json::from_value(row.settings.clone())
            .map_err(|error| Fault::Internal(format!("the settings of connection {}: {error}", row.id)))?;
        Ok(Self { row, settings })
    }

    /// Whether it may be used.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.row.disabled_at.is_none()
    }

    /// As the audit trail names it.
    pub(crate) fn audit_name(&self) -> String {
        format!("connection:{}", self.row.id)
    }
}

/// What the vault of connections' secrets is called.
pub(crate) const CONNECTIONS: &str = "connections";

/// Where a connection's secret is sealed.
pub(crate) fn secret_place(tenant: TenantId, id: ConnectionId) -> String {
    format!("connections:sealed_secret:{tenant}:{id}")
}

/// A pattern that must fit as a whole.
pub(crate) fn whole(pattern: &str) -> Option<Regex> {
    // By itself first: `a)|(b` would climb over what stands around it.
    RegexBuilder::new(pattern).size_limit(LARGEST_PATTERN).build().ok()?;
    RegexBuilder::new(&format!("^(?:{pattern})$")).size_limit(LARGEST_PATTERN).build().ok()
}

fn is_text(text: &str) -> bool {
    (1..=LONGEST_TEXT).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn check_texts(field: &'static str, texts: &[String]) -> Result<(), Refusal> {
    match texts.len() <= MOST_ENTRIES && texts.iter().all(|text| is_text(text)) {
        true => Ok(()),
        false => Err(Refusal::invalid(
            field,
            format!("has at most {MOST_ENTRIES} texts of 1 to {LONGEST_TEXT} bytes, without control characters"),
        )),
    }
}

fn check_pattern(field: &'static str, pattern: Option<&String>) -> Result<(), Refusal> {
    match pattern.is_none_or(|pattern| is_text(pattern) && whole(pattern).is_some()) {
        true => Ok(()),
        false => Err(Refusal::invalid(field, "is no regular expression, or too large a one")),
    }
}

impl Mapping {
    /// Our roles that it can give.
    pub(crate) fn gifts(&self) -> BTreeSet<&str> {
        self.role_map.values().flatten().chain(&self.default_roles).map(String::as_str).collect()
    }

    fn check(&self) -> Result<(), Refusal> {
        let Self {
            username,
            username_pattern,
            username_format,
            name,
            email,
            trust_email: _,
            groups,
            roles,
            role_map,
            default_roles,
            required_groups,
            attributes,
        } = self;
        check_texts("username", username)?;
        if username.is_empty() {
            return Err(Refusal::invalid("username", "names at least one claim, such as preferred_username"));
        }
        check_pattern("username_pattern", username_pattern.as_ref())?;
        if username_format.is_some() && username_pattern.is_none() {
            return Err(Refusal::invalid("username_format", "needs `username_pattern`, whose groups it names"));
        }
        check_texts("username_format", username_format.as_slice())?;
        check_texts("name", name.as_slice())?;
        check_texts("email", email.as_slice())?;
        check_texts("groups", groups)?;
        check_texts("roles", roles)?;
        check_texts("required_groups", required_groups)?;
        check_texts("role_map", &role_map.keys().cloned().collect::<Vec<_>>())?;
        let all: Vec<String> = self.gifts().into_iter().map(str::to_owned).collect();
        checked_roles(&all).map_err(|refusal| match refusal {
            Refusal::Invalid { problem, .. } => Refusal::invalid("role_map", format!("and `default_roles` {problem}")),
            other => other,
        })?;
        if default_roles.len() > MOST_ENTRIES || attributes.len() > MOST_ENTRIES {
            return Err(Refusal::invalid("attributes", format!("and `default_roles` have at most {MOST_ENTRIES} entries")));
        }
        for AttributeRule { attribute, claim, pattern, value } in attributes {
            if !crate::attribute::is_attribute(attribute) {
                return Err(Refusal::invalid("attributes", "are named by 1 to 64 letters, digits, `_`, `.` and `-`"));
            }
            check_texts("attributes", std::slice::from_ref(claim))?;
            check_texts("attributes", value.as_slice())?;
            check_pattern("attributes", pattern.as_ref())?;
            if value.is_some() && pattern.is_none() {
                return Err(Refusal::invalid("attributes", "have a `value` only with a `pattern`, whose groups it names"));
            }
        }
        Ok(())
    }
}

fn url_of(field: &'static str, text: &str) -> Result<Url, Refusal> {
    let url = Url::parse(text).map_err(|_| Refusal::invalid(field, "is not a URL"))?;
    match url.host().is_some() && url.username().is_empty() && url.password().is_none() && url.fragment().is_none() {
        true if text.len() <= LONGEST_TEXT => Ok(url),
        _ => Err(Refusal::invalid(field, "is a URL with a host, without user and fragment, of at most 512 bytes")),
    }
}

fn is_attribute(text: &str) -> bool {
    (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b';' | b'.'))
}

impl Ldap {
    fn check(&self) -> Result<(), Refusal> {
        let Self { url, starttls, user_dn, base, filter, bind_dn, id_attribute, group_base, group_filter, group_attribute } =
            self;
        let parsed = url_of("url", url)?;
        if !matches!(parsed.scheme(), "ldaps" | "ldap") || !matches!(parsed.path(), "" | "/") || parsed.query().is_some() {
            return Err(Refusal::invalid("url", "is ldaps://host or ldap://host, with a port or without"));
        }
        if *starttls && parsed.scheme() == "ldaps" {
            return Err(Refusal::invalid("starttls", "is for ldap://: ldaps:// is under TLS from the beginning"));
        }
        for (field, text) in [
            ("user_dn", user_dn),
            ("base", base),
            ("filter", filter),
            ("bind_dn", bind_dn),
            ("group_base", group_base),
            ("group_filter", group_filter),
        ] {
            check_texts(field, text.as_slice())?;
        }
        let names = |text: &Option<String>, place: &str| text.as_ref().is_some_and(|text| text.contains(place));
        match (user_dn, base, filter) {
            (Some(_), None, None) if names(user_dn, "{username}") => {}
            (None, Some(_), Some(_)) if names(filter, "{username}") => {}
            _ => {
                let problem = "names a person's entry with `{username}` in it; or else `base` and `filter` find it, the filter \
                               with `{username}` in it";
                return Err(Refusal::invalid("user_dn", problem));
            }
        }
        if group_base.is_some() != group_filter.is_some() {
            return Err(Refusal::invalid("group_base", "and `group_filter` go together"));
        }
        if group_filter.is_some() && !names(group_filter, "{dn}") && !names(group_filter, "{username}") {
            return Err(Refusal::invalid("group_filter", "has `{dn}` or `{username}` in it"));
        }
        let filters = [filter, group_filter].into_iter().flatten();
        if let Some(bad) = filters
            .map(|text| text.replace("{username}", "x").replace("{dn}", "x"))
            .find(|text| ldap3::parse_filter(text).is_err())
        {
            return Err(Refusal::invalid("filter", format!("or `group_filter` is no filter (RFC 4515): {bad}")));
        }
        match is_attribute(id_attribute) && is_attribute(group_attribute) {
            true => Ok(()),
            false => {
                Err(Refusal::invalid("id_attribute", "and `group_attribute` are names of attributes, such as entryUUID, cn"))
            }
        }
    }
}

impl Oidc {
    /// True for a `scope-token` (RFC 6749 §3.3).
    fn is_scope(text: &str) -> bool {
        (1..=128).contains(&text.len()) && text.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
    }

    fn check(&self) -> Result<(), Refusal> {
        let Self { issuer, client_id, scopes, userinfo: _ } = self;
        let url = url_of("issuer", issuer)?;
        check_url(&url).map_err(|problem| Refusal::invalid("issuer", problem))?;
        if url.query().is_some() {
            return Err(Refusal::invalid("issuer", "has no query (OpenID Connect Discovery §3)"));
        }
        check_texts("client_id", std::slice::from_ref(client_id))?;
        if scopes.len() > MOST_ENTRIES || !scopes.iter().all(|scope| Self::is_scope(scope)) {
            return Err(Refusal::invalid("scopes", "are names without spaces, such as openid, profile, email"));
        }
        Ok(())
    }
}

impl ConnectionSettings {
    /// `oidc` or `ldap`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self.provider {
            Provider::Oidc(_) => "oidc",
            Provider::Ldap(_) => "ldap",
        }
    }

    /// Refuses what cannot be used.
    pub fn check(&self) -> Result<(), Refusal> {
        let Self { provider, mapping, auto_create: _, sync: _, recheck_after, hand_out_tokens } = self;
        match provider {
            Provider::Oidc(oidc) => oidc.check()?,
            Provider::Ldap(ldap) => ldap.check()?,
        }
        mapping.check()?;
        match recheck_after {
            Some(seconds) if !(0..=31_622_400).contains(seconds) => {
                Err(Refusal::invalid("recheck_after", "is 0 to 31622400 seconds"))
            }
            Some(_) if matches!(provider, Provider::Ldap(_)) => {
                Err(Refusal::invalid("recheck_after", "is for OpenID Connect: a directory is asked at each login alone"))
            }
            _ if *hand_out_tokens && matches!(provider, Provider::Ldap(_)) => {
                Err(Refusal::invalid("hand_out_tokens", "is for OpenID Connect: a directory gives no tokens"))
            }
            _ => Ok(()),
        }
    }

    /// Where it leads must stay: links are worth what they were worth there.
    fn check_leads_as(&self, before: &Self) -> Result<(), Refusal> {
        let field = match (&before.provider, &self.provider) {
            (Provider::Oidc(before), Provider::Oidc(now)) => (before.issuer != now.issuer).then_some("issuer"),
            (Provider::Ldap(before), Provider::Ldap(now)) if before.url != now.url => Some("url"),
            (Provider::Ldap(before), Provider::Ldap(now)) => (before.id_attribute != now.id_attribute).then_some("id_attribute"),
            _ => Some("kind"),
        };
        match field {
            Some(field) => Err(Refusal::invalid(field, "never changes: people are linked to it. Make another connection")),
            None => Ok(()),
        }
    }
}

fn as_json(settings: &ConnectionSettings) -> Result<serde_json::Value, Fault> {
    serde_json::to_value(settings).map_err(|error| Fault::Internal(error.to_string()))
}

impl Issuer {
    /// Makes a connection.
    pub async fn create_connection(
        &self,
        tenant: &TenantEntry,
        actor: &Actor,
        new: NewConnection,
    ) -> Result<ConnectionEntry, Failure> {
        let now = self.clock.now();
        let NewConnection { name, title, settings, secret } = new;
        if !is_slug(&name) {
            return Err(Refusal::invalid("name", "is 1 to 63 of a-z, 0-9 and -, and neither begins nor ends with -").into());
        }
        let title = title.unwrap_or_else(|| name.clone());
        check_name("title", &title)?;
        self.check_connection(tenant, actor, &settings)?;
        let (id, tenant) = (ConnectionId(self.random.uuid_at(now)), tenant.tenant.id);
        let row = Connection {
            id,
            name: name.clone(),
            title,
            kind: settings.kind().into(),
            settings: as_json(&settings)?,
            sealed_secret: self.sealed_secret(tenant, id, secret.as_ref())?,
            created_at: now,
            updated_at: now,
            disabled_at: None,
        };
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        // One after the other, so that the number holds.
        scoped.lock_tenant().await?;
        if scoped.connections().await?.len() >= MOST_CONNECTIONS {
            return Err(Refusal::Conflict(format!("a tenant has at most {MOST_CONNECTIONS} connections")).into());
        }
        scoped.create_connection(&row).await.map_err(|error| match error.unique_violation() {
            Some(CONNECTION_TAKEN) => Refusal::Conflict(format!("there is a connection `{name}` already")).into(),
            _ => Failure::from(error),
        })?;
        let detail = json!({ "name": name, "settings": row.settings, "secret": row.sealed_secret.is_some() });
        let deed = actor.did("connection.create", format!("connection:{id}"), detail, now);
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        tx.commit().await?;
        Ok(ConnectionEntry { row, settings })
    }

    fn check_connection(&self, tenant: &TenantEntry, actor: &Actor, settings: &ConnectionSettings) -> Result<(), Refusal> {
        settings.check()?;
        let plain_field = match &settings.provider {
            Provider::Oidc(oidc) => (!self.outbound.may_be_asked(&oidc.issuer, true)).then_some("issuer"),
            Provider::Ldap(ldap) => (!self.outbound.may_be_asked(&ldap.url, !ldap.starttls)).then_some("url"),
        };
        if let Some(field) = plain_field {
            let problem = "is under TLS, and not at an address of this machine or its network, unless the operator lists it in \
                           `outbound_allow`";
            return Err(Refusal::invalid(field, problem));
        }
        let gifts: Vec<&str> = settings.mapping.gifts().into_iter().collect();
        actor.authority.check_gives_roles(&tenant.catalogue, &gifts)
    }

    fn sealed_secret(
        &self,
        tenant: TenantId,
        id: ConnectionId,
        secret: Option<&SecretString>,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let Some(secret) = secret else { return Ok(None) };
        let text = secret.expose_secret();
        if !(1..=1024).contains(&text.len()) || text.contains('\0') {
            return Err(Refusal::invalid("secret", "is 1 to 1024 bytes").into());
        }
        let sealed = self.connection_vault.seal(&secret_place(tenant, id), text.as_bytes(), &self.random);
        Ok(Some(sealed.map_err(|_| Fault::Internal("a connection's secret could not be sealed".into()))?))
    }

    /// A connection's secret.
    pub(crate) fn connection_secret(&self, tenant: TenantId, row: &Connection) -> Result<Option<SecretString>, Failure> {
        let Some(sealed) = &row.sealed_secret else { return Ok(None) };
        let opened = self.connection_vault.open(&secret_place(tenant, row.id), sealed);
        let opened = opened.map_err(|_| Fault::Internal("a connection's secret does not open".into()))?;
        let text = String::from_utf8(opened.to_vec()).map_err(|_| Fault::Internal("a connection's secret is no text".into()))?;
        Ok(Some(SecretString::from(text)))
    }

    /// All connections, in order of name.
    pub async fn list_connections(&self, tenant: TenantId) -> Result<Vec<ConnectionEntry>, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        let rows = tx.tenant(tenant).await?.connections().await?;
        Ok(rows.into_iter().map(ConnectionEntry::of).collect::<Result<_, _>>()?)
    }

    /// The connection of that id.
    pub async fn find_connection(&self, tenant: TenantId, id: ConnectionId) -> Result<ConnectionEntry, Failure> {
        let mut tx = self.store.begin_in(tenant).await?;
        let row = tx.tenant(tenant).await?.connection(id).await?.ok_or(Refusal::NotFound)?;
        Ok(ConnectionEntry::of(row)?)
    }

    /// The connection of that name.
    pub async fn find_connection_by_name(&self, tenant: TenantId, name: &str) -> Result<ConnectionEntry, Failure> {
        if !is_slug(name) {
            return Err(Refusal::NotFound.into());
        }
        let mut tx = self.store.begin_in(tenant).await?;
        let row = tx.tenant(tenant).await?.connection_by_name(name).await?.ok_or(Refusal::NotFound)?;
        Ok(ConnectionEntry::of(row)?)
    }

    /// Changes a connection. When it is disabled, all that came through it ends.
    pub async fn change_connection(
        &self,
        tenant: &TenantEntry,
        actor: &Actor,
        id: ConnectionId,
        change: ConnectionChange,
    ) -> Result<ConnectionEntry, Failure> {
        let now = self.clock.now();
        let ConnectionChange { title, provider, mapping, auto_create, sync, recheck_after, hand_out_tokens, secret, enabled } =
            change;
        let entry = tenant;
        let tenant = entry.tenant.id;
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        if !scoped.lock_connection(id).await? {
            return Err(Refusal::NotFound.into());
        }
        let before = ConnectionEntry::of(scoped.connection(id).await?.ok_or(Refusal::NotFound)?)?;
        let target = before.audit_name();
        let mut deeds = Vec::new();
        let settings = ConnectionSettings {
            provider: provider.unwrap_or_else(|| before.settings.provider.clone()),
            mapping: mapping.unwrap_or_else(|| before.settings.mapping.clone()),
            auto_create: auto_create.unwrap_or(before.settings.auto_create),
            sync: sync.unwrap_or(before.settings.sync),
            recheck_after: recheck_after.unwrap_or(before.settings.recheck_after),
            hand_out_tokens: hand_out_tokens.unwrap_or(before.settings.hand_out_tokens),
        };
        settings.check_leads_as(&before.settings)?;
        let says_more = settings != before.settings || secret.is_some();
        // Whoever lets people in by it gives what it gives.
        if says_more || enabled == Some(true) {
            self.check_connection(entry, actor, &settings)?;
        }
        if says_more || title.is_some() {
            let title = title.unwrap_or(before.row.title);
            check_name("title", &title)?;
            let secret_changed = secret.is_some();
            let sealed = match secret {
                Some(secret) => self.sealed_secret(tenant, id, secret.as_ref())?,
                None => before.row.sealed_secret,
            };
            let kept = as_json(&settings)?;
            scoped.update_connection(id, &title, &kept, sealed.as_deref(), now).await?;
            let detail = json!({ "title": title, "settings": kept, "secret_changed": secret_changed });
            deeds.push(actor.did("connection.update", &target, detail, now));
        }
        let mut families = Vec::new();
        if let Some(enabled) = enabled
            && scoped.set_connection_disabled(id, (!enabled).then_some((now, actor.name.as_str()))).await?
        {
            let action = if enabled { "connection.enable" } else { "connection.disable" };
            deeds.push(actor.did(action, &target, json!({}), now));
            if !enabled {
                families = scoped.end_connection_logins(id, None, now, &actor.name).await?;
            }
        }
        append(&mut scoped, tenant, &self.chain_key, &self.random, deeds).await?;
        let after = scoped.connection(id).await?.ok_or(Refusal::NotFound)?;
        self.commit_logins(tx, tenant, None, &families).await?;
        Ok(ConnectionEntry::of(after)?)
    }

    /// Removes a connection: its links go, and all that came through it ends. People stay.
    pub async fn delete_connection(&self, tenant: TenantId, actor: &Actor, id: ConnectionId) -> Result<(), Failure> {
        let now = self.clock.now();
        let mut tx = self.store.begin_in(tenant).await?;
        let mut scoped = tx.tenant(tenant).await?;
        if !scoped.lock_connection(id).await? {
            return Err(Refusal::NotFound.into());
        }
        let families = scoped.end_connection_logins(id, None, now, &actor.name).await?;
        scoped.delete_connection(id).await?;
        let deed = actor.did("connection.delete", format!("connection:{id}"), json!({}), now);
        append(&mut scoped, tenant, &self.chain_key, &self.random, [deed]).await?;
        self.commit_logins(tx, tenant, None, &families).await
    }
}
