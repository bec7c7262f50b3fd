//! The golden vectors: every file here holds, and is what the generator writes.
//!
//! `NARROWS_WRITE_VECTORS=1 cargo test --test vectors` writes the files; the difference is then to be read.

#![expect(clippy::expect_used, clippy::panic, reason = "helpers of tests")]

use std::fs;
use std::path::PathBuf;

use serde_json::Value;

#[path = "../capability_attacks/forge.rs"]
#[expect(dead_code, reason = "shared with another test, which uses all of it")]
mod forge;
mod generate;
mod run;

fn path(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)
}

fn read(name: &str) -> Value {
    let text = fs::read_to_string(path(name)).expect("a file of vectors");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn the_generator_gives_these_files_byte_for_byte() {
    for (name, value) in generate::files() {
        let text = serde_json::to_string_pretty(&value).expect("serializes") + "\n";
        if std::env::var_os("NARROWS_WRITE_VECTORS").is_some() {
            fs::write(path(name), &text).expect("written");
        }
        let file = fs::read_to_string(path(name)).expect("a file of vectors");
        let same = file.lines().zip(text.lines()).position(|(is, should)| is != should);
        assert!(
            file == text,
            "{name} differs from what the generator gives, first in line {:?}",
            same.map(|at| at + 1)
        );
    }
}

#[test]
fn capabilities() {
    run::capabilities(&read("capabilities.json"));
}

#[test]
fn requests() {
    run::requests(&read("capabilities.json"), &read("requests.json"));
}

#[test]
fn proofs() {
    run::proofs(&read("proofs.json"));
}

#[test]
fn credentials() {
    run::credentials(&read("credentials.json"));
}

#[test]
fn grants() {
    run::grants(&read("grants.json"));
}

#[test]
fn there_are_enough_of_them_and_each_has_its_own_name() {
    let mut total = 0;
    for name in ["capabilities.json", "requests.json", "proofs.json", "credentials.json", "grants.json"] {
        let file = read(name);
        let names: Vec<&str> = run::cases(&file).map(|case| run::text(case, "name")).collect();
        let unique: std::collections::BTreeSet<&str> = names.iter().copied().collect();
        assert_eq!(unique.len(), names.len(), "{name} repeats a name");
        total += names.len();
    }
    assert!(total >= 120, "{total}");
}
