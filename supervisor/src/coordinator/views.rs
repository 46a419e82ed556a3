//! What hosts are told of the view: what has changed, and what is declared where they do not know that.
//!
//! What is declared of thousands of guests is megabytes, and all hosts want it at once after an `apply`. So it is written down and
//! packed once, and goes out no faster than a network bears. No lease and no order waits for it: a reply for which there is no
//! room goes without, and the host asks again with its next sync.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use holdfast_policies::{
    feature_level::FeatureLevel,
    model::Policies,
    news::{News, Teller, ViewMark},
    reply::is_news,
    state::ClusterState,
    sync::SyncRequest,
    time::{Moment, millis},
};
use tokio::time::timeout;

use crate::{node::Node, packed::pack};

/// Bytes of views that go out in a millisecond, in the long run: a quarter of what 1 Gbit/s carries.
const BYTES_PER_MS: usize = 32 * 1024;

/// Bytes that may go out at once after some rest. One that is larger waits until there is as much room as this.
const BYTES_AT_ONCE: usize = 8 * 1024 * 1024;

/// How long a sync is kept for what is declared to be written down. That of some hundred guests takes less; a lease waits for no more,
/// and whoever goes without asks again within a quarter of a second.
const WAIT_MAX: Duration = Duration::from_millis(20);

/// About as long as a guest's or a host's place is in JSON, in bytes.
const LINE_BYTES: usize = 64;

/// What is known of the view, and how much of it may go out; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Views {
    kept: Arc<Mutex<Kept>>,
    written: Arc<tokio::sync::Mutex<Option<Declared>>>,
}

#[derive(Default)]
struct Kept {
    teller: Teller,
    room: Room,
}

/// What is declared, as it is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    of: ViewMark,
    text: Arc<str>,
}

impl Views {
    /// What is declared, if it is news to whoever asks, and is written down by now or in a moment.
    pub(super) async fn declared(&self, node: &Arc<Node>, request: &SyncRequest) -> Option<Declared> {
        let known = request.has_view?;
        let is_wanted = |state: &ClusterState| is_news(state, request) && !known.declares_as(ViewMark::of(state));
        if !node.read(is_wanted) {
            return None;
        }
        timeout(WAIT_MAX, self.written_down(node)).await.ok().flatten()
    }

    /// Whoever comes first has it written down, on a thread that goes on also when nobody waits any more: whoever comes next finds it.
    async fn written_down(&self, node: &Arc<Node>) -> Option<Declared> {
        let mut written = Arc::clone(&self.written).lock_owned().await;
        let of = node.read(ViewMark::of);
        if let Some(declared) = written.as_ref().filter(|declared| declared.of.declares_as(of)) {
            return Some(declared.clone());
        }
        let node = Arc::clone(node);
        let writing = tokio::task::spawn_blocking(move || {
            let (of, policies) = node.read(|state| (ViewMark::of(state), state.policies.clone()));
            match write_down(&policies) {
                Ok(text) => *written = Some(Declared { of, text: text.into() }),
                Err(error) => {
                    tracing::error!(error, "what is declared cannot be written down");
                    return None;
                }
            }
            written.clone()
        });
        writing.await.ok().flatten()
    }

    /// What is new to whoever asks, in a reply of this term; `None` when nothing is, or there is no room at the moment.
    pub(super) fn news(
        &self,
        state: &ClusterState,
        request: &SyncRequest,
        term: u64,
        declared: Option<&Declared>,
        now: Moment,
    ) -> Option<News> {
        // Most know everything: those wait for nobody whom something is told.
        let known = Teller::is_behind(state, request)?;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let mut news = kept.teller.news(state, request, term)?;
        let text = if known.declares_as(news.to) {
            None
        } else {
            // Something else may have been declared since it was written down.
            Some(&declared.filter(|declared| declared.of.declares_as(news.to))?.text)
        };
        if !kept.room.take(bytes(&news, text.map_or(0, |text| text.len())), now) {
            return None;
        }
        // Megabytes, and only now: for whoever goes without they would be copied in vain, again and again.
        news.declared = text.map(ToString::to_string);
        Some(news)
    }
}

fn bytes(news: &News, declared: usize) -> usize {
    let lines = news.homes.len().saturating_add(news.hosts.len()).saturating_mul(LINE_BYTES);
    declared.saturating_add(lines)
}

/// Whoever says which view it has can unpack.
fn write_down(policies: &Policies) -> Result<String, String> {
    let json = serde_json::to_vec(policies).map_err(|error| error.to_string())?;
    let packed = pack(json, FeatureLevel::PACKED).map_err(|error| error.to_string())?;
    String::from_utf8(packed).map_err(|error| error.to_string())
}

/// How much may go out.
#[derive(Debug)]
struct Room {
    left: usize,
    at: Moment,
}

impl Default for Room {
    fn default() -> Self {
        Self { left: BYTES_AT_ONCE, at: Moment(0) }
    }
}

impl Room {
    /// Takes so much, if there is as much.
    fn take(&mut self, bytes: usize, now: Moment) -> bool {
        let rested = usize::try_from(millis(now.since(self.at))).unwrap_or(usize::MAX);
        self.left = self.left.saturating_add(rested.saturating_mul(BYTES_PER_MS)).min(BYTES_AT_ONCE);
        self.at = self.at.max(now);
        if self.left < bytes.min(BYTES_AT_ONCE) {
            return false;
        }
        self.left = self.left.saturating_sub(bytes);
        true
    }
}

#[cfg(test)]
mod tests {
    use holdfast_policies::{names::Epoch, sync::View};

    use super::*;
    use crate::desk::tests::{facts, failed_over, host};

    fn asks(known: Option<ViewMark>, known_view: u64) -> SyncRequest {
        SyncRequest { has_view: known, known_view, ..SyncRequest::of(host("h2"), facts("boot-h2", "h2")) }
    }

    fn declared(state: &ClusterState) -> Declared {
        Declared { of: ViewMark::of(state), text: write_down(&state.policies).unwrap().into() }
    }

    #[test]
    fn a_host_is_told_everything_once_and_then_what_has_changed() {
        let (views, mut state) = (Views::default(), failed_over());
        let none = asks(Some(ViewMark::default()), 0);
        assert_eq!(views.news(&state, &none, 1, None, Moment(1)), None, "nobody has written down what is declared yet");
        let all = views.news(&state, &none, 1, Some(&declared(&state)), Moment(1)).unwrap();
        let policies: Policies = serde_json::from_str(all.declared.as_ref().unwrap()).unwrap();
        let view = all.onto(&View::default(), Some(policies.into())).unwrap();
        assert_eq!((&*view.policies, view.index), (&state.policies, state.view_changed));
        let knows = asks(view.mark, view.index);
        assert_eq!(views.news(&state, &knows, 1, None, Moment(2)), None);
        let guard_is_behind = asks(view.mark, 0);
        assert_eq!(views.news(&state, &guard_is_behind, 1, None, Moment(2)), None, "it has it already");
        state.applied += 1;
        state.view_changed = state.applied;
        let (gone, _) = state.hosts.pop_last().unwrap();
        let news = views.news(&state, &knows, 1, None, Moment(3)).unwrap();
        assert_eq!((news.declared.as_ref(), news.homes.len(), news.hosts.len()), (None, 0, 1));
        assert_eq!(news.hosts.get(&gone), Some(&None));
        assert_eq!(views.news(&state, &asks(None, 0), 1, None, Moment(3)), None, "it wants the view whole");
    }

    #[test]
    fn a_leader_trusts_nothing_that_it_noted_in_an_earlier_term() {
        let (views, mut state) = (Views::default(), failed_over());
        let all =
            views.news(&state, &asks(Some(ViewMark::default()), 0), 1, Some(&declared(&state)), Moment(1)).unwrap();
        // Another leader has had a guest moved and told a host of it; it has come back since, and nobody has told that host.
        state.applied += 10;
        state.view_changed = state.applied;
        let between = ViewMark { index: all.to.index + 5, ..all.to };
        let news = views.news(&state, &asks(Some(between), between.index), 3, None, Moment(1_000)).unwrap();
        assert_eq!(news.after, None);
        assert!(
            news.homes.values().all(Option::is_some)
                && news.homes.values().flatten().all(|(_, at)| *at > Epoch::default())
        );
    }

    #[test]
    fn no_more_goes_out_than_a_network_bears_and_it_goes_on_after_a_rest() {
        let mut room = Room::default();
        let large = BYTES_AT_ONCE / 4;
        let taken = (0..100).filter(|_| room.take(large, Moment(50_000))).count();
        assert_eq!(taken, 4);
        assert!(!room.take(large, Moment(50_001)));
        let later = 50_000 + u64::try_from(large / BYTES_PER_MS).unwrap();
        assert!(room.take(large, Moment(later)));
        assert!(!room.take(2 * BYTES_AT_ONCE, Moment(later + 10)));
        assert!(
            room.take(2 * BYTES_AT_ONCE, Moment(later + 10_000)),
            "what is larger than all waits, and not for ever"
        );
    }
}
