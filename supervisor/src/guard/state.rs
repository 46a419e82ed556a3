//! What the guard knows, and what each request makes of it. No clock, and no I/O but what it is handed to be kept.

use std::{
    io,
    net::SocketAddr,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use holdfast_policies::{
    armed::{Armed, ArmedWatchdog},
    names::{GuestName, Incarnation},
    time::{Moment, millis},
};

use super::{
    duty::{Duty, GUARD_MAX, duty},
    memory::Memory,
    protocol::{CGROUP_BYTES_MAX, GUESTS_MAX, Guest, Hardened, Reply, Request, Status, Stopped, VOTERS_MAX},
    steady::{Said, SaidArmed, granted, is_query, write_line},
};

/// Everything that the guard knows.
#[derive(Debug)]
pub(super) struct State {
    memory: Memory,
    pid: u32,
    started: Moment,
    lease_max: Duration,
    /// Those of the host file.
    bootstrap: Vec<SocketAddr>,
    refused: u64,
    /// So that what lasts is logged once: who reads the log may be stuck, and the guard must not wait for that.
    refusing: bool,
    unkept: bool,
    watchdog: Result<ArmedWatchdog, String>,
    hardened: Option<Hardened>,
    registrations: u64,
}

/// Why no watchdog is armed until it was tried.
const UNOPENED: &str = "it has not been opened yet";

/// Has a memory written to where the next guard of this boot finds it.
pub(super) type Keep<'k> = dyn Fn(&Memory) -> io::Result<()> + 'k;

/// Why a request was refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("deadline {} ms is before the granted {} ms; a lease moves back only by a revocation", asked.0, granted.0)]
    Backwards { asked: Moment, granted: Moment },
    #[error("deadline {} ms is further ahead than {} ms", asked.0, millis(*lease_max))]
    TooFar { asked: Moment, lease_max: Duration },
    #[error("cgroup {path} is not an absolute path of at most {CGROUP_BYTES_MAX} bytes without '..'")]
    Cgroup { path: PathBuf },
    #[error("{GUESTS_MAX} guests are registered already")]
    Full,
    #[error("{count} beacon addresses are more than {VOTERS_MAX}")]
    Voters { count: usize },
    #[error("the request cannot be read: {0}")]
    Unreadable(String),
    #[error("it cannot be kept: {0}")]
    Unkept(String),
}

impl State {
    /// A guard that starts with what an earlier one of this boot has kept. `lease_max` bounds how far ahead a deadline may lie.
    /// `bootstrap`: the voters of the host file, who count until the supervisor says who votes.
    pub(super) fn new(memory: Memory, started: Moment, lease_max: Duration, bootstrap: Vec<SocketAddr>) -> Self {
        let watchdog = Err(UNOPENED.to_owned());
        Self {
            memory,
            pid: std::process::id(),
            started,
            lease_max,
            bootstrap,
            refused: 0,
            refusing: false,
            unkept: false,
            watchdog,
            hardened: None,
            registrations: 1,
        }
    }

    pub(super) fn incarnation(&self) -> &Incarnation {
        &self.memory.incarnation
    }

    pub(super) fn memory(&self) -> &Memory {
        &self.memory
    }

    /// Who gets the beacon.
    pub(super) fn voters(&self) -> &[SocketAddr] {
        if self.memory.voters.is_empty() { &self.bootstrap } else { &self.memory.voters }
    }

    /// What is left of the lease; zero once it ran out.
    pub(super) fn lease_left(&self, now: Moment) -> Option<Duration> {
        self.memory.deadline.map(|deadline| deadline.since(now))
    }

    pub(super) fn uptime(&self, now: Moment) -> Duration {
        now.since(self.started)
    }

    /// What has to be done about guests and watchdog.
    pub(super) fn duty(&self, now: Moment) -> Duty {
        duty(self.memory.stops, self.memory.deadline, !self.memory.guests.is_empty(), now)
    }

    /// How long the duty stays as it is, unless a request comes.
    pub(super) fn unchanged_for(&self, now: Moment) -> Option<Duration> {
        let deadline = self.memory.deadline.filter(|deadline| self.memory.stops && now < *deadline)?;
        Some(deadline.since(now))
    }

    /// A watchdog is armed, and told of from here on.
    pub(super) fn note_watchdog(&mut self, watchdog: ArmedWatchdog, keep: &Keep<'_>) -> io::Result<()> {
        let memory = Memory { counted_on: Some(watchdog.timeout_ms), ..self.memory.clone() };
        if memory != self.memory {
            keep(&memory)?;
            self.memory = memory;
        }
        self.watchdog = Ok(watchdog);
        Ok(())
    }

    /// No watchdog is armed, and why not. One that was counted on may be armed all the same, from before.
    pub(super) fn note_unarmed(&mut self, why: String) {
        self.watchdog = Err(why);
    }

    /// What has come of trying the watchdog outside stop mode: what it would be. Nobody counts on that.
    pub(super) fn note_trial(&mut self, trial: Result<ArmedWatchdog, String>) {
        self.watchdog = trial;
    }

    /// No watchdog is armed any more, by a committed end of stop mode.
    pub(super) fn note_disarmed(&mut self, keep: &Keep<'_>) -> io::Result<()> {
        let memory = Memory { counted_on: None, ..self.memory.clone() };
        keep(&memory)?;
        self.memory = memory;
        self.watchdog = Err("it is disarmed".to_owned());
        Ok(())
    }

    /// What has come of locking memory and raising priority, which is never undone.
    pub(super) fn note_hardened(&mut self, hardened: Hardened) {
        self.hardened = Some(hardened);
    }

    /// Grows whenever the registered guests have changed.
    pub(super) fn registrations(&self) -> u64 {
        self.registrations
    }

    /// Guests were killed at the end of the lease, and are gone. It is told also where it cannot be kept.
    pub(super) fn note_stopped(&mut self, guests: Vec<GuestName>, now: Moment, keep: &Keep<'_>) {
        let lease_ended = self.memory.deadline;
        let stopped = &mut self.memory.stopped;
        stopped.retain(|known| !guests.contains(&known.guest));
        stopped.extend(guests.into_iter().map(|guest| Stopped { guest, at: now, lease_ended }));
        if let Err(error) = keep(&self.memory) {
            tracing::warn!(%error, "which guests were stopped cannot be kept for a later guard");
        }
    }

    /// Why no watchdog is armed.
    pub(super) fn unarmed(&self) -> Option<&str> {
        self.watchdog.as_ref().err().map(String::as_str)
    }

    /// Reads one line and writes the answer, in place of what is in `output`. True when everything is to be handed over to
    /// whoever asks: the guard itself answers that. What is asked again and again allocates nothing.
    pub(super) fn answer_into(&mut self, line: &[u8], now: Moment, keep: &Keep<'_>, output: &mut Vec<u8>) -> bool {
        if is_query(line) {
            write_line(output, &self.said());
            return false;
        }
        match self.answer(line, now, keep) {
            Reply::HandOver => {
                output.clear();
                true
            }
            reply @ (Reply::Done | Reply::Refused { .. } | Reply::Status(_)) => {
                write_line(output, &reply);
                false
            }
        }
    }

    /// Reads and answers one line.
    pub(super) fn answer(&mut self, line: &[u8], now: Moment, keep: &Keep<'_>) -> Reply {
        let request = match granted(line) {
            Some(deadline) => Ok(Request::Grant { deadline }),
            None => serde_json::from_slice(line),
        };
        let result = match request {
            Ok(request) => self.apply(request, now, keep),
            Err(error) => Err(Refused::Unreadable(error.to_string())),
        };
        result.unwrap_or_else(|refused| self.refuse(&refused))
    }

    /// Counts and words a refusal.
    pub(super) fn refuse(&mut self, refused: &Refused) -> Reply {
        self.refused += 1;
        if !self.refusing {
            tracing::warn!(reason = %refused, "the guard refuses requests");
        }
        self.refusing = true;
        Reply::Refused { reason: refused.to_string() }
    }

    pub(super) fn apply(&mut self, request: Request, now: Moment, keep: &Keep<'_>) -> Result<Reply, Refused> {
        match request {
            Request::Grant { deadline } => self.grant(deadline, now, keep)?,
            Request::Revoke {} => self.change(Memory { deadline: None, ..self.memory.clone() }, keep)?,
            Request::Register { guest, cgroup } => self.register(guest, cgroup, keep)?,
            Request::Unregister { guest } => self.unregister(&guest, keep)?,
            Request::Voters { addresses } => self.replace_voters(addresses, keep)?,
            Request::StopMode { stops } => self.stop_mode(stops, keep)?,
            Request::HandOver {} => return Ok(Reply::HandOver),
            Request::Query {} => return Ok(Reply::Status(Box::new(self.status()))),
        }
        self.refusing = false;
        Ok(Reply::Done)
    }

    /// A deadline that cannot be kept counts all the same: a later guard of this boot would stop guests too early, which
    /// is safe, and this one would if it refused.
    fn grant(&mut self, asked: Moment, now: Moment, keep: &Keep<'_>) -> Result<(), Refused> {
        if let Some(granted) = self.memory.deadline.filter(|granted| asked < *granted) {
            return Err(Refused::Backwards { asked, granted });
        }
        if asked > now.plus(self.lease_max) {
            return Err(Refused::TooFar { asked, lease_max: self.lease_max });
        }
        self.memory.deadline = Some(asked);
        self.keep_if_possible(keep);
        Ok(())
    }

    fn keep_if_possible(&mut self, keep: &Keep<'_>) {
        let failure = keep(&self.memory).err();
        match (&failure, self.unkept) {
            (Some(error), false) => tracing::warn!(%error, "the lease cannot be kept for a later guard"),
            (None, true) => tracing::info!("the lease can be kept again"),
            (Some(_), true) | (None, false) => {}
        }
        self.unkept = failure.is_some();
    }

    fn register(&mut self, guest: GuestName, cgroup: PathBuf, keep: &Keep<'_>) -> Result<(), Refused> {
        if !is_plain(&cgroup) {
            return Err(Refused::Cgroup { path: cgroup });
        }
        let mut memory = self.memory.clone();
        let entry = Guest { guest: guest.clone(), cgroup };
        if memory.guests.len() >= GUESTS_MAX && !memory.guests.contains(&entry) {
            return Err(Refused::Full);
        }
        memory.guests.insert(entry);
        memory.stopped.retain(|stopped| stopped.guest != guest);
        self.change(memory, keep)
    }

    fn unregister(&mut self, guest: &GuestName, keep: &Keep<'_>) -> Result<(), Refused> {
        let mut memory = self.memory.clone();
        memory.guests.retain(|known| known.guest != *guest);
        memory.stopped.retain(|stopped| stopped.guest != *guest);
        self.change(memory, keep)
    }

    fn stop_mode(&mut self, stops: bool, keep: &Keep<'_>) -> Result<(), Refused> {
        if self.memory.stops != stops {
            tracing::info!(stops, "whether guests are stopped when the lease runs out has changed");
        }
        let begins = stops && !self.memory.stops;
        self.change(Memory { stops, ..self.memory.clone() }, keep)?;
        if begins {
            // What a trial has shown is not armed yet.
            self.watchdog = Err(UNOPENED.to_owned());
        }
        Ok(())
    }

    /// Changes what is known once it is kept: what a later guard must not forget is not acted on before (R13).
    fn change(&mut self, memory: Memory, keep: &Keep<'_>) -> Result<(), Refused> {
        if memory != self.memory {
            keep(&memory).map_err(|error| Refused::Unkept(error.to_string()))?;
            self.registrations += u64::from(memory.guests != self.memory.guests);
            self.memory = memory;
        }
        Ok(())
    }

    /// Those that cannot be kept get the beacon all the same. They are kept with the next lease that can be.
    fn replace_voters(&mut self, addresses: Vec<SocketAddr>, keep: &Keep<'_>) -> Result<(), Refused> {
        if addresses.len() > VOTERS_MAX {
            return Err(Refused::Voters { count: addresses.len() });
        }
        if addresses != self.memory.voters {
            self.memory.voters = addresses;
            self.keep_if_possible(keep);
        }
        Ok(())
    }

    fn status(&self) -> Status {
        Status {
            incarnation: self.memory.incarnation.clone(),
            pid: self.pid,
            started: self.started,
            deadline: self.memory.deadline,
            guests: self.memory.guests.iter().cloned().collect(),
            voters: self.voters().to_vec(),
            refused: self.refused,
            armed: Some(self.armed()),
            unarmed: self.watchdog.as_ref().err().filter(|_| self.memory.stops).cloned(),
            stopped: self.memory.stopped.clone(),
            hardened: self.hardened.clone(),
        }
    }

    /// The same as [`Self::status`], borrowed.
    fn said(&self) -> Said<'_> {
        Said {
            incarnation: &self.memory.incarnation,
            pid: self.pid,
            started: self.started,
            deadline: self.memory.deadline,
            guests: &self.memory.guests,
            voters: self.voters(),
            refused: self.refused,
            armed: SaidArmed {
                stops: self.memory.stops,
                guard_ms: millis(GUARD_MAX),
                watchdog: self.watchdog.as_ref().ok(),
            },
            unarmed: self.unarmed().filter(|_| self.memory.stops),
            stopped: &self.memory.stopped,
            hardened: self.hardened.as_ref(),
        }
    }

    fn armed(&self) -> Armed {
        let watchdog = self.watchdog.as_ref().ok().cloned();
        Armed { stops: self.memory.stops, guard_ms: millis(GUARD_MAX), watchdog }
    }
}

fn is_plain(path: &Path) -> bool {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    plain && path.is_absolute() && path.as_os_str().len() <= CGROUP_BYTES_MAX
}

#[cfg(test)]
mod tests;
