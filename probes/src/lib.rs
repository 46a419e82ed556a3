//! Ask one service one question, within a deadline, and say honestly when it could not be asked.

pub mod aside;
pub mod ask;
pub mod channel;
pub mod guest_agent;

mod address;
mod agent_ping;
mod exec;
mod finding;
mod head;
mod inside;
mod judge;
mod kinds;
mod memory;
#[cfg(feature = "network")]
mod network;
#[cfg(feature = "network")]
mod schedule;

#[cfg(test)]
#[cfg(feature = "network")]
mod contract;

pub use ask::{Place, Target, ask};
pub use channel::{ChannelError, ExecResult, Exit, GuestChannel};
pub use memory::{Figure, Memory};
#[cfg(feature = "network")]
pub use network::clients::{Clients, ClientsError};
#[cfg(feature = "network")]
pub use schedule::Schedule;
