//! Fence agents whose "off" proves nothing, as far as that can be told by their names and options: also where none is installed, so that
//! whoever declares one hears of it at once. Those that describe themselves as such are found out when they are asked.

/// Why agents that do not switch power are not believed.
pub const CUTS_OFF: &str = "cuts its host off from storage or from a network, and guests run on there";

/// Agents whose "off" proves nothing, and why.
const UNBELIEVED: [(&str, &str); 22] = [
    ("fence_brocade", CUTS_OFF),
    ("fence_cisco_mds", CUTS_OFF),
    ("fence_compute", CUTS_OFF),
    ("fence_crosslink", "says \"off\" of whatever answers no ping"),
    ("fence_evacuate", "says \"off\" when a service of the host is down"),
    ("fence_ibmz", "says \"off\" of a machine that runs with something missing, or whose hardware is not reached"),
    ("fence_ifmib", CUTS_OFF),
    ("fence_ilo3_ssh", HALF_IS_OFF),
    ("fence_ilo4_ssh", HALF_IS_OFF),
    ("fence_ilo5_ssh", HALF_IS_OFF),
    ("fence_ilo_mp", HALF_IS_OFF),
    ("fence_ilo_ssh", HALF_IS_OFF),
    // Its states "Error", "Migrating - Running" and "Not Available", as IBM describes them.
    ("fence_lpar", "says \"off\" of a machine that runs and needs attention, is being moved, or is not reached"),
    ("fence_mpath", CUTS_OFF),
    ("fence_sanbox2", CUTS_OFF),
    ("fence_sbd", "says \"off\" as soon as that was left for the host to read, whether it has read it or not"),
    ("fence_scsi", CUTS_OFF),
    ("fence_skalar", "says \"off\" of a machine whose node is not reached, or in error"),
    ("fence_virsh", "says \"off\" of whatever it cannot read, and of what has left its machine: declare `libvirt`"),
    ("fence_virt", MISSING_IS_OFF),
    ("fence_xvm", MISSING_IS_OFF),
    ("fence_zvmip", "says \"off\" of whatever does not run on the system that it asks, wherever that runs"),
];

/// They take what has come of a line for all of it, and whatever does not begin with "enabled" for "off": so does nothing at all, where the
/// rest of the line comes in the next packet.
const HALF_IS_OFF: &str = "says \"off\" where only half of the answer has come: declare `ipmi` or `redfish`";

/// Its daemon looks a machine up, and takes each look that fails for "off": it may have another name by now, or run elsewhere.
const MISSING_IS_OFF: &str = "says \"off\" of whatever its daemon does not find, wherever that runs: declare `libvirt`";

/// Options with which agents say "off" of what may run on, with underscores for dashes, and of what they say it.
const OFF_TOO_SOON: [(&str, &str); 2] = [
    ("missing_as_off", "what it does not find counts as off, wherever that runs"),
    ("network_fencing", "what it has cut off from the network counts as off, and guests run on there"),
];

/// What agents take for yes.
const YES: [&str; 4] = ["1", "yes", "on", "true"];

/// Why an agent's "off" would be no word that its host has no power, if that is known by its name: what it does, without a subject.
#[must_use]
pub fn why_unbelieved(agent: &str) -> Option<&'static str> {
    UNBELIEVED.iter().find(|(name, _)| *name == agent).map(|(_, why)| *why)
}

/// What an option has an agent say "off" of, if it is set and that may run on.
#[must_use]
pub fn off_too_soon(option: &str, value: &str) -> Option<&'static str> {
    let is_set = YES.contains(&value.to_ascii_lowercase().as_str());
    let option = option.replace('-', "_");
    OFF_TOO_SOON.iter().find(|(known, _)| is_set && *known == option).map(|(_, what)| *what)
}
