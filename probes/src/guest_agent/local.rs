//! The way into the guest for somebody who is in it: programs run as children.

use std::{ffi::OsStr, io, path::Path, pin::pin, process::Stdio, time::Duration};

use async_trait::async_trait;
use holdfast_policies::{model::Probe, observe::Outcome, probe::Processes};
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    time::{Instant, timeout},
};

use super::{look, loopback, protocol::OUTPUT_BYTES_MAX};
use crate::{
    aside::FILES,
    channel::{ChannelError, Counted, ExecResult, Exit, GuestChannel, Looked},
};

/// How long the output of a program that has ended is read on.
const LINGER: Duration = Duration::from_millis(100);

/// This very machine.
pub(super) struct Local;

#[async_trait]
impl GuestChannel for Local {
    async fn ping(&self, _: Duration) -> Result<(), ChannelError> {
        Ok(())
    }

    async fn answer(&self, probe: &Probe, deadline: Duration) -> Option<(Outcome, String)> {
        let finding = loopback::answer(probe, deadline).await?;
        Some((finding.outcome, finding.detail))
    }

    async fn count(&self, which: &Processes) -> Option<Counted> {
        let on = match which {
            Processes::Name(_) => OsStr::new("/proc"),
            Processes::PidFile(path) => path.as_os_str(),
        };
        let own = which.clone();
        FILES.run(on, move || look::count(&own)).await.ok()
    }

    async fn look_at(&self, path: &Path, read: bool) -> Option<Looked> {
        let own = path.to_owned();
        FILES.run(path.as_os_str(), move || look::file(&own, read)).await.ok()
    }

    /// A program that outlives the deadline is killed, with all of its process group.
    async fn exec(&self, argv: &[String], deadline: Duration) -> Result<ExecResult, ChannelError> {
        let Some((program, arguments)) = argv.split_first() else {
            return Err(ChannelError::Refused("no program named".to_owned()));
        };
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.kill_on_drop(true).process_group(0);
        let began = Instant::now();
        let left = || deadline.saturating_sub(began.elapsed());
        let mut running = begun(program, command, deadline).await?;
        let (from_out, from_err) = (running.child.stdout.take(), running.child.stderr.take());
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        let status = {
            let mut reading = pin!(async { tokio::join!(keep(from_out, &mut stdout), keep(from_err, &mut stderr)) });
            let ended = async {
                tokio::select! {
                    status = running.child.wait() => (status, false),
                    _ = &mut reading => (running.child.wait().await, true),
                }
            };
            let (status, all_read) = timeout(left(), ended).await.map_err(|_| ChannelError::Late)?;
            // It has ended in time, and a service that it has started stays.
            running.group.0 = None;
            if !all_read {
                // What it has left running on purpose may hold its output open for ever.
                let _ = timeout(LINGER.min(left()), reading).await;
            }
            status
        };
        let status = status.map_err(|error| ChannelError::Refused(error.to_string()))?;
        let signal = std::os::unix::process::ExitStatusExt::signal(&status);
        let exit = status.code().map(Exit::Code).or(signal.map(Exit::Signal));
        let exit = exit.ok_or_else(|| ChannelError::Refused("it ended in no known way".to_owned()))?;
        Ok(ExecResult { exit, stdout, stderr })
    }
}

/// A program that runs. Its group is ended before its leader may be reaped, while the number is still its own.
struct Running {
    group: Group,
    child: Child,
}

/// Begins a program, aside: whoever begins one waits until its file was read, and the agent has one thread for all that it does. One
/// that comes to begin too late is ended at once.
async fn begun(program: &str, mut command: Command, within: Duration) -> Result<Running, ChannelError> {
    let begin = move || {
        let child = command.spawn()?;
        let group = Group(child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)));
        Ok::<_, io::Error>(Running { group, child })
    };
    let refused = |error: io::Error| ChannelError::Refused(format!("{program}: {error}"));
    let begun = timeout(within, FILES.run(OsStr::new(program), begin)).await.map_err(|_| ChannelError::Late)?;
    begun.map_err(refused)?.map_err(refused)
}

/// Keeps the first part of what a program says. The rest is read and thrown away, so that it does not hang on it.
async fn keep(from: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) {
    let Some(mut from) = from else { return };
    let mut chunk = [0; 4096];
    while let Ok(read) = from.read(&mut chunk).await
        && read > 0
    {
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend_from_slice(chunk.get(..read.min(room)).unwrap_or_default());
    }
}

/// Ends a program that has not ended in time, with all of its process group.
struct Group(Option<Pid>);

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = self.0 {
            // Usually nobody is left.
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    /// As where it lies on a file system of a network that hangs.
    #[tokio::test]
    async fn a_program_whose_file_hangs_is_late_and_keeps_the_agent_from_nothing() {
        const SHORT: Duration = Duration::from_millis(200);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("check");
        std::fs::write(&file, "#!/bin/sh\nexit 2\n").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o700)).unwrap();
        let hanging = FILES.hang(file.as_os_str()).await;
        let run = [file.to_str().unwrap().to_owned()];
        assert_eq!(Local.exec(&run, SHORT).await, Err(ChannelError::Late));
        drop(hanging);
        let ended = Local.exec(&run, Duration::from_secs(20)).await.unwrap();
        assert_eq!(ended.exit, Exit::Code(2), "it is begun");
    }

    #[tokio::test]
    async fn a_service_that_a_program_has_started_stays_also_when_the_time_is_nearly_over() {
        let run = ["sh", "-c", "sleep 60 & echo $!"].map(str::to_owned);
        // Less than what is listened on for: a program that has ended within it has ended.
        let within = LINGER - LINGER / 5;
        for _ in 0..200 {
            match Local.exec(&run, within).await {
                Ok(result) => {
                    let pid: i32 = String::from_utf8(result.stdout).unwrap().trim().parse().unwrap();
                    let pid = Pid::from_raw(pid).unwrap();
                    rustix::process::test_kill_process(pid).expect("what it has started was killed");
                    rustix::process::kill_process(pid, Signal::KILL).unwrap();
                    return;
                }
                // This machine is busy.
                Err(error) => assert_eq!(error, ChannelError::Late),
            }
        }
        panic!("it has never ended in time");
    }
}
