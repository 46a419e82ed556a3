//! The lease as a fence: what a boot is committed to have armed, and from when on its guests cannot run any more (R9
//! `LeaseExpired`, R14, R19).
//!
//! ```text
//!          a sync says what is armed            it falls silent, or is to be fenced
//!  nothing ------------------------> open ------------------------------------------> closed --time--> safe
//!     ^                              | ^                                                |
//!     |  its lease level changes,    | |           its newest sync says it again        |
//!     +---------- a new boot --------+ +------------------------------------------------+
//! ```
//! A `stop` host gets leases only while its record is open and says what the host itself says, so no lease is ever granted
//! under an arming that the record overstates. From the commit of its closing no leader grants one: then the last grant is
//! known, and so is the moment at which the guests are stopped.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::{
    armed::Armed,
    change::Change,
    evidence::{Evidence, Heard},
    model::Policies,
    names::{Epoch, GuestName, HostName},
    state::{ClusterState, Host, Life, Tenure},
    sync::SyncRequest,
    time::{Moment, Now, SPAN_MAX, Span, WallTime, millis},
};

/// What is committed about the lease of a host's boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct HostLease {
    /// The log index at which the host's lease level was declared, changed or taken away; 0 when it never was.
    #[serde(default)]
    pub declared: u64,
    /// What its boot has armed, once that is committed. Only hosts with a lease level have it.
    #[serde(default)]
    pub record: Option<Record>,
    /// The longest times that were ever committed of this boot: a shorter one that follows shortens no wait.
    #[serde(default)]
    pub longest: Longest,
    /// The log index at which the record was opened again after it had been closed; 0 when it never was.
    #[serde(default)]
    pub reopened: u64,
    /// Guests that this boot may not run any more, since it was proven gone, and up to which epoch (R10).
    #[serde(default)]
    pub owes: BTreeMap<GuestName, Epoch>,
}

/// What a boot has armed, as committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What its agent said.
    pub armed: Option<Armed>,
    /// The log index at which that was committed.
    pub since: u64,
    /// The log index from which on it gets no lease; `None` while it gets some.
    pub closed: Option<u64>,
}

/// The longest of each time, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Longest {
    /// The lease that may be granted.
    pub lease_ms: u64,
    /// From the end of the lease until the guests are stopped, or the watchdog is petted for the last time.
    pub guard_ms: u64,
    /// From then until the watchdog fires.
    pub watchdog_ms: u64,
}

/// What `LeaseExpired` of a host would rest on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ground {
    /// How long it lasts.
    pub longest: Longest,
    /// The watchdog.
    pub watchdog: String,
    /// The log index from which on the host gets no lease, if it gets none.
    pub closed: Option<u64>,
}

/// Why a host's lease proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoGround {
    /// It has no lease level, so its guests outlive its lease (R14).
    #[error("no lease level is declared for it")]
    NoLevel,
    /// Nothing is committed of this boot.
    #[error("its boot has not said yet what it has armed")]
    NotRecorded,
    /// Its guard arms nothing, or does not stop guests.
    #[error("its guard does not stop guests when the lease runs out")]
    NoGuard,
    /// Nothing would stop the guests of a host that stands still.
    #[error("it has no watchdog armed")]
    NoWatchdog,
    /// Its watchdog stands still with the host, as far as anybody knows.
    #[error("its watchdog ({identity}) is none of its own hardware, and nobody vouches for it (`watchdog_trusted_by`)")]
    Untrusted {
        /// The watchdog.
        identity: String,
    },
}

/// Why a host cannot be made to rely on its lease.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unarmed {
    /// It has no watchdog, or none to rely on.
    #[error(
        "{host} would rely on its lease, and {why}: nothing would stop its guests while it stands still. Give it a \
         watchdog (`watchdog` in its host file), or leave `lease` out of its fencing"
    )]
    Lacks {
        /// Which.
        host: HostName,
        /// What is missing.
        why: String,
    },
    /// Nobody knows whether it has one; that may change by itself.
    #[error(
        "{host} would rely on its lease, and {why}: it is not known whether it has a watchdog. Apply again when it is, or \
         leave `lease` out of its fencing until then"
    )]
    Unknown {
        /// Which.
        host: HostName,
        /// What is waited for.
        why: String,
    },
}

/// From when on a host's guests cannot run any more by its lease, if it is not granted another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SafeAt {
    /// When.
    pub at: WallTime,
    /// How much longer, in milliseconds; 0 once it is so.
    pub left_ms: u64,
    /// When the last possible grant was.
    pub granted: WallTime,
    /// What is waited for.
    pub longest: Longest,
}

impl Longest {
    /// From the last possible grant until no guest runs: the lease, the guard and the watchdog, and 5 % of the whole for drift
    /// (R1). The host counts all three of them on clocks of its own, so the margin is here, and nowhere else. It is rounded up
    /// to whole milliseconds: moments have no smaller ones.
    #[must_use]
    pub fn wait(&self) -> Duration {
        let counted = self.lease_ms.saturating_add(self.guard_ms).saturating_add(self.watchdog_ms);
        Duration::from_millis(counted.saturating_add(counted.div_ceil(20)))
    }

    /// The longer of each.
    fn max(self, other: Self) -> Self {
        Self {
            lease_ms: self.lease_ms.max(other.lease_ms),
            guard_ms: self.guard_ms.max(other.guard_ms),
            watchdog_ms: self.watchdog_ms.max(other.watchdog_ms),
        }
    }
}

impl HostLease {
    /// What is left of it for another boot.
    pub(crate) fn of_new_boot(&self) -> Self {
        Self { declared: self.declared, ..Self::default() }
    }

    /// What is left of it in a new generation (R25): what is armed has to be said anew, by an agent that has learned of the
    /// generation and so takes no lease of an older one any more. The longest times go on counting.
    pub(crate) fn of_new_generation(&self, index: u64) -> Self {
        let declared = if self.declared == 0 { 0 } else { index };
        Self { declared, longest: self.longest, ..Self::default() }
    }

    /// Takes in what a boot has armed, and what it may be granted.
    pub(crate) fn record(&mut self, armed: Option<Armed>, lease_ms: u64, index: u64) {
        // Whatever a host says, sums of it cannot overflow.
        let bounded = |ms: u64| ms.min(millis(SPAN_MAX));
        let watchdog = armed.as_ref().and_then(|armed| armed.watchdog.as_ref());
        self.longest = self.longest.max(Longest {
            lease_ms: bounded(lease_ms),
            guard_ms: bounded(armed.as_ref().map_or(0, |armed| armed.guard_ms)),
            watchdog_ms: bounded(watchdog.map_or(0, |watchdog| watchdog.timeout_ms)),
        });
        if self.record.as_ref().is_some_and(|record| record.closed.is_some()) {
            self.reopened = index;
        }
        self.record = Some(Record { armed, since: index, closed: None });
    }

    /// From this index on the boot gets no lease.
    pub(crate) fn close(&mut self, index: u64) {
        if let Some(record) = &mut self.record {
            record.closed.get_or_insert(index);
        }
    }
}

impl ClusterState {
    /// What `LeaseExpired` of the host would rest on.
    ///
    /// # Errors
    /// [`NoGround`]: what is missing.
    pub(crate) fn lease_ground(&self, host: &HostName) -> Result<Ground, NoGround> {
        let level = self.policies.lease_level(host).ok_or(NoGround::NoLevel)?;
        let lease = self.hosts.get(host).map(|known| &known.lease).ok_or(NoGround::NotRecorded)?;
        let record = lease.record.as_ref().ok_or(NoGround::NotRecorded)?;
        let watchdog = usable(record.armed.as_ref(), level.watchdog_trusted_by.is_some())?;
        if !record.armed.as_ref().is_some_and(|armed| armed.stops) {
            return Err(NoGround::NoGuard);
        }
        Ok(Ground { longest: lease.longest, watchdog, closed: record.closed })
    }

    /// The log index at which the host of a tenure got leases again after it had got none, if that was since the tenure began.
    pub(crate) fn lease_reopened_since(&self, tenure: &Tenure) -> Option<u64> {
        let reopened = self.hosts.get(&tenure.host)?.lease.reopened;
        let at = Epoch { generation: self.generation, index: reopened };
        (reopened > 0 && at > tenure.epoch).then_some(reopened)
    }

    /// Why the boot that syncs gets no lease although nothing else is against it: a `stop` host gets one only under a
    /// committed record that says what it says itself.
    pub(crate) fn lease_withheld(&self, request: &SyncRequest, lease: Duration) -> Option<String> {
        self.policies.lease_level(&request.host)?;
        let known = &self.hosts.get(&request.host)?.lease;
        let why = match &known.record {
            None => "it is not committed yet what its boot has armed",
            Some(Record { closed: Some(_), .. }) => "it was silent, and its lease runs out before it gets another one",
            Some(Record { armed, .. }) if *armed != request.armed => "it has armed something else than is committed",
            Some(_) if known.longest.lease_ms < millis(lease) => "it is not committed yet how long its lease lasts",
            Some(_) => return None,
        };
        Some(why.to_owned())
    }
}

/// The watchdog of what is armed, if it is one to rely on. Whether the guard stops guests is a matter of policies: it does
/// so from when it has learned of a lease level.
///
/// # Errors
/// [`NoGround`]: why it is none.
pub fn usable(armed: Option<&Armed>, trusted: bool) -> Result<String, NoGround> {
    let watchdog = armed.and_then(|armed| armed.watchdog.as_ref()).ok_or(NoGround::NoWatchdog)?;
    if watchdog.is_virtual && !trusted {
        return Err(NoGround::Untrusted { identity: watchdog.identity.clone() });
    }
    Ok(watchdog.identity.clone())
}

/// What is to be committed of what a sync says that its host has armed, before the host gets a lease of this length.
#[must_use]
pub fn to_record(state: &ClusterState, request: &SyncRequest, lease: Duration) -> Option<Change> {
    state.policies.lease_level(&request.host)?;
    let host = state.hosts.get(&request.host)?;
    let record = host.lease.record.as_ref();
    let open = record.is_some_and(|record| record.closed.is_none());
    let same = record.is_some_and(|record| record.armed == request.armed);
    let long_enough = host.lease.longest.lease_ms >= millis(lease);
    // What its agent has seen waits for its disk. The view that it has does not, and is of that index or a later one.
    let seen = request.seen.index.max(request.known_view);
    // What was sent before this was committed is not the newest word.
    let late = record.is_some_and(|record| !same && seen < record.since);
    let speaks = host.facts.incarnation == request.facts.incarnation && host.life == Life::Up && !host.is_contested();
    let learned = state.is_known_by(request.seen) && request.known_view >= host.lease.declared;
    (speaks && learned && !late && !(open && same && long_enough)).then(|| Change::HostArmed {
        host: request.host.clone(),
        incarnation: request.facts.incarnation.clone(),
        armed: request.armed.clone(),
        lease_ms: millis(lease),
        known_view: request.known_view,
        seen,
    })
}

/// When the last possible grant of a lease to the host's boot was: this leader's own, or when its authority began (R18).
#[must_use]
pub fn last_grant(state: &ClusterState, evidence: &Evidence, host: &HostName) -> Option<Moment> {
    let incarnation = &state.hosts.get(host)?.facts.incarnation;
    let granted = evidence.hosts.get(host).and_then(|known| known.granted.as_ref());
    let own = granted.filter(|granted| granted.incarnation == *incarnation).map(|granted| granted.at);
    evidence.authority_since.map(|since| own.map_or(since, |own| own.max(since)))
}

/// From when on the host's guests cannot run any more, if it gets no lease until then.
///
/// # Errors
/// [`NoGround`]: why its lease does not say so.
pub fn safe_at(state: &ClusterState, evidence: &Evidence, host: &HostName, now: Now) -> Result<SafeAt, NoGround> {
    let ground = state.lease_ground(host)?;
    let granted = last_grant(state, evidence, host).ok_or(NoGround::NotRecorded)?;
    let left_ms = millis(granted.plus(ground.longest.wait()).since(now.moment));
    let ago = millis(now.moment.since(granted));
    Ok(SafeAt {
        at: WallTime((now.wall.0.saturating_sub(ago)).saturating_add(millis(ground.longest.wait()))),
        left_ms,
        granted: WallTime(now.wall.0.saturating_sub(ago)),
        longest: ground.longest,
    })
}

/// Why a declaration cannot be: it makes hosts rely on their lease of which one has no watchdog, or none that is known.
/// One that has none is named before one of which nothing is known.
#[must_use]
pub fn unarmed(state: &ClusterState, evidence: &Evidence, policies: &Policies) -> Option<Unarmed> {
    let found = state.policies.lease_levels_changed(policies).into_iter().filter_map(|host| {
        let trusted = policies.lease_level(&host)?.watchdog_trusted_by.is_some();
        stands_against(state, evidence, &host, trusted)
    });
    found.min_by_key(|unarmed| matches!(unarmed, Unarmed::Unknown { .. }))
}

fn stands_against(state: &ClusterState, evidence: &Evidence, host: &HostName, trusted: bool) -> Option<Unarmed> {
    let unknown = |why: &str| Some(Unarmed::Unknown { host: host.clone(), why: why.to_owned() });
    let lacks = |why: String| Some(Unarmed::Lacks { host: host.clone(), why });
    let Some(known) = state.hosts.get(host) else { return unknown("it has not joined yet") };
    let of_this_boot = |sync: &Heard| sync.incarnation == known.facts.incarnation;
    let heard = evidence.hosts.get(host).filter(|heard| heard.sync.as_ref().is_some_and(of_this_boot));
    match heard.map(|heard| (&heard.armed, heard.has_watchdog)) {
        None if is_gone(known) => None,
        None => unknown("it has not been heard since this coordinator took over"),
        Some((None, Some(false))) => lacks("its host file names no watchdog".to_owned()),
        Some((None, None | Some(true))) => unknown("its guard has not said yet whether it can arm one"),
        Some((Some(armed), _)) => lacks(usable(Some(armed), trusted).err()?.to_string()),
    }
}

/// What a declaration leaves open: hosts that are gone are to rely on their lease when they are back. They would keep
/// everybody from declaring anything if they were waited for, and nothing rests on their lease before they have armed.
#[must_use]
pub fn left_open(state: &ClusterState, policies: &Policies) -> Vec<String> {
    let hosts: BTreeSet<HostName> = state.policies.lease_levels_changed(policies).into_iter().collect();
    let open = hosts.iter().filter(|host| policies.lease_level(host).is_some());
    let gone = open.filter(|host| state.hosts.get(*host).is_some_and(is_gone));
    gone.map(|host| {
        format!("? {host} is gone: whether it has a watchdog is seen when it is back; if not, `lease/{host}` says so")
    })
    .collect()
}

fn is_gone(host: &Host) -> bool {
    matches!(host.life, Life::Gone { .. })
}

impl Policies {
    /// The hosts of which the lease levels of two declarations differ.
    pub(crate) fn lease_levels_changed(&self, to: &Policies) -> Vec<HostName> {
        let hosts = self.fencing.keys().chain(to.fencing.keys());
        let differs = |host: &&HostName| self.lease_level(host) != to.lease_level(host);
        hosts.filter(differs).cloned().collect()
    }
}

impl fmt::Display for Longest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [lease, guard, watchdog] = [self.lease_ms, self.guard_ms, self.watchdog_ms].map(Span::ms);
        write!(f, "lease {lease} + guard {guard} + watchdog {watchdog} + 5 % for clocks")
    }
}

impl fmt::Display for SafeAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "safe at {}: {}, last granted {}", clock(self.at), self.longest, clock(self.granted))
    }
}

/// The time of day as `12:04:31Z`.
pub(crate) fn clock(at: WallTime) -> String {
    let seconds = at.0 / 1_000 % 86_400;
    format!("{:02}:{:02}:{:02}Z", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}

#[cfg(test)]
mod tests;
