//! Checks that span several declarations, perhaps in several files: what two of them must not share, and what one
//! needs from another.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};

use super::{
    finding::{Findings, Place},
    rules::Placement,
    text::quoted,
    value::Value,
};
use crate::{
    model::{Labels, Service},
    names::{BadName, GuestName, HostName, PolicyName, RuleName, ServiceName},
};

/// Most pairs of policies that are named for overlapping: the rest follows from them.
const OVERLAPS_MAX: usize = 100;

/// What was seen while reading, with its places. It also holds what had other mistakes, so that one mistake does not
/// hide another.
#[derive(Default)]
pub(super) struct Seen {
    /// Guests by name.
    pub(super) guests: BTreeMap<GuestName, GuestSeen>,
    /// Policies by name.
    pub(super) policies: BTreeMap<PolicyName, PolicySeen>,
    /// Hosts with fencing.
    pub(super) fencing: BTreeMap<HostName, Place>,
    /// Receivers by key.
    pub(super) receivers: BTreeMap<String, Place>,
    /// Disk images and whose they are.
    pub(super) disks: Vec<(String, GuestName, Place)>,
    /// MAC addresses and whose they are.
    pub(super) macs: Vec<(String, GuestName, Place)>,
    /// CIDs of vsock devices and whose they are.
    pub(super) cids: Vec<(String, GuestName, Place)>,
    /// Sockets of programs that carry vsock, and whose they are.
    pub(super) vsock_sockets: Vec<(String, GuestName, Place)>,
    /// Controllers and which host they switch.
    pub(super) controllers: Vec<(String, HostName, Place)>,
    /// Hosts with labels or capacities.
    pub(super) hosts: BTreeMap<HostName, Place>,
    /// Rules by name.
    pub(super) rules: BTreeMap<RuleName, Place>,
    /// Placements of policies, until all guests are known.
    pub(super) placements: Vec<(PolicyName, Placement)>,
    /// Where they stand.
    pub(super) placement_places: Vec<Place>,
    /// The section `cluster`.
    pub(super) cluster: Option<Place>,
    /// Where the failure domain is named.
    pub(super) failure_domain: Option<Place>,
    /// Capacities of which is said how they count.
    pub(super) capacities: Vec<(String, Place)>,
}

/// What matters about a guest to others.
pub(super) struct GuestSeen {
    /// Its name.
    pub(super) place: Place,
    /// Its labels.
    pub(super) labels: Labels,
    /// Whether it has an address, right or wrong.
    pub(super) addressed: bool,
    /// Where QEMU's agent is switched off.
    pub(super) agent_off: Option<Place>,
    /// Whether it has Holdfast's own, which answers most questions from inside and restarts services.
    pub(super) own_agent: bool,
}

/// What matters about a policy to others.
pub(super) struct PolicySeen {
    /// Its name.
    pub(super) place: Place,
    /// Its `match`.
    pub(super) match_place: Place,
    /// What it matches.
    pub(super) matches: Labels,
    /// Whether its ladder restarts services, which the guest's agent does.
    pub(super) restarts_service: bool,
    /// Whether its ladder reboots guests, which QEMU's agent alone does.
    pub(super) reboots: bool,
    /// A service that asks at the guest's address.
    needs_address: Option<ServiceName>,
    /// A service that cannot come to a verdict without the guest's agent.
    needs_agent: Option<ServiceName>,
}

impl Seen {
    /// The entry for a guest.
    pub(super) fn guest(&mut self, name: &GuestName, place: Place) -> &mut GuestSeen {
        let new = || GuestSeen { place, labels: Labels::new(), addressed: true, agent_off: None, own_agent: false };
        self.guests.entry(name.clone()).or_insert_with(new)
    }

    /// The entry for a policy.
    pub(super) fn policy(&mut self, name: &PolicyName, place: Place) -> &mut PolicySeen {
        self.policies.entry(name.clone()).or_insert_with(|| PolicySeen {
            place,
            match_place: place,
            matches: Labels::new(),
            restarts_service: false,
            reboots: false,
            needs_address: None,
            needs_agent: None,
        })
    }

    /// Reads all entries of a section into what is declared by name. An entry under a name that an earlier file or document has
    /// declared is a mistake, and is not read.
    pub(super) fn read_each<N: FromStr<Err = BadName> + Ord, T>(
        &mut self,
        section: &Value<'_>,
        kind: &str,
        into: &mut BTreeMap<N, T>,
        first: impl Fn(&Self, &N) -> Option<Place>,
        read: impl Fn(&Value<'_>, &N, &mut Self) -> Option<T>,
    ) {
        for value in section.map().unwrap_or_default() {
            let Some(name) = value.key_name::<N>() else { continue };
            if let Some(first) = first(self, &name) {
                self.twice(&value, kind, first);
                continue;
            }
            if let Some(declared) = read(&value, &name, self) {
                into.insert(name, declared);
            }
        }
    }

    /// Notes a name that an earlier file or document has declared.
    pub(super) fn twice(&self, value: &Value<'_>, kind: &str, first: Place) {
        let what = format!("{kind} {} is declared twice", quoted(value.name));
        value.findings.hint(value.at, what, format!("first at {}; keep one of them", value.findings.name(first)));
    }
}

impl PolicySeen {
    /// Notes what a service needs from every guest.
    pub(super) fn wants(&mut self, name: &ServiceName, service: &Service) {
        if service.probe.needs_address(service.from.hosts) && self.needs_address.is_none() {
            self.needs_address = Some(name.clone());
        }
        if service.from.hosts < service.from.agree && self.needs_agent.is_none() {
            self.needs_agent = Some(name.clone());
        }
    }

    fn matches(&self, guest: &GuestSeen) -> bool {
        !self.matches.is_empty() && self.matches.iter().all(|(key, value)| guest.labels.get(key) == Some(value))
    }
}

/// All checks.
pub(super) fn check(seen: &Seen, findings: &Findings<'_>) {
    unique(&seen.disks, "disk", "guest", "one image belongs to one guest (R28)", findings);
    unique(&seen.macs, "MAC address", "guest", "two cards with one address disturb each other", findings);
    unique(&seen.cids, "CID", "guest", "on a host that runs both, the kernel would refuse the second", findings);
    unique(&seen.vsock_sockets, "socket", "guest", "one program carries the vsock of one guest", findings);
    unique(&seen.controllers, "controller", "host", "one of them would be switched off instead of the other", findings);
    let mut overlaps = BTreeSet::new();
    for (name, guest) in &seen.guests {
        let matching: Vec<_> = seen.policies.iter().filter(|(_, policy)| policy.matches(guest)).collect();
        overlap(name, &matching, &mut overlaps, findings);
        for (policy_name, policy) in matching {
            needs(name, guest, policy_name, policy, findings);
        }
    }
}

fn unique<N: std::fmt::Display>(
    all: &[(String, N, Place)],
    kind: &str,
    owner: &str,
    why: &str,
    findings: &Findings<'_>,
) {
    let mut first: BTreeMap<&str, (&N, Place)> = BTreeMap::new();
    for (thing, name, place) in all {
        match first.get(thing.as_str()) {
            None => {
                first.insert(thing, (name, *place));
            }
            Some((other, at)) => findings.hint(
                *place,
                format!(
                    "{kind} {} is already that of {owner} {} at {}",
                    quoted(thing),
                    quoted(&other.to_string()),
                    findings.name(*at)
                ),
                why,
            ),
        }
    }
}

type Matching<'s> = [(&'s PolicyName, &'s PolicySeen)];

fn overlap<'s>(
    guest: &GuestName,
    matching: &Matching<'s>,
    known: &mut BTreeSet<(&'s PolicyName, &'s PolicyName)>,
    findings: &Findings<'_>,
) {
    for pair in matching.windows(2) {
        let [(one, first), (other, second)] = pair else { continue };
        if known.len() >= OVERLAPS_MAX || !known.insert((one, other)) {
            continue;
        }
        let later = first.match_place.max(second.match_place);
        findings.hint(
            later,
            format!(
                "policies {} and {} both match guest {}",
                quoted(one.as_str()),
                quoted(other.as_str()),
                quoted(guest.as_str())
            ),
            format!(
                "a guest falls under one policy; the other begins at {}",
                findings.name(first.place.min(second.place))
            ),
        );
    }
}

fn needs(name: &GuestName, guest: &GuestSeen, policy_name: &PolicyName, policy: &PolicySeen, findings: &Findings<'_>) {
    let (name, policy_name) = (quoted(name.as_str()), quoted(policy_name.as_str()));
    if let (false, Some(service)) = (guest.addressed, &policy.needs_address) {
        let what = format!(
            "guest {name} has no `address`, at which policy {policy_name} asks its service {}",
            quoted(service.as_str())
        );
        findings.hint(guest.place, what, "add `address: 10.0.0.5`, the guest's own");
    }
    let Some(off) = guest.agent_off else { return };
    if let Some(service) = policy.needs_agent.as_ref().filter(|_| !guest.own_agent) {
        let what = format!(
            "guest {name} has no agent, without which policy {policy_name} cannot judge its service {}",
            quoted(service.as_str())
        );
        findings.hint(off, what, "set `agent: true`, or let the service be asked from as many `hosts` as must `agree`");
    }
    if policy.reboots && guest.own_agent {
        let what = format!("guest {name} has no QEMU guest agent, through which alone policy {policy_name} reboots");
        findings.hint(off, what, "set `agent: true`, or take `reboot_guest` off the ladder");
    }
    if (policy.restarts_service || policy.reboots) && !guest.own_agent {
        let what =
            format!("guest {name} has no agent, through which policy {policy_name} restarts services or reboots");
        findings.hint(off, what, "set `agent: true`, or take `restart_service` and `reboot_guest` off the ladder");
    }
}
