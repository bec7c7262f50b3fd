//! The needles that a secret makes.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use zeroize::Zeroizing;

use super::patterns::Known;
use super::spelling::{Kind, Needle};
use crate::credential::injection::{self, Injection};

/// Every form of a secret, and of what it is or was injected as.
pub(super) fn needles(known: &Known<'_>) -> Vec<Needle> {
    let value = known.secret.expose();
    let mut needles = Vec::new();
    add(&mut needles, Zeroizing::new(value.to_vec()), Kind::Text);
    encoded(&mut needles, value);
    add(&mut needles, utf16(value), Kind::Exact);
    if !value.is_ascii() {
        // Headers are read as Latin-1 by many servers, and said again in UTF-8.
        let text: Zeroizing<String> = Zeroizing::new(value.iter().map(|&byte| char::from(byte)).collect());
        add(&mut needles, Zeroizing::new(text.as_bytes().to_vec()), Kind::Text);
    }
    for injection in known.injections {
        whole(&mut needles, value, injection);
    }
    needles
}

/// What holds the secret in another form than its own.
fn whole(needles: &mut Vec<Needle>, value: &[u8], injection: &Injection) {
    match injection {
        Injection::Header { .. } => {}
        Injection::Basic { user } => {
            let pair = Zeroizing::new([user.as_bytes(), b":", value].concat());
            let token = Zeroizing::new(STANDARD_NO_PAD.encode(&*pair).into_bytes());
            let url_safe = Zeroizing::new(URL_SAFE_NO_PAD.encode(&*pair).into_bytes());
            encoded(needles, &token);
            add(needles, token, Kind::Text);
            add(needles, url_safe, Kind::Text);
        }
        // As it is sent it is a spelling of the secret; encoded again it is not.
        Injection::Query { .. } => {
            let sent: Zeroizing<Vec<u8>> = Zeroizing::new(injection::in_query(value).flat_map(str::bytes).collect());
            if *sent != value {
                encoded(needles, &sent);
            }
        }
    }
}

fn encoded(needles: &mut Vec<Needle>, value: &[u8]) {
    add(needles, Zeroizing::new(hex::encode(value).into_bytes()), Kind::Hex);
    for before in 0..3 {
        add(needles, base64(value, before, &STANDARD_NO_PAD), Kind::Text);
        add(needles, base64(value, before, &URL_SAFE_NO_PAD), Kind::Text);
    }
}

fn add(needles: &mut Vec<Needle>, bytes: Zeroizing<Vec<u8>>, kind: Kind) {
    if !needles.iter().any(|known| known.kind == kind && *known.bytes == *bytes) {
        needles.push(Needle::new(bytes, kind));
    }
}

/// The digits that the value alone decides when so many bytes, modulo 3, come before it.
fn base64(value: &[u8], before: usize, engine: &impl base64::Engine) -> Zeroizing<Vec<u8>> {
    let padded = Zeroizing::new([&[0; 2][..before], value].concat());
    let mut digits = Zeroizing::new(engine.encode(&*padded).into_bytes());
    // The last digit is whole only where bits and digits end together.
    digits.truncate(padded.len() * 8 / 6);
    let first = (before * 8).div_ceil(6);
    Zeroizing::new(digits.split_off(first))
}

/// Little- and big-endian alike: the zero at either end is left out.
fn utf16(value: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut wide = Zeroizing::new(Vec::with_capacity(value.len() * 2));
    for &byte in value {
        wide.extend_from_slice(&[byte, 0]);
    }
    wide.pop();
    wide
}
