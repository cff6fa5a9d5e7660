//! Signing keys, their private halves sealed.

use chrono::{DateTime, Utc};

use crate::{StoreError, TenantTx};

/// The life of a signing key: next → active → retired.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningKeyState {
    /// Published, does not sign yet.
    Next,
    /// Signs.
    Active,
    /// Published until its last token has ended, signs no more.
    Retired,
}

/// A signing key as it is kept. The algorithm is EdDSA over Ed25519.
#[derive(Clone)]
pub struct SigningKey {
    /// RFC 7638 thumbprint of the public key.
    pub kid: String,
    /// Raw Ed25519 public key.
    pub public_key: [u8; 32],
    /// The private half, sealed; see the issuer's vault.
    pub sealed_private: Vec<u8>,
    /// Where it is in its life.
    pub state: SigningKeyState,
}

impl TenantTx<'_> {
    /// Keeps a new key that signs from now on.
    pub async fn create_active_signing_key(
        &mut self,
        kid: &str,
        public_key: &[u8; 32],
        sealed_private: &[u8],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "INSERT INTO signing_keys (tenant_id, kid, algorithm, public_key, sealed_private, state, created_at, activated_at)
             VALUES ($1, $2, 'EdDSA', $3, $4, 'active', $5, $5)",
            self.tenant.0,
            kid,
            public_key,
            sealed_private,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Every signing key of the tenant, newest first.
    pub async fn signing_keys(&mut self) -> Result<Vec<SigningKey>, StoreError> {
        let rows = sqlx::query!(
            "SELECT kid, public_key, sealed_private, state
               FROM signing_keys
              WHERE tenant_id = $1
              ORDER BY created_at DESC",
            self.tenant.0
        )
        .fetch_all(&mut *self.connection)
        .await?;
        let impossible = |what: &str| StoreError::ImpossibleRow { table: "signing_keys", what: what.into() };
        rows.into_iter()
            .map(|row| {
                Ok(SigningKey {
                    kid: row.kid,
                    public_key: row.public_key.try_into().map_err(|_| impossible("a public key that is not 32 bytes long"))?,
                    sealed_private: row.sealed_private,
                    state: match row.state.as_str() {
                        "next" => SigningKeyState::Next,
                        "active" => SigningKeyState::Active,
                        "retired" => SigningKeyState::Retired,
                        _ => return Err(impossible("an unknown state")),
                    },
                })
            })
            .collect()
    }
}
