//! The history of a scenario, read again: which guests may still run where follows from the initial situation, the scenario's
//! own abrupt events, and the deeds, in order of time.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    super::format::{Deed, Event},
    Judge,
};

/// Abrupt events of the scenario, which are part of what happened to its guests.
const ABRUPT: &[&str] =
    &["power-off", "host-failure-confirmed", "vm-crash", "vm-moved-outside", "host-shutdown", "host-reboot", "vm-add"];

/// One line of what happened.
struct Line {
    deed: Deed,
    world: bool,
    already_running: bool,
}

/// The history, read again.
pub(super) struct Replay<'j, 'a> {
    judge: &'j mut Judge<'a>,
    lines: Vec<Line>,
    present: BTreeMap<String, BTreeSet<String>>,
    unproven: BTreeMap<String, BTreeSet<String>>,
    graceful: BTreeSet<String>,
    touched: BTreeSet<String>,
    fenced: BTreeSet<String>,
    attempts: BTreeMap<String, Vec<String>>,
    started: Vec<(String, String)>,
    moved: Vec<Deed>,
    order: Vec<(&'static str, String)>,
    twice: BTreeSet<String>,
}

impl<'j, 'a> Replay<'j, 'a> {
    pub(super) fn of(judge: &'j mut Judge<'a>) -> Self {
        let scenario = judge.scenario;
        let dead = |host: &str| {
            scenario.hosts.iter().any(|known| known.name == host && ["off", "down"].contains(&known.state.as_str()))
        };
        let mut present = BTreeMap::new();
        for vm in &scenario.vms {
            let there = matches!(vm.state.as_deref(), Some("running" | "failed" | "paused" | "migrating" | "lost"));
            if let Some(host) = vm.host.as_ref().filter(|host| there && !dead(host)) {
                let on = if vm.active_on.is_empty() { vec![host.clone()] } else { vm.active_on.clone() };
                present.insert(vm.name.clone(), on.into_iter().collect::<BTreeSet<String>>());
            }
        }
        let world = scenario.events.iter().filter(|event| ABRUPT.contains(&event.kind.as_str())).map(line);
        let deeds =
            judge.outcome.history.iter().map(|deed| Line { deed: deed.clone(), world: false, already_running: false });
        let mut lines: Vec<Line> = world.chain(deeds).collect();
        lines.sort_by(|a, b| a.deed.at.total_cmp(&b.deed.at).then(b.world.cmp(&a.world)));
        let twice = present.iter().filter(|(_, on)| on.len() > 1).map(|(vm, _)| vm.clone()).collect();
        Self {
            judge,
            lines,
            present,
            unproven: BTreeMap::new(),
            graceful: BTreeSet::new(),
            touched: BTreeSet::new(),
            fenced: BTreeSet::new(),
            attempts: BTreeMap::new(),
            started: Vec::new(),
            moved: Vec::new(),
            order: Vec::new(),
            twice,
        }
    }

    pub(super) fn run(mut self) {
        for line in std::mem::take(&mut self.lines) {
            self.take(&line);
        }
        self.quiet();
        self.undisturbed();
        self.moves();
        self.orders();
    }

    fn take(&mut self, line: &Line) {
        let deed = &line.deed;
        let vm = deed.vm.clone().unwrap_or_default();
        let host = deed.host.clone().unwrap_or_default();
        match deed.kind.as_str() {
            "host-shutdown" | "host-reboot" => {
                self.graceful.insert(host);
            }
            "power-off" | "fence" | "host-failure-confirmed" => self.host_down(&deed.kind, &host, line.world),
            "vm-crash" | "vm-exit" => {
                self.present.remove(&vm);
            }
            "vm-add" => {
                let on = if line.already_running { BTreeSet::from([host]) } else { BTreeSet::new() };
                self.present.insert(vm, on);
            }
            "vm-moved-outside" => {
                if let Some(on) = self.present.get_mut(&vm).filter(|on| !on.is_empty()) {
                    *on = deed.to.iter().cloned().collect();
                }
            }
            "stop" => self.stop(vm, &host),
            "start" => self.start(&vm, &host, deed.ok.unwrap_or(true)),
            "migrate" => self.migrate(&vm, deed),
            _ => {}
        }
    }

    fn host_down(&mut self, kind: &str, host: &str, world: bool) {
        for (vm, on) in &mut self.present {
            if on.remove(host) {
                if kind == "power-off" && !self.graceful.contains(host) {
                    self.unproven.entry(vm.clone()).or_default().insert(host.to_owned());
                }
                if !world {
                    self.touched.insert(vm.clone());
                }
            }
        }
        if kind != "power-off" {
            self.fenced.insert(host.to_owned());
            self.unproven.values_mut().for_each(|hosts| {
                hosts.remove(host);
            });
        }
    }

    fn stop(&mut self, vm: String, host: &str) {
        if self.present.get_mut(&vm).is_some_and(|on| on.remove(host)) {
            self.touched.insert(vm.clone());
            self.order.push(("stop", vm));
        }
    }

    fn start(&mut self, vm: &str, host: &str, ok: bool) {
        let expect = &self.judge.scenario.expect;
        self.attempts.entry(vm.to_owned()).or_default().push(host.to_owned());
        self.started.push((vm.to_owned(), host.to_owned()));
        let elsewhere: Vec<String> =
            self.present.get(vm).into_iter().flatten().filter(|on| *on != host).cloned().collect();
        if expect.never_running_twice.unwrap_or(true) || !self.twice.contains(vm) {
            for other in elsewhere {
                self.judge.fail(format!("{vm} started on {host} while it may still run on {other}"));
            }
        }
        if ok {
            let unproven = self.unproven.remove(vm).unwrap_or_default();
            for old in unproven.iter().filter(|old| *old != host && expect.fence_before_restart) {
                self.judge.fail(format!("{vm} started again on {host} before {old} was confirmed fenced"));
            }
            self.present.entry(vm.to_owned()).or_default().insert(host.to_owned());
            self.touched.insert(vm.to_owned());
            self.order.push(("start", vm.to_owned()));
        }
        for first in &expect.fence_before_start {
            if first.vms.iter().any(|name| name == vm) && !self.fenced.contains(&first.host) {
                self.judge.fail(format!("{vm} started before {} was fenced", first.host));
            }
        }
    }

    fn migrate(&mut self, vm: &str, deed: &Deed) {
        let to = deed.to.clone().unwrap_or_default();
        self.moved.push(deed.clone());
        self.touched.insert(vm.to_owned());
        self.started.push((vm.to_owned(), to.clone()));
        let on = self.present.entry(vm.to_owned()).or_default();
        on.retain(|host| Some(host) != deed.from.as_ref());
        for other in on.iter().filter(|other| **other != to) {
            self.judge.failures.push(format!("{vm} moved to {to} while it may still run on {other}"));
        }
        on.insert(to);
        self.order.push(("move", vm.to_owned()));
    }

    fn quiet(&mut self) {
        for quiet in &self.judge.scenario.expect.quiet {
            for deed in &self.judge.outcome.history {
                let done = ["start", "stop", "migrate", "fence"].contains(&deed.kind.as_str());
                if done && (quiet.from..=quiet.to).contains(&deed.at) {
                    self.judge.failures.push(format!("{deed:?}, when nothing was to be done"));
                }
            }
        }
    }

    fn undisturbed(&mut self) {
        for vm in &self.judge.scenario.expect.undisturbed {
            let known = self.judge.scenario.vms.iter().find(|known| known.name == *vm);
            if known.is_some_and(|known| known.state.as_deref() == Some("stopped")) {
                let starts = self.started.iter().filter(|(name, _)| name == vm).count();
                let stops = self.order.iter().filter(|(what, name)| *what == "stop" && name == vm).count();
                if starts > 1 || stops > 0 {
                    self.judge.failures.push(format!("{vm} was disturbed: {starts} starts or moves, {stops} stops"));
                }
            } else if self.touched.contains(vm) {
                self.judge.failures.push(format!("{vm} was disturbed although it had no reason to be"));
            }
        }
    }

    fn moves(&mut self) {
        let expect = &self.judge.scenario.expect;
        for wanted in &expect.moves {
            let fits = |host: Option<&String>, said: &Option<String>| said.is_none() || host == said.as_ref();
            let live = self.moved.iter().any(|deed| {
                deed.vm.as_ref() == Some(&wanted.vm)
                    && fits(deed.from.as_ref(), &wanted.from)
                    && fits(deed.to.as_ref(), &wanted.to)
            });
            let cold = self.started.iter().any(|(vm, host)| {
                *vm == wanted.vm && fits(Some(host), &wanted.to) && Some(host) != wanted.from.as_ref()
            });
            let known = self.judge.scenario.vms.iter().find(|known| known.name == wanted.vm);
            let runs = known.is_some_and(|known| known.desired.as_deref() == Some("running"));
            let missing = match wanted.how.as_str() {
                "live" => !live,
                "cold" => !cold && runs,
                _ => false,
            };
            if missing {
                self.judge.failures.push(format!("{} was not moved {}", wanted.vm, wanted.how));
            }
        }
        for forbidden in &expect.forbidden_moves {
            for (vm, host) in
                self.started.iter().filter(|(vm, host)| *vm == forbidden.vm && forbidden.to.contains(host))
            {
                self.judge.failures.push(format!("{vm} was started or moved to {host}, which is forbidden"));
            }
        }
    }

    fn orders(&mut self) {
        let expect = &self.judge.scenario.expect;
        for wanted in &expect.start_order {
            let newest = |vm: &str| self.order.iter().rposition(|(what, name)| *what != "stop" && name == vm);
            if let (Some(first), Some(then)) = (newest(&wanted.first), newest(&wanted.then))
                && first > then
            {
                self.judge.failures.push(format!("{} was started before {}", wanted.then, wanted.first));
            }
        }
        for wanted in &expect.start_attempts {
            let made = self.attempts.get(&wanted.vm).cloned().unwrap_or_default();
            let distinct: BTreeSet<&String> = made.iter().collect();
            if made.len() != wanted.count || distinct.len() != wanted.distinct_hosts {
                self.judge.failures.push(format!("{} was started on {made:?}, expected {wanted:?}", wanted.vm));
            }
        }
    }
}

fn line(event: &Event) -> Line {
    let deed = Deed {
        at: event.at,
        kind: event.kind.clone(),
        vm: event.vm.clone(),
        host: event.host.clone(),
        to: event.to.clone(),
        ..Deed::default()
    };
    Line { deed, world: true, already_running: event.already_running }
}
