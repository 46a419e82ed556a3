//! What a host says of itself, and the numbers that it exports about itself.

use std::{collections::BTreeMap, io, path::Path, sync::Arc, time::Duration};

use anyhow::Context;
use holdfast_policies::{
    hostfile::HostFile,
    names::{HostName, Incarnation},
    state::HostFacts,
};
use sysinfo::{MemoryRefreshKind, RefreshKind, System};

use crate::{clock, consensus::Status, datagram::Counters, health::Complaint, metrics::RaftView, node::Node, rpc};

/// How often numbers are brought up to date.
const EXPORT_EVERY: Duration = Duration::from_secs(1);

/// How many tenths of a machine's memory guests may take unless its host file says more or less: the rest is for the host itself, and for
/// what each QEMU takes beside its guest's memory.
const FOR_GUESTS_TENTHS: u64 = 9;

/// How often load is gossiped.
const LOAD_EVERY_TURNS: u32 = 5;

/// What says what a machine is, best first: its firmware, then its installation.
const MACHINE_IDS: [&str; 2] = ["/sys/class/dmi/id/product_uuid", "/etc/machine-id"];

/// What this machine is: told by the host file, by its firmware, or by its installation.
///
/// # Errors
/// When none of them says anything, or one cannot be read.
pub fn machine_id(file: &HostFile) -> anyhow::Result<String> {
    if let Some(told) = &file.machine_id {
        return Ok(told.clone());
    }
    let found = first_id(&MACHINE_IDS.map(Path::new))?;
    found.with_context(|| {
        let sources = MACHINE_IDS.join(", ");
        format!("what this machine is: none of {sources} says it; set machine_id in the host file")
    })
}

/// The first of them that says anything. One that is missing, empty, no text, or not for this user to read is so at each start. Any other
/// trouble passes, and another source taken for it would make this host look like another machine (R11).
fn first_id(sources: &[&Path]) -> anyhow::Result<Option<String>> {
    for path in sources {
        match std::fs::read_to_string(path) {
            Ok(text) if text.trim().is_empty() => {}
            Ok(text) => return Ok(Some(text.trim().to_lowercase())),
            Err(error) if says_nothing(error.kind()) => {}
            Err(error) => {
                let what = "what this machine is: set machine_id in the host file if this lasts";
                return Err(error).with_context(|| format!("{what}; reading {}", path.display()));
            }
        }
    }
    Ok(None)
}

fn says_nothing(kind: io::ErrorKind) -> bool {
    matches!(kind, io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied | io::ErrorKind::InvalidData)
}

/// Gathers what the host says when it joins.
#[must_use]
pub fn gather(file: &HostFile, incarnation: Incarnation, machine_id: String) -> HostFacts {
    let kinds = RefreshKind::nothing().with_memory(MemoryRefreshKind::nothing().with_ram());
    let system = System::new_with_specifics(kinds);
    let total_mib = system.map_or(0, |system| system.total_memory() / (1024 * 1024));
    HostFacts {
        incarnation,
        machine_id,
        address: file.reached_at(),
        memory_mib: file.memory_mib.unwrap_or(total_mib / 10 * FOR_GUESTS_TENTHS),
        cores: std::thread::available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(u32::MAX)),
        guests: file.guests,
    }
}

/// Exports numbers until the supervisor ends.
pub async fn export(node: Arc<Node>, datagrams: Arc<Counters>, rpc: Arc<rpc::Counters>) {
    let mut turn = 0_u32;
    let mut counted = Counted::default();
    loop {
        tokio::time::sleep(EXPORT_EVERY).await;
        turn = turn.wrapping_add(1);
        counted.go_on(&node, &datagrams, &rpc);
        node.metrics.set_vote_lost(node.health.complaint(Complaint::Vote).is_some());
        // A coordinator's answer counts for as long as a lease would last.
        let (now, lease) = (clock::moment(), node.file.timing.lease.0);
        let (answered, led) = (node.health.answered_within(now, lease), node.health.led_within(now, lease));
        match node.taking_part() {
            Some(consensus) => {
                node.metrics.set_raft(raft_view(&consensus.status(), node.host(), answered, led));
                node.metrics.set_orders_open(node.read(|state| state.orders.len()));
            }
            None => node.metrics.set_raft(RaftView { quorum: answered, ..RaftView::default() }),
        }
        let members = node.gossip.members().await;
        node.metrics.set_gossip_live(members.values().filter(|member| member.alive).count());
        if turn.is_multiple_of(LOAD_EVERY_TURNS) {
            let load = System::load_average().map_or_else(|_| "unknown".to_owned(), |load| format!("{:.2}", load.one));
            if let Err(error) = node.gossip.set("load", &load).await {
                tracing::debug!(%error, "load was not gossiped");
            }
        }
    }
}

/// What was counted up to the last turn, by reason: what has come since is added to what is shown.
#[derive(Default)]
struct Counted {
    dropped: BTreeMap<&'static str, u64>,
    refused: BTreeMap<&'static str, u64>,
    restarts: u64,
}

impl Counted {
    fn go_on(&mut self, node: &Node, datagrams: &Counters, rpc: &rpc::Counters) {
        for (reason, count) in datagrams.dropped() {
            let before = self.dropped.insert(reason, count).unwrap_or(0);
            node.metrics.datagrams_dropped(reason, count.saturating_sub(before));
        }
        for (reason, count) in [
            ("handshake", rpc.handshakes_failed()),
            ("frame", rpc.frames_refused()),
            ("connection", rpc.connections_refused()),
        ] {
            let more = count.saturating_sub(self.refused.insert(reason, count).unwrap_or(0));
            if more > 0 {
                node.metrics.rpc_refused(reason, more);
            }
        }
        let before = std::mem::replace(&mut self.restarts, node.gossip.restarts());
        node.metrics.gossip_restarted(self.restarts.saturating_sub(before));
    }
}

/// What is shown of consensus. Raft calls the one its leader that was elected last, dead or alive, and one that nobody follows any
/// more calls itself so, as long as too few voters are left to elect another. That a majority follows, only what it has confirmed
/// shows (R2): to this host, if it coordinates, and to whoever does, if that has answered.
fn raft_view(status: &Status, me: &HostName, answered: bool, led: bool) -> RaftView {
    RaftView {
        term: status.term,
        applied: status.applied.unwrap_or(0),
        last_log: status.last_log.unwrap_or(0),
        leader: led && status.leader.as_ref().is_some_and(|(_, host)| host == me),
        quorum: answered,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_not_taken_for_another_machine_because_its_firmware_cannot_be_read_for_a_moment() {
        let folder = tempfile::tempdir().unwrap();
        let [firmware, installed] = ["product_uuid", "machine-id"].map(|name| folder.path().join(name));
        std::fs::write(&installed, "0a1b\n").unwrap();
        let told = || first_id(&[&firmware, &installed]);
        assert_eq!(told().unwrap().as_deref(), Some("0a1b"), "it has no such firmware");
        std::fs::write(&firmware, "\n").unwrap();
        assert_eq!(told().unwrap().as_deref(), Some("0a1b"), "it says nothing");
        std::fs::write(&firmware, "7A3B\n").unwrap();
        assert_eq!(told().unwrap().as_deref(), Some("7a3b"));
        // Something is there that cannot be read.
        std::fs::remove_file(&firmware).unwrap();
        std::fs::create_dir(&firmware).unwrap();
        let error = format!("{:#}", told().unwrap_err());
        assert!(error.contains("product_uuid") && error.contains("set machine_id"), "{error}");
        assert_eq!(first_id(&[]).unwrap(), None);
    }

    #[test]
    fn a_leader_that_is_dead_or_that_nobody_follows_is_no_quorum_and_no_coordinator() {
        let [me, other] = ["hv-a", "hv-b"].map(|name| HostName::new(name).unwrap());
        let shown = |leader: &HostName, answered, led| {
            let status = Status { term: 3, leader: Some((1, leader.clone())), ..Status::default() };
            let view = raft_view(&status, &me, answered, led);
            (view.term, view.leader, view.quorum)
        };
        assert_eq!(shown(&me, true, true), (3, true, true));
        assert_eq!(shown(&other, true, false), (3, false, true));
        assert_eq!(shown(&other, false, false), (3, false, false), "the others are dead, and none can be elected");
        assert_eq!(shown(&me, false, false), (3, false, false), "this one is cut off from those that it led");
        assert_eq!(
            shown(&me, true, false),
            (3, false, true),
            "it does not hear that another one was elected, which answers it"
        );
    }
}
