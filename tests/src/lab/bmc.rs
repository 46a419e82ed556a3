//! Simulated BMCs: one `ipmi_sim` per host in the management namespace, whose power button is the host's real power.

use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf, process::Child, time::Duration};

use anyhow::{Context, Result};

use super::{
    Lab,
    command::{self, run_ok},
    place::QUICK,
    wait,
};

/// The user that may press power buttons.
pub const USER: &str = "holdfast";
/// Its password.
const PASSWORD: &str = "correct-horse";
/// What the BMC wants under [`Fault::WrongPassword`].
const OTHER_PASSWORD: &str = "battery-staple";
/// The password file, as hosts see it.
pub const PASSWORD_FILE: &str = "/srv/holdfast/bmc-password";
/// Longest time until a BMC answers.
const READY_LIMIT: Duration = Duration::from_secs(180);

/// What is wrong with a BMC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It says "ok" and does nothing.
    Stuck,
    /// It reports an error.
    Fail,
    /// It says "off", whatever is so.
    SaysOff,
    /// It takes so long for everything.
    Slow(Duration),
    /// It knows another password.
    WrongPassword,
    /// Nobody is at its address.
    Unreachable,
}

/// One BMC of a lab.
pub struct Bmc<'lab> {
    lab: &'lab Lab,
    host: String,
}

impl Lab {
    /// The BMC of a host.
    #[must_use]
    pub fn bmc(&self, host: &str) -> Bmc<'_> {
        Bmc { lab: self, host: host.to_owned() }
    }

    /// How often the power buttons of all hosts were pressed, whoever did it by way of a BMC.
    #[must_use]
    pub fn presses(&self) -> usize {
        let asked = self.hosts().iter().flat_map(|spec| self.bmc(&spec.name).asked());
        asked.filter(|line| line.contains(" set ")).count()
    }

    /// Writes the password file and starts all BMCs.
    pub(super) fn start_bmcs(&self) -> Result<()> {
        let file = self.shared().join("bmc-password");
        fs::write(&file, format!("{PASSWORD}\n"))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600))?;
        for spec in self.hosts() {
            let bmc = self.bmc(&spec.name);
            bmc.configure(PASSWORD)?;
            bmc.set_address(true)?;
            bmc.start()?;
        }
        self.hosts().iter().try_for_each(|spec| self.bmc(&spec.name).wait_ready(PASSWORD))
    }
}

impl Bmc<'_> {
    /// Its address on the management network.
    ///
    /// # Errors
    /// When the host is unknown.
    pub fn address(&self) -> Result<String> {
        Ok(format!("10.78.0.{}", 100 + self.lab.number(&self.host)?))
    }

    /// It as a power device, in policy YAML; `timeout` is how long an attempt may take.
    ///
    /// # Errors
    /// When the host is unknown.
    pub fn yaml(&self, timeout: &str) -> Result<String> {
        Ok(format!(
            "ipmi: {{ address: {}, user: {USER}, password_file: {PASSWORD_FILE}, suite: 3, timeout: {timeout}, wiring_verified_by: the lab }}",
            self.address()?
        ))
    }

    /// The system UUID that it reports, which is also the `machine_id` of its host.
    ///
    /// # Errors
    /// When the host is unknown.
    pub fn system_uuid(&self) -> Result<String> {
        super::machine_id(self.lab.number(&self.host)?)
    }

    /// Makes it have exactly this fault; [`Fault::None`] repairs it.
    ///
    /// # Errors
    /// When it cannot be reached by the lab itself.
    pub fn fault(&self, fault: Fault) -> Result<()> {
        for ending in ["stuck", "fail", "slow", "says-off"] {
            fs::remove_file(self.file(ending))
                .or_else(|error| if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) })?;
        }
        let password = if fault == Fault::WrongPassword { OTHER_PASSWORD } else { PASSWORD };
        self.set_address(true)?;
        if self.configure(password)? {
            self.stop()?;
            self.start()?;
        }
        // It must be up, with what it has to know, before its address may go away.
        self.wait_ready(password)?;
        match fault {
            Fault::Stuck => fs::write(self.file("stuck"), b"")?,
            Fault::Fail => fs::write(self.file("fail"), b"")?,
            Fault::SaysOff => fs::write(self.file("says-off"), b"")?,
            Fault::Slow(time) => fs::write(self.file("slow"), time.as_secs_f64().to_string())?,
            Fault::None | Fault::WrongPassword | Fault::Unreachable => {}
        }
        if fault == Fault::Unreachable { self.set_address(false) } else { Ok(()) }
    }

    /// What the chassis was asked, one line each: time, `get` or `set`, what.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        fs::read_to_string(self.file("log")).unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// Forgets what the chassis was asked so far.
    ///
    /// # Errors
    /// When its record cannot be written.
    pub fn forget_asked(&self) -> Result<()> {
        Ok(fs::write(self.file("log"), b"")?)
    }

    /// Runs `ipmitool` against it from the management network, with the right password.
    ///
    /// # Errors
    /// When `ipmitool` fails.
    pub fn ipmitool(&self, words: &[&str]) -> Result<String> {
        self.ipmitool_with(PASSWORD, words)
    }

    fn ipmitool_with(&self, password: &str, words: &[&str]) -> Result<String> {
        let net = format!("--net=/run/netns/{}", self.lab.place.space("mg"));
        let mut line = std::process::Command::new("nsenter");
        // Without a suite ipmitool asks the simulator for ten seconds which it speaks.
        line.args([
            &net,
            "ipmitool",
            "-I",
            "lanplus",
            "-C",
            "3",
            "-N",
            "1",
            "-R",
            "1",
            "-E",
            "-U",
            USER,
            "-H",
            &self.address()?,
        ]);
        line.args(words).env("IPMI_PASSWORD", password);
        let answer = command::finish(line, QUICK)?;
        anyhow::ensure!(answer.ok(), "ipmitool {words:?}: {}", answer.err.trim());
        Ok(answer.out)
    }

    fn wait_ready(&self, password: &str) -> Result<()> {
        wait::until(&format!("BMC of {}", self.host), READY_LIMIT, || {
            self.ipmitool_with(password, &["mc", "guid"]).map(drop).map_err(|error| error.to_string())
        })
    }

    /// Writes its configuration; returns whether that changed it.
    fn configure(&self, password: &str) -> Result<bool> {
        let (host, dir) = (&self.host, self.lab.place.dir.display());
        let script = super::script("bmc.sh");
        let script = script.display();
        let (address, guid) = (self.address()?, reversed_bytes(&self.system_uuid()?));
        let access: String = ["callback", "user", "operator", "admin"]
            .map(|level| format!("    allowed_auths_{level} none md2 md5 straight\n"))
            .concat();
        let config = format!(
            "name \"{host}\"\nset_working_mc 0x20\n  startlan 1\n    addr {address} 623\n    priv_limit admin\n{access}    guid {guid}\n  endlan\n  \
             chassis_control \"{script} {dir} {host}\"\n  user 1 true \"\" \"test\" user 10\n  user 2 true \"{USER}\" \"{password}\" admin 10\n"
        );
        let commands = format!(
            "mc_setbmc 0x20\nmc_add 0x20 0 no-device-sdrs 0x23 9 8 0x9f 0x1291 0xf02 persist_sdr\nmc_set_guid 0x20 {guid}\nsel_enable 0x20 1000 0x0a\nmc_enable 0x20\n"
        );
        fs::write(self.file("emu"), commands)?;
        if fs::read_to_string(self.file("conf")).is_ok_and(|old| old == config) {
            return Ok(false);
        }
        fs::write(self.file("conf"), config)?;
        Ok(true)
    }

    fn start(&self) -> Result<()> {
        let path = |ending| self.file(ending).to_string_lossy().into_owned();
        // Users that it remembers would count more than those of its configuration.
        if self.file("state").exists() {
            fs::remove_dir_all(self.file("state"))?;
        }
        fs::create_dir_all(self.file("state"))?;
        let (conf, emu, state) = (path("conf"), path("emu"), path("state"));
        let argv = ["ipmi_sim", "-n", "-c", &conf, "-f", &emu, "-s", &state];
        let log = fs::File::options().create(true).append(true).open(self.file("out"))?;
        let mut command = self.lab.place.inside(&self.cgroup_name(), "mg", &argv);
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child: Child = command.spawn().context("cannot start ipmi_sim")?;
        self.lab.adopt(child);
        Ok(())
    }

    /// Ends it. The next one could not have its address, and would end at once, before it is gone.
    fn stop(&self) -> Result<()> {
        let cgroup = self.lab.place.cgroup().join(self.cgroup_name());
        // It may have died by itself.
        let _ = fs::write(cgroup.join("cgroup.kill"), "1");
        wait::until(&format!("the end of the BMC of {}", self.host), QUICK, || {
            if super::place::populated(&cgroup) { Err("it runs".to_owned()) } else { Ok(()) }
        })
    }

    fn set_address(&self, present: bool) -> Result<()> {
        let (space, address) = (self.lab.place.space("mg"), format!("{}/32", self.address()?));
        if present {
            return run_ok(&["ip", "-n", &space, "addr", "replace", &address, "dev", "mg0"], QUICK).map(drop);
        }
        run_ok(&["ip", "-n", &space, "addr", "del", &address, "dev", "mg0"], QUICK).map(drop)
    }

    fn cgroup_name(&self) -> String {
        format!("bmc-{}", self.host)
    }

    fn file(&self, ending: &str) -> PathBuf {
        self.lab.place.dir.join("bmc").join(format!("{}.{ending}", self.host))
    }
}

/// A UUID's bytes as IPMI sends them: the last one first.
fn reversed_bytes(uuid: &str) -> String {
    let digits: Vec<char> = uuid.chars().filter(char::is_ascii_hexdigit).collect();
    digits.chunks(2).rev().flatten().collect()
}
