//! Mail leaves the house: by SMTP, or, in a trial run without it, as files in the data directory.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use claviger_issuer::Issuer;
use claviger_issuer::mail::{Mail, Post};
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::{AsyncSmtpTransport, AsyncTransport as _, Message, Tokio1Executor};
use tokio::sync::broadcast::error::RecvError;

use crate::config::Config;

/// Between looks at what others wrote, or what did not go the first time.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// How long a server may take to take a message.
const PATIENCE: Duration = Duration::from_secs(20);

/// How mail leaves.
pub(crate) enum Postman {
    /// By SMTP.
    Smtp { transport: AsyncSmtpTransport<Tokio1Executor>, from: Mailbox },
    /// Into files, for a trial run: somebody is sitting in front of it.
    Files(PathBuf),
    /// Not at all: it waits.
    None,
}

impl Postman {
    /// As the configuration says.
    pub(crate) fn of(config: &Config) -> anyhow::Result<Self> {
        let Some(url) = &config.mail.smtp_url else {
            return Ok(match config.is_production() {
                true => Self::None,
                false => Self::Files(config.data_dir.join("outbox")),
            });
        };
        use secrecy::ExposeSecret as _;
        check_encrypted(url.expose_secret())?;
        // The parser's own message may quote the URL, and with it the password.
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(url.expose_secret())
            .map_err(|_| anyhow::anyhow!("configuration: mail.smtp_url is not smtps://, or smtp:// with ?tls=required"))?
            .timeout(Some(PATIENCE))
            .build();
        let from = config.mail.from.as_deref().context("configuration: mail.from is needed with mail.smtp_url")?;
        let from = from.parse().map_err(|_| anyhow::anyhow!("configuration: mail.from is not an address"))?;
        Ok(Self::Smtp { transport, from })
    }
}

/// Mail holds one-time links: it goes over TLS, or to this machine.
fn check_encrypted(url: &str) -> anyhow::Result<()> {
    let parsed = url::Url::parse(url).ok();
    let fits = parsed.is_some_and(|url| {
        let required = url.query_pairs().any(|(name, value)| name == "tls" && value == "required");
        let here = match url.host() {
            Some(url::Host::Ipv4(address)) => address.is_loopback(),
            Some(url::Host::Ipv6(address)) => address.is_loopback(),
            Some(url::Host::Domain(name)) => matches!(name, "localhost" | "127.0.0.1" | "[::1]"),
            None => false,
        };
        url.scheme() == "smtps" || url.scheme() == "smtp" && (required || here)
    });
    anyhow::ensure!(fits, "configuration: mail.smtp_url is smtps://…, or smtp://… with ?tls=required");
    Ok(())
}

impl Post for Postman {
    async fn send(&self, mail: &Mail) -> Result<(), String> {
        match self {
            Self::Smtp { transport, from } => {
                let to: Mailbox = mail.to.parse().map_err(|_| "its address cannot be used".to_owned())?;
                let message = Message::builder()
                    .from(from.clone())
                    .to(to)
                    .subject(mail.subject.clone())
                    .header(ContentType::TEXT_PLAIN)
                    .body(mail.text.clone())
                    .map_err(|_| "it cannot be put into the form of mail".to_owned())?;
                match tokio::time::timeout(PATIENCE, transport.send(message)).await {
                    Ok(Ok(_)) => Ok(()),
                    Ok(Err(error)) => Err(error.to_string()),
                    Err(_) => Err("the server takes too long".into()),
                }
            }
            Self::Files(folder) => write(folder, mail).map_err(|error| error.to_string()),
            Self::None => Err("mail.smtp_url is not set".into()),
        }
    }
}

/// One file a message, for nobody else to read.
fn write(folder: &std::path::Path, mail: &Mail) -> std::io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let name = |n: u32| folder.join(format!("{}-{n}.txt", std::process::id()));
    for n in 1..1_000_000 {
        let path = name(n);
        match std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
            Ok(mut file) => {
                write!(file, "To: {}\nSubject: {}\n\n{}", mail.to, mail.subject, mail.text)?;
                tracing::info!(file = %path.display(), "there is no mail server: a message was written into a file");
                return Ok(());
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(std::io::Error::other("the folder is full of messages"))
}

/// Sends what is written, until the task is dropped.
pub(crate) async fn deliver(issuer: Arc<Issuer>, postman: Postman) {
    if matches!(postman, Postman::None) {
        tracing::warn!("there is no mail server (mail.smtp_url): links for developers are not sent, and wait two days at most");
    }
    let mut written = issuer.hear_of_mail();
    loop {
        let tenants = match tokio::time::timeout(LOOK_EVERY, written.recv()).await {
            Ok(Ok(tenant)) => Ok(vec![tenant]),
            Ok(Err(RecvError::Closed)) => return,
            // Missed some, or it is time to look what others left.
            Ok(Err(RecvError::Lagged(_))) | Err(_) => issuer.tenants_with_mail().await,
        };
        let tenants = match tenants {
            Ok(tenants) => tenants,
            Err(error) => {
                tracing::warn!(error = %error, "it could not be found out whether there is mail");
                continue;
            }
        };
        for tenant in tenants {
            if let Err(error) = issuer.send_mail(tenant, &postman).await {
                tracing::warn!(tenant.id = %tenant, error = %error, "mail could not be sent");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mail_goes_encrypted_or_nowhere_else() {
        for good in ["smtps://u:p@mail.example.com", "smtp://mail.example.com:587?tls=required", "smtp://127.0.0.1:2525"] {
            assert!(check_encrypted(good).is_ok(), "{good}");
        }
        for bad in ["smtp://mail.example.com", "smtp://mail.example.com?tls=opportunistic", "http://x", "mail.example.com", ""] {
            assert!(check_encrypted(bad).is_err(), "{bad}");
        }
    }
}
