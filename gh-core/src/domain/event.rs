//! The record of what happened to a job and to a worker.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

use super::code::Actor;
use super::ids::{Attempt, EventId, Generation, JobId, WorkerId};
use super::job::JobStatus;
use super::time::Timestamp;

/// The greatest length of a message, in characters.
pub const MAX_MESSAGE_CHARS: usize = 500;

/// The greatest size of an event's metadata, in bytes of JSON.
pub const MAX_METADATA_BYTES: usize = 8 * 1024;

/// What an event is about: `^[a-z][a-z0-9_]{2,63}$`.
#[derive(Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(transparent)]
pub struct EventType(Cow<'static, str>);

macro_rules! event_types {
    ($($(#[$doc:meta])* $constant:ident = $word:literal;)*) => {
        impl EventType {
            $($(#[$doc])* pub const $constant: Self = Self(Cow::Borrowed($word));)*

            /// A word of the table above: kept without a copy of its own.
            fn well_known(text: &str) -> Option<Self> {
                match text {
                    $($word => Some(Self::$constant),)*
                    _ => None,
                }
            }
        }
    };
}

event_types! {
    /// Waits in the queue: at submission, and at each reservation.
    JOB_QUEUED = "job_queued";
    /// A worker was given the job; once for each attempt.
    JOB_STARTED = "job_started";
    /// It ended well.
    JOB_COMPLETED = "job_completed";
    /// It ended without success, and no attempt is left.
    JOB_FAILED = "job_failed";
    /// A client ended it.
    JOB_CANCELLED = "job_cancelled";
    /// It waited longer than it was allowed to.
    JOB_EXPIRED = "job_expired";
    /// It was put back, with the reason.
    JOB_REQUEUED = "job_requeued";
    /// The job's next act must not happen twice.
    SIDE_EFFECTS_STARTED = "side_effects_started";
    /// An LLM call was paid for.
    TOKENS_USED = "tokens_used";
    /// An LLM call whose model has no price.
    MODEL_UNPRICED = "model_unpriced";
    /// 80 % of the budget are spent.
    BUDGET_WARNING = "budget_warning";
    /// How far it is.
    PROGRESS_UPDATE = "progress_update";
    /// An automation step begins.
    STEP_STARTED = "step_started";
    /// An automation step is done.
    STEP_COMPLETED = "step_completed";
    /// A step of a recipe begins.
    COOKBOOK_STEP_STARTED = "cookbook_step_started";
    /// A step of a recipe is done.
    COOKBOOK_STEP_COMPLETED = "cookbook_step_completed";
    /// A step of a recipe did not work.
    COOKBOOK_STEP_FAILED = "cookbook_step_failed";
    /// What the model thinks.
    THOUGHT = "thought";
    /// The page is being looked at.
    OBSERVATION_STARTED = "observation_started";
    /// The page was looked at.
    OBSERVATION_COMPLETED = "observation_completed";
    /// From recipe to model, or back.
    MODE_SWITCHED = "mode_switched";
    /// A callback was given up.
    CALLBACK_DEAD = "callback_dead";
    /// The blocker is gone, or nobody asks for it any more.
    INTERACTION_RESOLVED = "interaction_resolved";
    /// A worker came.
    WORKER_REGISTERED = "worker_registered";
    /// A worker lives; written every 30 s, not at every heartbeat.
    WORKER_HEARTBEAT = "worker_heartbeat";
    /// A worker takes no more jobs.
    WORKER_DRAINING = "worker_draining";
    /// A worker fell silent.
    WORKER_OFFLINE = "worker_offline";
    /// A worker is gone for good.
    WORKER_DEREGISTERED = "worker_deregistered";
    /// A retired worker still calls.
    WORKER_REFUSED = "worker_refused";
    /// Two living processes fight for one worker id.
    WORKER_CONTESTED = "worker_contested";
    /// Nobody is given up for a while: it may be the control plane that does not hear. Of the fleet.
    BRAKE_ENGAGED = "brake_engaged";
    /// Whoever is silent is given up again. Of the fleet.
    BRAKE_RELEASED = "brake_released";
}

impl EventType {
    /// Takes a worker's own type.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if let Some(known) = Self::well_known(text) {
            return Some(known);
        }
        let mut bytes = text.bytes();
        let fits = (3..=64).contains(&text.len())
            && bytes.next().is_some_and(|first| first.is_ascii_lowercase())
            && bytes.all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
        fits.then(|| Self(Cow::Owned(text.to_owned())))
    }

    /// The type as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether only the control plane writes events of this type.
    #[must_use]
    pub fn is_servers(&self) -> bool {
        let text = self.as_str();
        text.starts_with("job_")
            || text.starts_with("interaction_")
            || matches!(
                text,
                "tokens_used"
                    | "budget_warning"
                    | "side_effects_started"
                    | "model_unpriced"
                    | "callback_dead"
                    | "events_dropped"
            )
    }

    /// Whether it says that an automation step is done, which counts as an action.
    #[must_use]
    pub fn is_action(&self) -> bool {
        *self == Self::STEP_COMPLETED || *self == Self::COOKBOOK_STEP_COMPLETED
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for EventType {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'de, str>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("expected an event type"))
    }
}

/// A JSON object as text, exact to the digit. Absent means that there is nothing more to say.
pub type Extra = Option<Box<RawValue>>;

/// What every event of a job says, and what else its type says.
#[derive(Clone, Debug, Default)]
pub struct JobEventMetadata {
    /// The worker that has the job, or had it last; none before a worker held it.
    pub worker_id: Option<WorkerId>,
    /// Milliseconds since the attempt began.
    pub elapsed_ms: Option<u64>,
    /// The step it is at.
    pub step_index: Option<u32>,
    /// How many steps there are.
    pub total_steps: Option<u32>,
    /// A JSON object with further keys.
    pub extra: Extra,
}

impl Serialize for JobEventMetadata {
    /// One object: the four keys first, `null` when unknown, then the further ones.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("worker_id", &self.worker_id)?;
        map.serialize_entry("elapsed_ms", &self.elapsed_ms)?;
        map.serialize_entry("step_index", &self.step_index)?;
        map.serialize_entry("total_steps", &self.total_steps)?;
        if let Some(extra) = &self.extra {
            let entries: BTreeMap<Cow<'_, str>, &RawValue> =
                serde_json::from_str(extra.get()).map_err(serde::ser::Error::custom)?;
            for (key, value) in &entries {
                if !Self::COMMON_KEYS.contains(&key.as_ref()) {
                    map.serialize_entry(key, value)?;
                }
            }
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for JobEventMetadata {
    /// Reads what was written: what is beside the four keys is [`extra`](Self::extra).
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut entries = BTreeMap::<String, Box<RawValue>>::deserialize(deserializer)?;
        fn take<T: DeserializeOwned, E: serde::de::Error>(
            entries: &mut BTreeMap<String, Box<RawValue>>,
            key: &str,
        ) -> Result<Option<T>, E> {
            let value = entries.remove(key).map(|value| serde_json::from_str::<Option<T>>(value.get()));
            Ok(value.transpose().map_err(E::custom)?.flatten())
        }
        Ok(Self {
            worker_id: take(&mut entries, "worker_id")?,
            elapsed_ms: take(&mut entries, "elapsed_ms")?,
            step_index: take(&mut entries, "step_index")?,
            total_steps: take(&mut entries, "total_steps")?,
            extra: match entries.is_empty() {
                true => None,
                false => Some(serde_json::value::to_raw_value(&entries).map_err(serde::de::Error::custom)?),
            },
        })
    }
}

impl JobEventMetadata {
    /// The keys that every event of a job has.
    pub const COMMON_KEYS: [&'static str; 4] = ["worker_id", "elapsed_ms", "step_index", "total_steps"];
}

/// One event of a job. Its fields are the columns that clients read.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct JobEvent {
    /// Its id.
    pub id: EventId,
    /// The job.
    pub job_id: JobId,
    /// Its place among the events of the job: from 1, without gaps.
    pub seq: u64,
    /// What it is about.
    pub event_type: EventType,
    /// The status before, where it changed.
    pub from_status: Option<JobStatus>,
    /// The status after, where it changed.
    pub to_status: Option<JobStatus>,
    /// A sentence that a person can read; at most [`MAX_MESSAGE_CHARS`].
    pub message: Box<str>,
    /// Facts; at most [`MAX_METADATA_BYTES`].
    pub metadata: JobEventMetadata,
    /// Who did it.
    pub actor: Actor,
    /// The run.
    pub run: u32,
    /// The attempt.
    pub attempt: Attempt,
    /// When it happened, by its author.
    pub occurred_at: Timestamp,
    /// When it was stored.
    pub created_at: Timestamp,
}

/// One event of a worker, or of the fleet.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerEvent {
    /// Its id.
    pub id: EventId,
    /// The worker; none for events of the whole fleet.
    pub worker_id: Option<WorkerId>,
    /// Its generation.
    pub generation: Option<Generation>,
    /// Its place among the events of the worker: from 1, without gaps.
    pub seq: u64,
    /// What it is about.
    pub event_type: EventType,
    /// A sentence that a person can read.
    pub message: Box<str>,
    /// Facts.
    #[serde(serialize_with = "extra_or_empty")]
    pub metadata: Extra,
    /// Who did it.
    pub actor: Actor,
    /// When it happened and was stored.
    pub created_at: Timestamp,
}

fn extra_or_empty<S: Serializer>(extra: &Extra, serializer: S) -> Result<S::Ok, S::Error> {
    match extra {
        Some(extra) => extra.serialize(serializer),
        None => serde::ser::SerializeMap::end(serializer.serialize_map(Some(0))?),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_types_have_a_form_and_the_servers_own_are_known() {
        assert!(EventType::parse("step_started").is_some_and(|event_type| !event_type.is_servers()));
        assert!(EventType::parse("job_done").is_some_and(|event_type| event_type.is_servers()));
        for text in ["ab", "Step", "1abc", "a b c", &"x".repeat(65)] {
            assert_eq!(EventType::parse(text), None, "{text}");
        }
    }

    #[test]
    fn metadata_always_has_its_four_keys_and_keeps_every_digit() {
        let metadata = JobEventMetadata {
            elapsed_ms: Some(3420),
            extra: RawValue::from_string(r#"{"cost_usd":0.00000000000000001,"elapsed_ms":1}"#.into()).ok(),
            ..JobEventMetadata::default()
        };
        assert_eq!(
            serde_json::to_string(&metadata).unwrap(),
            r#"{"worker_id":null,"elapsed_ms":3420,"step_index":null,"total_steps":null,"cost_usd":0.00000000000000001}"#
        );
    }

    #[test]
    fn events_are_read_back_as_they_were_written() {
        let written = r#"{"id":"00000000-0000-0000-0000-000000000001","job_id":"00000000-0000-0000-0000-000000000002",
            "seq":3,"event_type":"tokens_used","from_status":null,"to_status":"running","message":"m",
            "metadata":{"worker_id":"worker-a","elapsed_ms":null,"step_index":4,"total_steps":null,
            "cost_usd":0.00000000000000001},"actor":"client:valet","run":1,"attempt":2,
            "occurred_at":"2026-02-18T09:00:00Z","created_at":"2026-02-18T09:00:00.000001Z"}"#;
        let event: JobEvent = serde_json::from_str(written).unwrap();
        assert_eq!(event.actor, Actor::Client(crate::domain::code::ClientName::new("valet")));
        assert_eq!(event.metadata.step_index, Some(4));
        assert_eq!(event.metadata.extra.as_ref().unwrap().get(), r#"{"cost_usd":0.00000000000000001}"#);
        let text: String = written.split('\n').map(str::trim).collect();
        assert_eq!(serde_json::to_string(&event).unwrap().replace(".000000Z", "Z"), text.replace(".000000Z", "Z"));
    }
}
