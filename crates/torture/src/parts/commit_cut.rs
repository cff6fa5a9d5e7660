//! T03: the connection between a server and Postgres is cut around COMMIT, so that the server cannot know the outcome.
//!
//! Most cuts meet a client that is alone at the server, which makes it certain whose commit was cut: that call must be
//! answered 503. Every fifth meets several at once, because a server may commit the rotations of several together.

use std::time::Instant;

use anyhow::bail;
use futures_util::future::join_all;
use rand::RngExt as _;

use super::Done;
use crate::client::{Client, Outcome};
use crate::database_proxy::Snip;
use crate::history::{Ask, Fault};
use crate::load::Load;
use crate::plan::{Fate, Part, Sizes, stream};
use crate::proxy::Cut;
use crate::world::{CUT, DIRECT, World};

/// Clients at the other servers, meanwhile.
const BYSTANDERS: u32 = 8;
/// Clients that come at once.
const TOGETHER: u32 = 8;

pub(super) async fn run(world: &mut World, sizes: &Sizes, seed: u64) -> anyhow::Result<Done> {
    let mut random = stream(seed, "commit cuts", 0);
    let mut done = Done::default();
    let mut load = Load::default();
    for number in 1..=BYSTANDERS {
        load.rotate(world.client(Part::T03, number, &DIRECT), false);
    }
    let mut alone = world.client(Part::T03, 100, &[CUT]);
    alone.login().await?;
    let mut together: Vec<Client> = (0..TOGETHER).map(|number| world.client(Part::T03, 200 + number, &[CUT])).collect();
    for client in &mut together {
        client.login().await?;
    }

    let (mut after, mut before, mut tries) = (sizes.commit_cuts, sizes.commit_cuts / 4, 0);
    while after + before > 0 {
        tries += 1;
        if tries > 10 * sizes.commit_cuts + 100 {
            bail!("T03: the commits of rotations cannot be found on the wire: {} cuts in {tries} rotations", done.faults);
        }
        let snip = if random.random_range(0..after + before) < after { Snip::After } else { Snip::Before };
        let cut = if tries % 5 == 0 {
            cut_together(world, &mut together, snip, &mut done).await?
        } else {
            cut_alone(world, &mut alone, snip, &mut done).await?
        };
        if cut {
            done.faults += 1;
            let left = if snip == Snip::After { &mut after } else { &mut before };
            *left = left.saturating_sub(1);
        }
    }
    alone.finish().await?;
    for client in &mut together {
        client.finish().await?;
    }
    done.problems.extend(load.finish().await);
    Ok(done)
}

/// True when the commit was cut. The client goes on in any case.
async fn cut_alone(world: &World, client: &mut Client, snip: Snip, done: &mut Done) -> anyhow::Result<bool> {
    let scissors = &world.database_proxy.scissors;
    scissors.arm(snip);
    let (mut call, outcome) = client.try_present_at(CUT, Ask::Refresh, &client.token, Cut::Never, Fault::None).await;
    let cut = scissors.put_away();
    if cut {
        call.fault = if snip == Snip::After { Fault::CutAfterCommit } else { Fault::CutBeforeCommit };
    }
    world.network.history.saw(call);
    go_on(client, outcome, done).await?;
    Ok(cut)
}

/// As [`cut_alone`], for several at once: at least one of them must have been told that nobody knows.
async fn cut_together(world: &World, clients: &mut [Client], snip: Snip, done: &mut Done) -> anyhow::Result<bool> {
    let scissors = &world.database_proxy.scissors;
    scissors.arm(snip);
    let calls = clients.iter().map(|client| client.present_at(CUT, Ask::Refresh, &client.token, Cut::Never, Fault::None));
    let outcomes = join_all(calls).await;
    let cut = scissors.put_away();
    if cut && !outcomes.contains(&Outcome::Unknown) {
        done.problems.push("a commit was cut, and none of those who waited for it was told that its outcome is unknown".into());
    }
    for (client, outcome) in clients.iter_mut().zip(outcomes) {
        go_on(client, outcome, done).await?;
    }
    Ok(cut)
}

/// Takes an outcome; where it is unknown, tries the same token again until it is known.
async fn go_on(client: &mut Client, outcome: Outcome, done: &mut Done) -> anyhow::Result<()> {
    let began = Instant::now();
    match outcome {
        Outcome::Rotated(token) => client.token = token,
        Outcome::Unknown if client.rotate(Fate::Pass).await? => done.recovered(began.elapsed()),
        // The checker will say what that means.
        Outcome::Unknown | Outcome::Refused => client.login().await?,
    }
    Ok(())
}
