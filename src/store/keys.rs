//! Key files: one line each, `ed25519-private/<hex>` or `ed25519/<hex>`; PKCS #8 PEM is read too.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use zeroize::Zeroizing;

use super::{Home, StoreError, atomic, private, random};
use crate::capability::{Algorithm, InvalidKey, PrivateKey, PublicKey};

/// A public key is a line; the largest capability is some 22 KiB of text. More than this is something else.
const TEXT_BYTES_MAX: u64 = 64 * 1024;

/// A fresh key.
///
/// # Errors
/// [`StoreError::Random`].
pub fn generate(algorithm: Algorithm) -> Result<PrivateKey, StoreError> {
    // A P-256 scalar is out of range once in 2^32 draws.
    for _ in 0..8 {
        if let Ok(key) = PrivateKey::from_seed(algorithm, random::bytes()?) {
            return Ok(key);
        }
    }
    Err(StoreError::Random)
}

/// Reads a private key from a file that is for its owner alone.
///
/// # Errors
/// As [`private::check_private`]; [`StoreError::Key`].
pub fn read_private(path: &Path) -> Result<PrivateKey, StoreError> {
    let bytes = private::read(path)?;
    let invalid = |source| StoreError::Key { path: path.to_owned(), source };
    let text = std::str::from_utf8(&bytes).map_err(|_| invalid(InvalidKey::PrivateForm))?;
    PrivateKey::parse(text).map_err(invalid)
}

/// Writes a private key to a new file with mode 0600; an existing file is never overwritten.
///
/// # Errors
/// [`StoreError::Exists`], [`StoreError::Io`].
pub fn write_private(path: &Path, key: &PrivateKey) -> Result<(), StoreError> {
    let text = key.to_text();
    // Room for the newline from the start: growing would leave a copy behind.
    let mut line = Zeroizing::new(String::with_capacity(text.len() + 1));
    line.push_str(&text);
    line.push('\n');
    atomic::create(path, line.as_bytes(), 0o600)
}

/// Reads a public key.
///
/// # Errors
/// [`StoreError::Key`], [`StoreError::TooLarge`], [`StoreError::Missing`], [`StoreError::Io`].
pub fn read_public(path: &Path) -> Result<PublicKey, StoreError> {
    let key = read_text(path)?.trim().parse();
    key.map_err(|source| StoreError::Key { path: path.to_owned(), source })
}

/// Reads a file that need not be private, of which a line counts: a public key or a capability.
///
/// # Errors
/// [`StoreError::TooLarge`], [`StoreError::Missing`], [`StoreError::Io`].
pub fn read_text(path: &Path) -> Result<String, StoreError> {
    let failed = |source| StoreError::io("read", path, source);
    let mut bytes = Vec::new();
    fs::File::open(path).and_then(|file| file.take(TEXT_BYTES_MAX + 1).read_to_end(&mut bytes)).map_err(failed)?;
    if bytes.len() as u64 > TEXT_BYTES_MAX {
        return Err(StoreError::TooLarge { path: path.to_owned(), bytes_max: TEXT_BYTES_MAX });
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Writes a public key, mode 0644, in place of what is there.
///
/// # Errors
/// [`StoreError::Io`].
pub fn write_public(path: &Path, key: &PublicKey) -> Result<(), StoreError> {
    atomic::replace(path, format!("{key}\n").as_bytes(), 0o644)
}

/// Makes the home's root key if it has none, and writes `root.pub` if that is missing or differs.
///
/// Returns the public key and whether it is new.
///
/// # Errors
/// As [`read_private`] and [`write_private`].
pub fn create_root(home: &Home) -> Result<(PublicKey, bool), StoreError> {
    let path = home.root_key();
    let _turn = home.lock()?;
    let (key, new) = match read_private(&path) {
        Ok(key) => (key, false),
        Err(StoreError::Missing { .. }) => {
            let key = generate(Algorithm::Ed25519)?;
            write_private(&path, &key)?;
            (key, true)
        }
        Err(error) => return Err(error),
    };
    let public = *key.public();
    if read_public(&home.root_public()).ok().as_ref() != Some(&public) {
        write_public(&home.root_public(), &public)?;
    }
    Ok((public, new))
}
