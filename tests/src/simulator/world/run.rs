//! The loop: the plan's happenings and one event after the other, each handled by the part of the world that it is about, and a look
//! every second at what is promised over stretches of time.

use std::collections::BTreeMap;

use holdfast_policies::change::Change;

use super::{
    super::{Ms, faults::Happening, queue::Event, seen::Healed},
    Healing, LOOK, World,
};

impl World {
    /// Lets the world go on until `end`, or until something is over.
    pub fn run_until(&mut self, end: Ms) {
        while !self.is_over() && self.real() < end {
            let due = self.plan.get(self.planned).map_or(end, |(at, _)| *at).min(end);
            if self.real() >= due {
                let (_, what) = self.plan[self.planned].clone();
                self.planned += 1;
                if !matches!(what, Happening::Heal) {
                    self.healing = None;
                }
                self.happen(&what);
                continue;
            }
            if self.is_at_rest() && self.healing.is_none() {
                self.skipped += due - self.real();
                continue;
            }
            self.step(due);
        }
    }

    /// Has the next event happen, if it is due before `limit`.
    fn step(&mut self, limit: Ms) {
        let next = self.queue.next_at().unwrap_or(Ms::MAX);
        if self.skipped.saturating_add(next) > limit {
            self.now = limit - self.skipped;
            return;
        }
        let Some((at, event)) = self.queue.pop() else { return };
        self.now = self.now.max(at);
        self.events += 1;
        // What only watches moves nothing else of a run in time.
        let watches = matches!(event, Event::Told { .. });
        self.dispatch(event);
        while let Some(what) = self.sprung.pop() {
            self.happen(&what);
        }
        if !watches && self.now - self.looked >= LOOK {
            self.looked = self.now;
            self.look();
        }
    }

    /// When an event of this host can be handled: a machine or a process that stands still finds it later.
    fn wakes(&self, host: usize, process: bool) -> Option<Ms> {
        let known = &self.hosts[host];
        let still = if process { known.supervisor.as_ref().map_or(0, |known| known.frozen_until) } else { 0 };
        let until = known.frozen_until.max(still);
        (until > self.now).then_some(until)
    }

    fn dispatch(&mut self, event: Event) {
        let (host, process) = event.place();
        if let Some(host) = host
            && let Some(until) = self.wakes(host, process)
        {
            let boot = self.hosts[host].boot;
            let event = match event {
                held @ Event::Held { .. } => held,
                event => Event::Held { host, boot, event: Box::new(event) },
            };
            self.queue.push(until, event);
            return;
        }
        if let Some(host) = host
            && (!self.hosts[host].on || self.hosts[host].hung || (process && self.hosts[host].supervisor.is_none()))
        {
            return;
        }
        let lives = |host: usize, life: u32| self.hosts[host].life == life;
        match event {
            Event::SyncDue { host, life } if lives(host, life) => self.sync_due(host, life),
            Event::Beacon { host, boot } if self.hosts[host].boot == boot => self.beacon(host, boot),
            Event::Guard { host, boot } if self.hosts[host].boot == boot => self.guard_due(host, boot),
            Event::Watchdog { host, boot, number } => self.watchdog_due(host, boot, number),
            Event::BeaconHeard { at, of, boot, beat } => {
                let now = self.now;
                self.hosts[at].hear(of, boot, now);
                self.note_beacon(at, of, boot, beat);
            }
            Event::Sync { voter, via, from, life, request } => self.on_sync(voter, via, from, life, request),
            Event::Reply { host, life, by, began, reply } if lives(host, life) => {
                self.note_served(host);
                self.on_reply(host, by, began, *reply);
            }
            Event::Nudge { host } => self.sync_soon(host),
            Event::Written { host, life, disk } if lives(host, life) => self.written(host, *disk),
            Event::Kept { host, life, disk, ends } if lives(host, life) => self.kept(host, *disk, ends),
            Event::Viewed { host, life, made } if lives(host, life) => self.learned(host, *made),
            Event::GuardTold { host, life } if lives(host, life) => self.tell_guard(host),
            Event::JobEnd { host, life, order } if lives(host, life) => self.job_ended(host, order),
            Event::Raft { to, from, era, message } if era == self.era => self.on_raft(to, from, message),
            Event::Synced { voter, life, length, term, answer } if lives(voter, life) => {
                self.log_synced(voter, length, term, answer);
            }
            Event::Heartbeat { voter, life, term } if lives(voter, life) => self.heartbeat(voter, life, term),
            Event::Election { voter, life } if lives(voter, life) => self.election_due(voter, life),
            Event::Think { voter, life, term } if lives(voter, life) => {
                self.think(voter, life, term);
                self.notice_rest(voter);
            }
            Event::Power { voter, term, about, reading } => self.power_read(voter, term, about, reading),
            Event::Ask { voter, by, term, about, boot, asked } => self.asked(voter, by, term, about, boot, asked),
            Event::Answered { voter, term, from, about, boot, said } => {
                self.answered(voter, term, from, about, &boot, *said);
            }
            Event::Held { host, boot, event } => {
                if self.hosts[host].boot == boot {
                    self.dispatch(*event);
                }
            }
            Event::LateOff { target, order } => self.power_off(target, Some(order)),
            Event::PowerOn { host, boot } => self.power_on(host, boot),
            Event::SupervisorUp { host, boot, life } => {
                if self.hosts[host].boot == boot && lives(host, life) {
                    self.start_supervisor(host);
                }
            }
            Event::Told { order } => self.check_told(order),
            Event::Operator { what, tries } => self.operator(*what, tries),
            // Of a process, a boot or a log that has ended since.
            Event::SyncDue { .. }
            | Event::Raft { .. }
            | Event::Beacon { .. }
            | Event::Guard { .. }
            | Event::Reply { .. }
            | Event::Written { .. }
            | Event::Kept { .. }
            | Event::Viewed { .. }
            | Event::GuardTold { .. }
            | Event::JobEnd { .. }
            | Event::Synced { .. }
            | Event::Heartbeat { .. }
            | Event::Election { .. }
            | Event::Think { .. } => {}
        }
    }

    /// What is looked at every second: promises about stretches of time, and what operators do after the faults.
    fn look(&mut self) {
        self.check_reach();
        if let Some(policies) = self.to_declare.take() {
            let change = Change::PoliciesApplied {
                policies: Box::new(policies.clone()),
                sources: BTreeMap::new(),
                base_version: self.truth.state.policy_version,
                by: "ann".to_owned(),
            };
            if !self.operate(change) {
                self.to_declare = Some(policies);
            }
        }
        let Some(Healing { since, limit }) = self.healing else { return };
        let took = self.now - since;
        if self.is_at_rest() {
            self.seen.note_healed(Healed { took, limit });
            self.healing = None;
        } else if took > limit {
            self.seen.note_healed(Healed { took, limit });
            let why = format!("{} s after the faults had stopped: {}", limit / 1_000, self.why_not_at_rest());
            self.story.note(self.skipped + self.now, || format!("UNHEALED: {why}"));
            self.unhealed = Some(why);
        } else if took / LOOK % 5 == 4 {
            self.look_after();
        }
    }
}
