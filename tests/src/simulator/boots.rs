//! Machines that are switched on, and supervisors that start.

use super::{
    Ms,
    breaks::Break,
    guest::{Machine, Vm},
    queue::Event,
    world::World,
};

/// A supervisor is started within this after its machine.
pub(super) const SUPERVISOR_WITHIN: Ms = 3_000;

impl World {
    pub(super) fn power_on(&mut self, host: usize, boot: u32) {
        let is_called = host < self.named || self.healing.is_none();
        if self.hosts[host].on || self.hosts[host].boot != boot || !is_called {
            return;
        }
        let now = self.now;
        self.rest_since = None;
        let known = &mut self.hosts[host];
        (known.on, known.on_since) = (true, now);
        for outlet in &mut known.outlets {
            outlet.feeds = true;
        }
        known.boot += 1;
        known.hung = self.hangs_at_boot.remove(&host);
        known.name_boot();
        let (boot, life) = (known.boot, known.life);
        self.story.note(self.skipped + now, || format!("{} boots", self.hosts[host].name));
        if self.broken == Some(Break::R10) {
            self.autostart(host);
        }
        if self.hosts[host].hung {
            return;
        }
        let wait = self.random.between(300, SUPERVISOR_WITHIN);
        self.queue.push(now + wait, Event::SupervisorUp { host, boot, life });
        self.queue.push(now + 200, Event::Beacon { host, boot });
        if self.guarded {
            self.queue.push(now + 200, Event::Guard { host, boot });
        }
    }

    fn autostart(&mut self, host: usize) {
        for (guest, epoch) in std::mem::take(&mut self.hosts[host].autostart) {
            let machine = Machine { epoch, state: Vm::Running, since: self.now, ill: false };
            self.hosts[host].machines.insert(guest.clone(), machine);
            self.check_running(&guest);
        }
    }

    pub(super) fn start_supervisor(&mut self, host: usize) {
        let (now, timing) = (self.now, self.timing);
        if self.hosts[host].supervisor.is_some() || self.hosts[host].hung {
            return;
        }
        if self.broken == Some(Break::R13) {
            self.hosts[host].lease = None;
        }
        // It begins without a view, and has to be told of it first.
        self.reaching[host] = now;
        self.hosts[host].life += 1;
        self.hosts[host].name_boot();
        self.hosts[host].begin_supervisor(timing, now);
        let life = self.hosts[host].life;
        self.queue.push(now + self.random.below(50), Event::SyncDue { host, life });
        if host < self.voters.len() {
            self.start_voter(host);
        }
    }
}
