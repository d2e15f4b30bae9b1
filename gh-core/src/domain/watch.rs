//! The watch over the whole fleet: when silence may not be believed, and which time does not count.
//!
//! A control plane that was blind must not shoot the fleet. So before anybody is given up somebody looks: how many
//! workers are silent, and whether this server has just started, lost the store or stood still. What follows for all
//! servers is one stored record, the [`FleetWatch`]; what follows for one sweep is a [`Sight`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ids::ServerId;
use super::policy::Policy;
use super::time::Timestamp;
use super::worker::WorkerView;

/// With fewer workers than this their silence says nothing of the control plane.
const LEAST_WORKERS: u64 = 10;

/// A server that looks each half second and has heard nothing of the store for longer than this stood still.
pub const STOOD_STILL: Duration = Duration::from_millis(1500);

/// A look is believed for so long.
const LOOK_SERVES: Duration = Duration::from_secs(1);

/// Time that was shorter is not told from the time between two looks.
const LEAST_BLIND: Duration = Duration::from_secs(1);

/// So many stretches of blind time are told apart.
const MOST_STRETCHES: usize = 32;

/// So many servers are remembered.
const MOST_SERVERS: usize = 64;

/// A stretch of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// Its beginning.
    pub from: Timestamp,
    /// Its end.
    pub to: Timestamp,
}

impl Stretch {
    fn length(self) -> Duration {
        self.to.since(self.from)
    }

    /// How much of it lies between two times.
    fn between(self, from: Timestamp, to: Timestamp) -> Duration {
        self.to.min(to).since(self.from.max(from))
    }
}

/// Why the brake was engaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BrakeCause {
    /// More than half of the fleet is silent.
    Silence,
    /// The only server that sweeps has just started.
    Started,
    /// It lost the store.
    Lost,
    /// It stood still, or the store's clock was set.
    Stalled,
}

/// A time in which nobody is given up, on any server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Episode {
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// Why.
    pub cause: BrakeCause,
}

/// What all servers know of the watch: one stored record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct FleetWatch {
    /// When each server looked last; those that have not for long are left out.
    looked: Vec<(ServerId, Timestamp)>,
    /// The present episode.
    episode: Option<Episode>,
    /// Whether there was an episode since a count last found fewer than half of the fleet silent.
    spent: bool,
    /// Time in which no server could take calls, oldest first.
    blind: Vec<Stretch>,
    /// All of it that there ever was, in microseconds.
    blind_micros: u64,
    /// The number of the fleet's last event.
    event_seq: u64,
}

/// What befell a server since it looked last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// It has just started.
    Started,
    /// It lost the store.
    Lost,
    /// It stood still, or the store's clock was set.
    Stalled,
}

/// What a server knows of itself when it looks.
#[derive(Clone, Debug)]
pub struct Lookout {
    /// The server.
    pub server: ServerId,
    /// What befell it since it looked last.
    pub trouble: Option<Trouble>,
    /// When it last heard of the store, in the store's time; none where nobody pays attention to that, or before the
    /// first look. A store that knows of earlier silence between then and now, or of later calls, puts it right.
    pub last_heard: Option<Timestamp>,
    /// Until when this server gives nobody up by itself.
    pub held_until: Option<Timestamp>,
}

impl Lookout {
    /// Of somebody who steps a store by hand: time is what the store says, however long nobody looked.
    #[must_use]
    pub const fn by_hand(server: ServerId) -> Self {
        Self { server, trouble: None, last_heard: None, held_until: None }
    }
}

/// How many workers take part, and how many of them are silent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headcount {
    /// Those not heard from for [`Policy::suspect_after`].
    pub silent: u64,
    /// All that take part: neither offline nor deregistered.
    pub workers: u64,
}

impl Headcount {
    /// The count of all these workers, for stores that can look at all of them.
    #[must_use]
    pub fn of<'w>(workers: impl IntoIterator<Item = &'w WorkerView>, now: Timestamp, policy: &Policy) -> Self {
        let present = workers.into_iter().filter(|view| view.worker.is_present());
        present.fold(Self::default(), |count, view| Self {
            silent: count.silent + u64::from(now.since(view.vitals.last_seen) >= policy.suspect_after),
            workers: count.workers + 1,
        })
    }

    const fn more_than_half_are_silent(self) -> bool {
        self.workers >= LEAST_WORKERS && 2 * self.silent > self.workers
    }

    const fn fewer_than_half_are_silent(self) -> bool {
        2 * self.silent < self.workers || self.workers == 0
    }
}

/// A time in which nobody is given up, as one server sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hold {
    /// Until when.
    pub until: Timestamp,
    /// Whether it holds on all servers.
    pub for_all: bool,
}

/// What one look saw: what a sweep needs to know of it.
#[derive(Clone, Debug, Default)]
pub struct Sight {
    looked_at: Option<Timestamp>,
    hold: Option<Hold>,
    held_until: Option<Timestamp>,
    blind: Vec<Stretch>,
}

/// What a look tells: an event of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Told {
    Engaged(Episode),
    Released,
}

impl FleetWatch {
    /// The present episode.
    #[must_use]
    pub fn episode(&self, now: Timestamp) -> Option<Episode> {
        self.episode.filter(|episode| episode.until > now)
    }

    /// All time in which no server could take calls, since there is a record.
    #[must_use]
    pub const fn blind_time(&self) -> Duration {
        Duration::from_micros(self.blind_micros)
    }

    /// When anybody looked last; none before the first start.
    #[must_use]
    pub fn latest_look(&self) -> Option<Timestamp> {
        self.looked.iter().map(|(_, at)| *at).max()
    }

    /// The number of the next event of the fleet.
    pub(super) const fn next_event(&mut self) -> u64 {
        self.event_seq += 1;
        self.event_seq
    }

    /// Notes a look at this time: what is to be told of it, and what it saw.
    pub(super) fn look(
        &mut self,
        now: Timestamp,
        lookout: &Lookout,
        count: Headcount,
        policy: &Policy,
    ) -> (Vec<Told>, Sight) {
        let stood_still = lookout.last_heard.is_some_and(|heard| now.since(heard) > STOOD_STILL);
        let first_ever = self.looked.is_empty();
        let trouble = lookout.trouble.or(stood_still.then_some(Trouble::Stalled));
        let trouble = trouble.filter(|_| policy.brake && !first_ever);
        let others = self.looked.iter().filter(|(server, _)| *server != lookout.server).map(|(_, at)| *at).max();
        let watched_by_others = others.is_some_and(|at| now.since(at) < policy.offline_after);
        if trouble.is_some() {
            let by_itself = if lookout.trouble == Some(Trouble::Started) { None } else { lookout.last_heard };
            self.add_blind(by_itself.max(self.latest_look()), now);
        }
        self.note(lookout.server, now, policy);

        // Where nobody takes part there is nobody to give up.
        let trouble = trouble.filter(|_| count.workers > 0);
        let held_until = match trouble {
            Some(_) => Some(now + policy.offline_after),
            None => lookout.held_until.filter(|until| *until > now && policy.brake),
        };
        let told = self.brake(now, trouble.filter(|_| !watched_by_others), count, policy);
        let for_all = self.episode(now).filter(|_| policy.brake);
        let hold = match (for_all, held_until) {
            (Some(episode), _) => Some(Hold { until: episode.until, for_all: true }),
            (None, own) => own.map(|until| Hold { until, for_all: false }),
        };
        let blind = if policy.brake { self.blind.clone() } else { Vec::new() };
        (told, Sight { looked_at: Some(now), hold, held_until, blind })
    }

    fn brake(&mut self, now: Timestamp, trouble: Option<Trouble>, count: Headcount, policy: &Policy) -> Vec<Told> {
        let mut told = Vec::new();
        let until = now + policy.offline_after;
        if let (Some(episode), Some(_)) = (&mut self.episode, trouble) {
            // Blind once more before it was over.
            episode.until = until;
        }
        if self.episode.is_some_and(|episode| episode.until <= now) {
            self.episode = None;
            told.push(Told::Released);
        }
        if count.fewer_than_half_are_silent() {
            self.spent = false;
        }
        let silence = policy.brake && !self.spent && count.more_than_half_are_silent();
        let cause = match trouble {
            Some(Trouble::Started) => Some(BrakeCause::Started),
            Some(Trouble::Lost) => Some(BrakeCause::Lost),
            Some(Trouble::Stalled) => Some(BrakeCause::Stalled),
            None => silence.then_some(BrakeCause::Silence),
        };
        if let (None, Some(cause)) = (self.episode, cause) {
            let episode = Episode { since: now, until, cause };
            self.episode = Some(episode);
            self.spent = true;
            told.push(Told::Engaged(episode));
        }
        told
    }

    fn note(&mut self, server: ServerId, now: Timestamp, policy: &Policy) {
        let remembered = policy.offline_after.max(Duration::from_secs(60));
        self.looked.retain(|(known, at)| *known != server && now.since(*at) < remembered);
        if self.looked.len() >= MOST_SERVERS {
            self.looked.remove(0);
        }
        self.looked.push((server, now));
    }

    fn add_blind(&mut self, from: Option<Timestamp>, to: Timestamp) {
        let known_to = self.blind.last().map(|stretch| stretch.to);
        let Some(from) = from.max(known_to).filter(|from| to.since(*from) > LEAST_BLIND) else {
            return;
        };
        let stretch = Stretch { from, to };
        self.blind.push(stretch);
        self.blind_micros =
            self.blind_micros.saturating_add(u64::try_from(stretch.length().as_micros()).unwrap_or(u64::MAX));
        if self.blind.len() > MOST_STRETCHES {
            // The two oldest become one of the same length.
            let both = self.blind[0].length() + self.blind[1].length();
            self.blind.remove(0);
            self.blind[0].from = self.blind[0].to - both;
        }
    }
}

impl Sight {
    /// Whether, and until when, nobody is given up: while the brake holds, and where too much time has passed since the
    /// look for it to be believed. A process that stood still between a look and its sweep gives nobody up.
    #[must_use]
    pub fn hold(&self, now: Timestamp) -> Option<Hold> {
        let outdated = self.looked_at.is_some_and(|at| now.since(at) > LOOK_SERVES);
        self.hold.filter(|hold| hold.until > now).or(outdated.then_some(Hold { until: now, for_all: false }))
    }

    /// Until when this server gives nobody up by itself: for its next look.
    #[must_use]
    pub const fn held_until(&self) -> Option<Timestamp> {
        self.held_until
    }

    /// When it was looked.
    #[must_use]
    pub const fn looked_at(&self) -> Option<Timestamp> {
        self.looked_at
    }

    /// How much of the time between two instants no server could take calls in.
    #[must_use]
    pub fn blind_between(&self, from: Timestamp, to: Timestamp) -> Duration {
        self.blind.iter().map(|stretch| stretch.between(from, to)).sum()
    }

    /// Who was not heard from since this time is to be given up: that long ago, blind time not counted. None while
    /// nobody is given up.
    #[must_use]
    pub fn silent_since(&self, now: Timestamp, offline_after: Duration) -> Option<Timestamp> {
        if self.hold(now).is_some() {
            return None;
        }
        let (mut at, mut left) = (now, offline_after);
        for stretch in self.blind.iter().rev().filter(|stretch| stretch.from < now) {
            let seeing = at.since(stretch.to);
            if seeing >= left {
                break;
            }
            left -= seeing;
            at = stretch.from;
        }
        Some(at - left)
    }

    /// What becomes of a deadline that is over by the clock and counts from `since`.
    pub(super) fn judge(&self, since: Timestamp, deadline: Timestamp, now: Timestamp) -> Judgement {
        let deadline = deadline + self.blind_between(since, now);
        match self.hold(now) {
            Some(Hold { until, for_all: true }) => Judgement::Later(deadline.max(until)),
            _ if deadline > now => Judgement::Later(deadline),
            Some(_) => Judgement::NotByThisServer,
            None => Judgement::Over,
        }
    }
}

/// What becomes of a deadline that is over by the clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Judgement {
    /// It is over.
    Over,
    /// It is over at this time, for all servers.
    Later(Timestamp),
    /// It is over, but this server does not act on it now.
    NotByThisServer,
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The record, as one server after the other looks at it.
    struct Record {
        watch: FleetWatch,
        policy: Policy,
        start: Timestamp,
    }

    impl Record {
        fn new() -> Self {
            Self {
                watch: FleetWatch::default(),
                policy: Policy::default(),
                start: Timestamp::from_micros(1_000_000_000),
            }
        }

        fn at(&self, seconds: u64) -> Timestamp {
            self.start + SECOND * u32::try_from(seconds).unwrap()
        }

        fn server(number: u128) -> ServerId {
            ServerId::new(uuid::Uuid::from_u128(number))
        }

        /// A look of a server that looks all the time, and that nothing befell.
        fn look(&mut self, seconds: u64, silent: u64, workers: u64) -> (Vec<Told>, Sight) {
            self.look_as(1, seconds, None, silent, workers)
        }

        fn look_as(
            &mut self,
            server: u128,
            seconds: u64,
            trouble: Option<Trouble>,
            silent: u64,
            workers: u64,
        ) -> (Vec<Told>, Sight) {
            let lookout = Lookout { trouble, ..Lookout::by_hand(Self::server(server)) };
            let now = self.at(seconds);
            self.watch.look(now, &lookout, Headcount { silent, workers }, &self.policy)
        }
    }

    fn engaged(told: &[Told]) -> bool {
        told.iter().any(|told| matches!(told, Told::Engaged(_)))
    }

    #[test]
    fn more_than_half_of_ten_silent_workers_engage_the_brake_and_nine_never_do() {
        for (silent, workers, expected) in
            [(6, 10, true), (5, 10, false), (9, 9, false), (51, 100, true), (50, 100, false)]
        {
            let mut record = Record::new();
            record.look(0, 0, workers);
            let (told, sight) = record.look(1, silent, workers);
            assert_eq!(engaged(&told), expected, "{silent} of {workers}");
            assert_eq!(sight.hold(record.at(1)).is_some(), expected, "{silent} of {workers}");
        }
    }

    #[test]
    fn an_episode_lasts_one_offline_after_and_is_not_armed_again_before_fewer_than_half_are_silent() {
        let mut record = Record::new();
        record.look(0, 0, 10);
        assert!(engaged(&record.look(10, 10, 10).0));
        let (told, sight) = record.look(29, 10, 10);
        assert_eq!((told, sight.silent_since(record.at(29), 20 * SECOND)), (vec![], None));
        let (told, sight) = record.look(30, 10, 10);
        assert_eq!(told, [Told::Released]);
        assert_eq!(sight.silent_since(record.at(30), 20 * SECOND), Some(record.at(10)));
        for (second, silent) in [(31, 10), (40, 6), (50, 5)] {
            assert!(record.look(second, silent, 10).0.is_empty(), "{silent}");
        }
        assert!(record.look(60, 4, 10).0.is_empty());
        assert!(engaged(&record.look(61, 6, 10).0));
    }

    #[test]
    fn a_fleet_that_comes_back_within_an_episode_arms_it_anew() {
        let mut record = Record::new();
        record.look(0, 0, 10);
        assert!(engaged(&record.look(10, 10, 10).0));
        assert!(record.look(15, 0, 10).0.is_empty());
        let (told, _) = record.look(30, 10, 10);
        assert!(matches!(told[..], [Told::Released, Told::Engaged(_)]), "{told:?}");
    }

    #[test]
    fn a_first_start_neither_holds_nor_is_blind() {
        let mut record = Record::new();
        let (told, sight) = record.look_as(1, 0, Some(Trouble::Started), 0, 5);
        assert!(told.is_empty());
        assert_eq!(sight.hold(record.at(0)), None);
        assert_eq!(record.watch.blind_time(), Duration::ZERO);
    }

    #[test]
    fn a_start_a_loss_or_a_stall_holds_only_that_servers_sweeps_while_another_swept() {
        for trouble in [Trouble::Started, Trouble::Lost, Trouble::Stalled] {
            let mut record = Record::new();
            record.look_as(1, 100, None, 0, 5);
            let (told, sight) = record.look_as(2, 119, Some(trouble), 0, 5);
            assert!(told.is_empty(), "{trouble:?}");
            assert_eq!(sight.hold(record.at(119)), Some(Hold { until: record.at(139), for_all: false }));
            assert_eq!(record.look_as(1, 120, None, 0, 5).1.hold(record.at(120)), None);
        }
    }

    #[test]
    fn without_another_server_it_is_an_episode_for_all() {
        for trouble in [Trouble::Started, Trouble::Lost, Trouble::Stalled] {
            let mut record = Record::new();
            record.look_as(1, 100, None, 0, 5);
            assert!(engaged(&record.look_as(2, 120, Some(trouble), 5, 5).0), "{trouble:?}");
            let (_, sight) = record.look_as(3, 121, None, 5, 5);
            assert_eq!(sight.hold(record.at(121)), Some(Hold { until: record.at(140), for_all: true }));
        }
    }

    #[test]
    fn whoever_is_blind_again_within_an_episode_prolongs_it() {
        let mut record = Record::new();
        record.look(0, 0, 5);
        assert!(engaged(&record.look_as(1, 60, Some(Trouble::Lost), 5, 5).0));
        assert!(record.look_as(1, 79, Some(Trouble::Lost), 5, 5).0.is_empty());
        assert_eq!(record.watch.episode(record.at(98)).map(|episode| episode.until), Some(record.at(99)));
    }

    #[test]
    fn where_nobody_takes_part_nothing_is_held() {
        let mut record = Record::new();
        record.look(0, 0, 0);
        let (told, sight) = record.look_as(1, 60, Some(Trouble::Started), 0, 0);
        assert!(told.is_empty());
        assert_eq!(sight.hold(record.at(60)), None);
    }

    #[test]
    fn blind_time_reaches_from_the_last_word_of_any_server_to_the_first_after_it() {
        let mut record = Record::new();
        record.look_as(1, 100, None, 0, 5);
        record.look_as(2, 103, None, 0, 5);
        let (_, sight) = record.look_as(1, 160, Some(Trouble::Lost), 5, 5);
        let at = |seconds| record.at(seconds);
        assert_eq!(record.watch.blind_time(), 57 * SECOND);
        assert_eq!(sight.blind_between(at(0), at(200)), 57 * SECOND);
        assert_eq!(sight.blind_between(at(110), at(120)), 10 * SECOND);
        // The other server was as blind: that is not counted twice.
        let (_, sight) = record.look_as(2, 161, Some(Trouble::Lost), 5, 5);
        assert_eq!(sight.blind_between(record.at(0), record.at(200)), 57 * SECOND);
    }

    #[test]
    fn a_server_that_heard_nothing_for_long_stood_still_unless_nobody_pays_attention() {
        let mut record = Record::new();
        record.look(0, 0, 5);
        let attentive = |heard| Lookout { last_heard: Some(heard), ..Lookout::by_hand(Record::server(1)) };
        let (count, policy) = (Headcount { silent: 0, workers: 5 }, record.policy.clone());
        let now = record.at(60);
        let prompt =
            record.watch.clone().look(now, &attentive(record.start + 58 * SECOND + SECOND / 2), count, &policy);
        assert_eq!(prompt.1.hold(now), None);
        let late = record.watch.clone().look(now, &attentive(record.at(58)), count, &policy);
        assert_eq!(late.1.hold(now).map(|hold| hold.until), Some(record.at(80)));
        let by_hand = record.watch.clone().look(now, &Lookout::by_hand(Record::server(1)), count, &policy);
        assert_eq!(by_hand.1.hold(now), None);
    }

    #[test]
    fn silence_is_counted_without_blind_time() {
        let mut record = Record::new();
        record.look(100, 0, 5);
        // Blind from 100 to 160; held until 180.
        record.look_as(1, 160, Some(Trouble::Lost), 5, 5);
        let sight = record.look(181, 5, 5).1;
        for (last_seen, due) in [(81, 161), (99, 179), (100, 180), (130, 180), (160, 180), (161, 181), (165, 185)] {
            let given_up = |now: u64| {
                let sight = Sight { looked_at: None, ..sight.clone() };
                sight.silent_since(record.at(now), 20 * SECOND).is_some_and(|since| record.at(last_seen) <= since)
            };
            assert!(given_up(due) && !given_up(due - 1), "{last_seen}");
        }
    }

    #[test]
    fn blind_time_is_added_to_a_deadline_once_and_the_hold_adds_none() {
        let mut record = Record::new();
        record.look(100, 0, 5);
        let (_, sight) = record.look_as(1, 160, Some(Trouble::Lost), 5, 5);
        let at = |seconds| record.at(seconds);
        // It would be over at 150, in the dark; 60 s were dark, so 210, which is after the hold.
        assert_eq!(sight.judge(at(90), at(150), at(160)), Judgement::Later(at(210)));
        // It began in the dark and would be over at 161: 30 s of it were dark.
        assert_eq!(sight.judge(at(130), at(131), at(160)), Judgement::Later(at(180)));
        let (_, sight) = record.look(185, 0, 5);
        let at = |seconds| record.at(seconds);
        assert_eq!(sight.judge(at(90), at(150), at(185)), Judgement::Later(at(210)));
        assert_eq!(sight.judge(at(130), at(131), at(185)), Judgement::Over);
        assert_eq!(sight.judge(at(165), at(185), at(185)), Judgement::Over);
    }

    #[test]
    fn a_process_that_stood_still_between_look_and_sweep_gives_nobody_up() {
        let mut record = Record::new();
        let (_, sight) = record.look(100, 0, 5);
        assert!(sight.silent_since(record.at(101), 20 * SECOND).is_some());
        assert_eq!(sight.silent_since(record.at(102), 20 * SECOND), None);
        assert_eq!(sight.judge(record.at(0), record.at(50), record.at(160)), Judgement::NotByThisServer);
    }

    #[test]
    fn without_the_brake_nothing_is_held_and_no_time_is_blind() {
        let mut record = Record::new();
        record.policy.brake = false;
        record.look(0, 0, 10);
        let (told, sight) = record.look_as(1, 60, Some(Trouble::Lost), 10, 10);
        assert!(told.is_empty());
        assert_eq!(sight.silent_since(record.at(60), 20 * SECOND), Some(record.at(40)));
        assert_eq!(sight.blind_between(record.at(0), record.at(60)), Duration::ZERO);
    }

    #[test]
    fn the_record_stays_small_and_keeps_the_sum_of_blind_time() {
        let mut record = Record::new();
        record.look(0, 0, 5);
        for round in 1..=200 {
            record.look_as(u128::from(round), 100 * round, Some(Trouble::Lost), 0, 5);
            record.look_as(u128::from(round), 100 * round + 50, None, 0, 5);
        }
        let watch = &record.watch;
        assert!(watch.blind.len() <= MOST_STRETCHES && watch.looked.len() <= MOST_SERVERS, "{watch:?}");
        let sum: Duration = watch.blind.iter().map(|stretch| stretch.length()).sum();
        assert_eq!(sum, watch.blind_time());
    }
}
