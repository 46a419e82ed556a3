//! Passwords of devices: read from a file each time, so that a changed one counts at once.

use std::{
    io,
    path::{Path, PathBuf},
};

use tokio::io::AsyncReadExt;

/// Longest password file, in bytes; IPMI knows at most 20.
const PASSWORD_BYTES_MAX: u64 = 256;

/// Why there is no password.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PasswordError {
    #[error("cannot read password file {path}")]
    Read {
        path: PathBuf,
        #[source]
        cause: io::Error,
    },
    #[error("password file {path} is readable by others than its owner (mode {mode:03o}): chmod 600 it")]
    Exposed { path: PathBuf, mode: u32 },
    #[error("password file {path} holds no single line of 1 to {PASSWORD_BYTES_MAX} bytes of text")]
    Odd { path: PathBuf },
}

/// Reads a password; the end of its line is not part of it.
///
/// # Errors
/// [`PasswordError`], none of which shows any part of the content.
pub(crate) async fn read(path: &Path) -> Result<String, PasswordError> {
    let failed = |cause| PasswordError::Read { path: path.to_owned(), cause };
    let file = tokio::fs::File::open(path).await.map_err(failed)?;
    // The open file is examined, not its name, so that it cannot be exchanged in between.
    let metadata = file.metadata().await.map_err(failed)?;
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
    if mode & 0o077 != 0 {
        return Err(PasswordError::Exposed { path: path.to_owned(), mode });
    }
    let mut content = Vec::new();
    file.take(PASSWORD_BYTES_MAX + 1).read_to_end(&mut content).await.map_err(failed)?;
    one_line(content).ok_or_else(|| PasswordError::Odd { path: path.to_owned() })
}

fn one_line(content: Vec<u8>) -> Option<String> {
    let too_long = u64::try_from(content.len()).is_ok_and(|length| length > PASSWORD_BYTES_MAX);
    let text = String::from_utf8(content).ok().filter(|_| !too_long)?;
    let line = text.strip_suffix('\n').unwrap_or(&text);
    let line = line.strip_suffix('\r').unwrap_or(line);
    let fine = !line.is_empty() && !line.contains(['\n', '\r', '\0']);
    fine.then(|| line.to_owned())
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;

    #[tokio::test]
    async fn a_password_file_that_others_can_read_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, "secret\n").unwrap();
        for (mode, fine) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&path).await.ok(), fine.then(|| "secret".to_owned()), "{mode:o}");
        }
    }

    #[test]
    fn only_the_end_of_the_line_is_trimmed() {
        assert_eq!(one_line(b" pass word \r\n".to_vec()).unwrap(), " pass word ");
        for bad in [&b""[..], b"\n", b"a\nb\n", &[0xff], &[b'x'; 257]] {
            assert_eq!(one_line(bad.to_vec()), None);
        }
    }
}
