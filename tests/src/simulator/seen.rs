//! What is counted in a run, so that a test can tell whether what is rare is met at all, and how near the run came to its limits.

use super::Ms;

/// How often something happened that is rare.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen {
    /// Snapshots that a follower took in.
    pub snapshots_installed: u64,
    /// Times that the lead was handed over (R29).
    pub handed_over: u64,
    /// Hosts that were switched off for a drill.
    pub drills: u64,
    /// Second machines that came up under a name.
    pub twins: u64,
    /// Names that were quarantined for it (R11).
    pub contested: u64,
    /// Copies that could not be told from what they are copies of.
    pub beyond: u64,
    /// Storm holds that an operator has released (R21).
    pub holds_released: u64,
    /// Times that a coordinator was told by a verified power device that a living host is off (R9).
    pub lies: u64,
    /// Power devices that were distrusted for it.
    pub distrusted: u64,
    /// Times that a host went on because only one of its two outlets could be switched.
    pub half_off: u64,
    /// Hosts that were switched off by both their outlets.
    pub both_off: u64,
    /// Guests that another tool has moved.
    pub moved_outside: u64,
    /// Those of them that were followed.
    pub followed: u64,
    /// Moves that operators have asked for, and that were begun.
    pub moves_asked: u64,
    /// Guests that were left alone because an operator wants it so.
    pub left_alone: u64,
    /// Voters that run no guests.
    pub witnesses: u64,
    /// Looks at guests whose services could not be asked.
    pub unable: u64,
    /// Rungs of ladders that were taken.
    pub rungs: u64,
    /// Guests that reset themselves while all was well.
    pub own_resets: u64,
    /// Resets of guests by themselves, each right after another one.
    pub resets_in_a_row: u64,
    /// Times that a voter began to doubt itself because its own link lost much (R17).
    pub doubting: u64,
    /// Feature levels that were raised because all voters had been upgraded (R26).
    pub levels_raised: u64,
    /// Fences that an operator has let go on beyond their budget.
    pub fences_allowed: u64,
    /// Fences with which a host had been fenced so often that it was quarantined.
    pub often_fenced: u64,
    /// Guests for which there was no room when everything else was at rest.
    pub waited_for_room: u64,
    /// Guests of best effort that were stopped for others.
    pub gave_way: u64,
    /// Hosts that had more guests at rest than a capacity that is not hard has room for.
    pub beyond_capacity: u64,
    /// Generations that were made after a majority was lost (R25).
    pub generations: u64,
    /// Those of them that were made when the cluster had been recovered before.
    pub lost_again: u64,
    /// Those of them that were made from a store which was put aside when the majority was lost the first time.
    pub older_stores: u64,
    /// Those of them that were made because hosts had seen a later one still (R3).
    pub done_once_more: u64,
    /// Agents' memories that were lost with the stores of their hosts (R12).
    pub memories_lost: u64,
    /// Boots that had joined in a history that was lost.
    pub boots_lost: u64,
    /// Names that had been given to a new machine there.
    pub machines_lost: u64,
    /// Names that had been revoked or readmitted there.
    pub revocations_lost: u64,
    /// Hosts that were revoked (R27).
    pub revoked: u64,
    /// Times that a boot joined under a name that had been revoked.
    pub readmitted: u64,
    /// Writes of an agent's memory that failed.
    pub bad_writes: u64,
    /// Views of which a host was told only what had changed.
    pub news_of_changes: u64,
    /// Replies that had no room for what had changed.
    pub news_without_room: u64,
    /// What was told and did not fit to what the host had by then.
    pub news_that_fit_nothing: u64,
    /// Times that people were told of a storm of services, or of how it goes on (S9).
    pub service_storms: u64,
    /// Guests that were held for it, in each round anew.
    pub held: u64,
    /// Rungs that were taken for guests which had been held for as long as guests are.
    pub let_go: u64,
    /// The healing that used up most of its limit (L1).
    pub slowest: Option<Healed>,
}

/// How long it took until everything was at rest again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Healed {
    /// From the end of the faults until everything was found at rest, or was given up.
    pub took: Ms,
    /// The limit.
    pub limit: Ms,
}

impl Healed {
    /// How much of the limit was used up, in percent.
    #[must_use]
    pub fn share(self) -> u64 {
        (self.took * 100).checked_div(self.limit).unwrap_or(0)
    }

    /// Whether it came nearer to its limit than another one.
    #[must_use]
    pub fn is_nearer_than(self, other: Self) -> bool {
        self.took * other.limit > other.took * self.limit
    }
}

impl Seen {
    /// Keeps a healing if it is the slowest so far.
    pub(super) fn note_healed(&mut self, healed: Healed) {
        if self.slowest.is_none_or(|slowest| healed.is_nearer_than(slowest)) {
            self.slowest = Some(healed);
        }
    }
}
