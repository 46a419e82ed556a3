//! What a secret file must be, for whoever reads one: closed to others, and one line.

use std::path::{Path, PathBuf};

/// Longest secret file, in bytes: no password is longer, and a bearer token fits.
pub const SECRET_BYTES_MAX: u64 = 4096;

/// Why the content of a file is no secret.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum NoSecret {
    /// Others than its owner may read it.
    #[error("password file {path} is readable by others than its owner (mode {mode:03o}): chmod 600 it")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is empty, too long, no text, or has several lines.
    #[error("password file {path} holds no single line of 1 to {most} bytes of text")]
    Odd {
        /// The file.
        path: PathBuf,
        /// Longest secret.
        most: u64,
    },
}

/// Whether the mode of a file keeps others out.
///
/// # Errors
/// [`NoSecret::Exposed`].
pub fn closed(path: &Path, mode: u32) -> Result<(), NoSecret> {
    let mode = mode & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(NoSecret::Exposed { path: path.to_owned(), mode }) }
}

/// The one line of a file; its end is not part of it.
///
/// # Errors
/// [`NoSecret::Odd`], which shows no part of the content.
pub fn one_line(path: &Path, content: Vec<u8>, most: u64) -> Result<String, NoSecret> {
    let odd = || NoSecret::Odd { path: path.to_owned(), most };
    let too_long = u64::try_from(content.len()).is_ok_and(|length| length > most);
    let text = String::from_utf8(content).ok().filter(|_| !too_long).ok_or_else(odd)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let fine = !line.is_empty() && !line.contains(['\n', '\r', '\0']);
    fine.then(|| line.to_owned()).ok_or_else(odd)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_the_line_is_trimmed() {
        let of = |bytes: &[u8]| one_line(Path::new("p"), bytes.to_vec(), 256).ok();
        assert_eq!(of(b" pass word \r\n").unwrap(), " pass word ");
        for bad in [&b""[..], b"\n", b"a\nb\n", &[0xff], &[b'x'; 257]] {
            assert_eq!(of(bad), None);
        }
    }

    #[test]
    fn a_file_that_others_can_read_is_refused() {
        for (mode, fine) in [(0o100_600, true), (0o400, true), (0o640, false), (0o604, false)] {
            assert_eq!(closed(Path::new("p"), mode).is_ok(), fine, "{mode:o}");
        }
    }
}
