//! Room for all supervisors that gossip knows, in the one message in which each member names them.
//!
//! To chitchat every start of a supervisor is another member, and each message that begins an exchange names all that it knows, those
//! among them that died a while ago. It does not reckon with more of them than a message holds: shortly before that it ends by an
//! assertion, however often it begins anew; beyond it nothing of what it says can be sent. One host whose supervisor cannot start and
//! tries again and again would bring all others there. So what would name too many is not taken in, until some are forgotten.

use std::sync::{Arc, OnceLock};

use chitchat::{Chitchat, ChitchatId, Deserializable as _, Serializable as _};
use tokio::sync::Mutex;

/// Most bytes that all known members take in a message: a thousand with names of twenty letters, so that five hundred hosts may restart
/// at once. The rest of the 65,507 that chitchat fills is room for the longest fact (some 4,350).
const NAMED_BYTES_MAX: usize = 61_000;

/// What stands behind each member's id: its heartbeat and two versions, of 8 bytes each.
const STATE_BYTES: usize = 24;

/// The room that is left.
#[derive(Default)]
pub(super) struct Room(OnceLock<Arc<Mutex<Chitchat>>>);

impl Room {
    /// Knows from here on whom this one knows.
    pub(super) fn of(&self, chitchat: Arc<Mutex<Chitchat>>) {
        // There is one for each, and it is told once.
        let _ = self.0.set(chitchat);
    }

    /// Whether there is room for those whom a message names and who are not known. Nothing is lost by dropping this.
    pub(super) async fn has(&self, message: &[u8]) -> bool {
        // What names nobody needs no room, and what cannot be read is refused by whoever reads it.
        let Some(named) = named(message) else { return true };
        // It is just being started; whoever has begun an exchange does so again.
        let Some(chitchat) = self.0.get() else { return false };
        let chitchat = chitchat.lock().await;
        let known = chitchat.node_states();
        let strange = named.iter().filter(|id| !known.contains_key(*id));
        known.keys().chain(strange).map(bytes).sum::<usize>() <= NAMED_BYTES_MAX
    }
}

fn bytes(id: &ChitchatId) -> usize {
    id.serialized_len() + STATE_BYTES
}

/// Those whom a message names, if it is one that begins an exchange, or the answer to one:
///
/// ```text
/// magic  version  kind  count  (name, start, address, state) …   and what is none of our business
///   2       1      1      2
/// ```
fn named(message: &[u8]) -> Option<Vec<ChitchatId>> {
    let (head, rest) = message.split_first_chunk::<4>()?;
    let [_, _, 0, 0 | 1] = head else { return None };
    digest(rest).map(|(named, _)| named)
}

/// Whom a message names after its kind, and what follows.
pub(super) fn digest(message: &[u8]) -> Option<(Vec<ChitchatId>, &[u8])> {
    let (count, mut rest) = message.split_first_chunk::<2>()?;
    let mut named = Vec::new();
    for _ in 0..u16::from_le_bytes(*count) {
        named.push(ChitchatId::deserialize(&mut rest).ok()?);
        rest = rest.get(STATE_BYTES..)?;
    }
    Some((named, rest))
}
