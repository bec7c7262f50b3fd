//! One capability has one encoding, and no bit of it may change.

use narrows::capability::{CAPABILITY_BYTES_MAX, Capability, InvalidCapability, SealError};
use prost::Message;

use crate::forge::{ALICE, BOB, CAROL, Forgery, authority, class_of_bytes, content, holder};

fn three_blocks() -> Forgery {
    Forgery::of(&content(&format!(r#"{} right("acme", "read");"#, authority())))
        .delegate(ALICE, &format!(r#"{} check if operation("read");"#, holder(BOB)))
        .delegate(BOB, &holder(CAROL))
}

#[test]
fn every_flipped_bit_and_every_truncation_is_refused() {
    for sealed in [false, true] {
        let mut forgery = three_blocks();
        forgery.sealed = sealed;
        let genuine = forgery.schema().encode_to_vec();
        assert_eq!(class_of_bytes(&genuine), "accepted");
        for at in 0..genuine.len() {
            for bit in 0..8 {
                let mut flipped = genuine.clone();
                flipped[at] ^= 1 << bit;
                assert_ne!(class_of_bytes(&flipped), "accepted", "sealed {sealed}, byte {at}, bit {bit}");
            }
            assert_ne!(class_of_bytes(&genuine[..at]), "accepted", "sealed {sealed}, cut at {at}");
        }
    }
}

#[test]
fn another_encoding_of_the_container_is_refused() {
    let schema = three_blocks().schema();
    let genuine = schema.encode_to_vec();
    assert_eq!(class_of_bytes(&genuine), "accepted");
    // Field 15, a varint, which nobody knows.
    assert_eq!(class_of_bytes(&[genuine.as_slice(), &[15 << 3, 0]].concat()), "non_canonical");
    // The root key's number, first in the encoding, once more at the end, or in a longer varint.
    assert_eq!(genuine[..2], [1 << 3, 7]);
    assert_eq!(class_of_bytes(&[genuine.as_slice(), &genuine[..2]].concat()), "non_canonical");
    assert_eq!(class_of_bytes(&[&genuine[2..], &genuine[..2]].concat()), "non_canonical");
    assert_eq!(class_of_bytes(&[&[1 << 3, 0x87, 0], &genuine[2..]].concat()), "non_canonical");
    assert_eq!(class_of_bytes(b"{}"), "malformed");
    assert_eq!(class_of_bytes(b""), "malformed");
}

#[test]
fn another_encoding_of_a_payload_is_refused_though_it_is_signed() {
    let block = content(&format!(r#"{} right("acme", "read");"#, authority()));
    let mut forgery = Forgery::of(&block);
    let genuine = forgery.links[0].payload.clone();
    let mut class = |payload: Vec<u8>| {
        forgery.links[0].payload = payload;
        forgery.class()
    };
    assert_eq!(class(genuine.clone()), "accepted");
    assert_eq!(class([genuine.as_slice(), &[15 << 3, 0]].concat()), "non_canonical");
    // The version (field 3) before the symbols (field 1), and in a longer varint.
    assert!(genuine.windows(2).any(|bytes| bytes == [3 << 3, 6]));
    assert_eq!(class([&[3 << 3, 6], genuine.as_slice()].concat()), "non_canonical");
    assert_eq!(class([genuine.as_slice(), &[3 << 3, 0x86, 0]].concat()), "non_canonical");
    assert_eq!(class(genuine), "accepted");
}

#[test]
fn text_has_one_spelling() {
    let text = three_blocks().capability().to_text();
    assert!(!text.contains('='));
    assert_eq!(Capability::from_text(&text), Ok(three_blocks().capability()));
    for wrong in [format!("{text}="), format!("{text}\n"), format!(" {text}"), text.replace(['-', '_'], "+")] {
        assert_eq!(Capability::from_text(&wrong).err(), Some(InvalidCapability::Encoding), "{wrong}");
    }
    // Stray bits in the last character decode to the same bytes, and are refused.
    assert_eq!(Capability::from_text("AA").map(|capability| capability.as_bytes().to_vec()), Ok(vec![0]));
    assert_eq!(Capability::from_text("AB").err(), Some(InvalidCapability::Encoding));
}

#[test]
fn the_size_is_bounded_at_the_edge() {
    let largest = vec![0; CAPABILITY_BYTES_MAX];
    assert!(Capability::from_bytes(&largest).is_ok());
    let larger = vec![0; CAPABILITY_BYTES_MAX + 1];
    assert_eq!(Capability::from_bytes(&larger).err(), Some(InvalidCapability::TooLarge));
    let text = Capability::from_bytes(&largest).expect("in bounds").to_text();
    assert!(Capability::from_text(&text).is_ok());
    assert_eq!(Capability::from_text(&format!("{text}A")).err(), Some(InvalidCapability::TooLarge));
    assert_eq!(Capability::from_text(&"A".repeat(1 << 20)).err(), Some(InvalidCapability::TooLarge));
}

#[test]
fn debug_shows_no_capability_and_sealing_twice_is_an_error() {
    let capability = three_blocks().capability();
    let shown = format!("{capability:?}");
    assert!(shown.len() < 60 && !capability.to_text().contains(&shown), "{shown}");
    let sealed = capability.seal().expect("unsealed");
    assert_eq!(sealed.seal().err(), Some(SealError::Sealed));
    assert!(Capability::from_bytes(b"x").expect("bytes").seal().is_err());
}
