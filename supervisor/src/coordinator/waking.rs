//! Whom a commit wakes, and when (R5). Whoever has an order is woken at once. What else is new is for everybody, and comes in bursts:
//! when many guests are moved, or many hosts join, all are told once for all of it.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use holdfast_policies::{change::Applied, names::HostName, time::Moment};

use crate::node::Node;

/// How often everybody is woken. Hosts ask every 250 ms without that; what they are woken for is where to look, and an observer that
/// begins a tenth of a second later holds nothing up.
const EVERY: Duration = Duration::from_millis(100);

/// Who is to be woken.
#[derive(Debug, Default)]
pub(super) struct Waking {
    /// Those who wait until everybody may be woken again.
    later: BTreeSet<HostName>,
    /// When everybody was woken last.
    last: Option<Moment>,
}

impl Waking {
    /// Takes in what was committed, and says who is woken for it now: everybody whom it concerns if that was not done a moment ago.
    pub(super) fn after(&mut self, applied: Applied, now: Moment) -> BTreeSet<HostName> {
        let Applied { nudge, at_once, .. } = applied;
        let is_for_others = nudge.iter().any(|host| !at_once.contains(host));
        if is_for_others {
            self.later.extend(nudge);
        }
        let mut woken = if is_for_others { self.due(now) } else { BTreeSet::new() };
        for host in at_once {
            self.later.remove(&host);
            woken.insert(host);
        }
        woken
    }

    /// Whoever has waited until now.
    pub(super) fn due(&mut self, now: Moment) -> BTreeSet<HostName> {
        if self.later.is_empty() || self.last.is_some_and(|last| now.since(last) < EVERY) {
            return BTreeSet::new();
        }
        self.last = Some(now);
        std::mem::take(&mut self.later)
    }

    /// Whether somebody waits to be woken.
    pub(super) fn is_owing(&self) -> bool {
        !self.later.is_empty()
    }
}

/// Has these hosts sync. None of them is waited for before the next: the kernel may take nothing for a moment, and decisions wait here.
pub(super) async fn wake(node: &Node, hosts: &BTreeSet<HostName>) {
    if hosts.contains(node.host()) {
        node.sync_now.notify_one();
    }
    let others = hosts.iter().filter(|host| *host != node.host());
    let nudges = others.filter_map(|host| Some(node.sender.send_nudge(node.address(host)?, host)));
    join_all(nudges).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(names: &[&str]) -> BTreeSet<HostName> {
        names.iter().map(|name| HostName::new(*name).unwrap()).collect()
    }

    fn applied(nudge: &[&str], at_once: &[&str]) -> Applied {
        Applied { nudge: hosts(nudge), at_once: hosts(at_once), ..Applied::default() }
    }

    #[test]
    fn everybody_is_woken_once_for_a_burst_and_whoever_has_an_order_at_once() {
        let (mut waking, all) = (Waking::default(), ["a", "b", "c"]);
        assert_eq!(waking.after(applied(&all, &["a"]), Moment(1_000)), hosts(&all), "the first one waits for nothing");
        assert_eq!(waking.after(applied(&all, &["b"]), Moment(1_010)), hosts(&["b"]));
        assert_eq!(waking.after(applied(&all, &[]), Moment(1_020)), hosts(&[]));
        assert!(waking.is_owing());
        assert_eq!(waking.due(Moment(1_099)), hosts(&[]));
        assert_eq!(waking.due(Moment(1_100)), hosts(&all));
        assert!(!waking.is_owing() && waking.due(Moment(5_000)).is_empty());
    }

    #[test]
    fn orders_alone_do_not_put_off_what_is_for_everybody() {
        let (mut waking, all) = (Waking::default(), ["a", "b"]);
        for now in 1_000..1_050 {
            assert_eq!(waking.after(applied(&["a"], &["a"]), Moment(now)), hosts(&["a"]));
        }
        assert_eq!(waking.after(applied(&all, &[]), Moment(1_050)), hosts(&all));
        assert_eq!(waking.after(applied(&all, &[]), Moment(1_060)), hosts(&[]));
        assert_eq!(waking.after(applied(&["a"], &["a"]), Moment(1_070)), hosts(&["a"]), "it fetches all at once");
        assert_eq!(waking.due(Moment(1_150)), hosts(&["b"]));
    }
}
