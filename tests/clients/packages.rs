//! Package managers against a registry of our own that wants a credential.

use std::path::{Path, PathBuf};

use crate::support::ca::Alpn;
use crate::support::client::{clean, installed, node, program, run, skip};
use crate::support::daemon::TestEnv;
use crate::support::origin::Origin;
use crate::{CARRIERS, SECRET, World};

fn registry(allow: &[&str], prepare: impl FnOnce(&TestEnv, &Origin)) -> World {
    World::with(Alpn::Both, allow, |env, origin| {
        env.secret("packages-key", SECRET);
        env.dial("packages.acme.test", origin);
        env.service(
            r#"name = "packages"
credential = "packages-key"
hosts = ["packages.acme.test"]
inject = "Authorization: Bearer {secret}"
encoded_slash = "opaque""#,
        );
        prepare(env, origin);
    })
}

fn every_request_had_the_secret(world: &World) {
    let seen = world.origin.seen();
    assert!(!seen.is_empty());
    for seen in seen {
        assert_eq!(seen.header("authorization"), Some(&*format!("Bearer {SECRET}")), "{seen:#?}");
    }
}

#[test]
fn npm() {
    let (Some(npm), Some(_), Some(tar)) = (program("npm"), node(""), program("tar")) else {
        return skip("npm", "there is no npm");
    };
    // A scoped name is one path segment with an encoded slash.
    let world = registry(&["packages:read path=/@acme%2Fwidget", "packages:read path=/files"], |env, origin| {
        let package = env.file("package");
        std::fs::create_dir(&package).unwrap();
        std::fs::write(package.join("package.json"), r#"{"name":"@acme/widget","version":"1.0.0"}"#).unwrap();
        std::fs::write(package.join("index.js"), "module.exports = 7;").unwrap();
        let tarball = env.file("widget.tgz");
        run(clean(&tar).arg("-czf").arg(&tarball).arg("-C").arg(env.file("")).arg("package"), b"").succeeded();
        origin.put("/files/widget-1.0.0.tgz", "application/octet-stream", std::fs::read(tarball).unwrap());
        origin.put(
            "/@acme%2fwidget",
            "application/json",
            r#"{"name":"@acme/widget","dist-tags":{"latest":"1.0.0"},"versions":{"1.0.0":{"name":"@acme/widget",
               "version":"1.0.0","dist":{"tarball":"https://packages.acme.test/files/widget-1.0.0.tgz"}}}}"#,
        );
        let text = origin.shared.files.lock().unwrap()["/@acme%2fwidget"].clone();
        origin.put("/@acme%2Fwidget", &text.0, text.1);
    });
    for carrier in CARRIERS {
        let project = world.env.file(&format!("project-{carrier:?}"));
        std::fs::create_dir(&project).unwrap();
        std::fs::write(project.join("package.json"), r#"{"name":"project","private":true}"#).unwrap();
        let install = |package: &str| {
            let mut command = world.under(carrier, &npm);
            command
                .env("npm_config_registry", "https://packages.acme.test/")
                .env("npm_config_cache", project.join("cache"));
            command.env("npm_config_update_notifier", "false").env("npm_config_fetch_retries", "0");
            command.args(["install", "--no-audit", "--no-fund", "--prefix"]).arg(&project).arg(package);
            run(&mut command, b"").never_says(SECRET)
        };
        install("@acme/widget").succeeded();
        assert!(project.join("node_modules/@acme/widget/index.js").is_file());
        install("@acme/other").failed().says("403");
    }
    every_request_had_the_secret(&world);
}

#[test]
fn pip() {
    let Some(pip) = pip_python() else { return skip("pip", "no Python with pip") };
    let world = registry(&["packages:read path=/simple/widget", "packages:read path=/files"], |env, origin| {
        let wheel = env.file("widget-1.0.0-py3-none-any.whl");
        run(clean(&pip).args(["-c", MAKE_WHEEL]).arg(&wheel), b"").succeeded();
        origin.put("/files/widget-1.0.0-py3-none-any.whl", "application/octet-stream", std::fs::read(wheel).unwrap());
        let page = r#"<!DOCTYPE html><a href="/files/widget-1.0.0-py3-none-any.whl">widget-1.0.0-py3-none-any.whl</a>"#;
        origin.put("/simple/widget/", "text/html", page);
    });
    for carrier in CARRIERS {
        let to = world.env.file(&format!("wheels-{carrier:?}"));
        let download = |package: &str| {
            let mut command = world.under(carrier, &pip);
            command.env("PIP_CONFIG_FILE", "/dev/null").args(["-m", "pip", "download", "--no-deps", "--no-cache-dir"]);
            command.args(["--disable-pip-version-check", "--retries", "0", "--no-input"]);
            command.args(["--index-url", "https://packages.acme.test/simple/", package, "--dest"]).arg(&to);
            run(&mut command, b"").never_says(SECRET)
        };
        download("widget").succeeded();
        assert!(to.join("widget-1.0.0-py3-none-any.whl").is_file());
        // pip tells nobody why: it saw no page for the name.
        download("other").failed().says("No matching distribution");
    }
    every_request_had_the_secret(&world);
}

fn pip_python() -> Option<PathBuf> {
    let has_pip =
        |python: &Path| clean(python).args(["-m", "pip", "--version"]).output().is_ok_and(|ran| ran.status.success());
    [Some(installed().join("venv/bin/python")), program("python3")].into_iter().flatten().find(|python| has_pip(python))
}

const MAKE_WHEEL: &str = r#"
import sys, zipfile
with zipfile.ZipFile(sys.argv[1], "w") as wheel:
    info = "widget-1.0.0.dist-info/"
    wheel.writestr("widget.py", "answer = 7\n")
    wheel.writestr(info + "METADATA", "Metadata-Version: 2.1\nName: widget\nVersion: 1.0.0\n")
    wheel.writestr(info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr(info + "RECORD", "")
"#;
