//! The end of all faults: cables are plugged in, power is on, devices are well, and every daemon is there and runs. Done again and
//! again while a cluster comes to rest, because Holdfast may switch a host off for what was before.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{ground::Ground, story::Story};
use crate::lab::{Daemon, Fault};

/// How long a host is left off: Holdfast looks, once it has switched one off, whether it is, and nobody is that fast who does not know.
const OFF_FOR: Duration = Duration::from_secs(4);

/// Mends whatever is not as it should be; returns how many hosts were switched on.
pub(super) fn mend(ground: &Ground, story: &Story) -> usize {
    // Each thing is tried whatever becomes of the others, and again the next time.
    for host in ground.hosts().filter(|host| ground.lab.is_frozen(host)) {
        told(story, host, "thaw", ground.lab.thaw(host));
    }
    let switched_on = switch_on(ground, story);
    for host in ground.hosts() {
        told(story, host, "cable", ground.lab.restore_link(host));
        for daemon in [Daemon::Guard, Daemon::Supervisor] {
            // A host that has just been switched off has none.
            let _ = ground.lab.want(host, daemon, true);
            let _ = ground.lab.suspend(host, daemon, false);
        }
    }
    mend_devices(ground, story);
    mend_links(ground);
    let stopped = ground.undone().stopped.clone();
    stopped.iter().for_each(|(guest, pid)| let_go_on(ground, guest, *pid));
    switched_on
}

/// Switches on what has been off for a while; returns how many.
fn switch_on(ground: &Ground, story: &Story) -> usize {
    let off: BTreeSet<&str> = ground.hosts().filter(|host| !ground.lab.is_on(host)).collect();
    let now = Instant::now();
    let mut due = off.clone();
    {
        let mut undone = ground.undone();
        let seen = &mut undone.off;
        seen.retain(|host, _| off.contains(host.as_str()));
        due.retain(|host| now.saturating_duration_since(*seen.entry((*host).to_owned()).or_insert(now)) >= OFF_FOR);
    }
    for host in &due {
        story.tell(&format!("  {host} is off, and is switched on"));
        told(story, host, "power", ground.lab.power_on(host));
    }
    due.len()
}

/// Lets a QEMU go on that stands still. The pid may be another process's by now, so only one that has the disk open is told.
pub(super) fn let_go_on(ground: &Ground, guest: &str, pid: i32) {
    if ground.lab.guest_qemu_pids(guest).iter().any(|(_, open)| *open == pid) {
        // It may have ended in between.
        let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
    }
    ground.undone().stopped.remove(&(guest.to_owned(), pid));
}

fn mend_devices(ground: &Ground, story: &Story) {
    let bad: Vec<String> = ground.undone().devices.iter().cloned().collect();
    for host in bad {
        let mended = ground.lab.bmc(&host).fault(Fault::None);
        if mended.is_ok() {
            ground.undone().devices.remove(&host);
        }
        told(story, &host, "power device", mended);
    }
}

fn mend_links(ground: &Ground) {
    let links = std::mem::take(&mut ground.undone().links);
    for (from, to) in links {
        // A host that has booted since has forgotten it.
        let _ = ground.lab.unblock(&from, &to);
    }
}

fn told(story: &Story, host: &str, what: &str, result: anyhow::Result<()>) {
    if let Err(error) = result {
        story.tell(&format!("  {host}, {what}: {error:#}"));
    }
}
