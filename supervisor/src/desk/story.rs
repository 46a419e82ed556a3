//! Incidents as stories: who saw what and when, what was decided and ordered, what proved it, how long it took.

use std::collections::BTreeSet;

use holdfast_policies::{
    incident::{Incident, Stages},
    journal::{Entry, Event},
    model::Severity,
    names::{GuestName, HostName},
    state::ClusterState,
    time::WallTime,
};
use serde::{Deserialize, Serialize};

use super::words::rfc3339;

/// Most incidents told at once, the newest.
const INCIDENTS_MAX: usize = 10;
/// Most lines of one story: a ladder climbed to its end takes about forty.
const LINES_MAX: usize = 200;
/// A little of what was before an incident, because its evidence may be there.
const BEFORE_MS: u64 = 2_000;

/// One incident with its story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IncidentStory {
    /// Unique number.
    pub id: u64,
    /// What it is about.
    pub key: String,
    /// Whether it still goes on.
    pub open: bool,
    /// How urgent it is.
    pub severity: Severity,
    /// When it was opened.
    pub opened_at: String,
    /// When it ended.
    pub resolved_at: Option<String>,
    /// The rung taken last.
    pub rung: Option<String>,
    /// The proof that let the guest start elsewhere, as a sentence.
    pub proof: Option<String>,
    /// What happened.
    pub summary: String,
    /// What a human must do; usually nothing.
    pub human: Option<String>,
    /// How long each stage took.
    pub stages: Stages,
    /// What happened, in order.
    pub story: Vec<StoryLine>,
}

/// One sentence of a story.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoryLine {
    /// When, in Unix milliseconds.
    pub at_ms: u64,
    /// When, for people.
    pub at: String,
    /// Milliseconds since the incident's beginning; negative for what was before.
    pub after_ms: i64,
    /// What.
    pub what: String,
}

/// The newest incidents of a guest, newest first.
pub(super) fn incidents(state: &ClusterState, guest: &GuestName) -> Vec<IncidentStory> {
    let own = state.incidents.values().rev().filter(|incident| concerns(incident, guest));
    own.take(INCIDENTS_MAX).map(|incident| tell(state, guest, incident)).collect()
}

/// Whether an incident is one of the guest. Those of its host are not: a host that fails with guests on it opens one of
/// each guest, which tells what the host's tells.
fn concerns(incident: &Incident, guest: &GuestName) -> bool {
    match incident.key.split_once('/') {
        Some(("guest" | "placement" | "degraded" | "unasked" | "warned", name)) => name == guest.as_str(),
        Some(("host" | "fencing" | "supervisor", _)) => false,
        _ => incident.guests.contains(guest),
    }
}

/// The part of the journal that an incident spans.
struct Window {
    from: u64,
    to: u64,
}

impl Window {
    fn of(incident: &Incident) -> Self {
        let begin = beginning(incident).0.min(incident.opened.0);
        Self { from: begin.saturating_sub(BEFORE_MS), to: incident.resolved.map_or(u64::MAX, |resolved| resolved.0) }
    }

    fn has(&self, entry: &Entry) -> bool {
        (self.from..=self.to).contains(&entry.at.0)
    }
}

/// The last sign that all was well; when there was none, the moment at which somebody noticed.
fn beginning(incident: &Incident) -> WallTime {
    incident.stamps.began.unwrap_or(incident.opened)
}

fn tell(state: &ClusterState, guest: &GuestName, incident: &Incident) -> IncidentStory {
    let window = Window::of(incident);
    let hosts = hosts_involved(state, guest, &window);
    let begin = beginning(incident);
    let entries = state.journal.entries().filter(|entry| window.has(entry));
    let mut story: Vec<StoryLine> = entries
        .filter(|entry| belongs(&entry.what, guest, &hosts, &incident.key))
        .map(|entry| line(entry.at, begin, entry.what.to_string()))
        .collect();
    if let Some(began) = incident.stamps.began {
        insert(&mut story, line(began, begin, format!("the last sign that {guest} was well")));
    }
    for seen in &incident.seen {
        insert(&mut story, line(seen.at, begin, format!("seen: {}", seen.what.join("; "))));
    }
    shorten(&mut story);
    IncidentStory {
        id: incident.id,
        key: incident.key.clone(),
        open: incident.is_open(),
        severity: incident.severity,
        opened_at: rfc3339(incident.opened),
        resolved_at: incident.resolved.map(rfc3339),
        rung: incident.rung.clone(),
        proof: incident.proof.as_ref().map(|(_, sentence)| sentence.clone()),
        summary: incident.summary.clone(),
        human: incident.human.clone(),
        stages: incident.stamps.stages(),
        story,
    }
}

/// Puts a line where its time is, before others of that time.
fn insert(story: &mut Vec<StoryLine>, line: StoryLine) {
    let place = story.partition_point(|other| other.at_ms < line.at_ms);
    story.insert(place, line);
}

fn line(at: WallTime, begin: WallTime, what: String) -> StoryLine {
    let signed = |ms: u64| i64::try_from(ms).unwrap_or(i64::MAX);
    StoryLine { at_ms: at.0, at: rfc3339(at), after_ms: signed(at.0).saturating_sub(signed(begin.0)), what }
}

/// Keeps the beginning, which says why, and the newest lines, which say how it stands.
fn shorten(story: &mut Vec<StoryLine>) {
    let more = story.len().saturating_sub(LINES_MAX);
    if more > 0 {
        let first = LINES_MAX / 2;
        story.drain(first..first + more);
        if let Some(line) = story.get_mut(first) {
            line.what = format!("[{more} entries before this one are left out; see `holdfast journal`] {}", line.what);
        }
    }
}

/// The hosts that the guest was on when the incident began, and those that it came to.
fn hosts_involved(state: &ClusterState, guest: &GuestName, window: &Window) -> BTreeSet<HostName> {
    let about = state.journal.entries().filter(|entry| entry.at.0 <= window.to && entry.what.guest() == Some(guest));
    let mut before = Vec::new();
    let mut involved = BTreeSet::new();
    for entry in about {
        let places = places(&entry.what);
        if window.has(entry) {
            involved.extend(places);
        } else if !places.is_empty() {
            before = places;
        }
    }
    involved.extend(before);
    involved.into_iter().cloned().collect()
}

/// Where an entry says that a guest is, was, or goes.
fn places(event: &Event) -> Vec<&HostName> {
    match event {
        Event::GuestAdopted { host, .. }
        | Event::GuestPlaced { host, .. }
        | Event::GuestStarted { host, .. }
        | Event::GuestVerified { host, .. }
        | Event::GuestReleasing { host, .. }
        | Event::MigrationEnded { host, .. } => vec![host],
        Event::GuestFollowed { from, to, .. }
        | Event::MigrationOrdered { from, to, .. }
        | Event::MigrationSwitched { from, to, .. } => vec![from, to],
        _ => Vec::new(),
    }
}

/// Whether an entry belongs to the story of a guest that was on these hosts.
fn belongs(event: &Event, guest: &GuestName, hosts: &BTreeSet<HostName>, key: &str) -> bool {
    match event {
        // The sentence of an order names what it is about as a word of its own.
        Event::OrderEnded { what, .. } => {
            what.split_whitespace().any(|word| word == guest.as_str() || hosts.iter().any(|host| word == host.as_str()))
        }
        Event::IncidentResolved { key: resolved } => resolved == key,
        Event::PoliciesApplied { .. } => true,
        other => other.guest() == Some(guest) || hosts.iter().any(|host| other.concerns_host(host)),
    }
}
