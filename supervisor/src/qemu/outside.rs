//! Guests that run outside the cgroup in which this driver looks for them.
//!
//! No process leaves its cgroup by itself. But the cgroup of a guest may be another one than when it was started: because
//! `qemu.cgroup` was changed in the host file while it ran, or because somebody has moved it. Then an empty cgroup says nothing,
//! and only the record still names the process. Where there is none in it, because the supervisor that started the guest died before
//! QEMU had answered, or because the record is damaged, QEMU itself does: it was told where to write its number.

use std::{io, os::unix::ffi::OsStrExt as _, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    cgroup::Cgroup,
    record::{Files, Process, Record, is_gone},
};

/// How much later than its cgroup is empty a process that ends may be seen to have ended.
const MAY_LAG: Duration = Duration::from_secs(1);

/// How often it is looked at within that time.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The process of a guest whose cgroup is empty, if it runs elsewhere. One that ends at this moment does not.
///
/// # Errors
/// That cannot be known, as where no descriptor is left to look with.
pub async fn outside(record: Option<&Record>, files: &Files, cgroup: &Cgroup) -> io::Result<Option<Process>> {
    let began = Instant::now();
    while let Some(process) = seen_outside(record, files, cgroup)? {
        if began.elapsed() >= MAY_LAG {
            return Ok(Some(process));
        }
        sleep(LOOK_EVERY).await;
    }
    Ok(None)
}

/// Makes sure that a guest whose cgroup is empty does not run outside it.
pub async fn nothing_outside(files: &Files, cgroup: &Cgroup) -> io::Result<()> {
    let record = told(files.read())?.flatten();
    let Some(process) = outside(record.as_ref(), files, cgroup).await? else { return Ok(()) };
    let (pid, cgroup) = (process.pid, cgroup.path().display());
    Err(io::Error::other(format!("it runs as process {pid} outside {cgroup}")))
}

fn seen_outside(record: Option<&Record>, files: &Files, cgroup: &Cgroup) -> io::Result<Option<Process>> {
    let known = match record.and_then(|record| record.process) {
        Some(recorded) => Some(recorded),
        None => named_by_itself(files)?,
    };
    let Some(process) = known.filter(|process| process.runs()) else { return Ok(None) };
    let inside = cgroup.processes().is_ok_and(|processes| processes.contains(&process.pid));
    Ok((!inside).then_some(process))
}

/// The process whose number stands in the guest's file, if it is the QEMU that was told to write it there: by now another one may
/// have that number.
fn named_by_itself(files: &Files) -> io::Result<Option<Process>> {
    let Some(pid) = told(files.read_pid())? else { return Ok(None) };
    let Some(process) = told(Process::find(pid))? else { return Ok(None) };
    let Some(command) = told(std::fs::read(format!("/proc/{pid}/cmdline")))? else { return Ok(None) };
    let path = files.pid();
    let was_told = command.split(|byte| *byte == 0).any(|word| word == path.as_os_str().as_bytes());
    Ok(was_told.then_some(process))
}

/// What a file or a process says. One that is not there says nothing, and neither does one that says something else; but whatever
/// else keeps it from being read tells nothing of it (S5).
pub fn told<T>(read: io::Result<T>) -> io::Result<Option<T>> {
    match read {
        Ok(said) => Ok(Some(said)),
        Err(error) if is_gone(&error) || error.raw_os_error().is_none() => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use holdfast_policies::{
        model::QemuDefinition,
        names::{Epoch, GuestName},
    };

    use super::super::{
        Driver, DriverConfig, How, StartError,
        record::{Files, Process, Record},
    };

    /// A host where guests get cgroups of which nobody has any.
    fn host() -> (tempfile::TempDir, DriverConfig) {
        let folder = tempfile::tempdir().unwrap();
        let cgroup = folder.path().join("cgroup");
        std::fs::create_dir(&cgroup).unwrap();
        for file in ["cgroup.events", "cgroup.procs"] {
            std::fs::write(cgroup.join(file), "").unwrap();
        }
        let config = DriverConfig {
            binary: "qemu-system-x86_64".into(),
            cgroup,
            run_dir: folder.path().join("run"),
            migrate_address: "127.0.0.1".parse().unwrap(),
            forensics: folder.path().join("forensics"),
            log_dir: None,
            sandbox: true,
        };
        (folder, config)
    }

    /// What an earlier supervisor has written of a guest that it started.
    fn started(config: &DriverConfig, process: Option<Process>) -> GuestName {
        let guest = GuestName::new("web-1").unwrap();
        let files = Files::new(&config.run_dir, &guest);
        files.make().unwrap();
        let record = Record { process, boot: crate::guard::boot_id(), ..Record::bare(guest.clone()) };
        files.write(&record).unwrap();
        guest
    }

    fn this_process() -> Process {
        Process::find(i32::try_from(std::process::id()).unwrap()).unwrap()
    }

    /// Whoever begins a program goes on a moment before its arguments can be read.
    async fn has_its_arguments(pid: u32) {
        let has_none = || std::fs::read(format!("/proc/{pid}/cmdline")).unwrap().is_empty();
        let comes = async {
            while has_none() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), comes).await.unwrap();
    }

    #[tokio::test]
    async fn a_driver_does_not_begin_while_a_guest_runs_outside_the_cgroup_that_it_is_told() {
        let (_folder, config) = host();
        started(&config, Some(this_process()));
        let error = Driver::open(config).await.err().expect("it does not begin");
        assert!(error.to_string().contains("qemu.cgroup"), "{error}");
    }

    /// As after the death of a supervisor between the start and QEMU's first answer.
    #[tokio::test]
    async fn a_guest_that_no_record_names_yet_is_found_outside_its_cgroup_by_what_qemu_has_written() {
        let (_folder, config) = host();
        let guest = started(&config, None);
        let files = Files::new(&config.run_dir, &guest);
        let write = |pid: u32| std::fs::write(files.pid(), format!("{pid}\n")).unwrap();
        // Another process has the number by now.
        write(std::process::id());
        drop(Driver::open(config.clone()).await.unwrap());
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "read -r word", "-pidfile"]).arg(files.pid()).stdin(std::process::Stdio::piped());
        let mut qemu = command.spawn().unwrap();
        has_its_arguments(qemu.id()).await;
        write(qemu.id());
        let opened = Driver::open(config.clone()).await.err().map(|error| error.to_string());
        std::fs::write(config.run_dir.join("guests/web-1/record.json"), "{").unwrap();
        let damaged = Driver::open(config).await.err().map(|error| error.to_string());
        drop(qemu.stdin.take());
        qemu.wait().unwrap();
        for error in [opened, damaged] {
            assert!(error.as_ref().is_some_and(|error| error.contains("qemu.cgroup")), "{error:?}");
        }
    }

    /// A folder stands for whatever else cannot be read, such as any file where no descriptor is left.
    #[tokio::test]
    async fn a_guest_of_which_it_cannot_be_known_where_it_runs_is_not_taken_for_gone() {
        let (_folder, config) = host();
        let (driver, _events) = Driver::open(config.clone()).await.unwrap();
        let guest = started(&config, None);
        let files = Files::new(&config.run_dir, &guest);
        std::fs::create_dir(files.pid()).unwrap();
        driver.stop(&guest).await.unwrap_err();
        assert!(Driver::open(config).await.is_err());
        std::fs::remove_dir(files.pid()).unwrap();
        driver.stop(&guest).await.unwrap();
    }

    /// What ends has left its cgroup a moment before it is seen to have ended.
    #[tokio::test]
    async fn a_driver_begins_beside_a_guest_that_ends_at_that_moment() {
        let (_folder, config) = host();
        let mut ending = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let input = ending.stdin.take();
        let guest = started(&config, Process::find(i32::try_from(ending.id()).unwrap()).ok());
        // It ends once it has been seen to run.
        let (opened, ()) = tokio::join!(Driver::open(config), async move { drop(input) });
        let (driver, _events) = opened.unwrap();
        driver.stop(&guest).await.unwrap();
        ending.wait().unwrap();
    }

    #[tokio::test]
    async fn a_guest_that_runs_outside_its_cgroup_does_not_count_as_stopped_and_is_not_started_again() {
        let (_folder, config) = host();
        let (driver, _events) = Driver::open(config.clone()).await.unwrap();
        let guest = started(&config, Some(this_process()));
        driver.stop(&guest).await.unwrap_err();
        let (epoch, definition) = (Epoch { generation: 1, index: 8 }, QemuDefinition::bare(16));
        let again = driver.start(&guest, epoch, &definition, How::Run, || Ok(())).await;
        assert!(matches!(again, Err(StartError::Host { .. })), "{again:?}");
    }

    /// `run_dir` lies on a disk, and the numbers of processes begin anew with every boot.
    #[tokio::test]
    async fn a_guest_of_an_earlier_boot_is_neither_here_nor_in_anybodys_way() {
        let (_folder, config) = host();
        let guest = started(&config, Some(this_process()));
        let path = config.run_dir.join("guests/web-1/record.json");
        let mut record: serde_json::Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        record["boot"] = "another-boot".into();
        std::fs::write(&path, record.to_string()).unwrap();
        let (driver, _events) = Driver::open(config).await.unwrap();
        assert_eq!(driver.inventory().await.unwrap(), []);
        driver.stop(&guest).await.unwrap();
    }

    #[tokio::test]
    async fn a_guest_that_has_ended_is_in_nobodys_way_though_its_number_was_given_anew() {
        let (_folder, config) = host();
        let this = this_process();
        let guest = started(&config, Some(Process { start_ticks: this.start_ticks + 1, ..this }));
        let (driver, _events) = Driver::open(config).await.unwrap();
        driver.stop(&guest).await.unwrap();
    }
}
