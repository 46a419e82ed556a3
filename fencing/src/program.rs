//! Run one outside program in its own process group, with bounded output; dropping the run kills the whole group.
//!
//! Whoever begins a program waits until the kernel has read its file, with the thread on which all else of the supervisor is done, too.
//! So the file is looked at before, aside: one that does not answer is given up with the run. The program itself is not begun
//! aside: one that came to begin after it was given up could switch off a host that has been let back meanwhile (R20).

use std::{env, ffi::OsStr, io, path::Path, process::Stdio};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt},
    process::{Child, ChildStdin, Command},
};

use crate::{
    aside::{FILES, beginning_of},
    causes::passes,
    device::Answer,
};

/// Enough for a program that answers one question, in bytes.
pub(crate) const OUTPUT_BYTES_MAX: u64 = 16 * 1024;

/// As much of a program's file as the kernel looks at to know how it is begun, in bytes.
const BEGINNING_BYTES: u64 = 256;

/// Where programs are run.
const FOLDER: &str = "/";

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
        let path = env::var_os("PATH");
        let (own_name, own_path) = (self.name.to_owned(), path.clone());
        FILES.run(OsStr::new(self.name), move || look_at(&own_name, own_path.as_deref())).await?;
        let mut command = Command::new(self.name);
        command.args(self.arguments).env_clear().env("LC_ALL", "C");
        if let Some(path) = path {
            command.env("PATH", path);
        }
        command.envs(self.environment.iter().copied()).current_dir(FOLDER);
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

/// Reads the beginning of a program's file, and first looks for it where it is looked for when it is begun. Whether it could be read;
/// why not whoever begins it hears.
fn look_at(name: &str, path: Option<&OsStr>) -> bool {
    let answers = |file: &Path| beginning_of(&Path::new(FOLDER).join(file), BEGINNING_BYTES).is_ok();
    if name.contains('/') {
        return answers(Path::new(name));
    }
    path.is_some_and(|path| env::split_paths(path).any(|folder| answers(&folder.join(name))))
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
    use crate::{aside::tests::hanging, program_folder::ProgramFolder};

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

    /// As where it lies on a file system of a network that hangs. A late begin could be a late shot (R20).
    #[tokio::test]
    async fn a_program_whose_file_hangs_is_given_up_in_time_and_not_begun_later() {
        let folder = ProgramFolder::new();
        folder.program("off", "#!/bin/sh\necho off >> \"${0%/*}/log\"\n");
        let off = folder.path("off").to_str().unwrap().to_owned();
        let held = hanging(&FILES, OsStr::new(&off)).await;
        assert!(tokio::time::timeout(Duration::from_millis(100), run(&off, &[], &[])).await.is_err(), "it has begun");
        drop(held);
        let ended = tokio::time::timeout(LIMIT, run(&off, &[], &[])).await.unwrap().unwrap();
        assert_eq!((ended.code, folder.offs()), (Some(0), 1));
    }

    #[test]
    fn a_program_is_looked_at_where_it_is_begun_from() {
        let folder = tempfile::tempdir().unwrap();
        let path = env::join_paths([folder.path().join("none"), folder.path().to_owned()]).unwrap();
        let file = |name: &str| folder.path().join(name);
        std::fs::write(file("off"), "#!/bin/sh\n").unwrap();
        // Nobody waits for those who write to it.
        nix::unistd::mkfifo(&file("pipe"), nix::sys::stat::Mode::S_IRUSR).unwrap();
        for (name, is_there) in [("off", true), ("pipe", false), ("nothing", false)] {
            assert_eq!(look_at(name, Some(&path)), is_there, "{name}");
            assert_eq!(look_at(file(name).to_str().unwrap(), None), is_there, "{name}");
        }
        assert!(!look_at("off", None));
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
