//! The way to the coordinator: any voter takes a sync, and one that is slow is overtaken by the next (R6).

use std::{collections::VecDeque, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::stream::{FuturesUnordered, StreamExt};
use holdfast_policies::{
    names::HostName,
    sync::{SyncReply, SyncRequest},
};
use tokio::time::timeout;

use crate::{coordinator::Coordinator, node::Node, rpc::Channel};

/// How long one voter is waited for before the next is asked as well.
const HEDGE_AFTER: Duration = Duration::from_millis(150);

/// How long a whole sync may take; the next one is due anyway.
const DEADLINE: Duration = Duration::from_millis(900);

/// Sends one sync and returns the first reply.
///
/// # Errors
/// What the last voter said.
pub async fn sync(
    node: &Arc<Node>,
    coordinator: Option<&Coordinator>,
    request: &SyncRequest,
    first: &mut Option<HostName>,
) -> Result<SyncReply, String> {
    let body = serde_json::to_vec(request).map_err(|error| error.to_string())?;
    let mut waiting = in_order(node, first.as_ref());
    let mut asked = FuturesUnordered::new();
    let mut last = "no voter is known".to_owned();
    let race = async {
        loop {
            if let Some((voter, address)) = waiting.pop_front() {
                asked.push(ask(node, coordinator, request, body.clone(), voter, address));
            } else if asked.is_empty() {
                return Err(last);
            }
            loop {
                let patience = if waiting.is_empty() { DEADLINE } else { HEDGE_AFTER };
                match timeout(patience, asked.next()).await {
                    Ok(Some((voter, Ok(reply)))) => {
                        *first = Some(voter);
                        return Ok(reply);
                    }
                    Ok(Some((voter, Err(error)))) => last = format!("{voter}: {error}"),
                    Ok(None) | Err(_) => break,
                }
            }
        }
    };
    timeout(DEADLINE, race).await.unwrap_or_else(|_| Err(format!("no reply within {DEADLINE:?}")))
}

/// The leader comes first, as far as this host knows one; then the voter that answered last, then the others.
fn in_order(node: &Node, first: Option<&HostName>) -> VecDeque<(HostName, SocketAddr)> {
    let leader = node.leader();
    let mut voters: Vec<(HostName, SocketAddr)> = node.voters().into_iter().collect();
    voters.sort_by_key(|(voter, _)| (leader.as_ref() != Some(voter), first != Some(voter)));
    voters.into()
}

async fn ask(
    node: &Arc<Node>,
    coordinator: Option<&Coordinator>,
    request: &SyncRequest,
    body: Vec<u8>,
    voter: HostName,
    address: SocketAddr,
) -> (HostName, Result<SyncReply, String>) {
    let answered = if voter == *node.host() {
        match coordinator {
            Some(coordinator) if node.leader().as_ref() == Some(node.host()) => coordinator.sync(request.clone()).await,
            _ => Err("this host does not lead".to_owned()),
        }
    } else {
        let called = node.rpc.call(&voter, address, Channel::Sync, body, DEADLINE).await;
        called
            .map_err(|error| error.to_string())
            .and_then(|body| serde_json::from_slice(&body).map_err(|error| error.to_string()))
    };
    (voter, answered)
}
