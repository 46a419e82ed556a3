//! When a leader that decides nothing gives way to another voter (L1, R29).
//!
//! Raft keeps a leader whose heartbeats are answered. Whether anything else gets to the others is another matter: over a link that
//! loses what is large, heartbeats pass, and an entry that does not holds up all that come after it. Such a leader goes
//! on granting leases, and no guest is brought back. Nobody but itself can tell.
//!
//! ```text
//!            it has an entry that is not committed, and
//!            the others can elect one of themselves                      for UNDECIDED_MAX, and it may again
//!   decides <-----------------------------------------> decides nothing ------------------------------------> gives way
//!      ^     one is committed, or they cannot any more                                                           |
//!      +------------------------ says nothing for GIVE_WAY_FOR, then follows, or leads on ------------------------+
//! ```
//! What it got to no majority was never decided: the next leader goes on with that, if it has it, or has it cut off. Where the
//! others lack the votes to elect one of themselves it stays, because nobody else could lead.

use std::time::Duration;

use crate::time::Moment;

/// A leader gives way when it has got nothing committed for so long: twice as long as a commit is given, and much longer than a slow disk
/// or a large entry takes.
pub const UNDECIDED_MAX: Duration = Duration::from_secs(10);

/// How long a leader that gives way says nothing: a lease of raft and the longest time to an election (0.6 s each), and as much again for
/// one that is begun twice. Where nobody is elected nobody grants leases meanwhile, so it is never more than half a lease.
pub const GIVE_WAY_FOR: Duration = Duration::from_secs(2);

/// A leader gives way at most this often, as for any reason of its own (R29). While nothing is decided all the same, by whoever leads, the
/// cause is not its own, and it waits twice as long each time.
pub const AGAIN_AFTER: Duration = Duration::from_secs(60);

/// So often that wait is doubled, to 16 minutes: what keeps a cluster from deciding for so long may still have changed.
const DOUBLINGS_MAX: u32 = 4;

/// How far a leader has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The term in which it leads.
    pub term: u64,
    /// The index of the last entry that it has.
    pub last: u64,
    /// The index of the last entry that is committed and applied here.
    pub applied: u64,
    /// Whether the other voters that answer it are enough to elect one of themselves.
    pub dispensable: bool,
}

/// Looks at how a leader gets on.
#[derive(Debug, Clone, Default)]
pub struct GivingWay {
    undecided: Option<Undecided>,
    gave: Option<Gave>,
}

/// Nothing was committed after this entry, of what this leader has.
#[derive(Debug, Clone, Copy)]
struct Undecided {
    since: Moment,
    term: u64,
    applied: u64,
}

/// It gave way.
#[derive(Debug, Clone, Copy)]
struct Gave {
    at: Moment,
    term: u64,
    applied: u64,
    /// How often by then, with nothing decided in between.
    times: u32,
}

impl GivingWay {
    /// Looks again; `None` stands for a host that does not lead. Returns for how long it has decided nothing when it is to give way,
    /// which counts as done.
    pub fn look(&mut self, progress: Option<Progress>, now: Moment) -> Option<Duration> {
        let stuck = progress.filter(|progress| progress.dispensable && progress.applied < progress.last);
        let Some(Progress { term, applied, .. }) = stuck else {
            self.undecided = None;
            return None;
        };
        let known = self.undecided.filter(|known| known.term == term && known.applied == applied);
        let undecided = known.unwrap_or(Undecided { since: now, term, applied });
        self.undecided = Some(undecided);
        let long = now.since(undecided.since);
        let in_vain = self.gave.filter(|gave| gave.was_in_vain(term, applied)).map_or(0, |gave| gave.times);
        if long < UNDECIDED_MAX || self.gave.is_some_and(|gave| now.since(gave.at) < rest(in_vain)) {
            return None;
        }
        self.gave = Some(Gave { at: now, term, applied, times: in_vain.saturating_add(1) });
        self.undecided = None;
        Some(long)
    }
}

impl Gave {
    /// Whether nothing has been decided since. Whoever leads in a term begins it with an entry that decides nothing.
    fn was_in_vain(self, term: u64, applied: u64) -> bool {
        applied.saturating_sub(self.applied) <= term.saturating_sub(self.term)
    }
}

/// How long a leader that gave way so often in vain does not do it again.
fn rest(in_vain: u32) -> Duration {
    AGAIN_AFTER.saturating_mul(2_u32.saturating_pow(in_vain.saturating_sub(1).min(DOUBLINGS_MAX)))
}

#[cfg(test)]
mod tests {
    use std::ops::Range;

    use super::*;

    const NEVER: [u64; 0] = [];
    const STUCK: Progress = Progress { term: 3, last: 8, applied: 7, dispensable: true };

    /// Looks every 100 ms from one second to another, and returns in which ones it gave way.
    fn gave_way(giving_way: &mut GivingWay, progress: Progress, seconds: Range<u64>) -> Vec<u64> {
        let moments = (seconds.start * 10..seconds.end * 10).map(|tenth| Moment(tenth * 100));
        moments.filter(|now| giving_way.look(Some(progress), *now).is_some()).map(|now| now.0 / 1_000).collect()
    }

    #[test]
    fn a_leader_that_gets_nothing_committed_gives_way_after_ten_seconds() {
        assert_eq!(gave_way(&mut GivingWay::default(), STUCK, 5..60), [15]);
    }

    #[test]
    fn a_leader_that_decides_has_nothing_to_decide_or_is_needed_leads_on() {
        let nothing_waits = Progress { last: 7, ..STUCK };
        let needed = Progress { dispensable: false, ..STUCK };
        for progress in [nothing_waits, needed] {
            assert_eq!(gave_way(&mut GivingWay::default(), progress, 5..60), NEVER, "{progress:?}");
        }
        let mut slow = GivingWay::default();
        for second in 5..60 {
            let progress = Progress { last: 8 + second, applied: 7 + second, ..STUCK };
            assert_eq!(gave_way(&mut slow, progress, second..second + 1), NEVER, "something is committed each second");
        }
    }

    #[test]
    fn time_in_which_the_others_did_not_answer_or_another_one_led_does_not_count() {
        let mut cut_off = GivingWay::default();
        assert_eq!(gave_way(&mut cut_off, STUCK, 5..14), NEVER);
        assert_eq!(gave_way(&mut cut_off, Progress { dispensable: false, ..STUCK }, 14..40), NEVER);
        assert_eq!(gave_way(&mut cut_off, STUCK, 40..49), NEVER);
        assert_eq!(cut_off.look(None, Moment(49_000)), None);
        assert_eq!(gave_way(&mut cut_off, STUCK, 49..58), NEVER);
        assert_eq!(gave_way(&mut cut_off, Progress { term: 5, ..STUCK }, 58..67), NEVER, "it was elected anew");
    }

    #[test]
    fn a_leader_that_gives_way_in_vain_does_it_less_and_less_often_and_never_stops() {
        let mut giving_way = GivingWay::default();
        let gave = gave_way(&mut giving_way, STUCK, 0..7_200);
        let waits: Vec<u64> = gave.windows(2).map(|pair| pair[1] - pair[0]).collect();
        assert_eq!(waits, [60, 120, 240, 480, 960, 960, 960, 960, 960, 960]);
    }

    #[test]
    fn a_leader_after_whose_giving_way_something_was_decided_may_give_way_again_a_minute_later() {
        let mut giving_way = GivingWay::default();
        assert_eq!(gave_way(&mut giving_way, STUCK, 0..15), [10]);
        assert_eq!(gave_way(&mut giving_way, STUCK, 15..75), [70], "nobody was elected, and it gave way in vain");
        // Two others have led, and have begun their terms; so has it.
        let nothing = Progress { term: 6, last: 11, applied: 10, dispensable: true };
        assert_eq!(gave_way(&mut giving_way, nothing, 75..185), NEVER);
        let decided = Progress { last: 12, applied: 11, ..nothing };
        assert_eq!(gave_way(&mut giving_way, decided, 185..196), [195]);
        assert_eq!(gave_way(&mut giving_way, Progress { last: 91, applied: 90, ..decided }, 196..300), [255]);
    }
}
