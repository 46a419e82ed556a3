//! Power devices that lie, refuse or are not there: without proof nothing starts elsewhere, and a human is told what to do.
//! Hosts that return while they are fenced, and executors that die before they have reported.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what a test's helper cannot do fails the test")]

use std::time::Duration;

use holdfast_tests::lab::{
    Daemon, Fault, HostSpec, Scene, Status, left_out,
    scene::{GUEST, LIMIT},
    wait,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// How long a guest whose host cannot be proven off has to stay where it is. Several attempts fall into it.
const STAY: Duration = Duration::from_secs(10);

/// That the guest starts nowhere else for [`STAY`], and that meanwhile somebody is told how to release it.
fn stays_and_calls_a_human(scene: &Scene, host: &str) {
    scene
        .never(STAY, |scene| {
            let open = scene.lab.guest_qemu_pids(GUEST);
            anyhow::ensure!(open.iter().all(|(at, _)| at == host), "started without proof: {open:?}");
            Ok(())
        })
        .unwrap();
    let told = scene.lab.wait_status("an incident that says what a human has to do", LIMIT, |status| {
        let mut open = status.value["incidents"].as_array()?.iter().filter(|incident| incident["open"] == true);
        let command = format!("host confirm-off {host}");
        open.find(|incident| incident["human"].as_str().is_some_and(|human| human.contains(&command)))?;
        Some(())
    });
    told.unwrap();
    assert_eq!(scene.shown(&format!("/guests/{GUEST}/host")).unwrap(), host);
    assert_eq!(scene.shown(&format!("/hosts/{host}/life")).unwrap(), "fencing");
}

#[test]
fn without_a_power_device_only_a_humans_word_releases_a_cut_off_host() {
    if left_out("without_a_power_device_only_a_humans_word_releases_a_cut_off_host") {
        return;
    }
    let mut scene = Scene::three().unwrap();
    let (host, leader) = scene.arranged(false).unwrap();
    let confirm = ["host", "confirm-off", &host, "--operator", "ann"];

    // While it is alive nobody's word counts, whether its supervisor runs or only its guard (R9).
    assert_eq!(scene.lab.holdfast_answered(&leader, &confirm).unwrap().code, Some(1));
    scene.lab.kill_supervisor(&host).unwrap();
    scene
        .never(Duration::from_secs(3), |scene| {
            anyhow::ensure!(scene.lab.holdfast(&leader, &confirm)?.code != Some(0), "confirmed a host that is alive");
            Ok(())
        })
        .unwrap();
    assert!(scene.lab.daemon_pid(&host, Daemon::Guard).is_ok());
    scene.lab.start_supervisor(&host).unwrap();
    scene.calm().unwrap();

    scene.lab.bmc(&host).fault(Fault::Unreachable).unwrap();
    scene.lab.cut_link(&host).unwrap();
    stays_and_calls_a_human(&scene, &host);
    assert_eq!(scene.qemu().unwrap().0, host);
    // The operator does what the incident says: makes sure first, and says so then.
    scene.lab.power_cut(&host).unwrap();
    let from = scene.lab.status_soon().unwrap().from;
    // Refused while an attempt is under way, whose late `off` could hit the next boot (R20).
    wait::until("the word to be taken", LIMIT, || {
        let answer = scene.lab.holdfast(&from, &confirm).map_err(|error| format!("{error:#}"))?;
        if answer.ok() { Ok(()) } else { Err(answer.err) }
    })
    .unwrap();
    scene.moved_after_proof(&host, LIMIT).unwrap();
    let told = scene.incidents().unwrap();
    assert!(
        told.iter().any(|incident| incident["proof"].as_str().is_some_and(|proof| proof.contains("ann"))),
        "{told:?}"
    );
    let proof = scene.shown(&format!("/hosts/{host}/proof")).unwrap();
    assert!(proof.as_str().is_some_and(|proof| proof.contains("ann")), "{proof}");
}

/// The switch in front of all power devices dies, and a host with it.
#[test]
fn a_host_that_dies_while_no_power_device_is_reached_has_one_human_asked_once_and_its_guest_waits() {
    if left_out("a_host_that_dies_while_no_power_device_is_reached_has_one_human_asked_once_and_its_guest_waits") {
        return;
    }
    let mut scene = Scene::three().unwrap();
    let (host, _) = scene.arranged(false).unwrap();
    for spec in scene.lab.hosts() {
        scene.lab.bmc(&spec.name).fault(Fault::Unreachable).unwrap();
    }
    scene.lab.power_cut(&host).unwrap();
    stays_and_calls_a_human(&scene, &host);
    let asking = |scene: &Scene| {
        let asks = |incident: &&serde_json::Value| {
            incident["human"].as_str().is_some_and(|human| human.contains("host confirm-off"))
        };
        let incidents = scene.shown("/incidents").unwrap();
        incidents.as_array().unwrap().iter().filter(asks).cloned().collect::<Vec<_>>()
    };
    assert_eq!(asking(&scene).len(), 1, "{:?}", asking(&scene));
    let from = scene.lab.status_soon().unwrap().from;
    wait::until("the word to be taken", LIMIT, || {
        let confirm = ["host", "confirm-off", &host, "--operator", "ann"];
        let answer = scene.lab.holdfast(&from, &confirm).map_err(|error| format!("{error:#}"))?;
        if answer.ok() { Ok(()) } else { Err(answer.err) }
    })
    .unwrap();
    scene.moved_after_proof(&host, LIMIT).unwrap();
    // The others are reached by no device either, and nobody is asked to look after hosts that are well.
    assert!(asking(&scene).len() <= 1, "{:?}", asking(&scene));
}

#[test]
fn a_refused_password_and_an_idle_button_are_no_proof() {
    if left_out("a_refused_password_and_an_idle_button_are_no_proof") {
        return;
    }
    let mut scene = Scene::three().unwrap();
    let (host, leader) = scene.arranged(false).unwrap();
    let who = scene.who().unwrap();
    // The button says "ok" and does nothing; then the host goes on, and its guest with it.
    scene.lab.bmc(&host).fault(Fault::Stuck).unwrap();
    scene.lab.freeze(&host).unwrap();
    stays_and_calls_a_human(&scene, &host);
    scene.lab.thaw(&host).unwrap();
    assert_eq!(scene.calm().unwrap(), host);
    assert_eq!(scene.who().unwrap(), who);

    // The password is wrong until somebody puts it right, and says so by a test: then the next attempt is proof.
    scene.lab.bmc(&host).fault(Fault::WrongPassword).unwrap();
    scene.lab.freeze(&host).unwrap();
    stays_and_calls_a_human(&scene, &host);
    scene.lab.bmc(&host).fault(Fault::None).unwrap();
    // A busy machine may have the answer of one host too late; that of another is enough for the next attempt.
    wait::until("a test that ends well", LIMIT, || {
        if !scene.lab.is_on(&host) {
            return Ok(());
        }
        let tested = scene.lab.holdfast_soon(&leader, &["fence", "test", &host]);
        tested.map(drop).map_err(|error| format!("{error:#}"))
    })
    .unwrap();
    scene.moved_after_proof(&host, LIMIT).unwrap();
}

/// It was reset by somebody while its controller was asked in vain: no late "off" may hit what runs on its next boot (R20).
#[test]
fn a_host_that_returns_while_it_is_being_fenced_is_let_in_when_the_attempt_has_ended() {
    if left_out("a_host_that_returns_while_it_is_being_fenced_is_let_in_when_the_attempt_has_ended") {
        return;
    }
    let mut scene = Scene::three().unwrap();
    let (host, _) = scene.arranged(false).unwrap();
    let boots = scene.who().unwrap().1;
    scene.lab.bmc(&host).fault(Fault::Stuck).unwrap();
    scene.lab.freeze(&host).unwrap();
    wait::until("an attempt under way", LIMIT, || {
        if scene.presses() > 0 { Ok(()) } else { Err(format!("{:?}", scene.lab.bmc(&host).asked())) }
    })
    .unwrap();
    scene.lab.power_cut(&host).unwrap();
    scene.lab.power_on(&host).unwrap();
    scene.calm().unwrap();
    assert_eq!(scene.who().unwrap().1, boots + 1, "it was booted once more, without a person's word");

    // Every attempt had ended when the new boot was let in, and none was begun afterwards.
    let journal = scene.journal().unwrap();
    let joined = format!("{host} joined (boot ");
    let joined = journal.iter().rposition(|line| line.starts_with(&joined)).unwrap();
    let (before, after) = journal.split_at(joined);
    let (order, end) = (format!("is ordered to switch {host} off"), format!("fence {host} by level"));
    let count = |lines: &[String], what: &str| lines.iter().filter(|line| line.contains(what)).count();
    assert!(count(before, &order) > 0, "{journal:#?}");
    assert_eq!((count(before, &order), count(after, &order)), (count(before, &end), 0), "{journal:#?}");
    scene.lab.bmc(&host).fault(Fault::None).unwrap();
}

/// The device has obeyed, and nobody hears of it: who leads next asks the device, and lets no boot in before nothing of the attempt
/// can be left.
#[test]
fn an_executor_that_dies_between_an_off_and_its_report_costs_no_second_off_and_the_next_boot_waits_for_it() {
    if left_out(
        "an_executor_that_dies_between_an_off_and_its_report_costs_no_second_off_and_the_next_boot_waits_for_it",
    ) {
        return;
    }
    // The guest's host has no vote, so that the others decide on without the executor.
    let hosts = HostSpec::three_and_member();
    let mut scene = Scene::with(hosts, "").unwrap();
    if scene.calm().unwrap() != "m1" {
        scene.migrate("m1").unwrap();
    }
    scene.calm().unwrap();
    let executor = scene.leader().unwrap();
    // Between the end of its power and the answer that says so lies half a second, in which there is only the signal to send.
    scene.lab.bmc("m1").fault(Fault::Slow(Duration::from_millis(500))).unwrap();
    scene.lab.want(&executor, Daemon::Supervisor, false).unwrap();
    let pid = Pid::from_raw(scene.lab.daemon_pid(&executor, Daemon::Supervisor).unwrap());
    scene.lab.freeze("m1").unwrap();
    wait::until("an off that is obeyed", LIMIT, || {
        if scene.lab.is_on("m1") { Err("it is on".to_owned()) } else { Ok(()) }
    })
    .unwrap();
    kill(pid, Signal::SIGKILL).unwrap();
    let presses = scene.presses();
    let another = |status: &Status| (status.leader()? != executor).then_some(());
    scene.lab.wait_status("another coordinator", LIMIT, another).unwrap();
    scene.moved_after_proof("m1", LIMIT).unwrap();

    let journal = scene.journal().unwrap();
    let asked: Vec<&String> = journal.iter().filter(|line| line.contains("is ordered to switch m1 off")).collect();
    let by_executor: Vec<bool> = asked.iter().map(|line| line.starts_with(&format!("{executor} "))).collect();
    assert!(by_executor.split_first().is_some_and(|(first, rest)| *first && !rest.contains(&true)), "{asked:?}");
    assert_eq!(scene.presses(), presses, "what is off gets no off");

    // Whatever has proven it off meanwhile: the next boot comes in when nothing of the attempt can be left. That it is told so
    // shows as well that the executor had not reported.
    scene.lab.bmc("m1").fault(Fault::None).unwrap();
    scene.lab.power_on("m1").unwrap();
    let silent = format!("its executor {executor} has been silent for longer than an attempt may take");
    wait::until("the end of the attempt", LIMIT, || {
        let journal = scene.journal().map_err(|error| format!("{error:#}"))?;
        let ended = journal.iter().any(|line| line.contains(&silent));
        if ended { Ok(()) } else { Err(journal.join("\n")) }
    })
    .unwrap();
    scene.lab.start_supervisor(&executor).unwrap();
    scene.calm().unwrap();
    let journal = scene.journal().unwrap();
    let at = |what: &str| journal.iter().rposition(|line| line.contains(what));
    assert!(at(&silent) < at("m1 joined (boot "), "{journal:#?}");
}
