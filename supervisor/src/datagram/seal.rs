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
pub(super) mod tests;
