//! A run, from the first boot to the look at the disks.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use holdfast_policies::feature_level::FeatureLevel;
use serde_json::Value;

use super::{
    act, daemons,
    ground::{Ground, Guest},
    keep::keep,
    kinds::Kind,
    logs::Logs,
    mend,
    plan::{self, Deed},
    report::{Burst, Report},
    rest,
    setup::Setup,
    story::Story,
    upgrade::{self, Upgrade},
    witness::Witness,
};
use crate::{
    lab::{HostSpec, binary, clock::now_ms, wait},
    simulator::random::Random,
};

/// The stream of chance that bursts are drawn from.
const STREAM: u64 = 0xB0B5;
/// Longest time until a new cluster is at rest: every guest boots, all at once.
const BEGIN_LIMIT: Duration = Duration::from_secs(600);
/// Longest rest between two bursts, in milliseconds: some begin while the last one is hardly forgotten.
const PAUSE_MS: u64 = 8_000;
/// Lines of each kind of log line that the story has of one burst.
const LINES_MAX: usize = 3;

/// The key of incidents of plans that were refused.
const PLAN: &str = "plan";

/// How long a run goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Length {
    /// No burst begins after this time.
    Time(Duration),
    /// So many bursts.
    Bursts(usize),
}

/// How a run is called.
#[derive(Debug, Clone)]
pub struct Options {
    /// The seed.
    pub seed: u64,
    /// How long it goes on.
    pub length: Length,
    /// So many hosts; else the seed says.
    pub hosts: Option<usize>,
    /// So many guests; else the seed says.
    pub guests: Option<usize>,
    /// Faults of this kind alone.
    pub only: Option<Kind>,
    /// How long it may take, once the faults are over, until all is well.
    pub limit: Duration,
    /// An older `holdfast`, from which every host is upgraded in the course of the run.
    pub old: Option<PathBuf>,
    /// The story goes to standard error.
    pub story_to_stderr: bool,
}

/// The bursts that a seed draws, as lines; nothing is done.
#[must_use]
pub fn planned(options: &Options) -> Vec<String> {
    let setup = Setup::draw(options.seed, options.hosts, options.guests);
    let mut random = Random::new(options.seed, STREAM);
    let bursts = match options.length {
        Length::Bursts(bursts) => bursts,
        Length::Time(time) => usize::try_from(time.as_secs() / 60).unwrap_or(usize::MAX),
    };
    let mut lines = vec![described(&setup)];
    for number in 1..=bursts {
        let (deeds, pause) = drawn(&mut random, &setup, options.only);
        lines.push(format!("burst {number}, after {:.1} s", pause.as_secs_f64()));
        lines.extend(deeds.iter().map(|deed| format!("  {:.1} s: {deed}", deed.at.as_secs_f64())));
    }
    lines
}

/// Does it all.
///
/// # Errors
/// When the lab does not come up. Whatever goes wrong after that is in the report.
pub fn run(options: &Options) -> Result<Report> {
    let story = Story::new(options.story_to_stderr);
    let setup = Setup::draw(options.seed, options.hosts, options.guests);
    story.tell(&format!("seed {}: {}", options.seed, described(&setup)));
    let new = binary()?;
    let ground = Ground::build(&setup, options.old.as_deref().unwrap_or(&new)).context("the lab")?;
    let upgrade = options.old.as_deref().map(|old| Upgrade::begin(&ground, old, &new)).transpose()?;
    let mut run = Run {
        options,
        setup: &setup,
        ground: &ground,
        story: &story,
        upgrade,
        witness: Witness::default(),
        logs: Logs::default(),
        plans: BTreeSet::new(),
        report: Report { seed: options.seed, guests: setup.guests.len(), ..Report::default() },
    };
    run.report.hosts = setup.hosts.iter().map(host_words).collect();
    let first = run.all();
    run.take_over_findings();
    let mut report = run.report;
    let first = first.unwrap_or_else(|error| {
        report.ended_early = Some(format!("{error:#}"));
        Vec::new()
    });
    report.seconds = story.begin().elapsed().as_secs();
    report.sum_up(&first);
    story.tell(&verdict(&report, options.limit));
    if report.is_bad() && !wait::interrupted() {
        match keep(&ground, &story, options.seed) {
            Ok(folder) => {
                story.tell(&format!("story, logs and journals are kept in {}", folder.display()));
                report.kept = Some(folder);
            }
            Err(error) => story.tell(&format!("nothing is kept: {error:#}")),
        }
    }
    Ok(report)
}

fn verdict(report: &Report, limit: Duration) -> String {
    let Report { seed, bursts, unhealed, double_runs, panics, .. } = report;
    let early = report.ended_early.as_ref().map_or(String::new(), |why| format!("; it ended early: {why}"));
    let all = if report.is_bad() { "BAD" } else { "all is well" };
    format!(
        "seed {seed}, {bursts} bursts: {all}; {unhealed} not well within {} s, {double_runs} double runs, {panics} panics, {} disks \
         that are wrong{early}",
        limit.as_secs(),
        report.disk_faults.len()
    )
}

fn described(setup: &Setup) -> String {
    let hosts: Vec<String> = setup.hosts.iter().map(host_words).collect();
    let by = if setup.power_on_after_fence { "Holdfast" } else { "a person" };
    format!("{}; {} guests; a fenced host is switched on by {by}", hosts.join(", "), setup.guests.len())
}

fn host_words(spec: &HostSpec) -> String {
    let kind = match (spec.witness, spec.voter, spec.watchdog_seconds) {
        (true, _, _) => " (witness)",
        (_, false, _) => " (member)",
        (_, _, Some(_)) => " (watchdog)",
        (_, _, None) => "",
    };
    format!("{}{kind}", spec.name)
}

fn drawn(random: &mut Random, setup: &Setup, only: Option<Kind>) -> (Vec<Deed>, Duration) {
    let pause = Duration::from_millis(random.below(PAUSE_MS));
    (plan::burst(random, setup, only), pause)
}

struct Run<'a> {
    options: &'a Options,
    setup: &'a Setup,
    ground: &'a Ground,
    story: &'a Story,
    upgrade: Option<Upgrade>,
    witness: Witness,
    logs: Logs,
    /// Incidents of refused plans that were told already.
    plans: BTreeSet<u64>,
    report: Report,
}

impl Run<'_> {
    /// Returns what all daemons took at rest before anything was done.
    fn all(&mut self) -> Result<Vec<daemons::Usage>> {
        self.ground.begin(self.setup)?;
        let begun = rest::come(self.ground, self.story, BEGIN_LIMIT)?;
        begun.after.with_context(|| format!("the cluster has not come up: {}", begun.last))?;
        self.witness.ask(self.ground, self.story);
        self.look_at_logs();
        self.report.level_first = upgrade::level(self.ground);
        let first = daemons::usage(self.ground);
        self.story.tell("the cluster is up, and every guest answers");
        let mut random = Random::new(self.options.seed, STREAM);
        let begin = Instant::now();
        while let Some(share) = self.share(begin) {
            self.upgrade(share)?;
            if !self.burst(&mut random)? {
                break;
            }
        }
        self.end()?;
        Ok(first)
    }

    /// How much of the run is over, from 0 to 1; `None` at its end.
    fn share(&self, begin: Instant) -> Option<f64> {
        let share = match self.options.length {
            Length::Time(time) => begin.elapsed().as_secs_f64() / time.as_secs_f64().max(1.0),
            Length::Bursts(bursts) => self.report.bursts as f64 / bursts.max(1) as f64,
        };
        (share < 1.0).then_some(share)
    }

    fn upgrade(&mut self, share: f64) -> Result<()> {
        match &mut self.upgrade {
            Some(upgrade) => upgrade.go_on(self.ground, self.story, share).map(drop),
            None => Ok(()),
        }
    }

    /// One burst; returns whether there may be another one.
    fn burst(&mut self, random: &mut Random) -> Result<bool> {
        let (deeds, pause) = drawn(random, self.setup, self.options.only);
        wait::pause(pause)?;
        self.report.bursts += 1;
        self.story.tell(&format!("burst {}: {}", self.report.bursts, self.scene()));
        for deed in &deeds {
            *self.report.faults.entry(deed.kind.word()).or_default() += 1;
        }
        let (began_ms, presses, reboots) = (now_ms(), self.ground.lab.presses(), self.witness.reboots);
        self.ground.guests.iter().for_each(|guest| guest.client.forget());
        act::burst(self.ground, self.story, &deeds);
        self.witness.tell_double_runs(self.ground, self.story);
        self.story.tell("  the faults are over");
        self.report.power_ons += mend::mend(self.ground, self.story);
        let well = self.come_to_rest()?;
        self.witness.ask(self.ground, self.story);
        self.look_at_logs();
        self.look_at_incidents();
        let burst = Burst {
            done: deeds.iter().map(|deed| format!("{:.1} s: {deed}", deed.at.as_secs_f64())).collect(),
            well_after_ms: well.in_time.map(millis),
            outages_ms: self.outages(began_ms),
            presses: self.ground.lab.presses() - presses,
            usage: daemons::usage(self.ground),
        };
        self.tell_end(&burst);
        self.look_at_harmless(&deeds, burst.presses, self.witness.reboots - reboots);
        self.report.told.push(burst);
        Ok(well.at_all)
    }

    /// Where the guests are and who leads, for the story.
    fn scene(&self) -> String {
        let Ok(status) = self.ground.lab.status() else { return "nobody leads".to_owned() };
        let guests: Vec<String> = self
            .ground
            .guests
            .iter()
            .map(|guest| format!("{} on {}", guest.name, status.guest_host(&guest.name).unwrap_or("no host")))
            .collect();
        format!("{} leads; {}", status.leader().unwrap_or("nobody"), guests.join(", "))
    }

    fn come_to_rest(&mut self) -> Result<Well> {
        let outcome = rest::come(self.ground, self.story, self.options.limit)?;
        self.count(&outcome);
        if let Some(after) = outcome.after {
            return Ok(Well { in_time: Some(after), at_all: true });
        }
        self.report.unhealed += 1;
        let limit = self.options.limit.as_secs();
        self.story.tell(&format!("NOT WELL after {limit} s: {}", outcome.last));
        // Late is another finding than never.
        let late = rest::come(self.ground, self.story, self.options.limit)?;
        self.count(&late);
        match late.after {
            Some(after) => self.story.tell(&format!("  well {:.1} s later", after.as_secs_f64())),
            None => self.story.tell(&format!("STILL NOT WELL: {}", late.last)),
        }
        Ok(Well { in_time: None, at_all: late.after.is_some() })
    }

    fn count(&mut self, outcome: &rest::Outcome) {
        self.report.power_ons += outcome.power_ons;
        for help in &outcome.helped {
            self.story.tell(&format!("  a person was needed: {help}"));
            self.report.needed_a_person.push(format!("burst {}: {help}", self.report.bursts));
        }
    }

    fn outages(&self, since_ms: f64) -> BTreeMap<String, u64> {
        let length =
            |guest: &Guest| guest.client.longest_since(since_ms).map_or(0, |outage| outage.length_ms().max(0.0) as u64);
        self.ground.guests.iter().map(|guest| (guest.name.clone(), length(guest))).collect()
    }

    fn tell_end(&self, burst: &Burst) {
        let outages: Vec<String> =
            burst.outages_ms.iter().map(|(guest, ms)| format!("{guest} {:.1} s", *ms as f64 / 1e3)).collect();
        let well = burst.well_after_ms.map_or("not in time".to_owned(), |ms| format!("after {:.1} s", ms as f64 / 1e3));
        let of = |daemon: &str| {
            let most = |what: fn(&daemons::Usage) -> u64| daemons::most(&burst.usage, daemon, what);
            let rss = most(|one| one.rss_kib) as f64 / 1024.0;
            format!("{rss:.1} MiB, {} fds, {} threads", most(|one| one.fds as u64), most(|one| one.threads as u64))
        };
        self.story.tell(&format!("  well {well}; out: {}; {} buttons pressed", outages.join(", "), burst.presses));
        self.story.tell(&format!("  at most: supervisors {}; guards {}", of("supervisor"), of("guard")));
    }

    fn look_at_harmless(&mut self, deeds: &[Deed], presses: usize, reboots: u64) {
        if presses as u64 + reboots == 0 || !plan::is_harmless(deeds, self.setup) {
            return;
        }
        let what =
            format!("burst {}: {presses} power buttons pressed, {reboots} boots, for nothing", self.report.bursts);
        self.story.tell(&format!("TOUCHED: {what}"));
        self.report.touched.push(what);
    }

    fn look_at_logs(&mut self) {
        let found = self.logs.news(self.ground);
        found.panics.iter().for_each(|line| self.story.tell(&format!("PANIC: {line}")));
        for line in found.errors.iter().take(LINES_MAX).chain(found.ends.iter().take(LINES_MAX)) {
            self.story.tell(&format!("  {line}"));
        }
        if found.refused > 0 {
            self.story.tell(&format!("  {} times QEMU was refused a disk that another one had", found.refused));
        }
        self.report.panics += found.panics.len();
        self.report.panic_lines.extend(found.panics);
        self.report.errors += found.errors.len();
        self.report.refused_starts += found.refused;
    }

    /// Tells of incidents that are open at rest, and notes those that tell of a defect of Holdfast: what was decided was refused by the
    /// checker beside it.
    fn look_at_incidents(&mut self) {
        let Ok(status) = self.ground.lab.status() else { return };
        let incidents = status.value.get("incidents").and_then(Value::as_array).cloned().unwrap_or_default();
        for incident in &incidents {
            let text = |what: &str| incident.get(what).and_then(Value::as_str).unwrap_or_default();
            let told = format!("{}: {}", text("key"), text("summary"));
            if incident.get("open").is_some_and(|open| open == true) {
                self.story.tell(&format!("  open: {told}"));
            }
            let id = incident.get("id").and_then(Value::as_u64).unwrap_or(0);
            if text("key") == PLAN && self.plans.insert(id) {
                self.story.tell(&format!("REFUSED {told}"));
                self.report.refused_plans.push(told);
            }
        }
    }

    /// Ends the run where all is well: whatever is on loses its power, and the disks are read.
    fn end(&mut self) -> Result<()> {
        self.report.level_last = upgrade::level(self.ground);
        self.judge_upgrade();
        self.take_over_findings();
        if self.report.is_bad() {
            // What went wrong is to be looked at: the hosts stay on until their answers are kept.
            return Ok(());
        }
        self.story.tell("the run is over; all power is cut, and the disks are read");
        self.ground.hosts().try_for_each(|host| self.ground.lab.power_cut(host))?;
        self.witness.look_at_disks(self.ground, self.story);
        Ok(())
    }

    fn judge_upgrade(&mut self) {
        let (Some(upgrade), 0) = (&self.upgrade, self.report.unhealed) else { return };
        let (highest, level) = (u64::from(FeatureLevel::HIGHEST.0), self.report.level_last);
        if !upgrade.is_over() {
            self.report.upgrade_faults.push("the run was too short to upgrade every host".to_owned());
        } else if level != Some(highest) {
            let fault = format!("all hosts are upgraded, and the feature level is {level:?}, not {highest}");
            self.report.upgrade_faults.push(fault);
        }
    }

    fn take_over_findings(&mut self) {
        self.report.double_runs = self.ground.lab.double_runs().len();
        self.report.reboots = self.witness.reboots;
        self.report.disk_faults.clone_from(&self.witness.disk_faults);
    }
}

/// Whether all was well within the limit, and whether it was at all.
struct Well {
    in_time: Option<Duration>,
    at_all: bool,
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
