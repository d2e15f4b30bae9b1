//! The store's time is one, whatever becomes of the database's clock.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use gh_adapters_postgres::PgStore;
use gh_adapters_postgres::testing::TestDatabase;
use gh_core::domain::commands::{Command, Heartbeat, Watched, decide};
use gh_core::domain::commands::{Credential, DrainWish, JobClaim};
use gh_core::domain::ids::ServerId;
use gh_core::domain::policy::Policy;
use gh_core::domain::rules::Rules;
use gh_core::domain::time::Timestamp;
use gh_core::domain::watch::{Lookout, Trouble};
use gh_core::domain::worker::{Beat, WorkerStatus};
use gh_core::ports::reader::Reader;
use gh_core::ports::store::{Store, SweepRequest};
use gh_core::testing::{name, registration, rules};
use uuid::Uuid;

const HOUR: Duration = Duration::from_secs(3600);
const SECOND: Duration = Duration::from_secs(1);

/// A server on a database whose time is the database's; a worker is given up after two seconds.
struct Server {
    store: PgStore,
    rules: Rules,
    lookout: Lookout,
}

impl Server {
    fn on(database: &TestDatabase, number: u128) -> Self {
        let policy = Policy {
            heartbeat_interval: SECOND / 4,
            suspect_after: SECOND,
            self_fence_after: SECOND * 3 / 2,
            offline_after: 2 * SECOND,
            ..Policy::default()
        };
        let lookout =
            Lookout { trouble: Some(Trouble::Started), ..Lookout::by_hand(ServerId::new(Uuid::from_u128(number))) };
        Self { store: database.store(None), rules: Rules { policy: Arc::new(policy), ..rules() }, lookout }
    }

    async fn now(&self) -> Timestamp {
        self.store.now().await.unwrap()
    }

    async fn run<C: Command>(&self, command: &C) -> C::Answer {
        let snapshot = self.store.load(&command.keys()).await.unwrap();
        let decision = decide(&snapshot, command, &self.rules);
        assert_eq!(self.store.commit(vec![decision.changes], &self.rules).await.unwrap(), [Ok(())]);
        decision.answer.unwrap_or_else(|refused| panic!("{refused:?}"))
    }

    async fn status(&self) -> WorkerStatus {
        self.store.worker(&name("w-1")).await.unwrap().1.unwrap().status()
    }

    /// A look and a sweep, as the loop of a server does them.
    async fn look(&mut self) -> Watched {
        let watched = self.store.watch(self.lookout.clone(), &self.rules).await.unwrap();
        self.lookout.trouble = None;
        self.lookout.last_heard = Some(watched.now);
        self.lookout.held_until = watched.sight.held_until();
        let request = SweepRequest { limit: 10, sight: watched.sight.clone() };
        self.store.sweep(request, &self.rules).await.unwrap();
        watched
    }

    /// Sets the database's clock, as every server sees it.
    async fn set_the_clock(&self, micros: i64) {
        let step = "update gh_clock set shift_micros = shift_micros + $1";
        sqlx::query(step).bind(micros).execute(self.store.pool()).await.unwrap();
    }
}

fn micros(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap()
}

#[tokio::test]
async fn a_database_clock_that_steps_an_hour_forward_loses_nobody_and_passes_no_fence() {
    let database = TestDatabase::create().await;
    let (mut one, mut other) = (Server::on(&database, 1), Server::on(&database, 2));
    let who = one.run(&registration("w-1")).await.credential;
    one.look().await;
    other.look().await;
    let before = one.now().await;
    one.set_the_clock(micros(HOUR)).await;
    // Nobody has looked yet: all the same nothing is decided an hour later.
    assert!(one.store.load(&beat_of(&who).keys()).await.unwrap().now.since(before) < 10 * SECOND);
    while one.now().await.since(before) < 4 * SECOND {
        one.run(&beat_of(&who)).await;
        for server in [&mut one, &mut other] {
            assert!(server.look().await.now.since(before) < 10 * SECOND);
        }
        assert_eq!(one.status().await, WorkerStatus::Idle);
    }
    // Whoever comes later sees the same time.
    let newcomer = Server::on(&database, 3);
    assert!(newcomer.now().await.since(before) < 10 * SECOND);
}

#[tokio::test]
async fn a_database_clock_that_steps_an_hour_back_keeps_nobody_alive() {
    let database = TestDatabase::create().await;
    let mut server = Server::on(&database, 1);
    server.run(&registration("w-1")).await;
    server.look().await;
    let before = server.now().await;
    server.set_the_clock(-micros(HOUR)).await;
    assert!(server.now().await >= before);
    while server.status().await != WorkerStatus::Offline {
        let now = server.look().await.now;
        assert!(now >= before && now.since(before) < 20 * SECOND, "{before}, {now}");
    }
    assert!(server.now().await.since(before) >= SECOND);
}

#[tokio::test]
async fn after_a_start_time_goes_on_from_the_last_look_although_the_clock_says_less() {
    let database = TestDatabase::create().await;
    let mut first = Server::on(&database, 1);
    let last = first.look().await.now;
    first.set_the_clock(-micros(HOUR)).await;
    drop(first);
    let mut second = Server::on(&database, 2);
    assert!(second.look().await.now >= last);
    assert!(second.now().await >= last);
}

#[tokio::test]
async fn a_process_that_slept_while_others_looked_takes_their_time() {
    let database = TestDatabase::create().await;
    let (mut asleep, mut awake) = (Server::on(&database, 1), Server::on(&database, 2));
    asleep.look().await;
    awake.look().await;
    let before = awake.now().await;
    // To the one that sleeps it is as if the clock were set; to the other, which comes up now, it is not.
    asleep.set_the_clock(micros(HOUR)).await;
    let mut awake = Server::on(&database, 3);
    assert!(awake.look().await.now.since(before) >= HOUR);
    assert!(asleep.look().await.now.since(before) >= HOUR);
    assert!(awake.now().await.since(before) >= HOUR);
}

fn beat_of(who: &Credential) -> Heartbeat {
    let (beat, drain, acknowledged) = (Beat::default(), DrainWish::Silent, Vec::new());
    Heartbeat { who: who.clone(), beat, job: JobClaim::Silent, drain, acknowledged }
}

/// Where statements are, and the time in them: all but the one place where the store's time is made.
#[test]
fn no_statement_compares_with_the_databases_own_clock() {
    let words =
        ["clock_timestamp", "statement_timestamp", "transaction_timestamp", "current_timestamp", "localtimestamp"];
    // Functions of this name that have nothing to do with the database.
    let own_now = ["spare.rs", "time.rs", "trust.rs"];
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut looked_at = 0;
    for entry in source.read_dir().unwrap().chain(source.join("rows").read_dir().unwrap()) {
        let path = entry.unwrap().path();
        let Ok(text) = std::fs::read_to_string(&path) else { continue };
        looked_at += 1;
        let file = path.file_name().unwrap().to_string_lossy();
        for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//")) {
            let bare_now = [" now()", "(now()", ",now()"].iter().any(|now| line.contains(now));
            let in_sql = words.iter().any(|word| line.contains(word)) || (bare_now && !own_now.contains(&&*file));
            let makes_it = file == "time.rs" && line.contains("select shift_micros from gh_clock");
            // Which weeks need a partition is no decision about anything that lives.
            let of_weeks = file == "retention.rs" && line.contains("date_trunc('week'");
            assert!(!in_sql || makes_it || of_weeks, "{file}:{}: {line}", number + 1);
        }
    }
    assert!(looked_at > 20, "{looked_at} files");
}
