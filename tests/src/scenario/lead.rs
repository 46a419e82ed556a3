//! Who leads, what it hears by syncs, and what it decides: the product's own [`decide`] and [`reply`].

use holdfast_policies::{
    change::Change,
    check::check,
    decide::{Wish, decide},
    evidence::{Answer, Evidence, Heard, Sight},
    names::{GuestName, HostName, Incarnation},
    proof::{Power, PowerReading, Proof},
    reply::reply,
    sync::{SyncReply, SyncRequest},
    time::{Moment, Now, WallTime, millis},
};

use super::{
    host::Node,
    map::Fencing,
    world::{Quorum, World},
};

impl World {
    pub(super) fn lead(&mut self) {
        let able = |node: &Node| node.connected() && node.may_lead && node.supervisor.is_some();
        // The agent is what dies in a host whose agent is dead; what votes there goes on.
        let heard = self.nodes.iter().filter(|node| node.connected()).count();
        let quorum = match self.quorum {
            Quorum::Majority => heard * 2 > self.nodes.len(),
            Quorum::Given => heard > 0,
            Quorum::Lost => false,
        };
        let stays = self.leader.and_then(|leader| self.nodes.get(leader)).is_some_and(able);
        if !quorum || !stays {
            self.leader = None;
        }
        if quorum && self.leader.is_none() {
            self.leader = self.nodes.iter().position(able);
            self.stirred = self.now;
            if let Some(leader) = self.leader {
                self.term += 1;
                let marks = std::mem::take(&mut self.evidence.marks);
                let (quorum_since, me) = (Some(Moment(self.now)), self.nodes.get(leader).map(|node| node.name.clone()));
                self.evidence = Evidence { quorum_since, me, marks, ..Evidence::default() };
            }
        }
        let votes = |node: &&Node| self.quorum == Quorum::Majority || node.connected();
        self.evidence.voters = self.nodes.iter().filter(votes).map(|node| node.name.clone()).collect();
    }

    /// The coordinator changes, and knows only what is committed.
    pub fn depose(&mut self) {
        self.stir();
        self.leader = None;
    }

    pub(super) fn think(&mut self) {
        if self.leader.is_none() {
            return;
        }
        for node in &self.nodes {
            if let Some(incarnation) = node.incarnation().filter(|boot| self.state.is_current(&node.name, boot)) {
                let heard = Some(Heard { at: Moment(node.heard), incarnation });
                self.evidence.hosts.entry(node.name.clone()).or_default().heard = heard;
            }
        }
        let now = Now { moment: Moment(self.now), wall: WallTime(self.now) };
        let decision = decide(&self.state, &self.evidence, &self.timing, now);
        self.go_aheads = decision.go_aheads;
        for wish in decision.wishes {
            self.fulfil(wish);
        }
        let broken = check(&self.state, &self.evidence, &self.timing, now.moment, &decision.commands);
        if let Some(first) = broken.first() {
            // As in the product: nobody knows what else is wrong with such a plan.
            self.refused.push(format!("{first}: {:?}", decision.commands));
            return;
        }
        for change in decision.commands {
            self.commit(change);
        }
    }

    fn fulfil(&mut self, wish: Wish) {
        let asked = Moment(self.now);
        match wish {
            Wish::AskPower { host, incarnation, level } => {
                let power = self.power_of(&host);
                let Some(declared) = self.state.policies.levels_of(&host).get(level).cloned() else { return };
                let devices = vec!["bmc".to_owned()];
                let asker = self.evidence.me.clone();
                let reading = PowerReading { incarnation, asked, power, devices, level, declared, asker };
                self.evidence.hosts.entry(host).or_default().read(reading);
            }
            Wish::AskVoters { host, incarnation } => {
                let Some(about) = self.nodes.iter().find(|node| node.name == host) else { return };
                let same = about.incarnation() == Some(incarnation);
                let age = same.then(|| asked.since(Moment(about.heard)));
                let others =
                    self.nodes.iter().filter(|node| node.connected() && Some(&node.name) != self.evidence.me.as_ref());
                let answers: Vec<HostName> = others.map(|node| node.name.clone()).collect();
                let known = self.evidence.hosts.entry(host).or_default();
                for voter in answers {
                    known.answers.insert(voter, Answer { asked, age, counts: true });
                }
            }
        }
    }

    /// What the power device of a host says.
    #[must_use]
    pub fn power_of(&self, host: &HostName) -> Power {
        let unknown = |detail: &str| Power::Unknown { detail: detail.to_owned() };
        let Some(node) = self.nodes.iter().find(|node| node.name == *host) else { return unknown("no such host") };
        match self.fencing {
            Fencing::Device if node.on => Power::On,
            Fencing::Device => Power::Off,
            Fencing::Itself(seconds) => {
                let over = self.now.saturating_sub(node.authority) >= millis(self.timing.lease.0) + seconds * 1_000;
                // A new boot has none of the right of the one that is asked about.
                let anew = node.incarnation().is_some_and(|boot| !self.state.is_current(host, &boot));
                let off = if node.on { anew && over } else { node.orderly || over };
                if off { Power::Off } else { unknown("its lease may be valid") }
            }
            Fencing::External | Fencing::Nobody => unknown("no device"),
        }
    }

    /// Somebody outside has switched the host off and says so; the cluster takes the word when the host is not heard.
    pub(super) fn take_confirmations(&mut self) {
        for host in self.confirmed.clone() {
            let Some(known) = self.state.hosts.get(&host).filter(|_| self.leader.is_some()) else { continue };
            let (incarnation, fresh) = (known.facts.incarnation.clone(), millis(self.timing.suspect_after.0));
            let heard = self.nodes.iter().find(|node| node.name == host).map(|node| self.now - node.heard);
            if let Ok(proof) = Proof::operator(&host, &incarnation, "whoever fenced it", heard, fresh) {
                self.confirmed.remove(&host);
                self.commit(Change::HostGone { proof, last_well: None, last_words: None });
            }
        }
    }

    pub(super) fn sync_all(&mut self) {
        for index in 0..self.nodes.len() {
            let now = self.now;
            let Some(node) = self.nodes.get_mut(index).filter(|node| node.connected() && self.leader.is_some()) else {
                continue;
            };
            let Some(request) = node.request(now) else { continue };
            let Some(reply) = self.on_sync(request) else { continue };
            let stays = |guest: &GuestName| self.faults.get(guest).is_some_and(|faults| faults.stop);
            let Some(node) = self.nodes.get_mut(index) else { continue };
            let (host, stopped) = (node.name.clone(), node.on_reply(reply, now, stays));
            for guest in stopped {
                self.tell_of("stop", &guest, &host, None);
            }
        }
    }

    fn on_sync(&mut self, request: SyncRequest) -> Option<SyncReply> {
        let (host, boot) = (request.host.clone(), request.facts.incarnation.clone());
        let joined = self.state.hosts.get(&host).is_some_and(|known| known.facts == request.facts);
        if !joined && self.state.may_join(&host, &boot, request.seen) {
            self.commit(Change::HostJoined { host: host.clone(), facts: request.facts.clone(), follows: None });
        }
        if self.state.is_current(&host, &boot) {
            self.gather(&host, &boot, &request);
        }
        Some(reply(&self.state, &request, self.term, self.timing.lease.0, &self.go_aheads))
    }

    fn gather(&mut self, host: &HostName, boot: &Incarnation, request: &SyncRequest) {
        let moment = Moment(self.now);
        let known = self.evidence.hosts.entry(host.clone()).or_default();
        known.sync = Some(Heard { at: moment, incarnation: boot.clone() });
        known.seen = request.seen;
        known.report(request.reports.iter().map(|report| (report.guest.clone(), report.clone())).collect(), moment);
        for sight in request.sights.clone() {
            let passed = sight.passed_ago_ms.map(|_| moment);
            let (epoch, state, detail) = (sight.epoch, sight.state, sight.detail);
            let seen = Sight { epoch, state, at: moment, since: moment, passed, warns: sight.warns, detail };
            let services = self.evidence.services.entry(sight.guest).or_default();
            let vantages = services.entry(sight.service).or_default();
            let seen = seen.following(vantages.get(&sight.vantage));
            vantages.insert(sight.vantage, seen);
        }
        for result in request.results.clone() {
            if let Some(reading) = &result.reading
                && let Some(taken) = request.reading_asked_for(&self.state, result.order, reading, moment)
            {
                self.evidence.hosts.entry(reading.host.clone()).or_default().read(taken);
            }
            if request.order_given(&self.state, result.order).is_some() {
                self.commit(Change::OrderEnded { order: result.order, outcome: result.outcome });
            }
        }
    }
}
