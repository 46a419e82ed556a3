//! The monitoring plugins.

use std::path::Path;

use holdfast_policies::{
    model::Probe,
    observe::Outcome,
    probe::{Grade, PluginProbe},
};

use super::{asked, left_out};
use crate::contract::scene::{Manner, OK, closed_port, server};

#[tokio::test]
async fn monitoring_plugins_are_run_and_believed() {
    if left_out("probes by real monitoring plugins") {
        return;
    }
    let port = server(Manner::Says(OK)).await;
    let plugin = |words: &[&str]| {
        let program = format!("/usr/lib/nagios/plugins/{}", words[0]);
        assert!(Path::new(&program).exists(), "install monitoring-plugins-basic, or set HOLDFAST_NO_LAB=1");
        let run = std::iter::once(program).chain(words[1..].iter().map(|word| (*word).to_owned()));
        Probe::Plugin(PluginProbe { run: run.collect(), warning: Grade::Slow })
    };
    let (open, closed) = (port.to_string(), closed_port().to_string());
    for (words, wanted) in [
        (&["check_tcp", "-H", "{address}", "-p", &open][..], Outcome::Pass),
        (&["check_tcp", "-H", "{address}", "-p", &closed], Outcome::Fail),
        (&["check_http", "-I", "{address}", "-p", &open], Outcome::Pass),
        (&["check_dummy", "1", "late"], Outcome::Slow),
        (&["check_dummy", "3"], Outcome::Unknown),
        (&["check_tcp", "--version"], Outcome::Unknown),
    ] {
        let seen = asked(&plugin(words)).await;
        assert_eq!(seen.outcome, wanted, "{words:?}: {seen:?}");
        assert!(!seen.detail.contains('|'), "{seen:?}");
    }
}
