//! Carrying orders out: each becomes calls of the driver, the guest's agent or a power device, and one outcome.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use holdfast_fencing::{PowerDevice, power_off::power_off_and_confirm, power_on_and_confirm, report::Outcome};
use holdfast_policies::{
    model::{CPU_DEFAULT, QemuDefinition, SETTLE},
    names::{Epoch, GuestName, HostName, Incarnation, OrderId},
    observe::{GuestCondition, clean},
    order::{Order, OrderKind, OrderOutcome, SWITCH_ON, StopHow, Switch},
    proof::Power,
    sync::AgedReading,
    time::{Moment, millis},
};
use holdfast_probes::channel::{Exit, GuestChannel};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    causes::with_causes,
    clock,
    node::Node,
    qemu::{Driver, How, ResumeError},
};

/// How long a target may take to notice that everything has arrived.
const ARRIVAL: Duration = Duration::from_secs(10);

/// How long before its order's deadline a command or a reboot is given up, so that more is told of it than that time is up.
const ENDS_BEFORE: Duration = Duration::from_secs(1);

/// The same for a send, which then has to be cancelled, and its guest let run here again.
const SEND_ENDS_BEFORE: Duration = Duration::from_secs(5);

/// How long a send that was given up may take to end, before the guest is let run here: it is cancelled within a second, unless QEMU
/// is slow to answer.
const SENDING_ENDS: Duration = Duration::from_secs(20);

/// Pause between two looks at an arriving guest, or at one that is still being sent.
const ARRIVAL_PAUSE: Duration = Duration::from_millis(20);

/// What came of an order, with the power reading of a fence and when its question was sent.
pub struct Carried {
    /// What came of it.
    pub outcome: OrderOutcome,
    /// For fences that ended in "off".
    pub reading: Option<(AgedReading, Moment)>,
}

impl Carried {
    fn plain(outcome: OrderOutcome) -> Self {
        Self { outcome, reading: None }
    }
}

/// Carries one order out, within its deadline.
pub async fn carry(node: &Arc<Node>, order: &Order) -> Carried {
    let deadline = order.deadline.0;
    if let OrderKind::Fence { target, target_incarnation, level, device, switch } = &order.kind {
        let (lease, withdrawn, id) = (node.lease.clone(), node.withdrawn.clone(), order.id);
        // R20: every off needs a go-ahead younger than one lease, and a lease is renewed by the coordinator alone.
        let go_ahead = move || lease.is_valid() && !withdrawn.contains(id);
        let devices = node.refusals.open(device);
        let off = |within| fence(target, target_incarnation, *level, &devices, within, go_ahead);
        return match switch {
            Switch::Off => off(deadline).await,
            Switch::OffAndOn => switch_on(&devices, off(device.timeout().0).await).await,
            Switch::On => switch_on(&devices, Carried::plain(done("it was off"))).await,
        };
    }
    let Some(driver) = &node.driver else { return Carried::plain(failed("this host runs no guests")) };
    match timeout(deadline, act(node, driver, order, deadline)).await {
        Ok(outcome) => Carried::plain(outcome),
        Err(_) => Carried::plain(failed(format!("it took longer than {deadline:?}"))),
    }
}

/// Waits for what carries an order out, and has an outcome also where that meets a defect of Holdfast: an order without one would
/// stay open for ever, and be carried out by nobody. What may have been sent to a power device is given the time to arrive (R20).
pub async fn to_its_end(order: Order, carrying: impl Future<Output = Carried> + Send + 'static) -> (OrderId, Carried) {
    let carried = match tokio::spawn(carrying).await {
        Ok(carried) => carried,
        Err(defect) => {
            tracing::error!(order = %order.id, %defect, "carrying an order out has met a defect of Holdfast; please report it");
            if order.kind.switches_off() {
                sleep(order.deadline.0 + SETTLE).await;
            }
            Carried::plain(failed(format!(
                "it met a defect of Holdfast, which stands in the log of this host: {defect}"
            )))
        }
    };
    (order.id, carried)
}

fn done(detail: impl Into<String>) -> OrderOutcome {
    OrderOutcome::done(detail)
}

fn failed(detail: impl AsRef<str>) -> OrderOutcome {
    OrderOutcome::Failed { detail: clean(detail.as_ref()) }
}

async fn act(node: &Arc<Node>, driver: &Driver, order: &Order, deadline: Duration) -> OrderOutcome {
    match &order.kind {
        OrderKind::Start { guest, epoch, definition } => start(node, driver, guest, *epoch, definition, How::Run).await,
        OrderKind::Receive { guest, epoch, definition } => {
            start(node, driver, guest, *epoch, definition, How::Incoming).await
        }
        OrderKind::Release { guest, epoch, how } => release(node, driver, guest, *epoch, *how).await,
        OrderKind::Reboot { guest, .. } => match driver.reboot(guest, deadline.saturating_sub(ENDS_BEFORE)).await {
            Ok(took) => done(format!("it began anew after {} ms", took.as_millis())),
            Err(error) => failed(with_causes(&error)),
        },
        OrderKind::RestartService { guest, run, .. } => restart_service(driver, guest, run, deadline).await,
        // QEMU also knows addresses that run a command here; what another host has answered must not be one (S10).
        OrderKind::Send { uri, .. } if !is_socket(uri) => failed(format!("{uri:?} is not a tcp address")),
        OrderKind::Send { guest, uri, cpu, machine, .. } => {
            let ours = driver.check_processor(guest, cpu.as_deref().unwrap_or(CPU_DEFAULT));
            let fits = ours.and_then(|()| match waiting(node, guest, machine.as_deref()) {
                Some(theirs) => driver.check_machine(guest, &theirs),
                None => Ok(()),
            });
            match fits {
                Ok(()) => send(node, driver, guest, uri, order.id, deadline).await,
                Err(error) => failed(with_causes(&error)),
            }
        }
        OrderKind::Resume { guest, epoch } => resume(node, driver, guest, *epoch).await,
        OrderKind::Fence { .. } => failed("a fence is not a guest's order"),
    }
}

/// Sends a guest that fits what waits for it.
async fn send(
    node: &Node,
    driver: &Driver,
    guest: &GuestName,
    uri: &str,
    order: OrderId,
    deadline: Duration,
) -> OrderOutcome {
    let (lease, withdrawn) = (node.lease.clone(), node.withdrawn.clone());
    let still_wanted = withdrawn.clone();
    let wanted = move || !still_wanted.contains(order);
    // Of a move that was given up (R22), or a generation that has ended (R25), nobody is left to let it run on the other side, so it
    // runs on here.
    let go = async move { lease.is_valid() && !withdrawn.contains(order) };
    match driver.send_to(guest, uri, deadline.saturating_sub(SEND_ENDS_BEFORE), wanted, go).await {
        Ok(sent) => {
            done(format!("sent in {:?}, in {} rounds, paused for {:?}", sent.total, sent.rounds, sent.downtime))
        }
        Err(error) => failed(with_causes(&error)),
    }
}

/// The machine that waits for a guest. A coordinator of an older version does not say: then it is taken for the one that is declared
/// by what this host has heard, if any is.
fn waiting(node: &Node, guest: &GuestName, told: Option<&QemuDefinition>) -> Option<QemuDefinition> {
    let declared = || node.view.borrow().policies.guests.get(guest).map(|declared| declared.qemu.clone());
    told.cloned().or_else(declared)
}

/// Whether a migration can be sent there: a TCP address and nothing else.
#[must_use]
pub fn is_socket(uri: &str) -> bool {
    uri.strip_prefix("tcp:").is_some_and(|address| address.parse::<SocketAddr>().is_ok())
}

/// Starts a guest; whatever an older assignment has left of it on this host is stopped first.
async fn start(
    node: &Arc<Node>,
    driver: &Driver,
    guest: &GuestName,
    epoch: Epoch,
    definition: &QemuDefinition,
    how: How,
) -> OrderOutcome {
    let began = Instant::now();
    node.released.begin(guest, epoch);
    let last_seen = match stop_older(driver, guest, epoch).await {
        Ok(last_seen) => last_seen,
        Err(why) => return failed(why),
    };
    if let Err(error) = node.guard.register(guest, &driver.cgroup_of(guest)).await {
        return failed(format!("the guard did not take it: {}", with_causes(&error)));
    }
    // The last look right before the act, when nothing of it waits any more: neither a lease that has run out meanwhile
    // (R14) nor an epoch that has been released (R9) or overtaken (R7) meanwhile starts anything.
    let (lease, released, name) = (node.lease.clone(), node.released.clone(), guest.clone());
    let go = move || {
        if !lease.is_valid() {
            return Err("the lease ran out before it could be started".to_owned());
        }
        released.check_start(&name, epoch)
    };
    match driver.start(guest, epoch, definition, how, go).await {
        Ok(started) => OrderOutcome::Done {
            detail: format!("QEMU was up after {} ms", began.elapsed().as_millis()),
            uri: started.uri,
            last_seen,
        },
        Err(error) => {
            if last_seen.is_some() {
                tracing::warn!(%guest, "a guest was stopped and could not be started anew; what was seen of it is kept");
            }
            failed(with_causes(&error))
        }
    }
}

/// Stops whatever an older assignment has left of a guest here, as when it is reset; returns what was last seen of it.
async fn stop_older(driver: &Driver, guest: &GuestName, epoch: Epoch) -> Result<Option<String>, String> {
    let reports = match driver.inventory().await {
        Ok(reports) => reports,
        Err(error) => return Err(format!("it cannot be known what runs here: {}", with_causes(&error))),
    };
    if !reports.iter().any(|report| report.guest == *guest && report.epoch != epoch) {
        return Ok(None);
    }
    let stopped = driver.stop_older(guest, epoch).await;
    stopped.map_err(|error| format!("what is left of it could not be stopped: {}", with_causes(&error)))
}

async fn release(node: &Arc<Node>, driver: &Driver, guest: &GuestName, epoch: Epoch, how: StopHow) -> OrderOutcome {
    // First, so that a start which is still on its way finds it.
    node.released.raise(guest, epoch);
    let (how, in_order) = match how {
        StopHow::PullPlug => (String::new(), false),
        StopHow::ShutDown { within } => match driver.shut_down(guest, within.0).await {
            Ok(took) => (format!("it shut down in {} ms; ", took.as_millis()), true),
            Err(error) => {
                (format!("its plug was pulled, because it did not shut down: {}; ", with_causes(&error)), false)
            }
        },
    };
    // What has shut down when it was asked to leaves nothing to find out.
    let stopped = if in_order { driver.stop(guest).await.map(|()| None) } else { driver.stop_ill(guest).await };
    match stopped {
        Ok(last_seen) => {
            if let Err(error) = node.guard.unregister(guest).await {
                tracing::warn!(%guest, error = %with_causes(&error), "the guard still counts a guest that is gone");
            }
            OrderOutcome::Done { detail: format!("{how}nothing of it is left here"), uri: None, last_seen }
        }
        Err(error) => failed(format!("{how}{}", with_causes(&error))),
    }
}

async fn restart_service(driver: &Driver, guest: &GuestName, run: &[String], deadline: Duration) -> OrderOutcome {
    let channel = match driver.agent(guest).await {
        Ok(channel) => channel,
        Err(error) => return failed(with_causes(&error)),
    };
    let began = Instant::now();
    if let Err(error) = channel.not_frozen().await {
        return failed(error.to_string());
    }
    match channel.exec(run, deadline.saturating_sub(ENDS_BEFORE + began.elapsed())).await {
        Ok(result) => match result.exit {
            Exit::Code(0) => done("the command ended with exit code 0"),
            Exit::Code(code) => failed(format!("exit code {code}: {}", String::from_utf8_lossy(&result.stderr))),
            Exit::Signal(signal) => failed(format!("ended by signal {signal}")),
        },
        Err(error) => failed(error.to_string()),
    }
}

/// Lets an arrived guest run, or one that was to be sent and stays. It may still be arriving, or the end of its sending may be on
/// its way, when the order comes.
async fn resume(node: &Arc<Node>, driver: &Driver, guest: &GuestName, epoch: Epoch) -> OrderOutcome {
    let began = Instant::now();
    loop {
        if !node.lease.is_valid() {
            return failed("the lease ran out before it could run");
        }
        if let Err(detail) = node.released.check(guest, epoch) {
            return failed(detail);
        }
        match driver.resume(guest).await {
            Ok(()) => return done(format!("it runs, {} ms after the order", began.elapsed().as_millis())),
            Err(ResumeError::Busy) if began.elapsed() < SENDING_ENDS => sleep(ARRIVAL_PAUSE).await,
            Err(ResumeError::NotPaused(_)) if began.elapsed() < ARRIVAL && arriving(driver, guest).await => {
                sleep(ARRIVAL_PAUSE).await;
            }
            Err(error) => return failed(with_causes(&error)),
        }
    }
}

async fn arriving(driver: &Driver, guest: &GuestName) -> bool {
    let reports = driver.inventory().await.unwrap_or_default();
    reports.iter().any(|report| report.guest == *guest && report.condition == GuestCondition::Incoming)
}

/// The second half of a drill, or the end of a fence: what was switched off is switched on, and seen to be on.
async fn switch_on(devices: &[Arc<dyn PowerDevice>], carried: Carried) -> Carried {
    let OrderOutcome::Done { detail, .. } = &carried.outcome else { return carried };
    let began = Instant::now();
    let outcome = match power_on_and_confirm(devices, SWITCH_ON).await {
        Ok(()) => done(format!("{detail}; on again after {} ms", began.elapsed().as_millis())),
        Err(error) => failed(format!("{detail}, and it could not be switched on again: {error}")),
    };
    Carried { outcome, ..carried }
}

async fn fence(
    target: &HostName,
    incarnation: &Incarnation,
    level: usize,
    devices: &[Arc<dyn PowerDevice>],
    deadline: Duration,
    go_ahead: impl Fn() -> bool + Send + Sync,
) -> Carried {
    if devices.is_empty() {
        return Carried::plain(failed("the level has no power device"));
    }
    let asked = clock::moment();
    let report = power_off_and_confirm(devices, deadline, go_ahead).await;
    for attempt in &report.attempts {
        tracing::info!(%target, device = %attempt.device, asked = ?attempt.asked, answer = %attempt.answer, "power device asked");
    }
    match report.outcome {
        Outcome::Off { took, readings } => {
            let asked_after = readings.iter().map(|reading| reading.asked_after).min().unwrap_or_default();
            let asked = asked.plus(asked_after);
            let reading = AgedReading {
                host: target.clone(),
                incarnation: incarnation.clone(),
                asked_ago_ms: millis(clock::moment().since(asked)),
                power: Power::Off,
                devices: readings.into_iter().map(|reading| reading.device).collect(),
                level,
            };
            let outcome = done(format!("off, confirmed after {} ms", took.as_millis()));
            Carried { outcome, reading: Some((reading, asked)) }
        }
        Outcome::StillOn { detail } => Carried::plain(failed(format!("{target} is still on: {detail}"))),
        Outcome::Unknown { detail } => Carried::plain(failed(detail)),
        Outcome::NoGoAhead => Carried::plain(failed("the coordinator's go-ahead was withdrawn or too old")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn defective() -> Carried {
        panic!("a defect")
    }

    #[tokio::test]
    async fn an_order_that_meets_a_defect_has_failed_and_does_not_stay_open() {
        let guest = GuestName::new("web-1").unwrap();
        let kind = OrderKind::Release { guest, epoch: Epoch::default(), how: StopHow::PullPlug };
        let (host, incarnation) = (HostName::new("hv-a").unwrap(), Incarnation::new("boot").unwrap());
        let order = Order { id: OrderId(7), host, incarnation, issued: 6, deadline: kind.deadline(), kind };
        let (id, carried) = to_its_end(order.clone(), defective()).await;
        assert_eq!(id, OrderId(7));
        assert!(matches!(carried.outcome, OrderOutcome::Failed { .. }), "{:?}", carried.outcome);
        let well = async { Carried::plain(done("it is gone")) };
        assert_eq!(to_its_end(order, well).await.1.outcome, done("it is gone"));
    }
}
