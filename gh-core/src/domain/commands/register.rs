//! A worker's process comes, and goes.

use serde_json::json;
use serde_json::value::RawValue;

use super::job_lifecycle::{JobFate, Loss};
use super::{Command, Credential, Traffic, worker_lifecycle};
use crate::domain::code::Actor;
use crate::domain::draft::Draft;
use crate::domain::event::EventType;
use crate::domain::ids::{Generation, Name, Version, WorkerId};
use crate::domain::rejection::Rejection;
use crate::domain::snapshot::Keys;
use crate::domain::time::Timestamp;
use crate::domain::worker::{DrainCause, Worker, WorkerIdentity, WorkerState, WorkerView};

/// A worker's process says that it is there.
#[derive(Clone, Debug)]
pub struct Register {
    /// Its name, minted by the caller where the worker chose none.
    pub worker_id: WorkerId,
    /// The process.
    pub boot_id: Name,
    /// What it says of itself.
    pub identity: WorkerIdentity,
    /// Opaque JSON object it says of itself.
    pub metadata: Option<Box<RawValue>>,
}

/// The answer to a registration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registered {
    /// What later calls must present.
    pub credential: Credential,
    /// Whether a new generation began; a living boot that registers again goes on.
    pub created: bool,
}

impl Register {
    /// Every name under which it registers.
    fn names(&self) -> Vec<Name> {
        let mut names = vec![self.worker_id.clone()];
        names.extend(self.identity.target_worker_id.clone());
        names.extend(self.identity.ec2_instance_id.clone());
        names.sort_unstable();
        names.dedup();
        names
    }
}

impl Command for Register {
    type Answer = Registered;

    fn traffic(&self) -> Traffic {
        Traffic::Wide
    }

    fn keys(&self) -> Keys {
        Keys { workers: vec![self.worker_id.clone()], names: self.names(), ..Keys::default() }
    }

    fn decide(&self, draft: &mut Draft<'_>) -> Result<Registered, Rejection> {
        let known = draft.worker(&self.worker_id);
        if let Some(view) = &known {
            if view.worker.retired_boots.contains(&self.boot_id) {
                return Err(Rejection::WorkerDeregistered { retry_at: None });
            }
            if view.worker.boot_id == self.boot_id && view.worker.is_present() {
                return Ok(self.again(draft, view));
            }
        }
        for name in self.names() {
            if let Some(deregistration) = draft.hold_on(&name) {
                return Err(Rejection::WorkerDeregistered { retry_at: Some(deregistration.free_at()) });
            }
        }
        let (mut worker, generation) = match &known {
            None => (self.first(draft.now()), Generation::FIRST),
            Some(view) => {
                self.replace(draft, view)?;
                let view = draft.worker(&self.worker_id).ok_or(Rejection::WorkerNotFound)?;
                (view.worker.as_ref().clone(), view.worker.generation.next())
            }
        };
        let now = draft.now();
        worker.boot_id = self.boot_id.clone();
        worker.generation = generation;
        worker.identity = self.identity.clone();
        worker.metadata.clone_from(&self.metadata);
        worker.registered_at = now;
        worker.idle_since = now;
        worker.state = WorkerState::Active;
        worker.closing = None;
        worker.lapsed = false;
        worker.jobs_completed = 0;
        worker.jobs_failed = 0;
        worker.directives.clear();
        let facts = json!({
            "ec2_instance_id": self.identity.ec2_instance_id,
            "ec2_ip": self.identity.ec2_ip,
            "target_worker_id": self.identity.target_worker_id,
            "version": self.identity.version,
        });
        let actor = Actor::Worker(worker.id.clone());
        let message = format!("{} registered", worker.id);
        draft.worker_event(&mut worker, EventType::WORKER_REGISTERED, message, actor, &facts);
        draft.save_worker(worker);
        // Writing the names makes a registration and a deregistration of one name see each other.
        for name in self.names() {
            let mut record = draft.name(&name);
            record.held_by = None;
            draft.save_name(record);
        }
        draft.vitals(&self.worker_id).reset = true;
        draft.seen(&self.worker_id);
        let credential = Credential { worker_id: self.worker_id.clone(), generation };
        Ok(Registered { credential, created: true })
    }
}

impl Register {
    fn first(&self, now: Timestamp) -> Worker {
        Worker {
            id: self.worker_id.clone(),
            version: Version::ABSENT,
            boot_id: self.boot_id.clone(),
            generation: Generation::FIRST,
            identity: self.identity.clone(),
            metadata: None,
            registered_at: now,
            state: WorkerState::Active,
            closing: None,
            lapsed: false,
            idle_since: now,
            jobs_completed: 0,
            jobs_failed: 0,
            directives: Vec::new(),
            retired_boots: Vec::new(),
            replacements: Vec::new(),
            contested_until: None,
            refusal_told: None,
            event_seq: 0,
        }
    }

    /// The living process registers again: it goes on, with what it says of itself now.
    fn again(&self, draft: &mut Draft<'_>, view: &WorkerView) -> Registered {
        draft.seen(&self.worker_id);
        let same_names = view.worker.identity.target_worker_id == self.identity.target_worker_id
            && view.worker.identity.ec2_instance_id == self.identity.ec2_instance_id;
        if view.worker.identity != self.identity && same_names {
            let mut worker = view.worker.as_ref().clone();
            worker.identity = self.identity.clone();
            draft.save_worker(worker);
        }
        let credential = Credential { worker_id: self.worker_id.clone(), generation: view.worker.generation };
        Registered { credential, created: false }
    }

    /// Ends the generation before this one, unless two living processes fight for the name.
    fn replace(&self, draft: &mut Draft<'_>, view: &WorkerView) -> Result<(), Rejection> {
        let (now, policy) = (draft.now(), draft.policy());
        let mut worker = view.worker.as_ref().clone();
        let living = view.worker.boot_id != self.boot_id && view.is_responsive(now, policy);
        if let Some(retry_at) = worker.contested_until.filter(|until| living && *until > now) {
            return Err(Rejection::WorkerIdContested { retry_at });
        }
        if worker.contested_until.take().is_some() {
            worker.replacements.clear();
        }
        worker.replacements.retain(|at| now.since(*at) < policy.contested_within);
        if living && worker.replacements.len() >= policy.contested_replacements {
            let retry_at = now + policy.contested_refusal;
            worker.contested_until = Some(retry_at);
            draft.keep_only_what_follows();
            let message = format!("Two living processes use the name {}", worker.id);
            let facts = json!({ "boot_ids": [worker.boot_id, self.boot_id] });
            draft.worker_event(&mut worker, EventType::WORKER_CONTESTED, message, Actor::System, &facts);
            draft.save_worker(worker);
            return Err(Rejection::WorkerIdContested { retry_at });
        }
        if living {
            worker.replacements.push(now);
        }
        if view.worker.is_present() {
            worker_lifecycle::lose_job(draft, view, Loss::Restarted);
            let reason = "replaced";
            let actor = Actor::Worker(worker.id.clone());
            let retired_boots = worker.retired_boots.clone();
            worker_lifecycle::retire(draft, &mut worker, view, reason, actor);
            // A replaced process may fight back, and is then contested; only deregistration is for good.
            worker.retired_boots = retired_boots;
        }
        draft.save_worker(worker);
        Ok(())
    }
}

/// A worker's process says goodbye.
#[derive(Clone, Debug)]
pub struct Goodbye {
    /// The worker's process.
    pub who: Credential,
    /// Why.
    pub reason: Box<str>,
}

/// The answer to a goodbye.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoodbyeAnswer {
    /// What became of its job, if it had one: `requeued`, `failed`.
    pub job_outcome: Option<&'static str>,
}

impl Command for Goodbye {
    type Answer = GoodbyeAnswer;

    fn traffic(&self) -> Traffic {
        Traffic::Wide
    }

    fn keys(&self) -> Keys {
        Keys { workers: vec![self.who.worker_id.clone()], names: vec![self.who.worker_id.clone()], ..Keys::default() }
    }

    fn decide(&self, draft: &mut Draft<'_>) -> Result<GoodbyeAnswer, Rejection> {
        if let Some(view) = draft.peek_worker(&self.who.worker_id)
            && view.worker.generation == self.who.generation
            && matches!(view.worker.state, WorkerState::Deregistered { .. })
        {
            // Said before; the answer was lost.
            return Ok(GoodbyeAnswer { job_outcome: None });
        }
        worker_lifecycle::refuse_retired(draft, &self.who, "deregister")?;
        let view = draft.worker(&self.who.worker_id).ok_or(Rejection::WorkerNotFound)?;
        draft.seen(&self.who.worker_id);
        let fate = worker_lifecycle::lose_job(draft, &view, Loss::Goodbye);
        let drained = view.worker.drain().is_some_and(|drain| drain.cause != DrainCause::Worker);
        let reason = if drained { None } else { Some(&*self.reason) };
        worker_lifecycle::finish_deregistration_of(draft, &self.who.worker_id, reason);
        Ok(GoodbyeAnswer { job_outcome: fate.map(JobFate::as_str) })
    }
}
