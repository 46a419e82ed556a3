//! Promises of the metrics page, checked with Prometheus' own tool.

use std::{
    io::Write,
    process::{Command, Stdio},
    time::Duration,
};

use holdfast_policies::{
    incident::Stages,
    names::{GuestName, HostName, ServiceName},
    state::{Mode, Wanted},
    time::WallTime,
};

use super::*;

/// The rules that operators are given.
const RULES: &str = include_str!("../../../examples/alerts/holdfast.rules.yaml");

/// The dashboard that operators are given.
const DASHBOARD: &str = include_str!("../../../examples/dashboards/holdfast.json");

fn guest(name: &str) -> GuestName {
    GuestName::new(name).unwrap()
}

fn figure(label: &str, value: f64, unit: &str) -> Figure {
    Figure { label: label.to_owned(), value, unit: unit.to_owned() }
}

fn populated() -> Metrics {
    let metrics = Metrics::new().unwrap();
    let (host, web, http) = (HostName::new("hv-a").unwrap(), guest("web-1"), ServiceName::new("http").unwrap());
    metrics.set_hosts([(&host, Verdict::Suspect)]);
    metrics.set_guests([(&web, GuestState::Running)]);
    metrics.set_services([(&web, &http, Verdict::Healthy)]);
    metrics.set_safe([(&host, 1_800_000_000)]);
    metrics.set_fencing([(&host, 1, 1_800_000_000, true)]);
    metrics.set_modes(&Modes {
        hosts: vec![(&host, Mode::Draining, true)],
        guests: vec![(&web, Wanted::Running, true)],
        suspended: true,
        storm_hold: true,
    });
    metrics.probed(&web, &http, VantageKind::Inside, ProbeOutcome::Pass, Duration::from_millis(3));
    metrics.probe_late(Duration::from_millis(2));
    metrics.set_figures(&web, &http, &[figure("time", 0.25, "s")]);
    metrics.guest_event(GuestEventKind::Watchdog);
    metrics.recovered(&Stages { detect_ms: Some(1_500), fence_ms: Some(900), ..Stages::default() });
    metrics.set_raft(RaftView { term: 3, applied: 41, last_log: 42, leader: true, quorum: true });
    metrics.set_gossip_live(3);
    metrics.gossip_restarted(1);
    metrics.set_lease_left(Some(Duration::from_millis(3_700)));
    metrics.set_guard_hardened(Some((true, false)));
    metrics.set_alerts(ReceiverKind::Pagerduty, 2, 1);
    metrics.alert_sent(ReceiverKind::Pagerduty, SendResult::Retried);
    metrics.datagrams_dropped("bad_key", 7);
    metrics.rpc_refused("wrong_cluster", 1);
    metrics.set_orders_open(1);
    metrics.fenced("power_off");
    metrics.set_certificate_ends(WallTime(2_114_380_799_000));
    metrics.set_loop_late(Duration::from_millis(12));
    metrics
}

/// Runs promtool with `text` on its standard input; `None` where the tool was expressly waived.
fn promtool(arguments: &[&str], text: &str) -> Option<()> {
    let child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = match child {
        Ok(child) => child,
        Err(_) if std::env::var_os("HOLDFAST_NO_LAB").is_some_and(|value| value == "1") => return None,
        Err(error) => {
            panic!("promtool cannot be run ({error}); install prometheus, or set HOLDFAST_NO_LAB=1 to do without")
        }
    };
    child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "promtool {arguments:?}: {}\n{said}\n{text}", output.status);
    Some(())
}

#[test]
fn promtool_finds_nothing_to_say_about_the_page() {
    promtool(&["check", "metrics"], &populated().render());
}

#[test]
fn promtool_accepts_the_rules_that_operators_are_given() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), RULES).unwrap();
    promtool(&["check", "rules", file.path().to_str().unwrap()], "");
}

/// A host that is revoked calls for the first time in the 21st minute; another host has refused three orders, and refuses a
/// fourth after half an hour.
const MISUSE: &str = r#"
    input_series:
      - { series: 'holdfast_rpc_refused_total{instance="hv-a", reason="revoked"}', values: '_x20 1x60' }
      - { series: 'holdfast_rpc_refused_total{instance="hv-b", reason="voucher"}', values: '3x30 4x60' }
    promql_expr_test:
      - { expr: 'count by (instance) (ALERTS{instance!=""})', eval_time: 19m }
      - expr: 'count by (instance, severity) (ALERTS{instance!=""})'
        eval_time: 22m
        exp_samples: [{ labels: '{instance="hv-a", severity="error"}', value: 1 }]
      - expr: 'count by (instance, severity) (ALERTS{instance!=""})'
        eval_time: 40m
        exp_samples: [{ labels: '{instance="hv-b", severity="warning"}', value: 1 }]
      - { expr: 'count by (instance) (ALERTS{instance!=""})', eval_time: 60m }
"#;

/// Has promtool try the rules that operators are given on these series, of one value a minute.
fn rules_keep(test: &str) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("rules.yaml"), RULES).unwrap();
    let file = folder.path().join("tests.yaml");
    let head = "rule_files: [rules.yaml]\nevaluation_interval: 1m\ntests:\n  - interval: 1m";
    std::fs::write(&file, format!("{head}{test}")).unwrap();
    promtool(&["test", "rules", file.to_str().unwrap()], "");
}

#[test]
fn the_first_use_of_a_revoked_certificate_raises_an_alert_that_ends_with_it() {
    rules_keep(MISUSE);
}

/// From the sixth minute on `down` does not run, and neither does `alone`, of which nobody wants anything; `moves` moves while
/// it runs, and is large; `still` is paused.
const DOWN: &str = r#"
    input_series:
      - { series: 'holdfast_raft_leader{instance="hv-a"}', values: '1x20' }
      - { series: 'holdfast_guest_state{instance="hv-a", guest="down", state="running"}', values: '1x5 0x15' }
      - { series: 'holdfast_guest_state{instance="hv-a", guest="down", state="moving"}', values: '0x20' }
      - { series: 'holdfast_guest_wanted{instance="hv-a", guest="down", wanted="running"}', values: '1x20' }
      - { series: 'holdfast_guest_wanted{instance="hv-a", guest="down", wanted="stopped"}', values: '0x20' }
      - { series: 'holdfast_service_verdict{instance="hv-a", guest="down", service="http", verdict="healthy"}', values: '1x5 0x15' }
      - { series: 'holdfast_guest_state{instance="hv-a", guest="moves", state="running"}', values: '1x5 0x15' }
      - { series: 'holdfast_guest_state{instance="hv-a", guest="moves", state="moving"}', values: '0x5 1x15' }
      - { series: 'holdfast_guest_wanted{instance="hv-a", guest="moves", wanted="running"}', values: '1x20' }
      - { series: 'holdfast_guest_state{instance="hv-a", guest="still", state="running"}', values: '1x5 0x15' }
      - { series: 'holdfast_guest_state{instance="hv-a", guest="still", state="paused"}', values: '0x5 1x15' }
      - { series: 'holdfast_guest_wanted{instance="hv-a", guest="still", wanted="running"}', values: '1x20' }
      - { series: 'holdfast_guest_state{instance="hv-a", guest="alone", state="running"}', values: '1x5 0x15' }
      - { series: 'holdfast_guest_wanted{instance="hv-a", guest="alone", wanted="running"}', values: '0x20' }
      - { series: 'holdfast_guest_wanted{instance="hv-a", guest="alone", wanted="unmanaged"}', values: '1x20' }
      - { series: 'holdfast_service_verdict{instance="hv-a", guest="alone", service="http", verdict="healthy"}', values: '1x5 0x15' }
    promql_expr_test:
      - { expr: 'count by (alertname, guest) (ALERTS{alertstate="firing"})', eval_time: 5m }
      - expr: 'count by (alertname, guest) (ALERTS{alertstate="firing"})'
        eval_time: 12m
        exp_samples:
          - { labels: '{alertname="HoldfastGuestNotRunning", guest="down"}', value: 1 }
          - { labels: '{alertname="HoldfastServiceNotHealthy", guest="down"}', value: 1 }
"#;

#[test]
fn a_guest_that_moves_while_it_runs_or_of_which_nobody_wants_anything_calls_nobody() {
    rules_keep(DOWN);
}

/// From the first minute on one host is in maintenance and one guest is unmanaged; another host comes back after an hour.
const FORGOTTEN: &str = r#"
    input_series:
      - { series: 'holdfast_raft_leader{instance="hv-a"}', values: '1x1600' }
      - { series: 'holdfast_host_mode{instance="hv-a", host="hv-b", mode="maintenance"}', values: '1x1600' }
      - { series: 'holdfast_host_mode{instance="hv-a", host="hv-c", mode="maintenance"}', values: '1x60 0x1540' }
      - { series: 'holdfast_host_mode{instance="hv-a", host="hv-d", mode="draining"}', values: '1x1600' }
      - { series: 'holdfast_guest_wanted{instance="hv-a", guest="web-1", wanted="unmanaged"}', values: '1x1600' }
    promql_expr_test:
      - { expr: 'count by (alertname) (ALERTS{alertstate="firing"})', eval_time: 23h }
      - expr: 'count by (alertname, host, guest) (ALERTS{alertstate="firing"})'
        eval_time: 25h
        exp_samples:
          - { labels: '{alertname="HoldfastHostLeftAlone", host="hv-b"}', value: 1 }
          - { labels: '{alertname="HoldfastGuestLeftAlone", guest="web-1"}', value: 1 }
"#;

#[test]
fn what_was_left_alone_for_work_and_forgotten_is_told_after_a_day() {
    rules_keep(FORGOTTEN);
}

/// Certificates that end 70, 40 and 10 days after the beginning, looked at in its first hour.
const ENDING: &str = r#"
    input_series:
      - { series: 'holdfast_certificate_expires_timestamp_seconds{instance="hv-a"}', values: '6048000x60' }
      - { series: 'holdfast_certificate_expires_timestamp_seconds{instance="hv-b"}', values: '3456000x60' }
      - { series: 'holdfast_certificate_expires_timestamp_seconds{instance="hv-c"}', values: '864000x60' }
    promql_expr_test:
      - expr: 'count by (instance, severity) (ALERTS{alertstate="firing", instance!=""})'
        eval_time: 40m
        exp_samples:
          - { labels: '{instance="hv-b", severity="warning"}', value: 1 }
          - { labels: '{instance="hv-c", severity="warning"}', value: 1 }
          - { labels: '{instance="hv-c", severity="critical"}', value: 1 }
"#;

#[test]
fn a_certificate_that_ends_raises_an_alert_months_before_also_where_no_coordinator_is_left_to_tell() {
    rules_keep(ENDING);
}

/// Gossip of a host fails twice in the sixth minute.
const FAILING: &str = r#"
    input_series:
      - { series: 'holdfast_gossip_restarts_total{instance="hv-a"}', values: '0x5 2x60' }
      - { series: 'holdfast_gossip_restarts_total{instance="hv-b"}', values: '3x60' }
    promql_expr_test:
      - { expr: 'count by (instance) (ALERTS{instance!=""})', eval_time: 5m }
      - expr: 'count by (instance, severity) (ALERTS{instance!=""})'
        eval_time: 7m
        exp_samples: [{ labels: '{instance="hv-a", severity="error"}', value: 1 }]
      - { expr: 'count by (instance) (ALERTS{instance!=""})', eval_time: 40m }
"#;

#[test]
fn gossip_that_has_failed_raises_an_alert_although_it_goes_on() {
    rules_keep(FAILING);
}

#[test]
fn every_named_metric_is_on_the_page_and_rules_and_dashboard_ask_for_named_ones() {
    let page = populated().render();
    for (name, help) in names::ALL {
        assert!(page.contains(&format!("# HELP {name} {help}")), "{name} is not on the page");
    }
    for (what, text) in [("an alert rule", RULES), ("the dashboard", DASHBOARD)] {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        // Histograms are asked for by their buckets.
        let asked = words.map(|word| word.strip_suffix("_bucket").unwrap_or(word));
        for word in asked.filter(|word| word.starts_with("holdfast_")) {
            assert!(names::ALL.iter().any(|(name, _)| *name == word), "{what} asks for {word}, which does not exist");
        }
    }
}

#[test]
fn a_guest_that_is_gone_leaves_no_series_behind() {
    let metrics = populated();
    metrics.set_guests([(&guest("db-1"), GuestState::Failed)]);
    metrics.set_services([]);
    metrics.set_modes(&Modes::default());
    metrics.retain_probes(|_, _| false);
    let page = metrics.render();
    assert!(!page.contains("web-1"), "{page}");
    assert!(page.contains("holdfast_guest_state{guest=\"db-1\",state=\"failed\"} 1"), "{page}");
    assert!(page.contains("holdfast_guest_state{guest=\"db-1\",state=\"running\"} 0"), "{page}");
}

#[test]
fn a_figure_that_a_plugin_does_not_tell_any_more_is_not_shown_any_more() {
    let metrics = Metrics::new().unwrap();
    let (web, http) = (guest("web-1"), ServiceName::new("http").unwrap());
    let shown = || {
        let page = metrics.render();
        page.lines().filter(|line| line.starts_with("holdfast_probe_perfdata{")).map(str::to_owned).collect::<Vec<_>>()
    };
    metrics.set_figures(&web, &http, &[figure("time", 0.25, "s"), figure("size", 7.0, "B")]);
    assert_eq!(shown().len(), 2);
    metrics.set_figures(&web, &http, &[figure("time", 0.5, "s")]);
    let expected = "holdfast_probe_perfdata{guest=\"web-1\",label=\"time\",service=\"http\",unit=\"s\"} 0.5";
    assert_eq!(shown(), [expected]);
    metrics.set_figures(&web, &http, &[]);
    assert_eq!(shown(), Vec::<String>::new());
}

#[test]
fn what_could_not_be_asked_is_counted_and_makes_nobody_quicker() {
    let metrics = Metrics::new().unwrap();
    let (web, http) = (guest("web-1"), ServiceName::new("http").unwrap());
    for outcome in [ProbeOutcome::Pass, ProbeOutcome::Unknown, ProbeOutcome::Fail, ProbeOutcome::Unknown] {
        metrics.probed(&web, &http, VantageKind::Inside, outcome, Duration::from_millis(3));
    }
    let (page, of) = (metrics.render(), "guest=\"web-1\",service=\"http\",vantage=\"inside\"");
    assert!(page.contains(&format!("holdfast_probe_latency_seconds_count{{{of}}} 2\n")), "{page}");
    let unknown = "holdfast_probes_total{guest=\"web-1\",outcome=\"unknown\",service=\"http\",vantage=\"inside\"} 2";
    assert!(page.contains(unknown), "{page}");
}

#[test]
fn services_beyond_the_bound_share_one_series() {
    let metrics = Metrics::new().unwrap();
    let http = ServiceName::new("http").unwrap();
    for number in 0..probes::SERVICES_MAX + 5 {
        metrics.probed(&guest(&format!("g{number}")), &http, VantageKind::Host, ProbeOutcome::Fail, Duration::ZERO);
    }
    metrics.set_figures(&guest("g9999"), &http, &[figure("time", 0.25, "s")]);
    let page = metrics.render();
    assert!(!page.contains("g9999"), "figures of different services are not one series");
    let series = page.lines().filter(|line| line.starts_with("holdfast_probes_total{")).count();
    assert_eq!(series, probes::SERVICES_MAX + 1);
    assert!(
        page.contains("holdfast_probes_total{guest=\"_other\",outcome=\"fail\",service=\"_other\",vantage=\"host\"} 5")
    );
}

#[test]
fn a_guard_that_is_not_hardened_shows_and_one_that_needs_it_not_has_no_series() {
    let metrics = populated();
    let page = metrics.render();
    assert!(page.contains("holdfast_guard_hardened{what=\"memory\"} 1"), "{page}");
    assert!(page.contains("holdfast_guard_hardened{what=\"priority\"} 0"), "{page}");
    metrics.set_guard_hardened(None);
    assert!(!metrics.render().contains("holdfast_guard_hardened{"));
}

#[test]
fn what_happens_seldom_is_on_the_page_before_it_happens() {
    let page = Metrics::new().unwrap().render();
    for line in [
        "holdfast_fences_total{result=\"power_off\"} 0",
        "holdfast_fences_total{result=\"lease_expired\"} 0",
        "holdfast_fences_total{result=\"operator\"} 0",
        "holdfast_failover_stage_seconds_count{stage=\"fence\"} 0",
        "holdfast_guest_events_total{event=\"watchdog\"} 0",
        "holdfast_gossip_restarts_total 0",
    ] {
        assert!(page.lines().any(|shown| shown == line), "no increase shows from nothing: {line}\n{page}");
    }
}

#[test]
fn modes_and_holds_are_on_the_page() {
    let page = populated().render();
    for line in [
        "holdfast_host_mode{host=\"hv-a\",mode=\"draining\"} 1",
        "holdfast_host_mode{host=\"hv-a\",mode=\"active\"} 0",
        "holdfast_host_quarantined{host=\"hv-a\"} 1",
        "holdfast_guest_wanted{guest=\"web-1\",wanted=\"running\"} 1",
        "holdfast_guest_wanted{guest=\"web-1\",wanted=\"stopped\"} 0",
        "holdfast_guest_given_up{guest=\"web-1\"} 1",
        "holdfast_suspended 1",
        "holdfast_storm_hold 1",
    ] {
        assert!(page.lines().any(|shown| shown == line), "{line} is not on the page\n{page}");
    }
}
