//! The simulator's program: runs seeds, replays one, proves that its checks bite, and prints what Holdfast makes of a
//! scenario. `simulator --help` says how.

use std::{
    io::{Read, Write as _},
    process::ExitCode,
};

use holdfast_tests::{
    scenario::{self, Ran},
    simulator::{
        breaks::{Break, NOT_EXPRESSIBLE},
        quiet,
        report::{End, Options, find_break, run_many, words},
    },
    voters,
};

const HELP: &str = "\
Usage: simulator run --seeds N [--first S] [--hosts 3..9] [--minutes 30] [--break R7] [--json]
       simulator replay SEED [--trace] [--hosts 3..9] [--minutes 30] [--break R7]
       simulator breaks [--seeds 2000] [--hosts 3..9] [--minutes 30] [--json]
       simulator bounds [--seeds 200] [--first S] [--json]
       simulator voters [SEED] [--seeds 100] [--first S] [--break votes|fsync|reads] [--json]
       simulator scenario FILE.json

run     runs seeds S, S+1, …; ends with 1 when a promise was broken or something did not heal
replay  runs one seed again: the shortest list of happenings and its story, or with --trace the whole story
breaks  switches off one rule after the other and tells at which seed that is found
bounds  measures outages in worlds where one thing fails at a time, against the bound that `explain` shows before
voters  runs real voters alone (openraft) through faults, seeds S, S+1, …, or one seed, whose story is told
scenario  prints what comes of a scenario, as JSON

Exit codes: 0 all is well; 1 a promise was broken, something did not heal, a broken rule was not found, or an outage
was longer than its bound; 2 the command or the file is wrong; 3 the scenario needs what Holdfast does not have";

fn main() -> ExitCode {
    match called(std::env::args().skip(1).collect()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("simulator: {error}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

#[derive(Default)]
struct Arguments {
    options: Options,
    seeds: u64,
    first: u64,
    json: bool,
    trace: bool,
    seed: Option<u64>,
}

fn called(words: Vec<String>) -> Result<ExitCode, String> {
    if words.iter().any(|word| matches!(word.as_str(), "--help" | "-h" | "help")) {
        println!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    let Some((command, rest)) = words.split_first() else { return Err("what is to be done?".to_owned()) };
    match command.as_str() {
        "run" => Ok(run(&parse(rest, 100)?)),
        "replay" => {
            let arguments = parse(rest, 1)?;
            let seed = arguments.seed.ok_or("which seed?")?;
            Ok(replay(&arguments, seed))
        }
        "breaks" => Ok(breaks(&parse(rest, 2_000)?)),
        "bounds" => Ok(bounds(&parse(rest, 200)?)),
        "voters" => {
            let (broken, rest) = broken_voters(rest)?;
            Ok(run_voters(&parse(&rest, 100)?, broken))
        }
        "scenario" => match rest {
            [file] => Ok(run_scenario(file)),
            _ => Err("which file?".to_owned()),
        },
        other => Err(format!("{other:?} is no command")),
    }
}

fn parse(words: &[String], seeds: u64) -> Result<Arguments, String> {
    let mut arguments = Arguments { seeds, first: 1, ..Arguments::default() };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} needs a value"));
        match word.as_str() {
            "--json" => arguments.json = true,
            "--trace" => arguments.trace = true,
            "--seeds" => arguments.seeds = number(value()?)?,
            "--first" => arguments.first = number(value()?)?,
            "--minutes" => arguments.options.minutes = number(value()?)?.clamp(1, 100_000),
            "--break" => arguments.options.broken = Some(value()?.parse()?),
            "--hosts" => {
                let (least, most) = range(value()?)?;
                (arguments.options.hosts_min, arguments.options.hosts_max) = (least, most);
            }
            seed if arguments.seed.is_none() && !seed.starts_with('-') => arguments.seed = Some(number(seed)?),
            other => return Err(format!("{other:?} is not understood")),
        }
    }
    Ok(arguments)
}

fn number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|error| format!("{text:?} is not a number: {error}"))
}

/// `3..9`, both counted, or one number.
fn range(text: &str) -> Result<(usize, usize), String> {
    let (least, most) = text.split_once("..").unwrap_or((text, text));
    let size =
        |text: &str| number(text.trim_start_matches('=')).and_then(|n| usize::try_from(n).map_err(|e| e.to_string()));
    let (least, most) = (size(least)?, size(most)?);
    if least < 3 || most < least || most > 64 {
        return Err(format!("{text:?}: a simulated cluster has 3 to 64 hosts"));
    }
    Ok((least, most))
}

/// Bad seeds that are told in full.
const TOLD_MAX: u32 = 1;

fn run(arguments: &Arguments) -> ExitCode {
    let options = &arguments.options;
    let mut told = 0;
    let totals = run_many(options, arguments.first, arguments.seeds, |seed, end| {
        eprintln!("seed {seed}: {}", words(end));
        if told < TOLD_MAX {
            told += 1;
            eprintln!("{}", options.explain(seed, end));
            eprintln!("replay it with: simulator replay {seed} --trace{}", repeated(options));
        }
        // A broken rule is to be found once.
        options.broken.is_none()
    });
    if arguments.json {
        println!("{}", serde_json::to_string(&totals).unwrap_or_default());
    } else {
        println!(
            "{} seeds, {} violations, {} unhealed, {:.1} simulated hours in {:.1} s ({:.0} hours a minute)",
            totals.seeds,
            totals.violations,
            totals.unhealed,
            totals.simulated_hours,
            totals.wall_seconds,
            totals.simulated_hours / totals.wall_seconds.max(0.001) * 60.0
        );
        if let Some((seed, healed)) = totals.slowest {
            let (share, took, limit) = (healed.share(), healed.took / 1_000, healed.limit / 1_000);
            println!("the slowest world healed with {share} % of its bound ({took} s of {limit} s), seed {seed}");
        }
    }
    if totals.violations + totals.unhealed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn repeated(options: &Options) -> String {
    let broken = options.broken.map_or_else(String::new, |broken| format!(" --break {broken}"));
    format!(" --hosts {}..{} --minutes {}{broken}", options.hosts_min, options.hosts_max, options.minutes)
}

fn replay(arguments: &Arguments, seed: u64) -> ExitCode {
    let options = &arguments.options;
    let (setup, plan) = options.of(seed);
    let outcome = options.run_plan(&setup, plan, arguments.trace);
    if arguments.trace {
        print!("{}", outcome.story);
    } else if outcome.end != End::Well {
        print!("{}", options.explain(seed, &outcome.end));
    }
    println!("seed {seed}: {}", words(&outcome.end));
    println!("{} events, {} rounds of deciding, {} entries", outcome.events, outcome.decisions, outcome.entries);
    if outcome.end == End::Well { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn breaks(arguments: &Arguments) -> ExitCode {
    let mut rows = Vec::new();
    let mut missed = 0;
    for rule in Break::ALL {
        let found = find_break(&arguments.options, *rule, arguments.first, arguments.seeds);
        let found = found.map(|(seed, end)| (seed, words(&end)));
        let expected = rule.is_found();
        missed += u32::from(expected && found.is_none());
        let what = found.as_ref().map_or_else(|| rule.why_not_found().to_owned(), |(_, what)| what.clone());
        let seed = found.as_ref().map(|(seed, _)| *seed);
        if !arguments.json {
            let at = seed.map_or("not found".to_owned(), |seed| format!("seed {seed}"));
            println!("{:<12} {at:<10} {}\n{:24}{what}", rule.rule(), rule.what(), "");
        }
        rows.push(serde_json::json!({ "rule": rule.rule(), "broken": rule.what(), "seed": seed, "found": what }));
    }
    for (rule, why) in NOT_EXPRESSIBLE {
        if !arguments.json {
            println!("{rule:<12} not expressible: {why}");
        }
        rows.push(serde_json::json!({ "rule": rule, "not_expressible": why }));
    }
    if arguments.json {
        println!("{}", serde_json::Value::Array(rows));
    }
    if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn bounds(arguments: &Arguments) -> ExitCode {
    let (mut outages, mut bad) = (Vec::new(), 0_u64);
    for seed in arguments.first..arguments.first.saturating_add(arguments.seeds) {
        match quiet::run(seed) {
            Ok(measured) => outages.extend(measured),
            Err(why) => {
                bad += 1;
                eprintln!("seed {seed}: {why}");
            }
        }
    }
    for late in outages.iter().filter(|outage| !outage.is_kept()) {
        bad += 1;
        eprintln!("seed {}: {late:?}", late.seed);
    }
    if arguments.json {
        println!("{}", serde_json::to_string(&outages).unwrap_or_default());
    } else {
        print!("{}", quiet::table(&outages));
    }
    if bad == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Takes what voters are to break out of the words: the names are others than those of rules.
fn broken_voters(words: &[String]) -> Result<(Option<voters::Break>, Vec<String>), String> {
    let Some(at) = words.iter().position(|word| word == "--break") else { return Ok((None, words.to_vec())) };
    let mut rest = words.to_vec();
    let named: Vec<String> = rest.drain(at..words.len().min(at + 2)).collect();
    let name = named.get(1).ok_or("--break needs a value")?;
    Ok((Some(name.parse()?), rest))
}

fn run_voters(arguments: &Arguments, broken: Option<voters::Break>) -> ExitCode {
    let options = voters::Options { broken, traced: false };
    if let Some(seed) = arguments.seed {
        let outcome = voters::run(seed, &options);
        print!("{}", outcome.story);
        println!("seed {seed}, {} voters: {}", outcome.voters, voters::words(&outcome.end));
        let well = matches!(outcome.end, voters::End::Well(_));
        return if well { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    let mut told = 0;
    let totals = voters::run_many(&options, arguments.first, arguments.seeds, |seed, outcome| {
        eprintln!("seed {seed}, {} voters: {}", outcome.voters, voters::words(&outcome.end));
        if told < TOLD_MAX {
            told += 1;
            eprint!("{}", outcome.story);
            eprintln!("replay it with: simulator voters {seed}{}", repeated_voters(broken));
        }
        // What is broken is to be found once.
        broken.is_none()
    });
    if arguments.json {
        println!("{}", serde_json::to_string(&totals).unwrap_or_default());
    } else {
        println!(
            "{} seeds, {} violations, {} unhealed, {:.2} simulated hours in {:.1} s",
            totals.seeds, totals.violations, totals.unhealed, totals.simulated_hours, totals.wall_seconds
        );
        if let Some((seed, healed)) = totals.slowest {
            println!("the slowest voters were well {} ms after their troubles, seed {seed}", healed.as_millis());
        }
    }
    if totals.violations + totals.unhealed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn repeated_voters(broken: Option<voters::Break>) -> String {
    broken.map_or_else(String::new, |broken| format!(" --break {}", broken.name()))
}

/// Bytes of a scenario file at most: far above the largest that can be run.
const SCENARIO_MAX: u64 = 32 * 1024 * 1024;

fn read_at_most(file: &str, most: u64) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(file)?.take(most + 1).read_to_string(&mut text)?;
    if u64::try_from(text.len()).unwrap_or(u64::MAX) > most {
        return Err(std::io::Error::other(format!("it has more than {most} bytes")));
    }
    Ok(text)
}

fn run_scenario(file: &str) -> ExitCode {
    let text = match read_at_most(file, SCENARIO_MAX) {
        Ok(text) => text,
        Err(error) => return bad(file, &error),
    };
    let scenario = match scenario::read(&text) {
        Ok(scenario) => scenario,
        Err(error) => return bad(file, &error),
    };
    for note in scenario::check::notes(&scenario) {
        eprintln!("{file}: {note} is not known and plays no part");
    }
    let ran = scenario::run(&scenario);
    if let Ran::Outcome(outcome) = &ran {
        for plan in &outcome.refused {
            eprintln!("{file}: the checker beside the planner refused a plan: {plan}");
        }
    }
    // Whoever reads it may have gone, and a disk may be full.
    if let Err(error) = writeln!(std::io::stdout(), "{}", ran.json()) {
        return bad("the outcome cannot be written", &error);
    }
    match ran {
        Ran::Outcome(_) | Ran::Answer(_) => ExitCode::SUCCESS,
        Ran::Unsupported(_) => ExitCode::from(3),
    }
}

fn bad(file: &str, error: &dyn std::error::Error) -> ExitCode {
    let mut text = format!("{file}: {error}");
    let mut cause = error.source();
    while let Some(known) = cause {
        text.push_str(&format!(": {known}"));
        cause = known.source();
    }
    eprintln!("{text}");
    ExitCode::from(2)
}
