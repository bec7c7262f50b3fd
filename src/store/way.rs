//! The way to a file: whoever can change a folder that is looked in, or a link that is followed, chooses which file it is.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Links that are followed in one look-up; the kernel follows no more either (path_resolution(7)).
const LINKS_MAX: usize = 40;

/// What is met when a path is looked up, outermost first.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Way {
    /// The folders in which a name was looked for, by their real names; the one that holds the file is the last.
    pub folders: Vec<PathBuf>,
    /// The links that were followed, each by its own name in its real folder.
    pub links: Vec<PathBuf>,
}

impl Way {
    /// Looks `path` up, which is absolute. What is not there ends the way, and so does a link too many.
    #[must_use]
    pub fn to(path: &Path) -> Self {
        let mut way = Self::default();
        let mut at = PathBuf::from("/");
        let mut ahead: VecDeque<OsString> = names(path).collect();
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                at.pop();
                continue;
            }
            if !way.folders.contains(&at) {
                way.folders.push(at.clone());
            }
            let next = at.join(name);
            let Ok(found) = next.symlink_metadata() else { return way };
            if !found.is_symlink() {
                at = next;
                continue;
            }
            let Ok(target) = fs::read_link(&next) else { return way };
            way.links.push(next);
            if way.links.len() > LINKS_MAX {
                return way;
            }
            if target.is_absolute() {
                at = PathBuf::from("/");
            }
            for name in names(&target).rev() {
                ahead.push_front(name);
            }
        }
        way
    }
}

fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components()
        .filter(|part| matches!(part, Component::Normal(_) | Component::ParentDir))
        .map(|part| part.as_os_str().to_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn every_folder_and_every_link_on_the_way_is_met() {
        let place = tempfile::tempdir().expect("a folder");
        let place = place.path().canonicalize().expect("a path");
        let at = |name: &str| place.join(name);
        fs::create_dir_all(at("real/data/home")).expect("folders");
        fs::create_dir(at("links")).expect("a folder");
        symlink("../real/./data", at("links/data")).expect("a link");
        symlink(at("links"), at("l")).expect("a link");

        let way = Way::to(&at("l/data/home"));
        assert_eq!(way.links, [at("l"), at("links/data")]);
        assert!(way.folders.starts_with(&[PathBuf::from("/")]));
        let ours: Vec<_> = way.folders.iter().filter(|folder| folder.starts_with(&place)).collect();
        assert_eq!(ours, [&place, &at("links"), &at("real"), &at("real/data")]);
        assert_eq!(Way::to(&at("real/none/home")).folders.last(), Some(&at("real")));
    }

    #[test]
    fn a_link_to_itself_ends() {
        let place = tempfile::tempdir().expect("a folder");
        let own = place.path().join("own");
        symlink(&own, &own).expect("a link");
        assert_eq!(Way::to(&own).links.len(), LINKS_MAX + 1);
    }
}
