//! Three servers on one Postgres, a tenant whose keys follow each other fast, and a key of which we know the private half.

use std::path::Path;

use anyhow::{Context as _, bail};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ed25519_dalek::{Signer as _, SigningKey};
use rand::Rng as _;
use serde_json::{Value, json};
use sqlx::Connection as _;
use tempfile::TempDir;
use uuid::Uuid;

use super::switchboard::Switchboard;
use super::{LEAD, TOKEN};
use crate::cluster::Cluster;
use crate::http::request;
use crate::plan::stream;
use crate::server::{Program, Server};
use crate::world::{environment, make_database};

const SLUG: &str = "rotating";
/// Longer than any token of a retired key, also of a server that goes on signing with it for a lead.
const OVER: u64 = TOKEN + LEAD + 1;

/// Everything that runs. Ends when dropped: first the servers, then Postgres.
pub(crate) struct Rig {
    pub(crate) servers: Vec<Server>,
    /// For the library's verifiers: the issuer's public place.
    pub(crate) public: Switchboard,
    /// For the plain ones.
    pub(crate) plain: Switchboard,
    pub(crate) issuer: String,
    /// Exchanged for tokens.
    pub(crate) pair: String,
    admin: String,
    forger: SigningKey,
    forged_kid: String,
    program: Program,
    cluster: Cluster,
    _folder: TempDir,
}

impl Rig {
    /// # Errors
    /// Something does not start.
    pub(crate) async fn start(claviger: &Path, log: &Path, seed: u64) -> anyhow::Result<Self> {
        std::fs::create_dir_all(log)?;
        let cluster = Cluster::start(&log.join(format!("{seed}-keys-postgres.log"))).await?;
        make_database(&cluster).await?;
        let folder = tempfile::Builder::new().prefix("torture-").tempdir()?;
        let (public, plain) = (Switchboard::listener().await?, Switchboard::listener().await?);
        let origin = format!("http://{}", public.local_addr()?);
        let mut random = stream(seed, "secrets of keys", 0);
        let (mut master, mut forger) = ([0; 32], [0; 32]);
        random.fill_bytes(&mut master);
        random.fill_bytes(&mut forger);
        let mut environment = environment(cluster.folder(), &master);
        environment.retain(|(name, _)| name != "CLAVIGER_PUBLIC_URL");
        environment.push(("CLAVIGER_PUBLIC_URL".into(), origin.clone()));
        let program = Program { path: claviger.to_owned(), environment, folder: folder.path().to_owned() };
        program.run(&["migrate"], "")?;
        program.run(&["tenant", "create", "default"], "")?;
        let settings = json!({ "token_lifetime": TOKEN, "signing": { "lead": 300, "rotate_days": null } });
        program.run(&["tenant", "create", SLUG, "--settings", &settings.to_string()], "")?;
        // Less than anybody may set: a verifier of ours keeps the JWK set for as little as that is scaled down.
        let mut superuser = cluster.superuser("claviger").await?;
        sqlx::query("UPDATE tenants SET settings = jsonb_set(settings, '{signing,lead}', to_jsonb($1::bigint)) WHERE slug = $2")
            .bind(i64::try_from(LEAD)?)
            .bind(SLUG)
            .execute(&mut superuser)
            .await?;
        superuser.close().await?;
        let forger = SigningKey::from_bytes(&forger);
        let import = ["signing-key", "import", "--tenant", SLUG, "--file", "-", "--now"];
        program.run(&import, &STANDARD.encode(forger.to_bytes()))?;
        let jwk: Value =
            serde_json::from_str(&program.run(&["signing-key", "export", "--tenant", SLUG, "--format", "jwk"], "")?)?;
        let forged_kid = jwk.get("kid").and_then(Value::as_str).context("the imported key has no kid")?.to_owned();
        let pair = |email: &str, more: &[&str]| -> anyhow::Result<String> {
            let made = [&["create-key", "--tenant", SLUG, "--email", email, "--output", "json"], more].concat();
            let made: Value = serde_json::from_str(&program.run(&made, "")?)?;
            let word =
                |name: &str| made.get(name).and_then(Value::as_str).with_context(|| format!("create-key printed no {name}"));
            Ok(format!("{}:{}", word("api_key")?, word("api_secret")?))
        };
        let admin = format!("Basic {}", STANDARD.encode(pair("admin@example.com", &["--admin"])?));
        let pair = pair("rig@example.com", &[])?;

        let mut servers = Vec::new();
        for name in ["server-1", "server-2", "server-3"] {
            servers.push(Server::start(name, &program, &log.join(format!("{seed}-keys-{name}.log")))?);
        }
        for server in &mut servers {
            server.wait_until_ready().await?;
        }
        let places: Vec<_> = servers.iter().map(|server| server.address).collect();
        let (public, plain) = (Switchboard::start(public, places.clone())?, Switchboard::start(plain, places)?);
        let issuer = format!("{origin}/t/{SLUG}");
        Ok(Self { servers, public, plain, issuer, pair, admin, forger, forged_kid, program, cluster, _folder: folder })
    }

    /// Publishes the next key, or lets it sign; in an emergency, a new key signs at once. At whichever server is first.
    pub(crate) async fn rotate(&self, emergency: bool) -> anyhow::Result<()> {
        let body = json!({ "emergency": emergency });
        let path = format!("/t/{SLUG}/v1/signing-keys/rotate");
        let server = self.servers.first().context("there is no server")?;
        let reply = server.ask(&request("POST", &path, Some(&self.admin), Some(&body))).await?;
        if reply.status != 200 {
            bail!("a rotation was answered {}: {}", reply.status, String::from_utf8_lossy(&reply.body));
        }
        Ok(())
    }

    /// What retired keys wait for is over: eleven minutes pass for each whose tokens have all ended. The next server that
    /// starts takes the next step: private half gone, tokens counted, key gone.
    pub(crate) async fn age(&self) -> anyhow::Result<()> {
        let mut superuser = self.cluster.superuser("claviger").await?;
        sqlx::query(
            "UPDATE signing_keys
                SET retired_at = retired_at - interval '11 minutes', erased_at = erased_at - interval '11 minutes',
                    ends_at = ends_at - interval '11 minutes'
              WHERE state = 'retired' AND gone_at IS NULL AND retired_at < clock_timestamp() - make_interval(secs => $1)",
        )
        .bind(f64::from(u32::try_from(OVER)?))
        .execute(&mut superuser)
        .await?;
        Ok(superuser.close().await?)
    }

    /// The hour after an emergency is over.
    pub(crate) async fn end_alarm(&self) -> anyhow::Result<()> {
        let mut superuser = self.cluster.superuser("claviger").await?;
        sqlx::query("UPDATE signing_keys SET gone_at = gone_at - interval '1 hour' WHERE gone_why = 'emergency'")
            .execute(&mut superuser)
            .await?;
        Ok(superuser.close().await?)
    }

    /// Every key that is gone, and whether an emergency took it.
    pub(crate) async fn gone(&self) -> anyhow::Result<Vec<(String, bool)>> {
        let mut superuser = self.cluster.superuser("claviger").await?;
        let gone = sqlx::query_as("SELECT kid, gone_why = 'emergency' FROM signing_keys WHERE gone_at IS NOT NULL");
        let gone = gone.fetch_all(&mut superuser).await?;
        superuser.close().await?;
        Ok(gone)
    }

    pub(crate) async fn forged_key_is_gone(&self) -> anyhow::Result<bool> {
        Ok(self.gone().await?.iter().any(|(kid, _)| *kid == self.forged_kid))
    }

    /// A token that lives for an hour, under the key whose private half we know.
    pub(crate) fn forge(&self, now: i64) -> (String, String) {
        let encode = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let header = encode(json!({ "typ": "at+jwt", "alg": "EdDSA", "kid": self.forged_kid }));
        let id = Uuid::from_u128(7).to_string();
        let claims = encode(json!({
            "iss": self.issuer, "aud": self.issuer, "sub": id, "client_id": id, "jti": id, "iat": now, "exp": now + 3600,
        }));
        let signed = format!("{header}.{claims}");
        let signature = URL_SAFE_NO_PAD.encode(self.forger.sign(signed.as_bytes()).to_bytes());
        (self.forged_kid.clone(), format!("{signed}.{signature}"))
    }

    /// A request by which the holder of a token calls it back (RFC 7009).
    pub(crate) fn revocation(&self, jwt: &str) -> Vec<u8> {
        // Nothing in a token needs escaping in a form.
        let body = format!("token={jwt}");
        format!(
            "POST /t/{SLUG}/v1/token/revoke HTTP/1.1\r\nHost: torture\r\nConnection: close\r\n\
             Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .into_bytes()
    }

    /// What must never be in a log.
    pub(crate) fn confessions(&self) -> Vec<String> {
        self.servers.iter().flat_map(Server::confessions).collect()
    }

    /// # Errors
    /// The audit trail is not whole.
    pub(crate) fn check_audit(&self) -> anyhow::Result<()> {
        self.program.run(&["audit", "verify"], "").map(|_| ())
    }
}
