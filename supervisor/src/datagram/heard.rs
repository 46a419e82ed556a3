//! When each process of each host was last heard directly, and in which incarnation: a voter's own evidence (R16, R17).
//!
//! Only authentic, fresh datagrams from the process itself count. What others tell about a host by gossip does not:
//! a dead host's last heartbeat goes round for a while, and would make every verdict later.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use holdfast_policies::{
    names::{HostName, Incarnation},
    time::Moment,
};

use super::{Losses, Role, replay::SENDERS_MAX};

/// Incarnations remembered per sender: questions are asked about the last boot, and perhaps about the one before.
const INCARNATIONS_MAX: usize = 4;

/// The processes of a host that say that it lives.
const PROCESSES: [Role; 2] = [Role::Supervisor, Role::Guard];

/// One sign of life.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Life {
    /// When it came, on this machine's clock.
    pub moment: Moment,
    /// Of which boot.
    pub incarnation: Incarnation,
}

/// The last signs of life of each sender, the newest last.
type Table = BTreeMap<(HostName, Role), Vec<Life>>;

/// The table, shared between the socket's task and whoever asks.
#[derive(Debug, Clone, Default)]
pub struct Heard {
    table: Arc<Mutex<Table>>,
    losses: Losses,
}

impl Heard {
    /// Notes a sign of life.
    pub fn record(&self, host: &HostName, role: Role, incarnation: &Incarnation, now: Moment) {
        let mut table = self.lock();
        let key = (host.clone(), role);
        if table.len() >= SENDERS_MAX && !table.contains_key(&key) {
            forget_longest_silent(&mut table);
        }
        let lives = table.entry(key).or_default();
        match lives.iter().position(|life| life.incarnation == *incarnation) {
            Some(at) => {
                let life = lives.remove(at);
                lives.push(Life { moment: now.max(life.moment), ..life });
            }
            None => {
                if lives.len() >= INCARNATIONS_MAX {
                    lives.remove(0);
                }
                lives.push(Life { moment: now, incarnation: incarnation.clone() });
            }
        }
    }

    /// What is lost of what guards send.
    #[must_use]
    pub fn losses(&self) -> &Losses {
        &self.losses
    }

    /// The last sign of life of one process of a host, whatever its incarnation.
    #[must_use]
    pub fn last(&self, host: &HostName, role: Role) -> Option<Life> {
        self.lock().get(&(host.clone(), role)).and_then(|lives| lives.last().cloned())
    }

    /// When any process of a host was last heard, whatever its incarnation.
    #[must_use]
    pub fn last_any(&self, host: &HostName) -> Option<Moment> {
        PROCESSES.into_iter().filter_map(|role| self.last(host, role)).map(|life| life.moment).max()
    }

    /// When any process of this boot of a host was last heard: what a voter answers by R17.
    #[must_use]
    pub fn last_of(&self, host: &HostName, incarnation: &Incarnation) -> Option<Moment> {
        lives(&self.lock(), host).filter(|life| life.incarnation == *incarnation).map(|life| life.moment).max()
    }

    /// The newest sign of life of any boot of a host that `known` does not know.
    #[must_use]
    pub fn last_other(&self, host: &HostName, known: impl Fn(&Incarnation) -> bool) -> Option<Life> {
        lives(&self.lock(), host).filter(|life| !known(&life.incarnation)).max_by_key(|life| life.moment).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The signs of life of all processes of a host, of any boot.
fn lives<'t>(table: &'t Table, host: &HostName) -> impl Iterator<Item = &'t Life> {
    PROCESSES.into_iter().filter_map(move |role| table.get(&(host.clone(), role))).flatten()
}

fn forget_longest_silent(table: &mut Table) {
    let silent = table.iter().min_by_key(|(_, lives)| lives.last().map(|life| life.moment)).map(|(key, _)| key.clone());
    if let Some(key) = silent {
        table.remove(&key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reboot_does_not_erase_when_the_earlier_boot_was_heard() {
        let heard = Heard::default();
        let host = HostName::new("hv-a").unwrap();
        let boots: Vec<_> = (0..9).map(|boot| Incarnation::new(format!("b{boot}")).unwrap()).collect();
        heard.record(&host, Role::Guard, &boots[0], Moment(10));
        heard.record(&host, Role::Supervisor, &boots[0], Moment(20));
        heard.record(&host, Role::Guard, &boots[1], Moment(30));
        assert_eq!(heard.last_of(&host, &boots[0]), Some(Moment(20)));
        assert_eq!(heard.last(&host, Role::Guard), Some(Life { moment: Moment(30), incarnation: boots[1].clone() }));
        assert_eq!(heard.last_of(&host, &boots[5]), None);
        let other = heard.last_other(&host, |boot| *boot == boots[0]);
        assert_eq!(other, Some(Life { moment: Moment(30), incarnation: boots[1].clone() }));
        assert_eq!(heard.last_other(&host, |boot| boots[..2].contains(boot)), None);
        for boot in &boots {
            heard.record(&host, Role::Guard, boot, Moment(40));
        }
        assert_eq!(heard.lock().values().map(Vec::len).max(), Some(INCARNATIONS_MAX));
    }
}
