//! The load of T01 and T02: many clients that only want to go on, and some that replay tokens on purpose.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rand::RngExt as _;
use tokio::task::JoinSet;

use crate::client::{Client, Outcome};
use crate::history::Ask;
use crate::plan::{Fate, fate};

/// Clients at work. Aborted when dropped.
#[derive(Default)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    tasks: JoinSet<anyhow::Result<()>>,
}

impl Load {
    /// An honest client, whose presentations meet with faults or do not.
    pub(crate) fn rotate(&mut self, client: Client, faults: bool) {
        self.tasks.spawn(rotate_on_and_on(client, self.stop.clone(), faults));
    }

    /// A client that replays tokens whose successor was used.
    pub(crate) fn plant(&mut self, client: Client) {
        self.tasks.spawn(plant_on_and_on(client, self.stop.clone()));
    }

    /// A client that replays tokens whose successor was not used, after the window.
    pub(crate) fn plant_late(&mut self, client: Client) {
        self.tasks.spawn(plant_late_on_and_on(client, self.stop.clone()));
    }

    /// Lets every client come to its end; returns what went wrong with them.
    pub(crate) async fn finish(mut self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        let mut problems = Vec::new();
        while let Some(ended) = self.tasks.join_next().await {
            match ended {
                Ok(Ok(())) => {}
                Ok(Err(error)) => problems.push(error.to_string()),
                Err(error) => problems.push(format!("a client of the rig panicked: {error}")),
            }
        }
        problems
    }
}

async fn rotate_on_and_on(mut client: Client, stop: Arc<AtomicBool>, faults: bool) -> anyhow::Result<()> {
    // Not all at once.
    client.pause(0..1_000).await;
    client.login().await?;
    while !stop.load(Ordering::Relaxed) {
        let fate = if faults { fate(&mut client.random) } else { Fate::Pass };
        if !client.rotate(fate).await? {
            // The checker will say what that means. The load goes on.
            client.login().await?;
        }
        client.pause(50..600).await;
    }
    client.finish().await
}

async fn plant_on_and_on(mut client: Client, stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    client.pause(0..1_000).await;
    while !stop.load(Ordering::Relaxed) {
        client.login().await?;
        let mut tokens = vec![client.token.clone()];
        for _ in 0..client.random.random_range(2..5) {
            let fate = fate(&mut client.random);
            if !client.rotate(fate).await? {
                break;
            }
            tokens.push(client.token.clone());
            client.pause(20..200).await;
        }
        // The two newest are the one that works and the one whose answer could still be had again.
        let spent = tokens.len().saturating_sub(2);
        if spent > 0 {
            let at = client.random.random_range(0..spent);
            if let Some(token) = tokens.get(at) {
                replay(&mut client, token).await?;
            }
        }
        client.pause(50..400).await;
    }
    Ok(())
}

async fn plant_late_on_and_on(mut client: Client, stop: Arc<AtomicBool>) -> anyhow::Result<()> {
    client.pause(0..1_000).await;
    while !stop.load(Ordering::Relaxed) {
        client.login().await?;
        let first = client.token.clone();
        // Tried once only: in so narrow a window, a second try may come too late by no fault of anybody's.
        match client.present(Fate::Pass).await {
            Outcome::Rotated(_) => {
                tokio::time::sleep(client.person.window).await;
                client.pause(200..1_000).await;
                replay(&mut client, &first).await?;
            }
            Outcome::Refused => {}
            Outcome::Unknown => client.network.history.change(client.family, |family| family.abandoned = true),
        }
        client.pause(50..400).await;
    }
    Ok(())
}

/// Replays a token, and looks whether the family died of it.
async fn replay(client: &mut Client, token: &str) -> anyhow::Result<()> {
    client.network.history.change(client.family, |family| family.planted = true);
    client.insist(Ask::Replay, token).await?;
    let newest = client.token.clone();
    client.insist(Ask::Afterwards, &newest).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
