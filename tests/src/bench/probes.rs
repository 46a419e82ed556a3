//! How many questions one supervisor can ask in a second: over TCP and over HTTP, on one core, of a server on this machine.
//!
//! The server is a process of its own, so that only the asking is counted. Every question makes a new connection, as real
//! ones do.

use std::{
    io::{BufRead, BufReader},
    net::{IpAddr, Ipv4Addr},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use holdfast_policies::{
    model::{HttpProbe, Probe, TcpProbe},
    observe::Outcome,
};
use holdfast_probes::{Clients, Memory, Place, Schedule, Target, ask};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use super::planner::resident_mb;

/// Addresses of the server: as many guests. More of them keep the ports of one address from running out.
const ADDRESSES: u8 = 16;
/// Questions in flight.
const AT_ONCE: u32 = 256;
/// How long each kind is asked.
const LENGTH: Duration = Duration::from_secs(5);
/// Services that are asked now and then.
const DECLARED: u32 = 1_000;
/// How often.
const EVERY: Duration = Duration::from_secs(10);
/// How long one question may take before it counts as failed, and spoils the measurement.
const TIMEOUT: Duration = Duration::from_secs(10);

/// What was measured.
#[derive(Debug, Serialize)]
pub struct Measured {
    /// Questions over TCP, for each second by the clock.
    pub tcp_per_s: f64,
    /// Questions over HTTP, for each second by the clock.
    pub http_per_s: f64,
    /// Questions over TCP, for each second of processor time: what one core does that nobody else wants.
    pub tcp_per_core_s: f64,
    /// Questions over HTTP, for each second of processor time.
    pub http_per_core_s: f64,
    /// What [`DECLARED`] services cost that are asked over HTTP every [`EVERY`], in percent of a core.
    pub idle_core_percent: f64,
    /// Memory of the asking process at its end, in MiB.
    pub rss_mb: f64,
}

/// Measures, with one thread that asks.
///
/// # Errors
/// When the server cannot be started, or any answer is not a pass.
pub fn measure() -> Result<Measured> {
    let server = Server::start()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tcp = runtime.block_on(rate(Probe::Tcp(TcpProbe::to(server.port))))?;
    let url = format!("http://{{address}}:{}/healthz", server.port);
    let probe = Probe::Http(Box::new(HttpProbe { body: Some("ok".to_owned()), ..HttpProbe::get(url) }));
    let http = runtime.block_on(rate(probe.clone()))?;
    let idle_core_percent = runtime.block_on(idle(probe))?;
    Ok(Measured {
        tcp_per_s: tcp.per_s,
        http_per_s: http.per_s,
        tcp_per_core_s: tcp.per_core_s,
        http_per_core_s: http.per_core_s,
        idle_core_percent,
        rss_mb: resident_mb()?,
    })
}

struct Rate {
    per_s: f64,
    per_core_s: f64,
}

/// One interval of many services, each asked once, evenly spread as far as the prober's schedule spreads them.
async fn idle(probe: Probe) -> Result<f64> {
    let clients = Arc::new(Clients::new()?);
    let probe = Arc::new(probe);
    let (began, cpu_began) = (tokio::time::Instant::now(), cpu_s()?);
    let tasks: Vec<_> = (0..DECLARED)
        .map(|number| {
            let (probe, target) = (Arc::clone(&probe), target(number, &clients));
            let mut schedule = Schedule::new(began, began + EVERY * number / DECLARED, EVERY);
            tokio::spawn(async move {
                schedule.turn().await;
                let seen = ask(&probe, &target, TIMEOUT).await;
                ensure!(seen.outcome == Outcome::Pass, "an answer is not a pass: {seen:?}");
                Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    tokio::time::sleep_until(began + EVERY).await;
    Ok((cpu_s()? - cpu_began) / began.elapsed().as_secs_f64() * 100.0)
}

/// One of the server's addresses.
fn target(number: u32, clients: &Arc<Clients>) -> Target {
    let last = u8::try_from(number % u32::from(ADDRESSES)).unwrap_or(0) + 1;
    let address = IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
    Target { address: Some(address), place: Place::Network(Arc::clone(clients)), memory: Memory::default() }
}

async fn rate(probe: Probe) -> Result<Rate> {
    let clients = Arc::new(Clients::new()?);
    let probe = Arc::new(probe);
    let (began, cpu_began) = (Instant::now(), cpu_s()?);
    let tasks: Vec<_> = (0..AT_ONCE)
        .map(|number| {
            let (probe, target) = (Arc::clone(&probe), target(number, &clients));
            tokio::spawn(async move {
                let mut asked: u32 = 0;
                while began.elapsed() < LENGTH {
                    let seen = ask(&probe, &target, TIMEOUT).await;
                    ensure!(seen.outcome == Outcome::Pass, "an answer is not a pass: {seen:?}");
                    asked += 1;
                }
                Ok(asked)
            })
        })
        .collect();
    let mut asked = 0;
    for task in tasks {
        asked += task.await??;
    }
    let asked = f64::from(asked);
    Ok(Rate { per_s: asked / began.elapsed().as_secs_f64(), per_core_s: asked / (cpu_s()? - cpu_began) })
}

/// Processor time that this process has had, in seconds.
fn cpu_s() -> Result<f64> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID)?).as_secs_f64())
}

/// This program once more, as the server.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["probes", "--serve"]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let mut line = String::new();
        let told = child.stdout.take().context("the server has an output")?;
        BufReader::new(told).read_line(&mut line)?;
        let port = line.trim().parse().context("the server tells its port")?;
        Ok(Self { child, port })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Answers every request with a page, until its input ends; tells its port on its output.
///
/// # Errors
/// When it cannot listen.
pub fn serve() -> Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = first.local_addr()?.port();
        let mut listeners = vec![first];
        for last in 2..=ADDRESSES {
            listeners.push(TcpListener::bind((Ipv4Addr::new(127, 0, 0, last), port)).await?);
        }
        for listener in listeners {
            tokio::spawn(async move {
                while let Ok((stream, _)) = listener.accept().await {
                    tokio::spawn(page(stream));
                }
            });
        }
        println!("{port}");
        // Whoever started this holds the other end.
        tokio::task::spawn_blocking(|| std::io::copy(&mut std::io::stdin(), &mut std::io::sink())).await??;
        Ok(())
    })
}

const PAGE: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 8\r\nConnection: close\r\n\r\nall ok\r\n";

async fn page(mut stream: TcpStream) -> std::io::Result<()> {
    // A request of the measurement comes in one piece.
    if stream.read(&mut [0; 2048]).await? > 0 {
        stream.write_all(PAGE).await?;
    }
    Ok(())
}
