//! A supervisor that watches itself: one that is late, or hears little, doubts what it has seen, and says so.

use std::{sync::Arc, time::Duration};

use tokio::time::MissedTickBehavior;

use crate::{clock, node::Node};

/// How often the supervisor looks whether its own loop is late: several times in the shortest silence that counts.
const EVERY: Duration = Duration::from_millis(100);

/// A loop that is late, or whose link loses much, doubts what it has seen: silence may be its own.
pub(super) async fn watch(node: Arc<Node>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut last = clock::moment();
    let mut told: Option<String> = None;
    loop {
        tick.tick().await;
        let now = clock::moment();
        let late = now.since(last).saturating_sub(EVERY);
        node.metrics.set_loop_late(late);
        if late >= node.file.timing.wonder_after.0 {
            tracing::warn!(late_ms = late.as_millis(), "this supervisor was late; it doubts itself for a while");
            node.health.doubt(now);
        }
        node.health.looked(now);
        node.health.note_connected(node.hears_majority(now), now);
        node.health.note_losing(node.losing(now));
        let unwell = node.health.unwell(now);
        if unwell != told {
            tell(&node, unwell.as_deref()).await;
            told = unwell;
        }
        last = now;
    }
}

/// Has all others hear why this host is not well, or that it is again.
async fn tell(node: &Node, unwell: Option<&str>) {
    let Some(why) = unwell else {
        node.gossip.remove("unwell").await;
        return;
    };
    if let Err(error) = node.gossip.set("unwell", why).await {
        tracing::debug!(%error, "self-doubt was not gossiped");
    }
}
