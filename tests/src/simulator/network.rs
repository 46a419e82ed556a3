//! The network: one link for each ordered pair of hosts, each of which can be cut, slow, lossy or repeating.

use super::{Ms, random::Random};

/// One direction between two hosts.
#[derive(Debug, Clone, Copy, Default)]
struct Link {
    cut_until: Ms,
    bad_until: Ms,
    /// Messages lost, of a thousand.
    loss: u64,
    /// Most that a message is late, in milliseconds.
    late: u64,
}

/// All links.
#[derive(Debug, Clone)]
pub struct Network {
    hosts: usize,
    links: Vec<Link>,
}

/// How a message travels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transit {
    /// It does not arrive.
    Lost,
    /// It arrives after so long.
    After(Ms),
    /// It arrives twice.
    Twice(Ms, Ms),
}

impl Network {
    /// A network without faults.
    #[must_use]
    pub fn new(hosts: usize) -> Self {
        Self { hosts, links: vec![Link::default(); hosts * hosts] }
    }

    fn link(&self, from: usize, to: usize) -> Link {
        self.links.get(from * self.hosts + to).copied().unwrap_or_default()
    }

    fn link_mut(&mut self, from: usize, to: usize) -> Option<&mut Link> {
        self.links.get_mut(from * self.hosts + to)
    }

    /// Cuts one direction.
    pub fn cut(&mut self, from: usize, to: usize, until: Ms) {
        if let Some(link) = self.link_mut(from, to) {
            link.cut_until = link.cut_until.max(until);
        }
    }

    /// Cuts every link of a host.
    pub fn isolate(&mut self, host: usize, until: Ms) {
        for other in (0..self.hosts).filter(|other| *other != host) {
            self.cut(host, other, until);
            self.cut(other, host, until);
        }
    }

    /// Makes both directions of every link of a host bad.
    pub fn spoil(&mut self, host: usize, until: Ms, loss: u64, late: u64) {
        for other in (0..self.hosts).filter(|other| *other != host) {
            for (from, to) in [(host, other), (other, host)] {
                if let Some(link) = self.link_mut(from, to) {
                    (link.bad_until, link.loss, link.late) = (until, loss, late);
                }
            }
        }
    }

    /// Repairs everything.
    pub fn repair(&mut self) {
        self.links.fill(Link::default());
    }

    /// Whether messages get through at all.
    #[must_use]
    pub fn open(&self, from: usize, to: usize, now: Ms) -> bool {
        from == to || self.link(from, to).cut_until <= now
    }

    /// Whether the link has no fault at all.
    #[must_use]
    pub fn good(&self, from: usize, to: usize, now: Ms) -> bool {
        let link = self.link(from, to);
        from == to || (link.cut_until <= now && link.bad_until <= now)
    }

    /// Sends one message.
    pub fn send(&self, from: usize, to: usize, now: Ms, random: &mut Random) -> Transit {
        if from == to {
            return Transit::After(0);
        }
        let link = self.link(from, to);
        if link.cut_until > now {
            return Transit::Lost;
        }
        let base = 1 + random.below(2);
        if link.bad_until <= now {
            return Transit::After(base);
        }
        if random.below(1_000) < link.loss {
            return Transit::Lost;
        }
        let first = base + random.below(link.late);
        if random.one_in(12) { Transit::Twice(first, base + random.below(6_000)) } else { Transit::After(first) }
    }
}
