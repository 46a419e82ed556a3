//! A plugin of the monitoring-plugins convention, on the host that asks: exit code 0 is OK, 1 WARNING, 2 CRITICAL, and
//! anything else says that it could not ask.

use std::{ffi::OsStr, io, pin::pin, process::Stdio, time::Duration};

use holdfast_policies::probe::{ADDRESS, Grade, PluginProbe};
use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use rustix::process::{PidfdFlags, pidfd_open};
use tokio::{
    io::{AsyncRead, AsyncReadExt, Interest, unix::AsyncFd},
    process::{Child, Command},
    time::timeout,
};

use crate::{
    aside::FILES,
    finding::{Finding, first_line},
    memory::Memory,
    network::{asker::Asker, perfdata},
};

/// Most of its output that is kept, in bytes (the convention's own limit).
const OUTPUT_BYTES_MAX: usize = 4 * 1024;

/// Most that is read and thrown away after that, in bytes: whoever is talkative is to come to its exit code. What writes
/// without end has its pipe closed.
const DISCARDED_BYTES_MAX: usize = 1024 * 1024;

/// How long the output of a plugin that has ended is read on.
const LINGER: Duration = Duration::from_millis(100);

/// Runs it; dropping this kills it and all that it has started.
pub(crate) async fn ask(asker: &Asker<'_>, probe: &PluginProbe, memory: &Memory) -> Finding {
    // Whatever becomes of this question, what was told with the one before is old.
    memory.set_figures(Vec::new());
    match run(asker, probe, memory).await {
        Ok(finding) | Err(finding) => finding,
    }
}

async fn run(asker: &Asker<'_>, probe: &PluginProbe, memory: &Memory) -> Result<Finding, Finding> {
    let mut words = Vec::new();
    for word in &probe.run {
        words.push(match word.contains(ADDRESS) {
            true => word.replace(ADDRESS, &asker.address()?.to_string()),
            false => word.clone(),
        });
    }
    let Some((program, arguments)) = words.split_first() else { return Err(Finding::unknown("no plugin is given")) };
    let cannot = |error: io::Error| Finding::unknown(format!("cannot run {program}: {error}"));
    let mut command = Command::new(program);
    // What the supervisor has in its environment is none of the plugin's business.
    command.args(arguments).env_clear().env("LC_ALL", "C").env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin");
    command.current_dir("/").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    // Whoever begins a program waits until its file was read, also where that lies on a network.
    let begun = FILES.run(OsStr::new(program), move || Running::begun(&mut command));
    let mut running = asker.own(&format!("begin {program}"), begun).await?.map_err(cannot)?;
    let (from_out, from_err) = (running.child.stdout.take(), running.child.stderr.take());
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let heard = {
        let mut reading = pin!(async { tokio::join!(read(from_out, &mut stdout), read(from_err, &mut stderr)) });
        tokio::select! {
            (whole, _) = &mut reading => whole,
            // Where that cannot be told, the end of its output tells of its own.
            Ok(()) = ended(&running.child) => match timeout(LINGER, reading).await {
                Ok((whole, _)) => whole,
                // What it has left running holds its output open, maybe for ever.
                Err(_) => {
                    running.group.kill();
                    Ok(())
                }
            },
        }
    };
    // The leader is reaped only here: until then its id cannot be given to another group.
    let status = running.child.wait().await.map_err(cannot)?;
    running.group.has_ended();
    heard.map_err(cannot)?;
    memory.set_figures(perfdata::read(&stdout));
    let said = said(&stdout).or_else(|| said(&stderr));
    Ok(judge(status.code(), said, probe.warning))
}

/// Keeps the first part of what it says.
async fn read(stream: Option<impl AsyncRead + Unpin>, kept: &mut Vec<u8>) -> io::Result<()> {
    let Some(mut stream) = stream else { return Ok(()) };
    let (mut chunk, mut heard) = (vec![0_u8; OUTPUT_BYTES_MAX], 0_usize);
    while heard < OUTPUT_BYTES_MAX + DISCARDED_BYTES_MAX {
        let count = stream.read(&mut chunk).await?;
        if count == 0 {
            break;
        }
        let room = OUTPUT_BYTES_MAX.saturating_sub(kept.len());
        kept.extend(chunk.iter().take(count.min(room)));
        heard = heard.saturating_add(count);
    }
    Ok(())
}

/// Waits until it has ended, and leaves it to be reaped.
#[expect(
    deprecated,
    reason = "the other constructor is unsafe for descriptors that somebody else might close; this owns its own"
)]
async fn ended(child: &Child) -> io::Result<()> {
    let id = child.id().and_then(|id| i32::try_from(id).ok()).and_then(rustix::process::Pid::from_raw);
    let id = id.ok_or_else(|| io::Error::other("it has no number"))?;
    let ends = AsyncFd::with_interest(pidfd_open(id, PidfdFlags::NONBLOCK)?, Interest::READABLE)?;
    ends.readable().await.map(|mut guard| guard.retain_ready())
}

/// The first line without the figures behind its bar.
fn said(output: &[u8]) -> Option<String> {
    let line = first_line(output)?;
    let text = line.split('|').next().unwrap_or_default().trim();
    (!text.is_empty()).then(|| text.to_owned())
}

fn judge(code: Option<i32>, said: Option<String>, warning: Grade) -> Finding {
    let said = said.unwrap_or_else(|| "the plugin says nothing".to_owned());
    match (code, warning) {
        (Some(0), _) => Finding::pass(said),
        (Some(1), Grade::Slow) => Finding::slow(said),
        (Some(1), Grade::Fail) | (Some(2), _) => Finding::fail(said),
        (Some(code), _) => Finding::unknown(format!("exit code {code}: {said}")),
        (None, _) => Finding::unknown(format!("a signal ended the plugin: {said}")),
    }
}

/// A plugin that runs; its group dies before its leader may be reaped.
struct Running {
    group: Group,
    child: Child,
}

impl Running {
    fn begun(command: &mut Command) -> io::Result<Self> {
        let child = command.spawn()?;
        Ok(Self { group: Group::of(&child), child })
    }
}

/// A process group that dies with this value, unless its leader was reaped.
struct Group {
    leader: Option<Pid>,
}

impl Group {
    fn of(child: &Child) -> Self {
        Self { leader: child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw) }
    }

    fn has_ended(mut self) {
        self.leader = None;
    }

    fn kill(&self) {
        if let Some(leader) = self.leader {
            // An error means that the group has ended already.
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use holdfast_policies::observe::Outcome;

    use super::*;

    #[test]
    fn exit_codes_mean_what_the_convention_says_and_odd_ones_nothing() {
        for (code, warning, wanted) in [
            (Some(0), Grade::Slow, Outcome::Pass),
            (Some(1), Grade::Slow, Outcome::Slow),
            (Some(1), Grade::Fail, Outcome::Fail),
            (Some(2), Grade::Slow, Outcome::Fail),
            (Some(3), Grade::Fail, Outcome::Unknown),
            (Some(127), Grade::Fail, Outcome::Unknown),
            (None, Grade::Fail, Outcome::Unknown),
        ] {
            assert_eq!(judge(code, None, warning).outcome, wanted, "{code:?}");
        }
    }

    #[test]
    fn figures_are_kept_out() {
        assert_eq!(said(b"\nTCP OK - 0.01 s|time=0.01s;;;0\nmore\n").unwrap(), "TCP OK - 0.01 s");
        assert_eq!(said(b"|query=1.0;;;;\n"), None);
    }
}
