//! What may stand behind an option: names of people, reasons, sizes and addresses of hosts, and what is said of others.

use std::net::IpAddr;

use holdfast_policies::{names::HostName, time::Span};

use crate::desk::plain::{MACHINE_CHARACTERS_MAX, PERSON_CHARACTERS_MAX, REASON_CHARACTERS_MAX, plain};

/// A person's name.
pub(super) fn person(text: &str) -> Result<String, String> {
    words(text, "name", PERSON_CHARACTERS_MAX)
}

/// Why a person does something.
pub(super) fn reason(text: &str) -> Result<String, String> {
    words(text, "reason", REASON_CHARACTERS_MAX)
}

fn words(text: &str, what: &str, most: usize) -> Result<String, String> {
    let text = text.trim();
    plain(text, what, most).map(|()| text.to_owned())
}

/// A machine's id, as an incident names it.
pub(super) fn machine(text: &str) -> Result<String, String> {
    let fits = (1..=MACHINE_CHARACTERS_MAX).contains(&text.chars().count());
    if fits && !text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        Ok(text.to_owned())
    } else {
        Err(format!("a machine's id has 1 to {MACHINE_CHARACTERS_MAX} characters, and no spaces"))
    }
}

pub(super) fn span(text: &str) -> Result<Span, String> {
    Span::try_from(text.to_owned()).map_err(|error| error.to_string())
}

pub(super) fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE, such as rack=r1")?;
    Ok((key.to_owned(), value.to_owned()))
}

/// Processors of a host of which nothing is said: enough not to matter much.
const CPUS_DEFAULT: u32 = 16;

pub(super) fn host_size(text: &str) -> Result<(HostName, u64, u32), String> {
    const FORM: &str = "write NAME=SIZE[,CPUS], such as hv-a=64GiB,16";
    let (name, size) = text.split_once('=').ok_or(FORM)?;
    let name = HostName::new(name).map_err(|error| error.to_string())?;
    let (memory, cpus) = size.split_once(',').map_or((size, None), |(memory, cpus)| (memory, Some(cpus)));
    let unit = memory.find(|character: char| !character.is_ascii_digit()).ok_or(FORM)?;
    let (number, unit) = memory.split_at_checked(unit).ok_or(FORM)?;
    let mib: u64 = match unit {
        "MiB" => 1,
        "GiB" => 1024,
        "TiB" => 1024 * 1024,
        _ => return Err(format!("{unit:?} is no unit of memory: MiB, GiB or TiB")),
    };
    let memory = number.parse::<u64>().ok().and_then(|number| number.checked_mul(mib)).ok_or(FORM)?;
    let cpus = cpus.map_or(Ok(CPUS_DEFAULT), |cpus| cpus.parse().map_err(|_| FORM.to_owned()))?;
    Ok((name, memory, cpus))
}

pub(super) fn host_address(text: &str) -> Result<(HostName, IpAddr), String> {
    let (name, address) = text.split_once('=').ok_or("write NAME=IP, such as hv-a=10.0.0.1")?;
    let name = HostName::new(name).map_err(|error| error.to_string())?;
    Ok((name, reachable(address)?))
}

/// An address at which a host can be reached.
pub(super) fn reachable(text: &str) -> Result<IpAddr, String> {
    let address: IpAddr = text.parse().map_err(|_| format!("{text:?} is not an IP address"))?;
    if address.is_unspecified() || address.is_multicast() {
        return Err(format!("no host can be reached at {address}"));
    }
    Ok(address)
}
