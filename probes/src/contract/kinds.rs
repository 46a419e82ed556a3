//! What the kinds that look into the guest promise, asked of this machine as if it were the guest.

use std::{io::Write, time::Duration};

use holdfast_policies::{
    model::Probe,
    observe::{Observation, Outcome},
    probe::{Comparison, ExecProbe, FileProbe, HeartbeatProbe, MetricProbe, ProcessProbe, Processes, SystemdProbe},
    time::Span,
};
use tempfile::NamedTempFile;

use crate::{
    ChannelError, ExecResult, Exit, GuestChannel, ask,
    contract::scene::{Here, Manner, Says, Scripted, http, inside, network, server, tcp},
};

/// Programs are started, on a machine that may be busy; only what comes of it matters here.
const LIMIT: Duration = Duration::from_secs(20);

async fn here(probe: &Probe) -> Observation {
    let observation = ask(probe, &inside(Here), LIMIT).await;
    println!("{probe:?}: {observation:?}");
    observation
}

fn written(content: &str) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content.as_bytes()).unwrap();
    file
}

fn aged(file: &NamedTempFile, seconds: u64) {
    let at = std::time::SystemTime::now() - Duration::from_secs(seconds);
    file.as_file().set_modified(at).unwrap();
}

fn file(at: &NamedTempFile) -> FileProbe {
    FileProbe { path: at.path().to_owned(), max_age: None, contains: None, matches: None }
}

fn heartbeat(at: &NamedTempFile) -> Probe {
    let (max_age, down_for) = (Span::secs(30), Span::secs(600));
    Probe::Heartbeat(HeartbeatProbe { file: at.path().to_owned(), max_age, down_for })
}

fn process(which: Processes, least: u32, most: Option<u32>) -> Probe {
    Probe::Process(ProcessProbe { which, least, most })
}

fn metric(port: u16, name: &str, op: Comparison) -> Probe {
    let url = format!("http://{{address}}:{port}/metrics");
    Probe::Metric(MetricProbe { url, name: name.to_owned(), labels: [].into(), op, value: 1.into() })
}

/// One of each kind.
pub(super) fn kinds() -> Vec<Probe> {
    let path = NamedTempFile::new().unwrap();
    vec![
        Probe::File(file(&path)),
        heartbeat(&path),
        process(Processes::Name("sh".to_owned()), 1, None),
        process(Processes::PidFile(path.path().to_owned()), 1, None),
        Probe::Systemd(SystemdProbe { unit: "app.service".to_owned(), steady_for: Span::secs(10) }),
        metric(1, "up", Comparison::Equal),
    ]
}

#[tokio::test]
async fn a_file_is_there_fresh_and_says_the_right_thing_or_it_fails() {
    let at = written("replicas: 3\nstate: ok\n");
    aged(&at, 100);
    let judged = async |set: fn(&mut FileProbe)| {
        let mut probe = file(&at);
        set(&mut probe);
        here(&Probe::File(probe)).await.outcome
    };
    assert_eq!(judged(|_| ()).await, Outcome::Pass);
    assert_eq!(judged(|probe| probe.max_age = Some(Span::secs(1_000))).await, Outcome::Pass);
    assert_eq!(judged(|probe| probe.max_age = Some(Span::secs(50))).await, Outcome::Fail);
    assert_eq!(judged(|probe| probe.contains = Some("state: ok".to_owned())).await, Outcome::Pass);
    assert_eq!(judged(|probe| probe.contains = Some("state: ill".to_owned())).await, Outcome::Fail);
    assert_eq!(judged(|probe| probe.matches = Some("(?m)^replicas: [2-9]$".to_owned())).await, Outcome::Pass);
    assert_eq!(judged(|probe| probe.matches = Some("replicas: [4-9]".to_owned())).await, Outcome::Fail);
    assert_eq!(judged(|probe| probe.path = "/nowhere/at all".into()).await, Outcome::Fail);
    assert_eq!(judged(|probe| probe.path = "/$(touch /tmp/holdfast-was-a-shell)".into()).await, Outcome::Fail);
    assert!(!std::path::Path::new("/tmp/holdfast-was-a-shell").exists(), "a path was read as shell");
}

/// A link that leads to itself, and a folder that is a file, stand for whatever cannot be looked at: root may enter every folder.
#[tokio::test]
async fn a_file_that_cannot_be_looked_at_is_not_missing() {
    let folder = tempfile::tempdir().unwrap();
    let round = folder.path().join("round");
    std::os::unix::fs::symlink(&round, &round).unwrap();
    let no_folder = written("x");
    for path in [round, no_folder.path().join("in a file")] {
        let whole = FileProbe { path: path.clone(), max_age: None, contains: None, matches: None };
        let (max_age, down_for) = (Span::secs(30), Span::secs(600));
        let beat = HeartbeatProbe { file: path.clone(), max_age, down_for };
        let pid_file = process(Processes::PidFile(path), 1, None);
        for probe in [Probe::File(whole), Probe::Heartbeat(beat), pid_file] {
            assert_eq!(here(&probe).await.outcome, Outcome::Unknown, "{probe:?}");
        }
    }
    let gone = process(Processes::PidFile(folder.path().join("gone")), 1, None);
    assert_eq!(here(&gone).await.outcome, Outcome::Fail);
}

#[tokio::test]
async fn a_link_is_as_old_as_the_file_to_which_it_leads() {
    let (folder, at) = (tempfile::tempdir().unwrap(), written(""));
    let link = folder.path().join("link");
    std::os::unix::fs::symlink(at.path(), &link).unwrap();
    let aged = std::process::Command::new("touch").args(["-h", "-d", "2001-01-01"]).arg(&link).status().unwrap();
    assert!(aged.success());
    let probe = FileProbe { path: link, max_age: Some(Span::secs(1_000)), contains: None, matches: None };
    assert_eq!(here(&Probe::File(probe)).await.outcome, Outcome::Pass);
}

#[tokio::test]
async fn a_heartbeat_that_stops_fails_unless_the_application_said_that_it_goes_down() {
    let beat = written("");
    assert_eq!(here(&heartbeat(&beat)).await.outcome, Outcome::Pass);
    aged(&beat, 60);
    assert_eq!(here(&heartbeat(&beat)).await.outcome, Outcome::Fail);
    let down = written("down for an upgrade\n");
    aged(&down, 60);
    assert_eq!(here(&heartbeat(&down)).await.outcome, Outcome::Unknown);
    aged(&down, 700);
    let late = here(&heartbeat(&down)).await;
    assert!(late.outcome == Outcome::Fail && late.detail.contains("has not come back"), "{late:?}");
}

#[tokio::test]
async fn an_application_that_is_back_and_only_touches_its_heartbeat_is_believed_again() {
    let beat = written("down\n");
    let said = here(&heartbeat(&beat)).await;
    assert!(said.outcome == Outcome::Pass && said.detail.contains("goes down"), "it was alive to say so: {said:?}");
    aged(&beat, 60);
    assert_eq!(here(&heartbeat(&beat)).await.outcome, Outcome::Unknown);
    aged(&beat, 5);
    assert_eq!(here(&heartbeat(&beat)).await.outcome, Outcome::Pass, "touched, and it still says `down`");
}

#[tokio::test]
async fn processes_are_counted_by_name_and_by_pid_file_and_the_dead_do_not_count() {
    let name = format!("hf{}", std::process::id());
    let program = std::env::temp_dir().join(&name);
    let _ = std::fs::remove_file(&program);
    // Not by this process: what another test starts at this moment would hold it for writing, and such a file is not run.
    let copied = std::process::Command::new("cp").arg("/bin/sleep").arg(&program).status().unwrap();
    assert!(copied.success(), "{copied}");
    let mut children: Vec<_> =
        (0..2).map(|_| std::process::Command::new(&program).arg("600").spawn().unwrap()).collect();
    let of = |least, most| process(Processes::Name(name.clone()), least, most);
    assert_eq!(here(&of(2, Some(2))).await.outcome, Outcome::Pass);
    assert_eq!(here(&of(3, None)).await.outcome, Outcome::Fail);
    assert_eq!(here(&of(0, Some(1))).await.outcome, Outcome::Fail);
    let pid_file = written(&format!("{}\n", children[0].id()));
    let by_file = process(Processes::PidFile(pid_file.path().to_owned()), 1, None);
    assert_eq!(here(&by_file).await.outcome, Outcome::Pass);
    // Killed and not waited for: a zombie.
    children[0].kill().unwrap();
    let mut outcome = here(&by_file).await.outcome;
    for _ in 0..100 {
        if outcome == Outcome::Fail {
            break;
        }
        outcome = here(&by_file).await.outcome;
    }
    assert_eq!(outcome, Outcome::Fail);
    assert_eq!(here(&of(2, None)).await.outcome, Outcome::Fail);
    for child in &mut children {
        let _ = child.kill();
        child.wait().unwrap();
    }
    std::fs::remove_file(&program).unwrap();
    let odd = written("no number\n");
    assert_eq!(here(&process(Processes::PidFile(odd.path().to_owned()), 1, None)).await.outcome, Outcome::Unknown);
}

#[tokio::test]
async fn a_metric_is_compared_and_a_page_that_cannot_be_had_fails() {
    const PAGE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 35\r\n\r\n# TYPE up gauge\nup 1\nupper 7\ntab\t1\n\n";
    let port = server(Manner::Says(PAGE)).await;
    assert_eq!(here(&metric(port, "up", Comparison::Equal)).await.outcome, Outcome::Pass);
    assert_eq!(here(&metric(port, "upper", Comparison::Less)).await.outcome, Outcome::Fail);
    assert_eq!(here(&metric(port, "tab", Comparison::Equal)).await.outcome, Outcome::Pass);
    assert_eq!(here(&metric(port, "none", Comparison::Equal)).await.outcome, Outcome::Unknown);
    let Probe::Metric(plain) = metric(port, "up", Comparison::Equal) else { unreachable!() };
    let in_brackets = MetricProbe { url: format!("http://[{{address}}]:{port}/metrics"), ..plain };
    assert_eq!(here(&Probe::Metric(in_brackets)).await.outcome, Outcome::Pass, "as for a guest with IPv6");
    let closed = crate::contract::scene::closed_port();
    assert_eq!(here(&metric(closed, "up", Comparison::Equal)).await.outcome, Outcome::Fail);
}

/// This machine, where some programs are these functions of its shell.
struct With(&'static str);

#[async_trait::async_trait]
impl GuestChannel for With {
    async fn ping(&self, deadline: Duration) -> Result<(), ChannelError> {
        Here.ping(deadline).await
    }
    async fn exec(&self, argv: &[String], deadline: Duration) -> Result<ExecResult, ChannelError> {
        let mut argv = argv.to_vec();
        argv[2].insert_str(0, self.0);
        Here.exec(&argv, deadline).await
    }
}

#[tokio::test]
async fn a_metric_is_had_by_curl_or_else_by_wget_and_what_they_could_not_ask_is_unknown() {
    const NO_CURL: &str = "command() { false; }; timeout() { shift; \"$@\"; }; ";
    let asks = async |scheme: &str, functions: &'static str| {
        let Probe::Metric(metric) = metric(1, "up", Comparison::Equal) else { unreachable!() };
        let probe = Probe::Metric(MetricProbe { url: format!("{scheme}://{{address}}:1/metrics"), ..metric });
        ask(&probe, &inside(With(functions)), LIMIT).await.outcome
    };
    let self_signed = "curl() { echo up 1; }; wget() { return 5; }; ";
    assert_eq!(asks("https", self_signed).await, Outcome::Pass, "curl takes the guest's own certificate");
    assert_eq!(asks("http", "curl() { return 6; }; ").await, Outcome::Unknown);
    assert_eq!(asks("http", "curl() { return 22; }; ").await, Outcome::Fail);
    for (wget, scheme, expected) in [
        ("wget() { echo up 1; }; ", "http", Outcome::Pass),
        ("wget() { echo up 1; }; ", "https", Outcome::Unknown),
        ("wget() { return 3; }; ", "http", Outcome::Unknown),
        ("wget() { return 4; }; ", "http", Outcome::Fail),
        ("wget() { return 127; }; ", "http", Outcome::Unknown),
    ] {
        let functions: &'static str = Box::leak(format!("{NO_CURL}{wget}").into_boxed_str());
        assert_eq!(asks(scheme, functions).await, expected, "{wget} {scheme}");
    }
}

/// In whole seconds: curl knew no others before 7.32, and refuses them as no number.
#[tokio::test]
async fn whoever_fetches_a_metric_is_told_how_long_it_may_take() {
    for (functions, wanted) in [
        ("curl() { while [ \"$1\" != -m ]; do shift; done; echo \"up $2\"; }; ", "up is 16, wanted == 1"),
        ("command() { false; }; timeout() { echo \"up $1\"; }; ", "up is 16, wanted == 1"),
    ] {
        let target = inside(With(functions));
        let seen = ask(&metric(1, "up", Comparison::Equal), &target, Duration::from_millis(19_900)).await;
        assert_eq!(seen.detail, wanted, "{seen:?}");
    }
}

/// Rounded up, because what is cut fails who would have answered in time.
#[tokio::test(start_paused = true)]
async fn programs_of_the_guest_are_given_all_the_time_that_there_is_in_whole_seconds() {
    let curl: fn(&[String]) -> Says = |argv| match argv.iter().skip_while(|word| *word != "-m").nth(1) {
        Some(limit) if limit == "2" => Says::Ends(Exit::Code(0), "HTTP/1.1 200 OK\r\n\r\nok", ""),
        Some(_) | None => Says::Ends(Exit::Code(2), "", "expected a proper numerical parameter"),
    };
    let wget: fn(&[String]) -> Says = |argv| match argv {
        [timeout, limit, ..] if timeout == "timeout" && limit == "2" => Says::Ends(Exit::Code(0), "ok", ""),
        [curl, ..] if curl == "curl" => Says::Error(ChannelError::Refused("no such program".to_owned())),
        _ => Says::Ends(Exit::Code(124), "", ""),
    };
    let nc: fn(&[String]) -> Says = |argv| match argv {
        [_, _, _, limit, ..] if limit == "2" => Says::Well,
        _ => Says::Ends(Exit::Code(1), "", ""),
    };
    for (probe, exec) in [(http(1), curl), (http(1), wget), (tcp(1), nc)] {
        let target = inside(Scripted { ping: Says::Well, exec });
        let seen = ask(&probe, &target, Duration::from_millis(1_900)).await;
        assert_eq!(seen.outcome, Outcome::Pass, "{probe:?}: {seen:?}");
    }
}

#[tokio::test]
async fn of_a_page_that_the_way_out_has_cut_the_last_line_is_not_compared() {
    let cut: fn(&[String]) -> Says = |_| Says::Ends(Exit::Code(0), "up 1\nup 1", "");
    let whole: fn(&[String]) -> Says = |_| Says::Ends(Exit::Code(0), "up 1\nup 17\n", "");
    for (says, wanted) in [(cut, "up is 1"), (whole, "up is 17, wanted == 1")] {
        let target = inside(Scripted { ping: Says::Well, exec: says });
        let seen = ask(&metric(1, "up", Comparison::Equal), &target, LIMIT).await;
        assert_eq!(seen.detail, wanted, "{seen:?}");
    }
}

#[tokio::test]
async fn of_a_large_page_the_lines_of_the_metric_are_found_wherever_they_stand() {
    let functions =
        "curl() { head -c 9000000 /dev/zero | tr '\\0' x; echo; echo up 1; yes 'other 2' | head -n 100000; }; ";
    let seen = ask(&metric(1, "up", Comparison::Equal), &inside(With(functions)), LIMIT).await;
    assert_eq!((seen.outcome, seen.detail.as_str()), (Outcome::Pass, "up is 1"), "{seen:?}");
}

#[tokio::test]
async fn a_command_passes_with_the_codes_and_the_output_that_are_wanted() {
    let judged = async |set: fn(&mut ExecProbe)| {
        let run = ["sh", "-c", "echo lag 12; exit 3"].map(str::to_owned).to_vec();
        let mut probe = ExecProbe { codes: vec![0, 3], ..ExecProbe::plain(run) };
        set(&mut probe);
        here(&Probe::Exec(probe)).await.outcome
    };
    assert_eq!(judged(|_| ()).await, Outcome::Pass);
    assert_eq!(judged(|probe| probe.codes = vec![0]).await, Outcome::Fail);
    assert_eq!(judged(|probe| probe.output = Some("lag".to_owned())).await, Outcome::Pass);
    assert_eq!(judged(|probe| probe.output = Some("log".to_owned())).await, Outcome::Fail);
    assert_eq!(judged(|probe| probe.output_matches = Some(r"^lag \d{1,2}\n$".to_owned())).await, Outcome::Pass);
    assert_eq!(judged(|probe| probe.output_matches = Some(r"^lag \d$".to_owned())).await, Outcome::Fail);
}

#[tokio::test]
async fn what_an_agent_cannot_look_at_is_unknown() {
    let unavailable: fn(&[String]) -> Says = |_| Says::Error(ChannelError::Unavailable("no socket".to_owned()));
    let no_shell: fn(&[String]) -> Says = |_| Says::Error(ChannelError::Refused("no such file".to_owned()));
    let no_tool: fn(&[String]) -> Says = |_| Says::Ends(Exit::Code(126), "", "sh: stat: not found");
    let gibberish: fn(&[String]) -> Says = |_| Says::Ends(Exit::Code(0), "what?", "");
    let silent: fn(&[String]) -> Says = |_| Says::Nothing;
    for probe in kinds() {
        for exec in [unavailable, no_shell, no_tool, gibberish] {
            let target = inside(Scripted { ping: Says::Well, exec });
            let observation = ask(&probe, &target, Duration::from_millis(400)).await;
            assert_eq!(observation.outcome, Outcome::Unknown, "{probe:?}: {observation:?}");
        }
        let silent = inside(Scripted { ping: Says::Nothing, exec: silent });
        assert_eq!(ask(&probe, &silent, Duration::from_millis(100)).await.outcome, Outcome::Unknown, "{probe:?}");
        assert_eq!(ask(&probe, &network(), LIMIT).await.outcome, Outcome::Unknown, "{probe:?}");
    }
}

/// But for systemd, which may be slow itself while all its units are well.
#[tokio::test]
async fn a_look_that_hangs_while_the_agent_answers_fails_the_service_unless_somebody_else_is_asked_about_it() {
    for probe in kinds() {
        let target = inside(Scripted { ping: Says::Well, exec: |_| Says::Error(ChannelError::Late) });
        let expected = if matches!(probe, Probe::Systemd(_)) { Outcome::Unknown } else { Outcome::Fail };
        let seen = ask(&probe, &target, LIMIT).await;
        assert_eq!(seen.outcome, expected, "{probe:?}: {seen:?}");
    }
}
