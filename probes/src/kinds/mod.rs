//! Kinds that look into the guest, through its agent: files, units, processes, metrics, heartbeats.
//!
//! Each is one short program of the guest's own shell, given its settings as arguments, so that nothing of a policy is
//! ever read as shell. It says what it found and judges nothing; exit codes from 126 on say that it could not look, and
//! make the answer `Unknown`, as do a shell or a tool that the guest lacks.

mod exposition;
mod file;
mod process;
mod systemd;

use std::{path::Path, time::Duration};

pub(crate) use self::{
    exposition::{is_of, metric, of_page},
    file::{file, heartbeat},
    process::process,
    systemd::systemd,
};

use crate::{
    channel::{ChannelError, ExecResult, Exit, GuestChannel},
    exec::how_it_ended,
    finding::Finding,
    inside::{Guest, Ran, late},
};

/// What a program of ours said, and its exit code.
struct Said {
    code: i32,
    text: String,
    result: ExecResult,
}

impl Said {
    /// An ending that the program does not have.
    fn odd(&self) -> Finding {
        Finding::unknown(how_it_ended(&self.result))
    }
}

/// Runs one of our programs in the guest. One that has not ended in time speaks against what it looks at.
async fn look(
    channel: &dyn GuestChannel,
    program: &str,
    arguments: &[&str],
    timeout: Duration,
) -> Result<Said, Finding> {
    look_in_time(channel, program, arguments, timeout).await?.ok_or_else(late)
}

/// The same; `None` where it has not ended in time, for whoever asks somebody else than the service.
async fn look_in_time(
    channel: &dyn GuestChannel,
    program: &str,
    arguments: &[&str],
    timeout: Duration,
) -> Result<Option<Said>, Finding> {
    let mut argv = vec!["sh".to_owned(), "-c".to_owned(), program.to_owned(), "sh".to_owned()];
    argv.extend(arguments.iter().map(|word| (*word).to_owned()));
    let result = match Guest::new(channel, timeout).run(argv).await {
        Ran::Ended(result) => result,
        Ran::Missing(why) => return Err(Finding::unknown(format!("the guest cannot look: {why}"))),
        Ran::TooLong => return Err(Finding::unknown(ChannelError::TooLong.to_string())),
        Ran::Late => return Ok(None),
        Ran::Judged(finding) => return Err(finding),
    };
    let text = String::from_utf8_lossy(&result.stdout).into_owned();
    match result.exit {
        Exit::Code(code) => Ok(Some(Said { code, text, result })),
        Exit::Signal(_) => Err(Finding::unknown(how_it_ended(&result))),
    }
}

/// A path as an argument. Policies hold text, so every path of theirs is some.
fn word(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
