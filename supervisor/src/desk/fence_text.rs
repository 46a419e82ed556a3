//! What power devices said when they were asked on purpose, for people and for programs.

use holdfast_policies::{
    fence_path::{LevelTest, Machine},
    names::HostName,
    proof::Power,
};
use serde::{Deserialize, Serialize};

use super::words::{Table, lasted};

/// What a device says of a host without power.
const OFF: &str = "off";

/// What one device said to one host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSaid {
    /// The level; the first is 1.
    pub level: usize,
    /// The device.
    pub device: String,
    /// Who asked it.
    pub from: HostName,
    /// Whether it answered.
    pub answered: bool,
    /// `on`, `off`, or why it did not answer.
    pub power: String,
    /// How long its answer took, in milliseconds.
    pub took_ms: u64,
    /// Whether it says that it is the host's own.
    pub machine: String,
    /// Whether it says that it is another machine's, and would switch that one off.
    #[serde(default)]
    pub another: bool,
}

/// What the levels of a host said to one other.
pub fn said(from: &HostName, levels: &[LevelTest]) -> Vec<DeviceSaid> {
    let of_level = |test: &LevelTest| {
        let level = test.level.saturating_add(1);
        let devices = test.devices.iter().map(move |device| DeviceSaid {
            level,
            device: device.device.clone(),
            from: from.clone(),
            answered: !matches!(device.power, Power::Unknown { .. }),
            power: power(&device.power),
            took_ms: device.took_ms,
            machine: machine(&device.machine),
            another: matches!(device.machine, Machine::Other { .. }),
        });
        devices.collect::<Vec<_>>()
    };
    levels.iter().flat_map(of_level).collect()
}

/// Whether every level was reached by somebody, and no device is another machine's.
#[must_use]
pub fn is_fine(said: &[DeviceSaid]) -> bool {
    all_reached(said) && said.iter().all(|line| !line.another)
}

fn all_reached(said: &[DeviceSaid]) -> bool {
    let reached = |level| {
        let froms: std::collections::BTreeSet<&HostName> = said.iter().map(|line| &line.from).collect();
        froms
            .iter()
            .any(|from| said.iter().filter(|line| line.level == level && line.from == **from).all(|line| line.answered))
    };
    !said.is_empty() && said.iter().all(|line| reached(line.level))
}

/// As a table.
#[must_use]
pub fn fence_text(host: &HostName, said: &[DeviceSaid]) -> String {
    let mut table = Table::new(&["LEVEL", "FROM", "TOOK", "DEVICE", "POWER", "MACHINE"]);
    for line in said {
        table.row(vec![
            line.level.to_string(),
            line.from.to_string(),
            lasted(line.took_ms),
            line.device.clone(),
            line.power.clone(),
            line.machine.clone(),
        ]);
    }
    let verdict = if let Some(line) = said.iter().find(|line| line.another) {
        let level = line.level;
        format!(
            "a power device of level {level} is ANOTHER MACHINE'S, not {host}'s: look at its address; nothing was switched"
        )
    } else if !all_reached(said) {
        format!("NOT EVERY power device of {host} answers; nothing was switched")
    } else if let Some(line) = said.iter().find(|line| line.power == OFF) {
        let level = line.level;
        format!(
            "a power device of level {level} says OFF: if {host} runs, look which outlet or machine it switches; nothing was switched"
        )
    } else {
        format!("every power device of {host} answers; nothing was switched")
    };
    format!("{table}{verdict}\n")
}

fn power(power: &Power) -> String {
    match power {
        Power::On => "on".to_owned(),
        Power::Off => OFF.to_owned(),
        Power::Unknown { detail } => detail.clone(),
    }
}

fn machine(machine: &Machine) -> String {
    match machine {
        Machine::Same => "its own".to_owned(),
        Machine::Other { says } => format!("ANOTHER: {says}"),
        // Most say so in these words themselves.
        Machine::Untold { why } if why.contains("cannot tell") => why.clone(),
        Machine::Untold { why } => format!("cannot tell: {why}"),
        Machine::Unknown { .. } => "unknown".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: usize, from: &str, answered: bool) -> DeviceSaid {
        let power = if answered { "on" } else { "no answer" }.to_owned();
        let from = HostName::new(from).unwrap();
        DeviceSaid {
            level,
            device: "bmc".into(),
            from,
            answered,
            power,
            took_ms: 40,
            machine: "its own".into(),
            another: false,
        }
    }

    #[test]
    fn a_device_of_another_machine_is_not_fine_however_well_it_answers() {
        let well = line(1, "a", true);
        assert!(is_fine(std::slice::from_ref(&well)));
        let other = DeviceSaid { machine: "ANOTHER: 33221100".into(), another: true, ..line(1, "b", true) };
        let said = [well, other];
        assert!(!is_fine(&said));
        let text = fence_text(&HostName::new("hv-a").unwrap(), &said);
        assert!(text.contains("level 1 is ANOTHER MACHINE'S") && !text.contains("every power device"), "{text}");
    }

    #[test]
    fn a_device_that_says_off_is_pointed_out() {
        let off = DeviceSaid { power: OFF.to_owned(), ..line(2, "a", true) };
        let text = fence_text(&HostName::new("hv-a").unwrap(), &[line(1, "a", true), off]);
        assert!(text.contains("level 2 says OFF: if hv-a runs") && !text.contains("every power device"), "{text}");
    }

    #[test]
    fn a_level_is_reached_when_one_host_hears_all_of_its_devices() {
        assert!(all_reached(&[line(1, "a", false), line(1, "b", true)]));
        assert!(!all_reached(&[line(1, "a", true), line(1, "a", false)]), "one of two power supplies");
        assert!(!all_reached(&[line(1, "a", true), line(2, "a", false)]));
        assert!(!all_reached(&[]));
        let text = fence_text(&HostName::new("hv-a").unwrap(), &[line(1, "b", false)]);
        assert!(text.contains("no answer") && text.contains("NOT EVERY"), "{text}");
    }
}
