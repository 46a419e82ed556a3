//! The guard's beacons to the voters: they say that the host lives, whatever has become of its supervisor (R16).

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use holdfast_policies::time::{Moment, millis};

use super::{
    super::datagram::{Beacon, DATAGRAM_BYTES_MAX, FRAGMENT_BYTES_MAX, Identity, Kind, SealError, Sealer, make_room},
    BEACON_EVERY,
    protocol::VOTERS_MAX,
    state::State,
};

/// Sends beacons from a socket that is opened when it can be: at boot the address may not be there yet.
#[derive(Debug)]
pub(super) struct Beacons {
    from: SocketAddr,
    sealer: Sealer,
    /// The newest, and room for it as JSON and as a datagram, which is used again.
    beacon: Beacon,
    body: Vec<u8>,
    datagram: Vec<u8>,
    socket: Option<UdpSocket>,
    due: Moment,
    /// So that a lasting failure is told once.
    failing: bool,
}

impl Beacons {
    pub(super) fn new(listen: SocketAddr, sealer: Sealer, due: Moment) -> Self {
        let Identity { host, incarnation, .. } = sealer.identity().clone();
        Self {
            from: SocketAddr::new(listen.ip(), 0),
            sealer,
            beacon: Beacon { host, incarnation, uptime_ms: 0, lease_left_ms: None },
            body: Vec::with_capacity(FRAGMENT_BYTES_MAX),
            datagram: Vec::with_capacity(DATAGRAM_BYTES_MAX),
            socket: None,
            due,
            failing: false,
        }
    }

    /// When the next one is due.
    pub(super) fn due(&self) -> Moment {
        self.due
    }

    pub(super) fn send_when_due(&mut self, state: &State, now: Moment) {
        if now < self.due {
            return;
        }
        // After a pause one beacon is enough; those that were missed would say nothing more.
        self.due = now.plus(BEACON_EVERY);
        self.beacon.uptime_ms = millis(state.uptime(now));
        self.beacon.lease_left_ms = state.lease_left(now).map(millis);
        let failure = self.send(state.voters()).err();
        match (&failure, self.failing) {
            (Some(error), false) => tracing::warn!(%error, "beacons cannot be sent"),
            (None, true) => tracing::info!("beacons can be sent again"),
            (Some(_), true) | (None, false) => {}
        }
        self.failing = failure.is_some();
    }

    /// One voter that cannot be reached keeps the beacon from no other.
    fn send(&mut self, voters: &[SocketAddr]) -> io::Result<()> {
        self.body.clear();
        serde_json::to_writer(&mut self.body, &self.beacon)?;
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => open_socket(self.from)?,
        };
        let mut result = Ok(());
        for voter in voters {
            let sealed = self.sealer.seal_into(Kind::Beacon, &self.body, &mut self.datagram);
            sealed.map_err(|error: SealError| io::Error::other(error))?;
            result = result.and(socket.send_to(&self.datagram, voter).map(drop));
        }
        self.socket = Some(socket);
        result
    }
}

fn open_socket(from: SocketAddr) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(from)?;
    // However many voters are gone, those who are left hear of this host. A guard without privileges has at least the kernel's limit,
    // by default twice what its buffer would be: a voter's share of three seconds is twelve beacons, some 15 KB.
    make_room(&socket, VOTERS_MAX);
    socket.set_nonblocking(true)?;
    Ok(socket)
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{getsockopt, sockopt};

    use super::{super::super::datagram::given, *};

    #[test]
    fn beacons_that_wait_for_voters_that_are_gone_leave_room_for_those_to_the_others() {
        let socket = open_socket("127.0.0.1:0".parse().unwrap()).unwrap();
        assert_eq!(getsockopt(&socket, sockopt::SndBuf).unwrap(), given(VOTERS_MAX));
    }
}
