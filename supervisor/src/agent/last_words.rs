//! Last words: why this host's guests are stopped at the end of its lease, said to whoever can still be reached, before the
//! guard stops them and once it has. Gossip carries them, since the coordinator is what cannot be reached then.
//!
//! ```text
//!           ┌──────┐ lease held  ┌──────┐ little left of it, or nothing  ┌──────┐
//!   ──────► │ None │ ──────────► │ Held │ ─────────────────────────────► │ Lost │
//!           └──────┘             └──────┘ ◄───────────────────────────── └──────┘
//!                                           held again: words taken back
//! ```

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use holdfast_policies::{
    evidence::LAST_WORDS_BYTES_MAX,
    names::GuestName,
    observe::{GuestCondition, clean, clean_to},
};
use tokio::time::{MissedTickBehavior, interval};

use super::guarded::Guarded;
use crate::{
    causes::with_causes,
    gossip::Gossip,
    guard::{note_told, untold},
    node::Node,
};

/// The gossip key.
pub const KEY: &str = "last_words";

/// How often it is looked how much of the lease is left: words that are said a round of gossip before the end are heard.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How much of the lease is little. A lease is renewed several times a second, so it is only reached when that fails; and
/// gossip needs some rounds of 200 ms.
const LITTLE: Duration = Duration::from_secs(1);

/// Sentences kept until the lease is held again: one before the end, and one or two when the guests are gone.
const SENTENCES_MAX: usize = 8;

/// Lines of earlier boots that are gossiped: what was said at the end of the last lease. All of them are logged.
const TOLD_MAX: usize = 2;

/// Guests named in a sentence; the others are counted.
const NAMED_MAX: usize = 6;

/// What has been said since the lease was last held, and what keeps it from being renewed; cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct LastWords(Arc<Known>);

#[derive(Debug, Default)]
struct Known {
    trouble: Mutex<Option<String>>,
    /// Held until gossip says the same: between the two somebody else would take back what is only then said.
    said: tokio::sync::Mutex<Vec<String>>,
}

impl LastWords {
    /// Notes what came of the newest try to renew the lease; none: it went well.
    pub fn note_trouble(&self, trouble: Option<&str>) {
        *self.known_trouble() = trouble.map(clean);
    }

    /// Says a sentence, after those that were said before it.
    pub async fn say(&self, gossip: &Gossip, sentence: String) {
        let mut said = self.0.said.lock().await;
        let all = with(&mut said, sentence);
        if let Err(error) = gossip.set(KEY, &all).await {
            tracing::debug!(%error, "last words were not gossiped");
        }
    }

    /// They were not the last ones.
    async fn take_back(&self, gossip: &Gossip) {
        let mut said = self.0.said.lock().await;
        if !said.is_empty() {
            said.clear();
            gossip.remove(KEY).await;
        }
    }

    fn trouble(&self) -> Option<String> {
        self.known_trouble().clone()
    }

    fn known_trouble(&self) -> MutexGuard<'_, Option<String>> {
        self.0.trouble.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Adds a sentence, as long as there is room; all of them as they are gossiped.
fn with(said: &mut Vec<String>, sentence: String) -> String {
    if said.len() < SENTENCES_MAX {
        said.push(sentence);
    }
    clean_to(&said.join("; "), LAST_WORDS_BYTES_MAX)
}

/// Watches the lease for as long as the supervisor runs.
pub async fn watch(node: Arc<Node>, guarded: Guarded, words: LastWords) {
    let little = LITTLE.min(node.file.timing.lease.0 / 4);
    let mut tick = interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut lease = Lease::None;
    loop {
        tick.tick().await;
        let left = node.lease.left();
        match lease.look(left, little) {
            Turn::Well => words.take_back(&node.gossip).await,
            Turn::Lost => say_why(&node, &guarded, &words, left).await,
            Turn::Nothing => {}
        }
    }
}

/// Says what guards of earlier boots have written down, which nobody may have heard before their host was reset. It is taken
/// back as all last words are, when this boot has a lease.
pub async fn tell_of_earlier_boots(node: Arc<Node>, words: LastWords) {
    let (folder, boot) = (node.file.state_dir.clone(), node.incarnation.clone());
    let read = move || {
        let lines = untold(&folder, &boot)?;
        // What cannot be noted as told is told again after the next start.
        if let Some(Err(error)) = lines.last().map(|line| note_told(&folder, line)) {
            tracing::warn!(error = with_causes(&error), "that last words were told cannot be kept");
        }
        Ok::<_, std::io::Error>(lines)
    };
    let lines = match tokio::task::spawn_blocking(read).await {
        Ok(Ok(lines)) => lines,
        Ok(Err(error)) => {
            tracing::warn!(error = with_causes(&error), "last words of earlier boots cannot be read");
            return;
        }
        // The supervisor ends.
        Err(_) => return,
    };
    for line in &lines {
        tracing::error!(line, "last words of the guard of an earlier boot");
    }
    if let Some(told) = of_earlier_boots(&lines) {
        words.say(&node.gossip, told).await;
    }
}

/// The newest of them, as many as fit.
fn of_earlier_boots(lines: &[String]) -> Option<String> {
    let newest: Vec<&str> = lines.iter().rev().take(TOLD_MAX).rev().map(String::as_str).collect();
    (!newest.is_empty()).then(|| format!("an earlier boot wrote down: {}", newest.join("; ")))
}

/// How it stands with the lease.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lease {
    /// None was held by this supervisor yet, so none can be lost.
    None,
    /// It is held, with enough left of it.
    Held,
    /// It has run out, or is about to; that was said.
    Lost,
}

/// What there is to do after a look at the lease.
#[derive(Debug, PartialEq, Eq)]
enum Turn {
    /// There is enough left of it.
    Well,
    /// It is about to run out, which is said once.
    Lost,
    /// Nothing is new.
    Nothing,
}

impl Lease {
    fn look(&mut self, left: Option<Duration>, little: Duration) -> Turn {
        let enough = left.is_some_and(|left| left > little);
        let (next, turn) = match (*self, enough) {
            (Self::None | Self::Held | Self::Lost, true) => (Self::Held, Turn::Well),
            (Self::Held, false) => (Self::Lost, Turn::Lost),
            (Self::None, false) => (Self::None, Turn::Nothing),
            (Self::Lost, false) => (Self::Lost, Turn::Nothing),
        };
        *self = next;
        turn
    }
}

/// Says why, if there are guests that are stopped at the end of the lease.
async fn say_why(node: &Node, guarded: &Guarded, words: &LastWords, left: Option<Duration>) {
    let stops = guarded.armed().0.is_some_and(|armed| armed.stops);
    let Some(driver) = node.driver.as_ref().filter(|_| stops) else { return };
    let reports = driver.inventory().await.unwrap_or_default();
    let running = reports.iter().filter(|report| !matches!(report.condition, GuestCondition::Exited { .. }));
    let guests: Vec<&GuestName> = running.map(|report| &report.guest).collect();
    if guests.is_empty() {
        return;
    }
    let why = sentence(left, words.trouble().as_deref(), &guests);
    tracing::error!(why, "the lease is not renewed, and this host is in stop mode");
    words.say(&node.gossip, why).await;
    // The last try to reach the coordinator.
    node.sync_now.notify_one();
}

fn sentence(left: Option<Duration>, trouble: Option<&str>, guests: &[&GuestName]) -> String {
    let lease = match left {
        Some(left) => format!("the lease runs out in {} ms", left.as_millis()),
        None => "the lease has run out".to_owned(),
    };
    let trouble = trouble.unwrap_or("no answer has come to the newest syncs");
    format!("{lease} and is not renewed ({trouble}); the guard then stops {}", named(guests))
}

/// Guests as people read them.
pub fn named(guests: &[&GuestName]) -> String {
    let mut names: Vec<String> = guests.iter().take(NAMED_MAX).map(ToString::to_string).collect();
    let others = guests.len().saturating_sub(NAMED_MAX);
    if others > 0 {
        names.push(format!("{others} more"));
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use tokio::time::timeout;

    use super::*;

    #[test]
    fn words_are_said_once_for_each_loss_of_a_lease_that_was_held_and_taken_back_when_it_is_held_again() {
        let mut lease = Lease::None;
        for (left_ms, turn) in [
            (None, Turn::Nothing),
            (Some(900), Turn::Nothing),
            (Some(4_000), Turn::Well),
            (Some(1_001), Turn::Well),
            (Some(1_000), Turn::Lost),
            (Some(200), Turn::Nothing),
            (None, Turn::Nothing),
            (Some(900), Turn::Nothing),
            (Some(4_000), Turn::Well),
            (None, Turn::Lost),
            (None, Turn::Nothing),
        ] {
            assert_eq!(lease.look(left_ms.map(Duration::from_millis), LITTLE), turn, "{left_ms:?}");
        }
    }

    #[test]
    fn the_words_name_what_is_wrong_and_whom_it_costs() {
        let names: Vec<GuestName> = (1..=8).map(|number| GuestName::new(format!("web-{number}")).unwrap()).collect();
        let guests: Vec<&GuestName> = names.iter().collect();
        let said = sentence(Some(Duration::from_millis(950)), Some("hv-b: no route to host"), &guests[..2]);
        let expected = "the lease runs out in 950 ms and is not renewed (hv-b: no route to host); the guard then stops \
                        web-1, web-2";
        assert_eq!(said, expected);
        let said = sentence(None, None, &guests);
        assert!(said.starts_with("the lease has run out and is not renewed (no answer"), "{said}");
        assert!(said.ends_with("web-5, web-6, 2 more"), "{said}");
    }

    #[test]
    fn of_what_earlier_boots_wrote_down_the_newest_is_gossiped() {
        let lines: Vec<String> = ["a", "b", "c"].map(str::to_owned).to_vec();
        assert_eq!(of_earlier_boots(&lines).as_deref(), Some("an earlier boot wrote down: b; c"));
        assert_eq!(of_earlier_boots(&[]), None);
    }

    #[test]
    fn what_is_said_later_follows_what_was_said_before_and_all_of_it_is_bounded() {
        let mut said = Vec::new();
        assert_eq!(with(&mut said, "cut off".to_owned()), "cut off");
        assert_eq!(with(&mut said, "web-1 is stopped".to_owned()), "cut off; web-1 is stopped");
        for _ in 0..100 {
            let all = with(&mut said, "x".repeat(100));
            assert!(all.len() <= LAST_WORDS_BYTES_MAX && all.starts_with("cut off; web-1 is stopped; xxx"), "{all}");
        }
    }

    /// What gossip says of the last words.
    async fn gossiped(gossip: &Gossip) -> Option<String> {
        gossip.members().await.into_values().find_map(|member| member.keys.get(KEY).cloned())
    }

    #[tokio::test]
    async fn words_are_taken_back_only_once_they_have_been_gossiped() {
        let node = crate::gossip::tests::node("hv-a", 1, 1, &[]).await;
        let (gossip, words) = (&node.gossip, LastWords::default());
        // Somebody has added a sentence, and gossip does not have it yet.
        let mut speaking = words.0.said.lock().await;
        let all = with(&mut speaking, "cut off".to_owned());
        let mut taking_back = pin!(words.take_back(gossip));
        assert!(timeout(Duration::from_millis(20), taking_back.as_mut()).await.is_err(), "it did not wait");
        gossip.set(KEY, &all).await.unwrap();
        drop(speaking);
        taking_back.await;
        assert_eq!(gossiped(gossip).await, None, "what was taken back is still gossiped");
        words.say(gossip, "cut off again".to_owned()).await;
        assert_eq!(gossiped(gossip).await.as_deref(), Some("cut off again"));
    }
}
