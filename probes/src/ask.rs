//! The one entry: ask a question somewhere, within a deadline.

use std::{net::IpAddr, sync::Arc, time::Duration};

use holdfast_policies::{model::Probe, observe::Observation};
use tokio::time::Instant;

use crate::{agent_ping, channel::GuestChannel, clients::Clients, exec, finding::Finding, http, inside, tcp};

/// Whom to ask, and from where.
#[derive(Clone)]
pub struct Target {
    /// The guest's address, for questions over the network.
    pub address: Option<IpAddr>,
    /// From where to ask.
    pub place: Place,
}

/// From where a question is asked.
#[derive(Clone)]
pub enum Place {
    /// From this host, over the network.
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
    match (&target.place, probe) {
        (Place::Network(clients), Probe::Http(http)) => http::ask(clients, http, target.address).await,
        (Place::Network(_), Probe::Tcp(tcp)) => tcp::ask(tcp, target.address).await,
        (Place::Network(_), Probe::AgentPing {} | Probe::Exec(_)) => {
            Finding::unknown("only the guest's agent can be asked this, not the network")
        }
        (Place::Inside(channel), Probe::Http(http)) => inside::http(channel.as_ref(), http, timeout).await,
        (Place::Inside(channel), Probe::Tcp(tcp)) => inside::tcp(channel.as_ref(), tcp, timeout).await,
        (Place::Inside(channel), Probe::AgentPing {}) => agent_ping::ask(channel.as_ref(), timeout).await,
        (Place::Inside(channel), Probe::Exec(exec)) => exec::ask(channel.as_ref(), exec, timeout).await,
    }
}

/// What silence until the deadline means.
///
/// In the guest, a service is asked by way of the agent, so silence may be the agent's and says nothing about the service.
fn silence(probe: &Probe, place: &Place, timeout: Duration) -> Finding {
    match (place, probe) {
        (Place::Inside(_), Probe::Http(_) | Probe::Tcp(_)) => {
            Finding::unknown(format!("the guest's agent gave no result within {timeout:?}"))
        }
        (Place::Inside(_), Probe::Exec(_)) => exec::still_running(timeout),
        (Place::Inside(_), Probe::AgentPing {}) => agent_ping::silent(timeout),
        (Place::Network(_), _) => Finding::fail(format!("no answer within {timeout:?}")),
    }
}

/// Lateness of our own waking, beyond which a missed deadline is no evidence: then this process was frozen or starved,
/// and the answer may have come in time.
const OVERSLEPT_LEAST: Duration = Duration::from_millis(250);

fn overslept(took: Duration, timeout: Duration) -> bool {
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
