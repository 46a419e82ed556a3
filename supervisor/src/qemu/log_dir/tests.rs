use std::os::unix::fs::PermissionsExt as _;

use holdfast_policies::time::WallTime;

use super::{
    super::{Inner, record::Record, stop::Look as SeenBefore, tests::idle},
    *,
};

const LONG: Duration = Duration::from_secs(20);

fn guest(name: &str) -> GuestName {
    GuestName::new(name).unwrap()
}

/// A run of a guest that was started so many milliseconds after the first one.
fn run(name: &str, started: u64, said: &str) -> Run {
    let head = format!("{MARK}{name} {started}");
    Run { guest: guest(name), head, said: said.as_bytes().to_owned() }
}

/// A guest that runs below `run_dir`, as far as its files tell, and whose QEMU has said this.
fn running(run_dir: &Path, name: &str, started: u64, said: &str) -> Files {
    let files = Files::new(run_dir, &guest(name));
    files.make().unwrap();
    files.write(&Record { started: WallTime(started), ..Record::bare(guest(name)) }).unwrap();
    fs::write(files.log(), said).unwrap();
    files
}

fn names(folder: &Path) -> BTreeSet<String> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned()).collect()
}

#[test]
fn what_qemu_said_in_the_newest_runs_is_kept_for_root_only_and_nothing_of_older_ones() {
    let folder = tempfile::tempdir().unwrap();
    let below = folder.path().join("log/holdfast");
    for started in 1..=6 {
        put(&below, &run("web-1", started, "half")).unwrap();
        put(&below, &run("web-1", started, &format!("all of {started}\n"))).unwrap();
    }
    let kept = ["web-1.log", "web-1.log.1", "web-1.log.2", "web-1.log.3"];
    assert_eq!(names(&below), BTreeSet::from(kept.map(str::to_owned)));
    let texts = kept.map(|name| fs::read_to_string(below.join(name)).unwrap());
    let expected = [6, 5, 4, 3].map(|started| format!("{MARK}web-1 {started}\nall of {started}\n"));
    assert_eq!(texts, expected, "a copy takes the place of an earlier one of the same run");
    let mode = |name: &str| fs::metadata(below.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!([mode(""), mode("web-1.log"), mode("web-1.log.3")], [0o700, 0o600, 0o600]);
}

#[test]
fn a_file_of_somebody_else_stays_as_it_is_whatever_it_is_called() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    let left = ["kern.log", "mail.log.2", "other.log", "web-1.new"];
    for name in left {
        fs::write(place(name), "of somebody else\n").unwrap();
    }
    std::os::unix::fs::symlink(place("other.log"), fresh(folder.path(), &guest("web-1"))).unwrap();
    put(folder.path(), &run("kern", 1, "x")).unwrap_err();
    put(folder.path(), &run("mail", 1, "x")).unwrap_err();
    put(folder.path(), &run("web-1", 1, "x")).unwrap();
    forget_oldest(folder.path(), &guest("db-1"), 1).unwrap();
    assert_eq!(names(folder.path()), BTreeSet::from(left.map(str::to_owned)), "and only ours is forgotten");
    assert!(left.iter().all(|name| fs::read(place(name)).unwrap() == b"of somebody else\n"));
}

#[test]
fn a_pipe_of_somebody_else_is_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    nix::unistd::mkfifo(&folder.path().join("other.log"), nix::sys::stat::Mode::S_IRWXU).unwrap();
    put(folder.path(), &run("web-1", 1, "x")).unwrap();
    assert_eq!(names(folder.path()), BTreeSet::from(["other.log", "web-1.log"].map(str::to_owned)));
}

#[test]
fn guests_that_come_and_go_under_ever_new_names_take_bounded_room() {
    let folder = tempfile::tempdir().unwrap();
    for (ago, name) in [(40, "a"), (30, "b"), (20, "b.log"), (10, "c")] {
        put(folder.path(), &run(name, 1, "x")).unwrap();
        put(folder.path(), &run(name, 2, "x")).unwrap();
        let file = fs::File::open(copy(folder.path(), &guest(name), 0)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(ago)).unwrap();
    }
    forget_oldest(folder.path(), &guest("c"), 2).unwrap();
    let expected = ["b.log.log", "b.log.log.1", "c.log", "c.log.1"];
    assert_eq!(names(folder.path()), BTreeSet::from(expected.map(str::to_owned)));
}

#[test]
fn what_qemu_has_said_is_copied_while_its_guest_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (log_dir, run_dir) = (folder.path().join("log"), folder.path().join("run"));
    let (_sender, ended) = mpsc::sync_channel(1);
    let mut copier = Copier::new(&log_dir, &run_dir, ended);
    copier.look_around();
    let files = running(&run_dir, "web-1", 1_772_420_645_007, "");
    copier.look_around();
    assert!(!log_dir.exists(), "it has said nothing");

    fs::write(files.log(), "a warning\n").unwrap();
    copier.look_around();
    let path = log_dir.join("web-1.log");
    let expected = "# holdfast: what QEMU says of web-1, epoch 1.7, started at 2026-03-02T03:04:05.007Z\na warning\n";
    assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    fs::remove_file(&path).unwrap();
    copier.look_around();
    assert!(!path.exists(), "what has not changed is not written again");

    fs::write(files.log(), "a warning\nan error\n").unwrap();
    copier.look_around();
    assert_eq!(fs::read_to_string(&path).unwrap(), format!("{expected}an error\n"));
    assert_eq!(names(&log_dir).len(), 1);
}

#[test]
fn what_has_ended_and_waits_comes_before_what_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (log_dir, run_dir) = (folder.path().join("log"), folder.path().join("run"));
    let (sender, ended) = mpsc::sync_channel(1);
    let mut copier = Copier::new(&log_dir, &run_dir, ended);
    sender.try_send(run("web-1", 1, "the first")).unwrap();
    running(&run_dir, "web-1", 2, "the second");
    copier.look_around();
    assert!(fs::read_to_string(log_dir.join("web-1.log")).unwrap().ends_with("\nthe second"));
    assert!(fs::read_to_string(log_dir.join("web-1.log.1")).unwrap().ends_with("\nthe first"));
}

#[test]
fn a_log_that_could_not_be_copied_is_copied_when_it_can() {
    let folder = tempfile::tempdir().unwrap();
    let (log_dir, run_dir) = (folder.path().join("log"), folder.path().join("run"));
    let (_sender, ended) = mpsc::sync_channel(1);
    let mut copier = Copier::new(&log_dir, &run_dir, ended);
    running(&run_dir, "web-1", 1, "a warning\n");
    // A file in its place stands for a disk that takes nothing.
    fs::write(&log_dir, "").unwrap();
    copier.look_around();
    assert!(copier.failing.contains(&guest("web-1")) && copier.copied.is_empty());
    fs::remove_file(&log_dir).unwrap();
    copier.look_around();
    assert!(copier.failing.is_empty() && log_dir.join("web-1.log").exists());
}

/// Whether its end is in order or not, and once only, though it is forgotten again before its next start.
#[tokio::test]
async fn a_run_that_is_stopped_has_left_its_log_on_disk() {
    for (name, look) in [("web-1", SeenBefore::Away), ("web-2", SeenBefore::Closely)] {
        let folder = tempfile::tempdir().unwrap();
        let (log_dir, run_dir) = (folder.path().join("log"), folder.path().join("run"));
        fs::create_dir(&run_dir).unwrap();
        let (logs, copying) = LogDir::start(&log_dir, &run_dir).unwrap();
        let inner = Inner { logs, ..idle(&run_dir) };
        let files = running(&run_dir, name, 1, "");
        let record = files.read().unwrap().unwrap();
        inner.enter(&guest(name), record.epoch, Some(&record), None);
        fs::write(files.log(), "its last words\n").unwrap();
        inner.stop(&guest(name), look, None).await.unwrap();
        assert!(files.read().unwrap().is_none());
        inner.stop(&guest(name), SeenBefore::Away, None).await.unwrap();
        drop(inner);
        copying.join().unwrap();
        let copy = format!("{name}.log");
        assert!(fs::read_to_string(log_dir.join(&copy)).unwrap().ends_with("\nits last words\n"));
        assert_eq!(names(&log_dir), BTreeSet::from([copy]));
    }
}

/// A pipe that nobody writes to stands for a disk that does not answer: it is opened for ever.
#[tokio::test]
async fn a_disk_that_does_not_answer_keeps_no_guest_from_its_end() {
    let folder = tempfile::tempdir().unwrap();
    let (log_dir, run_dir) = (folder.path().join("log"), folder.path().join("run"));
    fs::create_dir(&log_dir).unwrap();
    let pipe = log_dir.join("web-1.log");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let files = running(&run_dir, "web-1", 1, "its last words\n");
    let (logs, copying) = LogDir::start(&log_dir, &run_dir).unwrap();
    for _ in 0..WAITING_MAX + 3 {
        tokio::time::timeout(LONG, logs.ended(&guest("web-1"), &files)).await.expect("it does not wait for the disk");
    }
    // It answers again, so that the thread ends: whoever has begun to open the pipe reads a whole first line of nobody's from it.
    let mut other_end = OpenOptions::new().read(true).write(true).open(&pipe).unwrap();
    fs::remove_file(&pipe).unwrap();
    other_end.write_all(&vec![b'x'; usize::try_from(HEAD_BYTES_MAX).unwrap()]).unwrap();
    drop(logs);
    copying.join().unwrap();
    drop(other_end);
}

#[tokio::test]
async fn nothing_is_copied_into_the_folder_of_running_guests_or_where_none_is_named() {
    let run_dir = tempfile::tempdir().unwrap();
    for folder in [None, Some(run_dir.path().join("guests"))] {
        assert!(LogDir::begin(folder.as_deref(), run_dir.path()).ended.is_none());
    }
}
