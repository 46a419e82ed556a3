//! Questions to the real programs: Redis, nginx, gRPC's own library, PostgreSQL, MariaDB, dnsmasq and the monitoring plugins.
//!
//! A program that is missing fails its test with the reason; `HOLDFAST_NO_LAB=1` leaves them out.

mod dnsmasq;
mod grpc;
mod mariadb;
mod nginx;
mod plugins;
mod postgres;
mod redis;
mod sql;

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, chown},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use holdfast_policies::{
    model::Probe,
    observe::{Observation, Outcome},
};

use crate::{ask, contract::scene::network};

/// Long enough for a database to come up on a busy machine.
const READY_LIMIT: Duration = Duration::from_secs(120);
const LIMIT: Duration = Duration::from_secs(10);
/// `nobody` and `nogroup` of Debian: databases refuse to run as root.
const NOBODY: u32 = 65534;

/// Whether tests with real programs are to be left out; if so, says that this one was.
fn left_out(what: &str) -> bool {
    let left_out = std::env::var_os("HOLDFAST_NO_LAB").is_some_and(|value| value == "1");
    if left_out {
        eprintln!("left out because of HOLDFAST_NO_LAB=1: {what}");
    }
    left_out
}

/// A program that runs in a folder of its own and dies with this value.
struct Program {
    child: Child,
    _folder: tempfile::TempDir,
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

/// As nobody, where we are root.
fn modest(command: &mut Command) -> &mut Command {
    if nix::unistd::geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command
}

fn given_away(path: &Path) {
    if nix::unistd::geteuid().is_root() {
        chown(path, Some(NOBODY), Some(NOBODY)).unwrap();
    }
}

fn started(command: &mut Command, folder: tempfile::TempDir, package: &str) -> Program {
    let log = fs::File::create(folder.path().join("log")).unwrap();
    command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
    match command.spawn() {
        Ok(child) => Program { child, _folder: folder },
        Err(error) => panic!("{command:?} cannot be run ({error}); install {package}, or set HOLDFAST_NO_LAB=1"),
    }
}

fn done(command: &mut Command, package: &str) {
    match command.stdin(Stdio::null()).output() {
        Ok(output) => assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("{command:?} cannot be run ({error}); install {package}, or set HOLDFAST_NO_LAB=1"),
    }
}

fn secret(folder: &Path, text: &str) -> Option<PathBuf> {
    let file = folder.join("secret");
    fs::write(&file, text).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    Some(file)
}

async fn asked(probe: &Probe) -> Observation {
    ask(probe, &network(), LIMIT).await
}

/// Asks until it passes; the last answer is shown if it never does.
async fn ready(probe: &Probe) {
    let limit = Instant::now() + READY_LIMIT;
    loop {
        let seen = asked(probe).await;
        if seen.outcome == Outcome::Pass {
            return;
        }
        assert!(Instant::now() < limit, "{probe:?}: {seen:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
