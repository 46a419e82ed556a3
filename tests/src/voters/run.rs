//! One seed's run.

use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use openraft::{AsyncRuntime as _, Instant as _};
use openraft_rt_sim::{SimInstant, SimRuntime};

use super::{
    breaks::Break,
    clients,
    cluster::Cluster,
    ledger::{Ledger, Seen},
    narrow,
    plan::{self, Setup},
};

/// What every seed of a run has in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// The promise that is broken.
    pub broken: Option<Break>,
    /// Whether everything that the runtime does is recorded, down to each poll of a task. That is slow.
    pub traced: bool,
}

/// How a seed ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// Every promise was kept, and so long after the troubles everybody had everything.
    Well(Duration),
    /// A promise was broken.
    Violated(String),
    /// It did not come to rest (L1).
    Unhealed(String),
}

/// One seed's run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// How many founded the cluster.
    pub voters: u64,
    /// What happened, in numbers.
    pub seen: Seen,
    /// Simulated time.
    pub simulated: Duration,
    /// The story, line by line.
    pub story: String,
    /// What the runtime did, if that was recorded.
    pub trace: Vec<String>,
}

/// Runs one seed.
#[must_use]
pub fn run(seed: u64, options: &Options) -> Outcome {
    live_through(Setup::draw(seed, options.broken), options.traced, live)
}

/// Runs one seed in which the links of whoever leads carry nothing large any more. [`End::Well`] says for how long nothing was decided.
/// `gives_way` says whether leaders give way, as in the product.
#[must_use]
pub fn run_narrow(seed: u64, gives_way: bool) -> Outcome {
    live_through(Setup::draw(seed, None), false, |setup, ledger| narrow::live(setup, ledger, gives_way))
}

fn live_through<F>(setup: Setup, traced: bool, live: impl FnOnce(Setup, Ledger) -> F) -> Outcome
where
    F: Future<Output = Result<Duration, End>>,
{
    let ledger = Ledger::default();
    let mut runtime = SimRuntime::with_seed(setup.seed);
    runtime.record_trace(traced);
    // A panic in a voter's own tasks is theirs; one while a voter starts comes up here, and belongs to a seed.
    let end = catch_unwind(AssertUnwindSafe(|| runtime.block_on(live(setup, ledger.clone()))));
    let end = end.unwrap_or_else(|_| Err(End::Violated("S6: a voter panics as it starts".to_owned())));
    let trace = runtime.take_trace();
    drop(runtime);
    let end = match end {
        Ok(healed) => End::Well(healed),
        Err(end) => {
            ledger.note(&format!("{end:?}"));
            end
        }
    };
    let (seen, story, simulated) = ledger.result();
    Outcome { end, voters: setup.voters, seen, simulated, story, trace }
}

async fn live(setup: Setup, ledger: Ledger) -> Result<Duration, End> {
    ledger.note(&format!("{setup:?}"));
    let began = SimInstant::now();
    let mut cluster = Cluster::found(setup, ledger).await?;
    clients::start(&cluster.network, &cluster.ledger, &setup);
    for (at, trouble) in plan::draw(&setup) {
        cluster.until(began + Duration::from_millis(at)).await?;
        cluster.befall(trouble).await?;
    }
    // The last trouble lasts a while too.
    cluster.until(SimInstant::now() + Duration::from_secs(1)).await?;
    cluster.heal().await
}
