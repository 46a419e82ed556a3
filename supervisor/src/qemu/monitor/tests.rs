//! What is made of QEMU's events, without a QEMU.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use holdfast_policies::happened::Happening;
use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::UnixListener};

use super::{
    super::argv::{AGENT_CHARDEV, OWN_CHARDEV},
    hearing::is_open,
    *,
};

/// Long enough for any machine.
const LONG: Duration = Duration::from_secs(20);

/// A monitor of a guest that never runs, and the way to it.
fn monitor() -> (Monitor, MonitorClient, mpsc::Receiver<GuestEvent>) {
    let (events, told) = mpsc::channel(16);
    let (client, monitor) = prepare(bare("/nowhere".as_ref()), events);
    (monitor, client, told)
}

fn bare(folder: &std::path::Path) -> Monitored {
    Monitored::bare(folder, GuestName::new("web-1").unwrap())
}

fn happened(client: &MonitorClient) -> Vec<Happening> {
    client.happened(clock::moment()).into_iter().map(|happened| happened.what).collect()
}

#[test]
fn only_resets_of_the_guests_own_are_told_and_whether_its_watchdog_did_them() {
    let (mut monitor, client, mut told) = monitor();
    monitor.event("RESET", &json!({ "guest": false, "reason": "host-qmp-system-reset" }));
    assert_eq!(happened(&client), []);
    monitor.event("WATCHDOG", &json!({ "action": "reset" }));
    monitor.event("RESET", &json!({ "guest": true, "reason": "guest-reset" }));
    assert_eq!(happened(&client), [Happening::Reset { watchdog: true }]);
    assert!(matches!(told.try_recv(), Ok(GuestEvent::Watchdog { .. })));
    monitor.event("RESET", &json!({ "guest": true, "reason": "guest-reset" }));
    client.expect_reset(clock::moment().plus(Duration::from_secs(600)));
    monitor.event("RESET", &json!({ "guest": true, "reason": "guest-reset" }));
    assert_eq!(happened(&client), [true, false].map(|watchdog| Happening::Reset { watchdog }));
    assert_eq!(client.view().resets, 4, "a reboot that was ordered is waited for by them");
}

#[test]
fn both_ports_are_watched_and_an_agent_that_leaves_is_told() {
    let (mut monitor, client, mut told) = monitor();
    let open = |view: View| (view.agent_open, view.own_open);
    let chardevs = json!([
        { "label": "agent", "frontend-open": false },
        { "label": "serial0", "frontend-open": true },
        { "label": "holdfast", "frontend-open": true },
    ]);
    assert_eq!((is_open(&chardevs, AGENT_CHARDEV), is_open(&chardevs, OWN_CHARDEV)), (Some(false), Some(true)));
    monitor.event("VSERPORT_CHANGE", &json!({ "id": "agent-port", "open": false }));
    monitor.event("VSERPORT_CHANGE", &json!({ "id": "another-port", "open": true }));
    assert_eq!(open(client.view()), (Some(false), None));
    assert!(told.try_recv().is_err() && happened(&client).is_empty(), "one that was not there has not left");
    monitor.event("VSERPORT_CHANGE", &json!({ "id": "holdfast-port", "open": true }));
    assert!(matches!(told.try_recv(), Ok(GuestEvent::AgentChannel { own: true, connected: true, .. })));
    monitor.event("VSERPORT_CHANGE", &json!({ "id": "holdfast-port", "open": false }));
    assert!(matches!(told.try_recv(), Ok(GuestEvent::AgentChannel { own: true, connected: false, .. })));
    assert_eq!(open(client.view()), (Some(false), Some(false)));
    assert_eq!(happened(&client), [Happening::AgentLeft { own: true }]);
}

/// Answers every question, and says how its guest is only once. Counts how often it is asked for that.
async fn say_it_once(listener: UnixListener, asked: Arc<AtomicUsize>) {
    let (stream, _) = listener.accept().await.unwrap();
    let (read, mut write) = stream.into_split();
    let mut lines = wire::Lines::of(read);
    write.write_all(b"{\"QMP\":{}}\n").await.unwrap();
    while let Ok(line) = lines.next().await {
        let question: Value = serde_json::from_slice(&line).unwrap();
        let first = question["execute"] == "query-status" && asked.fetch_add(1, Ordering::Relaxed) == 0;
        let answer = if first { json!({ "status": "running" }) } else { json!({}) };
        let answer = json!({ "return": answer, "id": question["id"] });
        write.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
    }
}

#[tokio::test]
async fn a_monitor_whose_answers_say_nothing_makes_its_guest_unknown_and_is_asked_no_more_often_for_that() {
    let run_dir = tempfile::tempdir().unwrap();
    let monitored = bare(run_dir.path());
    let socket = monitored.files.qmp();
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let (listener, asked) = (UnixListener::bind(socket).unwrap(), Arc::new(AtomicUsize::new(0)));
    tokio::spawn(say_it_once(listener, Arc::clone(&asked)));
    let (events, _told) = mpsc::channel(16);
    let client = spawn_without_processes(monitored, events);
    let mut views = client.watch();
    let runs = views.wait_for(|view| view.condition == GuestCondition::Running);
    drop(timeout(LONG, runs).await.expect("it runs").unwrap());
    let unknown = views.wait_for(|view| matches!(view.condition, GuestCondition::Unknown { .. }));
    drop(timeout(LONG, unknown).await.expect("nobody knows any more").unwrap());
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked < 20, "{asked} times within some seconds");
}

/// Answers every question, and notes what it was asked.
async fn note_all(listener: UnixListener, noted: Arc<Mutex<Vec<String>>>) {
    let (stream, _) = listener.accept().await.unwrap();
    let (read, mut write) = stream.into_split();
    let mut lines = wire::Lines::of(read);
    write.write_all(b"{\"QMP\":{}}\n").await.unwrap();
    while let Ok(line) = lines.next().await {
        let question: Value = serde_json::from_slice(&line).unwrap();
        noted.lock().unwrap().push(question["execute"].as_str().unwrap().to_owned());
        let answer = json!({ "return": {}, "id": question["id"] });
        write.write_all(format!("{answer}\n").as_bytes()).await.unwrap();
    }
}

/// As after a restart of its supervisor beside a QEMU that hangs: it would be let run, or be reset, once nobody wants that any more.
#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_asked_of_a_qemu_that_can_be_spoken_to_again() {
    let run_dir = tempfile::tempdir().unwrap();
    let monitored = bare(run_dir.path());
    let socket = monitored.files.qmp();
    std::fs::create_dir_all(socket.parent().unwrap()).unwrap();
    let (events, _told) = mpsc::channel(16);
    let client = spawn_without_processes(monitored, events);
    let late = client.execute(qapi::qmp::cont {}, Duration::from_millis(50)).await;
    assert!(matches!(late, Err(AskError::Deadline(_))), "{late:?}");

    let noted = Arc::new(Mutex::new(Vec::new()));
    tokio::spawn(note_all(UnixListener::bind(socket).unwrap(), Arc::clone(&noted)));
    client.execute(qapi::qmp::stop {}, LONG).await.unwrap();
    let noted = noted.lock().unwrap();
    assert!(noted.iter().any(|asked| asked == "stop") && !noted.iter().any(|asked| asked == "cont"), "{noted:?}");
}

#[tokio::test]
async fn a_guest_that_is_killed_while_its_host_is_short_of_memory_says_so_and_one_that_ends_otherwise_does_not() {
    let run_dir = tempfile::tempdir().unwrap();
    let killed = format!("signal 9; {SAID}");
    for (status, is_short, said) in
        [("137", false, "signal 9"), ("137", true, killed.as_str()), ("139", true, "signal 11")]
    {
        let (mut monitor, client, _told) = monitor();
        let files = Files::new(run_dir.path(), &monitor.monitored.guest);
        files.make().unwrap();
        std::fs::write(files.exit(), status).unwrap();
        monitor.monitored.files = files;
        if is_short {
            monitor.monitored.kills.suppose(clock::moment());
        }
        monitor.exited().await;
        assert_eq!(client.view().condition, GuestCondition::Exited { detail: said.to_owned() });
    }
}
