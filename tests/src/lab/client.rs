//! The outside client: asks a service over HTTP again and again from its own network namespace, every 20 ms where outages are
//! measured, and says how long it was out.
//!
//! The asking half ([`poll`]) runs as a process of its own in the client's namespace and prints a line of JSON when
//! something changes; the listening half ([`Client`]) keeps what it said.

use std::{
    fs,
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Child, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, anyhow, bail};
use nix::sched::{CloneFlags, setns};
use serde::{Deserialize, Serialize};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    runtime::Builder,
    sync::mpsc,
    time,
};

use super::{Lab, clock::now_ms, wait};

/// How often it asks where outages are measured.
pub const ASK_EVERY: Duration = Duration::from_millis(20);
/// How long it waits for an answer.
const ANSWER_WITHIN: Duration = Duration::from_millis(200);
/// How long a single question waits for its answer.
const GET_LIMIT: Duration = Duration::from_secs(5);
/// How often it says that it is alive.
const BEAT_EVERY_MS: f64 = 1_000.0;
/// Most of an answer that is read.
const ANSWER_BYTES_MAX: u64 = 64 << 10;
/// Most outages that are kept; a run of everything has dozens.
const OUTAGES_MAX: usize = 10_000;
/// Answers in between that last shorter than this do not end an outage.
const RELAPSE_MS: f64 = 2_000.0;

/// A time without answers, on [`now_ms`]'s clock.
#[derive(Debug, Clone, PartialEq)]
pub struct Outage {
    /// The last good answer before it.
    pub from_ms: f64,
    /// The first good answer after it; `None` while it lasts.
    pub to_ms: Option<f64>,
    /// The first failure.
    pub why: String,
}

impl Outage {
    /// How long it took, or has taken so far.
    #[must_use]
    pub fn length_ms(&self) -> f64 {
        self.to_ms.unwrap_or_else(now_ms) - self.from_ms
    }
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Line {
    Up { at_ms: f64 },
    Down { last_good_ms: Option<f64>, why: String },
    Beat { last_good_ms: Option<f64> },
}

#[derive(Debug, Default)]
struct Log {
    up: bool,
    last_good_ms: Option<f64>,
    first_good_ms: Option<f64>,
    outages: Vec<Outage>,
}

/// A running client.
#[derive(Debug)]
pub struct Client {
    child: Child,
    log: Arc<Mutex<Log>>,
}

impl Client {
    /// Starts asking `http://ADDRESS/healthz`, where ADDRESS has a port, so often: each answer costs an emulated guest some
    /// milliseconds of a processor.
    ///
    /// # Errors
    /// When the client program cannot be started.
    pub fn start(lab: &Lab, address: &str, every: Duration) -> Result<Self> {
        let program = super::built("quickstart")?.to_string_lossy().into_owned();
        let every_ms = every.as_millis().to_string();
        let mut command = lab.place.inside("client", "cl", &[&program, "client", address, "/healthz", &every_ms]);
        let mut child =
            command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("cannot start the client")?;
        let lines = child.stdout.take().context("the client has no output")?;
        let log = Arc::new(Mutex::new(Log::default()));
        let kept = Arc::clone(&log);
        thread::spawn(move || {
            for line in BufReader::new(lines).lines().map_while(Result::ok) {
                if let Ok(line) = serde_json::from_str(&line) {
                    note(&mut kept.lock().unwrap_or_else(PoisonError::into_inner), line);
                }
            }
        });
        Ok(Self { child, log })
    }

    /// Whether the last answer was good.
    #[must_use]
    pub fn answering(&self) -> bool {
        self.log().up
    }

    /// When it first got a good answer since [`Client::forget`].
    #[must_use]
    pub fn first_good_ms(&self) -> Option<f64> {
        self.log().first_good_ms
    }

    /// Forgets outages and the first good answer.
    pub fn forget(&self) {
        let mut log = self.log();
        log.first_good_ms = None;
        log.outages.retain(|outage| outage.to_ms.is_none());
    }

    /// Waits for good answers.
    ///
    /// # Errors
    /// After `limit`.
    pub fn wait_up(&self, limit: Duration) -> Result<()> {
        wait::until("good answers to the outside client", limit, || {
            if self.answering() { Ok(()) } else { Err(format!("{:?}", self.outages().last())) }
        })
    }

    /// Waits until answers stop.
    ///
    /// # Errors
    /// After `limit`.
    pub fn wait_down(&self, limit: Duration) -> Result<()> {
        wait::until("no answers to the outside client", limit, || {
            if self.answering() { Err("it answers".to_owned()) } else { Ok(()) }
        })
    }

    /// All outages so far; those with less than two seconds of answers between them count as one.
    #[must_use]
    pub fn outages(&self) -> Vec<Outage> {
        merged(&self.log().outages)
    }

    /// The longest outage that was not over at `since_ms`.
    #[must_use]
    pub fn longest_since(&self, since_ms: f64) -> Option<Outage> {
        let after = self.outages().into_iter().filter(|outage| outage.to_ms.is_none_or(|to| to >= since_ms));
        after.max_by(|one, other| one.length_ms().total_cmp(&other.length_ms()))
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It may be gone already, with the lab.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lab {
    /// What a URL path answers to the outside client, once.
    ///
    /// # Errors
    /// When the connection fails, when the answer takes longer than five seconds, and when its status is not 200.
    pub fn client_get(&self, address: &str, path: &str) -> Result<String> {
        let space = Path::new("/run/netns").join(self.place.space("cl"));
        // In a thread that is moved there and ends with the answer: a program for each question would take a processor from whoever
        // is asked.
        let asking = || -> Result<String> {
            setns(fs::File::open(&space)?, CloneFlags::CLONE_NEWNET)?;
            Builder::new_current_thread().enable_all().build()?.block_on(get(address, path))
        };
        let asked = thread::scope(|scope| scope.spawn(asking).join());
        asked.unwrap_or_else(|_| Err(anyhow!("asking {address} for {path} has panicked")))
    }
}

fn note(log: &mut Log, line: Line) {
    match line {
        Line::Up { at_ms } => {
            log.up = true;
            log.last_good_ms = Some(at_ms);
            log.first_good_ms.get_or_insert(at_ms);
            if let Some(outage) = log.outages.last_mut() {
                outage.to_ms.get_or_insert(at_ms);
            }
        }
        Line::Down { last_good_ms, why } => {
            log.up = false;
            log.last_good_ms = last_good_ms;
            if let Some(from_ms) = last_good_ms
                && log.outages.len() < OUTAGES_MAX
            {
                log.outages.push(Outage { from_ms, to_ms: None, why });
            }
        }
        Line::Beat { last_good_ms } => log.last_good_ms = last_good_ms,
    }
}

fn merged(outages: &[Outage]) -> Vec<Outage> {
    let mut all: Vec<Outage> = Vec::new();
    for outage in outages {
        match all.last_mut() {
            Some(last) if last.to_ms.is_none_or(|to| outage.from_ms - to < RELAPSE_MS) => last.to_ms = outage.to_ms,
            _ => all.push(outage.clone()),
        }
    }
    all
}

/// Asks for ever, so often; ends when nobody reads what it prints.
///
/// # Errors
/// When nobody reads it.
pub async fn poll(address: &str, path: &str, every: Duration) -> Result<()> {
    let (sender, mut answers) = mpsc::channel(64);
    let (address, path) = (address.to_owned(), path.to_owned());
    tokio::spawn(async move {
        let mut tick = time::interval(every);
        tick.set_missed_tick_behavior(time::MissedTickBehavior::Skip);
        loop {
            tick.tick().await;
            let (sender, address, path) = (sender.clone(), address.clone(), path.clone());
            // At most ten are under way: each ends after ANSWER_WITHIN.
            tokio::spawn(async move {
                let asked_ms = now_ms();
                let answer = match time::timeout(ANSWER_WITHIN, ask(&address, &path)).await {
                    Ok(answer) => answer.map(drop).map_err(|error| error.to_string()),
                    Err(_) => Err("no answer within 200 ms".to_owned()),
                };
                // Fails only when the poll is over.
                let _ = sender.send((asked_ms, now_ms(), answer)).await;
            });
        }
    });
    let mut judge = Judge::default();
    while let Some((asked_ms, answered_ms, answer)) = answers.recv().await {
        for line in judge.judge(asked_ms, answered_ms, answer) {
            let mut out = std::io::stdout().lock();
            writeln!(out, "{}", serde_json::to_string(&line)?)?;
            out.flush()?;
        }
    }
    Ok(())
}

async fn get(address: &str, path: &str) -> Result<String> {
    time::timeout(GET_LIMIT, ask(address, path)).await?
}

async fn ask(address: &str, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: guest\r\n\r\n").as_bytes()).await?;
    let mut bytes = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await?;
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").context("no HTTP answer")?;
    if head.split(' ').nth(1) != Some("200") {
        bail!("answered {}", head.lines().next().unwrap_or_default());
    }
    Ok(body.to_owned())
}

/// Turns answers, which may overtake each other, into changes.
#[derive(Debug, Default)]
struct Judge {
    up: bool,
    last_good_ms: Option<f64>,
    last_beat_ms: f64,
}

impl Judge {
    fn judge(&mut self, asked_ms: f64, answered_ms: f64, answer: Result<(), String>) -> Vec<Line> {
        let mut lines = Vec::new();
        match answer {
            Ok(()) => {
                self.last_good_ms = Some(answered_ms);
                if !self.up {
                    self.up = true;
                    lines.push(Line::Up { at_ms: answered_ms });
                }
            }
            // A failure asked before the last good answer came in says nothing about the time after it.
            Err(why) if self.up && self.last_good_ms.is_some_and(|good| good < asked_ms) => {
                self.up = false;
                lines.push(Line::Down { last_good_ms: self.last_good_ms, why });
            }
            Err(_) => {}
        }
        if answered_ms - self.last_beat_ms > BEAT_EVERY_MS {
            self.last_beat_ms = answered_ms;
            lines.push(Line::Beat { last_good_ms: self.last_good_ms });
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_reaches_from_the_last_good_answer_to_the_first_good_one() {
        let mut judge = Judge { last_beat_ms: 1e9, ..Judge::default() };
        let mut log = Log::default();
        let no = || Err("refused".to_owned());
        let answers = [
            (0.0, 5.0, Ok(())),
            (20.0, 25.0, Ok(())),
            (15.0, 215.0, no()),
            (40.0, 240.0, no()),
            (60.0, 260.0, no()),
            (1060.0, 1070.0, Ok(())),
        ];
        for (asked, answered, answer) in answers {
            for line in judge.judge(asked, answered, answer) {
                note(&mut log, line);
            }
        }
        assert_eq!(log.outages, [Outage { from_ms: 25.0, to_ms: Some(1070.0), why: "refused".into() }]);
    }

    #[test]
    fn a_short_recovery_does_not_end_an_outage() {
        let outage = |from_ms, to_ms| Outage { from_ms, to_ms: Some(to_ms), why: String::new() };
        let all = merged(&[outage(0.0, 1000.0), outage(1500.0, 4000.0), outage(9000.0, 9100.0)]);
        assert_eq!(all, [outage(0.0, 4000.0), outage(9000.0, 9100.0)]);
    }
}
