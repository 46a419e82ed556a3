//! Commands that the supervisor of this host answers, or, to an operator who has an identity, the coordinator.

use std::{path::PathBuf, time::Duration};

use holdfast_policies::{
    hostfile::HostFile,
    names::{GuestName, OperatorName},
    state::Wanted,
    yaml::{self, Source},
};
use tokio::runtime::{Builder, Runtime};

use super::{
    super::{
        api::{SOCKET_NAME, client},
        desk::{Answer, Request, Short, fence_text, simulation_text},
        identity::Identity,
    },
    arguments::Order,
    journal,
    orders::{FenceOrder, GuestOrder, HostOrder, VoterOrder},
    outcome::{Failure, Reply},
    simulate, sources,
};

/// Longest wait for an answer: a little more than the supervisor itself gives a request.
const ANSWER_LIMIT: Duration = Duration::from_secs(12);

/// Whoever is asked.
#[derive(Clone, Copy)]
pub(super) enum Asked<'a> {
    /// The supervisor of this host.
    Supervisor(&'a HostFile),
    /// The coordinator itself, by an operator.
    Coordinator(&'a Identity),
}

impl Asked<'_> {
    /// What is answered.
    pub(super) async fn answer(self, request: Request) -> Result<Answer, Failure> {
        match self {
            Self::Supervisor(host) => {
                let socket = host.run_dir.join(SOCKET_NAME);
                Ok(client::ask(&socket, &request, ANSWER_LIMIT).await??)
            }
            Self::Coordinator(identity) => Ok(identity.ask(request, ANSWER_LIMIT).await?),
        }
    }

    /// Whose identity is used.
    fn speaker(&self) -> Option<&OperatorName> {
        match self {
            Self::Supervisor(_) => None,
            Self::Coordinator(identity) => Some(identity.name()),
        }
    }
}

/// Asks, and makes the answer fit to be read.
pub(super) fn call(asked: Asked<'_>, order: Order) -> Result<Reply, Failure> {
    let short = matches!(order, Order::Status { all: false });
    let request = request(order, asked.speaker())?;
    let answer = runtime()?.block_on(asked.answer(request))?;
    if let (Answer::Status(status), true) = (&answer, short) {
        return Ok(Reply { text: Short(status).to_string(), json: answer.content(), code: 0 });
    }
    reply(&answer)
}

/// What questions are asked on.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| Failure::Failed(format!("cannot start: {error}")))
}

fn reply(answer: &Answer) -> Result<Reply, Failure> {
    if let Answer::Simulated(simulation) = answer {
        return Ok(simulate::reply(simulation));
    }
    let no = matches!(answer, Answer::FenceTested { said, .. } if !fence_text::is_fine(said));
    Ok(Reply { text: text(answer), json: answer.content(), code: u8::from(no) })
}

/// What an order asks for. `speaker` is whose identity is used.
fn request(order: Order, speaker: Option<&OperatorName>) -> Result<Request, Failure> {
    Ok(match order {
        Order::Status { .. } => Request::Status,
        Order::Explain { guest } => Request::Explain { guest },
        Order::Apply { files, dry_run, operator } => apply(&files, dry_run, operator.name(speaker))?,
        Order::Guest(order) => of_guest(order, speaker),
        Order::Host(order) => of_host(order, speaker)?,
        Order::Voter(order) => of_voter(order, speaker),
        Order::Fence(order) => of_fence(order, speaker),
        Order::Suspend { operator } => Request::Suspend { suspended: true, by: operator.name(speaker) },
        Order::Resume { operator } => Request::Suspend { suspended: false, by: operator.name(speaker) },
        Order::ReleaseStormHold { operator } => Request::ReleaseStormHold { by: operator.name(speaker) },
        Order::Simulate(order) => Request::Simulate(simulate::question(&order)?),
        Order::Init(_)
        | Order::Operator(_)
        | Order::Run
        | Order::Guard { .. }
        | Order::Check { .. }
        | Order::Completions
        | Order::Journal(_)
        | Order::Policies { .. }
        | Order::Recover(_) => return Err(not_for_the_supervisor()),
    })
}

fn not_for_the_supervisor() -> Failure {
    Failure::Failed("this command is not one for the supervisor".to_owned())
}

fn of_guest(order: GuestOrder, speaker: Option<&OperatorName>) -> Request {
    match order {
        GuestOrder::Migrate { guest, to, cold, operator } => {
            Request::Migrate { guest, to, cold, by: operator.name(speaker) }
        }
        GuestOrder::Stop { guest, operator } => want(guest, Wanted::Stopped, operator.name(speaker)),
        GuestOrder::Start { guest, operator } | GuestOrder::Manage { guest, operator } => {
            want(guest, Wanted::Running, operator.name(speaker))
        }
        GuestOrder::Unmanage { guest, operator } => want(guest, Wanted::Unmanaged, operator.name(speaker)),
        GuestOrder::Cleanup { guest, operator } => Request::LookedAfter { guest, by: operator.name(speaker) },
    }
}

/// Where a person vouches for something, that is the name that they give, whoever's identity is used.
fn of_host(order: HostOrder, speaker: Option<&OperatorName>) -> Result<Request, Failure> {
    Ok(match order {
        HostOrder::Drain { host, operator } => Request::Drain { host, by: operator.name(speaker) },
        HostOrder::Maintenance { host, operator } => Request::Maintain { host, by: operator.name(speaker) },
        HostOrder::Leaving { host, reboot, operator } => Request::Leave { host, reboot, by: operator.name(speaker) },
        HostOrder::Resume { host, operator } => Request::Resume { host, by: operator.name(speaker) },
        HostOrder::ConfirmOff { host, operator } => Request::ConfirmOff { host, person: operator },
        HostOrder::LiftQuarantine { host, machine, operator } => {
            Request::LiftQuarantine { host, machine, by: operator }
        }
        HostOrder::TrustDevice { host, operator } => Request::TrustDevice { host, by: operator },
        HostOrder::Revoke { host, why, operator } => Request::Revoke { host, why, by: operator },
        HostOrder::Readmit { host, serial, operator } => Request::Readmit { host, serial, by: operator },
        HostOrder::Certificate(_) => return Err(not_for_the_supervisor()),
    })
}

fn of_voter(order: VoterOrder, speaker: Option<&OperatorName>) -> Request {
    match order {
        VoterOrder::List => Request::Voters,
        VoterOrder::Add { host, operator } => Request::AddVoter { host, by: operator.name(speaker) },
        VoterOrder::Promote { host, operator } => Request::PromoteVoter { host, by: operator.name(speaker) },
        VoterOrder::Remove { host, force, operator } => {
            Request::RemoveVoter { host, force, by: operator.name(speaker) }
        }
    }
}

fn of_fence(order: FenceOrder, speaker: Option<&OperatorName>) -> Request {
    match order {
        FenceOrder::Test { host, from } => Request::TestFence { host, from },
        FenceOrder::Drill { host, level, operator } => Request::DrillFence { host, level, by: operator.name(speaker) },
        FenceOrder::Allow { host, operator } => Request::AllowFence { host, by: operator.name(speaker) },
    }
}

fn want(guest: GuestName, wanted: Wanted, by: String) -> Request {
    Request::Want { guest, wanted, by }
}

/// Mistakes are shown here already, with the paths as they were given and without needing a quorum.
fn apply(files: &[PathBuf], dry_run: bool, by: String) -> Result<Request, Failure> {
    let files = sources::collect(files)?;
    let parsed: Vec<Source<'_>> = files.iter().map(sources::SourceFile::source).collect();
    yaml::parse(&parsed).map_err(Failure::Findings)?;
    sources::not_blank(&files)?;
    Ok(Request::Apply { sources: sources::by_name(files)?, by, dry_run })
}

fn text(answer: &Answer) -> String {
    match answer {
        Answer::Status(status) => status.to_string(),
        Answer::Explanation(explanation) => explanation.to_string(),
        Answer::Journal(lines) => lines.iter().map(journal::text).collect(),
        Answer::Policies { sources, .. } => sources.values().map(String::as_str).collect(),
        Answer::Voters(list) => list.to_string(),
        Answer::Simulated(simulation) => simulation_text(simulation),
        Answer::Applied { version, changes, dry_run } => applied(*version, changes, *dry_run),
        Answer::FenceTested { host, said } => fence_text::fence_text(host, said),
        Answer::Accepted { what } => format!("{what}\n"),
        Answer::Ignored { why } => format!("nothing to do: {why}\n"),
    }
}

fn applied(version: u64, changes: &[String], dry_run: bool) -> String {
    let lines: String = changes.iter().map(|change| format!("{change}\n")).collect();
    let end = match (changes.is_empty(), dry_run) {
        (true, _) => format!("nothing changes; policies version {version} stays in force"),
        (false, true) => format!("nothing was changed (dry run); policies version {version} stays in force"),
        (false, false) => format!("policies version {version} is in force"),
    };
    format!("{lines}{end}\n")
}
