//! Symbol tables: how a block's strings are numbered.

use std::collections::HashSet;
use std::sync::Arc;

use super::InvalidCapability;

/// The symbols that every biscuit knows (biscuit specification, "Symbol table"), numbered from 0.
const PREDEFINED: [&str; 28] = [
    "read",
    "write",
    "resource",
    "operation",
    "right",
    "time",
    "role",
    "owner",
    "tenant",
    "namespace",
    "user",
    "team",
    "service",
    "admin",
    "email",
    "group",
    "member",
    "ip_address",
    "client",
    "client_ip",
    "domain",
    "path",
    "version",
    "cluster",
    "node",
    "hostname",
    "nonce",
    "query",
];
/// A table's own symbols are numbered from here.
const OWN_FIRST: u64 = 1024;

/// The strings that a block's facts and checks refer to. They are shared, not copied: otherwise one long symbol that is
/// referred to often would take far more memory than the capability has bytes.
#[derive(Default)]
pub(super) struct Symbols {
    own: Vec<Arc<str>>,
    /// The same, to find a repetition: not sought anew for each block, of which there may be many after a large table.
    known: HashSet<Arc<str>>,
}

impl Symbols {
    /// Appends a block's table. First-party blocks continue the table of the blocks before; a third-party block starts
    /// from an empty one.
    pub(super) fn extend(&mut self, table: &[String]) -> Result<(), InvalidCapability> {
        for symbol in table {
            let symbol: Arc<str> = Arc::from(symbol.as_str());
            if PREDEFINED.contains(&&*symbol) || !self.known.insert(Arc::clone(&symbol)) {
                return Err(InvalidCapability::Symbols);
            }
            self.own.push(symbol);
        }
        Ok(())
    }

    /// The string of a number, to compare and drop.
    pub(super) fn name(&self, number: u64) -> Result<&str, InvalidCapability> {
        match own_index(number) {
            Some(index) => self.own.get(index).map(|symbol| &**symbol),
            None => usize::try_from(number).ok().and_then(|index| PREDEFINED.get(index).copied()),
        }
        .ok_or(InvalidCapability::Symbols)
    }

    /// The string of a number, to keep.
    pub(super) fn text(&self, number: u64) -> Result<Arc<str>, InvalidCapability> {
        match own_index(number) {
            Some(index) => self.own.get(index).cloned().ok_or(InvalidCapability::Symbols),
            None => self.name(number).map(Arc::from),
        }
    }
}

fn own_index(number: u64) -> Option<usize> {
    number.checked_sub(OWN_FIRST).and_then(|index| usize::try_from(index).ok())
}
