//! The home: one folder that holds everything.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::{env, fs};

use super::way::Way;
use super::{StoreError, private};

/// Folders of the home are for their owner alone.
const FOLDER_MODE: u32 = 0o700;
/// What a certificate may be and nothing else in a home is: for those who are neither owner nor group.
const EVERYBODY: u32 = 0o007;

/// The folder of one installation, and the names of the files in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Home {
    dir: PathBuf,
}

impl Home {
    /// Finds the home: `--home`, else `NARROWS_HOME`, else the platform's data folder
    /// (`$XDG_DATA_HOME/narrows`, `~/.local/share/narrows`; on macOS `~/Library/Application Support/narrows`).
    ///
    /// It need not exist yet. An empty variable counts as unset; a relative `XDG_DATA_HOME` is ignored, as the XDG base
    /// directory specification says.
    ///
    /// # Errors
    /// [`StoreError::NoHome`] when nothing says where; [`StoreError::Io`] when the current folder is gone.
    pub fn locate(flag: Option<&Path>) -> Result<Self, StoreError> {
        let dir = choose(flag, |name| env::var_os(name).filter(|value| !value.is_empty()))?;
        Self::at(&dir)
    }

    /// The home at `dir`, made absolute. Nothing is read or written.
    ///
    /// # Errors
    /// [`StoreError::Io`] when `dir` is relative and the current folder is gone.
    pub fn at(dir: &Path) -> Result<Self, StoreError> {
        let dir = std::path::absolute(dir).map_err(|source| StoreError::io("find", dir, source))?;
        Ok(Self { dir })
    }

    /// Makes the folder, `services.d/` and `audit/`, for their owner alone. What exists stays as it is.
    ///
    /// Returns whether the home is new.
    ///
    /// # Errors
    /// [`StoreError::Exposed`] when a folder exists and others can use it, [`StoreError::OpenFolder`] when everybody can put
    /// another in its place, [`StoreError::Io`] otherwise.
    pub fn create(&self) -> Result<bool, StoreError> {
        self.check_above(false)?;
        self.make()
    }

    /// The same, wherever it lies: a volume of a container may be everybody's, and there is nobody else in there.
    pub(super) fn make(&self) -> Result<bool, StoreError> {
        let new = create_folder(&self.dir)?;
        create_folder(&self.services_dir())?;
        create_folder(&self.audit_dir())?;
        Ok(new)
    }

    /// Refuses a home that others can use or put another in the place of, or that is not there.
    ///
    /// # Errors
    /// As [`private::check_folder`]; [`StoreError::OpenFolder`] for a folder on the way to it.
    pub fn check(&self) -> Result<(), StoreError> {
        private::check_folder(&self.dir)?;
        self.check_above(self.config().is_symlink())
    }

    /// The folders on the way. A home of links is one that [`super::mounted::link`] made.
    fn check_above(&self, of_links: bool) -> Result<(), StoreError> {
        Way::to(&self.dir).folders.iter().try_for_each(|folder| match private::check_around(folder) {
            Err(StoreError::OpenFolder { .. }) if of_links && is_volume(folder) => Ok(()),
            checked => checked,
        })
    }

    /// Refuses a home with a private file or folder that others can use, whether or not it will be read.
    ///
    /// # Errors
    /// As [`private::check_private`], for the first such file.
    pub fn check_files(&self) -> Result<(), StoreError> {
        self.problems().into_iter().next().map_or(Ok(()), Err)
    }

    /// What [`Self::check_files`] refuses, all of it; the home itself alone where that is at fault.
    #[must_use]
    pub fn problems(&self) -> Vec<StoreError> {
        if let Err(error) = self.check() {
            return vec![error];
        }
        let present = |path: &PathBuf| path.symlink_metadata().is_ok();
        let files = [
            self.config(),
            self.ca_key(),
            self.ca_next_key(),
            self.root_key(),
            self.secrets(),
            self.store_key(),
            self.revoked(),
            self.admin_token(),
        ];
        let folders = [self.services_dir(), self.audit_dir()];
        let files = files.iter().filter(|path| present(path)).map(|path| private::check_private(path));
        let folders = folders.iter().filter(|path| present(path)).map(|path| private::check_folder(path));
        files.chain(folders).filter_map(Result::err).collect()
    }

    /// The private files and folders of the home that lie elsewhere and are links here, each by its name here.
    #[must_use]
    pub fn links_outside(&self) -> Vec<PathBuf> {
        let Ok(real) = self.dir.canonicalize() else { return Vec::new() };
        let entries =
            [self.dir.clone(), self.services_dir()].into_iter().filter_map(|folder| fs::read_dir(folder).ok());
        let links = entries.flatten().flatten().map(|entry| entry.path()).filter(|path| path.is_symlink());
        let is_private = |path: &PathBuf| path.metadata().is_ok_and(|found| found.mode() & EVERYBODY == 0);
        let leads_outside = |path: &PathBuf| path.canonicalize().is_ok_and(|behind| !behind.starts_with(&real));
        links.filter(is_private).filter(leads_outside).collect()
    }

    /// Keeps other processes from changing the home's files, until the handle is dropped. Waits for its turn.
    ///
    /// # Errors
    /// [`StoreError::Missing`], [`StoreError::Io`].
    pub fn lock(&self) -> Result<File, StoreError> {
        let folder = File::open(&self.dir).map_err(|source| StoreError::io("read", &self.dir, source))?;
        folder.lock().map_err(|source| StoreError::io("lock", &self.dir, source))?;
        Ok(folder)
    }

    /// The folder itself, absolute.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path of the configuration: a relative one is inside the home.
    #[must_use]
    pub fn resolve(&self, path: &Path) -> PathBuf {
        self.dir.join(path)
    }

    /// `narrows.toml`, the configuration.
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.dir.join(private::CONFIG)
    }

    /// `ca.pem`, the local CA's certificate.
    #[must_use]
    pub fn ca_certificate(&self) -> PathBuf {
        self.dir.join("ca.pem")
    }

    /// `ca.key`, the local CA's private key.
    #[must_use]
    pub fn ca_key(&self) -> PathBuf {
        self.dir.join("ca.key")
    }

    /// `root.pub`, the public key of the root that signs authority blocks.
    #[must_use]
    pub fn root_public(&self) -> PathBuf {
        self.dir.join("root.pub")
    }

    /// `root.key`, the root's private key.
    #[must_use]
    pub fn root_key(&self) -> PathBuf {
        self.dir.join("root.key")
    }

    /// `secrets.json`, the sealed secrets.
    #[must_use]
    pub fn secrets(&self) -> PathBuf {
        self.dir.join("secrets.json")
    }

    /// `store.key`, the key that seals them.
    #[must_use]
    pub fn store_key(&self) -> PathBuf {
        self.dir.join("store.key")
    }

    /// `revoked.jsonl`, what has been revoked.
    #[must_use]
    pub fn revoked(&self) -> PathBuf {
        self.dir.join("revoked.jsonl")
    }

    /// `admin.token`, what the operator's listener wants to see.
    #[must_use]
    pub fn admin_token(&self) -> PathBuf {
        self.dir.join("admin.token")
    }

    /// `admin.at`, where the operator's listener of the running proxy is.
    #[must_use]
    pub fn admin_at(&self) -> PathBuf {
        self.dir.join("admin.at")
    }

    /// `ca-next.key`, the key of the CA that a rotation will change to.
    #[must_use]
    pub fn ca_next_key(&self) -> PathBuf {
        self.dir.join("ca-next.key")
    }

    /// `services.d/`, services of one's own.
    #[must_use]
    pub fn services_dir(&self) -> PathBuf {
        self.dir.join("services.d")
    }

    /// `audit/`, the journal, unless the configuration says another folder.
    #[must_use]
    pub fn audit_dir(&self) -> PathBuf {
        self.dir.join("audit")
    }

    /// `narrows.sock`, where the proxy that serves this home is found.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.dir.join("narrows.sock")
    }
}

fn choose(flag: Option<&Path>, variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, StoreError> {
    if let Some(dir) = flag {
        return Ok(dir.to_owned());
    }
    if let Some(dir) = variable("NARROWS_HOME") {
        return Ok(dir.into());
    }
    if let Some(data) = variable("XDG_DATA_HOME").map(PathBuf::from).filter(|data| data.is_absolute()) {
        return Ok(data.join("narrows"));
    }
    let home = PathBuf::from(variable("HOME").ok_or(StoreError::NoHome)?);
    let data = if cfg!(target_os = "macos") { "Library/Application Support" } else { ".local/share" };
    Ok(home.join(data).join("narrows"))
}

/// Whether something is mounted there.
fn is_volume(folder: &Path) -> bool {
    let device = |path: &Path| path.metadata().map(|found| found.dev()).ok();
    folder.parent().is_some_and(|parent| device(folder) != device(parent))
}

/// Makes a folder (and what is above it) unless it exists; one that exists must be private already.
fn create_folder(dir: &Path) -> Result<bool, StoreError> {
    if dir.is_dir() {
        private::check_folder(dir)?;
        return Ok(false);
    }
    if let Some(parent) = dir.parent() {
        fs::create_dir_all(parent).map_err(|source| StoreError::io("create", parent, source))?;
    }
    match fs::DirBuilder::new().mode(FOLDER_MODE).create(dir) {
        Ok(()) => {}
        // Another process was faster.
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists && dir.is_dir() => return Ok(false),
        Err(source) => return Err(StoreError::io("create", dir, source)),
    }
    // A umask can only take bits away; give back what it took from the owner.
    fs::set_permissions(dir, fs::Permissions::from_mode(FOLDER_MODE))
        .map_err(|source| StoreError::io("set the mode of", dir, source))?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(flag: Option<&str>, set: &[(&str, &str)]) -> Result<PathBuf, StoreError> {
        choose(flag.map(Path::new), |name| {
            set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value))
        })
    }

    #[test]
    fn the_flag_wins_then_the_variable_then_the_platform() {
        let all = [("NARROWS_HOME", "/n"), ("XDG_DATA_HOME", "/x"), ("HOME", "/h")];
        assert_eq!(chosen(Some("/f"), &all).expect("a home"), Path::new("/f"));
        assert_eq!(chosen(None, &all).expect("a home"), Path::new("/n"));
        assert_eq!(chosen(None, &all[1..]).expect("a home"), Path::new("/x/narrows"));
        assert!(chosen(None, &[("XDG_DATA_HOME", "x"), ("HOME", "/h")]).expect("a home").starts_with("/h"));
        assert!(matches!(chosen(None, &[]), Err(StoreError::NoHome)));
    }

    #[test]
    fn creating_twice_is_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let home = Home::at(&folder.path().join("deep/home")).expect("a home");
        assert!(home.create().expect("created"));
        assert!(!home.create().expect("kept"));
        home.check().expect("private");
        for dir in [home.dir().to_owned(), home.services_dir(), home.audit_dir()] {
            assert_eq!(fs::metadata(&dir).expect("a folder").permissions().mode() & 0o7777, 0o700, "{dir:?}");
        }
    }
}
