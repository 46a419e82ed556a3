//! What a failed start leaves and tells, without a QEMU.

use std::collections::BTreeSet;

use tokio::sync::oneshot;

use super::{
    super::{
        monitor::{Monitored, spawn_without_processes},
        registry::Here,
        tests::idle,
    },
    *,
};

#[tokio::test(start_paused = true)]
async fn what_cleans_up_after_a_failed_start_for_too_long_is_ended_and_the_rest_is_cleared_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let inner = idle(folder.path());
    let record = Record::bare(GuestName::new("web-1").unwrap());
    let (guest, epoch, how) = (record.guest.clone(), record.epoch, record.how);
    let files = inner.files(&guest);
    files.make().unwrap();
    files.write(&record).unwrap();
    let monitored = Monitored {
        guest: guest.clone(),
        epoch,
        how,
        files: files.clone(),
        cgroup: inner.cgroup(&guest),
        taps: Vec::new(),
        foreign: None,
        kills: inner.kills.clone(),
    };
    let monitor = spawn_without_processes(monitored, inner.events.clone());
    let (next_run, is_touched) = oneshot::channel::<()>();
    let task = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_secs(600)).await;
        _ = next_run.send(());
    });
    let (exclusive, agent, display, definition) = (BTreeSet::new(), None, false, None);
    inner.registry.insert(&guest, Here { epoch, how, exclusive, monitor, agent, display, definition, task });

    let error = undo(&inner, &record, &[], host("run qemu")(io::ErrorKind::Other.into())).await;
    assert!(matches!(error, StartError::Host { .. }), "{error}");
    assert_eq!(files.read().unwrap(), None, "its record is left");
    is_touched.await.unwrap_err();
}

/// What its sandbox has ended as soon as it was told to listen for its migration would be started in it again and again.
#[tokio::test(start_paused = true)]
async fn how_a_qemu_has_ended_that_hangs_up_is_asked_once_that_is_written_down() {
    let folder = tempfile::tempdir().unwrap();
    let (cgroup, files) =
        (Cgroup::new(folder.path(), "web-1"), Files::new(folder.path(), &GuestName::new("web-1").unwrap()));
    cgroup.make().unwrap();
    files.make().unwrap();
    let events = cgroup.path().join("cgroup.events");
    std::fs::write(&events, "populated 1\nfrozen 0\n").unwrap();
    let ends = async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        std::fs::write(files.exit(), "159\n").unwrap();
        std::fs::write(&events, "populated 0\nfrozen 0\n").unwrap();
    };
    let (ended, ()) = tokio::join!(how_it_ended(&cgroup, &files), ends);
    assert_eq!(ended, "signal 31");
}
