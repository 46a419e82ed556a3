//! Carries chitchat's messages in sealed datagrams.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use chitchat::{
    ChitchatMessage, Deserializable as _, Serializable as _,
    transport::{Socket, Transport},
};
use tokio::{
    sync::{Mutex, mpsc},
    time::Instant,
};

use super::{
    super::datagram::{GossipReceived, Refusal, Sender},
    bounds::{Flow, is_bounded},
    room::Room,
};

/// How often it is told at most why messages are not taken in.
const TELL_EVERY: Duration = Duration::from_secs(60);

/// What the one socket has received of gossip: whoever gossips at the moment takes it.
pub(super) type Inbox = Arc<Mutex<mpsc::Receiver<GossipReceived>>>;

/// A transport over the one socket.
pub(super) struct Sealed {
    sender: Sender,
    inbox: Inbox,
    room: Arc<Room>,
}

impl Sealed {
    pub(super) fn new(sender: Sender, inbox: Inbox, room: Arc<Room>) -> Self {
        Self { sender, inbox, room }
    }
}

#[async_trait::async_trait]
impl Transport for Sealed {
    async fn open(&self, _listen: SocketAddr) -> anyhow::Result<Box<dyn Socket>> {
        let (sender, inbox, room) = (self.sender.clone(), Arc::clone(&self.inbox), Arc::clone(&self.room));
        let flow = Flow::new(Instant::now());
        Ok(Box::new(SealedSocket { sender, inbox, next: None, room, flow, told: None }))
    }
}

struct SealedSocket {
    sender: Sender,
    inbox: Inbox,
    /// What was taken from the inbox, and is still being looked at.
    next: Option<GossipReceived>,
    room: Arc<Room>,
    flow: Flow,
    /// When it was last told why a message was not taken in.
    told: Option<Instant>,
}

impl SealedSocket {
    /// The next message that there is room for. Can be cancelled at any await without losing one.
    async fn fitting(&mut self) -> anyhow::Result<GossipReceived> {
        loop {
            let next = match self.next.take() {
                Some(next) => next,
                None => {
                    let received = self.inbox.lock().await.recv().await;
                    received.ok_or_else(|| anyhow::anyhow!("the datagram socket is closed"))?
                }
            };
            let next = self.next.insert(next);
            let fits = self.room.has(&next.body).await;
            let Some(next) = self.next.take() else { continue };
            if fits {
                return Ok(next);
            }
            self.sender.counters().count(Refusal::Crowded);
            if self.may_tell() {
                tracing::warn!(
                    host = %next.host,
                    "gossip names more starts of supervisors than it has room for; look for a host whose supervisor starts again and again"
                );
            }
        }
    }

    /// Whether it may be told why a message is not taken in. Whoever means harm sends thousands.
    fn may_tell(&mut self) -> bool {
        let may = self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY);
        if may {
            self.told = Some(Instant::now());
        }
        may
    }
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
            let received = self.fitting().await?;
            if !is_bounded(&received.body) {
                self.sender.counters().count(Refusal::Malformed);
                if self.may_tell() {
                    tracing::warn!(host = %received.host, "a gossip message would unfold to more than any host says");
                }
                continue;
            }
            if !self.flow.takes(&received.body, Instant::now()) {
                self.sender.counters().count(Refusal::Overrun);
                continue;
            }
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
