//! Troubles as they come.

use std::time::Duration;

use openraft::AsyncRuntime as _;
use openraft_rt_sim::SimRuntime;

use super::{
    cluster::{Cluster, place},
    exchange::Exchange,
    network::Weather,
    plan::{Trouble, Whom},
    run::End,
};

/// Ids from here on are those of voters that are not founders.
const NEW_IDS: u64 = 100;
/// What gets lost in every hundred messages while something is cut.
const LOSS_BESIDE_CUTS: u64 = 3;
/// How much later than the first one the last voter comes back after a blackout, in milliseconds.
const BLACKOUT_APART_MS: u64 = 150;

impl Cluster {
    /// Has a trouble befall whom it is for.
    pub(super) async fn befall(&mut self, trouble: Trouble) -> Result<(), End> {
        self.ledger.note(&format!("{trouble:?}"));
        match trouble {
            Trouble::Calm => self.network.set_weather(Weather::default()),
            Trouble::Loss { loss, twice, late_ms } => {
                self.network.set_weather(Weather { loss, twice, late_ms, ..Weather::default() });
            }
            Trouble::Cut(whom) => self.cut(whom, |one, other| vec![(one, other), (other, one)]),
            Trouble::Deaf(whom) => self.cut(whom, |one, other| vec![(other, one)]),
            Trouble::Mute(whom) => self.cut(whom, |one, other| vec![(one, other)]),
            Trouble::Split => self.split(),
            Trouble::Crash { whom, back_ms } => {
                if let Some(id) = self.whom(whom) {
                    self.crash(id, Some(Duration::from_millis(back_ms)));
                }
            }
            Trouble::Blackout { back_ms } => {
                for (nth, process) in (0..).zip(self.network.processes()) {
                    self.crash(process.id, Some(Duration::from_millis(back_ms + nth * BLACKOUT_APART_MS)));
                }
            }
            Trouble::SlowDisk { whom, times } => {
                self.everybody().into_iter().for_each(|id| self.set_slowness(id, 1));
                if let Some(id) = self.whom(whom) {
                    self.set_slowness(id, times);
                }
            }
            Trouble::Transfer(nth) => self.transfer(nth),
            Trouble::Exchange { whom, lost } => return self.exchange(whom, lost).await,
        }
        Ok(())
    }

    /// Who is meant, among those who run.
    fn whom(&self, whom: Whom) -> Option<u64> {
        let leader = self.network.leader().map(|process| process.id);
        let running = self.network.processes().into_iter().map(|process| process.id);
        let others: Vec<u64> = running.filter(|id| Some(*id) != leader).collect();
        match whom {
            Whom::Leader => leader.or_else(|| others.first().copied()),
            Whom::Other(nth) => others.get(nth % others.len().max(1)).copied(),
        }
    }

    fn cut(&self, whom: Whom, directions: impl Fn(u64, u64) -> Vec<(u64, u64)>) {
        let Some(one) = self.whom(whom) else { return };
        let others = self.everybody().into_iter().filter(|other| *other != one);
        let cut = others.flat_map(|other| directions(one, other)).collect();
        self.network.set_weather(Weather { loss: LOSS_BESIDE_CUTS, cut, ..Weather::default() });
    }

    fn split(&self) {
        let Some(leader) = self.whom(Whom::Leader) else { return };
        let everybody = self.everybody();
        let others: Vec<u64> = everybody.into_iter().filter(|id| *id != leader).collect();
        let (with_leader, away) = others.split_at(others.len().saturating_sub(1) / 2);
        let here = with_leader.iter().copied().chain([leader]);
        let cut = here.flat_map(|one| away.iter().flat_map(move |other| [(one, *other), (*other, one)])).collect();
        self.network.set_weather(Weather { loss: LOSS_BESIDE_CUTS, cut, ..Weather::default() });
    }

    fn transfer(&mut self, nth: usize) {
        let Some(leader) = self.network.leader() else { return };
        let Some(to) = self.whom(Whom::Other(nth)) else { return };
        self.successor = Some(to);
        SimRuntime::spawn(async move { leader.voter.trigger().transfer_leader(to).await.is_ok() });
    }

    async fn exchange(&mut self, whom: Whom, lost: bool) -> Result<(), End> {
        let Some(old) = self.whom(whom) else { return Ok(()) };
        let new = NEW_IDS + old;
        if lost {
            self.crash(old, None);
        }
        self.start(new).await?;
        self.exchanges.push(Exchange::begin(&self.network, &self.ledger, (old, new), place(new)?));
        Ok(())
    }
}
