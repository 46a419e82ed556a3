//! The quickstart's program: `examples/quickstart/run.sh` builds and runs it. Its `client` subcommand is the lab's outside client,
//! run in the client's network namespace.

use std::{process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use holdfast_tests::{
    lab::{client, signals, wait},
    quickstart::{self, Options},
};
use tokio::runtime::{Builder, Runtime};

const HELP: &str = "\
Usage: run.sh [--json] [--keep]    run five failures against three hosts and a guest
       run.sh [--json] --idle N    measure memory and processor time of idle supervisors for N seconds
       run.sh --stop               end what --keep left running

  --json   print the result as one JSON object; progress goes to standard error
  --keep   leave everything running at the end, and print how to look around";

fn main() -> ExitCode {
    match called() {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) if wait::interrupted() => {
            eprintln!("interrupted; everything is taken down");
            ExitCode::from(signals::INTERRUPTED)
        }
        Err(error) => {
            eprintln!("quickstart: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn called() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["client", address, path, every_ms] => {
            let every = Duration::from_millis(every_ms.parse().context("client takes a number of milliseconds")?);
            runtime()?.block_on(client::poll(address, path, every))
        }
        ["--stop"] => {
            println!("{} ended", quickstart::stop()?);
            Ok(())
        }
        ["--help" | "-h"] => {
            println!("{HELP}");
            Ok(())
        }
        [flags @ .., "--idle", seconds] => {
            let (options, seconds) = (options(flags)?, seconds.parse().context("--idle takes a number of seconds")?);
            signals::clean_up()?;
            quickstart::idle(options, Duration::from_secs(seconds))
        }
        flags => {
            let options = options(flags)?;
            signals::clean_up()?;
            quickstart::run(options)
        }
    }
}

fn options(flags: &[&str]) -> Result<Options> {
    let mut options = Options::default();
    for flag in flags {
        match *flag {
            "--json" => options.json = true,
            "--keep" => options.keep = true,
            other => bail!("unknown argument {other}\n{HELP}"),
        }
    }
    Ok(options)
}

fn runtime() -> Result<Runtime> {
    Ok(Builder::new_current_thread().enable_all().build()?)
}
