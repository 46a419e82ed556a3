//! Whose name it is (R11): which boot of a host is heard beside the one that has joined, whether one can follow the other, and
//! whether both live at once.

use std::{collections::BTreeMap, time::Duration};

use super::{Evidence, HostEvidence};
use crate::{
    names::{HostName, Incarnation},
    state::{Host, HostFacts},
    time::Moment,
};

/// A boot that was heard so shortly ago is not over: guards send beacons four times a second (R16).
pub const NOT_OVER: Duration = Duration::from_secs(1);
/// So long after two boots were heard at once, it counts as another time when they are again. One that was heard after the
/// other was has to be silent for as long before the other may follow it (R11).
pub const BESIDE_AGAIN: Duration = Duration::from_secs(5);
/// Boots that are heard at once at so many times, ten seconds from the first to the last, are two machines or more (R11). One time
/// does not say so: a voter that stood still over a reboot hands on what it held of the boot before when it goes on, however
/// old that is by then.
pub const BESIDE_TIMES: u32 = 3;

/// A boot of a host that is heard and has not joined: the machine lives, whatever has become of the boot that is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherBoot {
    /// Which.
    pub incarnation: Incarnation,
    /// When the coordinator first learned of it.
    pub since: Moment,
    /// When it was last heard, by the coordinator or by another voter.
    pub at: Moment,
}

/// The boot of a host that has joined, and another that was heard at once with it: whichever. Of several copies each newest sign
/// may be another one's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Beside {
    /// The one that has joined.
    pub joined: Incarnation,
    /// At how many times, [`BESIDE_AGAIN`] apart.
    pub times: u32,
    /// When the newest of these was.
    pub at: Moment,
}

impl HostEvidence {
    /// A boot of this host that is heard and has not joined. A boot that is over does not count: what is heard of it was
    /// late on its way.
    #[must_use]
    pub(crate) fn not_joined(&self, host: &Host) -> Option<&OtherBoot> {
        self.other_boot.as_ref().filter(|other| !host.knows_boot(&other.incarnation))
    }

    /// Notes at `now` that a boot was heard at `at` which is not the one that has joined. A newer sign of another boot
    /// takes its place.
    pub fn hear_other(&mut self, incarnation: &Incarnation, at: Moment, now: Moment) {
        match &mut self.other_boot {
            Some(known) if known.incarnation == *incarnation => known.at = known.at.max(at),
            Some(known) if known.at >= at => {}
            Some(_) | None => {
                self.other_boot = Some(OtherBoot { incarnation: incarnation.clone(), since: now, at });
            }
        }
    }

    /// Notes that another boot is heard at once with the one that has joined, at `now`: another time, if the one before is long
    /// enough ago. What comes in one burst is one time.
    fn note_beside(&mut self, joined: &Incarnation, now: Moment) {
        match &mut self.beside {
            Some(noted) if noted.joined == *joined => {
                if now.since(noted.at) >= BESIDE_AGAIN {
                    noted.times = noted.times.saturating_add(1);
                    noted.at = now;
                }
            }
            Some(_) | None => self.beside = Some(Beside { joined: joined.clone(), times: 1, at: now }),
        }
    }
}

impl Evidence {
    /// Whether what asks to join can be this host's next boot: the one that has joined is not heard any more. If it was heard
    /// after one that has not joined was, that has to be so for longer. A coordinator that has just begun has not listened for
    /// long enough to say so. Another machine, and a boot that should be over, are taken for what they are at once (R11).
    #[must_use]
    pub fn may_follow(&self, name: &HostName, host: &Host, next: &HostFacts, now: Moment) -> bool {
        let heard = self.last_life(name, &host.facts.incarnation);
        let over = if self.noted_beside(name, host).is_some() { BESIDE_AGAIN } else { NOT_OVER };
        let listened = self.authority_since.is_some_and(|since| now.since(since) >= NOT_OVER);
        next.machine_id != host.facts.machine_id
            || host.knows_boot(&next.incarnation)
            || (listened && heard.is_none_or(|heard| now.since(heard) >= over))
    }

    /// Notes at `now` which hosts are heard in two boots at once. It has to be called before each round of deciding:
    /// [`Self::beside`] counts what was noted.
    pub fn note_beside(&mut self, hosts: &BTreeMap<HostName, Host>, now: Moment) {
        for (name, host) in hosts {
            let is_beside = self.heard_at_once(name, host, now).is_some();
            if let Some(known) = self.hosts.get_mut(name).filter(|_| is_beside) {
                known.note_beside(&host.facts.incarnation, now);
            }
        }
    }

    /// A boot that goes on living beside the one that has joined: of another machine, or of a copy (R11).
    #[must_use]
    pub fn beside(&self, name: &HostName, host: &Host, now: Moment) -> Option<&OtherBoot> {
        let other = self.heard_at_once(name, host, now)?;
        let noted = self.noted_beside(name, host)?;
        (noted.times >= BESIDE_TIMES).then_some(other)
    }

    /// A boot that is heard while the one that has joined is heard, too: not only before it.
    fn heard_at_once(&self, name: &HostName, host: &Host, now: Moment) -> Option<&OtherBoot> {
        let other = self.other_boot(name, host)?;
        let joined = self.last_life(name, &host.facts.incarnation)?;
        let fresh = |at: Moment| now.since(at) < 2 * NOT_OVER;
        (joined >= other.since && fresh(joined) && fresh(other.at)).then_some(other)
    }

    /// What was noted of the boot that has joined and others.
    fn noted_beside(&self, name: &HostName, host: &Host) -> Option<&Beside> {
        let noted = self.hosts.get(name)?.beside.as_ref()?;
        (noted.joined == host.facts.incarnation).then_some(noted)
    }

    /// See [`HostEvidence::not_joined`].
    #[must_use]
    pub fn other_boot(&self, name: &HostName, host: &Host) -> Option<&OtherBoot> {
        self.hosts.get(name)?.not_joined(host)
    }
}
