//! What a coordinator makes of itself: it may doubt what it sees, hand the lead over (R29), or give way to another one because nothing
//! that it decides gets to the others (L1).

use holdfast_policies::{decide::HandOver, giving_way::GIVE_WAY_FOR, time::Moment};

use super::brain::Brain;
use crate::consensus::MembershipError;

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
        match self.consensus.transfer_to(&to).await {
            // Nothing has begun: it is tried in the next turn, unless this coordinator gives way.
            Err(MembershipError::Uncommitted) => return,
            Ok(()) => tracing::warn!(%to, %why, "handed the lead over"),
            Err(error) => tracing::warn!(%to, %why, %error, "the lead could not be handed over"),
        }
        self.evidence.handed_over = Some(now);
    }

    /// L1: over a link that carries heartbeats and nothing else a leader would lead, and grant leases, for ever. Nobody is named as the
    /// next one, because whoever is named would have to get all that this one has; an unwell one hands the lead on (R29).
    pub(super) fn give_way(&mut self, now: Moment) {
        let Some(undecided) = self.giving_way.look(self.consensus.progress(), now) else { return };
        let time = GIVE_WAY_FOR.min(self.node.file.timing.lease.0 / 2);
        tracing::warn!(
            ?undecided,
            ?time,
            "nothing that this coordinator decides gets to the other voters: it gives way"
        );
        self.consensus.give_way(time);
    }
}
