//! Simulated hardware watchdogs: one file system per host that asks for one (`src/bin/watchdog.rs`), whose reset is the
//! host's real power: off, and on again.

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};

use super::{HostSpec, Lab, command, place::QUICK, wait};

/// Longest time until a watchdog is there.
const READY_LIMIT: Duration = Duration::from_secs(180);

/// Something that happened to a watchdog.
#[derive(Debug, Clone, PartialEq)]
pub struct WatchdogEvent {
    /// When, on [`super::clock::now_ms`]'s clock.
    pub at_ms: f64,
    /// `opened`, `set to N s`, `disarmed`, `closed armed`, `power is off`, `notice`, `fired`.
    pub what: String,
}

impl Lab {
    /// Starts the watchdogs of all hosts that have one. It must be there before its host is switched on, which sees it from
    /// then on.
    pub(super) fn start_watchdogs(&self) -> Result<()> {
        for spec in self.hosts().iter().filter(|spec| spec.watchdog_seconds.is_some()) {
            self.start_watchdog(&spec.name)?;
        }
        Ok(())
    }

    fn start_watchdog(&self, host: &str) -> Result<()> {
        let folder = self.watchdog_dir(host);
        fs::create_dir_all(&folder)?;
        let program = super::built("watchdog")?;
        let log = self.host_dir(host).join("watchdog.log");
        let (script, lab) = (super::script("power.sh"), self.place.dir.clone());
        let paths = [&program, &folder, &log, &script, &lab].map(|path| path.to_string_lossy().into_owned());
        let mut argv: Vec<&str> = paths.iter().map(String::as_str).collect();
        argv.extend([host, "reset"]);
        self.helper(&format!("watchdog-{host}"), "mg", &argv)?;
        wait::until(&format!("the watchdog of {host}"), READY_LIMIT, || {
            let device = folder.join("watchdog");
            if device.exists() { Ok(()) } else { Err(format!("no {}", device.display())) }
        })
    }

    fn watchdog_dir(&self, host: &str) -> PathBuf {
        self.host_dir(host).join("watchdog")
    }

    /// The lines of a host file that name its watchdog.
    pub(super) fn watchdog_yaml(&self, spec: &HostSpec) -> Option<String> {
        let seconds = spec.watchdog_seconds?;
        let device = self.watchdog_dir(&spec.name).join("watchdog");
        Some(format!("{{ device: {}, timeout: {seconds}s }}", device.display()))
    }

    /// What has happened to a host's watchdog, oldest first; pets are left out.
    ///
    /// # Errors
    /// When the host has none, or its log cannot be read.
    pub fn watchdog_events(&self, host: &str) -> Result<Vec<WatchdogEvent>> {
        let path = self.host_dir(host).join("watchdog.log");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        // A line that is being written is looked at next time.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let events = whole.lines().map(|line| {
            let (at, what) = line.split_once(' ').with_context(|| format!("{line:?} has no time"))?;
            Ok(WatchdogEvent { at_ms: at.parse()?, what: what.to_owned() })
        });
        events.collect()
    }

    /// When a host's watchdog fired, each time.
    ///
    /// # Errors
    /// As [`Lab::watchdog_events`].
    pub fn watchdog_fired(&self, host: &str) -> Result<Vec<f64>> {
        let events = self.watchdog_events(host)?;
        Ok(events.into_iter().filter(|event| event.what == "fired").map(|event| event.at_ms).collect())
    }
}

/// Takes away what is mounted below a lab's folder, which its end leaves behind.
pub(super) fn unmount_below(folder: &std::path::Path) {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let below =
        mounts.lines().filter_map(|line| line.split(' ').nth(1)).filter(|path| PathBuf::from(path).starts_with(folder));
    for path in below {
        let _ = command::run(&["umount", "-l", path], QUICK);
    }
}
