//! A machine of QEMU's that plays a host: a real kernel with the driver of a real watchdog (`i6300esb`), whose firing resets
//! the whole machine, and the real guard in it (`machine.sh`). There is nothing else of a cluster.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::fcntl::Flock;
use serde_json::Value;
use tempfile::TempDir;

use super::{
    alone, binary,
    cluster::accel,
    command::run_ok,
    guest::{BOOT_LIMIT, build_image, image_dir, tsc_khz},
    wait,
};

/// The guest that the machine is ready to run: its cgroup is there, and nothing in it.
pub const GUEST: &str = "web-1";
/// The time-out of the machine's watchdog.
pub const TIMEOUT: Duration = Duration::from_secs(4);

/// How long the files of the machine may take to make.
const BUILD_LIMIT: Duration = Duration::from_secs(900);
/// Longest time until QEMU listens.
const READY_LIMIT: Duration = Duration::from_secs(180);
/// Memory in MiB; the first files take half of it.
const MEMORY_MIB: u32 = 384;
/// Lines of its console that are shown when it does not answer.
const CONSOLE_LINES: usize = 30;
/// Its disks: the first is the guests', the second the guard's.
const DISKS: [&str; 2] = ["data", "holdfast"];

/// A machine that runs. It is switched off when dropped, or with this process.
pub struct Machine {
    qemu: Child,
    shell: BufReader<UnixStream>,
    /// Commands given so far: each has a number, so that what a reset has cut short is not taken for the next one's answer.
    commands: u64,
    /// When the watchdog has fired.
    fired: Receiver<Instant>,
    folder: TempDir,
    _alone: Flock<fs::File>,
}

/// Where `machine.sh` puts what it makes.
fn machine_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../.cache/machine")
}

impl Machine {
    /// Boots one, and waits until its shell answers.
    ///
    /// # Errors
    /// When a program is missing, or when it does not come up.
    pub fn boot() -> Result<Self> {
        let alone = alone()?;
        build_image()?;
        build()?;
        let folder = tempfile::tempdir()?;
        for disk in DISKS {
            let (empty, copy) = (image_dir().join("data.raw"), folder.path().join(disk));
            run_ok(&["cp".as_ref(), "--sparse=always".as_ref(), empty.as_os_str(), copy.as_os_str()], READY_LIMIT)?;
        }
        let log = fs::File::create(folder.path().join("qemu.log"))?;
        // It ends with the thread that starts it: a test that is killed leaves none behind.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", "qemu-system-x86_64"]).args(arguments(folder.path()));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let mut qemu = command.spawn().context("cannot start setpriv")?;
        match connect(folder.path()) {
            Ok((shell, fired)) => {
                let mut machine = Self { qemu, shell, commands: 0, fired, folder, _alone: alone };
                machine.run("true")?;
                Ok(machine)
            }
            Err(error) => {
                // It may have ended by itself.
                let _ = qemu.kill();
                qemu.wait()?;
                let said = fs::read_to_string(folder.path().join("qemu.log")).unwrap_or_default();
                Err(error.context(format!("QEMU has said: {said}")))
            }
        }
    }

    /// Runs a line in the machine's shell, to its end; it must end well. After a reset it waits for the next boot.
    ///
    /// # Errors
    /// When it fails, or the machine does not answer for [`BOOT_LIMIT`]; then with the end of its console.
    pub fn run(&mut self, line: &str) -> Result<String> {
        let (code, said) = self.run_to_the_end(line)?;
        ensure!(code == "0", "in the machine `{line}` ended with {code}: {said}");
        Ok(said)
    }

    fn run_to_the_end(&mut self, line: &str) -> Result<(String, String)> {
        self.commands += 1;
        let end = format!("END {} ", self.commands);
        let stream = self.shell.get_mut();
        stream.write_all(format!("{} {line}\n", self.commands).as_bytes()).context("the machine is gone")?;
        let mut said = String::new();
        loop {
            let mut heard = String::new();
            let length = self.shell.read_line(&mut heard);
            match length {
                Ok(0) => bail!("the machine is gone, running `{line}`: {}", self.console()),
                Ok(_) => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("no answer to `{line}`; console: {}", self.console()));
                }
            }
            match heard.trim_end().strip_prefix(&end) {
                Some(code) => return Ok((code.to_owned(), said)),
                None => said += &heard,
            }
        }
    }

    /// Starts a guard, and waits until it answers.
    ///
    /// # Errors
    /// When it does not within [`BOOT_LIMIT`].
    pub fn start_guard(&mut self) -> Result<()> {
        self.run("guard start")?;
        self.wait_guard("an answer", |_| Some(()))
    }

    /// Starts a guard in stop mode, and waits until it has armed the watchdog.
    ///
    /// # Errors
    /// When it does not within [`BOOT_LIMIT`].
    pub fn arm(&mut self) -> Result<()> {
        self.start_guard()?;
        self.ask_guard(r#"{"request":"stop_mode","stops":true}"#)?;
        self.wait_armed()
    }

    /// Waits until the guard says that it has armed the watchdog.
    ///
    /// # Errors
    /// When it does not within [`BOOT_LIMIT`].
    pub fn wait_armed(&mut self) -> Result<()> {
        let timeout = u64::try_from(TIMEOUT.as_millis())?;
        self.wait_guard("an armed watchdog", |status| {
            let armed = status.get("armed").filter(|armed| armed["stops"] == true)?;
            (armed.pointer("/watchdog/timeout_ms")?.as_u64()? == timeout).then_some(())
        })
    }

    /// What the guard answers to a request.
    ///
    /// # Errors
    /// When it does not answer, or refuses.
    pub fn ask_guard(&mut self, request: &str) -> Result<Value> {
        let said = self.run(&format!("guard ask '{request}'"))?;
        answer(&said)
    }

    /// Gives the guard a lease from now on.
    ///
    /// # Errors
    /// When it refuses.
    pub fn grant(&mut self, lease: Duration) -> Result<()> {
        let said = self.run(&format!("guard grant {}", lease.as_millis()))?;
        answer(&said).map(drop)
    }

    /// Tells the guard of [`GUEST`].
    ///
    /// # Errors
    /// When it refuses.
    pub fn register(&mut self) -> Result<()> {
        let request = format!(r#"{{"request":"register","guest":"{GUEST}","cgroup":"/sys/fs/cgroup/{GUEST}"}}"#);
        self.ask_guard(&request).map(drop)
    }

    /// Waits until `look` accepts what the guard says of itself.
    ///
    /// # Errors
    /// After [`BOOT_LIMIT`], with what it said last.
    pub fn wait_guard<T>(&mut self, what: &str, look: impl Fn(&Value) -> Option<T>) -> Result<T> {
        wait::until(&format!("the guard in the machine: {what}"), BOOT_LIMIT, || {
            let status = self.ask_guard(r#"{"request":"query"}"#).map_err(|error| format!("{error:#}"))?;
            look(&status).ok_or_else(|| status.to_string())
        })
    }

    /// Waits until the watchdog fires, and returns when it did; `None`: not within `limit`.
    ///
    /// # Errors
    /// When the machine ends.
    pub fn fires_within(&self, limit: Duration) -> Result<Option<Instant>> {
        match self.fired.recv_timeout(limit) {
            Ok(at) => Ok(Some(at)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("the machine is gone: {}", self.console()),
        }
    }

    fn console(&self) -> String {
        let text = fs::read(self.folder.path().join("console")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(CONSOLE_LINES)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

fn build() -> Result<()> {
    let (script, holdfast) = (super::script("machine.sh"), binary()?);
    let words = [script.as_os_str(), image_dir().as_os_str(), holdfast.as_os_str(), machine_dir().as_os_str()]
        .map(ToOwned::to_owned);
    run_ok(&words, BUILD_LIMIT).map(drop)
}

fn answer(said: &str) -> Result<Value> {
    let value: Value = serde_json::from_str(said).with_context(|| format!("the guard said {said:?}"))?;
    ensure!(value.get("reply").is_none_or(|reply| reply != "refused"), "the guard refused: {value}");
    Ok(value)
}

fn arguments(folder: &Path) -> Vec<String> {
    let accel = if accel() == "kvm" { "kvm" } else { "tcg,tb-size=32" };
    let (at, image, own) = (folder.display(), image_dir(), machine_dir());
    let words = format!(
        "-machine q35 -accel {accel} -cpu max -m {MEMORY_MIB}M -smp 1 -nodefaults -no-user-config -display none \
         -qmp unix:{at}/qmp,server=on,wait=off -chardev file,id=console,path={at}/console -serial chardev:console \
         -kernel {}/vmlinux -initrd {}/machine.initrd \
         -device virtio-serial-pci -chardev socket,id=shell,path={at}/shell,server=on,wait=off \
         -device virtserialport,chardev=shell,name=lab.shell -device i6300esb -action watchdog=reset",
        image.display(),
        own.display()
    );
    let mut argv: Vec<String> = words.split_ascii_whitespace().map(str::to_owned).collect();
    for disk in DISKS {
        let node = format!("driver=raw,node-name={disk},file.driver=file,file.filename={at}/{disk}");
        argv.extend(["-blockdev".to_owned(), node, "-device".to_owned(), format!("virtio-blk-pci,drive={disk}")]);
    }
    let kernel = format!("console=ttyS0 quiet tsc_early_khz={} lpj=4000000 lab.name=m1", tsc_khz());
    argv.extend(["-append".to_owned(), kernel]);
    argv
}

/// The machine's shell, and word of its watchdog.
fn connect(folder: &Path) -> Result<(BufReader<UnixStream>, Receiver<Instant>)> {
    let mut monitor = socket(&folder.join("qmp"))?;
    let shell = socket(&folder.join("shell"))?;
    shell.set_read_timeout(Some(BOOT_LIMIT))?;
    // QEMU says nothing of what happens before this was asked.
    monitor.write_all(b"{\"execute\":\"qmp_capabilities\"}\n")?;
    let (sender, fired) = channel();
    thread::spawn(move || {
        // It ends with the machine.
        for line in BufReader::new(monitor).lines().map_while(Result::ok) {
            let event: Value = serde_json::from_str(&line).unwrap_or_default();
            // Nobody waits for it any more: the test is over.
            if event.get("event").is_some_and(|name| name == "WATCHDOG") && sender.send(Instant::now()).is_err() {
                return;
            }
        }
    });
    Ok((BufReader::new(shell), fired))
}

fn socket(path: &Path) -> Result<UnixStream> {
    wait::until(&format!("QEMU at {}", path.display()), READY_LIMIT, || {
        UnixStream::connect(path).map_err(|error| error.to_string())
    })
}
