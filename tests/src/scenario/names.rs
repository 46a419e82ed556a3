//! Names of a scenario and of the product: a name that Holdfast would not take gets one that it takes, and goes back to
//! its own on the way out.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_policies::names::{GuestName, HostName};

use super::format::Scenario;

/// Both directions, for hosts and guests.
#[derive(Debug, Clone, Default)]
pub struct Names {
    hosts: BTreeMap<String, HostName>,
    guests: BTreeMap<String, GuestName>,
}

impl Names {
    /// Names for everything that a scenario speaks of.
    #[must_use]
    pub fn of(scenario: &Scenario) -> Self {
        let mut names = Self::default();
        let hosts: Vec<&str> = scenario.hosts.iter().map(|host| host.name.as_str()).collect();
        let taken: BTreeSet<&str> = hosts.iter().copied().collect();
        let mut free = stand_ins("host", &taken);
        for text in hosts {
            let name = HostName::new(text).ok().or_else(|| HostName::new(free.next()?).ok());
            names.hosts.extend(name.map(|name| (text.to_owned(), name)));
        }
        let added =
            scenario.events.iter().filter(|event| event.kind == "vm-add").filter_map(|event| event.vm.as_deref());
        let guests: Vec<&str> = scenario.vms.iter().map(|vm| vm.name.as_str()).chain(added).collect();
        let taken: BTreeSet<&str> = guests.iter().copied().collect();
        let mut free = stand_ins("guest", &taken);
        for text in guests {
            let name = GuestName::new(text).ok().or_else(|| GuestName::new(free.next()?).ok());
            names.guests.extend(name.map(|name| (text.to_owned(), name)));
        }
        names
    }

    /// The product's name of a host.
    #[must_use]
    pub fn host(&self, text: &str) -> Option<&HostName> {
        self.hosts.get(text)
    }

    /// The product's name of a guest.
    #[must_use]
    pub fn guest(&self, text: &str) -> Option<&GuestName> {
        self.guests.get(text)
    }

    /// The scenario's names of all guests.
    #[must_use]
    pub fn guests(&self) -> Vec<String> {
        self.guests.keys().cloned().collect()
    }

    /// The scenario's name of a host.
    #[must_use]
    pub fn of_host(&self, name: &HostName) -> String {
        let found = self.hosts.iter().find(|(_, known)| *known == name);
        found.map_or_else(|| name.to_string(), |(text, _)| text.clone())
    }

    /// The scenario's name of a guest.
    #[must_use]
    pub fn of_guest(&self, name: &GuestName) -> String {
        let found = self.guests.iter().find(|(_, known)| *known == name);
        found.map_or_else(|| name.to_string(), |(text, _)| text.clone())
    }
}

/// Names for what has one that Holdfast would not take; nothing of the scenario is called so itself.
fn stand_ins(kind: &str, taken: &BTreeSet<&str>) -> impl Iterator<Item = String> {
    (1_u32..).map(move |number| format!("{kind}-{number}")).filter(move |name| !taken.contains(name.as_str()))
}
