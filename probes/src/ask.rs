//! The one entry: ask a question somewhere, within a deadline.

use std::{net::IpAddr, sync::Arc, time::Duration};

use holdfast_policies::{model::Probe, observe::Observation};
use tokio::time::Instant;

#[cfg(feature = "network")]
use crate::network::{asker::Asker, clients::Clients, dns, grpc, http, mysql, ping, plugin, postgres, redis, tcp, tls};
use crate::{agent_ping, channel::GuestChannel, exec, finding::Finding, inside, kinds, memory::Memory};

/// Whom to ask, and from where.
#[derive(Clone)]
pub struct Target {
    /// The guest's address, for questions over the network.
    pub address: Option<IpAddr>,
    /// From where to ask.
    pub place: Place,
    /// What is remembered from one question to the next; the same one for all questions of one asker.
    pub memory: Memory,
}

/// From where a question is asked.
#[derive(Clone)]
pub enum Place {
    /// From this host, over the network.
    #[cfg(feature = "network")]
    Network(Arc<Clients>),
    /// In the guest, through its agent.
    Inside(Arc<dyn GuestChannel>),
}

/// Asks once. Ends by `timeout`, whatever the other side does; may be dropped at any point.
pub async fn ask(probe: &Probe, target: &Target, timeout: Duration) -> Observation {
    let began = Instant::now();
    let answer = tokio::time::timeout(timeout, put(probe, target, timeout)).await;
    let took = began.elapsed();
    let (finding, own) = match answer {
        Ok(answer) => answer,
        Err(_) if overslept(took, timeout) => {
            let late =
                format!("this vantage itself was late: it woke {took:.1?} after asking, the limit is {timeout:?}");
            (Finding::unknown(late), Duration::ZERO)
        }
        Err(_) => (silence(probe, &target.place, timeout), Duration::ZERO),
    };
    // A service is not slow because this host's name server is.
    Observation::new(finding.outcome, took.saturating_sub(own), finding.detail)
}

/// What it came to, and how much of the time this vantage took for its own part.
async fn put(probe: &Probe, target: &Target, timeout: Duration) -> (Finding, Duration) {
    match &target.place {
        #[cfg(feature = "network")]
        Place::Network(clients) => {
            let asker = Asker::new(clients, target.address, timeout);
            let finding = over_network(probe, &asker, &target.memory).await;
            (asker.without_secrets(finding), asker.own_taken())
        }
        Place::Inside(channel) => (in_guest(probe, channel.as_ref(), &target.memory, timeout).await, Duration::ZERO),
    }
}

#[cfg(feature = "network")]
async fn over_network(probe: &Probe, asker: &Asker<'_>, memory: &Memory) -> Finding {
    match probe {
        Probe::Http(http) => http::ask(asker, http).await,
        Probe::Tcp(tcp) => tcp::ask(asker, tcp).await,
        Probe::Tls(tls) => tls::ask(asker, tls).await,
        Probe::Dns(dns) => dns::ask(asker, dns).await,
        Probe::Grpc(grpc) => grpc::ask(asker, grpc).await,
        Probe::Postgres(sql) => postgres::ask(asker, sql).await,
        Probe::Mysql(sql) => mysql::ask(asker, sql).await,
        Probe::Redis(redis) => redis::ask(asker, redis).await,
        Probe::Ping {} => ping::ask(asker).await,
        Probe::Plugin(plugin) => plugin::ask(asker, plugin, memory).await,
        Probe::AgentPing {}
        | Probe::Exec(_)
        | Probe::File(_)
        | Probe::Systemd(_)
        | Probe::Process(_)
        | Probe::Metric(_)
        | Probe::Heartbeat(_) => Finding::unknown("only the guest's agent can be asked this, not the network"),
    }
}

async fn in_guest(probe: &Probe, channel: &dyn GuestChannel, memory: &Memory, timeout: Duration) -> Finding {
    if let Some((outcome, detail)) = channel.answer(probe, timeout).await {
        return Finding { outcome, detail };
    }
    match probe {
        Probe::Http(http) => inside::http(channel, http, memory, timeout).await,
        Probe::Tcp(tcp) => inside::tcp(channel, tcp, timeout).await,
        Probe::AgentPing {} => agent_ping::ask(channel, timeout).await,
        Probe::Exec(exec) => exec::ask(channel, exec, timeout).await,
        Probe::File(file) => kinds::file(channel, file, memory, timeout).await,
        Probe::Systemd(unit) => kinds::systemd(channel, unit, memory, timeout).await,
        Probe::Process(process) => kinds::process(channel, process, memory, timeout).await,
        Probe::Metric(metric) => kinds::metric(channel, metric, timeout).await,
        Probe::Heartbeat(beat) => kinds::heartbeat(channel, beat, memory, timeout).await,
        Probe::Tls(_)
        | Probe::Dns(_)
        | Probe::Grpc(_)
        | Probe::Postgres(_)
        | Probe::Mysql(_)
        | Probe::Redis(_)
        | Probe::Ping {}
        | Probe::Plugin(_) => Finding::unknown("only hosts can ask this, not the guest's agent"),
    }
}

/// What silence until the deadline means.
///
/// In the guest, a service is asked by way of the agent, so silence may be the agent's and says nothing about the service.
/// A plugin that does not end may hang for a reason of its own.
fn silence(probe: &Probe, place: &Place, timeout: Duration) -> Finding {
    match (place, probe) {
        (Place::Inside(_), Probe::AgentPing {}) => agent_ping::silent(timeout),
        (Place::Inside(_), _) => Finding::unknown(format!("the guest's agent gave no result within {timeout:?}")),
        #[cfg(feature = "network")]
        (Place::Network(_), Probe::Plugin(_)) => {
            Finding::unknown(format!("the plugin has not ended within {timeout:?} and was killed"))
        }
        #[cfg(feature = "network")]
        (Place::Network(_), _) => Finding::fail(format!("no answer within {timeout:?}")),
    }
}

/// Lateness of our own waking, beyond which a missed deadline is no evidence: then this process was frozen or starved,
/// and the answer may have come in time.
const OVERSLEPT_LEAST: Duration = Duration::from_millis(250);

pub(crate) fn overslept(took: Duration, timeout: Duration) -> bool {
    took.saturating_sub(timeout) > (timeout / 2).max(OVERSLEPT_LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vantage_that_overslept_accuses_nobody() {
        let second = Duration::from_secs(1);
        assert!(!overslept(second + Duration::from_millis(100), second));
        assert!(overslept(second * 2, second));
    }

    /// A Redis that says the same to everything.
    #[cfg(feature = "network")]
    async fn redis() -> u16 {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            while stream.read(&mut [0; 512]).await.is_ok_and(|count| count > 0) {
                stream.write_all(b"+PONG\r\n").await.unwrap();
            }
        });
        port
    }

    #[cfg(feature = "network")]
    #[tokio::test]
    async fn what_this_host_takes_for_its_own_part_does_not_make_a_service_slow() {
        use std::os::unix::fs::PermissionsExt;

        use holdfast_policies::{observe::Outcome, probe::RedisProbe};

        use crate::aside::FILES;
        const HANGS: Duration = Duration::from_millis(500);
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("password");
        std::fs::write(&file, "of-shop").unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o600)).unwrap();
        // As many as look at it at once, so that the question waits for them.
        for _ in 0..4 {
            let own = file.clone();
            tokio::spawn(async move { FILES.run(own.as_os_str(), || std::thread::sleep(HANGS)).await });
        }
        tokio::task::yield_now().await;
        let began = Instant::now();
        let probe = Probe::Redis(RedisProbe {
            port: redis().await,
            user: None,
            password_file: Some(file),
            command: vec!["PING".to_owned()],
            expect: Some("PONG".to_owned()),
            tls: None,
        });
        let place = Place::Network(Arc::new(Clients::new().unwrap()));
        let target = Target { address: "127.0.0.1".parse().ok(), place, memory: Memory::default() };
        let seen = ask(&probe, &target, Duration::from_secs(20)).await;
        assert_eq!(seen.outcome, Outcome::Pass, "{seen:?}");
        assert!(seen.latency + HANGS / 2 <= began.elapsed(), "{seen:?} after {:?}", began.elapsed());
    }
}
