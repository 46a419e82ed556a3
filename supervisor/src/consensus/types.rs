//! The types that openraft is instantiated with; outside this folder nobody needs to know them.

use std::{fmt, net::SocketAddr};

use holdfast_policies::names::HostName;
use serde::{Deserialize, Serialize};

openraft::declare_raft_types!(
    /// Entries and replies are bytes; their meaning is the machine's alone.
    pub(super) Types:
        D = EntryBytes,
        R = Vec<u8>,
        NodeId = u64,
        Node = Place,
);

pub(super) type Vote = openraft::alias::VoteOf<Types>;
pub(super) type Entry = openraft::alias::EntryOf<Types>;
pub(super) type LogId = openraft::alias::LogIdOf<Types>;
pub(super) type Membership = openraft::alias::StoredMembershipOf<Types>;
pub(super) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;
pub(super) type Snapshot = openraft::alias::SnapshotOf<Types, Vec<u8>>;

/// Who a raft node is and where it listens; kept in the committed membership, which alone counts after birth (R23).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// The host, as its certificate names it.
    pub host: HostName,
    /// Where its supervisor listens for RPC.
    pub address: SocketAddr,
}

/// One proposed entry.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct EntryBytes(#[serde(with = "bytes_as_text")] pub Vec<u8>);

impl fmt::Debug for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for EntryBytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// Bytes in JSON: as a string when they are UTF-8, which entries and snapshots in JSON always are, and as an array of
/// numbers, four times as long, when they are not.
pub(super) mod bytes_as_text {
    use std::fmt;

    use serde::{
        Deserializer, Serializer,
        de::{Error, SeqAccess, Visitor},
    };

    /// First reservation for an array, in bytes; it grows only as elements really come.
    const FIRST_RESERVATION: usize = 64 * 1024;

    pub(in super::super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(bytes) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => serializer.collect_seq(bytes),
        }
    }

    pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        deserializer.deserialize_any(Bytes)
    }

    struct Bytes;

    impl<'de> Visitor<'de> for Bytes {
        type Value = Vec<u8>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a string or an array of bytes")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
            Ok(text.as_bytes().to_vec())
        }

        fn visit_string<E: Error>(self, text: String) -> Result<Vec<u8>, E> {
            Ok(text.into_bytes())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Vec<u8>, A::Error> {
            let mut bytes = Vec::with_capacity(elements.size_hint().unwrap_or(0).min(FIRST_RESERVATION));
            while let Some(byte) = elements.next_element()? {
                bytes.push(byte);
            }
            Ok(bytes)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_json_whether_text_or_not() {
        for bytes in [b"{\"a\":\"\xc3\xa9\"}".to_vec(), vec![0, 255, 128, 10], vec![]] {
            let json = serde_json::to_string(&EntryBytes(bytes.clone())).unwrap();
            assert_eq!(serde_json::from_str::<EntryBytes>(&json).unwrap().0, bytes);
        }
    }
}
