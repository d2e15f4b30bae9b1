//! The model test: random histories on somebody's store, judged by what must always hold.
//!
//! A history is every command there is, from several callers over two handles on one store, with what the store picks
//! by itself (claims, sweeps, callbacks) in between, with time that passes, and with faults: calls of processes that
//! are retired or do not hold what they report on, calls that are repeated because their answer was lost, and calls
//! that are decided on what was stored a while ago. After each step everything that readers see is compared with what
//! a small reference model remembers (invariants I1–I10 of the design, but what needs a browser or a crash).
//!
//! ```
//! # use std::sync::Arc;
//! # use async_trait::async_trait;
//! # use gh_core::memory::MemoryStore;
//! # use gh_core::ports::clock::Clock;
//! # use gh_core::testing::conformance::{Handle, TestBed};
//! # struct Memory(Arc<MemoryStore>);
//! # #[async_trait]
//! # impl TestBed for Memory {
//! #     async fn create(clock: Arc<dyn Clock>) -> Self {
//! #         Self(Arc::new(MemoryStore::new(clock, [7; 32])))
//! #     }
//! #     async fn open(&self) -> Handle {
//! #         Handle::of(Arc::clone(&self.0))
//! #     }
//! # }
//! // In a `#[test]` of its own: it brings the runtime.
//! gh_core::testing::model::check::<Memory>(4, 10..30);
//! ```
//!
//! # Which histories
//!
//! The same ones each time, so that a change is judged by what it changed and not by luck. To explore, set
//! `PROPTEST_RNG_SEED` to another number and `PROPTEST_CASES` to more cases. Nothing is written to disk: a history that
//! failed becomes a test with a name, and the message holds all that one needs to write it: the shortest history found
//! that still fails, step by step, with every call, its answer, and what does not hold.

mod call;
mod driver;
mod history;
mod invariants;
mod reference;
mod repetition;
mod requests;
mod seen;

use std::fmt::Write;
use std::ops::Range;

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};
use proptest_state_machine::ReferenceStateMachine;
use tokio::runtime::Builder;

use self::driver::Driver;
use self::history::{Histories, Step};
use super::conformance::TestBed;

/// The seed of the histories that are tried unless the environment names another.
const SEED: u64 = 20_260_101;

/// Tries so many histories, each with a number of steps in this range, each on a store of its own.
///
/// Outside of any async runtime: it brings one. In memory 100 histories of 50 steps take a few seconds; a store on a
/// disk wants fewer.
///
/// # Panics
///
/// When something does not hold: with the shortest history found that shows it.
pub fn check<B: TestBed>(cases: u32, steps: Range<usize>) {
    let known = Config::default();
    let chosen = std::env::var_os("PROPTEST_CASES").is_some();
    let config = Config {
        cases: if chosen { known.cases } else { cases },
        rng_seed: match known.rng_seed {
            RngSeed::Random => RngSeed::Fixed(SEED),
            fixed @ RngSeed::Fixed(_) => fixed,
        },
        failure_persistence: None,
        max_shrink_iters: 4_000,
        ..known
    };
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&Histories::sequential_strategy(steps), |((), history, seen)| {
        let taken = |_: &Step| {
            if let Some(seen) = &seen {
                seen.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            }
        };
        run::<B>(&history, taken).map_err(|(reason, _)| TestCaseError::fail(reason))
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Abort(reason)) => panic!("no histories could be made: {reason}"),
        Err(TestError::Fail(reason, ((), history, _))) => {
            let history = without_needless_steps::<B>(history);
            let mut steps = String::new();
            for step in &history {
                // Writing to a string cannot fail.
                let _written = writeln!(steps, "    {step:?}");
            }
            let (reason, log) = run::<B>(&history, |_| {}).err().unwrap_or((reason.to_string(), String::new()));
            panic!("{reason}\n\nthe shortest history found:\n{steps}\nwhat happened:\n{log}");
        }
    }
}

/// Shrinking leaves steps that are not needed behind others that are: they go one by one.
fn without_needless_steps<B: TestBed>(mut history: Vec<Step>) -> Vec<Step> {
    let mut index = history.len();
    while index > 0 {
        index -= 1;
        let mut shorter = history.clone();
        shorter.remove(index);
        if run::<B>(&shorter, |_| {}).is_err() {
            history = shorter;
        }
    }
    history
}

/// Takes the steps on a fresh store; what does not hold, and what happened until then.
fn run<B: TestBed>(history: &[Step], mut taken: impl FnMut(&Step)) -> Result<(), (String, String)> {
    let plain = |error: String| (error, String::new());
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|error| plain(error.to_string()))?;
    runtime.block_on(async {
        let mut driver = Driver::<B>::new().await.map_err(plain)?;
        for step in history {
            taken(step);
            if let Err(reason) = driver.step(step).await {
                return Err((reason, driver.log));
            }
        }
        Ok(())
    })
}
