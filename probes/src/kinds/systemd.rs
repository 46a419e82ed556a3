//! Units of the guest's systemd.

use std::{collections::BTreeMap, time::Duration};

use holdfast_policies::probe::SystemdProbe;

use super::look_in_time;
use crate::{
    channel::GuestChannel,
    finding::Finding,
    memory::{Memory, Run},
};

const SHOW: &str = r#"systemctl show -p LoadState -p ActiveState -p SubState -p Result -p NRestarts \
  -p ActiveEnterTimestampMonotonic -p ActiveExitTimestampMonotonic -- "$1" || exit 126
read -r up _ < /proc/uptime && echo "Uptime=$up""#;

/// Asks for the unit.
pub(crate) async fn systemd(
    channel: &dyn GuestChannel,
    probe: &SystemdProbe,
    memory: &Memory,
    timeout: Duration,
) -> Finding {
    match look_in_time(channel, SHOW, &[&probe.unit], timeout).await {
        Ok(Some(said)) if said.code == 0 => of_properties(&said.text, probe, memory),
        Ok(Some(said)) => said.odd(),
        // It is systemd that takes its time, as while it reads all units anew, and none of its units.
        Ok(None) => Finding::unknown(format!("systemd has not said in time how {} is", probe.unit)),
        Err(finding) => finding,
    }
}

fn of_properties(text: &str, probe: &SystemdProbe, memory: &Memory) -> Finding {
    let known: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.trim().split_once('=')).collect();
    let of = |key: &str| known.get(key).copied().unwrap_or_default();
    let unit = &probe.unit;
    match (of("LoadState"), of("ActiveState")) {
        ("not-found" | "bad-setting" | "error" | "masked", _) => {
            Finding::unknown(format!("systemd has no usable unit {unit} ({})", of("LoadState")))
        }
        (_, "active" | "reloading" | "refreshing") => of_active(&of, probe, memory),
        (_, "") => Finding::unknown(format!("systemd does not say how {unit} is")),
        (_, state) => {
            let result = Some(of("Result")).filter(|result| !matches!(*result, "" | "success"));
            let result = result.map(|result| format!(", result {result}")).unwrap_or_default();
            Finding::fail(format!("{unit} is {state} ({}){result}", of("SubState")))
        }
    }
}

/// One that crashes again and again is active at most moments. One crash that systemd has repaired is none of that: only when
/// the run before was short as well, this one has to be up for a while first.
fn of_active<'a>(of: &impl Fn(&str) -> &'a str, probe: &SystemdProbe, memory: &Memory) -> Finding {
    let passed = Finding::pass(format!("{} is active ({})", probe.unit, of("SubState")));
    let moment = |key: &str| of(key).parse::<u64>().ok().map(Duration::from_micros);
    let uptime = of("Uptime").parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let (Some(entered), Some(asked)) = (moment("ActiveEnterTimestampMonotonic"), uptime) else { return passed };
    let restarts: u64 = of("NRestarts").parse().unwrap_or(0);
    let run = Run { restarts, entered, left: moment("ActiveExitTimestampMonotonic").unwrap_or_default(), asked };
    let is_short = |run: &Duration| *run < probe.steady_for.0;
    let up_for = asked.saturating_sub(entered);
    match memory.run_before(&probe.unit, run).filter(is_short) {
        Some(before) if is_short(&up_for) => Finding::fail(format!(
            "{} crashes in a circle: restarted {restarts} times, up for {up_for:.1?} and before that for {before:.1?}; {} count as steady",
            probe.unit, probe.steady_for
        )),
        Some(_) | None => passed,
    }
}

#[cfg(test)]
mod tests {
    use holdfast_policies::{observe::Outcome, time::Span};

    use super::*;

    fn judged(text: &str, memory: &Memory) -> Outcome {
        let probe = SystemdProbe { unit: "app.service".to_owned(), steady_for: Span::secs(10) };
        of_properties(text, &probe, memory).outcome
    }

    #[test]
    fn every_state_of_a_unit_is_judged() {
        for (state, expected) in [
            ("LoadState=loaded\nActiveState=active\nSubState=running\nNRestarts=0\n", Outcome::Pass),
            ("LoadState=loaded\nActiveState=reloading\nSubState=reload\n", Outcome::Pass),
            ("LoadState=loaded\nActiveState=failed\nSubState=failed\nResult=exit-code\n", Outcome::Fail),
            ("LoadState=loaded\nActiveState=inactive\nSubState=dead\n", Outcome::Fail),
            ("LoadState=loaded\nActiveState=activating\nSubState=auto-restart\n", Outcome::Fail),
            ("LoadState=not-found\nActiveState=inactive\nSubState=dead\n", Outcome::Unknown),
            ("LoadState=masked\nActiveState=inactive\nSubState=dead\n", Outcome::Unknown),
            ("", Outcome::Unknown),
        ] {
            assert_eq!(judged(state, &Memory::default()), expected, "{state}");
        }
    }

    /// A look at second `now` at a unit that was restarted so often, ended at second `left` and is active since `entered`.
    fn looked(memory: &Memory, restarts: u32, left: u32, entered: u32, now: u32) -> Outcome {
        let text = format!(
            "LoadState=loaded\nActiveState=active\nSubState=running\nNRestarts={restarts}\nActiveExitTimestampMonotonic={left}000000\nActiveEnterTimestampMonotonic={entered}000000\nUptime={now}.00\n"
        );
        judged(&text, memory)
    }

    #[test]
    fn a_unit_that_crashes_in_a_circle_is_not_well_between_two_crashes() {
        let memory = Memory::default();
        assert_eq!(looked(&memory, 7, 97, 98, 100), Outcome::Pass, "what was before is not known");
        assert_eq!(looked(&memory, 8, 103, 104, 105), Outcome::Fail, "it was up for five seconds");
        assert_eq!(looked(&memory, 11, 119, 120, 121), Outcome::Fail, "it was up for five seconds each time");
        assert_eq!(looked(&memory, 11, 119, 120, 129), Outcome::Fail, "it may be about to crash again");
        assert_eq!(looked(&memory, 11, 119, 120, 130), Outcome::Pass, "it has been up for ten seconds");
    }

    #[test]
    fn a_crash_that_systemd_has_repaired_is_no_failure() {
        let memory = Memory::default();
        for (restarts, left, entered, now, why) in [
            (0, 0, 90, 100, "it has never crashed"),
            (1, 101, 102, 103, "once"),
            (1, 101, 102, 105, "still once"),
            (2, 3_600, 3_601, 3_602, "it has worked for an hour between"),
            (0, 4_000, 4_001, 4_002, "it was started by hand"),
            (1, 4_003, 4_004, 4_005, "once since then"),
            (2, 20, 21, 22, "the guest has been rebooted"),
        ] {
            assert_eq!(looked(&memory, restarts, left, entered, now), Outcome::Pass, "{why}");
        }
    }
}
