//! Figures for metrics.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{ControlPlane, UseCaseError};
use crate::domain::job::JobStatus;
use crate::domain::placement::{self, FleetView, WaitingCode};
use crate::domain::worker::WorkerStatus;

/// Jobs that wait for one reason.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WaitingJobs {
    /// How many.
    pub jobs: u64,
    /// How long the one has waited that waits longest.
    pub oldest_age: Duration,
}

/// How the fleet and its queue stand.
#[derive(Clone, Debug)]
pub struct FleetFigures {
    /// How many jobs have each live status.
    pub jobs: Vec<(JobStatus, u64)>,
    /// Jobs that wait, by why they wait.
    pub waiting: BTreeMap<WaitingCode, WaitingJobs>,
    /// How many workers have each status.
    pub workers: Vec<(WorkerStatus, u64)>,
    /// Callbacks that are open.
    pub callbacks_open: u64,
    /// Queues of callbacks that are due now.
    pub callbacks_due: u64,
    /// Whether silent workers are not given up now, by any server.
    pub brake: bool,
    /// All time in which no server could take calls, since there is a record of it.
    pub blind_time: Duration,
}

impl ControlPlane {
    /// How the fleet and its queue stand now.
    ///
    /// # Errors
    ///
    /// The store is away.
    pub async fn figures(&self) -> Result<FleetFigures, UseCaseError> {
        let figures = self.ports.reader.figures().await?;
        let (now, workers) = self.ports.reader.glance().await?;
        let watch = self.ports.reader.fleet_watch().await?;
        let brake = watch.episode(now).is_some();
        let fleet = FleetView { now, workers: &workers, brake, policy: &self.rules.policy };
        let mut waiting = BTreeMap::new();
        for group in &figures.waiting {
            let code = placement::code_of_group(group, &fleet);
            let jobs = waiting.entry(code).or_insert(WaitingJobs { jobs: 0, oldest_age: Duration::ZERO });
            jobs.jobs += group.jobs;
            jobs.oldest_age = jobs.oldest_age.max(now.since(group.oldest));
        }
        let with_status = |status| workers.iter().filter(|view| view.status() == status).count();
        Ok(FleetFigures {
            jobs: figures.jobs,
            waiting,
            workers: WorkerStatus::ALL.iter().map(|status| (*status, with_status(*status) as u64)).collect(),
            callbacks_open: figures.callbacks_open,
            callbacks_due: figures.callbacks_due,
            brake,
            blind_time: watch.blind_time(),
        })
    }
}
