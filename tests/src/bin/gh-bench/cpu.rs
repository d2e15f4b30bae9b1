//! Who spent the processor's time. Read from `/proc`, so on Linux only.

use std::fs;
use std::ops::Add;

use serde::Serialize;

use crate::Failure;

/// What `/proc` counts in, on every architecture we run on: hundredths of a second.
const TICKS_PER_SECOND: f64 = 100.0;

/// The threads of this process that receive callbacks have this name.
pub(crate) const SINK_THREAD: &str = "gh-bench-sink";

/// The processes whose time is told apart.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Processes {
    /// The server that is measured.
    pub(crate) server: Option<u32>,
    /// A program that calls, beside this one.
    pub(crate) caller: Option<u32>,
    /// The first process of PostgreSQL.
    pub(crate) postmaster: Option<u32>,
}

/// Processor time since each of them began, in ticks.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reading {
    server: u64,
    client: u64,
    sink: u64,
    postgres: u64,
    machine: u64,
}

/// Processor time that was spent between two readings, in seconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Spent {
    /// By the server.
    pub(crate) server: f64,
    /// By what calls: this program, or the yardstick's.
    pub(crate) client: f64,
    /// By the receiver of callbacks.
    pub(crate) sink: f64,
    /// By all processes of PostgreSQL.
    pub(crate) postgres: f64,
    /// By the rest of the machine: other programs, threads of the kernel, and what neighbours on the host took.
    pub(crate) others: f64,
}

impl Spent {
    /// Each multiplied by a number.
    pub(crate) fn scaled(&self, factor: f64) -> Self {
        Self {
            server: self.server * factor,
            client: self.client * factor,
            sink: self.sink * factor,
            postgres: self.postgres * factor,
            others: self.others * factor,
        }
    }
}

impl Add for Spent {
    type Output = Self;

    fn add(self, more: Self) -> Self {
        Self {
            server: self.server + more.server,
            client: self.client + more.client,
            sink: self.sink + more.sink,
            postgres: self.postgres + more.postgres,
            others: self.others + more.others,
        }
    }
}

impl Processes {
    /// Reads what they spent so far.
    pub(crate) fn read(&self) -> Result<Reading, Failure> {
        let sink = sink_threads()?;
        let client = own(self.caller)? + stat("/proc/self/stat")?.own.saturating_sub(sink);
        Ok(Reading {
            server: own(self.server)?,
            client,
            sink,
            postgres: self.postmaster.map_or(Ok(0), family)?,
            machine: machine()?,
        })
    }
}

impl Reading {
    /// What was spent since an earlier reading.
    pub(crate) fn since(&self, earlier: &Self) -> Spent {
        let seconds = |later: u64, earlier: u64| later.saturating_sub(earlier) as f64 / TICKS_PER_SECOND;
        let ours = |reading: &Self| reading.server + reading.client + reading.sink + reading.postgres;
        let machine = seconds(self.machine, earlier.machine);
        Spent {
            server: seconds(self.server, earlier.server),
            client: seconds(self.client, earlier.client),
            sink: seconds(self.sink, earlier.sink),
            postgres: seconds(self.postgres, earlier.postgres),
            others: (machine - seconds(ours(self), ours(earlier))).max(0.0),
        }
    }
}

/// What `/proc/ID/stat` tells, in ticks.
struct Stat {
    parent: u32,
    own: u64,
    ended_children: u64,
}

fn stat(path: &str) -> Result<Stat, Failure> {
    let text = fs::read_to_string(path).map_err(Failure::system(format!("cannot read {path}")))?;
    parse_stat(&text).ok_or_else(|| Failure::Unfit(format!("cannot understand {path}")))
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name of the program is in parentheses and may hold anything.
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: number(11)? + number(12)?,
        ended_children: number(13)? + number(14)?,
    })
}

fn own(process: Option<u32>) -> Result<u64, Failure> {
    process.map_or(Ok(0), |id| Ok(stat(&format!("/proc/{id}/stat"))?.own))
}

/// A process with its children, those that have ended too.
fn family(parent: u32) -> Result<u64, Failure> {
    let first = stat(&format!("/proc/{parent}/stat"))?;
    let processes = fs::read_dir("/proc").map_err(Failure::system("cannot read /proc"))?;
    let ids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    // One that ends meanwhile is not there any more.
    let children = ids.filter_map(|id| stat(&format!("/proc/{id}/stat")).ok()).filter(|child| child.parent == parent);
    Ok(first.own + first.ended_children + children.map(|child| child.own).sum::<u64>())
}

fn sink_threads() -> Result<u64, Failure> {
    let threads = fs::read_dir("/proc/self/task").map_err(Failure::system("cannot read /proc/self/task"))?;
    let paths = threads.flatten().filter_map(|entry| Some(entry.path().to_str()?.to_owned()));
    let sinks =
        paths.filter(|path| fs::read_to_string(format!("{path}/comm")).is_ok_and(|name| name.trim() == SINK_THREAD));
    sinks.map(|path| Ok(stat(&format!("{path}/stat"))?.own)).sum()
}

/// All processors together, whatever they did but wait.
fn machine() -> Result<u64, Failure> {
    let text = fs::read_to_string("/proc/stat").map_err(Failure::system("cannot read /proc/stat"))?;
    parse_machine(&text).ok_or_else(|| Failure::Unfit("cannot understand /proc/stat".into()))
}

fn parse_machine(text: &str) -> Option<u64> {
    let fields: Vec<u64> =
        text.lines().next()?.strip_prefix("cpu ")?.split_whitespace().map_while(|field| field.parse().ok()).collect();
    let [user, nice, system, _idle, _waiting, interrupts, soft_interrupts, stolen, ..] = fields[..] else {
        return None;
    };
    Some(user + nice + system + interrupts + soft_interrupts + stolen)
}

#[cfg(test)]
mod tests {
    use super::{Reading, parse_machine, parse_stat};

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let text = "4242 (a) b (c)) S 17 1 1 0 -1 4194560 5 6 7 8 100 20 30 4 20 0 1 0 9 0 0";
        let stat = parse_stat(text).unwrap();
        assert_eq!((stat.parent, stat.own, stat.ended_children), (17, 120, 34));
    }

    #[test]
    fn a_machine_that_waits_is_not_busy() {
        assert_eq!(parse_machine("cpu  1 2 3 1000 2000 4 5 6 7 8\ncpu0 1 2 3 4"), Some(21));
    }

    #[test]
    fn what_none_of_us_spent_was_spent_by_others() {
        let before = Reading { server: 100, client: 0, sink: 0, postgres: 1000, machine: 10_000 };
        let after = Reading { server: 300, client: 50, sink: 50, postgres: 1100, machine: 11_000 };
        let spent = after.since(&before);
        assert!((spent.others - 6.0).abs() < 1e-9 && (spent.server - 2.0).abs() < 1e-9, "{spent:?}");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn work_is_counted_for_the_process_that_does_it() {
        let me = super::Processes { postmaster: Some(std::process::id()), ..Default::default() };
        let before = me.read().unwrap();
        let spent = std::iter::repeat_with(|| me.read().unwrap().since(&before)).find(|spent| spent.postgres >= 0.02);
        assert!(spent.is_some_and(|spent| spent.client > 0.0), "{spent:?}");
    }
}
