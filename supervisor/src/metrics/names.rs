//! Every metric's name and description, in one place: dashboards and alert rules are written against this page.
//!
//! Names are part of the interface: renaming one breaks an operator's rules without a word, so they only ever get added.

/// A metric's name and what it means.
pub type Name = (&'static str, &'static str);

/// Version of the running supervisor.
pub const BUILD_INFO: Name = ("holdfast_build_info", "Always 1; the label tells the version of this supervisor.");
/// Host verdicts.
pub const HOST_VERDICT: Name =
    ("holdfast_host_verdict", "1 for the verdict that the coordinator holds about the host, 0 for the others.");
/// Guest states.
pub const GUEST_STATE: Name = ("holdfast_guest_state", "1 for the state that the guest is in, 0 for the others.");
/// Service verdicts.
pub const SERVICE_VERDICT: Name =
    ("holdfast_service_verdict", "1 for the verdict that the coordinator holds about the service, 0 for the others.");
/// Probe latency.
pub const PROBE_LATENCY: Name =
    ("holdfast_probe_latency_seconds", "How long probes from this host took, whatever they came to.");
/// Probe outcomes.
pub const PROBES: Name = ("holdfast_probes_total", "Probes asked from this host, by what they came to.");
/// Failover stages.
pub const FAILOVER_STAGE: Name =
    ("holdfast_failover_stage_seconds", "How long each stage of a recovery took: detect, fence, place, start, verify.");
/// Raft term.
pub const RAFT_TERM: Name = ("holdfast_raft_term", "Newest term that this voter knows.");
/// Raft applied index.
pub const RAFT_APPLIED: Name = ("holdfast_raft_applied_index", "Newest log index that this voter has applied.");
/// Raft last log index.
pub const RAFT_LAST_LOG: Name = ("holdfast_raft_last_log_index", "Newest log index that this voter has stored.");
/// Leadership.
pub const RAFT_LEADER: Name = ("holdfast_raft_leader", "1 while this supervisor is the coordinator.");
/// Quorum.
pub const QUORUM: Name = ("holdfast_quorum", "1 while this supervisor knows of a coordinator that a majority follows.");
/// Gossip membership.
pub const GOSSIP_LIVE: Name =
    ("holdfast_gossip_live_members", "Supervisors that gossip holds for alive, this one included.");
/// Lease.
pub const LEASE_LEFT: Name =
    ("holdfast_lease_left_seconds", "Time until this host loses the right to run guests; 0 without a lease.");
/// Alerts that wait.
pub const ALERTS_PENDING: Name = (
    "holdfast_alerts_pending",
    "Incident changes that a receiver has not confirmed; only the coordinator counts them.",
);
/// Alerts that were refused.
pub const ALERTS_REJECTED: Name = (
    "holdfast_alerts_rejected",
    "Incident changes that a receiver refused for good; only the coordinator counts them.",
);
/// Alert sends.
pub const ALERT_SENDS: Name =
    ("holdfast_alert_sends_total", "Attempts to tell a receiver something, by what came of them.");
/// Dropped datagrams.
pub const DATAGRAMS_DROPPED: Name =
    ("holdfast_datagrams_dropped_total", "Datagrams that arrived and were thrown away, by reason.");
/// Refused calls.
pub const RPC_REFUSED: Name =
    ("holdfast_rpc_refused_total", "Calls from other supervisors that were refused, by reason.");
/// Open orders.
pub const ORDERS_OPEN: Name = ("holdfast_orders_open", "Orders that are committed and not yet reported or superseded.");
/// Fences.
pub const FENCES: Name = ("holdfast_fences_total", "Fences that ended, by result.");
/// Event loop lateness.
pub const LOOP_LATE: Name =
    ("holdfast_loop_late_seconds", "How late the event loop of this supervisor was when it was last measured.");

/// All of them, for tests and documentation.
pub const ALL: &[Name] = &[
    BUILD_INFO,
    HOST_VERDICT,
    GUEST_STATE,
    SERVICE_VERDICT,
    PROBE_LATENCY,
    PROBES,
    FAILOVER_STAGE,
    RAFT_TERM,
    RAFT_APPLIED,
    RAFT_LAST_LOG,
    RAFT_LEADER,
    QUORUM,
    GOSSIP_LIVE,
    LEASE_LEFT,
    ALERTS_PENDING,
    ALERTS_REJECTED,
    ALERT_SENDS,
    DATAGRAMS_DROPPED,
    RPC_REFUSED,
    ORDERS_OPEN,
    FENCES,
    LOOP_LATE,
];
