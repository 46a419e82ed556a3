//! Questions that the coordinator wants answered: the host's power device, and the other voters (R16, R17).

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use holdfast_fencing::{
    PowerDevice,
    device::{Answer as DeviceAnswer, Power as DevicePower},
    open_devices,
};
use holdfast_policies::{
    decide::Wish,
    evidence::Answer,
    model::FenceLevel,
    names::{HostName, Incarnation},
    proof::{Power, PowerReading},
    time::{Moment, millis},
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::Input;
use crate::{clock, node::Node, rpc::Channel};

/// Rest before the same question is asked again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// A question whose end has not been told so long after its deadline counts as lost, and may be asked again.
const LOST_AFTER: Duration = Duration::from_secs(3);

/// Longest that a power device may take to answer when it is only wondered about, however long it has otherwise: no other
/// level waits for it.
const POWER_DEADLINE_MAX: Duration = Duration::from_secs(60);

/// How long a voter may take to answer.
const VOTER_DEADLINE: Duration = Duration::from_millis(400);

/// "How long ago did you last hear this boot of this host?"
#[derive(Debug, Serialize, Deserialize)]
pub struct AgesQuestion {
    /// The host.
    pub host: HostName,
    /// The boot.
    pub incarnation: Incarnation,
}

/// The answer.
#[derive(Debug, Serialize, Deserialize)]
pub struct AgesAnswer {
    /// How long ago, in milliseconds; `None` when that boot was never heard.
    pub age_ms: Option<u64>,
    /// Whether it counts: the voter is well, and has heard a majority for long enough.
    pub counts: bool,
    /// The newest boot of that host that it has heard and that has not joined, and how long ago, in milliseconds.
    #[serde(default)]
    pub other_boot: Option<(Incarnation, u64)>,
    /// The newest generation of the cluster that it knows of (R25); 0 from a supervisor that does not say.
    #[serde(default)]
    pub generation: u32,
}

/// Questions under way.
#[derive(Default)]
pub struct Wishes {
    /// What is being asked, and from when on it counts as lost.
    asked: BTreeMap<Wish, Moment>,
    answered: BTreeMap<Wish, Moment>,
}

impl Wishes {
    /// Asks what is not being asked already.
    pub fn fulfil(&mut self, wishes: Vec<Wish>, node: &Arc<Node>, inputs: &mpsc::Sender<Input>, now: Moment) {
        self.asked.retain(|_, lost| now < *lost);
        self.answered.retain(|_, at| now.since(*at) < AGAIN_AFTER);
        for wish in wishes {
            if self.asked.contains_key(&wish) || self.answered.contains_key(&wish) {
                continue;
            }
            self.asked.insert(wish.clone(), now.plus(deadline(node, &wish) + LOST_AFTER));
            let (node, inputs) = (Arc::clone(node), inputs.clone());
            tokio::spawn(async move {
                match &wish {
                    Wish::AskPower { host, incarnation, level } => {
                        ask_power(&node, &inputs, host, incarnation, *level).await;
                    }
                    Wish::AskVoters { host, incarnation } => ask_voters(&node, &inputs, host, incarnation).await,
                }
                // When the coordinator is gone nobody waits for it.
                let _ = inputs.send(Input::Asked(wish)).await;
            });
        }
    }

    /// A question has been answered, or given up.
    pub fn done(&mut self, wish: Wish, now: Moment) {
        self.asked.remove(&wish);
        self.answered.insert(wish, now);
    }
}

fn deadline(node: &Node, wish: &Wish) -> Duration {
    match wish {
        Wish::AskVoters { .. } => VOTER_DEADLINE,
        Wish::AskPower { host, level, .. } => {
            let declared = node.read(|state| state.policies.levels_of(host).get(*level).cloned());
            let devices = declared.map(|declared| open_devices(&declared)).unwrap_or_default();
            let looks = if devices.len() > 1 { 2 } else { 1 };
            devices.iter().map(|device| patience(device.as_ref())).max().unwrap_or_default() * looks
        }
    }
}

/// As long as the device has within a fence: what answers there must not look dead here.
fn patience(device: &dyn PowerDevice) -> Duration {
    device.patience().min(POWER_DEADLINE_MAX)
}

/// Asks one level; the others are asked at the same time, and none waits for another.
async fn ask_power(
    node: &Node,
    inputs: &mpsc::Sender<Input>,
    host: &HostName,
    incarnation: &Incarnation,
    level: usize,
) {
    let declared = node.read(|state| state.policies.levels_of(host).get(level).cloned());
    let Some(declared) = declared else { return };
    let Some(reading) = read_power(node, incarnation, level, &declared).await else { return };
    tracing::debug!(%host, ?reading, "power device asked for its status");
    let _ = inputs.send(Input::Power { host: host.clone(), reading }).await;
}

async fn read_power(
    node: &Node,
    incarnation: &Incarnation,
    level: usize,
    declared: &FenceLevel,
) -> Option<PowerReading> {
    let devices = node.refusals.open_to_ask(declared, &node.kept);
    if devices.is_empty() {
        return None;
    }
    let asked = clock::moment();
    let power = power_of(&devices).await;
    let devices = devices.iter().map(|device| device.describe()).collect();
    let (incarnation, declared, asker) = (incarnation.clone(), declared.clone(), Some(node.host().clone()));
    Some(PowerReading { incarnation, asked, power, devices, level, declared, asker })
}

/// What the devices of a level say. One that was off when it was asked may have come back before another one went off: a host that is fed
/// by both was never off then. So all of them have to say it again after all have said it.
async fn power_of(devices: &[Arc<dyn PowerDevice>]) -> Power {
    match look(devices).await {
        Power::Off if devices.len() > 1 => look(devices).await,
        said => said,
    }
}

async fn look(devices: &[Arc<dyn PowerDevice>]) -> Power {
    let asking = devices.iter().map(|device| device.status(patience(device.as_ref())));
    let answers = futures_util::future::join_all(asking).await;
    answers.into_iter().map(in_words_of_state).fold(Power::Off, together)
}

fn in_words_of_state(answer: DeviceAnswer<DevicePower>) -> Power {
    match answer {
        DeviceAnswer::Confirmed(DevicePower::Off) => Power::Off,
        DeviceAnswer::Confirmed(DevicePower::On) => Power::On,
        DeviceAnswer::Refused { detail, .. } | DeviceAnswer::Unknown { detail } => Power::Unknown { detail },
    }
}

/// What the devices of one level say together: "on" when any says so, and "off" only when all do (R9).
fn together(all: Power, one: Power) -> Power {
    match (all, one) {
        (Power::On, _) | (_, Power::On) => Power::On,
        (Power::Unknown { detail }, _) | (_, Power::Unknown { detail }) => Power::Unknown { detail },
        (Power::Off, Power::Off) => Power::Off,
    }
}

async fn ask_voters(node: &Arc<Node>, inputs: &mpsc::Sender<Input>, host: &HostName, incarnation: &Incarnation) {
    let voters = node.voters().into_iter().filter(|(voter, _)| voter != node.host() && voter != host);
    let question = AgesQuestion { host: host.clone(), incarnation: incarnation.clone() };
    let Ok(body) = serde_json::to_vec(&question) else { return };
    let asking = voters.map(|(voter, address)| ask_voter(node, inputs, host, voter, address, body.clone()));
    futures_util::future::join_all(asking).await;
}

async fn ask_voter(
    node: &Node,
    inputs: &mpsc::Sender<Input>,
    host: &HostName,
    voter: HostName,
    address: SocketAddr,
    body: Vec<u8>,
) {
    let asked = clock::moment();
    let called = node.rpc.call(&voter, address, Channel::Ages, body, VOTER_DEADLINE).await;
    let answer = called.ok().and_then(|body| serde_json::from_slice::<AgesAnswer>(&body).ok());
    let Some(AgesAnswer { age_ms, counts, other_boot, generation: _ }) = answer else { return };
    let answer = Answer { asked, age: age_ms.map(Duration::from_millis), counts };
    let other_boot = other_boot.map(|(incarnation, age_ms)| (incarnation, Duration::from_millis(age_ms)));
    let _ = inputs.send(Input::Answer { host: host.clone(), voter, answer, other_boot }).await;
}

/// Answers the question, on any voter.
#[must_use]
pub fn answer(node: &Node, question: &AgesQuestion) -> AgesAnswer {
    let now = clock::moment();
    let age = node.heard.last_of(&question.host, &question.incarnation).map(|at| now.since(at));
    // A voter whose raft has stopped hears as well as any.
    let counts = !node.health.doubts(now) && node.has_listened(now);
    let known = node.read(|state| state.hosts.get(&question.host).cloned());
    let joined =
        |boot: &Incarnation| *boot == question.incarnation || known.as_ref().is_some_and(|h| h.knows_boot(boot));
    let other = node.heard.last_other(&question.host, joined);
    let other_boot = other.map(|life| (life.incarnation, millis(now.since(life.moment))));
    AgesAnswer { age_ms: age.map(millis), counts, other_boot, generation: node.generation() }
}

/// Which generation of the cluster a host itself says that it knows of; `None` when it does not answer.
pub async fn ask_generation(node: &Node, host: HostName) -> (HostName, Option<u32>) {
    let question = AgesQuestion { host: node.host().clone(), incarnation: node.incarnation.clone() };
    let (Some(address), Ok(body)) = (node.address(&host), serde_json::to_vec(&question)) else { return (host, None) };
    let called = node.rpc.call(&host, address, Channel::Ages, body, VOTER_DEADLINE).await;
    let answer = called.ok().and_then(|body| serde_json::from_slice::<AgesAnswer>(&body).ok());
    (host, answer.map(|answer| answer.generation))
}

#[cfg(test)]
mod tests {
    use holdfast_fencing::fake::{FakeDevice, Manner};

    use super::*;

    #[test]
    fn a_voter_of_an_older_version_answers_without_a_generation() {
        let told = r#"{"age_ms":120,"counts":true,"other_boot":["hv-a.2",40]}"#;
        let AgesAnswer { age_ms, counts, other_boot, generation } = serde_json::from_str(told).unwrap();
        assert_eq!((age_ms, counts, generation), (Some(120), true, 0));
        assert_eq!(other_boot, Some((Incarnation::new("hv-a.2").unwrap(), 40)));
    }

    #[test]
    fn a_level_is_off_only_when_all_of_its_devices_say_so() {
        let unknown = || Power::Unknown { detail: "no answer".to_owned() };
        let level = |devices: &[Power]| devices.iter().cloned().fold(Power::Off, together);
        assert_eq!(level(&[Power::Off, Power::Off]), Power::Off);
        assert_eq!(level(&[Power::Off, Power::On]), Power::On);
        assert_eq!(level(&[unknown(), Power::On]), Power::On);
        assert_eq!(level(&[Power::Off, unknown()]), unknown());
    }

    #[tokio::test(start_paused = true)]
    async fn a_level_whose_devices_were_off_one_after_the_other_was_never_off() {
        let quick = Arc::new(FakeDevice::new("quick", Manner::Works));
        let slow = Arc::new(FakeDevice::new("slow", Manner::Slow(Duration::from_secs(2))));
        for device in [&quick, &slow] {
            device.set_power(DevicePower::Off);
        }
        let devices = [&quick, &slow];
        let level = devices.map(|device| Arc::clone(device) as Arc<dyn PowerDevice>);
        assert_eq!(power_of(&level).await, Power::Off);
        let comes_back = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            quick.set_power(DevicePower::On);
        };
        assert_eq!(tokio::join!(power_of(&level), comes_back).0, Power::On);
    }
}
