//! An ICMP echo request, by the kernel's socket for it or, where the group may not use that, by a raw one.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket as StdSocket},
};

use nix::{
    errno::Errno,
    sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket},
};
use tokio::net::UdpSocket;

use crate::{
    finding::Finding,
    network::{asker::Asker, io_error::of_io_error},
};

/// Longest header of an IPv4 packet, and an echo reply behind it.
const PACKET_BYTES_MAX: usize = 128;

/// Asks until an answer comes; the caller bounds the time.
pub(crate) async fn ask(asker: &Asker<'_>) -> Finding {
    match echo(asker).await {
        Ok(finding) | Err(finding) => finding,
    }
}

async fn echo(asker: &Asker<'_>) -> Result<Finding, Finding> {
    let address = asker.address()?;
    let socket = open(address)?;
    let failed = |error: io::Error| of_io_error(&error);
    socket.connect(SocketAddr::from((address, 0))).await.map_err(failed)?;
    // What is random is in the content, because the kernel chooses the identifier of its own socket.
    let request = request(address, rand::random());
    let mut buffer = [0; PACKET_BYTES_MAX];
    loop {
        socket.send(&request).await.map_err(failed)?;
        let listening = async {
            loop {
                let count = socket.recv(&mut buffer).await.map_err(failed)?;
                if is_answer(buffer.get(..count).unwrap_or_default(), &request, address) {
                    return Ok(Finding::pass("it answers echo requests"));
                }
            }
        };
        // A packet that is lost is sent again.
        if let Ok(finding) = tokio::time::timeout(asker.again_after(), listening).await {
            return finding;
        }
    }
}

fn open(address: IpAddr) -> Result<UdpSocket, Finding> {
    let (family, protocol) = match address {
        IpAddr::V4(_) => (AddressFamily::Inet, SockProtocol::Icmp),
        IpAddr::V6(_) => (AddressFamily::Inet6, SockProtocol::IcmpV6),
    };
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let opened = socket(family, SockType::Datagram, flags, protocol)
        .or_else(|_| socket(family, SockType::Raw, flags, protocol))
        .map_err(|errno| match errno {
            Errno::EPERM | Errno::EACCES => Finding::unknown(
                "this host may not send echo requests: give CAP_NET_RAW, or set net.ipv4.ping_group_range",
            ),
            errno => Finding::unknown(format!("cannot send echo requests: {errno}")),
        })?;
    // To the standard library any socket is one that sends and receives whole packets.
    UdpSocket::from_std(StdSocket::from(opened)).map_err(|error| Finding::unknown(error.to_string()))
}

const ECHO_REQUEST: [u8; 2] = [8, 128];
const ECHO_REPLY: [u8; 2] = [0, 129];

fn of_family(kinds: [u8; 2], address: IpAddr) -> u8 {
    let [four, six] = kinds;
    if address.is_ipv4() { four } else { six }
}

/// Kind, code, checksum, identifier, sequence, content (RFC 792, RFC 4443). For IPv6 the kernel fills in the checksum.
fn request(address: IpAddr, content: [u8; 8]) -> Vec<u8> {
    let mut packet = vec![of_family(ECHO_REQUEST, address), 0, 0, 0, 0, 0, 0, 1];
    packet.extend_from_slice(&content);
    if let (IpAddr::V4(_), Some(place)) = (address, sum(&packet)) {
        packet.splice(2..4, place.to_be_bytes());
    }
    packet
}

/// The checksum of RFC 1071, over an even number of bytes.
fn sum(packet: &[u8]) -> Option<u16> {
    let mut sum: u32 =
        packet.chunks(2).map(|pair| pair.iter().fold(0, |sum, byte| (sum << 8) | u32::from(*byte))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).ok().map(|sum| !sum)
}

fn is_answer(packet: &[u8], request: &[u8], address: IpAddr) -> bool {
    // A raw socket shows the header of IPv4 too; its length is in the first byte, in words.
    let header = match (address, packet.first()) {
        (IpAddr::V4(_), Some(first)) if first >> 4 == 4 => usize::from(first & 0x0f) * 4,
        _ => 0,
    };
    let packet = packet.get(header..).unwrap_or_default();
    packet.first() == Some(&of_family(ECHO_REPLY, address))
        && packet.get(8..).is_some_and(|got| request.get(8..) == Some(got))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_makes_the_whole_come_to_nothing() {
        let packet = request(IpAddr::from([127, 0, 0, 1]), [1, 2, 3, 4, 5, 6, 7, 255]);
        assert_eq!(sum(&packet), Some(0));
    }

    #[test]
    fn only_the_reply_to_our_own_request_counts() {
        let four = IpAddr::from([127, 0, 0, 1]);
        let asked = request(four, [7; 8]);
        let mut reply = asked.clone();
        reply[0] = 0;
        assert!(is_answer(&reply, &asked, four));
        let mut raw = vec![0x45; 20];
        raw.extend_from_slice(&reply);
        assert!(is_answer(&raw, &asked, four));
        assert!(!is_answer(&asked, &asked, four), "a raw socket sees the request too");
        reply[9] = 0;
        assert!(!is_answer(&reply, &asked, four));
        assert!(!is_answer(&[], &asked, four));
    }
}
