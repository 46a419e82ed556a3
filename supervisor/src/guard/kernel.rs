//! The few system calls that nix does not offer in a safe form: a watchdog's ioctls, real-time priority, and owning
//! received descriptors.

#![expect(
    unsafe_code,
    reason = "nix makes ioctls unsafe functions, has no scheduling policies, and receives plain numbers"
)]

use std::{
    ffi::c_int,
    io::IoSliceMut,
    os::{
        fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::net::UnixStream,
    },
};

use nix::{
    cmsg_space,
    errno::Errno,
    libc,
    sys::socket::{ControlMessageOwned, MsgFlags, recvmsg},
};

/// What `WDIOC_GETSUPPORT` fills in: `struct watchdog_info` of linux/watchdog.h.
#[repr(C)]
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct WatchdogInfo {
    /// What the driver can do: `WDIOF_…`.
    pub(super) options: u32,
    /// Version of the card's firmware.
    pub(super) firmware_version: u32,
    /// The driver's name for the device, padded with zeros.
    pub(super) identity: [u8; 32],
}

mod ioctl {
    use std::ffi::c_int;

    nix::ioctl_read!(get_support, b'W', 0, super::WatchdogInfo);
    nix::ioctl_readwrite!(set_timeout, b'W', 6, c_int);
    nix::ioctl_read!(get_timeout, b'W', 7, c_int);
    nix::ioctl_readwrite!(set_pretimeout, b'W', 8, c_int);
}

/// What a watchdog is and can do.
pub(super) fn watchdog_support(device: BorrowedFd<'_>) -> Result<WatchdogInfo, Errno> {
    let mut info = WatchdogInfo::default();
    // SAFETY: the descriptor is open for the whole call, and the kernel writes one `struct watchdog_info`, which is what
    // the pointer leads to: plain numbers, of which every bit pattern is valid.
    unsafe { ioctl::get_support(device.as_raw_fd(), &raw mut info) }.map(|_| info)
}

/// Asks for a time-out in seconds; the driver may choose another, which only [`watchdog_timeout`] tells. It pets, too.
pub(super) fn set_watchdog_timeout(device: BorrowedFd<'_>, seconds: c_int) -> Result<(), Errno> {
    let mut seconds = seconds;
    // SAFETY: the descriptor is open for the whole call, and the kernel reads and writes one `int`.
    unsafe { ioctl::set_timeout(device.as_raw_fd(), &raw mut seconds) }.map(drop)
}

/// The time-out that is in force, in seconds.
pub(super) fn watchdog_timeout(device: BorrowedFd<'_>) -> Result<c_int, Errno> {
    let mut seconds = 0;
    // SAFETY: the descriptor is open for the whole call, and the kernel writes one `int`.
    unsafe { ioctl::get_timeout(device.as_raw_fd(), &raw mut seconds) }.map(|_| seconds)
}

/// Asks for a notice in the kernel's log this many seconds before the watchdog fires.
pub(super) fn set_watchdog_pretimeout(device: BorrowedFd<'_>, seconds: c_int) -> Result<(), Errno> {
    let mut seconds = seconds;
    // SAFETY: the descriptor is open for the whole call, and the kernel reads and writes one `int`.
    unsafe { ioctl::set_pretimeout(device.as_raw_fd(), &raw mut seconds) }.map(drop)
}

/// Gives the calling thread the lowest real-time priority, above every process that has none. What it starts has none.
pub(super) fn become_real_time() -> Result<(), Errno> {
    let priority = libc::sched_param { sched_priority: 1 };
    // SAFETY: the kernel reads one `struct sched_param`, which lives until the call returns; 0 is the calling thread.
    let result =
        unsafe { libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const priority) };
    Errno::result(result).map(drop)
}

/// Most descriptors received at once.
pub(super) const DESCRIPTORS_MAX: usize = 4;

/// Reads what has arrived, with the descriptors that came along.
pub(super) fn receive(stream: &UnixStream, buffer: &mut [u8]) -> Result<(usize, Vec<OwnedFd>), Errno> {
    let mut slices = [IoSliceMut::new(buffer)];
    let mut space = cmsg_space!([RawFd; DESCRIPTORS_MAX]);
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let mut descriptors = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(numbers) = control {
            // SAFETY: the kernel has just opened these descriptors for this process, nobody else knows their numbers, and
            // each is owned once.
            descriptors.extend(numbers.into_iter().map(|number| unsafe { OwnedFd::from_raw_fd(number) }));
        }
    }
    Ok((message.bytes, descriptors))
}
