//! Asking power devices while nothing is wrong: by whom the policies say, and what they answer made fit to be committed.
//! Nothing is switched here.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use futures_util::future::join_all;
use holdfast_fencing::{
    PowerDevice, Refusals,
    device::{Answer, Power as DevicePower},
    machine_id::{normalize, same_machine},
    open_devices,
};
use holdfast_policies::{
    change::Change,
    decide::PathToTest,
    fence_path::{DeviceTest, LevelTest, Machine},
    model::FenceLevel,
    names::{HostName, Incarnation},
    observe::clean,
    proof::Power,
    state::{ClusterState, Life},
    time::{Moment, millis},
};
use serde::{Deserialize, Serialize};
use tokio::{sync::mpsc, time::Instant};

use super::{Coordinator, Input};
use crate::{
    causes::with_causes,
    desk::{Answer as Said, Denied, fence_text, no_host},
    node::Node,
    rpc::Channel,
};

/// Longest that a device may take for one answer, and for both that it is asked for, however long it has within a fence. The
/// slowest that is waited for is an IPMI controller that takes 3 s for each of the eleven packets of a question: 33 s, after
/// some seconds in which it was asked in haste, and 33 s more for the machine's id. One that hangs keeps the others from
/// their turn meanwhile. Less than what an executor has for the whole question (80 s).
const DEVICE_MAX: (Duration, Duration) = (Duration::from_secs(40), Duration::from_secs(75));

/// The way to the executor and back.
const TRAVEL: Duration = Duration::from_millis(500);

/// A test that has not ended after this is lost, and another one may begin: longer than any may take.
const LOST_AFTER: Duration = Duration::from_secs(90);

/// Levels that one question may name.
const LEVELS_MAX: usize = 8;

/// "What do these devices say?"
#[derive(Debug, Serialize, Deserialize)]
pub struct PathQuestion {
    /// The levels with a device, by position.
    levels: BTreeMap<usize, FenceLevel>,
}

/// What they say.
#[derive(Debug, Serialize, Deserialize)]
pub struct PathAnswer {
    levels: BTreeMap<usize, Vec<Told>>,
}

/// What one device says.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Told {
    device: String,
    power: Power,
    took_ms: u64,
    machine: ToldMachine,
    #[serde(default)]
    denied: bool,
}

/// Which machine it says is behind it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum ToldMachine {
    Id { id: String },
    Untold { why: String },
    Unknown { why: String },
}

/// What came of a test.
#[derive(Debug)]
pub struct Tested {
    /// The change that says so.
    pub change: Change,
    /// The boot of the host that had joined when its devices were asked.
    pub boot: Incarnation,
}

/// The one test under way.
#[derive(Debug, Default)]
pub struct Tests {
    running: Option<Moment>,
}

impl Tests {
    /// Begins what is to be tested, unless something is.
    pub fn fulfil(&mut self, test: Option<PathToTest>, node: &Arc<Node>, inputs: &mpsc::Sender<Input>, now: Moment) {
        if self.running.is_some_and(|since| now.since(since) < LOST_AFTER) {
            return;
        }
        self.running = None;
        let Some(PathToTest { host, executor }) = test else { return };
        self.running = Some(now);
        let (node, inputs) = (Arc::clone(node), inputs.clone());
        tokio::spawn(async move {
            let tested = run(&node, &host, &executor).await;
            // When the coordinator is gone nobody waits for it.
            let _ = inputs.send(Input::Tested(tested.map(Box::new))).await;
        });
    }

    /// A test has ended.
    pub fn done(&mut self) {
        self.running = None;
    }
}

/// Has an executor ask the devices of a host. `None` where there is nothing to ask.
pub async fn run(node: &Arc<Node>, host: &HostName, executor: &HostName) -> Option<Tested> {
    let (boot, machine_id, policy_version, unique, levels) = node.read(|state| {
        let facts = &state.hosts.get(host)?.facts;
        let (boot, machine_id) = (facts.incarnation.clone(), facts.machine_id.clone());
        let levels = state.policies.levels_of(host).iter().enumerate().filter(|(_, level)| level.has_device());
        let levels: BTreeMap<usize, FenceLevel> = levels.map(|(row, level)| (row, level.clone())).collect();
        let unique = is_unique(state, &machine_id);
        (!levels.is_empty()).then_some((boot, machine_id, state.policy_version, unique, levels))
    })?;
    let question = PathQuestion { levels };
    let told = ask(node, executor, &question).await;
    let levels = question.levels.iter().map(|(row, level)| {
        let told = match &told {
            Ok(answer) => answer.levels.get(row).cloned().unwrap_or_default(),
            Err(error) => nobody_asked(level, error),
        };
        let devices = told.into_iter().map(|told| judged(told, &machine_id, unique)).collect();
        LevelTest { level: *row, devices }
    });
    let change = Change::FenceTested {
        host: host.clone(),
        executor: executor.clone(),
        machine_id: machine_id.clone(),
        policy_version: Some(policy_version),
        levels: levels.collect(),
    };
    Some(Tested { change, boot })
}

/// Some boards all carry the same UUID, which then proves nothing.
fn is_unique(state: &ClusterState, machine_id: &str) -> bool {
    state.hosts.values().filter(|known| same_machine(&known.facts.machine_id, machine_id)).count() == 1
}

async fn ask(node: &Arc<Node>, executor: &HostName, question: &PathQuestion) -> Result<PathAnswer, String> {
    if executor == node.host() {
        return Ok(answer(question, &node.refusals).await);
    }
    let address = node.address(executor).ok_or_else(|| format!("the address of {executor} is not known"))?;
    let body = serde_json::to_vec(question).map_err(|error| error.to_string())?;
    let called = node.rpc.call(executor, address, Channel::Paths, body, longest(question) + TRAVEL).await;
    let body = called.map_err(|error| format!("{executor} could not be asked: {}", with_causes(&error)))?;
    serde_json::from_slice(&body).map_err(|error| format!("{executor} answers what is none: {error}"))
}

/// How long the slowest of the devices may take for both answers.
fn longest(question: &PathQuestion) -> Duration {
    let devices = question.levels.values().flat_map(open_devices);
    devices.map(|device| deadlines(device.as_ref()).1).max().unwrap_or_default()
}

/// How long a device may take for one answer, and for both: as long as it has within a fence, because what answers there
/// must not look dead here.
fn deadlines(device: &dyn PowerDevice) -> (Duration, Duration) {
    let (one, both) = DEVICE_MAX;
    (device.patience().min(one), (device.patience() * 2).min(both))
}

/// Asks the devices, on the host that is to.
pub async fn answer(question: &PathQuestion, refusals: &Refusals) -> PathAnswer {
    let levels = question.levels.iter().take(LEVELS_MAX).map(|(row, level)| async move {
        let devices = refusals.open_to_test(level);
        (*row, join_all(devices.iter().map(|device| told(device.as_ref()))).await)
    });
    PathAnswer { levels: join_all(levels).await.into_iter().collect() }
}

async fn told(device: &dyn PowerDevice) -> Told {
    let began = Instant::now();
    let (one, both) = deadlines(device);
    let status = device.status(one).await;
    let took_ms = millis(began.elapsed());
    let denied = matches!(status, Answer::Refused { denied: true, .. });
    let power = match status {
        Answer::Confirmed(DevicePower::On) => Power::On,
        Answer::Confirmed(DevicePower::Off) => Power::Off,
        Answer::Refused { detail, .. } | Answer::Unknown { detail } => Power::Unknown { detail: clean(&detail) },
    };
    let machine = match &power {
        Power::Unknown { detail } => ToldMachine::Unknown { why: detail.clone() },
        Power::On | Power::Off => match device.machine_id(both.saturating_sub(began.elapsed())).await {
            Answer::Confirmed(id) => ToldMachine::Id { id: clean(&id) },
            Answer::Refused { detail, .. } => ToldMachine::Untold { why: clean(&detail) },
            Answer::Unknown { detail } => ToldMachine::Unknown { why: clean(&detail) },
        },
    };
    Told { device: device.describe(), power, took_ms, machine, denied }
}

/// What is known when the executor itself did not answer.
fn nobody_asked(level: &FenceLevel, error: &str) -> Vec<Told> {
    let detail = clean(error);
    let unasked = |device: &Arc<dyn PowerDevice>| Told {
        device: device.describe(),
        power: Power::Unknown { detail: detail.clone() },
        took_ms: 0,
        machine: ToldMachine::Unknown { why: detail.clone() },
        denied: false,
    };
    open_devices(level).iter().map(unasked).collect()
}

fn judged(told: Told, machine_id: &str, unique: bool) -> DeviceTest {
    let machine = match told.machine {
        ToldMachine::Unknown { why } => Machine::Unknown { why },
        ToldMachine::Untold { why } => Machine::Untold { why },
        ToldMachine::Id { id } => compared(id, machine_id, unique),
    };
    let (device, denied) = (clean(&told.device), told.denied);
    DeviceTest { device, power: told.power, took_ms: told.took_ms, machine, denied }
}

fn compared(says: String, machine_id: &str, unique: bool) -> Machine {
    // What an installation makes up is written without hyphens, and no controller knows it.
    if !machine_id.contains('-') || normalize(machine_id).is_none() {
        return Machine::Untold { why: "the host does not know the UUID of its own machine".to_owned() };
    }
    if !unique {
        return Machine::Untold { why: "several hosts carry the same machine UUID".to_owned() };
    }
    if same_machine(&says, machine_id) { Machine::Same } else { Machine::Other { says } }
}

/// Hosts that ask when a person wants to know and names none: more would only take longer.
const ASKERS_MAX: usize = 4;

impl Coordinator {
    /// Has other hosts ask the devices of one, and commits what they say.
    pub(super) async fn test_fence(&self, host: HostName, from: Option<HostName>) -> Result<Said, Denied> {
        if self.node.leader().as_ref() != Some(self.node.host()) {
            return Err(Denied::NoLeader("this supervisor does not coordinate".to_owned()));
        }
        let askers = self.node.read(|state| askers(state, &host, from))?;
        let coordinator = self.clone();
        // Slow devices take longer than a person is made to wait: what they say is committed all the same.
        let testing = tokio::spawn(async move { coordinator.test_fence_by(host, &askers).await });
        testing.await.map_err(|_| Denied::NoLeader("the test has broken off".to_owned()))
    }

    async fn test_fence_by(&self, host: HostName, askers: &[HostName]) -> Said {
        let tests = join_all(askers.iter().map(|asker| run(&self.node, &host, asker))).await;
        let mut said = Vec::new();
        for (asker, tested) in askers.iter().zip(tests) {
            let Some(tested) = tested else { continue };
            if let Change::FenceTested { levels, .. } = &tested.change {
                said.extend(fence_text::said(asker, levels));
            }
            self.tell(Input::Tested(Some(Box::new(tested)))).await;
        }
        said.sort_by_key(|line| line.level);
        Said::FenceTested { host, said }
    }
}

fn askers(state: &ClusterState, host: &HostName, from: Option<HostName>) -> Result<Vec<HostName>, Denied> {
    if !state.hosts.contains_key(host) {
        return Err(no_host(state, host));
    }
    if !state.policies.levels_of(host).iter().any(FenceLevel::has_device) {
        return Err(Denied::Refused(format!("no power device is declared for {host}: add one to `fencing:`")));
    }
    match from {
        Some(from) if !state.hosts.contains_key(&from) => Err(no_host(state, &from)),
        Some(from) => Ok(vec![from]),
        None => {
            let up = state.hosts.iter().filter(|(name, known)| *name != host && known.life == Life::Up);
            let up: Vec<HostName> = up.map(|(name, _)| name.clone()).take(ASKERS_MAX).collect();
            if up.is_empty() {
                Err(Denied::Refused(format!("no other host than {host} is there to ask")))
            } else {
                Ok(up)
            }
        }
    }
}

#[cfg(test)]
mod tests;
