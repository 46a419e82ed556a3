//! Real voters (openraft) from seeds: nothing that they have acknowledged is lost, a seed repeats its run exactly, and what
//! is broken on purpose is found. `simulator voters --seeds 1000` tries more.

use std::{collections::BTreeSet, sync::LazyLock};

use holdfast_tests::{
    threads::in_threads,
    voters::{Break, End, Options, Outcome, Seen, find_break, run, run_many, run_narrow, words},
};

/// Seeds that every test run tries: half of them with three voters, half with five.
const SEEDS: u64 = 16;
/// The seed whose runs are compared.
const TRACED: u64 = 6;
/// Seeds that each break gets.
const SEEDS_PER_BREAK: u64 = 8;
/// Seeds in which the links of the leader become narrow.
const NARROW_SEEDS: u64 = 4;
/// Lines of a bad seed's story that are shown: the last ones.
const LINES_SHOWN: usize = 120;

/// What came of each seed: two tests look at that, and it is run once.
static RUNS: LazyLock<Vec<(u64, Outcome)>> =
    LazyLock::new(|| in_threads(1..=SEEDS, |seed| run(seed, &Options::default())));

/// S6, S7, R2, R24, L1.
#[test]
fn real_voters_lose_nothing_that_they_have_acknowledged_whatever_befalls_them() {
    for (seed, outcome) in RUNS.iter() {
        let lines: Vec<&str> = outcome.story.lines().collect();
        let last = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
        assert!(matches!(outcome.end, End::Well(_)), "{last}\nseed {seed}: {}", words(&outcome.end));
        let Seen { acknowledged, reads, leaders, .. } = outcome.seen;
        assert!(acknowledged > 8 && reads > 8 && leaders > 0, "seed {seed}: {:?}", outcome.seen);
    }
}

/// L1.
#[test]
fn a_leader_whose_decisions_do_not_get_to_the_others_gives_way_to_one_that_decides() {
    for (seed, outcome) in in_threads(1..=NARROW_SEEDS, |seed| run_narrow(seed, true)) {
        let lines: Vec<&str> = outcome.story.lines().collect();
        let last = lines[lines.len().saturating_sub(LINES_SHOWN)..].join("\n");
        assert!(matches!(outcome.end, End::Well(_)), "{last}\nseed {seed}: {}", words(&outcome.end));
    }
}

/// Its heartbeats are answered: raft sees no reason to elect another one.
#[test]
fn a_leader_that_does_not_give_way_leads_on_and_decides_nothing() {
    for (seed, outcome) in in_threads(1..=2, |seed| run_narrow(seed, false)) {
        assert!(matches!(outcome.end, End::Unhealed(_)), "seed {seed}: {}", words(&outcome.end));
    }
}

#[test]
fn what_is_rare_befalls_real_voters() {
    let count = |count: fn(&Seen) -> u64| RUNS.iter().filter(|(_, outcome)| count(&outcome.seen) > 0).count();
    let worlds = [
        ("a leader follows another one", count(|seen| seen.leaders.saturating_sub(1))),
        ("a process loses its power and comes back (R24)", count(|seen| seen.crashes)),
        ("the lead is handed over as asked (R29)", count(|seen| seen.handed_over)),
        ("a snapshot is installed over an older state", count(|seen| seen.snapshots_installed)),
        ("a voter is exchanged for a new one (R24)", count(|seen| seen.exchanged)),
    ];
    assert!(worlds.iter().all(|(_, worlds)| *worlds > 0), "{worlds:?}");
    let voters: BTreeSet<u64> = RUNS.iter().map(|(_, outcome)| outcome.voters).collect();
    assert_eq!(voters, BTreeSet::from([3, 5]));
}

/// Down to each poll of each task, each timer and each die.
#[test]
fn a_seed_repeats_its_run_of_real_voters_exactly() {
    let options = Options { broken: None, traced: true };
    let (one, other) = (run(TRACED, &options), run(TRACED, &options));
    assert!(one.trace.len() > 10_000, "{} events", one.trace.len());
    let differs = one.trace.iter().zip(&other.trace).position(|(one, other)| one != other);
    assert_eq!(differs, None, "{:?}", differs.map(|at| (&one.trace[at], &other.trace[at])));
    assert!(one == other, "another story, or another length");
    let stories: BTreeSet<&str> = RUNS.iter().map(|(_, outcome)| outcome.story.as_str()).collect();
    assert_eq!(stories.len(), RUNS.len(), "each seed has a story of its own");
}

#[test]
fn what_real_voters_break_on_purpose_is_found() {
    for broken in Break::ALL {
        let found = find_break(*broken, 1, SEEDS_PER_BREAK);
        let Some((seed, outcome)) = found else { panic!("{}, and nothing is found", broken.what()) };
        let what = words(&outcome.end);
        let rules: &[&str] = match broken {
            Break::Votes => &["R24"],
            Break::Fsync => &["R24", "S6", "S7", "R2"],
            Break::Reads => &["R2"],
        };
        assert!(rules.iter().any(|rule| what.starts_with(rule)), "seed {seed}, {}: {what}", broken.what());
    }
}

#[test]
fn the_figures_of_a_run_of_real_voters_are_those_of_the_simulator() {
    let totals = run_many(&Options::default(), 1, 1, |_, _| true);
    assert_eq!((totals.seeds, totals.violations, totals.unhealed), (1, 0, 0));
    let json = serde_json::to_value(&totals).unwrap();
    let names: BTreeSet<&str> = json.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["seeds", "violations", "unhealed", "simulated_hours", "wall_seconds"]));
}
