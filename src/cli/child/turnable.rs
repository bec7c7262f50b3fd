//! Links on the way to what is hidden. A link cannot be held in its place as a folder can: whoever may write beside it can
//! turn it elsewhere, and the next command finds another home behind it.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::unistd::{AccessFlags, access, geteuid};

use crate::store::way::Way;

const STICKY: u32 = 0o1000;

/// A link that a command of this user could turn elsewhere, itself or by a folder above it.
pub(in crate::cli) struct Turnable {
    /// What is looked for.
    pub(in crate::cli) path: PathBuf,
    /// The link on the way to it, by its real name.
    pub(in crate::cli) link: PathBuf,
}

impl Turnable {
    /// Those on the way to any of these, which are hidden: what lies in one of them is out of the command's reach.
    pub(in crate::cli) fn among(paths: &[PathBuf]) -> Vec<Self> {
        let hidden: Vec<PathBuf> = paths.iter().filter_map(|path| path.canonicalize().ok()).collect();
        let is_in_reach = |link: &Path| !hidden.iter().any(|hidden| link.starts_with(hidden));
        // What is above something hidden is held (`mounts::hold_above`); what is above the link alone is not.
        let is_loose =
            |place: &Path| !hidden.iter().any(|hidden| hidden.starts_with(place)) && is_ours_to_replace(place);
        let absolute = paths.iter().filter_map(|path| std::path::absolute(path).ok());
        let met = absolute.flat_map(|path| {
            let links = Way::to(&path).links.into_iter();
            links.map(move |link| Self { path: path.clone(), link })
        });
        met.filter(|met| is_in_reach(&met.link) && met.link.ancestors().any(is_loose)).collect()
    }

    /// The same without a link, for a person to type.
    pub(in crate::cli) fn real(&self) -> PathBuf {
        self.path.canonicalize().unwrap_or_else(|_| self.path.clone())
    }
}

/// Whether this user can put something else in the place of this link or folder, now or after a `chmod`.
fn is_ours_to_replace(place: &Path) -> bool {
    let (Some(folder), Ok(found)) = (place.parent(), place.symlink_metadata()) else { return false };
    let Ok(around) = folder.metadata() else { return false };
    let us = geteuid();
    if us.is_root() || around.uid() == us.as_raw() {
        return true;
    }
    let is_kept = around.mode() & STICKY != 0 && found.uid() != us.as_raw();
    !is_kept && access(folder, AccessFlags::W_OK).is_ok()
}
