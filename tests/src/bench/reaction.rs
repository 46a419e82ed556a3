//! How soon an application that dies is to be restarted: real guests, real supervisors, software emulation where there is
//! nothing better. Both times come from one host's log, so that no clocks are compared.
//!
//! With Holdfast's agent in the guest: from its word that the service has died, or is not there, to the order to restart it. What the guest's
//! kernel takes to tell the agent is not in it, and is not the host's to know. With QEMU's guest agent: from the client's
//! request that kills the application to the order, with one question a second and one failure that is enough.

use std::{
    fs,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use serde_json::Value;

use crate::lab::{
    Scene,
    guest::PORT,
    kits::{self, REDIS, SIDE_PORT},
    scene::{ADDRESS, GUEST, LIMIT},
    wait,
};

/// Fewest rounds that have a 99th percentile of their own.
pub const P99_ROUNDS: usize = 100;

/// Most rounds: each is a try of a rung, and a rung has no more.
pub const ROUNDS_MAX: usize = 100;

/// What was measured, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    /// Applications that were killed, with each agent.
    pub rounds: usize,
    /// With Holdfast's own agent: from its word to the order.
    pub holdfast_agent: Times,
    /// With QEMU's guest agent: from the request that kills the application to the order.
    pub qemu_agent: Times,
}

/// Times of many rounds, in milliseconds.
#[derive(Debug, Clone, Serialize)]
pub struct Times {
    /// Half of them were shorter.
    pub median_ms: f64,
    /// Ninety-nine of a hundred were not longer; `None` for fewer than [`P99_ROUNDS`], of which it would be the longest.
    pub p99_ms: Option<f64>,
    /// The longest.
    pub max_ms: f64,
}

impl Times {
    fn of(mut all: Vec<f64>) -> Result<Self> {
        all.sort_by(f64::total_cmp);
        let at = |share: usize| all.get((all.len() * share).div_ceil(100).saturating_sub(1)).copied();
        let (Some(median_ms), Some(max_ms)) = (at(50), all.last().copied()) else {
            bail!("nothing was measured");
        };
        let p99_ms = at(99).filter(|_| all.len() >= P99_ROUNDS);
        Ok(Self { median_ms, p99_ms, max_ms })
    }
}

/// Kills an application so many times with each agent.
///
/// # Errors
/// When there are to be none or more than [`ROUNDS_MAX`], when the kits or the lab cannot be built, or something is not restarted.
pub fn measure(rounds: usize) -> Result<Measured> {
    ensure!((1..=ROUNDS_MAX).contains(&rounds), "{rounds} rounds cannot be measured, only 1 to {ROUNDS_MAX}");
    // First, so that what is missing for them is said before anything was measured for many minutes.
    kits::make()?;
    let scene = Scene::three()?;
    let qemu_agent = told("QEMU's agent", Times::of(by_qemu_agent(&scene, rounds)?)?);
    let holdfast_agent = told("Holdfast's agent", Times::of(by_own_agent(&scene, rounds)?)?);
    Ok(Measured { rounds, holdfast_agent, qemu_agent })
}

// ---- Holdfast's own agent ----

fn by_own_agent(scene: &Scene, rounds: usize) -> Result<Vec<f64>> {
    scene.lab.build_kits()?;
    scene.lab.make_kit_guest(&REDIS)?;
    stop(scene, GUEST)?;
    let mut files: Vec<(String, String)> =
        scene.declaration()?.into_iter().map(|(name, text)| (name.to_owned(), text)).collect();
    // Every round is a first try.
    let kit = scene.lab.kit_yaml(&REDIS)?.map(|(name, text)| (name, text.replace("tries: 2,", "tries: 100,")));
    files.extend(kit);
    let from = scene.lab.status()?.from;
    scene.lab.apply_texts(&from, &files)?;
    let mut all = Vec::with_capacity(rounds);
    for round in 0..rounds {
        tell("Holdfast's agent", round, rounds);
        let host = healthy(scene, REDIS.guest)?;
        let before = lines(scene, &host).len();
        scene.lab.client_get(&format!("{}:{SIDE_PORT}", REDIS.address), "/cgi-bin/app?kill")?;
        let (died, ordered) = wait::until(&format!("round {round}: an order"), LIMIT, || {
            let new = lines(scene, &host).split_off(before);
            // It is asked now and then, too, and may answer before it has told.
            let died = new.iter().find(|line| line.contains("Died {") || is_failing(line, REDIS.guest));
            let order = new.iter().find(|line| is_order(line, REDIS.guest));
            died.and_then(|line| stamp(line)).zip(order.and_then(|line| stamp(line))).ok_or_else(|| new.join("\n"))
        })?;
        all.push(apart_ms(died, ordered));
    }
    Ok(all)
}

// ---- QEMU's guest agent ----

fn by_qemu_agent(scene: &Scene, rounds: usize) -> Result<Vec<f64>> {
    let mut files = scene.declaration()?;
    let (_, web) = files.iter_mut().find(|(name, _)| *name == "web.yaml").context("no web.yaml")?;
    let end = web.find("policies:").context("no policies in web.yaml")?;
    web.truncate(end);
    web.push_str(
        r#"policies:
  web:
    match: { app: web }
    services:
      front:                              # not the name that the lab's own policy has, of which a word may be left
        probe: { http: { url: "http://127.0.0.1:8080/cgi-bin/who" } }
        every: 1s
        timeout: 1s
        fails_after: 1
        recovers_after: 1
        from: { inside: true, hosts: 0, agree: 1 }
    ladder:
      - restart_service: { run: ["/bin/restart-app"], tries: 100, wait: 30s }
      - page: { severity: critical }
    cool_down: 2s
"#,
    );
    let from = scene.lab.status()?.from;
    scene.lab.apply_texts(&from, &files)?;
    let mut all = Vec::with_capacity(rounds);
    for round in 0..rounds {
        tell("QEMU's agent", round, rounds);
        let host = healthy(scene, GUEST)?;
        let before = lines(scene, &host).len();
        let killed = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64() % DAY;
        // An application that ends while it answers does not answer.
        let _ = scene.lab.client_get(&format!("{ADDRESS}:{PORT}"), "/cgi-bin/crash");
        let ordered = wait::until(&format!("round {round}: an order"), LIMIT, || {
            let new = lines(scene, &host).split_off(before);
            let order = new.iter().find(|line| is_order(line, GUEST));
            order.and_then(|line| stamp(line)).ok_or_else(|| new.join("\n"))
        })?;
        all.push(apart_ms(killed, ordered));
    }
    Ok(all)
}

// ---- what both need ----

/// Tells people who wait how far it is: a hundred rounds take three quarters of an hour, for what the kit asks seldom.
fn tell(agent: &str, round: usize, rounds: usize) {
    if round.is_multiple_of(10) {
        eprintln!("{agent}: {round} of {rounds} rounds");
    }
}

/// The same, once people who wait have been told.
fn told(agent: &str, times: Times) -> Times {
    eprintln!("{agent}: median {:.1} ms, longest {:.1} ms", times.median_ms, times.max_ms);
    times
}

/// A day, in seconds: times of day are compared, and a night may lie between them.
const DAY: f64 = 86_400.0;

fn apart_ms(from: f64, to: f64) -> f64 {
    (to - from).rem_euclid(DAY) * 1_000.0
}

/// The time of day at the beginning of a log line, in seconds.
fn stamp(line: &str) -> Option<f64> {
    let (_, time) = line.split_whitespace().next()?.split_once('T')?;
    let parts: Vec<f64> = time.strip_suffix('Z')?.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    match parts.as_slice() {
        [hours, minutes, seconds] => Some(hours * 3_600.0 + minutes * 60.0 + seconds),
        _ => None,
    }
}

/// Whether a line says that the process was asked for and is not there.
fn is_failing(line: &str, guest: &str) -> bool {
    ["a service looks different", "service=server", "state=Failing", guest].iter().all(|part| line.contains(part))
}

fn is_order(line: &str, guest: &str) -> bool {
    line.contains("carrying an order out") && line.contains("run `") && line.contains(guest)
}

fn lines(scene: &Scene, host: &str) -> Vec<String> {
    let log = scene.lab.host_dir(host).join("supervisor.log");
    fs::read_to_string(log).unwrap_or_default().lines().map(str::to_owned).collect()
}

fn stop(scene: &Scene, guest: &str) -> Result<()> {
    let from = scene.lab.status()?.from;
    scene.lab.holdfast_soon(&from, &["guest", "stop", guest, "--operator", "ann"])?;
    wait::until(&format!("{guest} stopped"), LIMIT, || {
        let state = scene.shown(&format!("/guests/{guest}/state")).map_err(|error| format!("{error:#}"))?;
        if state == "stopped" { Ok(()) } else { Err(state.to_string()) }
    })
}

/// Waits until all services of a guest answer and nothing is remembered against it; returns its host.
fn healthy(scene: &Scene, guest: &str) -> Result<String> {
    wait::until(&format!("{guest} with all its services"), LIMIT * 3, || {
        let status = scene.lab.status().map_err(|error| format!("{error:#}"))?;
        let known = status.value.pointer(&format!("/guests/{guest}")).cloned().unwrap_or(Value::Null);
        let services = known.pointer("/services").and_then(Value::as_object).ok_or("no services")?;
        let answer = services.values().all(|service| service.pointer("/verdict").is_some_and(|is| is == "healthy"));
        let story = scene.lab.holdfast_json(&status.from, &["explain", guest]).map_err(|error| format!("{error:#}"))?;
        let incidents = story.pointer("/incidents").and_then(Value::as_array).cloned().unwrap_or_default();
        let closed = incidents.iter().all(|incident| incident.pointer("/open").is_none_or(|open| open == false));
        match status.guest_host(guest) {
            Some(host) if answer && closed && !services.is_empty() && status.guest_healthy(guest) => {
                Ok(host.to_owned())
            }
            _ => Err(known.to_string()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day_are_read_from_a_log_and_a_night_may_lie_between_them() {
        let (died, ordered) = ("2026-11-29T23:59:59.990000Z  INFO a", "2026-11-30T00:00:00.040000Z  INFO b");
        let apart = apart_ms(stamp(died).unwrap(), stamp(ordered).unwrap());
        assert!((apart - 50.0).abs() < 0.01, "{apart}");
        assert!(stamp("no time").is_none());
    }

    #[test]
    fn few_rounds_have_no_99th_percentile() {
        let times = Times::of(vec![3.0, 1.0, 2.0]).unwrap();
        assert_eq!((times.median_ms, times.p99_ms, times.max_ms), (2.0, None, 3.0));
        let times = Times::of((1..=100).map(f64::from).rev().collect()).unwrap();
        assert_eq!((times.median_ms, times.p99_ms, times.max_ms), (50.0, Some(99.0), 100.0));
        assert!(Times::of(Vec::new()).is_err());
    }

    #[test]
    fn rounds_that_cannot_be_measured_are_refused_before_anything_is_built() {
        for rounds in [0, ROUNDS_MAX + 1] {
            let said = measure(rounds).unwrap_err().to_string();
            assert!(said.contains("only 1 to 100"), "{said}");
        }
    }
}
