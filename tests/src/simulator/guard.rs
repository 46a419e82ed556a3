//! The guard of a simulated host and its watchdog (R9, R13–R15): the guard stops the guests when the lease runs out, and the
//! watchdog resets the machine when the guard cannot. Only hosts of worlds with a lease level have one. A watchdog counts on its
//! host's clock: it drifts as far (R1).

use holdfast_policies::{
    armed::{Armed, ArmedWatchdog},
    time::Moment,
};

use super::{Ms, breaks::Break, guest::Vm, queue::Event, world::World};

/// How often the guard looks.
const LOOK: Ms = 250;
/// What it promises: guests are stopped within this after the lease's end, or the watchdog is not petted any more.
pub const GUARD_MS: Ms = 1_000;
/// The longest that stopping takes; with a look before it, it is within the promise.
const STOPPING_MAX: Ms = 650;

/// What a host has to protect itself with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watchdog {
    /// Its time-out, as its host's clock counts.
    pub timeout: Ms,
    /// It is emulated: it stands still with its host.
    pub is_virtual: bool,
}

/// The guard of one boot.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// The machine's watchdog, if it has one.
    pub watchdog: Option<Watchdog>,
    /// It has been told that its host stops guests by lease.
    pub stops: bool,
    /// The watchdog runs.
    armed: bool,
    /// When it was petted last.
    petted: Ms,
    /// Which arming the outstanding look at the watchdog belongs to.
    number: u32,
    /// The process is gone, or stands still, until then.
    pub(super) down_until: Ms,
    /// When it saw that the lease had run out with guests running, and how long stopping them takes.
    stopping: Option<(Ms, Ms)>,
}

impl Guard {
    /// The guard of a machine with this watchdog.
    #[must_use]
    pub fn new(watchdog: Option<Watchdog>) -> Self {
        Self { watchdog, ..Self::default() }
    }

    /// What a new boot begins with.
    pub(super) fn reset(&mut self) {
        *self = Self { watchdog: self.watchdog, number: self.number + 1, ..Self::default() };
    }

    /// What it says that it has armed; nothing while nobody can ask it.
    pub(super) fn says(&self, now: Ms, broken: Option<Break>) -> Option<Armed> {
        if self.down_until > now {
            return None;
        }
        let watchdog =
            self.watchdog.filter(|_| self.armed || broken == Some(Break::R15)).map(|watchdog| ArmedWatchdog {
                identity: "simulated".to_owned(),
                timeout_ms: told(watchdog.timeout, broken),
                is_virtual: watchdog.is_virtual && broken != Some(Break::R9Paused),
            });
        Some(Armed { stops: self.stops, guard_ms: GUARD_MS, watchdog })
    }
}

/// The time-out that is told of a watchdog. R1-watchdog broken: so much less that a margin on the guard and the watchdog comes to
/// what they take without one.
fn told(timeout: Ms, broken: Option<Break>) -> Ms {
    if broken == Some(Break::R9Watchdog) {
        1
    } else if broken == Some(Break::R1Watchdog) {
        ((GUARD_MS + timeout) * 20 / 21).saturating_sub(GUARD_MS)
    } else {
        timeout
    }
}

impl World {
    /// The agent has learned of policies: the guard arms where its host has a lease level, and disarms where it has none.
    pub(super) fn guard_learns(&mut self, host: usize, stops: bool) {
        let now = self.now;
        if !self.guarded {
            return;
        }
        let known = &self.hosts[host];
        let (boot, fires) = (known.boot, known.guard.watchdog.map(|watchdog| now + known.takes(watchdog.timeout)));
        let guard = &mut self.hosts[host].guard;
        guard.stops = stops;
        if stops
            && !guard.armed
            && let Some(fires) = fires
        {
            (guard.armed, guard.petted) = (true, now);
            guard.number += 1;
            let number = guard.number;
            self.queue.push(fires, Event::Watchdog { host, boot, number });
        }
        guard.armed &= stops;
    }

    /// The guard takes a lease, if it is there to take it.
    pub(super) fn grant(&mut self, host: usize, deadline: Moment) {
        let now = self.now;
        let known = &mut self.hosts[host];
        if !self.guarded || known.guard.down_until <= now {
            known.lease = Some(deadline);
        }
    }

    /// R15 broken: the watchdog is closed with the supervisor, and the guests are left to themselves.
    pub(super) fn guard_left_alone(&mut self, host: usize) {
        if self.broken == Some(Break::R15) {
            let guard = &mut self.hosts[host].guard;
            (guard.armed, guard.stops) = (false, false);
        }
    }

    /// The guard looks at the lease, stops guests when it has run out, and pets the watchdog otherwise.
    pub(super) fn guard_due(&mut self, host: usize, boot: u32) {
        let now = self.now;
        self.queue.push(now + LOOK, Event::Guard { host, boot });
        let known = &mut self.hosts[host];
        if known.guard.down_until > now || !known.guard.stops {
            return;
        }
        let runs = known.machines.values().any(|machine| machine.state != Vm::Exited);
        // A boot that never had a lease has nothing to protect (R13).
        let expired = known.lease.is_some_and(|lease| known.clock(now) >= lease);
        if !(runs && expired) || self.broken == Some(Break::R14Stop) {
            (known.guard.petted, known.guard.stopping) = (now, None);
            self.check_outlives(host);
            return;
        }
        let takes = self.random.below(STOPPING_MAX);
        let (since, takes) = *known.guard.stopping.get_or_insert((now, takes));
        if now - since < takes {
            return;
        }
        let held: Vec<_> = known.machines.keys().filter(|guest| known.holds_on_to(guest, now)).cloned().collect();
        for (_, machine) in known.machines.iter_mut().filter(|(guest, _)| !held.contains(guest)) {
            machine.state = Vm::Exited;
        }
        let name = &self.hosts[host].name;
        self.story.note(self.skipped + now, || format!("the guard of {name} stops its guests"));
        self.sync_soon(host);
    }

    /// R2, R14: while the guard works no guest runs after the lease has really ended, and it has had its time.
    fn check_outlives(&mut self, host: usize) {
        let known = &self.hosts[host];
        let runs = known.machines.iter().find(|(_, machine)| machine.state == Vm::Running);
        if let Some((guest, _)) = runs
            && known.lease.is_some()
            && known.lease_until > 0
            && self.now > known.lease_until + GUARD_MS
        {
            let (name, ago) = (known.name.clone(), self.now - known.lease_until);
            let guest = guest.clone();
            self.violate("R14", format!("{name} lets {guest} run {ago} ms after its lease has run out"));
        }
    }

    /// The watchdog is hardware: it needs nothing of its machine to fire.
    pub(super) fn watchdog_due(&mut self, host: usize, boot: u32, number: u32) {
        let now = self.now;
        let known = &self.hosts[host];
        let guard = &known.guard;
        let Some(watchdog) = guard.watchdog.filter(|_| guard.armed && guard.number == number) else { return };
        if known.boot != boot || !known.on {
            return;
        }
        let due = guard.petted + known.takes(watchdog.timeout);
        if now < due {
            self.queue.push(due, Event::Watchdog { host, boot, number });
        } else if watchdog.is_virtual && known.frozen_until > now {
            // It stands still as its host does, and is petted first when both go on.
            self.queue.push(known.frozen_until + 2 * LOOK, Event::Watchdog { host, boot, number });
        } else {
            let name = &known.name;
            self.story.note(self.skipped + now, || format!("the watchdog of {name} fires"));
            self.power_off(host, None);
            let wait = self.random.between(2_000, 8_000);
            self.power_on_after(host, wait);
        }
    }
}
