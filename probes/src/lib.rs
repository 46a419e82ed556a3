//! Ask one service one question, within a deadline, and say honestly when it could not be asked.

pub mod ask;
pub mod channel;
pub mod clients;
pub mod streak;

mod agent_ping;
mod exec;
mod finding;
mod http;
mod inside;
mod tcp;

#[cfg(test)]
mod contract;
#[cfg(test)]
mod scene;

pub use ask::{Place, Target, ask};
pub use channel::{ChannelError, ExecResult, Exit, GuestChannel};
pub use clients::{Clients, ClientsError};
pub use streak::Streak;
