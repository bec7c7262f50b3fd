//! `[tls]`: what the proxy shows on `listen`, and whom it lets in there.

use std::path::PathBuf;

use super::Listen;
use crate::service::document::Table;
use crate::store::Home;

/// `[tls]`. The files are read when a snapshot is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The PEM file of the certificate and of those between it and its authority.
    pub certificate: PathBuf,
    /// The PEM file of its private key.
    pub key: PathBuf,
    /// The PEM file of the authorities that sign clients' certificates. With it a client must show one.
    pub client_ca: Option<PathBuf>,
}

/// Reads the table; its files are added to those that a reload watches.
pub(super) fn read(
    top: &mut Table<'_, '_>,
    listen: Option<&Listen>,
    home: &Home,
    files: &mut Vec<PathBuf>,
) -> Option<Tls> {
    let mut table = top.table("tls", "[tls]".into())?;
    let mut file = |key| table.text(key).map(|field| home.resolve(field.value.as_ref()));
    let (certificate, key, client_ca) = (file("certificate"), file("key"), file("client_ca"));
    for (name, is_there) in [("certificate", certificate.is_some()), ("key", key.is_some())] {
        if !is_there && !table.has(name) {
            table.problem(format!("[tls] needs `{name}`"), None);
        }
    }
    if !matches!(listen, Some(Listen::Tcp(_))) {
        table.problem("[tls] is for a `listen` with an address and a port", None);
    }
    table.finish();
    files.extend([&certificate, &key, &client_ca].into_iter().flatten().cloned());
    Some(Tls { certificate: certificate?, key: key?, client_ca })
}
