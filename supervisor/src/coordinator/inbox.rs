//! What waits for the coordinator's task: one queue, in which nobody takes the places of all the others.
//!
//! The task takes in one thing after the other, and while it waits for a disk, nothing. A host for whose sync there is no place is not
//! refused for that, as it would lose its lease: the newest that it says waits beside the queue. Only a task that has taken nothing
//! out for long stands still, and keeps no lead: hosts are told so in place of being granted a lease.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use holdfast_policies::{names::HostName, sync::SyncRequest, time::Moment};
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::Input;
use crate::{
    desk::{Answer, Denied, Request, Voucher},
    rpc::Seats,
};

/// Inputs that may wait: every agent's sync and every answer of one bad second in a large cluster. More wait outside, but for syncs.
pub(super) const INPUTS: usize = 1_024;

/// Syncs of one host that wait at once: what it says in ten seconds, however often it is woken meanwhile.
const SYNCS_PER_HOST: usize = 64;

/// Hosts of which something waits beside the queue: more than a cluster has.
const HOSTS_BESIDE: usize = 1_024;

/// How long something of a host may wait beside the queue: longer than the disks of voters stall that are any good.
const BESIDE_MAX: Duration = Duration::from_secs(60);

/// Questions of people that wait at once, and as many orders, which do not wait for those. The next ones wait outside.
const AT_ONCE: usize = 16;

/// Questions and orders of one who vouches for them that wait, inside or outside: others stand behind no more of them than these.
const PER_VOUCHER: usize = 32;

/// The way into the queue; cheap to clone.
#[derive(Clone)]
pub(super) struct Inbox {
    inputs: mpsc::Sender<Input>,
    syncs: Seats<HostName>,
    beside: Beside,
    askers: Seats<String>,
    questions: Arc<Semaphore>,
    orders: Arc<Semaphore>,
}

impl Inbox {
    /// The way into this queue.
    pub(super) fn of(inputs: mpsc::Sender<Input>) -> Self {
        let places = || Arc::new(Semaphore::new(AT_ONCE));
        let (syncs, beside, askers) = (Seats::default(), Beside::default(), Seats::default());
        Self { inputs, syncs, beside, askers, questions: places(), orders: places() }
    }

    /// What waits beside the queue, for whoever takes that out.
    pub(super) fn beside(&self) -> Beside {
        self.beside.clone()
    }

    /// Hands something in; waits when too much is waiting already.
    pub(super) async fn tell(&self, input: Input) {
        if self.inputs.send(input).await.is_err() {
            tracing::error!("the coordinator's task has ended");
        }
    }

    /// Hands in what a host says. Where there is no place for it, it takes that of what the host has said before: a host says all
    /// that matters again.
    ///
    /// # Errors
    /// Why it is not taken: then the host must not be answered either.
    pub(super) fn sync(&self, request: &SyncRequest, received: Moment) -> Result<(), String> {
        if self.inputs.is_closed() {
            return Err("this voter has stopped".to_owned());
        }
        let queued = self.syncs.take(&request.host, SYNCS_PER_HOST).is_some_and(|place| {
            let input = Input::Sync { request: Box::new(request.clone()), received, place };
            self.inputs.try_send(input).is_ok()
        });
        if queued || self.beside.put(request, received) {
            Ok(())
        } else {
            Err("the coordinator is overloaded".to_owned())
        }
    }

    /// Has a request served when it is its turn; `None` from a task that has ended.
    pub(super) async fn ask(&self, request: Request, voucher: Voucher) -> Option<Result<Answer, Denied>> {
        let Some(_asker) = self.askers.take(&voucher.to_string(), PER_VOUCHER) else {
            let why = format!("{PER_VOUCHER} requests of {voucher} wait for the coordinator already");
            return Some(Err(Denied::NoLeader(why)));
        };
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

/// The newest that those hosts say for whose syncs there is no place in the queue; cheap to clone.
#[derive(Clone, Default)]
pub(super) struct Beside(Arc<Mutex<BTreeMap<HostName, Newest>>>);

/// What a host has said last.
struct Newest {
    request: SyncRequest,
    received: Moment,
    /// Since when something of this host waits here.
    since: Moment,
}

impl Beside {
    /// Puts it in the place of what the host has said before. False: nobody has taken anything out for long.
    fn put(&self, request: &SyncRequest, received: Moment) -> bool {
        let mut waiting = self.lock();
        let known = waiting.get(&request.host).map(|newest| newest.since);
        let since = known.unwrap_or(received);
        if received.since(since) > BESIDE_MAX || (known.is_none() && waiting.len() >= HOSTS_BESIDE) {
            return false;
        }
        waiting.insert(request.host.clone(), Newest { request: request.clone(), received, since });
        true
    }

    /// Takes all of it out: what was said, and when that arrived.
    pub(super) fn take(&self) -> Vec<(SyncRequest, Moment)> {
        let waiting = std::mem::take(&mut *self.lock());
        waiting.into_values().map(|newest| (newest.request, newest.received)).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<HostName, Newest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
        for at in 0..2 * SYNCS_PER_HOST {
            let at = Moment(u64::try_from(at).unwrap());
            assert_eq!(inbox.sync(&of("h1"), at), Ok(()), "it is answered, and no lease is lost for it");
        }
        assert_eq!(inbox.sync(&of("h2"), Moment(200)), Ok(()));
        assert_eq!(inbox.sync(&of("h3"), Moment(300)), Ok(()), "the queue itself is full");
        let (mut first, mut second) = (0, 0);
        while let Ok(Input::Sync { request, .. }) = queue.try_recv() {
            if request.host == host("h1") { first += 1 } else { second += 1 }
        }
        assert_eq!((first, second), (SYNCS_PER_HOST, 1));
        let newest = |beside: Vec<(SyncRequest, Moment)>| -> Vec<_> {
            beside.into_iter().map(|(request, received)| (request.host, received)).collect()
        };
        let last = Moment(u64::try_from(2 * SYNCS_PER_HOST - 1).unwrap());
        assert_eq!(newest(inbox.beside().take()), [(host("h1"), last), (host("h3"), Moment(300))]);
        assert_eq!(inbox.sync(&of("h1"), Moment(400)), Ok(()));
        assert!(queue.try_recv().is_ok() && inbox.beside().take().is_empty(), "there is room for what it says now");
        drop(queue);
        assert!(inbox.sync(&of("h1"), Moment(500)).is_err());
    }

    #[tokio::test]
    async fn a_task_that_takes_nothing_out_keeps_no_lead_however_few_the_hosts_are() {
        let (inputs, _queue) = mpsc::channel(INPUTS);
        let inbox = Inbox::of(inputs);
        let (began, every) = (Moment(1_000), Duration::from_millis(250));
        let answered = |from: Moment, syncs: u32| {
            (0..syncs).take_while(|number| inbox.sync(&of("h1"), from.plus(every * *number)).is_ok()).count()
        };
        let most = SYNCS_PER_HOST + 4 * 60 + 1;
        assert_eq!(answered(began, 1_000), most, "what waits in the queue, and a minute more");
        let later = began.plus(every * 1_000);
        assert_eq!(answered(later, 10), 0);
        assert_eq!(inbox.beside().take().len(), 1, "it goes on");
        assert_eq!(answered(later, 10), 10);
    }

    #[tokio::test]
    async fn questions_that_wait_keep_no_order_and_no_sync_waiting() {
        let (inputs, mut queue) = mpsc::channel(INPUTS);
        let inbox = Inbox::of(inputs);
        let ask = |request: Request| {
            let inbox = inbox.clone();
            tokio::spawn(async move { inbox.ask(request, Voucher::Host(host("h1"))).await })
        };
        let asked: Vec<_> = (0..PER_VOUCHER - 1).map(|_| ask(question())).collect();
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

    #[tokio::test]
    async fn whoever_asks_over_and_over_keeps_nobody_else_waiting() {
        let (inputs, mut queue) = mpsc::channel(INPUTS);
        let inbox = Inbox::of(inputs);
        let name = Voucher::Host(host("h1")).to_string();
        let waiting: Vec<_> = (0..PER_VOUCHER).map(|_| inbox.askers.take(&name, PER_VOUCHER)).collect();
        assert!(waiting.iter().all(Option::is_some));
        let one_more = timeout(LIMIT, inbox.ask(question(), Voucher::Host(host("h1")))).await;
        assert!(matches!(one_more, Ok(Some(Err(Denied::NoLeader(_))))), "it is told so at once");
        let others = tokio::spawn(async move { inbox.ask(question(), Voucher::Host(host("h2"))).await });
        let next = timeout(LIMIT, queue.recv()).await.expect("another's question");
        assert!(matches!(next, Some(Input::Desk { .. })));
        others.abort();
    }
}
