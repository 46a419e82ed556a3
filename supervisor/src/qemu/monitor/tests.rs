//! What is made of QEMU's events, without a QEMU.

use super::*;

/// A monitor of a guest that never runs, and the way to it.
fn monitor() -> (Monitor, MonitorClient, mpsc::Receiver<GuestEvent>) {
    let folder = std::path::Path::new("/nowhere");
    let guest = GuestName::new("web-1").unwrap();
    let monitored = Monitored {
        files: Files::new(folder, &guest),
        cgroup: Cgroup::new(folder, "web-1"),
        guest,
        epoch: Epoch::default(),
        how: How::Run,
        taps: Vec::new(),
        foreign: None,
    };
    let (events, told) = mpsc::channel(16);
    let (client, monitor) = prepare(monitored, events);
    (monitor, client, told)
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
