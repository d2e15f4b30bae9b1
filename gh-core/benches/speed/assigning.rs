//! Which job goes to which worker, for whole fleets at once.

use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput};
use gh_core::domain::assign::assign;
use gh_core::domain::job::Job;
use gh_core::ports::reader::{Reader, WorkerQuery};

use crate::world::{WORKERS_PER_TARGET, World, at_once, measures, request};

pub(crate) fn benches(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("assign");
    group.sampling_mode(SamplingMode::Flat).sample_size(20);
    let sizes: &[usize] = if measures() { &[1_000, 3_000, 10_000] } else { &[100] };
    for &workers in sizes {
        let jobs = 10 * workers;
        let world = World::new();
        // The jobs come first, so that none is reserved at once and all of them wait.
        let waiting: Vec<Arc<Job>> = (0..jobs)
            .map(|index| {
                let mut request = request(index);
                // Of three jobs one is for one target only and one would rather have it.
                request.worker_affinity = ["strict", "preferred"].get(index % 3).map(ToString::to_string);
                if request.worker_affinity.is_some() {
                    request.target_worker_id = Some(format!("sandbox-{}", index % workers / WORKERS_PER_TARGET));
                    request.affinity_wait_seconds = Some(60);
                }
                world.submit(request)
            })
            .collect();
        (0..workers).for_each(|index| drop(world.worker(index)));
        let (now, idle) = at_once(world.store.workers(&WorkerQuery::default())).expect("the store answers");
        assert_eq!((waiting.iter().filter(|job| job.wait().is_some()).count(), idle.len()), (jobs, workers));
        let assigned = assign(waiting.iter().map(AsRef::as_ref), &idle, now).len();
        assert_eq!(assigned, workers, "every worker gets a job");
        group.throughput(Throughput::Elements(jobs as u64));
        group.bench_with_input(BenchmarkId::new("workers_x_10_jobs", workers), &workers, |bencher, _| {
            bencher.iter(|| assign(black_box(&waiting).iter().map(AsRef::as_ref), black_box(&idle), now));
        });
    }
    group.finish();
}
