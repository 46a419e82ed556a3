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
    let finding = match answer {
        Ok(finding) => finding,
        Err(_) if overslept(took, timeout) => Finding::unknown(format!(
            "this vantage itself was late: it woke {took:.1?} after asking, the limit is {timeout:?}"
        )),
        Err(_) => silence(probe, &target.place, timeout),
    };
    Observation::new(finding.outcome, took, finding.detail)
}

async fn put(probe: &Probe, target: &Target, timeout: Duration) -> Finding {
    match &target.place {
        #[cfg(feature = "network")]
        Place::Network(clients) => {
            let asker = Asker::new(clients, target.address, timeout);
            asker.without_secrets(over_network(probe, &asker, &target.memory).await)
        }
        Place::Inside(channel) => in_guest(probe, channel.as_ref(), &target.memory, timeout).await,
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
        Probe::File(file) => kinds::file(channel, file, timeout).await,
        Probe::Systemd(unit) => kinds::systemd(channel, unit, memory, timeout).await,
        Probe::Process(process) => kinds::process(channel, process, memory, timeout).await,
        Probe::Metric(metric) => kinds::metric(channel, metric, timeout).await,
        Probe::Heartbeat(beat) => kinds::heartbeat(channel, beat, timeout).await,
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
}
