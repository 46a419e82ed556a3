//! Units of the guest's systemd.

use std::{collections::BTreeMap, time::Duration};

use holdfast_policies::probe::SystemdProbe;

use super::look;
use crate::{channel::GuestChannel, finding::Finding};

const SHOW: &str = r#"systemctl show -p LoadState -p ActiveState -p SubState -p Result -p NRestarts \
  -p ActiveEnterTimestampMonotonic -- "$1" || exit 126
read -r up _ < /proc/uptime && echo "Uptime=$up""#;

/// Asks for the unit.
pub(crate) async fn systemd(channel: &dyn GuestChannel, probe: &SystemdProbe, timeout: Duration) -> Finding {
    match look(channel, SHOW, &[&probe.unit], timeout).await {
        Ok(said) if said.code == 0 => of_properties(&said.text, probe),
        Ok(said) => said.odd(),
        Err(finding) => finding,
    }
}

fn of_properties(text: &str, probe: &SystemdProbe) -> Finding {
    let known: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.trim().split_once('=')).collect();
    let of = |key: &str| known.get(key).copied().unwrap_or_default();
    let unit = &probe.unit;
    match (of("LoadState"), of("ActiveState")) {
        ("not-found" | "bad-setting" | "error" | "masked", _) => {
            Finding::unknown(format!("systemd has no usable unit {unit} ({})", of("LoadState")))
        }
        (_, "active" | "reloading" | "refreshing") => of_active(&of, probe),
        (_, "") => Finding::unknown(format!("systemd does not say how {unit} is")),
        (_, state) => {
            let result = Some(of("Result")).filter(|result| !matches!(*result, "" | "success"));
            let result = result.map(|result| format!(", result {result}")).unwrap_or_default();
            Finding::fail(format!("{unit} is {state} ({}){result}", of("SubState")))
        }
    }
}

/// One that was restarted by systemd has to be up for a while, or it is only between two crashes.
fn of_active<'a>(of: &impl Fn(&str) -> &'a str, probe: &SystemdProbe) -> Finding {
    let restarts: u64 = of("NRestarts").parse().unwrap_or(0);
    let entered = of("ActiveEnterTimestampMonotonic").parse::<u64>().ok().map(Duration::from_micros);
    let uptime = of("Uptime").parse::<f64>().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let up_for = uptime.zip(entered).map(|(uptime, entered)| uptime.saturating_sub(entered));
    match up_for.filter(|up_for| restarts > 0 && *up_for < probe.steady_for.0) {
        Some(up_for) => Finding::fail(format!(
            "{} was restarted {restarts} times, and has been up for {up_for:.1?} of the {} that it takes to count as steady",
            probe.unit, probe.steady_for
        )),
        None => Finding::pass(format!("{} is active ({})", probe.unit, of("SubState"))),
    }
}

#[cfg(test)]
mod tests {
    use holdfast_policies::{observe::Outcome, time::Span};

    use super::*;

    fn judged(text: &str) -> Finding {
        of_properties(text, &SystemdProbe { unit: "app.service".to_owned(), steady_for: Span::secs(10) })
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
            assert_eq!(judged(state).outcome, expected, "{state}");
        }
    }

    #[test]
    fn a_unit_that_crashes_in_a_circle_is_not_well_between_two_crashes() {
        let at = |restarts: u32, entered_us: u64| {
            judged(&format!(
                "LoadState=loaded\nActiveState=active\nSubState=running\nNRestarts={restarts}\nActiveEnterTimestampMonotonic={entered_us}\nUptime=100.50 80.00\nUptime=100.50\n"
            ))
        };
        assert_eq!(at(7, 98_000_000).outcome, Outcome::Fail);
        assert_eq!(at(7, 90_000_000).outcome, Outcome::Pass, "it has been up for ten seconds");
        assert_eq!(at(0, 98_000_000).outcome, Outcome::Pass, "it was started, not restarted");
    }
}
