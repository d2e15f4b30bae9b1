//! The candidates of a claim: which waiting jobs the core has to see to place jobs on workers.

use std::collections::HashMap;

use super::load::Loading;
use super::state::State;
use super::waiting::Lane;
use crate::domain::assign::may_take;
use crate::domain::ids::{JobId, TargetName, WorkerId};
use crate::domain::policy::Policy;
use crate::domain::snapshot::Snapshot;
use crate::domain::time::Timestamp;
use crate::domain::worker::WorkerView;
use crate::ports::store::ClaimRequest;

/// The workers of new claims and those among the waiting that can take a job now, with the jobs that they can take;
/// none if there is nothing to decide.
///
/// A worker takes one job at most, so a lane from which n of the workers can take gives n jobs at most, and these are
/// its first. The lane for anyone therefore gives as many as there are workers, and no lane is read further than that.
pub(super) fn candidates(state: &State, request: &ClaimRequest, now: Timestamp, policy: &Policy) -> Option<Snapshot> {
    let view = |id| Some((id, state.workers.view(id)?));
    let waiting = request.workers.iter().filter_map(view).filter(|(_, view)| view.eligible(now, policy).is_ok());
    // Whether these can take one is known when their claims are decided.
    let claiming = request.claims.iter().map(|claim| &claim.who.worker_id).filter_map(view);
    let workers: HashMap<&WorkerId, WorkerView> = waiting.chain(claiming).collect();
    let everyone: Vec<&WorkerView> = workers.values().collect();
    let mut of_target: HashMap<&TargetName, Vec<&WorkerView>> = HashMap::new();
    for view in workers.values() {
        let names = [view.worker.identity.target_worker_id.as_ref(), Some(&view.worker.id)];
        for name in names.into_iter().flatten() {
            if view.answers_to(name) {
                of_target.entry(name).or_default().push(view);
            }
        }
    }
    let waiting = state.jobs.waiting();
    let mut jobs: Vec<JobId> = Vec::new();
    let mut take_first = |lane: &Lane, by: &[&WorkerView]| {
        let takable = lane
            .iter()
            .map(|place| place.job_id())
            .filter(|id| state.jobs.get(*id).is_some_and(|job| by.iter().any(|view| may_take(job, view, now))))
            .take(by.len());
        jobs.extend(takable);
    };
    if !everyone.is_empty() {
        take_first(waiting.for_anyone(), &everyone);
    }
    for (name, by) in &of_target {
        if let Some(lane) = waiting.for_target(name) {
            take_first(lane, by);
        }
    }
    for view in workers.values() {
        if let Some(lane) = waiting.for_worker(&view.worker.id) {
            take_first(lane, &[view]);
        }
    }
    if jobs.is_empty() && request.claims.is_empty() {
        return None;
    }
    let mut loading = Loading::new(state, now);
    for id in jobs {
        loading.job(id);
    }
    for id in workers.keys() {
        loading.worker(id);
    }
    Some(loading.finish())
}
