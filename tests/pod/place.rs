//! Folders of a test's own for all that podman keeps, and for what the containers are given.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::images::{Images, LONG};
use crate::inside::{HOST, LISTENER, NARROWS, PLACEHOLDER, secret};
use crate::manifests;
use crate::support::client::{Ran, clean, run, run_within};
use crate::support::daemon::TestEnv;

/// What is in the Secret.
const FILES: &str = "narrows.toml ca.pem ca.key secrets.json store.key origin-ca.pem agent.cap agent.key";

pub(crate) struct Place {
    pub(crate) env: TestEnv,
    folder: tempfile::TempDir,
    images: Arc<Images>,
}

impl Place {
    pub(crate) fn new(images: &Arc<Images>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let at = folder.path().display();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\ngraphroot = \"{at}/store\"\nrunroot = \"{at}/run\"\n\
             [storage.options]\nadditionalimagestores = [\"{}\"]\n",
            images.store().display()
        );
        fs::write(folder.path().join("storage.conf"), storage).unwrap();
        let settings = fs::read_to_string(images.settings()).unwrap();
        let settings = settings.replace("[engine]\n", &format!("[engine]\ntmp_dir = \"{at}/tmp\"\n"));
        fs::write(folder.path().join("containers.conf"), settings).unwrap();
        Self { env: TestEnv::new(), folder, images: images.clone() }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A program that finds this store of podman's, and nothing of the machine's own.
    pub(crate) fn tool(&self, program: &Path) -> Command {
        let mut command = clean(program);
        command.env("CONTAINERS_CONF", self.file("containers.conf")).env("HOME", self.folder.path());
        command.env("CONTAINERS_STORAGE_CONF", self.file("storage.conf"));
        command
    }

    pub(crate) fn podman_allowed_to_fail(&self, arguments: &[&str]) -> Ran {
        run_within(self.tool(Path::new("podman")).args(arguments), b"", LONG)
    }

    #[track_caller]
    pub(crate) fn podman(&self, arguments: &[&str]) -> Ran {
        let ran = self.podman_allowed_to_fail(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {}\n{}", ran.said(), self.logs());
        ran
    }

    /// What all containers said.
    pub(crate) fn logs(&self) -> String {
        let all = self.podman_allowed_to_fail(&["ps", "--all", "--format", "{{.Names}}"]).stdout;
        let said = |name: &str| format!("{name}:\n{}", self.podman_allowed_to_fail(&["logs", name]).said());
        all.lines().filter(|name| !name.ends_with("-infra")).map(said).collect()
    }

    /// A home for a proxy that dials the origin there, with one listener that has these settings too; as a Secret, and
    /// what is shared with the agent.
    pub(crate) fn fill(&self, origin: &str, listener: &str) {
        let env = &self.env;
        env.secret("acme-key", &secret());
        let holder = env.mint("agent", &["acme:read path=/v1"]);
        let root = fs::read_to_string(env.home().join("root.pub")).unwrap();
        let toml = format!(
            "listen = \"off\"\nadmin = \"unix:admin.sock\"\n[roots]\n1 = \"{}\"\n\
             [upstream]\nroots = \"bundled\"\nextra_ca = \"origin-ca.pem\"\nconnect_to = {{ \"{HOST}:443\" = \"{origin}\" }}\n\
             [[listener]]\nname = \"agent\"\nlisten = \"{LISTENER}\"\ncapability = \"agent.cap\"\nkey = \"agent.key\"\n{listener}\n\
             [[service]]\nname = \"acme\"\ncredential = \"acme-key\"\nhosts = [\"{HOST}\"]\n\
             inject = \"Authorization: Bearer {{secret}}\"\nenv = {{ ACME_KEY = \"{PLACEHOLDER}\" }}\n",
            root.trim()
        );
        let home = env.home();
        fs::write(home.join("narrows.toml"), toml).unwrap();
        fs::set_permissions(home.join("narrows.toml"), fs::Permissions::from_mode(0o600)).unwrap();
        fs::copy(&holder.capability, home.join("agent.cap")).unwrap();
        fs::copy(&holder.key, home.join("agent.key")).unwrap();
        let share = self.file("share");
        env.capctl(&["env", "--listener", "agent", "--out", share.to_str().unwrap(), "--at", "/narrows"]).succeeded();

        // As the kubelet mounts a Secret where `fsGroup` is set: root's, lent to the group, behind a link.
        let (mounted, data) = (self.file("secret"), self.file("secret/..1"));
        self.lend(&data);
        symlink("..1", mounted.join("..data")).unwrap();
        for name in FILES.split(' ') {
            symlink(format!("..data/{name}"), mounted.join(name)).unwrap();
        }
        let origin = self.file("origin");
        fs::create_dir(&origin).unwrap();
        let (certificate, key) = env.ca.issue(HOST);
        for (name, text) in [("cert.pem", certificate), ("key.pem", key)] {
            fs::write(origin.join(name), text).unwrap();
        }
    }

    /// What the Secret holds in this folder: root's, lent to the sidecar's group.
    pub(crate) fn lend(&self, folder: &Path) {
        fs::create_dir_all(folder).unwrap();
        for file in FILES.split(' ').map(|name| folder.join(name)) {
            fs::copy(self.env.home().join(file.file_name().unwrap()), &file).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o440)).unwrap();
            chown(&file, Some(0), Some(NARROWS)).unwrap();
        }
    }

    /// The manifest of a variant for podman, with this test's agent in it.
    pub(crate) fn rendered(&self, python: &Path, variant: &str) -> String {
        let mut play = manifests::command(python, "play");
        play.arg(variant).arg(self.folder.path()).arg("localhost/narrows-test:latest");
        let pod = self.file("pod.yaml");
        fs::write(&pod, run(&mut play, b"").succeeded().stdout).unwrap();
        pod.to_str().unwrap().to_owned()
    }

    /// This program, for a process that is not root.
    pub(crate) fn program(&self) -> PathBuf {
        self.images.file("test/bin/test")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.podman_allowed_to_fail(&["pod", "rm", "--all", "--force", "--time", "1"]);
        let _ = self.podman_allowed_to_fail(&["rm", "--all", "--force", "--time", "1"]);
    }
}
