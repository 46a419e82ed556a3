//! A command in the guest, through its agent: its exit code, and what it says.

use std::time::Duration;

use holdfast_policies::probe::{ExecProbe, pattern};

use crate::{
    channel::{ChannelError, ExecResult, Exit, GuestChannel},
    finding::{Finding, contains, first_line},
};

/// Runs the command once.
pub(crate) async fn ask(channel: &dyn GuestChannel, probe: &ExecProbe, timeout: Duration) -> Finding {
    if probe.run.is_empty() {
        return Finding::unknown("no command is given");
    }
    // A little is kept for the agent's word that it has not ended: without that word nobody knows who is silent.
    match channel.exec(&probe.run, timeout - timeout / 16).await {
        Ok(result) => of_result(&result, probe),
        Err(ChannelError::Late) => Finding::fail(format!("the command has not ended within {timeout:?}")),
        Err(error) => Finding::unknown(error.to_string()),
    }
}

fn of_result(result: &ExecResult, probe: &ExecProbe) -> Finding {
    let passes = |code: i32| u8::try_from(code).is_ok_and(|code| probe.codes.contains(&code));
    let code = match result.exit {
        Exit::Code(code) if passes(code) => code,
        Exit::Code(_) | Exit::Signal(_) => return Finding::fail(how_it_ended(result)),
    };
    if let Some(text) = probe.output.as_deref().filter(|text| !contains(&result.stdout, text.as_bytes())) {
        return Finding::fail(format!("its output does not contain {text:?}; {}", how_it_ended(result)));
    }
    if let Some(text) = &probe.output_matches {
        match pattern::build(text) {
            Ok(pattern) if !pattern.is_match(&result.stdout) => {
                return Finding::fail(format!("its output does not match {text:?}; {}", how_it_ended(result)));
            }
            Ok(_) => {}
            Err(why) => return Finding::unknown(format!("the pattern {text:?} cannot be used: {why}")),
        }
    }
    Finding::pass(format!("exit code {code}"))
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
