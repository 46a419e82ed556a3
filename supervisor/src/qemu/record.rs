//! What this host remembers of a guest that it started, so that the next supervisor can adopt it.
//!
//! Everything lives in `<run_dir>/guests/<name>/`, which dies with the host. Where it does not, because `run_dir` lies on a disk, a
//! record of another boot is none: its guest has ended with that boot, and its process number may be anybody's.

use std::{
    collections::BTreeSet,
    fs::DirBuilder,
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use holdfast_policies::{
    model::QemuDefinition,
    names::{Epoch, GuestName},
    time::WallTime,
};
use serde::{Deserialize, Serialize};

use super::How;
use crate::{causes::unless_absent, durable::write_durably, guard::boot_id};

/// Longest record read, in bytes; a definition is a few hundred.
const RECORD_BYTES_MAX: u64 = 1 << 20;

/// Longest path of a Unix socket, in bytes.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// One start of one guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Which guest.
    pub guest: GuestName,
    /// Under which assignment.
    pub epoch: Epoch,
    /// What was started.
    pub definition: QemuDefinition,
    /// How it was started.
    pub how: How,
    /// When, for people.
    pub started: WallTime,
    /// What no other guest of this host may use.
    pub exclusive: BTreeSet<String>,
    /// QEMU itself, as soon as it has answered.
    pub process: Option<Process>,
    /// In which boot of the host, as its kernel calls it. Nothing where that is not known: it counts as this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot: Option<String>,
}

impl Record {
    fn is_of_another_boot(&self) -> bool {
        self.boot.as_ref().zip(boot_id().as_ref()).is_some_and(|(its, this)| its != this)
    }

    /// That of a small guest, of which neither process nor boot is known.
    #[cfg(test)]
    pub fn bare(guest: GuestName) -> Self {
        Self {
            guest,
            epoch: Epoch { generation: 1, index: 7 },
            definition: QemuDefinition::bare(16),
            how: How::Run,
            started: WallTime(0),
            exclusive: BTreeSet::new(),
            process: None,
            boot: None,
        }
    }
}

/// One process, so named that a later one with the same number is not taken for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number.
    pub pid: i32,
    /// When it began, in clock ticks after the boot.
    pub start_ticks: u64,
}

impl Process {
    /// The process that has this number at the moment.
    pub fn find(pid: i32) -> io::Result<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat"))?;
        let start_ticks =
            parse_start_ticks(&stat).ok_or_else(|| io::Error::other(format!("/proc/{pid}/stat is odd")))?;
        Ok(Self { pid, start_ticks })
    }

    /// Whether this very process is still there.
    pub fn lives(self) -> bool {
        Self::find(self.pid).is_ok_and(|found| found == self)
    }

    /// Whether this very process still runs, as far as that can be told: one that has ended, and that its parent has not taken
    /// notice of, is there and does not.
    pub fn runs(self) -> bool {
        self.runs_by(std::fs::read_to_string(format!("/proc/{}/stat", self.pid)))
    }

    fn runs_by(self, stat: io::Result<String>) -> bool {
        match stat {
            Ok(stat) => parse_start_ticks(&stat) == Some(self.start_ticks) && !has_ended(&stat),
            Err(error) => !is_gone(&error),
        }
    }
}

/// Whether something could not be read because it is not there; a process may also end while it is looked at.
pub fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

/// Field 22; the name in field 2 may hold spaces and brackets, so counting begins after its last bracket.
fn parse_start_ticks(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(19)?.parse().ok()
}

/// Field 3.
fn has_ended(stat: &str) -> bool {
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_whitespace().next());
    matches!(state, Some("Z" | "X"))
}

/// The files of one guest.
#[derive(Debug, Clone)]
pub struct Files {
    folder: PathBuf,
}

impl Files {
    /// Those of `guest` below `run_dir`.
    pub fn new(run_dir: &Path, guest: &GuestName) -> Self {
        Self { folder: folder(run_dir).join(guest.as_str()) }
    }

    /// QEMU's monitor, for the driver.
    pub fn qmp(&self) -> PathBuf {
        self.folder.join("qmp.sock")
    }

    /// A second monitor, for people.
    pub fn human(&self) -> PathBuf {
        self.folder.join("human.sock")
    }

    /// The guest agent.
    pub fn qga(&self) -> PathBuf {
        self.folder.join("qga.sock")
    }

    /// Holdfast's own agent in the guest.
    pub fn own(&self) -> PathBuf {
        self.folder.join("own.sock")
    }

    /// QEMU's process number, written by itself.
    pub fn pid(&self) -> PathBuf {
        self.folder.join("pid")
    }

    /// QEMU's exit status, written by the shell that waits for it.
    pub fn exit(&self) -> PathBuf {
        self.folder.join("exit")
    }

    /// What QEMU itself says.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// What the guest says on its serial console.
    pub fn console(&self) -> PathBuf {
        self.folder.join("console")
    }

    /// A picture of its screen, while nothing has taken it away.
    pub fn screen(&self) -> PathBuf {
        self.folder.join("screen.png")
    }

    fn record(&self) -> PathBuf {
        self.folder.join("record.json")
    }

    /// Makes the folder, for root only: who can open the monitor owns the guest.
    pub fn make(&self) -> io::Result<()> {
        if self.human().as_os_str().len() > SOCKET_PATH_BYTES_MAX {
            let path = self.human();
            return Err(io::Error::other(format!("{} is too long for a socket; shorten run_dir", path.display())));
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&self.folder)
    }

    /// Removes what an earlier run left, except its logs.
    pub fn clear(&self) -> io::Result<()> {
        for path in [self.qmp(), self.human(), self.qga(), self.pid(), self.exit(), self.screen(), self.record()] {
            unless_absent(std::fs::remove_file(&path))?;
        }
        Ok(())
    }

    /// Whether nothing but logs is there: neither a record nor the number of a process. What cannot be looked at is somebody's.
    pub fn are_of_nobody(&self) -> bool {
        [self.record(), self.pid()].iter().all(|path| matches!(path.try_exists(), Ok(false)))
    }

    /// Removes the folder with all that is in it.
    pub fn remove(&self) -> io::Result<()> {
        std::fs::remove_dir_all(&self.folder)
    }

    /// Writes the record so that it is either the old or the new one after a crash, and there before this returns.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        write_durably(&self.record(), &serde_json::to_vec_pretty(record)?)
    }

    /// The record, if there is one of this boot.
    pub fn read(&self) -> io::Result<Option<Record>> {
        match std::fs::metadata(self.record()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
            Ok(metadata) if metadata.len() > RECORD_BYTES_MAX => return Err(io::Error::other("record is too long")),
            Ok(_) => {}
        }
        let record: Record = serde_json::from_slice(&std::fs::read(self.record())?).map_err(io::Error::other)?;
        Ok(Some(record).filter(|record| !record.is_of_another_boot()))
    }

    /// The process number that QEMU has written.
    pub fn read_pid(&self) -> io::Result<i32> {
        std::fs::read_to_string(self.pid())?.trim().parse().map_err(io::Error::other)
    }

    /// How QEMU ended, as far as anybody saw it.
    pub fn read_exit(&self) -> String {
        let status = std::fs::read_to_string(self.exit()).ok().and_then(|text| text.trim().parse::<i32>().ok());
        match status {
            Some(status) if status > 128 => format!("signal {}", status - 128),
            Some(status) => format!("exit status {status}"),
            None => "killed".to_owned(),
        }
    }

    /// The last lines of QEMU's own log, for error texts.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read(self.log()).unwrap_or_default();
        let tail = text.get(text.len().saturating_sub(400)..).unwrap_or_default();
        holdfast_policies::observe::clean(String::from_utf8_lossy(tail).trim())
    }
}

/// The folder of all guests.
pub fn folder(run_dir: &Path) -> PathBuf {
    run_dir.join("guests")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recycled_process_number_is_not_the_recorded_process() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let me = Process::find(pid).unwrap();
        assert!(me.lives());
        assert!(!Process { start_ticks: me.start_ticks + 1, ..me }.lives());
    }

    #[test]
    fn a_process_may_have_any_name() {
        let stat = "7 (q) (emu) S 1 7 7 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 12345 8450048 1 2";
        assert_eq!(parse_start_ticks(stat), Some(12345));
        assert_eq!(parse_start_ticks("7 (qemu"), None);
    }

    #[test]
    fn a_process_that_has_ended_is_known_by_its_state_and_not_by_its_name() {
        assert!(has_ended("7 (qemu) Z 1 7 7 0"));
        assert!(!has_ended("7 (a) Z (qemu) S 1 7 7 0"));
        assert!(Process::find(i32::try_from(std::process::id()).unwrap()).unwrap().runs());
    }

    #[test]
    fn a_process_that_cannot_be_looked_at_has_not_ended_for_that() {
        let process = Process { pid: 7, start_ticks: 12_345 };
        let failed = |number| process.runs_by(Err(io::Error::from_raw_os_error(number)));
        assert!(failed(nix::libc::EMFILE) && failed(nix::libc::ENOMEM));
        assert!(!failed(nix::libc::ENOENT) && !failed(nix::libc::ESRCH));
    }

    /// As the version before there were feature levels wrote it: a guest that it started is found again.
    #[test]
    fn the_record_of_an_older_version_is_read() {
        const OLDER: &str = concat!(
            r#"{"guest":"web-1","epoch":{"generation":1,"index":12},"definition":{"memory_mib":512,"cpus":1,"kernel":null,"#,
            r#""disks":[{"path":"/srv/web-1.raw","format":"raw"}],"nics":[],"agent":true,"holdfast_agent":false,"#,
            r#""watchdog":null,"accel":"auto","machine":"q35"},"how":"incoming","started":1700000000000,"#,
            r#""exclusive":["/srv/web-1.raw"],"process":{"pid":7,"start_ticks":12345}}"#
        );
        let run_dir = tempfile::tempdir().unwrap();
        let files = Files::new(run_dir.path(), &GuestName::new("web-1").unwrap());
        files.make().unwrap();
        std::fs::write(files.record(), OLDER).unwrap();
        let record = files.read().unwrap().unwrap();
        assert_eq!((record.epoch.index, record.how), (12, How::Incoming));
        assert!(record.definition.vsock.is_none() && record.definition.display.is_none());
        assert_eq!(record.process, Some(Process { pid: 7, start_ticks: 12_345 }));
        assert_eq!(record.boot, None);
    }

    /// As where `run_dir` lies on a disk.
    #[test]
    fn the_record_of_another_boot_names_no_guest_of_this_one() {
        let run_dir = tempfile::tempdir().unwrap();
        let guest = GuestName::new("web-1").unwrap();
        let files = Files::new(run_dir.path(), &guest);
        files.make().unwrap();
        let process = Process::find(i32::try_from(std::process::id()).unwrap()).ok();
        let of = |boot: Option<String>| Record { process, boot, ..Record::bare(guest.clone()) };
        for boot in [None, boot_id()] {
            files.write(&of(boot.clone())).unwrap();
            assert_eq!(files.read().unwrap(), Some(of(boot)));
        }
        files.write(&of(Some("another-boot".to_owned()))).unwrap();
        assert_eq!(files.read().unwrap(), None);
    }

    #[test]
    fn a_broken_record_is_an_error_and_not_an_absent_guest() {
        let run_dir = tempfile::tempdir().unwrap();
        let files = Files::new(run_dir.path(), &GuestName::new("web-1").unwrap());
        files.make().unwrap();
        assert!(files.read().unwrap().is_none());
        std::fs::write(files.record(), "{").unwrap();
        assert!(files.read().is_err());
    }
}
