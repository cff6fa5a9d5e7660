//! App tokens: opaque tokens of logins, each of which leads to its token family.

use chrono::{DateTime, Utc};

use crate::api_key::SecretMac;
use crate::id::{FamilyId, UserId};
use crate::token_family::EndedBy;
use crate::{StoreError, TenantTx};

/// An app token to be kept.
pub struct NewAppToken {
    /// What is kept of it.
    pub mac: SecretMac,
    /// The family of its login.
    pub family: FamilyId,
    /// Whose login it is.
    pub user: UserId,
    /// When it ends, whatever happens.
    pub ends_at: DateTime<Utc>,
}

impl TenantTx<'_> {
    /// Keeps an app token.
    pub async fn create_app_token(&mut self, token: &NewAppToken) -> Result<(), StoreError> {
        let NewAppToken { mac, family, user, ends_at } = token;
        sqlx::query!(
            "INSERT INTO app_tokens (tenant_id, mac, family_id, user_id, ends_at) VALUES ($1, $2, $3, $4, $5)",
            self.tenant.0,
            &mac.0[..],
            family.0,
            user.0,
            ends_at
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// The family that the app token of one of these MACs leads to, whatever its state.
    pub async fn family_of_app_token(&mut self, macs: &[[u8; 32]]) -> Result<Option<FamilyId>, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT family_id AS "id: FamilyId" FROM app_tokens WHERE tenant_id = $1 AND mac = ANY ($2)"#,
            self.tenant.0,
            &macs.iter().map(|mac| mac.to_vec()).collect::<Vec<_>>()
        )
        .fetch_optional(&mut *self.connection)
        .await?)
    }

    /// Ends the families of all app tokens of a person, those of the person's keys too; returns which.
    pub async fn end_app_tokens(
        &mut self,
        user: UserId,
        now: DateTime<Utc>,
        by: &str,
        why: EndedBy,
    ) -> Result<Vec<FamilyId>, StoreError> {
        // Locked in the order in which rotations lock them.
        Ok(sqlx::query_scalar!(
            r#"WITH living AS (
                   SELECT id FROM token_families
                    WHERE tenant_id = $1 AND revoked_at IS NULL
                      AND id = ANY (ARRAY(SELECT family_id FROM app_tokens WHERE tenant_id = $1 AND user_id = $2))
                    ORDER BY id
                      FOR NO KEY UPDATE
               )
               UPDATE token_families f SET revoked_at = $3, revoked_by = $4, revoked_why = $5
                 FROM living
                WHERE f.tenant_id = $1 AND f.id = living.id
            RETURNING f.id AS "id: FamilyId""#,
            self.tenant.0,
            user.0,
            now,
            by,
            why.word()
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// Forgets app tokens that are over, or whose login was ended.
    pub async fn prune_app_tokens(&mut self, now: DateTime<Utc>) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            "DELETE FROM app_tokens a
              WHERE a.tenant_id = $1
                AND (a.ends_at <= $2
                     OR EXISTS (SELECT 1 FROM token_families f
                                 WHERE f.tenant_id = $1 AND f.id = a.family_id AND f.revoked_at IS NOT NULL))",
            self.tenant.0,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected())
    }
}
