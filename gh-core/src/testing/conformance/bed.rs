//! What a store brings to be tested, and how one scenario is run on it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use async_trait::async_trait;

use super::scenarios;
use super::world::World;
use crate::ports::clock::Clock;
use crate::ports::outbox::Outbox;
use crate::ports::reader::Reader;
use crate::ports::store::Store;
use crate::testing::ManualClock;

/// A fresh store to be tested, and how it is opened. Dropping it may clean up.
#[async_trait]
pub trait TestBed: Send + Sync + Sized + 'static {
    /// An empty store whose time is the clock's.
    ///
    /// A store that normally takes the time from somewhere else, such as a database, takes it from this clock here.
    async fn create(clock: Arc<dyn Clock>) -> Self;

    /// A further handle on the same store, as another server would have it: what one handle was told, all see.
    async fn open(&self) -> Handle;
}

/// The ports of one handle on a store.
#[derive(Clone, Debug)]
pub struct Handle {
    /// Stores changesets.
    pub store: Arc<dyn Store>,
    /// Answers questions.
    pub reader: Arc<dyn Reader>,
    /// Hands out callbacks.
    pub outbox: Arc<dyn Outbox>,
}

impl Handle {
    /// A handle that is all three ports.
    #[must_use]
    pub fn of<S: Store + Reader + Outbox + 'static>(store: Arc<S>) -> Self {
        Self { store: store.clone(), reader: store.clone(), outbox: store }
    }
}

type Running = Pin<Box<dyn Future<Output = ()> + Send>>;

/// One promise, and the test that finds out whether a store keeps it.
pub struct Scenario {
    /// The chapter that it belongs to.
    pub chapter: &'static str,
    /// The promise.
    pub name: &'static str,
    /// What breaks for users when a store does not keep it.
    pub breaks: &'static str,
    pub(super) run: fn(World) -> Running,
}

impl fmt::Debug for Scenario {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}::{}", self.chapter, self.name)
    }
}

impl Scenario {
    /// Runs it on a fresh store.
    ///
    /// # Panics
    ///
    /// When the store does not keep the promise; which one, and what breaks for users, is printed with it.
    pub async fn run<B: TestBed>(&self) {
        let clock = Arc::new(ManualClock::default());
        let bed = Arc::new(B::create(clock.clone()).await);
        let open = {
            let bed = Arc::clone(&bed);
            move || -> Pin<Box<dyn Future<Output = Handle> + Send>> {
                let bed = Arc::clone(&bed);
                Box::pin(async move { bed.open().await })
            }
        };
        let explanation = Explanation(self);
        (self.run)(World::new(clock, Box::new(open)).await).await;
        drop(explanation);
    }
}

/// Runs the scenario of this name: what the emitted tests call.
///
/// # Panics
///
/// When the store does not keep the promise, or there is no such scenario.
pub async fn check<B: TestBed>(chapter: &str, name: &str) {
    let known = scenarios().into_iter().find(|scenario| scenario.chapter == chapter && scenario.name == name);
    match known {
        Some(scenario) => scenario.run::<B>().await,
        None => panic!("there is no scenario {chapter}::{name}"),
    }
}

/// Says what breaks for users, if the scenario fails.
struct Explanation<'s>(&'s Scenario);

impl Drop for Explanation<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("promise not kept: {:?}\nwhat breaks for users: {}", self.0, self.0.breaks);
        }
    }
}
