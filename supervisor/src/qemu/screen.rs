//! The picture of a guest's screen that is kept when the guest is stopped because something is wrong with it.
//!
//! Of all that is kept it is the one thing that has to be asked for while QEMU lives, and so the one thing that a kill waits
//! for: at most [`TAKEN_WITHIN`], only of guests whose operator has given them a display, and only of a QEMU that has
//! answered a moment ago. Whoever cannot wait at all stops without it.
//!
//! QEMU writes the picture into the guest's folder, which lies on a tmpfs: a QEMU that hangs while it writes to a dead disk
//! could not be killed. It goes to the other things that are kept when no process of the guest is left.

use std::{fs::File, io::Read as _, path::Path, time::Duration};

use holdfast_policies::observe::GuestCondition;
use qapi::qmp;

use super::{monitor::MonitorClient, record::Files};

/// How long a kill waits for the picture. A screen of text takes QEMU 7.2 some 10 to 30 ms under software emulation, which
/// leaves room for large desktops and busy hosts; what takes longer is not worth a later start.
pub const TAKEN_WITHIN: Duration = Duration::from_millis(250);

/// Largest picture that is kept, in bytes. A screen of text takes a few KiB; the rest is for desktops with a photograph behind
/// them. What a guest shows it decides itself, and noise is not worth the disk.
pub const PICTURE_BYTES_MAX: usize = 2 << 20;

/// Has QEMU write a picture of the screen.
///
/// # Errors
/// Why there is none, for people. QEMU may still be writing one, which is then nobody's.
pub async fn take(monitor: &MonitorClient, files: &Files) -> Result<(), String> {
    match monitor.view().condition {
        GuestCondition::Running
        | GuestCondition::Paused { .. }
        | GuestCondition::IoError { .. }
        | GuestCondition::Panicked => {}
        GuestCondition::Exited { .. } => return Err("QEMU was gone".to_owned()),
        GuestCondition::Unknown { .. } => return Err("QEMU had not answered for a while".to_owned()),
        GuestCondition::Incoming | GuestCondition::Sent => return Err("the guest was being moved".to_owned()),
    }
    let screendump = qmp::screendump {
        device: None,
        // QEMU knows it from version 7.1 on, and refuses it before.
        format: Some(qmp::ImageFormat::png),
        head: None,
        filename: files.screen().display().to_string(),
    };
    monitor.execute(screendump, TAKEN_WITHIN).await.map_err(|error| error.to_string())?;
    Ok(())
}

/// What QEMU has written.
///
/// # Errors
/// It cannot be read, or is too large to be kept.
pub fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut picture = Vec::new();
    let most = u64::try_from(PICTURE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let read = File::open(path).and_then(|file| file.take(most).read_to_end(&mut picture));
    match read {
        Ok(length) if length > PICTURE_BYTES_MAX => Err(format!("it has more than {PICTURE_BYTES_MAX} bytes")),
        Ok(_) => Ok(picture),
        Err(error) => Err(format!("what QEMU wrote cannot be read: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_that_is_too_large_is_not_kept_and_one_that_is_not_there_is_told_of() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("screen.png");
        assert!(read(&path).unwrap_err().contains("cannot be read"));
        std::fs::write(&path, vec![b'x'; PICTURE_BYTES_MAX]).unwrap();
        assert_eq!(read(&path).map(|picture| picture.len()), Ok(PICTURE_BYTES_MAX));
        std::fs::write(&path, vec![b'x'; PICTURE_BYTES_MAX + 1]).unwrap();
        assert_eq!(read(&path).unwrap_err(), "it has more than 2097152 bytes");
    }
}
