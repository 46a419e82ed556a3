//! Redis: logs in where there is a password, asks one command, and compares the reply.
//!
//! The protocol (RESP2) is spoken here, because a reply must be bounded before it is read, and it takes a page.

use holdfast_policies::probe::RedisProbe;
use tokio::io::AsyncWriteExt;

use crate::{
    finding::Finding,
    network::{
        asker::Asker,
        stream::{Stream, broken, read_some},
    },
};

/// Largest reply, in bytes: `INFO` takes about 6 KB.
const REPLY_BYTES_MAX: usize = 64 * 1024;
/// Most that is parsed for one reply, in bytes. It is parsed anew with every piece that comes: the largest one in the segments of
/// an Ethernet takes a third of this. One that comes byte by byte would keep a processor of this host busy.
const PARSED_BYTES_MAX: usize = 64 * REPLY_BYTES_MAX;
/// Deepest nesting of a reply; commands for monitoring nest two deep.
const DEPTH_MAX: u32 = 4;

/// Asks; the caller bounds the time.
pub(crate) async fn ask(asker: &Asker<'_>, probe: &RedisProbe) -> Finding {
    match converse(asker, probe).await {
        Ok(finding) | Err(finding) => finding,
    }
}

async fn converse(asker: &Asker<'_>, probe: &RedisProbe) -> Result<Finding, Finding> {
    let password = asker.password(probe.password_file.as_deref()).await?;
    let mut stream = asker.open(probe.port, probe.tls.as_ref(), &[]).await?;
    if let Some(password) = &password {
        let mut words = vec!["AUTH"];
        words.extend(probe.user.as_deref());
        words.push(password);
        if let Reply::Error(text) = say(&mut stream, &words).await? {
            return Err(refused(&text));
        }
    }
    let words: Vec<&str> = probe.command.iter().map(String::as_str).collect();
    Ok(judge(&say(&mut stream, &words).await?, probe))
}

/// How a server begins what it says instead of answering anything when it is full; one in a cluster counts its connections to the others,
/// and says so (`+ cluster connections reached`).
const FULL: &str = "ERR max number of clients";

/// Servers repeat what they do not understand: only the kind of error is shown, never its text.
fn refused(text: &str) -> Finding {
    if text.starts_with(FULL) {
        return Finding::fail(format!("the server says: {FULL}"));
    }
    let kind: String = text.chars().take_while(|c| c.is_ascii_uppercase()).take(20).collect();
    Finding::unknown(format!("the login is refused: {kind}"))
}

fn judge(reply: &Reply, probe: &RedisProbe) -> Finding {
    let text = match reply {
        Reply::Error(text) if is_about_us(text) => return Finding::unknown(format!("the server says: {text}")),
        Reply::Error(text) => return Finding::fail(format!("the server says: {text}")),
        Reply::Text(text) => Some(text),
        Reply::Nothing => None,
    };
    match (&probe.expect, text) {
        (None, _) => Finding::pass("the command is answered"),
        (Some(wanted), Some(text)) if text == wanted || text.lines().any(|line| line == wanted) => {
            Finding::pass("the reply is what is wanted")
        }
        (Some(wanted), Some(text)) => {
            let first = text.lines().next().unwrap_or_default();
            Finding::fail(format!("the reply begins with {first:?} and is not, or has no line, {wanted:?}"))
        }
        (Some(wanted), None) => Finding::fail(format!("the reply is nothing, wanted {wanted:?}")),
    }
}

/// Errors about who asks, or what: they are no evidence against the server. `DENIED` says that it is in protected mode, which
/// lets nobody in from elsewhere. In a cluster `MOVED` and `ASK` say that the key lies with another server, which may be so after
/// any rebalancing, and `CROSSSLOT` that not all keys lie together.
const ABOUT_US: [&str; 10] = [
    "NOAUTH",
    "WRONGPASS",
    "NOPERM",
    "DENIED",
    "MOVED ",
    "ASK ",
    "CROSSSLOT",
    "ERR unknown",
    "ERR wrong number",
    "ERR syntax",
];

fn is_about_us(text: &str) -> bool {
    ABOUT_US.iter().any(|kind| text.starts_with(kind))
}

#[derive(Debug, PartialEq, Eq)]
enum Reply {
    /// Anything that is no error; a list's items are its lines.
    Text(String),
    Nothing,
    Error(String),
}

async fn say(stream: &mut Stream, words: &[&str]) -> Result<Reply, Finding> {
    let mut command = format!("*{}\r\n", words.len());
    for word in words {
        command.push_str(&format!("${}\r\n{word}\r\n", word.len()));
    }
    stream.write_all(command.as_bytes()).await.map_err(|error| broken(&error))?;
    let (mut heard, mut buffer) = (Heard::default(), vec![0; 4096]);
    loop {
        let count = read_some(stream, &mut buffer).await?;
        if let Some(reply) = heard.more(buffer.get(..count).unwrap_or_default())? {
            return Ok(reply);
        }
    }
}

/// A reply in the hearing.
#[derive(Default)]
struct Heard {
    said: Vec<u8>,
    /// How much was parsed for it, in bytes: all of it, again and again.
    parsed: usize,
}

impl Heard {
    /// Takes a piece in. Returns the reply if it is whole.
    fn more(&mut self, piece: &[u8]) -> Result<Option<Reply>, Finding> {
        self.said.extend_from_slice(piece);
        self.parsed = self.parsed.saturating_add(self.said.len());
        match parse(&self.said, 0) {
            Parsed::Whole(reply, _) => Ok(Some(reply)),
            Parsed::Wrong => Err(Finding::fail("the service does not speak the protocol of Redis")),
            Parsed::Part if self.said.len() >= REPLY_BYTES_MAX => {
                Err(Finding::fail(format!("the reply is larger than {REPLY_BYTES_MAX} bytes")))
            }
            Parsed::Part if self.parsed >= PARSED_BYTES_MAX => Err(Finding::fail("the reply comes in too many pieces")),
            Parsed::Part => Ok(None),
        }
    }
}

enum Parsed<'a> {
    /// A reply, and what follows it.
    Whole(Reply, &'a [u8]),
    /// The rest has not come.
    Part,
    /// This is something else.
    Wrong,
}

fn parse(said: &[u8], depth: u32) -> Parsed<'_> {
    let Some(end) = said.windows(2).position(|pair| pair == b"\r\n") else {
        // Without a first letter of the protocol, no end will make it one.
        return if said.first().is_none_or(|kind| b"+-:$*".contains(kind)) { Parsed::Part } else { Parsed::Wrong };
    };
    let (line, rest) = (said.get(1..end).unwrap_or_default(), said.get(end + 2..).unwrap_or_default());
    let line = String::from_utf8_lossy(line).into_owned();
    match said.first() {
        Some(b'+' | b':') => Parsed::Whole(Reply::Text(line), rest),
        Some(b'-') => Parsed::Whole(Reply::Error(line), rest),
        Some(b'$') => bulk(&line, rest),
        Some(b'*') if depth < DEPTH_MAX => list(&line, rest, depth),
        _ => Parsed::Wrong,
    }
}

fn bulk<'a>(length: &str, rest: &'a [u8]) -> Parsed<'a> {
    if length == "-1" {
        return Parsed::Whole(Reply::Nothing, rest);
    }
    let Ok(length) = length.parse::<usize>() else { return Parsed::Wrong };
    let Some(end) = length.checked_add(2) else { return Parsed::Wrong };
    match (rest.get(..length), rest.get(end..)) {
        (Some(text), Some(rest)) => Parsed::Whole(Reply::Text(String::from_utf8_lossy(text).into_owned()), rest),
        _ => Parsed::Part,
    }
}

fn list<'a>(count: &str, mut rest: &'a [u8], depth: u32) -> Parsed<'a> {
    if count == "-1" {
        return Parsed::Whole(Reply::Nothing, rest);
    }
    let Ok(count) = count.parse::<usize>() else { return Parsed::Wrong };
    let mut lines = Vec::new();
    for _ in 0..count {
        match parse(rest, depth + 1) {
            Parsed::Whole(Reply::Text(text) | Reply::Error(text), after) => {
                lines.push(text);
                rest = after;
            }
            Parsed::Whole(Reply::Nothing, after) => {
                lines.push(String::new());
                rest = after;
            }
            other => return other,
        }
    }
    Parsed::Whole(Reply::Text(lines.join("\n")), rest)
}

#[cfg(test)]
mod tests {
    use holdfast_policies::observe::Outcome;

    use super::*;

    #[test]
    fn a_full_server_fails_also_at_the_login_and_one_that_lets_nobody_in_was_not_asked() {
        let probe =
            RedisProbe { port: 1, user: None, password_file: None, command: Vec::new(), expect: None, tls: None };
        let judged = |text: &str| judge(&Reply::Error(text.to_owned()), &probe).outcome;
        for full in ["ERR max number of clients reached", "ERR max number of clients + cluster connections reached"] {
            assert_eq!((refused(full).outcome, judged(full)), (Outcome::Fail, Outcome::Fail), "{full}");
        }
        let protected = "DENIED Redis is running in protected mode because protected mode is enabled";
        assert_eq!((refused(protected).outcome, judged(protected)), (Outcome::Unknown, Outcome::Unknown));
        let wrong = refused("WRONGPASS invalid username-password pair, it is not 'secret'");
        assert_eq!((wrong.outcome, wrong.detail.as_str()), (Outcome::Unknown, "the login is refused: WRONGPASS"));
        for elsewhere in ["MOVED 3999 10.0.0.6:6379", "ASK 3999 10.0.0.6:6379", "CROSSSLOT Keys in request don't hash"]
        {
            assert_eq!(judged(elsewhere), Outcome::Unknown, "it answers, and is not the one to ask");
        }
        assert_eq!(judged("CLUSTERDOWN The cluster is down"), Outcome::Fail);
        assert_eq!(judged("LOADING Redis is loading the dataset in memory"), Outcome::Fail);
    }

    fn whole(said: &str) -> Option<Reply> {
        match parse(said.as_bytes(), 0) {
            Parsed::Whole(reply, _) => Some(reply),
            Parsed::Part | Parsed::Wrong => None,
        }
    }

    #[test]
    fn every_kind_of_reply_is_read_and_a_part_is_not_taken_for_a_whole() {
        let text = |text: &str| Some(Reply::Text(text.to_owned()));
        assert_eq!(whole("+PONG\r\n"), text("PONG"));
        assert_eq!(whole(":7\r\n"), text("7"));
        assert_eq!(whole("$5\r\na\r\nbc\r\n"), text("a\r\nbc"));
        assert_eq!(whole("$-1\r\n"), Some(Reply::Nothing));
        assert_eq!(whole("*3\r\n$6\r\nmaster\r\n:3\r\n*0\r\n"), text("master\n3\n"));
        assert_eq!(whole("-ERR x\r\n"), Some(Reply::Error("ERR x".to_owned())));
        for part in ["", "+PON", "$5\r\nab", "*2\r\n:1\r\n", "$5\r\nabcde"] {
            assert!(matches!(parse(part.as_bytes(), 0), Parsed::Part), "{part:?}");
        }
        for wrong in ["HTTP/1.1 400\r\n", "hello", "$x\r\n", "*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n:1\r\n"] {
            assert!(matches!(parse(wrong.as_bytes(), 0), Parsed::Wrong), "{wrong:?}");
        }
    }

    /// Gives a list of numbers that does not end, in pieces of this many bytes; says how many were taken.
    fn pieces(bytes: usize) -> (usize, String) {
        let list = format!("*60000\r\n{}", ":1\r\n".repeat(20_000));
        let mut heard = Heard::default();
        for (number, piece) in list.as_bytes().chunks(bytes).enumerate() {
            match heard.more(piece) {
                Ok(reply) => assert_eq!(reply, None),
                Err(finding) => return (number + 1, finding.detail),
            }
        }
        panic!("it is heard to its end");
    }

    #[test]
    fn a_reply_that_comes_byte_by_byte_takes_no_more_of_this_host_than_a_large_one() {
        let (taken, why) = pieces(1_400);
        assert!(taken > 40 && why.contains("larger than"), "{taken}: {why}");
        let (taken, why) = pieces(1);
        assert!(taken < 4_000 && why.contains("too many pieces"), "{taken}: {why}");
        let mut heard = Heard::default();
        assert_eq!(heard.more(b"+PO").unwrap(), None);
        assert_eq!(heard.more(b"NG\r\n").unwrap(), Some(Reply::Text("PONG".to_owned())));
    }
}
