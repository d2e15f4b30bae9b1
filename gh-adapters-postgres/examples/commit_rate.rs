//! Measures the store alone: commands one by one, each loaded, decided and committed, without HTTP and without
//! gathering. Run it as `GH_TEST_POSTGRES_FSYNC=on scripts/with-postgres cargo run --release -p gh-adapters-postgres
//! --example commit_rate --features testing`.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use gh_adapters_postgres::testing::TestDatabase;
use gh_adapters_postgres::{PgOptions, PgStore};
use gh_core::domain::code::ClientName;
use gh_core::domain::commands::{Claim, Command, Credential, Report, ReportOutcome, Submit, UsageClosing, decide};
use gh_core::domain::ids::{Attempt, ConnectionId};
use gh_core::domain::job::Completion;
use gh_core::domain::rules::Rules;
use gh_core::ports::store::{ClaimRequest, Store};
use gh_core::testing::{registration, rules, submission};

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const SPAN: Duration = Duration::from_secs(4);

/// Loads, decides and commits until nobody is faster.
async fn run<C: Command>(store: &PgStore, rules: &Rules, command: &C) -> Outcome<C::Answer> {
    loop {
        let snapshot = store.load(&command.keys()).await?;
        let decision = decide(&snapshot, command, rules);
        if store.commit(vec![decision.changes], rules).await?[0].is_ok() {
            return decision.answer.map_err(|rejection| format!("{rejection:?}").into());
        }
    }
}

fn submit() -> Outcome<Submit> {
    let submission = submission().validate().map_err(|errors| format!("{errors:?}"))?;
    Ok(Submit::new(ClientName::new("valet"), submission))
}

/// How many times a second `callers` do it at once.
async fn rate<W, F>(what: &str, callers: usize, work: W) -> Outcome<()>
where
    W: Fn(usize) -> F,
    F: Future<Output = Outcome<u64>>,
{
    let began = now();
    let each = (0..callers).map(|caller| {
        let work = &work;
        async move {
            let mut done = 0;
            while began.elapsed() < SPAN {
                done += work(caller).await?;
            }
            Outcome::Ok(done)
        }
    });
    let done: u64 = futures_util::future::try_join_all(each).await?.into_iter().sum();
    println!("{what:<28} {callers:>3} callers {:>8.0} /s", done as f64 / began.elapsed().as_secs_f64());
    Ok(())
}

#[expect(clippy::disallowed_methods, reason = "it measures how long things take")]
fn now() -> Instant {
    Instant::now()
}

/// How long each step of a life took, summed up.
#[derive(Default)]
struct Steps(std::sync::Mutex<std::collections::BTreeMap<&'static str, (Duration, u32)>>);

impl Steps {
    async fn time<T>(&self, step: &'static str, work: impl Future<Output = T>) -> T {
        let began = now();
        let done = work.await;
        if let Ok(mut steps) = self.0.lock() {
            let (spent, times) = steps.entry(step).or_default();
            *spent += began.elapsed();
            *times += 1;
        }
        done
    }

    fn print(&self) {
        for (step, (spent, times)) in self.0.lock().iter().flat_map(|steps| steps.iter()) {
            println!("    {step:<24} {:>8.2} ms", spent.as_secs_f64() * 1000.0 / f64::from(*times));
        }
    }
}

/// One job from its submission to its end.
async fn loop_lives(store: &PgStore, rules: &Rules, who: &Credential, steps: &Steps) -> Outcome<u64> {
    let connection = ConnectionId::new(rules.ids.uuid());
    let wait = Duration::from_secs(30);
    steps.time("submit", run(store, rules, &submit()?)).await?;
    let claim = Claim { who: who.clone(), connection, wait, waited: false };
    let request = ClaimRequest { claims: vec![claim], ..ClaimRequest::default() };
    let granted = steps.time("claim", store.claim(request, rules)).await?.committed;
    let Some(job) = granted.first().map(|changes| Arc::clone(&changes.jobs()[0].job)) else {
        return Ok(0);
    };
    let report = Report::Complete(Completion::default(), UsageClosing::default());
    let attempt: Attempt = job.attempt;
    let complete = ReportOutcome { who: who.clone(), job_id: job.id, attempt, report };
    steps.time("complete", run(store, rules, &complete)).await?;
    Ok(1)
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let database = TestDatabase::create().await;
    let options = PgOptions { max_connections: 32, ..PgOptions::default() };
    let store = PgStore::connect_with(database.address(), &options);
    let rules = Arc::new(rules());
    let (store, rules) = (&store, &rules);
    for callers in [1, 32] {
        rate("submissions", callers, async |_| {
            run(store, rules, &submit()?).await?;
            Ok(1)
        })
        .await?;
        rate("loads of a worker", callers, async |_| {
            let keys = gh_core::domain::snapshot::Keys {
                workers: vec![gh_core::testing::name("w-0")],
                ..gh_core::domain::snapshot::Keys::default()
            };
            store.load(&keys).await?;
            Ok(1)
        })
        .await?;
        let steps: Steps = Steps::default();
        rate("whole lives", callers, async |caller| {
            let who = run(store, rules, &registration(&format!("w-{caller}"))).await?.credential;
            loop_lives(store, rules, &who, &steps).await
        })
        .await?;
        steps.print();
        rate("batches of 32 submissions", callers.min(2), async |_| {
            let mut changes = Vec::new();
            for _ in 0..32 {
                let command = submit()?;
                let snapshot = gh_core::domain::snapshot::Snapshot::new(gh_core::domain::time::Timestamp::from_micros(
                    1_767_225_600_000_000,
                ));
                changes.push(decide(&snapshot, &command, rules).changes);
            }
            let answers = store.commit(changes, rules).await?;
            Ok(answers.iter().filter(|answer| answer.is_ok()).count() as u64)
        })
        .await?;
    }
    Ok(())
}
