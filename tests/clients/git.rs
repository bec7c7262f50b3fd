//! git over https: clone and push through the catalogue's `github`, against a smart-HTTP origin of our own.

use std::path::{Path, PathBuf};
use std::process::Command;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::support::ca::Alpn;
use crate::support::client::{Ran, clean, program, run, skip};
use crate::{CARRIERS, Carrier, SECRET, World};

#[test]
fn clone_and_push() {
    let Some(git) = program("git") else { return skip("git", "there is no git") };
    let world = World::with(Alpn::Both, &["github repo=acme/widgets"], |env, origin| {
        env.catalogue("github", SECRET);
        env.dial("github.com", origin);
    });
    let upstream = world.env.file("upstream");
    for name in ["acme/widgets.git", "acme/other.git"] {
        bare_repository(&git, &upstream.join(name), &world.env.file(&format!("seed-{}", name.replace('/', "-"))));
    }
    world.origin.serve_git(upstream.clone());
    for carrier in CARRIERS {
        let tree = world.env.file(&format!("tree-{carrier:?}"));
        let within = |arguments: &[&str]| ran(git_under(&world, carrier, &git, &tree).args(arguments));
        let mut clone = world.under(carrier, &git);
        settings(&mut clone).args(["clone", "--quiet", "https://github.com/acme/widgets.git"]).arg(&tree);
        ran(&mut clone).succeeded();
        assert_eq!(std::fs::read_to_string(tree.join("README")).unwrap(), "widgets\n");
        // More than git's post buffer: the pack goes up chunked.
        std::fs::write(tree.join(format!("new-{carrier:?}")), noise(1_500_000)).unwrap();
        within(&["add", "."]).succeeded();
        within(&["commit", "--quiet", "-m", "more"]).succeeded();
        within(&["push", "--quiet", "origin", "HEAD:main"]).succeeded();
        let head = within(&["rev-parse", "HEAD"]).succeeded().stdout;
        let there = run(clean(&git).args(["rev-parse", "main"]).current_dir(upstream.join("acme/widgets.git")), b"");
        assert_eq!(there.succeeded().stdout, head);
        denied(&world, carrier, &git);
    }
    let basic = format!("Basic {}", STANDARD.encode(format!("x-access-token:{SECRET}")));
    for seen in world.origin.seen() {
        assert_eq!(seen.header("authorization"), Some(&*basic), "{seen:#?}");
        assert!(seen.path.starts_with("/acme/widgets.git/"), "{seen:#?}");
    }
}

/// git prints a body that is plain text.
fn denied(world: &World, carrier: Carrier, git: &Path) {
    let mut clone = world.under(carrier, git);
    settings(&mut clone).args(["clone", "https://github.com/acme/other.git"]).arg(world.env.file("never"));
    ran(&mut clone).failed().says("remote: ").says("capability_denied").says("capctl");
}

fn ran(command: &mut Command) -> Ran {
    run(command, b"").never_says(SECRET)
}

fn git_under(world: &World, carrier: Carrier, git: &Path, tree: &Path) -> Command {
    let mut command = world.under(carrier, git);
    settings(&mut command).arg("-C").arg(tree);
    command
}

/// Nothing of the machine's own git settings, and no question to anybody.
fn settings(command: &mut Command) -> &mut Command {
    command
        .env("GIT_CONFIG_NOSYSTEM", "1")
        .env("GIT_TERMINAL_PROMPT", "0")
        .env("GIT_AUTHOR_NAME", "tester")
        .env("GIT_AUTHOR_EMAIL", "tester@acme.test")
        .env("GIT_COMMITTER_NAME", "tester")
        .env("GIT_COMMITTER_EMAIL", "tester@acme.test")
}

fn bare_repository(git: &Path, to: &Path, seed: &Path) {
    let go = |arguments: &[&str], at: &Path| {
        let mut command = clean(git);
        command.env("HOME", seed).env("GIT_CONFIG_GLOBAL", "/dev/null");
        run(settings(&mut command).arg("-C").arg(at).args(arguments), b"").succeeded();
    };
    std::fs::create_dir_all(seed).unwrap();
    std::fs::create_dir_all(to).unwrap();
    go(&["init", "--quiet", "--bare", "-b", "main"], to);
    go(&["init", "--quiet", "-b", "main"], seed);
    std::fs::write(seed.join("README"), "widgets\n").unwrap();
    go(&["add", "."], seed);
    go(&["commit", "--quiet", "-m", "first"], seed);
    go(&["push", "--quiet", &PathBuf::from(to).display().to_string(), "main"], seed);
}

/// Bytes that no compression makes small, the same in each run.
fn noise(size: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_le_bytes()[0]
        })
        .collect()
}
