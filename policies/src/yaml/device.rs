//! Reads power devices: `ipmi`, `redfish`, by way of `outside_device` those that are somebody else's programs, and by
//! way of `virtual_device` those of hosts that are themselves virtual machines.

use super::{
    across::Seen,
    fields::{Fields, Keys},
    finding::Place,
    outside_device,
    text::quoted,
    value::Value,
    virtual_device,
};
use crate::{
    model::{
        AgentDevice, CommandDevice, IpmiDevice, IpmiInterface, IpmiPrivilege, LibvirtDevice, PowerDevice, QemuDevice,
        RedfishAuth, RedfishDevice, TlsTrust, WebhookDevice,
    },
    names::HostName,
    time::Span,
};

/// The keys that begin a power device.
pub(super) const KINDS: &[&str] = &["ipmi", "redfish", "agent", "webhook", "command", "libvirt", "qemu"];

pub(super) const PASSWORD: (&str, &str) =
    ("password", "passwords stay out of policies: write it to a file on every host and name that as `password_file`");
const IPMI: Keys = Keys {
    known: &[
        "address",
        "port",
        "user",
        "password_file",
        "suite",
        "privilege",
        "interface",
        "wiring_verified_by",
        "timeout",
    ],
    later: &[],
    renamed: &[PASSWORD],
};
const REDFISH: Keys = Keys {
    known: &[
        "address",
        "port",
        "user",
        "password_file",
        "auth",
        "system",
        "ca_file",
        "fingerprint",
        "wiring_verified_by",
        "timeout",
    ],
    later: &[],
    renamed: &[
        PASSWORD,
        ("url", "write its host as `address`, and `port` if it is not 443; it is always asked over HTTPS"),
        ("insecure", "give the certificate's SHA-256 as `fingerprint`, or its authority as `ca_file`"),
    ],
};
/// Longest user name in IPMI 2.0, in bytes.
const USER_BYTES_MAX: usize = 16;
/// Reads the device under one of [`KINDS`].
pub(super) fn read(value: &Value<'_>, host: &HostName, seen: &mut Seen) -> Option<PowerDevice> {
    let mut device = match value.name {
        "ipmi" => ipmi(value).map(|(device, place)| (PowerDevice::Ipmi(device), place)),
        "redfish" => redfish(value).map(|(device, place)| (PowerDevice::Redfish(device), place)),
        "agent" => outside_device::agent(value).map(|(device, place)| (PowerDevice::Agent(device), place)),
        "webhook" => outside_device::webhook(value, host).map(|(device, place)| (PowerDevice::Webhook(device), place)),
        "libvirt" => virtual_device::libvirt(value).map(|(device, place)| (PowerDevice::Libvirt(device), place)),
        "qemu" => virtual_device::qemu(value).map(|(device, place)| (PowerDevice::Qemu(device), place)),
        _ => outside_device::command(value).map(|(device, place)| (PowerDevice::Command(device), place)),
    };
    if let Some((device, place)) = &mut device {
        seen.controllers.push((identity(device), host.clone(), *place));
    }
    device.map(|(device, _)| device)
}

/// What must not be the same for two hosts: one of them would be switched off instead of the other.
fn identity(device: &PowerDevice) -> String {
    match device {
        PowerDevice::Ipmi(IpmiDevice { address, port, .. }) => format!("{} port {port}", address.to_ascii_lowercase()),
        PowerDevice::Redfish(RedfishDevice { address, port, system, .. }) => {
            let system = system.as_ref().map(|system| format!(" system {system}")).unwrap_or_default();
            format!("{} port {port}{system}", address.to_ascii_lowercase())
        }
        PowerDevice::Agent(AgentDevice { name, options, .. }) => {
            let options: Vec<_> = options.iter().map(|(name, value)| format!("{name}={value}")).collect();
            format!("{name} {}", options.join(" "))
        }
        PowerDevice::Webhook(WebhookDevice { url, host, .. }) => format!("{url} for {host}"),
        PowerDevice::Command(CommandDevice { off, .. }) => off.join(" "),
        PowerDevice::Libvirt(LibvirtDevice { uri, domain, .. }) => format!("{uri} domain {domain}"),
        PowerDevice::Qemu(QemuDevice { socket, .. }) => socket.display().to_string(),
    }
}

fn ipmi(value: &Value<'_>) -> Option<(IpmiDevice, Place)> {
    let fields = value.fields(&IPMI)?;
    let address = fields.need("address", "address: 10.0.9.1", controller);
    let port = fields.or("port", IpmiDevice::PORT, |v| v.number(1..=u16::MAX));
    let user = fields.need("user", "user: holdfast", user);
    let password_file = fields.need("password_file", "password_file: /etc/holdfast/ipmi", Value::absolute_path);
    let suite = fields.or("suite", IpmiDevice::SUITE, suite);
    let privilege = fields.or("privilege", IpmiPrivilege::default(), |v| {
        v.one_of(&[("administrator", IpmiPrivilege::Administrator), ("operator", IpmiPrivilege::Operator)])
    });
    let interface = fields.or("interface", IpmiInterface::default(), |v| {
        v.one_of(&[("lanplus", IpmiInterface::Lanplus), ("lan", IpmiInterface::Lan)])
    });
    let (wiring_verified_by, timeout) = common(&fields);
    let device = IpmiDevice {
        address: address?,
        port: port?,
        user: user?,
        password_file: password_file?,
        suite: suite?,
        privilege: privilege?,
        interface: interface?,
        wiring_verified_by: wiring_verified_by?,
        timeout: timeout?,
    };
    Some((device, fields.place("address")))
}

fn redfish(value: &Value<'_>) -> Option<(RedfishDevice, Place)> {
    let fields = value.fields(&REDFISH)?;
    let address = fields.need("address", "address: 10.0.9.1", controller);
    let port = fields.or("port", 443, |v| v.number(1..=u16::MAX));
    let user = fields.need("user", "user: holdfast", |v| v.text().map(str::to_owned));
    let password_file = fields.need("password_file", "password_file: /etc/holdfast/redfish", Value::absolute_path);
    let auth = fields.or("auth", RedfishAuth::default(), |v| {
        v.one_of(&[("basic", RedfishAuth::Basic), ("session", RedfishAuth::Session)])
    });
    let system = fields.optional("system", system);
    let trust = trust(&fields);
    let (wiring_verified_by, timeout) = common(&fields);
    let device = RedfishDevice {
        address: address?,
        port: port?,
        user: user?,
        password_file: password_file?,
        auth: auth?,
        system: system?,
        trust: trust?,
        wiring_verified_by: wiring_verified_by?,
        timeout: timeout?,
    };
    Some((device, fields.place("address")))
}

#[expect(clippy::option_option, reason = "as in `Fields::optional`")]
pub(super) fn common(fields: &Fields<'_>) -> (Option<Option<String>>, Option<Span>) {
    let wiring_verified_by = fields.optional("wiring_verified_by", |v| v.text().map(str::to_owned));
    (wiring_verified_by, fields.or("timeout", Span::secs(20), |v| v.span_from(Span::secs(1))))
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

fn system(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let as_id = !text.contains('/');
    let as_path = text.starts_with("/redfish/") && !text.split('/').any(|part| part == "..");
    if (as_id || as_path) && text.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'?' | b'#' | b'\\')) {
        return Some(text.to_owned());
    }
    value.wrong(
        format!("{} is no system of a Redfish service", quoted(text)),
        "write its id, as in `system: System.Embedded.1`, or its path, as in `system: /redfish/v1/Systems/1`",
    )
}

/// Whose certificate is believed: `ca_file`, `fingerprint`, or neither.
pub(super) fn trust(fields: &Fields<'_>) -> Option<TlsTrust> {
    let ca_file = fields.optional("ca_file", Value::absolute_path)?;
    let fingerprint = fields.section("fingerprint");
    match (ca_file, fingerprint) {
        (None, None) => Some(TlsTrust::System),
        (Some(path), None) => Some(TlsTrust::CaFile(path)),
        (None, Some(value)) => fingerprint_of(&value).map(TlsTrust::Fingerprint),
        (Some(_), Some(value)) => value.wrong(
            "`ca_file` and `fingerprint` exclude each other",
            "keep `fingerprint` for one self-signed certificate, or `ca_file` for those of an authority",
        ),
    }
}

fn fingerprint_of(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    let digits: String = text.trim_start_matches("sha256:").chars().filter(|c| *c != ':').collect();
    if digits.len() == 64 && digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Some(digits.to_ascii_lowercase());
    }
    value.wrong(
        format!("{} is no SHA-256 fingerprint", quoted(text)),
        "64 hexadecimal digits, with or without colons; `openssl x509 -noout -fingerprint -sha256` prints it",
    )
}
