//! How each fault is made: each by what the tests of the lab make it with, too.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    ground::Ground,
    kinds::{Fault, Hurt},
    plan::Deed,
    story::Story,
};
use crate::lab::{self, Daemon, guest::PORT, wait};

/// How long a bad contact loses everything, and how long it loses nothing: a retransmission or two.
const CONTACT_LOST: Duration = Duration::from_millis(250);
/// See [`CONTACT_LOST`].
const CONTACT: Duration = Duration::from_millis(250);
/// How long a supervisor that starves gets no processor: so long that its loop is late (0.75 s), and nobody misses it yet (1.5 s).
const STARVED: Duration = Duration::from_millis(950);
/// How long it then gets one.
const FED: Duration = Duration::from_millis(600);
/// How long a supervisor stands still while the device of its host lies: longer than it takes until the device is asked (0.75 s) and
/// its host suspected (1.5 s).
const LIED_OF: Duration = Duration::from_secs(4);

/// Does all of a burst, each fault at its time; returns when the last one has ended. What does not work is told: a host that is off
/// already cannot freeze.
pub(super) fn burst(ground: &Ground, story: &Story, deeds: &[Deed]) {
    thread::scope(|scope| {
        for deed in deeds {
            scope.spawn(move || {
                if wait::pause(deed.at).is_err() {
                    return;
                }
                story.tell(&format!("  {deed}"));
                if let Err(error) = act(ground, story, deed) {
                    story.tell(&format!("    not so: {}: {error:#}", deed.fault));
                }
            });
        }
    });
}

fn act(ground: &Ground, story: &Story, deed: &Deed) -> Result<()> {
    let lab = &ground.lab;
    match &deed.fault {
        Fault::SupervisorKilled { host, back: true } => lab.crash(host, Daemon::Supervisor),
        Fault::SupervisorKilled { host, back: false } => {
            lab.kill_supervisor(host)?;
            wait::pause(deed.lasts)?;
            lab.want(host, Daemon::Supervisor, true)
        }
        Fault::SupervisorStopped { host } => stand_still(ground, host, Daemon::Supervisor, deed.lasts),
        Fault::SupervisorStarved { host } => starve(ground, host, deed.lasts),
        Fault::SupervisorsKilled => all_supervisors(ground, deed.lasts),
        Fault::GuardKilled { host, back: true } => lab.crash(host, Daemon::Guard),
        Fault::GuardKilled { host, back: false } => {
            lab.kill_guard(host)?;
            wait::pause(deed.lasts)?;
            lab.want(host, Daemon::Guard, true)
        }
        Fault::GuardStopped { host } => stand_still(ground, host, Daemon::Guard, deed.lasts),
        Fault::QemuKilled { guest } => Ok(kill(Pid::from_raw(qemu(ground, guest)?), Signal::SIGKILL)?),
        Fault::QemuStopped { guest } => stop_qemu(ground, guest, deed.lasts),
        Fault::ServiceHurt { guest, how } => hurt(ground, guest, *how),
        Fault::HostCutOff { host } => {
            lab.cut_link(host)?;
            wait::pause(deed.lasts)?;
            lab.restore_link(host)
        }
        Fault::LinkCut { host, other, both_ways } => cut(ground, host, other, *both_ways, deed.lasts),
        Fault::BadCable { host } => bad_cable(ground, host, deed.lasts),
        Fault::PowerCut { host } => {
            lab.power_cut(host)?;
            wait::pause(deed.lasts)?;
            lab.power_on(host)
        }
        Fault::Blackout => {
            ground.hosts().try_for_each(|host| lab.power_cut(host))?;
            wait::pause(deed.lasts)?;
            ground.hosts().try_for_each(|host| lab.power_on(host))
        }
        Fault::HostFrozen { host } => {
            // One that is off would boot frozen.
            ensure!(lab.is_on(host), "it is off");
            lab.freeze(host)?;
            wait::pause(deed.lasts)?;
            lab.thaw(host)
        }
        Fault::DeviceBad { host, how } => device(ground, host, *how, || wait::pause(deed.lasts)),
        Fault::DeviceLies { host } => device(ground, host, lab::Fault::SaysOff, || {
            stand_still(ground, host, Daemon::Supervisor, LIED_OF)?;
            wait::pause(deed.lasts)
        }),
        Fault::Drained { .. } | Fault::Moved { .. } | Fault::GuestStopped { .. } | Fault::Suspended => {
            super::operators::act(ground, story, deed)
        }
    }
}

fn stand_still(ground: &Ground, host: &str, daemon: Daemon, lasts: Duration) -> Result<()> {
    ground.lab.suspend(host, daemon, true)?;
    wait::pause(lasts)?;
    ground.lab.suspend(host, daemon, false)
}

fn starve(ground: &Ground, host: &str, lasts: Duration) -> Result<()> {
    let begin = Instant::now();
    loop {
        stand_still(ground, host, Daemon::Supervisor, STARVED)?;
        if begin.elapsed() >= lasts {
            return Ok(());
        }
        wait::pause(FED)?;
    }
}

fn all_supervisors(ground: &Ground, lasts: Duration) -> Result<()> {
    let mut killed = Vec::new();
    for host in ground.hosts() {
        // One that is down already, or whose host is off, stays so.
        if ground.lab.kill_supervisor(host).is_ok() {
            killed.push(host);
        }
    }
    wait::pause(lasts)?;
    killed.into_iter().try_for_each(|host| ground.lab.want(host, Daemon::Supervisor, true))
}

fn qemu(ground: &Ground, guest: &str) -> Result<i32> {
    let open = ground.lab.guest_qemu_pids(guest);
    open.first().map(|(_, pid)| *pid).with_context(|| format!("no QEMU has the disk of {guest} open"))
}

fn stop_qemu(ground: &Ground, guest: &str, lasts: Duration) -> Result<()> {
    let pid = qemu(ground, guest)?;
    ground.undone().stopped.insert((guest.to_owned(), pid));
    kill(Pid::from_raw(pid), Signal::SIGSTOP)?;
    wait::pause(lasts)?;
    super::mend::let_go_on(ground, guest, pid);
    Ok(())
}

fn hurt(ground: &Ground, guest: &str, how: Hurt) -> Result<()> {
    let path = match how {
        Hurt::Killed => "/cgi-bin/crash",
        Hurt::Hung => "/cgi-bin/hang",
        Hurt::Panicked => "/cgi-bin/panic",
    };
    // The answer dies with whoever would give it.
    let _ = ground.lab.client_get(&format!("{}:{PORT}", ground.guest(guest)?.address), path);
    Ok(())
}

fn cut(ground: &Ground, host: &str, other: &str, both_ways: bool, lasts: Duration) -> Result<()> {
    let mut links = vec![(host.to_owned(), other.to_owned())];
    if both_ways {
        links.push((other.to_owned(), host.to_owned()));
    }
    for (from, to) in &links {
        ground.undone().links.insert((from.clone(), to.clone()));
        ground.lab.block(from, to)?;
    }
    wait::pause(lasts)?;
    for link in &links {
        ground.lab.unblock(&link.0, &link.1)?;
        ground.undone().links.remove(link);
    }
    Ok(())
}

fn bad_cable(ground: &Ground, host: &str, lasts: Duration) -> Result<()> {
    let pieces = lasts.as_millis() / (CONTACT_LOST + CONTACT).as_millis();
    for _ in 0..pieces.max(1) {
        ground.lab.cut_link(host)?;
        wait::pause(CONTACT_LOST)?;
        ground.lab.restore_link(host)?;
        wait::pause(CONTACT)?;
    }
    Ok(())
}

fn device(ground: &Ground, host: &str, how: lab::Fault, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
    ground.undone().devices.insert(host.to_owned());
    ground.lab.bmc(host).fault(how)?;
    meanwhile()?;
    ground.lab.bmc(host).fault(lab::Fault::None)?;
    ground.undone().devices.remove(host);
    Ok(())
}
