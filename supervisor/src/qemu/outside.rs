//! Guests that run outside the cgroup in which this driver looks for them.
//!
//! No process leaves its cgroup by itself. But the cgroup of a guest may be another one than when it was started: because
//! `qemu.cgroup` was changed in the host file while it ran, or because somebody has moved it. Then an empty cgroup says nothing,
//! and only the record still names the process.

use std::{io, time::Duration};

use tokio::time::{Instant, sleep};

use super::{
    cgroup::Cgroup,
    record::{Files, Process, Record},
};

/// How much later than its cgroup is empty a process that ends may be seen to have ended.
const MAY_LAG: Duration = Duration::from_secs(1);

/// How often it is looked at within that time.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The recorded process of a guest whose cgroup is empty, if it runs elsewhere. One that ends at this moment does not.
pub async fn outside(record: &Record, cgroup: &Cgroup) -> Option<Process> {
    let began = Instant::now();
    while let Some(process) = seen_outside(record, cgroup) {
        if began.elapsed() >= MAY_LAG {
            return Some(process);
        }
        sleep(LOOK_EVERY).await;
    }
    None
}

/// Makes sure that a guest whose cgroup is empty does not run outside it.
pub async fn nothing_outside(files: &Files, cgroup: &Cgroup) -> io::Result<()> {
    // A record that cannot be read names no process.
    let Some(record) = files.read().ok().flatten() else { return Ok(()) };
    let Some(process) = outside(&record, cgroup).await else { return Ok(()) };
    let (pid, cgroup) = (process.pid, cgroup.path().display());
    Err(io::Error::other(format!("it runs as process {pid} outside {cgroup}")))
}

fn seen_outside(record: &Record, cgroup: &Cgroup) -> Option<Process> {
    let process = record.process.filter(|process| process.runs())?;
    let inside = cgroup.processes().is_ok_and(|processes| processes.contains(&process.pid));
    (!inside).then_some(process)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use holdfast_policies::{
        model::QemuDefinition,
        names::{Epoch, GuestName},
        time::WallTime,
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
        };
        (folder, config)
    }

    /// What an earlier supervisor has written of a guest that it started.
    fn started(config: &DriverConfig, process: Process) -> GuestName {
        let guest = GuestName::new("web-1").unwrap();
        let files = Files::new(&config.run_dir, &guest);
        files.make().unwrap();
        let record = Record {
            guest: guest.clone(),
            epoch: Epoch { generation: 1, index: 7 },
            definition: QemuDefinition::bare(16),
            how: How::Run,
            started: WallTime(0),
            exclusive: BTreeSet::new(),
            process: Some(process),
        };
        files.write(&record).unwrap();
        guest
    }

    fn this_process() -> Process {
        Process::find(i32::try_from(std::process::id()).unwrap()).unwrap()
    }

    #[tokio::test]
    async fn a_driver_does_not_begin_while_a_guest_runs_outside_the_cgroup_that_it_is_told() {
        let (_folder, config) = host();
        started(&config, this_process());
        let error = Driver::open(config).await.err().expect("it does not begin");
        assert!(error.to_string().contains("qemu.cgroup"), "{error}");
    }

    /// What ends has left its cgroup a moment before it is seen to have ended.
    #[tokio::test]
    async fn a_driver_begins_beside_a_guest_that_ends_at_that_moment() {
        let (_folder, config) = host();
        let mut ending = std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let input = ending.stdin.take();
        let guest = started(&config, Process::find(i32::try_from(ending.id()).unwrap()).unwrap());
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
        let guest = started(&config, this_process());
        driver.stop(&guest).await.unwrap_err();
        let (epoch, definition) = (Epoch { generation: 1, index: 8 }, QemuDefinition::bare(16));
        let again = driver.start(&guest, epoch, &definition, How::Run, || Ok(())).await;
        assert!(matches!(again, Err(StartError::Host { .. })), "{again:?}");
    }

    #[tokio::test]
    async fn a_guest_that_has_ended_is_in_nobodys_way_though_its_number_was_given_anew() {
        let (_folder, config) = host();
        let this = this_process();
        let guest = started(&config, Process { start_ticks: this.start_ticks + 1, ..this });
        let (driver, _events) = Driver::open(config).await.unwrap();
        driver.stop(&guest).await.unwrap();
    }
}
