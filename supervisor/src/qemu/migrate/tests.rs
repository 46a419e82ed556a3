//! Sending, told to a QEMU that answers by script: how busy its guest is no real one could be made to be at will.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
};

use holdfast_policies::names::{Epoch, GuestName};
use serde_json::json;
use tokio::{
    io::AsyncWriteExt,
    net::{UnixListener, unix::OwnedWriteHalf},
    sync::mpsc,
};

use super::*;
use crate::qemu::{
    Driver, GuestEvent, How,
    monitor::{self, Monitored},
    orphan::{self, Patience},
    registry::Here,
    tests::idle,
    wire::Lines,
};

const LONG: Duration = Duration::from_secs(20);

/// How far a QEMU is, and what it was told.
struct Script {
    /// For how long its guest would have to be stopped for any round, in milliseconds.
    needs_ms: u64,
    limit_ms: u64,
    round: u64,
    /// QEMU's word for how far the migration is.
    status: &'static str,
    /// Its word for how the guest is.
    runs: &'static str,
    /// A command that it carries out, and does not answer.
    unanswered: Option<&'static str>,
    /// What is cancelled waits to be woken.
    sleeps: bool,
    /// It hangs: what it is told it carries out and answers only afterwards.
    hangs: bool,
    /// Commands that change something, each with what it was told.
    told: Vec<(String, Value)>,
}

impl Script {
    /// What it answers, and whether it tells of its migration unasked.
    fn answer(&mut self, command: &str, arguments: &Value) -> (Value, bool) {
        match command {
            "query-status" => return (json!({ "status": self.runs }), false),
            "query-chardev" => return (json!([]), false),
            "query-migrate" => return self.look(),
            "migrate-set-parameters" => self.limit_ms = arguments["downtime-limit"].as_u64().unwrap(),
            "migrate" => (self.status, self.round) = ("active", 0),
            "migrate_cancel" if self.sleeps => self.status = "cancelling",
            // There is nothing to cancel of one that is over.
            "migrate_cancel" if self.status != "completed" => (self.status, self.runs) = ("cancelled", "running"),
            "migrate-continue" if self.status == "cancelling" => (self.status, self.runs) = ("cancelled", "running"),
            "migrate-continue" => (self.status, self.runs) = ("completed", "postmigrate"),
            _ => {}
        }
        self.told.push((command.to_owned(), arguments.clone()));
        (json!({}), command.starts_with("migrate"))
    }

    /// Each look finds it one round further. It stops the guest when what is left fits.
    fn look(&mut self) -> (Value, bool) {
        let is_active = self.status == "active";
        if is_active {
            self.round += 1;
        }
        let measured = if self.round < 2 { self.limit_ms } else { self.needs_ms };
        if is_active && self.round > 2 && self.needs_ms <= self.limit_ms {
            (self.status, self.runs) = ("pre-switchover", "finish-migrate");
        }
        let ram = json!({ "dirty-sync-count": self.round, "remaining": 300 << 20, "transferred": 1 });
        (json!({ "status": self.status, "expected-downtime": measured, "ram": ram }), is_active)
    }

    fn commands(&self) -> Vec<&str> {
        self.told.iter().map(|(command, _)| command.as_str()).collect()
    }
}

async fn serve(listener: UnixListener, script: Arc<Mutex<Script>>) {
    let (stream, _) = listener.accept().await.unwrap();
    let (read, mut write) = stream.into_split();
    let mut lines = Lines::of(read);
    say(&mut write, &json!({ "QMP": {} })).await;
    while let Ok(line) = lines.next().await {
        while script.lock().unwrap().hangs {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let asked: Value = serde_json::from_slice(&line).unwrap();
        let command = asked["execute"].as_str().unwrap();
        let (answer, unasked, status, unanswered) = {
            let mut script = script.lock().unwrap();
            let (answer, unasked) = script.answer(command, &asked["arguments"]);
            (answer, unasked, script.status, script.unanswered == Some(command))
        };
        if !unanswered {
            say(&mut write, &json!({ "return": answer, "id": asked["id"] })).await;
        }
        if unasked {
            say(&mut write, &json!({ "event": "MIGRATION", "data": { "status": status } })).await;
        }
    }
}

async fn say(write: &mut OwnedWriteHalf, message: &Value) {
    // Whoever listened may have heard enough.
    _ = write.write_all(format!("{message}\n").as_bytes()).await;
}

/// A guest that runs in such a QEMU, as its driver knows it.
async fn running(run_dir: &Path, needs_ms: u64) -> (MonitorClient, Arc<Mutex<Script>>, mpsc::Receiver<GuestEvent>) {
    let monitored = Monitored::bare(run_dir, GuestName::new("busy").unwrap());
    let socket = monitored.files.qmp();
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let listener = UnixListener::bind(socket).unwrap();
    let (limit_ms, round, unanswered, told) = (300, 0, None, Vec::new());
    let (status, runs, sleeps, hangs) = ("none", "running", false, false);
    let script = Script { needs_ms, limit_ms, round, status, runs, unanswered, sleeps, hangs, told };
    let script = Arc::new(Mutex::new(script));
    tokio::spawn(serve(listener, script.clone()));
    let (events, heard) = mpsc::channel(16);
    let client = monitor::spawn_without_processes(monitored, events);
    assert!(wait_for(&client, GuestCondition::Running, LONG).await);
    (client, script, heard)
}

/// The downtime limits that QEMU was given.
fn limits(script: &Script) -> Vec<u64> {
    let told = script.told.iter().filter(|(command, _)| command == "migrate-set-parameters");
    told.map(|(_, arguments)| arguments["downtime-limit"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn a_guest_that_writes_faster_than_it_is_copied_is_stopped_for_longer_step_by_step() {
    let run_dir = tempfile::tempdir().unwrap();
    let (client, script, _heard) = running(run_dir.path(), 300).await;
    let sent = send(&client, "tcp:192.0.2.1:4000", LONG, &|| true, async { true }).await.unwrap();
    let script = script.lock().unwrap();
    assert_eq!(limits(&script), [100, 200, 400]);
    assert!(sent.rounds > 8, "three rounds in vain for each step: {}", sent.rounds);
    let raised = script.told.iter().rfind(|(command, _)| command == "migrate-set-parameters").unwrap();
    assert_eq!(raised.1, json!({ "downtime-limit": 400 }), "the bandwidth is left as it was");
    assert_eq!(client.sending(), None, "it is not sent any more");
}

#[tokio::test]
async fn the_limit_of_an_attempt_before_is_not_that_of_the_next() {
    let run_dir = tempfile::tempdir().unwrap();
    let (client, script, _heard) = running(run_dir.path(), 150).await;
    let kept = send(&client, "tcp:192.0.2.1:4000", LONG, &|| true, async { false }).await;
    assert!(matches!(kept, Err(SendError::Kept(NotSent::NoWord))), "{kept:?}");
    script.lock().unwrap().needs_ms = 50;
    send(&client, "tcp:192.0.2.1:4000", LONG, &|| true, async { true }).await.unwrap();
    assert_eq!(limits(&script.lock().unwrap()), [100, 200, 100]);
}

#[tokio::test]
async fn a_move_that_is_called_off_ends_at_once_and_the_guest_runs_on() {
    let run_dir = tempfile::tempdir().unwrap();
    let (client, script, _heard) = running(run_dir.path(), 60_000).await;
    let is_wanted = Arc::new(AtomicBool::new(true));
    let wanted = {
        let is_wanted = is_wanted.clone();
        move || is_wanted.load(Ordering::Relaxed)
    };
    let sender = client.clone();
    let sending = tokio::spawn(async move {
        send(&sender, "tcp:192.0.2.1:4000", Duration::from_secs(7_200), &wanted, async { true }).await
    });
    let told = async {
        loop {
            if let Some(told) = client.sending().filter(|told| told.round > 3) {
                return told;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let told = timeout(LONG, told).await.expect("it says how far it is");
    assert_eq!((told.left_mib, told.downtime_ms), (300, DOWNTIME_MS), "no stop that is allowed would do");
    is_wanted.store(false, Ordering::Relaxed);
    let called_off = Instant::now();
    let kept = timeout(LONG, sending).await.expect("it ends").unwrap();
    eprintln!("ended after {:?}", called_off.elapsed());
    assert!(matches!(kept, Err(SendError::Kept(NotSent::CalledOff))), "{kept:?}");
    assert_eq!(script.lock().unwrap().commands().last(), Some(&"migrate_cancel"));
    assert_eq!((client.sending(), client.view().condition), (None, GuestCondition::Running));
}

#[tokio::test]
async fn a_move_that_was_called_off_before_it_began_is_not_begun() {
    let run_dir = tempfile::tempdir().unwrap();
    let (client, script, _heard) = running(run_dir.path(), 50).await;
    let kept = send(&client, "tcp:192.0.2.1:4000", LONG, &|| false, async { true }).await;
    assert!(matches!(kept, Err(SendError::Kept(NotSent::CalledOff))), "{kept:?}");
    assert!(!script.lock().unwrap().commands().contains(&"migrate"));
}

#[tokio::test]
async fn a_move_whose_beginning_is_not_answered_is_cancelled_lest_it_goes_on_with_nobody_to_follow_it() {
    let run_dir = tempfile::tempdir().unwrap();
    let (client, script, _heard) = running(run_dir.path(), 50).await;
    script.lock().unwrap().unanswered = Some("migrate");
    let kept = send(&client, "tcp:192.0.2.1:4000", LONG, &|| true, async { true }).await;
    assert!(matches!(kept, Err(SendError::Kept(NotSent::Qemu(_)))), "{kept:?}");
    let script = script.lock().unwrap();
    assert_eq!((script.commands().last(), script.status), (Some(&"migrate_cancel"), "cancelled"));
}

/// As QEMU does with a cancellation that comes right before it waits for the word (seen with 7.2), told by one that does not answer.
#[tokio::test]
async fn a_guest_whose_qemu_did_not_answer_when_its_move_was_to_end_is_woken_as_soon_as_it_answers() {
    let run_dir = tempfile::tempdir().unwrap();
    let (client, script, _heard) = running(run_dir.path(), 50).await;
    script.lock().unwrap().sleeps = true;
    let (driver, name) = driver_of(run_dir.path(), &client);
    let silent = script.clone();
    let no_word = async move {
        silent.lock().unwrap().unanswered = Some("migrate_cancel");
        false
    };
    let sent = driver.send_to(&name, "tcp:192.0.2.1:4000", LONG, || true, no_word).await;
    assert!(matches!(sent, Err(SendError::Unknown(_))), "{sent:?}");
    script.lock().unwrap().unanswered = None;
    let woken = async {
        while script.lock().unwrap().status != "cancelled" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, woken).await.expect("it is woken");
    assert!(wait_for(&client, GuestCondition::Running, LONG).await);
}

/// The driver of a host on which only this guest runs.
fn driver_of(run_dir: &Path, client: &MonitorClient) -> (Driver, GuestName) {
    let (inner, name) = (idle(run_dir), GuestName::new("busy").unwrap());
    let (exclusive, agent, display, definition) = (BTreeSet::new(), None, false, None);
    let (epoch, how, monitor, task) = (Epoch::default(), How::Run, client.clone(), tokio::spawn(async {}));
    inner.registry.insert(&name, Here { epoch, how, exclusive, monitor, agent, display, definition, task });
    (Driver { inner: Arc::new(inner) }, name)
}

/// Whoever begins to wait for it has last seen it answer, and takes it for one that does.
#[tokio::test]
async fn a_guest_whose_qemu_hangs_for_longer_than_a_cancellation_is_tried_is_woken_all_the_same() {
    let run_dir = tempfile::tempdir().unwrap();
    let (client, script, _heard) = running(run_dir.path(), 50).await;
    script.lock().unwrap().sleeps = true;
    let (driver, name) = driver_of(run_dir.path(), &client);
    let silent = script.clone();
    let no_word = async move {
        silent.lock().unwrap().hangs = true;
        false
    };
    let sent = send(&client, "tcp:192.0.2.1:4000", LONG, &|| true, no_word).await;
    assert!(matches!(sent, Err(SendError::Unknown(_))), "{sent:?}");
    let patience = Patience { tries: 1, pause: ANSWER_DEADLINE / 4 };
    let (inner, run) = (Arc::downgrade(&driver.inner), driver.inner.registry.started(&name));
    let mut keeping = tokio::spawn(orphan::keep(inner, name, run, client.watch(), patience));
    let gave_up = timeout(ANSWER_DEADLINE * 2, &mut keeping).await;
    assert!(gave_up.is_err(), "it has given up a QEMU that hangs");
    script.lock().unwrap().hangs = false;
    timeout(LONG, keeping).await.expect("it ends").unwrap();
    assert_eq!(script.lock().unwrap().status, "cancelled");
    assert!(wait_for(&client, GuestCondition::Running, LONG).await);
}

/// Of a guest that has come by a move QEMU says that its migration has completed, until it begins another one.
#[tokio::test]
async fn the_move_by_which_a_guest_has_come_is_not_taken_for_one_that_could_not_begin() {
    let run_dir = tempfile::tempdir().unwrap();
    let (client, script, _heard) = running(run_dir.path(), 50).await;
    {
        let mut script = script.lock().unwrap();
        (script.status, script.unanswered) = ("completed", Some("migrate-set-capabilities"));
    }
    let kept = send(&client, "tcp:192.0.2.1:4000", LONG, &|| true, async { true }).await;
    assert!(matches!(kept, Err(SendError::Kept(NotSent::Qemu(_)))), "{kept:?}");
    assert!(!script.lock().unwrap().commands().contains(&"migrate"));
}
