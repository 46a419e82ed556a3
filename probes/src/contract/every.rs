//! The suite that every kind of question runs, wherever it is asked: its deadline, little to say, `Unknown` where it cannot be
//! asked, and nothing left behind when it is dropped. A new kind does not compile here before it takes part.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use holdfast_policies::{model::Probe, observe::Outcome};

use super::{
    kinds::kinds,
    network::{all_asked, conversations, dns, until},
    plugin::plugin,
    scene::{Manner, Says, Scripted, exec, inside, network, server, tcp},
};
use crate::{ChannelError, ExecResult, Exit, GuestChannel, Target, ask};

/// How many kinds there are.
const KINDS: usize = 17;

/// Which one a question is of; below [`KINDS`].
fn number(probe: &Probe) -> usize {
    match probe {
        Probe::Http(_) => 0,
        Probe::Tcp(_) => 1,
        Probe::AgentPing {} => 2,
        Probe::Exec(_) => 3,
        Probe::Tls(_) => 4,
        Probe::Dns(_) => 5,
        Probe::Grpc(_) => 6,
        Probe::Postgres(_) => 7,
        Probe::Mysql(_) => 8,
        Probe::Redis(_) => 9,
        Probe::Ping {} => 10,
        Probe::Plugin(_) => 11,
        Probe::File(_) => 12,
        Probe::Systemd(_) => 13,
        Probe::Process(_) => 14,
        Probe::Metric(_) => 15,
        Probe::Heartbeat(_) => 16,
    }
}

/// At least one question of each kind; what asks a port asks this one.
fn every(port: u16) -> Vec<Probe> {
    let mut all = conversations(port);
    all.extend([tcp(port), dns(port), Probe::Ping {}, plugin("sleep 60"), exec(&["true"]), Probe::AgentPing {}]);
    all.extend(kinds());
    all
}

#[test]
fn no_kind_is_left_out_of_the_suite() {
    let numbers: BTreeSet<usize> = every(1).iter().map(number).collect();
    assert_eq!(numbers, (0..KINDS).collect());
}

/// More than any channel lets through, without end of line, and with what terminals obey.
static NOISE: LazyLock<String> = LazyLock::new(|| "\u{1b}[2J\u{7}nonsense \u{0}".repeat(16 * 1024));

fn agent(ping: Says, exec: fn(&[String]) -> Says) -> Target {
    inside(Scripted { ping, exec })
}

#[tokio::test]
async fn every_kind_ends_by_its_deadline_and_says_little_whoever_is_mute_or_noisy() {
    let port = server(Manner::Mute).await;
    let noisy: [fn(&[String]) -> Says; 2] = [
        |_| Says::Ends(Exit::Code(0), NOISE.as_str(), NOISE.as_str()),
        |_| Says::Ends(Exit::Code(1), NOISE.as_str(), NOISE.as_str()),
    ];
    let mut targets = vec![network(), agent(Says::Nothing, |_| Says::Nothing)];
    targets.extend(noisy.map(|says| agent(Says::Error(ChannelError::Refused(NOISE.clone())), says)));
    for target in targets {
        // Deadline, length and letters are looked at there.
        assert!(all_asked(every(port), &target).await.len() >= KINDS);
    }
}

/// By the clock of the runtime, which stands still while anything is done and goes on at once where all wait: so a busy machine
/// takes nothing away from the limit, and nothing needs to be added to it.
#[tokio::test(start_paused = true)]
async fn every_kind_keeps_its_deadline_to_the_hundredth_of_a_second_whatever_this_machine_does() {
    const LIMIT: Duration = Duration::from_secs(3);
    let port = server(Manner::Mute).await;
    for target in [network(), agent(Says::Nothing, |_| Says::Nothing)] {
        for probe in every(port) {
            let began = tokio::time::Instant::now();
            ask(&probe, &target, LIMIT).await;
            assert!(began.elapsed() <= LIMIT + Duration::from_millis(10), "{probe:?} took {:?}", began.elapsed());
        }
    }
}

#[tokio::test]
async fn every_kind_is_unknown_where_neither_an_address_nor_an_agent_is_there() {
    let gone = || Says::Error(ChannelError::Unavailable("no socket".to_owned()));
    let no_agent = agent(gone(), |_| Says::Error(ChannelError::Unavailable("no socket".to_owned())));
    for target in [Target { address: None, ..network() }, no_agent] {
        for (probe, seen) in all_asked(every(80), &target).await {
            assert_eq!(seen.outcome, Outcome::Unknown, "{probe:?}: {seen:?}");
        }
    }
}

/// An agent that never answers, and knows how many wait for it.
struct Mute(Arc<AtomicUsize>);

/// One who waits.
struct Waits(Arc<AtomicUsize>);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Mute {
    async fn wait<T>(&self) -> T {
        self.0.fetch_add(1, Ordering::SeqCst);
        let _waits = Waits(Arc::clone(&self.0));
        std::future::pending().await
    }
}

#[async_trait]
impl GuestChannel for Mute {
    async fn ping(&self, _: Duration) -> Result<(), ChannelError> {
        self.wait().await
    }
    async fn exec(&self, _: &[String], _: Duration) -> Result<ExecResult, ChannelError> {
        self.wait().await
    }
}

#[tokio::test]
async fn a_question_in_the_guest_that_is_dropped_waits_for_no_agent_any_more() {
    for probe in every(1).into_iter().filter(|probe| probe.not_inside().is_none()) {
        let waiting = Arc::new(AtomicUsize::new(0));
        let target = inside(Mute(Arc::clone(&waiting)));
        let asking = tokio::spawn(async move { ask(&probe, &target, Duration::from_secs(60)).await });
        until("the question", || waiting.load(Ordering::SeqCst) == 1).await;
        asking.abort();
        until("its end", || waiting.load(Ordering::SeqCst) == 0).await;
    }
}

#[tokio::test]
async fn a_plugin_that_nobody_waits_for_any_more_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let probe = plugin(&format!("echo $$ > {0}.part; mv {0}.part {0}; sleep 60", file.display()));
    let asking = tokio::spawn(async move { ask(&probe, &network(), Duration::from_secs(60)).await });
    until("its start", || file.exists()).await;
    asking.abort();
    let pid = std::fs::read_to_string(&file).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    until("its end", || !std::fs::read_to_string(&stat).is_ok_and(|stat| !stat.contains(") Z "))).await;
}
