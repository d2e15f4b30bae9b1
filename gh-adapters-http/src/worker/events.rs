//! The events of one attempt on their way: numbered when they happen, sent in that order, one batch in flight.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use gh_core::domain::time::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use tokio::sync::{Notify, watch};

use super::wire::EventReport;

/// How many events may wait. A control plane that is away for longer costs the newest ones.
const MOST_WAITING: usize = 2_000;
/// How many events go into one call.
const MOST_IN_BATCH: usize = 500;
/// How many bytes of events go into one call; the server takes 1 MiB.
const MOST_BYTES: usize = 512 * 1024;

/// Something that happened in a job.
#[derive(Debug, Clone)]
pub struct Event {
    event_type: String,
    message: Option<String>,
    metadata: BTreeMap<String, Box<RawValue>>,
    occurred_at: Option<Timestamp>,
}

impl Event {
    /// An event of a type such as `step_started`; a worker's own types have the form `^[a-z][a-z0-9_]{2,63}$`.
    #[must_use]
    pub fn new(event_type: impl Into<String>) -> Self {
        Self { event_type: event_type.into(), message: None, metadata: BTreeMap::new(), occurred_at: None }
    }

    /// With a sentence that a person can read (beyond 500 characters the server cuts it).
    #[must_use]
    pub fn message(mut self, message: impl Into<String>) -> Self {
        self.message = Some(message.into());
        self
    }

    /// With a detail. A value that JSON cannot hold is left out.
    #[must_use]
    pub fn detail(mut self, key: impl Into<String>, value: impl Serialize) -> Self {
        if let Ok(value) = serde_json::value::to_raw_value(&value) {
            self.metadata.insert(key.into(), value);
        }
        self
    }

    /// With details as they came.
    #[must_use]
    pub fn details(mut self, details: BTreeMap<String, Box<RawValue>>) -> Self {
        self.metadata.extend(details);
        self
    }

    /// That happened at another time than now.
    #[must_use]
    pub const fn occurred_at(mut self, at: Timestamp) -> Self {
        self.occurred_at = Some(at);
        self
    }

    /// Adds a detail that a more exact one of the same name wins over.
    pub(super) fn default_detail(&mut self, key: &str, value: u64) {
        if !self.metadata.contains_key(key)
            && let Ok(value) = serde_json::value::to_raw_value(&value)
        {
            self.metadata.insert(key.to_owned(), value);
        }
    }
}

/// Some events for one call.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) events: Vec<Arc<RawValue>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Arc<RawValue>>,
    bytes: usize,
    next_seq: u64,
    closed: bool,
    /// Somebody waits until all is sent: no lingering.
    hurry: bool,
}

/// The events that were not answered yet.
#[derive(Debug)]
pub(super) struct EventBuffer {
    queue: Mutex<Queue>,
    arrived: Notify,
    /// How many events have left the queue, sent or dropped.
    gone: watch::Sender<u64>,
}

impl EventBuffer {
    pub(super) fn new() -> Self {
        Self { queue: Mutex::default(), arrived: Notify::new(), gone: watch::Sender::new(0) }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Numbers an event and lets it wait. It is dropped when the buffer is full or closed, or when it is too large to
    /// be sent at all; the answer says whether it was taken.
    pub(super) fn push(&self, event: Event, now: Timestamp) -> bool {
        let mut queue = self.queue();
        if queue.closed || queue.waiting.len() >= MOST_WAITING {
            return false;
        }
        let report = EventReport {
            event_type: event.event_type,
            message: event.message,
            metadata: event.metadata,
            occurred_at: event.occurred_at.unwrap_or(now),
            worker_seq: queue.next_seq,
        };
        let Ok(encoded) = serde_json::value::to_raw_value(&report) else {
            return false;
        };
        if encoded.get().len() > MOST_BYTES {
            return false;
        }
        queue.next_seq += 1;
        queue.bytes += encoded.get().len();
        queue.waiting.push_back(encoded.into());
        drop(queue);
        self.arrived.notify_one();
        true
    }

    /// No further events; those that wait are dropped.
    pub(super) fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        let dropped = queue.waiting.len();
        queue.waiting.clear();
        queue.bytes = 0;
        drop(queue);
        self.left(dropped);
    }

    /// The next batch, which stays in the queue until [`settle`](Self::settle). After the first event it waits up to
    /// `linger` for more, unless the batch is full or somebody waits for it. Only one task may call this.
    pub(super) async fn next_batch(&self, linger: Duration) -> Batch {
        let mut deadline = std::pin::pin!(None::<tokio::time::Sleep>);
        loop {
            let arrived = self.arrived.notified();
            let (any, full) = {
                let queue = self.queue();
                let full = queue.hurry || queue.waiting.len() >= MOST_IN_BATCH || queue.bytes >= MOST_BYTES;
                (!queue.waiting.is_empty(), full)
            };
            if !any {
                arrived.await;
                continue;
            }
            if full {
                return self.front();
            }
            if deadline.as_ref().get_ref().is_none() {
                deadline.set(Some(tokio::time::sleep(linger)));
            }
            let Some(due) = deadline.as_mut().as_pin_mut() else {
                continue;
            };
            tokio::select! {
                () = due => return self.front(),
                () = arrived => {}
            }
        }
    }

    fn front(&self) -> Batch {
        let queue = self.queue();
        let mut bytes = 0;
        let events = queue
            .waiting
            .iter()
            .take(MOST_IN_BATCH)
            .take_while(|event| {
                bytes += event.get().len();
                bytes <= MOST_BYTES
            })
            .cloned()
            .collect();
        Batch { events }
    }

    /// The batch was answered, or will never be sent.
    pub(super) fn settle(&self, batch: &Batch) {
        let mut queue = self.queue();
        // After closing, the batch has left already.
        if queue.closed {
            return;
        }
        for _ in &batch.events {
            if let Some(event) = queue.waiting.pop_front() {
                queue.bytes -= event.get().len();
            }
        }
        if queue.waiting.is_empty() {
            queue.hurry = false;
        }
        drop(queue);
        self.left(batch.events.len());
    }

    fn left(&self, count: usize) {
        self.gone.send_modify(|gone| *gone += u64::try_from(count).unwrap_or(0));
    }

    /// Returns when every event that was pushed before has left.
    pub(super) async fn flushed(&self) {
        let target = {
            let mut queue = self.queue();
            queue.hurry = !queue.waiting.is_empty();
            queue.next_seq
        };
        self.arrived.notify_one();
        // The sender lives as long as this buffer, so this waits for the count alone.
        let _ = self.gone.subscribe().wait_for(|gone| *gone >= target).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp::from_micros(0);
    const LINGER: Duration = Duration::from_millis(200);

    fn seqs(batch: &Batch) -> Vec<u64> {
        #[derive(serde::Deserialize)]
        struct Seq {
            worker_seq: u64,
        }
        let read = |event: &Arc<RawValue>| serde_json::from_str::<Seq>(event.get()).unwrap().worker_seq;
        batch.events.iter().map(read).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn events_share_a_call_and_none_waits_longer_than_the_linger() {
        let buffer = EventBuffer::new();
        let start = tokio::time::sleep(LINGER);
        assert!(buffer.push(Event::new("thought"), NOW));
        assert!(buffer.push(Event::new("thought"), NOW));
        let batch = buffer.next_batch(LINGER).await;
        assert_eq!(seqs(&batch), [0, 1]);
        tokio::time::timeout(Duration::from_millis(1), start).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_is_not_settled_comes_again_and_order_is_kept() {
        let buffer = EventBuffer::new();
        buffer.push(Event::new("thought"), NOW);
        let first = buffer.next_batch(LINGER).await;
        buffer.push(Event::new("thought"), NOW);
        assert_eq!(seqs(&buffer.next_batch(LINGER).await), [0, 1]);
        buffer.settle(&first);
        assert_eq!(seqs(&buffer.next_batch(LINGER).await), [1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_flush_does_not_linger_and_ends_when_all_is_answered() {
        let buffer = EventBuffer::new();
        buffer.push(Event::new("thought"), NOW);
        let pump = async {
            let batch = buffer.next_batch(Duration::from_secs(3_600)).await;
            buffer.settle(&batch);
        };
        let both = async { tokio::join!(buffer.flushed(), pump) };
        tokio::time::timeout(Duration::from_secs(1), both).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn calls_hold_five_hundred_events_and_half_a_mebibyte_at_most() {
        let buffer = EventBuffer::new();
        for _ in 0..501 {
            buffer.push(Event::new("thought"), NOW);
        }
        let batch = buffer.next_batch(LINGER).await;
        assert_eq!(batch.events.len(), 500);
        buffer.settle(&batch);
        buffer.settle(&buffer.next_batch(LINGER).await);
        let long = "x".repeat(200 * 1024);
        for _ in 0..3 {
            assert!(buffer.push(Event::new("thought").message(&long), NOW));
        }
        assert_eq!(buffer.next_batch(LINGER).await.events.len(), 2);
        assert!(!buffer.push(Event::new("thought").message("x".repeat(600 * 1024)), NOW));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_or_closed_buffer_takes_nothing() {
        let buffer = EventBuffer::new();
        for _ in 0..MOST_WAITING {
            assert!(buffer.push(Event::new("thought"), NOW));
        }
        assert!(!buffer.push(Event::new("thought"), NOW));
        buffer.close();
        buffer.flushed().await;
        assert!(!buffer.push(Event::new("thought"), NOW));
    }
}
