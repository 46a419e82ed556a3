//! Has the agent forget the epochs of guests that are declared no more. Its memory is written whole before orders are carried out, and
//! holds two epochs of each guest that the host was ever ordered to start or to stop, some 100 bytes together. Where guests come and
//! go under ever new names that would be megabytes one day, before each start.

use std::collections::BTreeSet;

use holdfast_policies::names::GuestName;

use super::Work;

/// So many more guests than are declared may have epochs here before any are forgotten. They take some 25 KiB, which is soon written, and
/// what is here need not be looked up for each reply.
const UNDECLARED_MAX: usize = 256;

impl Work {
    /// After a reply was accepted and its orders were taken: these are the guests that it has orders for.
    pub(super) async fn forget_undeclared(&mut self, ordered: BTreeSet<GuestName>) {
        let view = self.parts.node.view.borrow().clone();
        if !self.parts.agent.may_forget(view.policies.guests.len().saturating_add(UNDECLARED_MAX)) {
            return;
        }
        // Where it cannot be known what is here, nothing is forgotten (S5).
        let Ok(reports) = self.reports().await else { return };
        let here = reports.into_iter().map(|report| report.guest);
        let kept: BTreeSet<GuestName> = ordered.into_iter().chain(here).collect();
        self.parts.agent.forget_undeclared(&view, &kept);
    }
}
