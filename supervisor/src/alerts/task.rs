//! The loop that tells receivers about incidents, on every supervisor; it sends only on the coordinator.
//!
//! Each turn plans from the whole state. It wakes when the state changes, when a send ends, and at the plan's deadline.

use std::{collections::HashMap, sync::Arc, time::Duration};

use holdfast_policies::{incident::Incident, model::Receiver, time::Now};
use tokio::{
    sync::{mpsc, watch},
    task::{Id, JoinError, JoinSet},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    super::{
        causes::with_causes,
        metrics::{Metrics, SendResult},
    },
    AlertState, Attempts, Delivered, Deliverer, Delivery, Due, Plan, Trouble, kind, plan, read_secrets, render,
    rfc3339,
};

/// Reads both clocks.
pub type Clock = Arc<dyn Fn() -> Now + Send + Sync>;

/// Longest time for one send with everything around it. The request has its own shorter limit; this one bounds a secret
/// file on a file system that hangs.
const SEND_MAX: Duration = Duration::from_secs(8);

/// Tells receivers about incidents until `stop` is cancelled or the lead is gone.
///
/// `confirmations` is a bounded queue; what does not fit is offered again later. `trouble` shows what is not delivered.
pub async fn run(
    mut states: watch::Receiver<Arc<AlertState>>,
    confirmations: mpsc::Sender<Delivered>,
    trouble: watch::Sender<Vec<Trouble>>,
    metrics: Arc<Metrics>,
    clock: Clock,
    deliverer: Deliverer,
    stop: CancellationToken,
) {
    let mut teller =
        Teller { book: Attempts::default(), sends: JoinSet::new(), due: HashMap::new(), metrics, clock, deliverer };
    loop {
        let state = states.borrow_and_update().clone();
        let deadline = teller.turn(&state, &confirmations, &trouble);
        tokio::select! {
            () = stop.cancelled() => return,
            changed = states.changed() => if changed.is_err() {
                // Nobody coordinates here any more; whoever does elsewhere shows what waits.
                teller.turn(&Arc::default(), &confirmations, &trouble);
                return;
            },
            Some(ended) = teller.sends.join_next_with_id() => teller.ended(ended),
            () = sleep(deadline.unwrap_or_default()), if deadline.is_some() => {}
        }
    }
}

/// What the loop owns.
struct Teller {
    book: Attempts,
    sends: JoinSet<Delivery>,
    /// What each task in `sends` is about, also for one that panics.
    due: HashMap<Id, Due>,
    metrics: Arc<Metrics>,
    clock: Clock,
    deliverer: Deliverer,
}

impl Teller {
    /// Plans, starts what is due, and says how long to wait at most.
    fn turn(
        &mut self,
        state: &Arc<AlertState>,
        confirmations: &mpsc::Sender<Delivered>,
        trouble: &watch::Sender<Vec<Trouble>>,
    ) -> Option<Duration> {
        let now = (self.clock)();
        self.book.retain(state);
        self.book.take_over(state, now.wall);
        let Plan { sends, confirm, next, tallies, trouble: troubles } = plan(state, &self.book, now.moment);
        for (kind, tally) in tallies {
            self.metrics.set_alerts(kind, tally.pending, tally.rejected);
        }
        trouble.send_if_modified(|shown| {
            let changed = *shown != troubles;
            *shown = troubles;
            changed
        });
        for delivered in confirm {
            self.book.confirm_offered(&delivered, now.moment);
            if confirmations.try_send(delivered).is_err() {
                tracing::debug!("the queue of alert confirmations is full; offered again later");
            }
        }
        for due in sends {
            self.start(state, due, now);
        }
        next.map(|(until, _)| until.since(now.moment))
    }

    fn start(&mut self, state: &AlertState, due: Due, now: Now) {
        let Some(incident) = state.incidents.iter().find(|incident| incident.id == due.incident) else { return };
        self.book.started(&due);
        let task = tell(self.deliverer.clone(), due.clone(), state.cluster.clone(), incident.clone(), now);
        let handle = self.sends.spawn(async move {
            timeout(SEND_MAX, task).await.unwrap_or_else(|_| again_later(format!("not done within {SEND_MAX:?}"), true))
        });
        self.due.insert(handle.id(), due);
    }

    fn ended(&mut self, ended: Result<(Id, Delivery), JoinError>) {
        let (id, delivery) = match ended {
            Ok((id, delivery)) => (id, delivery),
            Err(error) => (error.id(), again_later("the sending task ended early".to_owned(), true)),
        };
        let Some(due) = self.due.remove(&id) else { return };
        let (incident, change, receiver) = (due.incident, due.seq, kind(&due.receiver));
        let result = match &delivery {
            Delivery::Accepted => {
                tracing::info!(incident, change, ?receiver, "alert delivered");
                SendResult::Accepted
            }
            Delivery::Retry { detail, .. } => {
                tracing::warn!(incident, change, ?receiver, detail, "alert not delivered; it will be tried again");
                SendResult::Retried
            }
            Delivery::Rejected { detail } => {
                tracing::error!(incident, change, ?receiver, detail, "alert refused by its receiver");
                SendResult::Rejected
            }
        };
        self.metrics.alert_sent(receiver, result);
        self.book.finished(&due, &delivery, (self.clock)().moment);
    }
}

/// Reads the secret, writes the request, sends it.
async fn tell(deliverer: Deliverer, due: Due, cluster: String, incident: Incident, now: Now) -> Delivery {
    let secrets = match read_secrets(&due.receiver).await {
        Ok(secrets) => secrets,
        // An operator may mend the file at any time, so this is worth trying again.
        Err(error) => return again_later(with_causes(&error), false),
    };
    let receiver = due.receiver.key();
    let there = deliverer.clocks.there(&receiver, now.wall);
    let request = match render(&due.receiver, &cluster, &incident, there, &secrets) {
        Ok(request) => request,
        Err(error) => return Delivery::Rejected { detail: with_causes(&error) },
    };
    let (delivery, date) = deliverer.send(&request).await;
    let Some(date) = date.filter(|_| takes_times(&due.receiver)) else { return delivery };
    let other_clock = deliverer.clocks.note(&receiver, there, date, now.wall);
    match delivery {
        // By its own clock it may have ended before it was told, or have yet to end.
        Delivery::Accepted | Delivery::Rejected { .. } if other_clock => {
            let detail = format!(
                "it was told by this host's clock ({}), and its own says {}: it is told anew by that one; one of the two is wrong",
                rfc3339(there),
                rfc3339(date)
            );
            again_later(detail, true)
        }
        Delivery::Accepted | Delivery::Rejected { .. } | Delivery::Retry { .. } => delivery,
    }
}

/// Whether a receiver does something at the times that it is told.
fn takes_times(receiver: &Receiver) -> bool {
    match receiver {
        Receiver::Alertmanager { .. } => true,
        Receiver::Pagerduty { .. } | Receiver::Webhook { .. } => false,
    }
}

fn again_later(detail: String, perhaps_taken: bool) -> Delivery {
    Delivery::Retry { after: None, detail, perhaps_taken }
}
