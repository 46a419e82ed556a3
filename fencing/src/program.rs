//! Run one outside program in its own process group, with bounded output; dropping the run kills the whole group.

use std::{io, process::Stdio};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, Command},
};

use crate::{causes::passes, device::Answer};

/// Enough for a program that answers one question, in bytes.
pub(crate) const OUTPUT_BYTES_MAX: u64 = 16 * 1024;

/// How a program ended.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// What a device answers whose program could not be run.
pub(crate) fn not_run<T>(name: &str, error: &io::Error) -> Answer<T> {
    let said = format!("cannot run {name}: {error}");
    if passes(error) { Answer::unknown(said) } else { Answer::refused(said) }
}

/// One program to run.
pub(crate) struct Program<'a> {
    /// Its name, looked up in `PATH`, or its path.
    pub name: &'a str,
    /// What it is told; never a secret.
    pub arguments: &'a [String],
    /// What its environment holds beside `PATH` and `LC_ALL=C`. Secrets go here, or to its standard input.
    pub environment: &'a [(&'a str, &'a str)],
    /// Its standard input; nothing when empty.
    pub stdin: &'a str,
    /// Most of each output stream that is kept, in bytes; what writes more has its pipe closed.
    pub output_bytes_max: u64,
}

/// Runs a program that reads nothing and says little. The caller bounds the time by dropping the future.
///
/// # Errors
/// When the program cannot be started or waited for.
pub(crate) async fn run(name: &str, arguments: &[String], environment: &[(&str, &str)]) -> io::Result<Ended> {
    Program { name, arguments, environment, stdin: "", output_bytes_max: OUTPUT_BYTES_MAX }.run().await
}

impl Program<'_> {
    /// Runs it to its end. The caller bounds the time by dropping the future.
    ///
    /// # Errors
    /// When the program cannot be started or waited for.
    pub(crate) async fn run(&self) -> io::Result<Ended> {
        let mut command = Command::new(self.name);
        command.args(self.arguments).env_clear().env("LC_ALL", "C");
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command.envs(self.environment.iter().copied()).current_dir("/");
        let stdin = if self.stdin.is_empty() { Stdio::null() } else { Stdio::piped() };
        command.stdin(stdin).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.process_group(0).kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut group = Group::of(&child);
        let most = self.output_bytes_max;
        let ((), stdout, stderr) = tokio::join!(
            write(child.stdin.take(), self.stdin),
            read(child.stdout.take(), most),
            read(child.stderr.take(), most)
        );
        // The leader is reaped only here: until then its id cannot be given to another group.
        let status = child.wait().await?;
        group.leader = None;
        Ok(Ended { code: status.code(), stdout: stdout?, stderr: stderr? })
    }
}

/// Hands the input over and closes it. A program that does not read it shows that by how it ends.
async fn write(stream: Option<ChildStdin>, text: &str) {
    if let Some(mut stream) = stream {
        let _ = stream.write_all(text.as_bytes()).await;
    }
}

async fn read(stream: Option<impl AsyncRead + Unpin>, most: u64) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(most).read_to_end(&mut bytes).await?;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// A process group that dies with this value, unless its leader was reaped.
struct Group {
    leader: Option<Pid>,
}

impl Group {
    fn of(child: &Child) -> Self {
        Self { leader: child.id().and_then(|id| i32::try_from(id).ok()).map(Pid::from_raw) }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(leader) = self.leader {
            // An error means that the group has ended already.
            let _ = killpg(leader, Signal::SIGKILL);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Longest wait for anything here.
    const LIMIT: Duration = Duration::from_secs(30);

    fn shell(script: &str) -> [String; 2] {
        ["-c".to_owned(), script.to_owned()]
    }

    /// Three refusals in a row, and a device is left alone for minutes.
    #[test]
    fn a_host_without_room_for_a_process_is_no_device_that_refuses() {
        let said = |number| not_run::<()>("ipmitool", &io::Error::from_raw_os_error(number));
        for passing in [nix::libc::EAGAIN, nix::libc::EMFILE, nix::libc::ENOMEM, nix::libc::ETXTBSY] {
            assert!(matches!(said(passing), Answer::Unknown { .. }), "{passing}");
        }
        let Answer::Refused { detail, denied: false } = said(nix::libc::ENOENT) else { panic!() };
        assert!(detail.starts_with("cannot run ipmitool: "), "{detail}");
    }

    #[tokio::test]
    async fn output_without_end_is_cut_and_ends_the_program() {
        let ended = tokio::time::timeout(LIMIT, run("sh", &shell("exec yes"), &[])).await.unwrap().unwrap();
        assert_eq!(ended.stdout.len() as u64, OUTPUT_BYTES_MAX);
        assert_eq!(ended.code, None);
    }

    #[tokio::test]
    async fn dropping_a_run_kills_its_descendants_too() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = shell(&format!("sleep 60 & echo $! > {0}.part; mv {0}.part {0}; wait", file.display()));
        let running = tokio::spawn(async move { run("sh", &script, &[]).await.map(|_| ()) });
        let limit = tokio::time::Instant::now() + LIMIT;
        while !file.exists() && tokio::time::Instant::now() < limit {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let pid = std::fs::read_to_string(&file).unwrap();
        running.abort();
        let stat = format!("/proc/{}/stat", pid.trim());
        let lives = || std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "));
        while lives() && tokio::time::Instant::now() < limit {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(!lives());
    }
}
