//! The guest's own agent: answers, refusals, deaths, and guests that lie.

use holdfast_policies::names::ServiceName;
use holdfast_probes::{
    channel::Exit,
    guest_agent::{Agent, GuestConfig},
};
use tokio::{io::AsyncReadExt, net::UnixListener};

use super::*;
use crate::qemu::AgentChannel;

const LONG: Duration = Duration::from_secs(20);

/// The real agent, with a socket in place of the virtio port.
async fn guest(config: String) -> (tempfile::TempDir, OwnAgent, mpsc::Receiver<GuestEvent>) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("port");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        let agent = Agent::new(GuestConfig::parse(&config).unwrap());
        let (stream, _) = listener.accept().await.unwrap();
        let (read, write) = stream.into_split();
        agent.serve(read, write).await
    });
    let (_, view) = watch::channel(running());
    let (events, told) = mpsc::channel(16);
    let port = Port { guest: GuestName::new("web-1").unwrap(), epoch: Epoch::default(), way: Way::Port(socket), view };
    let own = spawn(port, events);
    let here = |presence: &Presence| *presence == Presence::Here;
    timeout(LONG, own.presence.clone().wait_for(here)).await.unwrap().unwrap();
    (folder, own, told)
}

#[tokio::test]
async fn programs_and_probes_are_answered_and_refusals_leave_the_question_to_others() {
    let (_folder, own, _told) = guest("allow: { commands: [[echo, hi]] }".to_owned()).await;
    let result = own.exec(&["echo".to_owned(), "hi".to_owned()], LONG).await.unwrap();
    assert_eq!((result.exit, result.stdout.as_slice()), (Exit::Code(0), b"hi\n".as_slice()));
    assert!(matches!(own.exec(&["reboot".to_owned()], LONG).await, Err(Unanswered::Refused(_))));
    let ping = own.answer(&Probe::AgentPing {}, LONG).await.unwrap();
    assert_eq!(ping.0, Outcome::Pass);
    let exec = |word: &str| Probe::Exec(holdfast_policies::probe::ExecProbe::plain(vec![word.to_owned()]));
    assert_eq!(own.answer(&exec("reboot"), LONG).await, None);
}

#[tokio::test]
async fn a_death_in_the_guest_becomes_an_event_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pid_file = folder.path().join("pid");
    let mut child = std::process::Command::new("sleep").arg("600").spawn().unwrap();
    std::fs::write(&pid_file, child.id().to_string()).unwrap();
    let (_folder, _own, mut told) = guest(format!("watch: {{ http: {{ pid_file: {} }} }}", pid_file.display())).await;
    timeout(LONG, is_watched(child.id())).await.expect("the agent watches it");
    child.kill().unwrap();
    let event = timeout(LONG, told.recv()).await.unwrap().unwrap();
    child.wait().unwrap();
    assert!(
        matches!(&event, GuestEvent::Died { service, .. } if *service == ServiceName::new("http").unwrap()),
        "{event:?}"
    );
}

/// Waits until the agent, which is part of this process, holds the kernel's handle of a process, by which its end is told.
async fn is_watched(pid: u32) {
    let line = format!("\nPid:\t{pid}\n");
    let is_of = |info: std::fs::DirEntry| std::fs::read_to_string(info.path()).is_ok_and(|info| info.contains(&line));
    while !std::fs::read_dir("/proc/self/fdinfo").unwrap().flatten().any(is_of) {
        sleep(Duration::from_millis(10)).await;
    }
}

/// A guest that says what it likes.
struct Liar {
    own: OwnAgent,
    told: mpsc::Receiver<GuestEvent>,
    lines: Lines,
    write: OwnedWriteHalf,
    view: watch::Sender<View>,
    _folder: tempfile::TempDir,
}

impl Liar {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("port");
        let listener = UnixListener::bind(&socket).unwrap();
        let (sender, view) = watch::channel(running());
        let (events, told) = mpsc::channel(256);
        let own = spawn(
            Port { guest: GuestName::new("web-1").unwrap(), epoch: Epoch::default(), way: Way::Port(socket), view },
            events,
        );
        // Whoever accepts can speak as whoever connects.
        let (read, write) = listener.accept().await.unwrap().0.into_split();
        Self { own, told, lines: Lines::of(read), write, view: sender, _folder: folder }
    }

    /// The number of the next greeting.
    async fn greeting(&mut self) -> u64 {
        loop {
            let line = timeout(LONG, self.lines.next()).await.unwrap().unwrap();
            if let ToGuest::Hello { number } = serde_json::from_slice(&line).unwrap() {
                return number;
            }
        }
    }

    async fn says(&mut self, message: &FromGuest) {
        send_line(&mut self.write, message).await;
    }

    /// Waits until all that was said has been heard.
    async fn is_heard(&mut self) {
        let here = FromGuest::Here { version: String::new(), agent: 1, hello: None, late_ms: 0, down: Vec::new() };
        self.says(&here).await;
        let here = |presence: &Presence| *presence == Presence::Here;
        timeout(LONG, self.own.presence.clone().wait_for(here)).await.unwrap().unwrap();
    }
}

async fn send_line(write: &mut OwnedWriteHalf, message: &FromGuest) {
    write.write_all(&protocol::line(message)).await.unwrap();
}

fn running() -> View {
    View { condition: GuestCondition::Running, migration: None, agent_open: None, own_open: None, resets: 0 }
}

fn down(service: usize) -> protocol::Down {
    protocol::Down { service: ServiceName::new(format!("s{service}")).unwrap(), detail: "it has ended".to_owned() }
}

#[tokio::test]
async fn what_was_said_before_this_connection_is_no_news() {
    let mut guest = Liar::new().await;
    guest.says(&FromGuest::Died(down(1))).await;
    let hello = Some(guest.greeting().await);
    let old = FromGuest::Here { version: String::new(), agent: 1, hello: Some(1), late_ms: 0, down: vec![down(2)] };
    guest.says(&old).await;
    let here = FromGuest::Here { version: String::new(), agent: 1, hello, late_ms: 0, down: vec![down(3)] };
    guest.says(&here).await;
    let event = timeout(LONG, guest.told.recv()).await.unwrap().unwrap();
    assert!(matches!(&event, GuestEvent::Died { service, .. } if service.as_str() == "s3"), "{event:?}");
}

#[tokio::test]
async fn a_guest_that_tells_deaths_without_end_costs_a_handful_of_syncs_and_no_memory() {
    let mut guest = Liar::new().await;
    let hello = Some(guest.greeting().await);
    guest.says(&FromGuest::Here { version: String::new(), agent: 1, hello, late_ms: 0, down: Vec::new() }).await;
    for service in 0..2_000 {
        guest.says(&FromGuest::Died(down(service))).await;
    }
    guest.is_heard().await;
    let mut told = 0;
    while guest.told.try_recv().is_ok() {
        told += 1;
    }
    // One more for each second that this took.
    assert!((1..100).contains(&told), "{told}");
}

#[tokio::test]
async fn a_port_that_nobody_listens_at_is_nobody_to_ask() {
    let folder = tempfile::tempdir().unwrap();
    let (_, view) = watch::channel(running());
    let (events, _told) = mpsc::channel(16);
    let (guest, socket) = (GuestName::new("web-1").unwrap(), folder.path().join("port"));
    let own = spawn(Port { guest, epoch: Epoch::default(), way: Way::Port(socket), view }, events);
    assert!(!own.is_here());
    assert_eq!(own.answer(&Probe::AgentPing {}, Duration::from_millis(100)).await, None);
}

/// An agent behind a program that carries vsock, by which a guest without QEMU's agent is asked.
fn carried(socket: std::path::PathBuf) -> (OwnAgent, AgentChannel) {
    let (_, view) = watch::channel(running());
    let (events, _) = mpsc::channel(16);
    let (guest, way) = (GuestName::new("web-1").unwrap(), Way::Program { socket, port: 7413 });
    let own = spawn(Port { guest, epoch: Epoch::default(), way, view: view.clone() }, events);
    (own.clone(), AgentChannel::new(None, view, Some(own)))
}

/// A connection of which the program has been told the port.
async fn led(listener: &UnixListener) -> UnixStream {
    let (mut stream, _) = timeout(LONG, listener.accept()).await.unwrap().unwrap();
    stream.read_exact(&mut [0; b"CONNECT 7413\n".len()]).await.unwrap();
    stream
}

async fn becomes(own: &OwnAgent, wanted: Presence) {
    timeout(LONG, own.presence.clone().wait_for(|presence| *presence == wanted)).await.unwrap().unwrap();
}

#[tokio::test]
async fn an_agent_to_which_this_host_has_no_way_is_not_accused_and_the_reason_is_told() {
    use holdfast_probes::channel::GuestChannel;
    let folder = tempfile::tempdir().unwrap();
    let (own, channel) = carried(folder.path().join("vsock"));
    timeout(LONG, own.trouble.clone().wait_for(Option::is_some)).await.unwrap().unwrap();
    let answer = channel.ping(LONG).await;
    assert!(
        matches!(&answer, Err(ChannelError::Unavailable(why)) if why.contains("/vsock:7413: No such file")),
        "{answer:?}"
    );
    assert_eq!(channel.answer(&Probe::AgentPing {}, LONG).await, None);
}

#[tokio::test]
async fn an_agent_whose_carrier_is_gone_or_has_no_guest_is_unknown_and_one_that_is_reached_again_is_here() {
    use holdfast_probes::channel::GuestChannel;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("vsock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (own, channel) = carried(socket.clone());
    let mut guest = led(&listener).await;
    guest.write_all(b"OK 1024\n").await.unwrap();
    let here = FromGuest::Here { version: String::new(), agent: 1, hello: None, late_ms: 0, down: Vec::new() };
    guest.write_all(&protocol::line(&here)).await.unwrap();
    becomes(&own, Presence::Here).await;
    assert_eq!((channel.ping(LONG).await, own.trouble()), (Ok(()), None));
    drop((guest, listener));
    becomes(&own, Presence::Cut).await;
    assert!(!own.is_here() && !own.is_silent());
    let answer = channel.ping(LONG).await;
    assert!(matches!(&answer, Err(ChannelError::Unavailable(why)) if why.contains("not reached")), "{answer:?}");
    std::fs::remove_file(&socket).unwrap();
    let listener = UnixListener::bind(&socket).unwrap();
    drop(led(&listener).await);
    // That it hung up has been seen when it is connected to anew.
    let mut guest = led(&listener).await;
    assert!(matches!(channel.ping(LONG).await, Err(ChannelError::Unavailable(why)) if why.contains("hung up")));
    guest.write_all(b"OK 1025\n").await.unwrap();
    guest.write_all(&protocol::line(&here)).await.unwrap();
    becomes(&own, Presence::Here).await;
    assert_eq!((channel.ping(LONG).await, own.trouble()), (Ok(()), None));
}

#[tokio::test]
async fn an_agent_behind_a_program_that_hangs_is_unknown_and_here_again_when_that_goes_on() {
    use holdfast_probes::channel::GuestChannel;
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("vsock");
    let listener = UnixListener::bind(&socket).unwrap();
    let (own, channel) = carried(socket);
    let mut program = led(&listener).await;
    let here = FromGuest::Here { version: String::new(), agent: 1, hello: None, late_ms: 0, down: Vec::new() };
    program.write_all(b"OK 1024\n").await.unwrap();
    program.write_all(&protocol::line(&here)).await.unwrap();
    becomes(&own, Presence::Here).await;
    // From here on it takes what is written and gives nothing: the first to notice is who asks.
    let (outcome, detail) = channel.answer(&Probe::AgentPing {}, Duration::from_millis(200)).await.unwrap();
    assert_eq!(outcome, Outcome::Unknown, "{detail}");
    becomes(&own, Presence::Cut).await;
    let answer = channel.ping(LONG).await;
    assert!(matches!(&answer, Err(ChannelError::Unavailable(why)) if why.contains("nothing was heard")), "{answer:?}");
    program.write_all(&protocol::line(&here)).await.unwrap();
    becomes(&own, Presence::Here).await;
    assert_eq!((channel.ping(LONG).await, own.trouble()), (Ok(()), None));
}

#[tokio::test]
async fn an_agent_that_is_mute_at_its_port_has_failed() {
    let mut guest = Liar::new().await;
    guest.is_heard().await;
    let answer = guest.own.answer(&Probe::AgentPing {}, Duration::from_millis(200)).await;
    assert!(matches!(answer, Some((Outcome::Fail, _))), "{answer:?}");
}

#[tokio::test]
async fn an_agent_that_closes_its_port_is_gone_at_once_and_whoever_waits_for_it_is_told() {
    let mut guest = Liar::new().await;
    guest.greeting().await;
    guest.is_heard().await;
    assert!(guest.own.is_here());
    let own = guest.own.clone();
    let asked = tokio::spawn(async move { own.exec(&["true".to_owned()], LONG).await });
    loop {
        let line = timeout(LONG, guest.lines.next()).await.unwrap().unwrap();
        if matches!(serde_json::from_slice(&line).unwrap(), ToGuest::Ask { .. }) {
            break;
        }
    }
    guest.view.send_modify(|view| view.own_open = Some(false));
    assert!(guest.own.is_silent() && !guest.own.is_here());
    let began = Instant::now();
    let answer = asked.await.unwrap();
    assert!(matches!(answer, Err(Unanswered::Lost(ChannelError::Unavailable(_)))), "{answer:?}");
    assert!(began.elapsed() < SILENCE, "not only when it has been silent for long");
}

#[tokio::test]
async fn what_was_on_its_way_from_a_closed_port_does_not_bring_the_agent_back_and_an_open_one_is_greeted() {
    let mut guest = Liar::new().await;
    let hello = Some(guest.greeting().await);
    guest.view.send_modify(|view| view.own_open = Some(false));
    guest.says(&FromGuest::Here { version: String::new(), agent: 1, hello, late_ms: 0, down: vec![down(1)] }).await;
    timeout(LONG, guest.told.recv()).await.unwrap().unwrap();
    assert!(!guest.own.is_here(), "it was heard, and had gone before");
    guest.view.send_modify(|view| view.own_open = Some(true));
    guest.greeting().await;
    guest.is_heard().await;
    assert!(guest.own.is_here());
}
