//! A control plane over a flaky store over a store in memory.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use gh_core::application::{ControlPlane, Ports, UseCaseError};
use gh_core::domain::code::ClientName;
use gh_core::domain::commands::{Credential, Register};
use gh_core::domain::event::JobEvent;
use gh_core::domain::ids::JobId;
use gh_core::memory::MemoryStore;
use gh_core::ports::callback_sender::{CallbackSender, OutgoingCallback, SendOutcome};
use gh_core::ports::reader::{JobEventQuery, Reader};
use gh_core::testing::conformance::Handle;
use gh_core::testing::{Fault, FlakyStore, ManualClock, StoreCall, name, registration, rules};

pub(crate) const WAIT: Duration = Duration::from_secs(25);

pub(crate) struct Stage {
    pub(crate) control_plane: Arc<ControlPlane>,
    pub(crate) flaky: Arc<FlakyStore>,
    /// What is behind the flaky one, for a look that does not fail.
    pub(crate) memory: Arc<MemoryStore>,
    pub(crate) clock: Arc<ManualClock>,
    pub(crate) receiver: Arc<Receiver>,
}

/// Takes callbacks, but each `refuses`th only at another attempt.
#[derive(Debug, Default)]
pub(crate) struct Receiver {
    pub(crate) refuses: usize,
    pub(crate) received: Mutex<Vec<OutgoingCallback>>,
}

#[async_trait]
impl CallbackSender for Receiver {
    async fn send(&self, callback: OutgoingCallback) -> SendOutcome {
        let mut received = self.received.lock().unwrap();
        received.push(callback);
        let refused = self.refuses > 0 && received.len().is_multiple_of(self.refuses);
        let status = if refused { 503 } else { 200 };
        SendOutcome::Answered { status, retry_after: None, excerpt: String::new(), took: Duration::from_millis(3) }
    }
}

impl Stage {
    pub(crate) fn new(refuses: usize) -> Self {
        let clock = Arc::new(ManualClock::default());
        let memory = Arc::new(MemoryStore::new(clock.clone(), [7; 32]));
        let flaky = Arc::new(FlakyStore::new(Handle::of(memory.clone())));
        let receiver = Arc::new(Receiver { refuses, ..Receiver::default() });
        let ports = Ports::alone(flaky.clone(), receiver.clone());
        let control_plane = Arc::new(ControlPlane::new(ports, rules()));
        Self { control_plane, flaky, memory, clock, receiver }
    }

    /// The next call of this kind goes wrong.
    pub(crate) fn next(&self, call: StoreCall, fault: Fault) {
        self.flaky.next(call, [Some(fault)]);
    }

    pub(crate) async fn worker(&self, id: &str, target: &str) -> Credential {
        self.control_plane.register(&register(id, target, 1)).await.unwrap().credential
    }

    pub(crate) async fn event_types(&self, job_id: JobId) -> Vec<String> {
        self.events(job_id).await.iter().map(|event| event.event_type.to_string()).collect()
    }

    pub(crate) async fn events(&self, job_id: JobId) -> Vec<JobEvent> {
        let query = JobEventQuery { job_id, after_seq: 0, event_types: Vec::new(), limit: 10_000 };
        self.memory.job_events(&query).await.unwrap()
    }
}

pub(crate) fn client() -> ClientName {
    ClientName::new("valet")
}

pub(crate) fn register(id: &str, target: &str, boot: u32) -> Register {
    let mut register = Register { boot_id: name(&format!("{id}-boot-{boot}")), ..registration(id) };
    register.identity.target_worker_id = Some(name(target));
    register
}

/// Whether the caller was told to come again.
pub(crate) fn unanswered<T>(answer: &Result<T, UseCaseError>) -> bool {
    matches!(answer, Err(UseCaseError::Unavailable(_)))
}
