//! T04: clients hang up in the middle of a request or an answer. Afterwards nothing is half done and nothing is held.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use futures_util::future::{join_all, try_join_all};
use rand::RngExt as _;
use sqlx::Connection as _;
use tokio::time::sleep;

use super::Done;
use crate::client::{Client, Outcome};
use crate::history::{Ask, Fault};
use crate::plan::{Fate, Part, Sizes, hang_up};
use crate::proxy::Cut;
use crate::tables;
use crate::world::{DIRECT, World};

/// More than a server has connections to its database.
const PARALLEL: usize = 32;

pub(super) async fn run(world: &mut World, sizes: &Sizes, _seed: u64) -> anyhow::Result<Done> {
    let mut done = Done::default();
    let mut clients: Vec<Client> = (0..sizes.hanging_clients).map(|number| world.client(Part::T04, number, &DIRECT)).collect();
    for client in &mut clients {
        client.login().await?;
    }
    // All connections that a server opens for so many are open before files are counted.
    ask_in_parallel(&mut clients, &mut done).await?;
    let before = open_files(world)?;

    let each = sizes.hang_ups.div_ceil(sizes.hanging_clients.max(1));
    let hung_up = try_join_all(clients.iter_mut().map(|client| hang_up_on_and_on(client, each))).await?;
    done.faults = hung_up.into_iter().sum();

    let mut superuser = world.cluster.superuser("claviger").await?;
    let leftovers = tables::leftovers(&mut superuser).await?;
    superuser.close().await?;
    done.problems.extend(leftovers.into_iter().map(|what| format!("still held after the hang-ups: {what}")));
    files_are_closed(world, &before, &mut done).await?;
    ask_in_parallel(&mut clients, &mut done).await?;
    for client in &mut clients {
        client.finish().await?;
    }
    Ok(done)
}

/// Hangs up so many times, and goes on with the same token after each. Returns how often it did not hear the answer.
async fn hang_up_on_and_on(client: &mut Client, times: u32) -> anyhow::Result<u64> {
    let mut hung_up = 0;
    for _ in 0..times {
        let request = client.refresh_request(&client.token);
        let cut = hang_up(&mut client.random, request.len());
        let door = client.random.random_range(0..DIRECT.len());
        match client.present_at(door, Ask::Refresh, &client.token, cut, Fault::HungUp).await {
            Outcome::Rotated(token) => client.token = token,
            Outcome::Refused => client.login().await?,
            // Now and then it hangs up again before it has its token.
            Outcome::Unknown => {
                hung_up += 1;
                if client.random.random_bool(0.8) {
                    rotate_or_begin_anew(client).await?;
                }
            }
        }
    }
    Ok(hung_up)
}

/// As many requests at the same time to each server. All must be answered at the first try.
async fn ask_in_parallel(clients: &mut [Client], done: &mut Done) -> anyhow::Result<()> {
    for client in &mut *clients {
        rotate_or_begin_anew(client).await?;
    }
    for door in DIRECT {
        let at_once = clients.iter().take(PARALLEL);
        let outcomes =
            join_all(at_once.map(|client| client.present_at(door, Ask::Refresh, &client.token, Cut::Never, Fault::None))).await;
        let answered = outcomes.iter().filter(|outcome| matches!(outcome, Outcome::Rotated(_))).count();
        if answered < PARALLEL {
            done.problems.push(format!("of {PARALLEL} parallel requests to server {}, {answered} were answered", door + 1));
        }
        for (client, outcome) in clients.iter_mut().zip(outcomes) {
            if let Outcome::Rotated(token) = outcome {
                client.token = token;
            } else {
                rotate_or_begin_anew(client).await?;
            }
        }
    }
    Ok(())
}

/// A refusal is the checker's to judge. Here it shall not be in the way.
async fn rotate_or_begin_anew(client: &mut Client) -> anyhow::Result<()> {
    if !client.rotate(Fate::Pass).await? {
        client.login().await?;
    }
    Ok(())
}

fn open_files(world: &World) -> anyhow::Result<Vec<usize>> {
    DIRECT.iter().map(|door| world.servers.get(*door).context("there is no such server")?.open_files()).collect()
}

/// Connections of clients that hung up are closed. Those to the database are counted before, all of them.
async fn files_are_closed(world: &World, before: &[usize], done: &mut Done) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let now = open_files(world)?;
        let leaked = now.iter().zip(before).any(|(now, before)| *now > before + 4);
        if !leaked {
            return Ok(());
        }
        if began.elapsed() > Duration::from_secs(10) {
            done.problems.push(format!("the servers held {before:?} files before the hang-ups, and {now:?} after them"));
            return Ok(());
        }
        sleep(Duration::from_millis(200)).await;
    }
}
