//! The driver against a real QEMU, without a guest system in it: a machine that finds nothing to boot runs for ever.

use std::time::Instant;

use holdfast_policies::model::{Accel, Disk, DiskFormat, DisplayModel, Vsock, VsockCarrier};
use tokio::sync::mpsc::Receiver;

use super::{stop::has_cleaned_up, *};

const LONG: Duration = Duration::from_secs(20);

/// Well below the second after which it would be looked for anyway.
const AT_ONCE: Duration = Duration::from_millis(500);

/// A host of its own: run folder and cgroup; both are gone afterwards, with everything that ran in them.
struct Host {
    config: DriverConfig,
    _run_dir: tempfile::TempDir,
}

impl Host {
    /// `None` where the person who runs the tests has said that this machine is no lab.
    fn new(name: &str) -> Option<Self> {
        if std::env::var_os("HOLDFAST_NO_LAB").is_some_and(|value| value == "1") {
            eprintln!("left out because of HOLDFAST_NO_LAB=1: the qemu driver against a real QEMU ({name})");
            return None;
        }
        assert!(nix::unistd::geteuid().is_root(), "needs root for cgroups; set HOLDFAST_NO_LAB=1 to leave it out");
        let mount = cgroup2_mount().expect("needs a mounted cgroup v2; set HOLDFAST_NO_LAB=1 to leave it out");
        let run_dir = tempfile::tempdir().unwrap();
        let config = DriverConfig {
            binary: "qemu-system-x86_64".into(),
            cgroup: mount.join(format!("holdfast-test-{name}-{}", std::process::id())),
            run_dir: run_dir.path().to_owned(),
            migrate_address: "127.0.0.1".parse().unwrap(),
            forensics: run_dir.path().join("forensics"),
            log_dir: None,
            sandbox: true,
        };
        Some(Self { config, _run_dir: run_dir })
    }

    async fn open(&self) -> (Driver, Receiver<GuestEvent>) {
        Driver::open(self.config.clone()).await.unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        _ = std::fs::write(self.config.cgroup.join("cgroup.kill"), "1");
        let began = Instant::now();
        while began.elapsed() < LONG {
            for child in std::fs::read_dir(&self.config.cgroup).into_iter().flatten().flatten() {
                _ = std::fs::remove_dir(child.path());
            }
            if std::fs::remove_dir(&self.config.cgroup).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

/// The driver of a host on which nothing runs, and whose folder of cgroups is none.
pub(super) fn idle(folder: &Path) -> Inner {
    let cgroup = folder.join("cgroup");
    std::fs::create_dir(&cgroup).unwrap();
    for name in ["cgroup.events", "cgroup.procs"] {
        std::fs::write(cgroup.join(name), "").unwrap();
    }
    let config = DriverConfig {
        binary: folder.join("qemu"),
        cgroup,
        run_dir: folder.to_owned(),
        migrate_address: "127.0.0.1".parse().unwrap(),
        forensics: folder.join("forensics"),
        log_dir: None,
        sandbox: false,
    };
    let (events, _) = mpsc::channel(1);
    let (keeper, logs) = (Keeper::begin(config.forensics.clone()), LogDir::begin(None, folder));
    let (registry, kvm, sandbox) = (Registry::default(), Kvm::default(), Sandbox::default());
    Inner { config, registry, keeper, logs, events, kvm, sandbox, kills: Kills::default() }
}

fn guest(name: &str) -> GuestName {
    GuestName::new(name).unwrap()
}

fn epoch(index: u64) -> Epoch {
    Epoch { generation: 1, index }
}

fn empty_machine() -> QemuDefinition {
    QemuDefinition { accel: Accel::Tcg, ..QemuDefinition::bare(16) }
}

async fn until(events: &mut Receiver<GuestEvent>, wanted: impl Fn(&GuestCondition) -> bool) -> GuestReport {
    let found = async {
        loop {
            match events.recv().await.expect("the driver lives") {
                GuestEvent::Changed(report) if wanted(&report.condition) => return report,
                _ => {}
            }
        }
    };
    timeout(LONG, found).await.expect("the event comes")
}

fn exited(condition: &GuestCondition) -> bool {
    matches!(condition, GuestCondition::Exited { .. })
}

fn process(host: &Host, name: &str) -> i32 {
    Files::new(&host.config.run_dir, &guest(name)).read_pid().unwrap()
}

fn send_signal(pid: i32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
}

/// Stands for a QEMU that needs what is denied, and not for a machine without a guest.
const NEEDS_MORE: &str = r#"#!/bin/sh
case " $* " in
*" -machine none "*) exit 0 ;;
*" -sandbox "*) ulimit -c 0; kill -31 $$ ;;
esac
exit 3
"#;

#[tokio::test]
async fn a_qemu_that_is_ended_by_its_sandbox_is_started_without_it_the_next_time() {
    let Some(mut host) = Host::new("sandbox") else { return };
    host.config.binary = host.config.run_dir.join("qemu");
    let script = host.config.run_dir.join("script");
    std::fs::write(&script, NEEDS_MORE).unwrap();
    // By another process: what is begun here at this moment by other tests would have the file open, and it could not be run.
    let installed =
        std::process::Command::new("install").args(["-m", "700"]).args([&script, &host.config.binary]).status();
    assert!(installed.unwrap().success());
    let (driver, _events) = host.open().await;
    for ended in ["signal 31", "exit status 3"] {
        let failed = driver.start(&guest("needs-more"), epoch(1), &empty_machine(), How::Run, || Ok(())).await;
        assert!(matches!(&failed, Err(StartError::Failed(detail)) if detail.contains(ended)), "{failed:?}");
    }
}

/// The driver forgets a guest as soon as it is gone; its task may hear of both at once.
#[tokio::test]
async fn a_guest_that_is_forgotten_in_the_moment_of_its_end_is_still_reported_to_have_ended() {
    let Some(host) = Host::new("forgotten") else { return };
    cgroup::make_base(&host.config.cgroup).unwrap();
    // Which of the two is looked at first is left to chance.
    for _ in 0..32 {
        let (events, mut told) = mpsc::channel(EVENTS);
        let monitored = monitor::Monitored {
            epoch: epoch(1),
            cgroup: Cgroup::new(&host.config.cgroup, "gone"),
            ..monitor::Monitored::bare(&host.config.run_dir, guest("gone"))
        };
        let (client, task) = monitor::spawn(monitored, events);
        drop(client);
        timeout(LONG, task).await.expect("the task ends").unwrap();
        assert!(matches!(told.recv().await, Some(GuestEvent::Changed(report)) if exited(&report.condition)));
    }
}

#[tokio::test]
async fn what_cleans_up_after_a_guest_for_too_long_does_nothing_to_the_next_one() {
    let (next_one, removed) = tokio::sync::oneshot::channel::<()>();
    let (cleaning, slow) = tokio::sync::oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        _ = slow.await;
        _ = next_one.send(());
    });
    assert!(!has_cleaned_up(task, Duration::from_millis(20)).await);
    _ = cleaning.send(());
    timeout(LONG, removed).await.unwrap().unwrap_err();
    assert!(has_cleaned_up(tokio::spawn(async {}), LONG).await);
}

/// Whoever is told that an assignment was replaced, or comes late for a start, may get its turn after the next assignment has begun
/// here.
#[tokio::test]
async fn what_runs_under_a_newer_epoch_than_the_one_that_was_replaced_is_left_alone() {
    let Some(host) = Host::new("newer") else { return };
    let (driver, mut events) = host.open().await;
    let name = guest("one");
    driver.start(&name, epoch(8), &empty_machine(), How::Run, || Ok(())).await.unwrap();
    until(&mut events, |condition| *condition == GuestCondition::Running).await;
    let pid = process(&host, "one");
    driver.stop_at_once(&name, epoch(7)).await.unwrap();
    assert_eq!(driver.stop_older(&name, epoch(7)).await.unwrap(), None);
    assert_eq!(process(&host, "one"), pid);
    assert_eq!(driver.inventory().await.unwrap()[0].epoch, epoch(8));
    driver.stop_at_once(&name, epoch(8)).await.unwrap();
    assert!(driver.inventory().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_guest_outlives_its_driver_and_is_adopted_by_the_next() {
    let Some(host) = Host::new("adopt") else { return };
    let (driver, mut events) = host.open().await;
    let name = guest("one");
    driver.start(&name, epoch(7), &empty_machine(), How::Run, || Ok(())).await.unwrap();
    until(&mut events, |condition| *condition == GuestCondition::Running).await;
    let pid = process(&host, "one");
    drop((driver, events));

    let (driver, mut events) = host.open().await;
    let report = until(&mut events, |condition| *condition == GuestCondition::Running).await;
    assert_eq!((report.epoch, process(&host, "one")), (epoch(7), pid));
    driver.start(&name, epoch(7), &empty_machine(), How::Run, || Ok(())).await.unwrap();
    assert_eq!(process(&host, "one"), pid, "the same order twice starts nothing");
    let other = driver.start(&name, epoch(8), &empty_machine(), How::Run, || Ok(())).await;
    assert!(matches!(other, Err(StartError::AlreadyRunning { epoch: at, .. }) if at == epoch(7)), "{other:?}");

    driver.stop(&name).await.unwrap();
    driver.stop(&name).await.unwrap();
    until(&mut events, exited).await;
    assert_eq!(driver.inventory().await.unwrap(), []);
    assert!(!driver.cgroup_of(&name).exists());
}

#[tokio::test]
async fn an_exit_is_seen_at_once_and_remembered_by_the_next_driver() {
    let Some(host) = Host::new("exit") else { return };
    let (driver, mut events) = host.open().await;
    let mut quickest = Duration::MAX;
    // A machine that is busy for a moment says nothing about how long it takes; whoever looks once a second is late every time.
    for index in 1..=8 {
        driver.start(&guest("one"), epoch(index), &empty_machine(), How::Run, || Ok(())).await.unwrap();
        let killed = Instant::now();
        send_signal(process(&host, "one"), nix::sys::signal::Signal::SIGKILL);
        let report = until(&mut events, exited).await;
        quickest = quickest.min(killed.elapsed());
        eprintln!("exit seen after {:?}", killed.elapsed());
        let detail = "signal 9".to_owned();
        assert_eq!((report.epoch, report.condition), (epoch(index), GuestCondition::Exited { detail }));
        if quickest < AT_ONCE {
            break;
        }
    }
    assert!(quickest < AT_ONCE, "the quickest took {quickest:?}");
    drop((driver, events));
    let (driver, mut events) = host.open().await;
    until(&mut events, exited).await;
    assert!(exited(&driver.inventory().await.unwrap()[0].condition));
    driver.start(&guest("one"), epoch(9), &empty_machine(), How::Run, || Ok(())).await.unwrap();
}

#[tokio::test]
async fn a_hanging_qemu_is_unknown_and_never_exited() {
    let Some(host) = Host::new("hang") else { return };
    let (driver, mut events) = host.open().await;
    driver.start(&guest("one"), epoch(1), &empty_machine(), How::Run, || Ok(())).await.unwrap();
    until(&mut events, |condition| *condition == GuestCondition::Running).await;
    let pid = process(&host, "one");
    send_signal(pid, nix::sys::signal::Signal::SIGSTOP);
    until(&mut events, |condition| matches!(condition, GuestCondition::Unknown { .. })).await;
    let ping = holdfast_probes::GuestChannel::ping(&driver.agent(&guest("one")).await.unwrap(), ANSWER_DEADLINE).await;
    assert!(matches!(ping, Err(holdfast_probes::ChannelError::Unavailable(_))), "{ping:?}");
    send_signal(pid, nix::sys::signal::Signal::SIGCONT);
    until(&mut events, |condition| *condition == GuestCondition::Running).await;
    let monitor = driver.inner.registry.monitor(&guest("one")).unwrap();
    monitor.execute(qapi::qmp::stop {}, LONG).await.unwrap();
    until(&mut events, |condition| *condition == GuestCondition::Paused { reason: "paused".into() }).await;
    driver.resume(&guest("one")).await.unwrap();
    send_signal(pid, nix::sys::signal::Signal::SIGSTOP);
    driver.stop(&guest("one")).await.unwrap();
}

#[tokio::test]
async fn a_guest_that_somebody_moves_out_of_its_cgroup_is_unknown_and_never_exited() {
    let Some(host) = Host::new("moved") else { return };
    let (driver, mut events) = host.open().await;
    let name = guest("one");
    driver.start(&name, epoch(1), &empty_machine(), How::Run, || Ok(())).await.unwrap();
    until(&mut events, |condition| *condition == GuestCondition::Running).await;
    let pid = process(&host, "one");
    // No guest has such a name.
    let elsewhere = host.config.cgroup.join("ELSE WHERE");
    std::fs::create_dir(&elsewhere).unwrap();
    for process in Cgroup::new(&host.config.cgroup, "one").processes().unwrap() {
        std::fs::write(elsewhere.join("cgroup.procs"), process.to_string()).unwrap();
    }
    let moved = |condition: &GuestCondition| matches!(condition, GuestCondition::Unknown { detail } if detail.contains("outside"));
    let report = until(&mut events, |condition| exited(condition) || moved(condition)).await;
    assert!(moved(&report.condition), "{report:?}");
    driver.stop(&name).await.unwrap_err();
    send_signal(pid, nix::sys::signal::Signal::SIGKILL);
    until(&mut events, exited).await;
    driver.stop(&name).await.unwrap();
}

#[tokio::test]
async fn two_guests_on_one_image_and_a_machine_that_cannot_start_leave_nothing_behind() {
    let Some(host) = Host::new("refuse") else { return };
    let (driver, _events) = host.open().await;
    let image = host.config.run_dir.join("image.raw");
    std::fs::write(&image, vec![0; 1 << 20]).unwrap();
    let link = host.config.run_dir.join("link.raw");
    std::os::unix::fs::symlink(&image, &link).unwrap();
    let with = |path: &Path| {
        let disks = vec![Disk { path: path.to_owned(), format: DiskFormat::Raw }];
        QemuDefinition { disks, ..empty_machine() }
    };
    driver.start(&guest("one"), epoch(1), &with(&image), How::Run, || Ok(())).await.unwrap();
    let second = driver.start(&guest("two"), epoch(2), &with(&link), How::Run, || Ok(())).await;
    assert!(matches!(&second, Err(StartError::InUse { other, .. }) if *other == guest("one")), "{second:?}");
    let absent = driver.start(&guest("two"), epoch(2), &with(Path::new("/nonexistent")), How::Run, || Ok(())).await;
    assert!(matches!(&absent, Err(StartError::Failed(detail)) if detail.contains("/nonexistent")), "{absent:?}");
    let here: Vec<_> = driver.inventory().await.unwrap().into_iter().map(|report| report.guest).collect();
    assert_eq!(here, [guest("one")]);
    assert!(!driver.cgroup_of(&guest("two")).exists());
    driver.stop(&guest("one")).await.unwrap();
    driver.start(&guest("two"), epoch(3), &with(&link), How::Run, || Ok(())).await.unwrap();
}

#[tokio::test]
async fn a_guest_whose_vsock_device_its_host_lacks_is_not_started_and_leaves_nothing_behind() {
    let Some(host) = Host::new("vsock") else { return };
    let (driver, _events) = host.open().await;
    let with = |device: &Path| {
        let carrier = VsockCarrier::Program { device: device.into(), socket: "/nonexistent/socket".into() };
        let vsock = Some(Vsock { carrier, port: 7413 });
        QemuDefinition { holdfast_agent: true, vsock, ..empty_machine() }
    };
    let definition = with(Path::new("/nonexistent/device"));
    let refused = driver.start(&guest("one"), epoch(1), &definition, How::Run, || Ok(())).await;
    assert!(matches!(&refused, Err(StartError::Vsock(why)) if why.contains("/nonexistent/device")), "{refused:?}");
    // What a program leaves that has died.
    let folder = tempfile::tempdir().unwrap();
    let left = folder.path().join("device");
    drop(std::os::unix::net::UnixListener::bind(&left).unwrap());
    let refused = driver.start(&guest("one"), epoch(2), &with(&left), How::Run, || Ok(())).await;
    assert!(matches!(&refused, Err(StartError::Failed(why)) if why.contains("Connection refused")), "{refused:?}");
    assert!(driver.inventory().await.unwrap().is_empty());
    assert!(!driver.cgroup_of(&guest("one")).exists());
}

#[tokio::test]
async fn processes_without_a_record_are_reported_and_can_be_stopped() {
    let Some(host) = Host::new("stray") else { return };
    let (driver, _events) = host.open().await;
    let stray = driver.cgroup_of(&guest("stray"));
    std::fs::create_dir(&stray).unwrap();
    let mut child = std::process::Command::new("sleep").arg("100").spawn().unwrap();
    std::fs::write(stray.join("cgroup.procs"), child.id().to_string()).unwrap();
    for driver in [driver, host.open().await.0] {
        let reports = driver.inventory().await.unwrap();
        assert!(matches!(reports[0].condition, GuestCondition::Unknown { .. }), "{reports:?}");
        let start = driver.start(&guest("stray"), epoch(1), &empty_machine(), How::Run, || Ok(())).await;
        assert!(matches!(start, Err(StartError::AlreadyRunning { .. })), "{start:?}");
    }
    host.open().await.0.stop(&guest("stray")).await.unwrap();
    assert_eq!(child.wait().unwrap().code(), None);
}

#[tokio::test]
async fn what_was_last_seen_of_an_ill_guest_is_told_and_kept_and_belongs_to_its_own_run() {
    let Some(host) = Host::new("forensics") else { return };
    let (driver, mut events) = host.open().await;
    let name = guest("one");
    let machine = empty_machine();
    let run = |index| driver.start(&name, epoch(index), &machine, How::Run, || Ok(()));
    run(1).await.unwrap();
    until(&mut events, |condition| *condition == GuestCondition::Running).await;
    let console = Files::new(&host.config.run_dir, &name).console();
    std::fs::write(&console, "Kernel panic - not syncing\n").unwrap();
    let told = driver.stop_ill(&name).await.unwrap().expect("it was there");
    assert!(told.starts_with("running; more in "), "{told}");
    assert!(told.ends_with("its console ended: Kernel panic - not syncing"), "{told}");
    let case = host.config.forensics.join("one/1.1.txt");
    let written = async {
        while !case.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, written).await.expect("the case is written");
    assert!(std::fs::read_to_string(&case).unwrap().contains("Kernel panic"));
    assert_eq!(driver.stop_ill(&name).await.unwrap(), None, "nothing of it is left");

    run(2).await.unwrap();
    until(&mut events, |condition| *condition == GuestCondition::Running).await;
    let told = driver.stop_ill(&name).await.unwrap().expect("it was there");
    assert!(!told.contains("panic"), "that was the run before: {told}");

    run(3).await.unwrap();
    until(&mut events, |condition| *condition == GuestCondition::Running).await;
    std::fs::write(&console, "reboot: Power down\n").unwrap();
    driver.stop(&name).await.unwrap();
    run(4).await.unwrap();
    until(&mut events, |condition| *condition == GuestCondition::Running).await;
    let told = driver.stop_ill(&name).await.unwrap().expect("it was there");
    assert!(!told.contains("Power down"), "that was a run that ended in order: {told}");
}

async fn is_written(path: &Path) {
    let written = async {
        while !path.exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(LONG, written).await.expect("it is written");
}

fn machine_with_a_display() -> QemuDefinition {
    QemuDefinition { display: Some(DisplayModel::Vga), ..empty_machine() }
}

#[tokio::test]
async fn the_screen_of_an_ill_guest_is_kept_for_root_only_whether_it_runs_or_not() {
    let Some(host) = Host::new("screen") else { return };
    let (driver, mut events) = host.open().await;
    let (name, began) = (guest("one"), Instant::now());
    let (mut index, mut running) = (0, true);
    // A busy machine may take longer than a kill waits; then there is no picture, and another run has one.
    let mut without = loop {
        index += 1;
        driver.start(&name, epoch(index), &machine_with_a_display(), How::Run, || Ok(())).await.unwrap();
        until(&mut events, |condition| *condition == GuestCondition::Running).await;
        if !running {
            let monitor = driver.inner.registry.monitor(&name).unwrap();
            monitor.execute(qapi::qmp::stop {}, LONG).await.unwrap();
            until(&mut events, |condition| matches!(condition, GuestCondition::Paused { .. })).await;
        }
        let told = driver.stop_ill(&name).await.unwrap().expect("it was there");
        let picture = host.config.forensics.join(format!("one/1.{index}.png"));
        assert!(began.elapsed() < LONG * 2, "never a picture within {:?}: {told}", screen::TAKEN_WITHIN);
        if !told.contains(&format!("one/1.{index}.txt and 1.{index}.png;")) {
            continue;
        }
        is_written(&picture).await;
        assert!(std::fs::read(&picture).unwrap().starts_with(b"\x89PNG\r\n\x1a\n"));
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&picture).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);
        assert!(!Files::new(&host.config.run_dir, &name).screen().exists(), "nothing of it stays on the tmpfs");
        if !running {
            break index;
        }
        running = false;
    };

    // One that must not run a moment longer is not asked, nor one without a display.
    for definition in [machine_with_a_display(), empty_machine()] {
        without += 1;
        driver.start(&name, epoch(without), &definition, How::Run, || Ok(())).await.unwrap();
        until(&mut events, |condition| *condition == GuestCondition::Running).await;
        match definition.display {
            Some(_) => driver.stop_at_once(&name, epoch(u64::MAX)).await.unwrap(),
            None => drop(driver.stop_ill(&name).await.unwrap().expect("it was there")),
        }
        let case = host.config.forensics.join(format!("one/1.{without}.txt"));
        is_written(&case).await;
        assert!(!std::fs::read_to_string(&case).unwrap().contains("== its screen"));
        assert!(!case.with_extension("png").exists());
    }
}

#[tokio::test]
async fn a_qemu_that_hangs_delays_its_own_kill_by_no_more_than_the_picture_may_take() {
    let Some(host) = Host::new("frozen") else { return };
    let (driver, mut events) = host.open().await;
    let name = guest("one");
    let mut quickest = Duration::MAX;
    // A machine that is busy for a moment says nothing about how long it takes; whoever waits for the monitor is late every time.
    for index in 1..=4 {
        driver.start(&name, epoch(index), &machine_with_a_display(), How::Run, || Ok(())).await.unwrap();
        until(&mut events, |condition| *condition == GuestCondition::Running).await;
        send_signal(process(&host, "one"), nix::sys::signal::Signal::SIGSTOP);
        let began = Instant::now();
        let told = driver.stop_ill(&name).await.unwrap().expect("it was there");
        quickest = quickest.min(began.elapsed());
        eprintln!("stopped after {:?}", began.elapsed());
        assert!(!told.contains("png"), "{told}");
        let case = host.config.forensics.join(format!("one/1.{index}.txt"));
        is_written(&case).await;
        let text = std::fs::read_to_string(&case).unwrap();
        assert!(text.contains("== its screen\nno picture: no answer from the monitor within 250ms\n"), "{text}");
        if quickest < ANSWER_DEADLINE {
            break;
        }
    }
    assert!(quickest < ANSWER_DEADLINE, "that is what anything else of it would have waited for: {quickest:?}");
}

/// A guest moves between two hosts on this machine, then is kept because nobody gives the word.
#[tokio::test]
async fn a_guest_is_handed_over_only_with_the_word() {
    let (Some(one), Some(two)) = (Host::new("source"), Host::new("target")) else { return };
    let ((source, mut source_events), (target, mut target_events)) = (one.open().await, two.open().await);
    let name = guest("mover");
    source.start(&name, epoch(1), &empty_machine(), How::Run, || Ok(())).await.unwrap();
    until(&mut source_events, |condition| *condition == GuestCondition::Running).await;
    let uri = target.start(&name, epoch(2), &empty_machine(), How::Incoming, || Ok(())).await.unwrap().uri.unwrap();
    let again = target.start(&name, epoch(2), &empty_machine(), How::Incoming, || Ok(())).await.unwrap();
    assert_eq!(again.uri.as_ref(), Some(&uri));
    assert!(matches!(target.resume(&name).await, Err(ResumeError::NotPaused(_))));

    let kept = source.send_to(&name, &uri, LONG, || true, async { false }).await;
    assert!(matches!(kept, Err(SendError::Kept(_))), "{kept:?}");
    target.stop(&name).await.unwrap();
    let uri = target.start(&name, epoch(3), &empty_machine(), How::Incoming, || Ok(())).await.unwrap().uri.unwrap();
    let outcome = source.send_to(&name, &uri, LONG, || true, async { true }).await.unwrap();
    eprintln!("{outcome:?}");
    until(&mut source_events, |condition| *condition == GuestCondition::Sent).await;
    until(&mut target_events, |condition| *condition == GuestCondition::Paused { reason: ARRIVED.into() }).await;
    target.resume(&name).await.unwrap();
    source.stop(&name).await.unwrap();
}

#[tokio::test]
async fn a_guest_with_which_others_are_busy_is_not_sent_after_its_time() {
    let (Some(one), Some(two)) = (Host::new("busy"), Host::new("idle")) else { return };
    let ((source, mut source_events), (target, _target_events)) = (one.open().await, two.open().await);
    let name = guest("mover");
    source.start(&name, epoch(1), &empty_machine(), How::Run, || Ok(())).await.unwrap();
    until(&mut source_events, |condition| *condition == GuestCondition::Running).await;
    let uri = target.start(&name, epoch(2), &empty_machine(), How::Incoming, || Ok(())).await.unwrap().uri.unwrap();
    let gate = source.inner.registry.gate(&name);
    let busy = gate.lock().await;
    let kept = timeout(LONG, source.send_to(&name, &uri, AT_ONCE, || true, async { true })).await.expect("it waits on");
    assert!(matches!(kept, Err(SendError::Kept(_))), "{kept:?}");
    drop(busy);
    tokio::time::sleep(AT_ONCE).await;
    assert_eq!(source.inventory().await.unwrap()[0].condition, GuestCondition::Running);
}

#[tokio::test]
async fn a_guest_is_sent_only_to_a_machine_with_the_processor_that_it_was_started_with() {
    let Some(host) = Host::new("processor") else { return };
    let named_machine = QemuDefinition { cpu: Some("qemu64".to_owned()), ..empty_machine() };
    let (plain, named) = (guest("plain"), guest("named"));
    let check = |driver: &Driver| {
        for (name, ours, theirs) in [(&plain, "max", "qemu64"), (&named, "qemu64", "max")] {
            driver.check_processor(name, ours).unwrap();
            let refused = driver.check_processor(name, theirs).unwrap_err().to_string();
            assert!(refused.contains(&format!("the processor `{ours}`, and `{theirs}` waits")), "{refused}");
        }
    };
    let (driver, events) = host.open().await;
    driver.start(&plain, epoch(1), &empty_machine(), How::Run, || Ok(())).await.unwrap();
    driver.start(&named, epoch(2), &named_machine, How::Run, || Ok(())).await.unwrap();
    check(&driver);
    drop((driver, events));
    let (driver, _events) = host.open().await;
    check(&driver);
}

/// Declared anew while it runs, as where its disks go to other storage: what runs is the record's word, also for the next supervisor.
#[tokio::test]
async fn a_guest_is_sent_only_to_a_machine_with_the_disks_that_it_was_started_with() {
    let Some(host) = Host::new("machine") else { return };
    let image = host.config.run_dir.join("one.raw");
    std::fs::write(&image, [0; 512]).unwrap();
    let started =
        QemuDefinition { disks: vec![Disk { path: image.clone(), format: DiskFormat::Raw }], ..empty_machine() };
    let declared = QemuDefinition {
        disks: vec![Disk { path: "/srv/copy.raw".into(), format: DiskFormat::Raw }],
        ..started.clone()
    };
    let name = guest("one");
    let check = |driver: &Driver| {
        driver.check_machine(&name, &started).unwrap();
        let refused = driver.check_machine(&name, &declared).unwrap_err().to_string();
        let (told, disk) = ("has to be started anew first", format!("disk 1 is {} (raw) here", image.display()));
        assert!(refused.contains(told) && refused.contains(&disk), "{refused}");
        driver.check_machine(&guest("another"), &declared).unwrap();
    };
    let (driver, events) = host.open().await;
    driver.start(&name, epoch(1), &started, How::Run, || Ok(())).await.unwrap();
    check(&driver);
    drop((driver, events));
    let (driver, _events) = host.open().await;
    check(&driver);
}

/// A supervisor's life up to the moment in which a guest is stopped, and only the word to hand it over is missing.
fn dies_while_sending(config: DriverConfig, name: &GuestName, uri: &str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let (source, mut events) = Driver::open(config).await.unwrap();
        source.start(name, epoch(1), &empty_machine(), How::Run, || Ok(())).await.unwrap();
        until(&mut events, |condition| *condition == GuestCondition::Running).await;
        let word = std::future::pending();
        let sending = source.send_to(name, uri, LONG * 10, || true, word);
        let stopped = until(&mut events, |condition| matches!(condition, GuestCondition::Paused { .. }));
        tokio::select! {
            sent = sending => panic!("{sent:?}"),
            _ = stopped => {}
        }
    });
    // All of its tasks end here, as with its process.
    runtime.shutdown_timeout(LONG);
}

#[tokio::test]
async fn a_guest_whose_supervisor_died_while_it_was_sent_runs_on() {
    let (Some(one), Some(two)) = (Host::new("orphan"), Host::new("haven")) else { return };
    let (target, mut target_events) = two.open().await;
    let name = guest("mover");
    let receive = || async {
        target.start(&name, epoch(2), &empty_machine(), How::Incoming, || Ok(())).await.unwrap().uri.unwrap()
    };
    let (config, mover, uri) = (one.config.clone(), name.clone(), receive().await);
    tokio::task::spawn_blocking(move || dies_while_sending(config, &mover, &uri)).await.unwrap();
    let (source, mut events) = one.open().await;
    until(&mut events, |condition| *condition == GuestCondition::Running).await;
    target.stop(&name).await.unwrap();
    assert_eq!(source.inventory().await.unwrap()[0].condition, GuestCondition::Running);
    // It can still be sent.
    source.send_to(&name, &receive().await, LONG, || true, async { true }).await.unwrap();
    until(&mut target_events, |condition| *condition == GuestCondition::Paused { reason: ARRIVED.into() }).await;

    // Another start of the supervisor leaves what was wholly sent, and what has arrived, as they are.
    drop((source, events));
    let (source, mut events) = one.open().await;
    until(&mut events, |condition| *condition == GuestCondition::Sent).await;
    drop((target, target_events));
    let (target, mut target_events) = two.open().await;
    until(&mut target_events, |condition| *condition == GuestCondition::Paused { reason: ARRIVED.into() }).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(source.inventory().await.unwrap()[0].condition, GuestCondition::Sent);
    assert_eq!(target.inventory().await.unwrap()[0].condition, GuestCondition::Paused { reason: ARRIVED.into() });
}

/// Whoever tries for minutes to end what an earlier supervisor has begun may meet another run of the guest.
#[tokio::test]
async fn the_end_of_an_old_migration_does_not_run_a_guest_that_has_not_arrived() {
    let (Some(one), Some(two)) = (Host::new("sends"), Host::new("waits")) else { return };
    let ((source, mut source_events), (target, mut target_events)) = (one.open().await, two.open().await);
    let name = guest("mover");
    source.start(&name, epoch(3), &empty_machine(), How::Run, || Ok(())).await.unwrap();
    until(&mut source_events, |condition| *condition == GuestCondition::Running).await;
    let uri = target.start(&name, epoch(4), &empty_machine(), How::Incoming, || Ok(())).await.unwrap().uri.unwrap();
    until(&mut target_events, |condition| *condition == GuestCondition::Incoming).await;
    let old_run = Some((epoch(1), How::Run));
    assert!(orphan::cancelled(&target.inner, &name, old_run).await, "there is nothing left to try");
    let monitor = target.inner.registry.monitor(&name).unwrap();
    let kept = migrate::keep(&monitor, migrate::NotSent::Orphaned).await;
    assert!(matches!(kept, SendError::NotRunning(GuestCondition::Incoming)), "{kept:?}");
    source.send_to(&name, &uri, LONG, || true, async { true }).await.unwrap();
    until(&mut target_events, |condition| *condition == GuestCondition::Paused { reason: ARRIVED.into() }).await;
}
