//! A voter's papers, from its birth to its loss and its return.

use super::*;

fn papers(folder: &Path) -> Papers {
    let at = |name: &str| folder.join(name);
    let (ticket, id, invitation) = (at("bootstrap"), at("node.json"), at("invitation.json"));
    Papers { ticket, id, invitation, removed: at("removed.json"), store: at("raft") }
}

fn make_store(papers: &Papers) {
    fs::create_dir_all(&papers.store).unwrap();
    fs::write(papers.store.join("raft.redb"), b"x").unwrap();
}

/// As the version before there were feature levels wrote them.
#[test]
fn the_papers_of_an_older_version_are_read_and_written_in_the_same_words() {
    let folder = tempfile::tempdir().unwrap();
    let papers = papers(folder.path());
    fs::write(&papers.id, r#"{"node_id":2}"#).unwrap();
    make_store(&papers);
    assert_eq!(papers.part(true).unwrap(), Part::Goes { node_id: 2 });
    fs::write(&papers.invitation, r#"{"node_id":7}"#).unwrap();
    assert_eq!(papers.part(true).unwrap(), Part::Joins { node_id: 7 });
    papers.invite(8).unwrap();
    assert_eq!(fs::read_to_string(&papers.invitation).unwrap(), r#"{"node_id":8}"#);
}

#[test]
fn a_ticket_makes_one_store_and_a_lost_store_makes_none() {
    let folder = tempfile::tempdir().unwrap();
    let papers = papers(folder.path());
    assert_eq!(papers.part(false).unwrap(), Part::None);
    write_id(&papers.ticket, 2).unwrap();
    let founds = Part::Founds { node_id: 2 };
    assert_eq!(papers.part(true).unwrap(), founds);
    assert!(papers.config("c", 2, &founds).unwrap().create);
    make_store(&papers);
    assert_eq!(papers.part(true).unwrap(), founds, "a crash has come before the ticket was used up");
    papers.use_up(2).unwrap();
    for named in [true, false] {
        assert_eq!(papers.part(named).unwrap(), Part::Goes { node_id: 2 }, "what counts is the membership (R23)");
    }
    fs::remove_dir_all(&papers.store).unwrap();
    for named in [true, false] {
        assert_eq!(papers.part(named).unwrap(), Part::Lost);
    }
    write_id(&papers.ticket, 2).unwrap();
    assert_eq!(papers.part(true).unwrap(), Part::Lost, "a ticket that comes back founds nothing");
}

#[test]
fn an_invitation_is_used_once_and_never_leads_back_to_an_older_id() {
    let folder = tempfile::tempdir().unwrap();
    let papers = papers(folder.path());
    write_id(&papers.id, 2).unwrap();
    make_store(&papers);
    papers.invite(57).unwrap();
    let joins = Part::Joins { node_id: 57 };
    assert_eq!(papers.part(true).unwrap(), joins);
    assert!(papers.config("c", 57, &joins).unwrap().create);
    assert!(!papers.store.exists() && papers.store.with_extension("old").exists(), "the old store is out of the way");
    make_store(&papers);
    assert_eq!(papers.part(true).unwrap(), joins, "nobody has heard of that store yet");
    write_id(&papers.id, 57).unwrap();
    assert_eq!(papers.part(true).unwrap(), Part::Goes { node_id: 57 }, "a crash has come before it was used up");
    papers.use_up(57).unwrap();
    // Whoever restores an old ticket or invitation gets nowhere with it.
    fs::remove_dir_all(&papers.store).unwrap();
    for paper in [&papers.ticket, &papers.invitation] {
        write_id(paper, 2).unwrap();
        assert_eq!(papers.part(true).unwrap(), Part::Lost);
    }
    papers.invite(57).unwrap();
    assert_eq!(papers.part(true).unwrap(), Part::Lost);
}

#[test]
fn a_recovered_store_takes_the_place_of_the_old_one_which_is_kept() {
    let folder = tempfile::tempdir().unwrap();
    let papers = papers(folder.path());
    write_id(&papers.id, 3).unwrap();
    papers.invite(7).unwrap();
    make_store(&papers);
    let make_recovered = || {
        fs::create_dir_all(papers.recovered()).unwrap();
        fs::write(papers.recovered().join("raft.redb"), b"new").unwrap();
    };
    make_recovered();
    assert!(!papers.is_recovery_cut_short(), "the old store is still there");
    let kept = papers.take_recovered(1_000, 1).unwrap();
    assert_eq!(fs::read(kept.join("raft.redb")).unwrap(), b"x");
    assert_eq!(fs::read(papers.store.join("raft.redb")).unwrap(), b"new");
    assert_eq!(papers.part(true).unwrap(), Part::Goes { node_id: 1_000 }, "no older invitation counts");
    make_recovered();
    assert!(papers.take_recovered(2_000, 1).is_err(), "what is kept is not overwritten");
    assert!(!papers.recovered().exists(), "nor is what was made taken later without a word");
    assert_eq!(papers.part(true).unwrap(), Part::Goes { node_id: 1_000 });
    make_recovered();
    papers.use_up(1_000).unwrap();
    assert!(!papers.recovered().exists(), "nobody finishes later what the votes of the old store have overtaken");
    make_recovered();
    // A crash between the last two steps.
    fs::rename(&papers.store, folder.path().join("elsewhere")).unwrap();
    assert!(papers.is_recovery_cut_short());
    papers.finish_recovery().unwrap();
    assert_eq!(papers.part(true).unwrap(), Part::Goes { node_id: 1_000 });
}

#[test]
fn a_host_whose_recovery_was_cut_short_votes_again_where_the_cluster_goes_on_without_it() {
    let folder = tempfile::tempdir().unwrap();
    let papers = papers(folder.path());
    // The recovery had given it this id, and not yet its store.
    write_id(&papers.id, 1_000).unwrap();
    make_store(&papers);
    fs::create_dir_all(papers.recovered()).unwrap();
    // Who votes goes on without that id.
    papers.remove(1_000).unwrap();
    assert!(!papers.is_recovery_cut_short(), "nobody finishes it later");
    assert!(papers.aside().exists(), "its old store is kept");
    assert_eq!(papers.part(true).unwrap(), Part::None);
    papers.invite(900).unwrap();
    assert_eq!(papers.part(true).unwrap(), Part::Joins { node_id: 900 }, "it never voted under that id");
}

#[test]
fn a_removed_voter_keeps_quiet_until_it_is_added_again() {
    let folder = tempfile::tempdir().unwrap();
    let papers = papers(folder.path());
    write_id(&papers.id, 2).unwrap();
    make_store(&papers);
    papers.remove(2).unwrap();
    assert_eq!(papers.part(true).unwrap(), Part::None);
    papers.invite(60).unwrap();
    let joins = Part::Joins { node_id: 60 };
    assert_eq!(papers.part(true).unwrap(), joins);
    papers.config("c", 60, &joins).unwrap();
    make_store(&papers);
    papers.use_up(60).unwrap();
    assert_eq!(papers.part(false).unwrap(), Part::Goes { node_id: 60 });
}
