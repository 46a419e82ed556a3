//! What questions to name servers promise: matching answers alone count, and long ones are fetched over TCP.

use std::{net::Ipv4Addr, time::Duration};

use hickory_proto::{
    op::{Message, MessageType, OpCode, ResponseCode},
    rr::{RData, Record, rdata::A},
};
use holdfast_policies::{
    model::Probe,
    observe::{Observation, Outcome},
    probe::{DnsProbe, RecordKind},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UdpSocket},
};

use crate::{ask, contract::scene::network};

const LIMIT: Duration = Duration::from_secs(20);

/// What is odd about a server.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Oddity {
    None,
    /// It first sends an answer to another question.
    Stray,
    /// It sends hundreds of those.
    Floods,
    /// Over UDP it says that the answer is too long.
    Truncates,
    /// The same, and it cuts in the middle of a record.
    CutsOff,
    NoSuchName,
    Empty,
}

pub(super) fn answer(question: &[u8], oddity: Oddity, udp: bool) -> Vec<u8> {
    let question = Message::from_vec(question).unwrap();
    let mut answer = Message::new(question.metadata.id, MessageType::Response, OpCode::Query);
    answer.add_queries(question.queries.clone());
    answer.metadata.truncation = udp && oddity == Oddity::Truncates;
    if oddity == Oddity::NoSuchName {
        answer.metadata.response_code = ResponseCode::NXDomain;
    } else if oddity != Oddity::Empty && !answer.metadata.truncation {
        let name = question.queries[0].name().clone();
        answer.add_answer(Record::from_rdata(name, 60, RData::A(A(Ipv4Addr::new(10, 0, 0, 5)))));
    }
    let mut answer = answer.to_vec().unwrap();
    if udp && oddity == Oddity::CutsOff {
        answer.truncate(answer.len() - 3);
        // The bit that says so (RFC 1035, 4.1.1).
        answer[2] |= 2;
    }
    answer
}

async fn server(oddity: Oddity) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let place = listener.local_addr().unwrap();
    let socket = UdpSocket::bind(place).await.unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 2048];
        while let Ok((count, from)) = socket.recv_from(&mut buffer).await {
            let reply = answer(&buffer[..count], oddity, true);
            let strays = match oddity {
                Oddity::Stray => 1,
                Oddity::Floods => 300,
                _ => 0,
            };
            for _ in 0..strays {
                let mut stray = reply.clone();
                stray[0] ^= 1;
                let _ = socket.send_to(&stray, from).await;
                let _ = socket.send_to(b"?", from).await;
            }
            let _ = socket.send_to(&reply, from).await;
        }
    });
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // It takes what comes first for the whole question, as some do (RFC 7766, 8). The length comes before it.
            let mut heard = [0; 512];
            let count = stream.read(&mut heard).await.unwrap();
            let reply = answer(&heard[2..count], oddity, false);
            stream.write_u16(u16::try_from(reply.len()).unwrap()).await.unwrap();
            stream.write_all(&reply).await.unwrap();
        }
    });
    place.port()
}

async fn asked(port: u16, expect: &[&str]) -> Observation {
    let expect = expect.iter().map(|word| (*word).to_owned()).collect();
    let probe = DnsProbe { name: "WWW.example".to_owned(), kind: RecordKind::A, server: None, port, expect };
    ask(&Probe::Dns(probe), &network(), LIMIT).await
}

#[tokio::test]
async fn the_right_answer_passes_and_another_or_none_fails() {
    let port = server(Oddity::None).await;
    assert_eq!(asked(port, &[]).await.outcome, Outcome::Pass);
    assert_eq!(asked(port, &["10.0.0.5"]).await.outcome, Outcome::Pass);
    let seen = asked(port, &["10.0.0.6"]).await;
    assert_eq!((seen.outcome, seen.detail.as_str()), (Outcome::Fail, "10.0.0.6 is not among the answers: 10.0.0.5"));
    for oddity in [Oddity::NoSuchName, Oddity::Empty] {
        assert_eq!(asked(server(oddity).await, &[]).await.outcome, Outcome::Fail);
    }
}

#[tokio::test]
async fn stray_datagrams_are_passed_over_and_long_answers_come_over_tcp() {
    for oddity in [Oddity::Stray, Oddity::Truncates, Oddity::CutsOff] {
        let seen = asked(server(oddity).await, &["10.0.0.5"]).await;
        assert_eq!(seen.outcome, Outcome::Pass, "{seen:?}");
    }
}

#[tokio::test]
async fn answers_to_other_questions_are_not_read_without_end() {
    let seen = asked(server(Oddity::Floods).await, &[]).await;
    assert!(seen.outcome == Outcome::Fail && seen.detail.contains("no answer to the question"), "{seen:?}");
}
