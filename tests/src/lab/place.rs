//! Where a lab is: its id, folder, cgroup and namespaces. Enough to take it down, whoever built it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use anyhow::{Context, Result, bail};

use super::{command, wait};

/// Longest time for one call of `ip` and its like.
pub(super) const QUICK: Duration = Duration::from_secs(90);
/// Marks a lab that is meant to outlive the process that built it.
const KEPT: &str = "kept";

/// Where a lab is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Unique among the labs of the machine: the builder's pid, and a count.
    pub id: String,
    /// Everything that the lab writes.
    pub dir: PathBuf,
    /// Where the machine's cgroup v2 is mounted.
    pub cgroup_root: PathBuf,
}

impl Place {
    /// A place that no other lab has. Makes its folder and its cgroup.
    ///
    /// # Errors
    /// Without root, without cgroup v2, and when the folders cannot be made.
    pub fn make() -> Result<Self> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        if !nix::unistd::geteuid().is_root() {
            bail!("the lab needs root: it makes network namespaces and cgroups");
        }
        let id = format!("{}x{}", std::process::id(), COUNT.fetch_add(1, Ordering::SeqCst));
        let place = Self { dir: folder_of(&id), id, cgroup_root: cgroup_root()? };
        // A process that was killed may have had the number that is ours now.
        if place.cgroup().exists() && !place.kept() {
            place.take_down();
        }
        fs::create_dir(place.cgroup()).with_context(|| format!("cannot make {}", place.cgroup().display()))?;
        fs::create_dir(&place.dir).with_context(|| format!("cannot make {}", place.dir.display()))?;
        Ok(place)
    }

    /// What the names of its namespaces begin with.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("hf{}", self.id)
    }

    /// The name of one of its namespaces: a host's, `sw` (switch), `mg` (management) or `cl` (client).
    #[must_use]
    pub fn space(&self, of: &str) -> String {
        format!("{}-{of}", self.prefix())
    }

    /// The cgroup that holds every process of the lab, but not the one that drives it.
    #[must_use]
    pub fn cgroup(&self) -> PathBuf {
        self.cgroup_root.join(self.prefix())
    }

    /// A command that first moves itself to a child of the lab's cgroup and to one of its network namespaces. Mounts are
    /// not changed, so that what it mounts or makes is seen outside. It must not be made the leader of a process group, or it
    /// seems to end at once.
    #[must_use]
    pub fn inside(&self, cgroup: &str, space: &str, argv: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", "mkdir -p \"$0\" && echo $$ > \"$0/cgroup.procs\" && exec setsid nsenter \"$@\""]);
        command.arg(self.cgroup().join(cgroup)).arg(format!("--net=/run/netns/{}", self.space(space))).args(argv);
        command
    }

    /// Lets the lab outlive this process; only [`Place::take_down`] ends it.
    ///
    /// # Errors
    /// When the mark cannot be written.
    pub fn keep(&self) -> Result<()> {
        Ok(fs::write(self.dir.join(KEPT), b"")?)
    }

    /// Whether it was meant to outlive its builder.
    #[must_use]
    pub fn kept(&self) -> bool {
        self.dir.join(KEPT).exists()
    }

    /// Ends every process of the lab and removes its namespaces, cgroups and folder. May be called twice.
    pub fn take_down(&self) {
        let cgroup = self.cgroup();
        // Every step is tried, whatever became of the one before: there is nobody to report to.
        let _ = fs::write(cgroup.join("cgroup.kill"), "1");
        for _ in 0..1_000 {
            if !populated(&cgroup) {
                break;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        for name in spaces_of(&self.prefix()) {
            let _ = command::run(&["ip", "netns", "del", &name], QUICK);
        }
        remove_cgroup(&cgroup);
        super::watchdog::unmount_below(&self.dir);
        if std::env::var_os("HOLDFAST_LAB_KEEP_LOGS").is_none() {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }

    /// All labs of the machine.
    ///
    /// # Errors
    /// Without cgroup v2.
    pub fn all() -> Result<Vec<Self>> {
        let cgroup_root = cgroup_root()?;
        let names = fs::read_dir(&cgroup_root)?.flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let ids = names.filter_map(|name| name.strip_prefix("hf").and_then(|id| builder(id).map(|_| id.to_owned())));
        Ok(ids.map(|id| Self { dir: folder_of(&id), id, cgroup_root: cgroup_root.clone() }).collect())
    }

    /// Takes down what killed builders left behind.
    ///
    /// # Errors
    /// Without cgroup v2.
    pub fn sweep() -> Result<()> {
        for place in Self::all()? {
            let orphan = builder(&place.id).is_some_and(|pid| !Path::new(&format!("/proc/{pid}")).exists());
            if orphan && !place.kept() && !wait::interrupted() {
                place.take_down();
            }
        }
        Ok(())
    }
}

/// Whether any process is left below a cgroup.
pub(super) fn populated(cgroup: &Path) -> bool {
    fs::read_to_string(cgroup.join("cgroup.events"))
        .is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
}

/// All processes below a cgroup, by the pids that this process sees.
pub(super) fn processes(cgroup: &Path) -> Vec<i32> {
    let own = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    let mut pids: Vec<i32> = own.lines().filter_map(|line| line.parse().ok()).collect();
    for child in children(cgroup) {
        pids.extend(processes(&child));
    }
    pids
}

fn children(cgroup: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(cgroup).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

fn remove_cgroup(cgroup: &Path) {
    for child in children(cgroup) {
        remove_cgroup(&child);
    }
    let _ = fs::remove_dir(cgroup);
}

fn folder_of(id: &str) -> PathBuf {
    PathBuf::from(format!("/tmp/holdfast-lab-{id}"))
}

fn builder(id: &str) -> Option<u32> {
    id.split_once('x').and_then(|(pid, count)| count.parse::<u32>().ok().and(pid.parse().ok()))
}

fn spaces_of(prefix: &str) -> Vec<String> {
    let names = fs::read_dir("/run/netns")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&format!("{prefix}-"))).collect()
}

fn cgroup_root() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").context("cannot read /proc/mounts")?;
    let of_version_2 = |line: &str| {
        let mut fields = line.split(' ');
        let (_, place, kind) = (fields.next()?, fields.next()?, fields.next()?);
        (kind == "cgroup2").then(|| PathBuf::from(place))
    };
    mounts.lines().find_map(of_version_2).context(
        "no cgroup v2 is mounted, and the lab's hosts need one; try: mount -t cgroup2 none /sys/fs/cgroup/unified",
    )
}
