//! Sealed UDP datagrams: gossip, the guard's beacon and nudges, over one socket.
//!
//! ```text
//!  message ─► seal: fragments of ≤ 1200 bytes, each encrypted and authenticated ─► UDP
//!  UDP ─► open (key) ─► sessions (replay) ─► heard (proof of life) ─► reassembly ─► gossip | beacons | nudges
//! ```
//!
//! A sender is a (host, role): the supervisor and the guard of one host are two processes with a session each.
//! Every datagram carries the sender's incarnation under the seal, so that each one proves life of one boot of one
//! host (R16, R17). Whatever fails a step is dropped and counted by its reason; nothing from the network is an error.
//!
//! What the seal does not give. All hosts share the cluster's key, so a host that was broken into can speak for
//! another until the key is rotated; in its own name it is not heard any more once it is revoked ([`Ears`]). Somebody who holds datagrams back, or who plays old ones to a receiver that has just
//! started, can make a dead host look alive for a while: that delays a recovery, and starts nothing twice.

mod buffer;
mod counters;
mod ears;
mod heard;
mod keyring;
mod losses;
mod reassembly;
mod receive;
mod replay;
mod seal;
mod socket;
mod stamp;

use holdfast_policies::names::{HostName, Incarnation};
use serde::{Deserialize, Serialize};

pub(crate) use buffer::make_room;
#[cfg(test)]
pub(crate) use buffer::tests::given;
pub use counters::{Counters, Refusal};
pub use ears::Ears;
pub use heard::{Heard, Life};
pub use keyring::{KEYS_MAX, KeyError, Keyring, create_key};
pub use losses::Losses;
pub use receive::{Message, Receiver};
pub use seal::{DATAGRAM_BYTES_MAX, FRAGMENT_BYTES_MAX, MESSAGE_BYTES_MAX, Opened, SealError, Sealer, open};
pub use socket::{BeaconReceived, Datagrams, GossipReceived, Nudged, Running, Sender};
pub use stamp::{start_stamp, unkept_stamp};

/// Which process of a host speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Role {
    /// The supervisor.
    Supervisor = 1,
    /// The guard.
    Guard = 2,
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// A gossip message.
    Gossip = 1,
    /// A sign of life with the lease that is left.
    Beacon = 2,
    /// A request to sync at once (R5).
    Nudge = 3,
}

/// Who seals.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The host's name.
    pub host: HostName,
    /// Which of its processes.
    pub role: Role,
    /// The host's boot.
    pub incarnation: Incarnation,
    /// Start of this process, from [`start_stamp`]: a later session of a sender supersedes every earlier one.
    pub started: u64,
}

/// A sign of life of one boot of one host. It gives no authority and carries only durations (R1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Beacon {
    /// The host that lives.
    pub host: HostName,
    /// Its boot.
    pub incarnation: Incarnation,
    /// How long the sending process has been up, in milliseconds.
    pub uptime_ms: u64,
    /// What is left of the lease, in milliseconds; zero when it ran out; none when none is held.
    pub lease_left_ms: Option<u64>,
}

/// A request to sync at once. It gives no authority: whoever gets it merely asks its coordinator earlier (R5).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nudge {
    /// Who shall sync.
    pub to: HostName,
}
