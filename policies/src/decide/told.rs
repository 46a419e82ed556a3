//! What people have been told and is not over, for a whole round: nearly everything that is decided asks whether it has been told
//! already, and mostly it has not.

use std::collections::BTreeMap;

use crate::{incident::Incident, state::ClusterState};

/// The open incidents, by whose they are, which is what stands behind the first slash of their keys, and by what they are about.
pub(crate) struct Told<'a>(BTreeMap<&'a str, BTreeMap<&'a str, &'a Incident>>);

impl<'a> Told<'a> {
    pub(super) fn of(state: &'a ClusterState) -> Self {
        let mut told: BTreeMap<&str, BTreeMap<&str, &Incident>> = BTreeMap::new();
        for incident in state.incidents.values().filter(|incident| incident.is_open()) {
            let (about, whose) = halves(&incident.key);
            told.entry(whose).or_default().insert(about, incident);
        }
        Self(told)
    }

    /// All that is open of one host or guest: whoever asks more than once looks for its name once.
    pub(super) fn of_whom<'t>(&'t self, whose: &str) -> Whose<'t> {
        Whose(self.0.get(whose))
    }

    /// The open incident with this key.
    pub(super) fn by_key(&self, key: &str) -> Option<&'a Incident> {
        let (about, whose) = halves(key);
        self.0.get(whose)?.get(about).copied()
    }

    /// All that is open about something, with whose it is.
    pub(super) fn all(&self, about: &str) -> impl Iterator<Item = (&'a str, &'a Incident)> {
        self.0.iter().filter_map(move |(whose, open)| Some((*whose, *open.get(about)?)))
    }
}

/// The open incidents of one host or guest, by what they are about.
#[derive(Clone, Copy, Default)]
pub(crate) struct Whose<'t>(Option<&'t BTreeMap<&'t str, &'t Incident>>);

impl<'t> Whose<'t> {
    /// The open incident about something; no key has to be made to see that there is none.
    pub(super) fn about(self, about: &str) -> Option<&'t Incident> {
        self.0?.get(about).copied()
    }
}

/// The halves of a key; one without a slash has nothing behind it.
fn halves(key: &str) -> (&str, &str) {
    key.split_once('/').unwrap_or((key, ""))
}
