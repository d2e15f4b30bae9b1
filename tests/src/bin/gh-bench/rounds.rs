//! Turns: in each round every contestant is measured once, in shuffled order, so that whatever drifts meets all of them.

use rand::SeedableRng;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use serde::{Serialize, Serializer};

use crate::Failure;
use crate::cpu::{Processes, Reading, Spent};
use crate::options::Options;

/// What one contestant did in one round.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    /// Units a second.
    pub(crate) rate: f64,
    /// How long it was measured, in seconds.
    pub(crate) seconds: f64,
    /// Who spent the processor's time meanwhile, in seconds.
    pub(crate) cpu: Spent,
    /// What else is worth telling: a name with its unit, and a value.
    #[serde(serialize_with = "as_map")]
    pub(crate) details: Vec<(&'static str, f64)>,
}

fn as_map<S: Serializer>(details: &[(&'static str, f64)], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(details.iter().copied())
}

impl Figure {
    /// How many units were done while it was measured.
    pub(crate) fn units(&self) -> f64 {
        self.rate * self.seconds
    }

    /// How many cores others took on average.
    pub(crate) fn others(&self) -> f64 {
        self.cpu.others / self.seconds
    }
}

/// One round.
#[derive(Debug, Serialize)]
pub(crate) struct Round {
    /// In the order of the contestants, not of the turns.
    pub(crate) figures: Vec<Figure>,
    /// The contestants in the order of their turns.
    pub(crate) order: Vec<usize>,
    /// Whether others took more of the machine than allowed.
    pub(crate) disturbed: bool,
}

/// All rounds that count.
#[derive(Debug, Serialize)]
pub(crate) struct Rounds {
    /// Those that count.
    pub(crate) kept: Vec<Round>,
    /// How many were disturbed and measured again.
    pub(crate) repeated: u32,
}

/// Measures all contestants as often as the options say.
pub(crate) async fn alternate(
    options: &Options,
    contestants: &[&str],
    mut measure: impl AsyncFnMut(usize) -> Result<Figure, Failure>,
) -> Result<Rounds, Failure> {
    let wanted = if options.quick { 1 } else { options.rounds };
    let mut random = StdRng::seed_from_u64(options.seed);
    let mut rounds = Rounds { kept: Vec::new(), repeated: 0 };
    'rounds: while rounds.kept.len() < wanted as usize {
        let mut order: Vec<usize> = (0..contestants.len()).collect();
        order.shuffle(&mut random);
        let round = format!("round {} of {wanted}", rounds.kept.len() + 1);
        let mut figures: Vec<Option<Figure>> = vec![None; contestants.len()];
        let mut disturbed = false;
        for &index in &order {
            let figure = measure(index).await?;
            let (rate, others) = (figure.rate, figure.others());
            eprintln!("{round}: {:<20} {rate:>8.0} a second, others {others:.2} cores", contestants[index]);
            if !options.quick && others > options.others {
                if rounds.repeated < options.repeats {
                    rounds.repeated += 1;
                    eprintln!("{round}: disturbed, begins again ({} of {})", rounds.repeated, options.repeats);
                    continue 'rounds;
                }
                disturbed = true;
            }
            figures[index] = Some(figure);
        }
        rounds.kept.push(Round { figures: figures.into_iter().flatten().collect(), order, disturbed });
    }
    Ok(rounds)
}

/// A moment of a measurement.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    at: tokio::time::Instant,
    cpu: Reading,
}

impl Moment {
    /// This moment.
    #[expect(clippy::disallowed_methods, reason = "a measurement takes real time")]
    pub(crate) fn now(processes: &Processes) -> Result<Self, Failure> {
        Ok(Self { cpu: processes.read()?, at: tokio::time::Instant::now() })
    }

    /// Seconds since an earlier moment, and who spent the processor's time meanwhile.
    pub(crate) fn since(&self, earlier: &Self) -> (f64, Spent) {
        ((self.at - earlier.at).as_secs_f64(), self.cpu.since(&earlier.cpu))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::{Figure, Rounds, alternate};
    use crate::cpu::Spent;
    use crate::options::{Cli, Measurement, Options};

    fn options(arguments: &[&str]) -> Options {
        let Measurement::Lives(options) = Cli::parse_from(["gh-bench", "lives"].iter().chain(arguments)).measurement;
        options.common
    }

    /// Two contestants; others take this many seconds of the processor in the turns, one after another.
    async fn measured(arguments: &[&str], others: &[f64]) -> Rounds {
        let mut others = others.iter();
        let measure = async |index| {
            let cpu = Spent { others: *others.next().expect("no more turns than expected"), ..Spent::default() };
            Ok(Figure { rate: index as f64, seconds: 1.0, cpu, details: Vec::new() })
        };
        alternate(&options(arguments), &["yardstick", "server"], measure).await.unwrap()
    }

    #[tokio::test]
    async fn a_disturbed_round_begins_again_until_the_repeats_are_used_up() {
        let rounds = measured(&["--rounds=2", "--repeats=1"], &[0.0, 1.0, 0.0, 0.0, 0.0, 1.0]).await;
        let disturbed: Vec<bool> = rounds.kept.iter().map(|round| round.disturbed).collect();
        assert_eq!((rounds.repeated, disturbed), (1, vec![false, true]));
    }

    #[tokio::test]
    async fn the_order_of_the_turns_changes_and_follows_from_the_seed() {
        let orders = async |seed: &str| {
            let rounds = measured(&["--rounds=16", seed], &[0.0; 32]).await;
            assert!(rounds.kept.iter().all(|round| round.figures[0].rate < round.figures[1].rate), "{rounds:?}");
            rounds.kept.into_iter().map(|round| round.order).collect::<Vec<_>>()
        };
        let first = orders("--seed=1").await;
        assert!(first.contains(&vec![0, 1]) && first.contains(&vec![1, 0]), "{first:?}");
        assert_eq!(first, orders("--seed=1").await);
        assert_ne!(first, orders("--seed=2").await);
    }
}
