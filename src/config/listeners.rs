//! `[[listener]]`: addresses whose clients act under a capability that the proxy holds for them.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use super::Listen;
use super::read::read_listen;
use crate::service::document::Table;
use crate::store::Home;

/// A listener's name is at most this long: it is on every line of its requests.
const NAME_BYTES_MAX: usize = 64;

/// One `[[listener]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listener {
    /// What the journal calls it.
    pub name: Arc<str>,
    /// Where its clients connect.
    pub listen: Listen,
    /// The file of the capability that they act under.
    pub capability: PathBuf,
    /// The file of its holder's private key.
    pub key: PathBuf,
    /// Of a Unix socket: the users whose processes may connect. Empty: the proxy's own.
    pub uids: Vec<u32>,
    /// Its connections are redirected ones, of clients that know no proxy.
    pub transparent: bool,
}

/// Reads all `[[listener]]` tables; their files are added to those that a reload watches. `taken` are the places of others,
/// by what they are.
pub(super) fn read(
    top: &mut Table<'_, '_>,
    home: &Home,
    taken: &[(&str, Listen)],
    files: &mut Vec<PathBuf>,
) -> Vec<Listener> {
    let mut listeners: Vec<Listener> = Vec::new();
    for mut table in top.tables("listener", "[[listener]]") {
        let Some(listener) = one(&mut table, home) else {
            table.finish();
            continue;
        };
        for other in &listeners {
            if other.name == listener.name {
                table.problem(format!("two listeners are called \"{}\"", listener.name), None);
            }
            if other.listen == listener.listen && listener.listen.clashes_with(&other.listen) {
                table.problem(format!("two listeners are on {}", listener.listen), None);
            } else if listener.listen.clashes_with(&other.listen) {
                let (name, at, its) = (&other.name, &other.listen, &listener.listen);
                table.problem(format!("`listen`: {its} is taken by listener \"{name}\", which has {at}"), None);
            }
        }
        for (what, at) in taken.iter().filter(|(_, at)| listener.listen.clashes_with(at)) {
            table.problem(format!("`listen`: {} is taken by {what}, which has {at}", listener.listen), None);
        }
        files.extend([listener.capability.clone(), listener.key.clone()]);
        table.finish();
        listeners.push(listener);
    }
    listeners
}

fn one(table: &mut Table<'_, '_>, home: &Home) -> Option<Listener> {
    let name = table.text("name");
    if let Some(name) = &name {
        table.rename(format!("[[listener]] \"{}\"", name.value.escape_default()));
        let plain = name.value.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
        if name.value.is_empty() || name.value.len() > NAME_BYTES_MAX || !plain {
            table.problem_at("name", name.at.clone(), "1 to 64 ASCII letters, digits, `-`, `_` or `.`");
        }
    }
    let at = table.text("listen").map(|field| field.at);
    let listen = read_listen(table, "listen", home);
    let capability = table.text("capability").map(|field| home.resolve(field.value.as_ref()));
    let key = table.text("key").map(|field| home.resolve(field.value.as_ref()));
    let exposed = table.flag("exposed").is_some_and(|field| field.value);
    let uids = uids(table, listen.as_ref());
    let transparent = transparent(table, listen.as_ref());
    for (key, is_there) in [
        ("name", name.is_some()),
        ("listen", at.is_some()),
        ("capability", capability.is_some()),
        ("key", key.is_some()),
    ] {
        if !is_there && !table.has(key) {
            table.problem(format!("a listener needs `{key}`"), None);
        }
    }
    if let (Some(Listen::Tcp(address)), Some(at)) = (&listen, at)
        && !is_loopback(address.ip())
        && !exposed
    {
        let message = format!(
            "`listen`: whoever reaches {address} acts under this capability, and it is not loopback: listen there, or \
             on a Unix socket, or accept it with `exposed = true`"
        );
        table.document().report(Some(at), Some("listen"), message, None);
    }
    Some(Listener { name: name?.value.into(), listen: listen?, capability: capability?, key: key?, uids, transparent })
}

fn transparent(table: &mut Table<'_, '_>, listen: Option<&Listen>) -> bool {
    let Some(field) = table.flag("transparent").filter(|field| field.value) else { return false };
    if !cfg!(target_os = "linux") {
        table.problem_at("transparent", field.at, "connections are redirected on Linux only");
    } else if let Some(Listen::Unix(_)) = listen {
        table.problem_at(
            "transparent",
            field.at,
            "a redirected connection comes over TCP: `listen` must be ADDRESS:PORT",
        );
    }
    true
}

fn uids(table: &mut Table<'_, '_>, listen: Option<&Listen>) -> Vec<u32> {
    let mut uids = Vec::new();
    for uid in table.numbers("uids") {
        match u32::try_from(uid.value) {
            Ok(number) => uids.push(number),
            Err(_) => table.problem_at("uids", uid.at, "expected numbers of users"),
        }
    }
    if let (false, Some(Listen::Tcp(_))) = (uids.is_empty(), listen) {
        table.problem("`uids` is for Unix sockets: nobody says whose process a TCP connection is from", None);
    }
    uids
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}
