//! What every power device promises, asked of all of them alike: the fake, a real IPMI controller, a Redfish service, a
//! fence agent, programs of one's own, a libvirt, a QEMU.

use std::{
    net::UdpSocket,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use holdfast_policies::model::SETTLE;

use crate::{
    Answer, Asked, Outcome, Power, PowerDevice, PowerOffReport,
    agent::tests::Script,
    benches::{Bench, Fault, SETTLED},
    command::tests::Programs,
    fake::{FakeDevice, Manner},
    ipmi::Ipmi,
    libvirt::tests::Virsh,
    machine_id::same_machine,
    power_off::LAST_LOOK,
    power_off_and_confirm,
    qemu::tests::Machine,
    redfish::scripted::Scripted,
    simulator::{Simulator, left_out, settings},
    webhook::tests::Automation,
};

const CALL: Duration = Duration::from_secs(5);
/// Limit of a level in these tests; its quarter is what an accepted off is given to show.
const LEVEL: Duration = Duration::from_secs(4);
/// The same where the third of three offs has to be sent before an eighth of it is left, on a busy machine, too.
const LEVEL_OF_THREE: Duration = Duration::from_secs(10);
/// The same where the host goes off, which a busy machine may take its time for.
const LEVEL_LONG: Duration = Duration::from_secs(20);
/// What an attempt lasts longer at most when it is unclear what came of its newest off.
const UNCLEAR: Duration = SETTLED.saturating_add(LAST_LOOK);
/// What a machine may add that is not busy right then.
const SLACK: Duration = Duration::from_secs(1);
/// What a busy machine may add. Limits are measured exactly where the clock is the tests' own.
const BUSY: Duration = Duration::from_secs(5);

async fn off(bench: &impl Bench, level: Duration) -> PowerOffReport {
    let began = Instant::now();
    let report = power_off_and_confirm(&[bench.device()], level, || true).await;
    let limit = if matches!(report.outcome, Outcome::Off { .. }) { level } else { level + UNCLEAR };
    assert!(began.elapsed() < limit + BUSY, "took {:?}: {report:?}", began.elapsed());
    report
}

async fn tells_its_state_and_goes_off(bench: impl Bench) {
    let device = bench.device();
    assert_eq!(device.status(CALL).await, Answer::Confirmed(Power::On));
    match device.machine_id(CALL).await {
        Answer::Confirmed(id) => assert!(same_machine(&id, &id) && id == id.to_lowercase(), "{id}"),
        Answer::Refused { detail, .. } => assert!(detail.contains("cannot tell"), "{detail}"),
        Answer::Unknown { detail } => panic!("no machine id: {detail}"),
    }
    let report = off(&bench, LEVEL_LONG).await;
    let Outcome::Off { took, readings } = &report.outcome else { panic!("{report:?}") };
    eprintln!("{}: off and confirmed after {took:?}", device.describe());
    assert!(
        readings.len() == 1
            && readings[0].asked_after <= readings[0].answered_after
            && readings[0].answered_after <= *took
    );
    assert!(!bench.is_on());
    assert_eq!(device.status(CALL).await, Answer::Confirmed(Power::Off));
    let asked: Vec<_> = report.attempts.iter().map(|attempt| attempt.asked).collect();
    assert_eq!(asked, [Asked::Status, Asked::Off, Asked::Status]);
}

async fn switches_on_again(bench: impl Bench) {
    bench.switch_on(false);
    let device = bench.device();
    assert_eq!(device.on(CALL).await, Answer::Confirmed(()));
    assert_eq!((device.status(CALL).await, bench.is_on()), (Answer::Confirmed(Power::On), true));
    // Again, which changes nothing.
    assert_eq!(device.on(CALL).await, Answer::Confirmed(()));
    bench.set(Fault::Fails);
    bench.switch_on(false);
    assert!(!matches!(device.on(CALL).await, Answer::Confirmed(())));
    assert!(!bench.is_on());
}

async fn a_host_that_is_off_gets_no_off(bench: impl Bench) {
    bench.switch_on(false);
    assert!(matches!(off(&bench, LEVEL_LONG).await.outcome, Outcome::Off { .. }));
    assert_eq!(bench.offs(), 0);
}

async fn without_go_ahead_no_off_is_sent(bench: impl Bench) {
    let report = power_off_and_confirm(&[bench.device()], LEVEL, || false).await;
    assert_eq!(report.outcome, Outcome::NoGoAhead);
    assert_eq!((bench.offs(), bench.is_on()), (0, true));
}

async fn an_off_that_does_not_show_is_repeated_twice_and_not_believed(bench: impl Bench) {
    bench.set(Fault::Stuck);
    let report = off(&bench, LEVEL_OF_THREE).await;
    assert!(matches!(report.outcome, Outcome::StillOn { .. }), "{report:?}");
    assert_eq!(bench.offs(), 3);
}

async fn a_slow_device_is_waited_for(bench: impl Bench) {
    bench.set(Fault::Slow);
    assert!(matches!(off(&bench, LEVEL_LONG).await.outcome, Outcome::Off { .. }));
    assert!(!bench.is_on());
}

async fn a_failing_device_proves_nothing(bench: impl Bench) {
    bench.set(Fault::Fails);
    assert!(matches!(bench.device().status(CALL).await, Answer::Unknown { .. }));
    let report = off(&bench, LEVEL).await;
    assert!(matches!(report.outcome, Outcome::Unknown { .. }), "{report:?}");
    assert!(bench.is_on());
}

/// It keeps to the runtime's clock, which waits for nobody then.
async fn fake() -> Arc<FakeDevice> {
    tokio::time::pause();
    Arc::new(FakeDevice::new("bench", Manner::Works))
}

macro_rules! promises {
    ($($promise:ident),*) => {
        promises!(@device fake, |_| false, fake(), $($promise),*);
        promises!(@device ipmi, left_out, Simulator::start(), $($promise),*);
        promises!(@device redfish, |_| false, Scripted::start(), $($promise),*);
        promises!(@device webhook, |_| false, Automation::start(), $($promise),*);
        promises!(@device command, |_| false, async { Programs::new() }, $($promise),*);
        promises!(@device agent, |_| false, async { Script::new() }, $($promise),*);
        promises!(@device libvirt, |_| false, async { Virsh::new() }, $($promise),*);
        promises!(@device qemu, |_| false, async { Machine::start() }, $($promise),*);
    };
    (@device $device:ident, $left_out:expr, $bench:expr, $($promise:ident),*) => {
        mod $device {
            use super::*;
            $(#[tokio::test]
            async fn $promise() {
                let is_left_out: fn(&str) -> bool = $left_out;
                if !is_left_out(stringify!($promise)) {
                    super::$promise($bench.await).await;
                }
            })*
        }
    };
}

promises!(
    tells_its_state_and_goes_off,
    switches_on_again,
    a_host_that_is_off_gets_no_off,
    without_go_ahead_no_off_is_sent,
    an_off_that_does_not_show_is_repeated_twice_and_not_believed,
    a_slow_device_is_waited_for,
    a_failing_device_proves_nothing
);

#[tokio::test]
async fn a_wrong_password_user_or_file_is_refused_and_told_apart() {
    if left_out("a_wrong_password_user_or_file_is_refused_and_told_apart") {
        return;
    }
    let simulator = Simulator::start().await;
    let right = simulator.settings();
    let wrong = [
        ("this password", true, settings(right.port, simulator.password_file("wrong", 0o600))),
        ("this user", true, holdfast_policies::model::IpmiDevice { user: "nobody".to_owned(), ..right.clone() }),
        ("chmod 600", false, settings(right.port, simulator.password_file("secret", 0o640))),
        ("cannot read password file", false, settings(right.port, PathBuf::from("/nonexistent/password"))),
    ];
    for (says, is_denied, settings) in wrong {
        let answer = Ipmi::new(settings).off(CALL).await;
        let Answer::Refused { detail, denied } = &answer else { panic!("{says}: {answer:?}") };
        assert!(detail.contains(says) && !detail.contains("secret\n"), "{detail}");
        assert_eq!(*denied, is_denied, "{detail}");
    }
    assert_eq!((simulator.offs(), simulator.is_on()), (0, true));
}

#[tokio::test]
async fn a_controller_that_acts_at_once_is_off_and_confirmed_within_a_second() {
    if left_out("a_controller_that_acts_at_once_is_off_and_confirmed_within_a_second") {
        return;
    }
    let simulator = Simulator::start().await;
    let mut quickest = Duration::MAX;
    // A machine that is busy for a moment says nothing about how long it takes.
    for _ in 0..10 {
        simulator.switch_on(true);
        let report = off(&simulator, LEVEL_LONG).await;
        let Outcome::Off { took, .. } = &report.outcome else { panic!("{report:?}") };
        quickest = quickest.min(*took);
        if quickest < Duration::from_secs(1) {
            return;
        }
    }
    panic!("the quickest of ten took {quickest:?}");
}

#[tokio::test]
async fn nothing_at_the_port_and_a_mute_controller_are_unknown_by_the_deadline() {
    if left_out("nothing_at_the_port_and_a_mute_controller_are_unknown_by_the_deadline") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "secret").unwrap();
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let [mute, nothing] = [(); 2].map(|()| UdpSocket::bind("127.0.0.1:0").unwrap());
    // This port is taken, so that nobody else gets it, and open to itself alone.
    nothing.connect(nothing.local_addr().unwrap()).unwrap();
    let ask = async |socket: &UdpSocket| {
        let device = Ipmi::new(settings(socket.local_addr().unwrap().port(), file.clone()));
        for deadline in [Duration::from_millis(300), CALL] {
            is_unknown_by(&device, deadline).await;
        }
        assert!(matches!(device.off(CALL).await, Answer::Unknown { .. }));
        assert_eq!(device.goes_on_for(), Duration::ZERO, "without a session no off was sent");
        let report = power_off_and_confirm(&[Arc::new(device)], Duration::from_secs(3), || true).await;
        assert!(matches!(report.outcome, Outcome::Unknown { .. }), "{report:?}");
    };
    tokio::join!(ask(&mute), ask(&nothing));
}

/// A machine that is busy for a moment says nothing about deadlines.
async fn is_unknown_by(device: &Ipmi, deadline: Duration) {
    let mut quickest = Duration::MAX;
    for _ in 0..5 {
        let began = Instant::now();
        let answer = device.status(deadline).await;
        assert!(matches!(answer, Answer::Unknown { .. }), "{answer:?}");
        quickest = quickest.min(began.elapsed());
        if quickest < deadline + SLACK {
            return;
        }
    }
    panic!("the quickest of five took {quickest:?} of {deadline:?}");
}

fn fakes(manners: &[Manner]) -> (Vec<Arc<FakeDevice>>, Vec<Arc<dyn PowerDevice>>) {
    let fakes: Vec<_> =
        manners.iter().map(|manner| Arc::new(FakeDevice::new(format!("{manner:?}"), *manner))).collect();
    let devices = fakes.iter().map(|fake| Arc::clone(fake) as Arc<dyn PowerDevice>).collect();
    (fakes, devices)
}

#[tokio::test(start_paused = true)]
async fn all_devices_of_a_level_must_say_off() {
    let later = Manner::ShowsAfter(Duration::from_secs(7));
    for (manners, all_off) in [
        (vec![Manner::Works, later], true),
        (vec![Manner::Works, Manner::Stuck], false),
        (vec![Manner::Works, Manner::Mute], false),
        (vec![Manner::Refuses], false),
        (vec![], false),
    ] {
        let (_, devices) = fakes(&manners);
        let report = power_off_and_confirm(&devices, Duration::from_secs(20), || true).await;
        assert_eq!(matches!(report.outcome, Outcome::Off { .. }), all_off, "{manners:?}: {report:?}");
        if let Outcome::Off { took, readings } = report.outcome {
            assert!(took < Duration::from_secs(9), "{took:?}");
            assert!(readings.iter().all(|reading| reading.asked_after >= Duration::from_secs(7)), "{readings:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_refuses_is_given_up_before_it_locks_its_user_out() {
    let (fakes, devices) = fakes(&[Manner::Refuses]);
    let report = power_off_and_confirm(&devices, Duration::from_secs(20), || true).await;
    assert!(matches!(report.outcome, Outcome::Unknown { .. }), "{report:?}");
    assert!(report.attempts.len() <= 4 && fakes[0].offs() == 0, "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn a_go_ahead_that_lapses_stops_the_offs_but_not_the_readings() {
    let asked = std::sync::atomic::AtomicU32::new(0);
    let first_only = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
    let (fakes, devices) = fakes(&[Manner::ShowsAfter(Duration::from_secs(15))]);
    let report = power_off_and_confirm(&devices, Duration::from_secs(20), first_only).await;
    assert!(matches!(report.outcome, Outcome::Off { .. }), "{report:?}");
    assert_eq!(fakes[0].offs(), 1);
}

#[tokio::test(start_paused = true)]
async fn switching_off_can_run_as_a_task_of_its_own() {
    let (_, devices) = fakes(&[Manner::Works]);
    let task = tokio::spawn(async move { power_off_and_confirm(&devices, LEVEL, || true).await });
    assert!(matches!(task.await.unwrap().outcome, Outcome::Off { .. }));
}

#[tokio::test(start_paused = true)]
async fn an_off_that_shows_only_after_its_level_is_waited_for_while_it_may_still_be_carried_out() {
    // The last of three offs is sent after half of the level.
    for (shows_after, is_off, took) in [(9, true, 10), (16, true, 17), (19, false, 19)] {
        let (_, devices) = fakes(&[Manner::ShowsAfter(Duration::from_secs(shows_after))]);
        let began = tokio::time::Instant::now();
        let report = power_off_and_confirm(&devices, LEVEL, || true).await;
        assert_eq!(matches!(report.outcome, Outcome::Off { .. }), is_off, "{shows_after}: {report:?}");
        let least = if is_off { Duration::from_secs(shows_after) } else { LEVEL / 2 + SETTLE };
        assert!(began.elapsed() >= least, "{:?}: {report:?}", began.elapsed());
        assert!(began.elapsed() <= Duration::from_secs(took), "{:?}: {report:?}", began.elapsed());
    }
}

/// As seen with a Redfish emulator that imitates slow controllers: it changes the power up to eleven seconds after its answer.
#[tokio::test(start_paused = true)]
async fn a_device_that_acts_eleven_seconds_after_its_answer_is_waited_for() {
    let asked = std::sync::atomic::AtomicU32::new(0);
    let first_only = || asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
    let (fakes, devices) = fakes(&[Manner::ShowsAfter(Duration::from_secs(11))]);
    let report = power_off_and_confirm(&devices, LEVEL, first_only).await;
    assert!(matches!(report.outcome, Outcome::Off { .. }), "{report:?}");
    assert_eq!(fakes[0].offs(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_off_without_an_answer_is_waited_for_like_one_that_was_accepted() {
    let (fakes, devices) = fakes(&[Manner::Fails]);
    let began = tokio::time::Instant::now();
    let report = power_off_and_confirm(&devices, LEVEL, || true).await;
    assert!(matches!(report.outcome, Outcome::Unknown { .. }), "{report:?}");
    assert!(fakes[0].offs() == 0 && began.elapsed() > LEVEL + SETTLE / 2, "{:?}", began.elapsed());
    let mut offs = report.attempts.iter().filter(|attempt| attempt.asked == Asked::Off);
    assert!(offs.all(|off| off.began_after <= LEVEL * 7 / 8), "none that cannot end in time: {report:?}");
}

#[tokio::test(start_paused = true)]
async fn what_is_confirmed_or_was_refused_is_told_at_once() {
    for manner in [Manner::Works, Manner::Refuses] {
        let (_, devices) = fakes(&[manner]);
        let began = tokio::time::Instant::now();
        power_off_and_confirm(&devices, Duration::from_secs(20), || true).await;
        assert!(began.elapsed() < Duration::from_secs(4), "{manner:?}: {:?}", began.elapsed());
    }
    let (_, devices) = fakes(&[Manner::Works]);
    let began = tokio::time::Instant::now();
    power_off_and_confirm(&devices, LEVEL, || true).await;
    assert!(began.elapsed() <= Duration::from_millis(100), "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn two_devices_of_which_one_goes_off_after_their_level_are_both_looked_at_once_more() {
    let (_, devices) = fakes(&[Manner::Slow(Duration::from_millis(300)), Manner::ShowsAfter(Duration::from_secs(9))]);
    let report = power_off_and_confirm(&devices, LEVEL, || true).await;
    assert!(matches!(report.outcome, Outcome::Off { .. }), "{report:?}");
}
