//! Directories: whether somebody's password is the right one there, and what their entry says (RFC 4511, 4513).
//!
//! What a tenant's directory answers is a stranger's: it is connected to at an address that was judged, heard for a few
//! seconds and a megabyte, and read in a task of its own, whose end is nobody else's.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use claviger_store::id::TenantId;
use ldap3::{
    LdapConnAsync, LdapConnSettings, LdapResult, ResultEntry, Scope, SearchEntry, SearchOptions, StdStream, dn_escape,
    ldap_escape,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Map, Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpListener, TcpStream};
use url::Url;

use crate::connection::{ConnectionEntry, Ldap, Provider};
use crate::directory::TenantEntry;
use crate::identity::Identity;
use crate::outbound::{Guard, host_of, port_of};
use crate::settings::RequestInfo;
use crate::{Failure, Fault, Issuer, Refusal};

/// For a whole login.
const PATIENCE: Duration = Duration::from_secs(8);
/// For one question.
const ANSWER: Duration = Duration::from_secs(5);
/// What is heard of a directory in one login, in bytes.
const MOST_HEARD: u64 = 1024 * 1024;
/// Longest name that is asked about, in bytes.
const LONGEST_NAME: usize = 256;
/// Most groups that are asked for.
const MOST_GROUPS: i32 = 500;

/// Somebody whose password the directory took.
pub(crate) struct Found {
    subject: String,
    claims: Map<String, Value>,
}

/// A question to a directory, with all that it needs.
struct Question {
    guard: Arc<Guard>,
    ldap: Ldap,
    secret: Option<SecretString>,
    username: String,
    password: SecretString,
}

/// What is wrong with a directory: for the log.
type Wrong = String;

fn wrong(what: &str) -> impl Fn(ldap3::LdapError) -> Wrong + '_ {
    move |error| format!("{what}: {error}")
}

/// A bind that was answered: true for yes, false for no, an error for neither (RFC 4511 §A.1).
fn settled(result: &LdapResult) -> Result<bool, Wrong> {
    match result.rc {
        0 => Ok(true),
        // invalidCredentials, and what servers say of names that nobody has or accounts that may not: constraintViolation,
        // noSuchObject, invalidDNSyntax, inappropriateAuthentication, insufficientAccessRights, unwillingToPerform.
        49 | 19 | 32 | 34 | 48 | 50 | 53 => Ok(false),
        other => Err(format!("the directory answered a bind with {other}")),
    }
}

impl Question {
    /// A connection to an address that was judged, through which no more than so much comes.
    async fn stream(&self, url: &Url) -> Result<std::net::TcpStream, Wrong> {
        let (host, port) = host_of(url).zip(port_of(url)).ok_or("the URL has no host")?;
        let host = match &host {
            url::Host::Domain(name) => url::Host::Domain(name.as_str()),
            url::Host::Ipv4(address) => url::Host::Ipv4(*address),
            url::Host::Ipv6(address) => url::Host::Ipv6(*address),
        };
        let addresses = self.guard.addresses(&host, port).await?;
        if url.scheme() == "ldap"
            && !self.ldap.starttls
            && !addresses.iter().all(|address| self.guard.is_own_loopback(address.ip(), port))
        {
            return Err("plain ldap".into());
        }
        let mut last = "no address".to_owned();
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(far) => return bounded(far).await.map_err(|error| error.to_string()),
                Err(error) => last = error.to_string(),
            }
        }
        Err(last)
    }

    async fn connect(&self) -> Result<ldap3::Ldap, Wrong> {
        let url = Url::parse(&self.ldap.url).map_err(|error| error.to_string())?;
        let stream = self.stream(&url).await?;
        let settings = LdapConnSettings::new()
            .set_conn_timeout(ANSWER)
            .set_starttls(self.ldap.starttls)
            .set_std_stream(StdStream::Tcp(stream));
        let (connection, ldap) = LdapConnAsync::from_url_with_settings(settings, &url).await.map_err(wrong("no connection"))?;
        tokio::spawn(connection.drive());
        Ok(ldap)
    }

    /// The whole exchange; `None` when the directory does not know them, or not by this password.
    async fn ask(&self) -> Result<Option<Found>, Wrong> {
        let mut ldap = self.connect().await?;
        let outcome = match &self.ldap.user_dn {
            Some(template) => {
                let dn = template.replace("{username}", &dn_escape(self.username.as_str()));
                match self.bind(&mut ldap, &dn, &self.password).await? {
                    true => {
                        let entries = self.search(&mut ldap, &dn, Scope::Base, "(objectClass=*)", 1).await?;
                        let entry = entries.into_iter().next().ok_or("whoever logs in may not read their own entry")?;
                        Some(self.read(&mut ldap, entry).await?)
                    }
                    false => None,
                }
            }
            None => self.find(&mut ldap).await?,
        };
        let _ = ldap.unbind().await;
        Ok(outcome)
    }

    /// Finds somebody's entry and reads it, and then tries their password.
    async fn find(&self, ldap: &mut ldap3::Ldap) -> Result<Option<Found>, Wrong> {
        self.bind_to_search(ldap).await?;
        let (base, filter) = self.ldap.base.as_deref().zip(self.ldap.filter.as_deref()).ok_or("no base and filter")?;
        let filter = filter.replace("{username}", &ldap_escape(self.username.as_str()));
        let mut entries = self.search(ldap, base, Scope::Subtree, &filter, 2).await?.into_iter();
        // Two of one name are nobody.
        let (Some(entry), None) = (entries.next(), entries.next()) else { return Ok(None) };
        let dn = entry.dn.clone();
        let found = self.read(ldap, entry).await?;
        Ok(self.bind(ldap, &dn, &self.password).await?.then_some(found))
    }

    /// As whoever may search, or as nobody.
    async fn bind_to_search(&self, ldap: &mut ldap3::Ldap) -> Result<(), Wrong> {
        let Some(dn) = &self.ldap.bind_dn else { return Ok(()) };
        let secret = self.secret.as_ref().ok_or("there is no secret for bind_dn")?;
        match self.bind(ldap, dn, secret).await? {
            true => Ok(()),
            false => Err("the directory does not take bind_dn with the connection's secret".into()),
        }
    }

    async fn bind(&self, ldap: &mut ldap3::Ldap, dn: &str, password: &SecretString) -> Result<bool, Wrong> {
        // An empty one would be no proof, and yet be taken (RFC 4513 §5.1.2).
        if dn.is_empty() || password.expose_secret().is_empty() {
            return Ok(false);
        }
        let result =
            ldap.with_timeout(ANSWER).simple_bind(dn, password.expose_secret()).await.map_err(wrong("no answer to a bind"))?;
        settled(&result)
    }

    async fn search(
        &self,
        ldap: &mut ldap3::Ldap,
        base: &str,
        scope: Scope,
        filter: &str,
        most: i32,
    ) -> Result<Vec<SearchEntry>, Wrong> {
        let options = SearchOptions::new().sizelimit(most).timelimit(5);
        let names = ["*", self.ldap.id_attribute.as_str(), "memberOf"];
        let search = ldap.with_search_options(options).with_timeout(ANSWER).search(base, scope, filter, names);
        let found = search.await.map_err(wrong("no answer to a search"))?;
        match found.1.rc {
            // sizeLimitExceeded says that there are more; noSuchObject that there is nothing below.
            0 | 4 => Ok(found.0.into_iter().filter(|entry| !is_other(entry)).map(SearchEntry::construct).collect()),
            32 => Ok(Vec::new()),
            other => Err(format!("the directory answered a search with {other}")),
        }
    }

    /// What an entry says, with the groups that it is in.
    async fn read(&self, ldap: &mut ldap3::Ldap, entry: SearchEntry) -> Result<Found, Wrong> {
        let SearchEntry { dn, attrs, bin_attrs } = entry;
        let named = |name: &str| name.eq_ignore_ascii_case(&self.ldap.id_attribute);
        let subject = match self.ldap.id_attribute.as_str() {
            "dn" => Some(dn.to_lowercase()),
            _ => attrs.iter().find(|(name, _)| named(name)).and_then(|(_, values)| values.first().cloned()).or_else(|| {
                bin_attrs.iter().find(|(name, _)| named(name)).and_then(|(_, values)| values.first()).map(|id| hex(id))
            }),
        };
        let subject = subject.filter(|subject| (1..=255).contains(&subject.len()) && !subject.chars().any(char::is_control));
        let subject = subject.ok_or_else(|| format!("an entry has no {} that names it", self.ldap.id_attribute))?;
        let mut claims: Map<String, Value> = attrs
            .into_iter()
            .map(|(name, mut values)| (name, if values.len() == 1 { json!(values.remove(0)) } else { json!(values) }))
            .collect();
        claims.insert("dn".into(), json!(dn));
        if let Some((base, filter)) = self.ldap.group_base.as_deref().zip(self.ldap.group_filter.as_deref()) {
            let filter =
                filter.replace("{username}", &ldap_escape(self.username.as_str())).replace("{dn}", &ldap_escape(dn.as_str()));
            let groups = self.search(ldap, base, Scope::Subtree, &filter, MOST_GROUPS).await?;
            let attribute = |name: &str| name.eq_ignore_ascii_case(&self.ldap.group_attribute);
            let names: Vec<String> = groups
                .into_iter()
                .flat_map(|group| group.attrs.into_iter().filter(|(name, _)| attribute(name)).flat_map(|(_, values)| values))
                .collect();
            claims.insert("groups".into(), json!(names));
        }
        Ok(Found { subject, claims })
    }
}

/// A referral, or a message between entries.
fn is_other(entry: &ResultEntry) -> bool {
    entry.is_ref() || entry.is_intermediate()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The same stream, of which no more than so much is heard: the library that reads it knows no bound.
async fn bounded(mut far: TcpStream) -> std::io::Result<std::net::TcpStream> {
    let between = TcpListener::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let near = TcpStream::connect(between.local_addr()?).await?;
    let (mut other, peer) = between.accept().await?;
    if peer != near.local_addr()? {
        return Err(std::io::Error::other("somebody else came between"));
    }
    tokio::spawn(async move {
        let (mut far_reads, mut far_writes) = far.split();
        let (mut near_reads, mut near_writes) = other.split();
        let mut heard = (&mut far_reads).take(MOST_HEARD);
        let both = async {
            tokio::select! {
                _ = tokio::io::copy(&mut heard, &mut near_writes) => {}
                _ = tokio::io::copy(&mut near_reads, &mut far_writes) => {}
            }
        };
        let _ = tokio::time::timeout(PATIENCE, both).await;
    });
    near.into_std()
}

impl Issuer {
    /// Asks a tenant's directories for somebody, in order of their names. `None` when none of them knows the person by this
    /// password; where one of those that were asked did not answer, nobody can say.
    pub(crate) async fn ask_directories(
        &self,
        tenant: &Arc<TenantEntry>,
        username: &str,
        password: &SecretString,
        request: &RequestInfo,
    ) -> Result<Option<(Arc<claviger_store::user::User>, ConnectionEntry)>, Failure> {
        let id = tenant.tenant.id;
        let secret = password.expose_secret();
        if secret.is_empty() || secret.contains('\0') || username.trim().is_empty() || username.len() > LONGEST_NAME {
            return Ok(None);
        }
        let mut tx = self.store.begin_in(id).await?;
        let rows = tx.tenant(id).await?.connections().await?;
        drop(tx);
        let mut unheard = None;
        for row in rows.into_iter().filter(|row| row.kind == "ldap" && row.disabled_at.is_none()) {
            let connection = ConnectionEntry::of(row)?;
            match self.ask_directory(id, &connection, username, password).await {
                Ok(None) => {}
                Err(failure) => unheard = Some(failure),
                Ok(Some(Found { subject, claims })) => {
                    let mapping = &connection.settings.mapping;
                    let identity = Identity::of(subject, &claims, mapping);
                    identity.check_groups(mapping).map_err(Refusal::Upstream)?;
                    let user = self.person_of(tenant, &connection, &identity, request).await?;
                    return Ok(Some((user, connection)));
                }
            }
        }
        unheard.map_or(Ok(None), Err)
    }

    async fn ask_directory(
        &self,
        tenant: TenantId,
        connection: &ConnectionEntry,
        username: &str,
        password: &SecretString,
    ) -> Result<Option<Found>, Failure> {
        let Provider::Ldap(ldap) = &connection.settings.provider else { return Ok(None) };
        let _turn = self.outbound.turn(tenant)?;
        let question = Question {
            guard: self.outbound.guard.clone(),
            ldap: ldap.clone(),
            secret: self.connection_secret(tenant, &connection.row)?,
            username: username.to_owned(),
            password: password.clone(),
        };
        self.asked(&ldap.url, async move { question.ask().await }).await
    }

    /// In a task of its own: what cannot be read ends it, and nothing else.
    async fn asked<T: Send + 'static>(
        &self,
        url: &str,
        asking: impl Future<Output = Result<T, Wrong>> + Send + 'static,
    ) -> Result<T, Failure> {
        let no_use = |why: &str| Failure::from(Fault::Upstream(format!("{url}: {why}")));
        let task = tokio::spawn(tokio::time::timeout(PATIENCE, asking));
        match task.await {
            Ok(Ok(Ok(found))) => Ok(found),
            Ok(Ok(Err(why))) => Err(no_use(&why)),
            Ok(Err(_)) => Err(no_use("no answer in time")),
            Err(_) => Err(no_use("what it answered could not be read")),
        }
    }

    /// Whether a directory can be asked at all: as whoever searches, or as nobody.
    pub(crate) async fn try_directory(
        &self,
        tenant: TenantId,
        connection: &ConnectionEntry,
        ldap: &Ldap,
    ) -> Result<String, Failure> {
        let question = Question {
            guard: self.outbound.guard.clone(),
            ldap: ldap.clone(),
            secret: self.connection_secret(tenant, &connection.row)?,
            username: String::new(),
            password: SecretString::default(),
        };
        let asking = async move {
            let mut ldap = question.connect().await?;
            question.bind_to_search(&mut ldap).await?;
            let _ = ldap.unbind().await;
            Ok(())
        };
        self.asked(&ldap.url, asking).await?;
        let as_whom = ldap.bind_dn.as_ref().map_or("", |_| ", and takes who searches");
        Ok(format!("{} answers{as_whom}", ldap.url))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_zero_is_a_yes_and_what_is_no_answer_is_neither() {
        let result = |rc| LdapResult { rc, matched: String::new(), text: String::new(), refs: Vec::new(), ctrls: Vec::new() };
        assert_eq!(settled(&result(0)), Ok(true));
        for no in [49, 19, 32, 34, 48, 50, 53] {
            assert_eq!(settled(&result(no)), Ok(false), "{no}");
        }
        // Busy, unavailable, a referral, a step of something else: nobody said yes or no.
        for unknown in [1, 2, 3, 8, 10, 13, 14, 51, 52, 80, 118] {
            assert!(settled(&result(unknown)).is_err(), "{unknown}");
        }
    }

    #[test]
    fn names_are_no_part_of_what_they_are_put_into() {
        let dn = |name: &str| "uid={username},ou=people,dc=x".replace("{username}", &dn_escape(name));
        assert_eq!(dn("alice"), "uid=alice,ou=people,dc=x");
        assert_eq!(dn("a,ou=admins"), "uid=a\\2cou\\3dadmins,ou=people,dc=x");
        assert_eq!(dn(" a#\\+\"<>; "), "uid=\\20a#\\5c\\2b\\22\\3c\\3e\\3b\\20,ou=people,dc=x");
        let filter = |name: &str| "(uid={username})".replace("{username}", &ldap_escape(name));
        assert_eq!(filter("*)(uid=*))(|(uid=*"), "(uid=\\2a\\29\\28uid=\\2a\\29\\29\\28|\\28uid=\\2a)");
    }
}
