//! UUIDs of machines, which firmware and controllers print in different byte orders.

type Bytes = [u8; 16];

/// The UUID in a text as lower-case text with hyphens, in the byte order in which it was written.
///
/// `None` when the text is no UUID, or one that stands for "none" (all zeros or all ones).
#[must_use]
pub fn normalize(text: &str) -> Option<String> {
    parse(text).map(print)
}

/// Whether two UUIDs name the same machine, whatever byte order each was printed in.
///
/// SMBIOS stores the first three fields little-endian, IPMI reverses the whole, and tools guess which they were given.
#[must_use]
pub fn same_machine(one: &str, other: &str) -> bool {
    match (parse(one), parse(other)) {
        (Some(one), Some(other)) => orders(one).contains(&other),
        _ => false,
    }
}

/// All that comes of reversing and of swapping the first fields, in any sequence: closed, so that the relation is symmetric.
fn orders(bytes: Bytes) -> [Bytes; 8] {
    let tail_swapped = |bytes| reversed(little_endian(reversed(bytes)));
    let forward = [bytes, little_endian(bytes), tail_swapped(bytes), tail_swapped(little_endian(bytes))];
    let [a, b, c, d] = forward;
    [a, b, c, d, reversed(a), reversed(b), reversed(c), reversed(d)]
}

fn reversed(mut bytes: Bytes) -> Bytes {
    bytes.reverse();
    bytes
}

fn little_endian(bytes: Bytes) -> Bytes {
    let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
    let [i, j, k, l, m, n, o, p] = rest;
    [d, c, b, a, f, e, h, g, i, j, k, l, m, n, o, p]
}

fn parse(text: &str) -> Option<Bytes> {
    let digits: String = text.trim().chars().filter(|c| *c != '-').collect();
    if digits.len() != 32 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let bytes = u128::from_str_radix(&digits, 16).ok()?.to_be_bytes();
    let means_none = bytes == [0; 16] || bytes == [0xff; 16];
    (!means_none).then_some(bytes)
}

fn print(bytes: Bytes) -> String {
    let mut text = String::with_capacity(36);
    for (at, byte) in bytes.iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.push_str(&format!("{byte:02x}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const READ_LOCALLY: &str = "33221100-5544-7766-8899-AABBCCDDEEFF";

    #[test]
    fn one_machine_is_recognised_in_every_byte_order() {
        for same in [
            "33221100-5544-7766-8899-aabbccddeeff",
            "00112233-4455-6677-8899-aabbccddeeff",
            "ffeeddcc-bbaa-9988-7766-554433221100",
            "ffeeddcc-bbaa-9988-6677-445500112233",
            "ccddeeff-aabb-8899-7766-554433221100",
        ] {
            assert!(same_machine(READ_LOCALLY, same), "{same}");
            assert!(same_machine(same, READ_LOCALLY), "{same}");
        }
        assert!(!same_machine(READ_LOCALLY, "33221100-5544-7766-8899-aabbccddeefe"));
    }

    #[test]
    fn a_machine_without_uuid_is_the_same_as_none() {
        let none = "00000000-0000-0000-0000-000000000000";
        assert!(!same_machine(none, none));
        assert!(!same_machine("", ""));
        assert_eq!(normalize(" 33221100554477668899AABBCCDDEEFF "), normalize(READ_LOCALLY));
        assert_eq!(normalize("not a uuid"), None);
    }
}
