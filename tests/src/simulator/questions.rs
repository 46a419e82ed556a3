//! What a simulated coordinator asks while it wonders about a host: its power device, and the other voters (R17).

use std::time::Duration;

use holdfast_policies::{
    decide::Wish,
    evidence::Answer,
    names::{HostName, Incarnation},
    proof::{Power, PowerReading},
    time::Moment,
};

use super::{Ms, breaks::Break, device::device_names, network::Transit, queue::Event, world::World};

/// Rest before the same question is asked again.
const ASK_AGAIN: Ms = 200;

impl World {
    pub(super) fn ask(&mut self, voter: usize, wish: Wish) {
        let now = self.now;
        let asked = &mut self.voters[voter].brain.asked;
        if asked.get(&wish).is_some_and(|at| now - at < ASK_AGAIN) {
            return;
        }
        asked.retain(|_, at| now - *at < 10 * ASK_AGAIN);
        asked.insert(wish.clone(), now);
        match wish {
            Wish::AskPower { host, incarnation, level } => self.ask_power(voter, &host, incarnation, level),
            Wish::AskVoters { host, incarnation } => self.ask_voters(voter, &host, &incarnation),
        }
    }

    fn ask_power(&mut self, voter: usize, host: &HostName, incarnation: Incarnation, level: usize) {
        let Some(about) = self.host_index(host) else { return };
        let declared = self.voters[voter].state.policies.levels_of(host).get(level).cloned();
        let Some(declared) = declared else { return };
        let asked = self.hosts[voter].clock(self.now);
        let (wait, power) = self.read_level(about, &declared, 2_500);
        let devices = device_names(&declared, host);
        let asker = Some(self.hosts[voter].name.clone());
        let reading = PowerReading { incarnation, asked, power, devices, level, declared, asker };
        let term = self.voters[voter].term;
        self.queue.push(self.now + wait, Event::Power { voter, term, about, reading });
    }

    pub(super) fn power_read(&mut self, voter: usize, term: u64, about: usize, reading: PowerReading) {
        if self.voters[voter].leads() && self.voters[voter].term == term {
            let name = self.hosts[about].name.clone();
            if reading.power == Power::Off {
                self.story.note(self.real(), || format!("the BMC of {name} says that it is off"));
            }
            self.take_reading(voter, &name, reading);
        }
    }

    fn ask_voters(&mut self, voter: usize, host: &HostName, incarnation: &Incarnation) {
        let Some(about) = self.host_index(host) else { return };
        let asked = self.hosts[voter].clock(self.now).0;
        let term = self.voters[voter].term;
        let others: Vec<usize> = self.members.iter().copied().filter(|other| ![voter, about].contains(other)).collect();
        for other in others {
            let boot = incarnation.to_string();
            if self.broken == Some(Break::R17) {
                // The leader's own ears count for everybody.
                let age = self.hosts[voter].heard_age(about, incarnation, self.now);
                let answer = Answer { asked: Moment(asked), age, counts: true };
                let name = self.hosts[other].name.clone();
                self.voters[voter].brain.evidence.hosts.entry(host.clone()).or_default().answers.insert(name, answer);
                continue;
            }
            if let Transit::After(wait) = self.network.send(voter, other, self.now, &mut self.random) {
                let event = Event::Ask { voter: other, by: voter, term, about, boot, asked };
                self.queue.push(self.now + wait, event);
            }
        }
    }

    pub(super) fn asked(&mut self, voter: usize, by: usize, term: u64, about: usize, boot: String, asked: u64) {
        let Ok(incarnation) = Incarnation::new(boot.clone()) else { return };
        let mut age = self.hosts[voter].heard_age(about, &incarnation, self.now);
        if self.broken == Some(Break::R16) {
            age = Some(Duration::from_secs(60));
        }
        let counts = self.is_voice(voter, self.now) || self.broken == Some(Break::R18);
        let answer = Answer { asked: Moment(asked), age, counts };
        let other = self.heard_unjoined(voter, about);
        let other = other.filter(|_| self.broken != Some(Break::R16));
        let other =
            other.map(|(at, boot)| (boot, self.hosts[voter].clock(self.now).since(self.hosts[voter].clock(at))));
        if let Transit::After(wait) = self.network.send(voter, by, self.now, &mut self.random) {
            let from = self.hosts[voter].name.clone();
            let said = Box::new((answer, other));
            self.queue.push(self.now + wait, Event::Answered { voter: by, term, from, about, boot, said });
        }
    }

    pub(super) fn answered(
        &mut self,
        voter: usize,
        term: u64,
        from: HostName,
        about: usize,
        boot: &str,
        (answer, other): (Answer, Option<(u32, Duration)>),
    ) {
        let name = self.hosts[about].name.clone();
        let now = self.hosts[voter].clock(self.now);
        let other = other.map(|(boot, age)| (self.hosts[about].incarnation(boot), age));
        let known = &mut self.voters[voter];
        let current = known.state.hosts.get(&name).is_some_and(|host| host.facts.incarnation.as_str() == boot);
        if known.leads() && known.term == term && current {
            let seen = known.brain.evidence.hosts.entry(name).or_default();
            if let Some((incarnation, age)) = other {
                seen.hear_other(&incarnation, answer.asked.minus(age), now);
            }
            seen.answers.insert(from, answer);
            known.brain.calm = false;
        }
    }
}
