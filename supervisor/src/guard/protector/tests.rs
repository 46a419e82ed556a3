//! What becomes of a watchdog that is not there when it is needed.

use std::{fs, io};

use holdfast_policies::{armed::ArmedWatchdog, names::Incarnation};

use super::{
    super::{memory::Memory, protocol::Request},
    *,
};

fn kept(_: &Memory) -> io::Result<()> {
    Ok(())
}

/// One in a folder of its own, whose watchdog is at a path where there is none.
fn protector() -> (tempfile::TempDir, Protector) {
    let folder = tempfile::tempdir().unwrap();
    let wanted = WatchdogFile { device: folder.path().join("watchdog"), ..WatchdogFile::default() };
    let written = Written::new(folder.path(), Incarnation::new("boot-1").unwrap());
    let protector = Protector::new(Some(wanted), false, folder.path(), written).unwrap();
    (folder, protector)
}

#[test]
fn a_watchdog_that_cannot_be_reached_when_it_is_to_be_disarmed_is_counted_on_until_it_is() {
    let (folder, mut protector) = protector();
    let memory = Memory::blank(Incarnation::new("boot-1").unwrap());
    let mut state = State::new(memory, Moment(0), Duration::from_secs(8), Vec::new());
    let armed = ArmedWatchdog { identity: "wd".to_owned(), timeout_ms: 10_000, is_virtual: false };
    state.apply(Request::StopMode { stops: true }, Moment(0), &kept).unwrap();
    state.note_watchdog(armed, &kept).unwrap();
    state.apply(Request::StopMode { stops: false }, Moment(0), &kept).unwrap();
    for now in [1_000, 1_001, 2_000] {
        protector.prepare(&mut state, &kept, Moment(now));
        assert_eq!(state.memory().counted_on, Some(10_000), "its device is not there for now");
    }
    // As `echo V > /dev/watchdog` leaves it behind where there is no device.
    fs::write(folder.path().join("watchdog"), "").unwrap();
    protector.prepare(&mut state, &kept, Moment(3_000));
    assert_eq!(state.memory().counted_on, Some(10_000), "this is no watchdog");
    // Where none is named any more there is nothing to disarm; what is armed fires.
    protector.wanted = None;
    protector.prepare(&mut state, &kept, Moment(4_000));
    assert_eq!(state.memory().counted_on, None);
}
