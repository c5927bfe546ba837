//! Slots that move from one master to another under load.

use crate::TURN;
use crate::calm::on_a_calm_machine;
use crate::fleet::{Task, consumer, rate};
use crate::redis_lab::RedisCluster;
use datahub_gateway::limits::Period;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread")]
async fn slots_may_move_and_counters_with_them() {
    let _turn = TURN.lock().await;
    on_a_calm_machine(|| async {
        let cluster = Arc::new(RedisCluster::start());
        let task = Task::of(&cluster).await;
        const CONSUMERS: usize = 40;
        const BURST: u32 = 60;
        // So slow that nothing comes back while this runs.
        let rule = rate("r", 1, Period::Day, BURST);
        let set = Arc::new(task.rules(&[rule]));
        let moved = Arc::new(AtomicBool::new(false));
        let mut requests = tokio::task::JoinSet::new();
        for n in 0..CONSUMERS {
            let (limiter, set, moved) =
                (Arc::clone(&task.limiter), Arc::clone(&set), Arc::clone(&moved));
            requests.spawn(async move {
                let (name, mut admitted) = (format!("consumer{n}"), 0);
                // Half of the burst while slots move, the rest when all have moved.
                for _ in 0..BURST / 2 {
                    limiter.reserve(&[&set], &consumer(&name)).await.unwrap();
                    admitted += 1;
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                while !moved.load(Ordering::Relaxed) {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                while limiter.reserve(&[&set], &consumer(&name)).await.is_ok() {
                    admitted += 1;
                }
                admitted
            });
        }
        let mover = Arc::clone(&cluster);
        let output = tokio::task::spawn_blocking(move || {
            let masters = mover.masters();
            let id = |index: usize| mover.cli(index, &["cluster", "myid"]).trim().to_owned();
            mover.reshard(&id(masters[0]), &id(masters[1]), 1_500)
        });
        let output = output.await.unwrap();
        moved.store(true, Ordering::Relaxed);
        let admitted = requests.join_all().await;
        let (vitals, redis) = (task.limiter.vitals(), task.redis.vitals());
        println!("{vitals:?}\n{redis:?}");
        assert!(output.contains("Moving slot"), "{output}");
        // A node that is busy moving keys may keep a request waiting for too long, now and then.
        assert!(vitals.fell_back_to_share <= 24, "{vitals:?}");
        let total: u32 = admitted.iter().sum();
        let all = BURST * u32::try_from(CONSUMERS).unwrap();
        // A permit of a share is one that Redis may not know of.
        let unknown = u32::try_from(vitals.fell_back_to_share).unwrap();
        assert!((all..=all + unknown).contains(&total), "{total} of {all}");
        assert!(admitted.iter().all(|admitted| *admitted >= BURST), "{admitted:?}");
    })
    .await;
}
