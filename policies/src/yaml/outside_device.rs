//! Reads power devices that are somebody else's programs: `agent`, `webhook`, `command`.

use std::collections::BTreeMap;

use super::{
    device::{PASSWORD, common, trust},
    fields::Keys,
    finding::Place,
    text::quoted,
    value::Value,
};
use crate::{
    fence_agent::{off_too_soon, why_unbelieved},
    model::{AgentDevice, CommandDevice, WebhookDevice},
    names::HostName,
};

const AGENT: Keys = Keys {
    known: &["name", "options", "password_file", "wiring_verified_by", "timeout"],
    later: &[],
    renamed: &[PASSWORD],
};

const WEBHOOK: Keys = Keys {
    known: &["url", "host", "key_file", "ca_file", "fingerprint", "wiring_verified_by", "timeout"],
    later: &[],
    renamed: &[("key", "keys stay out of policies: write it to a file on every host and name that as `key_file`")],
};
const COMMAND: Keys =
    Keys { known: &["status", "off", "on", "machine_id", "wiring_verified_by", "timeout"], later: &[], renamed: &[] };
/// Most options of a fence agent; those with most know 42.
const OPTIONS_MAX: usize = 64;
/// Options of fence agents that are given in another way, and how.
const OPTIONS_ELSEWHERE: &[(&str, &str)] = &[
    ("action", "Holdfast says itself what is to be done"),
    ("password", "passwords stay out of policies: name a file with it as `password_file`, beside `options`"),
    ("passwd", "passwords stay out of policies: name a file with it as `password_file`, beside `options`"),
    ("method", "Holdfast switches off and asks whether it is off; `cycle` would never tell"),
];

pub(super) fn agent(value: &Value<'_>) -> Option<(AgentDevice, Place)> {
    let fields = value.fields(&AGENT)?;
    let name = fields.need("name", "name: fence_apc_snmp", agent_name);
    let options = fields.or("options", BTreeMap::new(), options);
    let password_file = fields.optional("password_file", Value::absolute_path);
    let (wiring_verified_by, timeout) = common(&fields);
    let device = AgentDevice {
        name: name?,
        options: options?,
        password_file: password_file?,
        wiring_verified_by: wiring_verified_by?,
        timeout: timeout?,
    };
    Some((device, value.at))
}

pub(super) fn webhook(value: &Value<'_>, host: &HostName) -> Option<(WebhookDevice, Place)> {
    let fields = value.fields(&WEBHOOK)?;
    let url = fields.need("url", "url: https://automation.example/power", https);
    let host = fields.or("host", host.to_string(), |v| v.text().map(str::to_owned));
    let key_file = fields.need("key_file", "key_file: /etc/holdfast/power-key", Value::absolute_path);
    let trust = trust(&fields);
    let (wiring_verified_by, timeout) = common(&fields);
    let device = WebhookDevice {
        url: url?,
        host: host?,
        key_file: key_file?,
        trust: trust?,
        wiring_verified_by: wiring_verified_by?,
        timeout: timeout?,
    };
    Some((device, fields.place("url")))
}

pub(super) fn command(value: &Value<'_>) -> Option<(CommandDevice, Place)> {
    let fields = value.fields(&COMMAND)?;
    let status = fields.need("status", "status: [\"/usr/local/sbin/power\", \"status\", \"hv-a\"]", Value::command);
    let off = fields.need("off", "off: [\"/usr/local/sbin/power\", \"off\", \"hv-a\"]", Value::command);
    let on = fields.optional("on", Value::command);
    let machine_id = fields.optional("machine_id", Value::command);
    let (wiring_verified_by, timeout) = common(&fields);
    let device = CommandDevice {
        status: status?,
        off: off?,
        on: on?,
        machine_id: machine_id?,
        wiring_verified_by: wiring_verified_by?,
        timeout: timeout?,
    };
    Some((device, fields.place("off")))
}

/// What says that a host is off must be who it seems to be.
fn https(value: &Value<'_>) -> Option<String> {
    let url = value.url(false)?;
    if url.starts_with("https://") {
        return Some(url);
    }
    value.wrong(
        format!("URL {}: anybody on the way could say that the host is off", quoted(&url)),
        "begin it with `https://`; a self-signed certificate is named by its `fingerprint`",
    )
}

fn agent_name(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let rest = text.strip_prefix("fence_").unwrap_or_default();
    if !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
        if let Some(why) = why_unbelieved(text) {
            let told = format!("{} cannot prove that a host is off, and is not asked: it {why}", quoted(text));
            value.findings.doubt(value.place(), told);
        }
        return Some(text.to_owned());
    }
    value.wrong(
        format!("{} is no fence agent", quoted(text)),
        "write the program's name without its path, as in `name: fence_apc_snmp`",
    )
}

fn options(value: &Value<'_>) -> Option<BTreeMap<String, String>> {
    let entries = value.map()?;
    if entries.len() > OPTIONS_MAX {
        return value.wrong(format!("{} options", entries.len()), format!("give at most {OPTIONS_MAX}"));
    }
    let read: Vec<Option<(String, String)>> = entries.iter().map(option).collect();
    read.into_iter().collect()
}

fn option(value: &Value<'_>) -> Option<(String, String)> {
    if let Some((name, instead)) = OPTIONS_ELSEWHERE.iter().find(|(name, _)| *name == value.name) {
        value.findings.hint(value.at, format!("option {} is not given here", quoted(name)), *instead);
        return None;
    }
    if value.name.is_empty() || !value.name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-')) {
        let what = format!("{} is no option of a fence agent", quoted(value.name));
        value.findings.hint(value.at, what, "its description names them: run the agent with `-o metadata`");
        return None;
    }
    let text = value.text()?;
    // An agent strips these, and would read something else than what is written here.
    if text.trim() != text || text.starts_with('"') || text.ends_with('"') {
        return value.wrong(
            format!("option {} begins or ends with a blank or a quotation mark", quoted(value.name)),
            "agents cut these off: leave them out",
        );
    }
    if let Some(what) = off_too_soon(value.name, text) {
        let told = format!("an agent with option {} is not asked: {what}", quoted(value.name));
        value.findings.doubt(value.place(), told);
    }
    Some((value.name.to_owned(), text.to_owned()))
}
