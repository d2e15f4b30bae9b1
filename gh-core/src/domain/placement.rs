//! Why a job is where it is, or why it still waits: for people, and as stable codes.

use std::collections::BTreeMap;

use serde::Serialize;

use super::ids::{Name, WorkerId};
use super::job::{Job, JobState, Outcome, Scope, Wait, WaitObstacle};
use super::policy::Policy;
use super::time::Timestamp;
use super::worker::{Ineligible, WorkerView};

/// Jobs that wait, grouped by what they wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WaitingGroup {
    /// The target they wait for; none for those that anyone may take.
    pub target: Option<Name>,
    /// What keeps them beside the lack of a worker.
    pub obstacle: WaitObstacle,
    /// How many.
    pub jobs: u64,
    /// Since when the one waits that waits longest.
    pub oldest: Timestamp,
}

impl WaitingGroup {
    /// The groups that these jobs make up, in a stable order; those that do not wait are passed over.
    #[must_use]
    pub fn of_jobs<'j>(jobs: impl IntoIterator<Item = &'j Job>, now: Timestamp) -> Vec<Self> {
        let mut groups: BTreeMap<(Option<&Name>, WaitObstacle), (u64, Timestamp)> = BTreeMap::new();
        for job in jobs {
            if let (Some(wait), Some(obstacle)) = (job.wait(), job.obstacle(now)) {
                let (count, oldest) = groups.entry((job.waits_for(), obstacle)).or_insert((0, wait.since));
                *count += 1;
                *oldest = wait.since.min(*oldest);
            }
        }
        let group = |((target, obstacle), (jobs, oldest)): ((Option<&Name>, _), _)| Self {
            target: target.cloned(),
            obstacle,
            jobs,
            oldest,
        };
        groups.into_iter().map(group).collect()
    }
}

/// Why a job waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WaitingCode {
    /// Workers are silent that it could have, or has, and nobody is given up for now: see
    /// [`watch`](super::watch).
    Brake,
    /// It failed before and waits a while.
    Backoff,
    /// The worker that lost it may still act on it.
    Fencing,
    /// It is reserved for a worker.
    Reserved,
    /// No worker is known at all.
    NoWorkerRegistered,
    /// No worker was heard from lately.
    NoneResponsive,
    /// Every worker has a job.
    AllBusy,
    /// Every worker takes no more jobs.
    AllDraining,
    /// Workers are there, but none of them asks for a job.
    NoneWaiting,
    /// No worker carries the target's name.
    TargetUnknown,
    /// The workers of the target are gone.
    TargetOffline,
    /// The workers of the target were not heard from lately.
    TargetSuspect,
    /// The workers of the target do not ask for a job.
    TargetDeaf,
    /// The workers of the target take no more jobs.
    TargetDraining,
    /// The workers of the target have jobs.
    TargetBusy,
}

impl WaitingCode {
    /// The word on the wire.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Brake => "brake",
            Self::Backoff => "backoff",
            Self::Fencing => "fencing",
            Self::Reserved => "reserved",
            Self::NoWorkerRegistered => "no_worker_registered",
            Self::NoneResponsive => "none_responsive",
            Self::AllBusy => "all_busy",
            Self::AllDraining => "all_draining",
            Self::NoneWaiting => "none_waiting",
            Self::TargetUnknown => "target_unknown",
            Self::TargetOffline => "target_offline",
            Self::TargetSuspect => "target_suspect",
            Self::TargetDeaf => "target_deaf",
            Self::TargetDraining => "target_draining",
            Self::TargetBusy => "target_busy",
        }
    }

    const fn sentence(self) -> &'static str {
        match self {
            Self::Brake => {
                "Workers that could take the job are silent, and none is given up for now, since it may be the control \
                 plane that does not hear."
            }
            Self::Backoff => "The last attempt failed; the next one may start after a short wait.",
            Self::Fencing => {
                "The worker that lost the job may still act on it; until it certainly does not, only that worker may \
                 take the job again."
            }
            Self::Reserved => "A worker is reserved for the job and has not picked it up yet.",
            Self::NoWorkerRegistered => "No worker is registered.",
            Self::NoneResponsive => "No worker was heard from lately.",
            Self::AllBusy => "Every worker that is there has a job.",
            Self::AllDraining => "Every worker that is there takes no more jobs.",
            Self::NoneWaiting => "Workers are there, but none of them is asking for a job at this moment.",
            Self::TargetUnknown => "No worker of the target is known.",
            Self::TargetOffline => "The workers of the target are offline or deregistered.",
            Self::TargetSuspect => "The workers of the target were not heard from lately.",
            Self::TargetDeaf => "The workers of the target live, but do not ask for a job.",
            Self::TargetDraining => "The workers of the target take no more jobs.",
            Self::TargetBusy => "The workers of the target have jobs.",
        }
    }

    /// The code for a wait that nothing but the lack of a worker keeps: the most able worker speaks, but while the brake
    /// holds a silent one before all that have no place for it.
    fn of_workers<'w>(workers: impl Iterator<Item = &'w WorkerView>, for_target: bool, fleet: &FleetView<'_>) -> Self {
        let abilities: Vec<u8> = workers.map(|view| ability(view, fleet)).collect();
        let silent = abilities.contains(&SILENT);
        match (abilities.into_iter().min(), for_target) {
            (Some(1..), _) if silent && fleet.brake => Self::Brake,
            (None, true) => Self::TargetUnknown,
            (None, false) => Self::NoWorkerRegistered,
            (Some(0), _) | (Some(2), false) => Self::NoneWaiting,
            (Some(1), true) => Self::TargetBusy,
            (Some(1), false) => Self::AllBusy,
            (Some(2), true) => Self::TargetDeaf,
            (Some(3), true) => Self::TargetDraining,
            (Some(3), false) => Self::AllDraining,
            (Some(4), true) => Self::TargetSuspect,
            (Some(_), true) => Self::TargetOffline,
            (Some(_), false) => Self::NoneResponsive,
        }
    }
}

/// How far a worker is from taking a job: 0 for one that could take it at once.
fn ability(view: &WorkerView, fleet: &FleetView<'_>) -> u8 {
    match view.eligible(fleet.now, fleet.policy) {
        Ok(()) | Err(Ineligible::NotWaiting) => 0,
        Err(Ineligible::Busy | Ineligible::Closing | Ineligible::Reserved) => 1,
        Err(Ineligible::Deaf | Ineligible::Lapsed) => 2,
        Err(Ineligible::Draining) => 3,
        Err(Ineligible::Suspect) => SILENT,
        Err(Ineligible::Offline) => 5,
    }
}

/// The [ability] of a worker that takes part and is not heard from.
const SILENT: u8 = 4;

/// The fleet at one moment, for explanations.
#[derive(Clone, Copy, Debug)]
pub struct FleetView<'f> {
    /// The store's time.
    pub now: Timestamp,
    /// All workers.
    pub workers: &'f [WorkerView],
    /// Whether nobody is given up at this time.
    pub brake: bool,
    /// Times and limits.
    pub policy: &'f Policy,
}

/// Why a job waits, since when, and until when at most.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// Why.
    pub code: WaitingCode,
    /// Since when.
    pub since: Timestamp,
    /// When this wait is over by itself, whatever follows.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// Why this job waits; none when it does not.
#[must_use]
pub fn waiting(job: &Job, fleet: &FleetView<'_>) -> Option<Waiting> {
    let wait = job.wait()?;
    let now = fleet.now;
    let (code, until) = match &job.state {
        JobState::Queued(_, reservation) if fleet.brake && reservation.until <= now => (WaitingCode::Brake, None),
        JobState::Queued(_, reservation) => (WaitingCode::Reserved, Some(reservation.until)),
        _ if !wait.is_due(now) => (WaitingCode::Backoff, wait.not_before),
        _ if wait.fenced_to(now).is_some() => (WaitingCode::Fencing, wait.fence.as_ref().map(|fence| fence.until)),
        _ => waiting_for(wait, fleet),
    };
    let until = match (until, job.expires_at()) {
        (Some(until), Some(expires)) => Some(until.min(expires)),
        (until, expires) => until.or(expires),
    };
    Some(Waiting { code, since: wait.since, until })
}

fn waiting_for(wait: &Wait, fleet: &FleetView<'_>) -> (WaitingCode, Option<Timestamp>) {
    match &wait.scope {
        Scope::Anyone => (WaitingCode::of_workers(fleet.workers.iter(), false, fleet), None),
        Scope::Target { name, until } => {
            let of_target = fleet.workers.iter().filter(|view| view.answers_to(name));
            (WaitingCode::of_workers(of_target, true, fleet), Some(*until))
        }
    }
}

/// Why the jobs of a group wait.
#[must_use]
pub fn code_of_group(group: &WaitingGroup, fleet: &FleetView<'_>) -> WaitingCode {
    match (group.obstacle, &group.target) {
        (WaitObstacle::Backoff, _) => WaitingCode::Backoff,
        (WaitObstacle::Fencing, _) => WaitingCode::Fencing,
        (WaitObstacle::Reserved, _) => WaitingCode::Reserved,
        (WaitObstacle::None, None) => WaitingCode::of_workers(fleet.workers.iter(), false, fleet),
        (WaitObstacle::None, Some(name)) => {
            let of_target = fleet.workers.iter().filter(|view| view.answers_to(name));
            WaitingCode::of_workers(of_target, true, fleet)
        }
    }
}

/// Where a job is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PlacementDecision {
    /// It waits for a worker.
    Waiting,
    /// A worker is reserved for it.
    Reserved,
    /// A worker has it.
    Running,
    /// It is over.
    Ended,
}

/// One worker that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    /// The worker.
    pub worker_id: WorkerId,
    /// Whether it could take the job now.
    pub eligible: bool,
    /// A stable word for why, or `eligible`.
    pub code: &'static str,
    /// The same for people.
    pub because: &'static str,
}

/// Why a job is where it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct PlacementExplanation {
    /// Where it is.
    pub decision: PlacementDecision,
    /// A stable word for why.
    pub reason: &'static str,
    /// Since when.
    pub since: Timestamp,
    /// When this is over by itself, if it is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The same for people.
    pub explanation: String,
    /// Workers that were looked at, the most able first; at most [`MAX_CANDIDATES`].
    pub candidates: Vec<Candidate>,
}

/// How many workers an explanation names.
pub const MAX_CANDIDATES: usize = 50;

/// Explains why a job is where it is, or why it still waits.
#[must_use]
pub fn explain(job: &Job, fleet: &FleetView<'_>) -> PlacementExplanation {
    let settled = |decision, reason, since, until, explanation| PlacementExplanation {
        decision,
        reason,
        since,
        until,
        explanation,
        candidates: Vec::new(),
    };
    match &job.state {
        JobState::Running(lease) | JobState::NeedsHuman(lease, _) => {
            let worker = &lease.worker_id;
            let (reason, text) = match (&job.state, &lease.grace) {
                (_, Some(_)) => (
                    "in_grace",
                    format!("{worker} was lost past the point of no return; it may still say how the job ended."),
                ),
                (JobState::NeedsHuman(..), None) => ("needs_human", format!("{worker} has it and waits for a person.")),
                (_, None) => ("assigned", format!("{worker} runs it, attempt {}.", job.attempt)),
            };
            let until = lease.grace.as_ref().map(|grace| grace.until).or_else(|| job.attempt_deadline(fleet.policy));
            settled(PlacementDecision::Running, reason, lease.granted_at, until, text)
        }
        JobState::Ended(ending) => {
            let (reason, text) = match &ending.outcome {
                Outcome::Completed(_) => ("completed", "It is completed.".to_owned()),
                Outcome::Failed { code, message } => ("failed", format!("It failed ({code}): {message}.")),
                Outcome::Cancelled { .. } => ("cancelled", "It was cancelled.".to_owned()),
                Outcome::Expired => ("expired", "It waited longer than it was allowed to.".to_owned()),
            };
            settled(PlacementDecision::Ended, reason, ending.at, None, text)
        }
        JobState::Pending(wait) | JobState::Queued(wait, _) => {
            let waiting = waiting(job, fleet).unwrap_or(Waiting {
                code: WaitingCode::NoneWaiting,
                since: wait.since,
                until: None,
            });
            let decision = match job.state {
                JobState::Queued(..) => PlacementDecision::Reserved,
                _ => PlacementDecision::Waiting,
            };
            PlacementExplanation {
                decision,
                reason: waiting.code.as_str(),
                since: waiting.since,
                until: waiting.until,
                explanation: waiting.code.sentence().to_owned(),
                candidates: candidates(wait, fleet),
            }
        }
    }
}

fn candidates(wait: &Wait, fleet: &FleetView<'_>) -> Vec<Candidate> {
    let in_scope = |view: &&WorkerView| match &wait.scope {
        Scope::Anyone => true,
        Scope::Target { name, .. } => view.answers_to(name),
    };
    let fenced_to = wait.fenced_to(fleet.now);
    let mut views: Vec<(bool, u8, &WorkerView)> = fleet
        .workers
        .iter()
        .filter(in_scope)
        .map(|view| {
            let fenced = fenced_to.is_some_and(|only| *only != view.worker.id);
            (fenced || view.eligible(fleet.now, fleet.policy).is_err(), ability(view, fleet), view)
        })
        .collect();
    let order = |(refused, ability, view): &(bool, u8, &WorkerView)| (*refused, *ability, view.worker.id.clone());
    views.sort_by_cached_key(order);
    views.truncate(MAX_CANDIDATES);
    let candidate = |(refused, _, view): (bool, u8, &WorkerView)| {
        let (code, because) = match view.eligible(fleet.now, fleet.policy) {
            Ok(()) if refused => ("fencing", "Another worker may still act on the job."),
            Ok(()) => ("eligible", "It could take the job."),
            Err(reason) => describe(reason),
        };
        Candidate { worker_id: view.worker.id.clone(), eligible: !refused, code, because }
    };
    views.into_iter().map(candidate).collect()
}

const fn describe(reason: Ineligible) -> (&'static str, &'static str) {
    match reason {
        Ineligible::Offline => ("offline", "It is offline or deregistered."),
        Ineligible::Suspect => ("suspect", "It was not heard from lately."),
        Ineligible::Deaf => ("deaf", "It lives, but has not asked for a job for a while."),
        Ineligible::Lapsed => ("lapsed", "It let a reservation lapse and has not asked for a job since."),
        Ineligible::NotWaiting => ("not_waiting", "It is not asking for a job at this moment."),
        Ineligible::Draining => ("draining", "It takes no more jobs."),
        Ineligible::Busy => ("busy", "It has a job."),
        Ineligible::Closing => ("closing", "Its last job was ended by somebody else, and it may still be at it."),
        Ineligible::Reserved => ("reserved", "Another job is reserved for it."),
    }
}
