//! One file of certificates for the child: the system's roots, what its variables named before, and the local CA.
//!
//! A variable that names the CA alone would take the public roots away from a client.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tempfile::TempDir;

use super::environment::BUNDLE;

/// A file of certificates is not larger than this; what a variable names may be anything.
const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// RFC 7468 §2.
const LINE: usize = 64;

/// The bundle and the CA, in a folder of their own outside the home. It goes when this is dropped.
pub(in crate::cli) struct Bundle {
    folder: TempDir,
    pub(in crate::cli) roots: PathBuf,
    pub(in crate::cli) ca: PathBuf,
}

impl Bundle {
    /// Writes both files where a child can read them and `home` does not hide them.
    pub(in crate::cli) fn write(ca_pem: &str, home: &Path) -> std::io::Result<Self> {
        let mut builder = tempfile::Builder::new();
        builder.prefix("narrows-");
        let place = env::temp_dir();
        // What hides the home hides it under every name, so names that are links are compared by what they name.
        let home = home.canonicalize().unwrap_or_else(|_| home.to_owned());
        let inside = place.canonicalize().is_ok_and(|place| place.starts_with(&home));
        let folder = if inside { builder.tempdir_in("/tmp")? } else { builder.tempdir_in(place)? };
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let (roots, ca) = (folder.path().join("bundle.pem"), folder.path().join("ca.pem"));
        write_public(&roots, merged(ca_pem).as_bytes())?;
        write_public(&ca, ca_pem.as_bytes())?;
        Ok(Self { folder, roots, ca })
    }
}

impl Bundle {
    /// Whether hiding `path` would hide it too.
    pub(in crate::cli) fn is_in(&self, path: &Path) -> bool {
        let real = |path: &Path| path.canonicalize().unwrap_or_else(|_| path.to_owned());
        real(self.folder.path()).starts_with(real(path))
    }

    /// The folder, for what else this run needs.
    #[cfg(target_os = "linux")]
    pub(in crate::cli) fn folder(&self) -> &Path {
        self.folder.path()
    }
}

pub(in crate::cli) fn write_public(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file = fs::File::create(path)?;
    file.set_permissions(fs::Permissions::from_mode(0o644))?;
    file.write_all(bytes)
}

/// Every certificate once, ours first so that a person finds it.
pub(in crate::cli) fn merged(ca_pem: &str) -> String {
    let mut seen = BTreeSet::new();
    let mut text = String::new();
    let mut add = |certificates: Vec<CertificateDer<'static>>| {
        for certificate in certificates {
            if seen.insert(certificate.as_ref().to_vec()) {
                append(&mut text, &certificate);
            }
        }
    };
    add(read_pem(ca_pem.as_bytes()));
    // Reads SSL_CERT_FILE and SSL_CERT_DIR where they are set, else the system's store.
    add(rustls_native_certs::load_native_certs().certs);
    for name in BUNDLE.iter().chain(&["NODE_EXTRA_CA_CERTS"]) {
        let Some(path) = env::var_os(name).filter(|path| !path.is_empty()) else { continue };
        let readable = fs::metadata(&path).is_ok_and(|found| found.is_file() && found.len() <= FILE_BYTES_MAX);
        if let Some(bytes) = readable.then(|| fs::read(&path).ok()).flatten() {
            add(read_pem(&bytes));
        }
    }
    text
}

/// What does not read is left out: a bundle of a system may hold such.
fn read_pem(bytes: &[u8]) -> Vec<CertificateDer<'static>> {
    CertificateDer::pem_slice_iter(bytes).filter_map(Result::ok).collect()
}

fn append(text: &mut String, certificate: &CertificateDer<'_>) {
    let encoded = BASE64_STANDARD.encode(certificate);
    text.push_str("-----BEGIN CERTIFICATE-----\n");
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, after) = rest.split_at(rest.len().min(LINE));
        text.push_str(line);
        text.push('\n');
        rest = after;
    }
    text.push_str("-----END CERTIFICATE-----\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_reads_back_once() {
        let key = rcgen::KeyPair::generate().expect("a key");
        let pem = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate").pem();
        let text = merged(&pem.repeat(2));
        let ours = read_pem(pem.as_bytes()).remove(0);
        assert_eq!(read_pem(text.as_bytes()).iter().filter(|found| **found == ours).count(), 1);
        assert!(text.lines().all(|line| line.len() <= LINE));
    }
}
