//! A scripted `virsh` for the contract, and what is made of the words of the real one.

use std::{sync::Arc, time::Duration};

use holdfast_policies::{model::LibvirtDevice, time::Span};

use super::{GOES_ON, Libvirt, of_state, without_questions};
use crate::{
    Answer, Outcome, Power, PowerDevice, benches::SETTLED, power_off_and_confirm, program_folder::ProgramFolder,
};

const CALL: Duration = Duration::from_secs(30);

/// Obeys fault files, keeps the state in a file, and logs what it is told.
const SCRIPT: &str = r#"#!/bin/sh
D=$(dirname "$0")
echo "$*" >> "$D/told"
[ "$1 $2" = "-q -c" ] || exit 1
shift 3
[ -e "$D/slow" ] && sleep "$(cat "$D/slow")"
[ -e "$D/fail" ] && { cat "$D/fail" >&2; exit 1; }
case $1 in
domstate) cat "$D/state";;
domuuid) echo 33221100-5544-7766-8899-aabbccddeeff; echo;;
destroy)
  grep -q "^shut off" "$D/state" && { echo "error: domain is not running" >&2; exit 1; }
  echo off >> "$D/log"
  # As libvirt does when its client is killed.
  [ -e "$D/goes_on" ] && { setsid sh -c 'sleep 5; echo "shut off (destroyed)" > "$0/state"' "$D" >/dev/null 2>&1 & sleep 60; }
  [ -e "$D/stuck" ] || echo "shut off (destroyed)" > "$D/state";;
start)
  grep -q "^running" "$D/state" && { echo "error: Domain is already active" >&2; exit 1; }
  [ -e "$D/stuck" ] || echo "running (booted)" > "$D/state";;
*) exit 1;;
esac
exit 0
"#;

/// A `virsh` in a folder of its own.
pub(crate) struct Virsh {
    folder: ProgramFolder,
}

impl Virsh {
    /// One whose domain runs.
    pub(crate) fn new() -> Self {
        let virsh = Self { folder: ProgramFolder::new() };
        virsh.folder.program("virsh", SCRIPT);
        virsh.set_power(true);
        virsh
    }

    pub(crate) fn device(&self) -> Libvirt {
        let settings = LibvirtDevice {
            uri: "qemu+ssh://root@hyper/system".to_owned(),
            domain: "hv-a".to_owned(),
            wiring_verified_by: None,
            timeout: Span::secs(4),
        };
        let program = self.folder.path("virsh").to_str().unwrap().to_owned();
        Libvirt { program, goes_on: SETTLED, ..Libvirt::new(settings) }
    }

    pub(crate) fn fault(&self, name: &str, content: &str) {
        self.folder.write(name, content);
    }

    pub(crate) fn set_power(&self, on: bool) {
        self.fault("state", if on { "running (booted)\n" } else { "shut off (shutdown)\n" });
    }

    pub(crate) fn is_on(&self) -> bool {
        self.folder.read("state").starts_with("running")
    }

    pub(crate) fn offs(&self) -> u32 {
        self.folder.offs()
    }
}

#[test]
fn only_a_domain_that_has_ended_on_this_machine_is_off() {
    for off in ["shut off (destroyed)\n\n", "shut off (shutdown)\n", "shut off (crashed)"] {
        assert_eq!(of_state(off), Answer::Confirmed(Power::Off), "{off}");
    }
    for on in ["running (booted)\n\n", "running", "idle (unknown)", "paused (migrating)", "in shutdown (user)"] {
        assert_eq!(of_state(on), Answer::Confirmed(Power::On), "{on}");
    }
    for unknown in [
        "",
        "\n",
        "shut off",
        "shut off ()",
        "shut off (unknown)",
        "shut off (migrated)",
        "shut off (saved)",
        "shut off (from snapshot)",
        "shut off (failed)",
        "shut off (daemon)",
        "shut off (destroyed) (saved)",
        "Shut off (destroyed)",
        " shut off (destroyed)",
        "shut off  (destroyed)",
        "shut off (destroyed)\nrunning (booted)",
        "crashed (panicked)",
        "pmsuspended (unknown)",
        "no state (unknown)",
    ] {
        assert!(matches!(of_state(unknown), Answer::Unknown { .. }), "{unknown:?}");
    }
}

#[test]
fn ssh_is_told_to_ask_nobody() {
    for (uri, expected) in [
        ("qemu+ssh://root@hyper/system", "qemu+ssh://root@hyper/system?no_tty=1"),
        ("qemu+ssh://hyper/system?keyfile=/k", "qemu+ssh://hyper/system?keyfile=/k&no_tty=1"),
        ("qemu+ssh://hyper/system?no_tty=1", "qemu+ssh://hyper/system?no_tty=1"),
        ("qemu+tls://hyper/system", "qemu+tls://hyper/system"),
        ("qemu:///system", "qemu:///system"),
    ] {
        assert_eq!(without_questions(uri), expected);
    }
}

#[tokio::test]
async fn virsh_is_told_each_word_by_itself_and_boots_anew() {
    let virsh = Virsh::new();
    let device = virsh.device();
    assert_eq!(device.status(CALL).await, Answer::Confirmed(Power::On));
    assert_eq!(device.off(CALL).await, Answer::Confirmed(()));
    assert_eq!(device.on(CALL).await, Answer::Confirmed(()));
    assert!(matches!(device.machine_id(CALL).await, Answer::Confirmed(_)));
    let told = virsh.folder.read("told");
    let whom = "-q -c qemu+ssh://root@hyper/system?no_tty=1";
    let expected: String = ["domstate --reason", "destroy", "start --force-boot", "domuuid"]
        .iter()
        .map(|words| format!("{whom} {words} -- hv-a\n"))
        .collect();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn an_off_of_what_does_not_run_is_taken_for_nothing_by_itself() {
    let virsh = Virsh::new();
    virsh.fault("state", "shut off (saved)\n");
    assert!(matches!(virsh.device().off(CALL).await, Answer::Unknown { .. }));
    assert!(matches!(virsh.device().status(CALL).await, Answer::Unknown { .. }));
}

#[tokio::test]
async fn a_libvirt_that_lets_nobody_in_is_told_from_one_that_knows_no_such_domain() {
    let virsh = Virsh::new();
    for (said, refused) in [
        ("error: Cannot recv data: root@hyper: Permission denied (publickey).: Connection reset by peer", Some(true)),
        ("error: authentication failed: authentication failed", Some(true)),
        ("error: Cannot recv data: Host key verification failed.: Connection reset by peer", Some(false)),
        ("error: failed to get domain 'hv-a'", None),
        ("error: Cannot recv data: ssh: connect to host hyper port 22: Connection refused", None),
        ("", None),
    ] {
        virsh.fault("fail", said);
        for answer in [virsh.device().off(CALL).await, virsh.device().on(CALL).await] {
            let denied = if let Answer::Refused { denied, .. } = &answer { Some(*denied) } else { None };
            assert_eq!(denied, refused, "{said}: {answer:?}");
            assert_ne!(answer, Answer::Confirmed(()), "{said}");
        }
        assert!(!matches!(virsh.device().status(CALL).await, Answer::Confirmed(_)), "{said}");
    }
    assert_eq!((virsh.offs(), virsh.is_on()), (0, true));
    let missing = Libvirt { program: "/nonexistent/virsh".to_owned(), ..virsh.device() };
    assert!(matches!(missing.off(CALL).await, Answer::Refused { .. }));
}

#[tokio::test]
async fn a_virsh_that_hangs_is_unknown_by_the_deadline() {
    let virsh = Virsh::new();
    virsh.fault("slow", "60");
    let answer = virsh.device().status(Duration::from_millis(300)).await;
    assert!(matches!(answer, Answer::Unknown { .. }), "{answer:?}");
}

#[tokio::test]
async fn an_attempt_is_not_over_while_libvirt_may_still_destroy_the_domain() {
    let virsh = Virsh::new();
    virsh.fault("goes_on", "");
    let level = Span::secs(4);
    let mut device = virsh.device();
    (device.settings.timeout, device.goes_on) = (level, Duration::from_secs(7));
    // virsh is killed after 3 s, the level is over after 4 s, and the domain ends after 5 s.
    let report = power_off_and_confirm(&[Arc::new(device) as Arc<dyn PowerDevice>], level.0, || true).await;
    assert!(matches!(report.outcome, Outcome::Off { .. }), "{report:?}");
    assert!(!virsh.is_on());
}

#[tokio::test]
async fn a_destroy_whose_end_was_heard_keeps_no_attempt_waiting() {
    let virsh = Virsh::new();
    let device = || Libvirt { goes_on: GOES_ON, ..virsh.device() };
    let ended = device();
    assert_eq!(ended.off(CALL).await, Answer::Confirmed(()));
    assert_eq!(ended.goes_on_for(), Duration::ZERO);
    virsh.fault("slow", "60");
    let left_alone = device();
    assert!(matches!(left_alone.off(Duration::from_millis(100)).await, Answer::Unknown { .. }));
    assert!(left_alone.goes_on_for() > Duration::from_secs(5));
}

#[tokio::test]
async fn a_destroy_whose_connection_was_lost_may_go_on_and_one_that_never_reached_a_domain_does_not() {
    let virsh = Virsh::new();
    for (said, goes_on) in [
        ("error: Failed to destroy domain 'hv-a'\nerror: End of file while reading data: Input/output error", true),
        ("error: Disconnected from qemu+ssh://root@hyper/system due to keepalive timeout", true),
        (
            "error: Failed to destroy domain 'hv-a'\nerror: Failed to terminate process 7 with SIGKILL: Device or resource busy",
            true,
        ),
        ("", true),
        (
            "error: failed to connect to the hypervisor\nerror: Cannot recv data: ssh: connect to host hyper port 22: No route to host",
            false,
        ),
        ("error: failed to get domain 'hv-a'", false),
        (
            "error: Failed to destroy domain 'hv-a'\nerror: Requested operation is not valid: domain is not running",
            false,
        ),
        ("error: Cannot recv data: root@hyper: Permission denied (publickey).: Connection reset by peer", false),
    ] {
        virsh.fault("fail", said);
        let device = Libvirt { goes_on: GOES_ON, ..virsh.device() };
        assert!(!matches!(device.off(CALL).await, Answer::Confirmed(())), "{said}");
        assert_eq!(device.goes_on_for() > Duration::ZERO, goes_on, "{said}");
    }
}
