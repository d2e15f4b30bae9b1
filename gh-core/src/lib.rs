//! The GhostHands control plane's core: every rule, no I/O.
//!
//! Three rings, dependencies point inwards only:
//!
//! - [`domain`]: plain types and pure functions. Every rule lives here, once.
//! - [`ports`]: what the core needs from the world, as traits.
//! - [`application`]: use cases that load, decide and store, and the background loops.
//!
//! *Adapters choose rows, the core decides changes*: a job and a worker change only through
//! [`commands`](domain::commands), pure functions from a [`Snapshot`](domain::snapshot::Snapshot) to a
//! [`Changeset`](domain::changeset::Changeset), which a store keeps whole or not at all.
//!
//! # Example
//!
//! A control plane in memory: a worker registers, a client submits a job, the worker claims it, reports a call of a
//! language model, and completes it. The client hears of both changes.
//!
//! ```
//! use std::sync::{Arc, Mutex};
//! use std::time::Duration;
//!
//! use gh_core::application::{ControlPlane, Ports};
//! use gh_core::domain::code::ClientName;
//! use gh_core::domain::commands::{Report, ReportOutcome, ReportUsage, UsageClosing};
//! use gh_core::domain::cost::CallReport;
//! use gh_core::domain::job::{Completion, JobStatus};
//! use gh_core::memory::MemoryStore;
//! use gh_core::ports::callback_sender::{CallbackSender, OutgoingCallback, SendOutcome};
//! use gh_core::testing::{ManualClock, registration, rules, submission};
//!
//! /// The client: it keeps the callbacks that it is sent.
//! #[derive(Debug, Default)]
//! struct Client(Mutex<Vec<String>>);
//!
//! #[async_trait::async_trait]
//! impl CallbackSender for Client {
//!     async fn send(&self, callback: OutgoingCallback) -> SendOutcome {
//!         self.0.lock().unwrap().push(String::from_utf8_lossy(&callback.body).into_owned());
//!         SendOutcome::Answered { status: 204, retry_after: None, excerpt: String::new(), took: Duration::ZERO }
//!     }
//! }
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let store = Arc::new(MemoryStore::new(Arc::new(ManualClock::default()), [7; 32]));
//!     let client = Arc::new(Client::default());
//!     let control_plane = ControlPlane::new(Ports::alone(store, client.clone()), rules());
//!
//!     let who = control_plane.register(&registration("worker-a")).await?.credential;
//!     let submitted = control_plane.submit(&ClientName::new("shop"), submission()).await?;
//!     let job = control_plane.claim(&who, Duration::from_secs(25)).await?.expect("a job waits").job;
//!     assert_eq!(job.id, submitted.job.id);
//!
//!     let call = r#"{"call_id": "call-1", "provider": "anthropic", "model": "claude-haiku-4-5-20251001",
//!                    "usage": {"input": 2463, "cache_read": 20, "output": 747}}"#;
//!     let calls = vec![CallReport::new(serde_json::from_str(call)?)?];
//!     let (job_id, attempt) = (job.id, job.attempt);
//!     control_plane.report_usage(&ReportUsage { who: who.clone(), job_id, attempt, calls }).await?;
//!     let report = Report::Complete(Completion::default(), UsageClosing::default());
//!     control_plane.report_outcome(&ReportOutcome { who, job_id, attempt, report }).await?;
//!
//!     let job = control_plane.job(job_id).await?;
//!     assert_eq!(job.status(), JobStatus::Completed);
//!     assert_eq!(job.cost.total_cost_usd().to_string(), "0.0062");
//!
//!     while control_plane.deliver_once().await? > 0 {}
//!     let callbacks = client.0.lock().unwrap();
//!     assert_eq!(callbacks.len(), 2);
//!     assert!(callbacks[0].contains(r#""status":"running""#));
//!     assert!(callbacks[1].contains(r#""status":"completed""#) && callbacks[1].contains("0.0062"));
//!     Ok(())
//! }
//! ```
//!
//! A service of your own brings its own [`Clock`](ports::clock::Clock), [`IdSource`](ports::ids::IdSource) and
//! [`CallbackSender`](ports::callback_sender::CallbackSender), and lets
//! [`BackgroundLoops`](application::BackgroundLoops) call `deliver_once` and the steps of the other two loops.
//!
//! # Features
//!
//! | feature | what it adds |
//! | --- | --- |
//! | `memory` | the `memory` module: a complete store in memory |
//! | `testing` | `memory`, and the `testing` module: clock, ids, requests, mocks and whatever else only tests need |
//!
//! None is on by default.
//!
//! # Stability
//!
//! Versions follow [Semantic Versioning](https://semver.org/). While they begin with 0, a change that breaks raises the
//! second number and every other change the third: a dependency on `0.1` never gets a change that breaks. From 1.0 on
//! it is the first number, and the second for additions.
//!
//! The public API, with all features, is the list in `public-api.txt` beside `Cargo.toml`. A test compares it with the
//! code, so no item comes, goes or changes unseen; what changed for users is in the changelog.
//!
//! These changes **break**, also where everything still compiles:
//!
//! - An item of the list goes, or its type or signature changes. Structs with public fields are there to be written
//!   out, and enums to be matched in full: a new field and a new variant break, too.
//! - A port asks more of those who implement it: a new method without a default, or a new promise in its docs.
//! - A [`Changeset`](domain::changeset::Changeset) has a new part, [`Keys`](domain::snapshot::Keys) ask for something new,
//!   or a [`Snapshot`](domain::snapshot::Snapshot) must hold more. A store that does not know of it would lose data in
//!   silence.
//! - A decision falls out differently for the same snapshot, policy and command, unless it went against what was
//!   documented.
//! - A type that implements `Serialize` or `Deserialize` has another form, or no longer reads what an earlier release
//!   of the same line wrote: stores keep them.
//! - A dependency whose types are in the list (`bytes`, `chrono`, `rust_decimal`, `serde`, `serde_json`, `url`, `uuid`,
//!   `async-trait` for the ports) has a new line that breaks.
//! - A newer Rust is needed than before (`rust-version` in `Cargo.toml`).
//!
//! These do **not** break:
//!
//! - New items: commands, use cases, modules, methods with a default, event types and error codes (both are open sets:
//!   expect ones that you do not know).
//! - New tests in the conformance suite of feature `testing`, for promises that the docs of a port made already. An
//!   adapter that fails one had the defect before; for a build that never turns red by itself, commit `Cargo.lock`.
//! - Prices in the embedded table, the wording of messages, log lines and `Debug` output.
//! - What `mockall` makes of the ports, beyond the names of the mocks: it follows `mockall`.

pub mod application;
pub mod domain;
#[cfg(feature = "memory")]
pub mod memory;
pub mod ports;
#[cfg(feature = "testing")]
pub mod testing;
