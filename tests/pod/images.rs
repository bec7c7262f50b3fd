//! The images, built once for all tests that run at the same time.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use crate::support::PATIENCE;
use crate::support::client::{clean, program, run, run_within, skip};

/// Building images and starting containers takes longer than a client does.
pub(crate) const LONG: Duration = PATIENCE.saturating_mul(6);
/// Where the images are, for a test that starts again in another namespace.
pub(crate) const AT: &str = "NARROWS_TEST_IMAGES";

static BUILT: Mutex<Weak<Images>> = Mutex::new(Weak::new());

/// `narrows:latest` by `deploy/image`, `narrows-test:latest` with this program in it, and `nftables:latest`.
pub(crate) struct Images {
    folder: PathBuf,
    /// Its end is the folder's, unless that is another process's.
    _kept: Option<tempfile::TempDir>,
}

impl Images {
    /// None where they cannot be built or used.
    pub(crate) fn get(test: &str) -> Option<Arc<Self>> {
        for needed in ["podman", "buildah", "runc", "curl", "nft", "ldd", "strip"] {
            if program(needed).is_none() {
                skip(test, &format!("{needed} is not installed"));
                return None;
            }
        }
        if !nix::unistd::geteuid().is_root() {
            skip(test, "podman needs root here");
            return None;
        }
        if let Some(folder) = std::env::var_os(AT) {
            return Some(Arc::new(Self { folder: folder.into(), _kept: None }));
        }
        let mut built = BUILT.lock().unwrap();
        Some(built.upgrade().unwrap_or_else(|| {
            let images = Arc::new(Self::build());
            *built = Arc::downgrade(&images);
            images
        }))
    }

    fn build() -> Self {
        let kept = tempfile::tempdir().unwrap();
        fs::set_permissions(kept.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let images = Self { folder: kept.path().to_owned(), _kept: Some(kept) };
        // Nothing of the machine's own is used or changed: neither its locks nor its networks.
        let settings = format!(
            "[containers]\ndefault_ulimits = [\"nofile=1024:1024\", \"nproc=1024:1024\"]\n\
             [engine]\nruntime = \"runc\"\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nlock_type = \"file\"\n\
             [network]\nnetwork_config_dir = \"{}\"\n",
            images.file("networks").display()
        );
        fs::write(images.settings(), settings).unwrap();

        let binaries = images.file("binaries");
        fs::create_dir(&binaries).unwrap();
        for (from, name) in [(env!("CARGO_BIN_EXE_narrows"), "narrows"), (env!("CARGO_BIN_EXE_capctl"), "capctl")] {
            strip(Path::new(from), &binaries.join(name));
        }
        let also = images.file("also");
        libraries(&[&binaries.join("narrows"), &binaries.join("capctl")], &also);
        let mut image = images.with_buildah(&Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/image"));
        image.env("NAME", "narrows:latest").env("BINARIES", &binaries).env("ALSO", &also);
        run_within(&mut image, b"", LONG).succeeded();

        let test = images.file("test");
        fs::create_dir_all(test.join("bin")).unwrap();
        strip(&std::env::current_exe().unwrap(), &test.join("bin/test"));
        fs::copy(binaries.join("capctl"), test.join("bin/capctl")).unwrap();
        fs::copy(program("curl").unwrap(), test.join("bin/curl")).unwrap();
        libraries(&[&test.join("bin/test"), &test.join("bin/curl")], &test);
        let entry = r#"["/bin/test", "--exact", "role", "--nocapture"]"#;
        images.of(&test, "narrows-test:latest", &["--cmd", "", "--entrypoint", entry]);

        images.of(&programs(&["nft"], &images.file("nftables")), "nftables:latest", &[]);
        images
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// What podman and buildah go by.
    pub(crate) fn settings(&self) -> PathBuf {
        self.file("containers.conf")
    }

    /// Where the images are.
    pub(crate) fn store(&self) -> PathBuf {
        self.file("store")
    }

    /// buildah with nothing of the machine's own.
    pub(crate) fn buildah(&self) -> Command {
        let mut command = clean(Path::new("buildah"));
        command.env("CONTAINERS_CONF", self.settings()).env("HOME", &self.folder);
        command.args(["--storage-driver", "vfs"]);
        command.arg("--root").arg(self.store()).arg("--runroot").arg(self.file("run"));
        command
    }

    /// `deploy/image`, or another program that takes buildah with its options from `BUILDAH`.
    pub(crate) fn with_buildah(&self, program: &Path) -> Command {
        let buildah = self.buildah();
        let words: Vec<_> = std::iter::once(buildah.get_program()).chain(buildah.get_args()).collect();
        let words: Vec<_> = words.iter().map(|word| word.to_str().unwrap()).collect();
        let mut command = clean(program);
        command.env("BUILDAH", words.join(" ")).env("CONTAINERS_CONF", self.settings());
        command.env("HOME", &self.folder).env("SOURCE_DATE_EPOCH", "0");
        command
    }

    /// Runs buildah, and gives what it said.
    pub(crate) fn ask_buildah(&self, arguments: &[&str]) -> String {
        run_within(self.buildah().args(arguments), b"", LONG).succeeded().stdout.trim().to_owned()
    }

    /// An image of this folder and nothing else.
    pub(crate) fn of(&self, folder: &Path, name: &str, settings: &[&str]) {
        let container = self.ask_buildah(&["from", "scratch"]);
        self.ask_buildah(&["copy", &container, folder.to_str().unwrap(), "/"]);
        self.ask_buildah(&[&["config", "--env", "PATH=/bin"], settings, &[&container]].concat());
        self.ask_buildah(&["commit", "--quiet", "--rm", &container, name]);
    }
}

/// A folder with these programs of the machine, and what they are linked to.
pub(crate) fn programs(names: &[&str], folder: &Path) -> PathBuf {
    fs::create_dir_all(folder.join("bin")).unwrap();
    for name in names {
        let from = program(name).unwrap();
        fs::copy(&from, folder.join("bin").join(name)).unwrap();
        libraries(&[&from], folder);
    }
    folder.to_owned()
}

fn strip(from: &Path, to: &Path) {
    run(clean(Path::new("strip")).arg("-o").arg(to).arg(from), b"").succeeded();
}

/// Copies what these programs are linked to, at the same paths.
fn libraries(programs: &[&Path], into: &Path) {
    for linked in programs.iter().map(|program| run(clean(Path::new("ldd")).arg(program), b"").succeeded().stdout) {
        for path in linked.split_whitespace().filter(|word| word.starts_with('/')) {
            let to = into.join(path.trim_start_matches('/'));
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(path, to).unwrap();
        }
    }
}
