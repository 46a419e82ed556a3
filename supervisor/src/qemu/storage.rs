//! What a guest needs of its host for itself alone: disk images, tap devices and its place on vsock (R28).

use std::{
    collections::BTreeSet,
    fs::OpenOptions,
    io,
    os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt},
    path::Path,
    time::Duration,
};

use holdfast_policies::{
    model::{QemuDefinition, VsockCarrier},
    names::GuestName,
};
use tokio::{task::spawn_blocking, time::timeout};

use super::net;

/// Longest time for looking at the disks; a storage that takes longer cannot carry a guest.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// What a guest's disks turned out to be.
#[derive(Debug, Clone, Default)]
pub struct Needs {
    /// What no other guest may use: images by identity, so that two paths to one image are one; and taps by name.
    pub exclusive: BTreeSet<String>,
    /// For each disk, whether its file can be opened past the page cache.
    pub direct: Vec<bool>,
}

/// Looks at what `definition` needs.
///
/// # Errors
/// The storage does not answer.
pub async fn look(guest: &GuestName, definition: &QemuDefinition) -> io::Result<Needs> {
    let (guest, definition) = (guest.clone(), definition.clone());
    match timeout(LOOK_DEADLINE, spawn_blocking(move || needs(&guest, &definition))).await {
        Ok(Ok(needs)) => Ok(needs),
        Ok(Err(error)) => Err(io::Error::other(error)),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("disks do not answer within {LOOK_DEADLINE:?}"))),
    }
}

fn needs(guest: &GuestName, definition: &QemuDefinition) -> Needs {
    let direct = definition.disks.iter().map(|disk| opens_direct(&disk.path)).collect();
    Needs { exclusive: exclusive(guest, definition), direct }
}

/// What no other guest may use.
fn exclusive(guest: &GuestName, definition: &QemuDefinition) -> BTreeSet<String> {
    let images = definition.disks.iter().map(|disk| identity(&disk.path));
    let taps = net::tap_names(guest, definition.nics.len()).into_iter().map(|tap| format!("tap {tap}"));
    let vsock = definition.vsock.as_ref().map(|vsock| match &vsock.carrier {
        VsockCarrier::Kernel { cid } => format!("vsock CID {cid}"),
        VsockCarrier::Program { device, .. } => format!("vsock device {}", device.display()),
    });
    images.chain(taps).chain(vsock).collect()
}

/// An absent image goes by its path; starting fails on it anyway, with QEMU's own words.
fn identity(path: &Path) -> String {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.file_type().is_block_device() => format!("block device {:x}", metadata.rdev()),
        Ok(metadata) => format!("image {:x}:{}", metadata.dev(), metadata.ino()),
        Err(_) => format!("path {}", path.display()),
    }
}

/// Some file systems, such as tmpfs before Linux 6.6, refuse this.
fn opens_direct(path: &Path) -> bool {
    OpenOptions::new().read(true).custom_flags(nix::libc::O_DIRECT).open(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_paths_to_one_image_are_one_image() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two, three) = (folder.path().join("one"), folder.path().join("two"), folder.path().join("three"));
        std::fs::write(&one, "x").unwrap();
        std::fs::write(&three, "x").unwrap();
        std::os::unix::fs::symlink(&one, &two).unwrap();
        assert_eq!(identity(&one), identity(&two));
        assert_ne!(identity(&one), identity(&three));
    }
}
