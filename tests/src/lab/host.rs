//! One host: its power, freezing, its daemons, and running a program on it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    Lab,
    command::{self, Answer, run_ok},
    place::{populated, processes},
    wait,
};

/// Longest time for a boot or a power cut, and until a daemon is there or gone. Each takes a fraction of a second on a machine
/// that has nothing else to do.
const POWER_LIMIT: Duration = Duration::from_secs(90);

/// One host of a lab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostSpec {
    /// Its name; at most ten characters, as it names network devices.
    pub name: String,
    /// Whether its supervisor votes.
    pub voter: bool,
    /// Whether it is a witness: it votes and runs no guests.
    pub witness: bool,
    /// Memory for guests in MiB, as its host file declares it.
    pub memory_mib: Option<u64>,
    /// The time-out of its watchdog in seconds; none: it has no watchdog.
    pub watchdog_seconds: Option<u32>,
    /// Lines added to its host file.
    pub extra: String,
}

impl HostSpec {
    /// A voter that runs guests.
    #[must_use]
    pub fn voter(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            voter: true,
            witness: false,
            memory_mib: Some(1024),
            watchdog_seconds: None,
            extra: String::new(),
        }
    }

    /// Three voters: `h1`, `h2` and `h3`.
    #[must_use]
    pub fn three() -> Vec<Self> {
        ["h1", "h2", "h3"].map(Self::voter).to_vec()
    }

    /// The same, and a member without a vote: `m1`.
    #[must_use]
    pub fn three_and_member() -> Vec<Self> {
        let mut hosts = Self::three();
        hosts.push(Self::member("m1"));
        hosts
    }

    /// A member without a vote.
    #[must_use]
    pub fn member(name: &str) -> Self {
        Self { voter: false, ..Self::voter(name) }
    }

    /// A voter that runs guests and has a watchdog.
    #[must_use]
    pub fn watched(name: &str, watchdog_seconds: u32) -> Self {
        Self { watchdog_seconds: Some(watchdog_seconds), ..Self::voter(name) }
    }

    /// A witness.
    #[must_use]
    pub fn witness(name: &str) -> Self {
        Self { witness: true, ..Self::voter(name) }
    }
}

/// The two daemons of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Daemon {
    /// `holdfast guard`
    Guard,
    /// `holdfast run`
    Supervisor,
}

impl Daemon {
    fn name(self) -> &'static str {
        match self {
            Self::Guard => "guard",
            Self::Supervisor => "supervisor",
        }
    }
}

impl Lab {
    /// Boots a host and waits until it is up (its daemons may still be starting). Does nothing when it is on.
    ///
    /// # Errors
    /// When it is not up in time.
    pub fn power_on(&self, host: &str) -> Result<()> {
        self.press(host, "on")?;
        wait::until(&format!("boot of {host}"), POWER_LIMIT, || {
            let init = self.init_pid(host).map_err(|error| error.to_string())?;
            let booted = run_dir(init).join("lab/booted");
            if booted.exists() { Ok(()) } else { Err(format!("no {}", booted.display())) }
        })
    }

    /// Boots all hosts.
    ///
    /// # Errors
    /// As [`Lab::power_on`].
    pub fn power_on_all(&self) -> Result<()> {
        self.hosts().iter().try_for_each(|spec| self.power_on(&spec.name))
    }

    /// Cuts a host's power: links first, then every process at once.
    ///
    /// # Errors
    /// When processes survive.
    pub fn power_cut(&self, host: &str) -> Result<()> {
        self.press(host, "off")
    }

    fn press(&self, host: &str, button: &str) -> Result<()> {
        let script = super::script("power.sh");
        let argv = [script.as_os_str(), self.place.dir.as_os_str(), host.as_ref(), button.as_ref()];
        run_ok(&argv, POWER_LIMIT).map(drop)
    }

    /// Whether any process of the host is left.
    #[must_use]
    pub fn is_on(&self, host: &str) -> bool {
        populated(&self.host_cgroup(host))
    }

    /// Stops every process of a host where it stands. It still answers ping and accepts connections.
    ///
    /// # Errors
    /// When the group is not frozen in time.
    pub fn freeze(&self, host: &str) -> Result<()> {
        self.set_frozen(host, true)
    }

    /// Lets a frozen host go on.
    ///
    /// # Errors
    /// As [`Lab::freeze`].
    pub fn thaw(&self, host: &str) -> Result<()> {
        self.set_frozen(host, false)
    }

    fn set_frozen(&self, host: &str, frozen: bool) -> Result<()> {
        let cgroup = self.host_cgroup(host);
        let digit = if frozen { "1" } else { "0" };
        fs::write(cgroup.join("cgroup.freeze"), digit).with_context(|| format!("cannot freeze or thaw {host}"))?;
        let wanted = format!("frozen {digit}");
        wait::until(&format!("{host}: {wanted}"), POWER_LIMIT, || {
            let events = fs::read_to_string(cgroup.join("cgroup.events")).unwrap_or_default();
            if events.lines().any(|line| line == wanted) { Ok(()) } else { Err(events) }
        })
    }

    /// Whether a host is frozen.
    #[must_use]
    pub fn is_frozen(&self, host: &str) -> bool {
        fs::read_to_string(self.host_cgroup(host).join("cgroup.freeze")).is_ok_and(|text| text.trim() == "1")
    }

    /// `kill -9` of a host's supervisor, which is gone then and stays down until [`Lab::start`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_supervisor(&self, host: &str) -> Result<()> {
        self.kill(host, Daemon::Supervisor)
    }

    /// `kill -9` of a host's guard, which is gone then and stays down until [`Lab::start`].
    ///
    /// # Errors
    /// When it does not run.
    pub fn kill_guard(&self, host: &str) -> Result<()> {
        self.kill(host, Daemon::Guard)
    }

    fn kill(&self, host: &str, daemon: Daemon) -> Result<()> {
        self.want(host, daemon, false)?;
        self.signal(host, daemon, Signal::SIGKILL)?;
        // One that is still dying would be taken for the next one, and may still write to its folder.
        wait::until(&format!("the end of the {} of {host}", daemon.name()), POWER_LIMIT, || {
            match self.daemon_pid(host, daemon) {
                Ok(pid) => Err(format!("pid {pid} is still there")),
                Err(_) => Ok(()),
            }
        })
    }

    /// `kill -9` of a daemon that is started again at once, as a service manager does.
    ///
    /// # Errors
    /// When it does not run.
    pub fn crash(&self, host: &str, daemon: Daemon) -> Result<()> {
        self.want(host, daemon, true)?;
        self.signal(host, daemon, Signal::SIGKILL)
    }

    /// Starts a daemon that was killed or held back.
    ///
    /// # Errors
    /// When it does not appear in time.
    pub fn start(&self, host: &str, daemon: Daemon) -> Result<()> {
        self.want(host, daemon, true)?;
        wait::until(&format!("{} of {host}", daemon.name()), POWER_LIMIT, || {
            self.daemon_pid(host, daemon).map(drop).map_err(|error| error.to_string())
        })
    }

    /// Starts a supervisor that was killed or held back.
    ///
    /// # Errors
    /// As [`Lab::start`].
    pub fn start_supervisor(&self, host: &str) -> Result<()> {
        self.start(host, Daemon::Supervisor)
    }

    /// Stops a daemon where it stands (SIGSTOP), or lets it go on.
    ///
    /// # Errors
    /// When it does not run.
    pub fn suspend(&self, host: &str, daemon: Daemon, suspended: bool) -> Result<()> {
        self.signal(host, daemon, if suspended { Signal::SIGSTOP } else { Signal::SIGCONT })
    }

    pub(super) fn run_dir(&self, host: &str) -> Result<PathBuf> {
        Ok(run_dir(self.init_pid(host)?))
    }

    /// Has a daemon started whenever it does not run, as a service manager does, or held back once it has ended; waits for nothing.
    ///
    /// # Errors
    /// When the host is off.
    pub fn want(&self, host: &str, daemon: Daemon, wanted: bool) -> Result<()> {
        let mark = run_dir(self.init_pid(host)?).join(format!("lab/want-{}", daemon.name()));
        if wanted { fs::write(mark, b"").map_err(Into::into) } else { fs::remove_file(mark).or(Ok(())) }
    }

    fn signal(&self, host: &str, daemon: Daemon, signal: Signal) -> Result<()> {
        let pid = self.daemon_pid(host, daemon)?;
        kill(Pid::from_raw(pid), signal)
            .with_context(|| format!("cannot signal pid {pid}, the {} of {host}", daemon.name()))
    }

    /// The pid of a daemon, as this process sees it.
    ///
    /// # Errors
    /// When the host is off or the daemon does not run.
    pub fn daemon_pid(&self, host: &str, daemon: Daemon) -> Result<i32> {
        let file = run_dir(self.init_pid(host)?).join(format!("lab/{}.pid", daemon.name()));
        let inner =
            fs::read_to_string(&file).with_context(|| format!("the {} of {host} does not run", daemon.name()))?;
        self.outer_pid(host, inner.trim().parse()?)
    }

    /// The pid, as this process sees it, of a process that calls itself `inner` on its host.
    ///
    /// # Errors
    /// When there is none.
    pub fn outer_pid(&self, host: &str, inner: i32) -> Result<i32> {
        let found = processes(&self.host_cgroup(host)).into_iter().find(|pid| inner_pid(*pid) == Some(inner));
        found.with_context(|| format!("{host} has no process {inner}"))
    }

    fn init_pid(&self, host: &str) -> Result<i32> {
        self.outer_pid(host, 1).with_context(|| format!("{host} is off"))
    }

    /// What a program answers that is run on a host, in all of its namespaces.
    ///
    /// # Errors
    /// When the host is off, or the program does not end within `limit`.
    pub fn exec(&self, host: &str, argv: &[&str], limit: Duration) -> Result<Answer> {
        command::finish(self.on(host, argv)?, limit)
    }

    /// A command that runs on a host.
    ///
    /// # Errors
    /// When the host is off.
    pub fn on(&self, host: &str, argv: &[&str]) -> Result<Command> {
        if argv.is_empty() {
            bail!("no program given");
        }
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.init_pid(host)?.to_string(), "-m", "-u", "-i", "-n", "-p", "-C", "--"]).args(argv);
        Ok(command)
    }

    /// The last lines of a host's log (`supervisor`, `guard` or `console`), for messages.
    #[must_use]
    pub fn log_tail(&self, host: &str, log: &str, lines: usize) -> String {
        let text = fs::read_to_string(self.host_dir(host).join(format!("{log}.log"))).unwrap_or_default();
        let all: Vec<&str> = text.lines().collect();
        all.get(all.len().saturating_sub(lines)..).unwrap_or_default().join("\n")
    }

    pub(super) fn host_cgroup(&self, host: &str) -> PathBuf {
        self.place.cgroup().join(host)
    }
}

fn run_dir(init: i32) -> PathBuf {
    Path::new("/proc").join(init.to_string()).join("root/run")
}

/// What a process in a host's PID namespace calls itself.
fn inner_pid(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("NSpid:"))?;
    let mut pids = line.split_ascii_whitespace();
    pids.next()?;
    pids.next_back()?.parse().ok()
}
