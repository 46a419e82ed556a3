//! Names of a scenario and of the product: a name that Holdfast would not take gets one that it takes, and goes back to
//! its own on the way out.

use std::collections::BTreeMap;

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
        for host in &scenario.hosts {
            let stand_in = format!("host-{}", names.hosts.len() + 1);
            if let Ok(name) = HostName::new(host.name.clone()).or_else(|_| HostName::new(stand_in)) {
                names.hosts.insert(host.name.clone(), name);
            }
        }
        let added = scenario.events.iter().filter(|event| event.kind == "vm-add").filter_map(|event| event.vm.as_ref());
        for vm in scenario.vms.iter().map(|vm| &vm.name).chain(added) {
            let stand_in = format!("guest-{}", names.guests.len() + 1);
            if let Ok(name) = GuestName::new(vm.clone()).or_else(|_| GuestName::new(stand_in)) {
                names.guests.insert(vm.clone(), name);
            }
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
