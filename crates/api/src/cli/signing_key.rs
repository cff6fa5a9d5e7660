//! `claviger signing-key`: what signs, what will, what did.

use std::io::Read as _;
use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand, ValueEnum};
use claviger_issuer::audit::Actor;
use claviger_issuer::key_pair::PublicKey;
use claviger_issuer::signing_key::{ImportedKey, SigningKeyView};
use serde::Serialize;
use zeroize::Zeroizing;

use super::installation::{not_found, with};
use super::output::Format;
use crate::config::Config;
use crate::v1::signing_keys::{SigningKeyOut, VerifierOut, VerifiersOut};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List all keys, newest first, those that are gone too
    List(Of),
    /// Say what signs, what will and from when, what is still published and until when, and who does not have the next key
    Status(Of),
    /// Publish a next key, or let the one that is there sign if it was published long enough
    Rotate {
        #[command(flatten)]
        of: Of,
        /// Of an audience that has its own keys: its name, `aud` or id [default: the tenant's keys]
        #[arg(long)]
        audience: Option<String>,
        /// A private key may be in the wrong hands: a new key signs at once, and what the old ones signed counts no more
        #[arg(long)]
        emergency: bool,
    },
    /// Let a next key sign, if it was published long enough
    Activate(Which),
    /// Take out a next key, or a retired one with all that it signed
    Retire(Which),
    /// Bring a key along: what `claviger keypair generate` prints, base64 of a pair or a seed, or PEM of PKCS#8
    Import {
        #[command(flatten)]
        of: Of,
        /// The file that holds the private key; `-` reads standard input
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Sign with it from now on, though no verifier has fetched it; else it is the next key
        #[arg(long)]
        now: bool,
    },
    /// Print public keys
    Export {
        #[command(flatten)]
        of: Of,
        /// Which one [default: the one that signs]
        #[arg(long, value_name = "KID")]
        kid: Option<String>,
        /// In which form; `jwks` is all that are published
        #[arg(long, value_enum, default_value_t = Form::Raw)]
        format: Form,
    },
}

#[derive(Debug, Args)]
pub(super) struct Of {
    /// The tenant's slug
    #[arg(long)]
    tenant: String,
}

#[derive(Debug, Args)]
pub(super) struct Which {
    #[command(flatten)]
    of: Of,
    /// The key's `kid`
    #[arg(long)]
    kid: String,
}

/// How a public key is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Form {
    /// Base64 of the raw bytes
    Raw,
    /// `-----BEGIN PUBLIC KEY-----`
    Pem,
    /// A JWK
    Jwk,
    /// The JWK set
    Jwks,
}

impl Form {
    pub(super) fn of(self, key: &PublicKey) -> String {
        match self {
            Self::Raw => key.raw(),
            Self::Pem => key.pem().trim_end().to_owned(),
            Self::Jwk => key.jwk().to_string(),
            Self::Jwks => serde_json::json!({ "keys": [key.jwk()] }).to_string(),
        }
    }
}

pub(super) async fn run(command: Command, config: &Config, output: Format) -> anyhow::Result<()> {
    with(config, async |installation| {
        let issuer = &installation.issuer;
        let actor = Actor::operator();
        let tenant = async |of: &Of| anyhow::Ok(installation.tenant(&of.tenant).await?.tenant.id);
        let no_such_key = not_found("such signing key in this tenant");
        match command {
            Command::List(of) => print(issuer.list_signing_keys(tenant(&of).await?).await?, output),
            Command::Status(of) => {
                let entry = installation.tenant(&of.tenant).await?;
                let keys = issuer.list_signing_keys(entry.tenant.id).await?;
                let keys = keys.into_iter().filter(|key| key.state != "gone").map(SigningKeyOut::from).collect();
                let verifiers = issuer.list_verifiers(&entry).await?.into();
                output.print(&Status { keys, verifiers }, status)
            }
            Command::Rotate { of, audience, emergency } => {
                let tenant = tenant(&of).await?;
                let audience = match audience {
                    Some(name) => Some(super::audience::find(issuer, tenant, &name).await?.row.id),
                    None => None,
                };
                print(issuer.rotate_signing_key(tenant, &actor, audience, emergency).await?, output)
            }
            Command::Activate(Which { of, kid }) => {
                let keys = issuer.activate_signing_key(tenant(&of).await?, &actor, &kid).await;
                print(keys.map_err(no_such_key)?, output)
            }
            Command::Retire(Which { of, kid }) => {
                let keys = issuer.retire_signing_key(tenant(&of).await?, &actor, &kid).await;
                print(keys.map_err(no_such_key)?, output)
            }
            Command::Import { of, file, now } => {
                let text = read(&file)?;
                let imported = ImportedKey { private: private_part(&text), at_once: now, samples: !config.is_production() };
                print(issuer.import_signing_key(tenant(&of).await?, &actor, imported).await?, output)
            }
            Command::Export { of, kid, format } => {
                let entry = installation.tenant(&of.tenant).await?;
                let text = match (format, kid) {
                    (Form::Jwks, _) => entry.published.jwks.clone(),
                    (form, None) => form.of(entry.published.active.as_ref().context("no key signs")?),
                    (form, Some(kid)) => {
                        let keys = issuer.list_signing_keys(entry.tenant.id).await?;
                        let key = keys.iter().find(|key| key.public.kid() == kid);
                        form.of(&key.context("there is no such signing key in this tenant")?.public)
                    }
                };
                super::output::line(&text)
            }
        }
    })
    .await
}

fn read(file: &PathBuf) -> anyhow::Result<Zeroizing<String>> {
    let mut text = Zeroizing::new(String::new());
    let read = match file.as_os_str() == "-" {
        true => std::io::stdin().read_to_string(&mut text),
        false => std::fs::File::open(file).and_then(|mut file| file.read_to_string(&mut text)),
    };
    read.with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text)
}

/// Of what `keypair generate` prints, the private half; anything else as it is.
fn private_part(text: &str) -> &str {
    let marked = [r#"PRIVATE_KEY=""#, r#""private_key":""#, r#""private_key": ""#];
    let found = marked.iter().find_map(|mark| text.split_once(mark)).and_then(|(_, rest)| rest.split_once('"'));
    found.map_or(text, |(private, _)| private)
}

pub(super) fn print(keys: Vec<SigningKeyView>, output: Format) -> anyhow::Result<()> {
    let keys: Vec<_> = keys.into_iter().map(SigningKeyOut::from).collect();
    output.print_list(&keys, text)
}

fn text(key: &SigningKeyOut) -> String {
    let when =
        |time: Option<chrono::DateTime<chrono::Utc>>| time.map_or_else(|| "not known yet".into(), |time| time.to_rfc3339());
    let more = match key.state {
        "next" => format!("published; signs from {} on", when(key.signs_from)),
        "active" => format!("signs since {}", when(key.signs_from)),
        "retired" if key.unending => "published as long as a token without an end may be under it".to_owned(),
        "retired" => format!("published until {}", when(key.published_until)),
        _ => format!("since {} ({})", when(key.published_until), key.gone.unwrap_or_default()),
    };
    let whose = key.audience.map_or_else(String::new, |id| format!("  (audience {id})"));
    format!("{}  {}  {more}{whose}", key.kid, key.state)
}

/// How a tenant's keys stand.
#[derive(Serialize)]
struct Status {
    keys: Vec<SigningKeyOut>,
    verifiers: VerifiersOut,
}

fn status(status: &Status) -> String {
    let Status { keys, verifiers } = status;
    let mut lines: Vec<String> = keys.iter().map(text).collect();
    let behind = verifiers.items.iter().filter(|one| one.knows_next == Some(false));
    lines.extend(behind.map(|one| {
        let VerifierOut { network, user_agent, last_at, .. } = one;
        format!("has not fetched the next key: {user_agent} from {network}, last seen {}", last_at.to_rfc3339())
    }));
    if let (false, Some(until)) = (verifiers.waiting_for.is_empty(), verifiers.waits_until) {
        lines.push(format!("the next key waits for {} until {}", verifiers.waiting_for.join(", "), until.to_rfc3339()));
    }
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_private_half_is_found_in_what_keypair_generate_prints() {
        assert_eq!(private_part("ED25519 PUBLIC_KEY=\"AA==\"\nED25519 PRIVATE_KEY=\"BB==\"\n"), "BB==");
        assert_eq!(private_part(r#"{"public_key":"AA==","private_key":"BB=="}"#), "BB==");
        assert_eq!(private_part("BB==\n"), "BB==\n");
    }
}
