//! Mail: written in the transaction of the deed, sent after it.
//!
//! A message that holds a one-time link is as good as the link, so it waits sealed and is forgotten once somebody took it over.
//! One sender at a time holds a message; a message whose sender died is sent by another, perhaps twice.

use chrono::{DateTime, TimeDelta, Utc};
use claviger_store::TenantTx;
use claviger_store::id::TenantId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::{Failure, Fault, Issuer};

/// What messages are sealed for.
pub(crate) const MAIL: &str = "mail";
/// How long a message is tried.
const OLDEST: TimeDelta = TimeDelta::days(2);
/// Between the first tries; doubled each time, up to an hour.
const FIRST_PAUSE: TimeDelta = TimeDelta::seconds(5);

/// A message.
#[derive(Serialize, Deserialize)]
pub struct Mail {
    /// The one it goes to: checked when it was given to us.
    pub to: String,
    /// What it is about, in one line.
    pub subject: String,
    /// Plain text.
    pub text: String,
}

/// Sends a message.
pub trait Post: Sync {
    /// Hands it over to whoever delivers it. The error says why it was not taken, without its text.
    fn send(&self, mail: &Mail) -> impl Future<Output = Result<(), String>> + Send;
}

pub(crate) fn place(tenant: TenantId, id: Uuid) -> String {
    format!("mail_outbox:sealed:{tenant}:{id}")
}

/// How long to wait after so many tries.
fn pause(tries: i32) -> TimeDelta {
    let doubled = FIRST_PAUSE * 2_i32.saturating_pow(u32::try_from(tries).unwrap_or(0).min(10));
    doubled.min(TimeDelta::hours(1))
}

impl Issuer {
    /// Writes a message in the transaction of what it tells of.
    pub(crate) async fn queue_mail(
        &self,
        tx: &mut TenantTx<'_>,
        tenant: TenantId,
        mail: &Mail,
        now: DateTime<Utc>,
    ) -> Result<(), Failure> {
        let id = self.random.uuid_at(now);
        let plain = serde_json::to_vec(mail).map(Zeroizing::new).map_err(|error| Fault::Internal(error.to_string()))?;
        let sealed = self
            .mail_vault
            .seal(&place(tenant, id), &plain, &self.random)
            .map_err(|_| Fault::Internal("a message could not be sealed".into()))?;
        tx.queue_mail(id, &sealed, now).await?;
        Ok(())
    }

    /// Told when this process has written mail.
    pub(crate) fn mail_was_written(&self, tenant: TenantId) {
        // Nobody listens in a command: whoever serves finds it.
        let _ = self.mail_written.send(tenant);
    }

    /// Hears of each tenant for which this process has written mail.
    #[must_use]
    pub fn hear_of_mail(&self) -> tokio::sync::broadcast::Receiver<TenantId> {
        self.mail_written.subscribe()
    }

    /// The tenants that may have mail.
    pub async fn tenants_with_mail(&self) -> Result<Vec<TenantId>, Failure> {
        Ok(self.store.all_tenants().await?)
    }

    /// Sends what is due of a tenant. Returns how many were sent.
    pub async fn send_mail(&self, tenant: TenantId, post: &impl Post) -> Result<u32, Failure> {
        let mut sent = 0;
        loop {
            let now = self.clock.now();
            let mut tx = self.store.begin_in(tenant).await?;
            let mut scoped = tx.tenant(tenant).await?;
            let Some(waiting) = scoped.due_mail(now).await? else { return Ok(sent) };
            let opened = self.mail_vault.open(&place(tenant, waiting.id), &waiting.sealed).ok();
            let mail = opened.and_then(|plain| serde_json::from_slice::<Mail>(&plain).ok());
            let Some(mail) = mail else {
                tracing::error!(tenant.id = %tenant, mail.id = %waiting.id, "a message does not open, and is given up");
                scoped.forget_mail(waiting.id).await?;
                tx.commit().await?;
                continue;
            };
            match post.send(&mail).await {
                Ok(()) => {
                    scoped.forget_mail(waiting.id).await?;
                    sent += 1;
                }
                Err(why) if waiting.created_at + OLDEST <= now => {
                    tracing::error!(tenant.id = %tenant, mail.id = %waiting.id, error = why, "a message is given up");
                    scoped.forget_mail(waiting.id).await?;
                }
                Err(why) => {
                    tracing::warn!(tenant.id = %tenant, mail.id = %waiting.id, tries = waiting.tries, error = why, "a message waits");
                    scoped.postpone_mail(waiting.id, now + pause(waiting.tries)).await?;
                }
            }
            tx.commit().await?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_are_further_and_further_apart() {
        assert_eq!(pause(0), TimeDelta::seconds(5));
        assert_eq!(pause(3), TimeDelta::seconds(40));
        assert_eq!(pause(20), TimeDelta::hours(1));
        assert_eq!(pause(i32::MAX), TimeDelta::hours(1));
    }
}
