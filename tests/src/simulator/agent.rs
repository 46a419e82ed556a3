//! The agent's shell on a simulated host: syncs over the network, writes before it acts, carries orders out.

use holdfast_policies::{
    agent::{Action, Disk},
    evidence::SightState,
    names::{Epoch, GuestName, HostName, OrderId, Vantage},
    observe::GuestReport,
    sync::{Authority, SightReport, SyncReply, SyncRequest},
    time::millis,
    timing::TimingTold,
};

use super::{Ms, breaks::Break, found::Found, grounds::Fact, network::Transit, queue::Event, world::World};

/// How long a service fails before a prober says so.
const FAILING_AFTER: Ms = 1_500;
/// How long a supervisor doubts itself after it stood still (R17).
const DOUBTS_FOR: Ms = 5_000;
/// As many replies may come after that to a later sync: so many more syncs are under way at once.
const OVERTAKEN_MAX: usize = 3;
/// Hosts that look at one guest, its own included.
const VANTAGES: usize = 4;

impl World {
    pub(super) fn sync_due(&mut self, host: usize, life: u32) {
        let now = self.now;
        let every = millis(self.timing.sync_every.0);
        let Some(supervisor) = &mut self.hosts[host].supervisor else { return };
        if supervisor.due <= now {
            supervisor.due = now + every;
            self.sync(host);
        }
        let due = self.hosts[host].supervisor.as_ref().map_or(now + every, |supervisor| supervisor.due);
        self.queue.push(due.max(now + 1), Event::SyncDue { host, life });
    }

    /// Something has happened that should not wait for the next turn.
    pub(super) fn sync_soon(&mut self, host: usize) {
        let now = self.now;
        let every = millis(self.timing.sync_every.0);
        if !self.hosts[host].serves(now) {
            return;
        }
        if let Some(supervisor) = &mut self.hosts[host].supervisor {
            supervisor.due = now + every;
        }
        self.sync(host);
    }

    fn sync(&mut self, host: usize) {
        if self.disk_is_stuck(host) {
            return;
        }
        let Some(request) = self.request(host) else { return };
        let life = self.hosts[host].life;
        let voters = self.voters.len();
        let Some(supervisor) = &mut self.hosts[host].supervisor else { return };
        if !supervisor.answered && self.broken != Some(Break::R6) {
            supervisor.asks += 1;
        }
        supervisor.answered = false;
        // Its own coordinator first; another voter when the one before has not answered (R6).
        let voter = (host + supervisor.asks) % voters;
        match self.network.send(host, voter, self.now, &mut self.random) {
            Transit::Lost => {}
            Transit::After(wait) => {
                let request = Box::new(request);
                self.queue.push(self.now + wait, Event::Sync { voter, via: None, from: host, life, request });
            }
            Transit::Twice(wait, again) => {
                let request = Box::new(request);
                let late = Event::Sync { voter, via: None, from: host, life, request: request.clone() };
                self.queue.push(self.now + again, late);
                self.queue.push(self.now + wait, Event::Sync { voter, via: None, from: host, life, request });
            }
        }
    }

    fn request(&mut self, host: usize) -> Option<SyncRequest> {
        let now = self.now;
        let sights = self.sights(host);
        let has_view = self.has_view(host);
        let complaint = self.complaint(host);
        let (seen, floors_known) = self.told(host)?;
        self.note_ends(host);
        let known = &mut self.hosts[host];
        let (clock, facts, name) = (known.clock(now), known.facts(), known.name.clone());
        let reports = known.machines.iter().map(|(guest, machine)| GuestReport {
            happened: known.told_of(guest, machine.epoch, now),
            ..GuestReport::new(guest.clone(), machine.epoch, machine.condition())
        });
        let reports = reports.collect();
        let armed = if self.guarded { known.guard.says(now, self.broken) } else { None };
        let (level, timing) = (known.level, TimingTold::of(&self.timing));
        let late = known.doubted_at.is_some_and(|at| now - at < DOUBTS_FOR).then(|| "it stood still".to_owned());
        let unwell = late.or_else(|| known.link.is_lossy.then(|| "its link loses much".to_owned())).or(complaint);
        let supervisor = known.supervisor.as_mut()?;
        supervisor.nonce = clock.0.max(supervisor.nonce + 1);
        supervisor.sent.insert(supervisor.nonce, (clock, now));
        if supervisor.sent.len() > 64 {
            supervisor.sent.pop_first();
        }
        let readings = &supervisor.readings;
        Some(SyncRequest {
            nonce: supervisor.nonce,
            seen,
            floors_known,
            reports,
            results: supervisor.agent.results(clock, |order| readings.get(&order).copied()),
            sights,
            unwell,
            // A view that the guard has not been told of is not known yet: what is armed may change by it.
            known_view: supervisor.agent.view().min(supervisor.guard_knows),
            has_view,
            armed,
            level,
            timing: Some(timing),
            ..SyncRequest::of(name, facts)
        })
    }

    /// What this host sees of services.
    fn sights(&mut self, host: usize) -> Vec<SightReport> {
        let now = self.now;
        let Some(supervisor) = &self.hosts[host].supervisor else { return Vec::new() };
        if supervisor.view.homes.is_empty() {
            return Vec::new();
        }
        let mut homes: Vec<(GuestName, usize, Epoch)> = Vec::with_capacity(supervisor.view.homes.len());
        let known = supervisor.view.homes.iter();
        let known = known.filter_map(|(guest, (home, epoch))| Some((guest, self.host_index(home)?, *epoch)));
        let looked_at = known.filter(|(_, home, _)| self.looks_at_guests_of(*home, host));
        homes.extend(looked_at.map(|(guest, home, epoch)| (guest.clone(), home, epoch)));
        let mut sights = Vec::with_capacity(homes.len());
        for (guest, home, epoch) in homes {
            let found = self.found(host, home, &guest, epoch);
            let passes = found == Found::Answers;
            let vantage = Vantage::Host(self.hosts[host].name.clone());
            let Some(supervisor) = &mut self.hosts[host].supervisor else { continue };
            // Who cannot ask says nothing, and has to fail anew for as long as it takes.
            let is_unable = found == Found::NotAsked;
            self.seen.unable += u64::from(is_unable);
            if (passes || is_unable) && !supervisor.failing_since.is_empty() {
                supervisor.failing_since.remove(&(guest.clone(), epoch));
            }
            let state = if passes {
                SightState::Passing
            } else if is_unable {
                SightState::Unknown
            } else {
                let since = *supervisor.failing_since.entry((guest.clone(), epoch)).or_insert(now);
                if now - since >= FAILING_AFTER { SightState::Failing } else { SightState::Unknown }
            };
            if supervisor.failing_since.len() > 256 {
                supervisor.failing_since.pop_first();
            }
            let passed_ago = if passes { Some(0) } else { supervisor.passed_ago(&guest, epoch, now) };
            if passes && self.passes_remembered {
                supervisor.passed.insert((guest.clone(), epoch), now);
                if supervisor.passed.len() > 256 {
                    supervisor.passed.pop_first();
                }
            }
            let fact = Fact { at: now, by: host, epoch, found };
            self.grounds.note_look(&guest, fact, state == SightState::Failing);
            if self.passes_remembered {
                self.answers.note(&guest, host, epoch, found, now);
            }
            let Some(supervisor) = &self.hosts[host].supervisor else { continue };
            let policy = supervisor.view.policies.policy_of(&guest);
            for service in policy.into_iter().flat_map(|(_, policy)| policy.services.keys()) {
                let (guest, vantage, detail) = (guest.clone(), vantage.clone(), String::new());
                let (service, passed_ago_ms, warns) = (service.clone(), passed_ago, false);
                let seen =
                    SightReport { guest, service, vantage, epoch, state, age_ms: 0, passed_ago_ms, warns, detail };
                sights.push(seen);
            }
        }
        sights
    }

    /// Whether a host is among those that look at another one's guests: they are taken from those that live, and the guest's own
    /// host comes last, as in the product. Which of them come first is another matter: there it goes by names, here in turn.
    fn looks_at_guests_of(&self, home: usize, host: usize) -> bool {
        let Some(host) = self.host_index(&self.hosts[host].name) else { return false };
        let in_turn = (1..=self.named).map(|step| (home + step) % self.named);
        in_turn.filter(|of| self.hosts[*of].on && !self.hosts[*of].hung).take(VANTAGES).any(|of| of == host)
    }

    /// Takes a reply in.
    pub(super) fn on_reply(&mut self, host: usize, by: usize, began: Ms, mut reply: SyncReply) {
        let clock = self.hosts[host].clock(self.now);
        let Some(supervisor) = &mut self.hosts[host].supervisor else { return };
        let (nonce, news) = (reply.nonce, reply.news.take());
        let Some((sent, sent_at)) = supervisor.sent.get(&nonce).copied() else { return };
        let seen = supervisor.agent.disk().authority;
        let authority = reply.authority;
        let grants = reply.lease_ms;
        let floors = reply.floors.is_some();
        let told: Vec<OrderId> = reply.orders.iter().map(|order| order.id).collect();
        if self.broken == Some(Break::R3) {
            reply.authority = later(seen, authority);
        }
        if self.broken == Some(Break::R7) {
            super::breaks::number_anew(&mut reply);
        }
        let counted_from = if self.broken == Some(Break::R9Reply) { clock } else { sent };
        let Ok(actions) = supervisor.agent.on_reply(reply, nonce, counted_from, clock) else { return };
        supervisor.answered = true;
        if self.broken != Some(Break::R3) {
            supervisor.sent.remove(&nonce);
            // Breaks are looked for at seeds where they have shown, and chance would go another way there.
            let overtaken = if self.broken.is_none() { OVERTAKEN_MAX } else { 0 };
            while supervisor.sent.range(..nonce).count() > overtaken {
                supervisor.sent.pop_first();
            }
        }
        supervisor.actions.extend(actions);
        self.note_told(&told);
        self.check_reply(host, by, began, seen, authority);
        self.check_admitted(host, began);
        if let Some(lease_ms) = grants {
            self.check_lease(host, sent_at, lease_ms);
        }
        if floors {
            self.hosts[host].floors_lost = false;
        }
        self.act(host);
        if let Some(news) = news {
            self.learn(host, news);
        }
    }

    /// Does what the agent says, in order; what follows a write waits for the disk.
    pub(super) fn act(&mut self, host: usize) {
        if self.disks.is_some() {
            return self.act_beside_the_disk(host);
        }
        loop {
            let life = self.hosts[host].life;
            let lazy = self.broken == Some(Break::R9Floors);
            let Some(supervisor) = &mut self.hosts[host].supervisor else { return };
            if supervisor.writing {
                return;
            }
            let Some(action) = supervisor.actions.pop_front() else { return };
            match self.do_at_once(host, action) {
                Some(Action::Persist(disk)) => {
                    let wait = if lazy { 3_000 } else { self.random.between(1, 8) };
                    if let Some(supervisor) = &mut self.hosts[host].supervisor {
                        supervisor.writing = !lazy;
                    }
                    self.queue.push(self.now + wait, Event::Written { host, life, disk: Box::new(disk) });
                }
                Some(Action::Carry(order)) => self.carry(host, *order),
                Some(_) | None => {}
            }
        }
    }

    /// Does what the agent says, unless it needs something written: then that is returned.
    pub(super) fn do_at_once(&mut self, host: usize, action: Action) -> Option<Action> {
        match action {
            Action::Persist(_) | Action::Carry(_) => return Some(action),
            Action::Grant(deadline) => self.grant(host, deadline),
            Action::StopSuperseded { guest, epoch } => {
                if !self.hosts[host].holds_on_to(&guest, self.now) {
                    self.hosts[host].machines.retain(|name, machine| *name != guest || machine.epoch > epoch);
                }
            }
            Action::Look(view) => self.look_at(host, *view),
            Action::SyncNow => {
                if let Some(supervisor) = &mut self.hosts[host].supervisor {
                    supervisor.due = self.now;
                }
            }
        }
        None
    }

    pub(super) fn written(&mut self, host: usize, disk: Disk) {
        self.hosts[host].disk = disk;
        if let Some(supervisor) = &mut self.hosts[host].supervisor {
            supervisor.writing = false;
        }
        self.act(host);
    }

    /// The process ends in the middle of whatever it was doing: some of that has its effect, and tells nobody.
    pub(super) fn crash_supervisor(&mut self, host: usize) {
        let jobs = self.hosts[host].supervisor.as_ref().map(|supervisor| supervisor.jobs.clone()).unwrap_or_default();
        for job in jobs.iter().filter(|job| job.begun.is_some() && !job.shot) {
            if self.random.one_in(2) && !self.is_over() {
                self.finish(host, job);
            }
        }
        self.hosts[host].end_supervisor();
        self.guard_left_alone(host);
        if host < self.voters.len() {
            self.voters[host].crash();
        }
    }

    pub(super) fn host_index(&self, name: &HostName) -> Option<usize> {
        self.indices.get(name).copied()
    }
}

fn later(seen: Authority, got: Authority) -> Authority {
    Authority {
        generation: seen.generation.max(got.generation),
        term: seen.term.max(got.term),
        index: seen.index.max(got.index),
    }
}
