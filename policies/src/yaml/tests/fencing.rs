//! Fence levels and their power devices, right and wrong.

use super::{super::parse_with_doubts, *};
use crate::model::{AgentDevice, FenceLevel, IpmiDevice, IpmiInterface, IpmiPrivilege, RedfishAuth, TlsTrust};

fn levels(text: &str) -> Vec<FenceLevel> {
    let policies = read(text).map_err(|findings| show(&findings)).unwrap();
    policies.fencing.into_values().next().unwrap()
}

#[test]
fn every_kind_of_device_reads_with_its_defaults() {
    let levels = levels(
        r#"
fencing:
  h:
    - ipmi: { address: bmc, user: u, password_file: /p, privilege: operator, interface: lan }
    - redfish: { address: bmc-r, user: u, password_file: /p }
    - agent: { name: fence_apc_snmp, options: { ip: 10.0.9.9, plug: 7 }, password_file: /p }
    - webhook: { url: "https://w/power", key_file: /k, host: node1 }
    - command: { status: [p, status], off: [p, off] }
    - operator
"#,
    );
    let [PowerDevice::Webhook(webhook)] = levels[3].devices() else { panic!() };
    assert_eq!((webhook.host.as_str(), &webhook.trust), ("node1", &TlsTrust::System));
    let [PowerDevice::Command(command)] = levels[4].devices() else { panic!() };
    assert_eq!((command.off.join(" ").as_str(), &command.on, &command.machine_id), ("p off", &None, &None));
    let [PowerDevice::Ipmi(ipmi)] = levels[0].devices() else { panic!() };
    assert_eq!((ipmi.privilege, ipmi.interface), (IpmiPrivilege::Operator, IpmiInterface::Lan));
    let [PowerDevice::Redfish(redfish)] = levels[1].devices() else { panic!() };
    assert_eq!((redfish.port, redfish.auth, &redfish.trust), (443, RedfishAuth::Basic, &TlsTrust::System));
    assert_eq!((&redfish.system, redfish.timeout), (&None, Span::secs(20)));
    let [PowerDevice::Agent(AgentDevice { name, options, .. })] = levels[2].devices() else { panic!() };
    assert_eq!((name.as_str(), options["plug"].as_str()), ("fence_apc_snmp", "7"));
    assert!(matches!(levels[5], FenceLevel::Operator {}));
}

#[test]
fn hosts_that_are_virtual_machines_are_switched_by_what_runs_them() {
    let levels = levels(
        r#"
fencing:
  h:
    - libvirt: { uri: "qemu+ssh://root@hyper/system?keyfile=/k", domain: 33221100-5544-7766-8899-001122334455 }
    - qemu: { socket: /run/h//qmp, pidfile: /run/h/pid, timeout: 10s, wiring_verified_by: ann }
    - all: [{ libvirt: { uri: "test:///default", domain: 7up } }, { qemu: { socket: /s, pidfile: /p, start: [systemctl, start, h] } }]
"#,
    );
    let [PowerDevice::Libvirt(libvirt)] = levels[0].devices() else { panic!() };
    assert_eq!(libvirt.uri, "qemu+ssh://root@hyper/system?keyfile=/k");
    assert_eq!(libvirt.domain, "33221100-5544-7766-8899-001122334455");
    let [PowerDevice::Qemu(qemu)] = levels[1].devices() else { panic!() };
    assert_eq!((qemu.socket.to_str(), qemu.pidfile.to_str()), (Some("/run/h/qmp"), Some("/run/h/pid")));
    assert_eq!((&qemu.start, levels[0].timeout(), levels[1].timeout()), (&None, Span::secs(20), Span::secs(10)));
    assert_eq!(levels[1].wiring().as_deref(), Some("ann"));
    assert_eq!(levels[2].devices().len(), 2);
}

#[test]
fn a_domain_or_uri_that_virsh_would_take_for_something_else_is_refused() {
    for (uri, domain, expected) in [
        ("qemu:///system", "--all", "domain `--all` begins with neither a letter nor a digit"),
        ("qemu:///system", "\" 5\"", "domain ` 5` begins with neither a letter nor a digit"),
        ("qemu:///system", "5", "domain `5` is a number"),
        ("-cqemu:///system", "h", "`uri` is no connection URI of libvirt"),
        ("hyper", "h", "`uri` is no connection URI of libvirt"),
        ("qemu+ssh://root:secret@hyper/system", "h", "`uri` contains a password"),
        ("qemu+ssh://root@-oProxyCommand=x/system", "h", "begins with `-`"),
        ("\"qemu+ssh://hy per/system\"", "h", "`uri` contains a space"),
    ] {
        let text = format!("fencing: {{ h: [{{ libvirt: {{ uri: {uri}, domain: {domain} }} }}] }}\n");
        let shown = show(&read(&text).unwrap_err());
        assert!(shown.contains(expected), "{expected}\n---\n{shown}");
    }
}

#[test]
fn mistakes_in_devices_of_virtual_machines_are_shown_where_they_stand() {
    let long = format!("/run/{}", "x".repeat(103));
    let text = format!(
        r#"
fencing:
  h:
    - libvirt: {{ uri: "qemu:///system", domain: a, password: x }}
    - qemu: {{ socket: qmp, start: "qemu -daemonize" }}
    - qemu: {{ socket: {long}, pidfile: /run/pid }}
    - qemu: {{ socket: /run/h, pidfile: /run/pid }}
  i:
    - libvirt: {{ uri: "qemu:///system", domain: a }}
    - qemu: {{ socket: /run//h, pidfile: /run/i }}
"#
    );
    let shown = show(&read(&text).unwrap_err());
    for expected in [
        "a.yaml:4:52: unknown key `password`",
        "hint: `virsh` gets none",
        "a.yaml:5:23: `socket` must be an absolute path",
        "a.yaml:5:7: `qemu` has no `pidfile`",
        "a.yaml:5:35: `start` must be a list",
        "a.yaml:6:23: the path of a socket is longer than 107 bytes",
        "controller `qemu:///system domain a` is already that of host `h`",
        "controller `/run/h` is already that of host `h`",
    ] {
        assert!(shown.contains(expected), "{expected}\n---\n{shown}");
    }
}

#[test]
fn a_level_of_several_devices_is_as_slow_as_its_slowest_and_as_verified_as_its_least() {
    let levels = levels(
        r#"
fencing:
  h:
    - all:
        - ipmi: { address: a, user: u, password_file: /p, wiring_verified_by: ann }
        - redfish: { address: b, user: u, password_file: /p, timeout: 40s }
    - all: [{ ipmi: { address: c, user: u, password_file: /p, wiring_verified_by: ann } }, { agent: { name: fence_apc, wiring_verified_by: bob } }]
"#,
    );
    assert_eq!((levels[0].devices().len(), levels[0].timeout(), levels[0].wiring()), (2, Span::secs(40), None));
    assert_eq!(levels[1].wiring().as_deref(), Some("ann, bob"));
}

#[test]
fn a_fingerprint_reads_however_it_was_printed() {
    let hex = "ab".repeat(32);
    let colons = vec!["AB"; 32].join(":");
    for written in [hex.clone(), colons.clone(), format!("sha256:{hex}"), format!("\"sha256:{colons}\"")] {
        let text = format!(
            "fencing: {{ h: [{{ redfish: {{ address: b, user: u, password_file: /p, fingerprint: {written} }} }}] }}\n"
        );
        let levels = levels(&text);
        let [PowerDevice::Redfish(redfish)] = levels[0].devices() else { panic!() };
        assert_eq!(redfish.trust, TlsTrust::Fingerprint(hex.clone()));
    }
}

#[test]
fn an_ipmi_device_of_an_older_log_has_the_settings_that_it_was_asked_with() {
    let old = r#"{"address":"a","port":623,"user":"u","password_file":"/p","suite":17,"wiring_verified_by":null,"timeout":"20s"}"#;
    let ipmi: IpmiDevice = serde_json::from_str(old).unwrap();
    assert_eq!((ipmi.privilege, ipmi.interface), (IpmiPrivilege::Administrator, IpmiInterface::Lanplus));
}

#[test]
fn mistakes_in_devices_are_shown_where_they_stand() {
    let text = r#"
fencing:
  h:
    - ipmi: { address: a, user: u, password_file: /p, privilege: admin }
    - redfish: { address: "https://b/", user: u, password_file: p }
    - redfish: { url: "https://b/", user: u, password_file: /p, insecure: true }
    - redfish: { address: b, user: u, password_file: /p, ca_file: /c, fingerprint: 00 }
    - redfish: { address: b, user: u, password_file: /p, fingerprint: 00, system: ../1 }
    - agent: { name: /usr/sbin/fence_apc, options: { password: secret, "a=b": 1, ip: " x" } }
    - all: [{ ipmi: { address: c, user: u, password_file: /p } }]
    - all: [{ operator: {} }, { lease: {} }]
  i:
    - ipmi: { address: d, user: u, password_file: /p }
    - agent: { name: fence_apc, options: { ip: x, plug: 1 } }
  j:
    - redfish: { address: D, port: 623, user: u, password_file: /p }
    - agent: { name: fence_apc, options: { plug: 1, ip: x } }
  k:
    - webhook: { url: "http://w/", key: x }
    - command: { status: "p status", off: [] }
"#;
    let shown = show(&read(text).unwrap_err());
    for expected in [
        "a.yaml:4:66: unknown privilege `admin`",
        "a.yaml:5:27: `https://b/` is neither an address nor a host name",
        "a.yaml:5:65: `password_file` must be an absolute path",
        "a.yaml:6:18: unknown key `url`",
        "hint: write its host as `address`",
        "hint: give the certificate's SHA-256 as `fingerprint`",
        "a.yaml:7:84: `ca_file` and `fingerprint` exclude each other",
        "a.yaml:8:71: `00` is no SHA-256 fingerprint",
        "a.yaml:8:83: `../1` is no system of a Redfish service",
        "a.yaml:9:22: `/usr/sbin/fence_apc` is no fence agent",
        "a.yaml:9:54: option `password` is not given here",
        "a.yaml:9:72: `a=b` is no option of a fence agent",
        "a.yaml:9:86: option `ip` begins or ends with a blank",
        "a.yaml:10:12: `all` has 1 device\n",
        "a.yaml:11:15: unknown power device `operator`",
        "a.yaml:19:23: URL `http://w/`: anybody on the way could say",
        "hint: keys stay out of policies",
        "a.yaml:20:26: `status` must be a list",
        "controller `d port 623` is already that of host `i`",
        "controller `fence_apc ip=x plug=1` is already that of host `i`",
    ] {
        assert!(shown.contains(expected), "{expected}\n---\n{shown}");
    }
    assert!(!shown.contains("secret\n  hint: one"), "{shown}");
}

#[test]
fn what_means_another_machine_on_each_host_is_known_and_told_when_it_is_declared() {
    let policies = |device: &str| {
        let text = format!("fencing: {{ h: [operator, {device}] }}\n");
        read(&text).map_err(|findings| show(&findings)).unwrap()
    };
    for (device, local) in [
        ("{ qemu: { socket: /run/h/qmp, pidfile: /run/h/pid } }", true),
        ("{ libvirt: { uri: \"qemu:///system\", domain: h } }", true),
        ("{ libvirt: { uri: \"qemu+unix:///system?socket=/s\", domain: h } }", true),
        ("{ libvirt: { uri: \"qemu+ssh://root@hyper/system\", domain: h } }", false),
        ("{ command: { status: [/p, status], off: [/p, off] } }", false),
    ] {
        let declared = policies(device);
        let told = declared.local_levels_declared(&Policies::default());
        assert_eq!(told.len(), usize::from(local), "{device}: {told:?}");
        assert!(told.iter().all(|line| line.starts_with("? level 2 of h means whatever is there")), "{told:?}");
        assert!(declared.local_levels_declared(&declared).is_empty(), "it is no news");
    }
}

#[test]
fn an_agent_that_will_not_be_believed_is_told_where_it_is_declared() {
    let doubts = |agent: &str| {
        let text = format!("fencing:\n  h: [{{ agent: {{ {agent} }} }}]\n");
        let (_, doubts) = parse_with_doubts(&[Source { name: "a.yaml", text: &text }]).unwrap();
        doubts
    };
    let cannot = "? a.yaml:2:24: `fence_virsh` cannot prove that a host is off, and is not asked: it says \"off\" of whatever it";
    for (agent, expected) in [
        ("name: fence_virsh", cannot),
        (
            "name: fence_scsi",
            "? a.yaml:2:24: `fence_scsi` cannot prove that a host is off, and is not asked: it cuts its host off",
        ),
        (
            "name: fence_aws, options: { missing-as-off: true }",
            "? a.yaml:2:62: an agent with option `missing-as-off` is not asked: what",
        ),
    ] {
        let told = doubts(agent);
        let [told] = &told[..] else { panic!("{agent}: {told:?}") };
        assert!(told.starts_with(expected), "{told}");
    }
    for fine in ["name: fence_apc_snmp", "name: fence_aws, options: { missing_as_off: false }"] {
        assert!(doubts(fine).is_empty(), "{fine}");
    }
}
