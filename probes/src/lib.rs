//! Ask one service one question, within a deadline, and say honestly when it could not be asked.

pub mod ask;
pub mod channel;
#[cfg(feature = "network")]
pub mod clients;
pub mod guest_agent;

mod address;
mod agent_ping;
#[cfg(feature = "network")]
mod asker;
#[cfg(feature = "network")]
mod dns;
mod exec;
mod finding;
#[cfg(feature = "network")]
mod grpc;
#[cfg(feature = "network")]
mod http;
#[cfg(feature = "network")]
mod http2;
mod inside;
#[cfg(feature = "network")]
mod io_error;
mod judge;
mod kinds;
#[cfg(feature = "network")]
mod mysql;
#[cfg(feature = "network")]
mod mysql_login;
#[cfg(feature = "network")]
mod ping;
#[cfg(feature = "network")]
mod plugin;
#[cfg(feature = "network")]
mod postgres;
#[cfg(feature = "network")]
mod redis;
#[cfg(feature = "network")]
mod sql;
#[cfg(feature = "network")]
mod stream;
#[cfg(feature = "network")]
mod tcp;
#[cfg(feature = "network")]
mod tls;
#[cfg(feature = "network")]
mod trust;
#[cfg(feature = "network")]
mod unchecked;

#[cfg(test)]
#[cfg(feature = "network")]
mod authority;
#[cfg(test)]
#[cfg(feature = "network")]
mod contract;
#[cfg(test)]
#[cfg(feature = "network")]
mod contract_dns;
#[cfg(test)]
#[cfg(feature = "network")]
mod contract_http;
#[cfg(test)]
#[cfg(feature = "network")]
mod contract_kinds;
#[cfg(test)]
#[cfg(feature = "network")]
mod contract_network;
#[cfg(test)]
#[cfg(feature = "network")]
mod real;
#[cfg(test)]
#[cfg(feature = "network")]
mod scene;

pub use ask::{Place, Target, ask};
pub use channel::{ChannelError, ExecResult, Exit, GuestChannel};
#[cfg(feature = "network")]
pub use clients::{Clients, ClientsError};
