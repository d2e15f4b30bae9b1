//! One worker asks the in-memory store for a job: find it among all that wait, decide, store. And a heartbeat all the
//! way through, for comparison.

use std::cell::RefCell;
use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion};
use gh_core::domain::commands::{Credential, DrainWish, Heartbeat, JobClaim};
use gh_core::domain::worker::Beat;

use crate::world::{World, measures, request};

/// Idle workers and waiting jobs.
struct Fleet {
    world: World,
    idle: Vec<Credential>,
}

impl Fleet {
    fn new(workers: usize, jobs: usize) -> Self {
        let world = World::new();
        let idle = (0..workers).map(|index| world.worker(index)).collect();
        (0..jobs).for_each(|index| drop(world.submit(request(index))));
        Self { world, idle }
    }
}

pub(crate) fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("memory_store");
    group.warm_up_time(Duration::from_millis(500)).measurement_time(Duration::from_secs(1)).sample_size(50);
    let sizes: &[usize] = if measures() { &[1_000, 10_000, 100_000] } else { &[100] };
    for &waiting in sizes {
        // A fleet of which a tenth of the jobs is claimed, then a fresh one: so many wait, give or take a tenth.
        let fleet = RefCell::new(Fleet::new(waiting / 10, waiting + waiting / 20));
        group.bench_with_input(BenchmarkId::new("claim_among", waiting), &waiting, |bencher, _| {
            bencher.iter_batched(
                || {
                    let mut fleet = fleet.borrow_mut();
                    if fleet.idle.is_empty() {
                        *fleet = Fleet::new(waiting / 10, waiting + waiting / 20);
                    }
                    let next = fleet.idle.pop().expect("a fresh fleet is idle");
                    vec![next.worker_id]
                },
                |workers| {
                    let granted = fleet.borrow().world.claim(black_box(workers));
                    assert_eq!(granted.len(), 1, "there is a job for everybody");
                    granted
                },
                BatchSize::PerIteration,
            );
        });
    }
    let fleet = Fleet::new(100, 0);
    let who = fleet.idle[0].clone();
    let heartbeat = Heartbeat {
        who,
        beat: Beat::default(),
        job: JobClaim::None,
        drain: DrainWish::Silent,
        acknowledged: Vec::new(),
    };
    group.bench_function("heartbeat_load_decide_commit", |bencher| {
        bencher.iter(|| fleet.world.run(black_box(&heartbeat)));
    });
    group.finish();
}
