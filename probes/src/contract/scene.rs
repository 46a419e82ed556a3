//! Servers and agents that the tests ask: good ones, silent ones and endless ones.

use std::{
    net::Ipv4Addr,
    process::Stdio,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use holdfast_policies::model::{ExecProbe, HttpProbe, Probe, TcpProbe};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpSocket},
};

use crate::{ChannelError, Clients, ExecResult, Exit, GuestChannel, Memory, Place, Target};

/// What a server does once it has read a request.
#[derive(Clone, Copy)]
pub enum Manner {
    /// Sends this and hangs up.
    Says(&'static str),
    /// Sends nothing, and keeps the connection.
    Mute,
    /// Sends this, then bytes without end.
    Endless(&'static str),
    /// Sends this, then one byte now and then, without end.
    Trickles(&'static str),
    /// Hangs up.
    HangsUp,
}

/// A server on a loopback port that it chooses; it lives as long as the runtime of the test.
pub async fn server(manner: Manner) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, manner));
        }
    });
    port
}

async fn serve(mut stream: tokio::net::TcpStream, manner: Manner) -> std::io::Result<()> {
    let _ = stream.read(&mut [0; 2048]).await?;
    match manner {
        Manner::Says(text) => stream.write_all(text.as_bytes()).await,
        Manner::HangsUp => Ok(()),
        Manner::Mute => std::future::pending().await,
        Manner::Endless(head) => {
            stream.write_all(head.as_bytes()).await?;
            loop {
                stream.write_all(&[b'x'; 8192]).await?;
            }
        }
        Manner::Trickles(head) => {
            stream.write_all(head.as_bytes()).await?;
            loop {
                stream.write_all(b"x").await?;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// A loopback port on which nobody listens, nor ever will: it stays taken until the tests end.
pub fn closed_port() -> u16 {
    let taken = TcpSocket::new_v4().unwrap();
    taken.bind((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
    let port = taken.local_addr().unwrap().port();
    std::mem::forget(taken);
    port
}

/// A free loopback port, for a program that is about to listen there: below those that the kernel gives to whoever asks for any, so that
/// nobody is given it while the program starts.
pub async fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    loop {
        // Others for each process that runs tests.
        let next = std::process::id() * 64 + GIVEN.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(20_000 + next % 12_000).unwrap();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            return port;
        }
    }
}

pub const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nall ok\r\n";
pub const WRONG_STATUS: &str = "HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n";
pub const WRONG_BODY: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbad\n";
pub const MOVED: &str = "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n";
pub const HEAD: &str = "HTTP/1.1 200 OK\r\n\r\n";

pub fn http(port: u16) -> Probe {
    let url = format!("http://{{address}}:{port}/healthz");
    Probe::Http(Box::new(HttpProbe { body: Some("ok".to_owned()), ..HttpProbe::get(url) }))
}

pub fn tcp(port: u16) -> Probe {
    Probe::Tcp(TcpProbe::to(port))
}

pub fn exec(run: &[&str]) -> Probe {
    Probe::Exec(ExecProbe::plain(run.iter().map(|word| (*word).to_owned()).collect()))
}

pub fn network() -> Target {
    let place = Place::Network(Arc::new(Clients::new().unwrap()));
    Target { address: Some(Ipv4Addr::LOCALHOST.into()), place, memory: Memory::default() }
}

pub fn inside(channel: impl GuestChannel + 'static) -> Target {
    Target { address: None, place: Place::Inside(Arc::new(channel)), memory: Memory::default() }
}

/// How a scripted agent answers.
#[derive(Clone)]
pub enum Says {
    Well,
    Ends(Exit, &'static str, &'static str),
    Error(ChannelError),
    /// Not even by its deadline: worse than a channel may be.
    Nothing,
}

/// An agent that answers as it is told: first to pings, then to commands by their program.
pub struct Scripted {
    pub ping: Says,
    pub exec: fn(&[String]) -> Says,
}

impl Says {
    async fn now(self) -> Result<ExecResult, ChannelError> {
        let ended = |exit, out: &str, err: &str| ExecResult { exit, stdout: out.into(), stderr: err.into() };
        match self {
            Self::Well => Ok(ended(Exit::Code(0), "", "")),
            Self::Ends(exit, out, err) => Ok(ended(exit, out, err)),
            Self::Error(error) => Err(error),
            Self::Nothing => std::future::pending().await,
        }
    }
}

#[async_trait]
impl GuestChannel for Scripted {
    async fn ping(&self, _: Duration) -> Result<(), ChannelError> {
        self.ping.clone().now().await.map(|_| ())
    }
    async fn exec(&self, argv: &[String], _: Duration) -> Result<ExecResult, ChannelError> {
        (self.exec)(argv).now().await
    }
}

/// An agent that runs commands on this machine, as if it were the guest.
pub struct Here;

/// Whether this machine has a program, for tests that can do without it.
pub fn here_is(program: &str) -> bool {
    std::process::Command::new("sh")
        .args(["-c", &format!("command -v {program}")])
        .stdout(Stdio::null())
        .status()
        .unwrap()
        .success()
}

#[async_trait]
impl GuestChannel for Here {
    async fn ping(&self, _: Duration) -> Result<(), ChannelError> {
        Ok(())
    }
    async fn exec(&self, argv: &[String], deadline: Duration) -> Result<ExecResult, ChannelError> {
        let mut command = tokio::process::Command::new(&argv[0]);
        command.args(&argv[1..]).stdin(Stdio::null()).kill_on_drop(true);
        let ended = tokio::time::timeout(deadline, command.output()).await.map_err(|_| ChannelError::Late)?;
        let output = ended.map_err(|error| ChannelError::Refused(error.to_string()))?;
        let exit = output.status.code().map_or(Exit::Signal(9), Exit::Code);
        Ok(ExecResult { exit, stdout: output.stdout, stderr: output.stderr })
    }
}
