//! Operators who give orders in the middle of it, and take them back. What is answered is told; that an order is refused or not
//! answered while the cluster is not well is no fault of anybody.

use anyhow::{Context, Result};
use serde_json::Value;

use super::{ground::Ground, kinds::Fault, plan::Deed, story::Story};
use crate::lab::{Status, wait};

/// In whose name.
const OPERATOR: [&str; 2] = ["--operator", "chaos"];

/// Does what an operator does in a burst.
pub(super) fn act(ground: &Ground, story: &Story, deed: &Deed) -> Result<()> {
    match &deed.fault {
        Fault::Drained { host } => {
            order(ground, story, &["host", "drain", host])?;
            wait::pause(deed.lasts)?;
            order(ground, story, &["host", "resume", host])
        }
        Fault::Moved { guest, to, cold } => {
            let mut words = vec!["guest", "migrate", guest, "--to", to];
            words.extend(cold.then_some("--cold"));
            order(ground, story, &words)
        }
        Fault::GuestStopped { guest } => {
            ground.undone().guests.insert(guest.clone());
            order(ground, story, &["guest", "stop", guest])?;
            wait::pause(deed.lasts)?;
            order(ground, story, &["guest", "start", guest])
        }
        Fault::Suspended => {
            order(ground, story, &["suspend"])?;
            wait::pause(deed.lasts)?;
            order(ground, story, &["resume"])
        }
        other => anyhow::bail!("no operator does that: {other}"),
    }
}

/// Takes back what the status shows of a run's orders: an order of which nothing was heard may have been carried out.
pub(super) fn take_back(ground: &Ground, story: &Story, status: &Status) {
    let shown = |pointer: String| status.value.pointer(&pointer).cloned().unwrap_or(Value::Null);
    let give = |words: &[&str]| {
        // It is looked at again: what has not worked is tried again.
        let _ = order(ground, story, words);
    };
    if !shown("/suspended_by".to_owned()).is_null() {
        give(&["resume"]);
    }
    for host in ground.hosts() {
        let mode = shown(format!("/hosts/{host}/mode"));
        if !mode.is_null() && mode != "active" {
            give(&["host", "resume", host]);
        }
    }
    let stopped: Vec<String> = ground.undone().guests.iter().cloned().collect();
    for guest in stopped {
        if ["wanted", "state"].iter().any(|what| shown(format!("/guests/{guest}/{what}")) == "stopped") {
            give(&["guest", "start", &guest]);
        }
    }
}

/// Does what only a person can, once Holdfast has called for one; returns for what, so that it is counted.
pub(super) fn help(ground: &Ground, story: &Story, status: &Status) -> Vec<String> {
    let mut helped = Vec::new();
    for host in ground.hosts() {
        let of_host = |what: &str| status.value.pointer(&format!("/hosts/{host}/{what}")).cloned().unwrap_or_default();
        if of_host("distrusted").as_array().is_some_and(|levels| !levels.is_empty()) {
            helped.push(format!("the device of {host} was not trusted any more"));
            let _ = order(ground, story, &["host", "trust-device", host]);
        }
        if let Some(why) = of_host("quarantine").as_str() {
            helped.push(format!("{host} was in quarantine: {why}"));
            let _ = order(ground, story, &["host", "lift-quarantine", host]);
        }
    }
    for guest in &ground.guests {
        let why = status.value.pointer(&format!("/guests/{}/given_up", guest.name)).cloned().unwrap_or_default();
        if let Some(why) = why.as_str() {
            helped.push(format!("{} was given up: {why}", guest.name));
            let _ = order(ground, story, &["guest", "cleanup", &guest.name]);
        }
    }
    helped
}

/// Gives an order through whoever answers, and tells what is answered.
fn order(ground: &Ground, story: &Story, words: &[&str]) -> Result<()> {
    let said = words.join(" ");
    let from = ground.lab.status().with_context(|| format!("nobody takes `{said}`"))?.from;
    let mut all = words.to_vec();
    all.extend(OPERATOR);
    let answer = ground.lab.holdfast(&from, &all)?;
    let first = |text: &str| text.trim().lines().next().unwrap_or_default().to_owned();
    match answer.code {
        Some(0) => story.tell(&format!("    holdfast {said}: {}", first(&answer.out))),
        code => story.tell(&format!("    holdfast {said} ends with {code:?}: {}", first(&answer.err))),
    }
    Ok(())
}
