//! A look at the whole fleet, before anybody is given up.

use std::sync::Arc;

use serde_json::json;

use crate::domain::changeset::Changeset;
use crate::domain::code::Actor;
use crate::domain::draft::extra_of;
use crate::domain::event::{EventType, WorkerEvent};
use crate::domain::ids::EventId;
use crate::domain::rules::Rules;
use crate::domain::time::Timestamp;
use crate::domain::watch::{BrakeCause, FleetWatch, Headcount, Lookout, Sight, Told};

/// What a look came to.
#[derive(Clone, Debug)]
pub struct Watched {
    /// The store's time of the look.
    pub now: Timestamp,
    /// What a sweep needs to know.
    pub sight: Sight,
    /// The record as it shall be, and what is to be told of it.
    pub changes: Changeset,
}

/// Decides, from the stored record and what is so now, whether silence may be believed.
///
/// For stores, in [`Store::watch`](crate::ports::store::Store::watch).
#[must_use]
pub fn watch(record: &FleetWatch, now: Timestamp, lookout: &Lookout, count: Headcount, rules: &Rules) -> Watched {
    let mut record = record.clone();
    let (told, sight) = record.look(now, lookout, count, &rules.policy);
    let mut changes = Changeset::default();
    for told in told {
        let (event_type, message, facts) = match told {
            Told::Engaged(episode) => {
                let why = match episode.cause {
                    BrakeCause::Silence => "more than half of the fleet is silent",
                    BrakeCause::Started => "the control plane has just started",
                    BrakeCause::Lost => "the control plane lost its store",
                    BrakeCause::Stalled => "the control plane stood still",
                };
                let facts = json!({ "silent": count.silent, "workers": count.workers });
                (EventType::BRAKE_ENGAGED, format!("No worker is given up for now: {why}"), facts)
            }
            Told::Released => {
                (EventType::BRAKE_RELEASED, "Workers that stay silent are given up again".to_owned(), json!({}))
            }
        };
        changes.worker_events.push(WorkerEvent {
            id: EventId::new(rules.ids.uuid()),
            worker_id: None,
            generation: None,
            seq: record.next_event(),
            event_type,
            message: message.into(),
            metadata: extra_of(&facts).filter(|facts| facts.get() != "{}"),
            actor: Actor::System,
            created_at: now,
        });
    }
    changes.watch = Some(Arc::new(record));
    Watched { now, sight, changes }
}
