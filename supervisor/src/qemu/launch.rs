//! Runs QEMU so that it outlives its supervisor and never runs outside its cgroup.
//!
//! A small shell in a session of its own enters the guest's cgroup, waits for the word `go`, runs QEMU, and writes down
//! how it ended. The word comes only after the kernel has confirmed that the shell is in the cgroup. So there is no
//! moment at which a guest runs, or is about to run, and its cgroup looks empty: a shell that comes late, after its
//! supervisor has died or given up, finds its pipe closed and ends.

use std::{fs::OpenOptions, io, os::unix::fs::OpenOptionsExt, path::Path, process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use super::{cgroup::Cgroup, record::Files};

/// Longest time for the shell to get into the cgroup; it takes a few milliseconds.
const JOIN_DEADLINE: Duration = Duration::from_secs(5);

/// `$1` is the cgroup, `$2` the file for the exit status, the rest is QEMU's command line.
const KEEPER: &str = r#"cgroup=$1 ended=$2
shift 2
echo 0 > "$cgroup/cgroup.procs" || exit 125
read -r word && [ "$word" = go ] || exit 125
"$@" < /dev/null
echo $? > "$ended"
"#;

/// Starts `binary` with `argv` in `cgroup`, if `go` allows it in the last moment; returns when it is about to be executed.
///
/// # Errors
/// Nothing was executed, unless the error came while the word was given.
pub async fn launch(
    binary: &Path,
    argv: &[String],
    cgroup: &Cgroup,
    files: &Files,
    go: &(dyn Fn() -> Result<(), String> + Send + Sync),
) -> io::Result<()> {
    let log = OpenOptions::new().append(true).create(true).mode(0o600).open(files.log())?;
    let mut child = Command::new("setsid")
        .args(["--fork", "sh", "-c", KEEPER, "holdfast-guest"])
        .args([cgroup.path(), &files.exit(), binary])
        .args(argv)
        // QEMU has no use for the supervisor's environment, which may hold secrets.
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_else(|| "/usr/sbin:/usr/bin:/sbin:/bin".into()))
        .current_dir("/")
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()?;
    let pipe = child.stdin.take();
    let status = timeout(JOIN_DEADLINE, child.wait()).await.map_err(|_| late("setsid"))??;
    if !status.success() {
        return Err(io::Error::other(format!("setsid: {status}")));
    }
    timeout(JOIN_DEADLINE, cgroup.wait_joined()).await.map_err(|_| late("entering the cgroup"))?;
    let mut pipe = pipe.ok_or_else(|| io::Error::other("no pipe to the shell"))?;
    go().map_err(io::Error::other)?;
    pipe.write_all(b"go\n").await?;
    pipe.flush().await
}

fn late(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, format!("{what} took longer than {JOIN_DEADLINE:?}"))
}
