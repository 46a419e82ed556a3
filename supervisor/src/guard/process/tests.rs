//! What is found by the number of a process, and what is not.

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use super::*;

/// A folder for a guest's cgroup and for the number of its process.
fn host() -> (tempfile::TempDir, Process) {
    let folder = tempfile::tempdir().unwrap();
    let process = Process::new(folder.path().join("pid"), folder.path());
    (folder, process)
}

/// Runs until it is killed, and is told to write its number to `number`, as QEMU is.
pub(in crate::guard) fn run(number: &Path) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", "read -r word", "-pidfile"]).arg(number).stdin(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let command_line = format!("/proc/{}/cmdline", child.id());
    for _ in 0..2_000 {
        if fs::read(&command_line).unwrap_or_default().windows(8).any(|word| word == b"-pidfile") {
            return child;
        }
        thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    panic!("{command_line} is not what it was told within 20 s");
}

fn write_number(process: &Process, number: u32) {
    fs::write(&process.number, format!("{number}\n")).unwrap();
}

#[test]
fn a_process_that_was_told_to_write_its_number_is_found_outside_the_cgroup_and_killed() {
    let (_folder, mut process) = host();
    assert_eq!(process.look(), Population::Empty, "nothing has been started yet");
    let mut qemu = run(&process.number);
    write_number(&process, qemu.id());
    assert_eq!(process.known(), Population::Empty, "nobody has looked yet");
    assert_eq!(process.look(), Population::Populated);
    process.kill();
    qemu.wait().unwrap();
    assert_eq!((process.known(), process.look()), (Population::Empty, Population::Empty));
}

#[test]
fn one_that_was_seen_in_its_cgroup_is_followed_whatever_becomes_of_that_and_of_its_number() {
    let (folder, mut process) = host();
    // Its command line says nothing of whose it is.
    let mut qemu = run(Path::new("elsewhere"));
    write_number(&process, qemu.id());
    assert_eq!(process.look(), Population::Empty, "it is not in the cgroup");
    fs::write(folder.path().join("cgroup.procs"), format!("1\n{}\n", qemu.id())).unwrap();
    assert_eq!(process.look(), Population::Populated);
    fs::write(folder.path().join("cgroup.procs"), "").unwrap();
    fs::remove_file(&process.number).unwrap();
    assert_eq!(process.look(), Population::Populated);
    process.kill();
    qemu.wait().unwrap();
    assert_eq!(process.look(), Population::Empty);
}

#[test]
fn another_process_that_has_the_number_by_now_is_left_alone_and_so_is_one_that_ended() {
    let (_folder, mut process) = host();
    write_number(&process, std::process::id());
    assert_eq!(process.look(), Population::Empty);
    let mut ended = run(&process.number);
    write_number(&process, ended.id());
    ended.kill().unwrap();
    // Nobody has taken notice of it yet, so that its number is not free.
    let mut looks = (0..2_000).map(|_| {
        thread::sleep(Duration::from_millis(10));
        process.look()
    });
    assert!(looks.any(|look| look == Population::Empty));
    ended.wait().unwrap();
    assert_eq!(process.look(), Population::Empty);
    for garbage in ["", "-1", "0", "12x", "99999999999"] {
        fs::write(&process.number, garbage).unwrap();
        assert_eq!(process.look(), Population::Empty, "{garbage:?}");
    }
}

#[test]
fn what_cannot_be_looked_at_is_not_taken_for_gone() {
    let (_folder, mut process) = host();
    fs::create_dir(&process.number).unwrap();
    assert_eq!(process.look(), Population::Unknown);
}

#[test]
fn a_word_is_found_as_a_whole_wherever_it_stands() {
    let far = [vec![b'x'; PART_BYTES - 3], b"\0/run/pid\0".to_vec()].concat();
    let longer = [vec![b'x'; 2 * PART_BYTES], b"/run/pid\0".to_vec()].concat();
    let cases: [(&[u8], bool); 10] = [
        (b"qemu\0-pidfile\0/run/pid\0-S\0", true),
        (b"/run/pid\0", true),
        (b"/run/pid", true),
        (&far, true),
        (&longer, false),
        (b"qemu\0/run/pid2\0", false),
        (b"qemu\0x/run/pid\0", false),
        (b"qemu\0/run/p", false),
        (b"\0\0", false),
        (b"", false),
    ];
    for (text, has) in cases {
        assert_eq!(has_word(text, b"/run/pid", 0).unwrap(), has, "{:?}", String::from_utf8_lossy(text));
    }
}
