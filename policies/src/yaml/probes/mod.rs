//! Reads `probe:`: what to ask. Kinds that ask over the network are in [`http`], [`network`] and [`databases`], those
//! that ask in the guest in [`guest`].

mod databases;
mod guest;
mod http;
mod network;
mod shared;
#[cfg(test)]
mod tests;

use super::value::Value;
use crate::model::Probe;

const KINDS: [&str; 17] = [
    "http",
    "tcp",
    "agent_ping",
    "exec",
    "tls",
    "dns",
    "grpc",
    "postgres",
    "mysql",
    "redis",
    "ping",
    "plugin",
    "file",
    "systemd",
    "process",
    "metric",
    "heartbeat",
];

/// Reads one question.
pub(super) fn read(value: &Value<'_>) -> Option<Probe> {
    let chosen = value.variant("probe", &KINDS, &[])?;
    match chosen.name {
        "http" => http::read(&chosen),
        "tcp" => network::tcp(&chosen),
        "exec" => guest::exec(&chosen),
        "tls" => network::tls(&chosen),
        "dns" => network::dns(&chosen),
        "grpc" => network::grpc(&chosen),
        "postgres" => databases::postgres(&chosen),
        "mysql" => databases::mysql(&chosen),
        "redis" => databases::redis(&chosen),
        "ping" => network::ping(&chosen),
        "plugin" => network::plugin(&chosen),
        "file" => guest::file(&chosen),
        "systemd" => guest::systemd(&chosen),
        "process" => guest::process(&chosen),
        "metric" => guest::metric(&chosen),
        "heartbeat" => guest::heartbeat(&chosen),
        _ => guest::agent_ping(&chosen),
    }
}
