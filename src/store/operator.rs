//! `admin.at`: where the operator's listener of the proxy is that runs on this home.
//!
//! `narrows.toml` says where the next one will be. A probe asks the one that runs, whatever became of the file meanwhile,
//! and on whichever port it got for port 0.

use std::fs;
use std::path::PathBuf;

use super::{Home, StoreError, atomic, private};

/// Says where it is until it is dropped.
#[derive(Debug)]
pub struct Noted {
    path: PathBuf,
    at: String,
}

impl Noted {
    /// Notes where the operator's listener is; `None` says that there is none.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn new(home: &Home, at: Option<String>) -> Result<Option<Self>, StoreError> {
        let path = home.admin_at();
        let Some(at) = at else {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    Err(StoreError::io("remove", &path, error))
                }
                _ => Ok(None),
            };
        };
        atomic::replace(&path, format!("{at}\n").as_bytes(), 0o600)?;
        Ok(Some(Self { path, at }))
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        // Another proxy's may be there by now.
        if fs::read_to_string(&self.path).is_ok_and(|text| text.trim_end() == self.at) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// What was noted; `None` when no proxy runs, or one without an operator's listener.
///
/// # Errors
/// As [`private::read`]; [`StoreError::Format`].
pub fn noted(home: &Home) -> Result<Option<String>, StoreError> {
    let path = home.admin_at();
    let bytes = match private::read(&path) {
        Err(StoreError::Missing { .. }) => return Ok(None),
        read => read?,
    };
    let text = str::from_utf8(&bytes).map_err(|_| StoreError::Format { path, why: "it is not UTF-8" })?;
    Ok(Some(text.trim_end().to_owned()))
}
