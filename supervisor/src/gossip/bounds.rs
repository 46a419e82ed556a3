//! How much may be said by gossip. chitchat takes in whatever comes: a message of some kilobytes can unfold to hundreds of megabytes, and
//! one after the other can add to what it knows. Whoever has the gossip key could so take a host the memory that its guests need.

use std::time::Duration;

use chitchat::Chitchat;
use tokio::time::Instant;

use super::{OWN_BYTES_MAX, room::digest};

/// Most blocks of facts in a message. chitchat fills each with 16 KiB before it is packed, which makes 2 MiB, some kilobytes for each
/// host of a large cluster; whoever means harm gets 8 MiB out of them.
const BLOCKS_MAX: usize = 128;

/// Most blocks of facts that are taken in within [`FLOW_TIME`]: 64 MiB at most, as they unfold. How much is known is looked at as
/// often, so that it is not far more by then. All that hundreds of hosts say reaches one that is new within some seconds.
const FLOW_BLOCKS_MAX: usize = 1_024;

/// For how long what is taken in is counted.
const FLOW_TIME: Duration = Duration::from_secs(1);

/// Most bytes that all members may have said: as much as each of 512 hosts may say.
pub(super) const KNOWN_BYTES_MAX: usize = 512 * OWN_BYTES_MAX;

/// About what is kept beside each fact, in bytes.
const BESIDE_BYTES: usize = 128;

/// Whether the facts in a message unfold to no more than may be. What cannot be read is refused by whoever reads it.
///
/// ```text
/// magic  version  kind     answer: whom it names     (1 or 2, length, bytes) …   0
///   2       1      1                                       1     2
/// ```
pub(super) fn is_bounded(message: &[u8]) -> bool {
    blocks_in(message) <= BLOCKS_MAX
}

/// How much has been taken in of late.
#[derive(Debug)]
pub(super) struct Flow {
    since: Instant,
    blocks: usize,
}

impl Flow {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, blocks: 0 }
    }

    /// Whether a message may be taken in that comes now. One that may not is lost, as any datagram may be: what it says is said again.
    pub(super) fn takes(&mut self, message: &[u8], now: Instant) -> bool {
        if now.duration_since(self.since) >= FLOW_TIME {
            *self = Self::new(now);
        }
        let blocks = self.blocks.saturating_add(blocks_in(message));
        let fits = blocks <= FLOW_BLOCKS_MAX;
        if fits {
            self.blocks = blocks;
        }
        fits
    }
}

/// How many blocks of facts are in a message.
fn blocks_in(message: &[u8]) -> usize {
    let Some((head, rest)) = message.split_first_chunk::<4>() else { return 0 };
    let facts = match head {
        [_, _, 0, 1] => digest(rest).map(|(_, facts)| facts),
        [_, _, 0, 2] => Some(rest),
        _ => None,
    };
    facts.map_or(0, blocks)
}

fn blocks(mut facts: &[u8]) -> usize {
    let mut count = 0;
    while let [1 | 2, low, high, rest @ ..] = facts {
        count += 1;
        let length = usize::from(u16::from_le_bytes([*low, *high]));
        facts = rest.get(length..).unwrap_or_default();
    }
    count
}

/// About how many bytes all that is known takes.
pub(super) fn known_bytes(chitchat: &Chitchat) -> usize {
    let facts = chitchat.node_states().values().flat_map(|state| state.key_values_including_deleted());
    facts.map(|(key, value)| key.len() + value.value.len() + BESIDE_BYTES).sum()
}
