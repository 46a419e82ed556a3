//! ClusterLabs fence agents: programs that read options from their standard input and switch whatever they know.
//!
//! What they are told is checked against their own description first, because they ignore what they do not know, and a
//! missing action means "reboot" to them. How they end counts: 0 done or on, 2 off, anything else unknown. With 2 also an interpreter ends
//! that cannot read its program, so one that complains has to say "Status: OFF", as they do, to be believed.
//!
//! Not all of them switch power: some cut a host off from its storage or its network, and whatever runs there runs on. Those are not
//! used, and neither are the few whose "off" says something else.

mod metadata;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;
use holdfast_policies::{model::AgentDevice, observe::clean};

use self::metadata::Metadata;
use crate::{
    causes::not_asked,
    device::{Answer, Power, PowerDevice, most_of},
    newest_off::NewestOff,
    password,
    program::{Ended, OUTPUT_BYTES_MAX, Program, not_run},
};

/// What a fence agent ends with when what it was asked about is off.
const ENDS_OFF: i32 = 2;

/// One fence agent with its options.
#[derive(Debug)]
pub struct Agent {
    settings: AgentDevice,
    newest_off: NewestOff,
}

/// Why an agent was not run.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("cannot read its password")]
    Password(#[from] password::PasswordError),
    #[error("{agent} does not know the option {option} that its password would be given with")]
    NoPassword { agent: String, option: &'static str },
    #[error("the password begins or ends with a blank or a quotation mark, which {agent} would cut off")]
    Trimmed { agent: String },
    #[error("{agent} cannot be used like this: {mistakes}")]
    Options { agent: String, mistakes: String },
    #[error("{agent} has no action {action}")]
    Action { agent: String, action: &'static str },
    #[error("{agent} cannot prove that a host is off: it {why}")]
    Unbelieved { agent: String, why: &'static str },
}

impl Agent {
    /// An agent with these settings; nothing is run before the first call.
    #[must_use]
    pub fn new(settings: AgentDevice) -> Self {
        Self { settings, newest_off: NewestOff::default() }
    }

    /// Runs one action; the answer is its exit code.
    async fn act(&self, action: &'static str, deadline: Duration) -> Answer<i32> {
        match tokio::time::timeout(deadline, self.run(action)).await {
            Ok(answer) => answer,
            Err(_) => Answer::unknown(format!("{} had not ended after {deadline:.1?}", self.settings.name)),
        }
    }

    async fn run(&self, action: &'static str) -> Answer<i32> {
        let name = &self.settings.name;
        let metadata = match metadata::of(name).await {
            Ok(metadata) => metadata,
            Err(error) => return not_asked(&error),
        };
        let stdin = match self.input(&metadata, action).await {
            Ok(stdin) => stdin,
            Err(unusable) => return not_asked(&unusable),
        };
        let began = Instant::now();
        // Any argument at all would make it ignore its input.
        let program =
            Program { name, arguments: &[], environment: &[], stdin: &stdin, output_bytes_max: OUTPUT_BYTES_MAX };
        match program.run().await {
            Err(error) => not_run(name, &error),
            Ok(ended) => match ended.code {
                Some(ENDS_OFF) if !says_off(&ended) => Answer::unknown(format!(
                    "{name} {action} ended with exit code {ENDS_OFF} without saying that it is off: {}",
                    last_words(&ended.stderr)
                )),
                Some(code @ (0 | ENDS_OFF)) => Answer::Confirmed(code),
                Some(code) => Answer::unknown(format!(
                    "{name} {action} failed with exit code {code} after {:.1?}: {}",
                    began.elapsed(),
                    last_words(&ended.stderr)
                )),
                None => Answer::unknown(format!("{name} {action} was killed")),
            },
        }
    }

    /// What the agent reads. The action comes last, because the last of a name counts.
    async fn input(&self, metadata: &Arc<Metadata>, action: &'static str) -> Result<String, Unusable> {
        let AgentDevice { name, options, password_file, .. } = &self.settings;
        let agent = || name.clone();
        if let Some(why) = metadata.why_unbelieved(name) {
            return Err(Unusable::Unbelieved { agent: agent(), why });
        }
        let mistakes = metadata.mistakes(options, password_file.is_some());
        if !mistakes.is_empty() {
            return Err(Unusable::Options { agent: agent(), mistakes: mistakes.join("; ") });
        }
        if !metadata.can(action) {
            return Err(Unusable::Action { agent: agent(), action });
        }
        let mut input: String = options.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        if let Some(file) = password_file {
            let password = password::read(file).await?;
            if password.trim() != password || password.starts_with('"') || password.ends_with('"') {
                return Err(Unusable::Trimmed { agent: agent() });
            }
            let Some(option) = metadata.password_option() else {
                return Err(Unusable::NoPassword { agent: agent(), option: metadata::PASSWORD });
            };
            input.push_str(&format!("{option}={password}\n"));
        }
        input.push_str(&format!("action={action}\n"));
        Ok(input)
    }
}

/// Whether one that ended with [`ENDS_OFF`] means that. The interpreter of an agent that cannot be read ends so, too, and complains.
fn says_off(ended: &Ended) -> bool {
    ended.stderr.trim().is_empty() || ended.stdout.to_ascii_lowercase().contains("status: off")
}

/// The end of what an agent has written: warnings of its interpreter come first.
fn last_words(stderr: &str) -> String {
    let line = stderr.lines().rev().map(str::trim).find(|line| !line.is_empty());
    clean(line.unwrap_or("it says nothing"))
}

#[async_trait]
impl PowerDevice for Agent {
    async fn status(&self, deadline: Duration) -> Answer<Power> {
        let ended = self.act("status", deadline).await;
        ended.and_then(|code| Answer::Confirmed(if code == ENDS_OFF { Power::Off } else { Power::On }))
    }

    async fn off(&self, deadline: Duration) -> Answer<()> {
        // Whether one that ends badly has sent anything, it does not tell.
        let off = async {
            self.newest_off.sends();
            accepted(self.act("off", deadline).await)
        };
        self.newest_off.watch(off).await
    }

    async fn on(&self, deadline: Duration) -> Answer<()> {
        accepted(self.act("on", deadline).await)
    }

    /// An agent waits for the power to go before it ends.
    fn patience(&self) -> Duration {
        most_of(self.settings.timeout)
    }

    fn goes_on_for(&self) -> Duration {
        self.newest_off.goes_on_for()
    }

    fn describe(&self) -> String {
        let option = |name| self.settings.options.get(name).map(|value| format!(" {name}={value}"));
        let whom = ["ip", "ipaddr", "plug", "port"].into_iter().filter_map(option);
        format!("agent {}{}", self.settings.name, whom.collect::<String>())
    }

    async fn machine_id(&self, _deadline: Duration) -> Answer<String> {
        Answer::refused("a fence agent cannot tell which machine is behind it")
    }
}

fn accepted(answer: Answer<i32>) -> Answer<()> {
    answer.and_then(|code| match code {
        0 => Answer::Confirmed(()),
        code => Answer::unknown(format!("it ended with exit code {code}")),
    })
}

#[cfg(test)]
pub(crate) mod tests;
