//! What the calls of a worker leave behind.

use serde::{Deserialize, Serialize};

use crate::domain::ids::{ConnectionId, WorkerId};
use crate::domain::time::Timestamp;

/// One waiting claim or open stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Only its holder may report it over.
    pub id: ConnectionId,
    /// Until when it is believed without news; the past for one that is over.
    pub until: Timestamp,
}

/// What the calls of a worker leave behind: no decision's version hangs on it, so calls do not stand in each other's way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Vitals {
    /// The last sign of life.
    pub last_seen: Timestamp,
    /// Resident memory in bytes, by its own word.
    pub memory_usage: Option<u64>,
    /// The page it is at, by its own word.
    pub current_task_url: Option<Box<str>>,
    /// The browser session it drives, by its own word.
    pub browser_session_id: Option<Box<str>>,
    /// Where a person can watch, when it said so after registering.
    pub live_view_url: Option<Box<str>>,
    /// Its waiting claim.
    pub claim: Option<Connection>,
    /// Its open stream of directives.
    pub stream: Option<Connection>,
    /// Whether its stream broke and did not come back: it is suspect from then until its next sign of life.
    pub stream_broken_at: Option<Timestamp>,
    /// How many heartbeats in a row said that it has no job, while it holds one.
    pub jobless_beats: u8,
    /// When the last heartbeat left an event.
    pub heartbeat_event_at: Option<Timestamp>,
    /// Calls that were refused because it is retired.
    pub refused_calls: u64,
    /// The last of them.
    pub last_refused_at: Option<Timestamp>,
}

impl Vitals {
    /// Of a worker that registers now.
    #[must_use]
    pub const fn new(now: Timestamp) -> Self {
        Self {
            last_seen: now,
            memory_usage: None,
            current_task_url: None,
            browser_session_id: None,
            live_view_url: None,
            claim: None,
            stream: None,
            stream_broken_at: None,
            jobless_beats: 0,
            heartbeat_event_at: None,
            refused_calls: 0,
            last_refused_at: None,
        }
    }

    /// When it listened last: later than now while it listens.
    #[must_use]
    pub fn listened_until(&self) -> Option<Timestamp> {
        [self.claim, self.stream].into_iter().flatten().map(|connection| connection.until).max()
    }

    /// Folds what one call said into what is known.
    pub fn apply(&mut self, change: &VitalsChange) {
        if change.reset {
            let fresh = Self::new(change.seen.unwrap_or(self.last_seen));
            *self = Self { refused_calls: self.refused_calls, last_refused_at: self.last_refused_at, ..fresh };
        }
        if let Some(seen) = change.seen {
            self.last_seen = self.last_seen.max(seen);
            self.stream_broken_at = None;
        }
        if let Some(beat) = &change.beat {
            let merge = |known: &mut Option<Box<str>>, said: &Option<Box<str>>| {
                if said.is_some() {
                    known.clone_from(said);
                }
            };
            self.memory_usage = beat.memory_usage.or(self.memory_usage);
            merge(&mut self.current_task_url, &beat.current_task_url);
            merge(&mut self.browser_session_id, &beat.browser_session_id);
            merge(&mut self.live_view_url, &beat.live_view_url);
        }
        if let Some(beats) = change.jobless_beats {
            self.jobless_beats = beats;
        }
        if change.heartbeat_event_at.is_some() {
            self.heartbeat_event_at = change.heartbeat_event_at;
        }
        if let Some(at) = change.refused_at {
            self.refused_calls += 1;
            self.last_refused_at = Some(at);
        }
        for update in &change.connections {
            let slot = match update.kind {
                ConnectionKind::Claim => &mut self.claim,
                ConnectionKind::Stream => &mut self.stream,
            };
            match update.change {
                ConnectionChange::Opened { until } => *slot = Some(Connection { id: update.id, until }),
                ConnectionChange::Closed { at, broken } => {
                    if let Some(known) = slot.as_mut().filter(|known| known.id == update.id) {
                        known.until = known.until.min(at);
                        if broken && update.kind == ConnectionKind::Stream {
                            self.stream_broken_at = Some(at);
                        }
                    }
                }
            }
        }
        if change.left_job {
            self.current_task_url = None;
            self.jobless_beats = 0;
        }
    }
}

/// What a heartbeat says of the machine; absent says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beat {
    /// Resident memory in bytes.
    pub memory_usage: Option<u64>,
    /// The page it is at.
    pub current_task_url: Option<Box<str>>,
    /// The browser session it drives.
    pub browser_session_id: Option<Box<str>>,
    /// Where a person can watch.
    pub live_view_url: Option<Box<str>>,
}

/// Which of a worker's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConnectionKind {
    /// A waiting claim.
    Claim,
    /// An open stream of directives.
    Stream,
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ConnectionChange {
    /// It is open, and believed until this time without news.
    Opened {
        /// That time.
        until: Timestamp,
    },
    /// It is over; a later one of the same worker is not touched.
    Closed {
        /// Since when.
        at: Timestamp,
        /// Whether it broke instead of ending.
        broken: bool,
    },
}

/// A change of one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionUpdate {
    /// Which connection.
    pub id: ConnectionId,
    /// Of which kind.
    pub kind: ConnectionKind,
    /// What became of it.
    pub change: ConnectionChange,
}

/// What one call of a worker leaves behind, as a difference: two calls at once both count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VitalsChange {
    /// The worker.
    pub worker_id: WorkerId,
    /// A sign of life at this time.
    pub seen: Option<Timestamp>,
    /// What a heartbeat said.
    pub beat: Option<Beat>,
    /// New count of heartbeats without a job.
    pub jobless_beats: Option<u8>,
    /// The heartbeat left an event at this time.
    pub heartbeat_event_at: Option<Timestamp>,
    /// A call was refused at this time.
    pub refused_at: Option<Timestamp>,
    /// Connections that opened or closed.
    pub connections: Vec<ConnectionUpdate>,
    /// The worker has no job any more: what it said of the job's page is over.
    pub left_job: bool,
    /// A new generation begins: only the count of refused calls is kept.
    pub reset: bool,
}

impl VitalsChange {
    /// No change yet.
    #[must_use]
    pub const fn of(worker_id: WorkerId) -> Self {
        Self {
            worker_id,
            seen: None,
            beat: None,
            jobless_beats: None,
            heartbeat_event_at: None,
            refused_at: None,
            connections: Vec::new(),
            left_job: false,
            reset: false,
        }
    }
}
