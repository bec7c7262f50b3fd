//! `admin.token`: what a person or a program shows the operator's listener for more than its health.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::{Home, StoreError, atomic, private, random};

/// As long as a key: it cannot be guessed.
const BYTES: usize = 32;

/// The home's token.
///
/// # Errors
/// [`StoreError::Missing`] when none was made yet; as [`private::check_private`].
pub fn read(home: &Home) -> Result<Zeroizing<String>, StoreError> {
    let path = home.admin_token();
    let bytes = private::read(&path)?;
    let text = str::from_utf8(&bytes).map_err(|_| StoreError::Format { path, why: "not text" })?;
    Ok(Zeroizing::new(text.trim().to_owned()))
}

/// The home's token, which is made if there is none.
///
/// # Errors
/// As [`read`]; [`StoreError::Random`], [`StoreError::Io`].
pub fn read_or_make(home: &Home) -> Result<Zeroizing<String>, StoreError> {
    let _turn = home.lock()?;
    match read(home) {
        Err(StoreError::Missing { .. }) => replace(home),
        token => token,
    }
}

/// A new token in place of any that was there, which counts no more at once.
///
/// # Errors
/// [`StoreError::Random`], [`StoreError::Io`].
pub fn replace(home: &Home) -> Result<Zeroizing<String>, StoreError> {
    let bytes: Zeroizing<[u8; BYTES]> = Zeroizing::new(random::bytes()?);
    let token = Zeroizing::new(URL_SAFE_NO_PAD.encode(*bytes));
    atomic::replace(&home.admin_token(), format!("{}\n", &*token).as_bytes(), 0o600)?;
    Ok(token)
}
