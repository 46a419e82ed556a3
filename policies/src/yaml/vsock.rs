//! Reads a guest's `vsock`: the way to Holdfast's own agent that is no virtio-serial port.

use std::path::PathBuf;

use super::{across::Seen, fields::Keys, text::quoted, value::Value};
use crate::{
    model::{VSOCK_PORT, Vsock, VsockCarrier},
    names::GuestName,
};

const VSOCK: Keys = Keys {
    known: &["cid", "device", "socket", "port"],
    later: &[],
    renamed: &[("guest_cid", "write `cid`"), ("uds_path", "write `socket`")],
};

/// Lowest CID of a guest: those below are the hypervisor's, the machine's own and the host's (vsock(7)).
const CID_MIN: u32 = 3;
/// Highest CID and highest port: the one above means "any" (vsock(7)).
const NUMBER_MAX: u32 = u32::MAX - 1;
/// Longest path of a Unix socket, in bytes (unix(7)).
const SOCKET_BYTES_MAX: usize = 107;

/// Reads one.
pub(super) fn read(value: &Value<'_>, name: &GuestName, seen: &mut Seen) -> Option<Vsock> {
    let fields = value.fields(&VSOCK)?;
    let port = fields.or("port", VSOCK_PORT, |v| v.number(1..=NUMBER_MAX));
    let cid = fields.optional("cid", |v| v.number(CID_MIN..=NUMBER_MAX));
    let device = fields.optional("device", socket);
    let socket = fields.optional("socket", socket);
    if let Some(Some(cid)) = cid {
        seen.cids.push((cid.to_string(), name.clone(), fields.place("cid")));
    }
    for (key, path) in [("device", &device), ("socket", &socket)] {
        if let Some(Some(path)) = path {
            seen.vsock_sockets.push((path.display().to_string(), name.clone(), fields.place(key)));
        }
    }
    let carrier = match (cid?, device?, socket?) {
        (Some(cid), None, None) => VsockCarrier::Kernel { cid },
        (None, Some(device), Some(socket)) => VsockCarrier::Program { device, socket },
        (None, None, None) => {
            return value.wrong(
                "`vsock` does not say what carries it",
                "add `cid: 100` for the kernel's vhost_vsock, or `device` and `socket` of a program such as vhost-device-vsock",
            );
        }
        (None, Some(_), None) | (None, None, Some(_)) => {
            return value.wrong(
                "`device` and `socket` belong together: QEMU connects to the one, Holdfast to the other",
                "add the one that is missing",
            );
        }
        (Some(_), Some(_), _) | (Some(_), None, Some(_)) => {
            return value.wrong(
                "`vsock` has a `cid` for the kernel and sockets of a program",
                "leave `cid` out, which is then told to that program, or leave `device` and `socket` out",
            );
        }
    };
    Some(Vsock { carrier, port: port? })
}

fn socket(value: &Value<'_>) -> Option<PathBuf> {
    let path = value.absolute_path()?;
    if path.as_os_str().len() > SOCKET_BYTES_MAX {
        let what =
            format!("{} is longer than the {SOCKET_BYTES_MAX} bytes that a socket's path may have", quoted(value.name));
        return value.wrong(what, "put it into a folder with a shorter path, such as /run/vsock");
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use crate::{
        model::{Vsock, VsockCarrier},
        yaml::{Source, parse},
    };

    /// Reads guests `a` and `b`, each with an agent and one of these; mistakes without their places.
    fn read(vsocks: [&str; 2], more: &str) -> Result<Option<Vsock>, Vec<String>> {
        let guest = |name: &str, vsock: &str| {
            let comma = if vsock.is_empty() { "" } else { ", " };
            format!("  {name}: {{ {more} qemu: {{ memory: 1GiB, kernel: /k, {vsock}{comma}holdfast_agent: true }} }}\n")
        };
        let text = format!("guests:\n{}{}", guest("a", vsocks[0]), guest("b", vsocks[1]));
        let policies = parse(&[Source { name: "a.yaml", text: &text }])
            .map_err(|found| found.iter().map(|finding| finding.what.clone()).collect::<Vec<_>>())?;
        Ok(policies.guests.values().next().unwrap().qemu.vsock.clone())
    }

    #[test]
    fn vsock_is_carried_by_the_kernel_or_by_a_program_and_has_a_port() {
        assert_eq!(read(["", ""], ""), Ok(None));
        let kernel = read(["vsock: { cid: 100 }", "vsock: { cid: 101 }"], "").unwrap();
        assert_eq!(kernel, Some(Vsock { carrier: VsockCarrier::Kernel { cid: 100 }, port: 7413 }));
        let program =
            read(["vsock: { device: /run/d, socket: /run/s, port: 52 }", ""], "live_migration: false,").unwrap();
        let carrier = VsockCarrier::Program { device: "/run/d".into(), socket: "/run/s".into() };
        assert_eq!(program, Some(Vsock { carrier, port: 52 }));
    }

    #[test]
    fn mistakes_in_vsock_say_what_would_be_right() {
        let long = format!("vsock: {{ device: /run/d, socket: /{} }}", "x".repeat(107));
        for (vsock, expected) in [
            ("vsock: {}", "`vsock` does not say what carries it"),
            ("vsock: { port: 9 }", "`vsock` does not say what carries it"),
            ("vsock: { cid: 2 }", "`cid` must be a whole number from 3 to 4294967294, not `2`"),
            ("vsock: { cid: 9, port: 0 }", "`port` must be a whole number from 1 to 4294967294, not `0`"),
            ("vsock: { cid: 9, socket: /run/s }", "`vsock` has a `cid` for the kernel and sockets of a program"),
            ("vsock: { socket: /run/s }", "`device` and `socket` belong together"),
            ("vsock: { device: run/d, socket: /run/s }", "`device` must be an absolute path"),
            (long.as_str(), "`socket` is longer than the 107 bytes"),
            ("vsock: { guest_cid: 9, cid: 9 }", "unknown key `guest_cid`"),
        ] {
            let found = read([vsock, ""], "live_migration: false,").unwrap_err();
            assert!(found.len() == 1 && found[0].starts_with(expected), "{vsock}: {found:?}");
        }
    }

    #[test]
    fn two_guests_have_neither_one_cid_nor_one_program() {
        for (one, other, expected) in [
            ("vsock: { cid: 9 }", "vsock: { cid: 9 }", "CID `9` is already that of guest `a`"),
            (
                "vsock: { device: /run/d, socket: /run/s }",
                "vsock: { device: /run/e, socket: /run/./s }",
                "socket `/run/s` is already that of guest `a`",
            ),
        ] {
            let found = read([one, other], "live_migration: false,").unwrap_err();
            assert!(found.len() == 1 && found[0].starts_with(expected), "{found:?}");
        }
    }

    #[test]
    fn a_guest_that_qemu_does_not_move_live_must_be_declared_so() {
        let found = read(["vsock: { device: /run/d, socket: /run/s }", ""], "").unwrap_err();
        assert!(found.len() == 1 && found[0].contains("QEMU does not move it live"), "{found:?}");
    }

    #[test]
    fn vsock_without_the_agent_that_it_leads_to_is_a_mistake() {
        let text = "guests: { g: { qemu: { memory: 1GiB, kernel: /k, vsock: { cid: 9 } } } }\n";
        let found = parse(&[Source { name: "a.yaml", text }]).unwrap_err();
        assert!(found.len() == 1 && found[0].what.starts_with("`vsock` is a way to Holdfast's own agent"), "{found:?}");
    }
}
