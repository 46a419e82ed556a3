//! What the guard answers, what it keeps before it acts, and what it tells.

use super::{super::protocol::REPLY_BYTES_MAX, *};

fn state() -> State {
    let memory = Memory::blank(Incarnation::new("boot-1").unwrap());
    State::new(memory, Moment(100), Duration::from_secs(8), Vec::new())
}

fn kept(_: &Memory) -> io::Result<()> {
    Ok(())
}

fn full(_: &Memory) -> io::Result<()> {
    Err(io::ErrorKind::StorageFull.into())
}

fn grant(deadline: u64) -> Request {
    Request::Grant { deadline: Moment(deadline) }
}

#[test]
fn how_it_is_is_said_in_the_same_words_whoever_writes_them() {
    let mut state = state();
    let now = Moment(1_000);
    let same = |state: &State| {
        let written = serde_json::to_value(state.said()).unwrap();
        assert_eq!(written, serde_json::to_value(Reply::Status(Box::new(state.status()))).unwrap());
    };
    same(&state);
    let web = GuestName::new("web-1").unwrap();
    state.apply(Request::StopMode { stops: true }, now, &kept).unwrap();
    state.apply(Request::Register { guest: web.clone(), cgroup: PathBuf::from("/c/web-1") }, now, &kept).unwrap();
    state.apply(Request::Voters { addresses: vec!["10.0.0.1:7400".parse().unwrap()] }, now, &kept).unwrap();
    state.apply(grant(2_000), now, &kept).unwrap();
    state.note_stopped(vec![web], now, &kept);
    state.note_hardened(Hardened { memory: Some("no".to_owned()), priority: None });
    same(&state);
    let watchdog = ArmedWatchdog { identity: "wd".to_owned(), timeout_ms: 10_000, is_virtual: false };
    state.note_watchdog(watchdog, &kept).unwrap();
    same(&state);
}

#[test]
fn a_deadline_goes_back_only_by_a_revocation() {
    let mut state = state();
    let now = Moment(1_000);
    assert_eq!(state.apply(grant(5_000), now, &kept), Ok(Reply::Done));
    assert_eq!(state.apply(grant(5_000), now, &kept), Ok(Reply::Done), "twice is as good as once");
    let refused = Refused::Backwards { asked: Moment(4_999), granted: Moment(5_000) };
    assert_eq!(state.apply(grant(4_999), now, &kept), Err(refused));
    assert!(matches!(state.apply(grant(9_001), now, &kept), Err(Refused::TooFar { .. })));
    assert_eq!(state.lease_left(Moment(4_000)), Some(Duration::from_secs(1)));
    assert_eq!(state.lease_left(Moment(6_000)), Some(Duration::ZERO));
    state.apply(Request::Revoke {}, now, &kept).unwrap();
    assert_eq!(state.lease_left(now), None);
    assert_eq!(state.apply(grant(2_000), now, &kept), Ok(Reply::Done));
}

#[test]
fn registrations_are_bounded_and_a_full_status_fits_an_answer() {
    let mut state = state();
    let guest = |index: usize| GuestName::new(format!("{:x<59}{index:04}", "g")).unwrap();
    let register = |index: usize| Request::Register {
        guest: guest(index),
        cgroup: PathBuf::from(format!("/{}", "c".repeat(CGROUP_BYTES_MAX - 1))),
    };
    for index in 0..GUESTS_MAX {
        assert_eq!(state.apply(register(index), Moment(0), &kept), Ok(Reply::Done));
    }
    assert_eq!(state.apply(register(0), Moment(0), &kept), Ok(Reply::Done));
    assert_eq!(state.apply(register(GUESTS_MAX), Moment(0), &kept), Err(Refused::Full));
    let full = serde_json::to_vec(&state.apply(Request::Query {}, Moment(0), &kept).unwrap()).unwrap();
    assert!(u64::try_from(full.len()).unwrap() < REPLY_BYTES_MAX / 2);
    state.apply(Request::Unregister { guest: guest(0) }, Moment(0), &kept).unwrap();
    assert_eq!(state.apply(register(GUESTS_MAX), Moment(0), &kept), Ok(Reply::Done));
}

#[test]
fn a_request_that_cannot_be_read_is_counted_and_changes_nothing() {
    let mut state = state();
    let before = state.status();
    let lines: [&[u8]; 7] = [
        b"",
        b"\xff",
        b"{}",
        b"{\"request\":\"explode\"}",
        b"{\"request\":\"grant\",\"deadline\":-1}",
        b"{\"request\":\"register\",\"guest\":\"g\",\"cgroup\":\"../x\"}",
        b"{\"request\":\"register\",\"guest\":\"../g\",\"cgroup\":\"/x\"}",
    ];
    for line in lines {
        assert!(matches!(state.answer(line, Moment(0), &kept), Reply::Refused { .. }), "{line:?}");
    }
    assert_eq!(state.status(), Status { refused: 7, ..before });
}

#[test]
fn what_a_later_guard_must_know_is_not_acted_on_before_it_is_kept() {
    let mut state = state();
    let now = Moment(1_000);
    state.apply(Request::StopMode { stops: true }, now, &kept).unwrap();
    let guest = GuestName::new("web-1").unwrap();
    let register = Request::Register { guest: guest.clone(), cgroup: PathBuf::from("/c/web-1") };
    state.apply(register.clone(), now, &kept).unwrap();
    let before = state.memory().clone();
    for request in [
        Request::StopMode { stops: false },
        Request::Revoke {},
        Request::Register { guest: GuestName::new("web-2").unwrap(), cgroup: PathBuf::from("/c/web-2") },
        Request::Unregister { guest },
    ] {
        // Nothing was granted yet, so that a revocation changes nothing and needs nothing kept.
        let changes = request != Request::Revoke {};
        assert_eq!(matches!(state.apply(request.clone(), now, &full), Err(Refused::Unkept(_))), changes, "{request:?}");
        assert_eq!(*state.memory(), before, "{request:?}");
    }
    assert_eq!(state.apply(register, now, &full), Ok(Reply::Done), "it is kept already");
    assert_eq!(state.apply(grant(2_000), now, &full), Ok(Reply::Done), "a lease must not end for a full disk");
    assert_eq!(state.duty(now), Duty::Watch);
}

#[test]
fn a_guard_that_starts_anew_knows_those_who_vote_and_not_those_of_the_host_file() {
    let address = |last: u8| -> SocketAddr { format!("10.0.0.{last}:7400").parse().unwrap() };
    let begin = |memory: Memory| State::new(memory, Moment(100), Duration::from_secs(8), vec![address(1)]);
    let mut state = begin(Memory::blank(Incarnation::new("boot-1").unwrap()));
    assert_eq!(state.voters(), [address(1)], "nobody has said yet who votes");
    let voters = Request::Voters { addresses: vec![address(2), address(3)] };
    state.apply(voters, Moment(1_000), &full).unwrap();
    assert_eq!(state.voters(), [address(2), address(3)], "a full disk must not silence the beacon");
    let kept = std::cell::RefCell::default();
    state
        .apply(grant(2_000), Moment(1_000), &|memory| {
            kept.replace(Some(memory.clone()));
            Ok(())
        })
        .unwrap();
    let later = begin(kept.into_inner().unwrap());
    assert_eq!(later.voters(), [address(2), address(3)], "they are kept with the next lease");
    let many = Request::Voters { addresses: vec![address(9); VOTERS_MAX + 1] };
    assert_eq!(state.apply(many, Moment(1_000), &full), Err(Refused::Voters { count: VOTERS_MAX + 1 }));
}

#[test]
fn a_trial_is_not_armed_and_what_is_armed_is_counted_on_until_it_is_disarmed() {
    let mut state = state();
    let now = Moment(1_000);
    let watchdog = ArmedWatchdog { identity: "wd".to_owned(), timeout_ms: 10_000, is_virtual: false };
    let tried = Armed { stops: false, guard_ms: 1_000, watchdog: Some(watchdog.clone()) };
    state.note_trial(Ok(watchdog.clone()));
    assert_eq!((state.status().armed, state.memory().counted_on), (Some(tried.clone()), None));
    state.apply(Request::StopMode { stops: true }, now, &kept).unwrap();
    let armed = Armed { stops: true, watchdog: None, ..tried.clone() };
    assert_eq!(state.status().armed, Some(armed.clone()));
    assert!(state.status().unarmed.is_some());
    assert!(state.note_watchdog(watchdog.clone(), &full).is_err());
    assert_eq!(state.status().armed, Some(armed), "what is not kept is not told");
    state.note_watchdog(watchdog.clone(), &kept).unwrap();
    assert_eq!(state.status().armed.unwrap().watchdog, Some(watchdog));
    assert_eq!((state.status().unarmed, state.memory().counted_on), (None, Some(10_000)));
    state.apply(Request::StopMode { stops: false }, now, &kept).unwrap();
    assert_eq!((state.status().armed, state.memory().counted_on), (Some(tried), Some(10_000)));
    state.note_disarmed(&kept).unwrap();
    assert_eq!(state.memory().counted_on, None);
}

#[test]
fn a_guest_that_the_guard_stopped_is_told_until_it_is_started_or_forgotten() {
    let mut state = state();
    let names = ["web-1", "web-2"].map(|name| GuestName::new(name).unwrap());
    state.note_stopped(names.to_vec(), Moment(9), &full);
    state.note_stopped(vec![names[0].clone()], Moment(19), &kept);
    let told: Vec<_> = state.status().stopped.iter().map(|stopped| (stopped.guest.clone(), stopped.at)).collect();
    assert_eq!(told, [(names[1].clone(), Moment(9)), (names[0].clone(), Moment(19))]);
    let register = Request::Register { guest: names[0].clone(), cgroup: PathBuf::from("/c") };
    state.apply(register, Moment(20), &kept).unwrap();
    state.apply(Request::Unregister { guest: names[1].clone() }, Moment(20), &kept).unwrap();
    assert_eq!(state.status().stopped, []);
}

#[test]
fn the_guard_wakes_exactly_when_the_lease_ends_in_stop_mode() {
    let mut state = state();
    let now = Moment(1_000);
    state.apply(grant(1_007), now, &kept).unwrap();
    assert_eq!(state.unchanged_for(now), None, "a keep host does nothing then");
    state.apply(Request::StopMode { stops: true }, now, &kept).unwrap();
    assert_eq!(state.unchanged_for(now), Some(Duration::from_millis(7)));
    assert_eq!(state.unchanged_for(Moment(1_007)), None);
}
