//! `bench planner [--json]`: how long one round of deciding takes, by size of the cluster.
//! `bench probes [--json]`: how many questions to services one core asks in a second.
//! `bench reaction [--rounds N] [--json]`: how soon an application that dies is to be restarted, in the lab (as root).

use std::{env, process::ExitCode};

use anyhow::{Result, bail};
use holdfast_tests::bench::{
    planner::{Measured, SIZES, measure},
    probes, reaction,
};

const HELP: &str = "\
Usage: bench planner [--json]
       bench probes [--json]
       bench reaction [--rounds N] [--json]

planner   how long one round of deciding takes, by size of the cluster
probes    how many questions to services one core asks in a second
reaction  how soon an application that dies is to be restarted, in the lab (as root); 100 rounds take three quarters of an hour";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let json = match words.as_slice() {
        ["planner"] => false,
        ["planner", "--json"] => true,
        ["probes"] => return probes(false),
        ["probes", "--json"] => return probes(true),
        // What `bench probes` asks.
        ["probes", "--serve"] => return probes::serve(),
        ["reaction"] => return reaction(ROUNDS, false),
        ["reaction", "--json"] => return reaction(ROUNDS, true),
        ["reaction", "--rounds", rounds] => return reaction(rounds.parse()?, false),
        ["reaction", "--rounds", rounds, "--json"] => return reaction(rounds.parse()?, true),
        words if words.iter().any(|word| matches!(*word, "--help" | "-h")) => {
            println!("{HELP}");
            return Ok(());
        }
        _ => bail!("this is not understood\n\n{HELP}"),
    };
    let measured = SIZES.iter().map(|(hosts, guests)| measure(*hosts, *guests)).collect::<Result<Vec<Measured>>>()?;
    if json {
        println!("{}", serde_json::to_string(&measured)?);
        return Ok(());
    }
    println!("one round of deciding after a host was lost; the median and the best of 15, one core");
    println!(
        "{:>6} {:>7} {:>5} {:>9} {:>9} {:>8} {:>8}",
        "hosts", "guests", "free", "median ms", "best ms", "CPU ms", "RSS MiB"
    );
    for size in measured {
        let Measured { hosts, guests, free, ms, best_ms, cpu_ms, rss_mb, .. } = size;
        println!("{hosts:>6} {guests:>7} {free:>5} {ms:>9.2} {best_ms:>9.2} {cpu_ms:>8.2} {rss_mb:>8.1}");
    }
    Ok(())
}

/// Applications that are killed with each agent: enough for a 99th percentile.
const ROUNDS: usize = reaction::P99_ROUNDS;

fn reaction(rounds: usize, json: bool) -> Result<()> {
    let measured = reaction::measure(rounds)?;
    if json {
        println!("{}", serde_json::to_string(&measured)?);
        return Ok(());
    }
    println!("from an application's death to the order to restart it, in milliseconds, {rounds} rounds");
    println!("{:<16} {:>8} {:>8} {:>8}", "", "median", "99th", "longest");
    for (agent, times) in [("Holdfast's agent", measured.holdfast_agent), ("QEMU's agent", measured.qemu_agent)] {
        let p99 = times.p99_ms.map_or("-".to_owned(), |ms| format!("{ms:.1}"));
        println!("{agent:<16} {:>8.1} {p99:>8} {:>8.1}", times.median_ms, times.max_ms);
    }
    if rounds < reaction::P99_ROUNDS {
        println!("{rounds} rounds are too few for a 99th percentile: it takes {}", reaction::P99_ROUNDS);
    }
    Ok(())
}

fn probes(json: bool) -> Result<()> {
    let measured = probes::measure()?;
    if json {
        println!("{}", serde_json::to_string(&measured)?);
        return Ok(());
    }
    let probes::Measured { tcp_per_s, http_per_s, tcp_per_core_s, http_per_core_s, idle_core_percent, rss_mb } =
        measured;
    println!("questions of one thread to a server on this machine, each over a new connection");
    println!("{:>6} {:>10} {:>20}", "", "per second", "per second of a core");
    println!("{:>6} {tcp_per_s:>10.0} {tcp_per_core_s:>20.0}", "tcp");
    println!("{:>6} {http_per_s:>10.0} {http_per_core_s:>20.0}", "http");
    println!("1,000 services, each asked every 10 s: {idle_core_percent:.2} % of a core");
    println!("memory: {rss_mb:.1} MiB");
    Ok(())
}
