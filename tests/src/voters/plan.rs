//! What a cluster is made of, and what befalls it when: drawn from the seed before the run begins.

use super::breaks::Break;
use crate::simulator::random::Random;

/// When the first trouble begins, in milliseconds: by then somebody leads.
pub(super) const FIRST_MS: u64 = 1_500;
/// From one trouble to the next: from the first to below the second. Another leader takes somewhat more than a second.
const NEXT_MS: (u64, u64) = (400, 2_200);

/// What a cluster is made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    pub(super) seed: u64,
    pub(super) voters: u64,
    /// After how many entries snapshots are taken, and how many entries before one are kept. `None` is the product's default,
    /// under which a run is too short for a snapshot.
    pub(super) snapshots: Option<(u64, u64)>,
    /// Whether whoever appends is held up until the entries are on disk, as by the product's store. Raft asks for less.
    pub(super) append_waits: bool,
    pub(super) broken: Option<Break>,
}

impl Setup {
    pub(super) fn draw(seed: u64, broken: Option<Break>) -> Self {
        let mut chance = Random::new(seed, 1);
        let snapshots = chance.one_in(2).then(|| (chance.between(12, 40), chance.between(1, 8)));
        let append_waits = chance.one_in(2);
        Self { seed, voters: if seed % 2 == 1 { 3 } else { 5 }, snapshots, append_waits, broken }
    }

    /// A stream of chance of its own for each purpose.
    pub(super) fn chance(&self, purpose: u64) -> Random {
        Random::new(self.seed, 100 + purpose)
    }
}

/// Whom a trouble is for, as it is when it comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Whom {
    /// The newest leader; anybody when there is none.
    Leader,
    /// One of those who do not lead.
    Other(usize),
}

/// What befalls the voters. Each of the first six replaces the weather before it; the others leave it as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trouble {
    /// Messages get through at once.
    Calm,
    /// Messages and answers are lost, late and repeated.
    Loss { loss: u64, twice: u64, late_ms: u64 },
    /// Somebody is cut off.
    Cut(Whom),
    /// Somebody hears nobody, and is heard.
    Deaf(Whom),
    /// Somebody hears everybody, and is not heard.
    Mute(Whom),
    /// The leader is cut off with as many others as are no majority.
    Split,
    /// A process loses its power, and starts again later from what its disk has kept.
    Crash { whom: Whom, back_ms: u64 },
    /// All processes lose their power at once.
    Blackout { back_ms: u64 },
    /// A disk takes so many times longer than usual.
    SlowDisk { whom: Whom, times: u64 },
    /// The leader is asked to hand the lead over.
    Transfer(usize),
    /// A voter is exchanged for a new one. `lost` says that it has lost its store and comes back never (R24).
    Exchange { whom: Whom, lost: bool },
}

/// What comes when, in milliseconds from the beginning.
pub(super) fn draw(setup: &Setup) -> Vec<(u64, Trouble)> {
    let mut chance = setup.chance(0);
    let count = chance.between(8, 13);
    // Not among the last: there is to be trouble while it goes on.
    let exchange = chance.one_in(2).then(|| chance.below(count - 3));
    let mut plan = Vec::new();
    let mut at = FIRST_MS;
    for number in 0..count {
        let trouble = if exchange == Some(number) {
            Trouble::Exchange { whom: whom(&mut chance), lost: chance.one_in(2) }
        } else {
            trouble(&mut chance)
        };
        plan.push((at, trouble));
        let (soonest, latest) = NEXT_MS;
        at += chance.between(soonest, latest);
    }
    plan
}

fn trouble(chance: &mut Random) -> Trouble {
    match chance.below(20) {
        0 => Trouble::Calm,
        1..=3 => Trouble::Loss {
            loss: chance.between(2, 30),
            twice: chance.below(30),
            late_ms: if chance.one_in(3) { chance.between(50, 400) } else { chance.below(50) },
        },
        4..=5 => Trouble::Cut(whom(chance)),
        6 => Trouble::Deaf(whom(chance)),
        7 => Trouble::Mute(whom(chance)),
        8 => Trouble::Split,
        9..=13 => Trouble::Crash { whom: whom(chance), back_ms: chance.between(20, 1_500) },
        14 => Trouble::Blackout { back_ms: chance.between(20, 600) },
        15..=16 => Trouble::SlowDisk { whom: whom(chance), times: chance.between(5, 40) },
        _ => Trouble::Transfer(chance.index(8)),
    }
}

fn whom(chance: &mut Random) -> Whom {
    if chance.one_in(2) { Whom::Leader } else { Whom::Other(chance.index(8)) }
}
