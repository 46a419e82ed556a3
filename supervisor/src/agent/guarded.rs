//! What the guard is told besides the lease, and what it tells: stop mode as committed policies have it (R14), every guest
//! that runs here, who gets its beacon (R16), what it has armed (R9), and which guests it has stopped.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use holdfast_policies::{
    armed::Armed,
    names::{GuestName, HostName},
    observe::{GuestCondition, GuestReport},
};
use tokio::time::{MissedTickBehavior, interval};

use super::last_words::{LastWords, named};
use crate::{
    causes::with_causes,
    guard::{ClientError, Status, Stopped},
    node::Node,
    qemu::Driver,
};

/// How often the guard is asked how it is. What it has armed reaches the coordinator that much later at most, and until
/// then nobody counts on it.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// How long the guard may take to open its watchdog after it was told of stop mode.
const ARM_TIME: Duration = Duration::from_millis(50);

/// What the guard has last said. A guard that does not answer is taken to be as it was: what it has armed stays armed
/// without it.
#[derive(Debug, Clone, Default)]
pub struct Guarded {
    known: Arc<Mutex<Known>>,
}

#[derive(Debug, Default)]
struct Known {
    /// Up to which view the guard has been told.
    view: u64,
    status: Option<Status>,
}

impl Guarded {
    /// What is armed, as far as is known, and up to which view of the declarations the guard has been told. Whoever counts
    /// on the one must look at the other: a newer view may have ended stop mode and begun it again.
    #[must_use]
    pub fn armed(&self) -> (Option<Armed>, u64) {
        let known = self.known();
        (known.status.as_ref().and_then(|status| status.armed.clone()), known.view)
    }

    /// Says of guests that the guard has stopped that it has, and why.
    pub fn explain(&self, reports: &mut [GuestReport]) {
        let stopped = self.known().status.as_ref().map(|status| status.stopped.clone()).unwrap_or_default();
        for report in reports {
            let GuestCondition::Exited { detail } = &mut report.condition else { continue };
            if let Some(stopped) = stopped.iter().find(|stopped| stopped.guest == report.guest) {
                *detail = explanation(stopped);
            }
        }
    }

    /// Returns what was known before.
    fn note(&self, status: Status, view: u64) -> Option<Status> {
        let mut known = self.known();
        known.view = view;
        known.status.replace(status)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn explanation(stopped: &Stopped) -> String {
    match stopped.lease_ended {
        Some(ended) => {
            let after = stopped.at.since(ended).as_millis();
            format!("stopped by the guard: the lease had run out, and it was gone {after} ms later")
        }
        None => "stopped by the guard: there was no lease".to_owned(),
    }
}

/// Tells the guard and asks it, for as long as the supervisor runs.
pub async fn look_after(node: Arc<Node>, guarded: Guarded, words: LastWords) {
    let mut tick = interval(ASK_EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut view = node.view.clone();
    let mut failing = false;
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            // The sender lives as long as the agent.
            changed = view.changed() => if changed.is_err() { return },
        }
        let result = round(&node, &guarded, &words).await;
        match (&result, failing) {
            (Err(error), false) => tracing::warn!(error = with_causes(error), "the guard was not told everything"),
            (Ok(()), true) => tracing::info!("the guard knows everything again"),
            (Err(_), true) | (Ok(()), false) => {}
        }
        failing = result.is_err();
    }
}

async fn round(node: &Node, guarded: &Guarded, words: &LastWords) -> Result<(), ClientError> {
    let mut status = node.guard.query().await?;
    let (view, wanted) = wanted(node);
    let stops_now = status.armed.as_ref().is_some_and(|armed| armed.stops);
    if let Some(stops) = wanted.filter(|stops| *stops != stops_now) {
        tracing::info!(stops, "telling the guard whether guests are stopped when the lease runs out");
        node.guard.stop_mode(stops).await?;
        tokio::time::sleep(ARM_TIME).await;
        status = node.guard.query().await?;
    }
    if let Some(driver) = &node.driver {
        register_all(node, driver, &status).await?;
    }
    node.metrics.set_guard_hardened(
        status.hardened.as_ref().map(|hardened| (hardened.memory.is_none(), hardened.priority.is_none())),
    );
    let (armed, unarmed, stopped) = (status.armed.clone(), status.unarmed.clone(), status.stopped.clone());
    let beacons = beacons_to(node.known_voters(), &status.voters);
    let before = guarded.note(status, view);
    if before.as_ref().and_then(|before| before.unarmed.as_ref()) != unarmed.as_ref()
        && let Some(why) = unarmed
    {
        tracing::error!(why, "this host is to stop its guests at the end of its lease, but has no watchdog");
    }
    let known = before.as_ref().map(|before| before.stopped.as_slice()).unwrap_or_default();
    let new: Vec<&Stopped> = stopped.iter().filter(|stopped| !known.contains(stopped)).collect();
    pass_on(node, words, &new).await;
    if before.is_none_or(|before| before.armed != armed || before.stopped != stopped) {
        node.sync_now.notify_one();
    }
    match beacons {
        Some(voters) => node.guard.voters(voters).await,
        None => Ok(()),
    }
}

/// Who is to get the guard's beacons from here on, if others do. A guard that has not been told within this boot, or is of a version
/// that forgets it, has only the host file, which names voters for bootstrap (R23); where those are not the voters any more, nobody who
/// counts would hear this host once its supervisor is down. For the same reason a supervisor that does not know the membership yet
/// changes nothing: one that ends before it does would leave the guard with less than it had.
fn beacons_to(known: BTreeMap<HostName, SocketAddr>, told: &[SocketAddr]) -> Option<Vec<SocketAddr>> {
    let known: Vec<SocketAddr> = known.into_values().collect();
    (!known.is_empty() && known != told).then_some(known)
}

/// The newest view, and whether this host is in stop mode by it; none while that is not known.
fn wanted(node: &Node) -> (u64, Option<bool>) {
    let view = node.view.borrow();
    (view.index, (view.index > 0).then(|| view.policies.lease_level(node.host()).is_some()))
}

/// A guest that runs here without the guard's knowing, started under an older one, would outlive the lease (R13).
async fn register_all(node: &Node, driver: &Driver, status: &Status) -> Result<(), ClientError> {
    let known: BTreeSet<&GuestName> = status.guests.iter().map(|guest| &guest.guest).collect();
    // What cannot be known here keeps the sync from going out, too, and with it the lease.
    let reports = driver.inventory().await.unwrap_or_default();
    for report in reports {
        let gone = matches!(report.condition, GuestCondition::Exited { .. });
        if !gone && !known.contains(&report.guest) {
            tracing::info!(guest = %report.guest, "the guard did not know this guest");
            node.guard.register(&report.guest, &driver.cgroup_of(&report.guest)).await?;
        }
    }
    Ok(())
}

/// The guard's last words reach those who can still be reached, should this host be cut off from the coordinator alone.
async fn pass_on(node: &Node, words: &LastWords, stopped: &[&Stopped]) {
    for stopped in stopped {
        tracing::error!(guest = %stopped.guest, why = explanation(stopped), "the guard has stopped a guest");
    }
    if let Some(told) = told(stopped) {
        words.say(&node.gossip, told).await;
    }
}

/// One sentence for all guests that were stopped; they had one lease.
fn told(stopped: &[&Stopped]) -> Option<String> {
    let guests: Vec<&GuestName> = stopped.iter().map(|stopped| &stopped.guest).collect();
    let last = stopped.iter().max_by_key(|stopped| stopped.at)?;
    Some(format!("{}: {}", named(&guests), explanation(last)))
}

#[cfg(test)]
mod tests {
    use holdfast_policies::{names::Epoch, names::Incarnation, time::Moment};

    use super::*;

    #[test]
    fn a_guest_that_the_guard_stopped_is_reported_with_its_reason_and_any_other_exit_as_it_was() {
        let stopped =
            Stopped { guest: GuestName::new("web-1").unwrap(), at: Moment(5_012), lease_ended: Some(Moment(5_000)) };
        let status = Status {
            incarnation: Incarnation::new("boot").unwrap(),
            pid: 1,
            started: Moment(0),
            deadline: Some(Moment(5_000)),
            guests: Vec::new(),
            voters: Vec::new(),
            refused: 0,
            armed: None,
            unarmed: None,
            stopped: vec![stopped],
            hardened: None,
        };
        let guarded = Guarded::default();
        let exited = || GuestCondition::Exited { detail: "signal 9".to_owned() };
        let report =
            |guest: &str, condition| GuestReport::new(GuestName::new(guest).unwrap(), Epoch::default(), condition);
        let mut reports =
            [report("web-1", exited()), report("web-2", exited()), report("web-1", GuestCondition::Running)];
        let before = reports.clone();
        guarded.explain(&mut reports);
        assert_eq!(reports, before, "nothing is known of the guard yet");
        guarded.note(status, 7);
        assert_eq!(guarded.armed(), (None, 7));
        guarded.explain(&mut reports);
        let detail = "stopped by the guard: the lease had run out, and it was gone 12 ms later".to_owned();
        assert_eq!(reports[0].condition, GuestCondition::Exited { detail });
        assert_eq!(reports[1..], before[1..]);
    }

    #[test]
    fn a_guard_that_was_started_again_is_told_who_votes_and_one_that_knows_is_not_told_less() {
        let voters = |names: &[&str]| -> BTreeMap<HostName, SocketAddr> {
            let place =
                |name: &&str| (HostName::new(*name).unwrap(), format!("10.0.0.{}:7400", name.len()).parse().unwrap());
            names.iter().map(place).collect()
        };
        let (committed, of_the_file) = (voters(&["a", "bb", "cccc"]), voters(&["a", "bb", "ccc"]));
        let addresses = |of: &BTreeMap<HostName, SocketAddr>| -> Vec<SocketAddr> { of.values().copied().collect() };
        let told = addresses(&committed);
        assert_eq!(beacons_to(committed.clone(), &told), None, "it knows already");
        // Whether the supervisor has told it before is not asked: a new guard has not heard that.
        assert_eq!(beacons_to(committed, &addresses(&of_the_file)), Some(told.clone()));
        assert_eq!(beacons_to(BTreeMap::new(), &told), None, "the membership is not known yet");
    }

    #[test]
    fn all_guests_that_were_stopped_are_named_with_when_the_last_of_them_was_gone() {
        let stopped = |guest: &str, at| Stopped {
            guest: GuestName::new(guest).unwrap(),
            at: Moment(at),
            lease_ended: Some(Moment(5_000)),
        };
        let (first, second) = (stopped("web-1", 5_020), stopped("web-2", 5_012));
        let expected = "web-1, web-2: stopped by the guard: the lease had run out, and it was gone 20 ms later";
        assert_eq!(told(&[&first, &second]).as_deref(), Some(expected));
        assert_eq!(told(&[]), None);
    }
}
