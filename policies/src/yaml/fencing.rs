//! Reads `fencing:`: how each host can be made to be off.

use std::collections::BTreeMap;

use super::{across::Seen, fields::Keys, text::quoted, value::Value};
use crate::{
    model::{FenceLevel, IpmiDevice},
    names::HostName,
    time::Span,
};

const LEVELS: &[&str] = &["ipmi", "operator"];
const LEVELS_LATER: &[&str] = &["agent", "redfish", "lease"];
const IPMI: Keys = Keys {
    known: &["address", "port", "user", "password_file", "suite", "wiring_verified_by", "timeout"],
    later: &[],
    renamed: &[(
        "password",
        "passwords stay out of policies: write it to a file on every host and name that as `password_file`",
    )],
};
const OPERATOR: Keys = Keys { known: &[], later: &[], renamed: &[] };

/// Most levels of one host; every level costs its time-out.
const LEVELS_MAX: usize = 8;
/// Longest user name in IPMI 2.0, in bytes.
const USER_BYTES_MAX: usize = 16;

/// Reads the levels of all hosts of a section.
pub(super) fn read(section: &Value<'_>, into: &mut BTreeMap<HostName, Vec<FenceLevel>>, seen: &mut Seen) {
    for value in section.map().unwrap_or_default() {
        let Some(host) = value.key_name::<HostName>() else { continue };
        if let Some(first) = seen.fencing.get(&host) {
            seen.twice(&value, "fencing of host", *first);
            continue;
        }
        seen.fencing.insert(host.clone(), value.at);
        if let Some(levels) = levels(&value, &host, seen) {
            into.insert(host, levels);
        }
    }
}

fn levels(value: &Value<'_>, host: &HostName, seen: &mut Seen) -> Option<Vec<FenceLevel>> {
    let items = value.list("write `- ipmi: { … }` or `- operator` below it")?;
    if items.is_empty() || items.len() > LEVELS_MAX {
        return value.wrong(
            format!("host {} has {} fence levels", quoted(value.name), items.len()),
            format!("give 1 to {LEVELS_MAX}, at least `- operator`"),
        );
    }
    let read: Vec<Option<FenceLevel>> = items.iter().map(|item| level(item, host, seen)).collect();
    read.into_iter().collect()
}

fn level(item: &Value<'_>, host: &HostName, seen: &mut Seen) -> Option<FenceLevel> {
    let chosen = item.variant("fence level", LEVELS, LEVELS_LATER)?;
    match chosen.name {
        "ipmi" => ipmi(&chosen, host, seen).map(FenceLevel::Ipmi),
        _ => chosen.fields(&OPERATOR).map(|_| FenceLevel::Operator {}),
    }
}

fn ipmi(value: &Value<'_>, host: &HostName, seen: &mut Seen) -> Option<IpmiDevice> {
    let fields = value.fields(&IPMI)?;
    let address = fields.need("address", "address: 10.0.9.1", controller);
    let port = fields.or("port", 623, |v| v.number(1..=u16::MAX));
    let user = fields.need("user", "user: holdfast", user);
    let password_file = fields.need("password_file", "password_file: /etc/holdfast/ipmi", Value::absolute_path);
    let suite = fields.or("suite", 17, suite);
    let wiring_verified_by = fields.optional("wiring_verified_by", |v| v.text().map(str::to_owned));
    let timeout = fields.or("timeout", Span::secs(20), |v| v.span_from(Span::secs(1)));
    if let (Some(address), Some(port)) = (&address, port) {
        let device = format!("{} port {port}", address.to_ascii_lowercase());
        seen.controllers.push((device, host.clone(), fields.place("address")));
    }
    Some(IpmiDevice {
        address: address?,
        port: port?,
        user: user?,
        password_file: password_file?,
        suite: suite?,
        wiring_verified_by: wiring_verified_by?,
        timeout: timeout?,
    })
}

fn controller(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let is_address = text.parse::<std::net::IpAddr>().is_ok();
    let is_name = text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'));
    if is_address || is_name {
        return Some(text.to_owned());
    }
    value.wrong(
        format!("{} is neither an address nor a host name", quoted(text)),
        "write `address: 10.0.9.1`, without scheme; the port has its own key, `port`",
    )
}

fn user(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if text.len() > USER_BYTES_MAX {
        return value.wrong(
            format!("user {} is longer than {USER_BYTES_MAX} bytes", quoted(text)),
            "IPMI allows no longer names",
        );
    }
    Some(text.to_owned())
}

fn suite(value: &Value<'_>) -> Option<u8> {
    match value.number(0..=u8::MAX)? {
        suite @ (3 | 17) => Some(suite),
        other => value.wrong(
            format!("cipher suite {other} is not supported"),
            "17 (SHA-256), or 3 (SHA-1) for older controllers",
        ),
    }
}
