//! What every kind of question promises: its deadline, its bounds, and `Unknown` where it could not be asked.

mod authority;
mod databases;
mod dns;
mod every;
mod http;
mod kinds;
mod network;
mod plugin;
mod real;
mod scene;
mod six;
mod tls;

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use holdfast_policies::{
    model::{Probe, Statuses},
    observe::{Observation, Outcome},
};

use crate::{
    ChannelError, ExecResult, Exit, GuestChannel, Target, ask,
    contract::scene::{
        HEAD, Here, MOVED, Manner, OK, Says, Scripted, WRONG_BODY, WRONG_STATUS, closed_port, exec, here_is, http,
        inside, network, server, tcp,
    },
};

/// Longer than anything takes that answers, on a busy machine, too.
const LIMIT: Duration = Duration::from_secs(20);
/// For what never answers.
const SHORT: Duration = Duration::from_secs(1);
const PING: Probe = Probe::AgentPing {};

async fn asked(probe: &Probe, target: &Target) -> Observation {
    let began = Instant::now();
    let observation = ask(probe, target, LIMIT).await;
    assert!(began.elapsed() < LIMIT, "{probe:?} took {:?}", began.elapsed());
    observation
}

async fn outcome(probe: &Probe, target: &Target) -> Outcome {
    let observation = asked(probe, target).await;
    println!("{probe:?}: {observation:?}");
    observation.outcome
}

/// Of what never answers: without its deadline this would never end. A vantage on a machine so busy that it overslept says so,
/// and is asked again.
async fn outcome_in_vain(probe: &Probe, target: &Target) -> Outcome {
    for _ in 0..20 {
        let observation = ask(probe, target, SHORT).await;
        println!("{probe:?}: {observation:?}");
        if !observation.detail.starts_with("this vantage itself was late") {
            return observation.outcome;
        }
    }
    panic!("it is always late: {probe:?}");
}

fn agent(ping: Says, exec: fn(&[String]) -> Says) -> Target {
    inside(Scripted { ping, exec })
}

#[tokio::test]
async fn a_good_answer_passes_from_the_network_and_from_inside() {
    let port = server(Manner::Says(OK)).await;
    for probe in [http(port), tcp(port)] {
        assert_eq!(outcome(&probe, &network()).await, Outcome::Pass);
    }
    for probe in [http(port), exec(&["true"]), PING] {
        assert_eq!(outcome(&probe, &inside(Here)).await, Outcome::Pass);
    }
}

#[tokio::test]
async fn refusal_wrong_status_wrong_body_redirect_and_hang_up_fail() {
    let refused = closed_port();
    assert_eq!(outcome(&tcp(refused), &network()).await, Outcome::Fail);
    let mut ports = vec![refused];
    for manner in
        [Manner::Says(WRONG_STATUS), Manner::Says(WRONG_BODY), Manner::HangsUp, Manner::Says("nonsense\r\n\r\n")]
    {
        ports.push(server(manner).await);
    }
    for port in &ports {
        assert_eq!(outcome(&http(*port), &network()).await, Outcome::Fail);
        assert_eq!(outcome(&http(*port), &inside(Here)).await, Outcome::Fail);
    }
    assert_eq!(outcome(&http(server(Manner::Says(MOVED)).await), &network()).await, Outcome::Fail);
}

#[tokio::test]
async fn a_mute_or_trickling_server_fails_by_the_deadline_and_an_endless_one_is_cut() {
    let mute = http(server(Manner::Mute).await);
    assert_eq!(outcome_in_vain(&mute, &network()).await, Outcome::Fail);
    assert_eq!(outcome_in_vain(&mute, &inside(Here)).await, Outcome::Fail);
    assert_eq!(outcome_in_vain(&http(server(Manner::Trickles(HEAD)).await), &network()).await, Outcome::Fail);
    let endless = asked(&http(server(Manner::Endless(HEAD)).await), &network()).await;
    assert_eq!(endless.outcome, Outcome::Fail);
    assert!(endless.detail.contains("65536 bytes"), "{}", endless.detail);
}

#[tokio::test]
async fn headers_without_end_are_cut_too() {
    assert_eq!(
        outcome(&http(server(Manner::Endless("HTTP/1.1 200 OK\r\nA: ")).await), &network()).await,
        Outcome::Fail
    );
}

#[tokio::test]
async fn what_cannot_be_asked_from_here_is_unknown() {
    // The kernel refuses to connect to the broadcast address with ENETUNREACH, and sends nothing.
    let unreachable = Target { address: Some(IpAddr::V4(Ipv4Addr::BROADCAST)), ..network() };
    let no_address = Target { address: None, ..network() };
    for target in [unreachable, no_address] {
        assert_eq!(outcome(&http(80), &target).await, Outcome::Unknown);
        assert_eq!(outcome(&tcp(80), &target).await, Outcome::Unknown);
    }
    for probe in [PING, exec(&["true"])] {
        assert_eq!(outcome(&probe, &network()).await, Outcome::Unknown);
    }
    // A label longer than 63 bytes is refused by the resolver without asking anybody.
    for url in
        [format!("http://{}.example/", "x".repeat(70)), "http://[::zz]/".to_owned(), "gopher://{address}/".to_owned()]
    {
        let Probe::Http(mut probe) = http(80) else { unreachable!() };
        probe.url = url;
        assert_eq!(outcome(&Probe::Http(probe.clone()), &network()).await, Outcome::Unknown, "{}", probe.url);
    }
}

#[tokio::test]
async fn an_agent_that_cannot_be_asked_makes_everything_unknown() {
    let unavailable = || Says::Error(ChannelError::Unavailable("no socket".to_owned()));
    let target = agent(unavailable(), |_| Says::Error(ChannelError::Unavailable("no socket".to_owned())));
    for probe in [http(80), tcp(80), exec(&["true"]), PING] {
        assert_eq!(outcome(&probe, &target).await, Outcome::Unknown);
    }
}

#[tokio::test]
async fn an_agent_that_does_nothing_while_its_guest_is_frozen_is_there_and_accuses_nobody_and_says_why() {
    let target = agent(Says::Error(ChannelError::Frozen), |_| Says::Error(ChannelError::Frozen));
    for probe in [http(80), tcp(80), exec(&["true"])] {
        let observation = asked(&probe, &target).await;
        assert_eq!(observation.outcome, Outcome::Unknown, "{probe:?}: {observation:?}");
        assert!(observation.detail.starts_with("the guest's file systems are frozen"), "{probe:?}: {observation:?}");
    }
    assert_eq!(outcome(&PING, &target).await, Outcome::Pass);
}

#[tokio::test]
async fn a_silent_agent_fails_the_question_whether_it_is_there_and_says_nothing_about_services() {
    for silence in [Says::Error(ChannelError::Deadline), Says::Nothing] {
        let exec_silence: fn(&[String]) -> Says = match silence {
            Says::Nothing => |_| Says::Nothing,
            _ => |_| Says::Error(ChannelError::Deadline),
        };
        let target = agent(silence, exec_silence);
        for probe in [http(80), tcp(80), exec(&["true"])] {
            assert_eq!(outcome_in_vain(&probe, &target).await, Outcome::Unknown);
        }
        assert_eq!(outcome_in_vain(&PING, &target).await, Outcome::Fail);
    }
}

#[tokio::test]
async fn a_program_that_hangs_while_the_agent_answers_fails_the_service() {
    let target = agent(Says::Well, |_| Says::Error(ChannelError::Late));
    for probe in [http(80), tcp(80), exec(&["true"])] {
        assert_eq!(outcome(&probe, &target).await, Outcome::Fail);
    }
}

#[tokio::test]
async fn an_agent_that_is_silent_about_a_program_accuses_no_service_even_if_another_agent_answers() {
    let target = agent(Says::Well, |_| Says::Error(ChannelError::Deadline));
    for probe in [http(80), tcp(80)] {
        assert_eq!(outcome(&probe, &target).await, Outcome::Unknown);
    }
}

#[tokio::test]
async fn a_time_out_in_the_guest_is_the_services_whichever_timeout_it_has() {
    let gnu: fn(&[String]) -> Says = |_| Says::Ends(Exit::Code(124), "", "");
    let busybox: fn(&[String]) -> Says = |_| Says::Ends(Exit::Signal(15), "", "Terminated");
    let in_a_shell: fn(&[String]) -> Says = |_| Says::Ends(Exit::Code(143), "", "");
    for ends in [gnu, busybox, in_a_shell] {
        assert_eq!(outcome(&http(80), &agent(Says::Well, ends)).await, Outcome::Fail);
    }
}

#[tokio::test]
async fn a_program_that_the_guest_lacks_makes_the_answer_unknown() {
    let not_found = |_: &[String]| Says::Error(ChannelError::Refused("no such file".to_owned()));
    let exit_127 = |_: &[String]| Says::Ends(Exit::Code(127), "", "not found");
    let no_option = |_: &[String]| Says::Ends(Exit::Code(1), "", "nc: invalid option -- 'z'");
    let crashes = |_: &[String]| Says::Ends(Exit::Signal(11), "", "");
    for lacks in [not_found as fn(&[String]) -> Says, exit_127, no_option, crashes] {
        for probe in [http(80), tcp(80)] {
            assert_eq!(outcome(&probe, &agent(Says::Well, lacks)).await, Outcome::Unknown);
        }
    }
    assert_eq!(outcome(&exec(&["absent"]), &agent(Says::Well, not_found)).await, Outcome::Unknown);
}

#[tokio::test]
async fn curl_is_asked_first_because_wget_follows_redirects_that_hosts_judge() {
    let both: fn(&[String]) -> Says = |argv| match argv[0].as_str() {
        "curl" => Says::Ends(Exit::Code(0), "HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n", ""),
        _ => Says::Ends(Exit::Code(0), "ok", ""),
    };
    assert_eq!(outcome(&http(80), &agent(Says::Well, both)).await, Outcome::Fail);
    let only_wget: fn(&[String]) -> Says = |argv| match argv[0].as_str() {
        "curl" => Says::Error(ChannelError::Refused("no such file".to_owned())),
        _ => Says::Ends(Exit::Code(0), "ok", ""),
    };
    assert_eq!(outcome(&http(80), &agent(Says::Well, only_wget)).await, Outcome::Pass);
}

#[tokio::test]
async fn what_curl_and_wget_could_not_ask_accuses_nobody() {
    let no_name: fn(&[String]) -> Says = |_| Says::Ends(Exit::Code(6), "", "curl: (6) Could not resolve host");
    let settings: fn(&[String]) -> Says = |argv| match argv[0].as_str() {
        "curl" => Says::Error(ChannelError::Refused("no such file".to_owned())),
        _ => Says::Ends(Exit::Code(2), "", "wget: Error in /root/.wgetrc at line 1."),
    };
    for cannot in [no_name, settings] {
        assert_eq!(outcome(&http(80), &agent(Says::Well, cannot)).await, Outcome::Unknown);
    }
    let no_http: fn(&[String]) -> Says =
        |_| Says::Ends(Exit::Code(1), "", "curl: (1) Received HTTP/0.9 when not allowed");
    assert_eq!(outcome(&http(80), &agent(Says::Well, no_http)).await, Outcome::Fail);
}

#[tokio::test]
async fn curl_stands_alone_and_shows_other_statuses() {
    let only_curl: fn(&[String]) -> Says = |argv| match argv[0].as_str() {
        "curl" => Says::Ends(Exit::Code(0), "HTTP/1.1 204 No Content\r\nA: ok\r\n\r\n", ""),
        _ => Says::Error(ChannelError::Refused("no such file".to_owned())),
    };
    let target = agent(Says::Well, only_curl);
    let Probe::Http(mut probe) = http(80) else { unreachable!() };
    assert_eq!(outcome(&Probe::Http(probe.clone()), &target).await, Outcome::Fail);
    probe.status = Statuses::only(204);
    assert_eq!(outcome(&Probe::Http(probe.clone()), &target).await, Outcome::Fail, "a header is not the body");
    probe.body = None;
    assert_eq!(outcome(&Probe::Http(probe), &target).await, Outcome::Pass);
}

/// This machine, where an agent passes on no more than so much of what a program says.
struct Narrow(usize);

#[async_trait::async_trait]
impl GuestChannel for Narrow {
    async fn ping(&self, deadline: Duration) -> Result<(), ChannelError> {
        Here.ping(deadline).await
    }
    async fn exec(&self, argv: &[String], deadline: Duration) -> Result<ExecResult, ChannelError> {
        let result = Here.exec(argv, deadline).await?;
        if result.stdout.len() > self.0 { Err(ChannelError::TooLong) } else { Ok(result) }
    }
}

#[tokio::test]
async fn a_page_that_is_too_large_for_the_way_out_of_the_guest_is_cut_there_from_the_second_question_on() {
    let body = format!("all ok{}", "x".repeat(2 << 20));
    let says: &'static str = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).leak();
    let probe = http(server(Manner::Says(says)).await);
    let target = inside(Narrow(1 << 20));
    let first = asked(&probe, &target).await;
    assert!(first.outcome == Outcome::Unknown && first.detail.contains("more than"), "{first:?}");
    let second = asked(&probe, &target).await;
    assert_eq!(second.outcome, Outcome::Pass, "{second:?}");
    let Probe::Http(mut other) = probe else { unreachable!() };
    other.body = Some("all is well".to_owned());
    assert_eq!(outcome(&Probe::Http(other), &target).await, Outcome::Fail, "it is looked at");
}

#[tokio::test]
async fn where_nothing_can_be_cut_a_page_that_is_too_large_is_unknown_and_so_is_a_command_that_says_too_much() {
    let too_long: fn(&[String]) -> Says = |argv| match argv[0].as_str() {
        "sh" => Says::Error(ChannelError::Refused("no such file".to_owned())),
        _ => Says::Error(ChannelError::TooLong),
    };
    let target = agent(Says::Well, too_long);
    for probe in [http(80), http(80), exec(&["app.exe", "--status"])] {
        assert_eq!(outcome(&probe, &target).await, Outcome::Unknown);
    }
}

#[tokio::test]
async fn what_a_service_says_before_its_answer_is_not_the_answer() {
    let early: fn(&[String]) -> Says = |_| {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </ok.css>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n";
        let says: &'static str = format!("{hints}HTTP/1.1 200 OK\r\nA: b\r\n\r\nall ok").leak();
        Says::Ends(Exit::Code(0), says, "")
    };
    assert_eq!(outcome(&http(80), &agent(Says::Well, early)).await, Outcome::Pass);
    let early_alone: fn(&[String]) -> Says =
        |_| Says::Ends(Exit::Code(0), "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\n\r\nok", "");
    assert_eq!(outcome(&http(80), &agent(Says::Well, early_alone)).await, Outcome::Fail);
}

#[tokio::test]
async fn a_url_is_asked_as_it_stands_and_not_as_a_pattern_for_many() {
    let takes_it_as_it_stands: fn(&[String]) -> Says = |argv| {
        let is_one = argv.iter().any(|word| word == "-g");
        Says::Ends(Exit::Code(0), if is_one { "HTTP/1.1 200 OK\r\n\r\nok" } else { "HTTP/1.1 404 None\r\n\r\n" }, "")
    };
    let Probe::Http(mut probe) = http(80) else { unreachable!() };
    probe.url = "http://{address}/list?of=[1-3]".to_owned();
    assert_eq!(outcome(&Probe::Http(probe), &agent(Says::Well, takes_it_as_it_stands)).await, Outcome::Pass);
}

#[tokio::test]
async fn a_busybox_without_zero_io_still_tells_open_from_closed() {
    /// Runs busybox's own `nc` whatever `nc` this machine has.
    struct Busybox;
    #[async_trait::async_trait]
    impl GuestChannel for Busybox {
        async fn ping(&self, deadline: Duration) -> Result<(), ChannelError> {
            Here.ping(deadline).await
        }
        async fn exec(&self, argv: &[String], deadline: Duration) -> Result<ExecResult, ChannelError> {
            let argv: Vec<_> = std::iter::once("busybox".to_owned()).chain(argv.iter().cloned()).collect();
            Here.exec(&argv, deadline).await
        }
    }
    if !here_is("busybox") {
        eprintln!("left out because this machine has no busybox");
        return;
    }
    // The machine may be busy, and two programs are started; only the outcome matters here.
    let limit = Duration::from_secs(5);
    let open = server(Manner::Mute).await;
    assert_eq!(ask(&tcp(open), &inside(Busybox), limit).await.outcome, Outcome::Pass);
    assert_eq!(ask(&tcp(closed_port()), &inside(Busybox), limit).await.outcome, Outcome::Fail);
}

#[tokio::test]
async fn a_command_that_fails_or_is_killed_fails_and_says_why() {
    let observation = asked(&exec(&["sh", "-c", "echo broken >&2; exit 3"]), &inside(Here)).await;
    assert_eq!((observation.outcome, observation.detail.as_str()), (Outcome::Fail, "exit code 3: broken"));
    assert_eq!(outcome(&exec(&["sh", "-c", "kill -9 $$"]), &inside(Here)).await, Outcome::Fail);
    assert_eq!(outcome_in_vain(&exec(&["sleep", "60"]), &inside(Here)).await, Outcome::Fail);
}

#[tokio::test]
async fn asking_can_run_as_a_task_of_its_own() {
    let (probe, target) = (tcp(closed_port()), network());
    let task = tokio::spawn(async move { ask(&probe, &target, LIMIT).await });
    assert_eq!(task.await.unwrap().outcome, Outcome::Fail);
}
