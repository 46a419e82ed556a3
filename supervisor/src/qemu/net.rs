//! Tap devices: one for every network card of a guest, on the bridge that the card names.

use std::{io, time::Duration};

use holdfast_policies::{model::Nic, names::GuestName, observe::clean};
use tokio::{process::Command, time::timeout};

/// Longest time for one `ip` command; it takes a few milliseconds.
const COMMAND_DEADLINE: Duration = Duration::from_secs(3);

/// Why a tap device could not be made or removed.
#[derive(Debug, thiserror::Error)]
pub enum NetError {
    /// `ip` could not be run, or not in time.
    #[error("cannot run `ip {command}`")]
    Run {
        /// Its arguments.
        command: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// `ip` refused.
    #[error("`ip {command}` failed: {detail}")]
    Refused {
        /// Its arguments.
        command: String,
        /// What it said.
        detail: String,
    },
}

/// The name of a guest's tap device: always the same for the same card, and within the kernel's 15 bytes.
pub fn tap_name(guest: &GuestName, index: usize) -> String {
    // Forty bits of a hash: with a thousand guests on a host two of them meet once in a million hosts, and then the
    // driver refuses the second.
    let hash = fnv1a(guest.as_str().as_bytes()) & 0xff_ffff_ffff;
    format!("hf{hash:010x}n{}", index.min(99))
}

/// The names for all cards of a guest.
pub fn tap_names(guest: &GuestName, cards: usize) -> Vec<String> {
    (0..cards).map(|index| tap_name(guest, index)).collect()
}

/// FNV-1a: fixed for all time, unlike the standard library's hashes.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

/// Makes the taps of a guest and puts each on its bridge. What an earlier run of this guest left is replaced.
pub async fn make(guest: &GuestName, nics: &[Nic]) -> Result<(), NetError> {
    for (index, nic) in nics.iter().enumerate() {
        let tap = tap_name(guest, index);
        remove_one(&tap).await?;
        ip(&["tuntap", "add", "dev", &tap, "mode", "tap"]).await?;
        ip(&["link", "set", "dev", &tap, "master", &nic.bridge, "up"]).await?;
    }
    Ok(())
}

/// Removes taps; the guest must be gone. Absent ones are fine.
pub async fn remove(taps: &[String]) -> Result<(), NetError> {
    for tap in taps {
        remove_one(tap).await?;
    }
    Ok(())
}

/// `ip` is asked, not `/sys`: in a network namespace of its own a process may still see the `/sys` of another.
async fn remove_one(tap: &str) -> Result<(), NetError> {
    match ip(&["link", "show", "dev", tap]).await {
        Ok(()) => ip(&["link", "delete", "dev", tap]).await,
        Err(NetError::Refused { .. }) => Ok(()),
        Err(error @ NetError::Run { .. }) => Err(error),
    }
}

async fn ip(arguments: &[&str]) -> Result<(), NetError> {
    let command = arguments.join(" ");
    let run = Command::new("ip").args(arguments).kill_on_drop(true).stdin(std::process::Stdio::null()).output();
    let output = match timeout(COMMAND_DEADLINE, run).await {
        Ok(Ok(output)) => output,
        Ok(Err(source)) => return Err(NetError::Run { command, source }),
        Err(_) => return Err(NetError::Run { command, source: io::ErrorKind::TimedOut.into() }),
    };
    if output.status.success() {
        return Ok(());
    }
    Err(NetError::Refused { command, detail: clean(String::from_utf8_lossy(&output.stderr).trim()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tap_names_fit_the_kernel_and_never_change() {
        let guest = GuestName::new("x".repeat(63)).unwrap();
        assert!(tap_name(&guest, 4000).len() <= 15);
        assert_eq!(tap_name(&GuestName::new("web-1").unwrap(), 0), "hf2e095c221fn0");
        assert_ne!(tap_name(&GuestName::new("web-1").unwrap(), 0), tap_name(&GuestName::new("web-2").unwrap(), 0));
    }
}
