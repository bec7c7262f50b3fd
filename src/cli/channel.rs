//! `--ca`, `--cert`, `--cert-key`: how a proxy at `https://` is spoken to.

use std::path::{Path, PathBuf};

use crate::net::channel::{ClientEnd, Identity};
use crate::store::{keys, private};

use super::failure::Failure;

/// The files of TLS towards the proxy.
#[derive(Debug, Default, clap::Args)]
pub(super) struct ChannelArgs {
    /// With an https:// proxy: the authorities, PEM, of which one must have signed its certificate; else the platform's
    #[arg(long, value_name = "FILE", requires = "proxy")]
    ca: Option<PathBuf>,
    /// The certificate, PEM, that the proxy is shown
    #[arg(long, value_name = "FILE", requires_all = ["proxy", "cert_key"])]
    cert: Option<PathBuf>,
    /// The certificate's private key
    #[arg(long, value_name = "FILE", requires = "cert")]
    cert_key: Option<PathBuf>,
}

impl ChannelArgs {
    /// What the files make; `None` where none is given.
    pub(super) fn read(&self) -> Result<Option<ClientEnd>, Failure> {
        let text = |path: &Path| keys::read_text(path).map_err(Failure::from);
        let ca = self.ca.as_deref().map(text).transpose()?;
        let shown = self.cert.as_deref().map(text).transpose()?;
        let key = self.cert_key.as_deref().map(private::read).transpose()?;
        let identity = match (&shown, &key) {
            (Some(shown), Some(key)) => Some(Identity { certificate: shown.as_bytes(), key }),
            _ => None,
        };
        if ca.is_none() && identity.is_none() {
            return Ok(None);
        }
        let made = ClientEnd::new(ca.as_deref().map(str::as_bytes), identity);
        made.map(Some)
            .map_err(|error| Failure::of(&error).hint("--ca, --cert and --cert-key name PEM files".to_owned()))
    }

    /// The files that it is read from.
    pub(super) fn files(&self) -> impl Iterator<Item = PathBuf> {
        self.ca.iter().chain(&self.cert).chain(&self.cert_key).cloned()
    }

    /// The file that nobody else may read.
    pub(super) fn private(&self) -> impl Iterator<Item = PathBuf> {
        self.cert_key.iter().cloned()
    }
}
