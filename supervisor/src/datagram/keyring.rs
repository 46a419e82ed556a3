//! The cluster's gossip keys: one, or two while they are being rotated. The first seals, all open.

use std::{
    collections::BTreeSet,
    fmt, fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use chacha20poly1305::{
    XChaCha20Poly1305, XNonce,
    aead::{Aead as _, KeyInit as _, Payload},
};
use holdfast_policies::revocation::KeyId;

/// Most keys held at once: the new one and the old one.
pub const KEYS_MAX: usize = 2;

/// Longest key file read, in bytes: 64 hex digits and room for white space.
const FILE_BYTES_MAX: u64 = 128;

/// What a key's id is derived from, together with the key.
const ID_LABEL: &[u8] = b"holdfast gossip key id";

/// Why keys could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file could not be read or made.
    #[error("gossip key file {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Others than the owner may read the file.
    #[error("gossip key file {path} has mode {mode:03o}; others than its owner may read it, use 600")]
    Exposed {
        /// Which.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file holds something else than a key.
    #[error("gossip key file {path} does not hold 64 hex digits")]
    NotAKey {
        /// Which.
        path: PathBuf,
    },
    /// None, or more than [`KEYS_MAX`].
    #[error("{count} gossip keys given; 1 or {KEYS_MAX} can be used")]
    Count {
        /// How many were given.
        count: usize,
    },
    /// Two files with one key.
    #[error("two gossip key files hold the same key")]
    Twice,
}

/// One key, ready for use.
pub(super) struct Key {
    /// Short name of the key on the wire; says nothing about the key.
    pub(super) id: [u8; 4],
    /// The cipher under the key.
    pub(super) cipher: XChaCha20Poly1305,
}

/// One or two keys.
pub struct Keyring {
    first: Key,
    second: Option<Key>,
}

impl Keyring {
    /// Reads keys from files of 64 hex digits, newest first.
    ///
    /// # Errors
    /// [`KeyError`], which names the file.
    pub fn load(paths: &[PathBuf]) -> Result<Self, KeyError> {
        let keys = paths.iter().map(|path| read_key(path)).collect::<Result<Vec<_>, _>>()?;
        Self::new(&keys)
    }

    /// A keyring of these keys, newest first.
    ///
    /// # Errors
    /// [`KeyError::Count`] or [`KeyError::Twice`].
    pub fn new(keys: &[[u8; 32]]) -> Result<Self, KeyError> {
        let (first, second) = match keys {
            [first] => (Key::new(first), None),
            [first, second] => (Key::new(first), Some(Key::new(second))),
            _ => return Err(KeyError::Count { count: keys.len() }),
        };
        if second.as_ref().is_some_and(|second| second.id == first.id) {
            return Err(KeyError::Twice);
        }
        Ok(Self { first, second })
    }

    /// The ids of all keys.
    #[must_use]
    pub fn ids(&self) -> BTreeSet<KeyId> {
        std::iter::once(&self.first).chain(self.second.as_ref()).map(|key| KeyId(key.id)).collect()
    }

    /// The key that seals.
    pub(super) fn sealing(&self) -> &Key {
        &self.first
    }

    /// The key with an id.
    pub(super) fn with_id(&self, id: [u8; 4]) -> Option<&Key> {
        std::iter::once(&self.first).chain(self.second.as_ref()).find(|key| key.id == id)
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring")
            .field("first", &self.first.id)
            .field("second", &self.second.as_ref().map(|key| key.id))
            .finish()
    }
}

impl Key {
    fn new(bytes: &[u8; 32]) -> Self {
        let cipher = XChaCha20Poly1305::new(&(*bytes).into());
        // The tag of a label under a nonce that no datagram will draw: a keyed derivation without another primitive.
        let tag = cipher.encrypt(&XNonce::from([0; 24]), Payload { msg: b"", aad: ID_LABEL }).unwrap_or_default();
        Self { id: tag.first_chunk().copied().unwrap_or_default(), cipher }
    }
}

/// Makes a new random key in a new file of mode 0600.
///
/// # Errors
/// [`KeyError::File`], also when the file exists.
pub fn create_key(path: &Path) -> Result<(), KeyError> {
    let fail = |source| KeyError::File { path: path.to_owned(), source };
    let mut text: String = rand::random::<[u8; 32]>().iter().map(|byte| format!("{byte:02x}")).collect();
    text.push('\n');
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(fail)?;
    file.write_all(text.as_bytes()).map_err(fail)?;
    file.sync_all().map_err(fail)
}

fn read_key(path: &Path) -> Result<[u8; 32], KeyError> {
    let fail = |source| KeyError::File { path: path.to_owned(), source };
    let file = fs::File::open(path).map_err(fail)?;
    // Asked of the open file, so that it cannot be exchanged between the question and the reading.
    let mode = file.metadata().map_err(fail)?.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(KeyError::Exposed { path: path.to_owned(), mode });
    }
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut text).map_err(fail)?;
    decode_hex(text.trim_ascii()).ok_or_else(|| KeyError::NotAKey { path: path.to_owned() })
}

fn decode_hex(text: &[u8]) -> Option<[u8; 32]> {
    let (pairs, rest) = text.as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    let bytes = pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect::<Option<Vec<u8>>>()?;
    bytes.try_into().ok()
}

fn digit(character: u8) -> Option<u8> {
    char::from(character).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_key_loads_and_an_exposed_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        create_key(&path).unwrap();
        assert!(create_key(&path).is_err(), "an existing key is never overwritten");
        Keyring::load(std::slice::from_ref(&path)).unwrap();
        assert!(matches!(Keyring::load(&[path.clone(), path.clone()]), Err(KeyError::Twice)));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(Keyring::load(&[path]), Err(KeyError::Exposed { mode: 0o640, .. })));
    }

    #[test]
    fn a_file_that_is_not_64_hex_digits_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        for bad in [String::new(), "0".repeat(63), "g".repeat(64), "0".repeat(66), "0".repeat(4096)] {
            fs::write(&path, bad).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
            assert!(matches!(Keyring::load(std::slice::from_ref(&path)), Err(KeyError::NotAKey { .. })));
        }
        assert!(matches!(Keyring::load(&[]), Err(KeyError::Count { count: 0 })));
    }
}
