//! A real Redfish service for tests: sushy-tools' emulator, installed on first use into the workspace's `.cache`.
//!
//! It speaks TLS 1.2 only, knows no sessions, and shows a change of power some seconds after it has accepted it.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use holdfast_policies::{
    model::{RedfishAuth, RedfishDevice, TlsTrust},
    time::Span,
};
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::CertificateDer;

use crate::{
    Answer, PowerDevice,
    redfish::Redfish,
    simulator::{READY_LIMIT, free_port},
    tls::fingerprint,
};

/// Longest time for the installation: it downloads some twenty packages.
const INSTALL_LIMIT: &str = "300";
/// `admin:secret`; the emulator knows bcrypt alone.
const USERS: &str = "admin:$2b$04$ANWZyJNj69jmS9NcnbGEP.ZSbsw0WL71UPrTJGBMtPP4pUkl0s/iG\n";
/// The systems that it has.
pub(crate) const FIRST: &str = "33221100-5544-7766-8899-aabbccddeeff";
const SECOND: &str = "33221100-5544-7766-8899-aabbccddee00";

/// A running emulator; it ends with this value.
pub(crate) struct Sushy {
    folder: TempDir,
    certificate: CertificateDer<'static>,
    port: u16,
    process: Child,
}

impl Sushy {
    /// Starts one whose systems are on, and waits until it answers. `quick`: power changes one second after an order,
    /// not up to eleven.
    pub(crate) async fn start(quick: bool) -> Self {
        let python = installed();
        let folder = tempfile::tempdir().unwrap();
        let port = free_port();
        let key = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("cert.pem"), key.cert.pem()).unwrap();
        fs::write(path("key.pem"), key.signing_key.serialize_pem()).unwrap();
        fs::write(path("users"), USERS).unwrap();
        fs::write(path("emulator.conf"), configuration(folder.path(), port)).unwrap();
        let hurry = if quick { "import random; random.randint = lambda least, most: least; " } else { "" };
        let code = format!("import sys; {hurry}from sushy_tools.emulator.main import main; sys.exit(main())");
        let log = fs::File::create(path("output")).unwrap();
        let process = Command::new(python)
            .args(["-c", &code, "--config", path("emulator.conf").to_str().unwrap()])
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let sushy = Self { certificate: key.cert.der().clone(), folder, port, process };
        sushy.wait_until_it_answers().await;
        sushy
    }

    async fn wait_until_it_answers(&self) {
        let device = self.device();
        let began = Instant::now();
        while began.elapsed() < READY_LIMIT {
            if matches!(device.status(Duration::from_secs(2)).await, Answer::Confirmed(_)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the emulator does not answer: {}", fs::read_to_string(self.folder.path().join("output")).unwrap());
    }

    /// The first system with its right settings.
    pub(crate) fn settings(&self) -> RedfishDevice {
        RedfishDevice {
            address: "127.0.0.1".to_owned(),
            port: self.port,
            user: "admin".to_owned(),
            password_file: self.password_file("secret"),
            auth: RedfishAuth::Basic,
            system: Some(FIRST.to_owned()),
            trust: TlsTrust::Fingerprint(fingerprint(&self.certificate)),
            wiring_verified_by: None,
            timeout: Span::secs(20),
        }
    }

    pub(crate) fn device(&self) -> Redfish {
        Redfish::new(self.settings())
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    pub(crate) fn password_file(&self, password: &str) -> PathBuf {
        let path = self.folder.path().join(format!("password-{password}"));
        fs::write(&path, password).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl Drop for Sushy {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// The interpreter that has the emulator; installs it when it is not there yet.
fn installed() -> PathBuf {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/lab/redfish.sh");
    let ended = Command::new("timeout").arg(INSTALL_LIMIT).arg(script).output().unwrap();
    assert!(ended.status.success(), "cannot install the Redfish emulator: {}", String::from_utf8_lossy(&ended.stderr));
    String::from_utf8(ended.stdout).unwrap().trim().into()
}

fn configuration(folder: &Path, port: u16) -> String {
    let folder = folder.display();
    format!(
        "SUSHY_EMULATOR_LISTEN_IP = '127.0.0.1'\nSUSHY_EMULATOR_LISTEN_PORT = {port}\n\
         SUSHY_EMULATOR_SSL_CERT = '{folder}/cert.pem'\nSUSHY_EMULATOR_SSL_KEY = '{folder}/key.pem'\n\
         SUSHY_EMULATOR_AUTH_FILE = '{folder}/users'\nSUSHY_EMULATOR_FAKE_DRIVER = True\n\
         SUSHY_EMULATOR_STATE_DIR = '{folder}'\nSUSHY_EMULATOR_FAKE_SYSTEMS = [\n\
         {{'uuid': '{FIRST}', 'name': 'a', 'power_state': 'On', 'external_notifier': False, 'nics': []}},\n\
         {{'uuid': '{SECOND}', 'name': 'b', 'power_state': 'On', 'external_notifier': False, 'nics': []}},\n]\n"
    )
}
