//! What is made of QEMU's messages: events, and the answers to what was asked.

use holdfast_policies::{happened::Happening, observe::clean};
use serde_json::Value;
use tokio::time::Instant;

use super::{
    super::{
        GuestEvent,
        argv::{AGENT_CHARDEV, AGENT_PORT, OWN_CHARDEV, OWN_PORT},
        condition::{self, MigrationStatus, View},
        wire::Message,
    },
    AskError, Monitor, Monitored,
    session::{Purpose, Session},
};
use crate::clock;

impl Monitor {
    /// Takes in one message: an event, or the answer to what was asked.
    pub(super) fn heard(&mut self, session: &mut Session, message: Message) {
        if let Some(event) = &message.event {
            let data = message.data.as_ref().unwrap_or(&Value::Null);
            self.recent.note(clock::moment(), event, data);
            self.event(event, data);
            session.status_due = true;
            return;
        }
        let Some(purpose) = message.id.and_then(|id| session.answered(id)) else { return };
        let answer = message.answer.as_ref();
        match purpose {
            Purpose::Nothing => {}
            Purpose::Asker(reply) => {
                // An asker that gave up has dropped its end.
                _ = reply.send(match (message.answer, message.error) {
                    (_, Some(refusal)) => Err(AskError::Refused(clean(&refusal.desc))),
                    (answer, None) => Ok(answer.unwrap_or(Value::Null)),
                });
            }
            Purpose::Migration => {
                let status = answer.and_then(|answer| answer.get("status")).and_then(Value::as_str);
                let status = status.filter(|word| *word != "none").map(MigrationStatus::parse);
                self.view.send_modify(|view| view.migration = status);
            }
            Purpose::Agents => {
                for agent in [Agent::Qemus, Agent::Own] {
                    if let Some(open) = answer.and_then(|answer| is_open(answer, agent.chardev())) {
                        self.set_agent(agent, open);
                    }
                }
            }
            Purpose::Status => {
                session.status_asked = None;
                match answer.and_then(|answer| answer.get("status")).and_then(Value::as_str) {
                    Some(word) => self.state(word),
                    None => self.doubt(),
                }
            }
        }
    }

    pub(super) fn event(&mut self, event: &str, data: &Value) {
        let word = |key: &str| data.get(key).and_then(Value::as_str).unwrap_or_default();
        let Monitored { guest, epoch, .. } = &self.monitored;
        match event {
            "MIGRATION" => {
                let status = MigrationStatus::parse(word("status"));
                self.tell(GuestEvent::Migration { guest: guest.clone(), epoch: *epoch, status: status.clone() });
                self.view.send_modify(|view| view.migration = Some(status));
            }
            "VSERPORT_CHANGE" => {
                let open = data.get("open").and_then(Value::as_bool).unwrap_or(false);
                match word("id") {
                    AGENT_PORT => self.set_agent(Agent::Qemus, open),
                    OWN_PORT => self.set_agent(Agent::Own, open),
                    _ => {}
                }
            }
            "WATCHDOG" => {
                let action = clean(word("action"));
                self.happenings.watchdog(clock::moment(), &action);
                self.tell(GuestEvent::Watchdog { guest: guest.clone(), epoch: *epoch, action });
            }
            "RESET" => {
                if data.get("guest").and_then(Value::as_bool).unwrap_or(false) {
                    self.happenings.reset(clock::moment());
                }
                self.view.send_modify(|view| view.resets = view.resets.saturating_add(1));
            }
            "BLOCK_IO_ERROR" => self.told.io_error = condition::io_error(data),
            "SHUTDOWN" => self.told.shutdown = Some(clean(word("reason"))),
            _ => {}
        }
    }

    fn state(&mut self, word: &str) {
        self.last_answer = Instant::now();
        self.told.ran |= word == "running";
        let migration = self.view.borrow().migration.clone();
        let context = condition::Context {
            how: self.monitored.how,
            ran: self.told.ran,
            migration: migration.as_ref(),
            io_error: &self.told.io_error,
        };
        self.set_condition(condition::condition(word, context));
    }

    fn set_agent(&self, agent: Agent, open: bool) {
        let mut before = None;
        let changed = self.view.send_if_modified(|view| {
            before = agent.known(view).replace(open);
            before != Some(open)
        });
        let own = agent == Agent::Own;
        // An agent that was not there when one began to look has not left.
        if changed && (open || before.is_some()) {
            if !open {
                self.happenings.note(clock::moment(), Happening::AgentLeft { own });
            }
            self.tell(GuestEvent::AgentChannel { guest: self.monitored.guest.clone(), own, connected: open });
        }
    }
}

/// One of the agents that may listen in a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agent {
    Qemus,
    Own,
}

impl Agent {
    fn chardev(self) -> &'static str {
        match self {
            Self::Qemus => AGENT_CHARDEV,
            Self::Own => OWN_CHARDEV,
        }
    }

    /// What is known of whether it listens.
    fn known(self, view: &mut View) -> &mut Option<bool> {
        match self {
            Self::Qemus => &mut view.agent_open,
            Self::Own => &mut view.own_open,
        }
    }
}

/// Whether somebody in the guest has opened the port behind a character device.
pub(super) fn is_open(answer: &Value, chardev: &str) -> Option<bool> {
    let devices = answer.as_array()?;
    let device = devices.iter().find(|device| device.get("label").and_then(Value::as_str) == Some(chardev))?;
    device.get("frontend-open")?.as_bool()
}
