//! A command in the guest, through its agent: exit code 0 passes.

use std::time::Duration;

use holdfast_policies::model::ExecProbe;

use crate::{
    channel::{ChannelError, ExecResult, Exit, GuestChannel},
    finding::Finding,
};

/// Runs the command once.
pub(crate) async fn ask(channel: &dyn GuestChannel, probe: &ExecProbe, timeout: Duration) -> Finding {
    if probe.run.is_empty() {
        return Finding::unknown("no command is given");
    }
    match channel.exec(&probe.run, timeout).await {
        Ok(ExecResult { exit: Exit::Code(0), .. }) => Finding::pass("exit code 0"),
        Ok(result) => Finding::fail(how_it_ended(&result)),
        Err(ChannelError::Deadline) => still_running(timeout),
        Err(error) => Finding::unknown(error.to_string()),
    }
}

/// The command has not ended by the deadline.
pub(crate) fn still_running(timeout: Duration) -> Finding {
    Finding::fail(format!("the command has not ended within {timeout:?}"))
}

/// How a program ended and the first thing that it said about it.
pub(crate) fn how_it_ended(result: &ExecResult) -> String {
    let end = match result.exit {
        Exit::Code(code) => format!("exit code {code}"),
        Exit::Signal(signal) => format!("ended by signal {signal}"),
    };
    match first_line(&result.stderr).or_else(|| first_line(&result.stdout)) {
        Some(line) => format!("{end}: {line}"),
        None => end,
    }
}

/// Longest part of a guest's output that is looked at for a detail, in bytes; a detail is shorter still.
const LINE_BYTES_MAX: usize = 1024;

fn first_line(output: &[u8]) -> Option<String> {
    let output = output.get(..LINE_BYTES_MAX).unwrap_or(output);
    let text = String::from_utf8_lossy(output);
    text.lines().map(str::trim).find(|line| !line.is_empty()).map(str::to_owned)
}
