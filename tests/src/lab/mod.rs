//! The lab: hosts as killable units on one machine, with real guests, real power switches and an outside client.
//!
//! Each host is a cgroup v2 subtree with its own network, PID, mount, UTS, IPC and cgroup namespaces ([`HostSpec`],
//! `lab/power.sh`, `lab/hostinit.sh`). Its watchdog, if it has one, resets exactly that unit, too. Its BMC is a real `ipmi_sim` whose button cuts or restores exactly that unit.
//! What the tests assert is seen from outside: by the client ([`Client`]) and by the image watcher ([`Lab::double_runs`]).
//!
//! ```text
//!   /tmp/holdfast-lab-ID/  lab.env  etc/HOST/ (host file, keys)  hosts/HOST/ (its disk: state, logs)  bmc/  shared/
//! ```
//! `shared/` is the storage that all hosts reach, as `/srv/holdfast`; `hosts/HOST` survives power cuts; `/run` does not.

mod ask;
pub mod bmc;
pub mod client;
pub mod clock;
pub mod cluster;
pub mod command;
mod guard;
pub mod guest;
mod host;
pub mod kits;
mod lent;
pub mod machine;
pub mod network;
mod operators;
mod place;
mod program;
pub mod redfish;
pub mod scene;
#[cfg(test)]
mod selftest;
pub mod signals;
mod small_disk;
pub mod usage;
pub mod wait;
mod watch;
mod watchdog;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Child,
    sync::{Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, Result, bail};

pub use self::{
    bmc::Fault,
    client::{Client, Outage},
    cluster::Status,
    host::{Daemon, HostSpec},
    lent::Lent,
    operators::Operator,
    place::Place,
    scene::Scene,
    small_disk::SmallDisk,
    watch::{DoubleRun, Tenure},
    watchdog::WatchdogEvent,
};

/// Most hosts of a lab: their BMCs are at 10.78.0.101 and up, below the management bridge's 254.
const HOSTS_MAX: usize = 100;

/// What a lab is made of.
#[derive(Debug, Clone)]
pub struct LabOptions {
    /// The hosts, in the order of their numbers: the first is 10.77.0.1.
    pub hosts: Vec<HostSpec>,
    /// The `holdfast` program; `None` makes hosts without Holdfast.
    pub binary: Option<PathBuf>,
}

impl LabOptions {
    /// Three voters h1, h2 and h3, with the `holdfast` that was built with this program.
    ///
    /// # Errors
    /// When it was not built.
    pub fn three() -> Result<Self> {
        Ok(Self { hosts: HostSpec::three(), binary: Some(binary()?) })
    }
}

/// A lab; taken down when dropped, unless it is to be kept.
#[derive(Debug)]
pub struct Lab {
    place: Place,
    options: LabOptions,
    watch: watch::Watch,
    helpers: Mutex<Vec<Child>>,
    /// The host that has answered last when it was asked for the cluster's status.
    answered: Mutex<Option<String>>,
}

impl Lab {
    /// Builds networks, BMCs, keys and host files. The hosts are off.
    ///
    /// # Errors
    /// Without root or cgroup v2, when a program is missing, or when something does not come up. What was built is
    /// taken down then.
    pub fn new(options: LabOptions) -> Result<Self> {
        if options.hosts.is_empty() || options.hosts.len() > HOSTS_MAX {
            bail!("a lab has 1 to {HOSTS_MAX} hosts");
        }
        Place::sweep()?;
        guest::build_image()?;
        let place = Place::make()?;
        let cgroups = options.hosts.iter().map(|spec| (spec.name.clone(), place.cgroup().join(&spec.name))).collect();
        let watch = watch::Watch::start(place.dir.join("shared"), cgroups);
        // From here on, dropping it takes down whatever is there.
        let lab = Self { place, options, watch, helpers: Mutex::default(), answered: Mutex::default() };
        lab.write_files().context("cannot write the lab's files")?;
        network::build(&lab.place).context("cannot build the lab's networks")?;
        lab.start_bmcs().context("cannot start the lab's BMCs")?;
        lab.start_watchdogs().context("cannot start the lab's watchdogs")?;
        if lab.options.binary.is_some() {
            lab.init()?;
        }
        Ok(lab)
    }

    fn write_files(&self) -> Result<()> {
        for folder in ["bmc", "shared"] {
            fs::create_dir_all(self.place.dir.join(folder))?;
        }
        std::os::unix::fs::symlink(guest::image_dir().canonicalize()?, self.shared().join("guest"))?;
        let (prefix, root, binary) = (self.place.prefix(), self.place.cgroup_root.display(), self.binary());
        let shared = self.shared();
        let environment =
            format!("prefix={prefix}\ncgroup_root='{root}'\nholdfast='{binary}'\nshared='{}'\n", shared.display());
        fs::write(self.place.dir.join("lab.env"), environment)?;
        for spec in &self.options.hosts {
            let number = self.number(&spec.name)?;
            fs::create_dir_all(self.host_dir(&spec.name))?;
            let environment = format!(
                "number={number}\naddress=10.77.0.{number}\nmanagement=10.78.0.{number}\nmac=02:77:00:00:00:{number:02x}\n"
            );
            fs::write(self.host_dir(&spec.name).join("host.env"), environment)?;
        }
        Ok(())
    }

    /// Lets the lab outlive this program, and returns where it is; [`Place::take_down`] ends it.
    ///
    /// # Errors
    /// When that cannot be noted.
    pub fn keep(self) -> Result<Place> {
        self.place.keep()?;
        Ok(self.place.clone())
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Its hosts.
    #[must_use]
    pub fn hosts(&self) -> &[HostSpec] {
        &self.options.hosts
    }

    /// The storage that all hosts share, as this process sees it.
    #[must_use]
    pub fn shared(&self) -> PathBuf {
        self.place.dir.join("shared")
    }

    /// A host's disk: its state and logs.
    #[must_use]
    pub fn host_dir(&self, host: &str) -> PathBuf {
        self.place.dir.join("hosts").join(host)
    }

    /// A host's address on the data network.
    ///
    /// # Errors
    /// When the host is unknown.
    pub fn address(&self, host: &str) -> Result<String> {
        Ok(format!("10.77.0.{}", self.number(host)?))
    }

    fn number(&self, host: &str) -> Result<usize> {
        let index = self.options.hosts.iter().position(|spec| spec.name == host);
        index.map(|index| index + 1).with_context(|| format!("the lab has no host {host}"))
    }

    fn binary(&self) -> &str {
        self.options.binary.as_deref().and_then(Path::to_str).unwrap_or_default()
    }

    /// Starts a program beside the client or another of the lab's namespaces (`cl`, `mg`, `sw`); it ends with the lab. What
    /// it says goes to the file NAME.out in the lab's folder.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn helper(&self, name: &str, space: &str, argv: &[&str]) -> Result<()> {
        let log = fs::File::options().create(true).append(true).open(self.place.dir.join(format!("{name}.out")))?;
        let mut command = self.place.inside(name, space, argv);
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.adopt(command.spawn().with_context(|| format!("cannot start {name}"))?);
        Ok(())
    }

    /// What a shell line answers that is run in one of the lab's namespaces (`cl`, `mg`, `sw`).
    ///
    /// # Errors
    /// When it does not end within `limit`.
    pub fn shell(&self, space: &str, line: &str, limit: std::time::Duration) -> Result<command::Answer> {
        // Not by way of [`Place::inside`]: whoever leads a process group, as this one does, is left behind by `setsid`, which
        // returns at once.
        let net = format!("--net=/run/netns/{}", self.place.space(space));
        command::run(&["nsenter", &net, "bash", "-c", line], limit)
    }

    fn answered(&self) -> MutexGuard<'_, Option<String>> {
        self.answered.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn adopt(&self, child: Child) {
        self.helpers.lock().unwrap_or_else(PoisonError::into_inner).push(child);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if self.place.kept() {
            return;
        }
        self.place.take_down();
        for mut child in self.helpers.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            // Killed with the cgroup; this only reaps.
            let _ = child.wait();
        }
    }
}

/// Whether lab tests are to be left out (`HOLDFAST_NO_LAB=1`); if so, says that this one was. Without root and without
/// that variable a lab test fails, with the reason, in [`Lab::new`].
#[must_use]
pub fn left_out(test: &str) -> bool {
    let left_out = std::env::var("HOLDFAST_NO_LAB").is_ok_and(|value| value == "1");
    if left_out {
        eprintln!("left out because of HOLDFAST_NO_LAB=1: {test}");
    }
    left_out
}

/// Held by a test that must not share the machine's cores with another lab; waits for its turn.
///
/// # Errors
/// When the lock file cannot be made.
pub fn alone() -> Result<nix::fcntl::Flock<fs::File>> {
    let file = fs::File::options().create(true).append(true).open("/tmp/holdfast-lab.lock")?;
    nix::fcntl::Flock::lock(file, nix::fcntl::FlockArg::LockExclusive)
        .map_err(|(_, error)| error)
        .context("cannot lock /tmp/holdfast-lab.lock")
}

/// One of the lab's scripts.
fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("lab").join(name)
}

/// The system UUID of host number N, which its BMC reports too.
fn machine_id(number: usize) -> Result<String> {
    if number > HOSTS_MAX {
        bail!("host number {number} is above {HOSTS_MAX}");
    }
    Ok(format!("a1234567-89ab-4def-8123-4567890000{number:02x}"))
}

/// The `holdfast` program: `$HOLDFAST_BINARY`, or the one built beside this program.
///
/// # Errors
/// When there is none.
pub fn binary() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("HOLDFAST_BINARY") {
        return Ok(PathBuf::from(path));
    }
    built("holdfast")
}

/// A program that was built beside this one, or one folder up.
fn built(name: &str) -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let found = own.ancestors().skip(1).take(2).map(|folder| folder.join(name)).find(|path| path.is_file());
    found
        .with_context(|| format!("no `{name}` beside {}; build it with: cargo build --workspace --bins", own.display()))
}
