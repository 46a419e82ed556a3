//! Contested names (R11), and hosts that are fenced too often.

use super::*;
use crate::state::HostFacts;

/// A host whose name another machine has used (`true`), or beside which its earlier boot is alive.
fn contested(machine: bool) -> Stage {
    let mut stage = Stage::new(&["a", "b"], &["web"]);
    stage.run("web", "a");
    if machine {
        let facts = HostFacts { machine_id: "other".to_owned(), ..facts("a", "a.2") };
        stage.must(Change::HostJoined { host: host("a"), facts, follows: None });
    } else {
        stage.join("a", "a.2");
        assert!(stage.state.may_join(
            &host("a"),
            &boot("a.1"),
            Authority { generation: 1, term: 1, index: stage.index }
        ));
        stage.join("a", "a.1");
    }
    stage
}

#[test]
fn two_machines_or_two_boots_under_one_name_quarantine_it_and_call_a_human() {
    for machine in [true, false] {
        let mut stage = contested(machine);
        let known = stage.state.hosts[&host("a")].clone();
        assert!(known.is_contested());
        assert_eq!(known.facts.machine_id, "machine of a", "what has joined stays");
        let incident = stage.state.open_incident("quarantine/a").unwrap();
        assert!(incident.severity == Severity::Critical && incident.human.is_some());
        let last = stage.state.journal.entries().last().unwrap().what.to_string();
        assert!(last.starts_with("a is quarantined"), "{last}");
        let seen = Authority { generation: 1, term: 1, index: stage.index };
        assert!(!stage.state.may_join(&host("a"), &boot("a.3"), seen), "nor is it said once per sync");
        assert!(matches!(
            stage.refused(Change::HostJoined { host: host("a"), facts: facts("a", "a.3"), follows: None }),
            Refused::Host { .. }
        ));
    }
}

#[test]
fn no_word_about_a_contested_name_is_proof_before_a_person_has_settled_it() {
    for machine in [true, false] {
        let mut stage = contested(machine);
        let gone = stage.gone("a");
        let incarnation = stage.state.hosts[&host("a")].facts.incarnation.clone();
        let person = Proof::operator(&host("a"), &incarnation, "ann", None, 1_500).unwrap();
        for proof in [gone.clone(), Change::HostGone { proof: person, last_well: None, last_words: None }] {
            assert!(matches!(stage.refused(proof), Refused::Host { .. }), "R11: no proof");
        }
        let (evidence, last_well, safe_at) = (Vec::new(), None, None);
        let open = Change::FenceOpened { host: host("a"), incarnation, evidence, last_well, safe_at };
        assert!(matches!(stage.refused(open), Refused::Host { .. }));
        if !machine {
            stage.end("a", done());
            assert!(matches!(stage.phase("web"), Phase::Releasing { .. }), "its earlier boot may run it");
        }
        let lift = |by: Option<&str>| Change::QuarantineLifted {
            host: host("a"),
            machine_id: None,
            by: by.map(ToOwned::to_owned),
        };
        assert!(matches!(stage.refused(lift(None)), Refused::Host { .. }), "time settles nothing");
        stage.must(lift(Some("ann")));
        assert!(stage.state.open_incident("quarantine/a").is_none());
        stage.must(gone);
    }
}

#[test]
fn a_person_can_give_the_name_to_the_other_machine() {
    let mut stage = contested(true);
    let (host_a, machine_id) = (host("a"), Some("other".to_owned()));
    stage.must(Change::QuarantineLifted { host: host_a.clone(), machine_id, by: Some("ann".to_owned()) });
    let facts = HostFacts { machine_id: "other".to_owned(), ..facts("a", "a.2") };
    stage.must(Change::HostJoined { host: host_a.clone(), facts, follows: None });
    assert!(stage.state.hosts[&host_a].quarantine.is_none());
}

#[test]
fn a_host_that_is_fenced_too_often_may_join_and_is_quarantined() {
    let mut stage = Stage::new(&["a", "b"], &[]);
    stage.state.level = FeatureLevel::HIGHEST;
    let mut policies = stage.state.policies.clone();
    policies.cluster.quarantine_after_fences = Some(2);
    stage.declare(policies);
    for number in 2..=3 {
        assert!(stage.state.hosts[&host("a")].quarantine.is_none());
        stage.fence("a");
        attempt(&mut stage, "a", "b");
        stage.end("b", done());
        let gone = stage.gone("a");
        stage.must(gone);
        stage.join("a", &format!("a.{number}"));
    }
    let known = &stage.state.hosts[&host("a")];
    assert!(known.quarantine.is_some() && !known.is_contested() && known.life == Life::Up);
    assert!(stage.state.open_incident("quarantine/a").unwrap().human.is_some());
}
