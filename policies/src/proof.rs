//! Proofs: why we know that a host no longer runs a guest (R8, R9).
//!
//! A [`Proof`] has no public fields and no constructor but the checked ones below, so there is no way to write "free"
//! into a guest's state, and so no way to order a start on another host, without one of these reasons.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    lease::{Ground, Longest},
    model::FenceLevel,
    names::{Epoch, GuestName, HostName, Incarnation},
    time::{Moment, Span, millis},
};

/// For how long nothing at all may have been heard of a host before "off" proves anything: two beacons of its guard, which
/// come every 250 ms, and what one of them may take on its way. A device that lies of a host that lives is found out by the
/// next beacon, so none is believed before two have been missed. A host that was silent before it was asked about has been so
/// for longer.
pub const QUIET: Duration = Duration::from_millis(600);

/// The words for the kinds of proof that are about a whole host.
const POWER_OFF: &str = "power_off";
const LEASE_EXPIRED: &str = "lease_expired";
const OPERATOR: &str = "operator";

/// Why we know. Made only by the functions of this module; read with [`Proof::kind`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Proof(ProofKind);

/// The kinds of proof, exhaustively.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ProofKind {
    /// Every power device of one level says that the host is off.
    PowerOff {
        /// The host.
        host: HostName,
        /// The boot that is over.
        incarnation: Incarnation,
        /// The devices that said so.
        devices: Vec<String>,
        /// Who or what has verified that these devices are wired to this host.
        wiring: String,
    },
    /// The lease of the host's boot has run out, and with it the time in which its guard, or else its watchdog, stops
    /// whatever runs there.
    LeaseExpired {
        /// The host.
        host: HostName,
        /// The boot that was armed.
        incarnation: Incarnation,
        /// What was waited for since the last possible grant.
        longest: Longest,
        /// The watchdog.
        watchdog: String,
        /// The log index from which on the boot got no lease.
        closed: u64,
    },
    /// The host's agent answered a committed release: nothing of the guest is left there.
    Reported {
        /// The host.
        host: HostName,
        /// The boot that answered.
        incarnation: Incarnation,
        /// The guest.
        guest: GuestName,
        /// The newest epoch that the answer covers.
        epoch: Epoch,
    },
    /// A person has confirmed that the host is off.
    Operator {
        /// The host.
        host: HostName,
        /// The boot that the person spoke of.
        incarnation: Incarnation,
        /// Who said so.
        person: String,
    },
    /// A guest that was never placed is on none of the hosts that could run it.
    NotHere {
        /// The hosts that said so, with the boots that answered.
        hosts: BTreeMap<HostName, Incarnation>,
    },
}

/// One reading of a host's power, taken by the coordinator or by an executor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PowerReading {
    /// The boot that was running when the question was asked.
    pub incarnation: Incarnation,
    /// When the question was sent, on the coordinator's clock.
    pub asked: Moment,
    /// What the devices of the level said, all together.
    pub power: Power,
    /// The devices that were asked.
    pub devices: Vec<String>,
    /// Position of the level among the host's levels.
    pub level: usize,
    /// The level as it was declared for the question.
    pub declared: FenceLevel,
    /// Who asked.
    #[serde(default)]
    pub asker: Option<HostName>,
}

/// What a power device says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Power {
    /// All devices say off.
    Off,
    /// At least one says on.
    On,
    /// At least one gave no answer, and none says on.
    Unknown {
        /// Why.
        detail: String,
    },
}

/// Why there is no proof.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NoProof {
    /// The device does not say off.
    #[error("the power device does not say that {host} is off")]
    NotOff {
        /// The host.
        host: HostName,
    },
    /// The host gave a sign of life after the device was asked.
    #[error("{host} gave a sign of life after its power device was asked")]
    HeardSince {
        /// The host.
        host: HostName,
    },
    /// The host was heard so shortly before that its next sign of life may be on its way.
    #[error("{host} was heard a moment ago; its power device is believed after {left_ms} ms more of silence")]
    HeardJustNow {
        /// The host.
        host: HostName,
        /// How much longer nothing may be heard of it.
        left_ms: u64,
    },
    /// Nobody has verified that the device belongs to the host.
    #[error("nobody has verified that the power device of {host} is wired to it")]
    WiringUnverified {
        /// The host.
        host: HostName,
    },
    /// The reading is about another boot.
    #[error("the reading is about boot {read} of {host}, not about boot {wanted}")]
    OtherIncarnation {
        /// The host.
        host: HostName,
        /// Of which boot the reading was.
        read: Incarnation,
        /// Which boot is to be proven gone.
        wanted: Incarnation,
    },
    /// The host is heard, so a person's word does not stand against it.
    #[error("{host} was heard {ago_ms} ms ago; it is not off")]
    Fresh {
        /// The host.
        host: HostName,
        /// How long ago.
        ago_ms: u64,
    },
    /// The host may be granted another lease at any moment.
    #[error("{host} may still be granted a lease")]
    LeaseOpen {
        /// The host.
        host: HostName,
    },
    /// Its lease, its guard and its watchdog may not have had their time yet.
    #[error("the guests of {host} are stopped for certain in {left_ms} ms")]
    LeaseLasts {
        /// The host.
        host: HostName,
        /// How much longer.
        left_ms: u64,
    },
    /// Some host has not said that the guest is not there.
    #[error("{missing} has not said that the guest is not there")]
    Missing {
        /// The first such host.
        missing: HostName,
    },
}

impl Proof {
    /// Proof from a power reading: off, of the right boot, wired to the host, no sign of life since it was asked, and none
    /// within [`QUIET`]. `silence` is for how long nothing has been heard of the host, by anybody.
    ///
    /// # Errors
    /// [`NoProof`], saying which of these does not hold.
    pub fn power_off(
        host: &HostName,
        incarnation: &Incarnation,
        reading: &PowerReading,
        wiring: Option<&str>,
        last_life: Option<Moment>,
        silence: Duration,
    ) -> Result<Self, NoProof> {
        if reading.power != Power::Off {
            return Err(NoProof::NotOff { host: host.clone() });
        }
        if reading.incarnation != *incarnation {
            let (read, wanted) = (reading.incarnation.clone(), incarnation.clone());
            return Err(NoProof::OtherIncarnation { host: host.clone(), read, wanted });
        }
        if last_life.is_some_and(|life| life >= reading.asked) {
            return Err(NoProof::HeardSince { host: host.clone() });
        }
        let left = QUIET.saturating_sub(silence);
        if !left.is_zero() {
            return Err(NoProof::HeardJustNow { host: host.clone(), left_ms: millis(left) });
        }
        let wiring = wiring.ok_or_else(|| NoProof::WiringUnverified { host: host.clone() })?.to_owned();
        let devices = reading.devices.clone();
        Ok(Self(ProofKind::PowerOff { host: host.clone(), incarnation: incarnation.clone(), devices, wiring }))
    }

    /// Proof by time: from the last possible grant of a lease, no sooner than the whole wait after it (R9).
    ///
    /// # Errors
    /// [`NoProof`]: leases may still be granted, or how much longer it takes.
    pub fn lease_expired(
        host: &HostName,
        incarnation: &Incarnation,
        ground: &Ground,
        last_grant: Moment,
        now: Moment,
    ) -> Result<Self, NoProof> {
        let host = host.clone();
        let Some(closed) = ground.closed else { return Err(NoProof::LeaseOpen { host }) };
        let left = last_grant.plus(ground.longest.wait()).since(now);
        if !left.is_zero() {
            return Err(NoProof::LeaseLasts { host, left_ms: millis(left) });
        }
        let (longest, watchdog) = (ground.longest, ground.watchdog.clone());
        Ok(Self(ProofKind::LeaseExpired { host, incarnation: incarnation.clone(), longest, watchdog, closed }))
    }

    /// Proof from a person's word. `heard_ago_ms` is the age of the freshest sign of life, if there ever was one.
    ///
    /// # Errors
    /// [`NoProof::Fresh`] when the host was heard within `fresh_ms`.
    pub fn operator(
        host: &HostName,
        incarnation: &Incarnation,
        person: &str,
        heard_ago_ms: Option<u64>,
        fresh_ms: u64,
    ) -> Result<Self, NoProof> {
        match heard_ago_ms {
            Some(ago_ms) if ago_ms < fresh_ms => Err(NoProof::Fresh { host: host.clone(), ago_ms }),
            _ => Ok(Self(ProofKind::Operator {
                host: host.clone(),
                incarnation: incarnation.clone(),
                person: person.to_owned(),
            })),
        }
    }

    /// Proof for a first placement: every host that could run the guest has said that it does not.
    ///
    /// # Errors
    /// [`NoProof::Missing`] naming the first host that has not.
    pub fn not_here(
        could_run: impl IntoIterator<Item = HostName>,
        said: &BTreeMap<HostName, Incarnation>,
    ) -> Result<Self, NoProof> {
        let mut hosts = BTreeMap::new();
        for host in could_run {
            let incarnation = said.get(&host).ok_or_else(|| NoProof::Missing { missing: host.clone() })?;
            hosts.insert(host, incarnation.clone());
        }
        Ok(Self(ProofKind::NotHere { hosts }))
    }

    /// Proof from the answer to a committed release. Only `apply` has such an answer in hand.
    pub(crate) fn reported(host: &HostName, incarnation: &Incarnation, guest: &GuestName, epoch: Epoch) -> Self {
        let (host, incarnation, guest) = (host.clone(), incarnation.clone(), guest.clone());
        Self(ProofKind::Reported { host, incarnation, guest, epoch })
    }

    /// What kind it is.
    #[must_use]
    pub fn kind(&self) -> &ProofKind {
        &self.0
    }

    /// The one host that it is about; `None` where it is about all of them.
    #[must_use]
    pub(crate) fn host(&self) -> Option<&HostName> {
        match &self.0 {
            ProofKind::PowerOff { host, .. }
            | ProofKind::LeaseExpired { host, .. }
            | ProofKind::Reported { host, .. }
            | ProofKind::Operator { host, .. } => Some(host),
            ProofKind::NotHere { .. } => None,
        }
    }

    /// The host and boot that the whole proof is about, where it is about a whole host.
    #[must_use]
    pub fn host_gone(&self) -> Option<(&HostName, &Incarnation)> {
        match &self.0 {
            ProofKind::PowerOff { host, incarnation, .. }
            | ProofKind::LeaseExpired { host, incarnation, .. }
            | ProofKind::Operator { host, incarnation, .. } => Some((host, incarnation)),
            ProofKind::Reported { .. } | ProofKind::NotHere { .. } => None,
        }
    }

    /// The words for the kinds that are about a whole host; see [`Self::host_gone`].
    pub const HOST_GONE_WORDS: [&str; 3] = [POWER_OFF, LEASE_EXPIRED, OPERATOR];

    /// The word for the kind, as in metrics and JSON.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match &self.0 {
            ProofKind::PowerOff { .. } => POWER_OFF,
            ProofKind::LeaseExpired { .. } => LEASE_EXPIRED,
            ProofKind::Reported { .. } => "reported",
            ProofKind::Operator { .. } => OPERATOR,
            ProofKind::NotHere { .. } => "not_here",
        }
    }
}

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            ProofKind::PowerOff { host, devices, wiring, .. } => {
                write!(f, "{} says that {host} is off (wiring verified by {wiring})", devices.join(" and "))
            }
            ProofKind::LeaseExpired { host, longest, watchdog, .. } => {
                let lease = Span::ms(longest.lease_ms);
                let (guard, fires) = (Span::ms(longest.guard_ms), Span::ms(longest.watchdog_ms));
                write!(
                    f,
                    "the lease of {host} ran out ({lease}), and its guard ({guard}) and its watchdog {watchdog} ({fires}) \
                     have had their time"
                )
            }
            ProofKind::Reported { host, guest, epoch, .. } => {
                write!(f, "{host} reports that nothing of {guest} up to epoch {epoch} is left there")
            }
            ProofKind::Operator { host, person, .. } => write!(f, "{person} has confirmed that {host} is off"),
            ProofKind::NotHere { hosts } => {
                let hosts: Vec<_> = hosts.keys().map(HostName::as_str).collect();
                write!(f, "it was never placed, and {} say that it is not there", hosts.join(", "))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host() -> HostName {
        HostName::new("hv-a").unwrap()
    }

    fn boot(text: &str) -> Incarnation {
        Incarnation::new(text).unwrap()
    }

    fn reading(power: Power) -> PowerReading {
        PowerReading {
            incarnation: boot("one"),
            asked: Moment(1_000),
            power,
            devices: vec!["bmc".into()],
            level: 0,
            declared: FenceLevel::Operator {},
            asker: None,
        }
    }

    #[test]
    fn an_off_that_is_older_than_a_sign_of_life_is_no_proof() {
        let off = reading(Power::Off);
        let proof = |life| Proof::power_off(&host(), &boot("one"), &off, Some("ann"), life, QUIET);
        assert!(proof(None).is_ok());
        assert!(proof(Some(Moment(999))).is_ok());
        assert!(matches!(proof(Some(Moment(1_000))), Err(NoProof::HeardSince { .. })));
    }

    #[test]
    fn an_off_is_no_proof_before_two_beacons_of_the_host_have_been_missed() {
        let off = reading(Power::Off);
        let proof = |silence| {
            let silence = Duration::from_millis(silence);
            Proof::power_off(&host(), &boot("one"), &off, Some("ann"), Some(Moment(999)), silence)
        };
        assert_eq!(proof(599), Err(NoProof::HeardJustNow { host: host(), left_ms: 1 }));
        assert!(proof(600).is_ok());
    }

    #[test]
    fn an_unverified_device_an_unknown_answer_and_another_boot_are_no_proof() {
        let off = reading(Power::Off);
        assert!(Proof::power_off(&host(), &boot("one"), &off, None, None, QUIET).is_err());
        assert!(Proof::power_off(&host(), &boot("two"), &off, Some("ann"), None, QUIET).is_err());
        for power in [Power::On, Power::Unknown { detail: String::new() }] {
            assert!(Proof::power_off(&host(), &boot("one"), &reading(power), Some("ann"), None, QUIET).is_err());
        }
    }

    #[test]
    fn a_person_cannot_confirm_a_host_that_is_heard() {
        assert!(Proof::operator(&host(), &boot("one"), "ann", Some(300), 1_500).is_err());
        assert!(Proof::operator(&host(), &boot("one"), "ann", Some(9_000), 1_500).is_ok());
    }

    #[test]
    fn a_first_placement_needs_every_host_that_could_run_the_guest() {
        let said = BTreeMap::from([(host(), boot("one"))]);
        let other = HostName::new("hv-b").unwrap();
        assert!(Proof::not_here([host(), other], &said).is_err());
        assert!(Proof::not_here([host()], &said).is_ok());
    }
}
