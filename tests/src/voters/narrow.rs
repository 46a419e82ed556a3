//! A leader behind narrow links: its heartbeats are answered, and nothing that it decides gets to the others (L1). It gives way as a
//! coordinator of the product does; the one who leads then is not disturbed by it.

use std::{collections::BTreeMap, time::Duration};

use holdfast::consensus::progress;
use holdfast_policies::{
    giving_way::{GIVE_WAY_FOR, GivingWay, UNDECIDED_MAX},
    time::{Moment, millis},
};
use openraft::{Instant as _, async_runtime::WatchReceiver as _};
use openraft_rt_sim::SimInstant;

use super::{
    clients,
    cluster::Cluster,
    ledger::Ledger,
    network::Weather,
    plan::{FIRST_MS, Setup},
    run::End,
};

/// Within so long something is decided again: a leader gives way, and an election may have to be begun twice.
const DECIDED_MAX: Duration = UNDECIDED_MAX.saturating_add(GIVE_WAY_FOR).saturating_add(Duration::from_secs(2));
/// For so long the next leader is watched.
const WATCHED: Duration = Duration::from_secs(15);

/// Lives through it. Returns how long nothing was decided.
pub(super) async fn live(setup: Setup, ledger: Ledger, gives_way: bool) -> Result<Duration, End> {
    ledger.note(&format!("{setup:?}"));
    let began = SimInstant::now();
    let mut cluster = Cluster::found(setup, ledger).await?;
    clients::start(&cluster.network, &cluster.ledger, &setup);
    cluster.until(began + Duration::from_millis(FIRST_MS)).await?;
    let Some(old) = cluster.network.leader() else { return Err(End::Unhealed("nobody leads".to_owned())) };
    let others = cluster.everybody().into_iter().filter(|other| *other != old.id);
    let narrow = others.flat_map(|other| [(old.id, other), (other, old.id)]).collect();
    cluster.network.set_weather(Weather { narrow, ..Weather::default() });
    cluster.ledger.note(&format!("the links of voter {} are narrow", old.id));
    let mut coordinators = Coordinators { cluster, gives_way, looks: BTreeMap::new() };
    let undecided = coordinators.until_decided().await?;
    coordinators.watch_next(old.id).await?;
    coordinators.cluster.heal().await?;
    Ok(undecided)
}

/// The voters, with what each one's coordinator makes of how it gets on.
struct Coordinators {
    cluster: Cluster,
    gives_way: bool,
    /// By voter and process.
    looks: BTreeMap<(u64, u64), GivingWay>,
}

impl Coordinators {
    async fn step(&mut self) -> Result<(), End> {
        if self.gives_way {
            self.look();
        }
        self.cluster.step().await
    }

    fn look(&mut self) {
        let (network, now) = (&self.cluster.network, SimInstant::now());
        let moment = Moment(millis(now.elapsed_since_start()));
        for process in network.processes() {
            let of = (process.id, process.boot);
            if self
                .looks
                .entry(of)
                .or_default()
                .look(progress(&process.voter.metrics().borrow_watched()), moment)
                .is_some()
            {
                self.cluster.ledger.note(&format!("voter {} gives way", process.id));
                network.silence(of, now + GIVE_WAY_FOR);
            }
        }
    }

    async fn until_decided(&mut self) -> Result<Duration, End> {
        let (narrowed, last_number) = (SimInstant::now(), self.cluster.ledger.last_number());
        while !self.cluster.ledger.is_acknowledged_after(last_number) {
            if SimInstant::now() - narrowed > DECIDED_MAX {
                return Err(End::Unhealed(format!("nothing was decided within {DECIDED_MAX:?}")));
            }
            self.step().await?;
        }
        Ok(SimInstant::now() - narrowed)
    }

    /// Whoever leads now goes on leading, and deciding, while the one that gave way follows over links that are still narrow.
    async fn watch_next(&mut self, old: u64) -> Result<(), End> {
        let next = self.cluster.network.leader().and_then(|process| process.leads());
        let end = SimInstant::now() + WATCHED;
        while SimInstant::now() < end {
            self.step().await?;
        }
        let last_number = self.cluster.ledger.last_number();
        let leaders = self.cluster.network.leaders();
        if !matches!(leaders.as_slice(), [leader] if leader.id != old && leader.leads() == next) {
            let ids: Vec<u64> = leaders.iter().map(|leader| leader.id).collect();
            return Err(End::Violated(format!("L1: after {next:?} voters {ids:?} lead, and {old} has narrow links")));
        }
        while !self.cluster.ledger.is_acknowledged_after(last_number) {
            if SimInstant::now() > end + DECIDED_MAX {
                return Err(End::Unhealed("the next leader does not decide either".to_owned()));
            }
            self.step().await?;
        }
        Ok(())
    }
}
