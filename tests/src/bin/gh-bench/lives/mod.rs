//! Whole lives of jobs by the single-job API, with a callback for the start and one for the end of each.
//!
//! The yardstick stores those callbacks and delivers none. So the server is measured twice. *Stored*: the receiver takes
//! callbacks and never answers; then those on their way at once are all that is ever sent (the server's own limit), and
//! every other one is stored and waits, as in the yardstick. *Delivered*: the receiver answers, and the server sends and
//! settles what it can beside the lives, which the yardstick does not do.

mod checks;
mod load;

use gh_tests::Server;
use serde_json::Value;
use sqlx::AssertSqlSafe;

use self::load::Load;
use crate::Failure;
use crate::cpu::Processes;
use crate::database::{Database, Postgres};
use crate::options::LivesOptions;
use crate::report::{Contestant, Report};
use crate::rounds::{self, Figure, Moment};
use crate::sink::Sink;

const YARDSTICK_SCHEMA: &str = include_str!("../../../../bench/lives_schema.sql");
const YARDSTICK: &str = include_str!("../../../../bench/lives.sql");

const CONTESTANTS: [Contestant; 3] = [
    Contestant {
        name: "pgbench",
        what: "tests/bench/lives.sql: the yardstick; callbacks are stored, none is delivered",
    },
    Contestant {
        name: "gh-server stored",
        what: "2 KB jobs over HTTP; callbacks are stored, and their receiver does not answer: all but the first few wait",
    },
    Contestant {
        name: "gh-server delivered",
        what: "the same with a receiver on this machine that answers 200 at once",
    },
];

/// Measures, and checks every count.
pub(crate) async fn run(options: &LivesOptions, postgres: &Postgres) -> Result<Report, Failure> {
    let names = CONTESTANTS.map(|contestant| contestant.name);
    let rounds = rounds::alternate(&options.common, &names, async |index| {
        let database = postgres.fresh().await?;
        let figure = match index {
            0 => yardstick(options, postgres, &database).await?,
            1 => server(options, postgres, &database, false).await?,
            _ => server(options, postgres, &database, true).await?,
        };
        postgres.remove(database).await?;
        Ok(figure)
    })
    .await?;
    let told = serde_json::to_value(options).unwrap_or(Value::Null);
    Ok(Report::new(("lives", "lives"), postgres.settings.clone(), told, CONTESTANTS.to_vec(), rounds))
}

async fn yardstick(options: &LivesOptions, postgres: &Postgres, database: &Database) -> Result<Figure, Failure> {
    let mut connection = database.connect().await?;
    sqlx::raw_sql(AssertSqlSafe(YARDSTICK_SCHEMA)).execute(&mut connection).await?;
    postgres.checkpoint().await?;
    let clients = options.yardstick_clients;
    let figure = crate::pgbench::measure(postgres, database, YARDSTICK, clients, &options.common).await?;
    checks::yardstick(&mut connection, clients).await?;
    Ok(figure)
}

async fn server(
    options: &LivesOptions,
    postgres: &Postgres,
    database: &Database,
    delivered: bool,
) -> Result<Figure, Failure> {
    let sink = Sink::start()?;
    // Without the lines of calls; where it listens is told by such a line, too.
    let server = Server::ready_on(&database.url, &[("GH_LOG", "warn,gh_server=info")]).await;
    postgres.checkpoint().await?;
    let processes =
        Processes { server: Some(server.process_id()), postmaster: postgres.postmaster, ..Processes::default() };
    let callback_url = if delivered { sink.answering() } else { sink.silent() };
    let mut load = Load::start(server.base_url(), options.in_flight, &callback_url).await?;
    load.go_on(options.common.warm_up()).await?;
    let (before, done_before, received) = (Moment::now(&processes)?, load.tally(), sink.received());
    load.go_on(options.common.measured()).await?;
    let (after, done, received) = (Moment::now(&processes)?, load.tally(), sink.received() - received);
    let all = load.end().await?;
    let (seconds, cpu) = after.since(&before);
    let [submit, claim, complete] = done.milliseconds_since(&done_before);
    let mut details = vec![("submit ms", submit), ("claim ms", claim), ("complete ms", complete)];
    if delivered {
        details.push(("callbacks/s", received as f64 / seconds));
    }
    let mut connection = database.connect().await?;
    checks::server(&mut connection, &all).await?;
    if delivered && options.common.quick {
        checks::all_delivered(&mut connection, &all, &sink).await?;
    }
    let complaints: Vec<String> =
        server.log().into_iter().filter(|line| !line.contains("\"level\":\"INFO\"")).collect();
    if let Some(first) = complaints.first() {
        eprintln!("the server complained {} times, first: {first}", complaints.len());
    }
    // It would wait for the receiver that does not answer.
    server.kill().await;
    Ok(Figure { rate: (done.completed - done_before.completed) as f64 / seconds, seconds, cpu, details })
}
