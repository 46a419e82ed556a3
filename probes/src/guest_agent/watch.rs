//! Watches the processes of services: the kernel tells the end of one at once, through its pidfd.

use std::{io, path::Path, time::Duration};

use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::{
    io::{Interest, unix::AsyncFd},
    time::sleep,
};

use super::{config::Watched, local::Local, look};
use crate::channel::GuestChannel;

/// How often a process that is not there is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Longest time for the guest's systemd to name a unit's main process.
const SYSTEMD_LIMIT: Duration = Duration::from_secs(5);

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

async fn number(watched: &Watched) -> Option<i32> {
    match watched {
        Watched::PidFile(path) => of_file(path).await,
        Watched::Unit(unit) => of_unit(unit).await,
    }
}

async fn of_file(path: &Path) -> Option<i32> {
    let path = path.to_owned();
    let read = tokio::task::spawn_blocking(move || look::number_in(&path)).await.ok()?;
    read.ok()??.try_into().ok().filter(|number| *number > 0)
}

async fn of_unit(unit: &str) -> Option<i32> {
    let run = ["systemctl", "show", "-p", "MainPID", "--value", "--", unit].map(str::to_owned);
    let result = Local.exec(&run, SYSTEMD_LIMIT).await.ok()?;
    String::from_utf8_lossy(&result.stdout).trim().parse().ok().filter(|number| *number > 0)
}
