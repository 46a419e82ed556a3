//! `chaos run`: a real cluster in the lab under faults from a seed (as root). `chaos --help` says how.

use std::{
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use holdfast_tests::{
    chaos::{self, GUESTS, HOSTS, Kind, Length, Options},
    lab::{signals, wait},
};

const HELP: &str = "\
Usage: chaos run  [--minutes 20 | --bursts N] [--seed S] [--hosts 3..5] [--guests 1..4] [--only KIND]
                  [--limit SECONDS] [--old PATH] [--json]
       chaos plan [--minutes 20 | --bursts N] [--seed S] [--hosts 3..5] [--guests 1..4] [--only KIND]
       chaos kinds

run    builds a cluster and breaks it: tells the story line by line, and prints the report as JSON at the end
plan   prints what the seed draws, and does nothing; of a run by time, a burst for every minute
kinds  prints the kinds of faults that --only takes

  --seed     draws cluster and faults; without it the time of day is the seed
  --limit    how long it may take after the faults until all is well: 300
  --old      an older `holdfast`: the cluster begins with it, and is upgraded host by host in the course of the run
  --json     the story goes to standard error

Exit codes: 0 all is well; 1 a promise was broken, or the run ended early; 2 the command is wrong; 3 the lab did not come up";

/// What a run takes where nothing is said.
const MINUTES: u64 = 20;
/// See [`MINUTES`]: in seconds. The longest steps of a ladder and a fence that fails come before it.
const LIMIT: u64 = 300;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match called(&words) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("chaos: {error}\n\n{HELP}");
            ExitCode::from(2)
        }
    }
}

fn called(words: &[String]) -> Result<ExitCode, String> {
    if words.iter().any(|word| matches!(word.as_str(), "--help" | "-h")) {
        println!("{HELP}");
        return Ok(ExitCode::SUCCESS);
    }
    let Some((command, rest)) = words.split_first() else { return Err("what is to be done?".to_owned()) };
    match command.as_str() {
        "run" => Ok(run(&options(rest)?)),
        "plan" => {
            chaos::planned(&options(rest)?).iter().for_each(|line| println!("{line}"));
            Ok(ExitCode::SUCCESS)
        }
        "kinds" => {
            Kind::ALL.iter().for_each(|kind| println!("{kind}"));
            Ok(ExitCode::SUCCESS)
        }
        other => Err(format!("unknown command {other}")),
    }
}

fn run(options: &Options) -> ExitCode {
    let report = signals::clean_up().and_then(|()| chaos::run(options));
    let report = match report {
        Ok(report) => report,
        Err(error) if !wait::interrupted() => {
            eprintln!("chaos: {error:#}");
            return ExitCode::from(3);
        }
        Err(_) => return interrupted(),
    };
    match serde_json::to_string(&report) {
        Ok(text) => println!("{text}"),
        Err(error) => eprintln!("chaos: no report: {error}"),
    }
    if wait::interrupted() {
        return interrupted();
    }
    if report.is_bad() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

fn interrupted() -> ExitCode {
    eprintln!("interrupted; everything is taken down");
    ExitCode::from(signals::INTERRUPTED)
}

fn options(words: &[String]) -> Result<Options, String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |time| time.as_secs());
    let mut options = Options {
        seed: now,
        length: Length::Time(minutes(MINUTES)),
        hosts: None,
        guests: None,
        only: None,
        limit: Duration::from_secs(LIMIT),
        old: None,
        story_to_stderr: false,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--json" {
            options.story_to_stderr = true;
            continue;
        }
        let value = words.next().ok_or_else(|| format!("{word} needs a value"))?;
        match word.as_str() {
            "--seed" => options.seed = number(word, value)?,
            "--minutes" => options.length = Length::Time(minutes(number(word, value)?)),
            "--bursts" => options.length = Length::Bursts(number(word, value)?),
            "--hosts" => options.hosts = Some(among(word, number(word, value)?, &HOSTS)?),
            "--guests" => options.guests = Some(among(word, number(word, value)?, &GUESTS)?),
            "--only" => options.only = Some(value.parse()?),
            "--limit" => options.limit = Duration::from_secs(number(word, value)?),
            "--old" => options.old = Some(value.into()),
            other => return Err(format!("unknown argument {other}")),
        }
    }
    Ok(options)
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes.saturating_mul(60))
}

fn number<N: std::str::FromStr>(word: &str, value: &str) -> Result<N, String> {
    value.parse().map_err(|_| format!("{word} takes a number, not {value}"))
}

fn among(word: &str, value: usize, range: &std::ops::RangeInclusive<usize>) -> Result<usize, String> {
    let wrong = || format!("{word} takes {} to {}", range.start(), range.end());
    if range.contains(&value) { Ok(value) } else { Err(wrong()) }
}
