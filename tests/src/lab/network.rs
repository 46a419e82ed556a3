//! The wires of the lab: a switch for hosts, guests and the client, and one for management (BMCs).
//!
//! ```text
//!   hf…-sw: bridge sw0 (10.77.0.0/24) ── p-h1 ══ up0+br0 in hf…-h1 (guests' taps)     hf…-cl: client 10.77.0.250
//!   hf…-mg: bridge mg0 (10.78.0.0/24) ── m-h1 ══ mg0 in hf…-h1                        BMC of host N: 10.78.0.(100+N)
//! ```
//! The host ends are made by `power.sh` at every boot; here is what stays.

use std::{fs, path::Path};

use anyhow::{Context, Result};

use super::{
    Lab,
    command::{self, run_ok},
    place::{Place, QUICK},
};

/// The client's address.
pub const CLIENT_ADDRESS: &str = "10.77.0.250";

/// Makes the namespaces that stay up whatever happens to the hosts.
pub(super) fn build(place: &Place) -> Result<()> {
    for name in ["sw", "mg", "cl"] {
        run_ok(&["ip", "netns", "add", &place.space(name)], QUICK)?;
        let quiet = "for i in all default; do echo 1 > /proc/sys/net/ipv6/conf/$i/disable_ipv6; done";
        within(place, name, quiet)?;
    }
    let (switch, management, client) = (place.space("sw"), place.space("mg"), place.space("cl"));
    // A bridge without a fixed address takes that of its lowest port, and everybody's ARP entry goes stale.
    batch(
        &switch,
        "link add sw0 address 02:77:00:00:01:01 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\nlink set sw0 up\n",
    )?;
    batch(
        &management,
        "link set lo up\nlink add mg0 address 02:77:00:00:01:02 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
         addr add 10.78.0.254/24 dev mg0\nlink set mg0 up\n",
    )?;
    run_ok(
        &["ip", "link", "add", "up0", "netns", &client, "type", "veth", "peer", "name", "p-cl", "netns", &switch],
        QUICK,
    )?;
    batch(&switch, "link set p-cl master sw0\nlink set p-cl up\n")?;
    let address = format!(
        "link set lo up\nlink set up0 address 02:77:00:00:01:03\naddr add {CLIENT_ADDRESS}/24 dev up0\nlink set up0 up\n"
    );
    batch(&client, &address)?;
    within(place, "cl", "echo 50 > /proc/sys/net/ipv4/neigh/up0/retrans_time_ms")
}

/// Runs a shell line in one of the lab's network namespaces.
pub(super) fn within(place: &Place, space: &str, line: &str) -> Result<()> {
    let net = format!("--net=/run/netns/{}", place.space(space));
    run_ok(&["nsenter", &net, "sh", "-c", line], QUICK).map(drop)
}

/// Gives the client a fixed ARP entry of a guest, so that ARP does not decide what is measured.
pub(super) fn introduce(place: &Place, address: &str, mac: &str) -> Result<()> {
    let space = place.space("cl");
    run_ok(&["ip", "-n", &space, "neigh", "replace", address, "lladdr", mac, "dev", "up0", "nud", "permanent"], QUICK)
        .map(drop)
}

fn batch(space: &str, lines: &str) -> Result<()> {
    let file = tempfile_with(lines)?;
    let path = file.path().to_string_lossy().into_owned();
    run_ok(&["ip", "-n", space, "-batch", &path], QUICK).map(drop)
}

fn tempfile_with(text: &str) -> Result<tempfile::NamedTempFile> {
    let file = tempfile::NamedTempFile::new()?;
    fs::write(file.path(), text)?;
    Ok(file)
}

impl Lab {
    /// Pulls a host's network cable at the switch: neither the host nor its guests are heard. Management stays.
    ///
    /// # Errors
    /// When the host is unknown or the link cannot be set.
    pub fn cut_link(&self, host: &str) -> Result<()> {
        fs::write(self.host_dir(host).join("cable-pulled"), b"")?;
        set_cable(&self.place, host, "down")
    }

    /// Plugs the cable in again.
    ///
    /// # Errors
    /// As [`Lab::cut_link`].
    pub fn restore_link(&self, host: &str) -> Result<()> {
        forget(&self.host_dir(host).join("cable-pulled"))?;
        // Without power a host stays silent, though its namespace would answer; its next boot brings the link up.
        if self.is_on(host) { set_cable(&self.place, host, "up") } else { Ok(()) }
    }

    /// Drops, silently, what `from` sends to `to` over the data network; the other direction is another call.
    ///
    /// # Errors
    /// When a host is unknown or off.
    pub fn block(&self, from: &str, to: &str) -> Result<()> {
        let address = self.address(to)?;
        // Frames to a hardware address that nobody has.
        let arguments = ["neigh", "replace", &address, "lladdr", "02:de:ad:00:00:01", "dev", "br0", "nud", "permanent"];
        self.ip_of(from, &arguments)
    }

    /// Lets `from` reach `to` again.
    ///
    /// # Errors
    /// When a host is unknown or off.
    pub fn unblock(&self, from: &str, to: &str) -> Result<()> {
        let address = self.address(to)?;
        self.ip_of(from, &["neigh", "del", &address, "dev", "br0"])
    }

    /// Lets a host send no more than this over the data network, in megabits a second; `None` lets it send as much as it can. Its
    /// next boot forgets that.
    ///
    /// # Errors
    /// When the host is off, or the kernel cannot (`tbf`).
    pub fn narrow(&self, host: &str, megabits: Option<u32>) -> Result<()> {
        let space = self.place.space(host);
        let words = match megabits {
            // Nothing waits long for its turn: the supervisors talk over the same wire.
            Some(megabits) => format!("qdisc replace dev up0 root tbf rate {megabits}mbit burst 128k latency 50ms"),
            None => "qdisc del dev up0 root".to_owned(),
        };
        let mut argv = vec!["tc", "-n", &space];
        argv.extend(words.split(' '));
        run_ok(&argv, QUICK).map(drop)
    }

    fn ip_of(&self, host: &str, arguments: &[&str]) -> Result<()> {
        let space = self.place.space(host);
        let mut argv = vec!["ip", "-n", &space];
        argv.extend(arguments);
        run_ok(&argv, QUICK).map(drop)
    }
}

fn set_cable(place: &Place, host: &str, state: &str) -> Result<()> {
    let name = format!("p-{host}");
    let answer = command::run(&["ip", "-n", &place.space("sw"), "link", "set", &name, state], QUICK)?;
    // A host that is off may have no link at all; the mark in its folder counts at its next boot.
    anyhow::ensure!(
        answer.ok() || answer.err.contains("Cannot find device"),
        "cannot set {name} {state}: {}",
        answer.err.trim()
    );
    Ok(())
}

fn forget(mark: &Path) -> Result<()> {
    match fs::remove_file(mark) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", mark.display()))
        }
        _ => Ok(()),
    }
}
