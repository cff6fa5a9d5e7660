//! T01: a server is killed under load and started again at once, many times.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use rand::RngExt as _;
use tokio::time::sleep;

use super::{Done, load, wait_for_rotations};
use crate::plan::{Part, Sizes, stream};
use crate::world::{DIRECT, World};

pub(super) async fn run(world: &mut World, sizes: &Sizes, seed: u64) -> anyhow::Result<Done> {
    let mut random = stream(seed, "server kills", 0);
    let mut done = Done::default();
    let load = load(world, Part::T01, sizes);
    let network = world.network.clone();
    wait_for_rotations(&network, &DIRECT, network.history.now()).await?;
    for _ in 0..sizes.server_kills {
        let victim = random.random_range(0..DIRECT.len());
        sleep(random.random_range(Duration::from_millis(100)..sizes.longest_calm)).await;
        // A kill that finds nobody at work proves nothing.
        wait_for_rotations(&network, &[victim], network.history.now()).await?;
        let server = world.servers.get_mut(victim).context("there is no such server")?;
        server.kill()?;
        let killed = Instant::now();
        server.run()?;
        server.wait_until_ready().await?;
        wait_for_rotations(&network, &[victim], network.history.now()).await?;
        done.faults += 1;
        done.recovered(killed.elapsed());
    }
    done.problems.extend(load.finish().await);
    Ok(done)
}
