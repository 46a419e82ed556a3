//! A real libvirt for tests, in a folder of its own and with one domain: what it says of a domain that has ended, or has not.
//!
//! The daemon is one of a session, and nobody's where root runs the tests: the machine's own libvirt, whose folders are those
//! below `/etc`, `/var` and `/run`, has nothing to do with it.

use std::{
    fs,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use holdfast_policies::{model::LibvirtDevice, time::Span};
use nix::{
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};
use tempfile::TempDir;

use super::Libvirt;
use crate::{Answer, Asked, Outcome, Power, PowerDevice, PowerOffReport, power_off_and_confirm, simulator};

/// Longest time for one call on a busy machine: a destroy takes two seconds on an idle one.
const CALL: Duration = Duration::from_secs(15);
/// Longest time until the daemon answers, or says what it is about to say.
const LIMIT: Duration = Duration::from_secs(60);
/// Longest time for one `virsh` of the test's own, in seconds.
const VIRSH_LIMIT: &str = "60";
/// The user and the group that nothing belongs to.
const NOBODY: u32 = 65_534;
/// What the tests need, and what brings it.
const PROGRAMS: [(&str, &str); 3] = [
    ("libvirtd", "libvirt-daemon, and libvirt-daemon-driver-qemu"),
    ("virsh", "libvirt-clients"),
    ("qemu-system-x86_64", "qemu-system-x86"),
];
/// The domain.
const NAME: &str = "hv-a";
/// Its UUID.
const UUID: &str = "33221100-5544-7766-8899-aabbccddeeff";
/// It finds nothing to boot from, and stays at that.
const DOMAIN: &str = "<domain type='qemu'><name>hv-a</name><uuid>33221100-5544-7766-8899-aabbccddeeff</uuid>\
                      <memory unit='MiB'>16</memory><os><type arch='x86_64' machine='pc'>hvm</type></os>\
                      <devices><emulator>/usr/bin/qemu-system-x86_64</emulator><controller type='usb' model='none'/>\
                      <memballoon model='none'/></devices></domain>\n";

fn left_out(test: &str) -> bool {
    simulator::left_out_without(&PROGRAMS, test)
}

/// A running daemon; it and its domain end with this value.
struct Daemon {
    folder: TempDir,
    process: Child,
}

impl Daemon {
    /// Starts one whose domain runs.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let folders = ["run", "config", "config/libvirt", "cache", "data"].map(|name| folder.path().join(name));
        folders.iter().for_each(|path| fs::create_dir(path).unwrap());
        let sockets = folder.path().join("run");
        let settings = format!(
            "unix_sock_dir = \"{}\"\nauth_unix_ro = \"none\"\nauth_unix_rw = \"none\"\nhost_uuid = \"{UUID}\"\n\
             log_outputs = \"3:stderr\"\n",
            sockets.display()
        );
        fs::write(folder.path().join("libvirtd.conf"), settings).unwrap();
        // Without a log daemon beside it, and without whatever confines the machine's own guests.
        let of_qemu = "stdio_handler = \"file\"\nsecurity_driver = \"none\"\n";
        fs::write(folder.path().join("config/libvirt/qemu.conf"), of_qemu).unwrap();
        fs::write(folder.path().join("domain.xml"), DOMAIN).unwrap();
        if geteuid().is_root() {
            chown(folder.path(), Some(NOBODY), Some(NOBODY)).unwrap();
            folders.iter().for_each(|path| chown(path, Some(NOBODY), Some(NOBODY)).unwrap());
        }
        let daemon = Self { process: spawn(folder.path()), folder };
        daemon.wait_until_it_answers();
        daemon.virsh(&["define", daemon.path("domain.xml").to_str().unwrap()]);
        daemon.virsh(&["start", NAME]);
        daemon
    }

    /// `kill -9`; its domain goes on.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Starts it anew after [`Self::kill`].
    fn start_again(&mut self) {
        self.process = spawn(self.folder.path());
        self.wait_until_it_answers();
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process.id().try_into().unwrap()), signal).unwrap();
    }

    fn wait_until_it_answers(&self) {
        let began = Instant::now();
        while !self.ask(&["list"]).0 {
            let said = fs::read_to_string(self.path("output")).unwrap_or_default();
            assert!(began.elapsed() < LIMIT, "libvirtd does not answer: {said}");
            thread::sleep(Duration::from_millis(50));
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn uri(&self) -> String {
        format!("qemu:///session?socket={}", self.path("run/libvirt-sock").display())
    }

    /// A device for a domain of this daemon.
    fn device(&self, domain: &str, timeout: Span) -> Libvirt {
        Libvirt::new(LibvirtDevice { uri: self.uri(), domain: domain.to_owned(), wiring_verified_by: None, timeout })
    }

    /// What an operator would say to it, and what it prints.
    fn virsh(&self, words: &[&str]) -> String {
        let (well, said) = self.ask(words);
        assert!(well, "virsh {words:?}: {said}");
        said
    }

    fn ask(&self, words: &[&str]) -> (bool, String) {
        let uri = self.uri();
        let ended =
            Command::new("timeout").args([VIRSH_LIMIT, "virsh", "-q", "-c", &uri]).args(words).output().unwrap();
        let said = [ended.stdout, ended.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (ended.status.success(), said)
    }

    /// The domain's QEMU, while it lives.
    fn qemu(&self) -> Option<Pid> {
        let pid: i32 = fs::read_to_string(self.path("run/libvirt/qemu/run/hv-a.pid")).ok()?.trim().parse().ok()?;
        // Of one that has ended and was not waited for nothing is left there, and another with its number is not ours.
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        String::from_utf8_lossy(&line).contains(self.folder.path().to_str()?).then_some(Pid::from_raw(pid))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        if let Some(qemu) = self.qemu() {
            let _ = kill(qemu, Signal::SIGKILL);
        }
    }
}

fn spawn(folder: &Path) -> Child {
    let log = fs::File::options().create(true).append(true).open(folder.join("output")).unwrap();
    let mut command = Command::new("libvirtd");
    command.arg("-f").arg(folder.join("libvirtd.conf")).arg("-p").arg(folder.join("run/pid"));
    command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", folder);
    for (variable, name) in
        [("RUNTIME_DIR", "run"), ("CONFIG_HOME", "config"), ("CACHE_HOME", "cache"), ("DATA_HOME", "data")]
    {
        command.env(format!("XDG_{variable}"), folder.join(name));
    }
    if geteuid().is_root() {
        command.uid(NOBODY).gid(NOBODY);
    }
    command.current_dir("/").stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap()
}

async fn off(device: &Arc<dyn PowerDevice>, level: Duration) -> PowerOffReport {
    power_off_and_confirm(&[Arc::clone(device)], level, || true).await
}

fn asked(report: &PowerOffReport) -> Vec<Asked> {
    report.attempts.iter().map(|attempt| attempt.asked).collect()
}

fn is_unknown<T>(answer: &Answer<T>) -> bool {
    matches!(answer, Answer::Unknown { .. })
}

#[tokio::test]
async fn a_real_libvirt_ends_a_domain_that_runs_or_is_paused_and_starts_it_again() {
    if left_out("a_real_libvirt_ends_a_domain_that_runs_or_is_paused_and_starts_it_again") {
        return;
    }
    let daemon = Daemon::start();
    let device: Arc<dyn PowerDevice> = Arc::new(daemon.device(NAME, Span::secs(20)));
    assert_eq!(device.machine_id(CALL).await, Answer::Confirmed(UUID.to_owned()));
    for paused in [false, true] {
        if paused {
            daemon.virsh(&["suspend", NAME]);
        }
        assert_eq!(device.status(CALL).await, Answer::Confirmed(Power::On), "paused: {paused}");
        assert!(daemon.qemu().is_some());
        let report = off(&device, Duration::from_secs(20)).await;
        let Outcome::Off { took, .. } = report.outcome else { panic!("paused: {paused}: {report:?}") };
        eprintln!("paused: {paused}: off after {took:?}");
        assert_eq!((daemon.qemu(), asked(&report)), (None, vec![Asked::Status, Asked::Off, Asked::Status]));

        // What is off gets no off, and an off of it says nothing by itself.
        let again = off(&device, Duration::from_secs(20)).await;
        assert!(matches!(again.outcome, Outcome::Off { .. }), "{again:?}");
        assert_eq!(asked(&again), [Asked::Status]);
        assert!(is_unknown(&device.off(CALL).await));

        // On, and on again, which changes nothing.
        assert_eq!(device.on(CALL).await, Answer::Confirmed(()));
        let qemu = daemon.qemu();
        assert_eq!((device.on(CALL).await, daemon.qemu()), (Answer::Confirmed(()), qemu));
        assert_eq!(device.status(CALL).await, Answer::Confirmed(Power::On));
    }
}

#[tokio::test]
async fn a_real_libvirts_word_of_a_domain_that_is_not_there_or_will_go_on_is_no_proof() {
    if left_out("a_real_libvirts_word_of_a_domain_that_is_not_there_or_will_go_on_is_no_proof") {
        return;
    }
    let mut daemon = Daemon::start();
    let nowhere = daemon.device("hv-b", Span::secs(20));
    assert!(is_unknown(&nowhere.status(CALL).await));
    assert!(is_unknown(&nowhere.off(CALL).await));
    assert!(is_unknown(&nowhere.on(CALL).await));
    assert!(is_unknown(&nowhere.machine_id(CALL).await));

    let device = daemon.device(NAME, Span::secs(20));
    daemon.virsh(&["managedsave", NAME]);
    assert_eq!(daemon.qemu(), None);
    let saved = device.status(CALL).await;
    assert!(matches!(&saved, Answer::Unknown { detail } if detail.contains("saved")), "{saved:?}");
    assert!(is_unknown(&device.off(CALL).await));
    // Switched on it boots anew, and does not go on where it was saved.
    assert_eq!(device.on(CALL).await, Answer::Confirmed(()));
    assert_eq!(daemon.virsh(&["domstate", "--reason", NAME]).trim(), "running (booted)");

    // A libvirt that was started anew has forgotten how it ended.
    assert_eq!(device.off(CALL).await, Answer::Confirmed(()));
    assert_eq!(device.status(CALL).await, Answer::Confirmed(Power::Off));
    daemon.kill();
    daemon.start_again();
    assert!(is_unknown(&device.status(CALL).await));
}

#[tokio::test]
async fn a_real_libvirt_that_is_dead_or_hangs_proves_nothing_and_its_domain_goes_on() {
    if left_out("a_real_libvirt_that_is_dead_or_hangs_proves_nothing_and_its_domain_goes_on") {
        return;
    }
    let mut daemon = Daemon::start();
    let device: Arc<dyn PowerDevice> = Arc::new(daemon.device(NAME, Span::secs(20)));
    let qemu = daemon.qemu();
    assert!(qemu.is_some());
    daemon.kill();
    assert!(is_unknown(&device.status(CALL).await));
    assert!(is_unknown(&device.off(CALL).await));
    let report = off(&device, Duration::from_secs(2)).await;
    assert!(matches!(report.outcome, Outcome::Unknown { .. }), "{report:?}");
    assert_eq!(daemon.qemu(), qemu, "its domain goes on");
    daemon.start_again();
    assert_eq!(device.status(CALL).await, Answer::Confirmed(Power::On));

    daemon.signal(Signal::SIGSTOP);
    assert!(is_unknown(&device.status(Duration::from_secs(1)).await));
    daemon.signal(Signal::SIGCONT);
    assert_eq!(device.status(CALL).await, Answer::Confirmed(Power::On));

    // One that finds its QEMU gone when it comes back says so, and is right.
    daemon.kill();
    kill(qemu.unwrap(), Signal::SIGKILL).unwrap();
    daemon.start_again();
    assert_eq!(device.status(CALL).await, Answer::Confirmed(Power::Off));
}

/// It gives a QEMU that hangs ten seconds to end by itself, whoever waits for that.
#[tokio::test]
async fn an_attempt_lasts_until_a_real_libvirt_has_ended_a_qemu_that_hangs() {
    if left_out("an_attempt_lasts_until_a_real_libvirt_has_ended_a_qemu_that_hangs") {
        return;
    }
    let daemon = Daemon::start();
    let device: Arc<dyn PowerDevice> = Arc::new(daemon.device(NAME, Span::secs(4)));
    kill(daemon.qemu().unwrap(), Signal::SIGSTOP).unwrap();
    let began = Instant::now();
    // virsh is killed after three seconds.
    let report = off(&device, Duration::from_secs(4)).await;
    eprintln!("{:?} after {:?}", report.outcome, began.elapsed());
    assert_eq!(daemon.qemu(), None, "its end came after that of the attempt: {report:?}");
    // A busy libvirt may be late to say so; then the next attempt finds it.
    while device.status(CALL).await != Answer::Confirmed(Power::Off) {
        assert!(began.elapsed() < LIMIT, "{:?}", device.status(CALL).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
