//! Which hosts share the asking of services.
//!
//! Gossip that has begun anew knows nobody for a moment. A host that took itself for the only one then would ask all services of the
//! cluster, and so would each that somebody makes begin anew: that must cost no more than gossip, and no guest its answers.

use std::{collections::BTreeSet, time::Duration};

use holdfast_policies::names::HostName;
use tokio::time::Instant;

/// How long those count on whom gossip knew before it began anew. It hears all others again within seconds.
const HELD_FOR: Duration = Duration::from_secs(10);

/// The hosts that live, as far as this one knows.
#[derive(Debug, Default)]
pub(super) struct Living {
    known: BTreeSet<HostName>,
    /// How often gossip had begun anew by then.
    restarts: u64,
    /// Until when those stay whom it does not know of yet.
    held_until: Option<Instant>,
}

impl Living {
    /// Who lives, when these are `alive` to gossip, which has begun anew so often by `now`.
    pub(super) fn renew(&mut self, alive: BTreeSet<HostName>, restarts: u64, now: Instant) -> BTreeSet<HostName> {
        if self.restarts != restarts {
            (self.restarts, self.held_until) = (restarts, Some(now + HELD_FOR));
        }
        if self.held_until.is_some_and(|until| now < until) {
            self.known.extend(alive);
        } else {
            self.known = alive;
        }
        self.known.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> BTreeSet<HostName> {
        names.iter().map(|name| HostName::new(*name).unwrap()).collect()
    }

    #[test]
    fn a_host_whose_gossip_begins_anew_does_not_take_itself_for_the_only_one() {
        let (mut living, began) = (Living::default(), Instant::now());
        let (all, me) = (hosts(&["a", "b", "c"]), hosts(&["a"]));
        assert_eq!(living.renew(all.clone(), 0, began), all);
        assert_eq!(living.renew(me.clone(), 1, began), all);
        assert_eq!(living.renew(hosts(&["a", "d"]), 1, began + HELD_FOR / 2), hosts(&["a", "b", "c", "d"]));
        assert_eq!(living.renew(hosts(&["a", "b"]), 1, began + HELD_FOR), hosts(&["a", "b"]), "c is gone");
        assert_eq!(living.renew(me.clone(), 1, began + HELD_FOR), me, "so is b, and gossip goes on");
    }
}
