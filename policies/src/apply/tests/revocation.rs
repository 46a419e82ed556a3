//! Revoked hosts (R27): proof first, and nothing of them comes back but by a new certificate.

use std::collections::BTreeSet;

use super::*;
use crate::{
    feature_level::FeatureLevel,
    fence_path::{DeviceTest, LevelTest, Machine, Wired, WiredBy},
    operators::Serial,
    proof::Power,
    revocation::{BOOTS_MAX, KEYS_MAX, KeyId, WORD_BYTES_MAX},
};

/// Three hosts of which `a` may run a guest, at a level at which hosts can be revoked.
fn stage() -> Stage {
    let mut stage = Stage::new(&["a", "b", "c"], &["web"]);
    stage.must(Change::LevelRaised { to: FeatureLevel::REVOCATION });
    stage.run("web", "a");
    stage
}

fn revoke(of: &str) -> Change {
    Change::HostRevoked { host: host(of), why: "stolen".to_owned(), keys: [].into(), by: "ann".to_owned() }
}

fn readmit(of: &str, serial: &str) -> Change {
    Change::HostReadmitted { host: host(of), serial: serial.parse().unwrap(), by: "ann".to_owned() }
}

fn joins(of: &str, incarnation: &str) -> Change {
    Change::HostJoined { host: host(of), facts: facts(of, incarnation), follows: None }
}

fn revoked() -> Stage {
    let mut stage = stage();
    let gone = stage.gone("a");
    stage.must(gone);
    stage.must(revoke("a"));
    stage
}

#[test]
fn a_host_is_revoked_only_after_proof_and_when_nothing_can_switch_it_off_any_more() {
    let mut stage = stage();
    assert!(matches!(stage.refused(revoke("d")), Refused::NoHost { .. }));
    let refused = stage.refused(revoke("a")).to_string();
    assert!(refused.contains("not proven gone"), "{refused}");
    stage.fence("a");
    attempt(&mut stage, "a", "b");
    assert!(matches!(stage.refused(revoke("a")), Refused::Host { .. }), "while it is being fenced");
    let gone = stage.gone("a");
    stage.must(gone);
    let refused = stage.refused(revoke("a")).to_string();
    assert!(refused.contains("has not ended"), "R20: the attempt is still under way: {refused}");
    stage.end("b", done());
    stage.must(revoke("a"));
    assert!(!stage.state.hosts.contains_key(&host("a")));
    assert!(matches!(stage.refused(revoke("a")), Refused::Already { .. }));
}

#[test]
fn a_host_that_is_heard_again_after_its_proof_is_not_revoked_before_somebody_has_looked() {
    let mut stage = stage();
    let gone = stage.gone("a");
    stage.must(gone);
    stage.must(Change::NameContested { host: host("a"), other: boot("a.2") });
    let refused = stage.refused(revoke("a")).to_string();
    assert!(refused.contains("something is heard"), "{refused}");
}

#[test]
fn what_was_revoked_leaves_a_free_guest_and_the_reason_in_journal_and_incident() {
    let mut stage = revoked();
    assert!(matches!(stage.phase("web"), Phase::Free { .. }));
    let said: Vec<String> = stage.state.journal.entries().map(|entry| entry.what.to_string()).collect();
    assert!(said.iter().any(|line| line.starts_with("ann has revoked a,") && line.ends_with(": stolen")), "{said:?}");
    assert!(!said.iter().any(|line| line.contains("/a is well again")), "it is not: {said:?}");
    assert!(stage.state.open_incident("host/a").is_none());
    let told = stage.state.incidents.values().find(|incident| incident.key == "host/a").unwrap();
    assert!(told.done.contains(&"ann has revoked a: stolen.".to_owned()), "{told:?}");
    stage.place("web", "b");
}

#[test]
fn a_first_placement_asks_hosts_that_are_revoked_no_more() {
    let mut stage = revoked();
    let mut policies = stage.state.policies.clone();
    let other = policies.guests[&name("web")].clone();
    policies.guests.insert(name("new"), other);
    stage.declare(policies);
    let said = ["b", "c"].map(|text| (host(text), boot(&format!("{text}.1"))));
    let proof = Proof::not_here([host("b"), host("c")], &said.into()).unwrap();
    stage.must(Change::GuestFree { guest: name("new"), proof });
}

#[test]
fn nobody_joins_under_a_revoked_name_but_a_new_boot_with_the_certificate_that_was_readmitted() {
    let mut stage = revoked();
    for incarnation in ["a.1", "a.2"] {
        assert!(matches!(stage.refused(joins("a", incarnation)), Refused::Host { .. }), "{incarnation}");
    }
    assert!(matches!(stage.refused(readmit("b", "5f")), Refused::Host { .. }), "b is not revoked");
    stage.must(readmit("a", "5f"));
    assert!(matches!(stage.refused(readmit("a", "00:5F")), Refused::Already { .. }));
    assert!(matches!(stage.refused(joins("a", "a.1")), Refused::Host { .. }), "a boot from before");
    stage.must(joins("a", "a.2"));
    assert_eq!(stage.state.hosts[&host("a")].past, Vec::new(), "it is another host");
    let counts = |stage: &Stage, serial: &[u8]| {
        let certificate = crate::revocation::HostCertificate { host: host("a"), serial: Serial::from_bytes(serial) };
        crate::revocation::admit(&stage.state.revoked, &certificate).is_ok()
    };
    assert!(counts(&stage, &[0x5f]) && !counts(&stage, &[0x60]));
    // Lost once more.
    let gone = stage.gone("a");
    assert!(matches!(stage.refused(revoke("a")), Refused::Host { .. }));
    stage.must(gone);
    stage.must(revoke("a"));
    assert!(!counts(&stage, &[0x5f]));
    assert_eq!(stage.state.revoked[&host("a")].boots, [boot("a.1"), boot("a.2")]);
}

#[test]
fn a_certificate_that_was_readmitted_and_lost_before_anybody_joined_is_revoked_as_well() {
    let mut stage = revoked();
    stage.must(readmit("a", "5f"));
    stage.must(revoke("a"));
    assert_eq!(stage.state.revoked[&host("a")].readmitted, None);
    assert_eq!(stage.state.revoked[&host("a")].boots, [boot("a.1")]);
}

#[test]
fn the_list_of_revoked_names_and_their_boots_is_bounded() {
    let mut stage = revoked();
    let one = stage.state.revoked[&host("a")].clone();
    for number in 1..crate::revocation::REVOKED_MAX {
        stage.state.revoked.insert(host(&format!("old-{number}")), one.clone());
    }
    let gone = stage.gone("b");
    stage.must(gone);
    let refused = stage.refused(revoke("b")).to_string();
    assert!(refused.contains("that is the most"), "{refused}");
    for number in 1..=BOOTS_MAX {
        stage.must(readmit("a", &format!("{number:x}")));
        stage.must(joins("a", &format!("again.{number}")));
        let gone = stage.gone("a");
        stage.must(gone);
        stage.must(revoke("a"));
    }
    let boots = &stage.state.revoked[&host("a")].boots;
    assert!(boots.len() == BOOTS_MAX && !boots.contains(&boot("a.1")), "{boots:?}");
}

#[test]
fn a_host_that_lives_is_not_locked_out_by_naming_another_certificate_of_it() {
    let mut stage = revoked();
    stage.must(readmit("a", "5f"));
    // Nobody has come with it: a slip of the pen is mended.
    stage.must(readmit("a", "60"));
    stage.must(joins("a", "a.2"));
    let refused = stage.refused(readmit("a", "61")).to_string();
    assert!(refused.contains("with the certificate 60"), "{refused}");
    let gone = stage.gone("a");
    stage.must(gone);
    stage.must(readmit("a", "61"));
}

#[test]
fn what_a_revoked_host_has_found_at_the_power_devices_of_others_counts_no_more() {
    let mut stage = stage();
    for (executor, power) in [("a", Power::On), ("c", Power::Unknown { detail: "no route".to_owned() })] {
        let machine = Machine::Unknown { why: "not asked".to_owned() };
        let device = DeviceTest { device: "bmc".to_owned(), power, took_ms: 40, machine, denied: false };
        stage.must(Change::FenceTested {
            host: host("b"),
            executor: host(executor),
            machine_id: facts("b", "b.1").machine_id,
            policy_version: Some(stage.state.policy_version),
            levels: vec![LevelTest { level: 0, devices: vec![device] }],
        });
    }
    let known = stage.state.hosts.get_mut(&host("b")).unwrap();
    let (how, asker) = (WiredBy::MachineId, Some(host("a")));
    known.wired.push(Wired { level: 0, device: 0, how, since: 1, asker });
    assert_eq!(known.fails(0), None, "a has reached it");
    let gone = stage.gone("a");
    stage.must(gone);
    stage.must(revoke("a"));
    let known = &stage.state.hosts[&host("b")];
    assert_eq!(known.fails(0).map(|(executor, _)| executor), Some(&host("c")));
    assert!(known.wired.iter().all(|wired| wired.asker != Some(host("a"))), "{:?}", known.wired);
}

#[test]
fn the_words_and_keys_that_are_remembered_of_a_revoked_name_are_bounded() {
    let mut stage = stage();
    let gone = stage.gone("a");
    stage.must(gone);
    let revoke = |why: &str, key: u8| {
        let keys: BTreeSet<KeyId> = [KeyId([key; 4])].into();
        Change::HostRevoked { host: host("a"), why: why.to_owned(), keys, by: "ann".to_owned() }
    };
    stage.must(revoke(&"stolen\n".repeat(1_000), 1));
    let why = &stage.state.revoked[&host("a")].why;
    assert!(why.len() <= WORD_BYTES_MAX && !why.contains(char::is_control), "{why}");
    stage.must(readmit("a", "5f"));
    stage.must(revoke("stolen again", 2));
    let keys = |stage: &Stage| stage.state.revoked[&host("a")].keys.clone();
    let both = BTreeSet::from([1, 2].map(|key| KeyId([key; 4])));
    assert_eq!(keys(&stage), both, "the first thief knows what he knew");
    for key in 3..100 {
        stage.must(readmit("a", "5f"));
        stage.must(revoke("stolen again", key));
    }
    assert!(keys(&stage).len() == KEYS_MAX && keys(&stage).contains(&KeyId([99; 4])));
}
