//! `deploy/Dockerfile`, built by buildah with a stand-in for cargo: everything in it runs but the compiler, whose flags are
//! compared to those that `deploy/image` gives it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::images::{Images, LONG, programs};
use crate::support::client::run_within;

/// Its binaries say how they were to be built.
const CARGO: &str = r#"#!/usr/bin/env bash
set -eu
said="cargo $* RUSTFLAGS=$RUSTFLAGS CFLAGS=$CFLAGS"
said=${said//=$CARGO_TARGET_DIR=/=TARGET=}
said=${said//=$PWD=/=HERE=}
said=${said//=${CARGO_HOME:-$HOME/.cargo}=/=CARGO=}
while [ "$1" != --profile ]; do shift; done
profile=$2
while [ "$1" != --target ]; do shift; done
folder=$CARGO_TARGET_DIR/$2/$profile
install -d "$folder"
for name in narrows capctl; do echo "$name: $said" > "$folder/$name"; done
"#;

#[test]
fn the_dockerfile_makes_what_deploy_image_makes() {
    let Some(images) = Images::get("dockerfile") else { return };
    let top = Path::new(env!("CARGO_MANIFEST_DIR"));
    // An image with Rust and a compiler, as far as the Dockerfile can tell.
    let rust = programs(&["bash", "dirname", "env", "install", "sh", "sha256sum", "uname"], &images.file("rust"));
    let cargo = rust.join("bin/cargo");
    fs::write(&cargo, CARGO).unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(rust.join("usr")).unwrap();
    symlink("../bin", rust.join("usr/bin")).unwrap();
    images.of(&rust, "rust:latest", &["--env", "CARGO_HOME=/usr/local/cargo"]);

    let mut build = images.buildah();
    build.args(["build", "--isolation", "chroot", "--pull-never", "--build-arg", "RUST=localhost/rust:latest"]);
    build.args(["--tag", "by-dockerfile", "--file"]).arg(top.join("deploy/Dockerfile")).arg(top);
    let said = run_within(&mut build, b"", LONG).succeeded().said();
    let mut build = images.with_buildah(&top.join("deploy/image"));
    let path = std::env::join_paths(
        [cargo.parent().unwrap().to_owned()]
            .into_iter()
            .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap())),
    );
    build.env("PATH", path.unwrap()).env("TARGET_DIR", images.file("built")).env("NAME", "by-image");
    run_within(&mut build, b"", LONG).succeeded();

    let (one, other) = (Image::read(&images, "by-dockerfile"), Image::read(&images, "by-image"));
    assert_eq!(one, other, "{said}");
    let narrows = &one.files[Path::new("bin/narrows")];
    for flag in ["--locked", "--profile dist", "--features jemalloc", "+crt-static", "=TARGET=/target", "=CARGO=/cargo"]
    {
        assert!(narrows.contains(flag), "{flag}: {narrows}");
    }
    assert!(one.files[Path::new("var/lib/narrows")].starts_with("40700 27080:27080"), "{one:#?}");
    assert!(one.files[Path::new("var/lib")].starts_with("40755 0:0"), "{one:#?}");
}

/// All that a container sees of an image.
#[derive(Debug, PartialEq)]
struct Image {
    settings: Value,
    /// Mode, owner and content of each path.
    files: BTreeMap<PathBuf, String>,
}

impl Image {
    fn read(images: &Images, name: &str) -> Self {
        let about: Value = serde_json::from_str(&images.ask_buildah(&["inspect", "--type", "image", name])).unwrap();
        let mut settings = about["OCIv1"]["config"].clone();
        settings["Labels"].as_object_mut().unwrap().remove("io.buildah.version");
        let container = images.ask_buildah(&["from", "--pull-never", name]);
        let root = PathBuf::from(images.ask_buildah(&["mount", &container]));
        let (mut files, mut folders) = (BTreeMap::new(), vec![root.clone()]);
        while let Some(folder) = folders.pop() {
            for path in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
                let about = path.symlink_metadata().unwrap();
                let content = if about.is_dir() { String::new() } else { fs::read_to_string(&path).unwrap() };
                let said = format!("{:o} {}:{} {content}", about.mode(), about.uid(), about.gid());
                files.insert(path.strip_prefix(&root).unwrap().to_owned(), said);
                if about.is_dir() {
                    folders.push(path);
                }
            }
        }
        images.ask_buildah(&["rm", &container]);
        Self { settings, files }
    }
}
