//! What guests leave in `run_dir` when they are gone: their logs, for people to look into. It lies in memory, and guests come and go
//! under ever new names, or pass by on their way through the cluster: so it is kept of the newest only.

use std::{fs, io, path::Path};

use holdfast_policies::names::GuestName;

use super::{Inner, record::Files};

/// Guests that are gone whose logs are kept. Most leave some hundred KiB; with logs as long as they may be it is half a GiB.
const KEPT_MAX: usize = 50;

impl Inner {
    /// Removes what the oldest have left. One that is about to start here has its gate, and is passed over.
    pub(super) fn forget_the_oldest(&self) {
        for guest in oldest(&self.config.run_dir, KEPT_MAX).unwrap_or_default() {
            let gate = self.registry.gate(&guest);
            let Ok(_gate) = gate.try_lock() else { continue };
            let files = self.files(&guest);
            // What runs without a record is told apart by its cgroup alone, and is spoken to by sockets that lie there.
            let is_gone = files.are_of_nobody() && matches!(self.cgroup(&guest).populated(), Ok(false));
            if is_gone && let Err(error) = files.remove() {
                tracing::warn!(%guest, %error, "what a guest has left is not removed");
            }
        }
    }
}

/// Guests that are gone, without the newest `kept`.
fn oldest(run_dir: &Path, kept: usize) -> io::Result<Vec<GuestName>> {
    let mut gone = Vec::new();
    for entry in fs::read_dir(super::record::folder(run_dir))? {
        let entry = entry?;
        let Ok(guest) = GuestName::new(entry.file_name().to_string_lossy()) else { continue };
        if Files::new(run_dir, &guest).are_of_nobody() {
            gone.push((entry.metadata()?.modified()?, guest));
        }
    }
    gone.sort();
    let too_many = gone.len().saturating_sub(kept);
    Ok(gone.into_iter().take(too_many).map(|(_, guest)| guest).collect())
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        path::PathBuf,
        time::{Duration, SystemTime},
    };

    use super::{
        super::{Driver, DriverConfig},
        *,
    };

    /// A guest that has left its log so many seconds after the first one.
    fn left(run_dir: &Path, name: &str, seconds: u64) -> PathBuf {
        let folder = run_dir.join("guests").join(name);
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("console.old"), "bye\n").unwrap();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        fs::File::open(&folder).unwrap().set_modified(at).unwrap();
        folder
    }

    #[test]
    fn the_oldest_are_those_that_are_gone_for_longest_and_none_of_which_anything_is_here() {
        let run_dir = tempfile::tempdir().unwrap();
        for (name, seconds) in [("third", 3), ("first", 1), ("fourth", 4), ("second", 2)] {
            left(run_dir.path(), name, seconds);
        }
        fs::write(left(run_dir.path(), "runs", 0).join("record.json"), "{").unwrap();
        fs::write(left(run_dir.path(), "begins", 0).join("pid"), "7\n").unwrap();
        let names: Vec<String> = oldest(run_dir.path(), 2).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(names, ["first", "second"]);
        assert_eq!(oldest(run_dir.path(), 4).unwrap(), []);
    }

    #[tokio::test]
    async fn a_guest_that_leaves_has_the_logs_removed_of_those_that_left_long_before() {
        let folder = tempfile::tempdir().unwrap();
        let (cgroup, run_dir) = (folder.path().join("cgroup"), folder.path().join("run"));
        fs::create_dir(&cgroup).unwrap();
        for file in ["cgroup.events", "cgroup.procs"] {
            fs::write(cgroup.join(file), "").unwrap();
        }
        for number in 0..u64::try_from(KEPT_MAX + 3).unwrap() {
            left(&run_dir, &format!("guest-{number}"), number);
        }
        let runs = cgroup.join("guest-1");
        fs::create_dir(&runs).unwrap();
        fs::write(runs.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        fs::write(runs.join("cgroup.procs"), "").unwrap();
        let config = DriverConfig {
            binary: "qemu-system-x86_64".into(),
            cgroup,
            run_dir: run_dir.clone(),
            migrate_address: "127.0.0.1".parse().unwrap(),
            forensics: folder.path().join("forensics"),
            log_dir: None,
            sandbox: true,
        };
        let (driver, _events) = Driver::open(config).await.unwrap();
        driver.stop(&GuestName::new("guest-9").unwrap()).await.unwrap();
        let kept: BTreeSet<_> =
            fs::read_dir(run_dir.join("guests")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        let is_kept = |name: &str| kept.contains(std::ffi::OsStr::new(name));
        assert!(!is_kept("guest-0") && !is_kept("guest-2") && is_kept("guest-3"), "{kept:?}");
        assert!(is_kept("guest-1"), "it runs, though nobody has written that down");
        assert_eq!(kept.len(), KEPT_MAX + 1);
    }
}
