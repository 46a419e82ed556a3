//! What the guard knows, and what each request makes of it. No clock and no I/O.

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use holdfast_policies::{
    names::{GuestName, Incarnation},
    time::{Moment, millis},
};

use super::protocol::{CGROUP_BYTES_MAX, GUESTS_MAX, Guest, Reply, Request, Status, VOTERS_MAX};

/// Everything that the guard knows.
#[derive(Debug)]
pub(super) struct State {
    incarnation: Incarnation,
    pid: u32,
    started: Moment,
    lease_max: Duration,
    deadline: Option<Moment>,
    guests: BTreeSet<Guest>,
    voters: Vec<SocketAddr>,
    refused: u64,
}

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
}

impl State {
    /// A guard that starts with nothing but the voters of the host file. `lease_max` bounds how far ahead a deadline
    /// may lie.
    pub(super) fn new(incarnation: Incarnation, started: Moment, lease_max: Duration, voters: Vec<SocketAddr>) -> Self {
        let pid = std::process::id();
        Self { incarnation, pid, started, lease_max, deadline: None, guests: BTreeSet::new(), voters, refused: 0 }
    }

    pub(super) fn incarnation(&self) -> &Incarnation {
        &self.incarnation
    }

    pub(super) fn voters(&self) -> &[SocketAddr] {
        &self.voters
    }

    /// What is left of the lease; zero once it ran out.
    pub(super) fn lease_left(&self, now: Moment) -> Option<Duration> {
        self.deadline.map(|deadline| deadline.since(now))
    }

    pub(super) fn uptime(&self, now: Moment) -> Duration {
        now.since(self.started)
    }

    /// Reads and answers one line.
    pub(super) fn answer(&mut self, line: &[u8], now: Moment) -> Reply {
        let result = match serde_json::from_slice(line) {
            Ok(request) => self.apply(request, now),
            Err(error) => Err(Refused::Unreadable(error.to_string())),
        };
        result.unwrap_or_else(|refused| self.refuse(&refused))
    }

    /// Counts and words a refusal.
    pub(super) fn refuse(&mut self, refused: &Refused) -> Reply {
        self.refused += 1;
        tracing::warn!(reason = %refused, "the guard refused a request");
        Reply::Refused { reason: refused.to_string() }
    }

    pub(super) fn apply(&mut self, request: Request, now: Moment) -> Result<Reply, Refused> {
        match request {
            Request::Grant { deadline } => self.grant(deadline, now)?,
            Request::Revoke {} => self.deadline = None,
            Request::Register { guest, cgroup } => self.register(guest, cgroup)?,
            Request::Unregister { guest } => self.guests.retain(|known| known.guest != guest),
            Request::Voters { addresses } => self.replace_voters(addresses)?,
            Request::Query {} => return Ok(Reply::Status(self.status())),
        }
        Ok(Reply::Done)
    }

    fn grant(&mut self, asked: Moment, now: Moment) -> Result<(), Refused> {
        if let Some(granted) = self.deadline.filter(|granted| asked < *granted) {
            return Err(Refused::Backwards { asked, granted });
        }
        if asked > now.plus(self.lease_max) {
            return Err(Refused::TooFar { asked, lease_max: self.lease_max });
        }
        self.deadline = Some(asked);
        Ok(())
    }

    fn register(&mut self, guest: GuestName, cgroup: PathBuf) -> Result<(), Refused> {
        if !is_plain(&cgroup) {
            return Err(Refused::Cgroup { path: cgroup });
        }
        let guest = Guest { guest, cgroup };
        if self.guests.len() >= GUESTS_MAX && !self.guests.contains(&guest) {
            return Err(Refused::Full);
        }
        self.guests.insert(guest);
        Ok(())
    }

    fn replace_voters(&mut self, addresses: Vec<SocketAddr>) -> Result<(), Refused> {
        if addresses.len() > VOTERS_MAX {
            return Err(Refused::Voters { count: addresses.len() });
        }
        self.voters = addresses;
        Ok(())
    }

    fn status(&self) -> Status {
        Status {
            incarnation: self.incarnation.clone(),
            pid: self.pid,
            started: self.started,
            deadline: self.deadline,
            guests: self.guests.iter().cloned().collect(),
            voters: self.voters.clone(),
            refused: self.refused,
        }
    }
}

fn is_plain(path: &Path) -> bool {
    let plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    plain && path.is_absolute() && path.as_os_str().len() <= CGROUP_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::{super::protocol::REPLY_BYTES_MAX, *};

    fn state() -> State {
        State::new(Incarnation::new("boot-1").unwrap(), Moment(100), Duration::from_secs(8), Vec::new())
    }

    fn grant(deadline: u64) -> Request {
        Request::Grant { deadline: Moment(deadline) }
    }

    #[test]
    fn a_deadline_goes_back_only_by_a_revocation() {
        let mut state = state();
        let now = Moment(1_000);
        assert_eq!(state.apply(grant(5_000), now), Ok(Reply::Done));
        assert_eq!(state.apply(grant(5_000), now), Ok(Reply::Done), "twice is as good as once");
        let refused = Refused::Backwards { asked: Moment(4_999), granted: Moment(5_000) };
        assert_eq!(state.apply(grant(4_999), now), Err(refused));
        assert!(matches!(state.apply(grant(9_001), now), Err(Refused::TooFar { .. })));
        assert_eq!(state.lease_left(Moment(4_000)), Some(Duration::from_secs(1)));
        assert_eq!(state.lease_left(Moment(6_000)), Some(Duration::ZERO));
        state.apply(Request::Revoke {}, now).unwrap();
        assert_eq!(state.lease_left(now), None);
        assert_eq!(state.apply(grant(2_000), now), Ok(Reply::Done));
    }

    #[test]
    fn registrations_are_bounded_and_a_full_status_fits_an_answer() {
        let mut state = state();
        let guest = |index: usize| GuestName::new(format!("{:x<59}{index:04}", "g")).unwrap();
        let register = |index: usize| Request::Register {
            guest: guest(index),
            cgroup: PathBuf::from(format!("/{}", "c".repeat(CGROUP_BYTES_MAX - 1))),
        };
        for index in 0..GUESTS_MAX {
            assert_eq!(state.apply(register(index), Moment(0)), Ok(Reply::Done));
        }
        assert_eq!(state.apply(register(0), Moment(0)), Ok(Reply::Done));
        assert_eq!(state.apply(register(GUESTS_MAX), Moment(0)), Err(Refused::Full));
        let full = serde_json::to_vec(&state.apply(Request::Query {}, Moment(0)).unwrap()).unwrap();
        assert!(u64::try_from(full.len()).unwrap() < REPLY_BYTES_MAX / 2);
        state.apply(Request::Unregister { guest: guest(0) }, Moment(0)).unwrap();
        assert_eq!(state.apply(register(GUESTS_MAX), Moment(0)), Ok(Reply::Done));
    }

    #[test]
    fn a_request_that_cannot_be_read_is_counted_and_changes_nothing() {
        let mut state = state();
        let before = state.status();
        let lines: [&[u8]; 7] = [
            b"",
            b"\xff",
            b"{}",
            b"{\"request\":\"explode\"}",
            b"{\"request\":\"grant\",\"deadline\":-1}",
            b"{\"request\":\"register\",\"guest\":\"g\",\"cgroup\":\"../x\"}",
            b"{\"request\":\"register\",\"guest\":\"../g\",\"cgroup\":\"/x\"}",
        ];
        for line in lines {
            assert!(matches!(state.answer(line, Moment(0)), Reply::Refused { .. }), "{line:?}");
        }
        assert_eq!(state.status(), Status { refused: 7, ..before });
    }
}
