//! Guests with a real program each, and the recovery kits that are meant for them (`kits.sh`, `examples/kits`).

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    Lab, built,
    cluster::accel,
    command::run_ok,
    guest::{self, append, image_dir, mac},
    network,
};

/// A kit, and the guest that it is tried on.
#[derive(Debug, Clone, Copy)]
pub struct Kit {
    /// The guest.
    pub guest: &'static str,
    /// Its address.
    pub address: &'static str,
    /// The file in `examples/kits`, without its ending.
    pub file: &'static str,
    /// The guest's first files, below the folder that `kits.sh` fills.
    initrd: &'static str,
    /// The disk that it begins with there; `None` for an empty one.
    disk: Option<&'static str>,
    /// What `match` asks for.
    app: &'static str,
    memory_mib: u32,
}

/// Redis.
pub const REDIS: Kit = Kit {
    guest: "redis-1",
    address: "10.77.0.111",
    file: "redis",
    initrd: "redis.initrd",
    disk: None,
    app: "redis",
    memory_mib: 224,
};
/// nginx.
pub const NGINX: Kit = Kit {
    guest: "nginx-1",
    address: "10.77.0.112",
    file: "nginx",
    initrd: "nginx.initrd",
    disk: None,
    app: "nginx",
    memory_mib: 224,
};
/// PostgreSQL, with its data on the guest's disk.
pub const POSTGRES: Kit = Kit {
    guest: "postgres-1",
    address: "10.77.0.113",
    file: "postgresql",
    initrd: "postgres.initrd",
    disk: Some("postgres.raw"),
    app: "postgres",
    memory_mib: 384,
};

/// Apache.
pub const APACHE: Kit = Kit {
    guest: "apache-1",
    address: "10.77.0.114",
    file: "apache",
    initrd: "apache.initrd",
    disk: None,
    app: "apache",
    memory_mib: 224,
};
/// MariaDB, with its data on the guest's disk.
pub const MARIADB: Kit = Kit {
    guest: "mysql-1",
    address: "10.77.0.115",
    file: "mysql",
    initrd: "mysql.initrd",
    disk: Some("mysql.raw"),
    app: "mysql",
    memory_mib: 384,
};

/// How long the files of the kits may take to make.
const BUILD_LIMIT: Duration = Duration::from_secs(300);

/// Where `kits.sh` puts what it makes.
fn kits_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/kits")
}

/// Makes the files of the kits, and the lab's guest that they are put into, unless they are there. That mostly waits for disks, so
/// that it may be done while a lab comes up.
///
/// # Errors
/// When a program is not installed.
pub fn make() -> Result<()> {
    guest::build_image()?;
    let (script, agent) = (super::script("kits.sh"), built("holdfast-guest")?);
    let words =
        [script.as_os_str(), image_dir().as_os_str(), agent.as_os_str(), kits_dir().as_os_str()].map(ToOwned::to_owned);
    run_ok(&words, BUILD_LIMIT).map(drop)
}

impl Lab {
    /// Makes the files of the kits unless they are there, and shows them to the hosts as `/srv/holdfast/kits`.
    ///
    /// # Errors
    /// As [`make`].
    pub fn build_kits(&self) -> Result<()> {
        make()?;
        std::os::unix::fs::symlink(kits_dir().canonicalize()?, self.shared().join("kits"))?;
        Ok(())
    }

    /// Gives the guest of a kit its disk, and the client an entry for its address.
    ///
    /// # Errors
    /// When the kits were not built.
    pub fn make_kit_guest(&self, kit: &Kit) -> Result<()> {
        let disk = kit.disk.map_or_else(|| image_dir().join("data.raw"), |disk| kits_dir().join(disk));
        let copy = ["cp".as_ref(), "--sparse=always".as_ref(), disk.as_os_str(), self.disk(kit.guest).as_os_str()]
            .map(ToOwned::to_owned);
        run_ok(&copy, Duration::from_secs(60))?;
        network::introduce(&self.place, kit.address, &mac(kit.address))
    }

    /// The guest's definition and the kit's policy as they stand in the repository, but for the folder of secrets, the CA of
    /// the lab's certificate, limits that software emulation does not keep, and a cool-down that a test does not wait for.
    ///
    /// # Errors
    /// When the kit cannot be read.
    pub fn kit_yaml(&self, kit: &Kit) -> Result<[(String, String); 2]> {
        let Kit { guest, address, app, memory_mib, initrd, .. } = kit;
        let definition = format!(
            "guests:\n  {guest}:\n    labels: {{ app: {app} }}\n    address: {address}\n    qemu:\n      memory: {memory_mib}MiB\n      \
             cpus: 1\n      kernel: /srv/holdfast/guest/vmlinux\n      initrd: /srv/holdfast/kits/{initrd}\n      append: \"{}\"\n      \
             disks: [{{ path: /srv/holdfast/{guest}.raw, format: raw }}]\n      nics: [{{ bridge: br0, mac: \"{}\" }}]\n      \
             agent: true\n      holdfast_agent: true\n      accel: {}\n",
            append(guest, address),
            mac(address),
            accel()
        );
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/kits").join(format!("{}.yaml", kit.file));
        let policy = fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut policy = policy
            .replace("/etc/holdfast/redis", "/srv/holdfast/kits/secret")
            .replace("/etc/holdfast/postgres", "/srv/holdfast/kits/secret")
            .replace("/etc/holdfast/mysql", "/srv/holdfast/kits/secret")
            .replace(
                "server_name: www.example.org,",
                "server_name: www.example.org, ca_file: /srv/holdfast/kits/ca.pem,",
            );
        policy = policy.lines().filter_map(in_emulation).collect();
        policy = policy.replace("    cool_down: 30m\n", "") + "    cool_down: 5s\n";
        Ok([(format!("{guest}.yaml"), definition), (format!("{guest}-policy.yaml"), policy)])
    }
}

/// A line of a kit as an emulated processor can keep it: probes are asked a third as often, and may take until they are asked
/// again. Asked as often as a real server is, a guest on a slow machine would answer nothing but probes.
fn in_emulation(line: &str) -> Option<String> {
    let key = line.trim_start();
    if key.starts_with("slow:") || key.starts_with("timeout:") {
        return None;
    }
    let Some(every) = key.strip_prefix("every: ") else {
        // A restart that takes longer, or is seen later to have helped, is tried once more, and then the guest would be booted.
        return Some(line.replace("wait: 15s", "wait: 1m") + "\n");
    };
    let stretched =
        every.strip_suffix('s').and_then(|secs| secs.parse::<u32>().ok()).map(|secs| (secs * 3).min(SELDOM_S));
    let every = stretched.map_or_else(|| every.to_owned(), |secs| format!("{secs}s"));
    let (indent, timeout) = (" ".repeat(line.len() - key.len()), stretched.unwrap_or(SELDOM_S));
    Some(format!("{indent}every: {every}\n{indent}timeout: {timeout}s\n"))
}

/// How seldom a stretched probe is asked at most, and the longest time-out, in seconds: a test waits for two answers of each.
const SELDOM_S: u32 = 15;

/// The port at which the guest of a kit tells who it is, and hurts its program.
pub const SIDE_PORT: u16 = guest::PORT;
