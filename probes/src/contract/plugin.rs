//! What plugins promise: their exit code is the verdict, their figures are told apart, they get no shell, and nothing that they
//! have started outlives the question.

use std::{os::unix::fs::PermissionsExt, time::Duration};

use holdfast_policies::{
    model::Probe,
    observe::Outcome,
    probe::{Grade, PluginProbe},
};

use super::{
    network::{asked, is, until},
    scene::network,
};
use crate::{aside::FILES, ask};

pub(super) fn plugin(script: &str) -> Probe {
    let run = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
    Probe::Plugin(PluginProbe { run, warning: Grade::Slow })
}

#[tokio::test]
async fn a_plugin_is_judged_by_its_exit_code_and_figures_are_kept_out() {
    for (script, wanted) in [
        ("echo 'OK - fine | time=1s'", Outcome::Pass),
        ("exit 1", Outcome::Slow),
        ("exit 2", Outcome::Fail),
        ("exit 3", Outcome::Unknown),
        ("exit 77", Outcome::Unknown),
        ("kill -9 $$", Outcome::Unknown),
        ("exec yes", Outcome::Unknown),
        ("n=0; while [ $n -lt 2000 ]; do printf '%0100d\\n' $n; n=$((n + 1)); done; exit 2", Outcome::Fail),
        ("sleep 60", Outcome::Unknown),
        ("test \"$LC_ALL\" = C && test -z \"$CARGO\" || exit 2", Outcome::Pass),
    ] {
        let seen = asked(&plugin(script), &network()).await;
        assert!(is(&seen, wanted), "{script}: {seen:?}");
        assert!(!seen.detail.contains("time="), "{seen:?}");
    }
    let missing = PluginProbe { run: vec!["/nowhere/check_x".to_owned()], warning: Grade::Fail };
    assert_eq!(asked(&Probe::Plugin(missing), &network()).await.outcome, Outcome::Unknown);
}

#[tokio::test]
async fn the_figures_of_a_plugin_are_those_of_its_newest_answer() {
    let target = network();
    for (script, wanted) in [
        ("echo 'OK | time=1s size=7B'", &["time", "size"][..]),
        ("echo OK", &[][..]),
        ("echo 'LOW | left=3%'; exit 2", &["left"][..]),
        ("sleep 60", &[][..]),
    ] {
        asked(&plugin(script), &target).await;
        let told: Vec<String> = target.memory.figures().into_iter().map(|figure| figure.label).collect();
        assert_eq!(told, wanted, "{script}");
    }
}

#[tokio::test]
async fn a_plugin_gets_the_guests_address_as_an_argument_and_no_shell() {
    let words = ["/bin/echo", "-H", "{address}", "$(id)"].map(str::to_owned).to_vec();
    let seen = asked(&Probe::Plugin(PluginProbe { run: words, warning: Grade::Slow }), &network()).await;
    assert_eq!((seen.outcome, seen.detail.as_str()), (Outcome::Pass, "-H 127.0.0.1 $(id)"));
}

#[tokio::test]
async fn a_plugin_that_hangs_is_killed_with_all_that_it_has_started() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("sleep 60 & echo $! > {0}.part; mv {0}.part {0}; wait", file.display());
    let seen = ask(&plugin(&script), &network(), Duration::from_secs(5)).await;
    assert_eq!(seen.outcome, Outcome::Unknown, "{seen:?}");
    let pid = std::fs::read_to_string(&file).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    until("the end of what it started", || !std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z ")))
        .await;
}

/// As `ssh` does, which leaves a master behind (`ControlPersist`).
#[tokio::test]
async fn a_plugin_that_has_ended_is_judged_though_what_it_has_left_behind_holds_its_output() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("sleep 60 & echo $! > {}; echo 'CRITICAL - down | time=1s'; exit 2", file.display());
    let target = network();
    let seen = ask(&plugin(&script), &target, Duration::from_secs(20)).await;
    assert_eq!((seen.outcome, seen.detail.as_str()), (Outcome::Fail, "CRITICAL - down"));
    assert_eq!(target.memory.figures().len(), 1);
    let pid = std::fs::read_to_string(&file).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    until("the end of what it left", || !std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "))).await;
}

/// As where it lies on a file system of a network that hangs.
#[tokio::test]
async fn a_plugin_whose_file_hangs_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("check");
    std::fs::write(&file, "#!/bin/sh\nexit 2\n").unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o700)).unwrap();
    let probe = PluginProbe { run: vec![file.to_str().unwrap().to_owned()], warning: Grade::Slow };
    let probe = Probe::Plugin(probe);
    let hanging = FILES.hang(file.as_os_str()).await;
    let seen = ask(&probe, &network(), Duration::from_secs(1)).await;
    assert_eq!(seen.outcome, Outcome::Unknown, "{seen:?}");
    drop(hanging);
    // A busy machine takes its time to begin a program.
    let seen = ask(&probe, &network(), Duration::from_secs(20)).await;
    assert_eq!(seen.outcome, Outcome::Fail, "it is begun: {seen:?}");
}
