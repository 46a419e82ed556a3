//! When a cluster may be recovered, and what has to be said for it.

use super::*;

fn host(name: &str) -> HostName {
    HostName::new(name).unwrap()
}

fn place(name: &str) -> Place {
    Place { host: host(name), address: "127.0.0.1:7400".parse().unwrap() }
}

fn votes(generation: u32, index: u64) -> Heard {
    Heard::Votes(Standing { generation, term: 9, index })
}

fn nothing() -> Heard {
    Heard::Nothing("no route".to_owned())
}

/// This voter is `hv-a`, its store ends at entry 50, and the others are heard like this.
fn survey(others: Vec<Heard>) -> Survey {
    let names = ["hv-b", "hv-c", "hv-d", "hv-e"];
    let others: BTreeMap<u64, (Place, Heard)> = (2..).zip(names.into_iter().map(place).zip(others)).collect();
    let voters = others.iter().map(|(node_id, (place, _))| (*node_id, place.clone())).chain([(1, place("hv-a"))]);
    let voters: BTreeMap<u64, Place> = voters.collect();
    let sets = vec![voters.keys().copied().collect()];
    let remains = Remains { node_id: 1, term: 9, written: 9, index: 50, voters, sets };
    let (state, elsewhere, revoked_since) = (ClusterState::born(), BTreeMap::new(), Revoked::new());
    Survey { remains, state, newest: None, others, elsewhere, known: 1, seen: 0, revoked_since }
}

fn objection(others: Vec<Heard>) -> Option<Objection> {
    survey(others).objection(&host("hv-a"))
}

#[test]
fn nothing_is_recovered_while_a_majority_can_be_heard() {
    assert_eq!(objection(vec![nothing(), nothing()]), None);
    assert_eq!(
        objection(vec![Heard::NoVote { knows: 1 }, Heard::NoVote { knows: 0 }]),
        None,
        "supervisors whose stores are lost"
    );
    assert_eq!(objection(vec![votes(1, 50), nothing(), nothing(), nothing()]), None, "two of five are none");
    assert_eq!(objection(vec![]), None, "it has always been alone");
    for heard in [vec![votes(1, 50), nothing()], vec![nothing(), Heard::Unclear("of another version".to_owned())]] {
        assert_eq!(objection(heard), Some(Objection::Majority { heard: 2, voters: 3 }));
    }
}

#[test]
fn a_cluster_is_recovered_on_the_survivor_that_knows_most_and_once() {
    let newer = objection(vec![votes(1, 51), nothing(), nothing(), nothing()]);
    let [theirs, own] = [51, 50].map(|index| Standing { generation: 1, term: 9, index });
    assert_eq!(newer, Some(Objection::Newer { by: host("hv-b"), theirs, own }));
    let goes_on = objection(vec![votes(7, 1_000_000_001), nothing(), nothing(), nothing()]);
    let Some(Objection::GoesOn { later: 7, own: 1, by, .. }) = &goes_on else { panic!("{goes_on:?}") };
    assert_eq!(*by, host("hv-b"));
    assert!(goes_on.unwrap().to_string().contains("`holdfast voter add hv-a` there"));
}

#[test]
fn of_revoked_hosts_the_survivor_keeps_what_it_was_told_after_its_newest_entry() {
    let revocation = |since: u64| {
        let (by, why, boots) = ("ann".to_owned(), "stolen".to_owned(), Vec::new());
        Revocation { since, by, why, boots, keys: [].into(), readmitted: None }
    };
    let revoked = Revoked::from([(host("hv-b"), revocation(30))]);
    let state = ClusterState { applied: 50, revoked: revoked.clone(), ..ClusterState::born() };
    let told = |index: u64, more: &[(&str, u64)]| {
        let more = more.iter().map(|(name, since)| (host(name), revocation(*since)));
        let kept = Kept { index, revoked: revoked.clone().into_iter().chain(more).collect() };
        revoked_since(kept, &state).into_keys().collect::<Vec<HostName>>()
    };
    assert_eq!(told(60, &[("hv-c", 60)]), [host("hv-c")]);
    assert_eq!(told(60, &[("hv-b", 60)]), [host("hv-b")], "it was readmitted, and revoked again");
    assert!(told(60, &[]).is_empty());
    assert!(told(40, &[("hv-c", 35)]).is_empty(), "the store is newer than what was told");
}

#[test]
fn whoever_recovers_a_cluster_says_who_is_lost() {
    assert_eq!(survey(vec![]).words(), "what was decided elsewhere is lost for good");
    assert_eq!(survey(vec![nothing()]).words(), "hv-b is lost for good");
    assert_eq!(survey(vec![nothing(), nothing()]).words(), "hv-b and hv-c are lost for good");
    let four = survey(vec![votes(1, 50), nothing(), nothing(), nothing()]);
    assert_eq!(four.words(), "hv-b, hv-c, hv-d and hv-e are lost for good");
}

#[test]
fn who_knows_most_is_told_as_in_an_election_by_the_term_of_the_last_entry_first() {
    let ended = |generation: u32, term: u64, index: u64| {
        let other = Heard::Votes(Standing { generation, term, index });
        objection(vec![other, nothing(), nothing(), nothing()])
    };
    assert_eq!(ended(1, 8, 70), None, "a long tail that a leader wrote which was cut off");
    assert!(matches!(ended(1, 10, 45), Some(Objection::Newer { theirs: Standing { index: 45, .. }, .. })));
    let older = Heard::Votes(Standing { generation: 1, term: 99, index: 70 });
    let mut survey = survey(vec![older, nothing(), nothing(), nothing()]);
    survey.state.generation = 7;
    assert_eq!(survey.objection(&host("hv-a")), None, "nothing of an older generation is newer");
}

#[test]
fn while_voters_are_being_exchanged_a_majority_of_either_set_can_decide_together() {
    // Of four that are named, two answer, and they are a majority of the old voters and of the new ones.
    let mut survey = survey(vec![votes(1, 50), nothing(), nothing()]);
    survey.remains.sets = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 2, 4])];
    assert_eq!(survey.objection(&host("hv-a")), Some(Objection::Majority { heard: 2, voters: 4 }));
    survey.remains.sets = vec![BTreeSet::from([1, 2, 3]), BTreeSet::from([1, 3, 4])];
    assert_eq!(survey.objection(&host("hv-a")), None);
}

#[test]
fn a_voter_that_the_store_here_does_not_know_of_counts_where_it_has_more() {
    let mut survey = survey(vec![nothing(), nothing()]);
    survey.elsewhere.insert(host("hv-m"), Heard::NoVote { knows: 7 });
    assert_eq!(survey.objection(&host("hv-a")), None, "the voters of that generation may be lost too");
    survey.elsewhere.insert(host("hv-n"), votes(1, 90));
    assert!(matches!(survey.objection(&host("hv-a")), Some(Objection::Newer { by, .. }) if by == host("hv-n")));
    survey.elsewhere.insert(host("hv-o"), votes(7, 1_000_000_001));
    assert!(
        matches!(survey.objection(&host("hv-a")), Some(Objection::GoesOn { by, later: 7, .. }) if by == host("hv-o"))
    );
}
