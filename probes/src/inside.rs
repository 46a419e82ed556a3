//! How network probes look from inside the guest: the guest's own programs ask its loopback address.
//!
//! Between the question and the service stand the agent and a program of the guest's. Only what the program says about
//! the service counts; an agent that is silent, or a program that is missing, makes the answer `Unknown`.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use holdfast_policies::probe::{HttpProbe, Method, Statuses, TcpProbe, pattern};
use regex::bytes::Regex;
use tokio::time::Instant;

use crate::{
    address::fill_in,
    channel::{ChannelError, ExecResult, Exit, GuestChannel},
    exec::how_it_ended,
    finding::{Finding, contains},
    judge::{self, Answer},
    memory::Memory,
};

/// Where the guest's own programs ask.
pub(crate) const LOOPBACK: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Asks over HTTP in the guest: with `curl`, or, where there is none and a plain success is wanted, with `wget`.
///
/// `wget` shows no status, so it can only ask for 200, and it reports any success as one; where a redirect leads, it goes, as
/// hosts do not.
///
/// A page that was too large for the way out is cut in the guest from then on, by its shell.
pub(crate) async fn http(channel: &dyn GuestChannel, probe: &HttpProbe, memory: &Memory, timeout: Duration) -> Finding {
    let Some(url) = fill_in(&probe.url, Some(LOOPBACK)).filter(|url| is_http(url)) else {
        return Finding::unknown(format!("{:?} is not an http or https url", probe.url));
    };
    if let Some(why) = probe.not_inside() {
        return Finding::unknown(format!("this cannot be asked in the guest: {why}"));
    }
    let pattern = match probe.body_matches.as_deref().map(pattern::build).transpose() {
        Ok(pattern) => pattern,
        Err(why) => return Finding::unknown(format!("the pattern cannot be used: {why}")),
    };
    let (guest, cut) = (Guest::new(channel, timeout), memory.is_large(&url));
    let no_curl = match guest.fetch(curl(&url, probe, &guest.seconds()), cut).await {
        Ran::Ended(result) => return of_curl(&result, probe, pattern.as_ref()),
        Ran::TooLong => return too_long(memory, &url),
        Ran::Missing(why) => format!("the guest has no program to ask with: curl: {why}"),
        Ran::Late => return late(),
        Ran::Judged(finding) => return finding,
    };
    if !wget_can(probe) || !url.starts_with("http://") {
        return Finding::unknown(no_curl);
    }
    match guest.fetch(wget(&url, &guest.seconds()), cut).await {
        Ran::Ended(result) => of_wget(&result, probe, pattern.as_ref()),
        Ran::TooLong => too_long(memory, &url),
        Ran::Missing(why) => Finding::unknown(format!("{no_curl}; wget: {why}")),
        Ran::Late => late(),
        Ran::Judged(finding) => finding,
    }
}

fn too_long(memory: &Memory, url: &str) -> Finding {
    memory.note_large(url);
    Finding::unknown(format!("{}: from the next question on the guest's shell is to cut it", ChannelError::TooLong))
}

/// Connects over TCP in the guest, with `nc`.
///
/// The second form is for builds of busybox whose `nc` lacks `-z`: it connects, then runs `true` in its place.
pub(crate) async fn tcp(channel: &dyn GuestChannel, probe: &TcpProbe, timeout: Duration) -> Finding {
    if let Some(why) = probe.not_inside() {
        return Finding::unknown(format!("this cannot be asked in the guest: {why}"));
    }
    let guest = Guest::new(channel, timeout);
    let seconds = guest.seconds();
    let port = probe.port.to_string();
    let zero_io = ["nc", "-z", "-w", &seconds, "127.0.0.1", &port];
    let busybox = ["nc", "-w", &seconds, "127.0.0.1", &port, "-e", "true"];
    let mut missing = String::new();
    for form in [zero_io.as_slice(), busybox.as_slice()] {
        match guest.run(words(form)).await {
            Ran::Ended(ExecResult { exit: Exit::Code(0), .. }) => return Finding::pass("connected"),
            Ran::Ended(result) => return Finding::fail(format!("nc: {}", how_it_ended(&result))),
            Ran::Missing(why) => missing = why,
            Ran::TooLong => return Finding::unknown(ChannelError::TooLong.to_string()),
            Ran::Late => return late(),
            Ran::Judged(finding) => return finding,
        }
    }
    Finding::unknown(format!("the guest has no program to ask with: nc: {missing}"))
}

fn is_http(url: &str) -> bool {
    url.starts_with("http://") || url.starts_with("https://")
}

/// `timeout` bounds the whole, also a body that drips. `wget -T` would not, and Debian's busybox crashes on it.
fn wget(url: &str, seconds: &str) -> Vec<String> {
    words(&["timeout", seconds, "wget", "-q", "-O", "-", url])
}

/// A plain question for a plain success.
fn wget_can(probe: &HttpProbe) -> bool {
    probe.status == Statuses::only(200) && probe.method == Method::Get && probe.headers.is_empty()
}

/// The certificate is not checked: it cannot be valid for a loopback address, and nobody stands in between. Nor is the URL a
/// pattern (`-g`).
fn curl(url: &str, probe: &HttpProbe, seconds: &str) -> Vec<String> {
    let mut argv = words(&["curl", "-sS", "-g", "-i", "-k", "--noproxy", "*", "-m", seconds]);
    match probe.method {
        Method::Get => {}
        Method::Head => argv.push("-I".to_owned()),
        Method::Options | Method::Post | Method::Put => argv.extend(words(&["-X", probe.method.word()])),
    }
    for (name, value) in &probe.headers {
        argv.extend(words(&["-H", &format!("{name}: {value}")]));
    }
    if let Some(content) = &probe.send {
        argv.extend(words(&["--data-raw", content]));
    }
    argv.push(url.to_owned());
    argv
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn of_wget(result: &ExecResult, probe: &HttpProbe, pattern: Option<&Regex>) -> Finding {
    match result.exit {
        Exit::Code(0) => judge::of_body(&result.stdout, probe, pattern, "wget succeeded"),
        Exit::Code(code) if could_not_ask("wget", code) => Finding::unknown(format!("wget: {}", how_it_ended(result))),
        Exit::Code(_) | Exit::Signal(_) => Finding::fail(format!("wget: {}", how_it_ended(result))),
    }
}

/// Exit codes with which `curl` says that it could not ask: protocol, set-up, URL, feature, proxy, name resolution, writing,
/// memory, options, certificate files (curl(1)).
const CURL_COULD_NOT_ASK: [i32; 13] = [1, 2, 3, 4, 5, 6, 23, 26, 27, 41, 43, 48, 77];

/// Exit codes with which GNU's `wget` says that: options or its own settings, files (wget(1)). Busybox's has but one for all.
const WGET_COULD_NOT_ASK: [i32; 2] = [2, 3];

/// Whether a program says by its exit code that it could not ask.
pub(crate) fn could_not_ask(program: &str, code: i32) -> bool {
    match program {
        "curl" => CURL_COULD_NOT_ASK.contains(&code),
        "wget" => WGET_COULD_NOT_ASK.contains(&code),
        _ => false,
    }
}

/// What `curl` says of a service that answers with something else than HTTP. It has no exit code of its own for that.
const NOT_HTTP: &str = "HTTP/0.9";

fn of_curl(result: &ExecResult, probe: &HttpProbe, pattern: Option<&Regex>) -> Finding {
    match result.exit {
        Exit::Code(0) => of_curl_output(&result.stdout, probe, pattern),
        Exit::Code(code) if could_not_ask("curl", code) && !contains(&result.stderr, NOT_HTTP.as_bytes()) => {
            Finding::unknown(format!("curl: {}", how_it_ended(result)))
        }
        Exit::Code(_) | Exit::Signal(_) => Finding::fail(format!("curl: {}", how_it_ended(result))),
    }
}

/// Headers come first in the output, so the status survives when a long body was cut. Before them may stand those of interim
/// answers (100 to 199, but for the last word of 101), which hosts pass over too.
fn of_curl_output(output: &[u8], probe: &HttpProbe, pattern: Option<&Regex>) -> Finding {
    let mut rest = output;
    while let Some(status) = status_of(rest) {
        let end = rest.windows(4).position(|window| window == b"\r\n\r\n");
        let body = end.and_then(|end| rest.get(end.saturating_add(4)..)).unwrap_or_default();
        if !matches!(status, 100 | 102..=199) {
            let answer = Answer { status, location: None, body: body.to_vec() };
            return judge::of_answer(&answer, probe, pattern, &format!("status {status}"));
        }
        rest = body;
    }
    Finding::unknown("curl shows no http status")
}

fn status_of(output: &[u8]) -> Option<u16> {
    let line = output.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?;
    let mut parts = line.split_ascii_whitespace();
    parts.next()?.starts_with("HTTP/").then_some(())?;
    parts.next()?.parse().ok()
}

/// What became of a program in the guest.
pub(crate) enum Ran {
    /// It ended, and what it says is about the service.
    Ended(ExecResult),
    /// It is not there, or cannot do what was asked of it.
    Missing(String),
    /// It said more than the way out takes.
    TooLong,
    /// It has not ended in time, and the agent is there to say so.
    Late,
    /// It did not end by itself.
    Judged(Finding),
}

/// What is made of a service that is asked by a program which has not ended in time.
pub(crate) fn late() -> Finding {
    Finding::fail("no answer in time, while the guest's agent does answer")
}

/// How long a program in the guest may take. A fifth of the time is kept for the ways there and back.
pub(crate) fn for_programs(timeout: Duration) -> Duration {
    timeout * 4 / 5
}

/// Whole seconds, because `timeout`, `nc` and every curl before 7.32 may know no others; never 0, which many take for "for ever". They are
/// rounded up: the channel's own deadline is the finer one, and a program that gives up earlier fails who would have answered in time.
pub(crate) fn whole_seconds(limit: Duration) -> String {
    limit.as_millis().div_ceil(1_000).max(1).to_string()
}

/// One guest, asked within one limit.
pub(crate) struct Guest<'a> {
    channel: &'a dyn GuestChannel,
    end: Instant,
}

impl<'a> Guest<'a> {
    pub(crate) fn new(channel: &'a dyn GuestChannel, timeout: Duration) -> Self {
        Self { channel, end: Instant::now() + for_programs(timeout) }
    }

    fn remaining(&self) -> Duration {
        self.end.saturating_duration_since(Instant::now())
    }

    fn seconds(&self) -> String {
        whole_seconds(self.remaining())
    }

    pub(crate) async fn run(&self, argv: Vec<String>) -> Ran {
        of_exec(&argv, self.channel.exec(&argv, self.remaining()).await)
    }

    /// Runs a program that fetches a page; `cut` has the guest's shell pass on no more than its beginning.
    async fn fetch(&self, argv: Vec<String>, cut: bool) -> Ran {
        if !cut {
            return self.run(argv).await;
        }
        let mut in_a_shell = words(&["sh", "-c", BEGINNING, "sh"]);
        in_a_shell.extend_from_slice(&argv);
        of_exec(&argv, self.channel.exec(&in_a_shell, self.remaining()).await)
    }
}

/// Runs what its arguments say, and passes on the first 128 KiB of what that says, and its exit code. What says more has said
/// enough: it meets a closed pipe, and what it makes of that does not matter.
const BEGINNING: &str = r#"exec 3>&1
end=$({ { "$@" 3>&- 4>&-; echo $? >&4; } | { head -c 131072 >&3; [ "$(head -c 1 | wc -c)" -eq 0 ] || echo cut >&4; }; } 4>&1)
case $end in *cut*) exit 0;; esac
exit "${end:-126}""#;

/// What became of `program`, which may have been run by another one.
fn of_exec(program: &[String], ended: Result<ExecResult, ChannelError>) -> Ran {
    match ended {
        Ok(result) if is_timed_out(program, &result) => {
            Ran::Judged(Finding::fail("no answer in time, and the program that asked was ended"))
        }
        Ok(result) => of_end(result),
        Err(ChannelError::Refused(why)) => Ran::Missing(why),
        Err(ChannelError::TooLong) => Ran::TooLong,
        Err(ChannelError::Late) => Ran::Late,
        // It may be the agent that hangs, or may do nothing, and not the service.
        Err(error @ (ChannelError::Deadline | ChannelError::Unavailable(_) | ChannelError::Frozen)) => {
            Ran::Judged(Finding::unknown(error.to_string()))
        }
    }
}

/// Exit codes by which shells and wrappers say "cannot run", "not found" and "a signal ended it".
const NOT_RUN: std::ops::RangeInclusive<i32> = 126..=255;

/// What programs write when they lack an option or a protocol, in lower case.
const UNABLE: [&str; 7] = [
    "usage:",
    "unrecognized option",
    "invalid option",
    "unknown option",
    "not an http",
    "applet not found",
    "bad address",
];

/// Whether `timeout` has ended the program: GNU's says so with 124, busybox's has the signal seen that it sends.
fn is_timed_out(argv: &[String], result: &ExecResult) -> bool {
    argv.first().is_some_and(|program| program == "timeout")
        && matches!(result.exit, Exit::Code(124 | 143) | Exit::Signal(15))
}

fn of_end(result: ExecResult) -> Ran {
    match result.exit {
        Exit::Code(0) => Ran::Ended(result),
        // A program that crashes is as good as none; busybox's wget does so where it cannot resolve names.
        Exit::Signal(_) => Ran::Missing(how_it_ended(&result)),
        Exit::Code(code) if NOT_RUN.contains(&code) || is_unable(&result) => Ran::Missing(how_it_ended(&result)),
        Exit::Code(_) => Ran::Ended(result),
    }
}

fn is_unable(result: &ExecResult) -> bool {
    let said = String::from_utf8_lossy(&result.stderr).to_lowercase();
    UNABLE.iter().any(|phrase| said.contains(phrase))
}
