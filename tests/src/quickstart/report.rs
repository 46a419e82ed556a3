//! What the quickstart found: one JSON object, or a table.

use anyhow::Result;
use serde::Serialize;
use serde_json::Value;

use super::show::seconds;

/// One failure and its end.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Failure {
    /// What was broken, for the table.
    #[serde(skip)]
    pub(super) done: String,
    /// From the client's last good answer to its first good one.
    pub(super) outage_ms: f64,
    /// What brought the service back.
    pub(super) rung: Option<String>,
    /// How long each stage took, as Holdfast tells it.
    pub(super) stages: Value,
    /// The longest that `explain` showed for it just before; `None` where it showed no bound.
    pub(super) bound_ms: Option<f64>,
}

/// All five.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Failures {
    pub(super) app_killed: Failure,
    pub(super) guest_killed: Failure,
    pub(super) host_power_cut: Failure,
    pub(super) coordinator_power_cut: Failure,
    pub(super) host_frozen: Failure,
}

/// The whole result; its JSON form is an interface.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Report {
    #[serde(flatten)]
    pub(super) failures: Failures,
    /// Median boot of the same guest started by hand.
    pub(super) boot_floor_ms: f64,
    /// How often two QEMUs wrote the guest's disk at once.
    pub(super) double_runs: usize,
}

impl Report {
    /// Prints it to standard output.
    pub(super) fn print(&self, json: bool) -> Result<()> {
        if json {
            println!("{}", serde_json::to_string(self)?);
        } else {
            print!("{}", self.table());
        }
        Ok(())
    }

    fn table(&self) -> String {
        let failures = &self.failures;
        let rows = [
            ("application killed", &failures.app_killed),
            ("guest killed", &failures.guest_killed),
            ("host power cut", &failures.host_power_cut),
            ("coordinator power cut", &failures.coordinator_power_cut),
            ("host frozen", &failures.host_frozen),
        ];
        let mut table =
            format!("\n{}", row("failure", "what was done", "outage", "guaranteed", "brought back by", "stages"));
        for (name, failure) in rows {
            let (outage, rung) = (seconds(failure.outage_ms), failure.rung.as_deref().unwrap_or("-"));
            let stages = stages(&failure.stages);
            table += &row(name, &failure.done, &outage, &at_most(failure.bound_ms), rung, &stages);
        }
        table += LEGEND;
        table += &format!("\nThe same guest started by hand answers after {}. ", seconds(self.boot_floor_ms.round()));
        table += &format!("Its disk was written by two guests at once {} times.\n", self.double_runs);
        table
    }
}

/// What the two times are, for whoever sees them for the first time.
const LEGEND: &str = "
`outage` is what a client outside measured. `guaranteed` is no expectation: it is the longest that such a failure lasts at these
settings, if every step takes all the time that it is given. `holdfast explain web-1` shows what it is made of.
";

fn row(name: &str, done: &str, outage: &str, guaranteed: &str, rung: &str, stages: &str) -> String {
    format!("{name:<22} {done:<32} {outage:>8} {guaranteed:>10}  {rung:<16} {stages}\n")
}

/// A bound in words.
fn at_most(bound_ms: Option<f64>) -> String {
    bound_ms.map_or_else(|| "no bound".to_owned(), seconds)
}

/// `detect 1.5 s, fence 0.1 s, …` in the order of events.
fn stages(value: &Value) -> String {
    let told: Vec<String> = ["detect", "fence", "place", "start", "verify"]
        .iter()
        .filter_map(|stage| Some(format!("{stage} {}", seconds(value.get(format!("{stage}_ms"))?.as_f64()?))))
        .collect();
    if told.is_empty() { "-".to_owned() } else { told.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_form_is_the_published_one() {
        let failure = || Failure {
            done: "x".into(),
            outage_ms: 1.0,
            rung: Some("failover".into()),
            stages: serde_json::json!({ "detect_ms": 1500 }),
            bound_ms: Some(20_500.0),
        };
        let failures = Failures {
            app_killed: failure(),
            guest_killed: failure(),
            host_power_cut: failure(),
            coordinator_power_cut: failure(),
            host_frozen: failure(),
        };
        let report = Report { failures, boot_floor_ms: 2.0, double_runs: 0 };
        let text = serde_json::to_string(&report).unwrap();
        let one = r#"{"outage_ms":1.0,"rung":"failover","stages":{"detect_ms":1500},"bound_ms":20500.0}"#;
        let expected = format!(
            r#"{{"app_killed":{one},"guest_killed":{one},"host_power_cut":{one},"coordinator_power_cut":{one},"host_frozen":{one},"boot_floor_ms":2.0,"double_runs":0}}"#
        );
        assert_eq!(text, expected);
        let table = report.table();
        assert!(
            ["detect 1.50 s", "20.50 s", "`guaranteed` is no expectation"].iter().all(|word| table.contains(word)),
            "{table}"
        );
    }
}
