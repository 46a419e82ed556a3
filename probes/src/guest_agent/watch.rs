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

/// How often a process that is not there is looked for: at first, and where that costs a program each time, after a while. A unit
/// may be stopped for days, and 64 of them may be watched; one that comes back is watched so much later.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const LOOK_SELDOM: Duration = Duration::from_secs(2);

/// Longest time for the guest's systemd to name a unit's main process.
const SYSTEMD_LIMIT: Duration = Duration::from_secs(5);

/// How long systemd gets to notice an end and to say that it was meant, and how often it is asked. A death is told so much later
/// at most; a restart that takes longer is one that systemd has a job for.
const MEANT_LIMIT: Duration = Duration::from_millis(300);
const MEANT_EVERY: Duration = Duration::from_millis(20);

/// The process of a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Main {
    /// Its number.
    pub number: i32,
    /// How often systemd had restarted its unit by itself when it began.
    pub restarts: u64,
}

/// Waits until the process of a service is there.
#[expect(
    deprecated,
    reason = "the other constructor is unsafe for descriptors that somebody else might close; this owns its own"
)]
pub(super) async fn appears(watched: &Watched) -> (AsyncFd<std::os::fd::OwnedFd>, Main) {
    let mut pause = LOOK_EVERY;
    loop {
        if let Some(main) = main_process(watched).await
            // One that has ended keeps its number until its parent has asked how.
            && u32::try_from(main.number).is_ok_and(|number| look::living(number).is_ok_and(|process| process.is_some()))
            && let Some(pid) = Pid::from_raw(main.number)
            && let Ok(fd) = pidfd_open(pid, PidfdFlags::NONBLOCK)
            && let Ok(fd) = AsyncFd::with_interest(fd, Interest::READABLE)
        {
            return (fd, main);
        }
        sleep(pause).await;
        pause = longer(pause, watched);
    }
}

/// The pause after this one.
fn longer(pause: Duration, watched: &Watched) -> Duration {
    match watched {
        Watched::PidFile(_) => LOOK_EVERY,
        Watched::Unit(_) => (pause * 5 / 4).min(LOOK_SELDOM),
    }
}

/// Waits until it has ended.
pub(super) async fn ends(process: &AsyncFd<std::os::fd::OwnedFd>) -> io::Result<()> {
    process.readable().await.map(|mut guard| guard.retain_ready())
}

/// Whether the end of a unit's main process was meant: somebody has systemd stop, restart or reload it, or it runs again already.
/// Where systemd cannot be asked, it was not.
pub(super) async fn is_meant(unit: &str, main: Main) -> bool {
    let until = Instant::now() + MEANT_LIMIT;
    loop {
        let run =
            ["systemctl", "show", "-p", "ActiveState,SubState,Job,MainPID,NRestarts", "--", unit].map(str::to_owned);
        let said = Local.exec(&run, until.saturating_duration_since(Instant::now())).await;
        match said.map(|result| ending(&String::from_utf8_lossy(&result.stdout), main)) {
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

fn ending(text: &str, main: Main) -> Ending {
    let known = properties(text);
    let of = |key: &str| known.get(key).copied().unwrap_or_default();
    let newest = main_of(&known);
    let has_job = !matches!(of("Job"), "" | "0");
    match (of("ActiveState"), of("SubState")) {
        ("active" | "reloading" | "refreshing", _) if newest.number > 0 && newest.number != main.number => {
            Ending::Meant
        }
        // It has crashed, and `Restart=` lets systemd repair it; whether that takes long shows soon. The job by which it does
        // so is its own.
        ("activating", "auto-restart" | "auto-restart-queued") => Ending::Open,
        _ if has_job && newest.restarts > main.restarts => Ending::Open,
        _ if has_job => Ending::Meant,
        ("active" | "reloading" | "refreshing" | "activating" | "deactivating", _) => Ending::Open,
        _ => Ending::Death,
    }
}

/// What `systemctl show` says, by key.
fn properties(text: &str) -> BTreeMap<&str, &str> {
    text.lines().filter_map(|line| line.trim().split_once('=')).collect()
}

fn main_of(known: &BTreeMap<&str, &str>) -> Main {
    let of = |key: &str| known.get(key).copied().unwrap_or_default();
    Main { number: of("MainPID").parse().unwrap_or(0), restarts: of("NRestarts").parse().unwrap_or(0) }
}

async fn main_process(watched: &Watched) -> Option<Main> {
    match watched {
        Watched::PidFile(path) => of_file(path).await.map(|number| Main { number, restarts: 0 }),
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

async fn of_unit(unit: &str) -> Option<Main> {
    let run = ["systemctl", "show", "-p", "MainPID,NRestarts", "--", unit].map(str::to_owned);
    let result = Local.exec(&run, SYSTEMD_LIMIT).await.ok()?;
    let said = String::from_utf8_lossy(&result.stdout);
    Some(main_of(&properties(&said))).filter(|main| main.number > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of a unit that had been restarted twice when its process 7 began.
    const MAIN: Main = Main { number: 7, restarts: 2 };

    #[test]
    fn a_unit_that_is_not_there_is_looked_for_often_at_first_and_then_seldom() {
        let unit = Watched::Unit("app.service".to_owned());
        let (mut pause, mut looks, mut waited) = (LOOK_EVERY, 0_u32, Duration::ZERO);
        while waited < Duration::from_secs(60) {
            (looks, waited, pause) = (looks + 1, waited + pause, longer(pause, &unit));
        }
        assert!(looks < 40 && pause == LOOK_SELDOM, "{looks}");
        assert_eq!(longer(LOOK_EVERY, &Watched::PidFile("/run/app.pid".into())), LOOK_EVERY);
    }

    #[test]
    fn only_an_end_that_systemd_was_told_to_make_or_has_repaired_is_meant() {
        for (active, sub, job, main, restarts, expected) in [
            ("active", "running", "", 7, 2, Ending::Open),
            ("active", "running", "", 8, 3, Ending::Meant),
            ("reloading", "reload", "", 8, 2, Ending::Meant),
            ("deactivating", "stop-sigterm", "55", 7, 2, Ending::Meant),
            ("deactivating", "stop-post", "", 0, 2, Ending::Open),
            ("activating", "start-pre", "55", 0, 0, Ending::Meant),
            ("activating", "auto-restart", "", 0, 2, Ending::Open),
            ("activating", "auto-restart-queued", "55", 0, 2, Ending::Open),
            ("activating", "start-pre", "55", 0, 3, Ending::Open),
            ("activating", "start", "55", 8, 3, Ending::Open),
            ("active", "running", "55", 7, 2, Ending::Meant),
            ("inactive", "dead", "", 0, 2, Ending::Death),
            ("inactive", "dead", "55", 0, 2, Ending::Meant),
            ("failed", "failed", "", 0, 2, Ending::Death),
            ("failed", "failed", "0", 0, 2, Ending::Death),
        ] {
            let text =
                format!("ActiveState={active}\nSubState={sub}\nJob={job}\nMainPID={main}\nNRestarts={restarts}\n");
            assert_eq!(ending(&text, MAIN), expected, "{text}");
        }
        assert_eq!(ending("", MAIN), Ending::Death, "a guest without systemd");
    }
}
