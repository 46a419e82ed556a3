//! A scripted monitor for the contract and for what a QEMU may do, and a real QEMU.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::AsRawFd,
        unix::{fs::symlink, net::UnixListener as Unasked},
    },
    path::PathBuf,
    process::Command,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use holdfast_policies::{model::QemuDevice, time::Span};
use nix::{
    fcntl::{FcntlArg, fcntl},
    libc,
    sys::socket::{Shutdown, shutdown},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    task::JoinHandle,
};

use super::{NewestOff, Qemu, look, traces, within};
use crate::{
    Answer, Outcome, Power, PowerDevice, benches::SETTLED, power_off_and_confirm, power_on_and_confirm, simulator,
};

/// Longer than anything takes that comes about, on a busy machine, too.
const CALL: Duration = Duration::from_secs(30);
const UUID: &str = "33221100-5544-7766-8899-aabbccddeeff";

/// What is odd about a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quirk {
    None,
    /// It takes `quit` and lives on.
    Stuck,
    /// It hears `quit` and says nothing.
    HangsAtQuit,
    /// It greets late.
    Slow,
    /// It answers every command with an error, and cannot be started.
    Fails,
    /// It accepts connections and says nothing.
    Mute,
    /// It sends a line without end.
    Endless,
    /// It greets like somebody else.
    Stranger,
    /// It is in this state.
    State(&'static str),
    /// It has this UUID.
    Uuid(&'static str),
}

/// A scripted QEMU. The declared socket is a link to one where a monitor listens, or to one where none does.
pub(crate) struct Machine {
    host: Arc<Host>,
    task: JoinHandle<()>,
}

struct Host {
    folder: TempDir,
    pidfile: File,
    quirk: Mutex<Quirk>,
    offs: Mutex<u32>,
}

impl Machine {
    /// One that runs, within a runtime.
    pub(crate) fn start() -> Self {
        // A tmpfs wherever tests run, as /run is where QEMU's sockets are.
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let listener = UnixListener::bind(folder.path().join("live")).unwrap();
        let unasked = Unasked::bind(folder.path().join("dead")).unwrap();
        // Closing it alone would leave a copy to any program that is being started at this moment.
        shutdown(unasked.as_raw_fd(), Shutdown::Both).unwrap();
        let pidfile = File::create(folder.path().join("pid")).unwrap();
        let host = Arc::new(Host { folder, pidfile, quirk: Mutex::new(Quirk::None), offs: Mutex::new(0) });
        host.set_power(true);
        let task = tokio::spawn(Arc::clone(&host).serve(listener));
        Self { host, task }
    }

    pub(crate) fn settings(&self) -> QemuDevice {
        let folder = self.host.folder.path().display();
        let start = format!("[ ! -e {folder}/fail ] && ln -sfn live {folder}/qmp");
        QemuDevice {
            socket: self.host.path("qmp"),
            pidfile: self.host.path("pid"),
            start: Some(vec!["sh".to_owned(), "-c".to_owned(), start]),
            wiring_verified_by: None,
            timeout: Span::secs(4),
        }
    }

    pub(crate) fn device(&self) -> Qemu {
        Qemu { newest_off: NewestOff::done_within(SETTLED), ..Qemu::new(self.settings()) }
    }

    pub(crate) fn quirk(&self, quirk: Quirk) {
        *self.host.quirk.lock().unwrap() = quirk;
        if quirk == Quirk::Fails {
            fs::write(self.host.path("fail"), "").unwrap();
        }
    }

    /// Off as after a kill.
    pub(crate) fn set_power(&self, on: bool) {
        self.host.set_power(on);
    }

    pub(crate) fn is_on(&self) -> bool {
        fs::read_link(self.host.path("qmp")).is_ok_and(|target| target.as_os_str() == "live")
    }

    pub(crate) fn offs(&self) -> u32 {
        *self.host.offs.lock().unwrap()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Host {
    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn lock(&self, kind: i32) {
        fcntl(&self.pidfile, FcntlArg::F_OFD_SETLK(&traces::lock(kind))).unwrap();
    }

    fn set_power(&self, on: bool) {
        let _ = fs::remove_file(self.path("qmp"));
        symlink(if on { "live" } else { "dead" }, self.path("qmp")).unwrap();
        self.lock(if on { libc::F_WRLCK } else { libc::F_UNLCK });
    }

    /// Ends as a QEMU that quits: in this order.
    fn quit(&self) {
        fs::remove_file(self.path("qmp")).unwrap();
        fs::remove_file(self.path("pid")).unwrap();
        self.lock(libc::F_UNLCK);
    }

    /// One connection after the other, as QEMU does.
    async fn serve(self: Arc<Self>, listener: UnixListener) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // Who listens has the pidfile locked, also after it was started anew.
            self.lock(libc::F_WRLCK);
            // A device may hang up at any time.
            let _ = self.converse(BufReader::new(stream)).await;
        }
    }

    async fn converse(&self, mut stream: BufReader<UnixStream>) -> io::Result<()> {
        let quirk = *self.quirk.lock().unwrap();
        let greeting = match quirk {
            Quirk::Mute => String::new(),
            Quirk::Stranger => "220 ready\r\n".to_owned(),
            Quirk::Endless => "x".repeat(1 << 20),
            _ => format!("{}\r\n", json!({ "QMP": { "version": {}, "capabilities": ["oob"] } })),
        };
        if quirk == Quirk::Slow {
            tokio::time::sleep(Duration::from_millis(400)).await;
        }
        stream.write_all(greeting.as_bytes()).await?;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await? == 0 {
                return Ok(());
            }
            let asked: Value = serde_json::from_str(&line).unwrap();
            let command = asked["execute"].as_str().unwrap();
            if command == "quit" && quirk == Quirk::HangsAtQuit {
                continue;
            }
            let mut reply = self.reply(quirk, command);
            reply["id"] = asked["id"].clone();
            let event = json!({ "event": "NEW_IN_SOME_LATER_QEMU", "data": { "id": command } });
            stream.write_all(format!("{event}\r\n{reply}\r\n").as_bytes()).await?;
            if command == "quit" {
                return Ok(());
            }
        }
    }

    fn reply(&self, quirk: Quirk, command: &str) -> Value {
        if quirk == Quirk::Fails {
            return json!({ "error": { "class": "GenericError", "desc": "scripted failure" } });
        }
        match command {
            "query-status" => {
                let state = if let Quirk::State(state) = quirk { state } else { "running" };
                json!({ "return": { "status": state, "running": state == "running" } })
            }
            "query-uuid" => json!({ "return": { "UUID": if let Quirk::Uuid(uuid) = quirk { uuid } else { UUID } } }),
            "quit" => {
                *self.offs.lock().unwrap() += 1;
                if quirk != Quirk::Stuck {
                    self.quit();
                }
                json!({ "return": {} })
            }
            _ => json!({ "return": {} }),
        }
    }
}

async fn unknown(device: &Qemu, says: &str) {
    let answer = device.status(CALL).await;
    let Answer::Unknown { detail } = &answer else { panic!("{says}: {answer:?}") };
    assert!(detail.contains(says), "{says}: {detail}");
}

#[tokio::test]
async fn a_socket_that_is_gone_is_off_only_to_who_saw_its_machine_alive() {
    let machine = Machine::start();
    let (witness, stranger) = (machine.device(), machine.device());
    assert_eq!(witness.status(CALL).await, Answer::Confirmed(Power::On));
    fs::remove_file(machine.host.path("qmp")).unwrap();
    unknown(&witness, "nobody saw its QEMU end").await;
    fs::remove_file(machine.host.path("pid")).unwrap();
    unknown(&witness, "nobody saw its QEMU end").await;
    machine.host.lock(libc::F_UNLCK);
    assert_eq!(witness.status(CALL).await, Answer::Confirmed(Power::Off));
    unknown(&stranger, "nobody saw its QEMU end").await;
}

#[tokio::test]
async fn what_refuses_a_connection_is_off_only_if_it_is_a_socket_whose_qemu_is_gone() {
    let machine = Machine::start();
    machine.set_power(false);
    assert_eq!(machine.device().status(CALL).await, Answer::Confirmed(Power::Off));
    machine.host.lock(libc::F_WRLCK);
    unknown(&machine.device(), "its pidfile is locked").await;
    machine.host.lock(libc::F_UNLCK);
    for other in ["pid", "."] {
        let settings = QemuDevice { socket: machine.host.path(other), ..machine.settings() };
        unknown(&Qemu::new(settings), "is no socket").await;
    }
}

#[tokio::test]
async fn a_machine_whose_end_nobody_could_see_is_not_ended() {
    let machine = Machine::start();
    fs::write(machine.host.path("unlocked"), "1").unwrap();
    for pidfile in ["nothing", "live", "unlocked"] {
        let device = Qemu::new(QemuDevice { pidfile: machine.host.path(pidfile), ..machine.settings() });
        unknown(&device, "has not locked").await;
        assert!(matches!(device.off(CALL).await, Answer::Unknown { .. }), "{pidfile}");
    }
    assert_eq!((machine.offs(), machine.is_on()), (0, true));
}

#[tokio::test]
async fn a_machine_that_may_run_elsewhere_is_neither_on_nor_off_and_is_left_alone() {
    let machine = Machine::start();
    for state in ["inmigrate", "finish-migrate", "postmigrate"] {
        machine.quirk(Quirk::State(state));
        unknown(&machine.device(), "may run elsewhere").await;
        assert!(matches!(machine.device().off(CALL).await, Answer::Refused { .. }), "{state}");
    }
    assert_eq!(machine.offs(), 0);
    for state in ["paused", "io-error", "shutdown", "guest-panicked", "new in some later QEMU"] {
        machine.quirk(Quirk::State(state));
        assert_eq!(machine.device().status(CALL).await, Answer::Confirmed(Power::On), "{state}");
    }
}

#[tokio::test]
async fn whoever_else_listens_is_unknown_by_the_deadline() {
    let machine = Machine::start();
    for (quirk, says, deadline) in [
        (Quirk::Endless, "a line of more than", CALL),
        (Quirk::Stranger, "no monitor of QEMU", CALL),
        (Quirk::Mute, "no answer within", Duration::from_secs(1)),
    ] {
        machine.quirk(quirk);
        // What does not end by its deadline does not end here at all.
        let answer = machine.device().status(deadline).await;
        let Answer::Unknown { detail } = &answer else { panic!("{quirk:?}: {answer:?}") };
        assert!(detail.contains(says), "{quirk:?}: {detail}");
    }
}

#[tokio::test]
async fn a_quit_without_an_answer_may_be_carried_out_later_and_what_got_none_is_not() {
    let machine = Machine::start();
    // What hangs is waited for until the deadline; on a busy machine it takes a while to get there.
    for (quirk, deadline, is_told) in [
        (Quirk::Mute, Duration::from_secs(1), false),
        (Quirk::State("inmigrate"), CALL, false),
        (Quirk::Stranger, CALL, false),
        (Quirk::HangsAtQuit, Duration::from_secs(4), true),
        (Quirk::Stuck, CALL, true),
    ] {
        machine.quirk(quirk);
        let device = Qemu::new(machine.settings());
        let answer = device.off(deadline).await;
        assert_eq!(answer == Answer::Confirmed(()), quirk == Quirk::Stuck, "{quirk:?}: {answer:?}");
        let goes_on = device.goes_on_for();
        assert_eq!(goes_on > Duration::from_secs(5), is_told, "{quirk:?}: {goes_on:?}");
        assert!(is_told || goes_on.is_zero(), "{quirk:?}: {goes_on:?}");
    }
    assert!(machine.is_on());
}

#[tokio::test]
async fn files_that_hang_hold_up_neither_the_answer_nor_the_runtime() {
    let (file_system, hangs) = std::sync::mpsc::channel::<()>();
    // With one thread for everything but this: were it not left to another, nothing here would ever end.
    let answer = within(Duration::from_millis(50), look(move || hangs.recv().is_ok())).await;
    assert!(matches!(&answer, Answer::Unknown { detail } if detail.contains("no answer within")), "{answer:?}");
    drop(file_system);
    assert_eq!(within(CALL, look(|| true)).await, Answer::Confirmed(true));
}

#[tokio::test]
async fn a_machine_without_uuid_cannot_tell_and_one_without_start_is_not_started() {
    let machine = Machine::start();
    machine.quirk(Quirk::Uuid("00000000-0000-0000-0000-000000000000"));
    let answer = machine.device().machine_id(CALL).await;
    assert!(matches!(&answer, Answer::Refused { detail, .. } if detail.contains("cannot tell")), "{answer:?}");
    machine.set_power(false);
    let device = Qemu::new(QemuDevice { start: None, ..machine.settings() });
    assert!(matches!(device.on(CALL).await, Answer::Refused { .. }));
    assert!(!machine.is_on());
}

/// A real QEMU with an empty machine; it ends with this value.
struct Real {
    folder: TempDir,
}

impl Real {
    fn settings(&self) -> QemuDevice {
        let path = |name: &str| self.folder.path().join(name);
        let monitor = format!("unix:{},server=on,wait=off", path("qmp").display());
        let words = ["qemu-system-x86_64", "-machine", "none", "-nodefaults", "-display", "none", "-daemonize"];
        let more = ["-uuid", UUID, "-qmp", &monitor, "-pidfile", path("pid").to_str().unwrap()].map(str::to_owned);
        QemuDevice {
            socket: path("qmp"),
            pidfile: path("pid"),
            start: Some(words.map(str::to_owned).into_iter().chain(more).collect()),
            wiring_verified_by: None,
            timeout: Span::secs(10),
        }
    }

    /// Not twice: the number in the file may be that of another process by then.
    fn kill(&self) {
        let pidfile = self.folder.path().join("pid");
        if traces::locked(&pidfile).is_some() {
            let pid = fs::read_to_string(pidfile).unwrap();
            Command::new("kill").args(["-9", pid.trim()]).status().unwrap();
        }
    }
}

impl Drop for Real {
    fn drop(&mut self) {
        self.kill();
    }
}

#[tokio::test]
async fn a_real_qemu_is_off_once_it_has_ended_whether_it_quits_or_is_killed() {
    let test = "a_real_qemu_is_off_once_it_has_ended_whether_it_quits_or_is_killed";
    if simulator::left_out(test) {
        return;
    }
    assert!(
        Command::new("qemu-system-x86_64").arg("--version").output().is_ok(),
        "install the package qemu-system-x86, or set HOLDFAST_NO_LAB=1 to leave {test} out"
    );
    let real = Real { folder: tempfile::tempdir_in("/dev/shm").unwrap() };
    let device = || Arc::new(Qemu::new(real.settings())) as Arc<dyn PowerDevice>;
    power_on_and_confirm(&[device()], CALL).await.unwrap();
    assert_eq!(device().machine_id(CALL).await, Answer::Confirmed(UUID.to_owned()));
    let report = power_off_and_confirm(&[device()], CALL, || true).await;
    assert!(matches!(report.outcome, Outcome::Off { .. }), "{report:?}");
    assert!(matches!(device().status(CALL).await, Answer::Unknown { .. }), "it took its socket along");

    power_on_and_confirm(&[device()], CALL).await.unwrap();
    real.kill();
    let limit = Instant::now() + CALL;
    while device().status(CALL).await != Answer::Confirmed(Power::Off) {
        assert!(Instant::now() < limit, "{:?}", device().status(CALL).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
