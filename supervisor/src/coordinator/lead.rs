//! What a coordinator makes of itself: it may doubt what it sees, and hand the lead over (R29).

use holdfast_policies::{decide::HandOver, time::Moment};

use super::brain::Brain;

impl Brain {
    /// A supervisor that doubts itself accuses nobody on what it gathered while it slept or its link lost much.
    pub(super) fn doubt_oneself(&mut self, now: Moment) {
        let unwell = self.node.health.doubts(now).then(|| self.node.health.unwell(now)).flatten();
        if unwell.is_some() && !self.doubting {
            self.evidence.quorum_since = self.evidence.quorum_since.map(|_| now);
            self.note_held(now);
        }
        self.doubting = unwell.is_some();
        self.evidence.hosts.entry(self.node.host().clone()).or_default().unwell = unwell;
    }

    /// R29. An attempt that fails counts too: the next one is a minute away.
    pub(super) async fn hand_over(&mut self, HandOver { to, why }: HandOver, now: Moment) {
        self.evidence.handed_over = Some(now);
        match self.consensus.transfer_to(&to).await {
            Ok(()) => tracing::warn!(%to, %why, "handed the lead over"),
            Err(error) => tracing::warn!(%to, %why, %error, "the lead could not be handed over"),
        }
    }
}
