//! Promises of the whole way from state to receiver, against a real Alertmanager and a scripted pager.

use std::{
    io::Write,
    os::unix::fs::PermissionsExt,
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use holdfast_policies::{
    incident::{Incident, Stamps},
    model::{Receiver, Severity},
    names::GuestName,
    time::{Moment, Now, WallTime, millis},
};
use serde_json::Value;
use tokio::{
    process::{Child, Command},
    sync::{mpsc, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::{
    super::metrics::Metrics,
    stub::{Seen, Stub, until},
    *,
};

const KEY: &str = "0123456789abcdef0123456789abcdef";

/// An open incident about guest `web-1`, at its first change.
pub(super) fn incident(id: u64) -> Incident {
    Incident {
        id,
        key: "guest/web-1".to_owned(),
        severity: Severity::Critical,
        opened: WallTime(1_767_323_045_000),
        resolved: None,
        seq: 1,
        changed: 0,
        summary: "Guest web-1 does not answer on hv-a.".to_owned(),
        done: vec!["Fenced hv-a.".to_owned(), "Started web-1 on hv-b.".to_owned()],
        human: Some("Repair hv-a.".to_owned()),
        rung: Some("failover".to_owned()),
        proof: Some(("PowerOff".to_owned(), "the controller says off".to_owned())),
        stamps: Stamps::default(),
        guests: vec![GuestName::new("web-1").unwrap()],
        seen: Vec::new(),
        delivered: std::collections::BTreeMap::new(),
    }
}

fn now() -> Now {
    static START: OnceLock<Instant> = OnceLock::new();
    let moment = Moment(1_000_000).plus(START.get_or_init(Instant::now).elapsed());
    Now { moment, wall: WallTime(millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap())) }
}

/// A running task and a lead that commits what it confirms.
struct Lead {
    states: Arc<watch::Sender<Arc<AlertState>>>,
    trouble: watch::Receiver<Vec<Trouble>>,
    metrics: Arc<Metrics>,
    tasks: [JoinHandle<()>; 2],
}

impl Lead {
    fn start(receivers: Vec<Receiver>, incidents: Vec<Incident>) -> Self {
        let state = AlertState { cluster: "prod".to_owned(), receivers, incidents, active: true };
        let (states, states_seen) = watch::channel(Arc::new(state));
        let (states, metrics) = (Arc::new(states), Arc::new(Metrics::new().unwrap()));
        let (confirm, mut confirmed) = mpsc::channel::<Delivered>(4);
        let (trouble, trouble_seen) = watch::channel(Vec::new());
        let deliverer = Deliverer::new().unwrap();
        let task =
            run(states_seen, confirm, trouble, metrics.clone(), Arc::new(now), deliverer, CancellationToken::new());
        let commits = states.clone();
        let commit = async move {
            while let Some(delivered) = confirmed.recv().await {
                change(&commits, |state| {
                    let found = state.incidents.iter_mut().find(|incident| incident.id == delivered.incident);
                    found.unwrap().delivered.insert(delivered.receiver, delivered.seq);
                });
            }
        };
        Self { states, trouble: trouble_seen, metrics, tasks: [tokio::spawn(task), tokio::spawn(commit)] }
    }

    fn incident(&self, edit: impl FnOnce(&mut Incident)) {
        change(&self.states, |state| {
            state.incidents[0].seq += 1;
            edit(&mut state.incidents[0]);
        });
    }

    /// Waits until every receiver has confirmed the newest change.
    async fn all_told(&self) {
        until("every receiver confirmed", async || {
            let state = self.states.borrow().clone();
            let told = |incident: &Incident| {
                state.receivers.iter().all(|receiver| incident.delivered.get(&receiver.key()) == Some(&incident.seq))
            };
            state.incidents.iter().all(told).then_some(())
        })
        .await;
    }
}

impl Drop for Lead {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

fn change(states: &watch::Sender<Arc<AlertState>>, edit: impl FnOnce(&mut AlertState)) {
    states.send_modify(|state| edit(Arc::make_mut(state)));
}

fn pager(stub: &Stub) -> (Receiver, tempfile::NamedTempFile) {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    writeln!(file, "{KEY}").unwrap();
    let routing_key_file = file.path().to_owned();
    (Receiver::Pagerduty { routing_key_file, min_severity: Severity::Info, url: stub.url.clone() }, file)
}

fn actions(stub: &Stub) -> Vec<String> {
    stub.seen().iter().map(|seen| seen.body["event_action"].as_str().unwrap_or("?").to_owned()).collect()
}

#[tokio::test]
async fn a_pager_that_stumbles_is_told_again_and_hears_the_end() {
    let stub = Stub::start(&["500 Oops", "429 Slow down\r\nretry-after: 1", "202 Accepted"]).await;
    let (receiver, _file) = pager(&stub);
    let lead = Lead::start(vec![receiver], vec![incident(7)]);
    lead.all_told().await;
    assert_eq!(actions(&stub), ["trigger", "trigger", "trigger"]);
    lead.incident(|incident| incident.resolved = Some(now().wall));
    lead.all_told().await;
    let seen = stub.seen();
    assert_eq!(actions(&stub), ["trigger", "trigger", "trigger", "resolve"]);
    assert!(
        seen.iter().all(|seen| seen.path == "/v2/enqueue" && seen.body["dedup_key"] == "holdfast/prod/guest/web-1#7")
    );
    let page = lead.metrics.render();
    assert!(page.contains("holdfast_alert_sends_total{receiver=\"pagerduty\",result=\"retried\"} 2"), "{page}");
    assert!(page.contains("holdfast_alert_sends_total{receiver=\"pagerduty\",result=\"accepted\"} 2"), "{page}");
}

#[tokio::test]
async fn what_waits_for_a_receiver_is_shown_no_more_once_the_coordinators_task_has_ended() {
    let hook = Receiver::Webhook { url: "http://127.0.0.1:1/".to_owned(), min_severity: Severity::Info };
    let (receivers, incidents) = (vec![hook], vec![incident(7)]);
    let state = AlertState { cluster: "prod".to_owned(), receivers, incidents, active: true };
    let (states, states_seen) = watch::channel(Arc::new(state));
    let (confirm, _confirmed) = mpsc::channel(4);
    let (trouble, _trouble_seen) = watch::channel(Vec::new());
    let (metrics, deliverer) = (Arc::new(Metrics::new().unwrap()), Deliverer::new().unwrap());
    let task = run(states_seen, confirm, trouble, metrics.clone(), Arc::new(now), deliverer, CancellationToken::new());
    let task = tokio::spawn(task);
    let shows = |waiting: usize| {
        let line = format!("holdfast_alerts_pending{{receiver=\"webhook\"}} {waiting}");
        metrics.render().lines().any(|shown| shown == line)
    };
    until("it is shown that it waits", async || shows(1).then_some(())).await;
    drop(states);
    task.await.unwrap();
    assert!(shows(0));
}

/// What was logged, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_refusal_is_not_repeated_but_shown_and_nothing_secret_is_logged() {
    let log = Log::default();
    let writer = log.clone();
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE).with_writer(move || writer.clone()).finish();
    let _guard = tracing::subscriber::set_default(subscriber);
    let stub = Stub::start(&["400 Bad Request", "202 Accepted"]).await;
    let (receiver, file) = pager(&stub);
    let hook = Receiver::Webhook { url: "http://127.0.0.1:1/T0/hunter2".to_owned(), min_severity: Severity::Info };
    let mut lead = Lead::start(vec![receiver, hook], vec![incident(7)]);
    let troubles = lead
        .trouble
        .wait_for(|troubles| troubles.len() == 2 && troubles.iter().any(|trouble| trouble.tries >= 2))
        .await;
    let troubles = troubles.unwrap().clone();
    assert!(
        troubles
            .iter()
            .any(|trouble| trouble.rejected && trouble.detail.contains("400") && trouble.detail.contains("(secret)")),
        "{troubles:?}"
    );
    // The webhook's second try came a second later; the pager was left alone meanwhile.
    assert_eq!(stub.seen().len(), 1);
    assert!(lead.metrics.render().contains("holdfast_alerts_rejected{receiver=\"pagerduty\"} 1"));
    // Nobody reads a key that others can read; the next change waits until that is mended.
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    lead.incident(|incident| incident.summary = "Still so.".to_owned());
    lead.trouble
        .wait_for(|troubles| troubles.iter().any(|trouble| trouble.detail.contains("make it 0600")))
        .await
        .unwrap();
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
    until("the mended key is used", async || (stub.seen().len() == 2).then_some(())).await;
    let logged = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(logged.contains("alert refused by its receiver"), "{logged}");
    let details: String =
        troubles.iter().map(|trouble| format!("{}: {}\n", trouble.receiver, trouble.detail)).collect();
    assert!(details.contains("webhook:http://127.0.0.1:1/…: "), "{details}");
    for secret in [KEY, "hunter2"] {
        // The client's own tracing is not ours to print; a supervisor logs its own targets.
        let ours: Vec<_> = logged.lines().filter(|line| line.contains("alert")).collect();
        assert!(!ours.iter().any(|line| line.contains(secret)) && !details.contains(secret), "{ours:?} {details}");
    }
}

#[tokio::test]
async fn alertmanager_is_told_by_its_own_clock_where_this_hosts_is_years_off() {
    let _ = Deliverer::new();
    let stub = Stub::start(&["200 OK\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT"]).await;
    let receiver = Receiver::Alertmanager { url: stub.url.clone(), min_severity: Severity::Info };
    let lead = Lead::start(vec![receiver], vec![Incident { opened: now().wall, ..incident(7) }]);
    lead.all_told().await;
    let at = |seen: &Seen, key: &str| seen.body[0][key].as_str().unwrap().to_owned();
    let seen = stub.seen();
    assert_eq!(seen.len(), 2, "nothing was known of its clock before");
    assert!(at(&seen[1], "startsAt").starts_with("1994-11-06T08:"), "{:?}", seen[1]);
    assert!(at(&seen[1], "endsAt").starts_with("1994-11-06T08:5"), "{:?}", seen[1]);
    lead.incident(|incident| incident.resolved = Some(now().wall));
    lead.all_told().await;
    let seen = stub.seen();
    assert_eq!(seen.len(), 3);
    assert!(at(&seen[2], "endsAt").starts_with("1994-11-06T08:"), "an end to come would end nothing: {:?}", seen[2]);
}

/// A real Alertmanager on loopback that tells `hook` of everything; `None` where real peers were expressly waived.
async fn alertmanager(hook: &str) -> Option<(Child, String, tempfile::TempDir)> {
    let folder = tempfile::tempdir().unwrap();
    let config = format!(
        "route: {{receiver: hook, group_by: [incident], group_wait: 0s, group_interval: 1s, repeat_interval: 1h}}\n\
         receivers: [{{name: hook, webhook_configs: [{{url: '{hook}', send_resolved: true}}]}}]\n"
    );
    let file = folder.path().join("alertmanager.yml");
    std::fs::write(&file, config).unwrap();
    let port = free_port();
    let child = Command::new("prometheus-alertmanager")
        .arg(format!("--config.file={}", file.display()))
        .arg(format!("--storage.path={}", folder.path().display()))
        .arg(format!("--web.listen-address=127.0.0.1:{port}"))
        .args(["--cluster.listen-address=", "--log.level=error"])
        .kill_on_drop(true)
        .spawn();
    match child {
        Ok(child) => Some((child, format!("http://127.0.0.1:{port}"), folder)),
        Err(_) if std::env::var_os("HOLDFAST_NO_LAB").is_some_and(|value| value == "1") => None,
        Err(error) => panic!(
            "prometheus-alertmanager cannot be run ({error}); install it, or set HOLDFAST_NO_LAB=1 to do without"
        ),
    }
}

/// A free loopback port, for a program that is about to listen there: below those that the kernel gives to whoever asks for any, so that
/// nobody is given it while the program starts.
fn free_port() -> u16 {
    // Others for each process that runs tests.
    let first = 20_000 + std::process::id() * 64 % 12_000;
    let mut ports = (first..first + 64).filter_map(|port| u16::try_from(port).ok());
    ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port")
}

/// The alerts that Alertmanager holds for active.
async fn active(client: &reqwest::Client, base: &str) -> Option<Vec<Value>> {
    let answer = client.get(format!("{base}/api/v2/alerts")).send().await.ok()?;
    serde_json::from_slice(&answer.bytes().await.ok()?).ok()
}

#[tokio::test]
async fn a_real_alertmanager_shows_one_alert_through_every_change_and_ends_it() {
    let _ = Deliverer::new();
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
    let stub = Stub::start(&["200 OK"]).await;
    let Some((_child, base, _folder)) = alertmanager(&stub.url).await else { return };
    // Starts while Alertmanager does, so the first sends may be refused connections, as in life.
    let opened = WallTime(now().wall.0 - 5_000);
    let receiver = Receiver::Alertmanager { url: base.clone(), min_severity: Severity::Info };
    let lead = Lead::start(vec![receiver], vec![Incident { opened, severity: Severity::Error, ..incident(7) }]);
    lead.all_told().await;
    let first =
        until("the alert is active", async || active(&client, &base).await.filter(|alerts| alerts.len() == 1)).await;
    assert_eq!(first[0]["labels"]["alertname"], "HoldfastIncident");
    lead.incident(|incident| {
        incident.severity = Severity::Critical;
        incident.summary = "Guest web-1 is being moved.".to_owned();
    });
    lead.all_told().await;
    let second = until("the change is shown", async || {
        active(&client, &base)
            .await
            .filter(|alerts| alerts[0]["annotations"]["summary"] == "Guest web-1 is being moved.")
    })
    .await;
    assert_eq!(
        (second.len(), &second[0]["fingerprint"]),
        (1, &first[0]["fingerprint"]),
        "a change made a second alert"
    );
    assert_eq!(second[0]["annotations"]["severity"], "critical");
    lead.incident(|incident| incident.resolved = Some(now().wall));
    lead.all_told().await;
    until("the alert has ended", async || active(&client, &base).await.filter(Vec::is_empty)).await;
    until("the end is announced", async || {
        stub.seen().iter().any(|seen| seen.body["status"] == "resolved").then_some(())
    })
    .await;
}
