//! Drills: who may be switched off on purpose and by whom, and how a drill ends.
//!
//! ```text
//! ordered ---> switching: off, confirmed, on ---> returning: its next boot is waited for ---> done
//!                       | failed, or lost                          | not back in time
//!                       +------------------------> failed <--------+
//! ```

use std::time::Duration;

use super::{Decision, HostVerdict, Report, Round, subject::Subject};
use crate::{
    change::Change,
    fence_path::{Drill, DrillStep},
    model::FenceLevel,
    names::HostName,
    state::{ClusterState, Life, Mode},
};

/// What keys of these incidents begin with; a slash and a host's name follow.
const ABOUT: &str = "drill";

/// How long a host may take from the beginning of its drill until it is back: large servers test their memory for minutes.
pub const DRILL_LIMIT: Duration = Duration::from_secs(15 * 60);

/// Who switches a host off and on for a drill, or why it may not be done.
///
/// # Errors
/// Why not, in a sentence.
pub fn drill(
    state: &ClusterState,
    report: &Report,
    coordinator: &HostName,
    host: &HostName,
    level: usize,
) -> Result<HostName, String> {
    let known = state.hosts.get(host).ok_or_else(|| format!("there is no host {host}"))?;
    if state.policies.device_level(host, level).is_none() {
        let levels = state.policies.levels_of(host);
        return Err(format!("{host} has no power device at level {}; {}", level + 1, where_else(levels)));
    }
    // The word of such a device is no proof, and its switch may be another machine's.
    if known.distrusted.contains(&level) {
        return Err(format!(
            "the power device of level {} of {host} is not trusted, and may be another machine's: put `fencing:` right, or look \
             after its wiring and run `holdfast host trust-device {host} --operator YOUR-NAME`",
            level + 1
        ));
    }
    if host == coordinator {
        return Err(format!("{host} coordinates, and would switch itself off: restart its supervisor first"));
    }
    let guests = state.guests_of(host).count();
    if !matches!(known.mode, Mode::Draining | Mode::Maintenance) || guests > 0 {
        return Err(format!("{host} is not drained ({guests} guests): run `holdfast host drain {host}` first"));
    }
    let well = |name: &HostName| report.hosts.get(name).is_some_and(|it| it.verdict == HostVerdict::Healthy);
    if let Some(unwell) = state.hosts.keys().find(|name| !well(name)) {
        return Err(format!("{unwell} is not well: one thing at a time"));
    }
    if let Some(why) = held(state, report) {
        return Err(why);
    }
    let mut others: Vec<&HostName> =
        state.hosts.iter().filter(|(name, it)| *name != host && it.life == Life::Up).map(|(name, _)| name).collect();
    // Whoever is known to reach it first.
    others.sort_by_key(|other| known.path(level, other).is_none_or(|path| path.error.is_some()));
    others.first().map(|first| (*first).clone()).ok_or_else(|| format!("no other host can switch {host}"))
}

/// At which levels a host has power devices, where it has none at the level that was named.
fn where_else(levels: &[FenceLevel]) -> String {
    let with_device = levels.iter().zip(1_usize..).filter(|(level, _)| level.has_device());
    let numbers: Vec<String> = with_device.map(|(_, number)| number.to_string()).collect();
    if numbers.is_empty() {
        "none is declared for it in `fencing:`".to_owned()
    } else {
        format!("it has them at level {}", numbers.join(", "))
    }
}

/// Why no drill is begun at present, whatever host it is of.
fn held(state: &ClusterState, report: &Report) -> Option<String> {
    if report.storm_hold.is_some() {
        return Some("fencing is held: too many hosts are silent at once".to_owned());
    }
    if state.suspended.is_some() {
        return Some("deciding is suspended: run `holdfast resume` first".to_owned());
    }
    let (drilled, _) = state.hosts.iter().find(|(_, it)| it.drill.is_some())?;
    Some(format!("the drill of {drilled} is under way: one at a time"))
}

/// Ends drills that are over, and what people were told of one that cannot be made again.
pub(super) fn decide(round: &Round<'_>, decision: &mut Decision) {
    for (name, host) in &round.state.hosts {
        if let Some(drill) = &host.drill
            && let Some(failed) = over(round, name, drill)
        {
            decision.commands.push(Change::DrillEnded { host: name.clone(), failed });
        }
    }
    // Where no device is declared any more nobody can drill again, which is what ends it otherwise.
    let has_device = |host: &str| {
        let levels = round.state.policies.fencing.iter().find(|(name, _)| name.as_str() == host);
        levels.is_some_and(|(_, levels)| levels.iter().any(FenceLevel::has_device))
    };
    for (_, incident) in round.told.all(ABOUT).filter(|&(host, _)| !has_device(host)) {
        decision.commands.push(Change::IncidentResolved { key: incident.key.clone() });
    }
}

/// Whether a drill is over: `Some(None)` when it has succeeded.
#[expect(clippy::option_option, reason = "not over, over well, and over badly are three things")]
fn over(round: &Round<'_>, name: &HostName, drill: &Drill) -> Option<Option<String>> {
    let known = round.state.hosts.get(name)?;
    match &drill.step {
        DrillStep::Switching { order } if !round.state.orders.contains_key(order) => {
            Some(Some("whoever was to switch it has gone, and nobody knows what came of it".to_owned()))
        }
        // As at its beginning: a switch that feeds another host too has it still down, or booting.
        DrillStep::Returning { .. }
            if known.facts.incarnation != drill.incarnation
                && round.state.hosts.keys().all(|host| round.answers(host)) =>
        {
            Some(None)
        }
        DrillStep::Switching { .. } | DrillStep::Returning { .. } => {
            (round.age(drill.begun) >= DRILL_LIMIT).then(|| {
                let away = round.state.hosts.keys().find(|host| !round.answers(host)).unwrap_or(name);
                Some(format!("{away} was not back {} minutes after it began", DRILL_LIMIT.as_secs() / 60))
            })
        }
    }
}

/// Whether a host is silent because somebody wants to see whether it can be switched off, so that nothing is made of it.
pub(super) fn is_drilled(round: &Round<'_>, subject: &Subject<'_>) -> bool {
    subject.host.drill.is_some() && round.state.guests_of(subject.name).next().is_none()
}
