//! The units of systemd that operators are given: what they must say, and must not.

use anyhow::{Context, Result, ensure};

use super::read;

/// What ends a unit as soon as something else ends, of which much does at the beginning of a shutdown.
const BINDING: [&str; 6] = ["Conflicts", "Requires", "Requisite", "BindsTo", "PartOf", "RequiresMountsFor"];

#[test]
fn a_shutdown_does_not_stop_the_guard_while_other_units_take_their_time() -> Result<()> {
    let guard = unit("holdfast-guard.service")?;
    let says = |key: &str| guard.iter().find(|(own, _)| own == key).map(|(_, value)| value.as_str());
    ensure!(says("DefaultDependencies") == Some("no"), "by default it is stopped when a shutdown begins");
    ensure!(says("IgnoreOnIsolate") == Some("yes"), "`systemctl rescue` stops it");
    let binding = guard.iter().find(|(key, _)| BINDING.contains(&key.as_str()));
    ensure!(binding.is_none(), "{binding:?} stops it with another unit");
    // What is started after basic.target, as services are, is stopped before it.
    ensure!(
        says("Before").is_some_and(|units| units.contains("basic.target")),
        "it may be stopped before its host's services"
    );
    Ok(())
}

#[test]
fn the_guards_unit_takes_over_in_turn_from_a_guard_that_has_taken_over_from_it() -> Result<()> {
    let guard = unit("holdfast-guard.service")?;
    let says = |key: &str| guard.iter().find(|(own, _)| own == key).map(|(_, value)| value.as_str());
    ensure!(says("Restart") == Some("always"), "it ends well when another guard has taken over");
    let starts = says("ExecStart").is_some_and(|line| line.split(' ').any(|word| word == "--take-over"));
    ensure!(starts, "it fails ten times a second while the other one runs, which ends with whoever has started it");
    Ok(())
}

/// What hides from the guard what it must see, or keeps it from killing, if it is set to whatever.
const BLINDING: [&str; 7] = [
    "ProtectControlGroups",
    "ProtectProc",
    "ProcSubset",
    "PrivateDevices",
    "DevicePolicy",
    "PrivatePIDs",
    "SystemCallFilter",
];

#[test]
fn the_guards_unit_hides_no_guest_from_it_and_lets_it_have_descriptors_for_all_it_takes() -> Result<()> {
    let guard = unit("holdfast-guard.service")?;
    let blinding = guard.iter().find(|(key, _)| BLINDING.contains(&key.as_str()));
    ensure!(blinding.is_none(), "with {blinding:?} it may see or kill no guest, and the watchdog resets the host");
    let limit = guard.iter().find(|(key, _)| key == "LimitNOFILE").and_then(|(_, value)| value.parse::<usize>().ok());
    ensure!(limit.is_some_and(|limit| limit > 3 * 1024), "{limit:?} descriptors are too few for 1024 guests");
    Ok(())
}

#[test]
fn the_guards_unit_is_killed_by_neither_of_those_who_kill_when_memory_runs_out() -> Result<()> {
    let guard = unit("holdfast-guard.service")?;
    for wanted in [("OOMScoreAdjust", "-1000"), ("ManagedOOMPreference", "omit")] {
        ensure!(guard.iter().any(|(key, value)| (key.as_str(), value.as_str()) == wanted), "{wanted:?} is missing");
    }
    Ok(())
}

#[test]
fn the_supervisors_unit_only_wants_the_guard() -> Result<()> {
    let supervisor = unit("holdfast.service")?;
    let naming =
        |key: &str| supervisor.iter().any(|(own, value)| own == key && value.contains("holdfast-guard.service"));
    ensure!(naming("Wants") && naming("After"), "the guard is to be there first");
    ensure!(BINDING.iter().all(|key| !naming(key)), "the guard is bound to the supervisor");
    Ok(())
}

#[test]
fn supervisors_of_the_lab_have_the_environment_of_the_unit() -> Result<()> {
    let script = read("tests/lab/hostinit.sh")?;
    let started = script.lines().find(|line| line.contains("keep supervisor ")).context("it starts no supervisor")?;
    let words: Vec<&str> = started.split_ascii_whitespace().collect();
    let supervisor = unit("holdfast.service")?;
    let set: Vec<&str> =
        supervisor.iter().filter(|(key, _)| key == "Environment").map(|(_, value)| value.as_str()).collect();
    ensure!(!set.is_empty(), "the unit sets nothing");
    let missing = set.iter().find(|value| !words.contains(value));
    ensure!(missing.is_none(), "what is measured in the lab runs without {missing:?}");
    Ok(())
}

/// The settings of a unit file, in their order.
fn unit(name: &str) -> Result<Vec<(String, String)>> {
    let text = read(&format!("examples/packaging/{name}"))?;
    let settings = text.lines().filter(|line| !line.starts_with(['#', '[']) && !line.is_empty());
    settings
        .map(|line| {
            let (key, value) = line.split_once('=').with_context(|| format!("{name}: {line:?} sets nothing"))?;
            Ok((key.to_owned(), value.to_owned()))
        })
        .collect()
}
