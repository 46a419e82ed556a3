//! MySQL and MariaDB: logs in, asks one query, and takes the first value of its first row.
//!
//! The protocol is spoken here, in the part that a probe needs: the client crates keep pools, bring two dozen more crates,
//! and read packets of any size before anybody can object.

use std::time::Duration;

use holdfast_policies::probe::SqlProbe;
use tokio::{io::AsyncWriteExt, time::timeout};

use crate::{
    finding::Finding,
    network::{
        asker::Asker,
        mysql_login::{Login, Method, no_password, way_in},
        sql::{self, ANSWER_BYTES_MAX},
        stream::{Stream, broken, read_exactly},
    },
};

/// Capabilities (MySQL's Protocol::CapabilityFlags).
const LONG_PASSWORD: u32 = 0x1;
const WITH_DATABASE: u32 = 0x8;
const PROTOCOL_41: u32 = 0x200;
const TLS: u32 = 0x800;
const TRANSACTIONS: u32 = 0x2000;
const SECURE_CONNECTION: u32 = 0x8000;
const PLUGIN_AUTH: u32 = 0x8_0000;
/// Those that every login has.
const CAPABILITIES: u32 = LONG_PASSWORD | PROTOCOL_41 | TRANSACTIONS | SECURE_CONNECTION | PLUGIN_AUTH;
/// utf8mb4_general_ci.
const CHARSET: u8 = 45;

/// Commands (MySQL's Command Phase).
const QUIT: u8 = 0x01;
const QUERY: u8 = 0x03;

/// Longest time that a farewell may take, when what was asked is known already: the end of an answer comes with its rows.
/// Nobody waits for it.
const FAREWELL_LIMIT: Duration = Duration::from_secs(1);

/// Logs in and asks; the caller bounds the time.
pub(crate) async fn ask(asker: &Asker<'_>, probe: &SqlProbe) -> Finding {
    match converse(asker, probe).await {
        Ok(finding) | Err(finding) => finding,
    }
}

async fn converse(asker: &Asker<'_>, probe: &SqlProbe) -> Result<Finding, Finding> {
    let password = asker.password(probe.password_file.as_deref()).await?;
    let mut session = Session::open(asker, probe).await?;
    session.log_in(probe, password.as_deref()).await?;
    let answer = session.answer(probe).await;
    session.quit();
    Ok(sql::judge(answer?.as_ref(), probe))
}

struct Session {
    stream: Stream,
    greeting: Greeting,
    sequence: u8,
    /// How much of the server's talk is still read, in bytes.
    left: usize,
    /// Rows of the answer are still to come, or its end.
    in_rows: bool,
}

impl Session {
    async fn open(asker: &Asker<'_>, probe: &SqlProbe) -> Result<Self, Finding> {
        let secured = match &probe.tls {
            Some(settings) => Some(asker.tls(settings, &asker.address()?.to_string(), &[]).await?),
            None => None,
        };
        let plain = asker.connect(probe.port).await?;
        let (stream, greeting) = (Stream::Plain(plain), Greeting::default());
        let mut session = Self { stream, greeting, sequence: 0, left: ANSWER_BYTES_MAX, in_rows: false };
        let packet = session.receive().await?;
        session.greeting = Greeting::read(&packet).ok_or_else(not_mysql)?;
        let Some(secured) = secured else { return Ok(session) };
        if session.greeting.capabilities & TLS == 0 {
            session.decline();
            // It speaks, and as it is set up: no restart makes it offer what the policy asks for.
            return Err(Finding::unknown("the server does not offer tls: set it up there, or take `tls` out"));
        }
        session.send(&head(capabilities(probe))).await?;
        match session.stream {
            Stream::Plain(plain) => Ok(Self { stream: secured.greet(plain).await?, ..session }),
            Stream::Tls(_) => Ok(session),
        }
    }

    async fn log_in(&mut self, probe: &SqlProbe, password: Option<&str>) -> Result<(), Finding> {
        let login = Login { password: password.unwrap_or_default(), private: matches!(self.stream, Stream::Tls(_)) };
        let method = way_in(&self.greeting.method);
        let proof = match method {
            Some(Method::Native | Method::Sha2) => login.proof(method, &self.greeting.nonce)?,
            // Another way is offered by the server once it knows who comes.
            Some(Method::Clear) | None => Vec::new(),
        };
        let mut response = head(capabilities(probe));
        response.extend_from_slice(probe.user.as_bytes());
        response.push(0);
        response.push(u8::try_from(proof.len()).unwrap_or(0));
        response.extend_from_slice(&proof);
        if !probe.database.is_empty() {
            response.extend_from_slice(probe.database.as_bytes());
            response.push(0);
        }
        response.extend_from_slice(self.greeting.method.as_bytes());
        response.push(0);
        self.send(&response).await?;
        loop {
            let packet = self.receive().await?;
            let (proof, none) = match packet.split_first() {
                Some((0x00, _)) => return Ok(()),
                Some((0xfe, rest)) => {
                    let (name, nonce) = cut(rest).ok_or_else(not_mysql)?;
                    let name = String::from_utf8_lossy(name);
                    let proof = login.proof(way_in(&name), nonce.strip_suffix(&[0]).unwrap_or(nonce));
                    (proof, no_password(&name))
                }
                Some((0x01, [0x03])) => continue,
                Some((0x01, [0x04])) => (login.proof(Some(Method::Clear), &[]), no_password("")),
                _ => return Err(not_mysql()),
            };
            match proof {
                Ok(proof) => self.send(&proof).await?,
                Err(finding) => {
                    // Whether it hears that does not matter to what the question came to.
                    let _ = self.send(none).await;
                    return Err(finding);
                }
            }
        }
    }

    /// Has a server end a login that is not to begin, on the side: see [`no_password`].
    fn decline(self) {
        tokio::spawn(async move { timeout(FAREWELL_LIMIT, self.declined()).await });
    }

    async fn declined(mut self) -> Result<(), Finding> {
        let mut response = head(CAPABILITIES);
        // A name that is none, and no proof of it.
        response.extend_from_slice(&[0, 0]);
        response.extend_from_slice(self.greeting.method.as_bytes());
        response.push(0);
        self.send(&response).await?;
        loop {
            let packet = self.receive().await?;
            match packet.split_first() {
                // Some servers let in whoever has no name.
                Some((0x00, _)) => return self.farewell().await,
                Some((0xfe, rest)) => {
                    let name = cut(rest).map_or(rest, |(name, _)| name);
                    self.send(no_password(&String::from_utf8_lossy(name))).await?;
                }
                Some((0x01, [0x03])) => {}
                Some((0x01, [0x04])) => self.send(no_password("")).await?,
                _ => return Ok(()),
            }
        }
    }

    async fn answer(&mut self, probe: &SqlProbe) -> Result<Option<Vec<u8>>, Finding> {
        for statement in &probe.before {
            self.query(statement).await?;
            self.end_rows().await?;
        }
        self.query(&probe.query).await
    }

    /// Reads what is left of an answer.
    async fn end_rows(&mut self) -> Result<(), Finding> {
        while self.in_rows {
            self.in_rows = !is_end(&self.receive().await?);
        }
        Ok(())
    }

    async fn query(&mut self, query: &str) -> Result<Option<Vec<u8>>, Finding> {
        let mut command = vec![QUERY];
        command.extend_from_slice(query.as_bytes());
        self.sequence = 0;
        self.send(&command).await?;
        let packet = self.receive().await?;
        match packet.first() {
            Some(0x00) => return Ok(None),
            Some(0xfb) => {
                return Err(Finding::unknown("the query wants a file of this host, which a probe does not give"));
            }
            Some(_) => {}
            None => return Err(not_mysql()),
        }
        while !is_end(&self.receive().await?) {}
        let row = self.receive().await?;
        if is_end(&row) {
            return Ok(None);
        }
        self.in_rows = true;
        value(&row).ok_or_else(not_mysql)
    }

    /// Says farewell: the server counts whoever just hangs up (`Aborted_clients`), and logs it. Nothing about it bears on
    /// what the question came to, nor may it delay that: so it is said on the side.
    fn quit(self) {
        tokio::spawn(async move { timeout(FAREWELL_LIMIT, self.farewell()).await });
    }

    async fn farewell(mut self) -> Result<(), Finding> {
        self.end_rows().await?;
        self.sequence = 0;
        self.send(&[QUIT]).await?;
        self.stream.flush().await.map_err(|error| broken(&error))
    }

    async fn send(&mut self, content: &[u8]) -> Result<(), Finding> {
        let [low, middle, high, over] = u32::try_from(content.len()).unwrap_or(u32::MAX).to_le_bytes();
        if over > 0 {
            return Err(Finding::unknown("the question is too long"));
        }
        let mut packet = vec![low, middle, high, self.sequence];
        packet.extend_from_slice(content);
        self.sequence = self.sequence.wrapping_add(1);
        self.stream.write_all(&packet).await.map_err(|error| broken(&error))
    }

    /// The next packet; an error of the server's is judged at once.
    async fn receive(&mut self) -> Result<Vec<u8>, Finding> {
        let mut head = [0; 4];
        read_exactly(&mut self.stream, &mut head).await?;
        let [low, middle, high, sequence] = head;
        let length = usize::try_from(u32::from_le_bytes([low, middle, high, 0])).unwrap_or(usize::MAX);
        self.left = self.left.checked_sub(length.saturating_add(4)).ok_or_else(|| {
            Finding::fail(format!("the server says more than the {ANSWER_BYTES_MAX} bytes that are read"))
        })?;
        self.sequence = sequence.wrapping_add(1);
        let mut packet = vec![0; length];
        read_exactly(&mut self.stream, &mut packet).await?;
        match packet.split_first() {
            Some((0xff, rest)) => Err(of_error(rest)),
            _ => Ok(packet),
        }
    }
}

fn capabilities(probe: &SqlProbe) -> u32 {
    let mut flags = CAPABILITIES;
    if probe.tls.is_some() {
        flags |= TLS;
    }
    if !probe.database.is_empty() {
        flags |= WITH_DATABASE;
    }
    flags
}

/// The beginning that a request for TLS and a login share.
fn head(capabilities: u32) -> Vec<u8> {
    let mut head = capabilities.to_le_bytes().to_vec();
    head.extend_from_slice(&u32::try_from(ANSWER_BYTES_MAX).unwrap_or(u32::MAX).to_le_bytes());
    head.push(CHARSET);
    head.resize(32, 0);
    head
}

/// What a server says first (Protocol::HandshakeV10).
#[derive(Default, Debug, PartialEq, Eq)]
struct Greeting {
    capabilities: u32,
    nonce: Vec<u8>,
    method: String,
}

impl Greeting {
    fn read(packet: &[u8]) -> Option<Self> {
        let rest = packet.strip_prefix(&[10])?;
        let (_version, rest) = cut(rest)?;
        let first = rest.get(4..12)?;
        let [low_a, low_b] = *rest.get(13..15)?.first_chunk()?;
        let [high_a, high_b] = *rest.get(18..20)?.first_chunk()?;
        let rest = rest.get(31..)?;
        let (second, rest) = cut(rest)?;
        let method = cut(rest).map_or(rest, |(name, _)| name);
        let nonce = [first, second].concat();
        let capabilities = u32::from_le_bytes([low_a, low_b, high_a, high_b]);
        Some(Self { capabilities, nonce, method: String::from_utf8_lossy(method).into_owned() })
    }
}

/// What stands before the next zero, and what behind it.
fn cut(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let end = bytes.iter().position(|byte| *byte == 0)?;
    Some((bytes.get(..end)?, bytes.get(end.checked_add(1)?..)?))
}

fn is_end(packet: &[u8]) -> bool {
    packet.first() == Some(&0xfe) && packet.len() < 9
}

/// The first value of a row, `Some(None)` for a null.
#[expect(clippy::option_option, reason = "a row that cannot be read and a null are two different things")]
fn value(row: &[u8]) -> Option<Option<Vec<u8>>> {
    let (first, rest) = row.split_first()?;
    let (length, rest) = match first {
        0xfb => return Some(None),
        0xfc => (usize::from(u16::from_le_bytes(*rest.first_chunk()?)), rest.get(2..)?),
        0xfd => {
            let [low, middle, high] = *rest.first_chunk()?;
            (usize::try_from(u32::from_le_bytes([low, middle, high, 0])).ok()?, rest.get(3..)?)
        }
        short @ 0..=0xfa => (usize::from(*short), rest),
        0xfe | 0xff => return None,
    };
    rest.get(..length).map(|value| Some(value.to_vec()))
}

/// Codes of errors that are about who asks, or how: access denied, host not allowed or blocked, no privilege, syntax error; an
/// account that is locked, be it for failed logins of somebody else's, has used up what it may, or has a password that has expired;
/// one whose way to log in the server does not take, or has not loaded (1251, 1275, 1524: so says MySQL from 8.4 on of
/// `mysql_native_password`); a connection in the clear where only TLS is taken. They are no evidence against the server. MariaDB has 4150
/// and 4151 where MySQL has 3955 and 3118.
const ABOUT_US: [u16; 21] = [
    1044, 1045, 1064, 1129, 1130, 1142, 1143, 1203, 1226, 1227, 1251, 1275, 1524, 1698, 1820, 1862, 3118, 3159, 3955,
    4150, 4151,
];

fn of_error(rest: &[u8]) -> Finding {
    let code = rest.first_chunk().map_or(0, |code| u16::from_le_bytes(*code));
    let text = rest.get(2..).unwrap_or_default();
    // Behind a hash stands the state of SQL, five letters, which says less than the code.
    let text = text.strip_prefix(b"#").and_then(|text| text.get(5..)).unwrap_or(text);
    let detail = format!("the server says: {} ({code})", String::from_utf8_lossy(text));
    if ABOUT_US.contains(&code) { Finding::unknown(detail) } else { Finding::fail(detail) }
}

fn not_mysql() -> Finding {
    Finding::fail("the service does not speak the protocol of MySQL")
}

#[cfg(test)]
mod tests {
    use holdfast_policies::observe::Outcome;

    use super::*;

    #[test]
    fn a_greeting_is_read_and_its_parts_are_not_taken_for_a_whole() {
        let mut packet = b"\x0a8.0.36\0".to_vec();
        packet.extend_from_slice(&[1, 0, 0, 0]);
        packet.extend_from_slice(b"12345678\0");
        packet.extend_from_slice(&[0xff, 0xff, 45, 2, 0, 0xff, 0xdf, 21]);
        packet.extend_from_slice(&[0; 10]);
        packet.extend_from_slice(b"abcdefghijkl\0caching_sha2_password\0");
        let greeting = Greeting::read(&packet).unwrap();
        assert_eq!(greeting.nonce, b"12345678abcdefghijkl");
        assert_eq!((greeting.capabilities, greeting.method.as_str()), (0xdfff_ffff, "caching_sha2_password"));
        for length in 0..40 {
            assert_eq!(Greeting::read(&packet[..length]), None, "{length}");
        }
    }

    #[test]
    fn values_of_every_length_are_read_and_lengths_beyond_the_row_are_refused() {
        assert_eq!(value(&[1, b'7', 1, b'8']), Some(Some(b"7".to_vec())));
        assert_eq!(value(&[0xfb]), Some(None));
        let mut long = vec![0xfc, 0x2c, 1];
        long.extend_from_slice(&[b'x'; 300]);
        assert_eq!(value(&long), Some(Some(vec![b'x'; 300])));
        for bad in [&[][..], &[5, b'a'], &[0xfc, 1], &[0xfd, 1, 0, 0], &[0xff]] {
            assert_eq!(value(bad), None);
        }
    }

    #[test]
    fn a_refused_login_is_no_evidence_and_a_full_server_is() {
        assert_eq!(of_error(b"\x15\x04#28000Access denied").outcome, Outcome::Unknown);
        for code in [1129_u16, 1203, 1226, 1251, 1275, 1524, 1820, 1862, 3118, 3159, 3955, 4150, 4151] {
            let said = [&code.to_le_bytes()[..], b"#HY000It is not about the server"].concat();
            assert_eq!(of_error(&said).outcome, Outcome::Unknown, "{code}");
        }
        let full = of_error(b"\x10\x04Too many connections");
        assert_eq!(
            (full.outcome, full.detail.as_str()),
            (Outcome::Fail, "the server says: Too many connections (1040)")
        );
    }
}
