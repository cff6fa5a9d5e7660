//! T02: all of Postgres is killed under load and started again, many times.

use std::time::Duration;

use rand::RngExt as _;
use tokio::time::sleep;

use super::{Done, load, wait_for_rotations};
use crate::plan::{Part, Sizes, stream};
use crate::world::{DIRECT, World};

pub(super) async fn run(world: &mut World, sizes: &Sizes, seed: u64) -> anyhow::Result<Done> {
    let mut random = stream(seed, "postgres kills", 0);
    let mut done = Done::default();
    let load = load(world, Part::T02, sizes);
    let network = world.network.clone();
    wait_for_rotations(&network, &DIRECT, network.history.now()).await?;
    for _ in 0..sizes.postgres_kills {
        sleep(random.random_range(Duration::from_millis(100)..sizes.longest_calm)).await;
        wait_for_rotations(&network, &DIRECT, network.history.now()).await?;
        world.cluster.kill()?;
        // At times it is down for longer than a client's patience with one server.
        if random.random_bool(0.3) {
            sleep(random.random_range(Duration::from_millis(100)..Duration::from_millis(2_500))).await;
        }
        world.cluster.run()?;
        world.cluster.wait_until_it_accepts().await?;
        let after = wait_for_rotations(&network, &DIRECT, network.history.now()).await?;
        done.faults += 1;
        done.recovered(after);
        if sizes.longest_recovery.is_some_and(|longest| after > longest) {
            done.problems.push(format!("{after:.1?} went by until every server served again"));
        }
    }
    done.problems.extend(load.finish().await);
    Ok(done)
}
