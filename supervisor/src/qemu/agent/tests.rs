//! The QEMU guest agent: late answers, silence, refusals, bounds.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{UnixListener, UnixStream},
    time::{advance, pause, resume, timeout},
};

use super::{connection::KEPT_UNUSED, freeze::ASK_EVERY, left::LEFT_MAX, *};

/// For what is never answered; long enough for the question to be asked on a busy machine.
const SHORT: Duration = Duration::from_secs(1);
/// Longer than anything takes that is answered.
const LONG: Duration = Duration::from_secs(20);

/// What agents say of whether file systems are frozen; the last one is of those that may not tell.
const THAWED: &str = "{\"return\": \"thawed\"}\n";
const FROZEN: &str = "{\"return\": \"frozen\"}\n";
const NOT_TOLD: &str = "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"it has been disabled\"}}\n";

/// An agent that answers as `answer` says; `None` leaves a command unanswered.
fn agent(
    view: View,
    answer: impl Fn(usize, &str) -> Option<String> + Send + 'static,
) -> (tempfile::TempDir, AgentChannel) {
    agent_that_freezes(view, || THAWED, answer)
}

/// The same with what it says of whether file systems are frozen. It has one client at a time, as QEMU's has.
fn agent_that_freezes(
    view: View,
    is_frozen: impl Fn() -> &'static str + Send + 'static,
    answer: impl Fn(usize, &str) -> Option<String> + Send + 'static,
) -> (tempfile::TempDir, AgentChannel) {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("qga");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        let mut commands = 0;
        // What the guest's port still holds when a client has left reaches the next client.
        let mut late = String::new();
        while let Ok((stream, _)) = listener.accept().await {
            let mut stream = BufReader::new(stream);
            stream.write_all(late.as_bytes()).await.unwrap();
            let mut line = Vec::new();
            while stream.read_until(b'\n', &mut line).await.unwrap_or(0) > 0 {
                let json = line.strip_prefix(b"\xff").unwrap_or(&line);
                let command: Value = serde_json::from_slice(json).unwrap();
                if command["execute"] == "guest-sync-delimited" {
                    let text = format!("{{\"return\": {}}}\n", command["arguments"]["id"]);
                    stream.write_all(&[b"\xff", text.as_bytes()].concat()).await.unwrap();
                } else if command["execute"] == "guest-fsfreeze-status" {
                    stream.write_all(is_frozen().as_bytes()).await.unwrap();
                } else if let Some(text) = answer(commands, command["execute"].as_str().unwrap()) {
                    stream.write_all(text.as_bytes()).await.unwrap();
                    commands += 1;
                } else {
                    late = "{\"return\": \"too late\"}\n".to_owned();
                    commands += 1;
                }
                line.clear();
            }
        }
    });
    let (_, view) = watch::channel(view);
    let channel = AgentChannel::new(Some(socket), view, None);
    (folder, channel)
}

fn running() -> View {
    View { condition: GuestCondition::Running, migration: None, agent_open: Some(true), own_open: None, resets: 0 }
}

#[tokio::test]
async fn a_late_answer_is_never_taken_for_the_next_one() {
    let (_folder, channel) = agent(running(), |number, _| (number > 0).then(|| "{\"return\": {}}\n".to_owned()));
    assert_eq!(channel.ping(SHORT).await, Err(ChannelError::Deadline));
    assert_eq!(channel.ping(LONG).await, Ok(()));
    assert_eq!(channel.ping(LONG).await, Ok(()));
}

#[tokio::test]
async fn a_guest_that_cannot_answer_is_not_asked() {
    for view in [
        View { condition: GuestCondition::Paused { reason: "paused".into() }, ..running() },
        View { agent_open: Some(false), ..running() },
    ] {
        let (_folder, channel) = agent(view, |_, _| None);
        assert!(matches!(channel.ping(LONG).await, Err(ChannelError::Unavailable(_))));
    }
}

#[tokio::test]
async fn a_refusal_of_the_agent_is_told_apart_from_silence() {
    let refusal = "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such program\"}}\n";
    let (_folder, channel) = agent(running(), |_, _| Some(refusal.to_owned()));
    let argv = ["/bin/none".to_owned()];
    assert_eq!(channel.exec(&argv, LONG).await, Err(ChannelError::Refused("no such program".into())));
    assert!(matches!(channel.exec(&[], LONG).await, Err(ChannelError::Refused(_))));
}

#[tokio::test]
async fn a_shutdown_is_taken_in_silence_refused_in_words_and_not_asked_of_nobody() {
    let (_folder, channel) =
        agent(running(), |_, name| (name == "guest-ping").then(|| "{\"return\": {}}\n".to_owned()));
    assert_eq!(channel.power(Power::Reboot, LONG).await, Ok(()));
    let refusal = "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such mode\"}}\n";
    let (_folder, channel) = agent(running(), move |_, name| {
        Some(if name == "guest-ping" { "{\"return\": {}}\n".to_owned() } else { refusal.to_owned() })
    });
    assert_eq!(channel.power(Power::Off, LONG).await, Err(ChannelError::Refused("no such mode".into())));
    let (_folder, channel) = agent(running(), |_, _| None);
    assert_eq!(channel.power(Power::Off, SHORT).await, Err(ChannelError::Deadline));
}

#[tokio::test]
async fn a_program_that_hangs_is_told_apart_from_an_agent_that_does() {
    let argv = ["/bin/sleep".to_owned()];
    let begun = || Some("{\"return\": {\"pid\": 7}}\n".to_owned());
    let (_folder, channel) = agent(running(), move |_, name| match name {
        "guest-exec" => begun(),
        _ => Some("{\"return\": {\"exited\": false}}\n".to_owned()),
    });
    assert_eq!(channel.exec(&argv, SHORT).await, Err(ChannelError::Late));
    let (_folder, channel) = agent(running(), |_, _| None);
    assert_eq!(channel.exec(&argv, SHORT).await, Err(ChannelError::Deadline));
    let (_folder, channel) = agent(running(), move |_, name| begun().filter(|_| name == "guest-exec"));
    assert_eq!(channel.exec(&argv, 5 * HEARD_LATELY).await, Err(ChannelError::Deadline));
}

#[tokio::test]
async fn a_program_that_hangs_at_each_question_does_not_fill_its_guest_and_is_begun_again_when_it_has_ended() {
    let (begun, over) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (counted, ends) = (Arc::clone(&begun), Arc::clone(&over));
    let (_folder, channel) = agent(running(), move |_, name| {
        let answer = match name {
            "guest-exec" => format!("{{\"pid\": {}}}", counted.fetch_add(1, Ordering::SeqCst)),
            _ if ends.load(Ordering::SeqCst) => "{\"exited\": true, \"exitcode\": 0}".to_owned(),
            _ => "{\"exited\": false}".to_owned(),
        };
        Some(format!("{{\"return\": {answer}}}\n"))
    });
    let argv = ["/bin/check".to_owned()];
    for _ in 0..LEFT_MAX + 3 {
        assert_eq!(channel.exec(&argv, SHORT).await, Err(ChannelError::Late));
    }
    assert_eq!(begun.load(Ordering::SeqCst), LEFT_MAX);
    assert_eq!(channel.exec(&["/bin/other".to_owned()], SHORT).await, Err(ChannelError::Late));
    assert_eq!(begun.load(Ordering::SeqCst), LEFT_MAX + 1, "another program is none of them");
    over.store(true, Ordering::SeqCst);
    assert_eq!(channel.exec(&argv, LONG).await.map(|result| result.exit), Ok(Exit::Code(0)));
    assert_eq!(begun.load(Ordering::SeqCst), LEFT_MAX + 2);
}

#[tokio::test]
async fn output_beyond_the_bound_is_cut() {
    use std::fmt::Write;
    let (_folder, channel) = agent(running(), |_, name| {
        let mut text = String::from("{\"return\": {\"pid\": 7}}\n");
        if name == "guest-exec-status" {
            text = String::from("{\"return\": {\"exited\": true, \"exitcode\": 3, \"out-data\": \"");
            writeln!(text, "{}\"}}}}", "eHh4".repeat(40_000)).unwrap();
        }
        Some(text)
    });
    let result = channel.exec(&["/bin/yes".to_owned()], LONG).await.unwrap();
    assert_eq!((result.exit, result.stdout.len()), (Exit::Code(3), OUTPUT_BYTES_MAX));
}

#[tokio::test]
async fn what_a_program_says_beyond_all_bounds_is_told_apart_from_a_refusal() {
    let (_folder, channel) = agent(running(), |_, name| {
        Some(match name {
            "guest-exec" => "{\"return\": {\"pid\": 7}}\n".to_owned(),
            _ => format!("{{\"return\": {{\"exited\": true, \"out-data\": \"{}\"}}}}\n", "eHh4".repeat(400_000)),
        })
    });
    assert_eq!(channel.exec(&["/bin/yes".to_owned()], LONG).await, Err(ChannelError::TooLong));
}

/// How agents refuse a command while they have the file systems frozen: those before QEMU 6.0, and later ones.
const BEFORE_6_0: &str =
    "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"The command guest-exec has been disabled\"}}";
const REFUSES: &str = "{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"Command guest-exec has been disabled: the \
                       agent is in frozen state\"}}";

/// An agent that has frozen its guest's file systems until somebody has it thaw them, and tells so in either way.
fn frozen(says: &'static str, refuses: &'static str) -> (tempfile::TempDir, AgentChannel) {
    let is_frozen = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&is_frozen);
    let is_told = move || if told.load(Ordering::SeqCst) { says } else { THAWED };
    agent_that_freezes(running(), is_told, move |_, name| {
        let answer = match name {
            "guest-ping" => "{\"return\": {}}",
            "guest-fsfreeze-thaw" => {
                is_frozen.store(false, Ordering::SeqCst);
                "{\"return\": 1}"
            }
            _ if is_frozen.load(Ordering::SeqCst) => refuses,
            "guest-exec" => "{\"return\": {\"pid\": 7}}",
            _ => "{\"return\": {\"exited\": true, \"exitcode\": 0}}",
        };
        Some(format!("{answer}\n"))
    })
}

/// Another client of the agent.
async fn thaw(folder: &tempfile::TempDir) {
    let thawed = async {
        let mut stream = BufReader::new(UnixStream::connect(folder.path().join("qga")).await.unwrap());
        stream.write_all(b"{\"execute\": \"guest-fsfreeze-thaw\"}\n").await.unwrap();
        let mut line = String::new();
        stream.read_line(&mut line).await.unwrap();
        line
    };
    let line = timeout(LONG, thawed).await.expect("nobody else is let in");
    assert_eq!(line, "{\"return\": 1}\n");
}

#[tokio::test]
async fn nothing_is_made_of_what_a_frozen_guest_refuses_and_whoever_is_to_thaw_it_is_let_in() {
    let argv = ["/bin/true".to_owned()];
    for (says, refuses) in [(FROZEN, BEFORE_6_0), (FROZEN, REFUSES), (NOT_TOLD, REFUSES)] {
        let (folder, channel) = frozen(says, refuses);
        assert_eq!(channel.exec(&argv, LONG).await, Err(ChannelError::Frozen));
        assert_eq!(channel.power(Power::Reboot, LONG).await, Err(ChannelError::Frozen), "it is not taken for silence");
        thaw(&folder).await;
        assert!(channel.exec(&argv, LONG).await.is_ok(), "it is asked anew");
        assert_eq!(channel.ping(LONG).await, Ok(()));
    }
}

#[tokio::test]
async fn an_agent_that_is_there_while_its_guest_is_frozen_is_left_to_others_after_each_question() {
    let (folder, channel) = frozen(FROZEN, NOT_TOLD);
    assert_eq!(channel.ping(LONG).await, Ok(()));
    thaw(&folder).await;
}

#[tokio::test]
async fn what_is_disabled_in_a_guest_that_is_not_frozen_is_refused_as_ever() {
    let (_folder, channel) = agent(running(), |_, _| Some(NOT_TOLD.to_owned()));
    let refused = ChannelError::Refused("it has been disabled".into());
    assert_eq!(channel.exec(&["/bin/true".to_owned()], LONG).await, Err(refused));
}

#[tokio::test]
async fn a_connection_that_is_not_used_is_closed_and_others_are_let_in() {
    let (folder, channel) = agent(running(), |_, name| {
        Some(if name == "guest-ping" { "{\"return\": {}}\n".to_owned() } else { "{\"return\": 1}\n".to_owned() })
    });
    assert_eq!(channel.ping(LONG).await, Ok(()));
    pause();
    advance(KEPT_UNUSED).await;
    resume();
    thaw(&folder).await;
    assert_eq!(channel.ping(LONG).await, Ok(()), "it is opened anew");
}

#[tokio::test]
async fn a_guest_that_was_seen_to_be_frozen_is_asked_until_it_is_not() {
    let (folder, channel) = frozen(FROZEN, REFUSES);
    let is_frozen = || channel.frozen_ms(clock::moment()).is_some();
    assert!(!is_frozen(), "nobody has asked");
    assert_eq!(channel.exec(&["/bin/true".to_owned()], LONG).await, Err(ChannelError::Frozen));
    assert!(is_frozen());
    thaw(&folder).await;
    let seen = timeout(LONG, async {
        while is_frozen() {
            sleep(POLL.0).await;
        }
    });
    assert!(seen.await.is_ok(), "nobody asks again");
}

#[tokio::test]
async fn a_guest_that_has_begun_anew_since_it_was_frozen_is_not_taken_to_be_so() {
    let (folder, _) = frozen(FROZEN, REFUSES);
    let (sender, view) = watch::channel(running());
    let channel = AgentChannel::new(Some(folder.path().join("qga")), view, None);
    assert_eq!(channel.ping(LONG).await, Ok(()));
    assert!(channel.frozen_ms(clock::moment()).is_some());
    sender.send_modify(|view| view.resets += 1);
    assert_eq!(channel.frozen_ms(clock::moment()), None);
}

#[tokio::test]
async fn no_command_is_held_up_unless_the_guest_is_known_to_be_frozen() {
    let (folder, channel) = frozen(FROZEN, REFUSES);
    assert_eq!(channel.not_frozen().await, Err(ChannelError::Frozen));
    thaw(&folder).await;
    assert_eq!(channel.not_frozen().await, Ok(()));
    let (_folder, silent) = agent(running(), |_, _| None);
    assert_eq!(silent.not_frozen().await, Ok(()));
    let (_, view) = watch::channel(running());
    assert_eq!(AgentChannel::new(None, view, None).not_frozen().await, Ok(()));
}

async fn until(what: impl Fn() -> bool) {
    let seen = timeout(LONG, async {
        while !what() {
            sleep(POLL.0).await;
        }
    });
    seen.await.expect("it does not come to that");
}

#[tokio::test]
async fn a_guest_whose_services_fail_is_seen_to_be_frozen_though_nothing_else_is_asked_of_its_agent() {
    let (folder, channel) = frozen(FROZEN, REFUSES);
    channel.look_whether_frozen();
    until(|| channel.frozen_ms(clock::moment()).is_some()).await;
    thaw(&folder).await;
    until(|| channel.frozen_ms(clock::moment()).is_none()).await;
}

/// An agent of a guest that is not frozen, and how often it was asked whether it is.
fn thawed() -> (tempfile::TempDir, AgentChannel, Arc<AtomicUsize>) {
    let looks = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&looks);
    let says = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        THAWED
    };
    let (folder, channel) = agent_that_freezes(running(), says, |_, name| {
        Some(if name == "guest-ping" { "{\"return\": {}}\n".to_owned() } else { "{\"return\": 1}\n".to_owned() })
    });
    (folder, channel, looks)
}

#[tokio::test]
async fn an_agent_that_is_asked_because_services_fail_is_left_to_others_at_once_and_not_asked_all_the_time() {
    let (folder, channel, looks) = thawed();
    for round in 1..=2 {
        for _ in 0..5 {
            channel.look_whether_frozen();
        }
        until(|| looks.load(Ordering::SeqCst) == round).await;
        // Another client is served only when there is none before it.
        thaw(&folder).await;
        assert_eq!(looks.load(Ordering::SeqCst), round);
        pause();
        advance(ASK_EVERY).await;
        resume();
    }
}

#[tokio::test]
async fn over_a_connection_that_is_kept_nobody_asks_whether_the_guest_is_frozen() {
    let (_folder, channel, looks) = thawed();
    assert_eq!(channel.ping(LONG).await, Ok(()));
    channel.look_whether_frozen();
    sleep(POLL.0).await;
    assert_eq!(channel.ping(LONG).await, Ok(()), "it is still there");
    assert_eq!(looks.load(Ordering::SeqCst), 1, "when it was opened");
}
