//! The worker runtime: what a program needs to take jobs from the control plane.
//!
//! A [`JobHandler`] performs jobs; a [`Worker`] does everything else. It registers and sends heartbeats, claims one job
//! at a time, runs the handler in a task, carries its events and usage to the control plane, and offers the outcome
//! until it is answered. Four ideas hold it together.
//!
//! **A registration is a session.** Heartbeats, the stream of directives and claims belong to it and end with it.
//! Whoever hears that it is over (`STALE_GENERATION`, `410`, `401`) says so once; the loop that owns it then registers
//! again or exits. A job belongs to itself: it keeps the token under which it was claimed, so that its usage, and past
//! the point of no return its outcome, are told even when that registration is gone.
//!
//! **Refusals have one meaning.** [`Refusal`] reads status and `code` in one place, and is in the words of what a worker
//! does next. The session obeys what concerns the registration, the attempt what concerns the job.
//!
//! **The fence is a question, not a timer.** Nothing "happens" when a job freezes. Before each act the handler asks
//! ([`JobContext::checkpoint`]), and the answer follows from one number: when the last heartbeat was *sent* that was
//! answered with `lease: held`, by a clock that runs on while the machine is suspended. A job past its point of no
//! return is not frozen, because nobody else will ever run it.
//!
//! **A job ends once.** The handler returns, or the runtime ends it: cancelled, lost, silent for too long, over its
//! budget, stopping. The first wins. When the runtime ends it, the handler's future is dropped, [`JobHandler::clean_up`]
//! closes what is left, and only then is `cancel_job` acknowledged and the worker free.

mod answer;
mod assignment;
mod backoff;
mod client;
mod config;
mod context;
mod directives;
mod events;
mod handler;
mod host;
mod job;
mod lease;
mod runtime;
mod scripted;
mod session;
mod usage;
pub mod wire;

pub use answer::Refusal;
pub use client::{ControlPlane, WorkerLink};
pub use config::{Limits, WorkerConfig};
pub use context::{ActWindow, Interrupted, JobContext, Observation, Recipe, Step};
pub use events::Event;
pub use handler::{Completion, Failure, JobHandler};
pub use host::{Host, SystemHost};
pub use runtime::{Worker, WorkerExit};
pub use scripted::ScriptedHandler;
pub use wire::{ClaimedJob, Job, TokenCounts, UsageCall};
