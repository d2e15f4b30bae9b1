//! Which waiting job goes to which worker. Pure, and near-linear in jobs and workers.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};

use super::ids::{Name, WorkerId};
use super::job::{Job, JobState, Scope};
use super::time::Timestamp;
use super::worker::WorkerView;

/// A job and the worker that gets it.
#[derive(Clone, Copy, Debug)]
pub struct Assignment<'a> {
    /// The job.
    pub job: &'a Job,
    /// The worker.
    pub worker: &'a WorkerView,
}

/// Whether this worker may take this waiting job now, its own state aside.
#[must_use]
pub fn may_take(job: &Job, worker: &WorkerView, now: Timestamp) -> bool {
    let JobState::Pending(wait) = &job.state else {
        return false;
    };
    let in_scope = match &wait.scope {
        Scope::Anyone => true,
        Scope::Target { name, .. } => worker.answers_to(name),
    };
    in_scope && wait.is_due(now) && wait.fenced_to(now).is_none_or(|id| *id == worker.worker.id)
}

/// Assigns waiting jobs to idle workers: higher priority first, then older first; among several workers the one on the
/// least loaded machine, then the one that has been idle longest.
///
/// `jobs` and `workers` come in any order; every job of `jobs` that is not pending is passed over, every worker of
/// `workers` is taken for eligible. Each is used at most once.
#[must_use]
pub fn assign<'a>(
    jobs: impl IntoIterator<Item = &'a Job>,
    workers: impl IntoIterator<Item = &'a WorkerView>,
    now: Timestamp,
) -> Vec<Assignment<'a>> {
    let mut idle = IdleWorkers::new(workers);
    let mut jobs: Vec<&Job> = jobs.into_iter().filter(|job| matches!(job.state, JobState::Pending(_))).collect();
    jobs.sort_by_cached_key(|job| job.queue_order());
    let mut assignments = Vec::with_capacity(idle.left.min(jobs.len()));
    for job in jobs {
        if idle.left == 0 {
            break;
        }
        if let Some(worker) = idle.take_for(job, now) {
            assignments.push(Assignment { job, worker });
        }
    }
    assignments
}

/// A worker's machine; a worker that names none is a machine by itself.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Machine<'a> {
    Instance(&'a Name),
    Alone(&'a WorkerId),
}

struct IdleWorkers<'a> {
    by_id: HashMap<&'a WorkerId, &'a WorkerView>,
    by_target: HashMap<&'a Name, VecDeque<&'a WorkerView>>,
    machines: HashMap<Machine<'a>, (u32, VecDeque<&'a WorkerView>)>,
    /// The first idle worker of each machine, least loaded machine first.
    order: BTreeSet<(u32, Timestamp, Machine<'a>)>,
    taken: HashSet<&'a WorkerId>,
    left: usize,
}

impl<'a> IdleWorkers<'a> {
    fn new(workers: impl IntoIterator<Item = &'a WorkerView>) -> Self {
        let mut all: Vec<&WorkerView> = workers.into_iter().collect();
        all.sort_unstable_by_key(|view| (view.worker.idle_since, &view.worker.id));
        let mut idle = Self {
            by_id: HashMap::with_capacity(all.len()),
            by_target: HashMap::new(),
            machines: HashMap::new(),
            order: BTreeSet::new(),
            taken: HashSet::new(),
            left: all.len(),
        };
        for view in all {
            idle.by_id.insert(&view.worker.id, view);
            if let Some(target) = &view.worker.identity.target_worker_id {
                idle.by_target.entry(target).or_default().push_back(view);
            }
            let machine = match &view.worker.identity.ec2_instance_id {
                Some(instance) => Machine::Instance(instance),
                None => Machine::Alone(&view.worker.id),
            };
            idle.machines.entry(machine).or_insert((view.instance_load, VecDeque::new())).1.push_back(view);
        }
        for queue in idle.by_target.values_mut() {
            queue.make_contiguous().sort_by_key(|view| (view.instance_load, view.worker.idle_since));
        }
        for (machine, (load, queue)) in &idle.machines {
            if let Some(first) = queue.front() {
                idle.order.insert((*load, first.worker.idle_since, *machine));
            }
        }
        idle
    }

    fn take_for(&mut self, job: &Job, now: Timestamp) -> Option<&'a WorkerView> {
        let wait = job.wait().filter(|wait| wait.is_due(now))?;
        let worker = match (wait.fenced_to(now), &wait.scope) {
            (Some(id), _) => {
                let worker = self.by_id.get(id).copied().filter(|view| !self.taken.contains(&view.worker.id));
                worker.filter(|view| may_take(job, view, now))?
            }
            (None, Scope::Target { name, .. }) => self.first_of_target(name)?,
            (None, Scope::Anyone) => self.first_of_all()?,
        };
        self.taken.insert(&worker.worker.id);
        self.left -= 1;
        Some(worker)
    }

    fn first_of_target(&mut self, name: &Name) -> Option<&'a WorkerView> {
        if let Some(queue) = self.by_target.get_mut(name) {
            while let Some(view) = queue.pop_front() {
                if !self.taken.contains(&view.worker.id) {
                    return Some(view);
                }
            }
        }
        let by_id = self.by_id.get(name).copied()?;
        (by_id.answers_to(name) && !self.taken.contains(&by_id.worker.id)).then_some(by_id)
    }

    fn first_of_all(&mut self) -> Option<&'a WorkerView> {
        while let Some((load, _, machine)) = self.order.pop_first() {
            let (_, queue) = self.machines.get_mut(&machine)?;
            let mut chosen = None;
            while let Some(view) = queue.pop_front() {
                if !self.taken.contains(&view.worker.id) {
                    chosen = Some(view);
                    break;
                }
            }
            // A machine that gets a job is one job busier for the next choice.
            let load = load + u32::from(chosen.is_some());
            if let Some(next) = queue.front() {
                self.order.insert((load, next.worker.idle_since, machine));
            }
            if chosen.is_some() {
                return chosen;
            }
        }
        None
    }
}
