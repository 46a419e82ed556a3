//! Seals messages into datagrams and opens datagrams: bytes in, bytes out, no clock and no socket.
//!
//! ```text
//! version kind role  key id  started  session  sequence  index count  name      nonce   sealed(incarnation, body)
//!    1     1    1      4        8        8        8        2     2    1 + n      24        1 + n + ≤ 1200 + 16
//! ╰──────────────────────── authenticated, in the clear ──────────────────────╯
//! ```
//! Numbers are little-endian. The fragments of a message have consecutive sequence numbers, so that `sequence − index`
//! names the message.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use chacha20poly1305::{
    XNonce,
    aead::{Aead as _, AeadInOut as _, Payload},
};
use holdfast_policies::{
    names::{HostName, Incarnation, NAME_BYTES_MAX},
    revocation::KeyId,
};

use super::{Identity, Kind, Refusal, Role, keyring::Keyring};

/// Most bytes of a message in one datagram: with header and seal it stays below 1450 bytes, so that no network in
/// use, overlays included, fragments it.
pub const FRAGMENT_BYTES_MAX: usize = 1200;

/// Most fragments of one message.
pub const FRAGMENTS_MAX: u16 = 55;

/// Longest message, in bytes: chitchat fills messages up to 65,507 bytes.
pub const MESSAGE_BYTES_MAX: usize = FRAGMENT_BYTES_MAX * FRAGMENTS_MAX as usize;

/// Longest datagram that we send, in bytes.
pub const DATAGRAM_BYTES_MAX: usize =
    FIXED_BYTES + NAME_BYTES_MAX + NONCE_BYTES + 1 + NAME_BYTES_MAX + FRAGMENT_BYTES_MAX + TAG_BYTES;

const VERSION: u8 = 1;
const FIXED_BYTES: usize = 36;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;

/// Why a message was not sealed.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// It is longer than [`MESSAGE_BYTES_MAX`].
    #[error("message of {bytes} bytes is longer than {MESSAGE_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// It does not fit the one datagram that it was to be.
    #[error("message of {bytes} bytes does not fit one datagram, which has room for {FRAGMENT_BYTES_MAX}")]
    TooLongForOne {
        /// Its length.
        bytes: usize,
    },
    /// The cipher refused.
    #[error("the cipher refused a fragment of {bytes} bytes")]
    Cipher {
        /// The fragment's length.
        bytes: usize,
    },
}

/// Seals the messages of one session of one process.
#[derive(Debug)]
pub struct Sealer {
    keyring: Arc<Keyring>,
    identity: Identity,
    session: u64,
    next: AtomicU64,
}

/// What a datagram says, once its seal was found to fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// What the message is.
    pub kind: Kind,
    /// Which host sent it.
    pub host: HostName,
    /// Which of its processes.
    pub role: Role,
    /// The host's boot.
    pub incarnation: Incarnation,
    /// Start stamp of the sending process.
    pub started: u64,
    /// Random number of the sending process.
    pub session: u64,
    /// Number of the datagram in its session.
    pub sequence: u64,
    /// Which fragment of its message.
    pub index: u16,
    /// How many fragments the message has.
    pub count: u16,
    /// The fragment.
    pub body: Vec<u8>,
}

impl Opened {
    /// The message within its session: the sequence number of its first fragment.
    #[must_use]
    pub fn message(&self) -> u64 {
        self.sequence.saturating_sub(u64::from(self.index))
    }
}

impl Sealer {
    /// A new session.
    #[must_use]
    pub fn new(keyring: Arc<Keyring>, identity: Identity) -> Self {
        Self { keyring, identity, session: rand::random(), next: AtomicU64::new(1) }
    }

    /// Who seals.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The keys under which this process seals and opens.
    #[must_use]
    pub fn key_ids(&self) -> BTreeSet<KeyId> {
        self.keyring.ids()
    }

    /// The datagrams of one message, at least one.
    ///
    /// # Errors
    /// [`SealError`]
    pub fn seal(&self, kind: Kind, message: &[u8]) -> Result<Vec<Vec<u8>>, SealError> {
        let count = u16::try_from(message.len().div_ceil(FRAGMENT_BYTES_MAX).max(1)).unwrap_or(u16::MAX);
        if count > FRAGMENTS_MAX {
            return Err(SealError::TooLong { bytes: message.len() });
        }
        let first = self.next.fetch_add(u64::from(count), Ordering::Relaxed);
        let mut fragments = message.chunks(FRAGMENT_BYTES_MAX);
        (0..count)
            .map(|index| {
                let (sequence, body) = (first + u64::from(index), fragments.next().unwrap_or_default());
                let mut datagram = Vec::with_capacity(DATAGRAM_BYTES_MAX);
                self.seal_fragment(kind, sequence, (index, count), body, &mut datagram).map(|()| datagram)
            })
            .collect()
    }

    /// The one datagram of a short message, in place of what is in `datagram`. Where that has room for
    /// [`DATAGRAM_BYTES_MAX`], nothing is allocated.
    ///
    /// # Errors
    /// [`SealError`]; then what is in `datagram` is not to be sent.
    pub fn seal_into(&self, kind: Kind, message: &[u8], datagram: &mut Vec<u8>) -> Result<(), SealError> {
        if message.len() > FRAGMENT_BYTES_MAX {
            return Err(SealError::TooLongForOne { bytes: message.len() });
        }
        self.seal_fragment(kind, self.next.fetch_add(1, Ordering::Relaxed), (0, 1), message, datagram)
    }

    fn seal_fragment(
        &self,
        kind: Kind,
        sequence: u64,
        (index, count): (u16, u16),
        body: &[u8],
        datagram: &mut Vec<u8>,
    ) -> Result<(), SealError> {
        let key = self.keyring.sealing();
        datagram.clear();
        datagram.extend([VERSION, kind as u8, self.identity.role as u8]);
        datagram.extend(key.id);
        datagram.extend(self.identity.started.to_le_bytes());
        datagram.extend(self.session.to_le_bytes());
        datagram.extend(sequence.to_le_bytes());
        datagram.extend(index.to_le_bytes());
        datagram.extend(count.to_le_bytes());
        write_name(datagram, self.identity.host.as_str());
        let header_bytes = datagram.len();

        let nonce: [u8; NONCE_BYTES] = rand::random();
        datagram.extend(nonce);
        write_name(datagram, self.identity.incarnation.as_str());
        datagram.extend(body);
        let refused = || SealError::Cipher { bytes: body.len() };
        let (clear, plain) = datagram.split_at_mut_checked(header_bytes + NONCE_BYTES).ok_or_else(refused)?;
        let header = clear.get(..header_bytes).unwrap_or_default();
        let sealed = key.cipher.encrypt_inout_detached(&XNonce::from(nonce), header, plain.into());
        let tag = sealed.map_err(|_| refused())?;
        datagram.extend(tag.as_slice());
        Ok(())
    }
}

/// Opens one datagram. Says nothing about whether it is fresh.
///
/// # Errors
/// The [`Refusal`] that it is to be counted under.
pub fn open(keyring: &Keyring, datagram: &[u8]) -> Result<Opened, Refusal> {
    if datagram.len() > DATAGRAM_BYTES_MAX {
        return Err(Refusal::Oversize);
    }
    let (key_id, mut opened, header_bytes) = read_header(datagram).ok_or(Refusal::Malformed)?;
    let key = keyring.with_id(key_id).ok_or(Refusal::UnknownKey)?;
    let (header, rest) = datagram.split_at_checked(header_bytes).ok_or(Refusal::Malformed)?;
    let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>().ok_or(Refusal::Malformed)?;
    let plain = key
        .cipher
        .decrypt(&XNonce::from(*nonce), Payload { msg: sealed, aad: header })
        .map_err(|_| Refusal::Unauthenticated)?;
    let mut reader = Reader(&plain);
    opened.incarnation = reader.name().and_then(|name| Incarnation::new(name).ok()).ok_or(Refusal::Malformed)?;
    opened.body = reader.0.to_vec();
    if opened.body.len() > FRAGMENT_BYTES_MAX { Err(Refusal::Oversize) } else { Ok(opened) }
}

/// The key id, what the header says, and the header's length. Incarnation and body are still to be filled in.
fn read_header(datagram: &[u8]) -> Option<([u8; 4], Opened, usize)> {
    let mut reader = Reader(datagram);
    let [version, kind, role] = reader.take()?;
    let key_id = reader.take()?;
    let opened = Opened {
        kind: read_kind(kind)?,
        role: read_role(role)?,
        started: u64::from_le_bytes(reader.take()?),
        session: u64::from_le_bytes(reader.take()?),
        sequence: u64::from_le_bytes(reader.take()?),
        index: u16::from_le_bytes(reader.take()?),
        count: u16::from_le_bytes(reader.take()?),
        host: HostName::new(reader.name()?).ok()?,
        incarnation: Incarnation::new("0").ok()?,
        body: Vec::new(),
    };
    let sound = version == VERSION
        && opened.index < opened.count
        && opened.count <= FRAGMENTS_MAX
        && opened.sequence > u64::from(opened.index);
    sound.then_some((key_id, opened, datagram.len() - reader.0.len()))
}

fn read_kind(byte: u8) -> Option<Kind> {
    [Kind::Gossip, Kind::Beacon, Kind::Nudge].into_iter().find(|kind| *kind as u8 == byte)
}

fn read_role(byte: u8) -> Option<Role> {
    [Role::Supervisor, Role::Guard].into_iter().find(|role| *role as u8 == byte)
}

/// Names are at most [`NAME_BYTES_MAX`] bytes, which their types promise; the length fits one byte.
fn write_name(to: &mut Vec<u8>, name: &str) {
    to.push(u8::try_from(name.len()).unwrap_or(0));
    to.extend(name.as_bytes());
}

/// Takes things off the front of bytes.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }

    fn name(&mut self) -> Option<&'a str> {
        let [length] = self.take()?;
        let (head, rest) = self.0.split_at_checked(usize::from(length))?;
        self.0 = rest;
        std::str::from_utf8(head).ok()
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// A sealer of host `name` under `keys`.
    pub(in super::super) fn sealer(name: &str, role: Role, started: u64, keys: &[[u8; 32]]) -> Sealer {
        let identity = Identity {
            host: HostName::new(name).unwrap(),
            role,
            incarnation: Incarnation::new("boot-1").unwrap(),
            started,
        };
        Sealer::new(Arc::new(Keyring::new(keys).unwrap()), identity)
    }

    fn ring(keys: &[[u8; 32]]) -> Keyring {
        Keyring::new(keys).unwrap()
    }

    #[test]
    fn what_is_sealed_opens_with_its_sender_and_incarnation() {
        let sealer = sealer("hv-a", Role::Guard, 5, &[[1; 32]]);
        let datagrams = sealer.seal(Kind::Beacon, b"alive").unwrap();
        let opened = open(&ring(&[[1; 32]]), &datagrams[0]).unwrap();
        assert_eq!((opened.kind, opened.role, opened.host.as_str()), (Kind::Beacon, Role::Guard, "hv-a"));
        assert_eq!((opened.incarnation.as_str(), opened.body.as_slice()), ("boot-1", b"alive".as_slice()));
        assert_eq!((opened.started, opened.sequence, opened.index, opened.count), (5, 1, 0, 1));
        assert!(!datagrams[0].windows(5).any(|window| window == b"alive"));
    }

    /// Worked out from the frame that is drawn above, by another implementation of the cipher: what the version before there were feature
    /// levels sends. Hosts of two versions hear each other.
    #[test]
    fn a_datagram_of_an_older_version_opens_and_this_one_seals_in_the_same_frame() {
        const OLDER: &str = concat!(
            "010202acba5f81050000000000000007000000000000000100000000000000000001000468762d6100010203040506070809",
            "0a0b0c0d0e0f10111213141516177eb2b4eae9bce6f3c12e053b60104c929dc0b1afda67a2bb4e6f9ac3811d670adebd6cb3",
            "e2dc4f95060398e296b01db3bb0ecbf706c090176d0cd2d140365bb0cc03f4f9fb69154c34dbbd8133abf82b75eff3785826",
            "072f4ebb878e3edeef45d35e4e"
        );
        let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
        let datagram: Vec<u8> = OLDER.as_bytes().chunks(2).map(byte).collect();
        let opened = open(&ring(&[[1; 32]]), &datagram).unwrap();
        assert_eq!((opened.kind, opened.role, opened.host.as_str()), (Kind::Beacon, Role::Guard, "hv-a"));
        assert_eq!((opened.incarnation.as_str(), opened.started, opened.session), ("boot-1", 5, 7));
        assert_eq!((opened.sequence, opened.index, opened.count), (1, 0, 1));
        let beacon: super::super::Beacon = serde_json::from_slice(&opened.body).unwrap();
        assert_eq!((beacon.uptime_ms, beacon.lease_left_ms), (1_000, Some(3_500)));
        // Whoever reads them refuses keys that it does not know.
        assert_eq!(serde_json::to_vec(&beacon).unwrap(), opened.body);

        let sealer = sealer("hv-a", Role::Guard, 5, &[[1; 32]]);
        let sealed = sealer.seal(Kind::Beacon, &opened.body).unwrap().remove(0);
        assert_eq!((sealed.len(), &sealed[..15]), (datagram.len(), &datagram[..15]), "up to the session's number");
    }

    #[test]
    fn a_datagram_that_is_sealed_into_a_used_buffer_opens_and_the_buffer_has_not_grown() {
        let sealer = sealer("hv-a", Role::Guard, 5, &[[1; 32]]);
        let mut datagram = Vec::with_capacity(DATAGRAM_BYTES_MAX);
        let room = datagram.capacity();
        let long = vec![7; FRAGMENT_BYTES_MAX];
        for (number, body) in [long.as_slice(), b"".as_slice(), b"alive".as_slice()].into_iter().enumerate() {
            sealer.seal_into(Kind::Beacon, body, &mut datagram).unwrap();
            let opened = open(&ring(&[[1; 32]]), &datagram).unwrap();
            assert_eq!((opened.body.as_slice(), opened.sequence), (body, 1 + number as u64));
            assert_eq!((opened.index, opened.count, datagram.capacity()), (0, 1, room));
        }
        let too_long = sealer.seal_into(Kind::Beacon, &vec![7; FRAGMENT_BYTES_MAX + 1], &mut datagram);
        assert!(matches!(too_long, Err(SealError::TooLongForOne { .. })), "{too_long:?}");
    }

    #[test]
    fn no_byte_of_a_datagram_can_be_changed() {
        let datagram = sealer("hv-a", Role::Supervisor, 5, &[[1; 32]]).seal(Kind::Gossip, b"body").unwrap().remove(0);
        let ring = ring(&[[1; 32]]);
        for at in 0..datagram.len() {
            let mut tampered = datagram.clone();
            tampered[at] ^= 1;
            let refusal = open(&ring, &tampered).unwrap_err();
            match at {
                3..7 => assert_eq!(refusal, Refusal::UnknownKey),
                _ => assert!(matches!(refusal, Refusal::Unauthenticated | Refusal::Malformed), "byte {at}: {refusal}"),
            }
        }
        for length in 0..datagram.len() {
            assert!(open(&ring, &datagram[..length]).is_err());
        }
    }

    #[test]
    fn the_old_key_opens_during_a_rotation_and_another_key_never() {
        let (old, new, other) = ([1; 32], [2; 32], [3; 32]);
        let from_old = sealer("hv-a", Role::Supervisor, 1, &[old]).seal(Kind::Gossip, b"x").unwrap().remove(0);
        let from_new = sealer("hv-a", Role::Supervisor, 1, &[new, old]).seal(Kind::Gossip, b"x").unwrap().remove(0);
        assert_eq!(ring(&[new, old]).ids(), ring(&[old, new]).ids());
        assert!(ring(&[old]).ids().is_subset(&ring(&[new, old]).ids()) && ring(&[old]).ids() != ring(&[new]).ids());
        assert!(open(&ring(&[new, old]), &from_old).is_ok());
        assert!(open(&ring(&[old, new]), &from_new).is_ok());
        assert_eq!(open(&ring(&[old]), &from_new), Err(Refusal::UnknownKey));
        assert_eq!(open(&ring(&[other]), &from_old), Err(Refusal::UnknownKey));
    }

    #[test]
    fn the_longest_datagram_is_as_long_as_promised() {
        let long = "x".repeat(NAME_BYTES_MAX);
        let identity = Identity {
            host: HostName::new(long.clone()).unwrap(),
            role: Role::Supervisor,
            incarnation: Incarnation::new(long).unwrap(),
            started: 1,
        };
        let sealer = Sealer::new(Arc::new(ring(&[[1; 32]])), identity);
        let datagrams = sealer.seal(Kind::Gossip, &vec![7; MESSAGE_BYTES_MAX]).unwrap();
        assert_eq!(datagrams.len(), usize::from(FRAGMENTS_MAX));
        assert!(datagrams.iter().all(|datagram| datagram.len() == DATAGRAM_BYTES_MAX));
        const { assert!(DATAGRAM_BYTES_MAX <= 1410) };
        assert!(sealer.seal(Kind::Gossip, &vec![7; MESSAGE_BYTES_MAX + 1]).is_err());
        assert_eq!(open(&ring(&[[1; 32]]), &[0; DATAGRAM_BYTES_MAX + 1]), Err(Refusal::Oversize));
    }

    proptest::proptest! {
        #[test]
        fn garbage_never_opens_and_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..1500)) {
            proptest::prop_assert!(open(&ring(&[[1; 32]]), &bytes).is_err());
        }
    }
}
