//! Randomness, from the library that makes the keys.

use super::StoreError;

/// `N` random bytes, fit for keys and nonces.
///
/// # Errors
/// [`StoreError::Random`] when the system gives none; nothing weaker is used instead.
pub fn bytes<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| StoreError::Random)?;
    Ok(bytes)
}

/// A new identifier for the journal and for `Narrows-Request-Id`: the time, then 80 random bits.
///
/// # Errors
/// As [`bytes()`].
pub fn id(time_ms: u64) -> Result<ulid::Ulid, StoreError> {
    let mut random = [0; 16];
    aws_lc_rs::rand::fill(&mut random[6..]).map_err(|_| StoreError::Random)?;
    Ok(ulid::Ulid::from_parts(time_ms, u128::from_be_bytes(random)))
}
