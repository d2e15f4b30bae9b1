//! The jobs that wait for a worker, each in the one lane from which it can be taken now.
//!
//! A job that is not backing off, fenced or reserved waits in the lane of its scope: for anyone, or for one target.
//! A fenced one waits in the lane of the only worker that may take it. When a backoff or a fence is over, the job
//! changes lanes: `turns` knows when, and [`Waiting::turn`] does it, before anything is read from the lanes.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

use crate::domain::ids::{JobId, TargetName, WorkerId};
use crate::domain::job::{Job, QueueOrder, Scope, Wait, WaitObstacle};
use crate::domain::placement::WaitingGroup;
use crate::domain::time::Timestamp;

/// Jobs of one lane, the first to be taken first.
pub(super) type Lane = BTreeSet<QueueOrder>;

/// Where a waiting job stands; with the job itself it leads to all its entries.
#[derive(Clone, Copy, Debug)]
pub(super) struct Standing {
    obstacle: WaitObstacle,
    /// When the obstacle goes by itself.
    turn: Option<Timestamp>,
}

impl Standing {
    fn of(wait: &Wait, obstacle: WaitObstacle) -> Self {
        let turn = match obstacle {
            WaitObstacle::Backoff => wait.not_before,
            WaitObstacle::Fencing => wait.fence.as_ref().map(|fence| fence.until),
            WaitObstacle::None | WaitObstacle::Reserved => None,
        };
        Self { obstacle, turn }
    }
}

type Group = (Option<TargetName>, WaitObstacle);

/// The jobs that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    anyone: Lane,
    targets: HashMap<TargetName, Lane>,
    fenced: HashMap<WorkerId, Lane>,
    turns: BTreeSet<(Timestamp, JobId)>,
    groups: HashMap<Group, BTreeSet<(Timestamp, JobId)>>,
}

/// The lane of a job, as a key.
enum LaneKey<'j> {
    Anyone,
    Target(&'j TargetName),
    Fenced(&'j WorkerId),
}

fn lane_of(wait: &Wait, obstacle: WaitObstacle) -> Option<LaneKey<'_>> {
    match obstacle {
        WaitObstacle::Backoff | WaitObstacle::Reserved => None,
        WaitObstacle::Fencing => wait.fence.as_ref().map(|fence| LaneKey::Fenced(&fence.worker_id)),
        WaitObstacle::None => Some(match &wait.scope {
            Scope::Anyone => LaneKey::Anyone,
            Scope::Target { name, .. } => LaneKey::Target(name),
        }),
    }
}

fn group_of(job: &Job, standing: Standing) -> Group {
    (job.waits_for().cloned(), standing.obstacle)
}

impl Waiting {
    /// Adds a job, if it waits.
    pub(super) fn insert(&mut self, job: &Job, now: Timestamp) -> Option<Standing> {
        let wait = job.wait()?;
        let standing = Standing::of(wait, job.obstacle(now)?);
        match lane_of(wait, standing.obstacle) {
            Some(LaneKey::Anyone) => {
                self.anyone.insert(job.queue_order());
            }
            Some(LaneKey::Target(name)) => insert_under(&mut self.targets, name.clone(), job.queue_order()),
            Some(LaneKey::Fenced(id)) => insert_under(&mut self.fenced, id.clone(), job.queue_order()),
            None => {}
        }
        if let Some(turn) = standing.turn {
            self.turns.insert((turn, job.id));
        }
        insert_under(&mut self.groups, group_of(job, standing), (wait.since, job.id));
        Some(standing)
    }

    /// Removes a job as it was added.
    pub(super) fn remove(&mut self, job: &Job, standing: Standing) {
        let Some(wait) = job.wait() else { return };
        match lane_of(wait, standing.obstacle) {
            Some(LaneKey::Anyone) => {
                self.anyone.remove(&job.queue_order());
            }
            Some(LaneKey::Target(name)) => remove_under(&mut self.targets, name, &job.queue_order()),
            Some(LaneKey::Fenced(id)) => remove_under(&mut self.fenced, id, &job.queue_order()),
            None => {}
        }
        if let Some(turn) = standing.turn {
            self.turns.remove(&(turn, job.id));
        }
        remove_under(&mut self.groups, &group_of(job, standing), &(wait.since, job.id));
    }

    /// A job whose backoff or fence is over and that has to be removed and added again.
    pub(super) fn turn(&self, now: Timestamp) -> Option<JobId> {
        self.turns.first().filter(|(turn, _)| *turn <= now).map(|(_, id)| *id)
    }

    /// Jobs that anyone may take.
    pub(super) const fn for_anyone(&self) -> &Lane {
        &self.anyone
    }

    /// Jobs that only workers of this target may take.
    pub(super) fn for_target(&self, name: &TargetName) -> Option<&Lane> {
        self.targets.get(name)
    }

    /// Jobs that only this worker may take.
    pub(super) fn for_worker(&self, id: &WorkerId) -> Option<&Lane> {
        self.fenced.get(id)
    }

    /// Jobs that wait for workers of this target only, and those reserved on one of them; the longest waiting first
    /// among those with the same obstacle.
    pub(super) fn of_target(&self, name: &TargetName) -> Vec<JobId> {
        [WaitObstacle::None, WaitObstacle::Backoff, WaitObstacle::Fencing, WaitObstacle::Reserved]
            .into_iter()
            .filter_map(|obstacle| self.groups.get(&(Some(name.clone()), obstacle)))
            .flatten()
            .map(|(_, id)| *id)
            .collect()
    }

    /// All that wait, in a stable order.
    pub(super) fn groups(&self) -> Vec<WaitingGroup> {
        let mut groups: Vec<WaitingGroup> = self
            .groups
            .iter()
            .filter_map(|((target, obstacle), members)| {
                let (oldest, _) = *members.first()?;
                Some(WaitingGroup { target: target.clone(), obstacle: *obstacle, jobs: members.len() as u64, oldest })
            })
            .collect();
        groups.sort_by(|one, other| (&one.target, one.obstacle).cmp(&(&other.target, other.obstacle)));
        groups
    }
}

/// Adds a value to the set of a key.
pub(super) fn insert_under<K: Hash + Eq, V: Ord>(sets: &mut HashMap<K, BTreeSet<V>>, key: K, value: V) {
    sets.entry(key).or_default().insert(value);
}

/// Removes a value from the set of a key, and the set with its last value.
pub(super) fn remove_under<K: Hash + Eq, V: Ord>(sets: &mut HashMap<K, BTreeSet<V>>, key: &K, value: &V) {
    if let Some(set) = sets.get_mut(key) {
        set.remove(value);
        if set.is_empty() {
            sets.remove(key);
        }
    }
}
