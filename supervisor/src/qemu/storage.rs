//! What a guest needs of its host for itself alone: disk images, tap devices and its place on vsock (R28).

use std::{
    collections::BTreeSet,
    ffi::OsString,
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
use holdfast_probes::aside::Aside;
use tokio::time::timeout;

use super::net;

/// Longest time for looking at the disks; a storage that takes longer cannot carry a guest.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// Looks at disks that may be under way at once. A storage that hangs holds a thread for each, and whoever starts its guests tries
/// again and again; half of the threads that tokio has remain for what this supervisor writes.
const LOOKS_MAX: usize = 256;

/// How many of them the disks in the same folders may have: starts at once on a storage that answers need no more.
const LOOKS_ALIKE_MAX: usize = 2;

static LOOKS: Aside = Aside::new(LOOKS_MAX, LOOKS_ALIKE_MAX);

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
/// The storage does not answer, or does not say which image one of the disks is.
pub async fn look(guest: &GuestName, definition: &QemuDefinition) -> io::Result<Needs> {
    let (guest, its) = (guest.clone(), definition.clone());
    match timeout(LOOK_DEADLINE, aside(definition, move || needs(&guest, &its))).await {
        Ok(needs) => needs?,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("disks do not answer within {LOOK_DEADLINE:?}"))),
    }
}

/// Does what touches the disks of `definition`, on a thread that hangs as long as they do. Dropping this gives up the wait.
///
/// # Errors
/// It ended in a panic.
pub async fn aside<T: Send + 'static>(
    definition: &QemuDefinition,
    work: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    LOOKS.run(&folders(definition), work).await
}

/// What hangs together: nothing that can be asked of a dead storage says what lies on it.
fn folders(definition: &QemuDefinition) -> OsString {
    let mut all = OsString::new();
    for folder in definition.disks.iter().filter_map(|disk| disk.path.parent()) {
        all.push(folder);
        all.push("\n");
    }
    all
}

fn needs(guest: &GuestName, definition: &QemuDefinition) -> io::Result<Needs> {
    let direct = definition.disks.iter().map(|disk| opens_direct(&disk.path)).collect();
    Ok(Needs { exclusive: exclusive(guest, definition)?, direct })
}

/// What no other guest may use.
fn exclusive(guest: &GuestName, definition: &QemuDefinition) -> io::Result<BTreeSet<String>> {
    let images: Vec<String> = definition.disks.iter().map(|disk| identity(&disk.path)).collect::<io::Result<_>>()?;
    let taps = net::tap_names(guest, definition.nics.len()).into_iter().map(|tap| format!("tap {tap}"));
    let vsock = definition.vsock.as_ref().map(|vsock| match &vsock.carrier {
        VsockCarrier::Kernel { cid } => format!("vsock CID {cid}"),
        VsockCarrier::Program { device, .. } => format!("vsock device {}", device.display()),
    });
    Ok(images.into_iter().chain(taps).chain(vsock).collect())
}

/// An absent image goes by its path; starting fails on it anyway, with QEMU's own words. One that cannot be looked at, which may be of
/// the moment, could be another guest's under another path.
fn identity(path: &Path) -> io::Result<String> {
    match std::fs::metadata(path) {
        Ok(metadata) if metadata.file_type().is_block_device() => Ok(format!("block device {:x}", metadata.rdev())),
        Ok(metadata) => Ok(format!("image {:x}:{}", metadata.dev(), metadata.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(format!("path {}", path.display())),
        Err(error) => Err(io::Error::new(error.kind(), format!("{}: {error}", path.display()))),
    }
}

fn opens_direct(path: &Path) -> bool {
    takes_direct(OpenOptions::new().read(true).custom_flags(nix::libc::O_DIRECT).open(path).err().as_ref())
}

/// Some file systems, such as tmpfs before Linux 6.6, refuse this, and say so in one way (open(2)). Any other failure tells nothing of
/// the file system, such as one of a moment: with the page cache a guest that moves later might find stale pages on its new host, so
/// it does without, and QEMU says what is wrong if it still is.
fn takes_direct(failure: Option<&io::Error>) -> bool {
    failure.and_then(io::Error::raw_os_error) != Some(nix::libc::EINVAL)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use holdfast_policies::model::{Disk, DiskFormat};

    use super::*;

    /// Long enough for any machine.
    const LIMIT: Duration = Duration::from_secs(20);
    /// For what is not to end.
    const SHORT: Duration = Duration::from_millis(50);

    #[tokio::test]
    async fn a_storage_that_hangs_takes_few_threads_and_keeps_no_guest_of_another_one_waiting() {
        let on = |folder: &str| {
            let disk = Disk { path: Path::new(folder).join("disk.raw"), format: DiskFormat::Raw };
            QemuDefinition { disks: vec![disk], ..QemuDefinition::bare(16) }
        };
        let (dead, well) = (on("/srv/dead"), on("/srv/well"));
        let mut held = Vec::new();
        for _ in 0..LOOKS_ALIKE_MAX {
            let (holding, hangs) = channel::<()>();
            assert!(timeout(SHORT, aside(&dead, move || hangs.recv().is_ok())).await.is_err());
            held.push(holding);
        }
        assert!(timeout(SHORT, aside(&dead, || ())).await.is_err(), "another thread hangs");
        timeout(LIMIT, aside(&well, || ())).await.expect("another storage waits for it").unwrap();
        drop(held);
        timeout(LIMIT, aside(&dead, || ())).await.unwrap().unwrap();
    }

    #[test]
    fn the_page_cache_is_used_only_where_the_file_system_refuses_to_do_without() {
        let failed = |number| takes_direct(Some(&io::Error::from_raw_os_error(number)));
        assert!(!failed(nix::libc::EINVAL));
        for number in [nix::libc::ENOENT, nix::libc::EMFILE, nix::libc::EIO, nix::libc::ESTALE] {
            assert!(failed(number), "{number} says nothing of the file system");
        }
        assert!(takes_direct(None) && opens_direct(Path::new("/nowhere/at/all")));
    }

    #[test]
    fn an_image_that_cannot_be_looked_at_is_not_taken_for_one_that_nobody_has() {
        let folder = tempfile::tempdir().unwrap();
        assert!(identity(&folder.path().join("absent")).is_ok());
        let file = folder.path().join("file");
        std::fs::write(&file, "x").unwrap();
        let disk = Disk { path: file.join("disk.raw"), format: DiskFormat::Raw };
        let definition = QemuDefinition { disks: vec![disk], ..QemuDefinition::bare(16) };
        let unseen = needs(&GuestName::new("web-1").unwrap(), &definition).unwrap_err();
        assert!(unseen.to_string().contains("disk.raw"), "{unseen}");
    }

    #[test]
    fn two_paths_to_one_image_are_one_image() {
        let folder = tempfile::tempdir().unwrap();
        let (one, two, three) = (folder.path().join("one"), folder.path().join("two"), folder.path().join("three"));
        std::fs::write(&one, "x").unwrap();
        std::fs::write(&three, "x").unwrap();
        std::os::unix::fs::symlink(&one, &two).unwrap();
        let of = |path: &Path| identity(path).unwrap();
        assert_eq!(of(&one), of(&two));
        assert_ne!(of(&one), of(&three));
    }
}
