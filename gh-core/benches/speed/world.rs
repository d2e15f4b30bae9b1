//! What the benches share: a store in memory, filled as a busy fleet would fill it.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use gh_core::domain::changeset::Changeset;
use gh_core::domain::code::ClientName;
use gh_core::domain::commands::{Command, ConnectionNews, Credential, Submit, decide};
use gh_core::domain::ids::{ConnectionId, JobId, WorkerId};
use gh_core::domain::job::Job;
use gh_core::domain::rules::Rules;
use gh_core::domain::snapshot::Snapshot;
use gh_core::domain::submission::SubmissionRequest;
use gh_core::memory::MemoryStore;
use gh_core::ports::store::{ClaimRequest, Store};
use gh_core::testing::{ManualClock, name, registration, rules, submission};
use uuid::Uuid;

/// How many workers share a target. Every fourth shares a machine.
pub(crate) const WORKERS_PER_TARGET: usize = 10;
const WORKERS_PER_MACHINE: usize = 4;

/// A store in memory, the rules, and the hands on its clock.
pub(crate) struct World {
    pub(crate) store: MemoryStore,
    pub(crate) rules: Rules,
    pub(crate) clock: Arc<ManualClock>,
}

/// The result of a call of the in-memory store, which never waits for anything.
pub(crate) fn at_once<T>(call: impl Future<Output = T>) -> T {
    call.now_or_never().expect("the in-memory store waits for nothing")
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = Arc::new(ManualClock::default());
        Self { store: MemoryStore::new(clock.clone(), [7; 32]), rules: rules(), clock }
    }

    /// All that a command needs to see, of now.
    pub(crate) fn load<C: Command>(&self, command: &C) -> Snapshot {
        at_once(self.store.load(&command.keys())).expect("the store answers")
    }

    /// Loads, decides and stores, as a use case does.
    pub(crate) fn run<C: Command>(&self, command: &C) -> C::Answer {
        let decision = decide(&self.load(command), command, &self.rules);
        if !decision.changes.is_empty() {
            let stored = at_once(self.store.commit(vec![decision.changes], &self.rules)).expect("the store answers");
            stored.into_iter().for_each(|stored| stored.expect("nobody else writes"));
        }
        decision.answer.unwrap_or_else(|rejection| panic!("the command is refused: {rejection:?}"))
    }

    /// The next worker of the fleet: idle, and listening for directives as a worker of ours does.
    pub(crate) fn worker(&self, index: usize) -> Credential {
        let mut register = registration(&format!("worker-{index}"));
        register.identity.target_worker_id = Some(name(&format!("sandbox-{}", index / WORKERS_PER_TARGET)));
        register.identity.ec2_instance_id = Some(name(&format!("i-{:08x}", index / WORKERS_PER_MACHINE)));
        let who = self.run(&register).credential;
        self.run(&ConnectionNews {
            who: who.clone(),
            connection: ConnectionId::new(Uuid::from_u128(index as u128)),
            kind: gh_core::domain::worker::ConnectionKind::Stream,
            open_for: Some(Duration::from_secs(3600)),
            broken: false,
        });
        who
    }

    /// A client submits a job, a microsecond after the one before.
    pub(crate) fn submit(&self, request: SubmissionRequest) -> Arc<Job> {
        let job = self.run(&submit(request)).job;
        self.clock.advance(Duration::from_micros(1));
        job
    }

    /// These workers ask for jobs.
    pub(crate) fn claim(&self, workers: Vec<WorkerId>) -> Vec<Changeset> {
        at_once(self.store.claim(ClaimRequest::waiting(workers), &self.rules)).expect("the store answers").committed
    }

    /// One worker asks for a job and gets one.
    pub(crate) fn grant(&self, who: &Credential) -> JobId {
        let granted = self.claim(vec![who.worker_id.clone()]);
        granted[0].jobs()[0].job.id
    }
}

/// The command for a request that is in order.
pub(crate) fn submit(request: SubmissionRequest) -> Submit {
    let submission = request.validate().unwrap_or_else(|errors| panic!("the request is in order: {errors:?}"));
    Submit::new(ClientName::new("bench"), submission)
}

/// The `index`-th job that clients submit: of ten priorities, with the input that an application form takes.
pub(crate) fn request(index: usize) -> SubmissionRequest {
    let json = |text: &str| serde_json::from_str(text).expect("JSON");
    SubmissionRequest {
        valet_task_id: Some(format!("task-{index}")),
        priority: Some(1 + index as i64 % 10),
        profile: json(
            r#"{"first_name": "Ada", "last_name": "Lovelace", "email": "ada@example.com", "phone": "+44 20 7946 0000",
                "address": {"city": "London", "country": "GB"}, "years_of_experience": 12}"#,
        ),
        input_data: json(r#"{"resume_url": "https://files.example.com/resumes/ada.pdf", "cover_letter": false}"#),
        ..submission()
    }
}

/// Whether this run measures, or only shows that the bench still runs (`cargo test`, `cargo bench -- --test`).
pub(crate) fn measures() -> bool {
    let mut arguments = std::env::args().skip(1);
    arguments.any(|argument| argument == "--bench") && !std::env::args().any(|argument| argument == "--test")
}
