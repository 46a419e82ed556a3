//! Simulated Redfish services: sushy-tools' emulator in the management namespace, at the address of the host's BMC, whose
//! power button is the host's real power.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Duration};

use anyhow::{Context, Result};

use super::{Lab, bmc, command::run_ok, place::QUICK, wait};

/// Longest time for installing the emulator, which is done once.
const INSTALL_LIMIT: Duration = Duration::from_secs(300);
/// Longest time until a service answers.
const READY_LIMIT: Duration = Duration::from_secs(180);
/// The lab's user with the lab's password; the emulator knows bcrypt alone.
const USER_LINE: &str = "holdfast:$2b$04$jvuE06s32eD1UmjM2xjxGemj/PVCaCxOLLNsGuk4wAIf.RumxW6dq\n";

impl Lab {
    /// What the Redfish services have written so far.
    #[must_use]
    pub fn redfish_said(&self) -> String {
        let said = |spec: &super::HostSpec| {
            let log = self.place.dir.join(format!("redfish-{}.out", spec.name));
            format!("{}:\n{}", spec.name, fs::read_to_string(log).unwrap_or_else(|error| error.to_string()))
        };
        self.hosts().iter().map(said).collect()
    }

    /// Starts the Redfish services of all hosts; returns each as a power device in policy YAML, whose wiring nobody has verified, by
    /// the name of its host.
    ///
    /// # Errors
    /// When one does not come up.
    pub fn start_redfish(&self) -> Result<BTreeMap<String, String>> {
        let installed = run_ok(&[super::script("redfish.sh")], INSTALL_LIMIT).context("cannot install sushy-tools")?;
        // Each takes seconds of a processor until it answers, so all of them begin at once.
        self.hosts().iter().try_for_each(|spec| self.begin_redfish(&spec.name, installed.trim()))?;
        self.hosts().iter().map(|spec| Ok((spec.name.clone(), self.redfish_yaml(&spec.name)?))).collect()
    }

    fn begin_redfish(&self, host: &str, python: &str) -> Result<()> {
        let path = |ending: &str| self.redfish_file(host, ending).to_string_lossy().into_owned();
        let (address, system) = (self.bmc(host).address()?, self.bmc(host).system_uuid()?);
        let (certificate, key, state) = (path("cert"), path("key"), path("state"));
        fs::create_dir_all(&state)?;
        let made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=bmc";
        let argv: Vec<&str> =
            std::iter::once("openssl").chain(made.split(' ')).chain(["-keyout", &key, "-out", &certificate]).collect();
        run_ok(&argv, QUICK)?;
        fs::write(path("users"), USER_LINE)?;
        let config = format!(
            "SUSHY_EMULATOR_LISTEN_IP = '{address}'\nSUSHY_EMULATOR_LISTEN_PORT = 443\nSUSHY_EMULATOR_SSL_CERT = '{certificate}'\n\
             SUSHY_EMULATOR_SSL_KEY = '{key}'\nSUSHY_EMULATOR_AUTH_FILE = '{users}'\nSUSHY_EMULATOR_FAKE_DRIVER = True\n\
             SUSHY_EMULATOR_STATE_DIR = '{state}'\nSUSHY_EMULATOR_FAKE_SYSTEMS = [{{'uuid': '{system}', 'name': '{host}', \
             'power_state': 'On', 'external_notifier': False, 'nics': []}}]\n",
            users = path("users"),
        );
        let conf = path("conf");
        fs::write(&conf, config)?;
        let script = super::script("redfish.py").to_string_lossy().into_owned();
        let lab = self.place.dir.to_string_lossy().into_owned();
        self.helper(&format!("redfish-{host}"), "mg", &[python, &script, &lab, host, &conf])
    }

    /// Waits until a service answers.
    fn redfish_yaml(&self, host: &str) -> Result<String> {
        let address = self.bmc(host).address()?;
        wait::until(&format!("the Redfish service of {host}"), READY_LIMIT, || {
            let line = format!("exec 3<>/dev/tcp/{address}/443");
            let answer = self.shell("mg", &line, QUICK).map_err(|error| format!("{error:#}"))?;
            if answer.ok() { Ok(()) } else { Err(answer.err) }
        })?;
        let certificate = self.redfish_file(host, "cert").to_string_lossy().into_owned();
        let printed = run_ok(&["openssl", "x509", "-noout", "-fingerprint", "-sha256", "-in", &certificate], QUICK)?;
        let (_, fingerprint) = printed.trim().split_once('=').context("openssl prints no fingerprint")?;
        Ok(format!(
            "redfish: {{ address: {address}, user: {}, password_file: {}, fingerprint: \"{fingerprint}\", timeout: 8s }}",
            bmc::USER,
            bmc::PASSWORD_FILE
        ))
    }

    fn redfish_file(&self, host: &str, ending: &str) -> PathBuf {
        self.place.dir.join("redfish").join(format!("{host}.{ending}"))
    }
}
