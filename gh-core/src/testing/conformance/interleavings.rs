//! Enqueue against settle in every interleaving: all words of the steps that touch a queue, one job for each.
//!
//! Time and leases are shared by all jobs of a store, so jobs are played in rounds: all words with the same
//! places for these two are played side by side, one job each, in few calls of the store.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use bytes::Bytes;
use uuid::Uuid;

use super::callbacks::{answered, call, settlement};
use super::dump::{commit_all, text};
use super::world::{World, submit};
use crate::domain::callback::{CallbackQueue, Delivery, DeliveryState, LeasedDelivery};
use crate::domain::changeset::Changeset;
use crate::domain::commands::{Credential, JobLeft, Report, ReportOutcome, ReportUsage, UsageClosing};
use crate::domain::event::EventType;
use crate::domain::ids::{DeliveryId, JobId, SendLeaseId, WorkerId};
use crate::domain::job::{Completion, Job};
use crate::domain::time::Timestamp;
use crate::ports::clock::Clock;
use crate::ports::reader::JobEventQuery;
use crate::ports::store::ClaimRequest;
use crate::testing::scenes::{Wish, wish};
use crate::testing::{registration, submission};

/// How many steps the longest words have, after the one that starts the job.
const LENGTH: usize = 4;

/// What can happen to a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    /// A commit enqueues a transition: the worker gives the job back, and it is granted anew.
    Transition,
    /// A commit enqueues what a further LLM call cost: a snapshot, or a follow-up once the run is over.
    Cost,
    /// A commit enqueues the end of the run.
    End,
    /// The sender that had the head last settles it with this answer.
    Settle(u16),
    /// A sender whose hold is over, and whose callback somebody else has, says that it was delivered.
    SettleLate,
    /// Another server leases whatever is due.
    Lease,
    /// Holds of senders are over, and what was to be repeated is due.
    Expire,
}

impl Step {
    const ALL: [Self; 9] = [
        Self::Transition,
        Self::Cost,
        Self::End,
        Self::Settle(200),
        Self::Settle(500),
        Self::Settle(400),
        Self::SettleLate,
        Self::Lease,
        Self::Expire,
    ];

    /// Whether it happens to all jobs at once.
    const fn is_shared(self) -> bool {
        matches!(self, Self::Lease | Self::Expire)
    }

    /// Whether it can do anything after those before it: otherwise the word says the same as a shorter one.
    fn follows(self, before: &[Self]) -> bool {
        let since_lease = before.iter().rposition(|step| *step == Self::Lease).map(|lease| &before[lease..]);
        match self {
            Self::Transition | Self::End => !before.contains(&Self::End),
            Self::Cost | Self::Lease | Self::Expire => true,
            Self::Settle(_) => {
                since_lease.is_some_and(|since| !since.iter().any(|step| matches!(step, Self::Settle(_))))
            }
            Self::SettleLate => {
                let first = before.iter().position(|step| *step == Self::Lease);
                first.is_some_and(|first| before[first..].contains(&Self::Expire))
            }
        }
    }
}

/// Steps in the order in which they happen.
type Word = Vec<Step>;

/// All words of this length in which every step can do something.
fn words(length: usize) -> Vec<Word> {
    let mut words = vec![Word::new()];
    for _ in 0..length {
        let longer = |word: &Word| {
            let next = Step::ALL.into_iter().filter(|step| step.follows(word));
            next.map(|step| [word.as_slice(), &[step]].concat()).collect::<Vec<_>>()
        };
        words = words.iter().flat_map(longer).collect();
    }
    words
}

/// One job with its word, and what its queue must be like.
struct Line {
    word: Word,
    who: Credential,
    job: Arc<Job>,
    calls: usize,
    queue: CallbackQueue,
    closed: Vec<Delivery>,
    /// All that was enqueued and is not told by an earlier one.
    enqueued: HashSet<DeliveryId>,
    /// Every hold that was given out, the latest last.
    held: Vec<LeasedDelivery>,
    /// What went out, with its place, in the order in which it went.
    sent: Vec<(u64, DeliveryId, Bytes)>,
}

impl Line {
    fn fail(&self, what: &str) -> ! {
        panic!("{what} after {:?} of job {}", self.word, self.job.id)
    }

    /// The job as it was stored, and its new callbacks.
    fn stored(&mut self, changes: &Changeset, world: &World) {
        let now = world.clock.now();
        let job_id = self.job.id;
        if let Some(write) = changes.jobs().iter().find(|write| write.job.id == job_id) {
            self.job = Arc::clone(&write.job);
        }
        for callback in changes.callbacks().iter().filter(|callback| callback.job_id == job_id) {
            let id = callback.id;
            // One that only tells a cost is not needed where the last one waits with the same status.
            self.closed.extend(self.queue.enqueue(callback.clone(), now, &world.rules.policy));
            if self.queue.open.iter().any(|known| known.id == id) {
                self.enqueued.insert(id);
            }
        }
    }

    fn settled(&mut self, leased: &LeasedDelivery, status: u16, now: Timestamp) {
        if let Some(settled) = self.queue.settle(leased.lease_id, &answered(status), now, 0.0) {
            self.closed.extend(settled.closed.into_iter().chain(settled.overtaken));
        }
    }

    /// What the store lists, newest first, is what the rules say; nothing is lost, nothing is out of order.
    async fn check(&self, world: &World) {
        let listed = world.reader.deliveries(self.job.id, None, 1000).await.unwrap();
        let mut expected: Vec<&Delivery> = self.closed.iter().chain(&self.queue.open).collect();
        expected.sort_by_key(|known| std::cmp::Reverse(known.sequence));
        let found: Vec<String> = listed.iter().map(text).collect();
        let expected: Vec<String> = expected.into_iter().map(|known| text(&known)).collect();
        if found != expected {
            self.fail(&format!("{found:#?} is listed instead of {expected:#?}"));
        }
        let present: HashSet<DeliveryId> = listed.iter().map(|known| known.id).collect();
        if !self.enqueued.is_subset(&present) {
            self.fail("a callback is lost");
        }
        let open = |known: &&Arc<Delivery>| matches!(known.state, DeliveryState::Pending | DeliveryState::Sending);
        let in_flight = |known: &&Arc<Delivery>| known.state == DeliveryState::Sending;
        let oldest = listed.iter().rfind(open).map(|known| known.id);
        let sending: Vec<DeliveryId> = listed.iter().filter(in_flight).map(|known| known.id).collect();
        if sending.len() > 1 || sending.first().is_some_and(|id| Some(*id) != oldest) {
            self.fail("another than the oldest is in flight");
        }
        for (earlier, later) in self.sent.iter().zip(self.sent.iter().skip(1)) {
            let repeated = earlier.1 == later.1 && earlier.2 == later.2;
            if earlier.0 >= later.0 && !repeated {
                self.fail("callbacks went out of order, or one was not repeated with the same bytes");
            }
        }
        let dead = self.closed.iter().filter(|known| known.state == DeliveryState::Dead).count();
        if dead > 0 {
            let event_types = vec![EventType::CALLBACK_DEAD];
            let query = JobEventQuery { job_id: self.job.id, after_seq: 0, event_types, limit: 100 };
            if world.reader.job_events(&query).await.unwrap().len() != dead {
                self.fail("a dead letter left no event");
            }
        }
    }
}

/// Jobs that are played side by side.
struct Round<'w> {
    /// Changes jobs.
    world: &'w World,
    /// Sends.
    sender: &'w World,
    lines: Vec<Line>,
}

impl Round<'_> {
    async fn commit(&mut self, wishes: Vec<Wish>) -> Vec<Changeset> {
        let stored = commit_all(self.world, &wishes).await;
        for changes in &stored {
            self.stored(changes);
        }
        stored
    }

    fn stored(&mut self, changes: &Changeset) {
        for write in changes.jobs() {
            let line = self.lines.iter_mut().find(|line| line.job.id == write.job.id);
            line.unwrap().stored(changes, self.world);
        }
    }

    /// Grants the waiting jobs of these lines to their workers, whichever gets which.
    async fn grant(&mut self, lines: &[usize]) {
        let listen = |who: &Credential| wish(self.world.claim_of(who));
        let wishes = lines.iter().map(|line| listen(&self.lines[*line].who)).collect();
        self.commit(wishes).await;
        let credentials: HashMap<WorkerId, Credential> =
            lines.iter().map(|line| &self.lines[*line].who).map(|who| (who.worker_id.clone(), who.clone())).collect();
        let workers = credentials.keys().cloned().collect();
        let request = ClaimRequest::waiting(workers);
        let granted = self.world.store.claim(request, &self.world.rules).await.unwrap().committed;
        assert_eq!(granted.len(), lines.len(), "every job finds a worker");
        for changes in &granted {
            self.stored(changes);
        }
        for line in lines {
            let line = &mut self.lines[*line];
            line.who = credentials[line.job.occupies().unwrap()].clone();
        }
    }

    fn outcome(line: &Line, report: Report) -> Wish {
        wish(ReportOutcome { who: line.who.clone(), job_id: line.job.id, attempt: line.job.attempt, report })
    }

    fn end(line: &Line) -> Wish {
        Self::outcome(line, Report::Complete(Completion::default(), UsageClosing::default()))
    }

    /// Performs one step of each of these lines, which each of them has alone.
    async fn single(&mut self, step: Step, lines: &[usize]) {
        match step {
            Step::Transition => {
                let left = || Report::Release(JobLeft { reason: "deploy".into() });
                let wishes = lines.iter().map(|line| Self::outcome(&self.lines[*line], left())).collect();
                self.commit(wishes).await;
                self.grant(lines).await;
            }
            Step::Cost => {
                let mut wishes = Vec::new();
                for line in lines {
                    let line = &mut self.lines[*line];
                    line.calls += 1;
                    let (who, job_id, attempt) = (line.who.clone(), line.job.id, line.job.attempt);
                    let calls = vec![call(&format!("c{}", line.calls))];
                    wishes.push(wish(ReportUsage { who, job_id, attempt, calls }));
                }
                self.commit(wishes).await;
            }
            Step::End => {
                let wishes = lines.iter().map(|line| Self::end(&self.lines[*line])).collect();
                self.commit(wishes).await;
            }
            Step::Settle(status) => self.settle(lines, status, |held| held.last()).await,
            Step::SettleLate => self.settle(lines, 200, |held| held.first()).await,
            Step::Lease | Step::Expire => unreachable!("shared"),
        }
    }

    async fn settle(&mut self, lines: &[usize], status: u16, which: fn(&[LeasedDelivery]) -> Option<&LeasedDelivery>) {
        let now = self.world.clock.now();
        let mut settlements = Vec::new();
        for line in lines {
            let line = &mut self.lines[*line];
            // A lease that found nothing due gave no hold.
            if let Some(leased) = which(&line.held).cloned() {
                settlements.push(settlement(&leased, answered(status)));
                line.settled(&leased, status, now);
            }
        }
        self.sender.outbox.settle(settlements, &self.sender.rules).await.unwrap();
    }

    async fn lease(&mut self) {
        let now = self.world.clock.now();
        let leased = self.sender.outbox.lease_due(self.lines.len() + 1, &self.sender.rules).await.unwrap();
        let due = |leased: &LeasedDelivery| self.line(leased.job_id).queue.due_at();
        assert!(leased.is_sorted_by_key(due), "longest due first");
        let mut leased: HashMap<JobId, LeasedDelivery> = leased.into_iter().map(|one| (one.job_id, one)).collect();
        for line in &mut self.lines {
            let found = leased.remove(&line.job.id);
            let lease_id = found.as_ref().map(|found| found.lease_id);
            let lease_id = lease_id.unwrap_or(SendLeaseId::new(Uuid::nil()));
            let expected = line.queue.lease(&line.job, lease_id, now, &self.world.rules.policy);
            let seen =
                |leased: &LeasedDelivery| (leased.delivery_id, leased.attempt, leased.url.clone(), leased.body.clone());
            if found.as_ref().map(seen) != expected.as_ref().map(seen) {
                line.fail(&format!("{found:?} was given out instead of {expected:?}"));
            }
            if let (Some(found), Some(head)) = (found, line.queue.open.front()) {
                line.sent.push((head.sequence, head.id, found.body.clone()));
                line.held.push(found);
            }
        }
        assert!(leased.is_empty(), "a callback of a job that has none");
    }

    fn line(&self, id: JobId) -> &Line {
        self.lines.iter().find(|line| line.job.id == id).unwrap()
    }

    async fn check_next_due(&self) {
        let expected = self.lines.iter().filter_map(|line| line.queue.due_at()).min();
        assert_eq!(self.world.outbox.next_due().await.unwrap(), expected, "when a sender has to look again");
    }

    async fn play(&mut self) {
        for place in 0..self.lines[0].word.len() {
            for step in Step::ALL {
                let lines: Vec<usize> =
                    (0..self.lines.len()).filter(|line| self.lines[*line].word[place] == step).collect();
                match step {
                    _ if lines.is_empty() => {}
                    Step::Lease => self.lease().await,
                    Step::Expire => {
                        self.world.clock.advance(self.world.rules.policy.send_lease);
                    }
                    alone => self.single(alone, &lines).await,
                }
            }
            self.check_next_due().await;
        }
        for line in &self.lines {
            line.check(self.sender).await;
        }
    }

    /// Ends what still runs and delivers whatever is left: then everything must be through.
    async fn finish(&mut self) {
        let running = self.lines.iter().filter(|line| line.job.ending().is_none()).map(Self::end).collect();
        self.commit(running).await;
        let mut rounds = 0;
        while let Some(due) = self.world.outbox.next_due().await.unwrap() {
            rounds += 1;
            assert!(rounds < 100, "something stays due for ever");
            self.world.clock.set(due.max(self.world.clock.now()));
            self.lease().await;
            let all: Vec<usize> = (0..self.lines.len()).collect();
            self.settle(&all, 200, |held| held.last()).await;
            self.check_next_due().await;
        }
        for line in &self.lines {
            if !line.queue.open.is_empty() {
                line.fail("something is due and nobody is told when");
            }
            line.check(self.world).await;
        }
    }
}

pub(super) async fn enqueueing_and_settling_give_the_same_queue_in_every_order_of_steps(world: World) {
    let mut rounds: BTreeMap<Vec<Option<Step>>, Vec<Word>> = BTreeMap::new();
    for word in (1..=LENGTH).flat_map(words) {
        let shared = word.iter().map(|step| step.is_shared().then_some(*step)).collect();
        rounds.entry(shared).or_default().push(word);
    }
    let sender = world.elsewhere().await;
    let most = rounds.values().map(Vec::len).max().unwrap_or_default();
    let mut workers = Vec::new();
    let mut first = Round { world: &world, sender: &sender, lines: Vec::new() };
    let registrations = (0..most).map(|number| wish(registration(&format!("w-{number}")))).collect();
    for changes in first.commit(registrations).await {
        let worker = &changes.workers()[0];
        workers.push(Credential { worker_id: worker.id.clone(), generation: worker.generation });
    }
    for words in rounds.into_values() {
        let mut round = Round { world: &world, sender: &sender, lines: Vec::new() };
        let submissions: Vec<Wish> = words.iter().map(|_| wish(submit(submission()))).collect();
        let submitted = commit_all(&world, &submissions).await;
        for ((word, who), changes) in words.into_iter().zip(&workers).zip(&submitted) {
            let job = Arc::clone(&changes.jobs()[0].job);
            round.lines.push(Line {
                word,
                who: who.clone(),
                queue: CallbackQueue::new(job.id),
                job,
                calls: 0,
                closed: Vec::new(),
                enqueued: HashSet::new(),
                held: Vec::new(),
                sent: Vec::new(),
            });
        }
        round.grant(&(0..round.lines.len()).collect::<Vec<_>>()).await;
        round.play().await;
        round.finish().await;
    }
}
