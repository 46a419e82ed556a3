//! Runs of many seeds, and what came of them.

use std::time::Instant;

use serde::Serialize;

use super::{
    Ms,
    breaks::Break,
    bursts::random_plan,
    checks::Violation,
    chores,
    faults::Plan,
    heal_bound::LIMIT_MAX,
    held_checks::HELD_MAX,
    oddities,
    random::Random,
    recoveries, revoked, rules,
    seen::{Healed, Seen},
    service_storms,
    setup::Setup,
    shrink, slow_watchdogs,
    story::clock,
    versions,
    world::{BOUND, World},
};

/// What every seed of a run has in common.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Fewest hosts.
    pub hosts_min: usize,
    /// Most hosts.
    pub hosts_max: usize,
    /// Simulated minutes.
    pub minutes: u64,
    /// The rule that is switched off.
    pub broken: Option<Break>,
    /// Whether some worlds have rules about places, capacities and failure domains. Without, a seed is what it was before
    /// there were any.
    pub places: bool,
    /// Whether some worlds have drills, departures, second machines under a name, and logs that are compacted.
    pub chores: bool,
    /// Whether some worlds have power devices that lie, hosts with two power supplies, clocks that drift far apart, and guests
    /// that other tools move.
    pub oddities: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { hosts_min: 3, hosts_max: 9, minutes: 30, broken: None, places: true, chores: true, oddities: true }
    }
}

/// How one seed went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Every promise was kept, and everything came to rest.
    Well,
    /// A promise was broken.
    Violated(Violation),
    /// It did not come to rest (L1): after how long, and why.
    Unhealed(String),
}

/// One seed's run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it went.
    pub end: End,
    /// Simulated milliseconds.
    pub simulated: Ms,
    /// Events that happened.
    pub events: u64,
    /// Rounds of deciding.
    pub decisions: u64,
    /// The number of the last committed entry.
    pub entries: u64,
    /// What happened that is rare.
    pub seen: Seen,
    /// The story, if it was asked for.
    pub story: String,
}

impl Options {
    /// The setup and the plan of a seed.
    #[must_use]
    pub fn of(&self, seed: u64) -> (Setup, Plan) {
        let mut setup = Setup::random(seed, self.hosts_min, self.hosts_max, self.broken);
        let mut random = Random::new(seed, 6);
        if self.places && self.broken.is_none() && random.one_in(2) {
            rules::draw(&mut setup, &mut random);
        }
        let mut plan = random_plan(&setup, self.minutes);
        let mut random = Random::new(seed, 7);
        if self.chores && self.broken.is_none() && random.one_in(2) {
            plan = chores::draw(&mut setup, &mut random, plan);
        }
        if self.oddities && self.broken.is_none() {
            plan = oddities::draw(&mut setup, plan);
        }
        if self.broken == Some(Break::R26) {
            plan = versions::draw(&mut setup, plan);
        }
        if self.broken == Some(Break::R25) {
            let mut random = Random::new(seed, oddities::RECOVERIES);
            plan = recoveries::draw(&setup, &mut random, plan);
        }
        if matches!(self.broken, Some(Break::R27 | Break::R27News)) {
            let mut random = Random::new(seed, oddities::REVOCATIONS);
            plan = revoked::draw(&setup, &mut random, plan);
        }
        if self.broken == Some(Break::S9Services) {
            let mut random = Random::new(seed, oddities::SERVICE_STORMS);
            plan = service_storms::draw(&mut setup, &mut random, plan);
        }
        if self.broken == Some(Break::R1Watchdog) {
            let mut random = Random::new(seed, oddities::SLOW_WATCHDOGS);
            plan = slow_watchdogs::draw(&mut setup, &mut random, plan);
        }
        (setup, plan)
    }

    /// Runs one seed.
    #[must_use]
    pub fn run(&self, seed: u64) -> Outcome {
        let (setup, plan) = self.of(seed);
        self.run_plan(&setup, plan, false)
    }

    /// Runs a seed's setup under a plan.
    #[must_use]
    pub fn run_plan(&self, setup: &Setup, plan: Plan, told: bool) -> Outcome {
        // After the last burst there is time to heal, whatever the minutes say.
        let end = (self.minutes * 60_000).max(plan.last().map_or(0, |(at, _)| *at + BOUND + 5_000));
        let mut world = World::new(setup, plan);
        world.story.told = told;
        world.run_until(end);
        // A world may be given longer than most. The seconds are counted here too: where nothing happens any more, nobody looks.
        while world.heal_limit().is_some() && !world.is_over() && world.real() < end + LIMIT_MAX + HELD_MAX {
            world.run_until(world.real() + 1_000);
        }
        let end = match (world.violation().cloned(), world.unhealed()) {
            (Some(violation), _) => End::Violated(violation),
            (None, Some(why)) => End::Unhealed(why.to_owned()),
            (None, None) => End::Well,
        };
        let (events, decisions, entries) = (world.events, world.decisions, world.state().applied);
        let (simulated, seen, story) = (world.real(), world.seen, world.story.text());
        Outcome { end, simulated, events, decisions, entries, seen, story }
    }

    /// What is to be told of a bad seed: the shortest list of happenings that still shows it, and the story.
    #[must_use]
    pub fn explain(&self, seed: u64, end: &End) -> String {
        let (setup, plan) = self.of(seed);
        let short = shrink::shrink(self, &setup, plan, end);
        let outcome = self.run_plan(&setup, short.clone(), true);
        let mut text =
            format!("seed {seed}, {} hosts, {} voters: {}\n", setup.hosts.len(), setup.voters, words(&outcome.end));
        text.push_str("the shortest list of happenings that shows it:\n");
        for (at, what) in &short {
            text.push_str(&format!("  {} {what:?}\n", clock(*at)));
        }
        text.push_str("the story:\n");
        text.push_str(&outcome.story);
        text
    }
}

/// The first seed at which a broken rule shows, and how. A seed that is not well with all rules in force proves nothing.
#[must_use]
pub fn find_break(options: &Options, rule: Break, first: u64, seeds: u64) -> Option<(u64, End)> {
    let options = Options { broken: Some(rule), ..*options };
    (first..first.saturating_add(seeds)).find_map(|seed| {
        let (setup, plan) = options.of(seed);
        let end = options.run_plan(&setup, plan.clone(), false).end;
        let whole = Setup { broken: None, timing: Setup::random_timing(None), ..setup };
        (end != End::Well && options.run_plan(&whole, plan, false).end == End::Well).then_some((seed, end))
    })
}

/// An end in words.
#[must_use]
pub fn words(end: &End) -> String {
    match end {
        End::Well => "every promise was kept".to_owned(),
        End::Violated(Violation { promise, what, at }) => {
            format!("{promise} was broken at {}: {what}", clock(*at).trim())
        }
        End::Unhealed(why) => format!("L1: not at rest {why}"),
    }
}

/// What came of many seeds.
#[derive(Debug, Clone, Serialize, PartialEq)]
pub struct Totals {
    /// Seeds that were run.
    pub seeds: u64,
    /// Seeds that broke a promise.
    pub violations: u64,
    /// Seeds that did not come to rest.
    pub unhealed: u64,
    /// Simulated hours of the cluster.
    pub simulated_hours: f64,
    /// Hours of this machine, in seconds.
    pub wall_seconds: f64,
    /// The seeds that were not well; told as they are found, and no part of the figures.
    #[serde(skip)]
    pub bad_seeds: Vec<u64>,
    /// The seed that came nearest to its limit after its faults had stopped (L1), and how near; no part of the figures either.
    #[serde(skip)]
    pub slowest: Option<(u64, Healed)>,
}

/// Bad seeds that are listed.
const BAD_SEEDS_MAX: usize = 100;

/// Runs many seeds; `bad` is called for each that is not well, and ends the run by returning `false`.
pub fn run_many(options: &Options, first: u64, seeds: u64, mut bad: impl FnMut(u64, &End) -> bool) -> Totals {
    let began = Instant::now();
    let mut totals = Totals {
        seeds: 0,
        violations: 0,
        unhealed: 0,
        simulated_hours: 0.0,
        wall_seconds: 0.0,
        bad_seeds: Vec::new(),
        slowest: None,
    };
    let mut simulated = 0_u64;
    for seed in first..first.saturating_add(seeds) {
        let outcome = options.run(seed);
        totals.seeds += 1;
        simulated += outcome.simulated;
        if let Some(healed) = outcome.seen.slowest
            && totals.slowest.is_none_or(|(_, slowest)| healed.is_nearer_than(slowest))
        {
            totals.slowest = Some((seed, healed));
        }
        match &outcome.end {
            End::Well => continue,
            End::Violated(_) => totals.violations += 1,
            End::Unhealed(_) => totals.unhealed += 1,
        }
        if totals.bad_seeds.len() < BAD_SEEDS_MAX {
            totals.bad_seeds.push(seed);
        }
        if !bad(seed, &outcome.end) {
            break;
        }
    }
    totals.simulated_hours = hours(simulated);
    totals.wall_seconds = began.elapsed().as_secs_f64();
    totals
}

#[expect(clippy::cast_precision_loss, reason = "a figure for people")]
fn hours(simulated: Ms) -> f64 {
    simulated as f64 / 3_600_000.0
}
