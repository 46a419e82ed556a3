//! The command line: `holdfast init`, `run`, `guard`, and everything that an operator asks or says.

mod arguments;
mod call;
mod check;
mod completions;
mod host_certificate;
mod host_like;
mod hostfile;
mod identity;
mod init;
mod init_files;
mod journal;
mod key_folder;
mod logs;
mod making;
mod operator;
mod orders;
mod outcome;
mod policies;
#[cfg(test)]
mod quoted;
mod recover;
mod simulate;
mod sources;
#[cfg(test)]
mod tests;
mod values;

use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};

use clap::Parser as _;
use holdfast_policies::hostfile::HostFile;

use self::{
    arguments::{Arguments, Order},
    call::Asked,
    making::OperatorOrder,
    orders::HostOrder,
    outcome::{Failure, Reply},
};
pub use hostfile::{HostFileError, load_host_file};

use crate::clock;

/// What this program does when it is not a command line: the processes that stay.
#[derive(Debug, Clone, Copy)]
pub struct Entry {
    /// Runs the supervisor until it is told to stop.
    pub run: fn(HostFile) -> anyhow::Result<()>,
    /// Runs the guard until it is killed; `true`: it takes over from one that runs.
    pub guard: fn(HostFile, bool) -> anyhow::Result<()>,
}

/// Does what the process's arguments say. Exit codes: see `holdfast --help`.
#[must_use]
pub fn main(entry: Entry) -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let code = run(entry, &arguments, &mut io::stdout(), &mut io::stderr());
    ExitCode::from(code)
}

/// Does what these arguments say; returns the exit code.
fn run(entry: Entry, arguments: &[OsString], out: &mut dyn Write, err: &mut dyn Write) -> u8 {
    let (json, result) = match Arguments::try_parse_from(arguments) {
        Ok(arguments) => (arguments.json, execute(entry, arguments, out, err)),
        Err(help) if !help.use_stderr() => (false, Ok(Reply::text(help.to_string()))),
        Err(wrong) => (arguments.iter().any(|argument| argument == "--json"), Err(Failure::Usage(wrong.to_string()))),
    };
    outcome::show(result, json, out, err)
}

/// Does what an order says. `out` takes an answer that has no end, `warnings` what is to be said beside an answer.
fn execute(
    entry: Entry,
    arguments: Arguments,
    out: &mut dyn Write,
    warnings: &mut dyn Write,
) -> Result<Reply, Failure> {
    let (config, json) = (&arguments.config, arguments.json);
    match arguments.order {
        Order::Init(order) => init::init(&order),
        Order::Operator(OperatorOrder::Add(order)) => operator::add(config, &order),
        Order::Host(HostOrder::Certificate(order)) => host_certificate::make(&order),
        Order::Check { files } => check::check(&files),
        Order::Completions => Ok(completions::bash()),
        Order::Simulate(order) if order.is_offline() => simulate::offline(&order),
        Order::Recover(order) => recover::recover(&load_host_file(config)?, &order),
        Order::Run => stay(entry.run, load_host_file(config)?),
        Order::Guard { take_over } => stay(|file| (entry.guard)(file, take_over), load_host_file(config)?),
        order => match identity::find(arguments.identity)? {
            Some(identity) => {
                if let Some(warning) = identity.warning(clock::wall()) {
                    // Who cannot be warned is answered all the same.
                    let _ = writeln!(warnings, "warning: {warning}");
                }
                ask(Asked::Coordinator(&identity), order, json, out, warnings)
            }
            None => {
                let host = load_host_file(config).map_err(Failure::without_host_file)?;
                ask(Asked::Supervisor(&host), order, json, out, warnings)
            }
        },
    }
}

/// Asks what an order asks for.
fn ask(
    asked: Asked<'_>,
    order: Order,
    json: bool,
    out: &mut dyn Write,
    warnings: &mut dyn Write,
) -> Result<Reply, Failure> {
    match order {
        Order::Journal(which) => journal::show(asked, &which, json, out, warnings),
        Order::Policies { out: folder } => policies::show(asked, folder.as_deref()),
        order => call::call(asked, order),
    }
}

fn stay(process: impl FnOnce(HostFile) -> anyhow::Result<()>, host: HostFile) -> Result<Reply, Failure> {
    logs::begin();
    process(host).map_err(|error| Failure::Failed(format!("{error:#}")))?;
    Ok(Reply::text(String::new()))
}
