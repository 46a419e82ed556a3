//! Reads the power devices of hosts that are themselves virtual machines: `libvirt`, `qemu`.

use std::path::PathBuf;

use super::{device::common, fields::Keys, finding::Place, text::quoted, value::Value};
use crate::model::{LibvirtDevice, QemuDevice};

const LIBVIRT: Keys = Keys {
    known: &["uri", "domain", "wiring_verified_by", "timeout"],
    later: &[],
    renamed: &[("password", "`virsh` gets none: give root of every host an ssh key that libvirt's machine takes")],
};
const QEMU: Keys =
    Keys { known: &["socket", "pidfile", "start", "wiring_verified_by", "timeout"], later: &[], renamed: &[] };
/// Longest path of a Unix socket that the kernel takes, in bytes.
const SOCKET_BYTES_MAX: usize = 107;

pub(super) fn libvirt(value: &Value<'_>) -> Option<(LibvirtDevice, Place)> {
    let fields = value.fields(&LIBVIRT)?;
    let uri = fields.need("uri", "uri: qemu+ssh://root@hyper/system", uri);
    let domain = fields.need("domain", "domain: hv-a", domain);
    let (wiring_verified_by, timeout) = common(&fields);
    let device =
        LibvirtDevice { uri: uri?, domain: domain?, wiring_verified_by: wiring_verified_by?, timeout: timeout? };
    Some((device, fields.place("domain")))
}

pub(super) fn qemu(value: &Value<'_>) -> Option<(QemuDevice, Place)> {
    let fields = value.fields(&QEMU)?;
    let socket = fields.need("socket", "socket: /run/hv-a/qmp", socket);
    let pidfile = fields.need("pidfile", "pidfile: /run/hv-a/pid", Value::absolute_path);
    let start = fields.optional("start", Value::command);
    let (wiring_verified_by, timeout) = common(&fields);
    let device = QemuDevice {
        socket: socket?,
        pidfile: pidfile?,
        start: start?,
        wiring_verified_by: wiring_verified_by?,
        timeout: timeout?,
    };
    Some((device, fields.place("socket")))
}

/// Where libvirt is.
fn uri(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    match uri_mistake(text) {
        Some((what, hint)) => value.wrong(what, hint),
        None => Some(text.to_owned()),
    }
}

fn uri_mistake(text: &str) -> Option<(&'static str, &'static str)> {
    let example = "write it like `qemu+ssh://root@hyper/system`";
    let (scheme, rest) = text.split_once("://").unwrap_or_default();
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'+');
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, machine) = authority.rsplit_once('@').unwrap_or(("", authority));
    if !is_scheme {
        Some(("`uri` is no connection URI of libvirt", example))
    } else if !text.bytes().all(|b| b.is_ascii_graphic()) {
        Some(("`uri` contains a space or another character that URIs do not have", example))
    } else if user.contains(':') {
        Some(("`uri` contains a password, which would end up in the journal", "leave it out, and give root an ssh key"))
    } else if user.starts_with('-') || machine.starts_with('-') {
        Some(("the user or machine in `uri` begins with `-`: ssh would take it for an option", example))
    } else {
        None
    }
}

/// A domain that means the same one tomorrow. `virsh` looks a number up among the ids of those that run now first, and
/// takes what begins with `-` for an option.
fn domain(value: &Value<'_>) -> Option<String> {
    let text = value.text()?;
    if !text.starts_with(|c: char| c.is_alphanumeric() || c == '_') {
        return value.wrong(
            format!("domain {} begins with neither a letter nor a digit", quoted(text)),
            "write its UUID, as `virsh domuuid` prints it",
        );
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return value.wrong(
            format!("domain {} is a number: libvirt numbers running domains anew at each start", quoted(text)),
            "write its UUID, as `virsh domuuid` prints it",
        );
    }
    Some(text.to_owned())
}

fn socket(value: &Value<'_>) -> Option<PathBuf> {
    let path = value.absolute_path()?;
    if path.as_os_str().len() > SOCKET_BYTES_MAX {
        return value.wrong(
            format!("the path of a socket is longer than {SOCKET_BYTES_MAX} bytes"),
            "the kernel takes no longer ones: move it up, as in `socket: /run/hv-a/qmp`",
        );
    }
    Some(path)
}
