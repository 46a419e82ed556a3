//! Alerts reach a real Prometheus Alertmanager: an incident is one alert from its beginning to its end, whoever leads.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what a test's helper cannot do fails the test")]

use std::time::Duration;

use holdfast_tests::lab::{
    HostSpec, Lab, Scene, left_out,
    network::CLIENT_ADDRESS,
    scene::{GUEST, LIMIT},
    wait,
};
use serde_json::Value;

/// Where Alertmanager listens, in the client's namespace.
const PORT: u16 = 9093;

#[test]
fn an_incident_is_one_alert_from_beginning_to_end_whoever_leads() {
    if left_out("an_incident_is_one_alert_from_beginning_to_end_whoever_leads") {
        return;
    }
    let hosts = HostSpec::three_and_member();
    let receiver = format!("alerts:\n  - alertmanager: {{ url: \"http://{CLIENT_ADDRESS}:{PORT}\" }}\n");
    let mut scene = Scene::prepared(hosts, &receiver, start_alertmanager).unwrap();
    let (_, leader) = scene.arranged(false).unwrap();

    // A guest that is killed: its incident comes, and goes.
    let resolved = received(&scene.lab, "resolved");
    scene.kill_qemu().unwrap();
    let key = format!("guest/{GUEST}");
    let alert = wait::until("the alert of the guest", LIMIT, || one(&scene.lab, &key)).unwrap();
    assert_eq!(alert["labels"]["alertname"], "HoldfastIncident");
    for annotation in ["summary", "description", "human"] {
        assert!(alert["annotations"][annotation].as_str().is_some_and(|text| !text.is_empty()), "{alert}");
    }
    scene.calm().unwrap();
    wait::until("the end of the alert", LIMIT, || none(&scene.lab, &key)).unwrap();
    assert!(received(&scene.lab, "resolved") > resolved);

    // An incident that is open when the leader changes stays the one alert that it is.
    scene.lab.kill_supervisor("m1").unwrap();
    let before = wait::until("the alert of the member", LIMIT, || one(&scene.lab, "supervisor/m1")).unwrap();
    scene.lab.kill_supervisor(&leader).unwrap();
    let key = format!("supervisor/{leader}");
    wait::until("the alert of the old leader, from the new one", LIMIT, || one(&scene.lab, &key)).unwrap();
    assert_ne!(scene.leader().unwrap(), leader);
    scene
        .never(Duration::from_secs(3), |scene| {
            // One question without an answer says nothing.
            let alerts = wait::until("the word of Alertmanager", LIMIT, || firing(&scene.lab, "supervisor/m1"))?;
            let same = |alert: &Value| alert["fingerprint"] == before["fingerprint"];
            anyhow::ensure!(alerts.len() == 1 && alerts.iter().all(same), "became {alerts:?}");
            Ok(())
        })
        .unwrap();
    for host in [leader.as_str(), "m1"] {
        scene.lab.start_supervisor(host).unwrap();
    }
    scene.calm().unwrap();
    for host in [leader.as_str(), "m1"] {
        wait::until("the end of both", LIMIT, || none(&scene.lab, &format!("supervisor/{host}"))).unwrap();
    }
    // What could not be sent at once on a busy machine is sent again.
    wait::until("no troubles with alerts", LIMIT, || {
        let troubles = scene.shown("/alert_troubles").map_err(|error| format!("{error:#}"))?;
        if troubles == Value::Array(Vec::new()) { Ok(()) } else { Err(troubles.to_string()) }
    })
    .unwrap();
    assert_eq!(scene.presses(), 0);
}

fn start_alertmanager(lab: &Lab) -> anyhow::Result<()> {
    let config = lab.place().dir.join("alertmanager.yml");
    std::fs::write(&config, "route: { receiver: nobody }\nreceivers: [{ name: nobody }]\n")?;
    let (config, data) = (config.display(), lab.place().dir.join("alertmanager"));
    let argv = [
        "prometheus-alertmanager".to_owned(),
        format!("--config.file={config}"),
        format!("--storage.path={}", data.display()),
        format!("--web.listen-address={CLIENT_ADDRESS}:{PORT}"),
        // Empty: it looks for no others.
        "--cluster.listen-address=".to_owned(),
    ];
    lab.helper("alertmanager", "cl", &argv.each_ref().map(String::as_str))?;
    wait::until("an Alertmanager", LIMIT, || page(lab, "/-/ready").map(drop))
}

fn page(lab: &Lab, path: &str) -> Result<String, String> {
    lab.client_get(&format!("{CLIENT_ADDRESS}:{PORT}"), path).map_err(|error| format!("{error:#}"))
}

/// The alerts that are firing and have this key.
fn firing(lab: &Lab, key: &str) -> Result<Vec<Value>, String> {
    let mut alerts: Vec<Value> =
        serde_json::from_str(&page(lab, "/api/v2/alerts")?).map_err(|error| error.to_string())?;
    alerts.retain(|alert| alert["labels"]["key"] == key);
    Ok(alerts)
}

fn one(lab: &Lab, key: &str) -> Result<Value, String> {
    let mut alerts = firing(lab, key)?;
    if alerts.len() == 1 { Ok(alerts.remove(0)) } else { Err(format!("{key} has {} alerts: {alerts:?}", alerts.len())) }
}

fn none(lab: &Lab, key: &str) -> Result<(), String> {
    let alerts = firing(lab, key)?;
    if alerts.is_empty() { Ok(()) } else { Err(format!("{alerts:?}")) }
}

/// How many alerts of a status Alertmanager has received.
fn received(lab: &Lab, status: &str) -> f64 {
    let wanted = format!("alertmanager_alerts_received_total{{status=\"{status}\"");
    let metrics = wait::until("the metrics of Alertmanager", LIMIT, || page(lab, "/metrics")).unwrap();
    metrics
        .lines()
        .filter(|line| line.starts_with(&wanted))
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}
