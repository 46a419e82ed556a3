//! Runs programs with a limit in time and output; what outlives the limit is killed with everything it started.

use std::{
    ffi::OsStr,
    io::Read,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, sync_channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// Most output that is kept of one stream. A status of a lab cluster has a few kilobytes.
const OUTPUT_BYTES_MAX: u64 = 4 << 20;
/// How long a stream may stay open after the program ended, held by something it left behind.
/// Generous: what is not read by then is lost without a word, and a busy machine may be late with it.
const STREAM_LINGER: Duration = Duration::from_secs(5);

/// What a program answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Exit code; `None` when it was killed by a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Answer {
    /// Whether it exited with 0.
    #[must_use]
    pub fn ok(&self) -> bool {
        self.code == Some(0)
    }
}

/// Runs a program to its end.
///
/// # Errors
/// When it cannot be started, or does not end within `limit`.
pub fn run<S: AsRef<OsStr>>(argv: &[S], limit: Duration) -> Result<Answer> {
    let Some((program, arguments)) = argv.split_first() else { bail!("no program given") };
    let mut command = Command::new(program);
    command.args(arguments);
    finish(command, limit)
}

/// Like [`run`], for programs that must succeed; returns standard output.
///
/// # Errors
/// As [`run`], and when the exit code is not 0, with standard error in the message.
pub fn run_ok<S: AsRef<OsStr>>(argv: &[S], limit: Duration) -> Result<String> {
    let answer = run(argv, limit)?;
    if !answer.ok() {
        let words: Vec<_> = argv.iter().map(|word| word.as_ref().to_string_lossy()).collect();
        bail!("`{}` ended with {:?}: {} {}", words.join(" "), answer.code, answer.err.trim(), answer.out.trim());
    }
    Ok(answer.out)
}

/// Runs a prepared command to its end within `limit`, in a process group of its own.
///
/// # Errors
/// When it cannot be started, or does not end within `limit`.
pub fn finish(mut command: Command, limit: Duration) -> Result<Answer> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let (out, err) = (collect(child.stdout.take()), collect(child.stderr.take()));
    let code = end(&mut child, limit).with_context(|| name.clone());
    let (out, err) = (received(&out), received(&err));
    match code? {
        Some(status) => Ok(Answer { code: status.code(), out, err }),
        None => bail!("{name} did not end within {:.1} s; it had said: {out} {err}", limit.as_secs_f64()),
    }
}

fn end(child: &mut Child, limit: Duration) -> Result<Option<std::process::ExitStatus>> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if begin.elapsed() > limit {
            // Fails only when the group is gone already.
            let _ = killpg(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGKILL);
            child.wait()?;
            return Ok(None);
        }
        thread::sleep(Duration::from_millis(2));
    }
}

fn collect(stream: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (sender, receiver) = sync_channel(1);
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(stream) = stream {
            // What was read before an error is worth showing.
            let _ = stream.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes);
        }
        let _ = sender.send(String::from_utf8_lossy(&bytes).into_owned());
    });
    receiver
}

fn received(stream: &Receiver<String>) -> String {
    stream.recv_timeout(STREAM_LINGER).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_killed_with_its_children() {
        let begin = Instant::now();
        // Enough for a shell to begin on a machine that is busy with guests.
        let error = run(&["sh", "-c", "echo begun; sleep 77777 & sleep 77777"], Duration::from_secs(3)).unwrap_err();
        // A child that lived on would hold the output, which is lost then.
        assert!(error.to_string().contains("begun"), "{error}");
        assert!(begin.elapsed() < Duration::from_secs(60));
    }

    #[test]
    fn a_failing_program_is_quoted_with_what_it_said() {
        let error = run_ok(&["sh", "-c", "echo sorry >&2; exit 3"], Duration::from_secs(5)).unwrap_err();
        assert!(error.to_string().contains("Some(3): sorry"), "{error}");
    }
}
