//! PostgreSQL: logs in, asks one query, and compares the first value of its first row.
//!
//! Messages are written and parsed by `postgres-protocol`; they are read here, so that none is larger than it may be.

use std::{ffi::OsString, io};

use bytes::BytesMut;
use fallible_iterator::FallibleIterator;
use holdfast_policies::probe::SqlProbe;
use postgres_protocol::{
    authentication::{
        md5_hash,
        sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256},
    },
    message::{
        backend::{DataRowBody, ErrorResponseBody, Message},
        frontend,
    },
};
use tokio::io::AsyncWriteExt;

use crate::{
    aside::HASHES,
    finding::Finding,
    network::{
        asker::Asker,
        sql::{self, ANSWER_BYTES_MAX},
        stream::{Stream, broken, read_exactly},
    },
};

/// Logs in and asks; the caller bounds the time.
pub(crate) async fn ask(asker: &Asker<'_>, probe: &SqlProbe) -> Finding {
    match converse(asker, probe).await {
        Ok(finding) | Err(finding) => finding,
    }
}

async fn converse(asker: &Asker<'_>, probe: &SqlProbe) -> Result<Finding, Finding> {
    let password = asker.password(probe.password_file.as_deref()).await?;
    let mut session = Session { stream: open(asker, probe).await?, left: ANSWER_BYTES_MAX };
    session.log_in(asker, probe, password.as_deref()).await?;
    for statement in &probe.before {
        session.query(statement).await?;
    }
    let value = session.query(&probe.query).await?;
    session.bid_farewell().await;
    Ok(sql::judge(value.as_ref(), probe))
}

async fn open(asker: &Asker<'_>, probe: &SqlProbe) -> Result<Stream, Finding> {
    let Some(settings) = &probe.tls else { return Ok(Stream::Plain(asker.connect(probe.port).await?)) };
    let secured = asker.tls(settings, &asker.address()?.to_string(), &[]).await?;
    let mut stream = Stream::Plain(asker.connect(probe.port).await?);
    let mut request = BytesMut::new();
    frontend::ssl_request(&mut request);
    stream.write_all(&request).await.map_err(|error| broken(&error))?;
    let mut answer = [0];
    read_exactly(&mut stream, &mut answer).await?;
    match (answer, stream) {
        ([b'S'], Stream::Plain(plain)) => secured.greet(plain).await,
        // It speaks, and as it is set up: no restart makes it offer what the policy asks for.
        ([b'N'], _) => Err(Finding::unknown("the server does not offer tls: set it up there, or take `tls` out")),
        _ => Err(Finding::fail("the service does not speak PostgreSQL")),
    }
}

struct Session {
    stream: Stream,
    /// How much of the server's talk is still read, in bytes.
    left: usize,
}

impl Session {
    async fn log_in(&mut self, asker: &Asker<'_>, probe: &SqlProbe, password: Option<&str>) -> Result<(), Finding> {
        let named = [("user", probe.user.as_str()), ("application_name", "holdfast"), ("client_encoding", "UTF8")];
        let database = (!probe.database.is_empty()).then_some(("database", probe.database.as_str()));
        self.send(|buffer| frontend::startup_message(named.into_iter().chain(database), buffer)).await?;
        loop {
            match self.receive().await? {
                Message::ReadyForQuery(_) => return Ok(()),
                Message::AuthenticationMd5Password(body) => {
                    let password = given(password)?;
                    let hash = md5_hash(probe.user.as_bytes(), password.as_bytes(), body.salt());
                    self.send(|buffer| frontend::password_message(hash.as_bytes(), buffer)).await?;
                }
                Message::AuthenticationCleartextPassword => {
                    if matches!(self.stream, Stream::Plain(_)) {
                        return Err(Finding::unknown("the server wants the password in the clear: set `tls`"));
                    }
                    let password = given(password)?;
                    self.send(|buffer| frontend::password_message(password.as_bytes(), buffer)).await?;
                }
                Message::AuthenticationSasl(body) => {
                    let offered = body.mechanisms().any(|mechanism| Ok(mechanism == SCRAM_SHA_256));
                    if !offered.map_err(|error| garbled(&error))? {
                        return Err(Finding::unknown("the server wants a way to log in that is not supported"));
                    }
                    self.scram(asker, given(password)?).await?;
                }
                Message::AuthenticationOk
                | Message::ParameterStatus(_)
                | Message::BackendKeyData(_)
                | Message::NoticeResponse(_) => {}
                _ => return Err(Finding::unknown("the server wants a way to log in that is not supported")),
            }
        }
    }

    async fn scram(&mut self, asker: &Asker<'_>, password: &str) -> Result<(), Finding> {
        let mut scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
        let first = scram.message().to_vec();
        self.send(|buffer| frontend::sasl_initial_response(SCRAM_SHA_256, &first, buffer)).await?;
        let Message::AuthenticationSaslContinue(body) = self.receive().await? else {
            return Err(Finding::fail("the server breaks off the login"));
        };
        few_enough(rounds(body.data()))?;
        // The server says how long this takes, and it takes all of a processor.
        let (server, told) = (OsString::from(asker.address()?.to_string()), body.data().to_vec());
        let hashing = HASHES.run(&server, move || scram.update(&told).map(|()| scram));
        let mut scram = asker.own("hash the password", hashing).await?.map_err(|error| garbled(&error))?;
        let second = scram.message().to_vec();
        self.send(|buffer| frontend::sasl_response(&second, buffer)).await?;
        let Message::AuthenticationSaslFinal(body) = self.receive().await? else {
            return Err(Finding::fail("the server breaks off the login"));
        };
        scram.finish(body.data()).map_err(|error| garbled(&error))
    }

    async fn query(&mut self, query: &str) -> Result<Option<Vec<u8>>, Finding> {
        self.send(|buffer| frontend::query(query, buffer)).await?;
        let mut value = None;
        let mut rows: u32 = 0;
        loop {
            match self.receive().await? {
                Message::ReadyForQuery(_) => return Ok(value),
                Message::DataRow(row) => {
                    if rows == 0 {
                        value = first_value(&row).map_err(|error| garbled(&error))?;
                    }
                    rows = rows.saturating_add(1);
                }
                Message::CopyInResponse(_) | Message::CopyOutResponse(_) => {
                    return Err(Finding::unknown("the query copies, which a probe cannot"));
                }
                _ => {}
            }
        }
    }

    async fn bid_farewell(&mut self) {
        let mut farewell = BytesMut::new();
        frontend::terminate(&mut farewell);
        // The answer has come; whether the server hears this matters only to its log.
        let _ = self.stream.write_all(&farewell).await;
    }

    async fn send(&mut self, write: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<(), Finding> {
        let mut buffer = BytesMut::new();
        write(&mut buffer).map_err(|error| Finding::unknown(format!("the question cannot be sent: {error}")))?;
        self.stream.write_all(&buffer).await.map_err(|error| broken(&error))
    }

    /// The next message; an error of the server's is judged at once.
    async fn receive(&mut self) -> Result<Message, Finding> {
        let mut head = [0; 5];
        read_exactly(&mut self.stream, &mut head).await?;
        let [_, length @ ..] = head;
        let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
        let rest = length.checked_sub(4).ok_or_else(|| Finding::fail("the service does not speak PostgreSQL"))?;
        self.left = self.left.checked_sub(rest.saturating_add(5)).ok_or_else(|| {
            Finding::fail(format!("the server says more than the {ANSWER_BYTES_MAX} bytes that are read"))
        })?;
        let mut body = vec![0; rest];
        read_exactly(&mut self.stream, &mut body).await?;
        let mut message = BytesMut::with_capacity(rest.saturating_add(5));
        message.extend_from_slice(&head);
        message.extend_from_slice(&body);
        match Message::parse(&mut message).map_err(|error| garbled(&error))? {
            Some(Message::ErrorResponse(error)) => Err(of_error(&error)),
            Some(message) => Ok(message),
            None => Err(Finding::fail("the service does not speak PostgreSQL")),
        }
    }
}

/// Most rounds of hashing that are made for a login: what the library makes, and two dozen times what servers want that nobody has
/// set up otherwise (`scram_iterations`).
const ROUNDS_MAX: u64 = 100_000;

/// How many rounds a server wants (RFC 5802, `i=`).
fn rounds(said: &[u8]) -> Option<u64> {
    let attributes = std::str::from_utf8(said).ok()?.split(',');
    attributes.filter_map(|attribute| attribute.strip_prefix("i=")).find_map(|rounds| rounds.parse().ok())
}

fn few_enough(rounds: Option<u64>) -> Result<(), Finding> {
    match rounds {
        Some(rounds) if rounds > ROUNDS_MAX => Err(Finding::unknown(format!(
            "the server wants {rounds} rounds of hashing at the login, and {ROUNDS_MAX} at most are made here"
        ))),
        Some(_) | None => Ok(()),
    }
}

fn given(password: Option<&str>) -> Result<&str, Finding> {
    password.ok_or_else(|| Finding::unknown("the server wants a password: set `password_file`"))
}

fn garbled(error: &io::Error) -> Finding {
    Finding::fail(format!("the service does not speak PostgreSQL: {error}"))
}

fn first_value(row: &DataRowBody) -> io::Result<Option<Vec<u8>>> {
    let range = row.ranges().next()?.flatten();
    Ok(range.and_then(|range| row.buffer().get(range)).map(<[u8]>::to_vec))
}

/// Classes and codes of errors (SQLSTATE) that are about who asks, or how: invalid authorization, insufficient privilege,
/// syntax error. They are no evidence against the server.
fn is_about_us(code: &str) -> bool {
    code.starts_with("28") || matches!(code, "42501" | "42601")
}

/// The code that PgBouncer has for nearly all that it says by itself, that nobody may log in and that it reaches no server alike.
const OF_A_POOLER: &str = "08P01";

/// What it says to somebody whom it does not let in, word by word; "auth failed" in older versions, and in those that ask PAM.
const NOT_LET_IN: [&str; 8] = [
    "SASL authentication failed",
    "SSL required",
    "auth failed",
    "\"trust\" authentication failed",
    "certificate authentication failed",
    "login rejected",
    "no such user",
    "password authentication failed",
];

fn of_error(error: &ErrorResponseBody) -> Finding {
    let (mut code, mut text) = (String::new(), String::new());
    let mut fields = error.fields();
    while let Ok(Some(field)) = fields.next() {
        let value = String::from_utf8_lossy(field.value_bytes()).into_owned();
        match field.type_() {
            b'C' => code = value,
            b'M' => text = value,
            _ => {}
        }
    }
    let detail = format!("the server says: {text} ({code})");
    let not_let_in = code == OF_A_POOLER && NOT_LET_IN.contains(&text.as_str());
    if not_let_in || is_about_us(&code) { Finding::unknown(detail) } else { Finding::fail(detail) }
}

#[cfg(test)]
mod tests {
    use holdfast_policies::observe::Outcome;

    use super::*;

    #[test]
    fn a_refused_login_is_no_evidence_and_a_full_or_starting_server_is() {
        for (code, ours) in [("28P01", true), ("28000", true), ("42501", true), ("53300", false), ("57P03", false)] {
            assert_eq!(is_about_us(code), ours, "{code}");
        }
    }

    fn judged(code: &str, text: &str) -> Outcome {
        let fields = format!("SFATAL\0C{code}\0M{text}\0\0");
        let length = u32::try_from(fields.len() + 4).unwrap().to_be_bytes();
        let mut bytes = BytesMut::from([&b"E"[..], &length, fields.as_bytes()].concat().as_slice());
        match Message::parse(&mut bytes).unwrap() {
            Some(Message::ErrorResponse(error)) => of_error(&error).outcome,
            _ => panic!("{code}"),
        }
    }

    #[test]
    fn a_pooler_that_does_not_let_us_in_is_no_evidence_and_one_that_reaches_no_server_is() {
        for (code, text, outcome) in [
            ("08P01", "SASL authentication failed", Outcome::Unknown),
            ("08P01", "password authentication failed", Outcome::Unknown),
            ("08P01", "no such user", Outcome::Unknown),
            ("08P01", "auth failed", Outcome::Unknown),
            ("08P01", "\"trust\" authentication failed", Outcome::Unknown),
            ("08P01", "SSL required", Outcome::Unknown),
            ("08P01", "no more connections allowed (max_client_conn)", Outcome::Fail),
            (
                "08P01",
                "server login has been failing, cached error: connect failed (server_login_retry)",
                Outcome::Fail,
            ),
            ("08P01", "server login failed: FATAL password authentication failed for user \"app\"", Outcome::Fail),
            ("XX000", "password authentication failed", Outcome::Fail),
        ] {
            assert_eq!(judged(code, text), outcome, "{code} {text}");
        }
    }
}
