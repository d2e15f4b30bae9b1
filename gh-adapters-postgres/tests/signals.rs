//! Whoever waits on one server hears what happens on another: by the signal, not because somebody looks from time to
//! time. So nothing here runs the loops, which look.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use gh_adapters_postgres::testing::TestDatabase;
use gh_adapters_postgres::{PgSignals, PgStore};
use gh_core::application::{ControlPlane, Ports, StreamItem, Wakeups};
use gh_core::domain::code::{Actor, ClientName};
use gh_core::domain::commands::{Credential, Drain};
use gh_core::domain::rules::Rules;
use gh_core::domain::worker::DirectiveType;
use gh_core::ports::callback_sender::MockCallbackSender;
use gh_core::ports::signals::{Signals, Wake};
use gh_core::testing::{registration, rules, submission, submission_to};

/// Far longer than anything here takes: only what never comes gets there.
const PATIENCE: Duration = Duration::from_secs(60);

struct Server {
    control_plane: Arc<ControlPlane>,
    wakeups: Arc<Wakeups>,
    signals: Arc<PgSignals>,
    store: PgStore,
}

impl Server {
    /// A server whose own store is wired as a process would do it. Ids come from rules that servers share.
    fn new(database: &TestDatabase, rules: &Rules) -> Self {
        let store = database.store(None);
        let wakeups = Arc::new(Wakeups::new());
        let signals = Arc::new(PgSignals::new(&store, Arc::clone(&wakeups), rules.ids.uuid()));
        let shared = Arc::new(store.clone());
        let ports = Ports {
            store: shared.clone(),
            reader: shared.clone(),
            outbox: shared,
            sender: Arc::new(MockCallbackSender::new()),
            signals: signals.clone(),
            wakeups: Arc::clone(&wakeups),
        };
        Self { control_plane: Arc::new(ControlPlane::new(ports, rules.clone())), wakeups, signals, store }
    }

    /// Waits until it hears the others: then everybody who waits on it is woken once.
    async fn hears(&self) {
        self.wakeups.dispatch_requested().await;
        self.wakeups.deliver_requested().await;
    }
}

/// Runs the signals of two servers on one database, and beside them `story`, once both hear each other.
async fn between_two<T>(story: impl AsyncFnOnce(&Server, &Server) -> T) -> T {
    let database = TestDatabase::create().await;
    let rules = rules();
    let (here, there) = (Server::new(&database, &rules), Server::new(&database, &rules));
    let told = async {
        here.hears().await;
        there.hears().await;
        Box::pin(story(&here, &there)).await
    };
    let told = async {
        tokio::select! {
            () = here.signals.run() => None,
            () = there.signals.run() => None,
            told = told => Some(told),
        }
    };
    let told = tokio::time::timeout(PATIENCE, told).await;
    told.unwrap_or_else(|_| panic!("waited in vain for a signal")).unwrap()
}

async fn waits(server: &Server, who: &Credential) {
    while server.control_plane.worker(&who.worker_id).await.unwrap().1.vitals.claim.is_none() {
        tokio::task::yield_now().await;
    }
}

async fn register(server: &Server, id: &str) -> Credential {
    server.control_plane.register(&registration(id)).await.unwrap().credential
}

#[tokio::test]
async fn a_job_submitted_on_one_server_is_granted_to_a_claim_that_waits_on_another() {
    between_two(async |here, there| {
        let who = register(there, "w-1").await;
        let claim = there.control_plane.claim(&who, PATIENCE);
        let story = async {
            waits(here, &who).await;
            // What the claim itself has asked for so far is not the signal.
            while there.wakeups.dispatch_requested().now_or_never().is_some() {}
            let job = here.control_plane.submit(&ClientName::new("shop"), submission()).await.unwrap().job;
            there.wakeups.dispatch_requested().await;
            there.control_plane.dispatch_once().await.unwrap();
            job.id
        };
        let (granted, submitted) = tokio::join!(claim, story);
        assert_eq!(granted.unwrap().map(|granted| granted.job.id), Some(submitted));
    })
    .await;
}

#[tokio::test]
async fn a_job_reserved_on_one_server_is_picked_up_by_the_claim_that_waits_on_another() {
    between_two(async |here, there| {
        let who = register(there, "w-1").await;
        let claim = there.control_plane.claim(&who, PATIENCE);
        let story = async {
            waits(here, &who).await;
            let request = submission_to("w-1", "strict");
            here.control_plane.submit(&ClientName::new("shop"), request).await.unwrap().job.id
        };
        // Nobody dispatches there: the claim itself is woken.
        let (granted, submitted) = tokio::join!(claim, story);
        assert_eq!(granted.unwrap().map(|granted| granted.job.id), Some(submitted));
    })
    .await;
}

#[tokio::test]
async fn directives_of_one_server_reach_the_stream_that_is_open_on_another() {
    between_two(async |here, there| {
        let who = register(there, "w-1").await;
        let mut stream = there.control_plane.directives(who.clone()).await.unwrap();
        let drain = Drain {
            worker_id: who.worker_id.clone(),
            actor: Actor::Client(ClientName::new("shop")),
            reason: "test".into(),
            timeout: None,
        };
        let (item, drained) = tokio::join!(stream.next(), here.control_plane.drain(&drain));
        drained.unwrap();
        // Without the signal the next item would be that it was quiet for a while.
        let Some(StreamItem::Directive(directive)) = item else { panic!("{item:?}") };
        assert_eq!(directive.directive_type, DirectiveType::Drain);
    })
    .await;
}

#[tokio::test]
async fn a_listener_that_lost_its_connection_wakes_everybody_once_it_is_back_and_hears_again() {
    between_two(async |here, there| {
        let killed: i64 = sqlx::query_scalar(
            "select count(pg_terminate_backend(pid)) from pg_stat_activity
             where datname = current_database() and query ilike 'listen%'",
        )
        .fetch_one(here.store.pool())
        .await
        .unwrap();
        assert_eq!(killed, 2, "each server has one connection that listens");
        there.hears().await;
        here.signals.wake(Wake::Deliver);
        there.wakeups.deliver_requested().await;
        assert!(there.wakeups.dispatch_requested().now_or_never().is_none(), "nobody asked for that");
    })
    .await;
}

#[tokio::test]
async fn wakes_that_cannot_be_told_at_once_are_told_later() {
    between_two(async |here, there| {
        let pool = here.store.pool();
        let all: Vec<_> = futures_util::future::join_all((0..4).map(|_| pool.acquire())).await;
        here.signals.wake(Wake::Deliver);
        // The pool has no connection to spare, so nothing is told until one is given back.
        assert!(there.wakeups.deliver_requested().now_or_never().is_none());
        drop(all);
        there.wakeups.deliver_requested().await;
    })
    .await;
}

#[tokio::test]
async fn a_server_is_woken_by_its_own_wakes_once() {
    between_two(async |here, there| {
        here.signals.wake(Wake::Dispatch);
        here.wakeups.dispatch_requested().await;
        there.wakeups.dispatch_requested().await;
        // What is told later is heard later: with this, its own word has come by.
        there.signals.wake(Wake::Deliver);
        here.wakeups.deliver_requested().await;
        assert!(here.wakeups.dispatch_requested().now_or_never().is_none());
    })
    .await;
}
