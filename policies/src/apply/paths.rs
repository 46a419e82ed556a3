//! What was found when power devices were asked while nothing was wrong (R9).

use super::Context;
use crate::{
    change::Refused,
    fence_path::{LevelTest, Machine, PATHS_MAX, PathTest, Proven, WIRED_MAX, Wired, WiredBy},
    incident::says_the_same,
    journal::Event,
    model::FenceLevel,
    names::HostName,
    power_device::PowerDevice,
    state::ClusterState,
};

impl ClusterState {
    pub(super) fn fence_tested(
        &mut self,
        context: &Context,
        host: &HostName,
        executor: &HostName,
        (machine_id, policy_version): (&str, Option<u64>),
        tests: Vec<LevelTest>,
    ) -> Result<(), Refused> {
        let known = self.hosts.get(host).ok_or_else(|| Refused::NoHost { host: host.clone() })?;
        if known.facts.machine_id != machine_id {
            return Err(Refused::Host {
                host: host.clone(),
                why: "is another machine than was asked about".to_owned(),
            });
        }
        // The answer of another device would verify the wiring of one that nobody has asked.
        if policy_version.is_some_and(|version| version != self.policy_version) {
            let why = "may have other power devices by now than were asked".to_owned();
            return Err(Refused::Host { host: host.clone(), why });
        }
        let levels = self.policies.levels_of(host);
        let fits = |test: &LevelTest| {
            levels
                .get(test.level)
                .map(FenceLevel::devices)
                .is_some_and(|devices| !devices.is_empty() && devices.len() == test.devices.len())
        };
        if tests.is_empty() || !tests.iter().all(fits) {
            let why = "has other power devices than were asked".to_owned();
            return Err(Refused::Host { host: host.clone(), why });
        }
        for test in tests {
            self.path_tested(context, host, executor, &test);
            self.machines_told(context, host, executor, &test);
        }
        Ok(())
    }

    fn path_tested(&mut self, context: &Context, host: &HostName, executor: &HostName, test: &LevelTest) {
        let Some(known) = self.hosts.get_mut(host) else { return };
        let level = test.level;
        let before = known.path(level, executor).cloned();
        let said = before.as_ref().and_then(|before| before.error.clone());
        // How long it took this time is no news: what was said goes to people as it stands here.
        let error = test.error().map(|error| said.filter(|said| says_the_same(said, &error)).unwrap_or(error));
        let newest = known.newest_path(level).cloned();
        let proven = match &error {
            None => Some(Proven { index: context.index, at: context.at }),
            Some(_) => before.as_ref().and_then(|before| before.proven),
        };
        let so_far = newest.as_ref().map_or((0, 0), |newest| (newest.failures, newest.denials));
        let (failures, denials) = match &error {
            None => (0, 0),
            Some(_) => (so_far.0.saturating_add(1), so_far.1.saturating_add(u32::from(test.is_denied()))),
        };
        let (executor, took_ms) = (executor.clone(), test.took_ms());
        let path = PathTest {
            level,
            executor: executor.clone(),
            index: context.index,
            at: context.at,
            took_ms,
            error,
            failures,
            denials,
            proven,
        };
        known.paths.retain(|path| path.level != level || path.executor != executor);
        if known.paths.len() >= PATHS_MAX {
            known.paths.sort_by_key(|path| path.index);
            known.paths.remove(0);
        }
        known.paths.push(path.clone());
        // What is as it was is no news, whoever has asked: every device is asked every day.
        let failed = |path: &PathTest| path.error.is_some();
        if newest.as_ref().is_none_or(|newest| failed(newest) != failed(&path)) {
            self.note(context, Event::FenceTested { host: host.clone(), executor, level, error: path.error });
        }
    }

    fn machines_told(&mut self, context: &Context, host: &HostName, executor: &HostName, test: &LevelTest) {
        let level = test.level;
        for (device, told) in test.devices.iter().enumerate() {
            match &told.machine {
                Machine::Same => self.wire(context, host, (level, device), WiredBy::MachineId, Some(executor)),
                Machine::Other { says } => {
                    if let Some(known) = self.hosts.get_mut(host) {
                        known.wired.retain(|wired| wired.level != level || wired.device != device);
                    }
                    let why = format!("{} says that it is of machine {says}, which is not {host}", told.device);
                    // Refused when it is not trusted already.
                    let _ = self.device_distrusted(context, host.clone(), level, why);
                }
                Machine::Untold { .. } | Machine::Unknown { .. } => {}
            }
        }
    }

    /// Remembers that a device is the host's own, as its executor has found.
    pub(super) fn wire(
        &mut self,
        context: &Context,
        host: &HostName,
        (level, device): (usize, usize),
        how: WiredBy,
        executor: Option<&HostName>,
    ) {
        let declared = self.policies.levels_of(host).get(level).and_then(|level| level.devices().get(device));
        let is_local = declared.is_some_and(PowerDevice::is_local);
        // Nobody knows for whom it would hold: an earlier version has begun the drill, and does not note who switches.
        if is_local && executor.is_none() {
            return;
        }
        let asker = executor.filter(|_| is_local).cloned();
        let Some(known) = self.hosts.get_mut(host) else { return };
        let same = |wired: &Wired| wired.level == level && wired.device == device && wired.asker == asker;
        // A drill says more than an id, which another machine may come to have too.
        let better = |wired: &Wired| wired.how == WiredBy::MachineId && matches!(how, WiredBy::Drill { .. });
        if known.wired.iter().any(|wired| same(wired) && !better(wired)) {
            return;
        }
        known.wired.retain(|wired| !same(wired));
        if known.wired.len() >= WIRED_MAX {
            // What counts for all who ask is never so much, and is not lost for what counts for one of them.
            let of_one = known.wired.iter().position(|wired| wired.asker.is_some());
            known.wired.remove(of_one.unwrap_or(0));
        }
        known.wired.push(Wired { level, device, how: how.clone(), since: context.index, asker: asker.clone() });
        let how = asker.map_or_else(|| how.to_string(), |asker| format!("{how}, for {asker}"));
        self.note(context, Event::WiringVerified { host: host.clone(), level, device, how });
    }

    /// Forgets what a host has found at the power devices of others. What it has found of devices that mean another machine on each
    /// host counts for the machine that it was: on another one of its name they mean something else.
    pub(super) fn forget_found_by(&mut self, asker: &HostName) {
        let alike = self.are_alike();
        for known in self.hosts.values_mut() {
            known.wired.retain(|wired| wired.asker.as_ref() != Some(asker));
            // An earlier version keeps these.
            known.paths.retain(|path| !alike || path.executor != *asker);
        }
    }

    /// What was found of devices counts for the machine and the declaration that it was found of.
    pub(super) fn forget_paths(&mut self, host: &HostName) {
        if let Some(known) = self.hosts.get_mut(host) {
            known.wired.clear();
            known.paths.clear();
        }
    }
}
