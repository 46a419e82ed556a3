//! What this supervisor shows to Prometheus: one registry, typed setters, one page of text.
//!
//! Counters and histograms grow as things happen. Gauges about hosts, guests and services are written as whole sets
//! ([`Metrics::set_hosts`] and its like), so that a guest that no policy names any more leaves no series behind.
//! A page is never rendered between the clearing and the filling of such a set.

mod labels;
mod modes;
pub mod names;
mod probes;
mod series;
#[cfg(test)]
mod tests;

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use holdfast_policies::{
    incident::Stages,
    names::{GuestName, HostName, ServiceName},
    proof::Proof,
    time::WallTime,
};
use holdfast_probes::Figure;
use prometheus::{Gauge, HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder};

pub use self::labels::{
    GuestEventKind, GuestState, Label, ProbeOutcome, ReceiverKind, SendResult, Stage, VantageKind, Verdict,
};
pub use self::modes::Modes;
use self::{
    modes::ModeMetrics,
    probes::ProbeMetrics,
    series::{count, counters, gauge, gauges, histograms, one_of, put, seconds, shown},
};

/// Upper bounds of the failover stage buckets, in seconds: the promised seconds finely, fence level time-outs coarsely.
const STAGE_BUCKETS: &[f64] = &[0.05, 0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 20.0, 30.0, 60.0, 120.0, 300.0];

/// The registry and everything in it. Shared as `Arc<Metrics>`; every method may be called from any task.
pub struct Metrics {
    registry: Registry,
    /// Held while a set of gauges is replaced and while a page is rendered.
    page: Mutex<()>,
    host_verdict: IntGaugeVec,
    host_safe_at: IntGaugeVec,
    guest_state: IntGaugeVec,
    service_verdict: IntGaugeVec,
    modes: ModeMetrics,
    probes: ProbeMetrics,
    guest_events: IntCounterVec,
    stage: HistogramVec,
    raft_term: IntGauge,
    raft_applied: IntGauge,
    raft_last_log: IntGauge,
    raft_leader: IntGauge,
    quorum: IntGauge,
    vote_lost: IntGauge,
    gossip_live: IntGauge,
    gossip_restarts: IntCounterVec,
    lease_left: Gauge,
    guard_hardened: IntGaugeVec,
    alerts_pending: IntGaugeVec,
    alerts_rejected: IntGaugeVec,
    alert_sends: IntCounterVec,
    datagrams_dropped: IntCounterVec,
    rpc_refused: IntCounterVec,
    orders_open: IntGauge,
    fences: IntCounterVec,
    fencing_proven: IntGaugeVec,
    fencing_wired: IntGaugeVec,
    certificate_expires: IntGauge,
    loop_late: Gauge,
}

/// What the consensus engine says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct RaftView {
    /// Newest term known.
    pub term: u64,
    /// Newest applied log index.
    pub applied: u64,
    /// Newest stored log index.
    pub last_log: u64,
    /// Whether this supervisor is the coordinator, and a majority follows it.
    pub leader: bool,
    /// Whether a coordinator that a majority follows has answered it lately.
    pub quorum: bool,
}

impl Metrics {
    /// A registry in which everything stands at zero.
    ///
    /// # Errors
    /// When two metrics have one name or a name is malformed, which the tests exclude.
    pub fn new() -> Result<Self, prometheus::Error> {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Self {
            page: Mutex::new(()),
            host_safe_at: gauges(r, names::HOST_SAFE_AT, &["host"])?,
            host_verdict: gauges(r, names::HOST_VERDICT, &["host", "verdict"])?,
            guest_state: gauges(r, names::GUEST_STATE, &["guest", "state"])?,
            service_verdict: gauges(r, names::SERVICE_VERDICT, &["guest", "service", "verdict"])?,
            modes: ModeMetrics::new(r)?,
            probes: ProbeMetrics::new(r)?,
            guest_events: counters(r, names::GUEST_EVENTS, &["event"])?,
            stage: histograms(r, names::FAILOVER_STAGE, &["stage"], STAGE_BUCKETS)?,
            raft_term: gauge(r, names::RAFT_TERM)?,
            raft_applied: gauge(r, names::RAFT_APPLIED)?,
            raft_last_log: gauge(r, names::RAFT_LAST_LOG)?,
            raft_leader: gauge(r, names::RAFT_LEADER)?,
            quorum: gauge(r, names::QUORUM)?,
            vote_lost: gauge(r, names::VOTE_LOST)?,
            gossip_live: gauge(r, names::GOSSIP_LIVE)?,
            gossip_restarts: counters(r, names::GOSSIP_RESTARTS, &[])?,
            lease_left: seconds(r, names::LEASE_LEFT)?,
            guard_hardened: gauges(r, names::GUARD_HARDENED, &["what"])?,
            alerts_pending: gauges(r, names::ALERTS_PENDING, &["receiver"])?,
            alerts_rejected: gauges(r, names::ALERTS_REJECTED, &["receiver"])?,
            alert_sends: counters(r, names::ALERT_SENDS, &["receiver", "result"])?,
            datagrams_dropped: counters(r, names::DATAGRAMS_DROPPED, &["reason"])?,
            rpc_refused: counters(r, names::RPC_REFUSED, &["reason"])?,
            orders_open: gauge(r, names::ORDERS_OPEN)?,
            fences: counters(r, names::FENCES, &["result"])?,
            fencing_proven: gauges(r, names::FENCING_PROVEN, &["host", "level"])?,
            fencing_wired: gauges(r, names::FENCING_WIRED, &["host", "level"])?,
            certificate_expires: gauge(r, names::CERTIFICATE_EXPIRES)?,
            loop_late: seconds(r, names::LOOP_LATE)?,
            registry,
        };
        put(&gauges(&metrics.registry, names::BUILD_INFO, &["version"])?, &[env!("CARGO_PKG_VERSION")], 1);
        metrics.begin_alerts_at_zero();
        metrics.gossip_restarted(0);
        for event in GuestEventKind::ALL {
            count(&metrics.guest_events, &[event.word()], 0);
        }
        for proof in Proof::HOST_GONE_WORDS {
            count(&metrics.fences, &[proof], 0);
        }
        for stage in Stage::ALL {
            metrics.stage.get_metric_with_label_values(&[stage.word()])?;
        }
        Ok(metrics)
    }

    /// A rate can only be taken from a counter that was seen before its first increase.
    fn begin_alerts_at_zero(&self) {
        for kind in ReceiverKind::ALL {
            self.set_alerts(*kind, 0, 0);
            for result in SendResult::ALL {
                count(&self.alert_sends, &[kind.word(), result.word()], 0);
            }
        }
    }

    /// Replaces what is shown of all hosts.
    pub fn set_hosts<'a>(&self, hosts: impl IntoIterator<Item = (&'a HostName, Verdict)>) {
        let _page = self.page();
        self.host_verdict.reset();
        for (host, verdict) in hosts {
            one_of(&self.host_verdict, &[host.as_str()], verdict);
        }
    }

    /// Replaces what is shown of hosts whose leases are waited for: the Unix time, in seconds, from which on they are safe.
    pub fn set_safe<'a>(&self, hosts: impl IntoIterator<Item = (&'a HostName, u64)>) {
        let _page = self.page();
        self.host_safe_at.reset();
        for (host, seconds) in hosts {
            put(&self.host_safe_at, &[host.as_str()], i64::try_from(seconds).unwrap_or(i64::MAX));
        }
    }

    /// Replaces what is shown of all levels of power devices: the host, the level from 1, when it was last proven in seconds
    /// since 1970, and whether its wiring is verified.
    pub fn set_fencing<'a>(&self, levels: impl IntoIterator<Item = (&'a HostName, usize, u64, bool)>) {
        let _page = self.page();
        self.fencing_proven.reset();
        self.fencing_wired.reset();
        for (host, level, proven, wired) in levels {
            let level = level.to_string();
            put(&self.fencing_proven, &[host.as_str(), &level], i64::try_from(proven).unwrap_or(i64::MAX));
            put(&self.fencing_wired, &[host.as_str(), &level], i64::from(wired));
        }
    }

    /// Replaces what is shown of all guests.
    pub fn set_guests<'a>(&self, guests: impl IntoIterator<Item = (&'a GuestName, GuestState)>) {
        let _page = self.page();
        self.guest_state.reset();
        for (guest, state) in guests {
            one_of(&self.guest_state, &[guest.as_str()], state);
        }
    }

    /// Replaces what is shown of modes and holds.
    pub fn set_modes(&self, modes: &Modes<'_>) {
        let _page = self.page();
        self.modes.set(modes);
    }

    /// Replaces what is shown of all services.
    pub fn set_services<'a>(&self, services: impl IntoIterator<Item = (&'a GuestName, &'a ServiceName, Verdict)>) {
        let _page = self.page();
        self.service_verdict.reset();
        for (guest, service, verdict) in services {
            one_of(&self.service_verdict, &[guest.as_str(), service.as_str()], verdict);
        }
    }

    /// Counts one probe that this host asked.
    pub fn probed(
        &self,
        guest: &GuestName,
        service: &ServiceName,
        from: VantageKind,
        outcome: ProbeOutcome,
        took: Duration,
    ) {
        self.probes.probed(guest, service, from, outcome, took);
    }

    /// Replaces the figures that the plugin of a service has told this host.
    pub fn set_figures(&self, guest: &GuestName, service: &ServiceName, figures: &[Figure]) {
        let _page = self.page();
        self.probes.set_figures(guest, service, figures);
    }

    /// Notes how long after its turn a probe was asked.
    pub fn probe_late(&self, by: Duration) {
        self.probes.late(by);
    }

    /// Forgets the probe series of every service that `keep` refuses; called when policies change.
    pub fn retain_probes(&self, keep: impl Fn(&str, &str) -> bool) {
        let _page = self.page();
        self.probes.retain(keep);
    }

    /// Records the stages of one finished recovery; stages that it did not have are left out.
    pub fn recovered(&self, stages: &Stages) {
        let all = [
            (Stage::Detect, stages.detect_ms),
            (Stage::Fence, stages.fence_ms),
            (Stage::Place, stages.place_ms),
            (Stage::Start, stages.start_ms),
            (Stage::Verify, stages.verify_ms),
        ];
        for (stage, ms) in all {
            let Some(ms) = ms else { continue };
            if let Ok(series) = self.stage.get_metric_with_label_values(&[stage.word()]) {
                series.observe(Duration::from_millis(ms).as_secs_f64());
            }
        }
    }

    /// Shows the consensus engine.
    pub fn set_raft(&self, view: RaftView) {
        self.raft_term.set(shown(view.term));
        self.raft_applied.set(shown(view.applied));
        self.raft_last_log.set(shown(view.last_log));
        self.raft_leader.set(i64::from(view.leader));
        self.quorum.set(i64::from(view.quorum));
    }

    /// Shows whether this host should vote and cannot.
    pub fn set_vote_lost(&self, lost: bool) {
        self.vote_lost.set(i64::from(lost));
    }

    /// Shows how many supervisors gossip holds for alive.
    pub fn set_gossip_live(&self, members: usize) {
        self.gossip_live.set(shown(members));
    }

    /// Counts how often gossip has begun anew.
    pub fn gossip_restarted(&self, more: u64) {
        count(&self.gossip_restarts, &[], more);
    }

    /// Shows how long this host's lease still lasts; `None` without one.
    pub fn set_lease_left(&self, left: Option<Duration>) {
        self.lease_left.set(left.unwrap_or_default().as_secs_f64());
    }

    /// Shows whether the guard has its memory locked and real-time priority; `None` where it needs neither.
    pub fn set_guard_hardened(&self, hardened: Option<(bool, bool)>) {
        let _page = self.page();
        self.guard_hardened.reset();
        if let Some((memory, priority)) = hardened {
            put(&self.guard_hardened, &["memory"], i64::from(memory));
            put(&self.guard_hardened, &["priority"], i64::from(priority));
        }
    }

    /// Shows how many incident changes wait for receivers of this kind, and how many these refused.
    pub fn set_alerts(&self, kind: ReceiverKind, pending: usize, rejected: usize) {
        put(&self.alerts_pending, &[kind.word()], shown(pending));
        put(&self.alerts_rejected, &[kind.word()], shown(rejected));
    }

    /// Counts one attempt to tell a receiver something.
    pub fn alert_sent(&self, kind: ReceiverKind, result: SendResult) {
        count(&self.alert_sends, &[kind.word(), result.word()], 1);
    }

    /// Counts datagrams that were thrown away. The reason is a word in the code, never text from outside.
    pub fn datagrams_dropped(&self, reason: &'static str, more: u64) {
        count(&self.datagrams_dropped, &[reason], more);
    }

    /// Counts what happened to a guest; the log says to which.
    pub fn guest_event(&self, event: GuestEventKind) {
        count(&self.guest_events, &[event.word()], 1);
    }

    /// Counts refused calls. The reason is a word in the code, never text from outside.
    pub fn rpc_refused(&self, reason: &'static str, more: u64) {
        count(&self.rpc_refused, &[reason], more);
    }

    /// Shows how many orders are open.
    pub fn set_orders_open(&self, orders: usize) {
        self.orders_open.set(shown(orders));
    }

    /// Counts one boot of a host that was proven gone. The proof is a word in the code, never text from outside.
    pub fn fenced(&self, proof: &'static str) {
        count(&self.fences, &[proof], 1);
    }

    /// Shows when this host's certificate ends.
    pub fn set_certificate_ends(&self, ends: WallTime) {
        self.certificate_expires.set(shown(ends.0 / 1_000));
    }

    /// Shows how late the event loop was.
    pub fn set_loop_late(&self, late: Duration) {
        self.loop_late.set(late.as_secs_f64());
    }

    /// The page that Prometheus scrapes, in its text format.
    #[must_use]
    pub fn render(&self) -> String {
        let _page = self.page();
        match TextEncoder::new().encode_to_string(&self.registry.gather()) {
            Ok(text) => text,
            Err(error) => {
                tracing::error!(%error, "metrics could not be rendered");
                String::new()
            }
        }
    }

    fn page(&self) -> MutexGuard<'_, ()> {
        self.page.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Metrics")
    }
}
