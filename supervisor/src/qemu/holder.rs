//! Who holds the lock of a disk image that a start was refused for, as far as this host sees. It is told, and never broken:
//! whoever holds it may write the image. That nobody here does is told in words by which the coordinator knows it, who then
//! adds what the other hosts report.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use holdfast_policies::{lock_holders::LOCKED_ELSEWHERE, model::QemuDefinition};
use tokio::time::timeout;

use super::storage;

/// What QEMU writes when another one has the image.
const REFUSED: [&str; 2] = ["Failed to get \"write\" lock", "Failed to get shared \"write\" lock"];

/// Longest time for looking: it only adds to a message.
const LOOK_DEADLINE: Duration = Duration::from_secs(2);

/// Most holders that are named.
const NAMED_MAX: usize = 4;

/// Who has the guest's images, where QEMU's last words say that somebody has; else `None`.
pub(super) async fn of(definition: &QemuDefinition, last_words: &str) -> Option<String> {
    if !REFUSED.iter().any(|words| last_words.contains(words)) {
        return None;
    }
    let images: Vec<PathBuf> = definition.disks.iter().map(|disk| disk.path.clone()).collect();
    let looked = storage::aside(definition, move || holders(&images, Path::new("/proc")));
    let holders = timeout(LOOK_DEADLINE, looked).await.ok()?.ok()?;
    Some(if holders.is_empty() {
        LOCKED_ELSEWHERE.to_owned()
    } else {
        format!("its image is open on this host in {}", holders.join(", "))
    })
}

/// Processes that have one of the images open.
fn holders(images: &[PathBuf], proc: &Path) -> Vec<String> {
    let images: Vec<PathBuf> = images.iter().filter_map(|image| fs::canonicalize(image).ok()).collect();
    let processes = fs::read_dir(proc).into_iter().flatten().flatten();
    let holds = |process: &Path| {
        let open = fs::read_dir(process.join("fd")).into_iter().flatten().flatten();
        open.filter_map(|file| fs::read_link(file.path()).ok()).any(|target| images.contains(&target))
    };
    let named = |process: PathBuf| {
        let pid: u32 = process.file_name()?.to_str()?.parse().ok()?;
        let name = holds(&process).then(|| fs::read_to_string(process.join("comm")).unwrap_or_default())?;
        Some(format!("{} (process {pid})", name.trim()))
    };
    processes.filter_map(|process| named(process.path())).take(NAMED_MAX).collect()
}

#[cfg(test)]
mod tests {
    use holdfast_policies::model::{Accel, Disk, DiskFormat};

    use super::*;

    fn definition(image: &Path) -> QemuDefinition {
        let disks = vec![Disk { path: image.to_owned(), format: DiskFormat::Raw }];
        QemuDefinition { disks, agent: false, accel: Accel::Tcg, ..QemuDefinition::bare(64) }
    }

    #[tokio::test]
    async fn whoever_has_the_image_of_a_refused_start_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let image = folder.path().join("disk.img");
        fs::write(&image, "x").unwrap();
        let said = "qemu-system-x86_64: Failed to get \"write\" lock\nIs another process using the image?";
        let elsewhere = of(&definition(&image), said).await.unwrap();
        assert_eq!(elsewhere, LOCKED_ELSEWHERE);
        let open = fs::File::open(&image).unwrap();
        let here = of(&definition(&image), said).await.unwrap();
        assert!(here.contains(&format!("(process {})", std::process::id())), "{here}");
        drop(open);
        assert_eq!(of(&definition(&image), "no such kernel").await, None);
    }
}
