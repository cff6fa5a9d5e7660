//! The parts of the run, one for each way in which things break.

mod client_hangs_up;
mod commit_cut;
mod postgres_killed;
mod server_killed;

use std::time::{Duration, Instant};

use anyhow::bail;
use tokio::time::sleep;

use crate::client::Network;
use crate::load::Load;
use crate::plan::{Part, Sizes};
use crate::world::{DIRECT, World};

/// What a part did, and what it saw that is not in the history.
#[derive(Debug, Default)]
pub(crate) struct Done {
    /// Kills, cuts or hang-ups.
    pub(crate) faults: u64,
    /// The longest that it took to serve again.
    pub(crate) longest_recovery: Option<Duration>,
    pub(crate) problems: Vec<String>,
}

impl Done {
    fn recovered(&mut self, after: Duration) {
        self.longest_recovery = self.longest_recovery.max(Some(after));
    }
}

/// Does one part.
///
/// # Errors
/// The rig itself cannot go on.
pub(crate) async fn run(part: Part, world: &mut World, sizes: &Sizes, seed: u64) -> anyhow::Result<Done> {
    match part {
        Part::T01 => server_killed::run(world, sizes, seed).await,
        Part::T02 => postgres_killed::run(world, sizes, seed).await,
        Part::T03 => commit_cut::run(world, sizes, seed).await,
        Part::T04 => client_hangs_up::run(world, sizes, seed).await,
    }
}

/// The load of T01 and T02.
fn load(world: &World, part: Part, sizes: &Sizes) -> Load {
    let mut load = Load::default();
    let mut numbers = 1..;
    let mut numbers = |count: u32| numbers.by_ref().take(usize::try_from(count).unwrap_or_default()).collect::<Vec<u32>>();
    for number in numbers(sizes.clients) {
        load.rotate(world.client(part, number, &DIRECT), true);
    }
    for number in numbers(sizes.planters) {
        load.plant(world.client(part, number, &DIRECT));
    }
    for number in numbers(sizes.late_planters) {
        load.plant_late(world.narrow_client(part, number, &DIRECT));
    }
    load
}

/// Waits until clients received new tokens at these doors after that moment; returns how long it took.
///
/// # Errors
/// They do not within a minute.
async fn wait_for_rotations(network: &Network, doors: &[usize], since: u64) -> anyhow::Result<Duration> {
    let began = Instant::now();
    let served = |door: &usize| {
        let door = network.doors.get(*door);
        door.is_some_and(|door| door.last_rotation.load(std::sync::atomic::Ordering::Relaxed) > since)
    };
    while !doors.iter().all(served) {
        if began.elapsed() > Duration::from_secs(60) {
            bail!("no rotation at the doors {doors:?} within a minute");
        }
        sleep(Duration::from_millis(5)).await;
    }
    Ok(began.elapsed())
}
