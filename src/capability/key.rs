//! The keys of roots and holders: Ed25519 and P-256 (`docs/capability.md`, "Keys").
//!
//! Deliberately absent: generation, which needs randomness ([`PrivateKey::from_seed`] takes the bytes), and any way to
//! print, copy or compare a private key.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{self, SHA256};
use aws_lc_rs::encoding::{AsBigEndian, Curve25519SeedBin, EcPrivateKeyBin};
use aws_lc_rs::signature::{
    self, ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, ED25519, Ed25519KeyPair, UnparsedPublicKey,
};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

/// An Ed25519 signature, or the `r ‖ s` of a P-256 one, has this many bytes.
pub const SIGNATURE_BYTES: usize = 64;
/// A private key is a seed (Ed25519) or a big-endian scalar (P-256) of this many bytes.
const SEED_BYTES: usize = 32;
/// An Ed25519 public key has this many bytes.
const ED25519_BYTES: usize = 32;
/// A P-256 public key, compressed (SEC 1 §2.3.3), has this many bytes.
const P256_BYTES: usize = 33;

/// Which signature scheme a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Algorithm {
    /// Ed25519 (RFC 8032), wire value 0.
    Ed25519,
    /// ECDSA on P-256 with SHA-256 (FIPS 186-5), wire value 1.
    P256,
}

impl Algorithm {
    /// The value in a `holder` fact and in a proof.
    #[must_use]
    pub const fn to_wire(self) -> u8 {
        match self {
            Self::Ed25519 => 0,
            Self::P256 => 1,
        }
    }

    /// The algorithm of a wire value, if it is one.
    #[must_use]
    pub const fn from_wire(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::Ed25519),
            1 => Some(Self::P256),
            _ => None,
        }
    }

    /// The name in the text form of a key: `ed25519` or `secp256r1`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::P256 => "secp256r1",
        }
    }

    const fn public_prefix(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519/",
            Self::P256 => "secp256r1/",
        }
    }

    const fn private_prefix(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519-private/",
            Self::P256 => "secp256r1-private/",
        }
    }

    const fn public_bytes(self) -> usize {
        match self {
            Self::Ed25519 => ED25519_BYTES,
            Self::P256 => P256_BYTES,
        }
    }

    const fn to_biscuit(self) -> biscuit_auth::Algorithm {
        match self {
            Self::Ed25519 => biscuit_auth::Algorithm::Ed25519,
            Self::P256 => biscuit_auth::Algorithm::Secp256r1,
        }
    }
}

/// Why bytes or text are not a key. Never carries the text: it may be a private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidKey {
    /// Not one of the text forms.
    #[error("not a key: expected ed25519/<hex> or secp256r1/<hex>")]
    PublicForm,
    /// Not one of the text forms of a private key.
    #[error("not a private key: expected ed25519-private/<hex>, secp256r1-private/<hex> or a PKCS #8 PEM")]
    PrivateForm,
    /// A public key where a private one belongs.
    #[error("this is a public key, a private one is needed")]
    PublicGiven,
    /// A private key where a public one belongs.
    #[error("this is a private key, a public one is needed")]
    PrivateGiven,
    /// Not lower-case hexadecimal, or of another length than the algorithm's.
    #[error("the key's hexadecimal digits are not right")]
    Digits,
    /// Not the canonical encoding of a point on the curve.
    #[error("the key is not a point on its curve")]
    Point,
    /// A small-order point: one signature would verify for many messages.
    #[error("the key is weak")]
    Weak,
    /// Zero, or not below the order of the curve.
    #[error("the private key is out of range")]
    Range,
}

/// The signature does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;

/// The library could not sign. Not expected for a key that was accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("signing failed")]
pub struct SigningFailed;

/// A public key that is a valid point, canonically encoded, and not weak.
///
/// Its text form, also in JSON and TOML, is `ed25519/<hex>` or `secp256r1/<hex>`, lower case.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PublicKey {
    algorithm: Algorithm,
    /// An Ed25519 key leaves the last byte zero.
    bytes: [u8; P256_BYTES],
}

impl PublicKey {
    /// Checks the encoding of a key: 32 bytes (RFC 8032 §5.1.2), or 33 (SEC 1, compressed).
    ///
    /// # Errors
    /// [`InvalidKey`] for another length, a non-canonical encoding, a point off the curve, and an Ed25519 point of
    /// small order.
    pub fn from_bytes(algorithm: Algorithm, key: &[u8]) -> Result<Self, InvalidKey> {
        if key.len() != algorithm.public_bytes() {
            return Err(InvalidKey::Digits);
        }
        match algorithm {
            Algorithm::Ed25519 => check_edwards_point(key)?,
            Algorithm::P256 if !matches!(key.first(), Some(2 | 3)) => return Err(InvalidKey::Point),
            Algorithm::P256 => {}
        }
        let mut bytes = [0; P256_BYTES];
        bytes.iter_mut().zip(key).for_each(|(to, from)| *to = *from);
        let key = Self { algorithm, bytes };
        key.to_biscuit()?; // the check that it is a point
        Ok(key)
    }

    /// The scheme of the key.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// 32 bytes for Ed25519, 33 for P-256.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.algorithm.public_bytes()).unwrap_or(&self.bytes)
    }

    /// The short name for people: the first 12 hexadecimal digits of SHA-256 over the key's bytes. Never compared.
    #[must_use]
    pub fn short_name(&self) -> String {
        let hash = digest::digest(&SHA256, self.as_bytes());
        hex::encode(hash.as_ref().get(..6).unwrap_or_default())
    }

    /// Checks a signature over `message`: Ed25519 without the cofactor and with no small-order `R` (what others call
    /// strict), or P-256 `r ‖ s`, where a high `s` is accepted.
    ///
    /// # Errors
    /// [`BadSignature`], whatever is wrong with it.
    pub fn verify(&self, message: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> Result<(), BadSignature> {
        let verification: &'static dyn signature::VerificationAlgorithm = match self.algorithm {
            Algorithm::Ed25519 => {
                let r = signature.get(..ED25519_BYTES).unwrap_or_default();
                check_edwards_point(r).map_err(|_| BadSignature)?;
                &ED25519
            }
            Algorithm::P256 => &ECDSA_P256_SHA256_FIXED,
        };
        UnparsedPublicKey::new(verification, self.as_bytes()).verify(message, signature).map_err(|_| BadSignature)
    }

    /// The same for a signature as a biscuit has it: 64 bytes of Ed25519, or the DER of a P-256 one (RFC 3279 §2.2.3).
    pub(super) fn verify_encoded(&self, message: &[u8], signature: &[u8]) -> Result<(), BadSignature> {
        match self.algorithm {
            Algorithm::Ed25519 => self.verify(message, signature.try_into().map_err(|_| BadSignature)?),
            Algorithm::P256 => UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, self.as_bytes())
                .verify(message, signature)
                .map_err(|_| BadSignature),
        }
    }

    /// The key as the biscuit library holds it.
    pub(crate) fn to_biscuit(self) -> Result<biscuit_auth::PublicKey, InvalidKey> {
        biscuit_auth::PublicKey::from_bytes(self.as_bytes(), self.algorithm.to_biscuit()).map_err(|_| InvalidKey::Point)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.algorithm.public_prefix())?;
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
            if text.starts_with(algorithm.private_prefix()) {
                return Err(InvalidKey::PrivateGiven);
            }
            if let Some(digits) = text.strip_prefix(algorithm.public_prefix()) {
                return Self::from_bytes(algorithm, &decode_hex(digits)?);
            }
        }
        Err(InvalidKey::PublicForm)
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// A private key. Its bytes are cleared on drop and leave it only by [`PrivateKey::to_text`].
///
/// Signing is deterministic for both schemes (RFC 8032, RFC 6979).
pub struct PrivateKey {
    seed: Zeroizing<[u8; SEED_BYTES]>,
    signer: Signer,
    public: PublicKey,
}

enum Signer {
    Ed25519(Box<Ed25519KeyPair>),
    /// The biscuit library's, made for each signature, because aws-lc's draws randomness to sign.
    P256,
}

impl PrivateKey {
    /// Makes the key of a seed (Ed25519) or of a big-endian scalar (P-256). The caller has drawn the bytes, 32 of them,
    /// from a good source.
    ///
    /// # Errors
    /// [`InvalidKey::Range`] for a P-256 scalar of zero or not below the order (a chance of 2⁻³²: draw again).
    pub fn from_seed(algorithm: Algorithm, seed: [u8; SEED_BYTES]) -> Result<Self, InvalidKey> {
        let seed = Zeroizing::new(seed);
        match algorithm {
            Algorithm::Ed25519 => {
                let pair = Ed25519KeyPair::from_seed_unchecked(&*seed).map_err(|_| InvalidKey::Range)?;
                let public = PublicKey::from_bytes(algorithm, signature::KeyPair::public_key(&pair).as_ref())?;
                Ok(Self { seed, signer: Signer::Ed25519(Box::new(pair)), public })
            }
            Algorithm::P256 => {
                let pair = biscuit_auth::KeyPair::from_bytes(&*seed, algorithm.to_biscuit().into())
                    .map_err(|_| InvalidKey::Range)?;
                let public = PublicKey::from_bytes(algorithm, &pair.public().to_bytes())?;
                Ok(Self { seed, signer: Signer::P256, public })
            }
        }
    }

    /// Parses `ed25519-private/<hex>`, `secp256r1-private/<hex>` or an unencrypted PKCS #8 PEM; spaces and line ends
    /// around it do not matter.
    ///
    /// # Errors
    /// [`InvalidKey`], which never quotes the text.
    pub fn parse(text: &str) -> Result<Self, InvalidKey> {
        let text = text.trim_ascii();
        if let Some(body) = text.strip_prefix("-----BEGIN PRIVATE KEY-----") {
            return Self::from_pem_body(body);
        }
        for algorithm in [Algorithm::Ed25519, Algorithm::P256] {
            if text.starts_with(algorithm.public_prefix()) {
                return Err(InvalidKey::PublicGiven);
            }
            if let Some(digits) = text.strip_prefix(algorithm.private_prefix()) {
                return Self::from_slice(algorithm, &decode_hex(digits)?);
            }
        }
        Err(InvalidKey::PrivateForm)
    }

    fn from_pem_body(body: &str) -> Result<Self, InvalidKey> {
        let body = body.strip_suffix("-----END PRIVATE KEY-----").ok_or(InvalidKey::PrivateForm)?;
        // Allocated once, so that no half-read copy is left behind.
        let mut base64 = Zeroizing::new(Vec::with_capacity(body.len()));
        base64.extend(body.bytes().filter(|byte| !byte.is_ascii_whitespace()));
        let der = Zeroizing::new(BASE64_STANDARD.decode(&*base64).map_err(|_| InvalidKey::PrivateForm)?);
        if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der) {
            let seed = pair.seed().map_err(|_| InvalidKey::PrivateForm)?;
            let bytes: Curve25519SeedBin<'_> = seed.as_be_bytes().map_err(|_| InvalidKey::PrivateForm)?;
            return Self::from_slice(Algorithm::Ed25519, bytes.as_ref());
        }
        let pair = signature::EcdsaKeyPair::from_pkcs8(&signature::ECDSA_P256_SHA256_FIXED_SIGNING, &der)
            .map_err(|_| InvalidKey::PrivateForm)?;
        let bytes: EcPrivateKeyBin<'_> = pair.private_key().as_be_bytes().map_err(|_| InvalidKey::PrivateForm)?;
        Self::from_slice(Algorithm::P256, bytes.as_ref())
    }

    fn from_slice(algorithm: Algorithm, bytes: &[u8]) -> Result<Self, InvalidKey> {
        let seed = Zeroizing::new(<[u8; SEED_BYTES]>::try_from(bytes).map_err(|_| InvalidKey::Digits)?);
        Self::from_seed(algorithm, *seed)
    }

    /// The line of a key file, without a line end: `ed25519-private/<hex>` or `secp256r1-private/<hex>`.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let prefix = self.public.algorithm.private_prefix();
        // Allocated once, so that no half-written copy is left behind.
        let mut text = Zeroizing::new(String::with_capacity(prefix.len() + 2 * SEED_BYTES));
        text.push_str(prefix);
        for byte in self.seed.iter() {
            for nibble in [byte >> 4, byte & 15] {
                text.push(char::from(DIGITS[usize::from(nibble)]));
            }
        }
        text
    }

    /// The public key that belongs to it.
    #[must_use]
    pub const fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs `message`: Ed25519, or P-256 as `r ‖ s` with a low `s`.
    ///
    /// # Errors
    /// [`SigningFailed`], not expected.
    pub fn sign(&self, message: &[u8]) -> Result<[u8; SIGNATURE_BYTES], SigningFailed> {
        match &self.signer {
            Signer::Ed25519(pair) => {
                let signature = pair.try_sign(message).map_err(|_| SigningFailed)?;
                signature.as_ref().try_into().map_err(|_| SigningFailed)
            }
            Signer::P256 => {
                let pair = biscuit_auth::KeyPair::from(&self.to_biscuit().map_err(|_| SigningFailed)?);
                let signature = pair.sign(message).map_err(|_| SigningFailed)?;
                fixed_from_der(signature.to_bytes()).ok_or(SigningFailed)
            }
        }
    }

    /// The key as the biscuit library holds it, which prints it in `Debug`: never format the result.
    pub(crate) fn to_biscuit(&self) -> Result<biscuit_auth::PrivateKey, InvalidKey> {
        biscuit_auth::PrivateKey::from_bytes(&*self.seed, self.public.algorithm.to_biscuit())
            .map_err(|_| InvalidKey::Range)
    }
}

impl fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PrivateKey(of {})", self.public)
    }
}

/// Refuses a non-canonical `y` and the eight points of small order. That the point is on the curve is checked elsewhere.
fn check_edwards_point(encoded: &[u8]) -> Result<(), InvalidKey> {
    /// `y` of the points of order 1, 2, 4 and 8 (two), little-endian; the sign of `x` is the highest bit.
    const SMALL_ORDER: [[u8; ED25519_BYTES]; 5] = [
        little_endian([0, 0, 0, 1]),
        little_endian([0x7fff_ffff_ffff_ffff, u64::MAX, u64::MAX, 0xffff_ffff_ffff_ffec]),
        little_endian([0, 0, 0, 0]),
        little_endian([0x05fc_536d_8802_38b1, 0x3933_c6d3_05ac_dfd5, 0xf098_eff2_89f4_c345, 0xb027_b2c2_8f95_e826]),
        little_endian([0x7a03_ac92_77fd_c74e, 0xc6cc_392c_fa53_202a, 0x0f67_100d_760b_3cba, 0x4fd8_4d3d_706a_17c7]),
    ];
    /// 2²⁵⁵ − 19.
    const P: [u8; ED25519_BYTES] = little_endian([0x7fff_ffff_ffff_ffff, u64::MAX, u64::MAX, 0xffff_ffff_ffff_ffed]);
    let mut y: [u8; ED25519_BYTES] = encoded.try_into().map_err(|_| InvalidKey::Digits)?;
    y[31] &= 0x7f;
    if y.iter().rev().ge(P.iter().rev()) {
        return Err(InvalidKey::Point);
    }
    if SMALL_ORDER.contains(&y) { Err(InvalidKey::Weak) } else { Ok(()) }
}

/// 32 little-endian bytes of a number written as four words, highest first.
const fn little_endian(words: [u64; 4]) -> [u8; ED25519_BYTES] {
    let mut bytes = [0; ED25519_BYTES];
    let mut at = 0;
    while at < ED25519_BYTES {
        bytes[at] = words[3 - at / 8].to_le_bytes()[at % 8];
        at += 1;
    }
    bytes
}

/// `r ‖ s` of a DER `SEQUENCE { INTEGER r, INTEGER s }` of our own making (RFC 3279 §2.2.3).
fn fixed_from_der(der: &[u8]) -> Option<[u8; SIGNATURE_BYTES]> {
    let [0x30, length, rest @ ..] = der else { return None };
    if usize::from(*length) != rest.len() {
        return None;
    }
    let (r, rest) = der_integer(rest)?;
    let (s, rest) = der_integer(rest)?;
    if !rest.is_empty() {
        return None;
    }
    let mut fixed = [0; SIGNATURE_BYTES];
    let (left, right) = fixed.split_at_mut(SIGNATURE_BYTES / 2);
    left.copy_from_slice(&r);
    right.copy_from_slice(&s);
    Some(fixed)
}

fn der_integer(der: &[u8]) -> Option<([u8; 32], &[u8])> {
    let [0x02, length, rest @ ..] = der else { return None };
    let (digits, rest) = rest.split_at_checked(usize::from(*length))?;
    let digits = digits.strip_prefix(&[0]).unwrap_or(digits);
    let mut integer = [0; 32];
    integer.get_mut(32_usize.checked_sub(digits.len())?..)?.copy_from_slice(digits);
    Some((integer, rest))
}

/// Lower-case hexadecimal only: one text per key.
fn decode_hex(digits: &str) -> Result<Zeroizing<Vec<u8>>, InvalidKey> {
    let lower = digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !lower || digits.len() > 2 * P256_BYTES {
        return Err(InvalidKey::Digits);
    }
    hex::decode(digits).map(Zeroizing::new).map_err(|_| InvalidKey::Digits)
}

#[cfg(test)]
mod tests;
