//! A scripted fence agent for the contract, and real ones against real counterparts.

use std::{collections::BTreeMap, fs, os::unix::fs::PermissionsExt, path::PathBuf, sync::Arc, time::Duration};

use holdfast_policies::{model::AgentDevice, time::Span};

use super::{Agent, NewestOff, metadata};
use crate::{
    Answer, Outcome, Power, PowerDevice,
    benches::SETTLED,
    power_off_and_confirm,
    program_folder::ProgramFolder,
    redfish::sushy::Sushy,
    simulator::{self, Simulator},
};

const CALL: Duration = Duration::from_secs(30);

/// Obeys fault files, keeps the power in a file, and logs what it reads.
const SCRIPT: &str = r#"#!/bin/sh
D=$(dirname "$0")
[ $# = 0 ] || exit 1
action=reboot
while IFS= read -r line; do
  echo "$line" >> "$D/read"
  case $line in action=*) action=${line#action=};; esac
done
[ "$action" = metadata ] && { cat "$D/metadata"; exit 0; }
echo "a warning of the interpreter" >&2
[ -e "$D/slow" ] && sleep "$(cat "$D/slow")"
[ -e "$D/hangs" ] && { sleep 60 & echo $! > "$D/child"; wait; }
[ -e "$D/fail" ] && { echo "Unable to obtain correct plug status" >&2; exit 1; }
case $action in
status)
  [ "$(cat "$D/power")" = 1 ] && { echo "Status: ON"; exit 0; }
  [ -e "$D/broken" ] || echo "Status: OFF"
  exit 2;;
off) echo off >> "$D/log"; [ -e "$D/stuck" ] || echo 0 > "$D/power";;
on) [ -e "$D/stuck" ] || echo 1 > "$D/power";;
*) exit 1;;
esac
exit 0
"#;

/// Agents whose "off" leaves a host running, or says something else, as far as they are installed.
const UNBELIEVED: [&str; 23] = [
    "fence_brocade",
    "fence_cisco_mds",
    "fence_cisco_ucs",
    "fence_crosslink",
    "fence_ibmz",
    "fence_ifmib",
    "fence_ilo3_ssh",
    "fence_ilo4_ssh",
    "fence_ilo5_ssh",
    "fence_ilo_mp",
    "fence_ilo_ssh",
    "fence_lpar",
    "fence_mpath",
    "fence_rhevm",
    "fence_sanbox2",
    "fence_sbd",
    "fence_scsi",
    "fence_skalar",
    "fence_vbox",
    "fence_virsh",
    "fence_virt",
    "fence_xvm",
    "fence_zvmip",
];

/// Some that do not.
const SWITCH_POWER: [&str; 5] =
    ["fence_apc_snmp", "fence_dummy", "fence_ipmilan", "fence_redfish", "fence_vmware_rest"];

const METADATA: &str = r#"<?xml version="1.0" ?>
<resource-agent name="fence_script"><parameters>
<parameter name="action" required="1"><content type="string" default="reboot"/></parameter>
<parameter name="ip" required="1" obsoletes="ipaddr"><content type="string"/></parameter>
<parameter name="password" required="0"><content type="string"/></parameter>
</parameters><actions><action name="on"/><action name="off"/><action name="status"/></actions></resource-agent>
"#;

/// A fence agent in a folder of its own.
pub(crate) struct Script {
    folder: ProgramFolder,
}

impl Script {
    /// An agent whose host is on.
    pub(crate) fn new() -> Self {
        let script = Self { folder: ProgramFolder::new() };
        script.folder.write("metadata", METADATA);
        script.folder.program("fence_script", SCRIPT);
        script.set_power(true);
        script
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path(name)
    }

    pub(crate) fn settings(&self) -> AgentDevice {
        let file = self.path("password");
        fs::write(&file, "secret\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        AgentDevice {
            name: self.path("fence_script").to_str().unwrap().to_owned(),
            options: BTreeMap::from([("ip".to_owned(), "a".to_owned())]),
            password_file: Some(file),
            wiring_verified_by: None,
            timeout: Span::secs(4),
        }
    }

    pub(crate) fn device(&self) -> Agent {
        Agent { newest_off: NewestOff::done_within(SETTLED), ..Agent::new(self.settings()) }
    }

    pub(crate) fn fault(&self, name: &str, content: &str) {
        self.folder.write(name, content);
    }

    pub(crate) fn set_power(&self, on: bool) {
        self.fault("power", if on { "1\n" } else { "0\n" });
    }

    pub(crate) fn is_on(&self) -> bool {
        self.folder.read("power").trim() == "1"
    }

    pub(crate) fn offs(&self) -> u32 {
        self.folder.offs()
    }
}

fn agent(name: &str, options: &[(&str, &str)], password_file: Option<PathBuf>) -> Agent {
    Agent::new(AgentDevice {
        name: name.to_owned(),
        options: options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
        password_file,
        wiring_verified_by: None,
        timeout: Span::secs(40),
    })
}

/// As when the interpreter cannot read the agent: Python and shells end with 2 then, which is "off".
#[tokio::test]
async fn an_exit_code_that_means_off_is_believed_only_of_an_agent_that_says_so_or_complains_of_nothing() {
    let script = Script::new();
    script.set_power(false);
    assert_eq!(script.device().status(CALL).await, Answer::Confirmed(Power::Off));
    script.fault("broken", "");
    let answer = script.device().status(CALL).await;
    assert!(matches!(&answer, Answer::Unknown { detail } if detail.contains("a warning")), "{answer:?}");
}

fn left_out(test: &str, agents: &[&str]) -> bool {
    if simulator::left_out(test) {
        return true;
    }
    for agent in agents {
        assert!(
            std::path::Path::new("/usr/sbin").join(agent).exists(),
            "{agent} is missing: install the package fence-agents, or set HOLDFAST_NO_LAB=1 to leave {test} out"
        );
    }
    false
}

async fn refused(device: &Agent, says: &str) {
    let answer = device.off(CALL).await;
    let Answer::Refused { detail, .. } = &answer else { panic!("{says}: {answer:?}") };
    assert!(detail.contains(says) && !detail.contains("secret"), "{says}: {detail}");
}

#[tokio::test]
async fn the_action_is_always_sent_and_comes_last_and_the_password_only_to_its_input() {
    let script = Script::new();
    assert_eq!(script.device().off(CALL).await, Answer::Confirmed(()));
    let read = fs::read_to_string(script.path("read")).unwrap();
    assert_eq!(read, "action=metadata\nip=a\npassword=secret\naction=off\n");
}

#[tokio::test]
async fn what_an_agent_would_ignore_is_refused_before_it_runs() {
    let script = Script::new();
    let right = script.settings();
    let with = |change: fn(&mut AgentDevice)| {
        let mut settings = right.clone();
        change(&mut settings);
        Agent::new(settings)
    };
    refused(&with(|it| drop(it.options.insert("timeout".to_owned(), "2".to_owned()))), "no option \"timeout\"").await;
    refused(&with(|it| it.options.clear()), "needs the option \"ip\"").await;
    refused(&with(|it| it.password_file = Some("/nonexistent".into())), "cannot read password file").await;
    refused(&with(|it| it.name = "fence_nonexistent".to_owned()), "is the package with it installed").await;
    let quoted = script.path("quoted");
    fs::write(&quoted, "\"secret\"").unwrap();
    fs::set_permissions(&quoted, fs::Permissions::from_mode(0o600)).unwrap();
    refused(&Agent::new(AgentDevice { password_file: Some(quoted), ..right.clone() }), "quotation mark").await;
    assert_eq!(script.offs(), 0);
}

/// As fence_scsi, fence_ifmib and their like describe themselves.
#[tokio::test]
async fn an_agent_that_cuts_a_host_off_and_leaves_it_running_is_neither_used_nor_believed() {
    let script = Script::new();
    script.set_power(false);
    script.fault("metadata", &METADATA.replace("name=\"on\"", "name=\"on\" automatic=\"1\""));
    let device = script.device();
    refused(&device, "cuts its host off from storage or from a network").await;
    let answer = device.status(CALL).await;
    assert!(matches!(answer, Answer::Refused { .. }), "{answer:?}");
    assert_eq!(script.offs(), 0);
}

#[tokio::test]
async fn an_agent_that_hangs_ends_by_the_deadline_with_all_that_it_has_started() {
    let script = Script::new();
    let device = script.device();
    assert_eq!(device.status(CALL).await, Answer::Confirmed(Power::On));
    script.fault("hangs", "");
    // Long enough for it to have started something on a busy machine.
    assert!(matches!(device.status(Duration::from_secs(4)).await, Answer::Unknown { .. }));
    let child = fs::read_to_string(script.path("child")).unwrap();
    let stat = format!("/proc/{}/stat", child.trim());
    for _ in 0..400 {
        if fs::read_to_string(&stat).map_or(true, |stat| stat.contains(") Z ")) {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("a child of the agent lives on");
}

#[tokio::test]
async fn every_installed_agent_that_describes_itself_is_understood() {
    if left_out("every_installed_agent_that_describes_itself_is_understood", &["fence_dummy"]) {
        return;
    }
    let mut understood = Vec::new();
    for entry in fs::read_dir("/usr/sbin").unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        // It asks a person, and describes nothing.
        if !name.starts_with("fence_") || name == "fence_ack_manual" {
            continue;
        }
        let metadata = metadata::of(&name).await.unwrap_or_else(|error| panic!("{name}: {error:?}"));
        let odd = BTreeMap::from([("no_such_option".to_owned(), String::new())]);
        assert!(metadata.mistakes(&odd, false).iter().any(|mistake| mistake.contains("no_such_option")), "{name}");
        let is_believed = metadata.why_unbelieved(&name).is_none();
        assert!(!is_believed || !UNBELIEVED.contains(&name.as_str()), "{name} would be believed");
        assert!(is_believed || !SWITCH_POWER.contains(&name.as_str()), "{name} would not be used");
        understood.push(name);
    }
    eprintln!("{} agents", understood.len());
    assert!(understood.len() > 10, "{understood:?}");
}

#[tokio::test]
async fn fence_dummy_is_believed_by_its_status_alone() {
    if left_out("fence_dummy_is_believed_by_its_status_alone", &["fence_dummy"]) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("status");
    fs::write(&file, "on").unwrap();
    let file = file.to_str().unwrap();
    let working: Arc<dyn PowerDevice> = Arc::new(agent("fence_dummy", &[("status_file", file)], None));
    let report = power_off_and_confirm(&[Arc::clone(&working)], CALL, || true).await;
    assert!(matches!(report.outcome, Outcome::Off { .. }), "{report:?}");
    assert_eq!(working.on(CALL).await, Answer::Confirmed(()));
    let failing = [("status_file", file), ("type", "fail"), ("power_timeout", "2")];
    let failing = Agent { newest_off: NewestOff::done_within(SETTLED), ..agent("fence_dummy", &failing, None) };
    let report = power_off_and_confirm(&[Arc::new(failing)], Duration::from_secs(8), || true).await;
    assert!(!matches!(report.outcome, Outcome::Off { .. }), "{report:?}");
}

#[tokio::test]
async fn fence_ipmilan_switches_a_real_controller() {
    if left_out("fence_ipmilan_switches_a_real_controller", &["fence_ipmilan"]) {
        return;
    }
    let simulator = Simulator::start().await;
    let port = simulator.settings().port.to_string();
    let options =
        [("ip", "127.0.0.1"), ("ipport", port.as_str()), ("username", "admin"), ("lanplus", "1"), ("cipher", "3")];
    let device: Arc<dyn PowerDevice> =
        Arc::new(agent("fence_ipmilan", &options, Some(simulator.password_file("secret", 0o600))));
    assert_eq!(device.status(CALL).await, Answer::Confirmed(Power::On));
    let report = power_off_and_confirm(&[Arc::clone(&device)], Duration::from_secs(40), || true).await;
    assert!(matches!(report.outcome, Outcome::Off { .. }), "{report:?}");
    assert!(!simulator.is_on());
    let wrong = agent("fence_ipmilan", &options, Some(simulator.password_file("wrong", 0o600)));
    assert!(matches!(wrong.status(CALL).await, Answer::Unknown { .. }));
}

#[tokio::test]
async fn fence_redfish_switches_a_real_service() {
    if left_out("fence_redfish_switches_a_real_service", &["fence_redfish"]) {
        return;
    }
    let service = Sushy::start(true).await;
    let port = service.port().to_string();
    let system = format!("/redfish/v1/Systems/{}", crate::redfish::sushy::FIRST);
    let options = [
        ("ip", "127.0.0.1"),
        ("ipport", port.as_str()),
        ("username", "admin"),
        ("ssl_insecure", "1"),
        ("systems_uri", system.as_str()),
    ];
    let device: Arc<dyn PowerDevice> =
        Arc::new(agent("fence_redfish", &options, Some(service.password_file("secret"))));
    let report = power_off_and_confirm(&[device], Duration::from_secs(60), || true).await;
    assert!(matches!(report.outcome, Outcome::Off { .. }), "{report:?}");
    assert_eq!(service.device().status(CALL).await, Answer::Confirmed(Power::Off));
}
