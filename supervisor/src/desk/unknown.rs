//! That there is no such guest or host, with what may have been meant: at night names are mistyped.

use holdfast_policies::{
    names::{GuestName, HostName},
    state::ClusterState,
    yaml::nearest,
};

use super::Denied;

/// Most hosts that are named where none is near what was said.
const HOSTS_NAMED_MAX: usize = 10;

/// There is no such guest.
#[must_use]
pub fn no_guest(state: &ClusterState, guest: &GuestName) -> Denied {
    let is_host = state.hosts.keys().any(|host| host.as_str() == guest.as_str());
    let near = || nearest(guest.as_str(), state.guests.keys().map(GuestName::as_str));
    let meant = if is_host { Some("that is a host".to_owned()) } else { near().map(did_you_mean) };
    unknown(&format!("there is no guest {guest}"), meant)
}

/// There is no such host.
#[must_use]
pub fn no_host(state: &ClusterState, host: &HostName) -> Denied {
    let is_guest = state.guests.keys().any(|guest| guest.as_str() == host.as_str());
    let names: Vec<&str> = state.hosts.keys().map(HostName::as_str).collect();
    let all = || (1..=HOSTS_NAMED_MAX).contains(&names.len()).then(|| format!("the hosts are {}", names.join(", ")));
    let near = || nearest(host.as_str(), names.iter().copied());
    let meant = if is_guest { Some("that is a guest".to_owned()) } else { near().map(did_you_mean).or_else(all) };
    unknown(&format!("there is no host {host}"), meant)
}

fn did_you_mean(name: &str) -> String {
    format!("did you mean {name}?")
}

fn unknown(what: &str, meant: Option<String>) -> Denied {
    Denied::Unknown(meant.map_or_else(|| what.to_owned(), |meant| format!("{what}; {meant}")))
}
