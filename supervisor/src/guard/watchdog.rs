//! One armed watchdog: from its opening on it fires unless it is petted in time.
//!
//! ```text
//!  open (the driver arms it) ─► set the time-out, read it back ─► pet, pet, … ─► magic close, by a committed disarm only
//!                                                                     └─ no pet within the time-out: the host is reset
//! ```
//!
//! Whoever drops it without [`Watchdog::disarm`] leaves it armed: then somebody must open it and pet it in time.

use std::{
    ffi::c_int,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::fs::{FileTypeExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use holdfast_policies::{
    armed::ArmedWatchdog,
    hostfile::WatchdogFile,
    observe::clean,
    time::{Moment, millis},
};
use nix::{
    errno::Errno,
    sys::stat::{major, minor},
};

use super::kernel;

/// How often it is petted: eight times in the shortest time-out that a host file may ask for.
pub(super) const PET_EVERY: Duration = Duration::from_millis(250);

/// Longest time-out taken over from a driver that does not do as it is told, in seconds. What waits longer protects
/// nobody.
const TIMEOUT_SECONDS_MAX: c_int = 600;

/// `WDIOF_SETTIMEOUT`: its time-out can be set.
const CAN_SET_TIMEOUT: u32 = 0x0080;
/// `WDIOF_MAGICCLOSE`: closing it disarms it only after a `V`.
const CAN_CLOSE: u32 = 0x0100;
/// `WDIOF_PRETIMEOUT`: it can give notice before it fires.
const CAN_GIVE_NOTICE: u32 = 0x0200;
/// `WDIOF_ALARMONLY`: it raises an alarm, and resets nothing.
const ALARM_ONLY: u32 = 0x0400;
/// How long before it fires the kernel may give notice, in seconds; only where the time-out is several times that.
const NOTICE_SECONDS: c_int = 1;

/// What softdog calls itself.
const SOFTDOG: &str = "Software Watchdog";

/// The major number of miscellaneous devices, of which `/dev/watchdog` is one; the first watchdog device has that name.
const MISC_MAJOR: u64 = 10;

/// Why a watchdog could not be armed.
#[derive(Debug, thiserror::Error)]
pub(super) enum WatchdogError {
    #[error("it cannot be opened")]
    Open(#[source] io::Error),
    #[error("it is no watchdog")]
    Support(#[source] Errno),
    #[error("it does not tell its time-out")]
    Timeout(#[source] Errno),
    #[error("its time-out is {seconds} s whatever it is told; from 1 to {TIMEOUT_SECONDS_MAX} s would do")]
    Unfit { seconds: c_int },
    #[error("it only raises an alarm, and does not reset this host")]
    AlarmOnly,
    #[error("the kernel disarms it when the guard ends; load its driver with nowayout=1")]
    EndsWithUs,
}

impl WatchdogError {
    /// Whether it was not reached at all: what an earlier guard has armed may be armed still. Any other was opened, and disarmed
    /// again as far as it can be, unless somebody counts on it.
    pub(super) fn is_out_of_reach(&self) -> bool {
        match self {
            Self::Open(_) | Self::Support(_) => true,
            Self::Timeout(_) | Self::Unfit { .. } | Self::AlarmOnly | Self::EndsWithUs => false,
        }
    }
}

/// An open, armed watchdog.
#[derive(Debug)]
pub(super) struct Watchdog {
    device: File,
    armed: ArmedWatchdog,
    can_close: bool,
    /// Why nobody may count on it although it is armed, as an earlier guard may have.
    unfit: Option<String>,
    due: Moment,
    /// So that a lasting failure is told once.
    failing: bool,
}

impl Watchdog {
    /// Opens and arms it. `counted_on`: the time-out in milliseconds that somebody counts on since an earlier guard armed it:
    /// then it gets no longer one, and is left to fire if it turns out to be unfit (R15). One that nobody counts on is
    /// disarmed again then.
    pub(super) fn open(wanted: &WatchdogFile, counted_on: Option<u64>, now: Moment) -> Result<Self, WatchdogError> {
        let mut device = OpenOptions::new().write(true).open(&wanted.device).map_err(WatchdogError::Open)?;
        let support = kernel::watchdog_support(device.as_fd()).map_err(WatchdogError::Support)?;
        let timeout_ms = counted_on.unwrap_or(u64::MAX).min(millis(wanted.timeout.0));
        match set_up(&device, timeout_ms, support) {
            Ok(armed) => Ok(Self::armed_as(device, armed, support.options, now)),
            Err(error) => {
                if counted_on.is_none()
                    && let Err(error) = allow_close(&mut device)
                {
                    tracing::error!(%error, device = %wanted.device.display(), "the watchdog cannot be disarmed again");
                }
                Err(error)
            }
        }
    }

    /// Opens it and disarms it at once, to see what it is. One that cannot be disarmed comes back, to be petted on; where the
    /// kernel says so beforehand it is not opened at all, because that would arm it although nobody has asked for it.
    pub(super) fn try_out(wanted: &WatchdogFile, now: Moment) -> Result<(ArmedWatchdog, Option<Self>), WatchdogError> {
        let folder = fs::metadata(&wanted.device).ok().and_then(|metadata| kernels_folder(&metadata));
        if let Some(told) = folder.and_then(|folder| told_for_ever(&folder, wanted)) {
            return Ok((told, None));
        }
        let opened = Self::open(wanted, None, now)?;
        Ok((opened.armed.clone(), opened.disarm()))
    }

    /// Takes over a device that another guard has armed.
    pub(super) fn take_over(device: OwnedFd, now: Moment) -> Result<Self, WatchdogError> {
        let device = File::from(device);
        let support = kernel::watchdog_support(device.as_fd()).map_err(WatchdogError::Support)?;
        let armed = describe(&device, support)?;
        Ok(Self::armed_as(device, armed, support.options, now))
    }

    fn armed_as(device: File, armed: ArmedWatchdog, options: u32, now: Moment) -> Self {
        let can_close = options & CAN_CLOSE != 0 && !is_for_ever(&device);
        let unfit = unfit(folder_of(&device).as_deref(), options, &armed.identity).map(|error| error.to_string());
        Self { device, armed, can_close, unfit, due: now, failing: false }
    }

    /// What it is.
    pub(super) fn armed(&self) -> &ArmedWatchdog {
        &self.armed
    }

    /// Why nobody may count on it. Only one that another guard has armed can be so; it is petted on.
    pub(super) fn unfit(&self) -> Option<&str> {
        self.unfit.as_deref()
    }

    /// The descriptor, to be handed over.
    pub(super) fn descriptor(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }

    /// Pets it, when it is time to. A failure changes nothing: it fires then, as it is meant to.
    pub(super) fn pet_when_due(&mut self, now: Moment) {
        if now < self.due {
            return;
        }
        self.due = now.plus(PET_EVERY);
        let failure = self.device.write_all(b"\0").err();
        match (&failure, self.failing) {
            (Some(error), false) => tracing::error!(%error, "the watchdog cannot be petted; it will reset this host"),
            (None, true) => tracing::info!("the watchdog can be petted again"),
            (Some(_), true) | (None, false) => {}
        }
        self.failing = failure.is_some();
    }

    /// Disarms it, because it has been committed that nobody counts on it (R15). One that cannot be disarmed comes back,
    /// and is to be petted for ever.
    pub(super) fn disarm(mut self) -> Option<Self> {
        if !self.can_close {
            tracing::warn!("this watchdog cannot be disarmed before the next boot; it is petted on");
            return Some(self);
        }
        match allow_close(&mut self.device) {
            Ok(()) => None,
            Err(error) => {
                tracing::error!(%error, "the watchdog could not be disarmed; it is petted on");
                Some(self)
            }
        }
    }
}

/// With this the close that comes next disarms it.
fn allow_close(device: &mut File) -> io::Result<()> {
    device.write_all(b"V")
}

fn set_up(device: &File, timeout_ms: u64, support: kernel::WatchdogInfo) -> Result<ArmedWatchdog, WatchdogError> {
    let seconds = c_int::try_from(timeout_ms / 1_000).unwrap_or(c_int::MAX);
    if support.options & CAN_SET_TIMEOUT != 0
        && let Err(error) = kernel::set_watchdog_timeout(device.as_fd(), seconds)
    {
        tracing::warn!(%error, seconds, "the watchdog did not take its time-out");
    }
    let armed = describe(device, support)?;
    if let Some(error) = unfit(folder_of(device).as_deref(), support.options, &armed.identity) {
        return Err(error);
    }
    if armed.timeout_ms != timeout_ms {
        tracing::warn!(wanted_ms = timeout_ms, timeout_ms = armed.timeout_ms, "the watchdog has a time-out of its own");
    }
    // It is a courtesy: what the kernel logs a second before the end may tell why.
    if support.options & CAN_GIVE_NOTICE != 0
        && armed.timeout_ms >= 4_000 * u64::from(NOTICE_SECONDS.unsigned_abs())
        && let Err(error) = kernel::set_watchdog_pretimeout(device.as_fd(), NOTICE_SECONDS)
    {
        tracing::debug!(%error, "the watchdog gives no notice before it fires");
    }
    Ok(armed)
}

/// What the driver says of the device, the time-out read back from it (R9).
fn describe(device: &File, support: kernel::WatchdogInfo) -> Result<ArmedWatchdog, WatchdogError> {
    let seconds = kernel::watchdog_timeout(device.as_fd()).map_err(WatchdogError::Timeout)?;
    if !(1..=TIMEOUT_SECONDS_MAX).contains(&seconds) {
        return Err(WatchdogError::Unfit { seconds });
    }
    let identity = identity(&support.identity);
    let is_virtual = identity == SOFTDOG || !is_device(device) || is_virtual_machine(Path::new("/"));
    Ok(ArmedWatchdog { identity, timeout_ms: u64::from(seconds.unsigned_abs()) * 1_000, is_virtual })
}

/// Why a device that can be armed and petted protects nobody, as far as the kernel tells. A driver of the kernel's common kind
/// that knows no magic close is stopped at any close, also that of a guard that dies; the others are drivers of their own, and
/// the kernel has no folder of them.
fn unfit(folder: Option<&Path>, options: u32, identity: &str) -> Option<WatchdogError> {
    if options & ALARM_ONLY != 0 {
        return Some(WatchdogError::AlarmOnly);
    }
    let tells = |name: &str| folder.and_then(|folder| read(folder, name));
    let is_this = tells("identity").is_some_and(|told| clean(&told) == identity);
    let stops_at_close = options & CAN_CLOSE == 0 && tells("nowayout").as_deref() == Some("0");
    (is_this && stops_at_close).then_some(WatchdogError::EndsWithUs)
}

fn identity(padded: &[u8]) -> String {
    let text: Vec<u8> = padded.iter().copied().take_while(|byte| *byte != 0).collect();
    clean(String::from_utf8_lossy(&text).trim())
}

/// Anything else is some process's imitation of one, and ends with it.
fn is_device(device: &File) -> bool {
    device.metadata().is_ok_and(|metadata| metadata.file_type().is_char_device())
}

/// Whether this host is itself a virtual machine, whose watchdog stops whenever the machine is paused (R9). One that cannot be told
/// from a virtual one may be one; not every machine has firmware that tells.
fn is_virtual_machine(root: &Path) -> bool {
    let read = |path: &str| fs::read(root.join(path)).map(|text| String::from_utf8_lossy(&text).into_owned());
    let firmware = ["sys_vendor", "product_name"].map(|name| match read(&format!("sys/class/dmi/id/{name}")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
        told => told,
    });
    let (Ok(processor), [Ok(vendor), Ok(product)]) = (read("proc/cpuinfo"), firmware) else { return true };
    let flags = processor.lines().filter(|line| line.starts_with("flags") || line.starts_with("Features"));
    let mut words = flags.flat_map(str::split_whitespace);
    let is_named = MACHINES.iter().any(|machine| vendor.contains(machine) || product.contains(machine));
    is_named || words.any(|word| word == "hypervisor")
}

/// What the firmware of virtual machines calls them, for processors that do not tell.
const MACHINES: [&str; 9] =
    ["QEMU", "KVM", "VMware", "VirtualBox", "Xen", "Bochs", "OpenStack", "Google Compute Engine", "Virtual Machine"];

/// Whether the driver was told never to let it be disarmed (`nowayout`).
fn is_for_ever(device: &File) -> bool {
    let Ok(metadata) = device.metadata() else { return true };
    kernels_folder(&metadata).is_some_and(|folder| read(&folder, "nowayout").as_deref() == Some("1"))
}

fn folder_of(device: &File) -> Option<PathBuf> {
    device.metadata().ok().and_then(|metadata| kernels_folder(&metadata))
}

/// Where the kernel tells of a device. `/dev/watchdog` is a second name of watchdog0.
fn kernels_folder(metadata: &fs::Metadata) -> Option<PathBuf> {
    let (major, minor) = (major(metadata.rdev()), minor(metadata.rdev()));
    let folder = if major == MISC_MAJOR {
        PathBuf::from("/sys/class/watchdog/watchdog0")
    } else {
        PathBuf::from(format!("/sys/dev/char/{major}:{minor}"))
    };
    metadata.file_type().is_char_device().then_some(folder)
}

fn read(folder: &Path, name: &str) -> Option<String> {
    fs::read_to_string(folder.join(name)).ok().map(|text| text.trim().to_owned())
}

/// What the kernel tells of a watchdog that could not be disarmed and is not armed. One that is armed already has to be
/// opened and petted on, whoever has armed it.
fn told_for_ever(folder: &Path, wanted: &WatchdogFile) -> Option<ArmedWatchdog> {
    let for_ever = read(folder, "nowayout").as_deref() == Some("1");
    let at_rest = read(folder, "state").as_deref() == Some("inactive");
    if !for_ever || !at_rest {
        return None;
    }
    let identity = read(folder, "identity").map(|identity| clean(&identity)).unwrap_or_default();
    let seconds = read(folder, "timeout").and_then(|seconds| seconds.parse::<u32>().ok());
    let timeout_ms = seconds.map_or(millis(wanted.timeout.0), |seconds| u64::from(seconds) * 1_000);
    let is_virtual = identity == SOFTDOG || is_virtual_machine(Path::new("/"));
    Some(ArmedWatchdog { identity, timeout_ms, is_virtual })
}

#[cfg(test)]
mod tests;
