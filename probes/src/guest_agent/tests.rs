//! What the agent does over its port, and what it refuses to do.

use std::{process::Child, time::Duration};

use holdfast_policies::{
    model::Probe,
    names::ServiceName,
    observe::Outcome,
    probe::{
        Comparison, ExecProbe, FileProbe, HeartbeatProbe, HttpProbe, MetricProbe, ProcessProbe, Processes, TcpProbe,
    },
    time::Span,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, BufReader, DuplexStream, ReadHalf, WriteHalf, duplex, split},
    net::{TcpListener, TcpSocket, TcpStream},
    time::timeout,
};

use super::{
    FromGuest, GuestConfig, ToGuest, What,
    config::Watched,
    protocol::{self, line, next_line},
    serve::Agent,
    watch::Main,
};

const LIMIT: Duration = Duration::from_secs(20);

/// The host's end of a port.
struct Host {
    read: BufReader<ReadHalf<DuplexStream>>,
    write: WriteHalf<DuplexStream>,
    rest: Vec<u8>,
    agent: Option<u64>,
}

impl Host {
    fn of(config: &str) -> Self {
        Self::with(GuestConfig::parse(config).unwrap())
    }

    fn with(config: GuestConfig) -> Self {
        let agent = Agent::new(config);
        let (ours, theirs) = duplex(1 << 20);
        tokio::spawn(async move {
            let (read, write) = split(theirs);
            agent.serve(read, write).await
        });
        let (read, write) = split(ours);
        Self { read: BufReader::new(read), write, rest: Vec::new(), agent: None }
    }

    async fn says(&mut self, message: &ToGuest) {
        self.write.write_all(&line(message)).await.unwrap();
    }

    async fn hears(&mut self) -> FromGuest {
        let line = timeout(LIMIT, next_line(&mut self.read, &mut self.rest)).await.unwrap().unwrap().unwrap();
        let message = serde_json::from_slice(&line).unwrap();
        if let FromGuest::Here { agent, .. } = &message {
            self.agent = Some(*agent);
        }
        message
    }

    async fn ask(&mut self, id: u64, within_ms: u64, what: What) {
        while self.agent.is_none() {
            self.hears().await;
        }
        let agent = self.agent.unwrap_or_default();
        self.says(&ToGuest::Ask { id, agent, within_ms, what }).await;
    }

    async fn asks(&mut self, id: u64, what: What) -> FromGuest {
        self.ask(id, 10_000, what).await;
        loop {
            let answer = self.hears().await;
            if answer.answers() == Some(id) {
                return answer;
            }
        }
    }
}

fn words(run: &[&str]) -> Vec<String> {
    run.iter().map(|word| (*word).to_owned()).collect()
}

fn sleeper() -> Child {
    std::process::Command::new("sleep").arg("600").spawn().unwrap()
}

/// Waits until the agent, which is part of this process, holds the kernel's handle of a process, by which its end is told.
async fn is_watched(pid: u32) {
    let line = format!("\nPid:\t{pid}\n");
    let is_of = |info: std::fs::DirEntry| std::fs::read_to_string(info.path()).is_ok_and(|info| info.contains(&line));
    while !std::fs::read_dir("/proc/self/fdinfo").unwrap().flatten().any(is_of) {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn it_says_that_it_is_here_and_does_what_it_is_allowed_to() {
    let mut host =
        Host::of("allow: { commands: [[sh, -c, 'echo out; echo err >&2; exit 3']], files: [/proc/self/status] }");
    assert!(matches!(host.hears().await, FromGuest::Here { ref down, .. } if down.is_empty()));
    let run = words(&["sh", "-c", "echo out; echo err >&2; exit 3"]);
    let answer = host.asks(7, What::Exec { run: run.clone() }).await;
    let expected =
        FromGuest::Ended { id: 7, code: Some(3), signal: None, stdout: "out\n".into(), stderr: "err\n".into() };
    assert_eq!(answer, expected);
    let probe = ExecProbe { codes: vec![3], ..ExecProbe::plain(run) };
    let answer = host.asks(8, What::Probe(Box::new(Probe::Exec(probe)))).await;
    assert!(matches!(answer, FromGuest::Found { id: 8, outcome: Outcome::Pass, .. }), "{answer:?}");
    let file = FileProbe { path: "/proc/self/status".into(), max_age: None, contains: None, matches: None };
    let answer = host.asks(9, What::Probe(Box::new(Probe::File(file)))).await;
    assert!(matches!(answer, FromGuest::Found { outcome: Outcome::Pass, .. }), "{answer:?}");
    let answer = host.asks(10, What::Probe(Box::new(Probe::AgentPing {}))).await;
    assert!(matches!(&answer, FromGuest::Found { outcome: Outcome::Pass, detail, .. } if detail.contains("ms late")));
}

/// For how long the guest has kept the agent waiting, as it says itself.
async fn late_ms(host: &mut Host, id: u64) -> u64 {
    let answer = host.asks(id, What::Probe(Box::new(Probe::AgentPing {}))).await;
    let FromGuest::Found { outcome: Outcome::Pass, detail, .. } = &answer else { panic!("{answer:?}") };
    detail.split_whitespace().find_map(|word| word.parse().ok()).unwrap()
}

#[tokio::test]
async fn an_agent_that_its_guest_did_not_let_run_says_so_for_a_while() {
    const HELD_MS: u64 = 400;
    let mut host = Host::of("allow: {}");
    host.hears().await;
    // By now it measures.
    tokio::time::sleep(Duration::from_millis(200)).await;
    // This thread is the agent's, too.
    std::thread::sleep(Duration::from_millis(HELD_MS));
    let (mut id, least) = (1, HELD_MS - 100);
    while late_ms(&mut host, id).await < least {
        assert!(id < 100, "it has not noticed");
        tokio::time::sleep(Duration::from_millis(20)).await;
        id += 1;
    }
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert!(late_ms(&mut host, id + 1).await >= least, "whoever asks seldom is told, too");
    host.says(&ToGuest::Hello { number: 7 }).await;
    let told = loop {
        if let FromGuest::Here { hello: Some(7), late_ms, .. } = host.hears().await {
            break late_ms;
        }
    };
    assert!(told >= least, "{told}");
}

#[tokio::test]
async fn what_its_config_does_not_name_is_refused_whoever_asks() {
    let mut host = Host::of("allow: { commands: [['true']], files: [/etc/hostname], processes: [nginx] }");
    let file = |path: &str| Probe::File(FileProbe { path: path.into(), max_age: None, contains: None, matches: None });
    let process = |which| Probe::Process(ProcessProbe { which, least: 1, most: None });
    let refused = [
        What::Exec { run: words(&["true", "--and", "more"]) },
        What::Exec { run: Vec::new() },
        What::Exec { run: words(&["reboot"]) },
        What::Probe(Box::new(file("/etc/shadow"))),
        What::Probe(Box::new(process(Processes::Name("sshd".to_owned())))),
        What::Probe(Box::new(process(Processes::PidFile("/etc/shadow".into())))),
    ];
    for (id, what) in (1..).zip(refused) {
        let answer = host.asks(id, what.clone()).await;
        assert!(matches!(answer, FromGuest::Refused { .. }), "{what:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_death_is_told_at_once_and_again_to_whoever_says_hello_until_the_service_is_back() {
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let mut child = sleeper();
    std::fs::write(&pid_file, child.id().to_string()).unwrap();
    let mut host = Host::of(&format!("watch: {{ web: {{ pid_file: {} }} }}", pid_file.display()));
    host.hears().await;
    // The watching begins some moments after the start; a death before that would be none.
    timeout(LIMIT, is_watched(child.id())).await.unwrap();
    let killed = std::time::Instant::now();
    child.kill().unwrap();
    let FromGuest::Died(down) = host.hears().await else { panic!("no death") };
    println!("told after {:?}", killed.elapsed());
    assert_eq!((down.service.as_str(), down.detail), ("web", format!("its process {} has ended", child.id())));
    host.says(&ToGuest::Hello { number: 7 }).await;
    assert!(matches!(host.hears().await, FromGuest::Here { ref down, .. } if down.len() == 1));
    child.wait().unwrap();
    let mut child = sleeper();
    std::fs::write(&pid_file, child.id().to_string()).unwrap();
    timeout(LIMIT, async {
        loop {
            host.says(&ToGuest::Hello { number: 7 }).await;
            if matches!(host.hears().await, FromGuest::Here { ref down, .. } if down.is_empty()) {
                break;
            }
        }
    })
    .await
    .unwrap();
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn a_number_that_was_written_before_its_process_began_is_somebody_elses() {
    let pid_file = tempfile::NamedTempFile::new().unwrap();
    let mut child = sleeper();
    std::fs::write(pid_file.path(), child.id().to_string()).unwrap();
    assert!(super::look::may_be_of(pid_file.path(), child.id()));
    let before_the_boot = std::time::SystemTime::now() - Duration::from_secs(3_600);
    pid_file.as_file().set_modified(before_the_boot).unwrap();
    assert!(!super::look::may_be_of(pid_file.path(), child.id()));
    child.kill().unwrap();
    child.wait().unwrap();
}

const MAIN: Main = Main { number: 7, restarts: 0 };

#[tokio::test]
async fn an_end_that_the_application_has_announced_is_no_death() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = GuestConfig::parse("heartbeat: { services: [shop] }").unwrap();
    config.heartbeat.as_mut().unwrap().folder = folder.path().into();
    let agent = Agent::new(config);
    let watched = Watched::PidFile("/run/shop.pid".into());
    let (shop, other) = (ServiceName::new("shop").unwrap(), ServiceName::new("other").unwrap());
    let file = folder.path().join("shop");
    assert!(!agent.is_meant(&shop, &watched, MAIN).await, "it has never reported");
    for (said, meant) in [("up\n", false), ("down\n", true), ("", false), ("down\n", true)] {
        std::fs::write(&file, said).unwrap();
        assert_eq!(agent.is_meant(&shop, &watched, MAIN).await, meant, "{said:?}");
        assert!(!agent.is_meant(&other, &watched, MAIN).await, "only its own word counts");
    }
    let long_ago = std::time::SystemTime::now() - Duration::from_secs(3_600);
    std::fs::File::options().write(true).open(&file).unwrap().set_modified(long_ago).unwrap();
    assert!(!agent.is_meant(&shop, &watched, MAIN).await, "that was another time");
}

#[tokio::test]
async fn it_looks_at_processes_and_files_without_running_programs() {
    let folder = tempfile::tempdir().unwrap();
    let (file, pid_file) = (folder.path().join("said"), folder.path().join("pid"));
    std::fs::write(&file, "all is well").unwrap();
    let mut child = sleeper();
    std::fs::write(&pid_file, child.id().to_string()).unwrap();
    let (shown, shown_pid, missing) = (file.display(), pid_file.display(), folder.path().join("none"));
    let config =
        format!("allow: {{ files: [{shown}, {shown_pid}, {}], processes: [sleep, nobody] }}", missing.display());
    let mut host = Host::of(&config);
    let named = |name: &str| Processes::Name(name.to_owned());
    let process = |which| Probe::Process(ProcessProbe { which, least: 1, most: None });
    let file_probe = |path: &std::path::Path, text: &str| {
        Probe::File(FileProbe {
            path: path.into(),
            max_age: Some(Span::secs(600)),
            contains: Some(text.to_owned()),
            matches: None,
        })
    };
    let by_pid_file = || process(Processes::PidFile(pid_file.clone()));
    let mut asks = async |probe: Probe| match host.asks(1, What::Probe(Box::new(probe))).await {
        FromGuest::Found { outcome, .. } => outcome,
        other => panic!("{other:?}"),
    };
    assert_eq!(asks(process(named("sleep"))).await, Outcome::Pass);
    assert_eq!(asks(process(named("nobody"))).await, Outcome::Fail);
    assert_eq!(asks(by_pid_file()).await, Outcome::Pass);
    assert_eq!(asks(file_probe(&file, "well")).await, Outcome::Pass);
    assert_eq!(asks(file_probe(&file, "ill")).await, Outcome::Fail);
    assert_eq!(asks(file_probe(&missing, "well")).await, Outcome::Fail);
    // Dead, and not yet waited for.
    child.kill().unwrap();
    while super::look::living(child.id()).unwrap().is_some() {
        tokio::task::yield_now().await;
    }
    assert_eq!(asks(by_pid_file()).await, Outcome::Fail);
    child.wait().unwrap();
    std::fs::write(&pid_file, "no number").unwrap();
    assert_eq!(asks(by_pid_file()).await, Outcome::Unknown);
}

/// A service on the loopback that says the same to everybody, and hangs up if it shall.
async fn service(says: Vec<u8>, hangs_up: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(&says).await;
            if !hangs_up {
                open.push(stream);
            }
        }
    });
    port
}

fn page(status: u16, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status} So\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

fn lag(port: u16, most: i64) -> Probe {
    Probe::Metric(MetricProbe {
        url: format!("http://{{address}}:{port}/metrics"),
        name: "lag".to_owned(),
        labels: [("db".to_owned(), "a".to_owned())].into(),
        op: Comparison::Less,
        value: most.into(),
    })
}

#[tokio::test]
async fn its_own_ports_are_asked_without_programs_where_its_config_names_them() {
    let well = service(page(200, "all is well"), true).await;
    let ill = service(page(503, "no"), true).await;
    let numbers = format!("{}lag{{db=\"a\"}} 7\n", "other 1\n".repeat(20_000));
    let numbers = service(page(200, &numbers), true).await;
    let other = service(page(200, "all is well"), true).await;
    // Taken, so that nobody else gets it, and nobody listens there.
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let closed = taken.local_addr().unwrap().port();
    let mut host = Host::of(&format!("allow: {{ connect: [{well}, {ill}, {numbers}, {closed}] }}"));
    let http = |port: u16| HttpProbe::get(format!("http://{{address}}:{port}/health"));
    let says = |text: &str| HttpProbe { body: Some(text.to_owned()), ..http(well) };
    let tcp = |port| Probe::Tcp(TcpProbe::to(port));
    for (probe, wanted) in [
        (tcp(well), Outcome::Pass),
        (tcp(closed), Outcome::Fail),
        (Probe::Http(Box::new(says("well"))), Outcome::Pass),
        (Probe::Http(Box::new(says("sick"))), Outcome::Fail),
        (Probe::Http(Box::new(http(ill))), Outcome::Fail),
        (Probe::Http(Box::new(http(closed))), Outcome::Fail),
        (lag(numbers, 10), Outcome::Pass),
        (lag(numbers, 5), Outcome::Fail),
        (lag(ill, 5), Outcome::Fail),
        (lag(well, 5), Outcome::Unknown),
    ] {
        let answer = host.asks(1, What::Probe(Box::new(probe.clone()))).await;
        assert!(matches!(&answer, FromGuest::Found { outcome, .. } if *outcome == wanted), "{probe:?}: {answer:?}");
    }
    let https = HttpProbe::get(format!("https://{{address}}:{well}/"));
    let elsewhere = HttpProbe::get(format!("http://192.0.2.1:{well}/"));
    for probe in [
        tcp(other),
        Probe::Http(Box::new(http(other))),
        lag(other, 5),
        Probe::Http(Box::new(https)),
        Probe::Http(Box::new(elsewhere)),
    ] {
        let answer = host.asks(2, What::Probe(Box::new(probe.clone()))).await;
        assert!(matches!(answer, FromGuest::Refused { .. }), "{probe:?}: {answer:?}");
    }
}

#[tokio::test]
async fn a_service_that_accepts_and_says_nothing_fails_in_time_and_one_that_never_ends_is_cut() {
    let silent = service(Vec::new(), false).await;
    let mut endless = b"HTTP/1.1 200 OK\r\n\r\nok".to_vec();
    endless.resize(200_000, b'x');
    let endless = service(endless, false).await;
    let mut host = Host::of(&format!("allow: {{ connect: [{silent}, {endless}] }}"));
    let http =
        |port| What::Probe(Box::new(Probe::Http(Box::new(HttpProbe::get(format!("http://{{address}}:{port}/"))))));
    host.hears().await;
    // An agent that wakes late by half of this says so, and accuses nobody.
    host.ask(1, 3_000, http(silent)).await;
    let answer = host.hears().await;
    assert!(matches!(&answer, FromGuest::Found { id: 1, outcome: Outcome::Fail, .. }), "{answer:?}");
    let answer = host.asks(2, http(endless)).await;
    assert!(matches!(&answer, FromGuest::Found { id: 2, outcome: Outcome::Pass, .. }), "{answer:?}");
}

#[tokio::test]
async fn an_application_reports_by_put_and_only_those_that_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = GuestConfig::parse(&format!("heartbeat: {{ listen: '{free}', services: [shop] }}")).unwrap();
    config.heartbeat.as_mut().unwrap().folder = folder.path().join("beats");
    let mut host = Host::with(config);
    host.hears().await;
    let beat = || {
        let file = folder.path().join("beats/shop");
        Probe::Heartbeat(HeartbeatProbe { file, max_age: Span::secs(60), down_for: Span::secs(600) })
    };
    let mut asks = async |id, probe| host.asks(id, What::Probe(Box::new(probe))).await;
    for (path, said, status, goes_down) in [
        ("/heartbeat/shop", "", 204, false),
        ("/heartbeat/shop", "down", 204, true),
        ("/heartbeat/shop", "what?", 400, true),
        ("/heartbeat/other", "", 404, true),
        ("/heartbeat/../shop", "up", 404, true),
        ("/heartbeat/shop", &"x".repeat(100_000), 413, true),
        ("/heartbeat/shop", "up", 204, false),
    ] {
        assert_eq!(put(free, path, said).await, status, "{path} {said:.10}");
        let FromGuest::Found { outcome: Outcome::Pass, detail, .. } = asks(1, beat()).await else {
            panic!("{path} {said:.10}")
        };
        assert_eq!(detail.contains("goes down"), goes_down, "{path} {said:.10}: {detail}");
    }
}

#[tokio::test]
async fn connections_that_say_nothing_keep_no_application_from_reporting() {
    let folder = tempfile::tempdir().unwrap();
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let mut config = GuestConfig::parse(&format!("heartbeat: {{ listen: '{free}', services: [shop] }}")).unwrap();
    config.heartbeat.as_mut().unwrap().folder = folder.path().join("beats");
    let _host = Host::with(config);
    assert_eq!(put(free, "/heartbeat/shop", "").await, 204);
    let mut mute = Vec::new();
    for _ in 0..100 {
        mute.push(TcpStream::connect(free).await.unwrap());
    }
    assert_eq!(timeout(LIMIT, put(free, "/heartbeat/shop", "")).await.unwrap(), 204);
}

/// The status of an answer to a PUT.
async fn put(to: std::net::SocketAddr, path: &str, said: &str) -> u16 {
    let connect = async {
        loop {
            if let Ok(stream) = TcpStream::connect(to).await {
                break stream;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let mut stream = timeout(LIMIT, connect).await.unwrap();
    let head = format!("PUT {path} HTTP/1.1\r\nHost: guest\r\nContent-Length: {}\r\n\r\n", said.len());
    // One that is refused before its end is not read to it.
    let _ = stream.write_all(format!("{head}{said}").as_bytes()).await;
    let mut answer = vec![0; 64];
    let read = timeout(LIMIT, stream.read(&mut answer)).await.unwrap().unwrap();
    std::str::from_utf8(&answer[..read]).unwrap().split(' ').nth(1).unwrap().parse().unwrap()
}

#[tokio::test]
async fn an_old_question_and_one_of_a_later_version_are_refused() {
    let mut host = Host::of("allow: { commands: [['true']] }");
    host.hears().await;
    let run = What::Exec { run: words(&["true"]) };
    let agent = host.agent.unwrap().wrapping_add(1);
    host.says(&ToGuest::Ask { id: 4, agent, within_ms: 1_000, what: run }).await;
    assert!(matches!(host.hears().await, FromGuest::Refused { id: 4, .. }));
    host.write.write_all(b"{\"ask\": {\"id\": 5, \"what\": {\"sing\": {}}}}\n").await.unwrap();
    assert!(matches!(host.hears().await, FromGuest::Refused { id: 5, .. }));
}

#[tokio::test]
async fn garbage_too_long_lines_and_half_ones_leave_it_as_it_was() {
    let mut host = Host::of("allow: { commands: [['true']] }");
    host.hears().await;
    host.write.write_all(b"{\"ask\": {\"id\"\n\xff\xfe\n[]\n\n").await.unwrap();
    let long = vec![b'x'; protocol::LINE_BYTES_MAX + 10];
    host.write.write_all(&long).await.unwrap();
    host.write.write_all(b"\n").await.unwrap();
    let answer = host.asks(3, What::Exec { run: words(&["true"]) }).await;
    assert!(matches!(answer, FromGuest::Ended { id: 3, code: Some(0), .. }), "{answer:?}");
}

#[tokio::test]
async fn output_is_cut_and_what_does_not_end_is_killed_with_its_children() {
    let endless = "yes | head -c 1000000; echo done >&2";
    let hangs = "sleep 600 & sleep 600";
    let mut host = Host::of(&format!("allow: {{ commands: [[sh, -c, '{endless}'], [sh, -c, '{hangs}']] }}"));
    let FromGuest::Ended { stdout, stderr, .. } = host.asks(1, What::Exec { run: words(&["sh", "-c", endless]) }).await
    else {
        panic!()
    };
    assert_eq!((stdout.len(), stderr.as_str()), (protocol::OUTPUT_BYTES_MAX, "done\n"));
    host.ask(2, 300, What::Exec { run: words(&["sh", "-c", hangs]) }).await;
    assert_eq!(host.hears().await, FromGuest::Late { id: 2 });
}

#[test]
fn a_config_that_names_something_else_is_refused_with_its_place() {
    let wrong = GuestConfig::parse("watch: {}\nalow: {}\n").unwrap_err().to_string();
    assert!(wrong.contains("alow") && wrong.contains('2'), "{wrong}");
    assert!(GuestConfig::parse("watch: { web: { pidfile: /x } }").is_err());
    let open = GuestConfig::parse("heartbeat: { listen: '0.0.0.0:7412', services: [] }").unwrap_err().to_string();
    assert!(open.contains("127.0.0.1"), "{open}");
    assert_eq!(GuestConfig::parse("{}").unwrap(), GuestConfig::default());
}

#[test]
fn the_config_that_operators_are_shown_is_accepted() {
    let shown = GuestConfig::parse(include_str!("../../../examples/packaging/guest.yaml")).unwrap();
    assert_eq!((shown.watch.len(), shown.allow.connect.len()), (2, 2));
    assert!(shown.may_run(&words(&["systemctl", "restart", "nginx"])).is_ok());
}
