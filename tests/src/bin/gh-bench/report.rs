//! What was measured, as a table for people and as JSON for programs.

use std::fmt;
use std::path::Path;

use serde::Serialize;
use serde_json::Value;

use crate::Failure;
use crate::cpu::Spent;
use crate::database::Settings;
use crate::rounds::{Figure, Rounds};

/// One who takes turns.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Contestant {
    /// In the table.
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) what: &'static str,
}

/// All of a measurement. The first contestant is the yardstick.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    /// What was measured.
    pub(crate) measurement: &'static str,
    /// What is counted, in the plural.
    pub(crate) unit: &'static str,
    /// On what.
    pub(crate) settings: Settings,
    /// How.
    pub(crate) options: Value,
    /// Who took turns.
    pub(crate) contestants: Vec<Contestant>,
    /// Every figure.
    #[serde(flatten)]
    pub(crate) rounds: Rounds,
    /// The outcome of each contestant.
    pub(crate) summaries: Vec<Summary>,
}

/// The outcome of one contestant.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Summary {
    /// Units a second.
    pub(crate) rate: Spread,
    /// Its rate divided by the yardstick's of the same round.
    pub(crate) ratio: Spread,
    /// Processor time for each unit, over all rounds, in milliseconds.
    pub(crate) milliseconds_per_unit: Spent,
}

/// The middle and the ends of several values.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    median: f64,
    least: f64,
    most: f64,
}

impl Spread {
    /// Of at least one value.
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let middle = values.len() / 2;
        let at = |index: usize| values.get(index).copied().unwrap_or(f64::NAN);
        let median =
            if values.len() % 2 == 1 { at(middle) } else { f64::midpoint(at(middle.wrapping_sub(1)), at(middle)) };
        Self { median, least: at(0), most: at(values.len().wrapping_sub(1)) }
    }
}

impl Report {
    /// Works out the summaries.
    pub(crate) fn new(
        (measurement, unit): (&'static str, &'static str),
        settings: Settings,
        options: Value,
        contestants: Vec<Contestant>,
        rounds: Rounds,
    ) -> Self {
        let figures = |index: usize| rounds.kept.iter().map(move |round| (&round.figures[index], &round.figures[0]));
        let summary = |index: usize| {
            let (spent, units) = figures(index).fold((Spent::default(), 0.0), |(spent, units), (figure, _)| {
                (spent + figure.cpu, units + figure.units())
            });
            Summary {
                rate: Spread::of(figures(index).map(|(figure, _)| figure.rate)),
                ratio: Spread::of(figures(index).map(|(figure, yardstick)| figure.rate / yardstick.rate)),
                milliseconds_per_unit: spent.scaled(1000.0 / units),
            }
        };
        let summaries = (0..contestants.len()).map(summary).collect();
        Self { measurement, unit, settings, options, contestants, rounds, summaries }
    }

    /// Prints the table, and writes the JSON to a file if there is one.
    pub(crate) fn publish(&self, json: Option<&Path>) -> Result<(), Failure> {
        print!("{self}");
        let Some(path) = json else { return Ok(()) };
        let failed = || Failure::system(format!("cannot write {}", path.display()));
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed()(error.into()))?;
        std::fs::write(path, text).map_err(failed())
    }

    /// The figures of one round.
    fn lines<'r>(&'r self, figures: &'r [Figure]) -> impl Iterator<Item = String> + 'r {
        self.contestants.iter().zip(figures).map(|(contestant, figure)| {
            let cpu = &figure.cpu;
            let each = 1000.0 / figure.units();
            let details: Vec<String> =
                figure.details.iter().map(|(name, value)| format!("{name} {value:.1}")).collect();
            format!(
                "{:<20} {:>8.0} {:>6.2}  {:>7.2} {:>7.2} {:>7.2} {:>9.2} {:>7.2}  {:>7.3} {:>7.3} {:>9.3}  {}",
                contestant.name,
                figure.rate,
                figure.rate / figures[0].rate,
                cpu.server,
                cpu.client,
                cpu.sink,
                cpu.postgres,
                cpu.others,
                cpu.server * each,
                cpu.client * each,
                cpu.postgres * each,
                details.join(", "),
            )
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = self.unit;
        writeln!(out, "{}\n", self.settings)?;
        for contestant in &self.contestants {
            writeln!(out, "{:<20} {}", contestant.name, contestant.what)?;
        }
        writeln!(out, "\n{:38}{:<43}CPU, ms of each", "", "CPU, s")?;
        writeln!(
            out,
            "{:<20} {:>8} {:>6}  {:>7} {:>7} {:>7} {:>9} {:>7}  {:>7} {:>7} {:>9}  and",
            "",
            format!("{unit}/s"),
            "ratio",
            "server",
            "client",
            "sink",
            "postgres",
            "others",
            "server",
            "client",
            "postgres",
        )?;
        for (number, round) in self.rounds.kept.iter().enumerate() {
            let turns: Vec<&str> = round.order.iter().map(|&index| self.contestants[index].name).collect();
            let disturbed = if round.disturbed { "; DISTURBED by others" } else { "" };
            writeln!(out, "round {} ({}{disturbed})", number + 1, turns.join(", "))?;
            for line in self.lines(&round.figures) {
                writeln!(out, "{}", line.trim_end())?;
            }
        }
        let kept = self.rounds.kept.len();
        let disturbed = self.rounds.kept.iter().filter(|round| round.disturbed).count();
        writeln!(
            out,
            "\nrounds: {kept}, of which disturbed: {disturbed}; disturbed and begun again: {}; median [least, most]:",
            self.rounds.repeated
        )?;
        for (contestant, summary) in self.contestants.iter().zip(&self.summaries) {
            let (rate, ratio, each) = (summary.rate, summary.ratio, summary.milliseconds_per_unit);
            writeln!(
                out,
                "{:<20} {:.0} [{:.0}, {:.0}] {unit}/s, ratio {:.2} [{:.2}, {:.2}], CPU of each: server {:.3}, client {:.3}, \
                 PostgreSQL {:.3} ms",
                contestant.name,
                rate.median,
                rate.least,
                rate.most,
                ratio.median,
                ratio.least,
                ratio.most,
                each.server,
                each.client,
                each.postgres,
            )?;
        }
        if self.options["quick"] == true {
            writeln!(out, "--quick: the counts are right; the figures mean nothing")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn the_median_is_the_middle_of_the_sorted_values() {
        assert_eq!(Spread::of([5.0, 1.0, 2.0].into_iter()), Spread { median: 2.0, least: 1.0, most: 5.0 });
        assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0].into_iter()), Spread { median: 2.5, least: 1.0, most: 4.0 });
    }
}
