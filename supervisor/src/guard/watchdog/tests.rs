//! Watchdogs that are files, and what the kernel tells of real ones.

use super::*;

#[test]
fn what_is_no_watchdog_is_not_armed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("watchdog");
    let wanted = WatchdogFile { device: path.clone(), ..WatchdogFile::default() };
    assert!(matches!(Watchdog::open(&wanted, None, Moment(0)), Err(WatchdogError::Open(_))));
    fs::write(&path, "").unwrap();
    assert!(matches!(Watchdog::open(&wanted, None, Moment(0)), Err(WatchdogError::Support(_))));
    assert_eq!(fs::read(&path).unwrap(), b"", "nothing was written into somebody's file");
}

#[test]
fn one_whose_disarming_fails_is_kept_and_petted_on() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("watchdog");
    fs::write(&path, "").unwrap();
    let held = |device: File| Watchdog {
        device,
        armed: ArmedWatchdog { identity: "wd".to_owned(), timeout_ms: 10_000, is_virtual: false },
        can_close: true,
        unfit: None,
        due: Moment(0),
        failing: false,
    };
    assert!(held(OpenOptions::new().write(true).open(&path).unwrap()).disarm().is_none());
    assert_eq!(fs::read(&path).unwrap(), b"V");
    assert!(held(File::open(&path).unwrap()).disarm().is_some(), "it does not take the word");
}

#[test]
fn one_that_could_not_be_disarmed_is_not_armed_to_see_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), format!("{text}\n")).unwrap();
    let told = || told_for_ever(folder.path(), &WatchdogFile::default());
    assert_eq!(told(), None, "what the kernel does not tell is looked for by opening it");
    write("nowayout", "1");
    write("state", "inactive");
    write("identity", "iTCO_wdt");
    write("timeout", "30");
    let armed = told().unwrap();
    assert_eq!((armed.identity.as_str(), armed.timeout_ms), ("iTCO_wdt", 30_000));
    write("state", "active");
    assert_eq!(told(), None, "what is armed has to be petted on");
    write("state", "inactive");
    write("nowayout", "0");
    assert_eq!(told(), None);
}

#[test]
fn one_that_resets_nothing_or_ends_with_its_guard_is_not_counted_on() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), format!("{text}\n")).unwrap();
    let why = |options: u32| unfit(Some(folder.path()), options, "iTCO_wdt").map(|error| error.to_string());
    let magic = CAN_SET_TIMEOUT | CAN_CLOSE;
    assert_eq!(why(magic | ALARM_ONLY), Some(WatchdogError::AlarmOnly.to_string()));
    assert_eq!(why(CAN_SET_TIMEOUT), None, "of a driver that the kernel tells nothing of, nothing is known");
    write("identity", "iTCO_wdt");
    write("nowayout", "0");
    assert_eq!(why(CAN_SET_TIMEOUT), Some(WatchdogError::EndsWithUs.to_string()));
    assert_eq!(why(magic), None, "a close alone does not disarm it");
    write("nowayout", "1");
    assert_eq!(why(CAN_SET_TIMEOUT), None, "nothing disarms it");
    write("nowayout", "0");
    write("identity", "another one");
    assert_eq!(why(CAN_SET_TIMEOUT), None, "what the kernel tells is of another device");
}

#[test]
fn a_virtual_machine_is_known_by_its_processor_or_its_firmware() {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    assert!(is_virtual_machine(folder.path()), "where nothing can be read nobody knows");
    write("proc/cpuinfo", "model name\t: hypervisor 3000\nflags\t\t: fpu vme lahf_lm\n");
    assert!(!is_virtual_machine(folder.path()), "it has no firmware that tells");
    write("sys/class/dmi/id/sys_vendor", "Dell Inc.\n");
    assert!(!is_virtual_machine(folder.path()));
    write("sys/class/dmi/id/product_name", "KVM\n");
    assert!(is_virtual_machine(folder.path()));
    write("sys/class/dmi/id/product_name", "PowerEdge R640\n");
    write("proc/cpuinfo", "flags\t\t: fpu vme hypervisor lahf_lm\n");
    assert!(is_virtual_machine(folder.path()));
    write("proc/cpuinfo", "flags\t\t: fpu vme lahf_lm\n");
    assert!(!is_virtual_machine(folder.path()));
    // A folder stands for whatever else cannot be read.
    fs::remove_file(folder.path().join("sys/class/dmi/id/product_name")).unwrap();
    fs::create_dir(folder.path().join("sys/class/dmi/id/product_name")).unwrap();
    assert!(is_virtual_machine(folder.path()));
}

#[test]
fn an_identity_is_read_up_to_its_padding() {
    assert_eq!(identity(b"i6300ESB timer\0\0\0"), "i6300ESB timer");
    assert_eq!(identity(&[b'x'; 32]), "x".repeat(32));
}
