//! Keeps the directory current: notifications for speed, a sweep for certainty.

use std::sync::Arc;
use std::time::{Duration, Instant};

use claviger_store::StoreError;
use claviger_store::change::{ChangeListener, SweepFrom};

use crate::directory::Directory;

/// Between sweeps. Well below the time that memory is trusted without one.
const SWEEP_EVERY: Duration = Duration::from_secs(2);
/// How long a sweep may take. The server's own time-outs do not help when its host is gone.
const PATIENCE: Duration = Duration::from_secs(2);
/// Before we listen again after the connection broke.
const RECONNECT_AFTER: Duration = Duration::from_millis(500);

/// Follows the news until the task is dropped. Memory is trusted only while sweeps succeed.
pub(crate) async fn follow(directory: Arc<Directory>, notifications: bool) {
    let sweeps = sweep(directory.clone());
    if notifications {
        tokio::join!(sweeps, listen(directory));
    } else {
        sweeps.await;
    }
}

async fn sweep(directory: Arc<Directory>) {
    let mut from: Option<SweepFrom> = None;
    loop {
        let began = Instant::now();
        let swept = tokio::time::timeout(PATIENCE, async {
            match from {
                // Who slept so long that memory lost its trust may have slept through notes that are gone.
                Some(from) if directory.is_trusted() => sweep_once(&directory, from).await,
                _ => begin(&directory).await,
            }
        });
        let swept = swept.await.unwrap_or(Err(StoreError::TooSlow));
        match swept {
            Ok(next) => {
                from = Some(next);
                directory.trust_from(began);
            }
            Err(error) => {
                tracing::warn!(error = %error, "changes could not be read; nothing is served from memory until they are");
                from = None;
            }
        }
        tokio::time::sleep(SWEEP_EVERY).await;
    }
}

/// The first sweep, and the first after a failure, has no past: what is in memory is from before. It is forgotten
/// after the place to sweep from is known, so that no change falls between the two.
async fn begin(directory: &Directory) -> Result<SweepFrom, StoreError> {
    let from = directory.news_store().sweep_start().await?;
    directory.forget_everything();
    Ok(from)
}

async fn sweep_once(directory: &Directory, from: SweepFrom) -> Result<SweepFrom, StoreError> {
    let sweep = directory.news_store().sweep(from).await?;
    if sweep.overflow {
        directory.forget_everything();
    }
    for change in &sweep.changes {
        directory.forget(change);
    }
    Ok(sweep.next)
}

async fn listen(directory: Arc<Directory>) {
    loop {
        match directory.news_store().listen().await {
            Ok(listener) => {
                // What happened before we listened was not announced to us.
                directory.forget_everything();
                if let Err(error) = follow_notifications(&directory, listener).await {
                    tracing::warn!(error = %error, "notifications of changes broke off; sweeps go on");
                }
            }
            Err(error) => tracing::warn!(error = %error, "cannot listen for changes; sweeps go on"),
        }
        tokio::time::sleep(RECONNECT_AFTER).await;
    }
}

async fn follow_notifications(directory: &Directory, mut listener: ChangeListener) -> Result<(), StoreError> {
    loop {
        match listener.next().await? {
            Some(change) => directory.forget(&change),
            None => directory.forget_everything(),
        }
    }
}
