//! Compares what was acknowledged with what is stored and with what the receiver got.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use gh_core::domain::usd::Usd;
use serde::Deserialize;
use sqlx::{Connection, PgConnection, Row};

use crate::ledger::{Acknowledged, Attempt};
use crate::receiver::Arrival;

/// How long a load may take until all of it has ended and all callbacks are through: a callback whose sender was
/// killed is sent again half a minute later, and a put-back job waits a little more each time.
const LONGEST_END: Duration = Duration::from_secs(150);

/// The events by which jobs end.
const ENDS: [(&str, &str); 4] = [
    ("job_completed", "completed"),
    ("job_failed", "failed"),
    ("job_cancelled", "cancelled"),
    ("job_expired", "expired"),
];

/// Everything that is stored when nothing happens any more.
#[derive(Debug)]
pub struct Audit {
    jobs: BTreeMap<String, Job>,
    deliveries: HashMap<String, (String, String)>,
}

#[derive(Debug, Default)]
struct Job {
    key: String,
    status: String,
    events: Vec<Event>,
    calls: BTreeMap<String, Usd>,
}

#[derive(Debug)]
struct Event {
    seq: i64,
    kind: String,
    attempt: i32,
}

impl Audit {
    /// Waits until every job of this database has ended and every callback is through, and reads all of it.
    ///
    /// # Panics
    ///
    /// When that does not come about, or a row cannot be read.
    pub async fn when_all_has_ended(url: &str) -> Self {
        let mut connection = PgConnection::connect(url).await.expect("the database answers");
        let ended = async {
            let mut pace = tokio::time::interval(Duration::from_millis(100));
            loop {
                pace.tick().await;
                if left(&mut connection).await == (0, 0) {
                    break;
                }
            }
        };
        if tokio::time::timeout(LONGEST_END, ended).await.is_err() {
            let mut connection = PgConnection::connect(url).await.expect("the database answers");
            let (jobs, queues) = left(&mut connection).await;
            panic!(
                "{jobs} jobs never end, and callbacks of {queues} jobs are never through: {}",
                open(&mut connection).await
            );
        }
        Self::read(&mut connection).await
    }

    async fn read(connection: &mut PgConnection) -> Self {
        let mut jobs = BTreeMap::new();
        for row in rows(connection, "select job_id::text, valet_task_id, status from gh_jobs").await {
            jobs.insert(row.get(0), Job { key: row.get(1), status: row.get(2), ..Job::default() });
        }
        let events = "select job_id::text, seq, event_type, attempt from gh_job_events order by job_id, seq";
        for row in rows(connection, events).await {
            let job: &mut Job = jobs.get_mut(row.get::<&str, _>(0)).expect("events are those of a job");
            job.events.push(Event { seq: row.get(1), kind: row.get(2), attempt: row.get(3) });
        }
        for row in rows(connection, "select job_id::text, call_id, cost_usd::text from gh_llm_calls").await {
            let job: &mut Job = jobs.get_mut(row.get::<&str, _>(0)).expect("calls are those of a job");
            job.calls.insert(row.get(1), row.get::<&str, _>(2).parse().expect("an amount"));
        }
        let mut deliveries = HashMap::new();
        for row in rows(connection, "select delivery_id::text, job_id::text, state from gh_deliveries").await {
            deliveries.insert(row.get(0), (row.get(1), row.get(2)));
        }
        Self { jobs, deliveries }
    }

    /// How many jobs there are.
    #[must_use]
    pub fn jobs(&self) -> usize {
        self.jobs.len()
    }

    /// All of what follows.
    ///
    /// # Panics
    ///
    /// When something acknowledged is missing, happened twice, or came in another order.
    pub fn check(&self, told: &Acknowledged, arrivals: &[Arrival]) {
        self.check_submissions(told);
        self.check_acts(told);
        self.jobs.iter().for_each(|(id, job)| job.check(id));
        self.check_costs(told);
        self.check_callbacks(arrivals);
    }

    /// Every acknowledged submission is a job, each key is one job, and what callers were told of the end is so.
    fn check_submissions(&self, told: &Acknowledged) {
        let mut keys = HashSet::new();
        for (id, job) in &self.jobs {
            assert!(keys.insert(&job.key), "{} became more than one job: {id} is one of them", job.key);
        }
        for (key, id) in &told.submissions {
            let job = self.jobs.get(id).unwrap_or_else(|| panic!("{key} was acknowledged as {id} and is lost"));
            assert_eq!(&job.key, key, "{id}");
        }
        assert_eq!(self.jobs.len(), told.submissions.len(), "every submission was repeated until it was acknowledged");
        for id in &told.cancelled {
            assert_eq!(self.jobs[id].status, "cancelled", "{id} was acknowledged as cancelled");
        }
        for ((id, attempt), status) in &told.outcomes {
            if ENDS.iter().any(|(_, end)| end == status) {
                let job = &self.jobs[id];
                assert_eq!(&job.status, status, "the end of attempt {attempt} of {id} was acknowledged");
            }
        }
    }

    /// What must not happen twice happened once, in the job's last attempt.
    fn check_acts(&self, told: &Acknowledged) {
        let mut acts: HashMap<&String, u64> = HashMap::new();
        for (id, attempt) in &told.acts {
            if let Some(before) = acts.insert(id, *attempt) {
                panic!("{id} was run in attempt {attempt} although attempt {before} was past its point of no return");
            }
            let starts = self.jobs[id].events.iter().filter(|event| event.kind == "job_started");
            let last = starts.map(|event| event.attempt).max();
            assert_eq!(
                last.map(i64::from),
                i64::try_from(*attempt).ok(),
                "the last attempt of {id} is the one that acted"
            );
        }
    }

    /// Each acknowledged call is priced to the digit, and nothing else is counted.
    fn check_costs(&self, told: &Acknowledged) {
        for ((id, call_id), tokens) in &told.calls {
            let cost = self.jobs[id].calls.get(call_id);
            assert_eq!(cost, Some(&price(*tokens)), "{call_id} of {id} was acknowledged");
        }
    }

    /// Everything that clients are to hear came, in order, and what came twice was the same.
    fn check_callbacks(&self, arrivals: &[Arrival]) {
        let mut by_job: HashMap<&str, Vec<&Arrival>> = HashMap::new();
        let mut bodies: HashMap<&str, &str> = HashMap::new();
        for arrival in arrivals {
            assert_eq!(arrival.callback["event_id"], arrival.webhook_id.as_str());
            let body = bodies.entry(&arrival.webhook_id).or_insert(&arrival.text);
            assert_eq!(*body, arrival.text, "a repeat has the same bytes");
            let id = arrival.callback["job_id"].as_str().expect("callbacks name their job");
            assert!(self.deliveries.contains_key(&arrival.webhook_id), "{} is known", arrival.webhook_id);
            by_job.entry(id).or_default().push(arrival);
        }
        for (delivery_id, (job_id, state)) in &self.deliveries {
            assert_ne!(state, "dead", "{delivery_id} of {job_id}");
            if state == "delivered" {
                assert!(bodies.contains_key(delivery_id.as_str()), "{delivery_id} of {job_id} is missing");
            }
        }
        for (id, job) in &self.jobs {
            job.check_callbacks(id, by_job.get(id.as_str()).map_or(&[], Vec::as_slice));
        }
    }

    /// So many attempts were started of one job or another.
    #[must_use]
    pub fn starts(&self) -> HashSet<Attempt> {
        let starts = |(id, job): (&String, &Job)| -> Vec<Attempt> {
            let started = job.events.iter().filter(|event| event.kind == "job_started");
            started.map(|event| (id.clone(), u64::try_from(event.attempt).unwrap_or_default())).collect()
        };
        self.jobs.iter().flat_map(starts).collect()
    }
}

impl Job {
    /// Events have no gap, the job ended exactly once, and nothing started after the point of no return.
    fn check(&self, id: &str) {
        let numbers: Vec<i64> = self.events.iter().map(|event| event.seq).collect();
        assert_eq!(numbers, (1..).take(numbers.len()).collect::<Vec<i64>>(), "events of {id}");
        let ends: Vec<&str> = self
            .events
            .iter()
            .filter_map(|event| ENDS.iter().find(|(kind, _)| *kind == event.kind))
            .map(|end| end.1)
            .collect();
        assert_eq!(ends, [self.status.as_str()], "{id} ends exactly once");
        let mut attempts = HashSet::new();
        let mut no_return = false;
        for event in &self.events {
            no_return |= event.kind == "side_effects_started";
            if event.kind == "job_started" {
                assert!(!no_return, "{id} was started again after its point of no return");
                assert!(attempts.insert(event.attempt), "attempt {} of {id} was started twice", event.attempt);
            }
        }
    }

    fn check_callbacks(&self, id: &str, arrivals: &[&Arrival]) {
        let numbers: Vec<u64> =
            arrivals.iter().map(|arrival| arrival.callback["sequence"].as_u64().expect("a sequence")).collect();
        assert!(numbers.is_sorted(), "callbacks of {id} came as {numbers:?}");
        let is_end = |arrival: &Arrival| arrival.callback.get("completed_at").is_some();
        let first_end = arrivals.iter().position(|arrival| is_end(arrival));
        let first_end = first_end.unwrap_or_else(|| panic!("the end of {id} was never told"));
        for arrival in &arrivals[first_end..] {
            assert_eq!(arrival.callback["status"], self.status.as_str(), "the end of {id} is the last that is told");
        }
        for start in self.events.iter().filter(|event| event.kind == "job_started") {
            let tells = |arrival: &&&Arrival| {
                arrival.callback["status"] == "running" && arrival.callback["attempt"] == start.attempt
            };
            assert!(arrivals.iter().any(|arrival| tells(&arrival)), "attempt {} of {id} was never told", start.attempt);
        }
        let total: Usd = self.calls.values().copied().sum();
        let last = arrivals.last().map(|arrival| total_cost(&arrival.text)).unwrap_or_default();
        assert_eq!(last.unwrap_or_default(), total, "the last callback of {id} tells the whole cost");
    }
}

/// What a call costs whose tokens went in and came out of `claude-haiku-4-5-20251001`: $1 and $5 a million.
fn price((input, output): (u64, u64)) -> Usd {
    format!("{}e-6", input + 5 * output).parse().expect("an amount")
}

fn total_cost(callback: &str) -> Option<Usd> {
    #[derive(Deserialize)]
    struct Callback {
        cost: Option<Cost>,
    }
    #[derive(Deserialize)]
    struct Cost {
        total_cost_usd: Usd,
    }
    let callback: Callback = serde_json::from_str(callback).ok()?;
    callback.cost.map(|cost| cost.total_cost_usd)
}

/// Jobs that have not ended, and jobs with callbacks that are not through.
async fn left(connection: &mut PgConnection) -> (i64, i64) {
    let sql = "select (select count(*) from gh_jobs where completed_at is null),
        (select count(*) from gh_callback_queues where open_deliveries > 0)";
    sqlx::query_as(sql).fetch_one(connection).await.expect("the database answers")
}

/// Some of what has not ended, for messages.
async fn open(connection: &mut PgConnection) -> String {
    let sql = "select job_id::text || ' is ' || status || ' in attempt ' || attempt || ', next deadline '
            || coalesce(next_deadline::text, 'none') || ', not before ' || coalesce(not_before::text, '-') || ': ' || body
        from gh_jobs where completed_at is null limit 3";
    let jobs: Vec<String> = sqlx::query_scalar(sql).fetch_all(&mut *connection).await.expect("the database answers");
    let sql = "select body from gh_callback_queues where open_deliveries > 0 limit 3";
    let queues: Vec<String> = sqlx::query_scalar(sql).fetch_all(connection).await.expect("the database answers");
    format!("{jobs:#?} {queues:#?}")
}

async fn rows(connection: &mut PgConnection, sql: &'static str) -> Vec<sqlx::postgres::PgRow> {
    sqlx::query(sql).fetch_all(connection).await.unwrap_or_else(|error| panic!("{sql}: {error}"))
}
