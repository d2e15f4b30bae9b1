//! The loops that make time pass, and who runs them.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::MissedTickBehavior;
use tracing::{error, warn};

use super::background::{MAX_IN_FLIGHT, Vigil};
use super::{ControlPlane, UseCaseError};

/// How often deadlines are looked at: nothing is noticed later than this after it is due.
const SWEEP_EVERY: Duration = Duration::from_millis(500);

/// How long a wake may be lost before somebody looks all the same.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Which of the background loops a process runs. Nothing else in the core runs by itself.
///
/// | loop | does | looks | at most | if nobody runs it |
/// | --- | --- | --- | --- | --- |
/// | [`DISPATCH`](Self::DISPATCH) | writes down the claims that come, gives waiting jobs to those that wait in this process, and each second looks whether one of them was not woken | when a claim comes, when woken, and each second | all claims of the process that wait and 256 new ones | those who claim do it, one for all; claims only get jobs that were there when they came, or that they are woken for; jobs wait on |
/// | [`SWEEP`](Self::SWEEP) | looks whether silence may be believed, and applies what time alone brings: lapsed reservations, silent workers, time-outs, drains, expiries | every half second | 500 jobs and 500 workers at once, then at once again | no deadline ever comes: lost workers keep their jobs |
/// | [`DELIVER`](Self::DELIVER) | sends callbacks that are due | when woken, when the next is due, and each second | 512 on their way at once | clients hear nothing; callbacks wait in the store |
/// | [`COMMIT`](Self::COMMIT) | decides and stores commands together, where that is [switched on](ControlPlane::with_group_commit) | when a command comes | [`GroupCommit::batch`](super::GroupCommit::batch) commands at once | each command is decided and stored by itself |
///
/// # Who runs what
///
/// One process runs [`ALL`](Self::ALL). Of many processes over one store any number may do so, too: the store decides
/// who was first, so two that sweep or deliver do nothing twice. Processes that answer requests may also be kept apart
/// from processes that sweep and deliver. Then these rules hold:
///
/// - [`DISPATCH`](Self::DISPATCH) runs in **every** process in which claims wait or streams of directives are open. Only
///   this process can answer its claims, and only it knows which connections broke.
/// - [`COMMIT`](Self::COMMIT) runs in every process that groups commands; it works for the calls of its own process.
/// - [`SWEEP`](Self::SWEEP) and [`DELIVER`](Self::DELIVER) each run in **at least one** process, better in two: when one
///   stops, the other goes on from what is stored.
///
/// # How it stops
///
/// [`run`](Self::run) returns after [`ControlPlane::close`]. Dispatch and sweep end with the step they are at; committers
/// answer every command that waits, and those that come later go their own way; delivery takes nothing new and waits
/// for the callbacks that are on their way, 25 s at most. Whoever cannot wait so long drops
/// the future: a callback that is cut off is sent again when its lease in the store is over. A step that fails, because
/// the store is away, is logged and tried again at the next look; no loop ends by itself.
///
/// # Example
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// use gh_core::application::{BackgroundLoops, ControlPlane, Ports};
/// use gh_core::domain::code::ClientName;
/// use gh_core::memory::MemoryStore;
/// use gh_core::ports::callback_sender::{MockCallbackSender, SendOutcome};
/// use gh_core::testing::{ManualClock, rules, registration, submission};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let store = Arc::new(MemoryStore::new(Arc::new(ManualClock::default()), [7; 32]));
/// let mut sender = MockCallbackSender::new();
/// sender.expect_send().returning(|_| SendOutcome::Answered {
///     status: 204,
///     retry_after: None,
///     excerpt: String::new(),
///     took: Duration::ZERO,
/// });
/// let control_plane = ControlPlane::new(Ports::alone(store, Arc::new(sender)), rules());
///
/// let service = async {
///     let worker = control_plane.register(&registration("worker-a")).await?.credential;
///     let shop = ClientName::new("shop");
///     let (claimed, submitted) = tokio::join!(
///         control_plane.claim(&worker, Duration::from_secs(30)),
///         control_plane.submit(&shop, submission()),
///     );
///     // The dispatch loop answered the claim.
///     assert_eq!(claimed?.map(|granted| granted.job.id), Some(submitted?.job.id));
///     control_plane.close();
///     Ok::<_, gh_core::application::UseCaseError>(())
/// };
/// let ((), served) = tokio::join!(BackgroundLoops::ALL.run(&control_plane), service);
/// # Ok(served?)
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BackgroundLoops {
    dispatch: bool,
    sweep: bool,
    deliver: bool,
    commit: bool,
}

impl BackgroundLoops {
    /// Gives waiting jobs to the claims that wait in this process, and writes down whose connections ended without a
    /// word. Its steps are [`ControlPlane::note_departures`], [`ControlPlane::dispatch_once`] and
    /// [`ControlPlane::wake_forgotten_claims`].
    pub const DISPATCH: Self = Self { dispatch: true, ..Self::NONE };

    /// Applies deadlines that are over. Its step is [`ControlPlane::sweep_once`].
    pub const SWEEP: Self = Self { sweep: true, ..Self::NONE };

    /// Sends callbacks that are due, with no lock held while they are on their way. As a step:
    /// [`ControlPlane::deliver_once`].
    pub const DELIVER: Self = Self { deliver: true, ..Self::NONE };

    /// Decides and stores together the commands that come meanwhile; does nothing where that is not
    /// [switched on](ControlPlane::with_group_commit).
    pub const COMMIT: Self = Self { commit: true, ..Self::NONE };

    /// All of them: what a process needs that is alone.
    pub const ALL: Self = Self::DISPATCH.and(Self::SWEEP).and(Self::DELIVER).and(Self::COMMIT);

    const NONE: Self = Self { dispatch: false, sweep: false, deliver: false, commit: false };

    /// These loops and others together.
    #[must_use]
    pub const fn and(self, others: Self) -> Self {
        Self {
            dispatch: self.dispatch || others.dispatch,
            sweep: self.sweep || others.sweep,
            deliver: self.deliver || others.deliver,
            commit: self.commit || others.commit,
        }
    }

    /// Runs these loops for as long as the control plane is open: returns after [`ControlPlane::close`].
    ///
    /// Run it once for each control plane: beside the server, in the same `tokio::join!` or `tokio::select!`, or in a
    /// task whose end the process waits for.
    pub async fn run(self, control_plane: &ControlPlane) {
        tokio::join!(
            run_if(self.dispatch, control_plane.run_dispatch()),
            run_if(self.sweep, control_plane.run_sweep()),
            run_if(self.deliver, control_plane.run_delivery()),
            run_if(self.commit, control_plane.run_committers()),
        );
    }
}

async fn run_if(wanted: bool, running: impl Future<Output = ()>) {
    if wanted {
        running.await;
    }
}

impl ControlPlane {
    async fn run_dispatch(&self) {
        let _until_it_ends = self.arrivals.served_by_loop();
        let mut moments = tokio::time::interval(LOOK_EVERY);
        moments.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let by_itself = tokio::select! {
                () = self.closed() => return,
                // Each moment, however often it is woken in between.
                _ = moments.tick() => true,
                () = self.ports.wakeups.dispatch_requested() => false,
            };
            // First, so that no job is given to a claim that is gone.
            log_failure("dispatch", self.note_departures().await);
            log_failure("dispatch", self.dispatch_once().await.map(drop));
            if by_itself {
                log_failure("dispatch", self.wake_forgotten_claims().await.map(drop));
            }
        }
    }

    async fn run_sweep(&self) {
        let mut vigil = Vigil::started();
        loop {
            tokio::select! {
                () = self.closed() => return,
                () = tokio::time::sleep(SWEEP_EVERY) => {}
            }
            loop {
                match self.sweep_watchfully(&mut vigil).await {
                    Ok(true) => {}
                    outcome => break log_failure("sweep", outcome.map(drop)),
                }
            }
        }
    }

    async fn run_delivery(&self) {
        let mut sending = FuturesUnordered::new();
        loop {
            let free = MAX_IN_FLIGHT - sending.len();
            if free > 0 {
                match self.ports.outbox.lease_due(free, &self.rules).await {
                    Ok(leased) => sending.extend(leased.into_iter().map(|delivery| self.send(delivery))),
                    Err(error) => log_failure("deliver", Err(error.into())),
                }
            }
            tokio::select! {
                biased;
                Some(settlement) = sending.next() => {
                    let outcome = self.ports.outbox.settle(vec![settlement], &self.rules).await;
                    log_failure("deliver", outcome.map_err(Into::into));
                }
                () = self.closed() => break,
                () = self.ports.wakeups.deliver_requested() => {}
                () = self.due() => {}
            }
        }
        // What is on its way may end. Whatever is cut off is sent again after its lease: at least once, never lost.
        while let Some(settlement) = sending.next().await {
            let outcome = self.ports.outbox.settle(vec![settlement], &self.rules).await;
            log_failure("deliver", outcome.map_err(Into::into));
        }
    }

    /// Resolves when the next callback is due, and after a moment in any case.
    async fn due(&self) {
        let now = self.ports.reader.now().await.ok();
        let next = self.ports.outbox.next_due().await.ok().flatten();
        let wait = match (now, next) {
            (Some(now), Some(next)) => next.since(now).min(LOOK_EVERY),
            _ => LOOK_EVERY,
        };
        // Never a busy loop, even if what is due cannot be leased.
        tokio::time::sleep(wait.max(Duration::from_millis(5))).await;
    }
}

/// The store being away is expected and passes; a defect is not.
fn log_failure(loop_name: &'static str, outcome: Result<(), UseCaseError>) {
    match outcome {
        Ok(()) => {}
        Err(UseCaseError::Rejected(rejection)) => {
            warn!(loop_name, code = rejection.code(), "a step was refused")
        }
        Err(UseCaseError::Unavailable(source)) => {
            warn!(loop_name, error = source.as_ref().map(tracing::field::display), "the store is away; trying again");
        }
        Err(UseCaseError::Internal(source)) => {
            error!(loop_name, error = &source as &dyn std::error::Error, "a step failed");
        }
    }
}
