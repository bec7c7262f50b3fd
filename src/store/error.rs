//! What can be wrong with a file of the home, each with what to type against it.

use std::io;
use std::path::{Path, PathBuf};

use crate::capability::InvalidKey;

/// Why something of the home could not be read or written. Never carries a value, only paths and names.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The operating system said no.
    #[error("cannot {action} {}", path.display())]
    Io {
        /// What was tried: `read`, `write`, `lock`…
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// There is no file.
    #[error("{} does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// There is a symbolic link, and nothing where it leads.
    #[error("{} is a link to {}, which is not there", path.display(), target.display())]
    Dangling {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        target: PathBuf,
    },
    /// Neither `--home`, `NARROWS_HOME`, `XDG_DATA_HOME` nor `HOME` says where the home is.
    #[error("no home: neither NARROWS_HOME nor HOME is set")]
    NoHome,
    /// A private file or folder that others can read or write.
    #[error("{} is private, but its mode {mode:04o} lets others use it", path.display())]
    Exposed {
        /// The file or folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// The permission bits that it should have.
        wanted: u32,
    },
    /// A private file, or a symbolic link to one, that belongs to somebody else.
    #[error("{} belongs to user {owner}, not to you", path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// The numeric user that owns it.
        owner: u32,
    },
    /// The folder around a private file lets everybody replace it.
    #[error("{} can be written by everybody, so the files in it cannot be trusted", path.display())]
    OpenFolder {
        /// The folder.
        path: PathBuf,
    },
    /// A private file of this home that is a link into another home.
    #[error("{} leads to {} of another home, whose configuration is another", path.display(), behind.display())]
    Borrowed {
        /// The link.
        path: PathBuf,
        /// Where it leads.
        behind: PathBuf,
    },
    /// Not a plain file.
    #[error("{} is not a plain file", path.display())]
    NotAFile {
        /// What was found.
        path: PathBuf,
    },
    /// A file that must not be overwritten is there already.
    #[error("{} exists already", path.display())]
    Exists {
        /// The file.
        path: PathBuf,
    },
    /// Larger than a file of its kind can be.
    #[error("{} is larger than {bytes_max} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The limit.
        bytes_max: u64,
    },
    /// Not a key, or not the key that is needed.
    #[error("{} holds no usable key", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: InvalidKey,
    },
    /// The local CA's two files do not read, or do not belong together.
    #[error("the local CA in {} cannot be used: {why}", path.display())]
    Ca {
        /// The certificate's file.
        path: PathBuf,
        /// What is wrong.
        why: &'static str,
    },
    /// The store's key is not the one that it was sealed with.
    #[error("{} is not the key that {} was sealed with", key.display(), store.display())]
    WrongKey {
        /// The key's file.
        key: PathBuf,
        /// The store's file.
        store: PathBuf,
    },
    /// A sealed value was changed, or moved under another name.
    #[error("the secret {name:?} in {} was changed and does not open", path.display())]
    Damaged {
        /// The store's file.
        path: PathBuf,
        /// The secret's name.
        name: String,
    },
    /// Not the format that this version writes.
    #[error("{} is not a file that this version can read: {why}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: &'static str,
    },
    /// The system gave no randomness, or signing failed for want of it.
    #[error("no randomness from the system")]
    Random,
}

impl StoreError {
    /// The line that a person would type to put it right, where there is one.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Exposed { path, wanted, .. } => Some(format!("chmod {wanted:o} {}", quoted(path))),
            Self::Owner { path, .. } => Some(format!("sudo chown $(id -u) {}", quoted(path))),
            Self::OpenFolder { path } => Some(format!("chmod o-w {}", quoted(path))),
            Self::Borrowed { path, .. } => {
                Some(format!("if you did not make that link, somebody else made this home; rm {}", quoted(path)))
            }
            Self::Damaged { name, .. } => Some(format!("capctl secret set {}", quoted(Path::new(name)))),
            Self::WrongKey { key, .. } => Some(format!("put back the {} that belongs to it", quoted(key))),
            Self::Dangling { target, .. } => Some(format!("put {} back, or remove the link", quoted(target))),
            Self::NoHome => Some("give --home DIR or set NARROWS_HOME".to_owned()),
            Self::Ca { path, .. } => Some(format!(
                "move {} and {} away, then run: capctl init",
                quoted(path),
                quoted(&path.with_extension("key"))
            )),
            _ => None,
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path, source: io::Error) -> Self {
        let path = path.to_owned();
        match source.kind() {
            // What somebody put elsewhere and took away is not what was never there.
            io::ErrorKind::NotFound => match path.read_link() {
                Ok(target) => Self::Dangling { path, target },
                Err(_) => Self::Missing { path },
            },
            io::ErrorKind::AlreadyExists => Self::Exists { path },
            _ => Self::Io { action, path, source },
        }
    }
}

/// A path as a shell reads it back.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:@%".contains(c);
    if !text.is_empty() && text.chars().all(plain) { text } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hint_is_a_line_that_a_shell_reads_back() {
        let exposed = |path: &str| StoreError::Exposed { path: path.into(), mode: 0o644, wanted: 0o600 };
        assert_eq!(exposed("/home/a/store.key").hint().as_deref(), Some("chmod 600 /home/a/store.key"));
        assert_eq!(exposed("/a b/it's").hint().as_deref(), Some(r"chmod 600 '/a b/it'\''s'"));
    }
}
