//! Yardsticks in SQL: pgbench runs a script with many connections, as fast as PostgreSQL lets it.

use std::io::Write;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::Command;

use crate::Failure;
use crate::cpu::Processes;
use crate::database::{Database, Postgres};
use crate::options::Options;
use crate::rounds::{Figure, Moment};

/// Runs a script of one unit of work over and over, with prepared statements, and measures it after the warm-up.
pub(crate) async fn measure(
    postgres: &Postgres,
    database: &Database,
    script: &str,
    clients: u16,
    options: &Options,
) -> Result<Figure, Failure> {
    let mut file = tempfile::NamedTempFile::new().map_err(Failure::system("cannot make a file"))?;
    file.write_all(script.as_bytes()).map_err(Failure::system("cannot write the script"))?;
    let (warm_up, measured) = (options.warm_up() as usize, options.measured() as usize);
    let mut child = Command::new(postgres.program("pgbench"))
        .args(["--no-vacuum", "--protocol=prepared", "--jobs=2", "--progress=1"])
        .arg(format!("--client={clients}"))
        // A second more than is measured, so that the last line of progress tells of all connections at work.
        .arg(format!("--time={}", warm_up + measured + 1))
        .arg("--file")
        .arg(file.path())
        .arg(&database.url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(Failure::system("cannot run pgbench"))?;
    let processes = Processes { caller: child.id(), postmaster: postgres.postmaster, ..Processes::default() };
    let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(Failure::Unfit("pgbench cannot be listened to".into()));
    };
    let mut lines = BufReader::new(stderr).lines();
    let mut said = Vec::new();
    let mut rates = Vec::new();
    let mut moments = Vec::new();
    if warm_up == 0 {
        moments.push(Moment::now(&processes)?);
    }
    while let Some(line) = lines.next_line().await.map_err(Failure::system("cannot read what pgbench says"))? {
        let Some(progress) = progress(&line) else {
            said.push(line);
            continue;
        };
        rates.push(progress);
        if rates.len() == warm_up || rates.len() == warm_up + measured {
            moments.push(Moment::now(&processes)?);
        }
    }
    let mut summary = String::new();
    BufReader::new(stdout)
        .read_to_string(&mut summary)
        .await
        .map_err(Failure::system("cannot read pgbench's summary"))?;
    let status = child.wait().await.map_err(Failure::system("cannot wait for pgbench"))?;
    if !status.success() || !summary.contains("number of failed transactions: 0 ") {
        return Err(Failure::Wrong(format!("pgbench, {status}: {summary}{}", said.join("\n"))));
    }
    let (Some(rates), [before, after]) = (rates.get(warm_up..warm_up + measured), &moments[..]) else {
        return Err(Failure::Wrong(format!("pgbench told its progress {} times: {}", rates.len(), said.join("\n"))));
    };
    let (seconds, cpu) = after.since(before);
    Ok(Figure { rate: rates.iter().sum::<f64>() / measured as f64, seconds, cpu, details: Vec::new() })
}

/// Transactions a second, if the line tells of progress: `progress: 1.0 s, 4231.3 tps, lat 7.5 ms stddev 2.2, 0 failed`.
fn progress(line: &str) -> Option<f64> {
    let (_, rest) = line.strip_prefix("progress: ")?.split_once(" s, ")?;
    rest.split_once(" tps")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::progress;

    #[test]
    fn progress_is_read_from_the_lines_that_tell_it() {
        assert_eq!(progress("progress: 1.0 s, 4231.3 tps, lat 7.5 ms stddev 2.2, 0 failed"), Some(4231.3));
        assert_eq!(progress("pgbench (15.10)"), None);
    }
}
