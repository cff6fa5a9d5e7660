//! Connections: the providers and directories of others that a tenant's people log in through.

use std::collections::BTreeMap;

use actix_web::web::{Data, Json, Path};
use actix_web::{HttpResponse, delete, get, patch, post};
use chrono::{DateTime, Utc};
use claviger_issuer::connection::{
    AttributeRule, ConnectionChange, ConnectionEntry, ConnectionSettings, Ldap, Mapping, NewConnection, Oidc, Provider,
};
use claviger_issuer::{Issuer, TenantEntry};
use claviger_store::id::ConnectionId;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::body::{Body, Object, present};
use crate::caller::{Caller, ConnectionsRead, ConnectionsWrite};
use crate::page::Page;
use crate::problem::{Answer, Answered};

/// An OpenID Connect provider.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct OidcIn {
    /// Its issuer identifier, exactly as it says it; everything else is found from there. Never changes.
    #[schema(example = "https://login.example.com/realms/staff")]
    issuer: String,
    /// Who we are there.
    #[schema(example = "claviger")]
    client_id: String,
    /// What we ask for; `openid`, `profile` and `email` if absent. `offline_access` where the provider wants that for a refresh
    /// token.
    #[schema(example = json!(["openid", "profile", "email"]))]
    scopes: Option<Vec<String>>,
    /// Whether its userinfo endpoint is asked too; true if absent.
    userinfo: Option<bool>,
}

impl From<OidcIn> for Oidc {
    fn from(oidc: OidcIn) -> Self {
        let OidcIn { issuer, client_id, scopes, userinfo } = oidc;
        let scopes = scopes.unwrap_or_else(|| ["openid", "profile", "email"].map(str::to_owned).to_vec());
        Self { issuer, client_id, scopes, userinfo: userinfo.unwrap_or(true) }
    }
}

/// A directory (LDAP, RFC 4511). Its people log in with their password as others do.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct LdapIn {
    /// `ldaps://host` or `ldap://host`. Never changes.
    #[schema(example = "ldaps://ldap.example.com")]
    url: String,
    /// Whether `ldap://` goes on under TLS.
    #[serde(default)]
    starttls: bool,
    /// The name of a person's entry. Instead of it, `base` and `filter` find it.
    #[schema(example = "uid={username},ou=people,dc=example,dc=com")]
    user_dn: Option<String>,
    /// Below which people are searched for.
    #[schema(example = "ou=people,dc=example,dc=com")]
    base: Option<String>,
    /// What finds a person.
    #[schema(example = "(&(objectClass=person)(uid={username}))")]
    filter: Option<String>,
    /// Who searches; the password is `secret`. Absent searches as nobody.
    #[schema(example = "cn=reader,dc=example,dc=com")]
    bind_dn: Option<String>,
    /// The attribute that names an entry for ever, `entryUUID` if absent; `dn` takes the entry's name. Never changes.
    #[schema(example = "entryUUID")]
    id_attribute: Option<String>,
    /// Below which groups are searched for.
    #[schema(example = "ou=groups,dc=example,dc=com")]
    group_base: Option<String>,
    /// What finds somebody's groups, by `{dn}` or `{username}`.
    #[schema(example = "(member={dn})")]
    group_filter: Option<String>,
    /// The attribute that names a group; `cn` if absent.
    #[schema(example = "cn")]
    group_attribute: Option<String>,
}

impl From<LdapIn> for Ldap {
    fn from(ldap: LdapIn) -> Self {
        let LdapIn { url, starttls, user_dn, base, filter, bind_dn, id_attribute, group_base, group_filter, group_attribute } =
            ldap;
        Self {
            url,
            starttls,
            user_dn,
            base,
            filter,
            bind_dn,
            id_attribute: id_attribute.unwrap_or_else(|| "entryUUID".into()),
            group_base,
            group_filter,
            group_attribute: group_attribute.unwrap_or_else(|| "cn".into()),
        }
    }
}

/// What is read from claims, or from a directory's attributes. A claim within another is named with a dot, any with `*`.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct MappingIn {
    /// Claims that may name a new account, the first that is there. `preferred_username`, `email` and `sub` if absent; `uid`
    /// for a directory.
    #[schema(example = json!(["preferred_username"]))]
    username: Option<Vec<String>>,
    /// A regular expression that a name must fit as a whole.
    #[schema(example = "([a-z0-9.]+)@example\\.com")]
    username_pattern: Option<String>,
    /// The account's name, with `$1` for the pattern's first group; that group itself if absent.
    #[schema(example = "staff-$1")]
    username_format: Option<String>,
    /// The claim with the name for people; `name` if absent, `cn` for a directory.
    name: Option<String>,
    /// The claim with the e-mail address; `email` if absent, `mail` for a directory.
    email: Option<String>,
    /// Whether an address counts that the provider does not call verified; false if absent.
    #[serde(default)]
    trust_email: bool,
    /// Claims with groups; `groups` if absent.
    #[schema(example = json!(["groups"]))]
    groups: Option<Vec<String>>,
    /// Claims with roles.
    #[serde(default)]
    #[schema(example = json!(["realm_access.roles", "resource_access.*.roles"]))]
    roles: Vec<String>,
    /// Our roles for a group or role of theirs. What is not named is dropped. Nobody names a role that holds more than they do.
    #[serde(default)]
    #[schema(example = json!({ "hpc-admins": ["admin", "api"] }))]
    role_map: BTreeMap<String, Vec<String>>,
    /// Our roles for everybody who comes.
    #[serde(default)]
    #[schema(example = json!(["user"]))]
    default_roles: Vec<String>,
    /// Groups or roles of theirs that somebody must have, all of them.
    #[serde(default)]
    #[schema(example = json!(["staff"]))]
    required_groups: Vec<String>,
    /// Attributes of the person, read by rules.
    #[serde(default)]
    #[schema(value_type = Vec<AttributeRuleIn>)]
    attributes: Vec<Object<AttributeRuleIn>>,
}

/// An attribute that is read from a claim.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct AttributeRuleIn {
    /// The attribute's name.
    #[schema(example = "clearance")]
    attribute: String,
    /// The claim.
    #[schema(example = "clearance_level")]
    claim: String,
    /// A regular expression that a value must fit as a whole; any if absent.
    #[schema(example = "level-(\\d)")]
    pattern: Option<String>,
    /// The attribute's value, with `$1` for the pattern's first group; the claim's if absent.
    #[schema(example = "L$1")]
    value: Option<String>,
}

impl MappingIn {
    fn read(self, kind: &str) -> Mapping {
        let Self {
            username,
            username_pattern,
            username_format,
            name,
            email,
            trust_email,
            groups,
            roles,
            role_map,
            default_roles,
            required_groups,
            attributes,
        } = self;
        let (names, shown, address) = match kind {
            "ldap" => (vec!["uid"], "cn", "mail"),
            _ => (vec!["preferred_username", "email", "sub"], "name", "email"),
        };
        let rule = |rule: Object<AttributeRuleIn>| {
            let AttributeRuleIn { attribute, claim, pattern, value } = rule.0;
            AttributeRule { attribute, claim, pattern, value }
        };
        Mapping {
            username: username.unwrap_or_else(|| names.into_iter().map(str::to_owned).collect()),
            username_pattern,
            username_format,
            name: Some(name.unwrap_or_else(|| shown.into())),
            email: Some(email.unwrap_or_else(|| address.into())),
            trust_email,
            groups: groups.unwrap_or_else(|| vec!["groups".into()]),
            roles,
            role_map,
            default_roles,
            required_groups,
            attributes: attributes.into_iter().map(rule).collect(),
        }
    }
}

/// A connection to be made: with `oidc` or with `ldap`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectionIn {
    /// In addresses: 1 to 63 of `a-z 0-9 -`. Unique in the tenant; never changes.
    #[schema(example = "staff")]
    name: String,
    /// For people, on the login page; the name if absent.
    #[schema(example = "Example staff")]
    title: Option<String>,
    /// An OpenID Connect provider.
    #[schema(value_type = Option<OidcIn>)]
    oidc: Option<Object<OidcIn>>,
    /// A directory.
    #[schema(value_type = Option<LdapIn>)]
    ldap: Option<Object<LdapIn>>,
    /// The client's secret, or the password of `bind_dn`. Never shown again.
    #[schema(value_type = Option<String>, format = Password)]
    secret: Option<SecretString>,
    /// What is read from what the other side says.
    #[schema(value_type = Option<MappingIn>)]
    mapping: Option<Object<MappingIn>>,
    /// Whether somebody who is not linked gets an account; false if absent.
    #[serde(default)]
    auto_create: bool,
    /// Whether roles of the map, attributes of the rules and a verified address follow the other side at each login; true if
    /// absent.
    sync: Option<bool>,
    /// Seconds after which a refresh asks the provider whether this person still may; never if absent.
    #[schema(minimum = 0, maximum = 31_622_400, example = 3600)]
    recheck_after: Option<i32>,
    /// Whether clients with `tokens:upstream` get the provider's own access tokens of people who came through here.
    #[serde(default)]
    hand_out_tokens: bool,
}

impl ConnectionIn {
    /// What is to be made.
    pub(crate) fn read(self) -> Answered<NewConnection> {
        let Self { name, title, oidc, ldap, secret, mapping, auto_create, sync, recheck_after, hand_out_tokens } = self;
        let provider = match (oidc, ldap) {
            (Some(oidc), None) => Provider::Oidc(oidc.0.into()),
            (None, Some(ldap)) => Provider::Ldap(ldap.0.into()),
            _ => return Err(Answer::unprocessable("oidc", "Send either `oidc` or `ldap`: what is on the other side.")),
        };
        let kind = kind_of(&provider);
        let mapping = mapping.map_or_else(MappingIn::default, |mapping| mapping.0).read(kind);
        let sync = sync.unwrap_or(true);
        let settings = ConnectionSettings { provider, mapping, auto_create, sync, recheck_after, hand_out_tokens };
        Ok(NewConnection { name, title, settings, secret })
    }

    /// A provider with everything else as it usually is.
    pub(crate) fn plain(name: String, title: Option<String>, issuer: String, client_id: String, auto_create: bool) -> Self {
        let oidc = OidcIn { issuer, client_id, scopes: None, userinfo: None };
        Self {
            name,
            title,
            oidc: Some(Object(oidc)),
            ldap: None,
            secret: None,
            mapping: None,
            auto_create,
            sync: None,
            recheck_after: None,
            hand_out_tokens: false,
        }
    }
}

fn kind_of(provider: &Provider) -> &'static str {
    match provider {
        Provider::Oidc(_) => "oidc",
        Provider::Ldap(_) => "ldap",
    }
}

/// What to change of a connection; what is absent stays. `oidc`, `ldap` and `mapping` are replaced as a whole.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ConnectionChangeIn {
    /// For people.
    title: Option<String>,
    /// The provider: `issuer` must be the same.
    #[schema(value_type = Option<OidcIn>)]
    oidc: Option<Object<OidcIn>>,
    /// The directory: `url` and `id_attribute` must be the same.
    #[schema(value_type = Option<LdapIn>)]
    ldap: Option<Object<LdapIn>>,
    /// `null` removes it.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>, format = Password)]
    secret: Option<Option<SecretString>>,
    /// What is read from what the other side says.
    #[schema(value_type = Option<MappingIn>)]
    mapping: Option<Object<MappingIn>>,
    /// Whether somebody who is not linked gets an account.
    auto_create: Option<bool>,
    /// Whether roles of the map and attributes of the rules follow the other side.
    sync: Option<bool>,
    /// Seconds; `null` never asks.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<i32>, minimum = 0, maximum = 31_622_400)]
    recheck_after: Option<Option<i32>>,
    /// Whether clients with `tokens:upstream` get the provider's own access tokens.
    hand_out_tokens: Option<bool>,
    /// Whether it may be used. When it is disabled, all logins that came through it end.
    enabled: Option<bool>,
}

impl ConnectionChangeIn {
    /// What is to be changed of a connection of this kind.
    pub(crate) fn read(self, kind: &str) -> Answered<ConnectionChange> {
        let Self { title, oidc, ldap, secret, mapping, auto_create, sync, recheck_after, hand_out_tokens, enabled } = self;
        let provider = match (oidc, ldap) {
            (None, None) => None,
            (Some(oidc), None) => Some(Provider::Oidc(oidc.0.into())),
            (None, Some(ldap)) => Some(Provider::Ldap(ldap.0.into())),
            (Some(_), Some(_)) => return Err(Answer::unprocessable("ldap", "Send either `oidc` or `ldap`.")),
        };
        let mapping = mapping.map(|mapping| mapping.0.read(kind));
        Ok(ConnectionChange { title, provider, mapping, auto_create, sync, recheck_after, hand_out_tokens, secret, enabled })
    }
}

/// A connection.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct ConnectionView {
    /// Its id.
    pub(crate) id: Uuid,
    /// In addresses.
    #[schema(example = "staff")]
    pub(crate) name: String,
    /// For people.
    #[schema(example = "Example staff")]
    title: String,
    /// `oidc` or `ldap`.
    #[schema(example = "oidc")]
    pub(crate) kind: &'static str,
    /// The provider.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<OidcIn>)]
    oidc: Option<Value>,
    /// The directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<LdapIn>)]
    ldap: Option<Value>,
    /// Whether it has a secret.
    has_secret: bool,
    /// What is read from what the other side says.
    #[schema(value_type = MappingIn)]
    mapping: Value,
    /// Whether somebody who is not linked gets an account.
    auto_create: bool,
    /// Whether roles of the map and attributes of the rules follow the other side.
    sync: bool,
    /// Seconds; `null` never asks.
    recheck_after: Option<i32>,
    /// Whether clients with `tokens:upstream` get the provider's own access tokens.
    hand_out_tokens: bool,
    /// Whether it may be used.
    pub(crate) enabled: bool,
    /// Where the provider must be told to send people back to; `null` for a directory.
    #[schema(example = "https://id.example.com/t/acme/login/staff/callback")]
    pub(crate) redirect_uri: Option<String>,
    /// The same for logins of Howler's dialect, where the tenant speaks it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "https://id.example.com/t/how/api/v1/auth/login?provider=staff")]
    pub(crate) howler_redirect_uri: Option<String>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl ConnectionView {
    /// A connection of this tenant.
    pub(crate) fn of(tenant: &TenantEntry, connection: &ConnectionEntry) -> Self {
        let ConnectionEntry { row, settings } = connection;
        let ConnectionSettings { provider, mapping, auto_create, sync, recheck_after, hand_out_tokens } = settings;
        let json = |value: Result<Value, _>| value.unwrap_or_default();
        let (oidc, ldap) = match provider {
            Provider::Oidc(oidc) => (Some(json(serde_json::to_value(oidc))), None),
            Provider::Ldap(ldap) => (None, Some(json(serde_json::to_value(ldap)))),
        };
        let howler = tenant.settings.dialects.howler.as_ref();
        Self {
            id: row.id.0,
            name: row.name.clone(),
            title: row.title.clone(),
            kind: settings.kind(),
            redirect_uri: oidc.is_some().then(|| Issuer::redirect_uri(tenant, &row.name)),
            howler_redirect_uri: howler.filter(|_| oidc.is_some()).map(|howler| howler.redirect_uri(&tenant.issuer, &row.name)),
            oidc,
            ldap,
            has_secret: row.sealed_secret.is_some(),
            mapping: json(serde_json::to_value(mapping)),
            auto_create: *auto_create,
            sync: *sync,
            recheck_after: *recheck_after,
            hand_out_tokens: *hand_out_tokens,
            enabled: connection.is_enabled(),
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// Make a connection
///
/// Tell the provider the connection's `redirect_uri`. Roles in the map are gifts: whoever makes the connection must hold what
/// they hold.
#[utoipa::path(
    tag = "Connections",
    operation_id = "createConnection",
    request_body(content = ConnectionIn, example = json!({
        "name": "staff", "title": "Example staff",
        "oidc": { "issuer": "https://login.example.com/realms/staff", "client_id": "claviger" }, "secret": "the client's secret",
        "mapping": { "roles": ["realm_access.roles"], "role_map": { "editor": ["editor"] }, "default_roles": ["user"] },
        "auto_create": true
    })),
    responses(
        (status = 201, description = "The connection", body = ConnectionView),
        (status = 403, description = "It would give more than the caller holds (`insufficient_scope`)", body = crate::problem::Problem),
        (status = 409, description = "The name is taken", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong", body = crate::problem::Problem),
    ),
    security(("bearer" = ["connections:write"]), ("basic" = ["connections:write"])),
)]
#[post("/v1/connections")]
pub(crate) async fn create(
    caller: Caller<ConnectionsWrite>,
    issuer: Data<Issuer>,
    body: Body<ConnectionIn>,
) -> Answered<HttpResponse> {
    let tenant = caller.who.tenant();
    let connection = issuer.create_connection(tenant, &caller.actor(), body.take()?.read()?).await?;
    Ok(HttpResponse::Created().json(ConnectionView::of(tenant, &connection)))
}

/// List connections
#[utoipa::path(
    tag = "Connections",
    operation_id = "listConnections",
    responses((status = 200, description = "All of them, in order of name", body = Page<ConnectionView>)),
    security(("bearer" = ["connections:read"]), ("basic" = ["connections:read"])),
)]
#[get("/v1/connections")]
pub(crate) async fn list(caller: Caller<ConnectionsRead>, issuer: Data<Issuer>) -> Answered<Json<Page<ConnectionView>>> {
    let tenant = caller.who.tenant();
    let connections = issuer.list_connections(caller.tenant()).await?;
    let items = connections.iter().map(|connection| ConnectionView::of(tenant, connection)).collect();
    Ok(Json(Page { items, next: None }))
}

/// Show a connection
#[utoipa::path(
    tag = "Connections",
    operation_id = "showConnection",
    params(("id" = Uuid, Path, description = "The connection's id")),
    responses(
        (status = 200, description = "The connection", body = ConnectionView),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
    ),
    security(("bearer" = ["connections:read"]), ("basic" = ["connections:read"])),
)]
#[get("/v1/connections/{id}")]
pub(crate) async fn show(
    caller: Caller<ConnectionsRead>,
    issuer: Data<Issuer>,
    path: Path<ConnectionInPath>,
) -> Answered<Json<ConnectionView>> {
    let connection = issuer.find_connection(caller.tenant(), path.id()?).await?;
    Ok(Json(ConnectionView::of(caller.who.tenant(), &connection)))
}

/// Change a connection
#[utoipa::path(
    tag = "Connections",
    operation_id = "changeConnection",
    params(("id" = Uuid, Path, description = "The connection's id")),
    request_body(content = ConnectionChangeIn, example = json!({ "enabled": false })),
    responses(
        (status = 200, description = "The connection as it is now", body = ConnectionView),
        (status = 403, description = "It would give more than the caller holds (`insufficient_scope`)", body = crate::problem::Problem),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
        (status = 422, description = "A field is wrong, or never changes", body = crate::problem::Problem),
    ),
    security(("bearer" = ["connections:write"]), ("basic" = ["connections:write"])),
)]
#[patch("/v1/connections/{id}")]
pub(crate) async fn change(
    caller: Caller<ConnectionsWrite>,
    issuer: Data<Issuer>,
    path: Path<ConnectionInPath>,
    body: Body<ConnectionChangeIn>,
) -> Answered<Json<ConnectionView>> {
    let tenant = caller.who.tenant();
    let change = body.take()?;
    // What it is for a kind never changes.
    let kind = issuer.find_connection(caller.tenant(), path.id()?).await?.settings.kind();
    let connection = issuer.change_connection(tenant, &caller.actor(), path.id()?, change.read(kind)?).await?;
    Ok(Json(ConnectionView::of(tenant, &connection)))
}

/// Remove a connection
#[utoipa::path(
    tag = "Connections",
    operation_id = "deleteConnection",
    params(("id" = Uuid, Path, description = "The connection's id")),
    responses(
        (status = 204, description = "Its links are gone, and all logins that came through it have ended. People stay"),
        (status = 404, description = "There is none in this tenant", body = crate::problem::Problem),
    ),
    security(("bearer" = ["connections:write"]), ("basic" = ["connections:write"])),
)]
#[delete("/v1/connections/{id}")]
pub(crate) async fn delete(
    caller: Caller<ConnectionsWrite>,
    issuer: Data<Issuer>,
    path: Path<ConnectionInPath>,
) -> Answered<HttpResponse> {
    issuer.delete_connection(caller.tenant(), &caller.actor(), path.id()?).await?;
    Ok(HttpResponse::NoContent().finish())
}

/// Taken by name, because the path may also hold the tenant that it is mounted under.
#[derive(Deserialize)]
pub(crate) struct ConnectionInPath {
    id: String,
}

impl ConnectionInPath {
    /// What is no id is the id of none.
    fn id(&self) -> Result<ConnectionId, Answer> {
        self.id.parse().map_err(|_| Answer::not_found())
    }
}
