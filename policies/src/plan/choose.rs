//! The choice of a host for guests that are placed as one: which hosts take them, and which of those is liked best.

use std::cmp::Reverse;

use super::{
    reason::{Reason, Why},
    solve::{STARTS_PER_HOST, Solver, TURNS_WAITED},
    table::{GuestAt, HostAt},
};

/// How much a host is liked for guests: the least is the best, and the first field that differs decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Rank {
    avoided: bool,
    /// Rounds of starts that have failed there.
    pub failed: u32,
    unwell: bool,
    tried_out: bool,
    score: Reverse<i64>,
    /// More starts come first there than these guests wait for.
    busy: bool,
    strain: u64,
    fullness: u64,
    free: Reverse<u64>,
    guests: u32,
    /// Turns of starts that come first there: among equals nobody waits.
    turns: u32,
    pub host: HostAt,
}

impl Solver<'_, '_> {
    /// The best host for guests as one, and whether it is the only one.
    pub fn best(&mut self, guests: &[GuestAt], among: Option<&[HostAt]>) -> Option<(Rank, bool)> {
        let mut best: Option<Rank> = None;
        let mut count = 0_usize;
        let problem = self.problem;
        let mut look = |host: HostAt| {
            if self.takes(guests, host).is_ok() {
                count += 1;
                let rank = self.rank(guests, host);
                if best.is_none_or(|best| rank < best) {
                    best = Some(rank);
                }
            }
        };
        match among {
            Some(hosts) => hosts.iter().copied().for_each(&mut look),
            None => problem.hosts.keys().for_each(&mut look),
        }
        best.map(|best| (best, count == 1))
    }

    /// Whether a host takes guests as one, as things are.
    pub fn takes(&mut self, guests: &[GuestAt], host: HostAt) -> Result<(), Reason> {
        self.allowed(guests, host)?;
        match guests {
            [guest] => self.room.fits(self.problem, *guest, host),
            guests => {
                self.room.take_all(self.problem, guests, host)?;
                self.room.give_all(self.problem, guests, host);
                Ok(())
            }
        }
    }

    pub fn rank(&self, guests: &[GuestAt], host: HostAt) -> Rank {
        let problem = self.problem;
        let cpus = guests.iter().map(|guest| problem.demand(*guest, 1)).fold(0, u64::saturating_add);
        let turns = self.room.starts[host] / STARTS_PER_HOST;
        let waited_for = if guests.iter().all(|guest| self.patient[*guest]) { TURNS_WAITED } else { 0 };
        Rank {
            avoided: guests.iter().any(|guest| problem.guests[*guest].avoid.contains(&host)),
            failed: guests.iter().map(|guest| problem.guests[*guest].failed_rounds(host)).max().unwrap_or(0),
            unwell: problem.hosts[host].unwell,
            // A host where starts have failed keeps the guest until it has had all its tries.
            tried_out: !guests.iter().any(|guest| problem.guests[*guest].is_being_tried(host)),
            score: Reverse(self.score(guests, host)),
            busy: turns > waited_for,
            strain: self.room.strain(problem, host, cpus),
            fullness: self.room.fullness(problem, guests, host),
            free: Reverse(self.room.free(problem, host).unwrap_or(u64::MAX)),
            guests: self.room.guests(host),
            turns,
            host,
        }
    }

    pub fn score(&self, guests: &[GuestAt], host: HostAt) -> i64 {
        let scores = guests.iter().map(|guest| self.room.score(self.problem, *guest, host));
        scores.fold(0, i64::saturating_add)
    }

    /// Why a host was chosen for guests that are not counted there yet.
    pub fn why(&self, guests: &[GuestAt], host: HostAt, only: bool, with_set: bool) -> Why {
        let (score, free) = (self.score(guests, host), self.room.free(self.problem, host));
        let fullest = self.room.fullest(self.problem, guests, host);
        Why { score, free, fullest, with_set, only, repaired: false }
    }

    /// Whether a host takes guests at all, and may have these, however full it is.
    pub fn allowed(&self, guests: &[GuestAt], host: HostAt) -> Result<(), Reason> {
        let known = &self.problem.hosts[host];
        if self.room.lost[host] {
            return Err(Reason::Lost);
        }
        if let Some(out) = &known.out {
            return Err(out.clone());
        }
        if self.ask.excluded.contains(&host) {
            return Err(Reason::Avoided);
        }
        guests.iter().try_for_each(|guest| self.problem.liking(*guest, host).map(|_| ()))
    }
}
