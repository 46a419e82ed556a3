//! Asks a name server for a name, and compares the answers.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use hickory_proto::{
    op::{Message, MessageType, OpCode, Query, ResponseCode},
    rr::{Name, RecordType},
};
use holdfast_policies::probe::{DnsProbe, RecordKind};
use tokio::{io::AsyncWriteExt, net::UdpSocket};

use crate::{
    finding::Finding,
    network::{
        asker::{Asker, connect},
        io_error::of_io_error,
        stream::{Stream, broken, read_exactly},
    },
};

/// Largest answer over UDP without extensions is 512 bytes; more is room for servers that send more unasked.
const DATAGRAM_BYTES_MAX: usize = 4096;

/// Most datagrams that are no answer to the question. Each question has a port of its own, so that hardly any come; a server that sends them
/// as fast as it can would keep a processor of this host busy.
const STRAYS_MAX: u32 = 100;

/// Asks over UDP, and over TCP where the answer is too long for it; the caller bounds the time.
pub(crate) async fn ask(asker: &Asker<'_>, probe: &DnsProbe) -> Finding {
    match converse(asker, probe).await {
        Ok(finding) | Err(finding) => finding,
    }
}

async fn converse(asker: &Asker<'_>, probe: &DnsProbe) -> Result<Finding, Finding> {
    let address = match probe.server {
        Some(server) => server,
        None => asker.address()?,
    };
    let place = SocketAddr::from((address, probe.port));
    let question = question(probe)?;
    let packet = question.to_vec().map_err(|error| Finding::unknown(error.to_string()))?;
    let mut answer = over_udp(asker, place, &question, &packet).await?;
    if answer.metadata.truncation {
        answer = over_tcp(place, &question, &packet).await?;
    }
    Ok(judge(&answer, probe))
}

fn question(probe: &DnsProbe) -> Result<Message, Finding> {
    let mut name =
        Name::from_ascii(&probe.name).map_err(|error| Finding::unknown(format!("{:?}: {error}", probe.name)))?;
    name.set_fqdn(true);
    let mut message = Message::new(rand::random(), MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(name, record_type(probe.kind)));
    Ok(message)
}

async fn over_udp(asker: &Asker<'_>, place: SocketAddr, question: &Message, packet: &[u8]) -> Result<Message, Finding> {
    let any: SocketAddr = match place {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let failed = |error: std::io::Error| of_io_error(&error);
    let socket =
        UdpSocket::bind(any).await.map_err(|error| Finding::unknown(format!("cannot ask from here: {error}")))?;
    // Connected, so that only this server's datagrams come in, and a closed port is reported.
    socket.connect(place).await.map_err(failed)?;
    let (mut buffer, mut strays) = (vec![0_u8; DATAGRAM_BYTES_MAX], 0_u32);
    loop {
        socket.send(packet).await.map_err(failed)?;
        let listening = listen(&socket, &mut buffer, &mut strays, question);
        // A datagram that is lost is sent again; the caller ends this.
        if let Ok(answer) = tokio::time::timeout(asker.again_after(), listening).await {
            return answer;
        }
    }
}

/// Waits for the answer, among datagrams that are none.
async fn listen(
    socket: &UdpSocket,
    buffer: &mut [u8],
    strays: &mut u32,
    question: &Message,
) -> Result<Message, Finding> {
    loop {
        let count = socket.recv(buffer).await.map_err(|error| of_io_error(&error))?;
        let received = buffer.get(..count).unwrap_or_default();
        if let Some(answer) = matching(received, question) {
            return Ok(answer);
        }
        *strays += 1;
        if *strays > STRAYS_MAX {
            return Err(Finding::fail(format!("more than {STRAYS_MAX} datagrams are no answer to the question")));
        }
    }
}

async fn over_tcp(place: SocketAddr, question: &Message, packet: &[u8]) -> Result<Message, Finding> {
    let mut stream = Stream::Plain(connect(place).await?);
    let length = u16::try_from(packet.len()).map_err(|error| Finding::unknown(error.to_string()))?;
    // In one piece: some servers take what comes first for the whole question (RFC 7766, 8).
    let whole = [&length.to_be_bytes()[..], packet].concat();
    stream.write_all(&whole).await.map_err(|error| broken(&error))?;
    let mut length = [0; 2];
    read_exactly(&mut stream, &mut length).await?;
    // At most 64 KiB, by the two bytes that the length has.
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    read_exactly(&mut stream, &mut answer).await?;
    matching(&answer, question).ok_or_else(|| Finding::fail("the answer is not one to the question"))
}

fn matching(received: &[u8], question: &Message) -> Option<Message> {
    let answer = Message::from_vec(received).ok().or_else(|| cut_off(received))?;
    let fits = answer.metadata.id == question.metadata.id
        && answer.metadata.message_type == MessageType::Response
        && answer.queries == question.queries;
    fits.then_some(answer)
}

/// Where the counts of answers, authorities and additional records stand in a header (RFC 1035, 4.1.1).
const COUNTS: std::ops::Range<usize> = 6..12;

/// An answer that says that it was cut off, without the records of which that has left a part: servers may cut anywhere, and what
/// they have cut is to be asked over TCP, not read (RFC 2181, 9).
fn cut_off(received: &[u8]) -> Option<Message> {
    let mut without = received.to_vec();
    without.get_mut(COUNTS)?.fill(0);
    Message::from_vec(&without).ok().filter(|answer| answer.metadata.truncation)
}

fn judge(answer: &Message, probe: &DnsProbe) -> Finding {
    if answer.metadata.response_code != ResponseCode::NoError {
        return Finding::fail(format!("the server answers: {}", answer.metadata.response_code));
    }
    let kind = record_type(probe.kind);
    let found: Vec<String> = answer
        .answers
        .iter()
        .filter(|record| record.record_type() == kind)
        .map(|record| comparable(&record.data.to_string()))
        .collect();
    if found.is_empty() {
        return Finding::fail(format!("the name has no record of type {kind}"));
    }
    match probe.expect.iter().find(|wanted| !found.contains(&comparable(wanted))) {
        Some(missing) => Finding::fail(format!("{missing} is not among the answers: {}", found.join(", "))),
        None => Finding::pass(format!("{} answers: {}", found.len(), found.join(", "))),
    }
}

/// Names are alike in any case, with and without the last dot; addresses are alike however they are written.
fn comparable(answer: &str) -> String {
    match answer.parse::<std::net::IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => answer.trim_matches('"').trim_end_matches('.').to_ascii_lowercase(),
    }
}

fn record_type(kind: RecordKind) -> RecordType {
    match kind {
        RecordKind::A => RecordType::A,
        RecordKind::Aaaa => RecordType::AAAA,
        RecordKind::Cname => RecordType::CNAME,
        RecordKind::Mx => RecordType::MX,
        RecordKind::Ns => RecordType::NS,
        RecordKind::Ptr => RecordType::PTR,
        RecordKind::Soa => RecordType::SOA,
        RecordKind::Srv => RecordType::SRV,
        RecordKind::Txt => RecordType::TXT,
    }
}
