//! What waits for the coordinator's task: one queue, in which nobody takes the places of all the others.
//!
//! The task takes in one thing after the other. When the queue is full, hosts are told so in place of being granted a lease, so that a
//! task that stands still keeps no lead. It must not be filled by somebody who merely says, or asks, very much.

use std::sync::Arc;

use holdfast_policies::{names::HostName, sync::SyncRequest, time::Moment};
use tokio::sync::{Semaphore, mpsc, mpsc::error::TrySendError, oneshot};

use super::Input;
use crate::{
    desk::{Answer, Denied, Request, Voucher},
    rpc::Seats,
};

/// Inputs that may wait: every agent's sync and every answer of one bad second in a large cluster. More wait outside.
pub(super) const INPUTS: usize = 1_024;

/// Syncs of one host that wait at once: what it says in ten seconds, however often it is woken meanwhile.
const SYNCS_PER_HOST: usize = 64;

/// Questions of people that wait at once, and as many orders, which do not wait for those. The next ones wait outside.
const AT_ONCE: usize = 16;

/// The way into the queue; cheap to clone.
#[derive(Clone)]
pub(super) struct Inbox {
    inputs: mpsc::Sender<Input>,
    syncs: Seats<HostName>,
    questions: Arc<Semaphore>,
    orders: Arc<Semaphore>,
}

impl Inbox {
    /// The way into this queue.
    pub(super) fn of(inputs: mpsc::Sender<Input>) -> Self {
        let places = || Arc::new(Semaphore::new(AT_ONCE));
        Self { inputs, syncs: Seats::default(), questions: places(), orders: places() }
    }

    /// Hands something in; waits when too much is waiting already.
    pub(super) async fn tell(&self, input: Input) {
        if self.inputs.send(input).await.is_err() {
            tracing::error!("the coordinator's task has ended");
        }
    }

    /// Hands in what a host says. Where as much of it waits already as may, it is left out: the host says all of it again.
    ///
    /// # Errors
    /// Why it is not taken: then the host must not be answered either.
    pub(super) fn sync(&self, request: &SyncRequest, received: Moment) -> Result<(), String> {
        let Some(place) = self.syncs.take(&request.host, SYNCS_PER_HOST) else {
            if self.inputs.is_closed() {
                return Err(stopped());
            }
            tracing::debug!(host = %request.host, "a sync was left out: as many of its host wait as may");
            return Ok(());
        };
        let input = Input::Sync { request: Box::new(request.clone()), received, place };
        self.inputs.try_send(input).map_err(|error| match error {
            TrySendError::Full(_) => "the coordinator is overloaded".to_owned(),
            TrySendError::Closed(_) => stopped(),
        })
    }

    /// Has a request served when it is its turn; `None` from a task that has ended.
    pub(super) async fn ask(&self, request: Request, voucher: Voucher) -> Option<Result<Answer, Denied>> {
        let places = if request.is_order() { &self.orders } else { &self.questions };
        let _place = places.acquire().await.ok()?;
        let (answer, answered) = oneshot::channel();
        self.inputs.send(Input::Desk { request, voucher, answer }).await.ok()?;
        answered.await.ok()
    }

    /// Waits until nobody takes anything out any more.
    pub(super) async fn closed(&self) {
        self.inputs.closed().await;
    }
}

fn stopped() -> String {
    "this voter has stopped".to_owned()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::desk::tests::{facts, host};

    /// Long enough for any machine.
    const LIMIT: Duration = Duration::from_secs(20);

    fn of(from: &str) -> SyncRequest {
        SyncRequest::of(host(from), facts("b1", from))
    }

    fn question() -> Request {
        Request::Status
    }

    fn order() -> Request {
        Request::ReleaseStormHold { by: "ann".to_owned() }
    }

    #[tokio::test]
    async fn what_one_host_says_over_and_over_leaves_room_for_what_others_say() {
        let (inputs, mut queue) = mpsc::channel(SYNCS_PER_HOST + 1);
        let inbox = Inbox::of(inputs);
        for _ in 0..2 * SYNCS_PER_HOST {
            assert_eq!(inbox.sync(&of("h1"), Moment(1)), Ok(()), "it is answered, and no lease is lost for it");
        }
        assert_eq!(inbox.sync(&of("h2"), Moment(1)), Ok(()));
        assert!(inbox.sync(&of("h3"), Moment(1)).is_err(), "the queue itself is full");
        let (mut first, mut second) = (0, 0);
        while let Ok(Input::Sync { request, .. }) = queue.try_recv() {
            if request.host == host("h1") { first += 1 } else { second += 1 }
        }
        assert_eq!((first, second), (SYNCS_PER_HOST, 1));
        assert_eq!(inbox.sync(&of("h1"), Moment(2)), Ok(()));
        assert!(queue.try_recv().is_ok(), "there is room for what it says now");
        drop(queue);
        assert!(inbox.sync(&of("h1"), Moment(3)).is_err());
    }

    #[tokio::test]
    async fn questions_that_wait_keep_no_order_and_no_sync_waiting() {
        let (inputs, mut queue) = mpsc::channel(INPUTS);
        let inbox = Inbox::of(inputs);
        let ask = |request: Request| {
            let inbox = inbox.clone();
            tokio::spawn(async move { inbox.ask(request, Voucher::Host(host("h1"))).await })
        };
        let asked: Vec<_> = (0..3 * AT_ONCE).map(|_| ask(question())).collect();
        let mut waiting = Vec::new();
        for _ in 0..AT_ONCE {
            waiting.push(timeout(LIMIT, queue.recv()).await.expect("a question").expect("the inbox lives"));
        }
        let ordered = ask(order());
        let next = timeout(LIMIT, queue.recv()).await.expect("the order").expect("the inbox lives");
        let Input::Desk { request, answer, .. } = next else { panic!("it is no request") };
        assert_eq!(request, order());
        assert_eq!(inbox.sync(&of("h2"), Moment(1)), Ok(()));
        assert!(matches!(queue.try_recv(), Ok(Input::Sync { .. })), "no more questions wait in the queue");
        answer.send(Ok(Answer::Accepted { what: "done".to_owned() })).unwrap();
        assert!(matches!(ordered.await.unwrap(), Some(Ok(Answer::Accepted { .. }))));
        // Whoever is not answered gives room, too.
        drop(waiting);
        let next = timeout(LIMIT, queue.recv()).await.expect("another question");
        assert!(matches!(next, Some(Input::Desk { request: Request::Status, .. })));
        asked.iter().for_each(tokio::task::JoinHandle::abort);
    }
}
