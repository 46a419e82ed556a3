//! Carries chitchat's messages in sealed datagrams.

use std::{
    net::SocketAddr,
    sync::{Mutex, PoisonError},
};

use chitchat::{
    ChitchatMessage, Deserializable as _, Serializable as _,
    transport::{Socket, Transport},
};
use tokio::sync::mpsc;

use super::super::datagram::{GossipReceived, Refusal, Sender};

/// A transport that can be opened once, because there is one socket.
pub(super) struct Sealed {
    sender: Sender,
    inbox: Mutex<Option<mpsc::Receiver<GossipReceived>>>,
}

impl Sealed {
    pub(super) fn new(sender: Sender, inbox: mpsc::Receiver<GossipReceived>) -> Self {
        Self { sender, inbox: Mutex::new(Some(inbox)) }
    }
}

#[async_trait::async_trait]
impl Transport for Sealed {
    async fn open(&self, _listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner).take();
        let inbox = inbox.ok_or_else(|| anyhow::anyhow!("the gossip transport is open already"))?;
        Ok(Box::new(SealedSocket { sender: self.sender.clone(), inbox }))
    }
}

struct SealedSocket {
    sender: Sender,
    inbox: mpsc::Receiver<GossipReceived>,
}

#[async_trait::async_trait]
impl Socket for SealedSocket {
    /// Never fails: an error here would end gossip, and a datagram may be lost at any time.
    async fn send(&mut self, to: SocketAddr, message: ChitchatMessage) -> anyhow::Result<()> {
        self.sender.send_gossip(to, &message.serialize_to_vec()).await;
        Ok(())
    }

    /// Fails only when the socket's task has ended. Can be cancelled at any await without losing a message.
    async fn recv(&mut self) -> anyhow::Result<(SocketAddr, ChitchatMessage)> {
        loop {
            let received = self.inbox.recv().await;
            let received = received.ok_or_else(|| anyhow::anyhow!("the datagram socket is closed"))?;
            match ChitchatMessage::deserialize(&mut received.body.as_slice()) {
                Ok(message) => return Ok((received.from, message)),
                Err(error) => {
                    tracing::debug!(host = %received.host, %error, "a gossip message could not be read");
                    self.sender.counters().count(Refusal::Malformed);
                }
            }
        }
    }
}
