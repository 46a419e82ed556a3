//! Guests of the lab: their image, their disks, and one started by hand to know how fast a boot can be.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};

use super::{
    Lab,
    client::Client,
    clock::now_ms,
    command::{run, run_ok},
    network,
    place::QUICK,
};

/// The port of a guest's application.
pub const PORT: u16 = 8080;
/// How long a boot may take. Software emulation on two busy cores needs two to five seconds; there are machines on which it needs
/// some times as long.
pub const BOOT_LIMIT: Duration = Duration::from_secs(180);
/// How long the image may take to make.
const BUILD_LIMIT: Duration = Duration::from_secs(900);
/// The image as hosts see it.
const IMAGE: &str = "/srv/holdfast/guest";
/// Memory of a guest in MiB.
const MEMORY_MIB: u32 = 128;

/// The folder of the guest image below the repository's top, which `guest.sh` fills.
#[must_use]
pub fn image_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/guest")
}

/// Builds the guest image unless it is there.
///
/// # Errors
/// When the packages cannot be fetched.
pub fn build_image() -> Result<()> {
    let script = super::script("guest.sh");
    run_ok(&[script.as_os_str(), image_dir().as_os_str()], BUILD_LIMIT).map(drop)
}

/// The MAC address of the guest with this address: `52:54:00:` and the last three bytes.
#[must_use]
pub fn mac(address: &str) -> String {
    let bytes: Vec<u8> = address.split('.').skip(1).filter_map(|byte| byte.parse().ok()).collect();
    let tail: String = bytes.iter().map(|byte| format!(":{byte:02x}")).collect();
    format!("52:54:00{tail}")
}

/// The frequency of the time stamp counter in kHz. Guests are told, because under software emulation on a busy
/// machine their own calibration fails.
#[must_use]
pub fn tsc_khz() -> u64 {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mhz = text.lines().find_map(|line| line.strip_prefix("cpu MHz")?.split(':').nth(1)?.trim().parse::<f64>().ok());
    (mhz.unwrap_or(2_000.0) * 1e3) as u64
}

/// A guest's kernel command line.
#[must_use]
pub fn append(name: &str, address: &str) -> String {
    format!(
        "console=ttyS0 quiet tsc_early_khz={} lpj=4000000 lab.ip={address}/24 lab.name={name} lab.disk=1",
        tsc_khz()
    )
}

impl Lab {
    /// A guest's disk, as this process sees it. Hosts see it as `/srv/holdfast/NAME.raw`.
    #[must_use]
    pub fn disk(&self, guest: &str) -> PathBuf {
        self.shared().join(format!("{guest}.raw"))
    }

    /// Gives a guest an empty disk, and the client an entry for its address.
    ///
    /// # Errors
    /// When the image was not built.
    pub fn make_guest(&self, guest: &str, address: &str) -> Result<()> {
        let empty = image_dir().join("data.raw");
        run_ok(&["cp".as_ref(), "--sparse=always".as_ref(), empty.as_os_str(), self.disk(guest).as_os_str()], QUICK)?;
        network::introduce(&self.place, address, &mac(address))
    }

    /// The socket of QEMU's agent in a guest, on the host where it runs. QEMU lets in one program at a time.
    ///
    /// # Errors
    /// When the host is off.
    pub fn agent_socket(&self, host: &str, guest: &str) -> Result<PathBuf> {
        Ok(self.run_dir(host)?.join("holdfast/guests").join(guest).join("qga.sock"))
    }

    /// What a guest wrote to its disk at every boot: `boot NUMBER BOOT_ID UNIX_SECONDS`. Sure only when it is off.
    ///
    /// # Errors
    /// When the disk cannot be read.
    pub fn boot_record(&self, guest: &str) -> Result<Vec<String>> {
        let copy = tempfile::NamedTempFile::new()?;
        fs::copy(self.disk(guest), copy.path())?;
        // Replays the journal; exits with 1 when it had something to do.
        run(&["e2fsck".as_ref(), "-fy".as_ref(), copy.path().as_os_str()], QUICK)?;
        let text = run_ok(&["debugfs".as_ref(), "-R".as_ref(), "cat /boots".as_ref(), copy.path().as_os_str()], QUICK)?;
        Ok(text.lines().map(str::to_owned).collect())
    }

    /// Starts the same guest by hand on a host, so many times, and returns the median time in milliseconds until the
    /// outside client gets its first good answer.
    ///
    /// # Errors
    /// When a boot takes longer than [`BOOT_LIMIT`].
    pub fn boot_floor_ms(&self, host: &str, guest: &str, address: &str, client: &Client, boots: usize) -> Result<f64> {
        let mut times = Vec::new();
        for _ in 0..boots {
            client.forget();
            let begin_ms = now_ms();
            let by_hand = self.start_by_hand(host, guest, address, &[])?;
            client.wait_up(BOOT_LIMIT).with_context(|| by_hand.said())?;
            times.push(client.first_good_ms().unwrap_or_else(now_ms) - begin_ms);
            by_hand.stop()?;
            client.wait_down(QUICK)?;
        }
        times.sort_by(f64::total_cmp);
        times.get(boots / 2).copied().context("no boot was measured")
    }

    /// Starts a guest on a host without Holdfast.
    ///
    /// # Errors
    /// When the host is off or its tap device cannot be made.
    pub fn start_by_hand(&self, host: &str, guest: &str, address: &str, more: &[&str]) -> Result<ByHand<'_>> {
        let tap = "tap-hand";
        // The tap may be left from the last guest.
        let make = format!(
            "ip link show {tap} > /dev/null 2>&1 || ip tuntap add {tap} mode tap; ip link set {tap} master br0 up"
        );
        let answer = self.exec(host, &["sh", "-c", &make], QUICK)?;
        anyhow::ensure!(answer.ok(), "cannot make {tap} on {host}: {}", answer.err.trim());
        let cgroup = format!("/sys/fs/cgroup/guests/hand-{guest}");
        let enter = "mkdir -p \"$0\" && echo 0 > \"$0/cgroup.procs\" && exec \"$@\"";
        let mut argv =
            vec!["sh".to_owned(), "-c".to_owned(), enter.to_owned(), cgroup, "qemu-system-x86_64".to_owned()];
        argv.extend(arguments(guest, address, tap));
        argv.extend(more.iter().map(|word| (*word).to_owned()));
        let words: Vec<&str> = argv.iter().map(String::as_str).collect();
        let log = self.host_dir(host).join(format!("hand-{guest}.log"));
        let file = fs::File::create(&log)?;
        let child = self.on(host, &words)?.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file).spawn()?;
        Ok(ByHand { lab: self, host: host.to_owned(), guest: guest.to_owned(), child, log })
    }
}

/// QEMU's arguments for a guest: the machine that Holdfast's driver builds, so that its boot can be compared.
fn arguments(guest: &str, address: &str, tap: &str) -> Vec<String> {
    let accel = match super::cluster::accel().as_str() {
        "kvm" => "kvm",
        _ => "tcg,tb-size=32",
    };
    let words = format!(
        "-name guest={guest} -machine q35 -accel {accel} -cpu max -m {MEMORY_MIB}M -smp 1 -nodefaults -no-user-config -display none \
         -qmp unix:/run/hand-{guest}.qmp,server=on,wait=off -chardev file,id=console,path=/run/hand-{guest}.console,append=on -serial chardev:console \
         -kernel {IMAGE}/vmlinux -initrd {IMAGE}/initrd \
         -blockdev driver=raw,node-name=disk0,file.driver=file,file.filename=/srv/holdfast/{guest}.raw \
         -device virtio-blk-pci,drive=disk0,werror=stop,rerror=stop \
         -netdev tap,id=net0,ifname={tap},script=no,downscript=no -device virtio-net-pci,netdev=net0,mac={},romfile= \
         -device virtio-serial-pci -chardev socket,id=agent,path=/run/hand-{guest}.agent,server=on,wait=off \
         -device virtserialport,chardev=agent,name=org.qemu.guest_agent.0 -device pvpanic -action panic=pause,watchdog=reset",
        mac(address)
    );
    let mut argv: Vec<String> = words.split_ascii_whitespace().map(str::to_owned).collect();
    argv.extend(["-append".to_owned(), append(guest, address)]);
    argv
}

/// A guest started by hand; stops when dropped.
pub struct ByHand<'lab> {
    lab: &'lab Lab,
    host: String,
    guest: String,
    child: Child,
    log: PathBuf,
}

impl ByHand<'_> {
    /// What its QEMU said.
    #[must_use]
    pub fn said(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends it and waits for the end.
    ///
    /// # Errors
    /// When it is still there long after.
    pub fn stop(self) -> Result<()> {
        self.kill();
        let cgroup = self.cgroup();
        super::wait::until("end of a guest started by hand", QUICK, || {
            if super::place::populated(&cgroup) { Err("it runs".to_owned()) } else { Ok(()) }
        })
    }

    fn kill(&self) {
        // Gone when the host's power was cut.
        let _ = fs::write(self.cgroup().join("cgroup.kill"), "1");
    }

    fn cgroup(&self) -> PathBuf {
        self.lab.host_cgroup(&self.host).join("guests").join(format!("hand-{}", self.guest))
    }
}

impl Drop for ByHand<'_> {
    fn drop(&mut self) {
        self.kill();
        let _ = self.child.wait();
    }
}
