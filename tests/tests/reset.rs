//! A real watchdog: the guard alone in a machine whose `i6300esb` resets it when the guard dies or stands still, and when a
//! guest outlives the lease; and does not while the guard does its duty (R13–R15). Driver, device node and reset are real.

#![expect(clippy::unwrap_used, reason = "what a test's helper cannot do fails the test")]

use std::time::{Duration, Instant};

use holdfast_tests::lab::{
    left_out,
    machine::{GUEST, Machine, TIMEOUT},
    scene::LIMIT,
    wait,
};
use serde_json::json;

/// A lease that leaves an emulated machine time for a few commands; the guard takes up to eight seconds.
const LEASE: Duration = Duration::from_secs(7);
/// How much sooner than its time-out the watchdog may be seen to fire: the last pet is up to a quarter of a second old, and
/// an emulated machine is late with it, by a second or two where this one stands still for a moment.
const EARLY: Duration = Duration::from_millis(2_500);
/// How much later than due it may be seen, the second that the guard allows itself at the end of the lease and the command that
/// grants it included, on a machine that is busy with something else too.
const LATE: Duration = Duration::from_secs(12);
/// Twice the time-out: where no lease runs any more, a watchdog that nobody pets fires within one.
const TWICE: Duration = TIMEOUT.saturating_mul(2);

/// Waits for the watchdog, which is due at `due` after `begin`.
fn fires(machine: &Machine, begin: Instant, due: Duration) {
    let took = machine.fires_within(LIMIT).unwrap().map(|at| at.duration_since(begin));
    println!("it has fired after {took:?}, due after {due:?}");
    let in_time = took.is_some_and(|took| (due.saturating_sub(EARLY)..due + LATE).contains(&took));
    assert!(in_time, "it has fired after {took:?}, due after {due:?}");
}

fn does_not_fire(machine: &Machine, time: Duration) {
    assert_eq!(machine.fires_within(time).unwrap(), None, "the watchdog has fired");
}

#[test]
fn a_dead_or_frozen_guard_has_a_real_watchdog_reset_its_machine() {
    if left_out("a_dead_or_frozen_guard_has_a_real_watchdog_reset_its_machine") {
        return;
    }
    let mut machine = Machine::boot().unwrap();
    let boot = "cat /proc/sys/kernel/random/boot_id";
    for signal in ["KILL", "STOP"] {
        machine.arm().unwrap();
        let before = machine.run(boot).unwrap();
        let begin = Instant::now();
        machine.run(&format!("guard signal {signal}")).unwrap();
        fires(&machine, begin, TIMEOUT);
        assert_ne!(machine.run(boot).unwrap(), before, "{signal}: it was reset");
    }
}

#[test]
fn a_guest_that_cannot_be_killed_at_the_end_of_the_lease_has_a_real_watchdog_reset_its_machine() {
    if left_out("a_guest_that_cannot_be_killed_at_the_end_of_the_lease_has_a_real_watchdog_reset_its_machine") {
        return;
    }
    let mut machine = Machine::boot().unwrap();
    machine.arm().unwrap();
    // Nothing kills a process that writes to a file system which stands still: it hangs in the kernel.
    machine.run("fsfreeze --freeze /data && guest dd if=/dev/zero of=/data/hangs bs=4096 count=1").unwrap();
    wait::until("a guest that hangs", LIMIT, || {
        let state = format!("cat $(sed 's,.*,/proc/&/status,' /sys/fs/cgroup/{GUEST}/cgroup.procs)");
        let state = machine.run(&state).map_err(|error| format!("{error:#}"))?;
        if state.contains("D (disk sleep)") { Ok(()) } else { Err(state) }
    })
    .unwrap();
    // Only then, so that the lease has not to last until it hangs, however slow this machine is.
    let begin = Instant::now();
    machine.grant(LEASE).unwrap();
    machine.register().unwrap();
    assert!(begin.elapsed() < LEASE, "this machine is too slow for the test: the lease is over");
    fires(&machine, begin, LEASE + TIMEOUT);
    // Its log has gone with the boot, or not; what it wrote down has not.
    let written = machine.run("cat /holdfast/last-words.txt").unwrap();
    assert!(written.contains("the lease ran out") && written.contains(&format!("stopping {GUEST}")), "{written}");
    assert!(!written.contains("no guest runs here any more"), "{written}");
}

#[test]
fn a_machine_that_is_rid_of_its_guests_in_time_is_not_reset_and_neither_is_one_whose_guard_is_back_in_time() {
    if left_out(
        "a_machine_that_is_rid_of_its_guests_in_time_is_not_reset_and_neither_is_one_whose_guard_is_back_in_time",
    ) {
        return;
    }
    let mut machine = Machine::boot().unwrap();
    machine.arm().unwrap();
    let status = machine.ask_guard(r#"{"request":"query"}"#).unwrap();
    assert_eq!(status["hardened"], json!({ "memory": null, "priority": null }), "it may do all that it wants here");
    // First, so that the lease has not to last until they run. One of them plays QEMU, and has written its number.
    let (procs, number) = (format!("/sys/fs/cgroup/{GUEST}/cgroup.procs"), format!("/run/holdfast/guests/{GUEST}/pid"));
    machine.run("guest sleep 1000; guest sleep 2000").unwrap();
    machine.run(&format!("until [ $(wc -l < {procs}) = 2 ]; do sleep 0.1; done")).unwrap();
    machine.run(&format!("mkdir -p /run/holdfast/guests/{GUEST}; tail -n 1 {procs} > {number}")).unwrap();
    machine.grant(LEASE).unwrap();
    machine.register().unwrap();
    // By the time that the guard has answered this it has seen both. Then somebody moves the one out of the guest's cgroup.
    machine.ask_guard(r#"{"request":"query"}"#).unwrap();
    // Anew, so that the lease is not over before that where every command takes long.
    machine.grant(LEASE).unwrap();
    machine.run(&format!("cat {number} > /sys/fs/cgroup/cgroup.procs")).unwrap();
    let stopped = machine.wait_guard("a stopped guest", |status| {
        status["stopped"].as_array()?.first().map(|stopped| stopped["guest"] == GUEST)
    });
    assert!(stopped.unwrap());
    assert_eq!(machine.run(&format!("cat {procs}")).unwrap(), "");
    let moved = format!("cat /proc/$(cat {number})/cmdline 2> /dev/null || true");
    assert_eq!(machine.run(&moved).unwrap(), "", "what was moved does not outlive the lease");
    does_not_fire(&machine, TWICE);

    // Another guard of the same boot opens the device that the first has left armed.
    machine.run("guard signal KILL; guard start").unwrap();
    machine.wait_armed().unwrap();
    does_not_fire(&machine, TWICE);

    // Nobody counts on it any more: it is disarmed, and no guard is needed.
    machine.ask_guard(r#"{"request":"stop_mode","stops":false}"#).unwrap();
    machine.wait_guard("a disarmed watchdog", |status| (status["armed"]["stops"] == false).then_some(())).unwrap();
    machine.run("guard signal KILL").unwrap();
    does_not_fire(&machine, TWICE);
}
