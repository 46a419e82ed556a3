//! The prober: asks every service that this host is a vantage of ([`wanted`]), and keeps what the answers amount to.

mod living;
mod slots;
#[cfg(test)]
mod tests;
mod wanted;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use holdfast_policies::{
    evidence::SightState,
    model::Probe,
    names::{Epoch, GuestName, HostName, ServiceName, Vantage},
    observe::{Observation, Outcome},
    sight::{Track, timed},
    sync::{SightReport, SightsMark, SightsTold, View},
    time::{Moment, millis},
};
use holdfast_probes::{Clients, Memory, Place, Schedule, Target, ask};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

use self::{
    living::Living,
    slots::{Queue, Slots},
    wanted::{Question, Subject, Wanted},
};
use crate::{
    clock,
    metrics::{ProbeOutcome, VantageKind},
    node::Node,
};

/// How often the set of observers is computed again besides on new views: hosts come and go without one.
const RECONSIDER_EVERY: Duration = Duration::from_secs(1);

/// Shortest interval at which a service is asked. Policies with a shorter one are refused; what another version has let into the log does
/// not have a host do nothing else.
const EVERY_MIN: Duration = Duration::from_millis(20);

/// What this host sees; shared with the agent, which reports it.
#[derive(Clone)]
pub struct Sights {
    seen: Arc<Mutex<Counted>>,
}

/// All that is seen, and the count of its changes: every answer is one, as it makes what is seen newer.
struct Counted {
    start: u64,
    changes: u64,
    by_subject: BTreeMap<Subject, Seen>,
}

struct Seen {
    epoch: Epoch,
    track: Track,
    asked: Moment,
    detail: String,
    /// The change that it was last part of.
    changed: u64,
}

impl Sights {
    /// Nothing, of a supervisor that starts at this moment.
    #[must_use]
    pub fn begun(at: Moment) -> Self {
        // No two starts within one boot share a millisecond.
        Self { seen: Arc::new(Mutex::new(Counted { start: at.0, changes: 0, by_subject: BTreeMap::new() })) }
    }

    /// What has changed since it was `known`, or everything seen where that is of another start or not known at all; with
    /// ages instead of moments.
    #[must_use]
    pub fn report(&self, now: Moment, known: Option<SightsMark>) -> (Vec<SightReport>, SightsTold) {
        let all = self.all();
        let after = known.filter(|known| known.start == all.start).map_or(0, |known| known.change.min(all.changes));
        let changed = all.by_subject.iter().filter(|(_, seen)| seen.changed > after);
        let report = changed.map(|((guest, service, vantage), seen)| SightReport {
            guest: guest.clone(),
            service: service.clone(),
            vantage: vantage.clone(),
            epoch: seen.epoch,
            state: seen.track.state(),
            age_ms: millis(now.since(seen.asked)),
            passed_ago_ms: seen.track.passed().map(|passed| millis(now.since(passed))),
            warns: seen.track.warns(),
            detail: seen.detail.clone(),
        });
        (report.collect(), SightsTold { start: all.start, after, upto: all.changes })
    }

    /// Folds an answer in. What a supervisor sees that `doubts` itself is held against nobody: then a failure does not count,
    /// nor how long an answer took. Returns the new state when it has changed.
    fn fold(
        &self,
        subject: &Subject,
        question: &Question,
        answer: &Observation,
        doubts: bool,
        now: Moment,
    ) -> Option<SightState> {
        if doubts && answer.outcome == Outcome::Fail {
            return None;
        }
        let (service, latency) = (&question.service, (!doubts).then_some(answer.latency));
        let mut all = self.all();
        let seen = all.about(subject, question.epoch, now);
        let changed = seen.track.fold(service, answer.outcome, latency, now);
        seen.detail = seen.track.reason(service, now).unwrap_or_else(|| answer.detail.clone());
        changed
    }

    /// Notes that the guest's own agent has seen a service die, where the view says that it is asked inside. Returns whether
    /// that changes anything: a guest may tell of services that nobody has declared.
    pub fn died(
        &self,
        view: &View,
        guest: &GuestName,
        epoch: Epoch,
        service: &ServiceName,
        detail: &str,
        now: Moment,
    ) -> bool {
        let declared = view.policies.policy_of(guest).and_then(|(_, policy)| policy.services.get(service));
        let Some(declared) = declared.filter(|declared| declared.from.inside) else { return false };
        if view.homes.get(guest).is_none_or(|(_, at)| *at != epoch) {
            return false;
        }
        let mut all = self.all();
        let seen = all.about(&(guest.clone(), service.clone(), Vantage::Inside), epoch, now);
        seen.track.died(declared, now);
        detail.clone_into(&mut seen.detail);
        true
    }

    fn all(&self) -> MutexGuard<'_, Counted> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retain(&self, keep: impl Fn(&Subject) -> bool) {
        self.all().by_subject.retain(|subject, _| keep(subject));
    }
}

impl Counted {
    /// What is seen of a subject that has just been asked under this assignment.
    fn about(&mut self, subject: &Subject, epoch: Epoch, now: Moment) -> &mut Seen {
        self.changes += 1;
        let changed = self.changes;
        let fresh = || Seen { epoch, track: Track::default(), asked: now, detail: String::new(), changed };
        let seen = self.by_subject.entry(subject.clone()).or_insert_with(fresh);
        if seen.epoch != epoch {
            *seen = fresh();
        }
        (seen.asked, seen.changed) = (now, changed);
        seen
    }
}

/// What is asked, and by which tasks.
type Tasks = BTreeMap<Subject, (Question, AbortOnDropHandle<()>)>;

/// Runs the prober for as long as the supervisor runs.
pub async fn run(node: Arc<Node>, sights: Sights, clients: Arc<Clients>) {
    let mut views = node.view.clone();
    let mut slots = Slots::new();
    let (mut tasks, mut wanted, mut living) = (Tasks::new(), Wanted::default(), Living::default());
    let origin = Instant::now();
    loop {
        let view = views.borrow_and_update().clone();
        let alive = alive(&node).await;
        wanted.renew(node.host(), living.renew(alive, node.gossip.restarts(), Instant::now()), &view);
        let wanted = &wanted.all;
        retain(&mut tasks, wanted);
        sights.retain(|subject| wanted.contains_key(subject));
        let services = wanted::services(wanted);
        node.metrics.retain_probes(|guest, service| services.contains(&(guest, service)));
        let guests: BTreeSet<&GuestName> = wanted.keys().map(|(guest, _, _)| guest).collect();
        slots.retain(|guest| guests.contains(guest));
        for (subject, question) in wanted {
            if tasks.contains_key(subject) {
                continue;
            }
            let look = Look {
                node: Arc::clone(&node),
                sights: sights.clone(),
                clients: Arc::clone(&clients),
                queue: slots.of(&subject.0),
                subject: subject.clone(),
                question: question.clone(),
                memory: Memory::default(),
                origin,
            };
            let task = AbortOnDropHandle::new(tokio::spawn(look.run()));
            tasks.insert(subject.clone(), (question.clone(), task));
        }
        tokio::select! {
            changed = views.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(RECONSIDER_EVERY) => {}
        }
    }
}

/// Ends the tasks that ask what is not wanted any more, and forgets those that have ended by themselves, so that they are begun
/// anew: they never do, unless a service has said what a library stumbles over.
fn retain(tasks: &mut Tasks, wanted: &BTreeMap<Subject, Question>) {
    tasks.retain(|subject, (asked, task)| {
        let (guest, service, vantage) = subject;
        if task.is_finished() {
            tracing::error!(%guest, %service, %vantage, "asking a service has ended by a defect, and begins anew");
        }
        wanted.get(subject) == Some(asked) && !task.is_finished()
    });
}

/// The hosts that gossip, this one among them.
async fn alive(node: &Node) -> BTreeSet<HostName> {
    let members = node.gossip.members().await.into_iter();
    let mut alive: BTreeSet<HostName> = members.filter(|(_, member)| member.alive).map(|(host, _)| host).collect();
    alive.insert(node.host().clone());
    alive
}

struct Look {
    node: Arc<Node>,
    sights: Sights,
    clients: Arc<Clients>,
    queue: Queue,
    subject: Subject,
    question: Question,
    memory: Memory,
    /// From where all of them count the moments at which they ask.
    origin: Instant,
}

impl Look {
    /// Asks at every interval; never twice at once. The first question comes after a part of the interval that differs
    /// from subject to subject, so that a start does not bring a herd; the second one comes early by another part, so that from
    /// then on they are spread over the whole of it.
    async fn run(self) {
        let (guest, service, _) = &self.subject;
        let every = self.question.service.every.0.max(EVERY_MIN);
        let first_after = wanted::first_after(guest, service, self.node.host(), every);
        let mut second_after = Some(wanted::second_after(guest, service, self.node.host(), every));
        let mut schedule = Schedule::new(self.origin, Instant::now() + first_after, every);
        let mut silent = false;
        loop {
            let due = schedule.turn().await;
            let Some(_turn) = self.queue.turn(&self.question.service.probe, silent).await else { return };
            self.node.metrics.probe_late(due.elapsed());
            let answer = self.look().await;
            silent = answer.latency >= self.question.service.timeout.0;
            self.note(&answer);
            if let Some(after) = second_after.take() {
                schedule.sooner(due + after);
            }
        }
    }

    async fn look(&self) -> Observation {
        let (guest, _, vantage) = &self.subject;
        let place = match vantage {
            Vantage::Host(_) => Place::Network(Arc::clone(&self.clients)),
            Vantage::Inside => {
                let Some(driver) = &self.node.driver else { return cannot("this host runs no guests") };
                match driver.agent(guest).await {
                    Ok(channel) => Place::Inside(Arc::new(channel)),
                    Err(error) => return cannot(&error.to_string()),
                }
            }
        };
        let target = Target { address: self.question.address, place, memory: self.memory.clone() };
        ask(&self.question.service.probe, &target, self.question.service.timeout.0).await
    }

    fn note(&self, answer: &Observation) {
        let now = clock::moment();
        let (guest, service, vantage) = &self.subject;
        let kind = match vantage {
            Vantage::Inside => VantageKind::Inside,
            Vantage::Host(_) => VantageKind::Host,
        };
        let outcome = match timed(answer.outcome, answer.latency, &self.question.service) {
            Outcome::Pass => ProbeOutcome::Pass,
            Outcome::Slow => ProbeOutcome::Slow,
            Outcome::Fail => ProbeOutcome::Fail,
            Outcome::Unknown => ProbeOutcome::Unknown,
        };
        self.node.metrics.probed(guest, service, kind, outcome, answer.latency);
        if matches!(self.question.service.probe, Probe::Plugin(_)) {
            self.node.metrics.set_figures(guest, service, &self.memory.figures());
        }
        let doubts = self.node.health.doubts(now);
        let Some(state) = self.sights.fold(&self.subject, &self.question, answer, doubts, now) else { return };
        tracing::info!(%guest, %service, %vantage, ?state, detail = %answer.detail, "a service looks different");
        self.node.sync_now.notify_one();
    }
}

fn cannot(why: &str) -> Observation {
    Observation::new(Outcome::Unknown, Duration::ZERO, why)
}
