//! Run one outside program in its own process group, with bounded output; dropping the run kills the whole group.

use std::{io, process::Stdio};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
};

/// Most of each output stream that is kept, in bytes; what writes more has its pipe closed.
const OUTPUT_BYTES_MAX: u64 = 16 * 1024;

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

/// Runs a program to its end. The caller bounds the time by dropping the future.
///
/// The environment holds only `PATH`, `LC_ALL=C` and what is given: secrets go there, never into the arguments.
///
/// # Errors
/// When the program cannot be started or waited for.
pub(crate) async fn run(program: &str, arguments: &[String], environment: &[(&str, &str)]) -> io::Result<Ended> {
    let mut command = Command::new(program);
    command.args(arguments).env_clear().env("LC_ALL", "C");
    if let Some(path) = std::env::var_os("PATH") {
        command.env("PATH", path);
    }
    command.envs(environment.iter().copied()).current_dir("/");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut group = Group::of(&child);
    let (stdout, stderr) = tokio::join!(read(child.stdout.take()), read(child.stderr.take()));
    // The leader is reaped only here: until then its id cannot be given to another group.
    let status = child.wait().await?;
    group.leader = None;
    Ok(Ended { code: status.code(), stdout: stdout?, stderr: stderr? })
}

async fn read(stream: Option<impl AsyncRead + Unpin>) -> io::Result<String> {
    let mut bytes = Vec::new();
    if let Some(stream) = stream {
        stream.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).await?;
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

    fn shell(script: &str) -> [String; 2] {
        ["-c".to_owned(), script.to_owned()]
    }

    #[tokio::test]
    async fn output_without_end_is_cut_and_ends_the_program() {
        let ended =
            tokio::time::timeout(Duration::from_secs(10), run("sh", &shell("exec yes"), &[])).await.unwrap().unwrap();
        assert_eq!(ended.stdout.len() as u64, OUTPUT_BYTES_MAX);
        assert_eq!(ended.code, None);
    }

    #[tokio::test]
    async fn dropping_a_run_kills_its_descendants_too() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("pid");
        let script = shell(&format!("sleep 60 & echo $! > {0}.part; mv {0}.part {0}; wait", file.display()));
        let running = tokio::spawn(async move { run("sh", &script, &[]).await.map(|_| ()) });
        let limit = tokio::time::Instant::now() + Duration::from_secs(10);
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
