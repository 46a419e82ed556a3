//! Room in the kernel for what is sent: datagrams for hosts that are gone leave some to those for the living.
//!
//! What is sent to a host on the same link that does not answer waits until the kernel has given up looking for it, some three
//! seconds, and counts against the buffer of the socket as long. The kernel's own size of a buffer is what it keeps for one such host,
//! so ten that are nudged ten times a second fill it in less than that, and beacons and gossip to those who are left are lost.

use std::os::fd::AsFd;

use nix::sys::socket::{getsockopt, setsockopt, sockopt};

/// What the kernel keeps at most for one host that it looks for, in bytes as it counts them against a socket: its own default of
/// `net.ipv4.neigh.*.unres_qlen_bytes`. Of more it throws the oldest away. A datagram counts as 1280 bytes, a long one as 2304.
const KEPT_FOR_ONE: usize = 212_992;

/// Has a socket take datagrams in while so many hosts are looked for, however much is sent to each. Takes up no memory before they
/// are. Without the privilege (`CAP_NET_ADMIN`) it is no more than `net.core.wmem_max` allows, which is no reason not to start.
pub(crate) fn make_room(socket: &impl AsFd, hosts: usize) {
    let wanted = hosts.saturating_mul(KEPT_FOR_ONE);
    // The kernel doubles what it is asked for.
    let asked = wanted / 2;
    let set = setsockopt(socket, sockopt::SndBufForce, &asked).or_else(|_| setsockopt(socket, sockopt::SndBuf, &asked));
    match set.and_then(|()| getsockopt(socket, sockopt::SndBuf)) {
        Ok(bytes) => tracing::debug!(bytes, wanted, "the datagram socket has its send buffer"),
        Err(error) => tracing::debug!(%error, wanted, "the datagram socket keeps the send buffer that it had"),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::net::UdpSocket;

    use super::*;

    /// What the kernel gives for so many hosts: all of it to the privileged, up to its own limit to others.
    pub(crate) fn given(hosts: usize) -> usize {
        let wanted = hosts * KEPT_FOR_ONE;
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        if setsockopt(&other, sockopt::SndBufForce, &KEPT_FOR_ONE).is_ok() {
            return wanted;
        }
        let limit = std::fs::read_to_string("/proc/sys/net/core/wmem_max").unwrap();
        wanted.min(2 * limit.trim().parse::<usize>().unwrap())
    }

    #[test]
    fn a_socket_has_the_room_that_was_asked_for_as_far_as_the_kernel_allows() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        for hosts in [3, 20] {
            make_room(&socket, hosts);
            assert_eq!(getsockopt(&socket, sockopt::SndBuf).unwrap(), given(hosts), "{hosts} hosts");
        }
    }
}
