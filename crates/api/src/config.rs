//! Configuration: defaults, a file, the environment, the command line; the later wins.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use claviger_issuer::outbound::{Allowed, OutboundSettings};
use claviger_issuer::password::Cost;
use claviger_issuer::settings::{Settings, Throttle, check_lifetime};
use claviger_issuer::vault::MasterKey;
use claviger_store::DatabaseUrls;
use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use ipnet::IpNet;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde::de::{self, Deserializer, Error as _};
use url::Url;

/// The commented defaults, as `config print` shows them.
pub const DEFAULTS: &str = include_str!("config.toml");

/// The file in the data directory of a trial run that says where it was served last.
const LAST_URL: &str = "public_url";

/// What the command line may override.
#[derive(Debug, Default, Clone)]
pub struct Overrides {
    /// A configuration file.
    pub file: Option<PathBuf>,
    /// See the commented defaults.
    pub data_dir: Option<PathBuf>,
    /// See the commented defaults.
    pub listen: Option<SocketAddr>,
}

/// See the commented defaults for what each means.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.toml documents each")]
pub struct Config {
    pub listen: SocketAddr,
    pub data_dir: PathBuf,
    pub public_url: Option<Url>,
    pub production: Option<bool>,
    pub database_url: Option<SecretString>,
    pub migration_url: Option<SecretString>,
    pub database_connections: u32,
    pub postgres_bin: Option<PathBuf>,
    pub master_key: Option<SecretString>,
    pub master_key_file: Option<PathBuf>,
    pub master_key_command: Option<String>,
    pub other_master_key_files: Vec<PathBuf>,
    pub default_tenant: String,
    pub brand: String,
    pub token_lifetime: i32,
    pub require_https: Option<bool>,
    #[serde(deserialize_with = "networks")]
    pub trusted_proxies: Vec<IpNet>,
    pub proxy_header: ProxyHeader,
    pub workers: usize,
    pub drain_wait: Option<u64>,
    pub log: String,
    pub log_format: LogFormat,
    pub throttle: Throttle,
    pub password: Password,
    pub metrics_listen: Option<SocketAddr>,
    pub otlp_endpoint: Option<Url>,
    pub otlp_share: f64,
    pub mail: MailSettings,
    #[serde(deserialize_with = "targets")]
    pub outbound_allow: Vec<Allowed>,
    pub outbound_allow_loopback: Option<bool>,
    pub outbound_proxy: Option<Url>,
    #[serde(default)]
    pub hosts: BTreeMap<String, String>,
}

/// How mail leaves.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.toml documents each")]
pub struct MailSettings {
    pub smtp_url: Option<SecretString>,
    pub from: Option<String>,
}

/// What a password's hash costs, and who pays.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "config.toml documents each")]
pub struct Password {
    pub memory_kib: u32,
    pub iterations: u32,
    pub threads: usize,
}

/// The one header that is read from a listed proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum ProxyHeader {
    /// `X-Forwarded-For` and `X-Forwarded-Proto`.
    #[serde(rename = "x-forwarded-for")]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    #[serde(rename = "forwarded")]
    Forwarded,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

impl Config {
    /// Puts the layers together and refuses what cannot work.
    pub fn load(overrides: &Overrides) -> anyhow::Result<Self> {
        let mut layers = Figment::from(Toml::string(DEFAULTS));
        if let Some(file) = config_file(overrides) {
            if !file.is_file() {
                bail!("the configuration file {} does not exist", file.display());
            }
            layers = layers.merge(Toml::file_exact(&file));
        }
        layers = layers.merge(Env::raw().only(&["DATABASE_URL"]));
        layers = layers.merge(Env::prefixed("CLAVIGER_").ignore(&["config", "passphrase", "postgres_user"]).split("__"));
        if let Some(data_dir) = &overrides.data_dir {
            layers = layers.merge(Serialized::default("data_dir", data_dir));
        }
        if let Some(listen) = &overrides.listen {
            layers = layers.merge(Serialized::default("listen", listen));
        }
        let config: Self = layers.extract().map_err(|error| anyhow::anyhow!("configuration: {error}"))?;
        config.check()?;
        Ok(config)
    }

    /// Whether generated secrets and plain http are refused.
    #[must_use]
    pub fn is_production(&self) -> bool {
        self.production.unwrap_or(self.database_url.is_some())
    }

    /// Whether plain http is refused.
    #[must_use]
    pub fn requires_https(&self) -> bool {
        self.require_https.unwrap_or(self.is_production())
    }

    /// Seconds between SIGTERM and the end of listening.
    #[must_use]
    pub fn drain_wait(&self) -> u64 {
        self.drain_wait.unwrap_or(if self.is_production() { 5 } else { 0 })
    }

    /// Tenants by the host that stands for them, in lower case.
    #[must_use]
    pub fn hosts(&self) -> BTreeMap<String, String> {
        self.hosts.iter().map(|(host, slug)| (host.to_ascii_lowercase(), slug.clone())).collect()
    }

    /// The database's two logins; `None` for a private database.
    pub fn database_urls(&self) -> anyhow::Result<Option<DatabaseUrls>> {
        let Some(application) = &self.database_url else { return Ok(None) };
        let migration = self.migration_url.as_ref().map(|url| url.expose_secret());
        // The parser's own message may quote the URL, and with it the password.
        let urls = DatabaseUrls::parse(application.expose_secret(), migration)
            .map_err(|_| anyhow::anyhow!("DATABASE_URL or CLAVIGER_MIGRATION_URL is not a postgres:// URL"))?;
        Ok(Some(urls))
    }

    /// What the issuer needs. `listening` is the bound address, if there is one already.
    #[must_use]
    pub fn issuer_settings(&self, listening: Option<SocketAddr>) -> Settings {
        Settings {
            public_url: self.public_url.clone().unwrap_or_else(|| match listening {
                Some(listening) => local_url(listening),
                None => self.last_url().unwrap_or_else(|| local_url(self.listen)),
            }),
            brand: self.brand.clone(),
            default_tenant: self.default_tenant.clone(),
            token_lifetime: self.token_lifetime,
            throttle: self.throttle,
            confirm_addresses: self.mail.smtp_url.is_some(),
            password_cost: self.password_cost(),
            password_threads: self.password.threads,
            outbound: OutboundSettings {
                allow: self.outbound_allow.clone(),
                proxy: self.outbound_proxy.clone(),
                ..OutboundSettings::default()
            },
        }
    }

    /// Keeps where a trial run is served, so that a command speaks of the same issuer whatever port that is.
    pub(crate) fn keep_url(&self, listening: SocketAddr) -> std::io::Result<()> {
        match self.public_url {
            Some(_) => Ok(()),
            None => std::fs::write(self.data_dir.join(LAST_URL), local_url(listening).as_str()),
        }
    }

    /// Where a trial run was served last.
    fn last_url(&self) -> Option<Url> {
        let text = std::fs::read_to_string(self.data_dir.join(LAST_URL)).ok()?;
        Url::parse(text.trim()).ok()
    }

    fn password_cost(&self) -> Cost {
        Cost { memory_kib: self.password.memory_kib, iterations: self.password.iterations }
    }

    /// From how many places the master key is said to come.
    fn master_keys(&self) -> usize {
        [self.master_key.is_some(), self.master_key_file.is_some(), self.master_key_command.is_some()]
            .iter()
            .filter(|set| **set)
            .count()
    }

    /// The same, and what is sealed under the key in this file opens too.
    pub(crate) fn with_other_master_key(&self, file: &Path) -> Self {
        let mut config = self.clone();
        config.other_master_key_files.push(file.to_owned());
        config
    }

    fn check(&self) -> anyhow::Result<()> {
        self.password_cost().check().context("configuration: password")?;
        crate::mail::Postman::of(self)?;
        if !(1..=8).contains(&self.brand.len()) || !self.brand.bytes().all(|b| b.is_ascii_lowercase()) {
            bail!("configuration: brand is 1 to 8 lower-case letters");
        }
        check_lifetime(Some(self.token_lifetime)).context("configuration")?;
        if !(2..=1000).contains(&self.database_connections) {
            bail!("configuration: database_connections is 2 to 1000");
        }
        if self.master_key.as_ref().is_some_and(|key| MasterKey::parse(key.expose_secret()).is_none()) {
            bail!("configuration: master_key is not 32 bytes in base64; `openssl rand -base64 32` makes a key");
        }
        crate::log::check(&self.log)?;
        if let Some(url) = &self.otlp_endpoint
            && (!matches!(url.scheme(), "http" | "https") || url.host().is_none() || url.query().is_some())
        {
            bail!(
                "configuration: otlp_endpoint is the http:// or https:// address of a collector, such as http://127.0.0.1:4318"
            );
        }
        if !(0.0..=1.0).contains(&self.otlp_share) {
            bail!("configuration: otlp_share is 0 to 1");
        }
        if self.master_keys() > 1 {
            bail!("configuration: give one of master_key, master_key_file and master_key_command");
        }
        let loopback = self.outbound_allow_loopback.unwrap_or(!self.is_production());
        if let Some(target) = self.outbound_allow.iter().find(|target| target.is_loopback()).filter(|_| !loopback) {
            bail!(
                "configuration: outbound_allow lists {target}, which is this machine itself: in production that needs \
                 outbound_allow_loopback = true (and know why)"
            );
        }
        if self.outbound_proxy.as_ref().is_some_and(|proxy| !matches!(proxy.scheme(), "http" | "https") || proxy.host().is_none())
        {
            bail!("configuration: outbound_proxy is http:// or https:// with a host");
        }
        let is_host = |host: &String| url::Host::parse(host).is_ok_and(|parsed| parsed.to_string() == host.to_ascii_lowercase());
        if let Some(host) = self.hosts.keys().find(|host| !is_host(host)) {
            bail!("configuration: `{host}` in [hosts] is no host: write the name alone, without a scheme, port or path");
        }
        if let Some(url) = &self.public_url {
            let plain = matches!(url.scheme(), "http" | "https") && url.host().is_some();
            if !plain || url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() {
                bail!("configuration: public_url is http:// or https:// with a host, and neither query, fragment nor user");
            }
            if self.is_production() && url.scheme() != "https" && self.requires_https() {
                bail!("configuration: in production public_url begins with https:// (or set require_https = false and know why)");
            }
        } else if self.is_production() {
            bail!("configuration: production needs public_url (CLAVIGER_PUBLIC_URL): where the world reaches this server");
        }
        if self.is_production() && self.master_keys() == 0 {
            bail!(
                "configuration: production needs a master key and makes none by itself: set CLAVIGER_MASTER_KEY or \
                 CLAVIGER_MASTER_KEY_FILE or CLAVIGER_MASTER_KEY_COMMAND (`openssl rand -base64 32` makes one; keep a copy where the database is not)"
            );
        }
        Ok(())
    }
}

/// The file that was named, by the command line or the environment.
fn config_file(overrides: &Overrides) -> Option<PathBuf> {
    overrides.file.clone().or_else(|| std::env::var_os("CLAVIGER_CONFIG").map(PathBuf::from))
}

fn local_url(listening: SocketAddr) -> Url {
    let host = match listening.ip() {
        ip if ip.is_unspecified() => "localhost".to_owned(),
        std::net::IpAddr::V6(ip) => format!("[{ip}]"),
        std::net::IpAddr::V4(ip) => ip.to_string(),
    };
    let mut url = Url::parse(&format!("http://{host}:{}", listening.port()));
    if url.is_err() {
        url = Url::parse("http://localhost");
    }
    #[expect(clippy::unwrap_used, reason = "a constant that parses")]
    url.unwrap()
}

fn networks<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<IpNet>, D::Error> {
    list(deserializer, network)
}

fn targets<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<Allowed>, D::Error> {
    list(deserializer, |text| text.parse().map_err(D::Error::custom))
}

/// A list, or, from the environment, text with commas.
fn list<'de, T, D: Deserializer<'de>>(deserializer: D, one: impl Fn(&str) -> Result<T, D::Error>) -> Result<Vec<T>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "a list of texts, or a text with commas between them")]
    enum Listed {
        Text(String),
        List(Vec<String>),
    }
    match Listed::deserialize(deserializer)? {
        Listed::Text(text) => text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(&one).collect(),
        Listed::List(list) => list.iter().map(|part| one(part)).collect(),
    }
}

fn network<E: de::Error>(text: &str) -> Result<IpNet, E> {
    let network: IpNet = match text.parse() {
        Ok(network) => network,
        Err(_) => match text.parse::<std::net::IpAddr>() {
            Ok(address) => address.into(),
            Err(_) => return Err(E::custom(format!("`{text}` is neither an address nor a network such as 10.0.0.0/8"))),
        },
    };
    if network.prefix_len() == 0 {
        return Err(E::custom(format!("{network} would believe everybody's forwarding headers")));
    }
    Ok(network)
}

/// The name of the master key's file in a trial run.
#[must_use]
pub fn trial_master_key(data_dir: &Path) -> PathBuf {
    data_dir.join("master.key")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_printed_defaults_are_a_working_configuration() {
        let config: Config = Figment::from(Toml::string(DEFAULTS)).extract().unwrap();
        assert!(!config.is_production() && !config.requires_https());
        assert!(config.check().is_ok());
    }

    #[test]
    fn an_unknown_setting_is_named() {
        let layers = Figment::from(Toml::string(DEFAULTS)).merge(Toml::string("lisen = \"x\""));
        assert!(layers.extract::<Config>().unwrap_err().to_string().contains("lisen"));
    }

    #[test]
    fn production_refuses_to_start_without_a_master_key_or_public_url() {
        let with = |more: &str| {
            let layers = Figment::from(Toml::string(DEFAULTS)).merge(Toml::string(more));
            layers.extract::<Config>().unwrap().check()
        };
        assert!(
            with("database_url = 'postgres://x'\npublic_url = 'https://id.example'")
                .unwrap_err()
                .to_string()
                .contains("master key")
        );
        assert!(
            with("database_url = 'postgres://x'\nmaster_key = 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='")
                .unwrap_err()
                .to_string()
                .contains("public_url")
        );
        assert!(with("database_url = 'postgres://x'\nmaster_key = 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='\npublic_url = 'http://id.example'").is_err());
        assert!(with("database_url = 'postgres://x'\nmaster_key = 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='\npublic_url = 'https://id.example'").is_ok());
    }

    #[test]
    fn proxies_are_listed_one_by_one_and_never_everybody() {
        let with = |value: &str| {
            let layers = Figment::from(Toml::string(DEFAULTS)).merge(Toml::string(&format!("trusted_proxies = {value}")));
            layers.extract::<Config>().map(|config| config.trusted_proxies.len())
        };
        assert_eq!(with("'10.0.0.1, 192.168.0.0/16'").unwrap(), 2);
        assert_eq!(with("['::1']").unwrap(), 1);
        assert!(with("'0.0.0.0/0'").is_err());
        assert!(with("'proxy'").is_err());
    }

    #[test]
    fn p21_this_machine_is_asked_in_production_only_where_somebody_says_so_twice() {
        let with = |more: &str| {
            let production = "database_url = 'postgres://x'\npublic_url = 'https://id.example'\n\
                              master_key = 'AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='\n";
            let layers = Figment::from(Toml::string(DEFAULTS)).merge(Toml::string(&format!("{production}{more}")));
            layers.extract::<Config>().map_err(anyhow::Error::from).and_then(|config| config.check())
        };
        assert!(with("outbound_allow = ['10.0.0.5:443', '10.1.0.0/16']").is_ok());
        for loopback in ["127.0.0.1:9000", "::1", "127.0.0.0/8"] {
            let refused = with(&format!("outbound_allow = ['{loopback}']")).unwrap_err().to_string();
            assert!(refused.contains("outbound_allow_loopback"), "{refused}");
            assert!(with(&format!("outbound_allow = '{loopback}'\noutbound_allow_loopback = true")).is_ok());
        }
        assert!(with("outbound_allow = ['localhost:9000']").is_err());
        assert!(with("outbound_proxy = 'socks5://proxy.example'").is_err());
        assert!(with("outbound_proxy = 'http://proxy.example:3128'").is_ok());
    }

    #[test]
    fn hosts_are_names_alone() {
        let with = |host: &str| {
            let layers = Figment::from(Toml::string(DEFAULTS)).merge(Toml::string(&format!("[hosts]\n\"{host}\" = \"cc\"")));
            layers.extract::<Config>().unwrap().check()
        };
        assert!(with("auth.cc.example.org").is_ok() && with("Auth.cc.example.org").is_ok());
        for bad in ["https://auth.example.org", "auth.example.org:8443", "auth.example.org/login", "a b"] {
            assert!(with(bad).unwrap_err().to_string().contains("[hosts]"), "{bad}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let layers = Figment::from(Toml::string(DEFAULTS)).merge(Toml::string("database_url = 'postgres://u:canary@h/d'"));
        assert!(!format!("{:?}", layers.extract::<Config>().unwrap()).contains("canary"));
    }
}
