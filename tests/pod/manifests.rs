//! What holds of the manifests, whoever plays them. `tests/pod/manifests` reads them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::client::{clean, program, python as python_with, run, skip};

/// `tests/pod/manifests`, told what to do.
pub(crate) fn command(python: &Path, what: &str) -> Command {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = clean(python);
    command.arg(top.join("tests/pod/manifests")).arg(top.join("deploy")).arg(what);
    command
}

pub(crate) fn python(test: &str) -> Option<PathBuf> {
    let python = python_with("yaml");
    if python.is_none() {
        skip(test, "no Python with yaml");
    }
    python
}

#[test]
fn the_variants_with_an_ordinary_sidecar_differ_in_nothing_else() {
    let Some(python) = python("manifests") else { return };
    run(&mut command(&python, "check"), b"").succeeded();
    // The patches are applied there; kubectl, where it is to be had, must make the same of them.
    let Some(kubectl) = program("kubectl") else {
        println!("kubectl is not installed, so the variants have not been compared to its");
        return;
    };
    for variant in ["ordinary", "transparent-ordinary"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/kustomize").join(variant);
        let made = run(clean(&kubectl).arg("kustomize").arg(folder), b"").succeeded().stdout;
        run(command(&python, "same").arg(variant), made.as_bytes()).succeeded();
    }
}

#[test]
fn kubernetes_own_schemas_know_every_field() {
    let Some(python) = python_with("yaml, kubernetes_validate") else {
        return skip("manifests", "kubernetes-validate is not installed");
    };
    run(&mut command(&python, "schemas"), b"").succeeded();
}
