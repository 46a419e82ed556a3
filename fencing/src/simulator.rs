//! A real controller for tests: `ipmi_sim` on loopback, with faults.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener, UdpSocket},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use holdfast_policies::{model::IpmiDevice, time::Span};
use tempfile::TempDir;

use crate::{Answer, PowerDevice, benches::SETTLED, ipmi::Ipmi, newest_off::NewestOff};

/// Longest time until an emulator answers. A try is over at once where nobody listens yet, and takes two seconds where one listens
/// and says nothing, so they are not counted.
pub(crate) const READY_LIMIT: Duration = Duration::from_secs(60);

/// The program that governs the simulated chassis: it keeps the power in a file, obeys fault files, and writes a log.
const CHASSIS: &str = r#"D=$1; shift
echo "$*" >> "$D/log"
[ -e "$D/fail" ] && exit 1
[ -e "$D/slow" ] && sleep "$(cat "$D/slow")"
op=$1; shift
case $op in
get) while [ $# -gt 0 ]; do case $1 in power) echo "power:$(cat "$D/power")";; *) echo "$1:0";; esac; shift; done;;
set) while [ $# -gt 1 ]; do case $1 in power) [ -e "$D/stuck" ] || echo "$2" > "$D/power";; esac; shift 2; done;;
esac
exit 0
"#;

const EMULATOR: &str = "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\n\
                        sel_enable 0x20 1000 0x0a\nmc_enable 0x20\n";

/// Why the tests with real programs are left out, if they are. Panics when programs are missing and nobody allowed that.
pub fn left_out(test: &str) -> bool {
    left_out_without(&[("ipmi_sim", "openipmi"), ("ipmitool", "ipmitool")], test)
}

/// The same for tests that need other programs, each given with what brings it.
pub(crate) fn left_out_without(programs: &[(&str, &str)], test: &str) -> bool {
    if std::env::var_os("HOLDFAST_NO_LAB").is_some_and(|value| value == "1") {
        eprintln!("left out because HOLDFAST_NO_LAB=1: {test}");
        return true;
    }
    for (program, package) in programs {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).stdout(Stdio::null()).status();
        assert!(
            found.is_ok_and(|status| status.success()),
            "{program} is missing: install the package {package}, or set HOLDFAST_NO_LAB=1 to leave {test} out"
        );
    }
    false
}

/// A running simulated controller; it ends with this value.
pub struct Simulator {
    folder: TempDir,
    port: u16,
    process: Child,
}

impl Simulator {
    /// Starts one whose host is on, and waits until it answers. One whose port somebody else was given meanwhile ends; then
    /// there is another.
    pub async fn start() -> Self {
        for _ in 0..5 {
            let mut simulator = Self::begin();
            if simulator.comes_up().await {
                return simulator;
            }
        }
        panic!("five of ipmi_sim have ended at once");
    }

    fn begin() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("chassis.sh"), CHASSIS).unwrap();
        fs::write(path("power"), "1\n").unwrap();
        fs::write(path("sim.emu"), EMULATOR).unwrap();
        fs::write(path("lan.conf"), configuration(&folder, port)).unwrap();
        fs::create_dir(path("state")).unwrap();
        let log = fs::File::create(path("output")).unwrap();
        let process = Command::new("ipmi_sim")
            .args([
                "-n".as_ref(),
                "-c".as_ref(),
                path("lan.conf").as_os_str(),
                "-f".as_ref(),
                path("sim.emu").as_os_str(),
            ])
            .args(["-s".as_ref(), path("state").as_os_str()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { folder, port, process }
    }

    /// False: it has ended.
    async fn comes_up(&mut self) -> bool {
        let device = self.device();
        let said = || fs::read_to_string(self.folder.path().join("output")).unwrap();
        let began = Instant::now();
        while began.elapsed() < READY_LIMIT {
            if matches!(device.status(Duration::from_secs(2)).await, Answer::Confirmed(_)) {
                return true;
            }
            if let Some(ended) = self.process.try_wait().unwrap() {
                eprintln!("ipmi_sim has ended ({ended}): {}", said());
                return false;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        panic!("ipmi_sim does not answer: {}", said());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The controller with its right settings.
    pub fn settings(&self) -> IpmiDevice {
        settings(self.port, self.password_file("secret", 0o600))
    }

    pub fn device(&self) -> Ipmi {
        let mut device = Ipmi::new(self.settings());
        device.newest_off = NewestOff::done_within(SETTLED);
        device
    }

    pub fn password_file(&self, password: &str, mode: u32) -> PathBuf {
        let path = self.path(&format!("password-{password}-{mode:o}"));
        fs::write(&path, format!("{password}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        path
    }

    /// Sets a fault: `fail`, `stuck`, or `slow` with its seconds.
    pub fn fault(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }

    pub fn set_power(&self, on: bool) {
        fs::write(self.path("power"), if on { "1\n" } else { "0\n" }).unwrap();
    }

    pub fn is_on(&self) -> bool {
        fs::read_to_string(self.path("power")).unwrap().trim() == "1"
    }

    /// How many offs reached the chassis.
    pub fn offs(&self) -> u32 {
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        log.lines().filter(|line| *line == "set power 0").count().try_into().unwrap()
    }
}

impl Drop for Simulator {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Settings for a controller on loopback. `ipmi_sim` knows cipher suite 3 only.
pub fn settings(port: u16, password_file: PathBuf) -> IpmiDevice {
    IpmiDevice { port, suite: 3, timeout: Span::secs(5), ..IpmiDevice::plain("127.0.0.1", "admin", password_file) }
}

/// A free loopback port, for a program that is about to listen there: below those that the kernel gives to whoever asks for any, so that
/// nobody is given it while the program starts.
pub(crate) fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Others for each process that runs tests.
        let next = std::process::id() * 64 + GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(20_000 + next % 12_000).unwrap();
        let place = (Ipv4Addr::LOCALHOST, port);
        if UdpSocket::bind(place).is_ok() && TcpListener::bind(place).is_ok() {
            return port;
        }
    }
}

fn configuration(folder: &TempDir, port: u16) -> String {
    let folder = folder.path().display();
    let auths: String = ["callback", "user", "operator", "admin"]
        .iter()
        .map(|level| format!("    allowed_auths_{level} none md2 md5 straight\n"))
        .collect();
    format!(
        "name \"test\"\nset_working_mc 0x20\n  startlan 1\n    addr 127.0.0.1 {port}\n    priv_limit admin\n{auths}    \
         guid a123456789abcdefa123456789abcdef\n  endlan\n  chassis_control \"/bin/sh {folder}/chassis.sh {folder}\"\n  \
         user 1 true \"\" \"test\" user 10\n  user 2 true \"admin\" \"secret\" admin 10\n"
    )
}
