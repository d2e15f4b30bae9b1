//! The callbacks of one job that are not through: one sender at a time, in order.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::body::render;
use super::verdict::{Next, judge, retry_delay};
use super::{CallbackKind, Delivery, DeliveryState, NewCallback};
use crate::domain::cost::CostBlock;
use crate::domain::ids::{DeliveryId, JobId, SendLeaseId};
use crate::domain::job::Job;
use crate::domain::policy::Policy;
use crate::domain::time::Timestamp;
use crate::ports::callback_sender::SendOutcome;

/// How many refusing answers let a terminal callback overtake.
const REFUSALS_UNTIL_OVERTAKEN: u32 = 3;

/// A sender's hold on the head of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendLease {
    /// Its id: a settlement with another one is too late.
    pub id: SendLeaseId,
    /// When it is over without a settlement.
    pub until: Timestamp,
}

/// The callbacks of one job that are not through, oldest first.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct CallbackQueue {
    /// The job.
    pub job_id: JobId,
    /// Open deliveries: the first is the head, and the only one that may be sent.
    pub open: VecDeque<Delivery>,
    /// Who sends the head.
    pub lease: Option<SendLease>,
    /// When a snapshot or follow-up was last sent.
    pub cost_sent_at: Option<Timestamp>,
}

/// A delivery that a sender may try now.
#[derive(Clone, Debug)]
pub struct LeasedDelivery {
    /// The job.
    pub job_id: JobId,
    /// The sender's hold.
    pub lease_id: SendLeaseId,
    /// The delivery; its `webhook-id`.
    pub delivery_id: DeliveryId,
    /// Where it goes.
    pub url: Box<str>,
    /// Its bytes.
    pub body: Bytes,
    /// Which attempt it is, from 1.
    pub attempt: u32,
}

/// What a settlement changed.
#[derive(Clone, Debug)]
pub struct Settled {
    /// The delivery, if it is through (delivered or dead).
    pub closed: Option<Delivery>,
    /// Deliveries that no longer hold back a terminal one.
    pub overtaken: Vec<Delivery>,
}

impl CallbackQueue {
    /// An empty queue.
    #[must_use]
    pub const fn new(job_id: JobId) -> Self {
        Self { job_id, open: VecDeque::new(), lease: None, cost_sent_at: None }
    }

    /// When a sender has something to do here.
    #[must_use]
    pub fn due_at(&self) -> Option<Timestamp> {
        match self.lease {
            Some(lease) => Some(lease.until),
            None => self.open.front().map(|head| head.not_before),
        }
    }

    /// Puts a callback at the end, and gives back those that it replaced.
    ///
    /// A snapshot or follow-up replaces unsent ones of its kind, and any callback that follows a snapshot replaces it:
    /// its cost block says all that the snapshot would have said. One that only tells a changed cost is not needed at
    /// all where the last callback tells the same status and is not frozen yet, since its cost block follows the
    /// ledger. A transition is never replaced.
    pub fn enqueue(&mut self, callback: NewCallback, now: Timestamp, policy: &Policy) -> Vec<Delivery> {
        let only_cost = matches!(callback.kind, CallbackKind::CostSnapshot | CallbackKind::CostFollowUp);
        let told_already =
            self.open.back().is_some_and(|last| last.facts.is_some() && last.status == callback.facts.status);
        if only_cost && told_already {
            return Vec::new();
        }
        let replaceable = |kind: CallbackKind| match callback.kind {
            CallbackKind::CostFollowUp => kind == CallbackKind::CostFollowUp,
            CallbackKind::Transition | CallbackKind::CostSnapshot | CallbackKind::Terminal => {
                matches!(kind, CallbackKind::CostSnapshot | CallbackKind::CostFollowUp)
            }
        };
        let head_in_flight = usize::from(self.lease.is_some());
        let mut replaced = Vec::new();
        let mut index = head_in_flight;
        while index < self.open.len() {
            if replaceable(self.open[index].kind)
                && let Some(mut delivery) = self.open.remove(index)
            {
                delivery.state = DeliveryState::Replaced;
                delivery.facts = None;
                replaced.push(delivery);
            } else {
                index += 1;
            }
        }
        let paced = matches!(callback.kind, CallbackKind::CostSnapshot | CallbackKind::CostFollowUp);
        let pace = self.cost_sent_at.filter(|_| paced).map(|sent| sent + policy.cost_callback_interval);
        self.open.push_back(Delivery {
            id: callback.id,
            sequence: callback.sequence,
            kind: callback.kind,
            status: callback.facts.status,
            facts: Some(Box::new(callback.facts)),
            body: None,
            state: DeliveryState::Pending,
            created_at: now,
            not_before: callback.not_before.max(pace.unwrap_or(callback.not_before)),
            attempts: Vec::new(),
            refusals: 0,
            dead_reason: None,
        });
        replaced
    }

    /// Lets a terminal callback go that was held for announced calls.
    pub fn release_held(&mut self, now: Timestamp) {
        for delivery in &mut self.open {
            if delivery.kind == CallbackKind::Terminal && delivery.attempts.is_empty() {
                delivery.not_before = delivery.not_before.min(now);
            }
        }
    }

    /// Takes the head for sending, if it is due and nobody else has it; freezes its bytes at the first time.
    pub fn lease(
        &mut self,
        job: &Job,
        lease_id: SendLeaseId,
        now: Timestamp,
        policy: &Policy,
    ) -> Option<LeasedDelivery> {
        if self.due_at()? > now {
            return None;
        }
        let url = job.spec.callback_url.clone()?;
        let head = self.open.front_mut()?;
        if let Some(facts) = head.facts.take() {
            // Only the end of a run can have a final cost, even where its `running` is sent late.
            let tells_end = matches!(head.kind, CallbackKind::Terminal | CallbackKind::CostFollowUp);
            let cost = job.cost_block().map(|block| CostBlock { is_final: block.is_final && tells_end, ..block });
            head.body = Some(render(job, head.id, head.sequence, &facts, cost.as_ref()));
            if cost.is_some() {
                self.cost_sent_at = Some(now);
            }
        }
        head.state = DeliveryState::Sending;
        self.lease = Some(SendLease { id: lease_id, until: now + policy.send_lease });
        Some(LeasedDelivery {
            job_id: self.job_id,
            lease_id,
            delivery_id: head.id,
            url,
            body: head.body.clone().unwrap_or_default(),
            attempt: head.attempts.len() as u32 + 1,
        })
    }

    /// Records what came of an attempt. `None` when the sender's lease is not the present one: too late, nothing changes.
    ///
    /// `jitter` is a random number from 0 to 1.
    pub fn settle(
        &mut self,
        lease_id: SendLeaseId,
        outcome: &SendOutcome,
        now: Timestamp,
        jitter: f64,
    ) -> Option<Settled> {
        self.lease.filter(|lease| lease.id == lease_id)?;
        self.lease = None;
        let head = self.open.front_mut()?;
        let verdict = judge(outcome);
        head.attempts.push(verdict.record(now));
        head.state = match &verdict.next {
            Next::Delivered => DeliveryState::Delivered,
            Next::Dead(reason) => {
                head.dead_reason = Some((*reason).into());
                DeliveryState::Dead
            }
            Next::Again { refused, hint } => {
                head.refusals += u32::from(*refused);
                match retry_delay(head.attempts.len(), jitter) {
                    Some(delay) => {
                        head.not_before = now + delay.max(hint.unwrap_or_default());
                        DeliveryState::Pending
                    }
                    None => {
                        head.dead_reason = Some("exhausted".into());
                        DeliveryState::Dead
                    }
                }
            }
        };
        let closed = if head.state == DeliveryState::Pending { None } else { self.open.pop_front() };
        Some(Settled { closed, overtaken: self.overtake() })
    }

    /// Gives up callbacks that the receiver has refused three times and that hold back a terminal one.
    fn overtake(&mut self) -> Vec<Delivery> {
        let mut overtaken = Vec::new();
        while self.open.len() > 1
            && self.open[0].refusals >= REFUSALS_UNTIL_OVERTAKEN
            && self.open[0].kind != CallbackKind::Terminal
            && self.open.iter().skip(1).any(|later| later.kind == CallbackKind::Terminal)
            && let Some(mut head) = self.open.pop_front()
        {
            head.state = DeliveryState::Dead;
            head.dead_reason = Some("overtaken".into());
            overtaken.push(head);
        }
        overtaken
    }
}
