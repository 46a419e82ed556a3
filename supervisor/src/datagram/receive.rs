//! The way of a datagram from the wire to a message: open, refuse replays, note the sign of life, reassemble.

use std::sync::Arc;

use holdfast_policies::{
    names::{HostName, Incarnation},
    time::Moment,
};

use super::{
    Counters, Ears, Heard, Keyring, Kind, Refusal, Role, reassembly::Reassembly, replay::Sessions, seal::open,
};

/// A whole, authentic, fresh message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// Which host sent it.
    pub host: HostName,
    /// Which of its processes.
    pub role: Role,
    /// The host's boot.
    pub incarnation: Incarnation,
    /// Its content.
    pub body: Vec<u8>,
}

/// What one receiving socket remembers. It reads no clock and no socket.
#[derive(Debug)]
pub struct Receiver {
    keyring: Arc<Keyring>,
    sessions: Sessions,
    reassembly: Reassembly,
    heard: Heard,
    counters: Arc<Counters>,
    ears: Ears,
}

impl Receiver {
    /// A receiver that has heard nothing.
    #[must_use]
    pub fn new(keyring: Arc<Keyring>, heard: Heard, counters: Arc<Counters>, ears: Ears) -> Self {
        Self { keyring, sessions: Sessions::default(), reassembly: Reassembly::default(), heard, counters, ears }
    }

    /// Takes one datagram; gives a message when it completes one. What is refused is counted.
    pub fn receive(&mut self, datagram: &[u8], now: Moment) -> Option<Message> {
        match self.try_receive(datagram, now) {
            Ok(message) => message,
            Err(refusal) => {
                self.counters.count(refusal);
                None
            }
        }
    }

    fn try_receive(&mut self, datagram: &[u8], now: Moment) -> Result<Option<Message>, Refusal> {
        let opened = open(&self.keyring, datagram)?;
        if !self.ears.hear(&opened.host, &opened.incarnation) {
            return Err(Refusal::Revoked);
        }
        self.sessions.admit(&opened, |boot| self.ears.has_joined(&opened.host, boot), now)?;
        self.heard.record(&opened.host, opened.role, &opened.incarnation, now);
        let (kind, role) = (opened.kind, opened.role);
        if (kind, role) == (Kind::Beacon, Role::Guard) {
            self.heard.losses().note(&opened.host, (opened.started, opened.session), opened.sequence, now);
        }
        let (host, incarnation) = (opened.host.clone(), opened.incarnation.clone());
        let body = self.reassembly.add(opened, now)?;
        Ok(body.map(|body| Message { kind, host, role, incarnation, body }))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::{super::seal::tests::sealer, *};

    #[test]
    fn what_is_taken_in_is_not_counted_among_what_is_thrown_away() {
        let counters = Arc::new(Counters::default());
        let ring = Arc::new(Keyring::new(&[[1; 32]]).unwrap());
        let mut receiver = Receiver::new(ring, Heard::default(), Arc::clone(&counters), Ears::default());
        let good = sealer("hv-a", Role::Guard, 1, &[[1; 32]]).seal(Kind::Beacon, b"x").unwrap().remove(0);
        assert!(receiver.receive(&good, Moment(1)).is_some());
        let dropped: Vec<_> = counters.dropped().into_iter().filter(|(_, count)| *count > 0).collect();
        assert!(dropped.is_empty(), "whoever watches what is dropped is called for it: {dropped:?}");
    }

    #[test]
    fn what_is_refused_is_counted_by_its_reason_and_proves_no_life() {
        let (heard, counters) = (Heard::default(), Arc::new(Counters::default()));
        let ring = Arc::new(Keyring::new(&[[1; 32]]).unwrap());
        let mut receiver = Receiver::new(ring, heard.clone(), Arc::clone(&counters), Ears::default());
        let good = sealer("hv-a", Role::Guard, 1, &[[1; 32]]).seal(Kind::Beacon, b"x").unwrap().remove(0);
        let foreign = sealer("hv-b", Role::Guard, 1, &[[9; 32]]).seal(Kind::Beacon, b"x").unwrap().remove(0);
        let mut tampered_header = good.clone();
        tampered_header[8] ^= 1;
        let mut tampered_body = good.clone();
        *tampered_body.last_mut().unwrap() ^= 1;

        for bad in [&tampered_header, &tampered_body, &foreign, &vec![0; 3], &vec![1; 5000]] {
            assert_eq!(receiver.receive(bad, Moment(1)), None);
        }
        let host = HostName::new("hv-a").unwrap();
        assert_eq!(heard.last_any(&host), None);
        assert!(receiver.receive(&good, Moment(2)).is_some());
        assert_eq!(receiver.receive(&good, Moment(3)), None);
        assert_eq!(heard.last_any(&host), Some(Moment(2)), "a replay proves nothing");
        let counts: Vec<_> = counters.dropped().into_iter().filter(|(_, count)| *count > 0).collect();
        let expected = [("unauthenticated", 2), ("replayed", 1), ("malformed", 1), ("oversize", 1), ("unknown_key", 1)];
        assert_eq!(counts, expected);
    }

    #[test]
    fn a_host_that_is_not_listened_to_proves_no_life_and_says_nothing() {
        let (heard, counters) = (Heard::default(), Arc::new(Counters::default()));
        let ring = Arc::new(Keyring::new(&[[1; 32]]).unwrap());
        let revoked = HostName::new("hv-a").unwrap();
        let ears = Ears::new({
            let revoked = revoked.clone();
            move |host, _| *host != revoked
        });
        let mut receiver = Receiver::new(ring, heard.clone(), Arc::clone(&counters), ears);
        let of = |name| sealer(name, Role::Guard, 1, &[[1; 32]]).seal(Kind::Beacon, b"x").unwrap().remove(0);
        assert_eq!(receiver.receive(&of("hv-a"), Moment(1)), None);
        assert!(receiver.receive(&of("hv-b"), Moment(1)).is_some());
        assert_eq!(heard.last_any(&revoked), None);
        assert_eq!(counters.revoked.load(Ordering::Relaxed), 1);
    }
}
