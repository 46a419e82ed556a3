//! Fence agents whose "off" proves nothing, as far as that can be told by their names and options: also where none is installed, so that
//! whoever declares one hears of it at once. Those that describe themselves as such are found out when they are asked.

/// Why agents that do not switch power are not believed.
pub const CUTS_OFF: &str = "cuts its host off from storage or from a network, and guests run on there";

/// Agents whose "off" proves nothing, and why.
const UNBELIEVED: [(&str, &str); 25] = [
    ("fence_brocade", CUTS_OFF),
    ("fence_cisco_mds", CUTS_OFF),
    // Its presence "mismatch", and whatever power is neither "on" nor "off".
    (
        "fence_cisco_ucs",
        "says \"off\" of a blade that is not the expected one, or whose power is not known: declare `ipmi` or `redfish`",
    ),
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
    // By another `api_version` than the manager's it finds none.
    ("fence_rhevm", "says \"off\" where the answer shows no status"),
    ("fence_sanbox2", CUTS_OFF),
    ("fence_sbd", "says \"off\" as soon as that was left for the host to read, whether it has read it or not"),
    ("fence_scsi", CUTS_OFF),
    ("fence_skalar", "says \"off\" of a machine whose node is not reached, or in error"),
    // It looks for what runs in a second answer, and takes one that says nothing but an error for an empty list.
    ("fence_vbox", "says \"off\" where the list of what runs cannot be had"),
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

/// Options with which agents say "off" of what may run on, with underscores for dashes, the values that do so, and of what they say it.
const OFF_TOO_SOON: [(&str, &[&str], &str); 3] = [
    ("missing_as_off", &YES, "what it does not find counts as off, wherever that runs"),
    ("network_fencing", &YES, "what it has cut off from the network counts as off, and guests run on there"),
    // Of `fence_vmware`, for VMware Server 1: it asks only for the list of what runs there.
    ("vmware_type", &["server1"], "what it does not find running there counts as off, wherever that runs"),
];

/// What agents take for yes.
const YES: [&str; 4] = ["1", "yes", "on", "true"];

/// Why an agent's "off" would be no word that its host has no power, if that is known by its name: what it does, without a subject.
#[must_use]
pub fn why_unbelieved(agent: &str) -> Option<&'static str> {
    UNBELIEVED.iter().find(|(name, _)| *name == agent).map(|(_, why)| *why)
}

/// What an option has an agent say "off" of, if it is set so and that may run on.
#[must_use]
pub fn off_too_soon(option: &str, value: &str) -> Option<&'static str> {
    let (option, value) = (option.replace('-', "_"), value.to_ascii_lowercase());
    let mut all = OFF_TOO_SOON.iter();
    all.find(|(known, values, _)| *known == option && values.contains(&value.as_str())).map(|(_, _, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_refused_only_where_its_value_makes_off_mean_something_else() {
        for (option, value) in [("missing-as-off", "True"), ("network_fencing", "1"), ("vmware_type", "Server1")] {
            assert!(off_too_soon(option, value).is_some_and(|what| what.contains("off")), "{option}: {value}");
        }
        for (option, value) in
            [("missing_as_off", "0"), ("vmware_type", "esx"), ("vmware_type", "1"), ("ip", "server1")]
        {
            assert_eq!(off_too_soon(option, value), None, "{option}: {value}");
        }
    }

    #[test]
    fn an_agent_is_named_once() {
        let names: std::collections::BTreeSet<&str> = UNBELIEVED.iter().map(|(name, _)| *name).collect();
        assert_eq!(names.len(), UNBELIEVED.len());
        for (name, why) in UNBELIEVED {
            assert_eq!(why_unbelieved(name), Some(why));
        }
    }
}
