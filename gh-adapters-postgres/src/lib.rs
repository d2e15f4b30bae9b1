//! PostgreSQL (15 or newer) for the GhostHands control plane: [`PgStore`] is its
//! [`Store`](gh_core::ports::store::Store), [`Reader`](gh_core::ports::reader::Reader) and
//! [`Outbox`](gh_core::ports::outbox::Outbox). Any number of processes may share one database: all are equal, and rows
//! that are locked divide the work between them.
//!
//! # How it works
//!
//! The core decides on a snapshot and says in a [`Changeset`](gh_core::domain::changeset::Changeset) what it relied on
//! and what shall be. This crate keeps two promises for it:
//!
//! - **One moment.** A snapshot is read by one statement (`load`), so all of it is of one moment.
//! - **All or nothing, and nothing on sand.** A batch of changesets is judged in order and in memory, each on what the
//!   ones before it left (`held`), and only the last state of each row is written, by few statements that each take any
//!   number of rows (`write`), in one transaction (`batch`).
//!
//! Who decides has just read what it relies on, so that is remembered (`live`). A batch is first judged on what is
//! remembered and written straight away, mostly by one statement: it writes nothing if a row is no longer as it is
//! remembered. Then, and where something was not remembered or is not there, the rows that the batch relies on or writes
//! are locked and read (`lock`), and the batch is judged and written under these locks.
//!
//! What this process read or wrote last of what lives is remembered (`live`), and each takes a short cut by it first:
//! commands are decided on what is remembered without asking the database, and what was decided is written by one statement
//! that finds out itself whether all is still as it is remembered. Whatever this process stores refreshes its memory. What
//! another server stored makes it wrong: then the statement refuses, that much is forgotten, and the long way is taken.
//!
//! Rows are locked in one order everywhere, so that transactions that wait for each other do so in a line and not in a
//! circle. What must *not* be there has no row to lock; advisory locks stand for it. Where the store picks the rows itself
//! (`claim`, `sweep`, `outbox`) it leaves what others have locked, and never waits.
//!
//! A statement sees what was there when it began, and a row that it had to wait for as it was left: between the two,
//! somebody may have brought a row that was not seen. Writing finds that out, because each row carries a number that
//! must be the next, and the transaction is then done again.
//!
//! # What lies where
//!
//! What changes often is narrow and apart from what is written once: `gh_jobs` and `gh_job_specs`, `gh_workers` and
//! `gh_worker_vitals`. The columns are what statements pick by and what clients may read; the rest of an aggregate is
//! one JSON text, `body`. Reading checks that the two agree: a row that makes no sense is
//! [`Corrupt`](gh_core::ports::store::StoreError::Corrupt), never a default. `rows` has both directions of every
//! conversion.
//!
//! # When the database refuses
//!
//! By SQLSTATE (`errors`): what passes by itself is [`Unavailable`](gh_core::ports::store::StoreError::Unavailable);
//! transactions that others came in between are done again, with a bound; all else is a defect. A batch that is refused
//! leaves nothing, not even of those changesets in it that are good: whoever gathered the batch divides it and finds
//! the one that is not. A call that gets no answer at all ends too, and connections from before are not used again
//! (`trust`).

mod alone;
mod batch;
mod claim;
mod connect;
mod errors;
mod footprint;
mod held;
mod live;
mod load;
mod lock;
mod migrate;
mod outbox;
mod reader;
mod retention;
mod rows;
mod shapes;
mod signals;
mod spare;
mod specs;
mod start;
mod store;
mod sweep;
#[cfg(feature = "testing")]
pub mod testing;
mod time;
mod tombstones;
mod trust;
mod watch;
mod write;

pub use self::connect::{AddressError, PgOptions, parse_address};
pub use self::migrate::MigrateError;
pub use self::retention::{Forgotten, Retention};
pub use self::signals::PgSignals;
pub use self::start::{DatabaseReport, StartError};
pub use self::store::PgStore;
/// The address of a database, with all that is needed to get in. Its `Debug` output may hold a password.
pub use sqlx::postgres::PgConnectOptions;
