//! Hosts that fail one after another, each soon after the same guest has come there: that guest may be what fails them, by a defect of
//! the hypervisor that only it meets, or by what it takes. It starts elsewhere each time, as it is meant to, until no host is left.
//!
//! Most guests that lose two hosts are only unlucky, so nothing is held for it: people are told, who can keep it down. It is read from
//! the journal, whose times are those of wall clocks: words are all that follows from them (R1).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::{Decision, Round, fences::open};
use crate::{
    change::Change,
    journal::{Entry, Event},
    model::Severity,
    names::{GuestName, HostName},
    state::Wanted,
    time::{WallTime, millis},
};

/// The incident.
const KEY: &str = "host_after_host";

/// How soon after a guest has come to a host that host has to fail: time for a large guest to boot and to take its load. Of a host that
/// has borne it for longer it is less likely to be the reason.
const SOON: Duration = Duration::from_secs(600);

/// How long the failure of a host counts.
const COUNTS_FOR: Duration = Duration::from_secs(3_600);

/// Hosts that have to fail: with the second one it is a row, and in a small cluster there is hardly a third.
const HOSTS_MIN: usize = 2;

/// Guests that are named: where many have come from host to host together, the list helps nobody.
const NAMED_MAX: usize = 4;

/// Newest entries of the journal that are looked at: many times what the failures of a few hosts leave, and read in a moment.
const ENTRIES_MAX: usize = 2_000;

/// Where a guest is.
struct Stay<'a> {
    host: &'a HostName,
    since: WallTime,
    /// The log index with which it was ordered to be stopped there.
    released: Option<u64>,
}

/// Tells of such hosts, and when the newest failures are long ago, or nobody wants the guests to run any more.
pub(super) fn decide(round: &Round<'_>, decision: &mut Decision) {
    let wanted = |guest: &GuestName| round.state.guests.get(guest).is_some_and(|known| known.wanted == Wanted::Running);
    let lost = lost_soon(round).into_iter();
    let mut lost: Vec<_> = lost.filter(|(guest, hosts)| hosts.len() >= HOSTS_MIN && wanted(guest)).collect();
    if lost.is_empty() {
        if round.told.by_key(KEY).is_some() {
            decision.commands.push(Change::IncidentResolved { key: KEY.to_owned() });
        }
        return;
    }
    lost.sort_by_key(|(guest, hosts)| (Reverse(hosts.len()), *guest));
    let mut named: Vec<String> = lost.iter().take(NAMED_MAX).map(|(guest, hosts)| of_one(guest, hosts)).collect();
    let more = lost.len().saturating_sub(NAMED_MAX);
    if more > 0 {
        named.push(format!("{more} more"));
    }
    let summary = format!(
        "hosts fail one after another, each within {} minutes after the same guests have come there: {}",
        SOON.as_secs() / 60,
        named.join("; ")
    );
    let human = "One of these guests may be what fails its host, and it starts on the next one. `holdfast guest stop GUEST` keeps one \
                 down; `holdfast suspend` has nothing started or moved anywhere while you look. If it is none of them, nothing is to be \
                 done: this ends when the newest failure is an hour ago.";
    open(round, decision, KEY.to_owned(), Severity::Critical, summary, Some(human.to_owned()));
}

fn of_one(guest: &GuestName, hosts: &BTreeSet<&HostName>) -> String {
    let hosts: Vec<&str> = hosts.iter().map(|host| host.as_str()).collect();
    format!("{guest} ({})", hosts.join(", "))
}

/// The hosts that have failed soon after a guest had come there, by guest.
fn lost_soon<'a>(round: &Round<'a>) -> BTreeMap<&'a GuestName, BTreeSet<&'a HostName>> {
    let state = round.state;
    let ago = |time: Duration| round.now.wall.0.saturating_sub(millis(time));
    let (begin, counts) = (ago(COUNTS_FOR + SOON), ago(COUNTS_FOR));
    let newest = state.journal.entries().rev().take(ENTRIES_MAX);
    let recent: Vec<&'a Entry> = newest.take_while(|entry| entry.at.0 >= begin).collect();
    let (mut stays, mut lost) = (BTreeMap::new(), BTreeMap::new());
    for entry in recent.into_iter().rev() {
        follow(&mut stays, entry);
        if entry.at.0 >= counts {
            note_lost(&stays, entry, &mut lost);
        }
    }
    lost
}

/// Where guests are after this entry.
fn follow<'a>(stays: &mut BTreeMap<&'a GuestName, Stay<'a>>, entry: &'a Entry) {
    match &entry.what {
        Event::GuestPlaced { guest, host, .. }
        | Event::MigrationSwitched { guest, to: host, .. }
        | Event::GuestFollowed { guest, to: host, .. } => {
            stays.insert(guest, Stay { host, since: entry.at, released: None });
        }
        Event::GuestReleasing { guest, .. } => {
            if let Some(stay) = stays.get_mut(guest) {
                stay.released = Some(entry.index);
            }
        }
        Event::GuestFree { guest, .. } => {
            stays.remove(guest);
        }
        _ => {}
    }
}

/// Notes whom the end of a host's boot has hit soon after they had come there.
fn note_lost<'a>(
    stays: &BTreeMap<&'a GuestName, Stay<'a>>,
    entry: &Entry,
    lost: &mut BTreeMap<&'a GuestName, BTreeSet<&'a HostName>>,
) {
    // A host that joins has booted anew for those that it is ordered to stop in the same moment.
    let (host, with) = match &entry.what {
        Event::HostGone { host, .. } => (host, None),
        Event::HostJoined { host, .. } => (host, Some(entry.index)),
        _ => return,
    };
    let is_hit = |stay: &Stay<'_>| {
        let is_soon = entry.at.0.saturating_sub(stay.since.0) <= millis(SOON);
        stay.host == host && is_soon && (with.is_none() || stay.released == with)
    };
    for (guest, stay) in stays.iter().filter(|(_, stay)| is_hit(stay)) {
        lost.entry(*guest).or_default().insert(stay.host);
    }
}
