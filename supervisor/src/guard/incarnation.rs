//! The host's incarnation: made once per boot, in the folder that dies with the host (R11).

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use holdfast_policies::names::Incarnation;
use nix::fcntl::{Flock, FlockArg};

/// Longest file read, in bytes: two identifiers and their newlines.
const FILE_BYTES_MAX: u64 = 256;
/// How long to wait for another process that is making the file.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// How often to look meanwhile.
const WAIT_STEP: Duration = Duration::from_millis(10);
/// Stands for a boot id that the kernel does not tell.
const NO_BOOT_ID: &str = "-";

/// The incarnation of this host's boot; made when there is none. Guard and supervisor get the same, whoever asks first.
///
/// The kernel's boot id is kept with it: should `run_dir` survive a reboot after all, a new incarnation is made.
///
/// # Errors
/// When `run_dir` cannot be used, when the file there holds something else, or when it is not known whether it is of this boot: it is
/// not overwritten, because a second incarnation in one boot would be a lie, by which guests that run would count as gone.
pub fn incarnation(run_dir: &Path) -> io::Result<Incarnation> {
    in_boot(run_dir, boot_id().as_deref())
}

fn in_boot(run_dir: &Path, boot_id: Option<&str>) -> io::Result<Incarnation> {
    if let Some(known) = read(run_dir, boot_id)? {
        return Ok(known);
    }
    let _lock = lock(&run_dir.join("incarnation.lock"))?;
    match read(run_dir, boot_id)? {
        Some(known) => Ok(known),
        None => make(run_dir, boot_id.unwrap_or(NO_BOOT_ID)),
    }
}

/// None: there is no file, or it is of another boot.
fn read(run_dir: &Path, boot_id: Option<&str>) -> io::Result<Option<Incarnation>> {
    let path = run_dir.join("incarnation");
    let file = match fs::File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    let bad = || io::Error::new(io::ErrorKind::InvalidData, format!("{} holds no incarnation", path.display()));
    let (first, rest) = text.split_once('\n').ok_or_else(bad)?;
    let known = Incarnation::new(first).map_err(|_| bad())?;
    let its = rest.trim_end();
    if boot_id.is_none() && its != NO_BOOT_ID {
        let path = path.display();
        return Err(io::Error::other(format!(
            "{path} is of boot {its}, and the kernel does not tell which one this is"
        )));
    }
    Ok((its == boot_id.unwrap_or(NO_BOOT_ID)).then_some(known))
}

fn make(run_dir: &Path, boot_id: &str) -> io::Result<Incarnation> {
    let text: String = rand::random::<[u8; 16]>().iter().map(|byte| format!("{byte:02x}")).collect();
    let made = Incarnation::new(text).map_err(io::Error::other)?;
    let fresh = run_dir.join("incarnation.new");
    let mut file = fs::File::create(&fresh)?;
    write!(file, "{made}\n{boot_id}\n")?;
    file.sync_all()?;
    fs::rename(&fresh, run_dir.join("incarnation"))?;
    Ok(made)
}

fn lock(path: &Path) -> io::Result<Flock<fs::File>> {
    let until = Instant::now() + WAIT_MAX;
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((back, _)) if Instant::now() < until => file = back,
            Err((_, error)) => return Err(error.into()),
        }
        thread::sleep(WAIT_STEP);
    }
}

/// What the kernel calls this boot, if it tells.
pub(crate) fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn everybody_who_asks_at_once_gets_the_same_incarnation() {
        let folder = tempfile::tempdir().unwrap();
        let answers: BTreeSet<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| incarnation(folder.path()).unwrap())).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(answers.len(), 1);
    }

    #[test]
    fn where_the_boot_cannot_be_told_the_incarnation_stays_the_one_that_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let made = in_boot(folder.path(), Some("this-boot")).unwrap();
        assert!(in_boot(folder.path(), None).is_err(), "no second one is made");
        assert_eq!(in_boot(folder.path(), Some("this-boot")).unwrap(), made);
        let nameless = tempfile::tempdir().unwrap();
        let made = in_boot(nameless.path(), None).unwrap();
        assert_eq!(in_boot(nameless.path(), None).unwrap(), made);
    }

    #[test]
    fn another_boot_makes_another_incarnation_and_garbage_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("incarnation");
        fs::write(&path, "old\nanother-boot\n").unwrap();
        let made = incarnation(folder.path()).unwrap();
        assert_ne!(made.as_str(), "old");
        assert_eq!(incarnation(folder.path()).unwrap(), made);
        fs::write(&path, "../garbage").unwrap();
        assert!(incarnation(folder.path()).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "../garbage");
    }
}
