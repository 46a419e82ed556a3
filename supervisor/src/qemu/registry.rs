//! Which guests this host has: those it started, those it found, and those it is about to start.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::unix::fs::DirBuilderExt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use holdfast_policies::{
    model::QemuDefinition,
    names::{Epoch, GuestName},
    observe::{GuestCondition, GuestReport},
};
use tokio::task::JoinHandle;

use super::{
    AgentChannel, AgentError, DriverError, How, Inner, StartError,
    cgroup::{self, Cgroup},
    forensics::Seen,
    monitor::{self, MonitorClient, Monitored},
    net,
    outside::outside,
    own,
    record::{self, Files, Process, Record},
    storage::Needs,
    way::Way,
};
use crate::clock;

/// Tap devices looked for after a guest whose record is lost; few have more network cards.
const CARDS_WITHOUT_RECORD: usize = 4;

/// What is said of processes that no record explains.
const WITHOUT_RECORD: &str = "runs here without a record";

/// Guests by name. The lock is held for moments only, never across an await.
#[derive(Default)]
pub struct Registry {
    entries: Mutex<BTreeMap<GuestName, Entry>>,
}

#[derive(Default)]
struct Entry {
    /// Start, stop and migration of one guest happen one after the other.
    gate: Arc<tokio::sync::Mutex<()>>,
    state: State,
}

#[derive(Default)]
enum State {
    #[default]
    Absent,
    Starting {
        epoch: Epoch,
        exclusive: BTreeSet<String>,
    },
    Here(Here),
}

/// A guest that has, or had, processes here.
pub struct Here {
    /// Under which assignment.
    pub epoch: Epoch,
    /// How it began.
    pub how: How,
    /// What no other guest may use.
    pub exclusive: BTreeSet<String>,
    /// The way to its monitor.
    pub monitor: MonitorClient,
    /// The way into it, if it is defined with an agent.
    pub agent: Option<AgentChannel>,
    /// Whether it was started with a display.
    pub display: bool,
    /// What it was started with, where there is a record of that.
    pub definition: Option<Box<QemuDefinition>>,
    /// Its task, which ends after the guest.
    pub task: JoinHandle<()>,
}

impl Here {
    fn exited(&self) -> bool {
        matches!(self.monitor.view().condition, GuestCondition::Exited { .. })
    }
}

impl Registry {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<GuestName, Entry>> {
        // A panic elsewhere leaves the map whole: every change of it is one assignment.
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of_here<T>(&self, guest: &GuestName, known: impl FnOnce(&Here) -> Option<T>) -> Option<T> {
        match &self.entries().get(guest)?.state {
            State::Here(here) => known(here),
            State::Absent | State::Starting { .. } => None,
        }
    }

    /// What start, stop and migration of one guest take turns by.
    pub fn gate(&self, guest: &GuestName) -> Arc<tokio::sync::Mutex<()>> {
        let mut entries = self.entries();
        if !entries.contains_key(guest) {
            // Guests come and go under ever new names. Of those that are gone nothing is known but the gate, and one that nobody
            // has is as good as a new one.
            entries.retain(|_, entry| !matches!(entry.state, State::Absent) || Arc::strong_count(&entry.gate) > 1);
        }
        entries.entry(guest.clone()).or_default().gate.clone()
    }

    /// The way to a guest's monitor.
    pub fn monitor(&self, guest: &GuestName) -> Option<MonitorClient> {
        self.of_here(guest, |here| Some(here.monitor.clone()))
    }

    /// The way into a guest.
    pub fn agent(&self, guest: &GuestName) -> Result<AgentChannel, AgentError> {
        match self.entries().get(guest).map(|entry| &entry.state) {
            Some(State::Here(here)) => here.agent.clone().ok_or(AgentError::None),
            Some(State::Absent | State::Starting { .. }) | None => Err(AgentError::Absent),
        }
    }

    /// What is known of a guest before it is killed, without asking anybody, and whom to ask for a picture of its screen.
    pub fn seen(&self, guest: &GuestName) -> Option<(Seen, Option<MonitorClient>)> {
        self.of_here(guest, |here| {
            Some((Seen::of(here.epoch, &here.monitor)?, here.display.then(|| here.monitor.clone())))
        })
    }

    /// Every guest with an entry.
    pub fn guests(&self) -> Vec<GuestName> {
        self.entries().keys().cloned().collect()
    }

    /// Under which epoch, and how, a guest was started here.
    pub fn started(&self, guest: &GuestName) -> Option<(Epoch, How)> {
        self.of_here(guest, |here| Some((here.epoch, here.how)))
    }

    /// Under which epoch a guest is here, or is being started.
    pub fn epoch(&self, guest: &GuestName) -> Option<Epoch> {
        match &self.entries().get(guest)?.state {
            State::Absent => None,
            State::Starting { epoch, .. } => Some(*epoch),
            State::Here(here) => Some(here.epoch),
        }
    }

    /// What a guest was started with here, where that is known.
    pub fn definition(&self, guest: &GuestName) -> Option<Box<QemuDefinition>> {
        self.of_here(guest, |here| here.definition.clone())
    }

    /// Takes what a guest needs, unless another guest has some of it (R28).
    pub fn reserve(&self, guest: &GuestName, epoch: Epoch, needs: &Needs) -> Result<(), StartError> {
        let mut entries = self.entries();
        for (other, entry) in entries.iter().filter(|(other, _)| *other != guest) {
            let taken = match &entry.state {
                State::Starting { exclusive, .. } => exclusive,
                State::Here(here) if !here.exited() => &here.exclusive,
                State::Absent | State::Here(_) => continue,
            };
            if let Some(what) = taken.intersection(&needs.exclusive).next() {
                return Err(StartError::InUse { what: what.clone(), other: other.clone() });
            }
        }
        let exclusive = needs.exclusive.clone();
        entries.entry(guest.clone()).or_default().state = State::Starting { epoch, exclusive };
        Ok(())
    }

    /// Gives back what was reserved.
    pub fn release(&self, guest: &GuestName) {
        if let Some(entry) = self.entries().get_mut(guest)
            && matches!(entry.state, State::Starting { .. })
        {
            entry.state = State::Absent;
        }
    }

    /// Enters a guest that has processes here, or had.
    pub fn insert(&self, guest: &GuestName, here: Here) {
        self.entries().entry(guest.clone()).or_default().state = State::Here(here);
    }

    /// Removes a guest; its task is to be waited for.
    pub fn remove(&self, guest: &GuestName) -> Option<JoinHandle<()>> {
        match std::mem::take(&mut self.entries().get_mut(guest)?.state) {
            State::Here(here) => Some(here.task),
            State::Absent | State::Starting { .. } => None,
        }
    }

    fn reports(&self) -> Vec<GuestReport> {
        let (entries, now) = (self.entries(), clock::moment());
        let report = |(guest, entry): (&GuestName, &Entry)| {
            let report = |epoch, condition| GuestReport::new(guest.clone(), epoch, condition);
            match &entry.state {
                State::Absent => None,
                State::Starting { epoch, .. } => {
                    Some(report(*epoch, GuestCondition::Unknown { detail: "is being started".to_owned() }))
                }
                State::Here(here) => Some(GuestReport {
                    happened: here.monitor.happened(now),
                    sending: here.monitor.sending(),
                    frozen_ms: here.agent.as_ref().and_then(|agent| agent.frozen_ms(now)),
                    ..report(here.epoch, here.monitor.view().condition)
                }),
            }
        };
        entries.iter().filter_map(report).collect()
    }
}

impl Inner {
    /// Every guest that this host knows, and every cgroup with processes that it does not know.
    pub(super) fn inventory(&self) -> Result<Vec<GuestReport>, DriverError> {
        // The cgroups first: a guest that is started between the two looks is then in the second.
        let live = self.live()?;
        let mut reports = self.registry.reports();
        for guest in live {
            if reports.iter().all(|report| report.guest != guest) {
                let condition = GuestCondition::Unknown { detail: WITHOUT_RECORD.to_owned() };
                reports.push(GuestReport::new(guest, Epoch::default(), condition));
            }
        }
        Ok(reports)
    }

    /// Guests whose cgroups have processes, or cannot be said to have none.
    fn live(&self) -> Result<Vec<GuestName>, DriverError> {
        let path = &self.config.cgroup;
        let names = cgroup::children(path)
            .map_err(|source| DriverError::Cgroup { path: path.display().to_string(), source })?;
        let guests = names.into_iter().filter_map(|name| GuestName::new(name).ok());
        Ok(guests.filter(|guest| self.cgroup(guest).populated().unwrap_or(true)).collect())
    }

    /// Takes over what an earlier supervisor left.
    pub(super) async fn adopt(&self) -> Result<(), DriverError> {
        let path = &self.config.cgroup;
        cgroup::make_base(path).map_err(|source| DriverError::Cgroup { path: path.display().to_string(), source })?;
        let folder = record::folder(&self.config.run_dir);
        let records = |source| DriverError::Records { path: folder.display().to_string(), source };
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder).map_err(records)?;
        for entry in std::fs::read_dir(&folder).map_err(records)? {
            let name = entry.map_err(records)?.file_name();
            if let Ok(guest) = GuestName::new(name.to_string_lossy()) {
                self.adopt_one(&guest).await?;
            }
        }
        for guest in self.live()? {
            if self.registry.started(&guest).is_none() {
                self.enter(&guest, Epoch::default(), None, Some(WITHOUT_RECORD.to_owned()));
            }
        }
        Ok(())
    }

    async fn adopt_one(&self, guest: &GuestName) -> Result<(), DriverError> {
        let (files, cgroup) = (self.files(guest), self.cgroup(guest));
        let read = files.read();
        let known = read.as_ref().ok().and_then(Option::as_ref);
        // It would be told to have ended. Where others run in its cgroup it is nobody knows what.
        let is_empty = matches!(cgroup.populated(), Ok(false));
        let elsewhere = if is_empty { outside(known, &files, &cgroup).await } else { Ok(None) };
        let folder = || record::folder(&self.config.run_dir).display().to_string();
        let elsewhere = elsewhere.map_err(|source| DriverError::Records { path: folder(), source })?;
        if let Some(Process { pid, .. }) = elsewhere {
            let cgroup = cgroup.path().display().to_string();
            return Err(DriverError::Outside { guest: guest.clone(), pid, cgroup });
        }
        match read {
            Ok(Some(record)) => {
                let foreign = foreign(&record, &files, &cgroup);
                self.enter(guest, record.epoch, Some(&record), foreign);
            }
            Ok(None) => {}
            Err(error) => {
                self.enter(guest, Epoch::default(), None, Some(format!("its record cannot be read: {error}")))
            }
        }
        Ok(())
    }

    /// Starts the task for a guest that has processes here, or had.
    pub(super) fn enter(&self, guest: &GuestName, epoch: Epoch, record: Option<&Record>, foreign: Option<String>) {
        let files = self.files(guest);
        let cards = record.map_or(CARDS_WITHOUT_RECORD, |record| record.definition.nics.len());
        let how = record.map_or(How::Run, |record| record.how);
        let monitored = Monitored {
            guest: guest.clone(),
            epoch,
            how,
            files: files.clone(),
            cgroup: self.cgroup(guest),
            taps: net::tap_names(guest, cards),
            foreign,
            kills: self.kills.clone(),
        };
        let (monitor, task) = monitor::spawn(monitored, self.events.clone());
        let has_agent = record.is_some_and(|record| record.definition.agent);
        let own = record.filter(|record| record.definition.holdfast_agent).map(|record| {
            let (guest, way, view) = (guest.clone(), Way::of(&record.definition, &files), monitor.watch());
            own::spawn(own::Port { guest, epoch, way, view }, self.events.clone())
        });
        let agent = (has_agent || own.is_some())
            .then(|| AgentChannel::new(has_agent.then(|| files.qga()), monitor.watch(), own));
        let display = record.is_some_and(|record| record.definition.display.is_some());
        let definition = record.map(|record| Box::new(record.definition.clone()));
        let exclusive = record.map(|record| record.exclusive.clone()).unwrap_or_default();
        self.registry.insert(guest, Here { epoch, how, exclusive, monitor, agent, display, definition, task });
    }
}

/// Why what runs in a guest's cgroup is not what its record says; `None` also when nothing runs.
fn foreign(record: &Record, files: &Files, cgroup: &Cgroup) -> Option<String> {
    if !cgroup.populated().unwrap_or(true) {
        return None;
    }
    let process = match record.process {
        Some(process) => process,
        // The supervisor died before QEMU had answered. Until it has written its number there is nothing to compare.
        None => Process::find(files.read_pid().ok()?).ok()?,
    };
    let inside = cgroup.processes().is_ok_and(|processes| processes.contains(&process.pid));
    let same = process.lives() && inside;
    (!same).then(|| format!("process {} is not the recorded one, and others run in its cgroup", process.pid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_that_is_gone_takes_no_room_once_nobody_waits_for_its_turn() {
        let registry = Registry::default();
        let guest = |number: usize| GuestName::new(format!("guest-{number}")).unwrap();
        let (starts, waits) = (guest(0), guest(1));
        registry.reserve(&starts, Epoch { generation: 1, index: 7 }, &Needs::default()).unwrap();
        let gate = registry.gate(&waits);
        for number in 2..9 {
            registry.gate(&guest(number));
        }
        assert_eq!(registry.guests(), [starts, waits.clone(), guest(8)]);
        assert!(Arc::ptr_eq(&gate, &registry.gate(&waits)), "two would not take turns");
    }
}
