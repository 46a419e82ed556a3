//! Where cases lie: a folder for each guest, with its newest cases and their pictures, and so many guests.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
};

use holdfast_policies::names::Epoch;

use super::Case;
use crate::causes::unless_absent;

/// Cases kept of each guest: a ladder that is climbed to its end on one host. With `TAIL_BYTES` they take some 100 KiB, and
/// as much again with pictures of text screens; with the largest, which take `PICTURE_BYTES_MAX`, 10 MiB.
const CASES_MAX: usize = 5;

/// Guests of which cases are kept: more than a host runs, and 50 MiB at most, without pictures, where guests come and go under
/// ever new names.
const GUESTS_MAX: usize = 500;

/// Writes a case for root only, since console and screen may show secrets, and forgets the oldest of its guest and of guests.
pub(super) fn put(all: &Path, case: &Case) -> io::Result<()> {
    let path = case.path(all);
    let folder = all.join(case.guest.as_str());
    DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
    write(&folder, &path, case.text().as_bytes())?;
    match &case.picture {
        Some(Ok(picture)) => write(&folder, &picture_of(&path), picture)?,
        // Epochs begin anew with a new cluster: what is there shows another run.
        Some(Err(_)) | None => unless_absent(fs::remove_file(picture_of(&path)))?,
    }
    forget_oldest(&folder, &path, CASES_MAX)?;
    forget_guests(all, &folder, GUESTS_MAX)
}

fn write(folder: &Path, path: &Path, content: &[u8]) -> io::Result<()> {
    let new = folder.join("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(content)?;
    fs::rename(&new, path)
}

/// Where the picture lies that belongs to a case.
fn picture_of(case: &Path) -> PathBuf {
    case.with_extension("png")
}

/// The picture first: a case that is still there is found again, and its picture with it.
fn forget(case: &Path) -> io::Result<()> {
    unless_absent(fs::remove_file(picture_of(case)))?;
    fs::remove_file(case)
}

/// Keeps the newest cases of a guest, `newest` among them. Age is the file's: epochs begin anew with a new cluster.
fn forget_oldest(folder: &Path, newest: &Path, most: usize) -> io::Result<()> {
    let mut cases = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if let Some(epoch) = epoch_of(&entry.file_name().to_string_lossy()).filter(|_| entry.path() != newest) {
            cases.push((entry.metadata()?.modified()?, epoch, entry.path()));
        }
    }
    cases.sort();
    let too_many = cases.len().saturating_add(1).saturating_sub(most);
    for (_, _, path) in cases.into_iter().take(too_many) {
        forget(&path)?;
    }
    Ok(())
}

/// Forgets the guests that have been without a new case for longest. What people have put beside their cases stays.
fn forget_guests(all: &Path, newest: &Path, most: usize) -> io::Result<()> {
    let mut guests = Vec::new();
    for entry in fs::read_dir(all)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() && entry.path() != newest {
            guests.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    guests.sort();
    let too_many = guests.len().saturating_add(1).saturating_sub(most);
    for (_, folder) in guests.into_iter().take(too_many) {
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if epoch_of(&entry.file_name().to_string_lossy()).is_some() {
                forget(&entry.path())?;
            }
        }
        // It is not empty when a person has put something there.
        _ = fs::remove_dir(&folder);
    }
    Ok(())
}

/// The epoch that a case is named after; what has another name is somebody else's.
fn epoch_of(name: &str) -> Option<Epoch> {
    let (generation, index) = name.strip_suffix(".txt")?.split_once('.')?;
    Some(Epoch { generation: generation.parse().ok()?, index: index.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt as _, time::Duration};

    use super::{super::tests::case, *};

    #[test]
    fn a_picture_is_kept_for_root_only_beside_its_case_and_goes_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let there = |name: &str| folder.path().join("web-1").join(name).exists();
        let with = |index: u64| Case { picture: Some(Ok(b"picture".to_vec())), ..case(index, "") };
        for index in 1..=6 {
            put(folder.path(), &with(index)).unwrap();
            age(&folder.path().join(format!("web-1/1.{index}.txt")), 100 - index);
        }
        assert_eq!(["1.1.txt", "1.1.png", "1.2.txt", "1.2.png"].map(there), [false, false, true, true]);
        let kept = folder.path().join("web-1/1.6.png");
        assert_eq!(fs::read(&kept).unwrap(), b"picture");
        assert_eq!(fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(with(6).text().contains("== its screen\nis in 1.6.png\n"));
        let told = with(6).account(Path::new("/f/web-1/1.6.txt"));
        assert_eq!(told, "running; more in /f/web-1/1.6.txt and 1.6.png; it said nothing on its console");

        let without = Case { picture: Some(Err("no answer".to_owned())), ..case(6, "") };
        put(folder.path(), &without).unwrap();
        assert!(there("1.6.txt") && !there("1.6.png"), "that was the screen of another run");
        assert!(without.text().contains("== its screen\nno picture: no answer\n"));
        assert!(!without.account(Path::new("/f/web-1/1.6.txt")).contains("png"));
        forget_guests(folder.path(), &folder.path().join("other"), 1).unwrap();
        assert!(!folder.path().join("web-1").exists());
    }

    #[test]
    fn the_newest_five_cases_of_a_guest_are_kept_for_root_only() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("forensics");
        for index in 7..=12 {
            put(&below, &case(index, "Kernel panic")).unwrap();
        }
        fs::write(below.join("web-1/notes"), "of a person").unwrap();
        put(&below, &case(13, "Kernel panic")).unwrap();
        let mut names: Vec<String> = fs::read_dir(below.join("web-1"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        assert_eq!(names, ["1.10.txt", "1.11.txt", "1.12.txt", "1.13.txt", "1.9.txt", "notes"]);
        let mode = |name: &str| fs::metadata(below.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!([mode(""), mode("web-1"), mode("web-1/1.13.txt")], [0o700, 0o700, 0o600]);
        let text = fs::read_to_string(below.join("web-1/1.13.txt")).unwrap();
        for part in ["web-1, epoch 1.13, stopped at 2026-03-02T03:04:05.007Z", "RESET", "Kernel panic"] {
            assert!(text.contains(part), "{part} is missing in\n{text}");
        }
    }

    fn age(path: &Path, seconds: u64) {
        let then = std::time::SystemTime::now() - Duration::from_secs(seconds);
        fs::File::open(path).unwrap().set_modified(then).unwrap();
    }

    #[test]
    fn the_first_case_of_a_new_cluster_is_kept_however_high_the_epochs_of_the_old_one_were() {
        let folder = tempfile::tempdir().unwrap();
        for index in 401..=405 {
            put(folder.path(), &case(index, "Kernel panic")).unwrap();
            age(&folder.path().join(format!("web-1/1.{index}.txt")), 10_000 - index);
        }
        put(folder.path(), &case(7, "Kernel panic")).unwrap();
        let kept = |index: u64| folder.path().join(format!("web-1/1.{index}.txt")).exists();
        assert_eq!([7, 401, 402, 405].map(kept), [true, false, true, true]);
    }

    #[test]
    fn guests_that_come_and_go_under_ever_new_names_take_bounded_room() {
        let folder = tempfile::tempdir().unwrap();
        for (seconds, guest) in [(40, "a"), (30, "b"), (20, "c"), (10, "d")] {
            let of_guest = folder.path().join(guest);
            fs::create_dir(&of_guest).unwrap();
            fs::write(of_guest.join("1.7.txt"), "Kernel panic").unwrap();
            if guest == "b" {
                fs::write(of_guest.join("notes"), "of a person").unwrap();
            }
            age(&of_guest, seconds);
        }
        forget_guests(folder.path(), &folder.path().join("d"), 2).unwrap();
        let there = |path: &str| folder.path().join(path).exists();
        let expected = [false, false, true, true, true];
        assert_eq!(["a", "b/1.7.txt", "b/notes", "c/1.7.txt", "d/1.7.txt"].map(there), expected);
    }
}
