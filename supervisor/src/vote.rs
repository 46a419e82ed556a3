//! A host's vote: how it is begun, what becomes of a supervisor that loses it, and how it comes back (R24).
//!
//! A supervisor whose raft has stopped, or could not start, goes on as agent, prober, gossiper and client of the guard:
//! its guests are supervised, and its syncs go to the other voters. It decides and votes nothing in this process. When
//! its disk is well again, or the coordinator has given this host another raft id, it ends and is started again by
//! whatever keeps it running, which touches no guest.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::Path,
    sync::{Arc, RwLock},
    time::Duration,
};

use futures_util::future::join_all;
use holdfast_policies::{hostfile::HostFile, names::HostName};
use tokio::time::{Instant, MissedTickBehavior};

use crate::{
    bootstrap::{Papers, Part, founding_voters},
    causes::takes_nothing,
    consensus::{Cause, Consensus, Machine, StartError},
    coordinator::{Coordinator, Counter, wishes::ask_generation},
    desk::VoterList,
    gossip::Member,
    health::Complaint,
    node::Node,
    rpc,
};

/// How often it is looked after the vote.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How often a host that does not lead asks who votes: a voter that was removed is not told so by raft.
const ROLL_CALL_EVERY: Duration = Duration::from_secs(2);

/// A vote is not tried again sooner than this after it was lost: a disk that fails now and then must not make a
/// supervisor that is started all the time.
const REST: Duration = Duration::from_secs(5);

/// Room that must be there before a vote is tried again, in bytes: a store that opens grows a little.
const ROOM_BYTES: usize = 2 * 1024 * 1024;

/// Under which key the generation is gossiped.
const GENERATION: &str = "generation";

/// In so many roll calls one after the other must a host be missing before it believes that it was removed.
const MISSED_CALLS: u32 = 2;

/// A vote that this process does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// Why, for people.
    pub why: String,
    /// Whether it can be had again when the disk can be written.
    pub by_disk: bool,
}

/// What became of the start.
pub struct Begun {
    /// Consensus, where this host takes part.
    pub consensus: Option<Consensus>,
    /// The raft node id of this host, if it has one.
    pub raft_id: Option<u64>,
    /// Why it does not take part, though it should.
    pub lost: Option<Lost>,
}

/// Starts consensus where this host takes part. A store that is lost or cannot be used costs the vote and nothing else.
///
/// # Errors
/// A store of another cluster, node or version: somebody has mixed up files, and should know at once.
pub async fn begin(file: &HostFile, machine: Arc<RwLock<dyn Machine>>, client: rpc::Client) -> anyhow::Result<Begun> {
    let papers = Papers::of(file);
    let part = papers.part(file.voters.contains_key(&file.host))?;
    let (node_id, founds) = match &part {
        Part::None => return Ok(Begun { consensus: None, raft_id: papers.raft_id(), lost: None }),
        Part::Lost => {
            let why = why_lost(&papers, &file.host);
            tracing::error!(why, "this host has no vote");
            return Ok(Begun { consensus: None, raft_id: papers.raft_id(), lost: Some(Lost { why, by_disk: false }) });
        }
        Part::Founds { node_id } => (*node_id, true),
        Part::Joins { node_id } | Part::Goes { node_id } => (*node_id, false),
    };
    match take_part(file, &papers, &part, node_id, founds, machine, client).await {
        Ok(consensus) => Ok(Begun { consensus: Some(consensus), raft_id: Some(node_id), lost: None }),
        Err(error) => {
            let lost = weigh(&error, papers.recovered().exists())?;
            tracing::error!(why = lost.why, "this supervisor starts without its vote");
            Ok(Begun { consensus: None, raft_id: papers.raft_id(), lost: Some(lost) })
        }
    }
}

/// What to do instead of going on with a recovery that was cut short.
const ELSEWHERE: &str =
    "Where the cluster goes on without it, leave it running: `holdfast voter add` there brings this host's vote back";

fn why_lost(papers: &Papers, host: &HostName) -> String {
    if papers.is_recovery_cut_short() {
        return format!(
            "a recovery was cut short here before its last step (R25), which asks nobody any more: see that the cluster goes on nowhere \
             else, stop this supervisor, run `holdfast recover --force`, and start it again. {ELSEWHERE}"
        );
    }
    format!(
        "its raft store was lost; it must not vote under its old id again (R24): `holdfast voter add {host}` on another voter \
         brings it back"
    )
}

async fn take_part(
    file: &HostFile,
    papers: &Papers,
    part: &Part,
    node_id: u64,
    founds: bool,
    machine: Arc<RwLock<dyn Machine>>,
    client: rpc::Client,
) -> anyhow::Result<Consensus> {
    let config = papers.config(&file.cluster, node_id, part)?;
    let consensus = Consensus::start(config, machine, client).await?;
    papers.use_up(node_id)?;
    let founder = founds || founding_voters(file).get(&node_id).is_some_and(|place| place.host == file.host);
    if founder && consensus.status().last_log.is_none() {
        match consensus.initialize(founding_voters(file)).await {
            Ok(()) => tracing::info!("the cluster is founded"),
            Err(error) => tracing::info!(%error, "the cluster was not founded here"),
        }
    }
    Ok(consensus)
}

/// What a failed start costs: the vote, or the whole start. `recovery_begun`: there is a store that a recovery has made.
fn weigh(error: &anyhow::Error, recovery_begun: bool) -> anyhow::Result<Lost> {
    let why = format!("it cannot vote: {error:#}");
    match error.downcast_ref::<StartError>() {
        Some(StartError::Store { source, .. }) => Ok(Lost { why, by_disk: takes_nothing(source) }),
        Some(StartError::Halted(_) | StartError::NoStore { .. }) => Ok(Lost { why, by_disk: false }),
        // A recovery gives the host its next id first, and the store of that id last. The cluster may have been recovered elsewhere
        // since, or never have been lost: then this host is to come back as any other does that has no vote.
        Some(StartError::OtherNode { .. }) if recovery_begun => {
            let what = "a recovery was cut short here (R25): stop this supervisor and run `holdfast recover` again";
            Ok(Lost { why: format!("{why}: {what}. {ELSEWHERE}"), by_disk: false })
        }
        Some(
            StartError::OtherCluster { .. }
            | StartError::OtherNode { .. }
            | StartError::Format { .. }
            | StartError::Tuning(_),
        ) => Err(anyhow::anyhow!("{error:#}")),
        None => {
            let by_disk = error.chain().any(|cause| cause.downcast_ref::<io::Error>().is_some_and(takes_nothing));
            Ok(Lost { why, by_disk })
        }
    }
}

/// Looks after the vote for as long as the supervisor runs. Returns, with the reason, when it should be started again.
pub async fn look_after(
    node: Arc<Node>,
    counter: Arc<Counter>,
    coordinator: Option<Coordinator>,
    lost: Option<Lost>,
) -> String {
    let papers = Papers::of(&node.file);
    let mut lost = lost.map(|lost| (lost, Instant::now()));
    let mut called = Instant::now();
    let mut told = 1;
    let mut missed = 0;
    let mut tick = tokio::time::interval(LOOK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        if lost.is_none() {
            lost = node.consensus.as_ref().and_then(stopped).map(|lost| (lost, Instant::now()));
            if let Some(consensus) = &node.consensus
                && matches!(consensus.cause(), Some(Cause::Restored | Cause::Superseded))
            {
                // Nobody is to hear of it any more, and its store is about to be moved.
                consensus.shutdown().await;
                give_up(&papers, &mut lost);
            }
        }
        if let Some((lost, since)) = &lost {
            node.health.complain(Complaint::Vote, lost.why.clone());
            if lost.by_disk && since.elapsed() >= REST && has_room(&node.file.state_dir).await {
                return "the disk of the raft store can be written again; starting again to vote".to_owned();
            }
        }
        compare_generations(&node, &mut told).await;
        if let Some(coordinator) = &coordinator {
            coordinator.finish_change().await;
        }
        let leads = node.leader().is_some_and(|leader| leader == *node.host());
        if !leads && called.elapsed() >= ROLL_CALL_EVERY {
            if let Some(list) = counter.roll_call().await {
                node.told.set(list.places());
                missed = if node.raft_id.is_some_and(|own| !list.has(own)) { missed + 1 } else { 0 };
                if let Some(why) = obey(&node, &papers, &list, missed) {
                    return why;
                }
            }
            called = Instant::now();
        }
    }
}

/// Why consensus has stopped, if it has.
fn stopped(consensus: &Consensus) -> Option<Lost> {
    let why = consensus.health().err()?;
    let by_disk = !matches!(consensus.cause(), Some(Cause::Machine | Cause::Restored | Cause::Superseded));
    let why = format!("it votes no more: {why}");
    tracing::error!(why, "this supervisor goes on without its vote");
    Some(Lost { why, by_disk })
}

/// A store that has forgotten its promises is moved out of the way, so that no later start votes with it, when nobody is
/// left who remembers them.
fn give_up(papers: &Papers, lost: &mut Option<(Lost, Instant)>) {
    let Some((lost, _)) = lost else { return };
    lost.why = match papers.move_store() {
        Ok(()) => format!("{}; `holdfast voter add` on another voter brings it back under a new id (R24)", lost.why),
        Err(error) => {
            format!("{}; it has to be deleted by hand, before this supervisor is started again: {error:#}", lost.why)
        }
    };
}

/// Tells every host which generation of the cluster is known here, and stops a voter of one that has ended (R25): raft's
/// messages do so too, but those of old voters go only to whom they took for voters.
///
/// What gossip says stops nobody: who has its key, as a revoked host has, can say it in any name. It is a reason to ask the
/// host itself, by its certificate. Any host can stop all voters by lying there, as by saying that it has seen more than they
/// have (R3).
async fn compare_generations(node: &Node, told: &mut u32) {
    let known = node.generation();
    if known > *told {
        match node.gossip.set(GENERATION, &known.to_string()).await {
            Ok(()) => *told = known,
            Err(error) => tracing::debug!(%error, "the generation was not gossiped"),
        }
    }
    // Whoever joins has nothing yet, and no vote.
    let Some(consensus) = node.taking_part().filter(|consensus| consensus.voters().contains_key(node.host())) else {
        return;
    };
    let mut said = vec![(node.host().clone(), Some(node.released.generation()))];
    let asking = to_ask(&node.gossip.members().await, node.host(), known).into_iter();
    said.extend(join_all(asking.map(|host| ask_generation(node, host))).await);
    // Looked at last: the state may have come to a later generation while they were asked.
    let own = node.read(|state| state.generation);
    if let Some((later, host)) = latest(said).filter(|(later, _)| *later > own) {
        consensus.supersede(own, later, &host);
    }
}

/// The others in whose name gossip has a later generation. All of them, so that none is hidden behind names of which it is not
/// true; only those whose address is known are really asked.
fn to_ask(members: &BTreeMap<HostName, Member>, me: &HostName, known: u32) -> Vec<HostName> {
    let later = |member: &Member| {
        member.keys.get(GENERATION).and_then(|text| text.parse::<u32>().ok()).is_some_and(|later| later > known)
    };
    members.iter().filter(|(host, member)| *host != me && later(member)).map(|(host, _)| host.clone()).collect()
}

/// The latest generation that a host says itself.
fn latest(said: Vec<(HostName, Option<u32>)>) -> Option<(u32, HostName)> {
    said.into_iter().filter_map(|(host, generation)| Some((generation?, host))).max()
}

/// Joins, or leaves, as the coordinator says that the membership has it. Whoever takes part under an older id, and knows a
/// leader, keeps that vote.
fn obey(node: &Node, papers: &Papers, list: &VoterList, missed: u32) -> Option<String> {
    let invited = list.invited(node.host(), node.raft_id).filter(|_| node.leader().is_none());
    let done = match (invited, node.raft_id) {
        (Some(node_id), _) => papers.invite(node_id).map(|()| format!("starting again to join as raft node {node_id}")),
        (None, Some(own)) if missed >= MISSED_CALLS => {
            papers.remove(own).map(|()| format!("raft node {own} was removed; starting again without a vote"))
        }
        (None, _) => return None,
    };
    match done {
        Ok(why) => Some(why),
        Err(error) => {
            tracing::error!(
                error = format!("{error:#}"),
                "a change of this host's part among the voters cannot be kept"
            );
            None
        }
    }
}

async fn has_room(folder: &Path) -> bool {
    let folder = folder.to_owned();
    tokio::task::spawn_blocking(move || try_room(&folder).is_ok()).await.unwrap_or(false)
}

/// Whether so much can really be written and synced. What is said to be free may be reserved.
fn try_room(folder: &Path) -> io::Result<()> {
    let path = folder.join("room.probe");
    let tried = fs::File::create(&path).and_then(|mut file| {
        file.write_all(&vec![1; ROOM_BYTES])?;
        file.sync_all()
    });
    let removed = fs::remove_file(&path);
    tried.and(removed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recovery_that_was_cut_short_before_the_stores_changed_places_costs_the_vote_and_is_told_with_what_to_do() {
        let error =
            anyhow::Error::from(StartError::OtherNode { path: "/s/raft".into(), found: 2, wanted: 1_000_000_000 });
        let lost = weigh(&error, true).unwrap();
        assert!(!lost.by_disk && lost.why.contains("belongs to node 2"), "{}", lost.why);
        assert!(lost.why.contains("run `holdfast recover` again") && lost.why.contains("`holdfast voter add`"));
        let mixed_up = weigh(&error, false).unwrap_err().to_string();
        assert!(!mixed_up.contains("holdfast recover"), "somebody has mixed up files");
    }

    #[test]
    fn a_voter_that_starts_on_a_disk_that_is_full_or_read_only_is_to_vote_again_once_that_can_be_written() {
        for (kind, by_disk) in [
            (io::ErrorKind::StorageFull, true),
            (io::ErrorKind::ReadOnlyFilesystem, true),
            (io::ErrorKind::InvalidData, false),
        ] {
            let of_store = anyhow::Error::from(StartError::Store { path: "/s/raft".into(), source: kind.into() });
            let of_papers = anyhow::Error::from(io::Error::from(kind)).context("writing /s/node.json");
            for error in [of_store, of_papers] {
                assert_eq!(weigh(&error, false).unwrap().by_disk, by_disk, "{error:#}");
            }
        }
    }

    #[test]
    fn a_later_generation_that_gossip_tells_of_counts_only_by_the_word_of_the_host_itself() {
        let host = |text: &str| HostName::new(text).unwrap();
        let member = |generation: &str| Member {
            address: "10.0.0.1:7400".parse().unwrap(),
            alive: true,
            generation: 1,
            keys: BTreeMap::from([(GENERATION.to_owned(), generation.to_owned())]),
        };
        let members = [("h1", "7"), ("h2", "9"), ("h3", "2"), ("h4", "no number"), ("h5", "3")];
        let members = BTreeMap::from(members.map(|(name, generation)| (host(name), member(generation))));
        assert_eq!(to_ask(&members, &host("h1"), 2), [host("h2"), host("h5")]);
        let own = || (host("h1"), Some(2));
        // h2 knows nothing of the 9 that was said in its name, and h5 does not answer.
        assert_eq!(latest(vec![own(), (host("h2"), Some(2)), (host("h5"), None)]).map(|(latest, _)| latest), Some(2));
        let last = latest(vec![own(), (host("h2"), Some(2)), (host("h5"), Some(3))]);
        assert_eq!(last, Some((3, host("h5"))));
    }
}
