//! A control plane that was away gives nobody up when it is back; what really died is given up soon after.
#![expect(clippy::unwrap_used, reason = "a test stops where its world is not as it made it")]

use std::sync::Arc;
use std::time::Duration;

use gh_core::application::{BackgroundLoops, ControlPlane, Ports};
use gh_core::domain::code::ClientName;
use gh_core::domain::commands::{Credential, DrainWish, Heartbeat, JobClaim};
use gh_core::domain::ids::JobId;
use gh_core::domain::job::JobStatus;
use gh_core::domain::policy::Policy;
use gh_core::domain::rules::Rules;
use gh_core::domain::submission::SubmissionRequest;
use gh_core::domain::worker::Beat;
use gh_core::memory::MemoryStore;
use gh_core::ports::callback_sender::MockCallbackSender;
use gh_core::ports::reader::Reader;
use gh_core::testing::conformance::Handle;
use gh_core::testing::{Fault, FlakyStore, ManualClock, StoreCall, registration, rules, submission};

const TICK: Duration = Duration::from_millis(250);
const MINUTE: Duration = Duration::from_secs(60);
const FLEET: usize = 50;

/// A control plane with its loops over a store that can be away. Time passes for both alike, unless said otherwise.
struct Stage {
    control_plane: ControlPlane,
    store: Arc<MemoryStore>,
    flaky: Arc<FlakyStore>,
    clock: Arc<ManualClock>,
}

impl Stage {
    fn new(brake: bool) -> Self {
        let clock = Arc::new(ManualClock::default());
        let store = Arc::new(MemoryStore::new(clock.clone(), [7; 32]));
        let flaky = Arc::new(FlakyStore::new(Handle::of(Arc::clone(&store))));
        let ports = Ports::alone(Arc::clone(&flaky), Arc::new(MockCallbackSender::new()));
        let policy = Arc::new(Policy { brake, ..Policy::default() });
        Self { control_plane: ControlPlane::new(ports, Rules { policy, ..rules() }), store, flaky, clock }
    }

    /// Time passes, and everybody does what is due.
    async fn passes(&self, time: Duration) {
        for _ in 0..time.as_millis() / TICK.as_millis() {
            self.clock.advance(TICK);
            tokio::time::sleep(TICK).await;
        }
    }

    /// The same, while these workers beat each five seconds.
    async fn passes_with(&self, time: Duration, alive: &[(Credential, JobId)]) {
        for _ in 0..time.as_secs() / 5 {
            for (who, _) in alive {
                let (beat, drain) = (Beat::default(), DrainWish::Silent);
                let beat = Heartbeat { who: who.clone(), beat, job: JobClaim::Silent, drain, acknowledged: Vec::new() };
                self.control_plane.heartbeat(&beat).await.unwrap();
            }
            self.passes(Duration::from_secs(5)).await;
        }
    }

    /// Nobody is answered for a while, neither the loops nor the workers.
    async fn store_is_away(&self, time: Duration) {
        let looks = usize::try_from(time.as_millis() / 500).unwrap();
        self.flaky.next(StoreCall::Watch, vec![Some(Fault::Before); looks]);
        self.passes(time).await;
    }

    /// Workers, each with a job that it runs.
    async fn busy_fleet(&self) -> Vec<(Credential, JobId)> {
        let mut fleet = Vec::new();
        for number in 0..FLEET {
            let who = self.control_plane.register(&registration(&format!("w-{number:02}"))).await.unwrap().credential;
            let job = SubmissionRequest { timeout_seconds: Some(70), ..submission() };
            let job = self.control_plane.submit(&ClientName::new("valet"), job).await.unwrap().job.id;
            let claimed = self.control_plane.claim(&who, Duration::ZERO).await.unwrap().unwrap();
            assert_eq!(claimed.job.id, job);
            fleet.push((who, job));
        }
        fleet
    }

    async fn running(&self, fleet: &[(Credential, JobId)]) -> usize {
        let mut running = 0;
        for (who, id) in fleet {
            let job = self.store.job(*id).await.unwrap().unwrap();
            running += usize::from(job.status() == JobStatus::Running && job.occupies() == Some(&who.worker_id));
        }
        running
    }

    async fn with_loops(&self, story: impl Future<Output = ()>) {
        let story = async {
            story.await;
            self.control_plane.close();
        };
        let loops = BackgroundLoops::SWEEP.and(BackgroundLoops::DISPATCH);
        tokio::join!(Box::pin(loops.run(&self.control_plane)), Box::pin(story));
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_that_is_away_for_a_minute_costs_nobody_its_job() {
    for brake in [true, false] {
        let stage = Stage::new(brake);
        let story = async {
            let fleet = stage.busy_fleet().await;
            stage.passes(Duration::from_secs(2)).await;
            stage.store_is_away(MINUTE).await;
            stage.passes(Duration::from_secs(1)).await;
            let running = stage.running(&fleet).await;
            assert_eq!(running, if brake { FLEET } else { 0 }, "with the brake: {brake}");
            if !brake {
                return;
            }
            // 70 s were given to each job, and a minute of it was dark.
            stage.passes_with(Duration::from_secs(60), &fleet).await;
            assert_eq!(stage.running(&fleet).await, FLEET);
            stage.passes_with(Duration::from_secs(15), &fleet).await;
            assert_eq!(stage.running(&fleet).await, 0, "its time is over");
        };
        stage.with_loops(story).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_stood_still_for_a_minute_costs_nobody_its_job() {
    for brake in [true, false] {
        let stage = Stage::new(brake);
        let story = async {
            let fleet = stage.busy_fleet().await;
            stage.passes(Duration::from_secs(2)).await;
            // The store's time goes on, the process does not.
            stage.clock.advance(MINUTE);
            stage.passes(Duration::from_secs(1)).await;
            assert_eq!(stage.running(&fleet).await, if brake { FLEET } else { 0 }, "with the brake: {brake}");
        };
        stage.with_loops(story).await;
    }
}

#[tokio::test(start_paused = true)]
async fn who_died_while_the_store_was_away_is_given_up_after_the_episode() {
    let stage = Stage::new(true);
    let story = async {
        let fleet = stage.busy_fleet().await;
        let (dead, alive) = fleet.split_at(10);
        stage.passes(Duration::from_secs(2)).await;
        stage.store_is_away(MINUTE).await;
        stage.passes_with(Duration::from_secs(15), alive).await;
        assert_eq!(stage.running(dead).await, dead.len());
        stage.passes_with(Duration::from_secs(10), alive).await;
        assert_eq!((stage.running(dead).await, stage.running(alive).await), (0, alive.len()));
    };
    stage.with_loops(story).await;
}
