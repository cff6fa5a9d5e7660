//! Signing keys, their private halves sealed.

use chrono::{DateTime, Utc};

use crate::id::AudienceId;
use crate::issued_token::UNENDING;
use crate::{StoreError, TenantTx};

/// What a key signs with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// Ed25519 (RFC 8037).
    EdDsa,
    /// ECDSA on P-256 with SHA-256 (RFC 7518 §3.4).
    Es256,
    /// RSASSA-PKCS1-v1_5 with SHA-256 and 2048 bits (RFC 7518 §3.3).
    Rs256,
}

impl Algorithm {
    /// As a JOSE header names it, and as it is kept.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }

    /// The one of that name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::EdDsa, Self::Es256, Self::Rs256].into_iter().find(|algorithm| algorithm.name() == name)
    }
}

/// When the last token that a key signed has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ends {
    /// Then.
    At(DateTime<Utc>),
    /// Never, as long as a token without an end is not called back.
    Never,
}

/// Why a key is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GoneWhy {
    /// All its tokens had ended.
    Ended,
    /// An admin took it out.
    Discarded,
    /// It may be in the wrong hands: nothing that it signed counts.
    Emergency,
}

impl GoneWhy {
    /// As it is kept.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Ended => "ended",
            Self::Discarded => "discarded",
            Self::Emergency => "emergency",
        }
    }

    /// The one of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Ended, Self::Discarded, Self::Emergency].into_iter().find(|why| why.word() == word)
    }
}

/// The life of a signing key: next → active → retired → gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningKeyState {
    /// Published, does not sign yet.
    Next,
    /// Signs.
    Active {
        /// Since when.
        since: DateTime<Utc>,
    },
    /// Published until its last token has ended.
    Retired {
        /// Since when.
        at: DateTime<Utc>,
        /// When its private half was destroyed; until then servers that do not know its successor long enough sign with it.
        erased_at: Option<DateTime<Utc>>,
        /// `None` as long as it is not known.
        ends: Option<Ends>,
    },
    /// Neither published nor believed. The row is kept for the record.
    Gone {
        /// Since when.
        at: DateTime<Utc>,
        /// Why.
        why: GoneWhy,
    },
}

/// A signing key as it is kept.
#[derive(Debug, Clone)]
pub struct SigningKey {
    /// RFC 7638 thumbprint of the public key.
    pub kid: String,
    /// What it signs with.
    pub algorithm: Algorithm,
    /// Raw: the point, or the modulus.
    pub public_key: Vec<u8>,
    /// The private half, sealed; see the issuer's vault. Empty once it is destroyed.
    pub sealed_private: Vec<u8>,
    /// When it was made, and published.
    pub created_at: DateTime<Utc>,
    /// When it began to sign.
    pub activated_at: Option<DateTime<Utc>>,
    /// It signs without having been published for a while.
    pub at_once: bool,
    /// Whose tokens alone it signs; `None` for the tenant's own keys.
    pub audience: Option<AudienceId>,
    /// Where it is in its life.
    pub state: SigningKeyState,
}

/// A signing key to be kept.
#[derive(Debug, Clone, Copy)]
pub struct NewSigningKey<'a> {
    /// RFC 7638 thumbprint of the public key.
    pub kid: &'a str,
    /// What it signs with.
    pub algorithm: Algorithm,
    /// Raw.
    pub public_key: &'a [u8],
    /// The private half, sealed.
    pub sealed_private: &'a [u8],
    /// It signs from now on.
    pub at_once: bool,
    /// Whose tokens alone it signs.
    pub audience: Option<AudienceId>,
}

/// The key that refuses a second one of the same thumbprint.
pub const KEY_KNOWN: &str = "signing_keys_pkey";

struct Row {
    kid: String,
    algorithm: String,
    public_key: Vec<u8>,
    sealed_private: Vec<u8>,
    state: String,
    at_once: bool,
    created_at: DateTime<Utc>,
    activated_at: Option<DateTime<Utc>>,
    retired_at: Option<DateTime<Utc>>,
    erased_at: Option<DateTime<Utc>>,
    ends_at: Option<DateTime<Utc>>,
    unending: bool,
    gone_at: Option<DateTime<Utc>>,
    gone_why: Option<String>,
    audience: Option<AudienceId>,
}

impl TryFrom<Row> for SigningKey {
    type Error = StoreError;
    fn try_from(row: Row) -> Result<Self, StoreError> {
        let Row {
            kid,
            algorithm,
            public_key,
            sealed_private,
            state,
            at_once,
            created_at,
            activated_at,
            retired_at,
            erased_at,
            ends_at,
            unending,
            gone_at,
            gone_why,
            audience,
        } = row;
        let impossible = |what: &str| StoreError::ImpossibleRow { table: "signing_keys", what: what.into() };
        let algorithm = Algorithm::parse(&algorithm).ok_or_else(|| impossible("an unknown algorithm"))?;
        let state = match (state.as_str(), activated_at, retired_at, gone_at.zip(gone_why.as_deref())) {
            ("next", None, None, None) => SigningKeyState::Next,
            ("active", Some(since), None, None) => SigningKeyState::Active { since },
            ("retired", Some(_), Some(at), None) => {
                let ends = ends_at.map(|end| if unending { Ends::Never } else { Ends::At(end) });
                SigningKeyState::Retired { at, erased_at, ends }
            }
            ("retired", _, Some(_), Some((at, why))) => {
                SigningKeyState::Gone { at, why: GoneWhy::parse(why).ok_or_else(|| impossible("an unknown reason"))? }
            }
            _ => return Err(impossible("a state without its evidence")),
        };
        Ok(Self { kid, algorithm, public_key, sealed_private, created_at, activated_at, at_once, audience, state })
    }
}

impl TenantTx<'_> {
    /// Keeps a new key: next, or, at once, active.
    pub async fn create_signing_key(&mut self, key: NewSigningKey<'_>, now: DateTime<Utc>) -> Result<(), StoreError> {
        let NewSigningKey { kid, algorithm, public_key, sealed_private, at_once, audience } = key;
        sqlx::query!(
            "INSERT INTO signing_keys (tenant_id, kid, algorithm, public_key, sealed_private, at_once, state, created_at, activated_at, audience_id)
             VALUES ($1, $2, $3, $4, $5, $6, CASE WHEN $6 THEN 'active' ELSE 'next' END, $7,
                     CASE WHEN $6 THEN $7::timestamptz END, $8)",
            self.tenant.0,
            kid,
            algorithm.name(),
            public_key,
            sealed_private,
            at_once,
            now,
            audience.map(|id| id.0)
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Every signing key of the tenant and of its audiences, newest first.
    pub async fn signing_keys(&mut self) -> Result<Vec<SigningKey>, StoreError> {
        sqlx::query_as!(
            Row,
            r#"SELECT kid, algorithm, public_key, sealed_private, state, at_once, created_at, activated_at, retired_at,
                      erased_at, ends_at, unending, gone_at, gone_why, audience_id AS "audience: AudienceId"
                 FROM signing_keys
                WHERE tenant_id = $1
                ORDER BY created_at DESC, kid"#,
            self.tenant.0
        )
        .fetch_all(&mut *self.connection)
        .await?
        .into_iter()
        .map(SigningKey::try_from)
        .collect()
    }

    /// Takes the turn to change this tenant's keys, until the transaction ends. False when another server has it.
    pub async fn try_signing_turn(&mut self) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT pg_try_advisory_xact_lock(hashtextextended('claviger.signing_keys.' || $1, 0)) AS "turn!""#,
            self.tenant.0.to_string()
        )
        .fetch_one(&mut *self.connection)
        .await?)
    }

    /// As [`TenantTx::try_signing_turn`], and waits for it.
    pub async fn signing_turn(&mut self) -> Result<(), StoreError> {
        sqlx::query!(
            "SELECT pg_advisory_xact_lock(hashtextextended('claviger.signing_keys.' || $1, 0))",
            self.tenant.0.to_string()
        )
        .fetch_one(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// A next key signs from now on, at once also where it is not known for long. The one before it must have been retired.
    /// False when it is not next any more.
    pub async fn activate_signing_key(&mut self, kid: &str, at_once: bool, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE signing_keys SET state = 'active', activated_at = $3, at_once = $4
              WHERE tenant_id = $1 AND kid = $2 AND state = 'next'",
            self.tenant.0,
            kid,
            now,
            at_once
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// The active key makes room for its successor. False when it is not active any more.
    pub async fn retire_signing_key(&mut self, kid: &str, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE signing_keys SET state = 'retired', retired_at = $3
              WHERE tenant_id = $1 AND kid = $2 AND state = 'active'",
            self.tenant.0,
            kid,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Destroys the private half of a retired key.
    pub async fn erase_signing_key(&mut self, kid: &str, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE signing_keys SET sealed_private = '', erased_at = $3
              WHERE tenant_id = $1 AND kid = $2 AND state = 'retired' AND erased_at IS NULL",
            self.tenant.0,
            kid,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// When the last token ends that the tenant issued since `from`: no key that signed since then is needed longer. Looks
    /// at every token that has not ended at `now`.
    pub async fn last_token_end(&mut self, from: DateTime<Utc>, now: DateTime<Utc>) -> Result<Option<DateTime<Utc>>, StoreError> {
        Ok(sqlx::query_scalar!(
            "SELECT max(expires_at) FROM issued_tokens
              WHERE tenant_id = $1 AND issued_at >= $2 AND expires_at > $3 AND expires_at < '9999-01-01'",
            self.tenant.0,
            from,
            now
        )
        .fetch_one(&mut *self.connection)
        .await?)
    }

    /// Whether a token without an end, issued since `from` and before `until`, was not called back, and its key neither
    /// revoked nor at its end.
    pub async fn has_unending_token(&mut self, from: DateTime<Utc>, until: DateTime<Utc>) -> Result<bool, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT EXISTS (SELECT FROM issued_tokens t
                               WHERE t.tenant_id = $1 AND t.expires_at = to_timestamp($2) AND t.revoked_at IS NULL
                                 AND t.issued_at >= $3 AND t.issued_at <= $4
                                 AND NOT EXISTS (SELECT FROM api_keys k
                                                  WHERE k.tenant_id = $1 AND k.id = t.key_id
                                                    AND (k.revoked_at IS NOT NULL OR k.expires_at <= $4))) AS "there!""#,
            self.tenant.0,
            UNENDING as f64,
            from,
            until
        )
        .fetch_one(&mut *self.connection)
        .await?)
    }

    /// Keeps until when a key that signs no more is needed.
    pub async fn set_signing_key_end(&mut self, kid: &str, ends_at: DateTime<Utc>, unending: bool) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE signing_keys SET ends_at = $3, unending = $4
              WHERE tenant_id = $1 AND kid = $2 AND erased_at IS NOT NULL AND gone_at IS NULL
                AND (ends_at, unending) IS DISTINCT FROM ($3, $4)",
            self.tenant.0,
            kid,
            ends_at,
            unending
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Replaces the sealed form of a private half. False when it is not what it was any more.
    pub async fn seal_signing_key_again(&mut self, kid: &str, before: &[u8], sealed: &[u8]) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE signing_keys SET sealed_private = $4 WHERE tenant_id = $1 AND kid = $2 AND sealed_private = $3",
            self.tenant.0,
            kid,
            before,
            sealed
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }

    /// Withdraws a key, whatever its state, and destroys its private half. False when it is gone already.
    pub async fn withdraw_signing_key(&mut self, kid: &str, why: GoneWhy, now: DateTime<Utc>) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE signing_keys
                SET state = 'retired', retired_at = coalesce(retired_at, $3), sealed_private = '',
                    erased_at = coalesce(erased_at, $3), gone_at = $3, gone_why = $4
              WHERE tenant_id = $1 AND kid = $2 AND gone_at IS NULL",
            self.tenant.0,
            kid,
            now,
            why.word()
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected() == 1)
    }
}
