//! Lists with a place for each token of a service that asks for it. What the bits say is worked out from `revocations`.

use chrono::{DateTime, Utc};

use crate::id::{AudienceId, FamilyId, KeyId, StatusListId, TokenId};
use crate::{StoreError, TenantTx};

/// A token's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The list.
    pub list: StatusListId,
    /// The bit, counted from 0.
    pub index: i32,
}

/// What may be revoked of a token that gets a place.
#[derive(Debug)]
pub struct Listed<'a> {
    /// Its `jti`.
    pub id: TokenId,
    /// The key it was issued for, if it was one.
    pub key: Option<&'a KeyId>,
    /// The token family that it belongs to, if there is one.
    pub family: Option<FamilyId>,
    /// Whom it is about, as the record of issued tokens names them.
    pub subject: &'a str,
    /// Its client.
    pub client_id: &'a str,
    /// Its `iat`.
    pub issued_at: DateTime<Utc>,
    /// When it ends.
    pub expires_at: DateTime<Utc>,
}

/// A list as it is now.
#[derive(Debug)]
pub struct StatusList {
    /// Whose tokens have places in it.
    pub audience: AudienceId,
    /// How many places there are.
    pub size: i32,
    /// The places whose tokens count no more.
    pub revoked: Vec<i32>,
}

impl TenantTx<'_> {
    /// Gives a token the next place of its audience's open list. `None` when there is none, or it is full.
    pub async fn take_place(&mut self, audience: AudienceId, token: &Listed<'_>) -> Result<Option<Place>, StoreError> {
        let Listed { id, key, family, subject, client_id, issued_at, expires_at } = token;
        Ok(sqlx::query_as!(
            Place,
            r#"WITH taken AS (
                   UPDATE status_lists SET given = given + 1
                    WHERE tenant_id = $1 AND audience_id = $2 AND open AND given * 2 < octet_length(places)
                RETURNING id, substring(places FROM given * 2 - 1 FOR 2) AS place
               )
               INSERT INTO listed_tokens (tenant_id, list_id, place, jti, key_id, family_id, subject, client_id, issued_at, expires_at)
               SELECT $1, id, get_byte(place, 0) * 256 + get_byte(place, 1), $3, $4, $5, $6, $7, $8, $9
                 FROM taken
            RETURNING list_id AS "list: StatusListId", place AS index"#,
            self.tenant.0,
            audience.0,
            id.0,
            key.map(KeyId::as_str),
            family.map(|family| family.0),
            subject,
            client_id,
            issued_at,
            expires_at
        )
        .fetch_optional(&mut *self.connection)
        .await?)
    }

    /// Opens a list for an audience, unless one with room is open. `places` is the order in which its places are given, two
    /// bytes each.
    pub async fn open_status_list(
        &mut self,
        audience: AudienceId,
        id: StatusListId,
        places: &[u8],
        now: DateTime<Utc>,
    ) -> Result<(), StoreError> {
        sqlx::query!(
            "UPDATE status_lists SET open = false
              WHERE tenant_id = $1 AND audience_id = $2 AND open AND given * 2 >= octet_length(places)",
            self.tenant.0,
            audience.0
        )
        .execute(&mut *self.connection)
        .await?;
        sqlx::query!(
            "INSERT INTO status_lists (tenant_id, id, audience_id, places, created_at) VALUES ($1, $2, $3, $4, $5)
             ON CONFLICT (tenant_id, audience_id) WHERE open DO NOTHING",
            self.tenant.0,
            id.0,
            audience.0,
            places,
            now
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(())
    }

    /// Every list of the tenant, oldest first.
    pub async fn status_lists(&mut self) -> Result<Vec<StatusListId>, StoreError> {
        Ok(sqlx::query_scalar!(
            r#"SELECT id AS "id: StatusListId" FROM status_lists WHERE tenant_id = $1 ORDER BY created_at, id"#,
            self.tenant.0
        )
        .fetch_all(&mut *self.connection)
        .await?)
    }

    /// A list, and which of its tokens count no more: those that an entry of the revocations names.
    pub async fn status_list(&mut self, id: StatusListId) -> Result<Option<StatusList>, StoreError> {
        let list = sqlx::query!(
            r#"SELECT audience_id AS "audience: AudienceId", octet_length(places) / 2 AS "size!"
                 FROM status_lists
                WHERE tenant_id = $1 AND id = $2"#,
            self.tenant.0,
            id.0
        )
        .fetch_optional(&mut *self.connection)
        .await?;
        let Some(list) = list else { return Ok(None) };
        let revoked = sqlx::query_scalar!(
            "SELECT DISTINCT t.place
               FROM listed_tokens t
              CROSS JOIN LATERAL (VALUES ('jti', t.jti::text), ('key_id', t.key_id), ('sid', t.family_id::text),
                                         ('sub', t.subject), ('client_id', t.client_id), ('tid', t.tenant_id::text))
                    AS claim (kind, id)
               JOIN revocations r ON r.tenant_id = $1 AND r.kind = claim.kind AND r.id = claim.id
              WHERE t.tenant_id = $1 AND t.list_id = $2 AND (r.before IS NULL OR t.issued_at <= r.before)",
            self.tenant.0,
            id.0
        )
        .fetch_all(&mut *self.connection)
        .await?;
        Ok(Some(StatusList { audience: list.audience, size: list.size, revoked }))
    }

    /// Drops full lists, and those of audiences that ended, whose tokens have all ended before that time. Returns how many.
    pub async fn drop_ended_status_lists(&mut self, before: DateTime<Utc>) -> Result<u64, StoreError> {
        let done = sqlx::query!(
            "DELETE FROM status_lists l
              WHERE tenant_id = $1 AND created_at < $2
                AND (NOT open OR EXISTS (SELECT FROM audiences a
                                          WHERE a.tenant_id = $1 AND a.id = l.audience_id AND a.deleted_at < $2))
                AND NOT EXISTS (SELECT FROM listed_tokens t
                                 WHERE t.tenant_id = $1 AND t.list_id = l.id AND t.expires_at >= $2)",
            self.tenant.0,
            before
        )
        .execute(&mut *self.connection)
        .await?;
        Ok(done.rows_affected())
    }
}
