//! Why a host does not take a guest, and why one was chosen, as values with one text for all who show them.

use std::fmt;

use super::problem::{CPUS, MEMORY};
use crate::{
    names::{GuestName, HostName, RuleName},
    state::Mode,
};

/// Why a host does not take a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// It runs no guests.
    Witness,
    /// It is fenced or gone.
    Down,
    /// It is supposed to be lost, in a question.
    Lost,
    /// Operators, or the host itself, want no more guests there.
    Mode {
        /// What is wanted.
        mode: Mode,
    },
    /// It does not sync.
    Unheard,
    /// Whoever asked does not want it.
    Avoided,
    /// A rule about hosts forbids it.
    Ruled {
        /// The rule.
        rule: RuleName,
    },
    /// Too little is left of something.
    Full {
        /// Of what.
        dimension: String,
        /// How much is left.
        left: u64,
        /// How much is needed.
        needed: u64,
    },
    /// Another guest, or its failure domain, is too near.
    Near {
        /// The rule.
        rule: RuleName,
        /// The label by which the rule counts.
        by: Option<String>,
    },
    /// The others of its set are elsewhere.
    Astray {
        /// One of the others.
        other: GuestName,
    },
}

impl Reason {
    /// Whether two reasons differ in figures only.
    fn is_like(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Full { dimension, .. }, Self::Full { dimension: also, .. }) => dimension == also,
            (one, other) => one == other,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Witness => f.write_str("is a witness"),
            Self::Down => f.write_str("is fenced or gone"),
            Self::Lost => f.write_str("is lost"),
            Self::Mode { mode: Mode::Draining } => f.write_str("is being drained"),
            Self::Mode { mode: Mode::Maintenance } => f.write_str("is in maintenance"),
            Self::Mode { mode: Mode::Leaving { .. } } => f.write_str("is about to go"),
            Self::Mode { mode: Mode::Active } => f.write_str("is active"),
            Self::Unheard => f.write_str("is not heard"),
            Self::Avoided => f.write_str("is to be avoided"),
            Self::Ruled { rule } => write!(f, "is ruled out by {rule}"),
            Self::Full { dimension, left, needed } if dimension == MEMORY => {
                write!(f, "has {left} MiB of memory left, {needed} MiB are needed")
            }
            Self::Full { dimension, left, needed } if dimension == CPUS => {
                write!(f, "has {left} processors left, {needed} are needed")
            }
            Self::Full { dimension, left, needed } => write!(f, "has {left} of {dimension} left, {needed} are needed"),
            Self::Near { rule, by: None } => write!(f, "runs a guest that {rule} keeps apart from it"),
            Self::Near { rule, by: Some(label) } => {
                write!(f, "has a {label} with a guest that {rule} keeps apart from it")
            }
            Self::Astray { other } => write!(f, "is not where {other} is, with which it is kept together"),
        }
    }
}

/// Hosts named with one reason; the others are counted.
const NAMED_MAX: usize = 8;

/// A reason for each host, hosts with like reasons together.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Reasons {
    because: Vec<Because>,
    /// Said instead of, or after, the hosts' reasons.
    note: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Because {
    /// The first one; of figures the one with the most left.
    reason: Reason,
    hosts: Vec<HostName>,
    more: usize,
}

impl Reasons {
    pub(super) fn noted(note: String) -> Self {
        Self { because: Vec::new(), note: Some(note) }
    }

    pub(super) fn note(&mut self, note: String) {
        self.note = Some(note);
    }

    pub(super) fn add(&mut self, host: &HostName, reason: Reason) {
        let Some(known) = self.because.iter_mut().find(|known| known.reason.is_like(&reason)) else {
            self.because.push(Because { reason, hosts: vec![host.clone()], more: 0 });
            return;
        };
        if known.hosts.len() < NAMED_MAX {
            known.hosts.push(host.clone());
        } else {
            known.more += 1;
        }
        let left = |reason: &Reason| if let Reason::Full { left, .. } = reason { *left } else { 0 };
        if left(&reason) > left(&known.reason) {
            known.reason = reason;
        }
    }

    /// Each kind of reason, with the hosts it holds for: some by name, and how many more.
    pub fn iter(&self) -> impl Iterator<Item = (&Reason, &[HostName], usize)> {
        self.because.iter().map(|because| (&because.reason, because.hosts.as_slice(), because.more))
    }
}

impl fmt::Display for Reasons {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        for (reason, hosts, more) in self.iter() {
            let names: Vec<&str> = hosts.iter().map(HostName::as_str).collect();
            write!(f, "{between}{}", names.join(", "))?;
            if more > 0 {
                write!(f, " and {more} more")?;
            }
            if hosts.len() + more > 1 && matches!(reason, Reason::Full { .. }) {
                write!(f, ": the best of them {reason}")?;
            } else if hosts.len() + more > 1 {
                write!(f, ": each {reason}")?;
            } else {
                write!(f, " {reason}")?;
            }
            between = "; ";
        }
        match &self.note {
            Some(note) => write!(f, "{between}{note}"),
            None if self.because.is_empty() => f.write_str("there is no host"),
            None => Ok(()),
        }
    }
}

/// Of what a host has the least left, in proportion and by weight, of all that guests take of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fullest {
    /// Of what.
    pub dimension: String,
    /// How much is taken when the guests are there.
    pub taken: u64,
    /// How much there is.
    pub size: u64,
}

impl fmt::Display for Fullest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.dimension.as_str() {
            MEMORY => "MiB",
            CPUS => "processors",
            other => other,
        };
        write!(f, "guests then take {} of its {} {what}", self.taken, self.size)
    }
}

/// Why a host was chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Why {
    /// What rules make of it, in sum.
    pub score: i64,
    /// Memory that was free there, in MiB; `None` when it is not limited.
    pub free: Option<u64>,
    /// What of it is fullest when the guests are there; `None` when nothing that they take is weighed.
    pub fullest: Option<Fullest>,
    /// Its set runs there, or goes there.
    pub with_set: bool,
    /// No other host could take it.
    pub only: bool,
    /// Room was made by placing others of this round elsewhere.
    pub repaired: bool,
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let free = |f: &mut fmt::Formatter<'_>| match self.free {
            Some(free) => write!(f, "{free} MiB of its memory are free"),
            None => f.write_str("its memory is not limited"),
        };
        if self.with_set {
            f.write_str("it is kept together with others there, and ")?;
            return free(f);
        }
        if self.only {
            f.write_str("no other host can take it, and ")?;
            return free(f);
        }
        if self.repaired {
            f.write_str("so that all find a place, and ")?;
            return free(f);
        }
        if self.score != 0 {
            write!(f, "rules score it {}, no other host higher, and ", self.score)?;
            return free(f);
        }
        free(f)?;
        match &self.fullest {
            Some(fullest) => write!(f, ", and it is the least loaded: {fullest}"),
            None => f.write_str(", the most of all"),
        }
    }
}
