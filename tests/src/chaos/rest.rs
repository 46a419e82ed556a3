//! Rest: everything is as it should be, for some seconds in a row, as Holdfast says and as is seen from outside.

use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use serde_json::Value;

use super::{ground::Ground, mend, operators, story::Story};
use crate::lab::{Status, wait};

/// How often it is looked.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How long all has to be well until that counts: longer than a host takes to be suspected, and a service to fail.
const HOLDS: Duration = Duration::from_secs(4);
/// How often what is not as it should be is mended, and a person looks whether they are called.
const MEND_EVERY: Duration = Duration::from_secs(3);
/// How long the hosts may take to hear each other, and to arm their watchdogs, when all else is well, until all else is looked at
/// again.
const HEAR_LIMIT: Duration = Duration::from_secs(5);

/// What came of waiting for rest.
pub(super) struct Outcome {
    /// How long it took until all was well; `None` when it was not within the limit.
    pub(super) after: Option<Duration>,
    /// What was not well last.
    pub(super) last: String,
    /// Hosts that were switched on.
    pub(super) power_ons: usize,
    /// For what a person was needed.
    pub(super) helped: Vec<String>,
}

/// Waits until everything is at rest, and does meanwhile what a person does: mends, takes orders back, and helps where Holdfast calls
/// for help.
///
/// # Errors
/// When interrupted.
pub(super) fn come(ground: &Ground, story: &Story, limit: Duration) -> Result<Outcome> {
    let begin = Instant::now();
    let mut outcome = Outcome { after: None, last: String::new(), power_ons: 0, helped: Vec::new() };
    let mut well_since: Option<Instant> = None;
    let mut mended: Option<Instant> = None;
    loop {
        if well_since.is_none() && mended.is_none_or(|at| at.elapsed() >= MEND_EVERY) {
            attend(ground, story, &mut outcome);
            mended = Some(Instant::now());
        }
        match look(ground) {
            Ok(()) => {
                let since = *well_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= HOLDS {
                    outcome.after = Some(since.saturating_duration_since(begin));
                    return Ok(outcome);
                }
            }
            Err(error) => {
                well_since = None;
                outcome.last = format!("{error:#}");
                if begin.elapsed() >= limit {
                    return Ok(outcome);
                }
            }
        }
        wait::pause(LOOK_EVERY)?;
    }
}

fn attend(ground: &Ground, story: &Story, outcome: &mut Outcome) {
    outcome.power_ons += mend::mend(ground, story);
    let Ok(status) = ground.lab.status() else { return };
    operators::take_back(ground, story, &status);
    for help in operators::help(ground, story, &status) {
        if !outcome.helped.contains(&help) {
            outcome.helped.push(help);
        }
    }
}

/// Whether all is well.
fn look(ground: &Ground) -> Result<()> {
    for host in ground.hosts() {
        ensure!(ground.lab.is_on(host), "{host} is off");
        ensure!(!ground.lab.is_frozen(host), "{host} is frozen");
    }
    let status = ground.lab.status()?;
    hosts_are_well(ground, &status)?;
    for guest in &ground.guests {
        guest_is_well(ground, &status, &guest.name)?;
        ensure!(guest.client.answering(), "{} does not answer the client outside", guest.name);
    }
    // What goes wrong next is noticed in its usual time only by hosts that have heard each other before (R17).
    ground.lab.wait_all_hear_all(HEAR_LIMIT)?;
    // Without an armed watchdog nothing would prove a host off that relies on its lease.
    ground.lab.wait_armed(HEAR_LIMIT)
}

fn hosts_are_well(ground: &Ground, status: &Status) -> Result<()> {
    let shown = |pointer: &str| status.value.pointer(pointer).cloned().unwrap_or_default();
    ensure!(shown("/suspended_by").is_null(), "deciding is suspended");
    ensure!(shown("/storm_hold").is_null(), "fencing is held: {}", shown("/storm_hold"));
    for host in ground.hosts() {
        let (verdict, life, mode) = (
            status.host_verdict(host).unwrap_or_default(),
            shown(&format!("/hosts/{host}/life")),
            shown(&format!("/hosts/{host}/mode")),
        );
        ensure!(verdict == "healthy" && life == "up" && mode == "active", "{host} is {verdict}, {life} and {mode}");
        let quarantine = shown(&format!("/hosts/{host}/quarantine"));
        ensure!(quarantine.is_null(), "{host} is in quarantine: {quarantine}");
    }
    Ok(())
}

fn guest_is_well(ground: &Ground, status: &Status, guest: &str) -> Result<()> {
    let shown = |what: &str| status.value.pointer(&format!("/guests/{guest}/{what}")).cloned().unwrap_or(Value::Null);
    if !status.guest_healthy(guest) {
        bail!("{guest} is {}: {}, waits: {}", shown("state"), shown("doing"), shown("waits"));
    }
    let host = status.guest_host(guest).unwrap_or_default();
    let open = ground.lab.guest_qemu_pids(guest);
    let there_alone = open.iter().map(|(at, _)| at.as_str()).eq([host]);
    ensure!(there_alone, "{guest} is said to be on {host}; open in {open:?}");
    Ok(())
}
