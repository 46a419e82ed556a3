//! The quickstart: three hosts, one guest, five failures, and what an outside client saw of them.

mod failures;
mod guarantee;
mod idle;
mod report;
mod show;

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Result, bail};

use self::{failures::Scene, report::Report, show::Progress};
use crate::lab::{Client, Lab, LabOptions, Place, client::ASK_EVERY, wait};

/// The guest that is kept alive, as `policies/web.yaml` declares it.
const GUEST: &str = "web-1";
/// Its address.
const ADDRESS: &str = "10.77.0.100";
/// Longest time until three supervisors agree on a leader.
const FORM_LIMIT: Duration = Duration::from_secs(60);
/// Longest time until the guest runs for the first time.
const FIRST_START_LIMIT: Duration = Duration::from_secs(90);

/// How it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Print one JSON object instead of a table; progress goes to standard error.
    pub json: bool,
    /// Leave everything running.
    pub keep: bool,
}

/// Runs it all and prints the result.
///
/// # Errors
/// When something does not happen within its limit, with the last status; what was built is taken down.
pub fn run(options: Options) -> Result<()> {
    let progress = Progress::new(options.json);
    let binary = crate::lab::binary()?;
    progress.step("laying out three hosts as network namespaces, each with a BMC that has its power button");
    let lab = Lab::new(LabOptions { binary: Some(binary), ..LabOptions::three()? })?;
    let outcome = play(&lab, &progress);
    let report = match outcome {
        Ok(report) => report,
        Err(error) => {
            if !wait::interrupted() {
                show::logs(&lab);
            }
            return Err(error);
        }
    };
    report.print(options.json)?;
    if options.keep {
        progress.kept(&lab);
        lab.keep()?;
    }
    // A double run must not look like success, whatever the outages were.
    if report.double_runs > 0 {
        bail!("the disk image was written by two guests at once; this must never happen");
    }
    Ok(())
}

/// Measures what supervisors cost when nothing happens for `time`, and prints it.
///
/// # Errors
/// When something does not come up, or a supervisor takes far more than it should.
pub fn idle(options: Options, time: Duration) -> Result<()> {
    idle::run(options.json, time)
}

/// Takes down what `--keep` left running; returns how many.
///
/// # Errors
/// Without cgroup v2.
pub fn stop() -> Result<usize> {
    let kept: Vec<Place> = Place::all()?.into_iter().filter(Place::kept).collect();
    kept.iter().for_each(Place::take_down);
    Ok(kept.len())
}

fn play(lab: &Lab, progress: &Progress) -> Result<Report> {
    lab.make_guest(GUEST, ADDRESS)?;
    progress.step("switching the hosts on: guard and supervisor start, a leader is elected");
    lab.power_on_all()?;
    lab.wait_hosts_healthy(FORM_LIMIT)?;
    let leader = lab.wait_status("a leader", FORM_LIMIT, |status| status.leader().map(str::to_owned))?;
    progress.note(&format!("{leader} leads"));

    progress.step("starting the guest by hand, three times: no failover can be faster than its boot");
    let client = Client::start(lab, &format!("{ADDRESS}:{}", crate::lab::guest::PORT), ASK_EVERY)?;
    let boot_floor_ms = lab.boot_floor_ms("h1", GUEST, ADDRESS, &client, 3)?;
    progress.note(&format!("boot floor: {}", show::seconds(boot_floor_ms)));

    progress.step(&format!("holdfast apply {}", policies().display()));
    lab.apply(&leader, &policies())?;
    let host = lab.wait_guest_healthy(GUEST, FIRST_START_LIMIT)?;
    client.wait_up(FIRST_START_LIMIT)?;
    progress.note(&format!("{GUEST} runs on {host} and answers"));

    let scene = Scene { lab, client: &client, progress };
    let failures = scene.all()?;
    let double_runs = lab.double_runs();
    double_runs.iter().for_each(|run| progress.note(&format!("DOUBLE RUN: {run:?}")));
    Ok(Report { failures, boot_floor_ms, double_runs: double_runs.len() })
}

fn policies() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/quickstart/policies");
    folder.canonicalize().unwrap_or(folder)
}

#[cfg(test)]
mod tests {
    use holdfast_policies::yaml::{Source, parse};

    use super::*;

    #[test]
    fn the_policies_of_the_quickstart_are_accepted() {
        let read = |name: &str| std::fs::read_to_string(policies().join(name)).unwrap();
        let (web, fencing) = (read("web.yaml"), read("fencing.yaml"));
        let sources = [Source { name: "web.yaml", text: &web }, Source { name: "fencing.yaml", text: &fencing }];
        let parsed = parse(&sources).unwrap_or_else(|findings| panic!("{findings:?}"));
        assert_eq!(parsed.fencing.len(), 3);
        let (_, guest) = parsed.guests.iter().next().unwrap();
        assert_eq!(guest.qemu.nics.first().unwrap().mac, crate::lab::guest::mac(ADDRESS));
    }
}
