//! Starts one guest: check, record, cgroup, taps, process, monitor, in this order, so that a crash at any point leaves
//! something that the next supervisor recognises.

use std::{
    io,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use holdfast_policies::{
    model::{Accel, QemuDefinition},
    names::{Epoch, GuestName},
    observe::GuestCondition,
    time::{WallTime, millis},
};
use tokio::time::timeout;

use super::{
    AskError, How, Inner, StartError, Started, accel,
    argv::Machine,
    cgroup::Cgroup,
    holder, launch, locks, logs, migrate,
    monitor::MonitorClient,
    net,
    record::{Files, Process, Record},
    sandbox, storage, way,
};
use crate::guard::boot_id;

/// How long QEMU may take to answer after it was run. It takes some 100 ms; most of that is loading.
const COME_UP_DEADLINE: Duration = Duration::from_secs(10);

/// How long it may take until it is written down how a QEMU has ended that has hung up. One that lives is killed then.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// How long a QEMU that did not come up may take to die.
const UNDO_DEADLINE: Duration = Duration::from_secs(5);

/// Whether QEMU may still be run.
type Go<'a> = dyn Fn() -> Result<(), String> + Send + Sync + 'a;

/// Starts a guest.
pub async fn start(
    inner: &Inner,
    guest: &GuestName,
    epoch: Epoch,
    definition: &QemuDefinition,
    how: How,
    go: &Go<'_>,
) -> Result<Started, StartError> {
    let gate = inner.registry.gate(guest);
    let _gate = gate.lock().await;
    if inner.cgroup(guest).populated().map_err(host("look at its cgroup"))? {
        return already(inner, guest, epoch, how).await;
    }
    inner.forget(guest).await.map_err(host("remove what an earlier run left"))?;
    let needs = storage::look(guest, definition).await.map_err(host("look at its disks"))?;
    locks::check(definition, how).await?;
    way::check(definition, Path::new(way::VHOST_VSOCK)).await.map_err(StartError::Vsock)?;
    let kvm = inner.kvm.find_out(|| accel::try_kvm(&inner.config.binary));
    let (kvm, sandboxed) = tokio::join!(kvm, is_sandboxed(inner, guest));
    let accelerator = accel::choose(definition.accel, &kvm).map_err(StartError::Acceleration)?;
    if let (Accel::Auto, Err(why)) = (definition.accel, &kvm) {
        tracing::warn!(%guest, why, "kvm does not work; the guest is emulated in software");
    }
    inner.registry.reserve(guest, epoch, &needs)?;
    let files = inner.files(guest);
    let (taps, direct) = (net::tap_names(guest, definition.nics.len()), &needs.direct);
    let machine = Machine { guest, definition, how, accelerator, files: &files, taps: &taps, direct, sandboxed };
    let record = Record {
        guest: guest.clone(),
        epoch,
        definition: definition.clone(),
        how,
        started: wall_time(),
        exclusive: needs.exclusive,
        process: None,
        boot: boot_id(),
    };
    let started = match run(inner, &record, &machine.argv(), go).await {
        Ok(()) => come_up(inner, record.clone()).await,
        Err(error) => Err(error),
    };
    match started {
        Ok(started) => Ok(started),
        Err(error) => Err(undo(inner, &record, &taps, error).await),
    }
}

/// Whether the guest's QEMU is to confine itself. One that cannot runs its guest all the same.
async fn is_sandboxed(inner: &Inner, guest: &GuestName) -> bool {
    if !inner.config.sandbox {
        return false;
    }
    let found = inner.sandbox.find_out(|| sandbox::try_out(&inner.config.binary)).await;
    if let Err(why) = &found {
        tracing::warn!(%guest, why, "QEMU cannot confine itself (-sandbox); the guest runs without that");
    }
    found.is_ok()
}

/// The guest's processes are there: by the same order, or in its way.
async fn already(inner: &Inner, guest: &GuestName, epoch: Epoch, how: How) -> Result<Started, StartError> {
    let started = inner.registry.started(guest);
    let monitor = inner.registry.monitor(guest);
    match (started, monitor) {
        (Some(known), Some(monitor)) if known == (epoch, how) => {
            if monitor.view().condition != GuestCondition::Incoming {
                return Ok(Started { uri: None });
            }
            let address = inner.config.migrate_address;
            let uri = match migrate::listening(&monitor, address).await {
                Ok(uri) => Ok(uri),
                // An earlier supervisor died before it had made it listen.
                Err(_) => migrate::listen(&monitor, address).await,
            };
            uri.map(|uri| Started { uri: Some(uri) }).map_err(cannot_listen)
        }
        (known, _) => {
            let epoch = known.map(|(epoch, _)| epoch).unwrap_or_default();
            Err(StartError::AlreadyRunning { guest: guest.clone(), epoch })
        }
    }
}

async fn run(inner: &Inner, record: &Record, argv: &[String], go: &Go<'_>) -> Result<(), StartError> {
    let guest = &record.guest;
    let (files, cgroup) = (inner.files(guest), inner.cgroup(guest));
    files.make().map_err(host("make its folder"))?;
    logs::begin_anew(&files).await;
    files.write(record).map_err(host("write its record"))?;
    cgroup.make().map_err(host("make its cgroup"))?;
    net::make(guest, &record.definition.nics).await?;
    launch::launch(&inner.config.binary, argv, &cgroup, &files, go).await.map_err(host("run qemu"))
}

/// Waits until QEMU answers, and completes the record.
async fn come_up(inner: &Inner, mut record: Record) -> Result<Started, StartError> {
    let guest = record.guest.clone();
    let files = inner.files(&guest);
    inner.enter(&guest, record.epoch, Some(&record), None);
    let Some(monitor) = inner.registry.monitor(&guest) else {
        return Err(StartError::Failed("stopped meanwhile".to_owned()));
    };
    answering(&monitor, &record.definition).await?;
    let pid = files.read_pid().map_err(host("read the process number"))?;
    record.process = Some(Process::find(pid).map_err(host("find the process"))?);
    files.write(&record).map_err(host("write its record"))?;
    if record.how == How::Run {
        return Ok(Started { uri: None });
    }
    let uri = migrate::listen(&monitor, inner.config.migrate_address).await.map_err(cannot_listen)?;
    Ok(Started { uri: Some(uri) })
}

fn cannot_listen(error: AskError) -> StartError {
    StartError::MayStillRun(format!("cannot listen for its migration: {error}"))
}

async fn answering(monitor: &MonitorClient, definition: &QemuDefinition) -> Result<(), StartError> {
    let mut changes = monitor.watch();
    let known = changes.wait_for(|view| !matches!(view.condition, GuestCondition::Unknown { .. }));
    let condition = match timeout(COME_UP_DEADLINE, known).await {
        Ok(Ok(view)) => view.condition.clone(),
        Ok(Err(_)) => monitor.view().condition,
        Err(_) => {
            let why = way::may_wait_for(definition);
            return Err(StartError::Failed(format!("no answer from its monitor within {COME_UP_DEADLINE:?}{why}")));
        }
    };
    match condition {
        GuestCondition::Exited { detail } => Err(StartError::Failed(detail)),
        _ => Ok(()),
    }
}

/// Makes sure that a failed start leaves nothing running, and says so if that cannot be had.
async fn undo(inner: &Inner, record: &Record, taps: &[String], error: StartError) -> StartError {
    let guest = &record.guest;
    let cgroup = inner.cgroup(guest);
    let error = match error {
        StartError::Failed(detail) | StartError::MayStillRun(detail) => {
            let (ended, last_words) = (how_it_ended(&cgroup, &inner.files(guest)).await, inner.files(guest).log_tail());
            // Also of one that came up, and ended when it was told to listen for its migration: `detail` does not say how.
            inner.sandbox.doubt(&ended, &last_words);
            let holder = holder::of(&record.definition, &last_words).await;
            // First, since what travels is cut, and the coordinator looks for it.
            let holder = holder.map(|holder| format!("{holder}; ")).unwrap_or_default();
            StartError::Failed(format!("{holder}{detail}; {last_words}"))
        }
        other => other,
    };
    let killed = cgroup.kill();
    if killed.is_err() || timeout(UNDO_DEADLINE, cgroup.wait_empty()).await.is_err() {
        if inner.registry.monitor(guest).is_none() {
            inner.enter(guest, record.epoch, Some(record), None);
        }
        return StartError::MayStillRun(format!("{error}; processes {:?}", cgroup.processes().unwrap_or_default()));
    }
    inner.registry.release(guest);
    // It waits only so long for the task that cleans up, and ends that then. Given up before, it would leave the task behind, to remove
    // the taps of the next run.
    let forgotten = inner.forget(guest).await;
    let removed = net::remove(taps).await;
    if forgotten.is_err() || removed.is_err() {
        tracing::warn!(%guest, ?forgotten, ?removed, "a failed start left something behind");
    }
    error
}

/// How QEMU has ended, if it has. It hangs up a moment before the shell that waits for it has written that down, and left the cgroup.
async fn how_it_ended(cgroup: &Cgroup, files: &Files) -> String {
    _ = timeout(ENDS_WITHIN, cgroup.wait_empty()).await;
    files.read_exit()
}

fn host(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |source| StartError::Host { what, source }
}

fn wall_time() -> WallTime {
    WallTime(SystemTime::now().duration_since(UNIX_EPOCH).map(millis).unwrap_or_default())
}

#[cfg(test)]
mod tests;
