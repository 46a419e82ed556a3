//! What is sealed, what opens, and what must not.

use super::*;

/// A sealer of host `name` under `keys`.
pub(in super::super) fn sealer(name: &str, role: Role, started: u64, keys: &[[u8; 32]]) -> Sealer {
    let identity = Identity {
        host: HostName::new(name).unwrap(),
        role,
        incarnation: Incarnation::new("boot-1").unwrap(),
        started,
    };
    Sealer::new(Arc::new(Keyring::new(keys).unwrap()), identity)
}

fn ring(keys: &[[u8; 32]]) -> Keyring {
    Keyring::new(keys).unwrap()
}

#[test]
fn what_is_sealed_opens_with_its_sender_and_incarnation() {
    let sealer = sealer("hv-a", Role::Guard, 5, &[[1; 32]]);
    let datagrams = sealer.seal(Kind::Beacon, b"alive").unwrap();
    let opened = open(&ring(&[[1; 32]]), &datagrams[0]).unwrap();
    assert_eq!((opened.kind, opened.role, opened.host.as_str()), (Kind::Beacon, Role::Guard, "hv-a"));
    assert_eq!((opened.incarnation.as_str(), opened.body.as_slice()), ("boot-1", b"alive".as_slice()));
    assert_eq!((opened.started, opened.sequence, opened.index, opened.count), (5, 1, 0, 1));
    assert!(!datagrams[0].windows(5).any(|window| window == b"alive"));
}

/// Worked out from the frame that is drawn above, by another implementation of the cipher: what the version before there were feature
/// levels sends. Hosts of two versions hear each other.
#[test]
fn a_datagram_of_an_older_version_opens_and_this_one_seals_in_the_same_frame() {
    const OLDER: &str = concat!(
        "010202acba5f81050000000000000007000000000000000100000000000000000001000468762d6100010203040506070809",
        "0a0b0c0d0e0f10111213141516177eb2b4eae9bce6f3c12e053b60104c929dc0b1afda67a2bb4e6f9ac3811d670adebd6cb3",
        "e2dc4f95060398e296b01db3bb0ecbf706c090176d0cd2d140365bb0cc03f4f9fb69154c34dbbd8133abf82b75eff3785826",
        "072f4ebb878e3edeef45d35e4e"
    );
    let byte = |digits: &[u8]| u8::from_str_radix(std::str::from_utf8(digits).unwrap(), 16).unwrap();
    let datagram: Vec<u8> = OLDER.as_bytes().chunks(2).map(byte).collect();
    let opened = open(&ring(&[[1; 32]]), &datagram).unwrap();
    assert_eq!((opened.kind, opened.role, opened.host.as_str()), (Kind::Beacon, Role::Guard, "hv-a"));
    assert_eq!((opened.incarnation.as_str(), opened.started, opened.session), ("boot-1", 5, 7));
    assert_eq!((opened.sequence, opened.index, opened.count), (1, 0, 1));
    let beacon: super::super::Beacon = serde_json::from_slice(&opened.body).unwrap();
    assert_eq!((beacon.uptime_ms, beacon.lease_left_ms), (1_000, Some(3_500)));
    // Whoever reads them refuses keys that it does not know.
    assert_eq!(serde_json::to_vec(&beacon).unwrap(), opened.body);

    let sealer = sealer("hv-a", Role::Guard, 5, &[[1; 32]]);
    let sealed = sealer.seal(Kind::Beacon, &opened.body).unwrap().remove(0);
    assert_eq!((sealed.len(), &sealed[..15]), (datagram.len(), &datagram[..15]), "up to the session's number");
}

#[test]
fn a_datagram_that_is_sealed_into_a_used_buffer_opens_and_the_buffer_has_not_grown() {
    let sealer = sealer("hv-a", Role::Guard, 5, &[[1; 32]]);
    let mut datagram = Vec::with_capacity(DATAGRAM_BYTES_MAX);
    let room = datagram.capacity();
    let long = vec![7; FRAGMENT_BYTES_MAX];
    for (number, body) in [long.as_slice(), b"".as_slice(), b"alive".as_slice()].into_iter().enumerate() {
        sealer.seal_into(Kind::Beacon, body, &mut datagram).unwrap();
        let opened = open(&ring(&[[1; 32]]), &datagram).unwrap();
        assert_eq!((opened.body.as_slice(), opened.sequence), (body, 1 + number as u64));
        assert_eq!((opened.index, opened.count, datagram.capacity()), (0, 1, room));
    }
    let too_long = sealer.seal_into(Kind::Beacon, &vec![7; FRAGMENT_BYTES_MAX + 1], &mut datagram);
    assert!(matches!(too_long, Err(SealError::TooLongForOne { .. })), "{too_long:?}");
}

#[test]
fn no_byte_of_a_datagram_can_be_changed() {
    let datagram = sealer("hv-a", Role::Supervisor, 5, &[[1; 32]]).seal(Kind::Gossip, b"body").unwrap().remove(0);
    let ring = ring(&[[1; 32]]);
    for at in 0..datagram.len() {
        let mut tampered = datagram.clone();
        tampered[at] ^= 1;
        let refusal = open(&ring, &tampered).unwrap_err();
        match at {
            3..7 => assert_eq!(refusal, Refusal::UnknownKey),
            _ => assert!(matches!(refusal, Refusal::Unauthenticated | Refusal::Malformed), "byte {at}: {refusal}"),
        }
    }
    for length in 0..datagram.len() {
        assert!(open(&ring, &datagram[..length]).is_err());
    }
}

#[test]
fn the_old_key_opens_during_a_rotation_and_another_key_never() {
    let (old, new, other) = ([1; 32], [2; 32], [3; 32]);
    let from_old = sealer("hv-a", Role::Supervisor, 1, &[old]).seal(Kind::Gossip, b"x").unwrap().remove(0);
    let from_new = sealer("hv-a", Role::Supervisor, 1, &[new, old]).seal(Kind::Gossip, b"x").unwrap().remove(0);
    assert_eq!(ring(&[new, old]).ids(), ring(&[old, new]).ids());
    assert!(ring(&[old]).ids().is_subset(&ring(&[new, old]).ids()) && ring(&[old]).ids() != ring(&[new]).ids());
    assert!(open(&ring(&[new, old]), &from_old).is_ok());
    assert!(open(&ring(&[old, new]), &from_new).is_ok());
    assert_eq!(open(&ring(&[old]), &from_new), Err(Refusal::UnknownKey));
    assert_eq!(open(&ring(&[other]), &from_old), Err(Refusal::UnknownKey));
}

#[test]
fn the_longest_datagram_is_as_long_as_promised() {
    let long = "x".repeat(NAME_BYTES_MAX);
    let identity = Identity {
        host: HostName::new(long.clone()).unwrap(),
        role: Role::Supervisor,
        incarnation: Incarnation::new(long).unwrap(),
        started: 1,
    };
    let sealer = Sealer::new(Arc::new(ring(&[[1; 32]])), identity);
    let datagrams = sealer.seal(Kind::Gossip, &vec![7; MESSAGE_BYTES_MAX]).unwrap();
    assert_eq!(datagrams.len(), usize::from(FRAGMENTS_MAX));
    assert!(datagrams.iter().all(|datagram| datagram.len() == DATAGRAM_BYTES_MAX));
    const { assert!(DATAGRAM_BYTES_MAX <= 1410) };
    assert!(sealer.seal(Kind::Gossip, &vec![7; MESSAGE_BYTES_MAX + 1]).is_err());
    assert_eq!(open(&ring(&[[1; 32]]), &[0; DATAGRAM_BYTES_MAX + 1]), Err(Refusal::Oversize));
}

proptest::proptest! {
    #[test]
    fn garbage_never_opens_and_never_panics(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..1500)) {
        proptest::prop_assert!(open(&ring(&[[1; 32]]), &bytes).is_err());
    }
}
