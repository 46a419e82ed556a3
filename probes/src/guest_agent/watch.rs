//! Watches the processes of services: the kernel tells the end of one at once, through its pidfd. Whether that end was meant,
//! systemd knows of its units.

use std::{collections::BTreeMap, io, path::Path, time::Duration};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::{Instant, sleep},
};

use super::{config::Watched, local::Local, look};
use crate::channel::GuestChannel;

/// How often a process that is not there is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Longest time for the guest's systemd to name a unit's main process.
const SYSTEMD_LIMIT: Duration = Duration::from_secs(5);

/// How long systemd gets to notice an end and to say that it was meant, and how often it is asked. A death is told so much later
/// at most; a restart that takes longer is one that systemd has a job for.
const MEANT_LIMIT: Duration = Duration::from_millis(300);
const MEANT_EVERY: Duration = Duration::from_millis(20);

/// Waits until the process of a service is there; returns it with its number.
#[expect(
    deprecated,
    reason = "the other constructor is unsafe for descriptors that somebody else might close; this owns its own"
)]
pub(super) async fn appears(watched: &Watched) -> (AsyncFd<std::os::fd::OwnedFd>, i32) {
    loop {
        if let Some(number) = number(watched).await
            // One that has ended keeps its number until its parent has asked how.
            && u32::try_from(number).is_ok_and(|number| look::living(number).is_ok_and(|name| name.is_some()))
            && let Some(pid) = Pid::from_raw(number)
            && let Ok(fd) = pidfd_open(pid, PidfdFlags::NONBLOCK)
            && let Ok(fd) = AsyncFd::with_interest(fd, Interest::READABLE)
        {
            return (fd, number);
        }
        sleep(LOOK_EVERY).await;
    }
}

/// Waits until it has ended.
pub(super) async fn ends(process: &AsyncFd<std::os::fd::OwnedFd>) -> io::Result<()> {
    process.readable().await.map(|mut guard| guard.retain_ready())
}

/// Whether the end of a unit's main process was meant: somebody has systemd stop, restart or reload it, or it runs again already.
/// Where systemd cannot be asked, it was not.
pub(super) async fn is_meant(unit: &str, number: i32) -> bool {
    let until = Instant::now() + MEANT_LIMIT;
    loop {
        let run = ["systemctl", "show", "-p", "ActiveState,SubState,Job,MainPID", "--", unit].map(str::to_owned);
        let said = Local.exec(&run, until.saturating_duration_since(Instant::now())).await;
        match said.map(|result| ending(&String::from_utf8_lossy(&result.stdout), number)) {
            Ok(Ending::Meant) => return true,
            Ok(Ending::Open) if Instant::now() + MEANT_EVERY < until => sleep(MEANT_EVERY).await,
            Ok(Ending::Open | Ending::Death) | Err(_) => return false,
        }
    }
}

/// What systemd makes of the end of a main process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    /// It was told to end it, or has another one running.
    Meant,
    /// Nothing follows.
    Death,
    /// It has not noticed yet, or cleans up, or is about to start it again by itself.
    Open,
}

fn ending(text: &str, number: i32) -> Ending {
    let known: BTreeMap<&str, &str> = text.lines().filter_map(|line| line.trim().split_once('=')).collect();
    let of = |key: &str| known.get(key).copied().unwrap_or_default();
    let main: i32 = of("MainPID").parse().unwrap_or(0);
    let has_job = !matches!(of("Job"), "" | "0");
    match (of("ActiveState"), of("SubState")) {
        ("active" | "reloading" | "refreshing", _) if main > 0 && main != number => Ending::Meant,
        // It has crashed, and `Restart=` lets systemd repair it; whether that takes long shows soon.
        ("activating", "auto-restart" | "auto-restart-queued") => Ending::Open,
        _ if has_job => Ending::Meant,
        ("active" | "reloading" | "refreshing" | "activating" | "deactivating", _) => Ending::Open,
        _ => Ending::Death,
    }
}

async fn number(watched: &Watched) -> Option<i32> {
    match watched {
        Watched::PidFile(path) => of_file(path).await,
        Watched::Unit(unit) => of_unit(unit).await,
    }
}

async fn of_file(path: &Path) -> Option<i32> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || {
        let number = look::number_in(&path).ok()??;
        look::may_be_of(&path, number).then_some(number)
    });
    read.await.ok()??.try_into().ok().filter(|number| *number > 0)
}

async fn of_unit(unit: &str) -> Option<i32> {
    let run = ["systemctl", "show", "-p", "MainPID", "--value", "--", unit].map(str::to_owned);
    let result = Local.exec(&run, SYSTEMD_LIMIT).await.ok()?;
    String::from_utf8_lossy(&result.stdout).trim().parse().ok().filter(|number| *number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_end_that_systemd_was_told_to_make_or_has_repaired_is_meant() {
        for (active, sub, job, main, expected) in [
            ("active", "running", "", 7, Ending::Open),
            ("active", "running", "", 8, Ending::Meant),
            ("reloading", "reload", "", 8, Ending::Meant),
            ("deactivating", "stop-sigterm", "55", 7, Ending::Meant),
            ("deactivating", "stop-post", "", 0, Ending::Open),
            ("activating", "start-pre", "55", 0, Ending::Meant),
            ("activating", "auto-restart", "", 0, Ending::Open),
            ("activating", "auto-restart-queued", "55", 0, Ending::Open),
            ("active", "running", "55", 7, Ending::Meant),
            ("inactive", "dead", "", 0, Ending::Death),
            ("inactive", "dead", "55", 0, Ending::Meant),
            ("failed", "failed", "", 0, Ending::Death),
            ("failed", "failed", "0", 0, Ending::Death),
        ] {
            let text = format!("ActiveState={active}\nSubState={sub}\nJob={job}\nMainPID={main}\n");
            assert_eq!(ending(&text, 7), expected, "{text}");
        }
        assert_eq!(ending("", 7), Ending::Death, "a guest without systemd");
    }
}
